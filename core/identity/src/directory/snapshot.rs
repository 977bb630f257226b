//! Everything of one moment, to ask.

use std::fmt;
use std::sync::Arc;

use skyloom_model::{HostId, Project, ProjectId, Timestamp, TokenId};
use skyloom_store::{Key, KeyValue, Revision, Versioned};
use uuid::Uuid;

use super::index::{Index, Link, Stored};
use super::roles::Remembered;
use crate::{
    Actor, ApiToken, Credential, CredentialId, Domain, DomainId, Endpoint, EndpointId, Grant, Group, GroupId,
    Implication, Membership, NameKind, Password, Region, Revoked, Role, RoleId, SecretHash, Service,
    ServiceId, SigningKeyRecord, Target, Trust, TrustId, User, UserId, fold_name, paths,
};

/// All records of identity and all projects, as they were at one moment. It never changes; a clone of what is in it is not needed.
///
/// What lies below `identity` is of one revision, and so are the projects, and so are their names; between these three there may be
/// a commit (a project may be there an instant before the grants that were made with it).
#[derive(Default)]
pub struct Snapshot {
    pub(crate) index: Index,
    pub(super) revisions: [Revision; 3],
    /// Whether everything has been read once.
    pub(super) complete: bool,
    pub(super) remembered: Remembered,
}

impl fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Snapshot")
            .field("revisions", &self.revisions)
            .field("users", &self.index.users.len())
            .field("grants", &self.index.grants.len())
            .finish_non_exhaustive()
    }
}

/// Where the ids of another kind begin.
pub(crate) const fn least() -> Uuid {
    Uuid::nil()
}

