//! What users hand on: application credentials, keys for signed requests, trusts; and what Keystone only keeps.

use serde_json::{Value, json};
use skyloom_identity::BuiltIn;

use crate::world::{PASSWORD, World};

async fn credential(world: &World, token: &str, user: &str, more: Value) -> (String, String) {
    let mut body = json!({"name": "robot"});
    body.as_object_mut()
        .unwrap()
        .extend(more.as_object().unwrap().clone());
    let path = format!("/v3/users/{user}/application_credentials");
    let made = world
        .post(token, &path, json!({"application_credential": body}))
        .await
        .is(201);
    let secret = made.body["application_credential"]["secret"]
        .as_str()
        .unwrap()
        .to_owned();
    (made.id("application_credential"), secret)
}

#[tokio::test]
async fn an_application_credential_is_its_user_in_one_project() {
    let world = World::new().await;
    let (user, project, token) = world.member("anna").await;
    let ends = "2999-01-01T00:00:00.123456";
    let reader = World::built_in(BuiltIn::Reader);
    let (id, secret) = credential(
        &world,
        &token,
        &user,
        json!({"expires_at": ends, "roles": [{"name": "reader"}]}),
    )
    .await;
    let path = format!("/v3/users/{user}/application_credentials/{id}");
    let shown = world.get(&token, &path).await.is(200).body["application_credential"].clone();
    assert_eq!(
        (&shown["expires_at"], &shown["project_id"]),
        (&json!(ends), &json!(project))
    );
    assert_eq!(shown["roles"][0]["id"], reader);
    assert!(shown.get("secret").is_none());

    let login = world.by_credential(&id, &secret).await.is(201);
    let said = &login.body["token"];
    assert_eq!(said["project"]["id"], project);
    assert_eq!(said["methods"], json!(["application_credential"]));
    assert_eq!(
        said["application_credential"],
        json!({"id": id, "name": "robot", "restricted": true})
    );
    assert_eq!(said["roles"], json!([{"id": reader, "name": "reader"}]));
    world.by_credential(&id, "sky_wrong").await.is(401);
    // It makes nothing, and does not become more by a token of its token.
    let robot = login.token();
    let again = json!({"application_credential": {"name": "second"}});
    world
        .post(
            &robot,
            &format!("/v3/users/{user}/application_credentials"),
            again,
        )
        .await
        .is(403);
    world.by_token(&robot, json!("unscoped")).await.is(401);

    let all = format!("/v3/users/{user}/application_credentials");
    world
        .post(&token, &all, json!({"application_credential": {"name": "robot"}}))
        .await
        .is(409);
    let weak = json!({"application_credential": {"name": "weak", "secret": "secret"}});
    world.post(&token, &all, weak).await.is(400);
    let more = json!({"application_credential": {"name": "more", "roles": [{"name": "admin"}]}});
    world.post(&token, &all, more).await.is(403);
    let (_, _, other) = world.member("berta").await;
    world.get(&other, &path).await.is(403);
    world
        .post(&other, &all, json!({"application_credential": {"name": "x"}}))
        .await
        .is(403);

    world.delete(&token, &path).await.is(204);
    world.get(&token, &path).await.is(404);
    world.by_credential(&id, &secret).await.is(401);
    world.get(&robot, "/v3/auth/projects").await.is(401);
}

#[tokio::test]
async fn access_rules_allow_the_calls_that_they_name_and_no_others() {
    let world = World::new().await;
    let (user, _, token) = world.member("anna").await;
    let rule = json!({"service": "identity", "method": "GET", "path": "/v3/users/*"});
    let (id, secret) = credential(&world, &token, &user, json!({"access_rules": [rule]})).await;
    let robot = world.by_credential(&id, &secret).await.is(201).token();
    world.get(&robot, &format!("/v3/users/{user}")).await.is(200);
    world.get(&robot, "/v3/auth/projects").await.is(401);
    world
        .patch(&robot, &format!("/v3/users/{user}"), json!({"user": {}}))
        .await
        .is(401);

    let rules = format!("/v3/users/{user}/access_rules");
    let known = world.get(&token, &rules).await.is(200).ids("access_rules");
    assert_eq!(known.len(), 1);
    let one = format!("{rules}/{}", known[0]);
    world.delete(&token, &one).await.is(403);
    // The same rule again is the same rule, also by its id.
    let (second, _) = credential(
        &world,
        &token,
        &user,
        json!({"name": "second", "access_rules": [{"id": known[0]}]}),
    )
    .await;
    assert_eq!(world.get(&token, &rules).await.is(200).ids("access_rules"), known);
    for id in [id, second] {
        world
            .delete(&token, &format!("/v3/users/{user}/application_credentials/{id}"))
            .await
            .is(204);
    }
    assert_eq!(
        world.get(&token, &one).await.is(200).body["access_rule"]["service"],
        "identity"
    );
    world.delete(&token, &one).await.is(204);
    world.get(&token, &one).await.is(404);
}

