//! Roles, and what they imply.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::Path;
use axum::http::StatusCode;
use axum::response::IntoResponse as _;
use axum::routing::{get, put};
use bytes::Bytes;
use serde_json::{Value, json};
use skyloom_identity::{ChangeError, Doomed, Role, RoleId};
use skyloom_store::Versioned;

use super::ask::Ask;
use super::edge::Routes;
use super::error::{Answer, Refusal};
use super::fields::{Fields, merge};
use super::ids;
use super::thing::{Lies, Thing};

/// Longest name of a role, as Keystone has it.
const MAX_NAME: usize = 255;

pub(crate) fn routes() -> Routes {
    Routes::new()
        .route("/roles", get(list_roles).post(create_role))
        .route(
            "/roles/{role}",
            get(show_role).patch(update_role).delete(delete_role),
        )
        .route("/roles/{role}/implies", get(list_implied))
        .route(
            "/roles/{role}/implies/{implied}",
            put(imply).get(show_implied).head(check_implied).delete(unimply),
        )
        .route("/role_inferences", get(list_inferences))
}

/// To read: from every scope if it is global.
fn seen(role: &Role) -> Thing {
    let lies = role.domain.map_or(Lies::Shared, Lies::Domain);
    Thing::one("role", lies, role.id.uuid()).named(&role.name)
}

/// To change.
fn owned(role: &Role) -> Thing {
    let lies = role.domain.map_or(Lies::System, Lies::Domain);
    Thing::one("role", lies, role.id.uuid()).named(&role.name)
}

impl Ask {
    pub(crate) async fn find_role(&self, id: &str) -> Answer<Arc<Versioned<Role>>> {
        let found = ids::parse(id)
            .and_then(|id| self.at.role(id))
            .filter(|role| !role.value.deleting);
        let found = found.ok_or_else(|| self.absent("role:read", "role", id))?;
        self.require("role:read", &seen(&found.value)).await?;
        Ok(found.clone())
    }
}

async fn list_roles(ask: Ask) -> Answer {
    ask.require_list("role:read")?;
    // Without a domain those that are global, as Keystone answers.
    let of = match ask.query.get("domain_id") {
        None => None,
        Some(id) => Some(ids::parse_domain(id).ok_or_else(|| Refusal::missing("domain", id))?),
    };
    let roles = ask
        .at
        .roles()
        .filter(|role| role.value.domain == of && !role.value.deleting);
    let seen = roles.filter(|role| ask.may("role:read", &seen(&role.value)));
    let roles = seen.map(|role| ask.shape().role(&role.value)).collect();
    ask.page("roles", roles, &["name"])
}

async fn show_role(ask: Ask, Path(id): Path<String>) -> Answer {
    let found = ask.find_role(&id).await?;
    Ok(Json(json!({"role": ask.shape().role(&found.value)})).into_response())
}

/// Roles have no options here; what is built in says so itself.
fn no_options(body: &mut Fields) -> Answer<()> {
    let Some(options) = body.object("options")? else {
        return Ok(());
    };
    let rest = options.rest();
    if rest
        .iter()
        .all(|(name, value)| name == "immutable" && !value.as_bool().unwrap_or(false))
    {
        return Ok(());
    }
    Err(Refusal::bad(
        "Invalid input for field 'options': there are none here",
    ))
}

async fn create_role(ask: Ask, body: Bytes) -> Answer {
    let mut body = Fields::of(&body, "role")?;
    let name = body.needed_name("name", MAX_NAME)?;
    let domain = body.domain("domain_id")?;
    let description = body.text("description")?.unwrap_or_default();
    no_options(&mut body)?;
    let lies = domain.map_or(Lies::System, Lies::Domain);
    ask.require("role:create", &Thing::new("role", lies).named(&name))
        .await?;
    let rest = body.rest();
    let made = ask
        .change(
            |edit| {
                edit.create_role(domain, &name, |role| {
                    role.description.clone_from(&description);
                    merge(&mut role.extra, &rest);
                })
            },
            |role| owned(role).deed("role:create"),
        )
        .await?;
    Ok((
        StatusCode::CREATED,
        Json(json!({"role": ask.shape().role(&made)})),
    )
        .into_response())
}

async fn update_role(ask: Ask, Path(id): Path<String>, body: Bytes) -> Answer {
    let found = ask.find_role(&id).await?;
    ask.require("role:update", &owned(&found.value)).await?;
    let mut body = Fields::of(&body, "role")?;
    body.same_id(&id)?;
    let (name, description) = (body.name("name", MAX_NAME)?, body.nullable("description")?);
    let domain = body.domain("domain_id")?;
    if domain.is_some() && domain != found.value.domain {
        return Err(Refusal::bad("Cannot change Domain ID"));
    }
    no_options(&mut body)?;
    let (role, rest) = (found.value.id, body.rest());
    let made = ask
        .change(
            |edit| {
                edit.update_role(role, |role| {
                    if let Some(name) = &name {
                        role.name.clone_from(name);
                    }
                    if let Some(description) = &description {
                        role.description = description.clone().unwrap_or_default();
                    }
                    merge(&mut role.extra, &rest);
                })
            },
            |role| owned(role).deed("role:update"),
        )
        .await?;
    Ok(Json(json!({"role": ask.shape().role(&made)})).into_response())
}