impl Snapshot {
    /// A snapshot of a listing: of a backup, or of another store. What is not identity's is passed over.
    ///
    /// # Errors
    /// [`skyloom_store::ErrorKind::Corrupt`] when a document is no JSON.
    pub fn of<'a>(
        documents: impl IntoIterator<Item = &'a KeyValue>,
        revision: Revision,
    ) -> skyloom_store::Result<Self> {
        let mut snapshot = Self {
            revisions: [revision; 3],
            complete: true,
            ..Self::default()
        };
        for document in documents {
            snapshot
                .index
                .apply(&document.key, Some(&Versioned::decode(document)?));
        }
        snapshot.index.close_roles();
        Ok(snapshot)
    }

    /// The revision of which the records below `identity` are.
    #[must_use]
    pub fn revision(&self) -> Revision {
        self.revisions[0]
    }

    /// Whether the other shows the same moment.
    pub(crate) fn same_moment(&self, other: &Self) -> bool {
        self.revisions == other.revisions
    }

    /// When what lies under `key` was last written, as far as this snapshot knows.
    #[must_use]
    pub fn modified(&self, key: &Key) -> Option<Revision> {
        self.index.modified(key)
    }

    /// A domain.
    #[must_use]
    pub fn domain(&self, id: DomainId) -> Option<&Arc<Versioned<Domain>>> {
        self.index.domains.get(&id)
    }
    /// A user.
    #[must_use]
    pub fn user(&self, id: UserId) -> Option<&Arc<Versioned<User>>> {
        self.index.users.get(&id)
    }
    /// A group.
    #[must_use]
    pub fn group(&self, id: GroupId) -> Option<&Arc<Versioned<Group>>> {
        self.index.groups.get(&id)
    }
    /// A role.
    #[must_use]
    pub fn role(&self, id: RoleId) -> Option<&Arc<Versioned<Role>>> {
        self.index.roles.get(&id)
    }
    /// A project.
    #[must_use]
    pub fn project(&self, id: ProjectId) -> Option<&Arc<Versioned<Project>>> {
        self.index.projects.get(&id)
    }
    /// A credential.
    #[must_use]
    pub fn credential(&self, id: CredentialId) -> Option<&Arc<Versioned<Credential>>> {
        self.index.credentials.get(&id)
    }
    /// A user's password.
    #[must_use]
    pub fn password(&self, user: UserId) -> Option<&Arc<Versioned<Password>>> {
        self.index.passwords.get(&user)
    }
    /// A trust.
    #[must_use]
    pub fn trust(&self, id: TrustId) -> Option<&Arc<Versioned<Trust>>> {
        self.index.trusts.get(&id)
    }
    /// An API token.
    #[must_use]
    pub fn token(&self, id: TokenId) -> Option<&Arc<Versioned<ApiToken>>> {
        self.index.tokens.get(&id)
    }
    /// A region.
    #[must_use]
    pub fn region(&self, id: &str) -> Option<&Arc<Versioned<Region>>> {
        self.index.regions.get(&crate::record::sha256_hex(id.as_bytes()))
    }
    /// A service.
    #[must_use]
    pub fn service(&self, id: ServiceId) -> Option<&Arc<Versioned<Service>>> {
        self.index.services.get(&id)
    }
    /// An endpoint.
    #[must_use]
    pub fn endpoint(&self, id: EndpointId) -> Option<&Arc<Versioned<Endpoint>>> {
        self.index.endpoints.get(&id)
    }
    /// A grant.
    #[must_use]
    pub fn grant(
        &self,
        target: Target,
        actor: Actor,
        role: RoleId,
        inherited: bool,
    ) -> Option<&Arc<Versioned<Grant>>> {
        self.index.grants.get(&(target, actor, role, inherited))
    }
    /// That a user is in a group.
    #[must_use]
    pub fn member(&self, group: GroupId, user: UserId) -> Option<&Arc<Versioned<Membership>>> {
        self.index.members.get(&(group, user))
    }
    /// That a role implies another directly.
    #[must_use]
    pub fn implication(&self, prior: RoleId, implied: RoleId) -> Option<&Arc<Versioned<Implication>>> {
        self.index.implications.get(&(prior, implied))
    }

    /// All domains.
    pub fn domains(&self) -> impl Iterator<Item = &Arc<Versioned<Domain>>> {
        self.index.domains.iter().map(|(_, record)| record)
    }
    /// All users.
    pub fn users(&self) -> impl Iterator<Item = &Arc<Versioned<User>>> {
        self.index.users.iter().map(|(_, record)| record)
    }
    /// All groups.
    pub fn groups(&self) -> impl Iterator<Item = &Arc<Versioned<Group>>> {
        self.index.groups.iter().map(|(_, record)| record)
    }
    /// All roles.
    pub fn roles(&self) -> impl Iterator<Item = &Arc<Versioned<Role>>> {
        self.index.roles.iter().map(|(_, record)| record)
    }
    /// All projects.
    pub fn projects(&self) -> impl Iterator<Item = &Arc<Versioned<Project>>> {
        self.index.projects.iter().map(|(_, record)| record)
    }
    /// All memberships.
    pub fn members(&self) -> impl Iterator<Item = &Arc<Versioned<Membership>>> {
        self.index.members.iter().map(|(_, record)| record)
    }
    /// All grants.
    pub fn grants(&self) -> impl Iterator<Item = &Arc<Versioned<Grant>>> {
        self.index.grants.iter().map(|(_, record)| record)
    }
    /// All implications, each in one step.
    pub fn implications(&self) -> impl Iterator<Item = &Arc<Versioned<Implication>>> {
        self.index.implications.iter().map(|(_, record)| record)
    }
    /// All credentials.
    pub fn credentials(&self) -> impl Iterator<Item = &Arc<Versioned<Credential>>> {
        self.index.credentials.iter().map(|(_, record)| record)
    }
    /// All passwords.
    pub fn passwords(&self) -> impl Iterator<Item = &Arc<Versioned<Password>>> {
        self.index.passwords.iter().map(|(_, record)| record)
    }
    /// All trusts.
    pub fn trusts(&self) -> impl Iterator<Item = &Arc<Versioned<Trust>>> {
        self.index.trusts.iter().map(|(_, record)| record)
    }
    /// All API tokens.
    pub fn tokens(&self) -> impl Iterator<Item = &Arc<Versioned<ApiToken>>> {
        self.index.tokens.iter().map(|(_, record)| record)
    }
    /// A signing key.
    pub(crate) fn key(&self, kid: &str) -> Option<&Arc<Versioned<SigningKeyRecord>>> {
        self.index.keys.get(&kid.to_owned())
    }
    /// The ids of all signing keys.
    #[must_use]
    pub fn signing_keys(&self) -> Vec<String> {
        self.keys().map(|key| key.value.kid.clone()).collect()
    }
    /// All signing keys.
    pub(crate) fn keys(&self) -> impl Iterator<Item = &Arc<Versioned<SigningKeyRecord>>> {
        self.index.keys.iter().map(|(_, record)| record)
    }
    /// All regions, in no order that means anything.
    pub fn regions(&self) -> impl Iterator<Item = &Arc<Versioned<Region>>> {
        self.index.regions.iter().map(|(_, record)| record)
    }
    /// All services.
    pub fn services(&self) -> impl Iterator<Item = &Arc<Versioned<Service>>> {
        self.index.services.iter().map(|(_, record)| record)
    }
    /// All endpoints.
    pub fn endpoints(&self) -> impl Iterator<Item = &Arc<Versioned<Endpoint>>> {
        self.index.endpoints.iter().map(|(_, record)| record)
    }
    /// All bearer tokens that were taken back, with their ends.
    pub fn revoked(&self) -> impl Iterator<Item = (Uuid, &Arc<Versioned<Revoked>>)> {
        self.index.revoked.iter().map(|(token, record)| (*token, record))
    }
    /// Records that cannot be read or lie where they do not belong, with the reason. They count as not there.
    pub fn damaged(&self) -> impl Iterator<Item = (&Key, &str)> {
        self.index.damaged.iter().map(|(key, why)| (key, &**why))
    }

    /// Whether a bearer token was taken back.
    #[must_use]
    pub fn is_revoked(&self, token: Uuid) -> bool {
        self.index.revoked.contains(&token)
    }

    /// The claim of a name, if there is one.
    pub(crate) fn claim(&self, path: &str) -> Option<&Stored<Uuid>> {
        self.index.claims.get(&Key::parse(path).ok()?)
    }

    /// The id that has a name.
    fn named(&self, kind: NameKind, owner: Option<Uuid>, name: &str) -> Option<Uuid> {
        self.claim(&paths::name(kind, owner, name))
            .map(|claim| claim.value)
    }

    /// The domain with that name. Names are compared without regard to case, here and in the following.
    #[must_use]
    pub fn find_domain(&self, name: &str) -> Option<&Arc<Versioned<Domain>>> {
        let found = self.domain(DomainId::from_uuid(self.named(NameKind::Domain, None, name)?))?;
        (fold_name(&found.value.name) == fold_name(name)).then_some(found)
    }
    /// The user of `domain` with that name.
    #[must_use]
    pub fn find_user(&self, domain: DomainId, name: &str) -> Option<&Arc<Versioned<User>>> {
        let id = self.named(NameKind::User, Some(domain.uuid()), name)?;
        let found = self.user(UserId::from_uuid(id))?;
        (found.value.domain == domain && fold_name(&found.value.name) == fold_name(name)).then_some(found)
    }
    /// The group of `domain` with that name.
    #[must_use]
    pub fn find_group(&self, domain: DomainId, name: &str) -> Option<&Arc<Versioned<Group>>> {
        let id = self.named(NameKind::Group, Some(domain.uuid()), name)?;
        let found = self.group(GroupId::from_uuid(id))?;
        (found.value.domain == domain && fold_name(&found.value.name) == fold_name(name)).then_some(found)
    }
    /// The role of `domain`, or the global one, with that name.
    #[must_use]
    pub fn find_role(&self, domain: Option<DomainId>, name: &str) -> Option<&Arc<Versioned<Role>>> {
        let id = self.named(NameKind::Role, domain.map(DomainId::uuid), name)?;
        let found = self.role(RoleId::from_uuid(id))?;
        (found.value.domain == domain && fold_name(&found.value.name) == fold_name(name)).then_some(found)
    }
    /// The project of `domain` with that name. In the default domain those that the cloud itself has named are found too, by their exact names.
    #[must_use]
    pub fn find_project(&self, domain: DomainId, name: &str) -> Option<&Arc<Versioned<Project>>> {
        let here = |id: Uuid| {
            let found = self.project(ProjectId::from_uuid(id))?;
            let (of, called) = (found.value.spec.domain, fold_name(found.value.meta.name.as_str()));
            (of == domain.uuid() && called == fold_name(name)).then_some(found)
        };
        let own = self
            .named(NameKind::Project, Some(domain.uuid()), name)
            .and_then(here);
        own.or_else(|| {
            let claim = self.claim(&paths::cloud_project_name(domain, name)?)?;
            here(claim.value)
        })
    }
    /// The application credential of `user` with that name.
    #[must_use]
    pub fn find_credential(&self, user: UserId, name: &str) -> Option<&Arc<Versioned<Credential>>> {
        let id = self.named(NameKind::Credential, Some(user.uuid()), name)?;
        let found = self.credential(CredentialId::from_uuid(id))?;
        (found.value.user == user).then_some(found)
    }
    /// The application credential with that secret.
    #[must_use]
    pub fn credential_of_secret(&self, secret: &SecretHash) -> Option<&Arc<Versioned<Credential>>> {
        self.credential(*self.index.secrets.get(secret)?)
    }
    /// The API token with that secret.
    #[must_use]
    pub fn token_of_secret(&self, secret: &SecretHash) -> Option<&Arc<Versioned<ApiToken>>> {
        self.token(*self.index.token_secrets.get(secret)?)
    }
    /// The EC2 key with that public half.
    #[must_use]
    pub fn ec2_key(&self, access: &str) -> Option<&Arc<Versioned<Credential>>> {
        self.credential(CredentialId::from_uuid(self.named(
            NameKind::Ec2,
            None,
            access,
        )?))
    }

    /// The users of a domain.
    pub fn users_in(&self, domain: DomainId) -> impl Iterator<Item = &Arc<Versioned<User>>> {
        let ids = self.index.linked(Link::UserIn(domain));
        ids.filter_map(|id| self.user(UserId::from_uuid(id)))
    }
    /// The groups of a domain.
    pub fn groups_in(&self, domain: DomainId) -> impl Iterator<Item = &Arc<Versioned<Group>>> {
        let ids = self.index.linked(Link::GroupIn(domain));
        ids.filter_map(|id| self.group(GroupId::from_uuid(id)))
    }
    /// The roles that can be given in that domain alone.
    pub fn roles_in(&self, domain: DomainId) -> impl Iterator<Item = &Arc<Versioned<Role>>> {
        let ids = self.index.linked(Link::RoleIn(domain));
        ids.filter_map(|id| self.role(RoleId::from_uuid(id)))
    }
    /// The projects of a domain, at all depths.
    pub fn projects_in(&self, domain: DomainId) -> impl Iterator<Item = &Arc<Versioned<Project>>> {
        let ids = self.index.linked(Link::ProjectIn(domain));
        ids.filter_map(|id| self.project(ProjectId::from_uuid(id)))
    }
    /// The projects right below one.
    pub fn children(&self, parent: ProjectId) -> impl Iterator<Item = &Arc<Versioned<Project>>> {
        let ids = self.index.linked(Link::ChildOf(parent));
        ids.filter_map(|id| self.project(ProjectId::from_uuid(id)))
    }
    /// The groups that a user is in.
    pub fn groups_of(&self, user: UserId) -> impl Iterator<Item = &Arc<Versioned<Group>>> {
        let ids = self.index.linked(Link::GroupOf(user));
        ids.filter_map(|id| self.group(GroupId::from_uuid(id)))
    }
    /// The users in a group.
    pub fn users_of(&self, group: GroupId) -> impl Iterator<Item = &Arc<Versioned<User>>> {
        let members = self.index.members.from(&(group, UserId::from_uuid(least())));
        members
            .take_while(move |((of, _), _)| *of == group)
            .filter_map(|((_, user), _)| self.user(*user))
    }
    /// The grants on a target.
    pub fn grants_on(&self, target: Target) -> impl Iterator<Item = &Arc<Versioned<Grant>>> {
        let first = (
            target,
            Actor::User(UserId::from_uuid(least())),
            RoleId::from_uuid(least()),
            false,
        );
        let from = self.index.grants.from(&first);
        from.take_while(move |((on, ..), _)| *on == target)
            .map(|(_, grant)| grant)
    }
    /// The grants to an actor itself.
    pub fn grants_to(&self, actor: Actor) -> impl Iterator<Item = &Arc<Versioned<Grant>>> {
        let first = (actor, Target::System, RoleId::from_uuid(least()), false);
        let from = self
            .index
            .granted
            .from(&first)
            .take_while(move |((to, ..), ())| *to == actor);
        from.filter_map(|((actor, target, role, inherited), ())| {
            self.grant(*target, *actor, *role, *inherited)
        })
    }
    /// The grants of a role.
    pub fn grants_of(&self, role: RoleId) -> impl Iterator<Item = &Arc<Versioned<Grant>>> {
        let first = (
            role,
            Target::System,
            Actor::User(UserId::from_uuid(least())),
            false,
        );
        let from = self
            .index
            .given
            .from(&first)
            .take_while(move |((of, ..), ())| *of == role);
        from.filter_map(|((role, target, actor, inherited), ())| {
            self.grant(*target, *actor, *role, *inherited)
        })
    }
    /// The credentials of a user.
    pub fn credentials_of(&self, user: UserId) -> impl Iterator<Item = &Arc<Versioned<Credential>>> {
        self.credentials_at(Link::CredentialOf(user))
    }
    pub(crate) fn credentials_at(&self, link: Link) -> impl Iterator<Item = &Arc<Versioned<Credential>>> {
        let ids = self.index.linked(link);
        ids.filter_map(|id| self.credential(CredentialId::from_uuid(id)))
    }
    /// The API tokens of a user.
    pub fn tokens_of(&self, user: UserId) -> impl Iterator<Item = &Arc<Versioned<ApiToken>>> {
        self.tokens_at(Link::TokenOf(user))
    }
    /// The API tokens of a host's agent.
    pub fn tokens_of_host(&self, host: HostId) -> impl Iterator<Item = &Arc<Versioned<ApiToken>>> {
        self.tokens_at(Link::TokenOfHost(host))
    }
    pub(crate) fn tokens_at(&self, link: Link) -> impl Iterator<Item = &Arc<Versioned<ApiToken>>> {
        let ids = self.index.linked(link);
        ids.filter_map(|id| self.token(TokenId::from_uuid(id)))
    }
    /// The trusts that a user has given or got.
    pub fn trusts_of(&self, user: UserId) -> impl Iterator<Item = &Arc<Versioned<Trust>>> {
        self.trusts_at(Link::TrustOf(user))
    }
    pub(crate) fn trusts_at(&self, link: Link) -> impl Iterator<Item = &Arc<Versioned<Trust>>> {
        let ids = self.index.linked(link);
        ids.filter_map(|id| self.trust(TrustId::from_uuid(id)))
    }

    /// Whether a moment lies before `now`; what has no end has not ended.
    pub(crate) fn ended(end: Option<Timestamp>, now: Timestamp) -> bool {
        end.is_some_and(|end| end <= now)
    }
}
