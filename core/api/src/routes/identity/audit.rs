//! `/v1/audit`: what was done, by whom, to what, and how it ended.

use std::net::IpAddr;

use axum::Json as Answer;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use skyloom_cloud::Listed;
use skyloom_identity::audit::{
    AuditFilter, AuditOutcome, AuditScope, Entry, VerifyOptions, search_audit, verify,
};
use skyloom_identity::{Covered, Deed, Object, Place, UserId};
use skyloom_model::Timestamp;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use super::Asker;
use crate::answer::Result;
use crate::extract::{OptionalJson, Query};
use crate::parts::AppState;
use crate::problem::ApiError;

pub(super) fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(search))
        .routes(routes!(check))
}

/// Which entries: all that is named must fit.
#[derive(Debug, Clone, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
struct AuditQuery {
    /// Most items in the answer: 1 to 1000, by default 100.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<u32>,
    /// The `next` of the page before.
    cursor: Option<String>,
    /// Done by this user.
    user: Option<Uuid>,
    /// Done to this object.
    object: Option<Uuid>,
    /// Done to objects of this kind, such as `server`.
    kind: Option<String>,
    /// By this permission, such as `server:delete`.
    action: Option<String>,
    /// How it ended: `done`, `denied`, `failed`, or the code of it.
    outcome: Option<String>,
    /// In this request.
    request_id: Option<String>,
    /// Not before this.
    #[param(value_type = Option<String>, format = DateTime)]
    from: Option<Timestamp>,
    /// Before this.
    #[param(value_type = Option<String>, format = DateTime)]
    until: Option<Timestamp>,
}

/// One entry of the audit.
#[derive(Debug, Serialize, ToSchema)]
struct EntryView {
    /// Which.
    id: Uuid,
    /// When.
    at: Timestamp,
    /// The id of the user who did it, or tried; `null`: nobody knows.
    user: Option<Uuid>,
    /// From where.
    #[schema(value_type = Option<String>, example = "192.0.2.7")]
    source: Option<IpAddr>,
    /// The permission that was used.
    #[schema(example = "user:create")]
    action: String,
    /// To what kind of object.
    #[schema(example = "user")]
    kind: String,
    /// The object's id.
    object: Option<Uuid>,
    /// The object's name.
    name: Option<String>,
    /// The id of the object's domain.
    domain: Option<Uuid>,
    /// The id of the object's project.
    project: Option<Uuid>,
    /// How it ended: `done`, `denied` or `failed`.
    #[schema(example = "done")]
    outcome: String,
    /// Why it did not work, as a code.
    code: Option<String>,
    /// The request.
    request_id: String,
    /// The id of the task that does it.
    task: Option<Uuid>,
    /// Names of the fields that it changed.
    changes: Vec<String>,
    /// How many of a kind it stands for.
    times: u64,
}

fn view(entry: Entry) -> EntryView {
    let (domain, project) = match entry.object.scope {
        AuditScope::System => (None, None),
        AuditScope::Domain { id } => (Some(id.uuid()), None),
        AuditScope::Project { id, domain } => (Some(domain.uuid()), Some(id.uuid())),
    };
    let (outcome, code) = match entry.outcome {
        AuditOutcome::Done => ("done", None),
        AuditOutcome::Denied { code } => ("denied", Some(code.to_string())),
        AuditOutcome::Failed { code } => ("failed", Some(code.to_string())),
    };
    EntryView {
        id: entry.id.uuid(),
        at: entry.at,
        user: entry.actor.user.map(UserId::uuid),
        source: entry.source,
        action: entry.action.to_string(),
        kind: entry.object.kind.to_string(),
        object: entry.object.id,
        name: entry.object.name.map(|name| name.to_string()),
        domain,
        project,
        outcome: outcome.to_owned(),
        code,
        request_id: entry.request_id.to_string(),
        task: entry.task.map(|task| task.uuid()),
        changes: entry.changes.iter().map(ToString::to_string).collect(),
        times: entry.repeated.map_or(1, |repeated| repeated.times),
    }
}

/// From where to check.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
struct CheckAudit {
    /// The first seal to look at; by default the first there is.
    first: Option<u64>,
    /// The last one; by default as many as one call looks at.
    last: Option<u64>,
}

