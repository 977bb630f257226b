//! Policies, OAuth consumers and endpoint groups: Keystone's clients keep them here, and nothing follows from them.

use std::sync::Arc;

use axum::Json;
use axum::extract::Path;
use axum::http::StatusCode;
use axum::response::IntoResponse as _;
use axum::routing::get;
use bytes::Bytes;
use serde_json::{Value, json};
use skyloom_model::Secret;

use super::OpenstackParts;
use super::ask::Ask;
use super::edge::Routes;
use super::error::{Answer, Refusal};
use super::fields::{Fields, merge};
use super::shelf::Document;
use super::thing::{Lies, Thing};

/// A kind of such documents.
#[derive(Debug, Clone, Copy)]
struct Kind {
    /// Its path below `v3`.
    path: &'static str,
    /// Its folder below `openstack/`.
    folder: &'static str,
    /// One of them in bodies and messages.
    one: &'static str,
    /// Several in lists.
    many: &'static str,
    /// Texts that one must have.
    needed: &'static [&'static str],
    /// Whether it has a secret, shown when it is made and never kept.
    secret: bool,
}

const KINDS: [Kind; 3] = [
    Kind {
        path: "policies",
        folder: "openstack/policies",
        one: "policy",
        many: "policies",
        needed: &["type"],
        secret: false,
    },
    Kind {
        path: "OS-OAUTH1/consumers",
        folder: "openstack/consumers",
        one: "consumer",
        many: "consumers",
        needed: &[],
        secret: true,
    },
    Kind {
        path: "OS-EP-FILTER/endpoint_groups",
        folder: "openstack/endpoint-groups",
        one: "endpoint_group",
        many: "endpoint_groups",
        needed: &["name"],
        secret: false,
    },
];

pub(crate) fn routes() -> Routes {
    let mut routes = super::configs::routes();
    for kind in KINDS {
        let all = format!("/{}", kind.path);
        let one = format!("/{}/{{id}}", kind.path);
        let list = move |ask: Ask| list(ask, kind);
        let create = move |ask: Ask, body: Bytes| create(ask, kind, body);
        let show = move |ask: Ask, Path(id): Path<String>| show(ask, kind, id);
        let update = move |ask: Ask, Path(id): Path<String>, body: Bytes| update(ask, kind, id, body);
        let delete = move |ask: Ask, Path(id): Path<String>| delete(ask, kind, id);
        let alone = get(show).patch(update).delete(delete);
        let alone: axum::routing::MethodRouter<Arc<OpenstackParts>> = alone;
        routes = routes.route(&all, get(list).post(create)).route(&one, alone);
    }
    routes
}

pub(super) async fn may_read(ask: &Ask) -> Answer<()> {
    ask.require("catalog:read", &Thing::new("catalog", Lies::System))
        .await
}

pub(super) async fn may_change(ask: &Ask) -> Answer<()> {
    ask.require("catalog:update", &Thing::new("catalog", Lies::System))
        .await
}

impl Kind {
    fn place(self, id: &str) -> Answer<String> {
        let hex = id.len() == 32 && id.bytes().all(|b| b.is_ascii_hexdigit());
        if hex {
            Ok(format!("{}/{id}", self.folder))
        } else {
            Err(Refusal::missing(self.one, id))
        }
    }

    fn shown(self, ask: &Ask, mut document: Document) -> Value {
        let id = document.get("id").and_then(Value::as_str).unwrap_or_default();
        let link = ask.link(&format!("{}/{id}", self.path));
        document.insert("links".to_owned(), json!({"self": link}));
        Value::Object(document)
    }
}

async fn list(ask: Ask, kind: Kind) -> Answer {
    may_read(&ask).await?;
    let all = ask.all_shelved(kind.folder).await?;
    let all = all
        .into_iter()
        .map(|document| kind.shown(&ask, document))
        .collect();
    ask.page(kind.many, all, &["name", "type"])
}

async fn create(ask: Ask, kind: Kind, body: Bytes) -> Answer {
    may_change(&ask).await?;
    let mut body = Fields::of(&body, kind.one)?;
    let mut document = Document::new();
    for field in kind.needed {
        document.insert((*field).to_owned(), body.needed(field)?.into());
    }
    document.extend(body.rest());
    let id = ask.parts.ids.uuid().simple().to_string();
    document.insert("id".to_owned(), id.as_str().into());
    ask.shelve(kind.folder, &kind.place(&id)?, &document).await?;
    if kind.secret {
        let secret = random_hex(&ask);
        document.insert("secret".to_owned(), secret.expose().as_str().into());
    }
    let shown = json!({kind.one: kind.shown(&ask, document)});
    Ok((StatusCode::CREATED, Json(shown)).into_response())
}

/// A secret of 32 random bytes.
pub(super) fn random_hex(ask: &Ask) -> Secret<String> {
    let mut bytes = [0; 32];
    ask.parts.ids.random(&mut bytes);
    Secret::new(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

async fn show(ask: Ask, kind: Kind, id: String) -> Answer {
    may_read(&ask).await?;
    let found = ask.shelved(&kind.place(&id)?).await?;
    let found = found.ok_or_else(|| Refusal::missing(kind.one, &id))?;
    Ok(Json(json!({kind.one: kind.shown(&ask, found)})).into_response())
}

async fn update(ask: Ask, kind: Kind, id: String, body: Bytes) -> Answer {
    may_change(&ask).await?;
    let mut body = Fields::of(&body, kind.one)?;
    body.same_id(&id)?;
    let rest = body.rest();
    let changed = ask
        .reshelve(&kind.place(&id)?, |document| {
            merge(document, &rest);
            Ok(())
        })
        .await?;
    let changed = changed.ok_or_else(|| Refusal::missing(kind.one, &id))?;
    Ok(Json(json!({kind.one: kind.shown(&ask, changed)})).into_response())
}

async fn delete(ask: Ask, kind: Kind, id: String) -> Answer<StatusCode> {
    may_change(&ask).await?;
    if ask.unshelve(&kind.place(&id)?).await? {
        return Ok(StatusCode::NO_CONTENT);
    }
    Err(Refusal::missing(kind.one, &id))
}
