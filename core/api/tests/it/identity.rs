//! The routes of identity, as their users meet them.

use serde_json::{Value as Json, json};
use skyloom_identity::{BuiltIn, DEFAULT_DOMAIN, Totp, TotpConfig};
use skyloom_model::Clock as _;

use crate::harness::{Api, Reply};

const PASSWORD: &str = "correct horse battery";

/// A user with a password and a role in the default project.
async fn user(api: &Api, name: &str, role: BuiltIn) -> String {
    let made = api
        .post("/v1/users", json!({"name": name, "password": PASSWORD}))
        .await
        .ok(201);
    let id = text(&made.json["id"]);
    let grant = json!({"role": role.id(), "user": id, "project": api.project});
    api.call("PUT", "/v1/grants", &api.admin)
        .json(grant)
        .await
        .ok(200);
    id
}

fn text(value: &Json) -> String {
    value.as_str().expect("a text").to_owned()
}

async fn log_in(api: &Api, body: Json) -> Reply {
    api.call("POST", "/v1/auth/login", "").json(body).await
}

async fn bearer(api: &Api, name: &str) -> String {
    let body = json!({"user": name, "password": PASSWORD, "scope": {"project": api.project}});
    text(&log_in(api, body).await.ok(200).json["token"])
}

#[tokio::test]
async fn a_login_gives_a_token_and_a_logout_takes_it_back() {
    let api = Api::new().await;
    let id = user(&api, "anna", BuiltIn::Member).await;
    let anna = bearer(&api, "anna").await;
    let who = api
        .call("GET", "/v1/auth/whoami", &anna)
        .send()
        .await
        .ok(200)
        .json;
    assert_eq!(who["user"], id);
    assert_eq!(who["scope"], json!({"type": "project", "id": api.project}));
    assert_eq!(who["via"], "user");
    assert!(
        who["roles"].as_array().unwrap().contains(&json!("member")),
        "{who}"
    );
    api.call("GET", "/v1/servers", &anna).send().await.ok(200);
    let from = log_in(&api, json!({"token": anna, "scope": "none"}))
        .await
        .ok(200);
    let second = text(&from.json["token"]);
    api.call("POST", "/v1/auth/logout", &anna).send().await.ok(204);
    for gone in [&anna, &second] {
        api.call("GET", "/v1/auth/whoami", gone)
            .send()
            .await
            .refused(401, "auth.required");
    }
    // All that is wrong is answered alike.
    let mut texts = std::collections::BTreeSet::new();
    for wrong in [
        json!({"user": "anna", "password": "wrong"}),
        json!({"user": "nobody", "password": PASSWORD}),
        json!({"user": "anna", "password": PASSWORD, "scope": "system"}),
        json!({"user": "anna", "password": PASSWORD, "domain": "nowhere"}),
        json!({"token": anna}),
        json!({"credential": "robot", "user": "anna", "secret": "sky_unknown"}),
        json!({"user": "anna", "code": "123456"}),
    ] {
        let mut refused = log_in(&api, wrong).await;
        refused.refused(401, "auth.denied");
        refused.json["request_id"] = Json::Null;
        texts.insert(refused.json.to_string());
    }
    assert_eq!(texts.len(), 1, "{texts:?}");
    log_in(&api, json!({})).await.refused(422, "field.missing");
    log_in(
        &api,
        json!({"user": "anna", "password": PASSWORD, "is_admin": true}),
    )
    .await
    .refused(422, "field.unknown");
}

#[tokio::test]
async fn guessing_is_answered_with_429() {
    let api = Api::new().await;
    user(&api, "anna", BuiltIn::Member).await;
    let mut last = None;
    for _ in 0..20 {
        last = Some(log_in(&api, json!({"user": "anna", "password": "guess"})).await);
    }
    let last = last.unwrap();
    assert_eq!(last.status, 429, "{}", last.text);
    assert!(last.header("retry-after").parse::<u64>().unwrap() > 0);
}

