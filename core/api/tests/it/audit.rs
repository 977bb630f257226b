//! What the audit has of changes that were not allowed, and of machines that join.

use serde_json::{Value as Json, json};
use skyloom_identity::{Actor, BuiltIn, DEFAULT_DOMAIN, Target};

use crate::harness::{Api, Role};

impl Api {
    /// What an auditor of the whole cloud finds.
    pub(crate) async fn audited(&self, query: &str) -> Vec<Json> {
        let who = self
            .call("GET", "/v1/auth/whoami", &self.admin)
            .send()
            .await
            .ok(200)
            .json;
        let user = who["user"].as_str().expect("a user").parse().expect("an id");
        let made = self
            .identity
            .editor()
            .change(|edit| edit.grant(Target::System, Actor::User(user), BuiltIn::Auditor.id(), false))
            .await;
        made.expect("a grant");
        let found = self.get(&format!("/v1/audit?{query}")).await.ok(200).json;
        found["items"].as_array().expect("items").clone()
    }
}

#[tokio::test]
async fn what_is_not_allowed_is_told_with_who_and_what() {
    let api = Api::new().await;
    let reader = api.token(Role::Reader { project: api.project }).await;
    let who = api
        .call("GET", "/v1/auth/whoami", &reader)
        .send()
        .await
        .ok(200)
        .json;
    let key = json!({"name": "k", "public_key": "ssh-ed25519 AAAA"});
    let asked = api
        .call("POST", "/v1/keypairs", &reader)
        .header("x-request-id", "door-1");
    asked.json(key).await.refused(403, "auth.forbidden");
    // What is hidden is told, too; what was only looked at is not.
    let hidden = format!("/v1/hosts/{}", api.host("h1").await.0);
    api.call("DELETE", &hidden, &reader)
        .header("x-request-id", "door-2")
        .send()
        .await;
    let looked = api
        .call("GET", "/v1/hosts", &reader)
        .header("x-request-id", "door-3");
    looked.send().await.refused(403, "auth.forbidden");

    let told = api.audited("request_id=door-1").await;
    assert_eq!(told.len(), 1, "{told:?}");
    assert_eq!(
        (&told[0]["action"], &told[0]["outcome"], &told[0]["code"]),
        (
            &json!("keypair:create"),
            &json!("denied"),
            &json!("auth.forbidden")
        )
    );
    assert_eq!(told[0]["user"], who["user"]);
    assert_eq!(
        (&told[0]["project"], &told[0]["domain"]),
        (&json!(api.project), &json!(DEFAULT_DOMAIN))
    );
    assert_eq!(api.audited("request_id=door-2").await.len(), 1);
    assert!(api.audited("request_id=door-3").await.is_empty());
}
