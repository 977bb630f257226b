//! Users, groups and who is in them.

use std::sync::Arc;

use axum::Json;
use axum::extract::Path;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post, put};
use bytes::Bytes;
use serde_json::json;
use skyloom_identity::{
    Actor, AuthScope, DomainId, Doomed, Group, GroupId, User, UserId, UserOptions, UserRef,
};
use skyloom_model::{ProjectId, Secret};
use skyloom_store::Versioned;

use super::ask::{Ask, Open};
use super::edge::Routes;
use super::error::{Answer, Refusal};
use super::fields::{Fields, merge};
use super::ids;
use super::shape::Shape;
use super::thing::{Lies, Thing};

/// Longest names, as Keystone has them.
const MAX_USER: usize = 255;
const MAX_GROUP: usize = 64;

pub(crate) fn routes() -> Routes {
    Routes::new()
        .route("/users", get(list_users).post(create_user))
        .route(
            "/users/{user}",
            get(show_user).patch(update_user).delete(delete_user),
        )
        .route("/users/{user}/password", post(change_password))
        .route("/users/{user}/groups", get(groups_of))
        .route("/users/{user}/projects", get(projects_of))
        .route("/groups", get(list_groups).post(create_group))
        .route(
            "/groups/{group}",
            get(show_group).patch(update_group).delete(delete_group),
        )
        .route("/groups/{group}/users", get(users_of))
        .route(
            "/groups/{group}/users/{user}",
            put(add_member).get(check_member).delete(remove_member),
        )
}

impl Ask {
    pub(crate) fn shape(&self) -> Shape<'_> {
        Shape {
            root: &self.root,
            at: &self.at,
        }
    }

    /// A user that is there and that may be seen.
    pub(crate) async fn find_user(&self, id: &str) -> Answer<Arc<Versioned<User>>> {
        let found = ids::parse(id)
            .and_then(|id| self.at.user(id))
            .filter(|user| !user.value.deleting);
        let found = found.ok_or_else(|| self.absent("user:read", "user", id))?;
        self.require("user:read", &Thing::user(&found.value)).await?;
        Ok(found.clone())
    }

    pub(crate) async fn find_group(&self, id: &str) -> Answer<Arc<Versioned<Group>>> {
        let found = ids::parse(id)
            .and_then(|id| self.at.group(id))
            .filter(|group| !group.value.deleting);
        let found = found.ok_or_else(|| self.absent("group:read", "group", id))?;
        self.require("group:read", &group_thing(&found.value)).await?;
        Ok(found.clone())
    }

    /// The domain that something new goes into: the one that is named, or that of the token.
    pub(crate) fn domain_of_new(&self, body: &mut Fields) -> Answer<DomainId> {
        let named = body.domain("domain_id")?;
        Ok(named.unwrap_or_else(|| self.own_domain()))
    }

    /// The domain of the token's scope; the user's where that has none.
    pub(crate) fn own_domain(&self) -> DomainId {
        let principal = &self.valid.rights.principal;
        match principal.scope {
            AuthScope::Domain(id) => id,
            AuthScope::Project(id) => {
                let found = self.at.project(id).map(|found| found.value.spec.domain);
                found.map_or(principal.domain, DomainId::from_uuid)
            }
            AuthScope::System | AuthScope::None => principal.domain,
        }
    }
}

fn group_thing(group: &Group) -> Thing {
    Thing::one("group", Lies::Domain(group.domain), group.id.uuid()).named(&group.name)
}

async fn list_users(ask: Ask) -> Answer {
    ask.require_list("user:read")?;
    let seen = ask
        .at
        .users()
        .filter(|user| ask.may("user:read", &Thing::user(&user.value)));
    let users = seen.map(|user| ask.shape().user(&user.value)).collect();
    ask.page(
        "users",
        users,
        &["name", "domain_id", "enabled", "email", "default_project_id"],
    )
}

async fn show_user(ask: Ask, Path(id): Path<String>) -> Answer {
    let found = ask.find_user(&id).await?;
    Ok(Json(json!({"user": ask.shape().user(&found.value)})).into_response())
}

