//! `/v1/policy`: what permissions there are, and why something is allowed or not.

use axum::Json as Answer;
use serde::{Deserialize, Serialize};
use skyloom_cloud::Listed;
use skyloom_identity::{
    Access, AuthScope, DomainId, Effect, Lineage, Lineages as _, Object, Place, Principal, Rights, Said,
    UserId, Via,
};
use skyloom_model::{ProjectId, field_rules};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use super::auth::ScopeView;
use super::{Asker, PageQuery, field, page};
use crate::answer::Result;
use crate::extract::{Json, Query};
use crate::fields::sees;
use crate::parts::AppState;

pub(super) fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(permissions))
        .routes(routes!(explain))
}

/// A permission.
#[derive(Debug, Serialize, ToSchema)]
struct PermissionView {
    /// Its name.
    #[schema(example = "server:start")]
    name: String,
    /// What it allows.
    description: String,
    /// What it lets its holder do: `read`, `write` or `operate`.
    #[schema(example = "operate")]
    access: String,
    /// Whether only built-in roles may have it.
    reserved: bool,
}

/// What to explain.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Question {
    /// The id of the user; by default the caller, with the caller's own credential.
    user: Option<Uuid>,
    /// The user's scope; by default the caller's.
    scope: Option<ScopeView>,
    /// The permission.
    #[schema(example = "server:start")]
    permission: String,
    /// The id of the project in which the object lies.
    project: Option<Uuid>,
    /// The id of the domain in which the object lies, if it lies in no project.
    domain: Option<Uuid>,
    /// The id of the user whose the object is.
    owner: Option<Uuid>,
}

/// What is decided, and why.
#[derive(Debug, Serialize, ToSchema)]
struct Explained {
    /// `allow`, `forbidden` (403) or `hidden` (404).
    #[schema(example = "allow")]
    effect: String,
    /// Whether the object can be reached from the scope, or is the user's own.
    reachable: bool,
    /// Whether the credential leaves the permission in.
    within_access_rules: bool,
    /// Whether the user may know that the object is there.
    visible: bool,
    /// The rules of the roles that were looked at.
    rules: Vec<RuleView>,
    /// Of a permission to read: fields of what is read that take a permission more.
    fields: Vec<FieldView>,
    /// The same as text.
    text: String,
}

/// A rule that was looked at.
#[derive(Debug, Serialize, ToSchema)]
struct RuleView {
    /// The role's name.
    #[schema(example = "member")]
    role: String,
    /// Which of its rules, from 0.
    rule: usize,
    /// Its patterns.
    patterns: Vec<String>,
    /// Whether it allows this.
    allows: bool,
}

/// A field that takes a permission of its own.
#[derive(Debug, Serialize, ToSchema)]
struct FieldView {
    /// Where it is in what is read.
    #[schema(example = "status.placement")]
    field: String,
    /// What seeing it takes.
    #[schema(example = "host:read")]
    permission: String,
    /// Whether the user sees it.
    shown: bool,
}

/// List permissions
///
/// All permissions of this cloud, by name.
#[utoipa::path(get, path = "/v1/policy/permissions", operation_id = "list_permissions", tag = "policy", params(PageQuery),
    responses((status = 200, description = "One page.", body = Listed<PermissionView>)))]
async fn permissions(asker: Asker, Query(query): Query<PageQuery>) -> Result<Answer<Listed<PermissionView>>> {
    asker.may("policy:read", &Object::all("policy", Place::Shared))?;
    let registry = asker.identity.registry();
    let all = registry.iter().map(|(_, spec)| PermissionView {
        name: spec.name.to_owned(),
        description: spec.en.to_owned(),
        access: match spec.access {
            Access::Read => "read",
            Access::Write => "write",
            Access::Operate => "operate",
        }
        .to_owned(),
        reserved: spec.reserved,
    });
    Ok(Answer(page(
        &query,
        all,
        |p| p.name.clone(),
        |p| Some(p.name.clone()),
    )?))
}

/// Explain a decision
///
/// Says whether a user may do something to an object in a project or domain, and which rules were looked at. Everybody may ask about
/// themselves.
#[utoipa::path(post, path = "/v1/policy/actions/explain", operation_id = "explain_policy", tag = "policy",
    request_body = Question,
    responses((status = 200, description = "What is decided, and why.", body = Explained)))]
async fn explain(asker: Asker, Json(request): Json<Question>) -> Result<Answer<Explained>> {
    let user = request.user.map_or(asker.user(), UserId::from_uuid);
    let at = asker.at();
    let domain = at.user(user).map(|found| found.value.domain);
    let place = domain.map_or(Place::System, Place::Domain);
    asker.may("policy:explain", &Object::one("policy", place).owned_by(user))?;
    let own = &asker.caller.rights;
    let rights = if user == asker.user() && request.scope.is_none() {
        own.clone()
    } else {
        let scope: AuthScope = request.scope.map_or(own.principal.scope, Into::into);
        let principal = Principal {
            user,
            domain: domain.unwrap_or(own.principal.domain),
            scope,
            roles: at.effective_roles(user, scope),
            via: Via::User,
            methods: Vec::new(),
            until: None,
            audit_ids: Vec::new(),
        };
        Rights {
            principal: std::sync::Arc::new(principal),
            narrowed: None,
            ..own.clone()
        }
    };
    let unknown = || {
        field(
            "permission",
            "permission.unknown",
            "is no permission of this cloud",
        )
    };
    let permission = rights.permission(&request.permission).ok_or_else(unknown)?;
    let kind = request.permission.split(':').next().unwrap_or_default();
    let project = request.project.map(ProjectId::from_uuid);
    // One that is not there is out of everybody's reach, as one of somebody else is.
    let nowhere = || Lineage {
        domain: DomainId::from_uuid(Uuid::nil()),
        ancestors: std::sync::Arc::default(),
    };
    let lineage = project.map_or_else(nowhere, |id| asker.identity.lineage(id).unwrap_or_else(nowhere));
    let place = match (project, request.domain) {
        (Some(project), _) => lineage.place(project),
        (None, Some(domain)) => Place::Domain(DomainId::from_uuid(domain)),
        (None, None) => Place::System,
    };
    let mut object = Object::one(kind, place);
    if let Some(owner) = request.owner {
        object = object.owned_by(UserId::from_uuid(owner));
    }
    let explained = rights.explain(permission, &object);
    let reads = explained.effect == Effect::Allow && request.permission.ends_with(":read");
    let rules = field_rules(if reads { kind } else { "" });
    let fields: Vec<FieldView> = rules
        .map(|rule| FieldView {
            field: rule.path.to_owned(),
            permission: rule.permission.to_owned(),
            shown: sees(&rights, rule),
        })
        .collect();
    let mut text = explained.to_string();
    for field in &fields {
        let said = if field.shown { "shown" } else { "hidden" };
        text.push_str(&format!(
            "  field {} takes {}: {said}\n",
            field.field, field.permission
        ));
    }
    Ok(Answer(Explained {
        effect: match explained.effect {
            Effect::Allow => "allow",
            Effect::Forbidden => "forbidden",
            Effect::Hidden => "hidden",
        }
        .to_owned(),
        reachable: explained.reachable,
        within_access_rules: explained.within_access_rules,
        visible: explained.visible,
        text,
        fields,
        rules: explained
            .rules
            .into_iter()
            .map(|rule| RuleView {
                role: rule.name,
                rule: rule.rule,
                patterns: rule.patterns,
                allows: rule.said == Said::Allows,
            })
            .collect(),
    }))
}
