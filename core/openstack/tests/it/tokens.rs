//! Logging in, and what a token says.

use serde_json::{Value, json};
use skyloom_identity::BuiltIn;

use crate::world::{PASSWORD, World};

#[tokio::test]
async fn wrong_logins_have_one_answer() {
    let world = World::new().await;
    world.user("anna", "default").await;
    let wrong = [
        world.login("anna", "wrong", Value::Null).await,
        world.login("nobody", PASSWORD, Value::Null).await,
        world
            .login("anna", PASSWORD, json!({"project": {"id": world.project}}))
            .await,
        world
            .login("anna", PASSWORD, json!({"project": {"id": "0".repeat(32)}}))
            .await,
        world
            .login("anna", PASSWORD, json!({"system": {"all": true}}))
            .await,
        world
            .log_in(json!({"methods": ["kerberos"], "kerberos": {}}), Value::Null)
            .await,
        world.by_token("a.b.c", Value::Null).await,
    ];
    let bodies: Vec<Value> = wrong.into_iter().map(|reply| reply.is(401).body).collect();
    assert!(bodies.iter().all(|body| *body == bodies[0]), "{bodies:?}");
    world
        .post("", "/v3/auth/tokens", json!({"auth": {}}))
        .await
        .is(400);
    world
        .post(
            "",
            "/v3/auth/tokens",
            json!({"auth": {"identity": {"methods": ["password"]}}}),
        )
        .await
        .is(400);
}

#[tokio::test]
async fn each_scope_has_its_own_words() {
    let world = World::new().await;
    let (user, project, _) = world.member("anna").await;
    let login = async |scope: Value| world.login("anna", PASSWORD, scope).await.is(201).body["token"].clone();

    let bare = login(json!("unscoped")).await;
    assert_eq!(bare["user"]["id"], user);
    assert_eq!(
        bare["user"]["domain"],
        json!({"id": "default", "name": "Default"})
    );
    assert_eq!(bare["methods"], json!(["password"]));
    for absent in ["project", "domain", "system", "roles", "catalog"] {
        assert!(bare.get(absent).is_none(), "{absent} in {bare}");
    }
    let scoped = login(json!({"project": {"name": "anna", "domain": {"name": "Default"}}})).await;
    assert_eq!(scoped["project"]["id"], project);
    assert_eq!(scoped["project"]["domain"]["id"], "default");
    let names: Vec<_> = scoped["roles"]
        .as_array()
        .unwrap()
        .iter()
        .map(|role| role["name"].clone())
        .collect();
    assert_eq!(names, ["member", "reader"], "with what the role implies");
    assert_eq!(scoped["catalog"][0]["type"], "identity");

    let admin =
        async |scope: Value| world.login("admin", &world.password, scope).await.is(201).body["token"].clone();
    assert_eq!(
        admin(json!({"system": {"all": true}})).await["system"],
        json!({"all": true})
    );
    assert_eq!(
        admin(json!({"domain": {"id": "default"}})).await["domain"]["name"],
        "Default"
    );
    // Without a scope: nowhere, until there is a default project.
    assert!(admin(Value::Null).await.get("project").is_none());
    let default = json!({"user": {"default_project_id": project}});
    world
        .patch(&world.admin, &format!("/v3/users/{user}"), default)
        .await
        .is(200);
    assert_eq!(login(Value::Null).await["project"]["id"], project);

    let person = json!({"user": {"id": user, "password": PASSWORD}});
    let auth = json!({"auth": {"identity": {"methods": ["password"], "password": person}, "scope": {"project": {"id": project}}}});
    let short = world.post("", "/v3/auth/tokens?nocatalog", auth).await.is(201);
    assert!(short.body["token"].get("catalog").is_none());
}

#[tokio::test]
async fn a_token_is_shown_to_its_user_and_to_who_sees_tokens() {
    let world = World::new().await;
    let (_, _, anna) = world.member("anna").await;
    let (_, _, berta) = world.member("berta").await;
    let shown = world.about(&anna, "GET", &anna).await.is(200);
    assert_eq!(shown.token(), anna);
    assert_eq!(shown.body["token"]["user"]["name"], "anna");
    assert_eq!(world.about(&anna, "HEAD", &anna).await.is(200).body, Value::Null);
    assert_eq!(
        world.about(&world.admin, "GET", &anna).await.is(200).body,
        shown.body
    );
    world.about(&berta, "GET", &anna).await.is(403);
    world.about(&berta, "DELETE", &anna).await.is(403);
    world.about(&anna, "GET", "a.b.c").await.is(404);
    world.get(&anna, "/v3/auth/tokens").await.is(400);

    world.about(&anna, "DELETE", &anna).await.is(204);
    world.about(&world.admin, "GET", &anna).await.is(404);
    world.get(&anna, "/v3/auth/projects").await.is(401);
}

#[tokio::test]
async fn a_token_of_a_token_ends_no_later_and_alone() {
    let world = World::new().await;
    let (_, project, _) = world.member("anna").await;
    let first = world.login("anna", PASSWORD, json!("unscoped")).await.is(201);
    let scope = json!({"project": {"id": project}});
    let second = world.by_token(&first.token(), scope.clone()).await.is(201);
    assert_eq!(
        first.body["token"]["expires_at"],
        second.body["token"]["expires_at"]
    );
    assert_eq!(second.body["token"]["methods"], json!(["password", "token"]));
    let chain = second.body["token"]["audit_ids"].as_array().unwrap();
    assert_eq!(chain[1], first.body["token"]["audit_ids"][0]);

    world
        .about(&second.token(), "DELETE", &second.token())
        .await
        .is(204);
    world.by_token(&first.token(), scope.clone()).await.is(201);
    let third = world.by_token(&first.token(), scope).await.is(201).token();
    world
        .about(&first.token(), "DELETE", &first.token())
        .await
        .is(204);
    world.get(&third, "/v3/auth/projects").await.is(401);
}

#[tokio::test]
async fn one_is_told_which_scopes_there_are_to_choose() {
    let world = World::new().await;
    let (user, project, token) = world.member("anna").await;
    let domain = world.domain("other").await;
    let reader = World::built_in(BuiltIn::Reader);
    world
        .put(
            &world.admin,
            &format!("/v3/domains/{domain}/users/{user}/roles/{reader}"),
        )
        .await
        .is(204);
    assert_eq!(
        world
            .get(&token, "/v3/auth/projects")
            .await
            .is(200)
            .ids("projects"),
        [project]
    );
    assert_eq!(
        world.get(&token, "/v3/auth/domains").await.is(200).ids("domains"),
        [domain]
    );
    assert_eq!(
        world.get(&token, "/v3/auth/system").await.is(200).body["system"],
        json!([])
    );
    let own = world.get(&world.admin, "/v3/auth/system").await.is(200);
    assert_eq!(own.body["system"], json!([{"all": true}]));
    let bare = world
        .login("anna", PASSWORD, json!("unscoped"))
        .await
        .is(201)
        .token();
    world.get(&bare, "/v3/auth/projects").await.is(200);
    world.get(&bare, "/v3/auth/catalog").await.is(403);
}