/// What a body says of a user, beside name, domain and password.
struct UserBody {
    enabled: Option<bool>,
    email: Option<Option<String>>,
    description: Option<Option<String>>,
    default_project: Option<Option<ProjectId>>,
    options: Option<Fields>,
    rest: serde_json::Map<String, serde_json::Value>,
}

impl UserBody {
    fn read(mut body: Fields) -> Answer<Self> {
        let said = body.has("default_project_id");
        let project = body.id("default_project_id", "project")?;
        // What is federated lies elsewhere.
        body.value("federated");
        Ok(Self {
            enabled: body.flag("enabled")?,
            email: body.nullable("email")?,
            description: body.nullable("description")?,
            default_project: said.then_some(project),
            options: body.object("options")?,
            rest: body.rest(),
        })
    }

    fn apply(&self, user: &mut User) -> Answer<()> {
        if let Some(enabled) = self.enabled {
            user.enabled = enabled;
        }
        if let Some(email) = &self.email {
            user.email.clone_from(email);
        }
        if let Some(description) = &self.description {
            user.description = description.clone().unwrap_or_default();
        }
        if let Some(project) = self.default_project {
            user.default_project = project;
        }
        if let Some(options) = &self.options {
            read_options(options.clone(), &mut user.options)?;
        }
        merge(&mut user.extra, &self.rest);
        Ok(())
    }
}

fn read_options(mut body: Fields, options: &mut UserOptions) -> Answer<()> {
    for (name, place) in [
        (
            "ignore_change_password_upon_first_use",
            &mut options.ignore_change_password_upon_first_use,
        ),
        ("ignore_password_expiry", &mut options.ignore_password_expiry),
        (
            "ignore_lockout_failure_attempts",
            &mut options.ignore_lockout_failure_attempts,
        ),
        ("ignore_user_inactivity", &mut options.ignore_user_inactivity),
        ("lock_password", &mut options.lock_password),
        (
            "multi_factor_auth_enabled",
            &mut options.multi_factor_auth_enabled,
        ),
    ] {
        match body.value(name) {
            None => {}
            Some(serde_json::Value::Null) => *place = false,
            Some(serde_json::Value::Bool(flag)) => *place = flag,
            Some(_) => {
                return Err(Refusal::bad(format!(
                    "Invalid input for field '{name}': it is true or false"
                )));
            }
        }
    }
    if let Some(rules) = body.value("multi_factor_auth_rules") {
        let rules: Option<Vec<Vec<String>>> = serde_json::from_value(rules)
            .map_err(|_| Refusal::bad("Invalid input for field 'multi_factor_auth_rules'"))?;
        options.multi_factor_auth_rules = rules.unwrap_or_default();
    }
    match body.rest().keys().next() {
        Some(name) => Err(Refusal::bad(format!(
            "Invalid input for field 'options': there is no option {name}"
        ))),
        None => Ok(()),
    }
}

async fn create_user(ask: Ask, body: Bytes) -> Answer {
    let mut body = Fields::of(&body, "user")?;
    let name = body.needed_name("name", MAX_USER)?;
    let domain = ask.domain_of_new(&mut body)?;
    let password = body.text("password")?.map(Secret::new);
    ask.require(
        "user:create",
        &Thing::new("user", Lies::Domain(domain)).named(&name),
    )
    .await?;
    let body = UserBody::read(body)?;
    // Its parts are checked before anything is made of them.
    let own = ask.at.user(ask.user()).map(|own| own.value.clone());
    own.map_or(Ok(()), |mut user| body.apply(&mut user))?;
    let made = ask
        .identity()
        .create_user(&ask.call(), domain, &name, password, |user| {
            drop(body.apply(user))
        })
        .await?;
    Ok((
        StatusCode::CREATED,
        Json(json!({"user": ask.shape().user(&made)})),
    )
        .into_response())
}

