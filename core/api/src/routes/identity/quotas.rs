//! `/v1/quotas/…`: how much a project or a domain may use, and how much it does.

use std::collections::BTreeMap;

use axum::Json as Answer;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use skyloom_identity::{
    Deed, DomainId, Limit, Limits, Lineages as _, Object, Owner, Place, Quotas, ResourceName, Slot,
};
use skyloom_model::{ProjectId, Reason};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use super::{Asker, field};
use crate::answer::Result;
use crate::extract::{Json, RawId};
use crate::parts::AppState;
use crate::problem::ApiError;

/// Tries before a change gives up.
const TRIES: usize = 16;

pub(super) fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(get, put))
        .routes(routes!(recount))
}

/// What is used of one resource.
#[derive(Debug, Serialize, ToSchema)]
struct UsageView {
    /// What is used.
    #[schema(example = 3)]
    used: u64,
    /// The limit; `null`: there is none.
    #[schema(example = 20)]
    limit: Option<u64>,
}

/// How much a project or a domain may use, and how much it does.
#[derive(Debug, Serialize, ToSchema)]
struct QuotaView {
    /// The id of the project or domain.
    owner: Uuid,
    /// By resource: `servers`, `vcpus`, `memory_mib`, …
    resources: BTreeMap<String, UsageView>,
    /// Of a domain: the limits of each of its projects that has none of its own.
    each_project: BTreeMap<String, Option<u64>>,
}

/// A ledger that was not what there is.
#[derive(Debug, Serialize, ToSchema)]
struct CorrectionView {
    /// Whose ledger: `project` or `domain`.
    #[schema(example = "project")]
    kind: String,
    /// Its id.
    owner: Uuid,
    /// Of what.
    #[schema(example = "servers")]
    resource: String,
    /// What was written.
    #[schema(example = 7)]
    was: u64,
    /// What there is, and is written now.
    #[schema(example = 3)]
    is: u64,
}

/// What counting anew has put right.
#[derive(Debug, Serialize, ToSchema)]
struct Recounted {
    /// Each ledger and resource; empty when all were right.
    corrections: Vec<CorrectionView>,
}

/// Limits by resource: a number, or `null` for none. What is left out has no limit of its own.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct SetQuota {
    /// The limits.
    #[schema(example = json!({"servers": 20, "vcpus": null}))]
    limits: BTreeMap<String, Option<u64>>,
    /// Of a domain: the limits of each of its projects that has none of its own.
    #[serde(default)]
    each_project: BTreeMap<String, Option<u64>>,
}

/// Whose ledger an id is, if the caller may do that to it.
fn owner(asker: &Asker, permission: &'static str, id: &RawId) -> Result<Owner> {
    let project: ProjectId = id.of("quota")?;
    if let Some(lineage) = asker.identity.lineage(project) {
        asker.may(permission, &Object::one("quota", lineage.place(project)))?;
        return Ok(Owner::Project(project));
    }
    let domain: DomainId = id.of("quota")?;
    if asker.at().domain(domain).is_none() {
        return Err(ApiError::not_found("quota"));
    }
    asker.may(permission, &Object::one("quota", Place::Domain(domain)))?;
    Ok(Owner::Domain(domain))
}

fn limits(name: &'static str, asked: &BTreeMap<String, Option<u64>>) -> Result<Limits> {
    let mut limits = Limits::new();
    for (resource, most) in asked {
        let resource = ResourceName::new(resource.as_str()).map_err(|error| {
            field(
                format!("{name}.{resource}"),
                "quota.resource_invalid",
                error.to_string(),
            )
        })?;
        limits = limits.with(resource, most.map_or(Limit::Unlimited, Limit::Most));
    }
    Ok(limits)
}