#[tokio::test]
async fn a_second_factor_over_the_wire() {
    let api = Api::new().await;
    user(&api, "anna", BuiltIn::Member).await;
    let anna = bearer(&api, "anna").await;
    let call = |path: String, body: Json| api.call("POST", &path, &anna).json(body);
    let begun = api
        .call("POST", "/v1/users/me/second-factors", &anna)
        .send()
        .await
        .ok(201)
        .json;
    let device = Totp::from_base32(TotpConfig::default(), begun["secret"].as_str().unwrap()).unwrap();
    let confirm = format!(
        "/v1/users/me/second-factors/{}/actions/confirm",
        text(&begun["id"])
    );
    call(confirm.clone(), json!({"code": "000000"}))
        .await
        .refused(422, "code.wrong");
    let shown = device.code_at(api.clock.now());
    let codes = call(confirm, json!({"code": shown})).await.ok(200).json;
    assert_eq!(codes["recovery_codes"].as_array().unwrap().len(), 10);
    api.call("GET", "/v1/auth/whoami", &anna)
        .send()
        .await
        .refused(401, "auth.required");
    log_in(&api, json!({"user": "anna", "password": PASSWORD}))
        .await
        .refused(401, "auth.denied");
    api.clock.advance(std::time::Duration::from_secs(60));
    let code = device.code_at(api.clock.now());
    log_in(&api, json!({"user": "anna", "password": PASSWORD, "code": code}))
        .await
        .ok(200);
    let recovery = &codes["recovery_codes"][0];
    let with = json!({"user": "anna", "password": PASSWORD, "recovery_code": recovery});
    log_in(&api, with.clone()).await.ok(200);
    log_in(&api, with).await.refused(401, "auth.denied");
}

#[tokio::test]
async fn passwords_are_set_and_changed() {
    let api = Api::new().await;
    let id = user(&api, "anna", BuiltIn::Member).await;
    let anna = bearer(&api, "anna").await;
    let change = |old: &str, new: &str| {
        let call = api.call("POST", "/v1/users/me/actions/change-password", &anna);
        call.json(json!({"old": old, "new": new}))
    };
    change("wrong", "quite another password")
        .await
        .refused(422, "password.wrong");
    change(PASSWORD, "short").await.refused(422, "password.rules");
    change(PASSWORD, "quite another password").await.ok(204);
    api.call("GET", "/v1/auth/whoami", &anna)
        .send()
        .await
        .refused(401, "auth.required");
    let set = format!("/v1/users/{id}/actions/set-password");
    api.post(&set, json!({"password": PASSWORD})).await.ok(204);
    let anna = bearer(&api, "anna").await;
    api.call("POST", &set, &anna)
        .json(json!({"password": PASSWORD}))
        .await
        .refused(403, "auth.forbidden");
    let first = format!("/v1/users/{}/actions/set-password", skyloom_identity::FIRST_ADMIN);
    api.call("POST", &first, &anna)
        .json(json!({"password": PASSWORD}))
        .await
        .refused(404, "user.not_found");
}

#[tokio::test]
async fn a_domain_has_its_own_people_and_sees_no_others() {
    let api = Api::new().await;
    let domain = api
        .post("/v1/domains", json!({"name": "acme"}))
        .await
        .ok(201)
        .json;
    let id = text(&domain["id"]);
    let boss = json!({"name": "boss", "domain": id, "password": PASSWORD});
    let boss = text(&api.post("/v1/users", boss).await.ok(201).json["id"]);
    let grant = json!({"role": BuiltIn::Manager.id(), "user": boss, "domain": id});
    api.call("PUT", "/v1/grants", &api.admin)
        .json(grant)
        .await
        .ok(200);
    let body = json!({"user": "boss", "domain": "acme", "password": PASSWORD, "scope": {"domain": "acme"}});
    let bearer = text(&log_in(&api, body).await.ok(200).json["token"]);
    let ask = |method: &'static str, path: String| api.call(method, &path, &bearer);

    let anna = ask("POST", "/v1/users".into())
        .json(json!({"name": "anna", "domain": id}))
        .await
        .ok(201)
        .json;
    let group = ask("POST", "/v1/groups".into())
        .json(json!({"name": "all", "domain": id}))
        .await
        .ok(201)
        .json;
    let member = format!("/v1/groups/{}/members/{}", text(&group["id"]), text(&anna["id"]));
    ask("PUT", member.clone()).send().await.ok(204);
    let members = ask("GET", format!("/v1/groups/{}/members", text(&group["id"])))
        .send()
        .await
        .ok(200)
        .json;
    assert_eq!(members["items"][0]["name"], "anna");
    ask("DELETE", member).send().await.ok(204);
    let users = ask("GET", "/v1/users".into()).send().await.ok(200).json;
    let names: Vec<&str> = users["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|u| u["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["boss", "anna"]);

    // What is elsewhere is not there.
    let theirs = user(&api, "theirs", BuiltIn::Member).await;
    for (method, path) in [
        ("GET", format!("/v1/users/{theirs}")),
        ("DELETE", format!("/v1/users/{theirs}")),
        ("GET", format!("/v1/users/{}", uuid::Uuid::from_u128(7))),
    ] {
        ask(method, path).send().await.refused(404, "user.not_found");
    }
    ask("GET", format!("/v1/domains/{DEFAULT_DOMAIN}"))
        .send()
        .await
        .refused(404, "domain.not_found");
    let there = json!({"name": "spy", "domain": DEFAULT_DOMAIN});
    ask("POST", "/v1/users".into())
        .json(there)
        .await
        .refused(404, "user.not_found");
    // A manager gives no role beyond its own.
    for (role, status) in [
        (BuiltIn::Admin, 403),
        (BuiltIn::Auditor, 403),
        (BuiltIn::Member, 200),
    ] {
        let grant = json!({"role": role.id(), "user": text(&anna["id"]), "domain": id});
        ask("PUT", "/v1/grants".into()).json(grant).await.ok(status);
    }
    // It goes only when it is disabled, and with all that is in it.
    let path = format!("/v1/domains/{id}");
    api.call("DELETE", &path, &api.admin)
        .send()
        .await
        .refused(409, "conflict");
    let off = api
        .call("PATCH", &path, &api.admin)
        .header("if-match", "\"1\"")
        .json(json!({"enabled": false}))
        .await;
    off.refused(412, "precondition.failed");
    api.call("PATCH", &path, &api.admin)
        .json(json!({"enabled": false}))
        .await
        .ok(200);
    ask("GET", "/v1/users".into())
        .send()
        .await
        .refused(401, "auth.required");
    api.call("DELETE", &path, &api.admin).send().await.ok(204);
    api.get(&path).await.refused(404, "domain.not_found");
}

