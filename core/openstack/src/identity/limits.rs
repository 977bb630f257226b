//! Unified limits, over Skyloom's quotas.
//!
//! ```text
//! registered limit <- what is counted: no default limit, -1 (the cloud's own defaults are its configuration, not in the store)
//! limit            <-> one limit in the ledger of a project or a domain
//! ```
//!
//! Their ids are made of the owner and the resource, and belong to the catalog's service of that kind of resource.

use axum::Json;
use axum::extract::Path;
use axum::http::StatusCode;
use axum::response::IntoResponse as _;
use axum::routing::get;
use bytes::Bytes;
use serde_json::{Value, json};
use skyloom_identity::{AuthScope, COUNTED, Deed, Limit, Limits, Owner, ResourceName, Slot};
use skyloom_model::ProjectId;
use skyloom_store::Txn;
use uuid::Uuid;

use super::ask::Ask;
use super::edge::Routes;
use super::error::{Answer, Refusal};
use super::fields::Fields;
use super::ids;
use super::thing::{Lies, Thing};

const READ: &str = "quota:read";
const CHANGE: &str = "quota:update";
/// Tries before it is given up that others write the same ledger.
const TRIES: usize = 8;
/// Most limits of one request.
const MOST: usize = 100;
/// What Keystone writes for "any amount".
const UNLIMITED: i64 = -1;

pub(crate) fn routes() -> Routes {
    Routes::new()
        .route("/limits/model", get(model))
        .route("/limits", get(list).post(create))
        .route("/limits/{limit}", get(show).patch(update).delete(delete))
        .route("/registered_limits", get(list_registered).post(fixed))
        .route(
            "/registered_limits/{limit}",
            get(show_registered).patch(fixed).delete(fixed),
        )
}

/// A limit of a project or a domain.
#[derive(Debug, Clone)]
struct Known {
    owner: Owner,
    resource: ResourceName,
    limit: Limit,
}

/// 128 bits of FNV-1a: the same for the same texts, and no secret.
fn id_of(parts: &[&[u8]]) -> String {
    const PRIME: u128 = (1 << 88) + 0x13b;
    let mut hash: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
    for byte in parts.iter().copied().flatten() {
        hash = (hash ^ u128::from(*byte)).wrapping_mul(PRIME);
    }
    Uuid::from_u128(hash).simple().to_string()
}

fn registered_id(resource: &str) -> String {
    id_of(&[b"registered/", resource.as_bytes()])
}

fn number(limit: Limit) -> Value {
    limit.most().map_or(UNLIMITED.into(), Value::from)
}

/// Types of catalog services to which a resource belongs, the first that is there.
fn kinds(resource: &str) -> &'static [&'static str] {
    match resource {
        "servers" | "vcpus" | "memory_mib" | "keypairs" => &["compute"],
        "volumes" | "volume_gib" | "snapshots" => &["block-storage", "volumev3"],
        "images" => &["image"],
        _ => &["network"],
    }
}

impl Known {
    fn id(&self) -> String {
        id_of(&[
            self.owner.noun().as_bytes(),
            self.owner.id().as_bytes(),
            self.resource.as_str().as_bytes(),
        ])
    }

    fn shown(&self, ask: &Ask) -> Value {
        let id = self.id();
        let (project, domain) = match self.owner {
            Owner::Project(project) => (Some(ids::hex(project)), None),
            Owner::Domain(domain) => (None, Some(ids::domain(domain))),
        };
        json!({
            "id": id,
            "project_id": project,
            "domain_id": domain,
            "service_id": ask.service_of(self.resource.as_str()),
            "region_id": null,
            "resource_name": self.resource.as_str(),
            "resource_limit": number(self.limit),
            "description": null,
            "links": {"self": ask.link(&format!("limits/{id}"))},
        })
    }
}

fn registered(ask: &Ask, resource: &str) -> Value {
    let id = registered_id(resource);
    json!({
        "id": id,
        "service_id": ask.service_of(resource),
        "region_id": null,
        "resource_name": resource,
        "default_limit": UNLIMITED,
        "description": null,
        "links": {"self": ask.link(&format!("registered_limits/{id}"))},
    })
}

fn thing(owner: Owner) -> Thing {
    match owner {
        Owner::Project(project) => Thing::new("quota", Lies::Project(project)),
        Owner::Domain(domain) => Thing::new("quota", Lies::Domain(domain)),
    }
}

impl Ask {
    /// The service to which a resource belongs: where the catalog has none of its kind, this one.
    fn service_of(&self, resource: &str) -> Option<String> {
        let of = |kind: &str| {
            let found = self.at.services().find(|service| service.value.kind == kind)?;
            Some(ids::hex(found.value.id))
        };
        let own = kinds(resource).iter().find_map(|kind| of(kind));
        own.or_else(|| of("identity"))
    }

