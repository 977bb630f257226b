//! Actions of servers, from the request to what the host and the record are afterwards.

use std::collections::BTreeMap;
use std::time::Duration;

use skyloom_cloud::{
    Caller, DeleteServer, ErrorKind, LockServer, RebuildServer, StopOptions, Suspects, UpdateServer,
};
use skyloom_identity::BuiltIn;
use skyloom_model::{
    Host, HostId, ImageId, Lifecycle, PowerState, Resource as _, Scope, Server, ServerAction, ServerId, Task,
    TaskState, paths,
};
use skyloom_store::{Txn, Value, Versioned};

use crate::engine::{Engine, active_image};
use crate::world::{World, caller, key, server};

pub(crate) struct Site {
    pub(crate) world: World,
    pub(crate) admin: Caller,
    pub(crate) member: Caller,
    pub(crate) host: HostId,
    pub(crate) image: ImageId,
}

impl Site {
    pub(crate) async fn new() -> Self {
        let mut world = World::new();
        let admin = world.admin().await;
        let member = world.member(&admin, "shop").await;
        let host = world.host(&admin, "h1").await;
        let image = active_image(&world, &member).await;
        Self {
            world,
            admin,
            member,
            host,
            image,
        }
    }

    pub(crate) async fn carry(&self, task: &Task) -> Task {
        Engine::new(&self.world).await.carry(task).await
    }

    pub(crate) async fn created(&self, name: &str) -> ServerId {
        let made = self
            .world
            .cloud
            .create_server(&self.member, server(name, self.image))
            .await;
        let made = made.unwrap();
        assert_eq!(self.carry(&made.task).await.state, TaskState::Done);
        made.server.id()
    }

    pub(crate) async fn act(&self, id: ServerId, action: ServerAction) -> Server {
        let asked = self
            .world
            .cloud
            .simple_action(&self.member, id, action)
            .await
            .unwrap();
        let ended = self.carry(&asked.task).await;
        assert_eq!(ended.state, TaskState::Done, "{action:?}: {:?}", ended.reason);
        self.server(id).await
    }

    pub(crate) async fn server(&self, id: ServerId) -> Server {
        self.world.cloud.get_server(&self.member, id).await.unwrap().value
    }

    pub(crate) fn operator(&self) -> Caller {
        Caller {
            project: self.member.project,
            lineage: self.member.lineage.clone(),
            ..self.admin.clone()
        }
    }

    pub(crate) fn domain(&self, id: ServerId) -> Option<skyloom_hypervisor::FakeDomain> {
        self.world.hosts[&self.host].fake.domain(id).unwrap()
    }
}

#[tokio::test]
async fn a_guest_is_held_and_goes_on_and_keeps_its_memory_on_disk() {
    let site = Site::new().await;
    let id = site.created("web").await;
    let boots = site.domain(id).unwrap().boots;
    for (action, power, wanted) in [
        (ServerAction::Pause, PowerState::Paused, true),
        (ServerAction::Unpause, PowerState::Running, true),
        (ServerAction::Suspend, PowerState::Suspended, false),
        (ServerAction::Resume, PowerState::Running, true),
        (ServerAction::Pause, PowerState::Paused, true),
        (ServerAction::Suspend, PowerState::Suspended, false),
    ] {
        let server = site.act(id, action).await;
        assert_eq!(
            (server.status.power, server.spec.running),
            (power, wanted),
            "{action:?}"
        );
        assert_eq!(site.domain(id).unwrap().power, power, "{action:?}");
        assert_eq!(server.status.fault, None);
    }
    let started = site.act(id, ServerAction::Start).await;
    assert!(
        started.status.power.may_execute(),
        "a start goes on with the memory"
    );
    assert_eq!(site.domain(id).unwrap().spec.generation, started.meta.generation);
    assert!(site.domain(id).unwrap().boots >= boots);
}

#[tokio::test]
async fn what_the_hosts_hypervisor_cannot_do_is_refused_before_there_is_a_task() {
    let site = Site::new().await;
    let id = site.created("web").await;
    let at = key(&paths::resource(Host::KIND, Scope::System, site.host.uuid()));
    let found = site.world.store.get(&at).await.unwrap().unwrap();
    let mut host: Versioned<Host> = Versioned::decode(&found).unwrap();
    host.value
        .status
        .facts
        .as_mut()
        .unwrap()
        .traits
        .retain(|t| t != "pause" && t != "screenshot");
    let txn = Txn::new().put(at, Value::json(&host.value).unwrap());
    site.world.store.commit(txn).await.unwrap();
    let refused = site
        .world
        .cloud
        .simple_action(&site.member, id, ServerAction::Pause)
        .await;
    assert_eq!(refused.unwrap_err().code(), "host.cannot");
    let refused = site.world.cloud.screenshot(&site.member, id).await;
    assert_eq!(refused.unwrap_err().code(), "host.cannot");
    assert_eq!(site.server(id).await.status.activity, None);
    site.act(id, ServerAction::Suspend).await;
}