#[tokio::test]
async fn the_secret_of_a_key_is_its_users_alone() {
    let world = World::new().await;
    let (user, project, token) = world.member("anna").await;
    let path = format!("/v3/users/{user}/credentials/OS-EC2");
    let made = world
        .post(&token, &path, json!({"tenant_id": project}))
        .await
        .is(201)
        .body["credential"]
        .clone();
    let (access, secret) = (made["access"].as_str().unwrap(), made["secret"].as_str().unwrap());
    assert_eq!(
        (&made["user_id"], &made["tenant_id"]),
        (&json!(user), &json!(project))
    );
    assert_eq!(
        world.get(&token, &format!("{path}/{access}")).await.is(200).body["credential"]["secret"],
        secret
    );

    // Whoever reads the whole cloud sees the key and not its secret.
    let auditor = world.user("auditor", "default").await;
    let reader = World::built_in(BuiltIn::Reader);
    world
        .put(
            &world.admin,
            &format!("/v3/system/users/{auditor}/roles/{reader}"),
        )
        .await
        .is(204);
    let looker = world
        .login("auditor", PASSWORD, json!({"system": {"all": true}}))
        .await
        .is(201)
        .token();
    let seen = world.get(&looker, &format!("{path}/{access}")).await.is(200).body;
    assert_eq!(seen["credential"]["secret"], Value::Null);
    let listed = world.get(&looker, "/v3/credentials").await.is(200).body;
    assert!(listed.to_string().contains(access) && !listed.to_string().contains(secret));
    let id = listed["credentials"][0]["id"].as_str().unwrap().to_owned();
    let blob = json!({"access": "new", "secret": "other"}).to_string();
    let change = json!({"credential": {"blob": blob}});
    world
        .patch(&looker, &format!("/v3/credentials/{id}"), change.clone())
        .await
        .is(403);
    world.delete(&looker, &format!("{path}/{access}")).await.is(403);

    let changed = world
        .patch(&token, &format!("/v3/credentials/{id}"), change)
        .await
        .is(200);
    assert_eq!(changed.body["credential"]["blob"], blob);
    world.get(&token, &format!("{path}/{access}")).await.is(404);
    let moved = json!({"credential": {"blob": blob, "project_id": null}});
    world
        .patch(&token, &format!("/v3/credentials/{id}"), moved)
        .await
        .is(400);
    let (_, _, other) = world.member("berta").await;
    world.get(&other, &format!("/v3/credentials/{id}")).await.is(403);
    world.post(&other, &path, json!({})).await.is(403);
    let cert = json!({"credential": {"type": "cert", "blob": "x"}});
    world.post(&token, "/v3/credentials", cert).await.is(400);
    world.delete(&token, &format!("{path}/new")).await.is(204);
}