#[tokio::test]
async fn roles_of_ones_own_count_at_once() {
    let api = Api::new().await;
    let role = json!({"name": "restarter", "permissions": ["server:read", "server:reboot"]});
    let role = api.post("/v1/roles", role).await.ok(201).json;
    let path = format!("/v1/roles/{}", text(&role["id"]));
    for wrong in [
        json!(["server:fly"]),
        json!(["audit:read"]),
        json!(["!server:read"]),
    ] {
        let changed = api
            .call("PATCH", &path, &api.admin)
            .json(json!({"permissions": wrong}))
            .await;
        changed.refused(422, "role.permissions_invalid");
    }
    let id = text(
        &api.post("/v1/users", json!({"name": "bert", "password": PASSWORD}))
            .await
            .ok(201)
            .json["id"],
    );
    let grant = json!({"role": role["id"], "user": id, "project": api.project});
    api.call("PUT", "/v1/grants", &api.admin)
        .json(grant)
        .await
        .ok(200);
    let bert = bearer(&api, "bert").await;
    api.call("GET", "/v1/servers", &bert).send().await.ok(200);
    api.call("GET", "/v1/keypairs", &bert)
        .send()
        .await
        .refused(403, "auth.forbidden");
    let ask = json!({"permission": "keypair:read", "project": api.project});
    let why = api
        .call("POST", "/v1/policy/actions/explain", &bert)
        .json(ask)
        .await
        .ok(200)
        .json;
    assert_eq!(why["effect"], "hidden", "{why}");
    let implied = format!("{path}/implies/{}", BuiltIn::Reader.id());
    api.call("PUT", &implied, &api.admin).send().await.ok(204);
    api.call("GET", "/v1/keypairs", &bert).send().await.ok(200);
    let admin = format!("{path}/implies/{}", BuiltIn::Admin.id());
    api.call("PUT", &admin, &api.admin)
        .send()
        .await
        .refused(403, "auth.forbidden");
    api.call("DELETE", &path, &api.admin).send().await.ok(204);
    api.call("GET", "/v1/servers", &bert)
        .send()
        .await
        .refused(401, "auth.required");
    let built_in = format!("/v1/roles/{}", BuiltIn::Reader.id());
    api.call("DELETE", &built_in, &api.admin)
        .send()
        .await
        .refused(409, "role.in_use");
}