#[tokio::test]
async fn a_restart_takes_over_what_is_wanted_by_then() {
    let site = Site::new().await;
    let id = site.created("web").await;
    let made_of = site.server(id).await.status.applied.unwrap();
    assert_eq!(made_of.disks, ["root", "seed"]);
    // As a resize will write it.
    let at = key(&paths::resource(Server::KIND, site.member.scope(), id.uuid()));
    let mut wanted = site.server(id).await;
    wanted.spec.flavor.spec.resources.vcpus += 1;
    assert_eq!(wanted.pending_restart(), ["flavor"]);
    let txn = Txn::new().put(at, Value::json(&wanted).unwrap());
    site.world.store.commit(txn).await.unwrap();
    let reboot = site
        .world
        .cloud
        .reboot_server(&site.member, id, StopOptions::default());
    assert_eq!(
        site.carry(&reboot.await.unwrap().task).await.state,
        TaskState::Done
    );
    assert_eq!(site.domain(id).unwrap().spec.vcpus, made_of.resources.vcpus + 1);
    assert!(site.server(id).await.pending_restart().is_empty());
}

#[tokio::test]
async fn a_locked_server_is_left_alone_by_all_but_who_may_unlock_any() {
    let site = Site::new().await;
    let id = site.created("web").await;
    let cloud = &site.world.cloud;
    let why = LockServer {
        why: "month end".to_owned(),
    };
    let locked = cloud.lock_server(&site.member, id, why).await.unwrap();
    let lock = locked.status.lock.unwrap();
    assert_eq!(
        (lock.by.id.as_str(), lock.why.as_str()),
        (site.member.actor.id.as_str(), "month end")
    );
    for action in [ServerAction::Pause, ServerAction::Purge, ServerAction::HardReboot] {
        let refused = cloud.simple_action(&site.member, id, action).await.unwrap_err();
        assert_eq!(
            (refused.kind(), refused.code()),
            (ErrorKind::Conflict, "server.locked")
        );
    }
    let refused = cloud
        .update_server(&site.member, id, UpdateServer::default())
        .await;
    assert_eq!(refused.unwrap_err().code(), "server.locked");
    let refused = cloud.edit_server(&site.member, id, ServerAction::Protect).await;
    assert_eq!(refused.unwrap_err().code(), "server.locked");
    let other = Caller {
        actor: caller(BuiltIn::Member, skyloom_model::ProjectId::from_uuid(id.uuid())).actor,
        ..site.member.clone()
    };
    let refused = cloud.edit_server(&other, id, ServerAction::Unlock).await;
    assert_eq!(refused.unwrap_err().code(), "server.locked_by_other");
    let operator = site.operator();
    let stop = cloud
        .stop_server(&operator, id, StopOptions::default())
        .await
        .unwrap();
    assert_eq!(
        site.carry(&stop.task).await.state,
        TaskState::Done,
        "operators may"
    );
    let free = cloud
        .edit_server(&site.member, id, ServerAction::Unlock)
        .await
        .unwrap();
    assert_eq!((free.status.overlays.locked, free.status.lock), (false, None));
    site.act(id, ServerAction::Start).await;
}

#[tokio::test]
async fn a_protected_server_is_not_deleted() {
    let site = Site::new().await;
    let id = site.created("web").await;
    let cloud = &site.world.cloud;
    let server = cloud
        .edit_server(&site.member, id, ServerAction::Protect)
        .await
        .unwrap();
    assert!(server.status.overlays.protected);
    let keep = DeleteServer { keep_hours: Some(5) };
    for refused in [
        cloud.delete_server(&site.member, id).await.unwrap_err(),
        cloud.remove_server(&site.operator(), id, keep).await.unwrap_err(),
        cloud
            .simple_action(&site.member, id, ServerAction::Purge)
            .await
            .unwrap_err(),
    ] {
        assert_eq!(refused.code(), "server.protected");
    }
    site.act(id, ServerAction::HardReboot).await;
    cloud
        .edit_server(&site.member, id, ServerAction::Unprotect)
        .await
        .unwrap();
    let gone = cloud.delete_server(&site.member, id).await.unwrap();
    assert_eq!(site.carry(&gone.task).await.state, TaskState::Done);
}

