//! Unified limits over quotas.

use serde_json::{Value, json};

use crate::world::World;

async fn service(world: &World) -> String {
    let all = world.get(&world.admin, "/v3/services").await.is(200);
    all.body["services"][0]["id"].as_str().unwrap().to_owned()
}

fn limit(service: &str, project: &str, resource: &str, most: i64) -> Value {
    json!({"service_id": service, "project_id": project, "resource_name": resource, "resource_limit": most})
}

#[tokio::test]
async fn what_is_counted_is_registered_without_a_default_limit() {
    let world = World::new().await;
    let reply = world.get(&world.admin, "/v3/limits/model").await.is(200);
    assert_eq!(reply.body["model"]["name"], "flat");
    assert!(reply.body["model"]["description"].is_string());
    let all = world.get(&world.admin, "/v3/registered_limits").await.is(200);
    let names: Vec<&str> = all.body["registered_limits"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["resource_name"].as_str().unwrap())
        .collect();
    assert_eq!(names.len(), skyloom_identity::COUNTED.len());
    let path = "/v3/registered_limits?resource_name=vcpus";
    let one = world.get(&world.admin, path).await.is(200);
    let [one] = one.body["registered_limits"].as_array().unwrap().as_slice() else {
        panic!("one of that name");
    };
    assert_eq!(
        (&one["default_limit"], &one["resource_name"]),
        (&json!(-1), &json!("vcpus"))
    );
    let path = format!("/v3/registered_limits/{}", one["id"].as_str().unwrap());
    assert_eq!(
        world.get(&world.admin, &path).await.is(200).body["registered_limit"],
        *one
    );
    world.get(&world.admin, "/v3/registered_limits/x").await.is(404);
    // They are the cloud's configuration.
    world.delete(&world.admin, &path).await.is(403);
    world
        .post(&world.admin, "/v3/registered_limits", json!({}))
        .await
        .is(403);
    world.get("", "/v3/registered_limits").await.is(401);
}

#[tokio::test]
async fn a_limit_is_a_quota_from_its_making_to_its_end() {
    let world = World::new().await;
    let (service, project) = (service(&world).await, world.project.clone());
    let body =
        json!({"limits": [limit(&service, &project, "servers", 3), limit(&service, &project, "vcpus", -1)]});
    let made = world.post(&world.admin, "/v3/limits", body.clone()).await.is(201);
    let limits = made.body["limits"].as_array().unwrap().clone();
    assert!(made.body.get("links").is_none());
    assert_eq!(limits[0]["resource_limit"], 3);
    assert_eq!(limits[1]["resource_limit"], -1);
    assert_eq!(limits[0]["project_id"], json!(project));
    assert_eq!(
        (&limits[0]["domain_id"], &limits[0]["region_id"]),
        (&Value::Null, &Value::Null)
    );
    // The ledger has them.
    let ledger = world.ledger(&project).await;
    assert_eq!(
        ledger["limits"],
        json!({"servers": {"most": 3}, "vcpus": "unlimited"})
    );

    let again = world.post(&world.admin, "/v3/limits", body).await.is(409);
    assert_eq!(again.body["error"]["title"], "Conflict");
    let path = format!("/v3/limits/{}", limits[0]["id"].as_str().unwrap());
    assert_eq!(
        world.get(&world.admin, &path).await.is(200).body["limit"],
        limits[0]
    );
    let change = json!({"limit": {"resource_limit": 5}});
    let changed = world.patch(&world.admin, &path, change).await.is(200);
    assert_eq!(changed.body["limit"]["resource_limit"], 5);
    let path_of = |query: &str| format!("/v3/limits?{query}");
    let named = world
        .get(&world.admin, &path_of("resource_name=servers"))
        .await
        .is(200);
    assert_eq!(named.ids("limits"), [limits[0]["id"].as_str().unwrap()]);
    world.delete(&world.admin, &path).await.is(204);
    world.delete(&world.admin, &path).await.is(404);
    world.get(&world.admin, &path).await.is(404);
    assert_eq!(
        world.ledger(&project).await["limits"],
        json!({"vcpus": "unlimited"})
    );
    assert!(
        world
            .audit()
            .await
            .iter()
            .any(|entry| entry.to_string().contains("quota:update"))
    );
}

#[tokio::test]
async fn wrong_limits_are_refused_as_keystone_does() {
    let world = World::new().await;
    let (service, project) = (service(&world).await, world.project.clone());
    let good = limit(&service, &project, "servers", 3);
    let with = |field: &str, value: Value| {
        let mut one = good.clone();
        one[field] = value;
        json!({"limits": [one]})
    };
    let nowhere = "0".repeat(32);
    for (body, status) in [
        (json!({}), 400),
        (json!({"limits": []}), 400),
        (json!({"limits": [{}]}), 400),
        (with("resource_limit", json!(-2)), 400),
        (with("resource_limit", json!("3")), 400),
        (with("resource_limit", json!(1_u64 << 40)), 400),
        (with("project_id", json!(nowhere)), 400),
        (with("project_id", Value::Null), 400),
        (with("domain_id", json!("default")), 400),
        (with("service_id", json!(nowhere)), 400),
        (with("resource_name", json!("toasters")), 403),
        (with("resource_name", json!("../x")), 403),
        (with("region_id", json!("RegionOne")), 403),
    ] {
        let reply = world.post(&world.admin, "/v3/limits", body).await.is(status);
        assert_eq!(reply.body["error"]["code"], status);
    }
    // All of them or none.
    let several = json!({"limits": [good.clone(), good]});
    world.post(&world.admin, "/v3/limits", several).await.is(409);
    let all = world.get(&world.admin, "/v3/limits").await.is(200);
    assert_eq!(all.body["limits"], json!([]));
}

#[tokio::test]
async fn limits_of_others_are_not_seen_and_nobody_raises_their_own() {
    let world = World::new().await;
    let service = service(&world).await;
    let domain = json!({"service_id": service, "domain_id": "default", "resource_name": "images", "resource_limit": 9});
    let body = json!({"limits": [limit(&service, &world.project, "servers", 3), domain]});
    let made = world.post(&world.admin, "/v3/limits", body).await.is(201);
    let ids = made.ids("limits");
    assert_eq!(made.body["limits"][1]["domain_id"], "default");
    let (_, _, member) = world.member("anna").await;
    let seen = world.get(&member, "/v3/limits").await.is(200);
    assert_eq!(seen.body["limits"], json!([]), "they are of another project");
    for id in &ids {
        let path = format!("/v3/limits/{id}");
        world.get(&member, &path).await.is(404);
        world.delete(&member, &path).await.is(404);
    }
    let raise = json!({"limits": [limit(&service, &world.project, "vcpus", 1000)]});
    let refused = world.post(&member, "/v3/limits", raise).await.is(403);
    let message = refused.body["error"]["message"].as_str().unwrap();
    assert!(message.contains("identity:create_limits"), "{message}");
}