    /// All limits that the caller may see.
    async fn limits(&self) -> Answer<Vec<Known>> {
        let projects = self.at.projects();
        let projects = projects.map(|p| Owner::Project(ProjectId::from_uuid(p.value.meta.id)));
        let domains = self.at.domains().map(|domain| Owner::Domain(domain.value.id));
        let owners: Vec<Owner> = projects.chain(domains).collect();
        let mut all = Vec::new();
        for owner in owners {
            if self.may(READ, &thing(owner)) {
                let slot = Slot::load(&self.parts.backend, owner).await?;
                let ledger = slot.ledger().cloned().unwrap_or_default();
                all.extend(ledger.limits.iter().map(|(resource, limit)| Known {
                    owner,
                    resource: resource.clone(),
                    limit,
                }));
            }
        }
        Ok(all)
    }

    async fn find_limit(&self, id: &str) -> Answer<Known> {
        let all = self.limits().await?;
        all.into_iter()
            .find(|known| known.id() == id)
            .ok_or_else(|| Refusal::missing("limit", id))
    }

    async fn may_change(&self, action: &str, owner: Owner) -> Answer<()> {
        let allowed = self.require(CHANGE, &thing(owner)).await;
        allowed.map_err(|_| Refusal::not_allowed(action))
    }

    /// Changes the limits of these owners in one commit; `change` may refuse.
    async fn relimit(
        &self,
        owners: &[Owner],
        change: impl Fn(Owner, &Limits) -> Answer<Limits>,
    ) -> Answer<()> {
        let deed = |owner: Owner| {
            let deed = Deed::new(CHANGE).on(owner.id()).changed(&["limits"]);
            match owner {
                Owner::Project(id) => deed.in_scope(self.identity(), AuthScope::Project(id)),
                Owner::Domain(id) => deed.in_domain(id),
            }
        };
        for _ in 0..TRIES {
            let mut txn = Txn::new();
            for owner in owners.iter().copied() {
                let slot = Slot::load(&self.parts.backend, owner).await?;
                let before = slot.ledger().cloned().unwrap_or_default();
                let set = slot.set_limits(change(owner, &before.limits)?, before.each_project)?;
                let told = self.identity().told(&self.call(), deed(owner))?;
                txn = txn.and(set).and(told);
            }
            if self.parts.backend.commit(txn).await?.committed().is_some() {
                return Ok(());
            }
        }
        Err(Refusal::conflict(
            "Conflict occurred: others change it at the same time.",
        ))
    }
}

async fn model(_: Ask) -> Answer {
    let description = "Limit enforcement and validation does not take project hierarchy into consideration.";
    Ok(Json(json!({"model": {"name": "flat", "description": description}})).into_response())
}

async fn list_registered(ask: Ask) -> Answer {
    let all = COUNTED
        .iter()
        .map(|resource| registered(&ask, resource))
        .collect();
    ask.page(
        "registered_limits",
        all,
        &["service_id", "region_id", "resource_name"],
    )
}

async fn show_registered(ask: Ask, Path(id): Path<String>) -> Answer {
    let found = COUNTED.iter().find(|resource| registered_id(resource) == id);
    let found = found.ok_or_else(|| Refusal::missing("registered limit", &id))?;
    Ok(Json(json!({"registered_limit": registered(&ask, found)})).into_response())
}

/// What is counted, and what holds where nothing is said, is the cloud's own.
async fn fixed(ask: Ask) -> Answer {
    ask.require(CHANGE, &Thing::new("quota", Lies::System)).await?;
    Err(Refusal::forbidden(
        "Registered limits are given by the configuration of this cloud and cannot be changed here.",
    ))
}

async fn list(ask: Ask) -> Answer {
    let all = ask.limits().await?;
    let shown = all.iter().map(|known| known.shown(&ask)).collect();
    let filters = [
        "service_id",
        "region_id",
        "resource_name",
        "project_id",
        "domain_id",
    ];
    ask.page("limits", shown, &filters)
}

async fn show(ask: Ask, Path(id): Path<String>) -> Answer {
    let found = ask.find_limit(&id).await?;
    Ok(Json(json!({"limit": found.shown(&ask)})).into_response())
}

/// The limit that a body asks for.
fn wanted(body: &mut Fields) -> Answer<Option<Limit>> {
    let Some(value) = body.value("resource_limit") else {
        return Ok(None);
    };
    match value.as_i64() {
        Some(UNLIMITED) => Ok(Some(Limit::Unlimited)),
        Some(most) if (0..=i64::from(i32::MAX)).contains(&most) => Ok(Some(Limit::Most(most.unsigned_abs()))),
        _ => Err(Refusal::bad(
            "Invalid input for field 'resource_limit': it takes a whole number from -1 to 2147483647",
        )),
    }
}

/// A field that names what is not there: 400, as Keystone says it.
fn not_valid(field: &str) -> Refusal {
    Refusal::bad(format!(
        "Expecting to find valid {field} in limit. The server could not comply with the request since it is either \
         malformed or otherwise incorrect. The client is assumed to be in error."
    ))
}