#[tokio::test]
async fn names_labels_and_metadata_change_at_once_also_under_a_task() {
    let site = Site::new().await;
    let cloud = &site.world.cloud;
    let made = cloud
        .create_server(&site.member, server("web", site.image))
        .await
        .unwrap();
    let id = made.server.id();
    let change = UpdateServer {
        name: Some("shop-1".to_owned()),
        labels: Some(BTreeMap::from([("env".to_owned(), "test".to_owned())])),
        metadata: None,
        ..UpdateServer::default()
    };
    let changed = cloud.update_server(&site.member, id, change).await.unwrap();
    assert_eq!(
        (changed.meta.name.as_str(), changed.meta.labels["env"].as_str()),
        ("shop-1", "test")
    );
    assert_eq!(site.carry(&made.task).await.state, TaskState::Done);
    let built = cloud.get_server(&site.member, id).await.unwrap();
    assert_eq!(
        (built.value.meta.name.as_str(), built.value.status.lifecycle),
        ("shop-1", Lifecycle::Active)
    );
    let old = Caller {
        if_match: Some(built.created),
        ..site.member.clone()
    };
    let refused = cloud
        .update_server(&old, id, UpdateServer::default())
        .await
        .unwrap_err();
    assert_eq!(refused.code(), "precondition.failed");
    let wrong = UpdateServer {
        name: Some(String::new()),
        ..UpdateServer::default()
    };
    assert_eq!(
        cloud
            .update_server(&site.member, id, wrong)
            .await
            .unwrap_err()
            .code(),
        "name.invalid"
    );
}

#[tokio::test]
async fn the_recycle_bin_keeps_a_server_until_its_time_is_over() {
    let site = Site::new().await;
    let cloud = &site.world.cloud;
    let (kept, purged) = (site.created("kept").await, site.created("purged").await);
    let keep = DeleteServer { keep_hours: Some(2) };
    for id in [kept, purged] {
        let asked = cloud.remove_server(&site.member, id, keep).await.unwrap();
        assert_eq!(asked.task.flow, "server.recycle");
        assert_eq!(site.carry(&asked.task).await.state, TaskState::Done);
        let server = site.server(id).await;
        assert_eq!(
            (server.status.lifecycle, server.status.power, server.spec.running),
            (Lifecycle::Recycled, PowerState::Stopped, false)
        );
        assert!(server.status.purge_at.is_some());
        assert_eq!(site.domain(id).unwrap().power, PowerState::Stopped);
        let refused = cloud.start_server(&site.member, id).await.unwrap_err();
        assert_eq!(refused.code(), "server.recycled");
    }
    let back = cloud
        .edit_server(&site.member, kept, ServerAction::Restore)
        .await
        .unwrap();
    assert_eq!(
        (back.status.lifecycle, back.status.purge_at),
        (Lifecycle::Active, None)
    );
    let refused = cloud.edit_server(&site.member, kept, ServerAction::Restore).await;
    assert_eq!(refused.unwrap_err().code(), "server.active");
    site.act(kept, ServerAction::Start).await;

    let mut suspects = Suspects::default();
    assert_eq!(cloud.reconcile(&mut suspects).await.unwrap().due, 0);
    site.world.clock.advance(Duration::from_secs(7200));
    assert_eq!(cloud.reconcile(&mut suspects).await.unwrap().due, 1);
    assert_eq!(
        cloud.reconcile(&mut suspects).await.unwrap().due,
        0,
        "it is asked for once"
    );
    let task = site.server(purged).await.status.activity.unwrap().task;
    let task = cloud.get_task(&site.member, task).await.unwrap().value;
    assert_eq!(site.carry(&task).await.state, TaskState::Done);
    assert!(site.domain(purged).is_none());
    assert!(site.domain(kept).is_some());
}

#[tokio::test]
async fn a_cloud_with_a_recycle_bin_uses_it_by_itself_and_a_second_delete_removes() {
    let mut site = Site::new().await;
    site.world.cloud = site.world.cloud.clone().with_recycle_bin(24);
    let id = site.created("web").await;
    for (flow, there) in [("server.recycle", true), ("server.delete", false)] {
        let asked = site.world.cloud.delete_server(&site.member, id).await.unwrap();
        assert_eq!(asked.task.flow, flow);
        assert_eq!(site.carry(&asked.task).await.state, TaskState::Done);
        assert_eq!(site.domain(id).is_some(), there);
    }
    let long = DeleteServer {
        keep_hours: Some(9000),
    };
    let refused = site
        .world
        .cloud
        .remove_server(&site.member, id, long)
        .await
        .unwrap_err();
    assert_eq!(refused.code(), "keep_hours.invalid");
}

