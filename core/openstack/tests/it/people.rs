//! Users, passwords, groups.

use serde_json::{Value, json};
use skyloom_identity::BuiltIn;

use crate::world::{PASSWORD, World};

#[tokio::test]
async fn a_user_keeps_what_it_was_given() {
    let world = World::new().await;
    let body = json!({"user": {
        "name": "anna", "email": "a@example", "description": "d", "team": "blue",
        "options": {"lock_password": true, "multi_factor_auth_rules": [["password", "totp"]]},
        "password": PASSWORD,
    }});
    let made = world.post(&world.admin, "/v3/users", body).await.is(201);
    let (user, shown) = (&made.body["user"], made.id("user"));
    assert_eq!(user["team"], "blue");
    assert_eq!(user["email"], "a@example");
    assert_eq!(user["domain_id"], "default");
    assert_eq!(user["options"]["lock_password"], true);
    assert_eq!(
        user["links"]["self"],
        format!("http://cloud.example:5000/identity/v3/users/{shown}")
    );
    assert!(!made.body.to_string().contains(PASSWORD));
    let path = format!("/v3/users/{shown}");
    assert_eq!(world.get(&world.admin, &path).await.is(200).body, made.body);

    let change = json!({"user": {"team": null, "enabled": false, "description": "e", "options": {"lock_password": null}}});
    let changed = world.patch(&world.admin, &path, change).await.is(200).body["user"].clone();
    assert_eq!(
        (&changed["enabled"], &changed["description"]),
        (&json!(false), &json!("e"))
    );
    assert!(changed.get("team").is_none() && changed["options"].get("lock_password").is_none());
    world.login("anna", PASSWORD, Value::Null).await.is(401);

    world
        .post(&world.admin, "/v3/users", json!({"user": {"name": "ANNA"}}))
        .await
        .is(409);
    world
        .post(&world.admin, "/v3/users", json!({"user": {}}))
        .await
        .is(400);
    world
        .post(
            &world.admin,
            "/v3/users",
            json!({"user": {"name": "b", "enabled": "yes"}}),
        )
        .await
        .is(400);
    world
        .post(
            &world.admin,
            "/v3/users",
            json!({"user": {"name": "b", "options": {"x": 1}}}),
        )
        .await
        .is(400);
    let elsewhere = json!({"user": {"name": "b", "domain_id": "f".repeat(32)}});
    world.post(&world.admin, "/v3/users", elsewhere).await.is(404);
    world
        .patch(&world.admin, &path, json!({"user": {"id": "f".repeat(32)}}))
        .await
        .is(400);
    world.delete(&world.admin, &path).await.is(204);
    world.get(&world.admin, &path).await.is(404);
}

#[tokio::test]
async fn a_password_is_changed_by_showing_the_old_one() {
    let world = World::new().await;
    let (user, _, token) = world.member("anna").await;
    let path = format!("/v3/users/{user}/password");
    let body = |old: &str, new: &str| json!({"user": {"original_password": old, "password": new}});
    let next = "another horse battery";
    world.post("", &path, body("wrong", next)).await.is(401);
    world
        .post("", "/v3/users/none/password", body(PASSWORD, next))
        .await
        .is(401);
    world.post("", &path, body(PASSWORD, "short")).await.is(400);
    world.post("", &path, body(PASSWORD, next)).await.is(204);
    world.get(&token, "/v3/auth/projects").await.is(401);
    world.login("anna", PASSWORD, Value::Null).await.is(401);
    world.login("anna", next, Value::Null).await.is(201);
    // Who manages users sets it without the old one.
    world
        .patch(
            &world.admin,
            &format!("/v3/users/{user}"),
            json!({"user": {"password": PASSWORD}}),
        )
        .await
        .is(200);
    world.login("anna", PASSWORD, Value::Null).await.is(201);
}

#[tokio::test]
async fn groups_give_their_roles_to_who_is_in_them() {
    let world = World::new().await;
    let (user, group) = (
        world.user("anna", "default").await,
        world.group("team", "default").await,
    );
    let project = world.make_project("p", "default", None).await;
    let role = World::built_in(BuiltIn::Member);
    world
        .put(
            &world.admin,
            &format!("/v3/projects/{project}/groups/{group}/roles/{role}"),
        )
        .await
        .is(204);
    let member = format!("/v3/groups/{group}/users/{user}");
    world.get(&world.admin, &member).await.is(404);
    world
        .login("anna", PASSWORD, json!({"project": {"id": project}}))
        .await
        .is(401);
    world.put(&world.admin, &member).await.is(204);
    world.call(&world.admin, "HEAD", &member, None).await.is(204);
    let token = world
        .login("anna", PASSWORD, json!({"project": {"id": project}}))
        .await
        .is(201)
        .token();
    assert_eq!(
        world
            .get(&token, &format!("/v3/users/{user}/groups"))
            .await
            .is(200)
            .ids("groups"),
        [group.as_str()]
    );
    let of_group = world
        .get(&world.admin, &format!("/v3/groups/{group}/users"))
        .await
        .is(200);
    assert_eq!(of_group.ids("users"), [user.as_str()]);
    world.delete(&world.admin, &member).await.is(204);
    world.get(&token, "/v3/auth/projects").await.is(401);
    world
        .delete(&world.admin, &format!("/v3/groups/{group}"))
        .await
        .is(204);
    world
        .get(&world.admin, &format!("/v3/groups/{group}"))
        .await
        .is(404);
}

#[tokio::test]
async fn nobody_sees_whether_there_is_a_user_elsewhere() {
    let world = World::new().await;
    let (one, two) = (world.domain("one").await, world.domain("two").await);
    let (own, token) = world.of_domain("manager", &one, BuiltIn::Manager).await;
    let foreign = world.user("foreign", &two).await;
    let none = "f".repeat(32);
    let (_, _, member) = world.member("member").await;
    for (token, path) in [
        (&token, "users"),
        (&member, "users"),
        (&member, "projects"),
        (&member, "groups"),
    ] {
        let there = world.get(token, &format!("/v3/{path}/{foreign}")).await.is(403);
        let missing = world.get(token, &format!("/v3/{path}/{none}")).await.is(403);
        assert_eq!(there.body, missing.body);
    }
    let seen = world.get(&token, "/v3/users").await.is(200).ids("users");
    assert_eq!(seen, [own]);
    world.get(&member, "/v3/users").await.is(403);
    world.get(&member, "/v3/projects").await.is(403);
    for name in ["users", "groups"] {
        let one = name.trim_end_matches('s');
        let body = json!({one: {"name": "x", "domain_id": two}});
        world.post(&token, &format!("/v3/{name}"), body).await.is(403);
    }
    world
        .delete(&token, &format!("/v3/users/{foreign}"))
        .await
        .is(403);
    world
        .get(&world.admin, &format!("/v3/users/{none}"))
        .await
        .is(404);
}