#[tokio::test]
async fn credentials_and_tokens_show_their_secrets_once() {
    let api = Api::new().await;
    let id = user(&api, "anna", BuiltIn::Member).await;
    let anna = bearer(&api, "anna").await;
    let path = format!("/v1/users/{id}/credentials");
    let asked = json!({"name": "robot", "permissions": ["server:read"]});
    let made = api.call("POST", &path, &anna).json(asked).await.ok(201).json;
    let secret = text(&made["secret"]);
    let with = json!({"user": "anna", "credential": "robot", "secret": secret});
    let robot = text(&log_in(&api, with).await.ok(200).json["token"]);
    api.call("GET", "/v1/servers", &robot).send().await.ok(200);
    api.call("GET", "/v1/keypairs", &robot)
        .send()
        .await
        .refused(403, "auth.forbidden");
    api.call("POST", &path, &robot)
        .json(json!({"name": "child"}))
        .await
        .refused(404, "credential.not_found");
    let token = json!({"name": "ci", "holder": {"type": "user", "permissions": ["server:read"]}});
    let token = api
        .call("POST", "/v1/tokens", &anna)
        .json(token)
        .await
        .ok(201)
        .json;
    let secret_of_token = text(&token["secret"]);
    api.call("GET", "/v1/servers", &secret_of_token)
        .send()
        .await
        .ok(200);
    api.call("POST", "/v1/tokens", &secret_of_token)
        .json(json!({"name": "more"}))
        .await
        .refused(404, "token.not_found");
    let found = api
        .call(
            "GET",
            &format!("/v1/tokens?prefix={}", &secret_of_token[..8]),
            &anna,
        )
        .send()
        .await
        .ok(200);
    assert_eq!(found.json["items"].as_array().unwrap().len(), 1);
    let lists = api.call("GET", &path, &anna).send().await.ok(200).text + &found.text;
    assert!(!lists.contains(&secret) && !lists.contains(&secret_of_token));
    let gone = format!("/v1/tokens/{}", text(&token["token"]["meta"]["id"]));
    api.call("DELETE", &gone, &anna).send().await.ok(204);
    api.call("GET", "/v1/servers", &secret_of_token)
        .send()
        .await
        .refused(401, "auth.required");
    let gone = format!("{path}/{}", text(&made["credential"]["id"]));
    api.call("DELETE", &gone, &anna).send().await.ok(204);
    api.call("GET", "/v1/servers", &robot)
        .send()
        .await
        .refused(401, "auth.required");
}

#[tokio::test]
async fn the_audit_is_the_auditors() {
    let api = Api::new().await;
    user(&api, "anna", BuiltIn::Auditor).await;
    user(&api, "bert", BuiltIn::Admin).await;
    let (anna, bert) = (bearer(&api, "anna").await, bearer(&api, "bert").await);
    api.call("GET", "/v1/audit", &bert)
        .send()
        .await
        .refused(403, "auth.forbidden");
    api.get("/v1/audit").await.refused(403, "auth.forbidden");
    let found = api
        .call("GET", "/v1/audit?action=grant:create", &anna)
        .send()
        .await
        .ok(200)
        .json;
    let items = found["items"].as_array().unwrap();
    assert_eq!(items.len(), 2, "{found}");
    assert!(
        items
            .iter()
            .all(|item| item["project"] == json!(api.project) && item["outcome"] == "done")
    );
    api.call("GET", "/v1/audit?cursor=what", &anna)
        .send()
        .await
        .refused(422, "cursor.invalid");
    let whole = api.call("POST", "/v1/audit/actions/verify", &anna).send().await;
    whole.refused(403, "auth.forbidden");
}

#[tokio::test]
async fn quotas_and_projects() {
    let api = Api::new().await;
    user(&api, "anna", BuiltIn::Member).await;
    let anna = bearer(&api, "anna").await;
    let path = format!("/v1/quotas/{}", api.project);
    let set = json!({"limits": {"servers": 5, "vcpus": null}});
    api.call("PUT", &path, &anna)
        .json(set.clone())
        .await
        .refused(403, "auth.forbidden");
    api.call("PUT", &path, &api.admin).json(set).await.ok(200);
    let quota = api.call("GET", &path, &anna).send().await.ok(200).json;
    assert_eq!(
        quota["resources"]["servers"],
        json!({"used": 0, "limit": 5}),
        "{quota}"
    );
    let wrong = json!({"limits": {"no such thing!": 1}});
    api.call("PUT", &path, &api.admin)
        .json(wrong)
        .await
        .refused(422, "quota.resource_invalid");
    let project = api.project("shop").await;
    let path = format!("/v1/projects/{project}");
    api.call("PATCH", &path, &anna)
        .json(json!({"enabled": false}))
        .await
        .refused(404, "project.not_found");
    let off = api
        .call("PATCH", &path, &api.admin)
        .json(json!({"enabled": false, "tags": ["old"]}))
        .await
        .ok(200)
        .json;
    assert_eq!(off["spec"]["enabled"], false);
    api.call("DELETE", &path, &api.admin).send().await.ok(204);
    api.get(&path).await.refused(404, "project.not_found");
    let own = format!("/v1/projects/{}", api.project);
    let key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl anna";
    api.post("/v1/keypairs", json!({"name": "laptop", "public_key": key}))
        .await
        .ok(201);
    api.call("DELETE", &own, &api.admin)
        .send()
        .await
        .refused(409, "project.in_use");
}
