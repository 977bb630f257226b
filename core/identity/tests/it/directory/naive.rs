//! Effective roles against a model that works them out in the most simple-minded way.

use std::collections::BTreeSet;

use proptest::prelude::*;
use serde::Serialize;
use skyloom_identity::{
    Actor, AuthScope, Domain, DomainId, Grant, Group, GroupId, Implication, Membership, Role, RoleId,
    Snapshot, Target, User, UserId, UserKind, UserOptions, paths,
};
use skyloom_model::{Id, Meta, Name, Project, ProjectId, ProjectSpec, Scope, Timestamp};
use skyloom_store::{Key, KeyValue, Revision, Value};
use uuid::Uuid;

const DOMAINS: usize = 2;
const PROJECTS: usize = 7;
const USERS: usize = 3;
const GROUPS: usize = 3;
const ROLES: usize = 5;

#[derive(Debug, Clone)]
struct Graph {
    domain_on: Vec<bool>,
    /// Domain, parent (an earlier one; counts when it is of the same domain), enabled.
    projects: Vec<(usize, Option<usize>, bool)>,
    users: Vec<(usize, bool)>,
    group_going: Vec<bool>,
    role_going: Vec<bool>,
    members: BTreeSet<(usize, usize)>,
    implies: BTreeSet<(usize, usize)>,
    /// Target (0: system, then domains, then projects), actor (users, then groups), role, inherited.
    grants: BTreeSet<(usize, usize, usize, bool)>,
}

fn id<K: ?Sized>(kind: u128, n: usize) -> Id<K> {
    Id::from_uuid(Uuid::from_u128((kind << 64) | (n as u128 + 1)))
}
fn domain(n: usize) -> DomainId {
    id(1, n)
}
fn project(n: usize) -> ProjectId {
    id(2, n)
}
fn user(n: usize) -> UserId {
    id(3, n)
}
fn group(n: usize) -> GroupId {
    id(4, n)
}
fn role(n: usize) -> RoleId {
    id(5, n)
}
fn target(n: usize) -> Target {
    match n {
        0 => Target::System,
        n if n <= DOMAINS => Target::Domain(domain(n - 1)),
        n => Target::Project(project(n - 1 - DOMAINS)),
    }
}
fn actor(n: usize) -> Actor {
    if n < USERS {
        Actor::User(user(n))
    } else {
        Actor::Group(group(n - USERS))
    }
}

fn graph() -> impl Strategy<Value = Graph> {
    let mostly = || prop::bool::weighted(0.85);
    let rarely = || prop::bool::weighted(0.15);
    let projects = (0..PROJECTS)
        .map(|n| (0..DOMAINS, prop::option::weighted(0.7, 0..n.max(1)), mostly()))
        .collect::<Vec<_>>();
    (
        prop::collection::vec(mostly(), DOMAINS),
        projects,
        prop::collection::vec((0..DOMAINS, mostly()), USERS),
        prop::collection::vec(rarely(), GROUPS),
        prop::collection::vec(rarely(), ROLES),
        prop::collection::btree_set((0..GROUPS, 0..USERS), 0..6),
        prop::collection::btree_set((0..ROLES, 0..ROLES), 0..6),
        prop::collection::btree_set(
            (0..=DOMAINS + PROJECTS, 0..USERS + GROUPS, 0..ROLES, any::<bool>()),
            0..16,
        ),
    )
        .prop_map(
            |(domain_on, mut projects, users, group_going, role_going, members, implies, grants)| {
                for n in 0..PROJECTS {
                    if n == 0 {
                        projects[n].1 = None;
                    } else if let Some(parent) = projects[n].1 {
                        // A child is in its parent's domain.
                        projects[n].0 = projects[parent].0;
                    }
                }
                Graph {
                    domain_on,
                    projects,
                    users,
                    group_going,
                    role_going,
                    members,
                    implies,
                    grants,
                }
            },
        )
}

