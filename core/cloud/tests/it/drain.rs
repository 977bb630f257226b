//! Hosts that are closed and emptied: who goes, who stays and why, over crashes and beside others, and what is only advised.

use std::collections::BTreeMap;
use std::sync::Arc;

use skyloom_cloud::{
    AdviceQuery, CreateServer, CreateSnapshot, DrainHost, DrainPlan, LiveMigrateServer, LockServer,
    PatchHost, StopOptions,
};
use skyloom_model::{
    DrainState, DrainStep, DrainWay, Host, HostId, HostLedger, PowerState, Resource as _, Resources, Scope,
    Server, ServerId, Task, TaskState, paths,
};
use skyloom_store::layer::{Chaos, ChaosConfig};

use crate::engine::{Engine, active_image};
use crate::server_actions::Site;
use crate::world::{World, server};

/// A host `a`, and disks that others will see too.
async fn site() -> Site {
    let mut world = World::new();
    world.share_disks();
    let admin = world.admin().await;
    let member = world.member(&admin, "shop").await;
    let host = world.host(&admin, "a").await;
    let image = active_image(&world, &member).await;
    Site {
        world,
        admin,
        member,
        host,
        image,
    }
}

async fn another(site: &mut Site, name: &str) -> HostId {
    site.world.host(&site.admin.clone(), name).await
}

async fn paired(site: &Site, name: &str) -> ServerId {
    let request = CreateServer {
        anti_affinity_group: Some("pair".to_owned()),
        ..server(name, site.image)
    };
    let made = site
        .world
        .cloud
        .create_server(&site.member, request)
        .await
        .unwrap();
    assert_eq!(site.carry(&made.task).await.state, TaskState::Done);
    made.server.id()
}

fn broken(at_once: u32) -> DrainHost {
    DrainHost {
        why: "a fan is broken".to_owned(),
        at_once: Some(at_once),
    }
}

fn home(server: &Server) -> HostId {
    server.status.placement.as_ref().unwrap().host
}

async fn plan(site: &Site) -> DrainPlan {
    site.world.cloud.drain_plan(&site.admin, site.host).await.unwrap()
}

async fn steps(site: &Site) -> BTreeMap<ServerId, DrainStep> {
    let steps = plan(site).await.servers.into_iter();
    steps.map(|step| (step.server, step)).collect()
}

async fn servers(site: &Site) -> Vec<Server> {
    let documents = site.world.documents(&paths::kind(Server::KIND)).await;
    documents
        .values()
        .map(|text| serde_json::from_str(text).unwrap())
        .collect()
}

/// What is done to the servers now that anything is done to.
async fn under_way(site: &Site) -> Vec<Task> {
    let mut all = Vec::new();
    for server in servers(site).await {
        if let Some(activity) = server.status.activity {
            let task = site.world.cloud.get_task(&site.operator(), activity.task).await;
            all.push(task.unwrap().value);
        }
    }
    all
}

/// Looks at the drains and lets engines work, until nobody is asked to go any more; at most `at_once` are on their way.
async fn settled(site: &Site, at_once: usize) {
    for _ in 0..50 {
        site.world.cloud.see_to_drains().await.unwrap();
        let tasks = under_way(site).await;
        assert!(tasks.len() <= at_once, "{tasks:?}");
        if tasks.is_empty() && !plan(site).await.under_way {
            return;
        }
        for task in tasks {
            site.carry(&task).await;
        }
    }
    panic!("the drain does not end: {:?}", plan(site).await);
}

/// The tasks that moved a server, or were to.
async fn moves(site: &Site) -> BTreeMap<ServerId, usize> {
    let mut all = BTreeMap::new();
    for text in site.world.documents("tasks").await.values() {
        let task: Task = serde_json::from_str(text).unwrap();
        if task.flow.contains("migrate") {
            *all.entry(ServerId::from_uuid(task.subject.id)).or_default() += 1;
        }
    }
    all
}

async fn ledger(site: &Site, host: HostId) -> HostLedger {
    let documents = site.world.documents(paths::LEDGERS).await;
    serde_json::from_str(&documents[&paths::ledger(host)]).unwrap()
}