async fn view(state: &AppState, asker: &Asker, owner: Owner) -> Result<QuotaView> {
    let failed = |error: skyloom_store::Error| ApiError::from(skyloom_cloud::CloudError::from(error));
    let shown = |(resource, limit): (&ResourceName, Limit)| (resource.to_string(), limit.most());
    match owner {
        Owner::Project(project) => {
            let lineage = asker
                .identity
                .lineage(project)
                .ok_or_else(|| ApiError::not_found("quota"))?;
            let defaults = Limits::new();
            let quotas = Quotas::load(&state.parts.backend, defaults, lineage.domain, project).await;
            let usage = quotas.map_err(failed)?.usage().into_iter().map(|usage| {
                let (used, limit) = (usage.used, usage.limit);
                (usage.resource.to_string(), UsageView { used, limit })
            });
            Ok(QuotaView {
                owner: project.uuid(),
                resources: usage.collect(),
                each_project: BTreeMap::new(),
            })
        }
        Owner::Domain(domain) => {
            let slot = Slot::load(&state.parts.backend, owner).await.map_err(failed)?;
            let ledger = slot.ledger().cloned().unwrap_or_default();
            let names = ledger.limits.iter().map(|(name, limit)| {
                let used = slot.used(name);
                (
                    name.to_string(),
                    UsageView {
                        used,
                        limit: limit.most(),
                    },
                )
            });
            Ok(QuotaView {
                owner: domain.uuid(),
                resources: names.collect(),
                each_project: ledger.each_project.iter().map(shown).collect(),
            })
        }
    }
}

/// Show a quota
///
/// What a project, or a domain that has limits, uses of each resource, and how much of it there may be.
#[utoipa::path(get, path = "/v1/quotas/{id}", operation_id = "get_quota", tag = "quotas",
    responses((status = 200, description = "What is used, and the limits.", body = QuotaView)))]
async fn get(State(state): State<AppState>, asker: Asker, id: RawId) -> Result<Answer<QuotaView>> {
    let owner = owner(&asker, "quota:read", &id)?;
    Ok(Answer(view(&state, &asker, owner).await?))
}

/// Set a quota
///
/// Sets the limits of a project, or of a domain over all its projects and for each of them. Limits below what is used stop what comes,
/// not what is there.
#[utoipa::path(put, path = "/v1/quotas/{id}", operation_id = "set_quota", tag = "quotas",
    request_body = SetQuota,
    responses((status = 200, description = "What is used, and the limits.", body = QuotaView)))]
async fn put(
    State(state): State<AppState>,
    asker: Asker,
    id: RawId,
    Json(request): Json<SetQuota>,
) -> Result<Answer<QuotaView>> {
    let owner = owner(&asker, "quota:update", &id)?;
    let own = limits("limits", &request.limits)?;
    let each = limits("each_project", &request.each_project)?;
    let deed = || match owner {
        Owner::Project(project) => (Deed::new("quota:update").on(project.uuid()))
            .in_scope(&asker.identity, skyloom_identity::AuthScope::Project(project)),
        Owner::Domain(domain) => Deed::new("quota:update").on(domain.uuid()).in_domain(domain),
    };
    let failed = |error: skyloom_store::Error| ApiError::from(skyloom_cloud::CloudError::from(error));
    for _ in 0..TRIES {
        let slot = Slot::load(&state.parts.backend, owner).await.map_err(failed)?;
        let set = slot.set_limits(own.clone(), each.clone()).map_err(failed)?;
        let told = asker.identity.told(&asker.call(), deed().changed(&["limits"]))?;
        if state
            .parts
            .backend
            .commit(set.and(told))
            .await
            .map_err(failed)?
            .committed()
            .is_some()
        {
            return Ok(Answer(view(&state, &asker, owner).await?));
        }
    }
    let reason = Reason::new("conflict", "others changed the same quota again and again").retryable();
    Err(ApiError::new(http::StatusCode::CONFLICT, reason))
}

/// Count what is used anew
///
/// Counts what all projects have and puts right the ledgers that say something else. The cloud does so once a day by itself. For who runs the
/// cloud.
#[utoipa::path(post, path = "/v1/quotas/actions/recount", operation_id = "recount_quotas", tag = "quotas",
    responses((status = 200, description = "What was put right.", body = Recounted)))]
async fn recount(State(state): State<AppState>, asker: Asker) -> Result<Answer<Recounted>> {
    let found = state.parts.cloud.recount_quotas(&asker.caller).await?;
    let corrections = found.into_iter().map(|found| CorrectionView {
        kind: found.owner.noun().to_owned(),
        owner: found.owner.id(),
        resource: found.resource.to_string(),
        was: found.was,
        is: found.is,
    });
    Ok(Answer(Recounted {
        corrections: corrections.collect(),
    }))
}