fn document(path: &str, record: &impl Serialize) -> KeyValue {
    KeyValue {
        key: Key::parse(path).unwrap(),
        value: Value::json(record).unwrap(),
        created: Revision(1),
        modified: Revision(1),
    }
}

fn documents(graph: &Graph) -> Vec<KeyValue> {
    let at = Timestamp::UNIX_EPOCH;
    let mut all = Vec::new();
    for (n, on) in graph.domain_on.iter().enumerate() {
        let record = Domain {
            id: domain(n),
            name: format!("d{n}"),
            description: String::new(),
            enabled: *on,
            deleting: false,
            epoch: 0,
            extra: serde_json::Map::new(),
            created_at: at,
        };
        all.push(document(&paths::domain(record.id), &record));
    }
    for (n, (of, parent, on)) in graph.projects.iter().enumerate() {
        let spec = ProjectSpec {
            domain: domain(*of).uuid(),
            parent: parent.map(project),
            enabled: *on,
            ..ProjectSpec::default()
        };
        let meta = Meta::new(
            project(n).uuid(),
            Name::new(format!("p{n}")).unwrap(),
            Scope::System,
            at,
        );
        all.push(document(&paths::project(project(n)), &Project { meta, spec }));
    }
    for (n, (of, on)) in graph.users.iter().enumerate() {
        let record = User {
            id: user(n),
            domain: domain(*of),
            name: format!("u{n}"),
            kind: UserKind::Person,
            email: None,
            description: String::new(),
            enabled: *on,
            deleting: false,
            default_project: None,
            options: UserOptions::default(),
            password_expires_at: None,
            needs_second_factor: false,
            epoch: 0,
            extra: serde_json::Map::new(),
            created_at: at,
        };
        all.push(document(&paths::user(record.id), &record));
    }
    for (n, deleting) in graph.group_going.iter().enumerate() {
        let (id, name) = (group(n), format!("g{n}"));
        let record = Group {
            id,
            domain: domain(0),
            name,
            description: String::new(),
            deleting: *deleting,
            extra: serde_json::Map::new(),
            created_at: at,
        };
        all.push(document(&paths::group(id), &record));
    }
    for (n, deleting) in graph.role_going.iter().enumerate() {
        let record = Role {
            id: role(n),
            name: format!("r{n}"),
            domain: None,
            description: String::new(),
            permissions: Vec::new(),
            deleting: *deleting,
            extra: serde_json::Map::new(),
            created_at: at,
        };
        all.push(document(&paths::role(record.id), &record));
    }
    for (g, u) in &graph.members {
        let record = Membership {
            group: group(*g),
            user: user(*u),
            created_at: at,
        };
        all.push(document(&paths::member(record.group, record.user), &record));
    }
    for (a, b) in &graph.implies {
        let record = Implication {
            prior: role(*a),
            implied: role(*b),
            created_at: at,
        };
        all.push(document(
            &paths::implication(record.prior, record.implied),
            &record,
        ));
    }
    for (t, a, r, inherited) in &graph.grants {
        let (target, actor, role, inherited) = (target(*t), actor(*a), role(*r), *inherited);
        let record = Grant {
            target,
            actor,
            role,
            inherited,
            created_at: at,
        };
        all.push(document(&paths::grant(target, actor, role, inherited), &record));
    }
    all
}

