//! Which roles count for whom where.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, LazyLock};

use parking_lot::RwLock;
use skyloom_model::{ProjectId, Timestamp};
use uuid::Uuid;

use super::index::Link;
use super::snapshot::{Snapshot, least};
use crate::{
    Actor, AuthScope, CredentialId, CredentialKind, DomainId, GroupId, RoleId, Target, TrustId, UserId,
};

/// Most projects from the top of a domain down to one, both ends counted.
pub const MAX_PROJECT_DEPTH: usize = 8;
/// Most trusts and credentials on which one can rest in a row.
pub(crate) const MAX_CHAIN: usize = 8;
/// Answers that a snapshot remembers before it forgets all of them.
const MOST_REMEMBERED: usize = 65_536;

type Answers = HashMap<(UserId, AuthScope), Arc<BTreeSet<RoleId>>>;

/// Answers that were worked out once; they go with the snapshot.
#[derive(Debug, Default)]
pub(super) struct Remembered(RwLock<Answers>);

static NONE: LazyLock<Arc<BTreeSet<RoleId>>> = LazyLock::new(Arc::default);

impl Snapshot {
    /// What comes with a role: itself and all that it implies, in any number of steps. Nothing when there is no such role.
    #[must_use]
    pub fn implied_roles(&self, role: RoleId) -> BTreeSet<RoleId> {
        self.index.closures.get(&role).cloned().unwrap_or_default()
    }

    /// All roles that count for `user` in `scope`: those given to it and to its groups there, those inherited from above, and what they imply.
    /// None when the user, its domain, the scope's domain or project, or any project above that is disabled or going. Remembered.
    #[must_use]
    pub fn effective_roles(&self, user: UserId, scope: AuthScope) -> Arc<BTreeSet<RoleId>> {
        if scope == AuthScope::None {
            return Arc::clone(&NONE);
        }
        let asked = (user, scope);
        if let Some(known) = self.remembered.0.read().get(&asked) {
            return Arc::clone(known);
        }
        let roles = Some(self.work_out(user, scope)).filter(|roles| !roles.is_empty());
        let roles = roles.map_or_else(|| Arc::clone(&NONE), Arc::new);
        let mut remembered = self.remembered.0.write();
        if remembered.len() >= MOST_REMEMBERED {
            remembered.clear();
        }
        remembered.insert(asked, Arc::clone(&roles));
        roles
    }

    /// The scopes in which at least one role counts for `user`.
    #[must_use]
    pub fn scopes_of(&self, user: UserId) -> BTreeSet<AuthScope> {
        let mut scopes = BTreeSet::new();
        for actor in self.actors(user) {
            for grant in self.grants_to(actor) {
                match (grant.value.target, grant.value.inherited) {
                    (Target::System, _) => scopes.extend([AuthScope::System]),
                    (Target::Domain(domain), false) => scopes.extend([AuthScope::Domain(domain)]),
                    (Target::Domain(domain), true) => {
                        scopes.extend(self.index.linked(Link::ProjectIn(domain)).map(project_scope));
                    }
                    (Target::Project(project), false) => scopes.extend([AuthScope::Project(project)]),
                    (Target::Project(project), true) => self.add_below(project, 1, &mut scopes),
                }
            }
        }
        scopes.retain(|scope| !self.effective_roles(user, *scope).is_empty());
        scopes
    }

    /// The roles that count with an application credential or an EC2 key at `now`: never more than its user has in its project, nor than the
    /// credential has with which it was made. None when it has ended or is not there, and with a second factor, which is no way in.
    #[must_use]
    pub fn credential_roles(&self, id: CredentialId, now: Timestamp) -> BTreeSet<RoleId> {
        self.credential_roles_within(id, now, MAX_CHAIN)
    }

    /// The roles that count with a trust at `now`: never more than the trustor has in its project. None when it has ended or is not
    /// there, and when trustor or trustee is disabled.
    #[must_use]
    pub fn trust_roles(&self, id: TrustId, now: Timestamp) -> BTreeSet<RoleId> {
        self.trust_roles_within(id, now, MAX_CHAIN)
    }

    /// Whether a trust can be used at `now`, be it for roles or only to act as somebody.
    #[must_use]
    pub fn trust_counts(&self, id: TrustId, now: Timestamp) -> bool {
        self.trust_counts_within(id, now, MAX_CHAIN)
    }

    /// Whether anything may be done as a user: it is there, neither disabled nor going, and its domain neither.
    #[must_use]
    pub fn user_counts(&self, user: UserId) -> bool {
        self.user(user).is_some_and(|user| {
            user.value.enabled && !user.value.deleting && self.domain_counts(user.value.domain)
        })
    }

    /// Whether a domain is there and neither disabled nor going.
    #[must_use]
    pub fn domain_counts(&self, domain: DomainId) -> bool {
        let found = self.domain(domain);
        found.is_some_and(|domain| domain.value.enabled && !domain.value.deleting)
    }

    /// Whether a project, its domain and all projects above it are there and neither disabled nor going.
    #[must_use]
    pub fn project_counts(&self, project: ProjectId) -> bool {
        self.lineage(project).is_some()
    }

    /// The project, then all above it; `None` when one of them or the domain does not count, or when they lead in a circle.
    fn lineage(&self, project: ProjectId) -> Option<Vec<ProjectId>> {
        let mut lineage = Vec::new();
        let mut next = Some(project);
        let domain = DomainId::from_uuid(self.project(project)?.value.spec.domain);
        while let Some(id) = next {
            let spec = &self.project(id)?.value.spec;
            if lineage.len() == MAX_PROJECT_DEPTH
                || !spec.enabled
                || spec.deleting
                || spec.domain != domain.uuid()
            {
                return None;
            }
            lineage.push(id);
            next = spec.parent;
        }
        self.domain_counts(domain).then_some(lineage)
    }

