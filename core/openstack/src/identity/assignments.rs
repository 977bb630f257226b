//! Who has which role where: as it was given, or with groups, inheritance and implied roles worked out.

use std::collections::BTreeSet;

use axum::routing::get;
use serde_json::{Map, Value, json};
use skyloom_identity::{Actor, Grant, RoleId, Snapshot, Target, UserId};
use skyloom_model::ProjectId;

use super::ask::Ask;
use super::edge::Routes;
use super::error::{Answer, Refusal};
use super::ids::{self, hex};
use super::thing::Thing;

pub(crate) fn routes() -> Routes {
    Routes::new().route("/role_assignments", get(list))
}

/// One line of the answer.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Line {
    role: RoleId,
    target: Target,
    actor: Actor,
    /// Given for what is below; after working out: it came from above.
    inherited: bool,
    /// From where it comes.
    grant: (Target, Actor, RoleId),
    /// The group through which it comes.
    group: Option<skyloom_identity::GroupId>,
    /// The role that implies it.
    prior: Option<RoleId>,
}

/// What is asked for.
struct Wanted {
    user: Option<UserId>,
    group: Option<skyloom_identity::GroupId>,
    role: Option<RoleId>,
    targets: Option<BTreeSet<Target>>,
    inherited: bool,
    effective: bool,
    names: bool,
}

/// The projects below one, itself not.
pub(super) fn subtree(at: &Snapshot, top: ProjectId, all: &mut BTreeSet<ProjectId>) {
    for child in at.children(top) {
        let id = ProjectId::from_uuid(child.value.meta.id);
        if all.insert(id) {
            subtree(at, id, all);
        }
    }
}

/// Where a grant counts.
fn reach(at: &Snapshot, grant: &Grant) -> BTreeSet<Target> {
    let mut projects = BTreeSet::new();
    match (grant.target, grant.inherited) {
        (target, false) => return BTreeSet::from([target]),
        (Target::System, true) => {}
        (Target::Domain(domain), true) => {
            projects.extend(
                at.projects_in(domain)
                    .map(|project| ProjectId::from_uuid(project.value.meta.id)),
            );
        }
        (Target::Project(top), true) => subtree(at, top, &mut projects),
    }
    projects.into_iter().map(Target::Project).collect()
}

/// The projects in which a user or one of its groups was given a role, whether it can use that now or not.
pub(super) fn granted_projects(at: &Snapshot, user: UserId) -> BTreeSet<ProjectId> {
    let groups = at.groups_of(user).map(|group| Actor::Group(group.value.id));
    let actors = [Actor::User(user)].into_iter().chain(groups);
    let targets = actors
        .flat_map(|actor| at.grants_to(actor))
        .flat_map(|grant| reach(at, &grant.value));
    let project = |target| match target {
        Target::Project(id) => Some(id),
        Target::System | Target::Domain(_) => None,
    };
    targets.filter_map(project).collect()
}

fn as_given(grant: &Grant) -> Line {
    Line {
        role: grant.role,
        target: grant.target,
        actor: grant.actor,
        inherited: grant.inherited,
        grant: (grant.target, grant.actor, grant.role),
        group: None,
        prior: None,
    }
}

/// A grant worked out: for each user, place and role. Roles of domains count in no token, so they are not told.
fn worked_out(at: &Snapshot, grant: &Grant, lines: &mut BTreeSet<Line>) {
    let (users, group): (Vec<UserId>, _) = match grant.actor {
        Actor::User(user) => (vec![user], None),
        Actor::Group(group) => (
            at.users_of(group).map(|user| user.value.id).collect(),
            Some(group),
        ),
    };
    let roles = at.implied_roles(grant.role);
    let global = |role: &&RoleId| at.role(**role).is_some_and(|role| role.value.domain.is_none());
    for target in reach(at, grant) {
        for user in &users {
            for role in roles.iter().filter(global) {
                lines.insert(Line {
                    role: *role,
                    target,
                    actor: Actor::User(*user),
                    group,
                    prior: (*role != grant.role).then_some(grant.role),
                    ..as_given(grant)
                });
            }
        }
    }
}

fn wanted(ask: &Ask) -> Answer<Wanted> {
    let query = &ask.query;
    let bad = |name: &str| Refusal::bad(format!("Invalid input for field '{name}'"));
    let mut targets = None;
    if let Some(id) = query.get("scope.project.id") {
        let id = ids::parse(id).ok_or_else(|| bad("scope.project.id"))?;
        let mut projects = BTreeSet::from([id]);
        if query.flag("include_subtree") {
            subtree(&ask.at, id, &mut projects);
        }
        targets = Some(projects.into_iter().map(Target::Project).collect());
    } else if query.flag("include_subtree") {
        return Err(Refusal::bad(
            "scope.project.id must be specified if include_subtree is also specified",
        ));
    }
    let mut only = |target: Target| match &targets {
        None => {
            targets = Some(BTreeSet::from([target]));
            Ok(())
        }
        Some(_) => Err(Refusal::bad(
            "Specify a domain or project or system, not more of them",
        )),
    };
    if let Some(id) = query.get("scope.domain.id") {
        only(Target::Domain(
            ids::parse_domain(id).ok_or_else(|| bad("scope.domain.id"))?,
        ))?;
    }
    if query.get("scope.system").is_some() {
        only(Target::System)?;
    }
    let id = |name: &str| query.get(name).filter(|text| !text.is_empty());
    let wanted = Wanted {
        user: id("user.id")
            .map(|id| ids::parse(id).ok_or_else(|| bad("user.id")))
            .transpose()?,
        group: id("group.id")
            .map(|id| ids::parse(id).ok_or_else(|| bad("group.id")))
            .transpose()?,
        role: id("role.id")
            .map(|id| ids::parse(id).ok_or_else(|| bad("role.id")))
            .transpose()?,
        targets,
        inherited: query.get("scope.OS-INHERIT:inherited_to").is_some(),
        effective: query.flag("effective"),
        names: query.flag("include_names"),
    };
    if wanted.user.is_some() && wanted.group.is_some() {
        return Err(Refusal::bad("Specify a user or group, not both"));
    }
    if wanted.effective && wanted.group.is_some() {
        return Err(Refusal::bad(
            "Combining effective and group filter will always result in an empty list.",
        ));
    }
    Ok(wanted)
}

