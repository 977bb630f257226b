//! Plans as text: the same input gives the same plan, and a change of a plan is seen in review.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;
use skyloom_cloud::{CreateServer, NetworkRequest, StopOptions, SweepHost};
use skyloom_hypervisor::HostStorage as _;
use skyloom_model::{MacAddr, Plan, Resource as _, ServerId, Task, paths};
use uuid::Uuid;

use crate::engine::{Engine, active_image};
use crate::world::{World, image, key, server};

/// Of the content that is fetched.
const SHA256: &str = "a99c07ce93703c7390589c5b007bd9a97a8b6de29e9a920d474d4f028ce2d42c";

async fn plan_of(world: &World, task: &Task) -> String {
    let plan: Plan = world
        .store
        .get(&key(&paths::plan(task.id)))
        .await
        .unwrap()
        .unwrap()
        .value
        .parse()
        .unwrap();
    let mut plan = serde_json::to_value(plan).unwrap();
    named(&mut plan, &mut Vec::new());
    let mut text = serde_json::to_string_pretty(&plan).unwrap();
    text.push('\n');
    text
}

/// Puts a name such as `id-1` in the place of each id and MAC address, so that a plan's text says only what was decided.
fn named(value: &mut Value, seen: &mut Vec<String>) {
    match value {
        Value::String(text) => {
            // Some names of jobs end in the id of what they are about.
            let (before, id) = match text.rsplit_once('.') {
                Some((before, id)) if id.parse::<Uuid>().is_ok() => (format!("{before}."), id.to_owned()),
                _ => (String::new(), text.clone()),
            };
            let kind = match (id.parse::<Uuid>(), id.parse::<MacAddr>()) {
                (Ok(_), _) => "id",
                (_, Ok(_)) => "mac",
                _ => return,
            };
            let at = seen.iter().position(|s| *s == id).unwrap_or_else(|| {
                seen.push(id);
                seen.len() - 1
            });
            *text = format!("{before}{kind}-{}", at + 1);
        }
        Value::Array(items) => items.iter_mut().for_each(|v| named(v, seen)),
        Value::Object(fields) => {
            let sorted: BTreeMap<String, Value> = std::mem::take(fields).into_iter().collect();
            for (name, mut value) in sorted {
                named(&mut value, seen);
                fields.insert(name, value);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// One life of a server and an image, with all plans that were made on the way.
async fn plans() -> Vec<(&'static str, String)> {
    let mut world = World::new();
    let admin = world.admin().await;
    let host = world.host(&admin, "h1").await;
    let base = active_image(&world, &admin).await;
    let request = CreateServer {
        hostname: Some("web-1".to_owned()),
        metadata: [("role".to_owned(), "web".to_owned())].into(),
        networks: Some(vec![NetworkRequest::default(); 2]),
        anti_affinity_group: Some("web".to_owned()),
        user_data: Some("#!/bin/sh\n".to_owned()),
        ..server("web", base)
    };
    let made = world.cloud.create_server(&admin, request).await.unwrap();
    let id = made.server.id();
    let mut engine = Engine::new(&world).await;
    let mut all = Vec::new();
    engine.carry(&made.task).await;
    all.push(("server_create", plan_of(&world, &made.task).await));
    let options = StopOptions {
        force: false,
        timeout_seconds: Some(5),
    };
    let reboot = world.cloud.reboot_server(&admin, id, options).await.unwrap();
    engine.carry(&reboot.task).await;
    all.push(("server_reboot", plan_of(&world, &reboot.task).await));
    let stop = world.cloud.stop_server(&admin, id, options).await.unwrap();
    engine.carry(&stop.task).await;
    all.push(("server_stop", plan_of(&world, &stop.task).await));
    let start = world.cloud.start_server(&admin, id).await.unwrap();
    engine.carry(&start.task).await;
    all.push(("server_start", plan_of(&world, &start.task).await));
    let delete = world.cloud.delete_server(&admin, id).await.unwrap();
    engine.carry(&delete.task).await;
    all.push(("server_delete", plan_of(&world, &delete.task).await));
    let mut fetched = image("fetched");
    fetched.url = Some("https://example.org/disk.raw".to_owned());
    fetched.sha256 = Some(SHA256.to_owned());
    let import = world
        .cloud
        .create_image(&admin, fetched)
        .await
        .unwrap()
        .task
        .unwrap();
    engine.carry(&import).await;
    all.push(("image_import", plan_of(&world, &import).await));
    let gone = world
        .cloud
        .delete_image(&admin, base)
        .await
        .unwrap()
        .task
        .unwrap();
    engine.carry(&gone).await;
    all.push(("image_delete", plan_of(&world, &gone).await));
    let left = ServerId::fresh(&*world.ids);
    let storage = world.hosts[&host].fake.storage();
    storage.create_seed(left, "seed", b"left").await.unwrap();
    let sweep = world
        .cloud
        .sweep_host(&admin, host, SweepHost { remove: true })
        .await;
    let sweep = sweep.unwrap().task;
    engine.carry(&sweep).await;
    all.push(("host_sweep", plan_of(&world, &sweep).await));
    all
}

#[tokio::test]
async fn plans_are_as_written_down() {
    let golden = [
        include_str!("../golden/server_create.json"),
        include_str!("../golden/server_reboot.json"),
        include_str!("../golden/server_stop.json"),
        include_str!("../golden/server_start.json"),
        include_str!("../golden/server_delete.json"),
        include_str!("../golden/image_import.json"),
        include_str!("../golden/image_delete.json"),
        include_str!("../golden/host_sweep.json"),
    ];
    let new = Path::new(env!("CARGO_TARGET_TMPDIR")).join("golden");
    std::fs::create_dir_all(&new).unwrap();
    let mut other = Vec::new();
    for ((name, made), written) in plans().await.into_iter().zip(golden) {
        std::fs::write(new.join(format!("{name}.json")), &made).unwrap();
        if made != written {
            other.push(name);
        }
    }
    assert!(
        other.is_empty(),
        "{other:?} in tests/golden are not what is planned now: compare with {}",
        new.display()
    );
}

#[tokio::test]
async fn the_same_input_gives_the_same_plan() {
    assert_eq!(plans().await, plans().await);
}
