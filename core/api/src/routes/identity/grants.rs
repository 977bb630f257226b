//! `/v1/grants`: who has which role where.

use std::collections::BTreeMap;

use axum::Json as Answer;
use http::StatusCode;
use serde::{Deserialize, Serialize};
use skyloom_cloud::Listed;
use skyloom_identity::{
    Actor, BuiltIn, Deed, DomainId, GRANTED_ROLE, Grant, GroupId, Lineage, Lineages as _, Object, Place,
    RoleId, Target, UserId,
};
use skyloom_model::{ProjectId, Timestamp};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use super::{Asker, field, page};
use crate::answer::Result;
use crate::extract::{Json, Query};
use crate::parts::AppState;
use crate::problem::ApiError;

pub(super) fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(create, list, delete))
}

/// A role for a user or a group, in the system, a domain or a project. One of `user` and `group`; one of `system`, `domain` and
/// `project`.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
struct GrantBody {
    /// The role's id.
    role: Option<Uuid>,
    /// The user's id.
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<Uuid>,
    /// The group's id.
    #[serde(skip_serializing_if = "Option::is_none")]
    group: Option<Uuid>,
    /// In the cloud itself.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    system: bool,
    /// The domain's id.
    #[serde(skip_serializing_if = "Option::is_none")]
    domain: Option<Uuid>,
    /// The project's id.
    #[serde(skip_serializing_if = "Option::is_none")]
    project: Option<Uuid>,
    /// Not there itself, but in all projects below.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    inherited: bool,
}

/// A role that somebody has somewhere.
#[derive(Debug, Serialize, ToSchema)]
struct GrantView {
    /// Its place in lists.
    id: String,
    /// The role's id.
    role: Uuid,
    /// The role's name.
    role_name: String,
    /// The user's id, if it is a user's.
    user: Option<Uuid>,
    /// The group's id, if it is a group's.
    group: Option<Uuid>,
    /// Whether it is in the cloud itself.
    system: bool,
    /// The domain's id, if it is in a domain.
    domain: Option<Uuid>,
    /// The project's id, if it is in a project.
    project: Option<Uuid>,
    /// Whether it counts not there itself, but in all projects below.
    inherited: bool,
    /// Since when.
    created_at: Timestamp,
}

/// Which grants.
#[derive(Debug, Clone, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
struct GrantQuery {
    /// Most items in the answer: 1 to 1000, by default 100.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<u32>,
    /// The `next` of the page before.
    cursor: Option<String>,
    /// Only of this user.
    user: Option<Uuid>,
    /// Only of this group.
    group: Option<Uuid>,
    /// Only in this domain.
    domain: Option<Uuid>,
    /// Only in this project.
    project: Option<Uuid>,
    /// Only of this role.
    role: Option<Uuid>,
}

type Asked = (Target, Actor, RoleId, bool);

impl GrantBody {
    fn read(&self) -> Result<Asked> {
        let missing = |name| field(name, "field.missing", "is needed");
        let actor = match (self.user, self.group) {
            (Some(user), None) => Actor::User(UserId::from_uuid(user)),
            (None, Some(group)) => Actor::Group(GroupId::from_uuid(group)),
            _ => {
                return Err(field(
                    "user",
                    "grant.actor",
                    "exactly one of user and group is needed",
                ));
            }
        };
        let target = match (self.system, self.domain, self.project) {
            (true, None, None) => Target::System,
            (false, Some(domain), None) => Target::Domain(DomainId::from_uuid(domain)),
            (false, None, Some(project)) => Target::Project(ProjectId::from_uuid(project)),
            _ => {
                return Err(field(
                    "project",
                    "grant.target",
                    "exactly one of system, domain and project is needed",
                ));
            }
        };
        let role = RoleId::from_uuid(self.role.ok_or_else(|| missing("role"))?);
        Ok((target, actor, role, self.inherited))
    }
}

/// Where a target lies; `None`: it is not there.
struct Spot(Option<Lineage>, Target);

impl Spot {
    fn of(asker: &Asker, target: Target) -> Option<Self> {
        let lineage = match target {
            Target::Project(project) => Some(asker.identity.lineage(project)?),
            Target::Domain(domain) => asker.at().domain(domain).map(|_| None)?,
            Target::System => None,
        };
        Some(Self(lineage, target))
    }

    fn place(&self) -> Place<'_> {
        match (self.1, &self.0) {
            (Target::Domain(domain), _) => Place::Domain(domain),
            (Target::Project(project), Some(lineage)) => lineage.place(project),
            (Target::System | Target::Project(_), _) => Place::System,
        }
    }
}

/// The label that rules about giving look at.
fn labels(role: RoleId) -> BTreeMap<String, String> {
    BuiltIn::of(role)
        .map(|role| (GRANTED_ROLE.to_owned(), role.name().to_owned()))
        .into_iter()
        .collect()
}

