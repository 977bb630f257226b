//! Removing records that others refer to: mark, take the references away, and with the last of them the record.

use skyloom_model::ProjectId;
use skyloom_store::{Capability, Txn};

use super::references::Page;
use super::{ChangeError, ChangeResult, Edit};
use crate::{
    BuiltIn, CredentialId, DEFAULT_DOMAIN, DomainId, GroupId, NameKind, RoleId, ServiceId, TrustId, UserId,
    paths,
};

/// Operations of a commit that are left to the caller, for the audit.
const RESERVE: usize = 16;

/// What is to be removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Doomed {
    /// A domain that is disabled, with all that is in it.
    Domain(DomainId),
    /// A user, with its memberships, grants, credentials, password and trusts.
    User(UserId),
    /// A group, with its memberships and grants.
    Group(GroupId),
    /// A role that is not built in, with its grants and implications; credentials and trusts lose it.
    Role(RoleId),
    /// A project with nothing below it, with its grants, credentials and trusts. What it holds (servers, images) is the caller's to look at before.
    Project(ProjectId),
    /// A credential, with what was made with it.
    Credential(CredentialId),
    /// A trust, with those that handed it on.
    Trust(TrustId),
    /// A service, with its endpoints.
    Service(ServiceId),
}

impl Edit<'_> {
    /// The next commit on the way to removing something; `None` when it is gone. The first commit of a removal says whether it may be; those after it pass
    /// in any number and after any pause.
    ///
    /// # Errors
    /// `InUse` (a project with others below it, the default domain, a built-in role), `Conflict` (a domain that is not disabled). That there
    /// was never anything to remove is the caller's to find out: it is `None`, too.
    pub fn removal(&self, doomed: Doomed, limits: &Capability) -> ChangeResult<Option<Txn>> {
        if let Some(mark) = self.mark(doomed)? {
            return Ok(Some(mark));
        }
        let mut page = Page::new(limits.max_txn_ops.saturating_sub(RESERVE).max(8));
        match doomed {
            Doomed::Domain(id) => {
                let Some(domain) = self.at.domain(id) else {
                    return Ok(None);
                };
                self.references_of_domain(id, &mut page)?;
                page.delete(
                    domain,
                    self.unclaim(NameKind::Domain, None, &domain.value.name, id.uuid()),
                );
            }
            Doomed::User(id) => {
                let Some(user) = self.at.user(id) else {
                    return Ok(None);
                };
                self.references_of_user(id, &mut page);
                let owner = Some(user.value.domain.uuid());
                page.delete(
                    user,
                    self.unclaim(NameKind::User, owner, &user.value.name, id.uuid()),
                );
            }
            Doomed::Group(id) => {
                let Some(group) = self.at.group(id) else {
                    return Ok(None);
                };
                self.references_of_group(id, &mut page);
                let owner = Some(group.value.domain.uuid());
                page.delete(
                    group,
                    self.unclaim(NameKind::Group, owner, &group.value.name, id.uuid()),
                );
            }
            Doomed::Role(id) => {
                let Some(role) = self.at.role(id) else {
                    return Ok(None);
                };
                self.references_of_role(id, &mut page)?;
                let owner = role.value.domain.map(DomainId::uuid);
                page.delete(
                    role,
                    self.unclaim(NameKind::Role, owner, &role.value.name, id.uuid()),
                );
            }
            Doomed::Project(id) => {
                let Some(project) = self.at.project(id) else {
                    return Ok(None);
                };
                self.references_of_project(id, &mut page)?;
                let domain = DomainId::from_uuid(project.value.spec.domain);
                page.delete(
                    project,
                    self.unclaim_project(domain, &project.value.meta.name, id),
                );
            }
            Doomed::Credential(id) => self.drop_credential(id, &mut page),
            Doomed::Trust(id) => self.drop_trust(id, &mut page),
            Doomed::Service(id) => {
                let Some(service) = self.at.service(id) else {
                    return Ok(None);
                };
                for endpoint in self
                    .at
                    .endpoints()
                    .filter(|endpoint| endpoint.value.service == id)
                {
                    page.delete(endpoint, Txn::new());
                }
                page.delete(service, Txn::new());
            }
        }
        Ok((!page.is_empty()).then(|| page.into_txn()))
    }

    /// What has been marked and is still there: somebody stopped on the way. To be removed again.
    #[must_use]
    pub fn unfinished(&self) -> Vec<Doomed> {
        let at = self.at;
        let domains = at
            .domains()
            .filter(|d| d.value.deleting)
            .map(|d| Doomed::Domain(d.value.id));
        let users = at
            .users()
            .filter(|u| u.value.deleting)
            .map(|u| Doomed::User(u.value.id));
        let groups = at
            .groups()
            .filter(|g| g.value.deleting)
            .map(|g| Doomed::Group(g.value.id));
        let roles = at
            .roles()
            .filter(|r| r.value.deleting)
            .map(|r| Doomed::Role(r.value.id));
        let projects = at.projects().filter(|p| p.value.spec.deleting);
        let projects = projects.map(|p| Doomed::Project(ProjectId::from_uuid(p.value.meta.id)));
        domains
            .chain(users)
            .chain(groups)
            .chain(roles)
            .chain(projects)
            .collect()
    }

    /// Whether it is there, marked or not.
    pub(super) fn is_there(&self, doomed: Doomed) -> ChangeResult<()> {
        let (there, what, id, path) = match doomed {
            Doomed::Domain(id) => (
                self.at.domain(id).is_some(),
                "domain",
                id.uuid(),
                paths::domain(id),
            ),
            Doomed::User(id) => (self.at.user(id).is_some(), "user", id.uuid(), paths::user(id)),
            Doomed::Group(id) => (self.at.group(id).is_some(), "group", id.uuid(), paths::group(id)),
            Doomed::Role(id) => (self.at.role(id).is_some(), "role", id.uuid(), paths::role(id)),
            Doomed::Project(id) => (
                self.at.project(id).is_some(),
                "project",
                id.uuid(),
                paths::project(id),
            ),
            // Its path needs the user, whom nobody names here.
            Doomed::Credential(id) => (
                self.at.credential(id).is_some(),
                "credential",
                id.uuid(),
                String::new(),
            ),
            Doomed::Trust(id) => (self.at.trust(id).is_some(), "trust", id.uuid(), paths::trust(id)),
            Doomed::Service(id) => (
                self.at.service(id).is_some(),
                "service",
                id.uuid(),
                paths::service(id),
            ),
        };
        if there {
            Ok(())
        } else {
            Err(ChangeError::not_found(what, id, path))
        }
    }

    /// The commit after which nothing new refers to it and it counts for nothing, unless that has been done.
    fn mark(&self, doomed: Doomed) -> ChangeResult<Option<Txn>> {
        let in_use = |what, by: &str| {
            Err(ChangeError::InUse {
                what,
                by: by.to_owned(),
            })
        };
        let marked = match doomed {
            Doomed::Domain(id) => match self.at.domain(id).filter(|domain| !domain.value.deleting) {
                None => return Ok(None),
                Some(_) if id == DEFAULT_DOMAIN => return in_use("domain", "it is the default one"),
                Some(old) if old.value.enabled => {
                    return Err(ChangeError::Conflict(
                        "a domain is disabled before it is removed".to_owned(),
                    ));
                }
                Some(old) => {
                    let mut domain = old.value.clone();
                    domain.deleting = true;
                    domain.epoch += 1;
                    old.replace(&domain)?
                }
            },
            Doomed::User(id) => match self.at.user(id).filter(|user| !user.value.deleting) {
                None => return Ok(None),
                Some(old) => {
                    let mut user = old.value.clone();
                    (user.enabled, user.deleting) = (false, true);
                    user.epoch += 1;
                    old.replace(&user)?
                }
            },
            Doomed::Group(id) => match self.at.group(id).filter(|group| !group.value.deleting) {
                None => return Ok(None),
                Some(old) => {
                    let mut group = old.value.clone();
                    group.deleting = true;
                    old.replace(&group)?
                }
            },
            Doomed::Role(id) => match self.at.role(id).filter(|role| !role.value.deleting) {
                None => return Ok(None),
                Some(_) if BuiltIn::of(id).is_some() => return in_use("role", "it is built in"),
                Some(old) => {
                    let mut role = old.value.clone();
                    role.deleting = true;
                    old.replace(&role)?
                }
            },
            Doomed::Project(id) => match self.at.project(id).filter(|project| !project.value.spec.deleting) {
                None => return Ok(None),
                Some(_) if self.at.children(id).next().is_some() => {
                    return in_use("project", "there are projects below it");
                }
                Some(old) => {
                    let mut project = old.value.clone();
                    (project.spec.enabled, project.spec.deleting) = (false, true);
                    project.spec.epoch += 1;
                    project.meta.updated_at = self.now;
                    old.replace(&project)?
                }
            },
            // What refers to these writes them, so that their removal does not pass beside it.
            Doomed::Credential(_) | Doomed::Trust(_) | Doomed::Service(_) => return Ok(None),
        };
        Ok(Some(marked))
    }
}
