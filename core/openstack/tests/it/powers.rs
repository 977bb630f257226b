//! Who may do what: nobody gets more by this face than they have.

use serde_json::{Value, json};
use skyloom_identity::BuiltIn;
use skyloom_openstack::identity::OpenstackConfig;

use crate::world::{PASSWORD, World};

async fn tenant_admin(world: &World) -> (String, String, String) {
    let (user, project, _) = world.member("boss").await;
    let admin = World::built_in(BuiltIn::Admin);
    world
        .put(
            &world.admin,
            &format!("/v3/projects/{project}/users/{user}/roles/{admin}"),
        )
        .await
        .is(204);
    let token = world
        .login("boss", PASSWORD, json!({"project": {"id": project}}))
        .await
        .is(201)
        .token();
    (user, project, token)
}

#[tokio::test]
async fn the_administrator_of_a_project_runs_no_cloud() {
    let world = World::new().await;
    let (user, _, token) = tenant_admin(&world).await;
    world
        .post(&token, "/v3/domains", json!({"domain": {"name": "x"}}))
        .await
        .is(403);
    world.get(&token, "/v3/users").await.is(403);
    world
        .post(&token, "/v3/roles", json!({"role": {"name": "x"}}))
        .await
        .is(403);
    let admin = World::built_in(BuiltIn::Admin);
    world
        .put(&token, &format!("/v3/system/users/{user}/roles/{admin}"))
        .await
        .is(403);
    // Who runs the cloud does so with a token for a project, too.
    let scope = json!({"project": {"id": world.project}});
    let cloud = world.login("admin", &world.password, scope).await.is(201).token();
    world
        .post(&cloud, "/v3/domains", json!({"domain": {"name": "x"}}))
        .await
        .is(201);
}

#[tokio::test]
async fn a_credential_of_who_runs_the_cloud_is_for_its_project_alone() {
    let world = World::new().await;
    let scope = json!({"project": {"id": world.project}});
    let login = world.login("admin", &world.password, scope).await.is(201);
    let user = login.body["token"]["user"]["id"].as_str().unwrap().to_owned();
    let path = format!("/v3/users/{user}/application_credentials");
    let body = json!({"application_credential": {"name": "robot", "unrestricted": true}});
    let made = world.post(&login.token(), &path, body).await.is(201);
    let secret = made.body["application_credential"]["secret"].as_str().unwrap();
    let robot = world
        .by_credential(&made.id("application_credential"), secret)
        .await
        .is(201)
        .token();
    world
        .post(&robot, "/v3/domains", json!({"domain": {"name": "x"}}))
        .await
        .is(403);
    world.get(&robot, "/v3/users").await.is(403);
    // Nor does it make keys that reach further than itself.
    let keys = format!("/v3/users/{user}/credentials/OS-EC2");
    world.post(&robot, &keys, json!({})).await.is(403);
}

#[tokio::test]
async fn the_first_domain_is_for_its_own_people() {
    let world = World::new().await;
    let domain = world.domain("one").await;
    let (user, _) = world.of_domain("anna", &domain, BuiltIn::Reader).await;
    let person = json!({"id": user, "password": PASSWORD});
    let identity = json!({"methods": ["password"], "password": {"user": person}});
    let bare = world.log_in(identity, json!("unscoped")).await.is(201).token();
    world.get(&bare, "/v3/domains/default").await.is(403);
    world.get(&bare, &format!("/v3/domains/{domain}")).await.is(200);
}

#[tokio::test]
async fn where_it_is_so_configured_admin_anywhere_is_admin_everywhere() {
    let config = OpenstackConfig {
        admin_everywhere: true,
        ..OpenstackConfig::default()
    };
    let world = World::with(config).await;
    let (_, _, token) = tenant_admin(&world).await;
    world
        .post(&token, "/v3/domains", json!({"domain": {"name": "x"}}))
        .await
        .is(201);
    let (_, _, member) = world.member("anna").await;
    world
        .post(&member, "/v3/domains", json!({"domain": {"name": "y"}}))
        .await
        .is(403);
}

#[tokio::test]
async fn a_manager_gives_no_more_than_managers_may() {
    let world = World::new().await;
    let domain = world.domain("one").await;
    let (manager, token) = world.of_domain("manager", &domain, BuiltIn::Manager).await;
    let (boss, _) = world.of_domain("boss", &domain, BuiltIn::Admin).await;
    let user = world.user("anna", &domain).await;
    let grant = |who: &str, role: BuiltIn| {
        format!("/v3/domains/{domain}/users/{who}/roles/{}", World::built_in(role))
    };
    world.put(&token, &grant(&user, BuiltIn::Member)).await.is(204);
    world.put(&token, &grant(&user, BuiltIn::Admin)).await.is(403);
    world
        .put(&token, &grant(&manager, BuiltIn::Operator))
        .await
        .is(403);
    world.delete(&token, &grant(&boss, BuiltIn::Admin)).await.is(403);

    // Nor by way of somebody else: a password, a key, a group.
    let path = format!("/v3/users/{boss}");
    world
        .patch(&token, &path, json!({"user": {"password": "taken over by me"}}))
        .await
        .is(403);
    world
        .patch(
            &token,
            &format!("/v3/users/{user}"),
            json!({"user": {"password": "a new one for anna"}}),
        )
        .await
        .is(200);
    world
        .post(&token, &format!("/v3/users/{boss}/credentials/OS-EC2"), json!({}))
        .await
        .is(403);
    let group = world.group("bosses", &domain).await;
    let admin = World::built_in(BuiltIn::Admin);
    world
        .put(
            &world.admin,
            &format!("/v3/domains/{domain}/groups/{group}/roles/{admin}"),
        )
        .await
        .is(204);
    world
        .put(&token, &format!("/v3/groups/{group}/users/{manager}"))
        .await
        .is(403);
    // What is in other domains and in the system is not theirs.
    world
        .put(
            &token,
            &format!(
                "/v3/system/users/{user}/roles/{}",
                World::built_in(BuiltIn::Reader)
            ),
        )
        .await
        .is(403);
    world.get(&token, "/v3/domains/default").await.is(403);
}

#[tokio::test]
async fn what_was_done_and_what_was_refused_is_in_the_audit() {
    let world = World::new().await;
    let (_, _, token) = world.member("anna").await;
    world
        .post(&token, "/v3/domains", json!({"domain": {"name": "x"}}))
        .await
        .is(403);
    let made = world
        .post(&world.admin, "/v3/domains", json!({"domain": {"name": "y"}}))
        .await
        .is(201);
    let request = made.headers["x-openstack-request-id"]
        .to_str()
        .unwrap()
        .to_owned();
    let told = world.audit().await;
    let text = |entry: &Value| entry.to_string();
    let done: Vec<&Value> = told
        .iter()
        .filter(|entry| text(entry).contains(&request))
        .collect();
    assert_eq!(done.len(), 1, "{told:?}");
    assert_eq!(
        (&done[0]["action"], &done[0]["outcome"]["type"]),
        (&json!("domain:create"), &json!("done"))
    );
    let refused = told
        .iter()
        .any(|e| e["action"] == "domain:create" && e["outcome"]["type"] == "denied");
    assert!(refused, "{told:?}");
    assert!(!told.iter().any(|entry| text(entry).contains(PASSWORD)));
}
