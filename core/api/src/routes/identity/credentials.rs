//! `/v1/users/{id}/credentials`: what users prove themselves with beside passwords.

use std::collections::BTreeSet;

use axum::Json as Answer;
use http::StatusCode;
use serde::{Deserialize, Serialize};
use skyloom_cloud::{Listed, ShownOnce};
use skyloom_identity::{
    Actor, ChangeError, Credential, CredentialKind, Deed, Doomed, NewApplicationCredential, NewSecret,
    RoleId, User, UserId,
};
use skyloom_model::Timestamp;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use super::{Asker, PageQuery, TwoIds, page};
use crate::answer::{Result, created};
use crate::extract::{Json, Query, RawId};
use crate::parts::AppState;
use crate::problem::ApiError;

pub(super) fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(create, list))
        .routes(routes!(delete))
}

/// The sorts of credentials.
#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum SortView {
    /// A secret for a program.
    Application,
    /// A second factor.
    Totp,
    /// A key for signed requests.
    Ec2,
}

/// A credential, without its secret.
#[derive(Debug, Serialize, ToSchema)]
struct CredentialView {
    /// Which.
    id: Uuid,
    /// The id of the user whose it is.
    user: Uuid,
    /// What it is.
    kind: SortView,
    /// The name of an application credential, or the public half of a key.
    #[schema(example = "robot")]
    name: Option<String>,
    /// Free text.
    description: String,
    /// The id of the project where it counts.
    project: Option<Uuid>,
    /// The ids of the roles that it has at most.
    roles: Vec<Uuid>,
    /// If there are any: the patterns of permissions to which alone it reaches.
    permissions: Vec<String>,
    /// Whether it may make and delete credentials itself.
    unrestricted: bool,
    /// Whether a second factor has been confirmed.
    confirmed: bool,
    /// How many recovery codes of a second factor are left.
    recovery_codes_left: usize,
    /// When it ends.
    expires_at: Option<Timestamp>,
    /// When it was made.
    created_at: Timestamp,
}

fn view(credential: &Credential) -> CredentialView {
    let mut view = CredentialView {
        id: credential.id.uuid(),
        user: credential.user.uuid(),
        kind: SortView::Totp,
        name: None,
        description: String::new(),
        project: credential.project().map(|project| project.uuid()),
        roles: Vec::new(),
        permissions: Vec::new(),
        unrestricted: false,
        confirmed: false,
        recovery_codes_left: 0,
        expires_at: None,
        created_at: credential.created_at,
    };
    match &credential.kind {
        CredentialKind::Application(own) => {
            view.kind = SortView::Application;
            view.name = Some(own.name.clone());
            view.description.clone_from(&own.description);
            view.roles = own.roles.iter().map(|role| role.uuid()).collect();
            view.permissions.clone_from(&own.permissions);
            view.unrestricted = own.unrestricted;
            view.expires_at = own.expires_at;
        }
        CredentialKind::Totp(factor) => {
            view.confirmed = factor.confirmed;
            view.recovery_codes_left = factor.recovery.left();
        }
        CredentialKind::Ec2(key) => {
            view.kind = SortView::Ec2;
            view.name = Some(key.access.clone());
        }
    }
    view
}

/// Makes an application credential of the caller in the project of its scope.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct CreateCredential {
    /// Its name, unique for the user.
    #[schema(example = "robot")]
    name: String,
    /// Free text.
    #[serde(default)]
    description: String,
    /// The ids of roles; without, all that count for the caller.
    roles: Option<BTreeSet<Uuid>>,
    /// If there are any: the patterns of permissions to which alone it reaches.
    #[serde(default)]
    #[schema(example = json!(["server:read"]))]
    permissions: Vec<String>,
    /// Whether it may make and delete credentials itself.
    #[serde(default)]
    unrestricted: bool,
    /// When it ends; by default never.
    expires_at: Option<Timestamp>,
}

/// A credential and its secret, shown once.
#[derive(Debug, Serialize, ToSchema)]
struct CredentialAccepted {
    /// The credential.
    credential: CredentialView,
    /// The secret.
    secret: ShownOnce,
}

fn deed(action: &'static str, asker: &Asker, credential: &Credential) -> Deed {
    let deed = Deed::new(action).on(credential.id.uuid());
    match asker.at().user(credential.user) {
        Some(user) => deed.in_domain(user.value.domain),
        None => deed,
    }
}