fn allowed(asker: &Asker, permission: &'static str, (target, actor, role, _): Asked) -> Result<()> {
    let spot = Spot::of(asker, target).ok_or_else(|| ApiError::not_found("grant"))?;
    let labels = labels(role);
    let object = Object::one("grant", spot.place()).labelled(&labels);
    match actor {
        Actor::User(user) => asker.may(permission, &object.owned_by(user)),
        Actor::Group(_) => asker.may(permission, &object),
    }
}

fn deed(action: &'static str, grant: &Grant, asker: &Asker) -> Deed {
    let deed = Deed::new(action).on(grant.role.uuid());
    match grant.target {
        Target::System => deed,
        Target::Domain(domain) => deed.in_domain(domain),
        Target::Project(project) => {
            deed.in_scope(&asker.identity, skyloom_identity::AuthScope::Project(project))
        }
    }
}

fn view(asker: &Asker, grant: &Grant) -> GrantView {
    let at = asker.at();
    let how = if grant.inherited { "inherited" } else { "own" };
    GrantView {
        id: format!("{}/{}/{}/{how}", grant.target, grant.actor, grant.role),
        role: grant.role.uuid(),
        role_name: at
            .role(grant.role)
            .map(|role| role.value.name.clone())
            .unwrap_or_default(),
        user: match grant.actor {
            Actor::User(user) => Some(user.uuid()),
            Actor::Group(_) => None,
        },
        group: match grant.actor {
            Actor::Group(group) => Some(group.uuid()),
            Actor::User(_) => None,
        },
        system: grant.target == Target::System,
        domain: match grant.target {
            Target::Domain(domain) => Some(domain.uuid()),
            _ => None,
        },
        project: match grant.target {
            Target::Project(project) => Some(project.uuid()),
            _ => None,
        },
        inherited: grant.inherited,
        created_at: grant.created_at,
    }
}

/// Give a role
///
/// Gives a role to a user or a group, in the cloud itself, a domain or a project. It counts with the next call. Nothing changes
/// where it has been given.
#[utoipa::path(put, path = "/v1/grants", operation_id = "create_grant", tag = "grants",
    request_body = GrantBody,
    responses((status = 200, description = "The grant.", body = GrantView)))]
async fn create(asker: Asker, Json(request): Json<GrantBody>) -> Result<Answer<GrantView>> {
    let asked = request.read()?;
    allowed(&asker, "grant:create", asked)?;
    let (target, actor, role, inherited) = asked;
    let given = asker
        .identity
        .change(
            &asker.call(),
            |edit| edit.grant(target, actor, role, inherited),
            |grant| deed("grant:create", grant, &asker),
        )
        .await?;
    Ok(Answer(view(&asker, &given)))
}

/// List grants
///
/// Who has which role where, as far as the caller may see it; everybody sees their own.
#[utoipa::path(get, path = "/v1/grants", operation_id = "list_grants", tag = "grants", params(GrantQuery),
    responses((status = 200, description = "One page.", body = Listed<GrantView>)))]
async fn list(asker: Asker, Query(query): Query<GrantQuery>) -> Result<Answer<Listed<GrantView>>> {
    asker.may_list("grant:read")?;
    let at = asker.at();
    let actor = (query.user.map(|id| Actor::User(UserId::from_uuid(id))))
        .or(query.group.map(|id| Actor::Group(GroupId::from_uuid(id))));
    let target = (query.domain.map(|id| Target::Domain(DomainId::from_uuid(id))))
        .or(query.project.map(|id| Target::Project(ProjectId::from_uuid(id))));
    let role = query.role.map(RoleId::from_uuid);
    let all = at.grants().map(|found| &found.value).filter(|grant| {
        actor.is_none_or(|actor| grant.actor == actor)
            && target.is_none_or(|target| grant.target == target)
            && role.is_none_or(|role| grant.role == role)
            && allowed(
                &asker,
                "grant:read",
                (grant.target, grant.actor, grant.role, grant.inherited),
            )
            .is_ok()
    });
    let part = super::PageQuery {
        limit: query.limit,
        cursor: query.cursor,
        name: None,
    };
    Ok(Answer(page(
        &part,
        all.map(|grant| view(&asker, grant)),
        |g| g.id.clone(),
        |_| None,
    )?))
}

/// Take a role back
///
/// It counts no more with the next call.
#[utoipa::path(delete, path = "/v1/grants", operation_id = "delete_grant", tag = "grants", params(GrantBody),
    responses((status = 204, description = "Taken back.")))]
async fn delete(asker: Asker, Query(request): Query<GrantBody>) -> Result<StatusCode> {
    let asked = request.read()?;
    allowed(&asker, "grant:delete", asked)?;
    let (target, actor, role, inherited) = asked;
    asker
        .identity
        .change(
            &asker.call(),
            |edit| edit.revoke(target, actor, role, inherited),
            |grant| deed("grant:delete", grant, &asker),
        )
        .await?;
    Ok(StatusCode::NO_CONTENT)
}