#[tokio::test]
async fn who_can_go_goes_and_who_stays_says_why() {
    let mut site = site().await;
    let (runs, stopped, locked) = (
        site.created("runs").await,
        site.created("off").await,
        site.created("locked").await,
    );
    let (kept, pair) = (site.created("kept").await, paired(&site, "pair-1").await);
    let off = site
        .world
        .cloud
        .stop_server(&site.member, stopped, StopOptions::default());
    assert_eq!(site.carry(&off.await.unwrap().task).await.state, TaskState::Done);
    let cloud = site.world.cloud.clone();
    let lock = LockServer {
        why: "month end".to_owned(),
    };
    cloud.lock_server(&site.member, locked, lock).await.unwrap();
    let snapshot = CreateSnapshot {
        name: "before".to_owned(),
        server: Some(kept),
        ..CreateSnapshot::default()
    };
    let snapshot = cloud.create_snapshot(&site.member, snapshot).await.unwrap();
    assert_eq!(site.carry(&snapshot.task).await.state, TaskState::Done);
    let b = another(&mut site, "b").await;
    let other = paired(&site, "pair-2").await;
    assert_eq!(home(&site.server(other).await), b);
    site.world.hosts[&site.host].fake.remember(runs, 42).unwrap();

    // What would be done is told before, and nothing is done.
    let before = plan(&site).await;
    assert!(!before.under_way && before.closed.is_none());
    let told = steps(&site).await;
    for (id, way) in [
        (runs, DrainWay::Live),
        (locked, DrainWay::Live),
        (stopped, DrainWay::Cold),
    ] {
        let step = &told[&id];
        assert_eq!((step.state, step.way), (DrainState::Waits, Some(way)), "{step:?}");
        assert_eq!(step.to.as_ref().unwrap().as_str(), "b");
        assert_eq!(step.memory_mib > 0, way == DrainWay::Live);
    }
    for (id, why) in [(kept, "snapshots"), (pair, "group")] {
        assert_eq!(told[&id].state, DrainState::Stays);
        let said = told[&id].why.as_deref().unwrap_or_default();
        assert!(said.contains(why), "{said}");
    }
    assert_eq!(
        before.memory_mib,
        told.values().map(|step| step.memory_mib).sum::<u64>()
    );

    let asks = cloud.drain_host(&site.member, site.host, broken(2)).await;
    assert_eq!(asks.unwrap_err().code(), "host.not_found");
    for at_once in [0, 33] {
        let asks = cloud.drain_host(&site.admin, site.host, broken(at_once)).await;
        assert_eq!(asks.unwrap_err().code(), "at_once.out_of_range");
    }
    let host = cloud.drain_host(&site.admin, site.host, broken(2)).await.unwrap();
    let closed = host.spec.closed.unwrap();
    assert!(!host.spec.enabled && closed.drain);
    assert_eq!(closed.why, "a fan is broken");

    settled(&site, 2).await;
    for id in [runs, stopped, locked] {
        let server = site.server(id).await;
        assert_eq!(home(&server), b, "{}", server.meta.name);
        let power = if id == stopped {
            PowerState::Stopped
        } else {
            PowerState::Running
        };
        assert_eq!(server.status.power, power);
    }
    assert!(site.server(locked).await.status.overlays.locked);
    let left = plan(&site).await;
    assert_eq!((left.servers.len(), left.under_way), (2, false));
    let told = steps(&site).await;
    assert_eq!(told[&kept].state, DrainState::Stays);
    assert_eq!(told[&pair].state, DrainState::Failed);
    let why = told[&pair].why.as_deref().unwrap();
    assert!(why.contains("group"), "{why}");
    assert_eq!(ledger(&site, site.host).await.servers, 2);
    let next = site.created("next").await;
    assert_eq!(home(&site.server(next).await), b);

    // Asked again, those that are left are asked anew; there is a place by now.
    let c = another(&mut site, "c").await;
    let gone = cloud.delete_snapshot(&site.member, snapshot.snapshot.id()).await;
    assert_eq!(site.carry(&gone.unwrap().task).await.state, TaskState::Done);
    assert_eq!(cloud.see_to_drains().await.unwrap(), 0, "nobody has asked");
    cloud.drain_host(&site.admin, site.host, broken(1)).await.unwrap();
    settled(&site, 1).await;
    assert_eq!(home(&site.server(pair).await), c);
    assert_eq!(plan(&site).await.servers, []);
    assert_eq!(ledger(&site, site.host).await, HostLedger::default());
    assert_eq!(moves(&site).await[&pair], 2);
    let host = cloud.get_host(&site.admin, site.host).await.unwrap().value;
    assert!(!host.spec.enabled && host.spec.closed.is_some());
}

