//! What is taken for nobody's, and what is left alone.

use std::collections::BTreeMap;

use serde_json::{Value as Json, json};
use skyloom_cloud::{Caller, SweepHost};
use skyloom_hypervisor::{FakeWorld, HostStorage as _, Hypervisor as _, VmSpec};
use skyloom_model::{
    Claim, Host, HostId, HostLedger, Resource as _, Resources, Server, ServerId, Task, TaskState,
    VmObservation, paths,
};
use skyloom_scheduler::claim;
use skyloom_store::{Txn, Value};

use crate::engine::{Engine, active_image};
use crate::world::{World, key, server};

struct Site {
    world: World,
    admin: Caller,
    hosts: Vec<HostId>,
    /// Lives on one of the hosts.
    server: Server,
}

async fn site(hosts: usize) -> Site {
    let mut world = World::new();
    let admin = world.admin().await;
    let mut ids = Vec::new();
    for n in 1..=hosts {
        ids.push(world.host(&admin, &format!("h{n}")).await);
    }
    let image = active_image(&world, &admin).await;
    let made = world
        .cloud
        .create_server(&admin, server("s", image))
        .await
        .unwrap();
    Engine::new(&world).await.carry(&made.task).await;
    let server = world
        .cloud
        .get_server(&admin, made.server.id())
        .await
        .unwrap()
        .value;
    Site {
        world,
        admin,
        hosts: ids,
        server,
    }
}

impl Site {
    fn home(&self) -> HostId {
        self.server.status.placement.as_ref().unwrap().host
    }

    fn other(&self) -> HostId {
        *self.hosts.iter().find(|h| **h != self.home()).unwrap()
    }

    fn fake(&self, host: HostId) -> &FakeWorld {
        &self.world.hosts[&host].fake
    }

    async fn put<T: serde::Serialize>(&self, path: &str, document: &T) {
        let txn = Txn::new().put(key(path), Value::json(document).unwrap());
        self.world.store.commit(txn).await.unwrap();
    }

    async fn domain(&self, host: HostId, id: ServerId, generation: u64) {
        let spec = VmSpec {
            boot: skyloom_hypervisor::Boot::FirstDisk,
            id,
            project: self.admin.project,
            generation,
            name: "left".to_owned().try_into().unwrap(),
            vcpus: 1,
            memory_mib: 64,
            disks: Vec::new(),
            nics: Vec::new(),
        };
        self.fake(host).hypervisor().define(&spec).await.unwrap();
        self.fake(host)
            .storage()
            .create_seed(id, "seed", b"left")
            .await
            .unwrap();
        let seen = VmObservation {
            server: id,
            project: self.admin.project,
            generation,
            power: skyloom_model::PowerState::Stopped,
            cause: None,
            accelerator: None,
            observed_at: jiff::Timestamp::UNIX_EPOCH,
        };
        self.put(&paths::host_vm(host, id), &seen).await;
    }

    async fn claimed(&self, host: HostId, server: ServerId, scope: bool) {
        let found = self.world.store.get(&key(&paths::ledger(host))).await.unwrap();
        let ledger: HostLedger = found.unwrap().value.parse().unwrap();
        let made = Claim {
            server,
            scope: scope.then(|| self.admin.scope()),
            resources: Resources {
                vcpus: 1,
                memory_mib: 64,
                disk_gib: 1,
            },
            group: Some("g".to_owned()),
        };
        self.put(&paths::ledger(host), &claim(&ledger, &made)).await;
        self.put(&paths::claim(host, server), &made).await;
    }

    async fn sweep(&self, host: HostId, remove: bool) -> Task {
        let sweep = self
            .world
            .cloud
            .sweep_host(&self.admin, host, SweepHost { remove });
        let task = sweep.await.unwrap().task;
        Engine::new(&self.world).await.carry(&task).await
    }

    async fn release(&self, host: HostId, servers: &[ServerId]) -> Json {
        let subject: Host = self.world.cloud.get_host(&self.admin, host).await.unwrap().value;
        let params = json!({ "servers": servers });
        let task = self
            .world
            .cloud
            .own_task("test", "claim.release", &subject, params);
        let task = self
            .world
            .cloud
            .submit_once(&task.id.to_string(), task)
            .await
            .unwrap();
        let ended = Engine::new(&self.world).await.carry(&task).await;
        assert_eq!(ended.state, TaskState::Done, "{:?}", ended.reason);
        ended.result.unwrap()
    }

    fn fresh(&self) -> ServerId {
        ServerId::fresh(&*self.world.ids)
    }
}

/// Server and reason of each.
fn reasons(listed: &Json) -> BTreeMap<String, String> {
    let text = |of: &Json, name: &str| of[name].as_str().unwrap().to_owned();
    let listed = listed.as_array().unwrap().iter();
    listed
        .map(|one| (text(one, "server"), text(one, "why")))
        .collect()
}

