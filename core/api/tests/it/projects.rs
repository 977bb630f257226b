//! Where projects are made, and by whom; quotas and ledgers of hosts counted anew.

use serde_json::{Value as Json, json};
use skyloom_identity::{
    Actor, BuiltIn, DEFAULT_DOMAIN, DomainId, Draft, Edit, MAX_PROJECT_DEPTH, Owner, Target, ledger_path,
};
use skyloom_model::{HostId, ProjectId, paths};
use skyloom_store::{Key, Store as _, Txn, Value};
use uuid::Uuid;

use crate::harness::{Api, Reply};

const PASSWORD: &str = "correct horse battery";

async fn change<T>(api: &Api, build: impl Fn(&Edit<'_>) -> skyloom_identity::ChangeResult<Draft<T>>) -> T {
    api.identity.editor().change(build).await.expect("a change")
}

/// Who has a role in a domain, logged in there.
async fn of_domain(api: &Api, domain: DomainId, role: BuiltIn) -> String {
    let name = format!("{}-{domain}", role.name());
    let made = api
        .post(
            "/v1/users",
            json!({"name": name, "password": PASSWORD, "domain": domain}),
        )
        .await
        .ok(201);
    let user = made.json["id"].as_str().unwrap().parse().unwrap();
    change(api, |edit| {
        edit.grant(Target::Domain(domain), Actor::User(user), role.id(), false)
    })
    .await;
    let login = json!({"user": name, "password": PASSWORD, "domain": domain, "scope": {"domain": domain}});
    let answer = api.call("POST", "/v1/auth/login", "").json(login).await.ok(200);
    answer.json["token"].as_str().unwrap().to_owned()
}

async fn make(api: &Api, bearer: &str, body: Json) -> Reply {
    api.call("POST", "/v1/projects", bearer).json(body).await
}

fn id(made: &Json) -> Uuid {
    made["meta"]["id"].as_str().unwrap().parse().unwrap()
}

#[tokio::test]
async fn projects_are_made_in_domains_and_below_projects() {
    let api = Api::new().await;
    let acme = change(&api, |edit| edit.create_domain("acme", |_| {})).await.id;
    let manager = of_domain(&api, acme, BuiltIn::Manager).await;
    let member = of_domain(&api, acme, BuiltIn::Member).await;

    // In one's own domain without being asked; names are unique in it alone.
    let top = make(&api, &manager, json!({"name": "shop"})).await.ok(201).json;
    assert_eq!(top["spec"]["domain"], json!(acme));
    assert_eq!(top["spec"]["parent"], Json::Null);
    make(&api, &manager, json!({"name": "SHOP"}))
        .await
        .refused(409, "project.name_taken");
    let first = make(&api, &api.admin, json!({"name": "shop"})).await.ok(201).json;
    assert_eq!(first["spec"]["domain"], json!(DEFAULT_DOMAIN));
    let below = make(&api, &manager, json!({"name": "web", "parent": id(&top)}))
        .await
        .ok(201)
        .json;
    assert_eq!(
        (&below["spec"]["domain"], &below["spec"]["parent"]),
        (&json!(acme), &json!(id(&top)))
    );
    let lineage = skyloom_identity::Lineages::lineage(&api.identity, ProjectId::from_uuid(id(&below)));
    assert_eq!(lineage.unwrap().ancestors[..], [ProjectId::from_uuid(id(&top))]);
    // For others by who runs the cloud.
    let made = make(&api, &api.admin, json!({"name": "api", "domain": acme}))
        .await
        .ok(201);
    assert_eq!(made.json["spec"]["domain"], json!(acme));

    // Not by who only works there; not in other domains, whether they are there or not.
    make(&api, &member, json!({"name": "x"}))
        .await
        .refused(403, "auth.forbidden");
    let mut answers = std::collections::BTreeSet::new();
    for domain in [DEFAULT_DOMAIN.uuid(), Uuid::from_u128(99)] {
        let mut refused = make(&api, &manager, json!({"name": "x", "domain": domain})).await;
        assert!([403, 404].contains(&refused.status.as_u16()), "{refused:?}");
        refused.json["request_id"].take();
        answers.insert(refused.json.to_string());
    }
    assert_eq!(answers.len(), 1, "{answers:?}");
    for parent in [id(&first), Uuid::from_u128(99)] {
        let body = json!({"name": "x", "parent": parent});
        make(&api, &manager, body).await.refused(422, "project.not_found");
    }
    let elsewhere = json!({"name": "x", "parent": id(&top), "domain": DEFAULT_DOMAIN});
    make(&api, &api.admin, elsewhere)
        .await
        .refused(422, "project.elsewhere");
    let nowhere = json!({"name": "x", "domain": Uuid::from_u128(99)});
    make(&api, &api.admin, nowhere)
        .await
        .refused(422, "domain.not_found");
}

#[tokio::test]
async fn nothing_is_made_below_what_is_disabled_or_too_deep() {
    let api = Api::new().await;
    let make = async |name: &str, parent: Uuid| {
        make(&api, &api.admin, json!({"name": name, "parent": parent})).await
    };
    let mut parent = api.project.uuid();
    for depth in 1..MAX_PROJECT_DEPTH {
        parent = id(&make(&format!("p{depth}"), parent).await.ok(201).json);
    }
    make("deep", parent).await.refused(422, "project.too_deep");
    let above = id(&make("above", api.project.uuid()).await.ok(201).json);
    let inner = id(&make("inner", above).await.ok(201).json);
    api.call("PATCH", &format!("/v1/projects/{above}"), &api.admin)
        .json(json!({"enabled": false}))
        .await
        .ok(200);
    make("late", inner).await.refused(409, "project.disabled");
    // What has something below it stays.
    api.call("DELETE", &format!("/v1/projects/{above}"), &api.admin)
        .send()
        .await
        .refused(409, "project.in_use");
}

#[tokio::test]
async fn an_operator_has_quotas_counted_anew() {
    let api = Api::new().await;
    let path = "/v1/quotas/actions/recount";
    let member = api.member().await;
    api.call("POST", path, &member)
        .send()
        .await
        .refused(403, "auth.forbidden");
    let recount =
        async || api.call("POST", path, &api.admin).send().await.ok(200).json["corrections"].clone();
    assert_eq!(recount().await, json!([]));
    let at = Key::parse(&ledger_path(Owner::Project(api.project))).unwrap();
    let broken = Value::json(&json!({"used": {"servers": 7}})).unwrap();
    api.memory.commit(Txn::new().put(at, broken)).await.unwrap();
    let wrong = json!([{"kind": "project", "owner": api.project, "resource": "servers", "was": 7, "is": 0}]);
    assert_eq!(recount().await, wrong);
    assert_eq!(recount().await, json!([]));
    let told = api.audited("action=quota:recount&outcome=done").await;
    assert_eq!(told.len(), 1, "only what was put right: {told:?}");
    assert_eq!(told[0]["object"], json!(api.project));
}

#[tokio::test]
async fn an_operator_has_what_is_claimed_of_hosts_counted_anew() {
    let api = Api::new().await;
    let path = "/v1/hosts/actions/recount";
    let member = api.member().await;
    api.call("POST", path, &member)
        .send()
        .await
        .refused(403, "auth.forbidden");
    let recount = async || api.call("POST", path, &api.admin).send().await.ok(200).json["items"].clone();
    assert_eq!(recount().await, json!([]));
    let host = HostId::from_uuid(Uuid::from_u128(7));
    let at = Key::parse(&paths::ledger(host)).unwrap();
    let broken =
        Value::json(&json!({"used": {"vcpus": 0, "memory_mib": 0, "disk_gib": 0}, "servers": 3})).unwrap();
    api.memory.commit(Txn::new().put(at, broken)).await.unwrap();
    let wrong = json!([{"host": host, "name": null, "resource": "servers", "was": 3, "is": 0}]);
    assert_eq!(recount().await, wrong);
    assert_eq!(recount().await, json!([]));
    let told = api.audited("action=host:recount&outcome=done").await;
    assert_eq!(told.len(), 1, "only what was put right: {told:?}");
}