/// Make an application credential
///
/// Makes a secret with which a program acts as the caller, in the project of the caller's scope and with no more than the caller's
/// roles there. It goes with the user and with the project. Only users themselves make theirs.
#[utoipa::path(post, path = "/v1/users/{id}/credentials", operation_id = "create_credential", tag = "users",
    request_body = CreateCredential,
    responses((status = 201, description = "The credential, and its secret, shown this once.", body = CredentialAccepted)))]
async fn create(asker: Asker, id: RawId, Json(request): Json<CreateCredential>) -> Result {
    let user: UserId = id.of("user")?;
    asker.may_of_user("credential:create", user)?;
    if user != asker.user() {
        return Err(ChangeError::Forbidden("users make their application credentials themselves").into());
    }
    asker
        .identity
        .check_patterns("permissions", &request.permissions)?;
    let secret: NewSecret = asker.identity.new_secret();
    let by = &asker.caller.rights.principal;
    let roles = request
        .roles
        .map(|roles| roles.into_iter().map(RoleId::from_uuid).collect::<BTreeSet<_>>());
    let made = asker
        .identity
        .change(
            &asker.call(),
            |edit| {
                let asked = NewApplicationCredential {
                    name: request.name.clone(),
                    description: request.description.clone(),
                    roles: roles.clone(),
                    secret_hash: secret.hash.clone(),
                    expires_at: request.expires_at,
                    unrestricted: request.unrestricted,
                    access_rules: Vec::new(),
                    permissions: request.permissions.clone(),
                };
                edit.create_application_credential(by, asked)
            },
            |made| deed("credential:create", &asker, made).named(&request.name),
        )
        .await?;
    let accepted = CredentialAccepted {
        credential: view(&made),
        secret: ShownOnce::new(secret.secret.expose().clone()),
    };
    Ok(created(
        &format!("/v1/users/{user}/credentials/{}", made.id),
        accepted,
    ))
}

/// List a user's credentials
///
/// Application credentials, second factors and keys, without their secrets, in the order of their ids.
#[utoipa::path(get, path = "/v1/users/{id}/credentials", operation_id = "list_credentials", tag = "users", params(PageQuery),
    responses((status = 200, description = "One page.", body = Listed<CredentialView>)))]
async fn list(
    asker: Asker,
    id: RawId,
    Query(query): Query<PageQuery>,
) -> Result<Answer<Listed<CredentialView>>> {
    let user: UserId = id.of("user")?;
    asker.may_of_user("credential:read", user)?;
    let at = asker.at();
    let all = at.credentials_of(user).map(|found| view(&found.value));
    Ok(Answer(page(
        &query,
        all,
        |c| c.id.to_string(),
        |c| c.name.clone(),
    )?))
}

/// Delete a credential
///
/// It works no more, nor does what was made with it. Taking away the second factor of somebody else needs at least what that user may do.
#[utoipa::path(delete, path = "/v1/users/{id}/credentials/{credential}", operation_id = "delete_credential", tag = "users",
    responses((status = 204, description = "Gone.")))]
async fn delete(asker: Asker, TwoIds(user, id): TwoIds<User, Credential>) -> Result<StatusCode> {
    asker.may_of_user("credential:delete", user)?;
    let at = asker.at();
    let found = at.credential(id).filter(|found| found.value.user == user);
    let found = found.ok_or_else(|| ApiError::not_found("credential"))?;
    asker.fits(found.modified)?;
    if user == asker.user() {
        // Not with a restricted credential.
        let by = &asker.caller.rights.principal;
        asker
            .identity
            .editor()
            .change(|edit| {
                let txn = edit.may_delete_credential(by, id)?;
                Ok(skyloom_identity::Draft { record: (), txn })
            })
            .await?;
    } else if !at.commands(&asker.caller.rights.principal, Actor::User(user)) {
        let why = "nobody takes away the credentials of somebody who may do more than themselves";
        return Err(ChangeError::Forbidden(why).into());
    }
    let told = deed("credential:delete", &asker, &found.value);
    asker
        .identity
        .remove(&asker.call(), Doomed::Credential(id), told)
        .await?;
    Ok(StatusCode::NO_CONTENT)
}