#[tokio::test]
async fn a_host_in_order_has_nothing_of_nobody() {
    let site = site(1).await;
    let before = site.fake(site.home()).storage().contents().unwrap();
    let ended = site.sweep(site.home(), true).await;
    let result = ended.result.unwrap();
    assert_eq!(
        (&result["looked_at"], &result["of_nobody"]),
        (&json!(1), &json!(0))
    );
    assert_eq!(site.fake(site.home()).storage().contents().unwrap(), before);
    assert_eq!(site.fake(site.home()).domains().unwrap().len(), 1);
}

#[tokio::test]
async fn only_what_certainly_belongs_to_nobody_is_removed() {
    let site = site(2).await;
    let host = site.other();
    let [gone, unknown, silent, claimed] = [(); 4].map(|()| site.fresh());
    site.domain(host, gone, 4).await;
    site.fake(host)
        .storage()
        .create_seed(unknown, "seed", b"x")
        .await
        .unwrap();
    site.domain(host, silent, 1).await;
    site.fake(host).cannot_tell(silent, true).unwrap();
    site.domain(host, claimed, 1).await;
    site.claimed(host, claimed, true).await;
    // Of a newer order than the record: this host is right, or the store has gone back.
    site.domain(host, site.server.id(), site.server.meta.generation + 1)
        .await;

    let named = site.sweep(host, false).await;
    assert_eq!(named.state, TaskState::Done);
    let result = named.result.unwrap();
    let nobodys = BTreeMap::from([
        (gone.to_string(), "its record is gone".to_owned()),
        (unknown.to_string(), "nothing is claimed for it here".to_owned()),
    ]);
    assert_eq!(reasons(&result["orphans"]), nobodys);
    assert_eq!(reasons(&result["unclear"]).len(), 3);
    assert_eq!(result["removed"], 0);
    assert_eq!(
        site.fake(host).domains().unwrap().len(),
        4,
        "naming removes nothing"
    );

    let removed = site.sweep(host, true).await.result.unwrap();
    assert_eq!(
        (&removed["of_nobody"], &removed["removed"]),
        (&json!(2), &json!(2))
    );
    let mut left: Vec<ServerId> = site
        .fake(host)
        .domains()
        .unwrap()
        .iter()
        .map(|d| d.spec.id)
        .collect();
    left.sort();
    let mut kept = vec![silent, claimed, site.server.id()];
    kept.sort();
    assert_eq!(left, kept);
    assert_eq!(site.fake(host).storage().servers().await.unwrap(), kept);
    assert_eq!(site.fake(site.home()).domains().unwrap().len(), 1);
}

#[tokio::test]
async fn what_a_server_left_behind_is_removed_and_the_server_is_not() {
    let site = site(2).await;
    site.domain(site.other(), site.server.id(), site.server.meta.generation - 1)
        .await;
    let removed = site.sweep(site.other(), true).await.result.unwrap();
    assert_eq!(
        reasons(&removed["orphans"])[&site.server.id().to_string()],
        "it lives elsewhere by a newer order"
    );
    assert!(site.fake(site.other()).domains().unwrap().is_empty());
    assert_eq!(site.fake(site.home()).domains().unwrap().len(), 1);
}

#[tokio::test]
async fn more_than_one_task_can_remove_is_left_for_the_next() {
    let site = site(2).await;
    for _ in 0..25 {
        let id = site.fresh();
        site.domain(site.other(), id, 1).await;
    }
    for (found, removed) in [(25, 20), (5, 5), (0, 0)] {
        let ended = site.sweep(site.other(), true).await;
        assert_eq!(ended.state, TaskState::Done, "{:?}", ended.reason);
        let result = ended.result.unwrap();
        assert_eq!(
            (&result["of_nobody"], &result["removed"]),
            (&json!(found), &json!(removed))
        );
    }
}

#[tokio::test]
async fn only_claims_of_servers_that_live_elsewhere_or_nowhere_are_released() {
    let site = site(2).await;
    let (home, other, here) = (site.home(), site.other(), site.server.id());
    let [gone, unknown, none] = [(); 3].map(|()| site.fresh());
    site.claimed(other, gone, true).await;
    site.claimed(other, unknown, false).await;
    site.claimed(other, here, true).await;
    let result = site.release(other, &[gone, unknown, here, none, gone]).await;
    let released = BTreeMap::from([
        (gone.to_string(), "its record is gone".to_owned()),
        (here.to_string(), "it lives elsewhere".to_owned()),
    ]);
    assert_eq!(reasons(&result["released"]), released);
    let kept = BTreeMap::from([
        (unknown.to_string(), "nothing says whose server it is".to_owned()),
        (none.to_string(), "there is no such claim".to_owned()),
    ]);
    assert_eq!(reasons(&result["kept"]), kept);
    let ledger = site.world.documents(&paths::claims(other)).await;
    assert_eq!(ledger.len(), 1);
    let found = site.world.store.get(&key(&paths::ledger(other))).await.unwrap();
    let ledger: HostLedger = found.unwrap().value.parse().unwrap();
    assert_eq!((ledger.servers, ledger.groups["g"]), (1, 1));
    let result = site.release(home, &[here]).await;
    assert_eq!(reasons(&result["kept"])[&here.to_string()], "it lives there");
}