#[tokio::test]
async fn a_trust_lends_what_it_names_as_often_as_it_says() {
    let world = World::new().await;
    let (anna, project, token) = world.member("anna").await;
    let (berta, _, other) = world.member("berta").await;
    let body = json!({"trust": {
        "trustor_user_id": anna, "trustee_user_id": berta, "project_id": project, "impersonation": true,
        "roles": [{"name": "member"}], "remaining_uses": 1,
    }});
    let made = world
        .post(&token, "/v3/OS-TRUST/trusts", body.clone())
        .await
        .is(201);
    let (id, shown) = (made.id("trust"), &made.body["trust"]);
    assert_eq!(
        (
            &shown["expires_at"],
            &shown["deleted_at"],
            &shown["remaining_uses"]
        ),
        (&Value::Null, &Value::Null, &json!(1))
    );
    assert_eq!(shown["roles"][0]["name"], "member");
    world.post(&other, "/v3/OS-TRUST/trusts", body).await.is(403);
    let path = format!("/v3/OS-TRUST/trusts/{id}");
    world.get(&other, &path).await.is(200);
    let (_, _, stranger) = world.member("carla").await;
    world.get(&stranger, &path).await.is(404);
    let mine = world
        .get(&token, &format!("/v3/OS-TRUST/trusts/?trustor_user_id={anna}"))
        .await
        .is(200);
    assert_eq!(mine.ids("trusts"), [id.as_str()]);
    let member = World::built_in(BuiltIn::Member);
    world
        .call(&token, "HEAD", &format!("{path}/roles/{member}"), None)
        .await
        .is(200);
    world
        .get(
            &token,
            &format!("{path}/roles/{}", World::built_in(BuiltIn::Admin)),
        )
        .await
        .is(404);

    let scope = json!({"OS-TRUST:trust": {"id": id}});
    world.by_token(&stranger, scope.clone()).await.is(401);
    let lent = world.by_token(&other, scope.clone()).await.is(201);
    let said = &lent.body["token"];
    assert_eq!(
        (&said["user"]["id"], &said["project"]["id"]),
        (&json!(anna), &json!(project))
    );
    assert_eq!(said["OS-TRUST:trust"]["trustee_user"]["id"], berta);
    world.by_token(&other, scope).await.is(401);
    // With a trust in hand nothing further is made for the trustor.
    let robot = json!({"application_credential": {"name": "robot"}});
    world
        .post(
            &lent.token(),
            &format!("/v3/users/{anna}/application_credentials"),
            robot,
        )
        .await
        .is(403);

    let body = json!({"trust": {
        "trustor_user_id": anna, "trustee_user_id": berta, "project_id": project, "impersonation": false,
        "roles": [{"name": "admin"}],
    }});
    world
        .post(&token, "/v3/OS-TRUST/trusts", body.clone())
        .await
        .is(403);
    let mut kept = body;
    kept["trust"]["roles"] = json!([{"name": "reader"}]);
    let id = world
        .post(&token, "/v3/OS-TRUST/trusts", kept)
        .await
        .is(201)
        .id("trust");
    world
        .delete(&other, &format!("/v3/OS-TRUST/trusts/{id}"))
        .await
        .is(403);
    world
        .delete(&token, &format!("/v3/OS-TRUST/trusts/{id}"))
        .await
        .is(204);
    world
        .get(&token, &format!("/v3/OS-TRUST/trusts/{id}"))
        .await
        .is(404);
}

#[tokio::test]
async fn what_keystone_alone_knows_is_kept_for_who_may_change_the_catalog() {
    let world = World::new().await;
    let (_, _, member) = world.member("anna").await;
    for (path, one, body) in [
        ("policies", "policy", json!({"type": "t", "blob": "b"})),
        ("OS-OAUTH1/consumers", "consumer", json!({"description": "d"})),
        (
            "OS-EP-FILTER/endpoint_groups",
            "endpoint_group",
            json!({"name": "n", "filters": {}}),
        ),
    ] {
        world
            .post(&member, &format!("/v3/{path}"), json!({one: body}))
            .await
            .is(403);
        world.get(&member, &format!("/v3/{path}")).await.is(403);
        let made = world
            .post(&world.admin, &format!("/v3/{path}"), json!({one: body}))
            .await
            .is(201);
        let here = format!("/v3/{path}/{}", made.id(one));
        let change = json!({one: {"description": "new"}});
        assert_eq!(
            world.patch(&world.admin, &here, change).await.is(200).body[one]["description"],
            "new"
        );
        let shown = world.get(&world.admin, &here).await.is(200).body;
        assert!(shown[one].get("secret").is_none());
        world.delete(&world.admin, &here).await.is(204);
        world.delete(&world.admin, &here).await.is(404);
        world.get(&world.admin, &format!("/v3/{path}/../x")).await.is(404);
    }
    let domain = world.domain("one").await;
    let path = format!("/v3/domains/{domain}/config");
    let config = json!({"config": {"ldap": {"url": "ldap://x"}}});
    world.get(&world.admin, &path).await.is(404);
    world
        .call(&world.admin, "PUT", &path, Some(json!({"config": {"other": {}}})))
        .await
        .is(403);
    world
        .call(&world.admin, "PUT", &path, Some(config.clone()))
        .await
        .is(201);
    world.call(&member, "PUT", &path, Some(config)).await.is(403);
    assert_eq!(
        world
            .get(&world.admin, &format!("{path}/ldap/url"))
            .await
            .is(200)
            .body["config"]["url"],
        "ldap://x"
    );
    world
        .get(&world.admin, &format!("{path}/ldap/gone"))
        .await
        .is(404);
    world.delete(&world.admin, &format!("{path}/ldap")).await.is(204);
    world.delete(&world.admin, &path).await.is(204);
}
