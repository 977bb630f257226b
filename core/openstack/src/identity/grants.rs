//! Roles given to users and groups on projects, domains and the system; with `OS-INHERIT` on all projects below.

use axum::extract::Path;
use axum::http::StatusCode;
use axum::routing::{MethodRouter, get, put};
use skyloom_identity::{Actor, Grant, RoleId, Target};
use skyloom_model::ProjectId;

use super::ask::Ask;
use super::edge::Routes;
use super::error::{Answer, Refusal};
use super::ids;
use super::thing::Thing;

/// On what sort of thing a role is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum On {
    Project,
    Domain,
    System,
}

/// To whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum To {
    User,
    Group,
}

/// What a path says.
#[derive(Debug, Clone)]
struct Place {
    on: On,
    to: To,
    inherited: bool,
    target: String,
    actor: String,
}

pub(crate) fn routes() -> Routes {
    let mut routes = Routes::new();
    for (to, actors) in [(To::User, "users"), (To::Group, "groups")] {
        for (on, targets) in [(On::Project, "projects"), (On::Domain, "domains")] {
            let own = format!("/{targets}/{{target}}/{actors}/{{actor}}/roles");
            let below = format!("/OS-INHERIT{own}");
            routes = routes
                .route(&own, list(on, to, false))
                .route(&format!("{own}/{{role}}"), one(on, to, false))
                .route(&format!("{below}/inherited_to_projects"), list(on, to, true))
                .route(
                    &format!("{below}/{{role}}/inherited_to_projects"),
                    one(on, to, true),
                );
        }
        let system = format!("/system/{actors}/{{actor}}/roles");
        let place = move |actor: String| Place {
            on: On::System,
            to,
            inherited: false,
            target: String::new(),
            actor,
        };
        let listed = move |ask: Ask, Path(actor): Path<String>| list_at(ask, place(actor));
        let given =
            move |ask: Ask, Path((actor, role)): Path<(String, String)>| give(ask, place(actor), role);
        let checked =
            move |ask: Ask, Path((actor, role)): Path<(String, String)>| check(ask, place(actor), role);
        let taken =
            move |ask: Ask, Path((actor, role)): Path<(String, String)>| take(ask, place(actor), role);
        routes = routes.route(&system, get(listed)).route(
            &format!("{system}/{{role}}"),
            put(given).get(checked).delete(taken),
        );
    }
    routes
}

fn list(on: On, to: To, inherited: bool) -> MethodRouter<std::sync::Arc<super::OpenstackParts>> {
    get(move |ask: Ask, Path((target, actor)): Path<(String, String)>| {
        let place = Place {
            on,
            to,
            inherited,
            target,
            actor,
        };
        list_at(ask, place)
    })
}

fn one(on: On, to: To, inherited: bool) -> MethodRouter<std::sync::Arc<super::OpenstackParts>> {
    type Three = Path<(String, String, String)>;
    let place = move |target, actor| Place {
        on,
        to,
        inherited,
        target,
        actor,
    };
    let given = move |ask: Ask, Path((target, actor, role)): Three| give(ask, place(target, actor), role);
    let checked = move |ask: Ask, Path((target, actor, role)): Three| check(ask, place(target, actor), role);
    let taken = move |ask: Ask, Path((target, actor, role)): Three| take(ask, place(target, actor), role);
    put(given).get(checked).delete(taken)
}

/// Target and actor of a path; both must be visible to who asks.
async fn resolve(ask: &Ask, place: &Place) -> Answer<(Target, Actor)> {
    let target = match place.on {
        On::System => Target::System,
        On::Domain => Target::Domain(ask.find_domain(&place.target).await?.value.id),
        On::Project => {
            let found = ask.find_project(&place.target).await?;
            Target::Project(ProjectId::from_uuid(found.value.meta.id))
        }
    };
    let actor = match place.to {
        To::User => Actor::User(ask.find_user(&place.actor).await?.value.id),
        To::Group => Actor::Group(ask.find_group(&place.actor).await?.value.id),
    };
    Ok((target, actor))
}

/// A grant as the policy sees it: one's own may be seen by oneself.
fn thing(target: Target, actor: Actor, role: Option<RoleId>) -> Thing {
    let thing = Thing::grant(target, role);
    match actor {
        Actor::User(user) => thing.owned_by(user),
        Actor::Group(_) => thing,
    }
}

async fn list_at(ask: Ask, place: Place) -> Answer {
    let (target, actor) = resolve(&ask, &place).await?;
    ask.require("grant:read", &thing(target, actor, None)).await?;
    let given = ask.at.grants_on(target).filter(|grant| {
        let Grant {
            actor: to, inherited, ..
        } = grant.value;
        to == actor && inherited == place.inherited
    });
    let roles = given.filter_map(|grant| ask.at.role(grant.value.role));
    let roles = roles.map(|role| ask.shape().role(&role.value)).collect();
    ask.page("roles", roles, &["name"])
}

async fn give(ask: Ask, place: Place, role: String) -> Answer<StatusCode> {
    let (target, actor) = resolve(&ask, &place).await?;
    let role = ask.find_role(&role).await?;
    let thing = thing(target, actor, Some(role.value.id)).named(&role.value.name);
    ask.require("grant:create", &thing).await?;
    let call = ask.call();
    let made = ask.identity().change(
        &call,
        |edit| edit.grant(target, actor, role.value.id, place.inherited),
        |_| thing.deed_at("grant:create", &ask.at),
    );
    match made.await {
        Ok(_) => Ok(StatusCode::NO_CONTENT),
        Err(skyloom_identity::ChangeError::Invalid { why, .. }) => Err(Refusal::forbidden(format!(
            "The role {} cannot be given there: it {why}.",
            ids::hex(role.value.id)
        ))),
        Err(error) => Err(error.into()),
    }
}

async fn check(ask: Ask, place: Place, role: String) -> Answer<StatusCode> {
    let (target, actor) = resolve(&ask, &place).await?;
    ask.require("grant:read", &thing(target, actor, None)).await?;
    let found = ask.find_role(&role).await?;
    match ask.at.grant(target, actor, found.value.id, place.inherited) {
        Some(_) => Ok(StatusCode::NO_CONTENT),
        None => Err(Refusal::missing("role assignment with role", &role)),
    }
}

async fn take(ask: Ask, place: Place, role: String) -> Answer<StatusCode> {
    let (target, actor) = resolve(&ask, &place).await?;
    let found = ask.find_role(&role).await?;
    let thing = thing(target, actor, Some(found.value.id)).named(&found.value.name);
    ask.require("grant:delete", &thing).await?;
    if ask
        .at
        .grant(target, actor, found.value.id, place.inherited)
        .is_none()
    {
        return Err(Refusal::missing("role assignment with role", &role));
    }
    ask.change(
        |edit| edit.revoke(target, actor, found.value.id, place.inherited),
        |_| thing.deed_at("grant:delete", &ask.at),
    )
    .await?;
    Ok(StatusCode::NO_CONTENT)
}