async fn update_user(ask: Ask, Path(id): Path<String>, body: Bytes) -> Answer {
    let found = ask.find_user(&id).await?;
    let thing = Thing::user(&found.value);
    let mut body = Fields::of(&body, "user")?;
    body.same_id(&id)?;
    let name = body.name("name", MAX_USER)?;
    let password = body.text("password")?.map(Secret::new);
    if body
        .domain("domain_id")?
        .is_some_and(|domain| domain != found.value.domain)
    {
        return Err(Refusal::bad("Cannot change Domain ID"));
    }
    ask.require("user:update", &thing).await?;
    let body = UserBody::read(body)?;
    body.apply(&mut found.value.clone())?;
    let user = found.value.id;
    if let Some(password) = password {
        ask.require("user:set-password", &thing).await?;
        ask.identity().set_password(&ask.call(), user, password).await?;
    }
    let made = ask
        .change(
            |edit| {
                edit.update_user(user, |user| {
                    if let Some(name) = &name {
                        user.name.clone_from(name);
                    }
                    drop(body.apply(user));
                })
            },
            |user| Thing::user(user).deed("user:update"),
        )
        .await?;
    Ok(Json(json!({"user": ask.shape().user(&made)})).into_response())
}

async fn delete_user(ask: Ask, Path(id): Path<String>) -> Answer<StatusCode> {
    let found = ask.find_user(&id).await?;
    let thing = Thing::user(&found.value);
    ask.require("user:delete", &thing).await?;
    ask.remove(Doomed::User(found.value.id), thing.deed("user:delete"))
        .await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn groups_of(ask: Ask, Path(id): Path<String>) -> Answer {
    let found = ask.find_user(&id).await?;
    let groups = ask
        .at
        .groups_of(found.value.id)
        .filter(|group| !group.value.deleting);
    let own = found.value.id == ask.user();
    let seen = groups.filter(|group| own || ask.may("group:read", &group_thing(&group.value)));
    let groups = seen.map(|group| ask.shape().group(&group.value)).collect();
    ask.page("groups", groups, &["name", "domain_id"])
}

async fn projects_of(ask: Ask, Path(id): Path<String>) -> Answer {
    let found = ask.find_user(&id).await?;
    let projects = ask.projects_of(found.value.id, found.value.id == ask.user());
    ask.page(
        "projects",
        projects,
        &["name", "domain_id", "enabled", "parent_id"],
    )
}

async fn list_groups(ask: Ask) -> Answer {
    ask.require_list("group:read")?;
    let groups = ask.at.groups().filter(|group| !group.value.deleting);
    let seen = groups.filter(|group| ask.may("group:read", &group_thing(&group.value)));
    let groups = seen.map(|group| ask.shape().group(&group.value)).collect();
    ask.page("groups", groups, &["name", "domain_id"])
}

async fn show_group(ask: Ask, Path(id): Path<String>) -> Answer {
    let found = ask.find_group(&id).await?;
    Ok(Json(json!({"group": ask.shape().group(&found.value)})).into_response())
}

async fn create_group(ask: Ask, body: Bytes) -> Answer {
    let mut body = Fields::of(&body, "group")?;
    let name = body.needed_name("name", MAX_GROUP)?;
    let domain = ask.domain_of_new(&mut body)?;
    let description = body.text("description")?.unwrap_or_default();
    ask.require(
        "group:create",
        &Thing::new("group", Lies::Domain(domain)).named(&name),
    )
    .await?;
    let rest = body.rest();
    let made = ask
        .change(
            |edit| {
                edit.create_group(domain, &name, |group| {
                    group.description.clone_from(&description);
                    merge(&mut group.extra, &rest);
                })
            },
            |group| group_thing(group).deed("group:create"),
        )
        .await?;
    Ok((
        StatusCode::CREATED,
        Json(json!({"group": ask.shape().group(&made)})),
    )
        .into_response())
}

async fn update_group(ask: Ask, Path(id): Path<String>, body: Bytes) -> Answer {
    let found = ask.find_group(&id).await?;
    ask.require("group:update", &group_thing(&found.value)).await?;
    let mut body = Fields::of(&body, "group")?;
    body.same_id(&id)?;
    let (name, description) = (body.name("name", MAX_GROUP)?, body.nullable("description")?);
    if body
        .domain("domain_id")?
        .is_some_and(|domain| domain != found.value.domain)
    {
        return Err(Refusal::bad("Cannot change Domain ID"));
    }
    let (group, rest) = (found.value.id, body.rest());
    let made = ask
        .change(
            |edit| {
                edit.update_group(group, |group| {
                    if let Some(name) = &name {
                        group.name.clone_from(name);
                    }
                    if let Some(description) = &description {
                        group.description = description.clone().unwrap_or_default();
                    }
                    merge(&mut group.extra, &rest);
                })
            },
            |group| group_thing(group).deed("group:update"),
        )
        .await?;
    Ok(Json(json!({"group": ask.shape().group(&made)})).into_response())
}

async fn delete_group(ask: Ask, Path(id): Path<String>) -> Answer<StatusCode> {
    let found = ask.find_group(&id).await?;
    let thing = group_thing(&found.value);
    ask.require("group:delete", &thing).await?;
    ask.remove(Doomed::Group(found.value.id), thing.deed("group:delete"))
        .await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn users_of(ask: Ask, Path(id): Path<String>) -> Answer {
    let found = ask.find_group(&id).await?;
    let users = ask
        .at
        .users_of(found.value.id)
        .filter(|user| !user.value.deleting);
    let seen = users.filter(|user| ask.may("user:read", &Thing::user(&user.value)));
    let users = seen.map(|user| ask.shape().user(&user.value)).collect();
    ask.page("users", users, &["name", "domain_id", "enabled", "email"])
}

/// Group and user of a path, with the right to change the group.
async fn membership(
    ask: &Ask,
    group: &str,
    user: &str,
    permission: &'static str,
) -> Answer<(GroupId, UserId, Thing)> {
    let group = ask.find_group(group).await?;
    let thing = group_thing(&group.value);
    ask.require(permission, &thing).await?;
    let user = ask.find_user(user).await?;
    Ok((group.value.id, user.value.id, thing))
}

async fn add_member(ask: Ask, Path((group, user)): Path<(String, String)>) -> Answer<StatusCode> {
    let (group, user, thing) = membership(&ask, &group, &user, "group:update").await?;
    if !ask.at.commands(&ask.rights.principal, Actor::Group(group)) {
        return Err(Refusal::not_allowed("identity:add_user_to_group"));
    }
    ask.change(
        |edit| edit.add_member(group, user),
        |_| thing.deed("group:update").changed(&["members"]),
    )
    .await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn check_member(ask: Ask, Path((group, user)): Path<(String, String)>) -> Answer<Response> {
    let shown = user.clone();
    let (group, user, _) = membership(&ask, &group, &user, "group:read").await?;
    match ask.at.member(group, user) {
        Some(_) => Ok(StatusCode::NO_CONTENT.into_response()),
        None => Err(Refusal::missing("user in group", &shown)),
    }
}

async fn remove_member(ask: Ask, Path((group, user)): Path<(String, String)>) -> Answer<StatusCode> {
    let (group, user, thing) = membership(&ask, &group, &user, "group:update").await?;
    ask.change(
        |edit| edit.remove_member(group, user),
        |_| thing.deed("group:update").changed(&["members"]),
    )
    .await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Whoever shows the old password changes it; a token is not needed, it may have none any more.
async fn change_password(open: Open, Path(id): Path<String>, body: Bytes) -> Answer<StatusCode> {
    let mut body = Fields::of(&body, "user")?;
    let old = Secret::new(body.needed("original_password")?);
    let new = Secret::new(body.needed("password")?);
    let who = UserRef::Id(ids::parse(&id).ok_or_else(Refusal::unauthorized)?);
    open.parts
        .identity
        .change_password(&who, &old, new, &open.throttled_as(), &open.request_id)
        .await?;
    Ok(StatusCode::NO_CONTENT)
}
