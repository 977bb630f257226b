//! `/v1/groups`: users who are given roles together.

use axum::Json as Answer;
use http::StatusCode;
use serde::{Deserialize, Serialize};
use skyloom_cloud::Listed;
use skyloom_identity::{
    Actor, ChangeError, DEFAULT_DOMAIN, Deed, DomainId, Doomed, Group, GroupId, Object, Place, User,
};
use skyloom_model::Timestamp;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use super::{Asker, PageQuery, TwoIds, page, shown};
use crate::answer::{Result, created, tagged};
use crate::extract::{Json, Query, RawId};
use crate::parts::AppState;
use crate::problem::ApiError;

pub(super) fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(create, list))
        .routes(routes!(get, update, delete))
        .routes(routes!(members))
        .routes(routes!(add, take_out))
}

/// Users who are given roles together.
#[derive(Debug, Serialize, ToSchema)]
struct GroupView {
    /// Which.
    id: Uuid,
    /// The id of its domain.
    domain: Uuid,
    /// Its name, unique in the domain.
    #[schema(example = "operators")]
    name: String,
    /// Free text.
    description: String,
    /// When it was made.
    created_at: Timestamp,
}

fn view(group: &Group) -> GroupView {
    GroupView {
        id: group.id.uuid(),
        domain: group.domain.uuid(),
        name: group.name.clone(),
        description: group.description.clone(),
        created_at: group.created_at,
    }
}

/// A user in a group.
#[derive(Debug, Serialize, ToSchema)]
struct MemberView {
    /// The user's id.
    user: Uuid,
    /// The user's name.
    name: String,
    /// The id of the user's domain.
    domain: Uuid,
}

/// Makes a group.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct CreateGroup {
    /// Its name, unique in the domain.
    #[schema(example = "operators")]
    name: String,
    /// The id of the domain; by default the default one.
    domain: Option<Uuid>,
    /// Free text.
    #[serde(default)]
    description: String,
}

/// Changes a group: what is left out stays.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
struct UpdateGroup {
    /// Another name.
    name: Option<String>,
    /// Another text.
    description: Option<String>,
}

fn object(group: &Group) -> Object<'static> {
    Object::one("group", Place::Domain(group.domain))
}

fn deed(action: &'static str, group: &Group) -> Deed {
    Deed::new(action)
        .on(group.id.uuid())
        .named(&group.name)
        .in_domain(group.domain)
}

/// Make a group
///
/// Makes a group of a domain, without users and roles. The name must be free in the domain.
#[utoipa::path(post, path = "/v1/groups", operation_id = "create_group", tag = "groups",
    request_body = CreateGroup,
    responses((status = 201, description = "The group.", body = GroupView)))]
async fn create(asker: Asker, Json(request): Json<CreateGroup>) -> Result {
    let domain = request.domain.map_or(DEFAULT_DOMAIN, DomainId::from_uuid);
    asker.may_in_domain("group:create", domain)?;
    let fill = |group: &mut Group| group.description.clone_from(&request.description);
    let made = asker
        .identity
        .change(
            &asker.call(),
            |edit| edit.create_group(domain, &request.name, fill),
            |group| deed("group:create", group),
        )
        .await?;
    Ok(created(&format!("/v1/groups/{}", made.id), view(&made)))
}

/// List groups
///
/// The groups that the caller may see, in the order of their ids.
#[utoipa::path(get, path = "/v1/groups", operation_id = "list_groups", tag = "groups", params(PageQuery),
    responses((status = 200, description = "One page.", body = Listed<GroupView>)))]
async fn list(asker: Asker, Query(query): Query<PageQuery>) -> Result<Answer<Listed<GroupView>>> {
    asker.may_list("group:read")?;
    let at = asker.at();
    let all = at.groups().map(|found| &found.value);
    let all = all
        .filter(|group| asker.shows("group:read", &object(group)))
        .map(view);
    Ok(Answer(page(
        &query,
        all,
        |g| g.id.to_string(),
        |g| Some(g.name.clone()),
    )?))
}

/// The group, if the caller may do that to it.
fn allowed(asker: &Asker, permission: &'static str, id: GroupId) -> Result<(Group, skyloom_store::Revision)> {
    let at = asker.at();
    let found = at.group(id).ok_or_else(|| ApiError::not_found("group"))?;
    asker.may(permission, &object(&found.value))?;
    Ok((found.value.clone(), found.modified))
}

/// Show a group
///
/// One group, with its revision as `ETag`.
#[utoipa::path(get, path = "/v1/groups/{id}", operation_id = "get_group", tag = "groups",
    responses((status = 200, description = "The group.", body = GroupView)))]
