//! Passwords and keys: at once by the agent in the guest, or with the config drive of the next boot.

use serde_json::json;
use skyloom_cloud::{CreateKeypair, SetServerKeys, SetServerPassword};
use skyloom_hypervisor::EffectKind;
use skyloom_model::{Resource as _, Secret, ServerAction, ServerId, ServerSecrets, Task, TaskState, paths};

use crate::server_actions::Site;
use crate::world::server;

const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJX0NWVkXQ5sbKdNNMgH4k1kcaaz4Qw7oJkqHeT0iKsl";

impl Site {
    fn drive(&self, id: ServerId) -> String {
        let storage = self.world.hosts[&self.host].fake.storage();
        storage.seed_sha256(id).unwrap().unwrap()
    }

    async fn hash(&self, id: ServerId) -> String {
        let at = paths::server_secrets(self.member.project, id);
        let documents = self.world.documents("secrets").await;
        let secrets: ServerSecrets = serde_json::from_str(&documents[&at]).unwrap();
        secrets.password_hash
    }

    /// A server with a config drive.
    async fn driven(&self) -> ServerId {
        let mut request = server("web", self.image);
        request.config_drive = Some(true);
        let made = self.world.cloud.create_server(&self.member, request).await;
        let made = made.unwrap();
        assert_eq!(self.carry(&made.task).await.state, TaskState::Done);
        made.server.id()
    }

    async fn set_password(&self, id: ServerId) -> (Task, String) {
        let asked = self
            .world
            .cloud
            .set_server_password(&self.member, id, SetServerPassword::default())
            .await
            .unwrap();
        let shown = asked.password.unwrap().expose().to_owned();
        (self.carry(&asked.task).await, shown)
    }

    fn set_in_guest(&self, id: ServerId) -> usize {
        let effects = self.world.hosts[&self.host].fake.effects_of(id).unwrap();
        let set = |kind: &&EffectKind| matches!(kind, EffectKind::PasswordSet { user } if user == "skyloom");
        effects.iter().filter(set).count()
    }
}

#[tokio::test]
async fn the_agent_sets_a_password_and_no_record_holds_it() {
    let site = Site::new().await;
    let id = site.driven().await;
    let (hash, drive) = (site.hash(id).await, site.drive(id));
    let (task, password) = site.set_password(id).await;
    assert_eq!(task.state, TaskState::Done, "{:?}", task.reason);
    assert_eq!(
        task.result,
        Some(json!({"guest": {"answer": "set"}, "config_drive": true}))
    );
    assert_eq!(site.set_in_guest(id), 1);
    let after = site.hash(id).await;
    assert!(after.starts_with("$6$") && after != hash);
    assert_ne!(site.drive(id), drive, "a rebuilt disk gets the new one, too");
    assert!(site.server(id).await.pending_restart().is_empty());
    let all = site.world.documents("").await;
    let holds = |what: &str| -> Vec<&String> {
        all.iter()
            .filter(|(_, text)| text.contains(what))
            .map(|(key, _)| key)
            .collect()
    };
    assert!(holds(&password).is_empty(), "{:?}", holds(&password));
    assert_eq!(
        holds(&after),
        [&paths::server_secrets(site.member.project, id)],
        "its hash is in one record"
    );
}

#[tokio::test]
async fn without_an_agent_the_next_boot_sets_it() {
    let site = Site::new().await;
    let id = site.driven().await;
    site.world.hosts[&site.host].fake.no_agent(id, true).unwrap();
    let (task, _) = site.set_password(id).await;
    assert_eq!(
        task.result,
        Some(json!({"guest": {"answer": "silent"}, "config_drive": true}))
    );
    assert_eq!(site.set_in_guest(id), 0);
    assert_eq!(site.server(id).await.pending_restart(), ["config_drive"]);
    let rebooted = site
        .world
        .cloud
        .reboot_server(&site.member, id, skyloom_cloud::StopOptions::default())
        .await;
    site.carry(&rebooted.unwrap().task).await;
    let server = site.server(id).await;
    assert!(server.pending_restart().is_empty());
    assert_eq!(server.status.drive_edition, 1);
}

#[tokio::test]
async fn keys_come_with_the_next_boot() {
    let site = Site::new().await;
    let id = site.driven().await;
    let cloud = &site.world.cloud;
    let key = CreateKeypair {
        name: "laptop".into(),
        public_key: KEY.into(),
    };
    cloud.create_keypair(&site.member, key).await.unwrap();
    let of = |names: &[&str]| SetServerKeys {
        keypairs: names.iter().map(|&name| name.to_owned()).collect(),
    };
    let unknown = cloud
        .set_server_keys(&site.member, id, of(&["laptop", "none"]))
        .await
        .unwrap_err();
    assert_eq!(unknown.code(), "keypair.not_found");
    assert!(site.server(id).await.status.activity.is_none());
    let asked = cloud
        .set_server_keys(&site.member, id, of(&["laptop"]))
        .await
        .unwrap();
    let drive = site.drive(id);
    let task = site.carry(&asked.task).await;
    assert_eq!(task.result, Some(json!({"guest": null, "config_drive": true})));
    let server = site.server(id).await;
    assert_eq!(server.spec.ssh_keys.len(), 1);
    assert_eq!(server.pending_restart(), ["config_drive"]);
    assert_ne!(site.drive(id), drive);
}

#[tokio::test]
async fn what_cannot_be_carried_to_the_guest_is_refused() {
    let site = Site::new().await;
    let mut bare = server("bare", site.image);
    bare.config_drive = Some(false);
    let cloud = &site.world.cloud;
    let made = cloud.create_server(&site.member, bare).await.unwrap();
    site.carry(&made.task).await;
    let id = made.server.id();
    let keys = cloud
        .set_server_keys(&site.member, id, SetServerKeys::default())
        .await;
    assert_eq!(keys.unwrap_err().code(), "server.no_config_drive");
    let weak = SetServerPassword {
        password: Some(Secret::new("short".into())),
    };
    let weak = cloud.set_server_password(&site.member, id, weak).await;
    assert_eq!(weak.unwrap_err().code(), "password.weak");

    // The agent alone is enough while it answers.
    let (task, _) = site.set_password(id).await;
    assert_eq!(
        task.result,
        Some(json!({"guest": {"answer": "set"}, "config_drive": false}))
    );
    site.world.hosts[&site.host].fake.no_agent(id, true).unwrap();
    let (task, _) = site.set_password(id).await;
    assert_eq!(
        (task.state, task.reason.unwrap().code.as_str()),
        (TaskState::Failed, "guest.no_agent")
    );
    site.act(id, ServerAction::HardReboot).await;
    let off = cloud
        .stop_server(&site.member, id, skyloom_cloud::StopOptions::default())
        .await;
    site.carry(&off.unwrap().task).await;
    let off = cloud
        .set_server_password(&site.member, id, SetServerPassword::default())
        .await;
    assert_eq!(off.unwrap_err().code(), "server.no_config_drive");
}