/// Whether the audit is whole.
#[derive(Debug, Serialize, ToSchema)]
struct AuditReport {
    /// Whether nothing was found.
    whole: bool,
    /// Seals that were looked at.
    seals: u64,
    /// Entries that were looked at.
    entries: u64,
    /// Entries that are not sealed yet.
    waiting: u64,
    /// What was changed, removed or put in.
    findings: Vec<FindingView>,
    /// Whether there are more seals to look at.
    more: bool,
    /// The hash of the last seal: keep it elsewhere.
    head: Option<String>,
}

/// Something that is not as it was sealed.
#[derive(Debug, Serialize, ToSchema)]
struct FindingView {
    /// In which seal.
    seal: Option<u64>,
    /// Which entry.
    entry: Option<String>,
    /// What.
    message: String,
}

/// Search the audit
///
/// Entries oldest first, as far as the caller may see them. A page may be short, or empty, and go on. For auditors.
#[utoipa::path(get, path = "/v1/audit", operation_id = "search_audit", tag = "audit", params(AuditQuery),
    responses((status = 200, description = "One page.", body = Listed<EntryView>)))]
async fn search(
    State(state): State<AppState>,
    asker: Asker,
    Query(query): Query<AuditQuery>,
) -> Result<Answer<Listed<EntryView>>> {
    asker.may_list("audit:read")?;
    let rights = &asker.caller.rights;
    let scope = match rights.permission("audit:read") {
        Some(read) => rights.coverage(read).scope,
        None => Covered::Nothing,
    };
    let limit = match query.limit.unwrap_or(100) {
        limit @ 1..=1000 => limit as usize,
        _ => return Err(super::field("limit", "limit.invalid", "is 1 to 1000")),
    };
    let filter = AuditFilter {
        actor: query.user.map(UserId::from_uuid),
        object: query.object,
        kind: query.kind,
        action: query.action,
        outcome: query.outcome,
        request_id: query.request_id,
        from: query.from,
        until: query.until,
    };
    let found = search_audit(
        &*state.parts.backend,
        scope,
        &filter,
        limit,
        query.cursor.as_deref(),
    )
    .await;
    let page = found.map_err(|error| match error.kind() {
        skyloom_store::ErrorKind::Invalid => {
            super::field("cursor", "cursor.invalid", "is none that was given here")
        }
        _ => skyloom_cloud::CloudError::from(error).into(),
    })?;
    Ok(Answer(Listed {
        items: page.items.into_iter().map(view).collect(),
        next: page.next,
    }))
}

/// Check the audit
///
/// Goes through the seals and says what was changed, removed or put in since they were made. That it was checked is in the audit, too.
/// For auditors of the system.
#[utoipa::path(post, path = "/v1/audit/actions/verify", operation_id = "verify_audit", tag = "audit",
    request_body = Option<CheckAudit>,
    responses((status = 200, description = "What was found.", body = AuditReport)))]
async fn check(
    State(state): State<AppState>,
    asker: Asker,
    OptionalJson(request): OptionalJson<CheckAudit>,
) -> Result<Answer<AuditReport>> {
    asker.may("audit:verify", &Object::all("audit", Place::System))?;
    let mut options = VerifyOptions::default();
    if let Some(first) = request.first {
        options.first = first;
    }
    options.last = request.last;
    let failed = |error: skyloom_store::Error| ApiError::from(skyloom_cloud::CloudError::from(error));
    let report = verify(&*state.parts.backend, &options).await.map_err(failed)?;
    let told = asker.identity.told(&asker.call(), Deed::new("audit:verify"))?;
    state.parts.backend.commit(told).await.map_err(failed)?;
    Ok(Answer(AuditReport {
        whole: report.is_whole(),
        seals: report.seals,
        entries: report.entries,
        waiting: report.waiting,
        more: report.more,
        head: report.head.as_ref().map(|head| head.hash.clone()),
        findings: report
            .findings
            .into_iter()
            .map(|finding| FindingView {
                seal: finding.seal,
                entry: finding.entry,
                message: finding.message,
            })
            .collect(),
    }))
}
