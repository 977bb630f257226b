//! `/v1/users`: people and programs, and their passwords.

use axum::Json as Answer;
use http::StatusCode;
use serde::{Deserialize, Serialize};
use skyloom_cloud::Listed;
use skyloom_identity::{
    Actor, DEFAULT_DOMAIN, Deed, DomainId, Doomed, Object, Place, User, UserId, UserKind,
};
use skyloom_model::{Id, ProjectId, Secret, Timestamp};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use super::{Asker, PageQuery, page, shown};
use crate::answer::{Result, created, tagged};
use crate::auth::Origin;
use crate::extract::{Json, Query, RawId};
use crate::parts::AppState;
use crate::problem::ApiError;

pub(super) fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(create, list))
        .routes(routes!(change_password))
        .routes(routes!(get, update, delete))
        .routes(routes!(set_password))
}

/// A person or a program.
#[derive(Debug, Serialize, ToSchema)]
struct UserView {
    /// Which.
    id: Uuid,
    /// The id of its domain.
    domain: Uuid,
    /// The name to log in with, unique in the domain.
    #[schema(example = "anna")]
    name: String,
    /// A person or a program.
    kind: KindView,
    /// Where to write to.
    email: Option<String>,
    /// Free text.
    description: String,
    /// Whether anything may be done as this user.
    enabled: bool,
    /// The id of the project that a login without a scope gets.
    default_project: Option<Uuid>,
    /// Whether a code of a second factor is asked for at each login.
    second_factor: bool,
    /// When the password must have been changed.
    password_expires_at: Option<Timestamp>,
    /// When it was made.
    created_at: Timestamp,
}

/// Who is behind a user.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum KindView {
    /// A person.
    #[default]
    Person,
    /// A program.
    Service,
}

fn view(asker: &Asker, user: &User) -> UserView {
    UserView {
        id: user.id.uuid(),
        domain: user.domain.uuid(),
        name: user.name.clone(),
        kind: match user.kind {
            UserKind::Person => KindView::Person,
            UserKind::Service => KindView::Service,
        },
        email: user.email.clone(),
        description: user.description.clone(),
        enabled: user.enabled,
        default_project: user.default_project.map(Id::uuid),
        second_factor: user.needs_second_factor || asker.identity.has_second_factor(user.id),
        password_expires_at: user.password_expires_at,
        created_at: user.created_at,
    }
}

/// Makes a user.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct CreateUser {
    /// The name to log in with, unique in the domain.
    #[schema(example = "anna")]
    name: String,
    /// The id of the domain; by default the default one.
    domain: Option<Uuid>,
    /// A person or a program.
    #[serde(default)]
    kind: KindView,
    /// Where to write to.
    email: Option<String>,
    /// Free text.
    #[serde(default)]
    description: String,
    /// The id of the project that a login without a scope gets.
    default_project: Option<Uuid>,
    /// A first password; without one, nobody logs in with a password.
    #[schema(value_type = Option<String>, format = Password)]
    password: Option<Secret<String>>,
}

/// Changes a user: what is left out stays.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
struct UpdateUser {
    /// Another name.
    name: Option<String>,
    /// Another address.
    email: Option<String>,
    /// Another text.
    description: Option<String>,
    /// Disabled, nothing can be done as this user, and all its tokens end.
    enabled: Option<bool>,
    /// The id of another default project.
    default_project: Option<Uuid>,
}

/// A new password.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct SetPassword {
    /// The new password.
    #[schema(value_type = String, format = Password)]
    password: Secret<String>,
}

/// A new password in place of the old one.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct ChangePassword {
    /// The password of now.
    #[schema(value_type = String, format = Password)]
    old: Secret<String>,
    /// The new one.
    #[schema(value_type = String, format = Password)]
    new: Secret<String>,
}

fn object(user: &User) -> Object<'static> {
    Object::one("user", Place::Domain(user.domain)).owned_by(user.id)
}

fn deed(action: &'static str, user: &User) -> Deed {
    Deed::new(action)
        .on(user.id.uuid())
        .named(&user.name)
        .in_domain(user.domain)
}

/// Make a user
///
/// Makes a user of a domain, without any role. The name must be free in the domain.
#[utoipa::path(post, path = "/v1/users", operation_id = "create_user", tag = "users",
    request_body = CreateUser,
    responses((status = 201, description = "The user.", body = UserView)))]
async fn create(asker: Asker, Json(request): Json<CreateUser>) -> Result {
    let domain = request.domain.map_or(DEFAULT_DOMAIN, DomainId::from_uuid);
    asker.may_in_domain("user:create", domain)?;
    let project = request.default_project.map(ProjectId::from_uuid);
    let fill = |user: &mut User| {
        user.kind = match request.kind {
            KindView::Person => UserKind::Person,
            KindView::Service => UserKind::Service,
        };
        user.email.clone_from(&request.email);
        user.description.clone_from(&request.description);
        user.default_project = project;
    };
    let call = asker.call();
    let made = asker
        .identity
        .create_user(&call, domain, &request.name, request.password.clone(), fill);
    let made = made.await?;
    Ok(created(&format!("/v1/users/{}", made.id), view(&asker, &made)))
}

/// List users
///
/// The users that the caller may see, in the order of their ids; everybody sees at least themselves.
#[utoipa::path(get, path = "/v1/users", operation_id = "list_users", tag = "users", params(PageQuery),
    responses((status = 200, description = "One page.", body = Listed<UserView>)))]