    /// How many projects there are from the top of the domain down to `project`, both ends counted; `None` when that cannot be told.
    pub(crate) fn depth(&self, project: ProjectId) -> Option<usize> {
        let (mut depth, mut next) = (0, Some(project));
        while let Some(id) = next {
            depth += 1;
            if depth > MAX_PROJECT_DEPTH {
                return None;
            }
            next = self.project(id)?.value.spec.parent;
        }
        Some(depth)
    }

    /// The user and its groups.
    fn actors(&self, user: UserId) -> impl Iterator<Item = Actor> {
        let groups = self.index.linked(Link::GroupOf(user)).map(GroupId::from_uuid);
        let groups = groups.filter(|id| self.group(*id).is_some_and(|group| !group.value.deleting));
        [Actor::User(user)].into_iter().chain(groups.map(Actor::Group))
    }

    fn work_out(&self, user: UserId, scope: AuthScope) -> BTreeSet<RoleId> {
        let mut roles = BTreeSet::new();
        if !self.user_counts(user) {
            return roles;
        }
        let places: Vec<(Target, bool)> = match scope {
            AuthScope::None => return roles,
            AuthScope::System => vec![(Target::System, false)],
            AuthScope::Domain(domain) if self.domain_counts(domain) => vec![(Target::Domain(domain), false)],
            AuthScope::Domain(_) => return roles,
            AuthScope::Project(project) => {
                let Some(lineage) = self.lineage(project) else {
                    return roles;
                };
                let domain = self
                    .project(project)
                    .map(|p| DomainId::from_uuid(p.value.spec.domain));
                let above = lineage.into_iter().skip(1).map(|id| (Target::Project(id), true));
                let domain = domain.map(|id| (Target::Domain(id), true));
                [(Target::Project(project), false)]
                    .into_iter()
                    .chain(above)
                    .chain(domain)
                    .collect()
            }
        };
        for actor in self.actors(user) {
            for (target, inherited) in &places {
                let first = (actor, *target, RoleId::from_uuid(least()), false);
                let here = self.index.granted.from(&first);
                for ((_, _, role, how), ()) in here.take_while(|((a, t, ..), ())| *a == actor && t == target)
                {
                    if how == inherited
                        && let Some(all) = self.index.closures.get(role)
                    {
                        roles.extend(all);
                    }
                }
            }
        }
        roles
    }

    fn add_below(&self, project: ProjectId, depth: usize, scopes: &mut BTreeSet<AuthScope>) {
        for child in self.index.linked(Link::ChildOf(project)) {
            scopes.insert(project_scope(child));
            if depth < MAX_PROJECT_DEPTH {
                self.add_below(ProjectId::from_uuid(child), depth + 1, scopes);
            }
        }
    }

    /// What `roles` bring with them, as far as it is among `most`.
    fn limited(&self, roles: &BTreeSet<RoleId>, most: &BTreeSet<RoleId>) -> BTreeSet<RoleId> {
        let all = roles
            .iter()
            .filter_map(|role| self.index.closures.get(role))
            .flatten();
        all.filter(|role| most.contains(role)).copied().collect()
    }

    fn credential_roles_within(&self, id: CredentialId, now: Timestamp, chain: usize) -> BTreeSet<RoleId> {
        let Some(credential) = self.credential(id).filter(|_| chain > 0) else {
            return BTreeSet::new();
        };
        let user = credential.value.user;
        match &credential.value.kind {
            CredentialKind::Totp(_) => BTreeSet::new(),
            CredentialKind::Ec2(key) => match key.project {
                Some(project) => self
                    .effective_roles(user, AuthScope::Project(project))
                    .as_ref()
                    .clone(),
                None => BTreeSet::new(),
            },
            CredentialKind::Application(own) if Self::ended(own.expires_at, now) => BTreeSet::new(),
            CredentialKind::Application(own) => {
                let most = self.effective_roles(user, AuthScope::Project(own.project));
                let roles = self.limited(&own.roles, &most);
                match own.parent {
                    Some(parent) => &roles & &self.credential_roles_within(parent, now, chain - 1),
                    None => roles,
                }
            }
        }
    }

    fn trust_counts_within(&self, id: TrustId, now: Timestamp, chain: usize) -> bool {
        let Some(trust) = self.trust(id).filter(|_| chain > 0) else {
            return false;
        };
        let trust = &trust.value;
        let source = |id| self.trust_counts_within(id, now, chain - 1);
        !Self::ended(trust.expires_at, now)
            && self.user_counts(trust.trustor)
            && self.user_counts(trust.trustee)
            && trust.redelegated_from.is_none_or(source)
            && trust
                .credential
                .is_none_or(|id| !self.credential_roles(id, now).is_empty())
    }

    fn trust_roles_within(&self, id: TrustId, now: Timestamp, chain: usize) -> BTreeSet<RoleId> {
        let Some(trust) = self
            .trust(id)
            .filter(|_| self.trust_counts_within(id, now, chain))
        else {
            return BTreeSet::new();
        };
        let trust = &trust.value;
        let Some(project) = trust.project else {
            return BTreeSet::new();
        };
        let most = self.effective_roles(trust.trustor, AuthScope::Project(project));
        let mut roles = self.limited(&trust.roles, &most);
        if let Some(source) = trust.redelegated_from {
            roles = &roles & &self.trust_roles_within(source, now, chain - 1);
        }
        if let Some(credential) = trust.credential {
            roles = &roles & &self.credential_roles(credential, now);
        }
        roles
    }
}

fn project_scope(id: Uuid) -> AuthScope {
    AuthScope::Project(ProjectId::from_uuid(id))
}