#[tokio::test]
async fn each_server_is_asked_once_by_many_processes_that_die() {
    for seed in 0..20 {
        let mut site = site().await;
        for name in ["s1", "s2", "s3", "s4"] {
            site.created(name).await;
        }
        another(&mut site, "b").await;
        let cloud = site.world.cloud.clone();
        cloud.drain_host(&site.admin, site.host, broken(3)).await.unwrap();
        let process = |seed| {
            let faults = ChaosConfig::default()
                .with_refuse(150)
                .with_lose_answer(150)
                .with_lose_commit(150);
            let store = Arc::new(Chaos::new(site.world.store.clone(), faults, seed));
            let process = World::over(store, site.world.clock.clone());
            // Other ids than those of the others.
            for _ in 0..(seed + 1) * 500 {
                process.ids.uuid();
            }
            process
        };
        let (one, two) = (process(2 * seed), process(2 * seed + 1));
        let mut left = 3000;
        while plan(&site).await.under_way {
            left -= 1;
            assert!(left > 0, "seed {seed}: {:?}", plan(&site).await);
            // What a process could not do or note, the next look does.
            let _ = tokio::join!(one.cloud.see_to_drains(), two.cloud.see_to_drains());
            let tasks = under_way(&site).await;
            assert!(tasks.len() <= 4);
            if let Some(task) = tasks.first() {
                assert_eq!(site.carry(task).await.state, TaskState::Done);
            }
        }
        let moves = moves(&site).await;
        assert_eq!(moves.len(), 4, "seed {seed}");
        assert!(moves.values().all(|tasks| *tasks == 1), "seed {seed}: {moves:?}");
        assert_eq!(ledger(&site, site.host).await, HostLedger::default());
    }
}

#[tokio::test]
async fn who_is_about_to_arrive_is_waited_for_and_goes_too() {
    let mut site = site().await;
    let (a, cloud) = (site.host, site.world.cloud.clone());
    let comes = site.created("comes").await;
    let b = another(&mut site, "b").await;
    let mut engine = Engine::new(&site.world).await;
    let to_b = cloud
        .live_migrate_server(&site.operator(), comes, LiveMigrateServer::default())
        .await;
    assert_eq!(engine.carry(&to_b.unwrap().task).await.state, TaskState::Done);
    let back = cloud
        .live_migrate_server(&site.operator(), comes, LiveMigrateServer::default())
        .await
        .unwrap()
        .task;
    let request = CreateServer {
        host_labels: BTreeMap::new(),
        ..server("new", site.image)
    };
    let made = cloud.create_server(&site.member, request).await.unwrap();
    for task in [&back, &made.task] {
        engine.drive(task).await;
    }
    let claims = site.world.documents(&paths::claims(a)).await.len();
    assert!(claims > 0, "somebody is about to come");

    cloud.drain_host(&site.admin, a, broken(2)).await.unwrap();
    assert_eq!(cloud.see_to_drains().await.unwrap(), 0);
    let waited = plan(&site).await;
    assert!(waited.under_way);
    assert!(waited.servers.iter().all(|step| step.state == DrainState::Busy));
    assert_eq!(waited.servers.len(), claims);
    let coming = steps(&site).await[&comes].why.clone().unwrap();
    assert!(coming.contains("brings it here"), "{coming}");
    for task in [&back, &made.task] {
        assert_eq!(engine.carry(task).await.state, TaskState::Done);
    }
    assert_eq!(home(&site.server(comes).await), a);
    drop(engine);
    settled(&site, 2).await;
    for id in [comes, made.server.id()] {
        assert_eq!(home(&site.server(id).await), b);
    }
    assert_eq!(ledger(&site, a).await, HostLedger::default());
}