async fn get(asker: Asker, id: RawId) -> Result {
    let id: GroupId = id.of("group")?;
    allowed(&asker, "group:read", id)?;
    let at = asker.at();
    let found = at.group(id).ok_or_else(|| ApiError::not_found("group"))?;
    Ok(tagged(shown(found, view)))
}

/// Change a group
///
/// Changes its name or text.
#[utoipa::path(patch, path = "/v1/groups/{id}", operation_id = "update_group", tag = "groups",
    request_body = UpdateGroup,
    responses((status = 200, description = "The group as it is now.", body = GroupView)))]
async fn update(asker: Asker, id: RawId, Json(request): Json<UpdateGroup>) -> Result<Answer<GroupView>> {
    let id: GroupId = id.of("group")?;
    let (_, modified) = allowed(&asker, "group:update", id)?;
    asker.fits(modified)?;
    let changed = asker
        .identity
        .change(
            &asker.call(),
            |edit| {
                edit.update_group(id, |group| {
                    if let Some(name) = &request.name {
                        group.name.clone_from(name);
                    }
                    if let Some(description) = &request.description {
                        group.description.clone_from(description);
                    }
                })
            },
            |group| deed("group:update", group),
        )
        .await?;
    Ok(Answer(view(&changed)))
}

/// Delete a group
///
/// Removes a group with its roles. Its users stay, and lose what they had by it.
#[utoipa::path(delete, path = "/v1/groups/{id}", operation_id = "delete_group", tag = "groups",
    responses((status = 204, description = "Gone.")))]
async fn delete(asker: Asker, id: RawId) -> Result<StatusCode> {
    let id: GroupId = id.of("group")?;
    let (group, modified) = allowed(&asker, "group:delete", id)?;
    asker.fits(modified)?;
    asker
        .identity
        .remove(&asker.call(), Doomed::Group(id), deed("group:delete", &group))
        .await?;
    Ok(StatusCode::NO_CONTENT)
}

/// List who is in a group
///
/// The users in a group, in the order of their ids.
#[utoipa::path(get, path = "/v1/groups/{id}/members", operation_id = "list_members", tag = "groups", params(PageQuery),
    responses((status = 200, description = "One page.", body = Listed<MemberView>)))]
async fn members(
    asker: Asker,
    id: RawId,
    Query(query): Query<PageQuery>,
) -> Result<Answer<Listed<MemberView>>> {
    let id: GroupId = id.of("group")?;
    allowed(&asker, "group:read", id)?;
    let at = asker.at();
    let all = at.users_of(id).map(|user| MemberView {
        user: user.value.id.uuid(),
        name: user.value.name.clone(),
        domain: user.value.domain.uuid(),
    });
    Ok(Answer(page(
        &query,
        all,
        |m| m.user.to_string(),
        |m| Some(m.name.clone()),
    )?))
}

/// Put a user into a group
///
/// The user has the group's roles from now on. Nobody puts users into a group that may do more than themselves.
#[utoipa::path(put, path = "/v1/groups/{id}/members/{user}", operation_id = "add_member", tag = "groups",
    responses((status = 204, description = "The user is in it.")))]
async fn add(asker: Asker, TwoIds(id, user): TwoIds<Group, User>) -> Result<StatusCode> {
    let (group, _) = allowed(&asker, "group:update", id)?;
    asker.may_of_user("user:read", user)?;
    asker
        .identity
        .change(
            &asker.call(),
            |edit| {
                if !edit
                    .snapshot()
                    .commands(&asker.caller.rights.principal, Actor::Group(id))
                {
                    let why = "nobody puts users into a group that may do more than themselves";
                    return Err(ChangeError::Forbidden(why));
                }
                edit.add_member(id, user)
            },
            |_| deed("group:update", &group).changed(&["members"]),
        )
        .await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Take a user out of a group
///
/// The user loses what it had by the group, with its next call.
#[utoipa::path(delete, path = "/v1/groups/{id}/members/{user}", operation_id = "remove_member", tag = "groups",
    responses((status = 204, description = "The user is not in it.")))]
async fn take_out(asker: Asker, TwoIds(id, user): TwoIds<Group, User>) -> Result<StatusCode> {
    let (group, _) = allowed(&asker, "group:update", id)?;
    asker
        .identity
        .change(
            &asker.call(),
            |edit| edit.remove_member(id, user),
            |_| deed("group:update", &group).changed(&["members"]),
        )
        .await?;
    Ok(StatusCode::NO_CONTENT)
}