async fn list(asker: Asker, Query(query): Query<PageQuery>) -> Result<Answer<Listed<UserView>>> {
    asker.may_list("user:read")?;
    let at = asker.at();
    let all = at.users().map(|found| &found.value);
    let all = all
        .filter(|user| asker.shows("user:read", &object(user)))
        .map(|user| view(&asker, user));
    Ok(Answer(page(
        &query,
        all,
        |u| u.id.to_string(),
        |u| Some(u.name.clone()),
    )?))
}

/// Show a user
///
/// One user, with its revision as `ETag`.
#[utoipa::path(get, path = "/v1/users/{id}", operation_id = "get_user", tag = "users",
    responses((status = 200, description = "The user.", body = UserView)))]
async fn get(asker: Asker, id: RawId) -> Result {
    let at = asker.at();
    let found = at
        .user(id.of("user")?)
        .ok_or_else(|| ApiError::not_found("user"))?;
    asker.may("user:read", &object(&found.value))?;
    Ok(tagged(shown(found, |user| view(&asker, user))))
}

/// Change a user
///
/// Changes what is said of it, disables or enables it. Disabling ends all its tokens.
#[utoipa::path(patch, path = "/v1/users/{id}", operation_id = "update_user", tag = "users",
    request_body = UpdateUser,
    responses((status = 200, description = "The user as it is now.", body = UserView)))]
async fn update(asker: Asker, id: RawId, Json(request): Json<UpdateUser>) -> Result<Answer<UserView>> {
    let id: UserId = id.of("user")?;
    let at = asker.at();
    let found = at.user(id).ok_or_else(|| ApiError::not_found("user"))?;
    asker.may("user:update", &object(&found.value))?;
    asker.fits(found.modified)?;
    let changed = asker
        .identity
        .change(
            &asker.call(),
            |edit| {
                edit.update_user(id, |user| {
                    if let Some(name) = &request.name {
                        user.name.clone_from(name);
                    }
                    if request.email.is_some() {
                        user.email.clone_from(&request.email);
                    }
                    if let Some(description) = &request.description {
                        user.description.clone_from(description);
                    }
                    if let Some(project) = request.default_project {
                        user.default_project = Some(ProjectId::from_uuid(project));
                    }
                    user.enabled = request.enabled.unwrap_or(user.enabled);
                })
            },
            |user| deed("user:update", user),
        )
        .await?;
    Ok(Answer(view(&asker, &changed)))
}

/// Delete a user
///
/// Removes a user with its roles, credentials, tokens and delegations. What it has made stays.
#[utoipa::path(delete, path = "/v1/users/{id}", operation_id = "delete_user", tag = "users",
    responses((status = 204, description = "Gone.")))]
async fn delete(asker: Asker, id: RawId) -> Result<StatusCode> {
    let id: UserId = id.of("user")?;
    let at = asker.at();
    let found = at.user(id).ok_or_else(|| ApiError::not_found("user"))?;
    asker.may("user:delete", &object(&found.value))?;
    asker.fits(found.modified)?;
    if id != asker.user() && !at.commands(&asker.caller.rights.principal, Actor::User(id)) {
        let why = "nobody removes somebody who may do more than themselves";
        return Err(skyloom_identity::ChangeError::Forbidden(why).into());
    }
    asker
        .identity
        .remove(&asker.call(), Doomed::User(id), deed("user:delete", &found.value))
        .await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Set a user's password
///
/// Sets a password whatever it was before, and ends all the user's tokens. Nobody sets the password of somebody who may do more than
/// themselves.
#[utoipa::path(post, path = "/v1/users/{id}/actions/set-password", operation_id = "set_password", tag = "users",
    request_body = SetPassword,
    responses((status = 204, description = "It is set.")))]
async fn set_password(asker: Asker, id: RawId, Json(request): Json<SetPassword>) -> Result<StatusCode> {
    let id: UserId = id.of("user")?;
    let at = asker.at();
    let found = at.user(id).ok_or_else(|| ApiError::not_found("user"))?;
    asker.may("user:set-password", &object(&found.value))?;
    asker
        .identity
        .set_password(&asker.call(), id, request.password)
        .await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Change one's own password
///
/// Takes the old password and the new one, and ends all tokens of the user, the one in hand too.
#[utoipa::path(post, path = "/v1/users/me/actions/change-password", operation_id = "change_password", tag = "users",
    request_body = ChangePassword,
    responses((status = 204, description = "It is changed.")))]
async fn change_password(
    asker: Asker,
    origin: Origin,
    Json(request): Json<ChangePassword>,
) -> Result<StatusCode> {
    asker.may_of_user("user:change-password", asker.user())?;
    let who = skyloom_identity::UserRef::Id(asker.user());
    let changed = asker.identity.change_password(
        &who,
        &request.old,
        request.new,
        &origin.source,
        &origin.request_id,
    );
    match changed.await {
        Ok(()) => Ok(StatusCode::NO_CONTENT),
        // The bearer is good: it is the password in the body that is not.
        Err(skyloom_identity::SecretError::Auth(skyloom_identity::AuthError::Denied(_))) => Err(
            super::field("old", "password.wrong", "is not the password of now"),
        ),
        Err(error) => Err(error.into()),
    }
}