#[tokio::test]
async fn enabling_ends_a_drain_and_closing_says_why() {
    let mut site = site().await;
    let ids = [site.created("s1").await, site.created("s2").await];
    let b = another(&mut site, "b").await;
    let (cloud, a) = (site.world.cloud.clone(), site.host);
    cloud.drain_host(&site.admin, a, broken(1)).await.unwrap();
    assert_eq!(cloud.see_to_drains().await.unwrap(), 1);
    let patch = |enabled, why: Option<&str>| PatchHost {
        enabled,
        why: why.map(str::to_owned),
        ..PatchHost::default()
    };
    let open = cloud.patch_host(&site.admin, a, patch(Some(true), None)).await;
    let open = open.unwrap().spec;
    assert!(open.enabled && open.closed.is_none());
    for task in under_way(&site).await {
        assert_eq!(site.carry(&task).await.state, TaskState::Done);
    }
    assert_eq!(cloud.see_to_drains().await.unwrap(), 0);
    assert!(site.world.documents(paths::DRAINS).await.is_empty());
    let mut homes = Vec::new();
    for id in ids {
        homes.push(home(&site.server(id).await));
    }
    homes.sort_unstable();
    let mut both = [a, b];
    both.sort_unstable();
    assert_eq!(homes, both, "one was on its way, the other stays");

    let long = "x".repeat(501);
    for (enabled, why) in [
        (Some(true), "x"),
        (None, "x"),
        (Some(false), &long),
        (Some(false), "a\nb"),
    ] {
        let refused = cloud.patch_host(&site.admin, a, patch(enabled, Some(why))).await;
        assert_eq!(refused.unwrap_err().code(), "why.invalid");
    }
    let shut = cloud
        .patch_host(&site.admin, a, patch(Some(false), Some(" new disks ")))
        .await;
    let shut = shut.unwrap().spec.closed.unwrap();
    assert_eq!((shut.why.as_str(), shut.drain), ("new disks", false));
    assert_eq!(shut.by, site.admin.actor.name);
    // Another change leaves it as it is.
    let same = PatchHost {
        cpu_ratio: Some(2.0),
        ..PatchHost::default()
    };
    let same = cloud.patch_host(&site.admin, a, same).await.unwrap();
    assert_eq!(same.spec.closed, Some(shut));
}

#[tokio::test]
async fn advice_is_told_and_nothing_is_moved() {
    let mut site = site().await;
    for name in ["s1", "s2", "s3", "s4"] {
        site.created(name).await;
    }
    let b = another(&mut site, "b").await;
    let cloud = site.world.cloud.clone();
    // Each has room for eight.
    let one = servers(&site).await[0].reserved();
    for host in [site.host, b] {
        let at = paths::resource(Host::KIND, Scope::System, host.uuid());
        let limit = Resources {
            vcpus: 64,
            memory_mib: one.memory_mib * 8,
            disk_gib: 1_000,
        };
        let change = |host: &mut Host| host.spec.limit = Some(limit);
        site.world.edit(&at, change).await;
    }
    let query = |goal: &str, host: Option<&str>| AdviceQuery {
        goal: goal.to_owned(),
        host: host.map(str::to_owned),
        most: None,
    };
    let before = site.world.documents(&paths::kind(Server::KIND)).await;
    let drain = cloud
        .advise_placement(&site.admin, &query("drain", Some("a")))
        .await;
    let drain = drain.unwrap();
    assert_eq!((drain.moves.len(), drain.stays.len()), (4, 0));
    assert_eq!(drain.emptied[0].as_str(), "a");
    assert!(drain.moves.iter().all(|go| go.live && go.to.as_str() == "b"));
    assert_eq!(
        drain.memory_mib,
        drain.moves.iter().map(|go| go.memory_mib).sum::<u64>()
    );
    let pack = cloud
        .advise_placement(&site.admin, &query("consolidate", None))
        .await;
    assert_eq!(pack.unwrap().moves, [], "one host is used already");
    let spread = cloud.advise_placement(&site.admin, &query("spread", None)).await;
    let spread = spread.unwrap().moves;
    assert_eq!(spread.len(), 2);
    assert!(spread.iter().all(|go| go.from.as_str() == "a"));
    assert_eq!(site.world.documents(&paths::kind(Server::KIND)).await, before);

    for (goal, host, code) in [
        ("tidy", None, "goal.invalid"),
        ("drain", None, "goal.invalid"),
        ("spread", Some("a"), "goal.invalid"),
        ("drain", Some("nowhere"), "host.not_found"),
    ] {
        let refused = cloud.advise_placement(&site.admin, &query(goal, host)).await;
        assert_eq!(refused.unwrap_err().code(), code, "{goal}");
    }
    let tenant = cloud.advise_placement(&site.member, &query("spread", None)).await;
    assert_eq!(tenant.unwrap_err().code(), "auth.forbidden");
    let many = AdviceQuery {
        most: Some(1001),
        ..query("spread", None)
    };
    let refused = cloud.advise_placement(&site.admin, &many).await;
    assert_eq!(refused.unwrap_err().code(), "most.out_of_range");
}