async fn list(ask: Ask) -> Answer {
    ask.require_list("grant:read")?;
    let wanted = wanted(&ask)?;
    let mut lines = BTreeSet::new();
    // Of one user only what it and its groups were given need be worked out.
    let given: Vec<_> = match wanted.user.filter(|_| wanted.effective) {
        None => ask.at.grants().collect(),
        Some(user) => {
            let groups = ask.at.groups_of(user).map(|group| Actor::Group(group.value.id));
            let actors = [Actor::User(user)].into_iter().chain(groups);
            actors.flat_map(|actor| ask.at.grants_to(actor)).collect()
        }
    };
    for grant in given {
        if wanted.effective {
            worked_out(&ask.at, &grant.value, &mut lines);
        } else {
            lines.insert(as_given(&grant.value));
        }
    }
    let fits = |line: &&Line| {
        wanted.user.is_none_or(|user| line.actor == Actor::User(user))
            && wanted.group.is_none_or(|group| line.actor == Actor::Group(group))
            && wanted.role.is_none_or(|role| line.role == role)
            && wanted
                .targets
                .as_ref()
                .is_none_or(|targets| targets.contains(&line.target))
            && (!wanted.inherited || line.inherited)
    };
    let seen = |line: &&Line| {
        let thing = Thing::grant(line.target, None);
        match line.actor {
            Actor::User(user) => ask.may("grant:read", &thing.owned_by(user)),
            Actor::Group(_) => ask.may("grant:read", &thing),
        }
    };
    let shown = lines.iter().filter(fits).filter(seen);
    let shown = shown.map(|line| shape(&ask, line, &wanted)).collect();
    ask.page("role_assignments", shown, &[])
}

/// The path at which the grant itself is.
fn path((target, actor, role): (Target, Actor, RoleId), inherited: bool) -> String {
    let target = match target {
        Target::System => "system".to_owned(),
        Target::Domain(id) => format!("domains/{}", ids::domain(id)),
        Target::Project(id) => format!("projects/{}", hex(id)),
    };
    let actor = match actor {
        Actor::User(id) => format!("users/{}", hex(id)),
        Actor::Group(id) => format!("groups/{}", hex(id)),
    };
    let own = format!("{target}/{actor}/roles/{}", hex(role));
    if inherited {
        format!("OS-INHERIT/{own}/inherited_to_projects")
    } else {
        own
    }
}

fn shape(ask: &Ask, line: &Line, wanted: &Wanted) -> Value {
    let (at, shape) = (&ask.at, ask.shape());
    let mut role = json!({"id": hex(line.role)});
    let (kind, mut who) = match line.actor {
        Actor::User(id) => ("user", json!({"id": hex(id)})),
        Actor::Group(id) => ("group", json!({"id": hex(id)})),
    };
    let (place, mut scope) = match line.target {
        Target::System => ("system", json!({"all": true})),
        Target::Domain(id) => ("domain", json!({"id": ids::domain(id)})),
        Target::Project(id) => ("project", json!({"id": hex(id)})),
    };
    if wanted.names {
        if let Some(found) = at.role(line.role) {
            role["name"] = found.value.name.as_str().into();
            if let Some(domain) = found.value.domain {
                role["domain"] = shape.domain_ref(domain);
            }
        }
        let named = match line.actor {
            Actor::User(id) => at
                .user(id)
                .map(|found| (found.value.name.clone(), found.value.domain)),
            Actor::Group(id) => at
                .group(id)
                .map(|found| (found.value.name.clone(), found.value.domain)),
        };
        if let Some((name, domain)) = named {
            who["name"] = name.into();
            who["domain"] = shape.domain_ref(domain);
        }
        match line.target {
            Target::System => {}
            Target::Domain(id) => scope = shape.domain_ref(id),
            Target::Project(id) => {
                if let Some(found) = at.project(id) {
                    scope["name"] = found.value.meta.name.as_str().into();
                    let domain = skyloom_identity::DomainId::from_uuid(found.value.spec.domain);
                    scope["domain"] = shape.domain_ref(domain);
                }
            }
        }
    }
    let mut links = Map::new();
    links.insert(
        "assignment".to_owned(),
        ask.link(&path(line.grant, line.inherited)).into(),
    );
    if let (Some(group), Actor::User(user)) = (line.group, line.actor) {
        let membership = format!("groups/{}/users/{}", hex(group), hex(user));
        links.insert("membership".to_owned(), ask.link(&membership).into());
    }
    if let Some(prior) = line.prior {
        let rule = format!("roles/{}/implies/{}", hex(prior), hex(line.role));
        links.insert("prior_role".to_owned(), ask.link(&rule).into());
    }
    let mut around = json!({place: scope});
    if line.inherited {
        around["OS-INHERIT:inherited_to"] = "projects".into();
    }
    json!({"role": role, kind: who, "scope": around, "links": links})
}
