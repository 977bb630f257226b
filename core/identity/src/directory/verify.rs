//! Whether all records fit together.

use std::collections::BTreeSet;

use skyloom_store::{Key, Versioned};
use uuid::Uuid;

use super::{MAX_CHAIN, Snapshot};
use crate::{Actor, AuthScope, BuiltIn, CredentialKind, DomainId, Holder, NameKind, Target, paths};

/// What is wrong with a record.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Problem {
    /// It cannot be read, or lies where it does not belong.
    Damaged(String),
    /// It refers to something that is not there; named by its path.
    Dangling(String),
    /// Its name is not claimed for it: somebody else could get it.
    Unclaimed(String),
    /// It claims a name for something that is not there or is called otherwise.
    IdleClaim,
    /// It leads back to itself.
    Circle,
    /// A project that is in another domain than the one above it.
    OtherDomain,
    /// It is being deleted and still there: the deletion has not been brought to its end.
    Unfinished,
    /// A built-in role that is not there.
    NoBuiltIn,
}

/// A record with which something is wrong.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    /// Where it is, or should be.
    pub path: String,
    /// What is wrong.
    pub problem: Problem,
}

/// Looks at every record and says what does not fit. Empty: all is well.
#[must_use]
pub fn verify(snapshot: &Snapshot) -> Vec<Finding> {
    let mut look = Look {
        snapshot,
        findings: Vec::new(),
        claimed: BTreeSet::new(),
    };
    look.damaged();
    look.people();
    look.roles();
    look.projects();
    look.credentials();
    look.trusts();
    look.catalog();
    // Last: it needs to know which claims have been found in order.
    look.claims();
    look.findings.sort();
    look.findings
}

struct Look<'a> {
    snapshot: &'a Snapshot,
    findings: Vec<Finding>,
    claimed: BTreeSet<String>,
}