#[tokio::test]
async fn a_records_state_is_reset_to_what_the_host_says_and_to_nothing_else() {
    let site = Site::new().await;
    let (there, gone) = (site.created("there").await, site.created("gone").await);
    for id in [there, gone] {
        let at = key(&paths::resource(Server::KIND, site.member.scope(), id.uuid()));
        let mut wrong = site.server(id).await;
        wrong.status.lifecycle = Lifecycle::Error;
        wrong.status.power = PowerState::Stopped;
        let txn = Txn::new().put(at, Value::json(&wrong).unwrap());
        site.world.store.commit(txn).await.unwrap();
    }
    let fake = &site.world.hosts[&site.host].fake;
    let hypervisor = fake.hypervisor();
    skyloom_hypervisor::Hypervisor::undefine(&hypervisor, gone, 100)
        .await
        .unwrap();
    let refused = site
        .world
        .cloud
        .simple_action(&site.member, there, ServerAction::ResetState)
        .await;
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::Denied, "operators only");
    for (id, lifecycle, power, code) in [
        (there, Lifecycle::Active, PowerState::Running, None),
        (
            gone,
            Lifecycle::Error,
            PowerState::Stopped,
            Some("server.no_domain"),
        ),
    ] {
        let asked = site
            .world
            .cloud
            .simple_action(&site.operator(), id, ServerAction::ResetState)
            .await;
        assert_eq!(site.carry(&asked.unwrap().task).await.state, TaskState::Done);
        let status = site.server(id).await.status;
        assert_eq!((status.lifecycle, status.power), (lifecycle, power));
        assert_eq!(status.fault.map(|f| f.code).as_deref(), code);
    }
}

#[tokio::test]
async fn a_hard_reboot_brings_back_a_server_that_is_in_error() {
    let site = Site::new().await;
    let id = site.created("web").await;
    let at = key(&paths::resource(Server::KIND, site.member.scope(), id.uuid()));
    let mut wrong = site.server(id).await;
    wrong.status.lifecycle = Lifecycle::Error;
    let txn = Txn::new().put(at, Value::json(&wrong).unwrap());
    site.world.store.commit(txn).await.unwrap();
    let boots = site.domain(id).unwrap().boots;
    let server = site.act(id, ServerAction::HardReboot).await;
    assert_eq!(
        (server.status.lifecycle, server.status.power),
        (Lifecycle::Active, PowerState::Running)
    );
    assert_eq!(site.domain(id).unwrap().boots, boots + 1);
}

#[tokio::test]
async fn a_rebuilt_server_has_a_new_root_disk_and_all_else_as_before() {
    let site = Site::new().await;
    let id = site.created("web").await;
    let (before, made_of) = (site.server(id).await, site.domain(id).unwrap().spec);
    let other = active_image(&site.world, &site.member).await;
    let request = RebuildServer {
        image: Some(other.to_string()),
        ..RebuildServer::default()
    };
    let cloud = &site.world.cloud;
    let asked = cloud
        .rebuild_server(&site.member, id, request.clone())
        .await
        .unwrap();
    assert_eq!(asked.server.spec.image, before.spec.image, "until it is done");
    let ended = site.carry(&asked.task).await;
    assert_eq!(ended.state, TaskState::Done, "{:?}", ended.reason);
    let after = site.server(id).await;
    assert_eq!((after.id(), after.spec.image.id), (id, other));
    assert_eq!(
        (&after.spec.ports, &after.status.addresses),
        (&before.spec.ports, &before.status.addresses)
    );
    assert_eq!(after.status.power, PowerState::Running);
    let domain = site.domain(id).unwrap().spec;
    assert_eq!(domain.nics, made_of.nics);
    let root = after.status.root_disk.clone().unwrap();
    assert_eq!(domain.disks[0].name, root);
    assert_eq!(after.status.spare_disks, ["root"]);

    let mut suspects = Suspects::default();
    assert_eq!(cloud.reconcile(&mut suspects).await.unwrap().spare, 1);
    let task = site.server(id).await.status.activity.unwrap().task;
    let task = cloud.get_task(&site.member, task).await.unwrap().value;
    assert_eq!(
        (task.flow.as_str(), site.carry(&task).await.state),
        ("server.tidy", TaskState::Done)
    );
    let storage = site.world.hosts[&site.host].fake.storage();
    let disks = skyloom_hypervisor::HostStorage::disks(&storage, id)
        .await
        .unwrap();
    let names: Vec<&str> = disks.iter().map(|d| d.name.as_str()).collect();
    assert_eq!(names, [root.as_str(), "seed"]);
    assert_eq!(cloud.reconcile(&mut suspects).await.unwrap().spare, 0);

    cloud
        .edit_server(&site.member, id, ServerAction::Protect)
        .await
        .unwrap();
    let refused = cloud.rebuild_server(&site.member, id, request).await.unwrap_err();
    assert_eq!(refused.code(), "server.protected");
}