impl Graph {
    fn user_on(&self, u: usize) -> bool {
        self.users[u].1 && self.domain_on[self.users[u].0]
    }
    fn project_on(&self, p: usize) -> bool {
        let (of, parent, on) = self.projects[p];
        on && self.domain_on[of] && parent.is_none_or(|parent| self.project_on(parent))
    }
    fn above(&self, p: usize) -> BTreeSet<usize> {
        match self.projects[p].1 {
            Some(parent) => self.above(parent).into_iter().chain([parent]).collect(),
            None => BTreeSet::new(),
        }
    }
    /// Repeats all rules until nothing is added any more.
    fn roles(&self, u: usize, scope: usize) -> BTreeSet<RoleId> {
        let off = match scope {
            0 => false,
            n if n <= DOMAINS => !self.domain_on[n - 1],
            n => !self.project_on(n - 1 - DOMAINS),
        };
        if off || !self.user_on(u) {
            return BTreeSet::new();
        }
        let mine = |a: usize| {
            a == u || (a >= USERS && !self.group_going[a - USERS] && self.members.contains(&(a - USERS, u)))
        };
        let here = |t: usize, inherited: bool| {
            if !inherited {
                return t == scope;
            }
            scope > DOMAINS && {
                let p = scope - 1 - DOMAINS;
                t == 1 + self.projects[p].0 || (t > DOMAINS && self.above(p).contains(&(t - 1 - DOMAINS)))
            }
        };
        let given = self
            .grants
            .iter()
            .filter(|(t, a, _, inherited)| mine(*a) && here(*t, *inherited));
        let mut roles: BTreeSet<usize> = given
            .map(|(_, _, r, _)| *r)
            .filter(|r| !self.role_going[*r])
            .collect();
        loop {
            let more = self
                .implies
                .iter()
                .filter(|(a, b)| roles.contains(a) && !self.role_going[*b]);
            let more: BTreeSet<usize> = more.map(|(_, b)| *b).filter(|b| !roles.contains(b)).collect();
            if more.is_empty() {
                return roles.into_iter().map(role).collect();
            }
            roles.extend(more);
        }
    }
}

fn scope(n: usize) -> AuthScope {
    match target(n) {
        Target::System => AuthScope::System,
        Target::Domain(id) => AuthScope::Domain(id),
        Target::Project(id) => AuthScope::Project(id),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]
    #[test]
    fn effective_roles_are_those_of_the_model(graph in graph()) {
        let snapshot = Snapshot::of(&documents(&graph), Revision(1)).unwrap();
        prop_assert_eq!(snapshot.damaged().count(), 0);
        for u in 0..USERS {
            let mut scopes = BTreeSet::new();
            for n in 0..=DOMAINS + PROJECTS {
                let expected = graph.roles(u, n);
                let found = snapshot.effective_roles(user(u), scope(n));
                prop_assert_eq!(found.as_ref(), &expected, "{} in {}", u, n);
                if !expected.is_empty() {
                    scopes.insert(scope(n));
                }
            }
            prop_assert_eq!(snapshot.scopes_of(user(u)), scopes);
            prop_assert!(snapshot.effective_roles(user(u), AuthScope::None).is_empty());
        }
    }

    #[test]
    fn parents_that_lead_in_a_circle_or_too_deep_give_nothing(parents in prop::collection::vec(0..12_usize, 12)) {
        let graph = Graph {
            domain_on: vec![true; DOMAINS],
            projects: Vec::new(),
            users: vec![(0, true); USERS],
            group_going: vec![false; GROUPS],
            role_going: vec![false; ROLES],
            members: BTreeSet::new(),
            implies: BTreeSet::new(),
            grants: BTreeSet::from([(1, 0, 0, true)]),
        };
        let mut all = documents(&graph);
        for (n, parent) in parents.iter().enumerate() {
            let parent = (*parent != n).then(|| project(*parent));
            let spec = ProjectSpec { domain: domain(0).uuid(), parent, ..ProjectSpec::default() };
            let meta = Meta::new(project(n).uuid(), Name::new("p").unwrap(), Scope::System, Timestamp::UNIX_EPOCH);
            all.push(document(&paths::project(project(n)), &Project { meta, spec }));
        }
        let snapshot = Snapshot::of(&all, Revision(1)).unwrap();
        for n in 0..parents.len() {
            let (mut depth, mut at) = (1, n);
            while parents[at] != at && depth <= 20 {
                (depth, at) = (depth + 1, parents[at]);
            }
            let sound = depth <= skyloom_identity::MAX_PROJECT_DEPTH;
            let roles = snapshot.effective_roles(user(0), AuthScope::Project(project(n)));
            prop_assert_eq!(!roles.is_empty(), sound, "project {} of {:?}", n, &parents);
        }
    }
}