impl Look<'_> {
    fn find(&mut self, key: &Key, problem: Problem) {
        let path = key.as_str().to_owned();
        self.findings.push(Finding { path, problem });
    }

    fn needs(&mut self, key: &Key, there: bool, path: impl FnOnce() -> String) {
        if !there {
            self.find(key, Problem::Dangling(path()));
        }
    }

    fn needs_domain(&mut self, key: &Key, id: DomainId) {
        self.needs(key, self.snapshot.domain(id).is_some(), || paths::domain(id));
    }

    fn going<T>(&mut self, record: &Versioned<T>, deleting: bool) {
        if deleting {
            self.find(&record.key, Problem::Unfinished);
        }
    }

    /// That one of `claims` is there for `id`.
    fn claimed(&mut self, key: &Key, id: Uuid, claims: impl IntoIterator<Item = String>) {
        let (mut found, mut first) = (false, None);
        for path in claims {
            if self.snapshot.claim(&path).is_some_and(|claim| claim.value == id) {
                self.claimed.insert(path.clone());
                found = true;
            }
            first.get_or_insert(path);
        }
        if let Some(path) = first.filter(|_| !found) {
            self.find(key, Problem::Unclaimed(path));
        }
    }

    fn damaged(&mut self) {
        let damaged = self.snapshot.damaged();
        for (key, why) in damaged
            .map(|(key, why)| (key.clone(), why.to_owned()))
            .collect::<Vec<_>>()
        {
            self.find(&key, Problem::Damaged(why));
        }
    }

    fn people(&mut self) {
        let all = self.snapshot;
        for record in all.domains() {
            let domain = &record.value;
            self.claimed(
                &record.key,
                domain.id.uuid(),
                [paths::name(NameKind::Domain, None, &domain.name)],
            );
            self.going(record, domain.deleting);
        }
        for record in all.users() {
            let (key, user) = (&record.key, &record.value);
            let owner = Some(user.domain.uuid());
            self.needs_domain(key, user.domain);
            self.claimed(
                key,
                user.id.uuid(),
                [paths::name(NameKind::User, owner, &user.name)],
            );
            if let Some(project) = user.default_project {
                self.needs(key, all.project(project).is_some(), || paths::project(project));
            }
            self.going(record, user.deleting);
        }
        for record in all.groups() {
            let (key, group) = (&record.key, &record.value);
            let owner = Some(group.domain.uuid());
            self.needs_domain(key, group.domain);
            self.claimed(
                key,
                group.id.uuid(),
                [paths::name(NameKind::Group, owner, &group.name)],
            );
            self.going(record, group.deleting);
        }
        for record in all.members() {
            let (key, member) = (&record.key, &record.value);
            self.needs(key, all.group(member.group).is_some(), || {
                paths::group(member.group)
            });
            self.needs(key, all.user(member.user).is_some(), || paths::user(member.user));
        }
        for record in all.passwords() {
            let user = record.value.user;
            self.needs(&record.key, all.user(user).is_some(), || paths::user(user));
        }
    }

    fn roles(&mut self) {
        let all = self.snapshot;
        for record in all.roles() {
            let (key, role) = (&record.key, &record.value);
            let owner = role.domain.map(DomainId::uuid);
            if let Some(domain) = role.domain {
                self.needs_domain(key, domain);
            }
            self.claimed(
                key,
                role.id.uuid(),
                [paths::name(NameKind::Role, owner, &role.name)],
            );
            self.going(record, role.deleting);
        }
        // A store without any role has not been set up.
        if all.roles().next().is_some() {
            for role in BuiltIn::ALL
                .map(BuiltIn::id)
                .into_iter()
                .filter(|id| all.role(*id).is_none())
            {
                let path = paths::role(role);
                self.findings.push(Finding {
                    path,
                    problem: Problem::NoBuiltIn,
                });
            }
        }
        for record in all.implications() {
            let (key, pair) = (&record.key, &record.value);
            for role in [pair.prior, pair.implied] {
                self.needs(key, all.role(role).is_some(), || paths::role(role));
            }
            if all.implied_roles(pair.implied).contains(&pair.prior) {
                self.find(key, Problem::Circle);
            }
        }
        for record in all.grants() {
            let (key, grant) = (&record.key, &record.value);
            self.needs(key, all.role(grant.role).is_some(), || paths::role(grant.role));
            match grant.actor {
                Actor::User(id) => self.needs(key, all.user(id).is_some(), || paths::user(id)),
                Actor::Group(id) => self.needs(key, all.group(id).is_some(), || paths::group(id)),
            }
            match grant.target {
                Target::System => {}
                Target::Domain(id) => self.needs_domain(key, id),
                Target::Project(id) => self.needs(key, all.project(id).is_some(), || paths::project(id)),
            }
        }
    }

    fn projects(&mut self) {
        let all = self.snapshot;
        for record in all.projects() {
            let (key, project) = (&record.key, &record.value);
            let (id, domain) = (project.meta.id, DomainId::from_uuid(project.spec.domain));
            let name = project.meta.name.as_str();
            self.needs_domain(key, domain);
            let own = paths::name(NameKind::Project, Some(domain.uuid()), name);
            self.claimed(
                key,
                id,
                [own].into_iter().chain(paths::cloud_project_name(domain, name)),
            );
            self.going(record, project.spec.deleting);
            let Some(parent) = project.spec.parent else {
                continue;
            };
            match all.project(parent) {
                None => self.find(key, Problem::Dangling(paths::project(parent))),
                Some(parent) if parent.value.spec.domain != domain.uuid() => {
                    self.find(key, Problem::OtherDomain)
                }
                // One whose parent is missing further up says so itself.
                Some(_)
                    if all.depth(skyloom_model::ProjectId::from_uuid(id)).is_none() && self.circles(id) =>
                {
                    self.find(key, Problem::Circle);
                }
                Some(_) => {}
            }
        }
    }

    fn circles(&self, project: Uuid) -> bool {
        let (mut seen, mut next) = (
            BTreeSet::new(),
            Some(skyloom_model::ProjectId::from_uuid(project)),
        );
        while let Some(id) = next {
            if !seen.insert(id) {
                return true;
            }
            next = self
                .snapshot
                .project(id)
                .and_then(|project| project.value.spec.parent);
        }
        false
    }

    fn credentials(&mut self) {
        let all = self.snapshot;
        for record in all.credentials() {
            let (key, credential) = (&record.key, &record.value);
            let (id, user) = (credential.id.uuid(), credential.user);
            self.needs(key, all.user(user).is_some(), || paths::user(user));
            if let Some(project) = credential.project() {
                self.needs(key, all.project(project).is_some(), || paths::project(project));
            }
            match &credential.kind {
                CredentialKind::Totp(_) => {}
                CredentialKind::Ec2(ec2) => {
                    self.claimed(key, id, [paths::name(NameKind::Ec2, None, &ec2.access)])
                }
                CredentialKind::Application(own) => {
                    self.claimed(
                        key,
                        id,
                        [paths::name(NameKind::Credential, Some(user.uuid()), &own.name)],
                    );
                    for role in &own.roles {
                        self.needs(key, all.role(*role).is_some(), || paths::role(*role));
                    }
                    if let Some(parent) = own.parent {
                        self.needs(key, all.credential(parent).is_some(), || {
                            paths::credential(user, parent)
                        });
                    }
                }
            }
        }
    }

    fn trusts(&mut self) {
        let all = self.snapshot;
        for record in all.tokens() {
            let (key, Holder::User { user, scope, .. }) = (&record.key, &record.value.holder) else {
                continue;
            };
            self.needs(key, all.user(*user).is_some(), || paths::user(*user));
            match scope {
                AuthScope::Domain(id) => self.needs_domain(key, *id),
                AuthScope::Project(id) => self.needs(key, all.project(*id).is_some(), || paths::project(*id)),
                AuthScope::System | AuthScope::None => {}
            }
        }
        for record in all.trusts() {
            let (key, trust) = (&record.key, &record.value);
            for user in [trust.trustor, trust.trustee] {
                self.needs(key, all.user(user).is_some(), || paths::user(user));
            }
            if let Some(project) = trust.project {
                self.needs(key, all.project(project).is_some(), || paths::project(project));
            }
            for role in &trust.roles {
                self.needs(key, all.role(*role).is_some(), || paths::role(*role));
            }
            if let Some(id) = trust.credential {
                self.needs(key, all.credential(id).is_some(), || {
                    paths::credential(trust.trustor, id)
                });
            }
            let (mut source, mut steps) = (trust.redelegated_from, 0);
            while let Some(id) = source {
                steps += 1;
                self.needs(key, all.trust(id).is_some(), || paths::trust(id));
                if steps > MAX_CHAIN {
                    self.find(key, Problem::Circle);
                    break;
                }
                source = all.trust(id).and_then(|trust| trust.value.redelegated_from);
            }
        }
    }

    fn catalog(&mut self) {
        let all = self.snapshot;
        for record in all.regions() {
            if let Some(parent) = &record.value.parent {
                self.needs(&record.key, all.region(parent).is_some(), || {
                    paths::region(parent)
                });
            }
        }
        for record in all.endpoints() {
            let (key, endpoint) = (&record.key, &record.value);
            self.needs(key, all.service(endpoint.service).is_some(), || {
                paths::service(endpoint.service)
            });
            if let Some(region) = &endpoint.region {
                self.needs(key, all.region(region).is_some(), || paths::region(region));
            }
        }
    }

    fn claims(&mut self) {
        let claims = self.snapshot.index.claims.iter().map(|(key, _)| key.clone());
        for key in claims.collect::<Vec<_>>() {
            if !self.claimed.contains(key.as_str()) {
                self.find(&key, Problem::IdleClaim);
            }
        }
    }
}