async fn delete_role(ask: Ask, Path(id): Path<String>) -> Answer<StatusCode> {
    let found = ask.find_role(&id).await?;
    let thing = owned(&found.value);
    ask.require("role:delete", &thing).await?;
    ask.remove(Doomed::Role(found.value.id), thing.deed("role:delete"))
        .await?;
    Ok(StatusCode::NO_CONTENT)
}

/// A rule's two roles, as they are shown.
fn inference(ask: &Ask, prior: RoleId, implied: RoleId) -> Value {
    let link = ask.link(&format!(
        "roles/{}/implies/{}",
        ids::hex(prior),
        ids::hex(implied)
    ));
    json!({
        "role_inference": {
            "prior_role": ask.shape().role_ref(prior),
            "implies": ask.shape().role_ref(implied),
        },
        "links": {"self": link},
    })
}

async fn pair(ask: &Ask, prior: &str, implied: &str) -> Answer<(Arc<Versioned<Role>>, RoleId)> {
    let prior = ask.find_role(prior).await?;
    let implied = ask.find_role(implied).await?.value.id;
    Ok((prior, implied))
}

async fn imply(ask: Ask, Path((prior, implied)): Path<(String, String)>) -> Answer {
    let (prior, implied) = pair(&ask, &prior, &implied).await?;
    let thing = owned(&prior.value);
    ask.require("role:update", &thing).await?;
    let id = prior.value.id;
    let made = ask
        .identity()
        .change(
            &ask.call(),
            |edit| edit.imply(id, implied, false),
            |_| thing.deed("role:update").changed(&["implies"]),
        )
        .await;
    match made {
        Ok(_) => Ok((StatusCode::CREATED, Json(inference(&ask, id, implied))).into_response()),
        Err(ChangeError::Invalid { why, .. }) => Err(Refusal::forbidden(format!(
            "{} cannot be an implied role: it {why}.",
            ids::hex(implied)
        ))),
        Err(error) => Err(error.into()),
    }
}

async fn show_implied(ask: Ask, Path((prior, implied)): Path<(String, String)>) -> Answer {
    let (prior, shown) = (pair(&ask, &prior, &implied).await?, implied);
    let (prior, implied) = prior;
    match ask.at.implication(prior.value.id, implied) {
        Some(_) => Ok(Json(inference(&ask, prior.value.id, implied)).into_response()),
        None => Err(Refusal::missing("implied role", &shown)),
    }
}

async fn check_implied(ask: Ask, path: Path<(String, String)>) -> Answer<StatusCode> {
    show_implied(ask, path).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn unimply(ask: Ask, Path((prior, implied)): Path<(String, String)>) -> Answer<StatusCode> {
    let (prior, implied) = pair(&ask, &prior, &implied).await?;
    let thing = owned(&prior.value);
    ask.require("role:update", &thing).await?;
    ask.change(
        |edit| edit.unimply(prior.value.id, implied),
        |_| thing.deed("role:update").changed(&["implies"]),
    )
    .await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn list_implied(ask: Ask, Path(id): Path<String>) -> Answer {
    let prior = ask.find_role(&id).await?.value.id;
    let pairs = ask.at.implications().filter(|pair| pair.value.prior == prior);
    let implies: Vec<Value> = pairs
        .map(|pair| ask.shape().role_ref(pair.value.implied))
        .collect();
    let answer = json!({
        "role_inference": {"prior_role": ask.shape().role_ref(prior), "implies": implies},
        "links": {"self": ask.link(&format!("roles/{}/implies", ids::hex(prior)))},
    });
    Ok(Json(answer).into_response())
}

async fn list_inferences(ask: Ask) -> Answer {
    ask.require_list("role:read")?;
    let mut rules: BTreeMap<RoleId, Vec<Value>> = BTreeMap::new();
    for pair in ask.at.implications() {
        let (prior, implied) = (pair.value.prior, pair.value.implied);
        let readable = |id| {
            ask.at
                .role(id)
                .is_some_and(|role| ask.may("role:read", &seen(&role.value)))
        };
        if readable(prior) && readable(implied) {
            rules
                .entry(prior)
                .or_default()
                .push(ask.shape().role_ref(implied));
        }
    }
    let shown = rules
        .into_iter()
        .map(|(prior, implies)| json!({"prior_role": ask.shape().role_ref(prior), "implies": implies}));
    let answer = json!({
        "role_inferences": shown.collect::<Vec<_>>(),
        "links": {"self": ask.link("role_inferences")},
    });
    Ok(Json(answer).into_response())
}