/// One limit that is to be made.
fn asked(ask: &Ask, mut body: Fields) -> Answer<Known> {
    let service = body.needed("service_id")?;
    let name = body.needed("resource_name")?;
    let limit = wanted(&mut body)?.ok_or_else(|| Refusal::bad("'resource_limit' is a required property"))?;
    let project = body.text("project_id")?;
    let domain = body.text("domain_id")?;
    let owner = match (project, domain) {
        (Some(id), None) => ids::parse(&id)
            .filter(|id| ask.at.project(*id).is_some())
            .map(Owner::Project)
            .ok_or_else(|| not_valid("project_id"))?,
        (None, Some(id)) => ids::parse_domain(&id)
            .filter(|id| ask.at.domain(*id).is_some())
            .map(Owner::Domain)
            .ok_or_else(|| not_valid("domain_id"))?,
        _ => {
            return Err(Refusal::bad(
                "Either project_id or domain_id must be given, and not both.",
            ));
        }
    };
    if !ask.at.services().any(|known| ids::hex(known.value.id) == service) {
        return Err(not_valid("service_id"));
    }
    let counted = COUNTED.contains(&name.as_str()) && ask.service_of(&name).as_ref() == Some(&service);
    let resource = ResourceName::new(name).ok().filter(|_| counted);
    // Regions share the ledgers of their projects.
    if body.text("region_id")?.is_some() || resource.is_none() {
        return Err(Refusal::forbidden(
            "Unable to create a limit that has no corresponding registered limit.",
        ));
    }
    let resource = resource.ok_or_else(|| not_valid("resource_name"))?;
    Ok(Known {
        owner,
        resource,
        limit,
    })
}

async fn create(ask: Ask, body: Bytes) -> Answer {
    let mut body = Fields::whole(&body)?;
    let all = body.objects("limits")?;
    let all = all.ok_or_else(|| Refusal::bad("'limits' is a required property"))?;
    if all.is_empty() || all.len() > MOST {
        return Err(Refusal::bad(format!("'limits' takes 1 to {MOST} limits")));
    }
    // Whoever may change none learns nothing of what is there.
    if !ask.may(CHANGE, &Thing::new("quota", Lies::System)) && ask.require_list(CHANGE).is_err() {
        return Err(Refusal::not_allowed("identity:create_limits"));
    }
    let made: Vec<Known> = all
        .into_iter()
        .map(|one| asked(&ask, one))
        .collect::<Answer<_>>()?;
    let mut owners: Vec<Owner> = made.iter().map(|known| known.owner).collect();
    owners.sort_unstable();
    owners.dedup();
    for owner in &owners {
        ask.may_change("identity:create_limits", *owner).await?;
    }
    ask.relimit(&owners, |owner, before| {
        let own = made.iter().filter(|known| known.owner == owner);
        own.cloned().try_fold(before.clone(), |limits, known| {
            if limits.get(&known.resource).is_some() {
                return Err(Refusal::conflict(
                    "Conflict occurred attempting to store limit - Duplicate entry.",
                ));
            }
            Ok(limits.with(known.resource, known.limit))
        })
    })
    .await?;
    let shown: Vec<Value> = made.iter().map(|known| known.shown(&ask)).collect();
    Ok((StatusCode::CREATED, Json(json!({"limits": shown}))).into_response())
}

/// `limits` with that one replaced or taken away; it may be gone meanwhile.
fn without(limits: &Limits, known: &Known, instead: Option<Limit>) -> Answer<Limits> {
    if limits.get(&known.resource).is_none() {
        return Err(Refusal::missing("limit", &known.id()));
    }
    let others = limits.iter().filter(|(resource, _)| **resource != known.resource);
    let others = others.fold(Limits::new(), |limits, (resource, limit)| {
        limits.with(resource.clone(), limit)
    });
    Ok(match instead {
        Some(limit) => others.with(known.resource.clone(), limit),
        None => others,
    })
}

async fn update(ask: Ask, Path(id): Path<String>, body: Bytes) -> Answer {
    let found = ask.find_limit(&id).await?;
    ask.may_change("identity:update_limit", found.owner).await?;
    let mut body = Fields::of(&body, "limit")?;
    body.same_id(&id)?;
    let limit = wanted(&mut body)?.unwrap_or(found.limit);
    ask.relimit(&[found.owner], |_, before| without(before, &found, Some(limit)))
        .await?;
    let shown = Known { limit, ..found }.shown(&ask);
    Ok(Json(json!({"limit": shown})).into_response())
}

async fn delete(ask: Ask, Path(id): Path<String>) -> Answer<StatusCode> {
    let found = ask.find_limit(&id).await?;
    ask.may_change("identity:delete_limit", found.owner).await?;
    ask.relimit(&[found.owner], |_, before| without(before, &found, None))
        .await?;
    Ok(StatusCode::NO_CONTENT)
}
