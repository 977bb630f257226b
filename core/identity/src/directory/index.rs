//! All records of one moment, and what leads from one to the others.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::value::RawValue;
use skyloom_model::{HostId, Project, ProjectId, Resource as _, TokenId, report};
use skyloom_store::{Document, Key, Revision, Versioned};
use uuid::Uuid;

use super::ordered::Ordered;
use crate::record::sha256_hex;
use crate::{
    Actor, ApiToken, AuthScope, Credential, CredentialId, Domain, DomainId, Endpoint, EndpointId, Grant,
    Group, GroupId, Holder, Implication, Membership, Password, Region, Revoked, Role, RoleId, SecretHash,
    Service, ServiceId, SigningKeyRecord, Target, Trust, TrustId, User, UserId,
};

/// A record as it was read.
pub(crate) type Stored<T> = Arc<Versioned<T>>;
/// A document as it comes from the store: what is in it depends on where it lies.
pub(super) type Raw = Versioned<Box<RawValue>>;
/// Target, actor, role, inherited.
pub(crate) type GrantId = (Target, Actor, RoleId, bool);

/// From where one comes to a record: the second half of an entry of [`Index::links`] is its id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Link {
    UserIn(DomainId),
    GroupIn(DomainId),
    RoleIn(DomainId),
    ProjectIn(DomainId),
    ChildOf(ProjectId),
    DefaultProject(ProjectId),
    GroupOf(UserId),
    CredentialOf(UserId),
    CredentialIn(ProjectId),
    CredentialWith(RoleId),
    CredentialFrom(CredentialId),
    TrustOf(UserId),
    TrustIn(ProjectId),
    TrustWith(RoleId),
    TrustFrom(TrustId),
    TrustBy(CredentialId),
    TokenOf(UserId),
    TokenIn(ProjectId),
    TokenInDomain(DomainId),
    TokenOfHost(HostId),
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Index {
    pub(crate) domains: Ordered<DomainId, Stored<Domain>>,
    pub(crate) users: Ordered<UserId, Stored<User>>,
    pub(crate) groups: Ordered<GroupId, Stored<Group>>,
    pub(crate) roles: Ordered<RoleId, Stored<Role>>,
    pub(crate) projects: Ordered<ProjectId, Stored<Project>>,
    pub(crate) members: Ordered<(GroupId, UserId), Stored<Membership>>,
    pub(crate) grants: Ordered<GrantId, Stored<Grant>>,
    /// The same grants from their actors.
    pub(crate) granted: Ordered<(Actor, Target, RoleId, bool), ()>,
    /// The same grants from their roles.
    pub(crate) given: Ordered<(RoleId, Target, Actor, bool), ()>,
    pub(crate) implications: Ordered<(RoleId, RoleId), Stored<Implication>>,
    /// Each role that counts, with all that comes with it, itself too.
    pub(crate) closures: Arc<BTreeMap<RoleId, BTreeSet<RoleId>>>,
    pub(crate) credentials: Ordered<CredentialId, Stored<Credential>>,
    pub(crate) secrets: Ordered<SecretHash, CredentialId>,
    pub(crate) tokens: Ordered<TokenId, Stored<ApiToken>>,
    pub(crate) token_secrets: Ordered<SecretHash, TokenId>,
    /// By their key ids.
    pub(crate) keys: Ordered<String, Stored<SigningKeyRecord>>,
    pub(crate) passwords: Ordered<UserId, Stored<Password>>,
    pub(crate) trusts: Ordered<TrustId, Stored<Trust>>,
    /// By the hash of their ids.
    pub(crate) regions: Ordered<String, Stored<Region>>,
    pub(crate) services: Ordered<ServiceId, Stored<Service>>,
    pub(crate) endpoints: Ordered<EndpointId, Stored<Endpoint>>,
    pub(crate) revoked: Ordered<Uuid, Stored<Revoked>>,
    pub(crate) claims: Ordered<Key, Stored<Uuid>>,
    /// What those who must not pass one another write in turn.
    pub(crate) turns: Ordered<Key, Stored<u64>>,
    pub(crate) links: Ordered<(Link, Uuid), ()>,
    /// What cannot be read, or lies where it does not belong, and why.
    pub(crate) damaged: Ordered<Key, Arc<str>>,
}

/// A kind of record of the index.
trait Kept: Document {
    type Id: Ord + Clone;
    fn id(&self) -> Self::Id;
    fn map(index: &mut Index) -> &mut Ordered<Self::Id, Stored<Self>>;
    fn links(&self) -> Vec<(Link, Uuid)> {
        Vec::new()
    }
    /// What else leads to it, to be filed or taken out.
    fn file(&self, _index: &mut Index, _present: bool) {}
}

impl Kept for Domain {
    type Id = DomainId;
    fn id(&self) -> DomainId {
        self.id
    }
    fn map(index: &mut Index) -> &mut Ordered<DomainId, Stored<Self>> {
        &mut index.domains
    }
}

impl Kept for User {
    type Id = UserId;
    fn id(&self) -> UserId {
        self.id
    }
    fn map(index: &mut Index) -> &mut Ordered<UserId, Stored<Self>> {
        &mut index.users
    }
    fn links(&self) -> Vec<(Link, Uuid)> {
        let id = self.id.uuid();
        let project = self
            .default_project
            .map(|project| (Link::DefaultProject(project), id));
        [(Link::UserIn(self.domain), id)]
            .into_iter()
            .chain(project)
            .collect()
    }
}

impl Kept for Group {
    type Id = GroupId;
    fn id(&self) -> GroupId {
        self.id
    }
    fn map(index: &mut Index) -> &mut Ordered<GroupId, Stored<Self>> {
        &mut index.groups
    }
    fn links(&self) -> Vec<(Link, Uuid)> {
        vec![(Link::GroupIn(self.domain), self.id.uuid())]
    }
}

impl Kept for Role {
    type Id = RoleId;
    fn id(&self) -> RoleId {
        self.id
    }
    fn map(index: &mut Index) -> &mut Ordered<RoleId, Stored<Self>> {
        &mut index.roles
    }
    fn links(&self) -> Vec<(Link, Uuid)> {
        let link = |domain| (Link::RoleIn(domain), self.id.uuid());
        self.domain.map(link).into_iter().collect()
    }
}

impl Kept for Project {
    type Id = ProjectId;
    fn id(&self) -> ProjectId {
        ProjectId::from_uuid(self.meta().id)
    }
    fn map(index: &mut Index) -> &mut Ordered<ProjectId, Stored<Self>> {
        &mut index.projects
    }
    fn links(&self) -> Vec<(Link, Uuid)> {
        let id = self.meta.id;
        let parent = self.spec.parent.map(|parent| (Link::ChildOf(parent), id));
        let domain = Link::ProjectIn(DomainId::from_uuid(self.spec.domain));
        [(domain, id)].into_iter().chain(parent).collect()
    }
}

impl Kept for Membership {
    type Id = (GroupId, UserId);
    fn id(&self) -> Self::Id {
        (self.group, self.user)
    }
    fn map(index: &mut Index) -> &mut Ordered<Self::Id, Stored<Self>> {
        &mut index.members
    }
    fn links(&self) -> Vec<(Link, Uuid)> {
        vec![(Link::GroupOf(self.user), self.group.uuid())]
    }
}

impl Kept for Grant {
    type Id = GrantId;
    fn id(&self) -> GrantId {
        (self.target, self.actor, self.role, self.inherited)
    }
    fn map(index: &mut Index) -> &mut Ordered<GrantId, Stored<Self>> {
        &mut index.grants
    }
    fn file(&self, index: &mut Index, present: bool) {
        let to = (self.actor, self.target, self.role, self.inherited);
        let of = (self.role, self.target, self.actor, self.inherited);
        if present {
            index.granted.insert(to, ());
            index.given.insert(of, ());
        } else {
            index.granted.remove(&to);
            index.given.remove(&of);
        }
    }
}

impl Kept for Implication {
    type Id = (RoleId, RoleId);
    fn id(&self) -> Self::Id {
        (self.prior, self.implied)
    }
    fn map(index: &mut Index) -> &mut Ordered<Self::Id, Stored<Self>> {
        &mut index.implications
    }
}

impl Kept for Credential {
    type Id = CredentialId;
    fn id(&self) -> CredentialId {
        self.id
    }
    fn map(index: &mut Index) -> &mut Ordered<CredentialId, Stored<Self>> {
        &mut index.credentials
    }
    fn links(&self) -> Vec<(Link, Uuid)> {
        let mut links = vec![Link::CredentialOf(self.user)];
        links.extend(self.project().map(Link::CredentialIn));
        if let Some(application) = self.application() {
            links.extend(application.roles.iter().map(|role| Link::CredentialWith(*role)));
            links.extend(application.parent.map(Link::CredentialFrom));
        }
        links.into_iter().map(|link| (link, self.id.uuid())).collect()
    }
    fn file(&self, index: &mut Index, present: bool) {
        let Some(application) = self.application() else {
            return;
        };
        if present {
            index.secrets.insert(application.secret_hash.clone(), self.id);
        } else if index.secrets.get(&application.secret_hash) == Some(&self.id) {
            index.secrets.remove(&application.secret_hash);
        }
    }
}

impl Kept for Password {
    type Id = UserId;
    fn id(&self) -> UserId {
        self.user
    }
    fn map(index: &mut Index) -> &mut Ordered<UserId, Stored<Self>> {
        &mut index.passwords
    }
}

impl Kept for Trust {
    type Id = TrustId;
    fn id(&self) -> TrustId {
        self.id
    }
    fn map(index: &mut Index) -> &mut Ordered<TrustId, Stored<Self>> {
        &mut index.trusts
    }
    fn links(&self) -> Vec<(Link, Uuid)> {
        let mut links = vec![Link::TrustOf(self.trustor), Link::TrustOf(self.trustee)];
        links.extend(self.project.map(Link::TrustIn));
        links.extend(self.roles.iter().map(|role| Link::TrustWith(*role)));
        links.extend(self.redelegated_from.map(Link::TrustFrom));
        links.extend(self.credential.map(Link::TrustBy));
        links.into_iter().map(|link| (link, self.id.uuid())).collect()
    }
}

impl Kept for ApiToken {
    type Id = TokenId;
    fn id(&self) -> TokenId {
        self.id
    }
    fn map(index: &mut Index) -> &mut Ordered<TokenId, Stored<Self>> {
        &mut index.tokens
    }
    fn links(&self) -> Vec<(Link, Uuid)> {
        let links = match &self.holder {
            Holder::User { user, scope, .. } => {
                let place = match scope {
                    AuthScope::Project(project) => Some(Link::TokenIn(*project)),
                    AuthScope::Domain(domain) => Some(Link::TokenInDomain(*domain)),
                    AuthScope::System | AuthScope::None => None,
                };
                [Link::TokenOf(*user)].into_iter().chain(place).collect()
            }
            Holder::Agent { host } => vec![Link::TokenOfHost(*host)],
            Holder::Engine => Vec::new(),
        };
        links.into_iter().map(|link| (link, self.id.uuid())).collect()
    }
    fn file(&self, index: &mut Index, present: bool) {
        if present {
            index.token_secrets.insert(self.secret_hash.clone(), self.id);
        } else if index.token_secrets.get(&self.secret_hash) == Some(&self.id) {
            index.token_secrets.remove(&self.secret_hash);
        }
    }
}

impl Kept for SigningKeyRecord {
    type Id = String;
    fn id(&self) -> String {
        self.kid.clone()
    }
    fn map(index: &mut Index) -> &mut Ordered<String, Stored<Self>> {
        &mut index.keys
    }
}

impl Kept for Region {
    type Id = String;
    fn id(&self) -> String {
        sha256_hex(self.id.as_bytes())
    }
    fn map(index: &mut Index) -> &mut Ordered<String, Stored<Self>> {
        &mut index.regions
    }
}

impl Kept for Service {
    type Id = ServiceId;
    fn id(&self) -> ServiceId {
        self.id
    }
    fn map(index: &mut Index) -> &mut Ordered<ServiceId, Stored<Self>> {
        &mut index.services
    }
}

impl Kept for Endpoint {
    type Id = EndpointId;
    fn id(&self) -> EndpointId {
        self.id
    }
    fn map(index: &mut Index) -> &mut Ordered<EndpointId, Stored<Self>> {
        &mut index.endpoints
    }
}

impl Index {
    /// Takes over what lies under `key` now.
    pub(super) fn apply(&mut self, key: &Key, document: Option<&Raw>) {
        self.damaged.remove(key);
        let segments: Vec<&str> = key.segments().collect();
        match segments.as_slice() {
            ["identity", "names", ..] | ["names", ..] => self.claim(key, document),
            ["identity", "turns", _] => {
                self.turns.remove(key);
                if let Some(turn) = document.and_then(|document| self.decode::<u64>(key, document)) {
                    self.turns.insert(key.clone(), Arc::new(turn));
                }
            }
            ["identity", "domains", id] => self.take::<Domain>(key, id.parse().ok(), document),
            ["identity", "users", id] => self.take::<User>(key, id.parse().ok(), document),
            ["identity", "groups", id] => self.take::<Group>(key, id.parse().ok(), document),
            ["identity", "roles", id] => self.take::<Role>(key, id.parse().ok(), document),
            ["r", "projects", "-", id] => self.take::<Project>(key, id.parse().ok(), document),
            ["identity", "members", group, user] => {
                self.take::<Membership>(key, pair(group.parse(), user.parse()), document);
            }
            ["identity", "grants", ..] => self.take::<Grant>(key, grant_id(&segments), document),
            ["identity", "implies", prior, implied] => {
                self.take::<Implication>(key, pair(prior.parse(), implied.parse()), document);
            }
            ["identity", "credentials", user, id] => self.credential(key, user, id.parse().ok(), document),
            ["identity", "passwords", user] => self.take::<Password>(key, user.parse().ok(), document),
            ["identity", "trusts", id] => self.take::<Trust>(key, id.parse().ok(), document),
            ["identity", "regions", hash] => self.take::<Region>(key, Some((*hash).to_owned()), document),
            ["identity", "services", id] => self.take::<Service>(key, id.parse().ok(), document),
            ["identity", "endpoints", id] => self.take::<Endpoint>(key, id.parse().ok(), document),
            ["identity", "revoked", token] => self.revoke(key, token.parse().ok(), document),
            ["identity", "tokens", id] => self.take::<ApiToken>(key, id.parse().ok(), document),
            ["identity", "keys", kid] => {
                self.take::<SigningKeyRecord>(key, Some((*kid).to_owned()), document);
            }
            // The pulse is nobody's business.
            _ => {}
        }
    }

    /// When what lies under `key` was last written, if it is here.
    pub(crate) fn modified(&self, key: &Key) -> Option<Revision> {
        let segments: Vec<&str> = key.segments().collect();
        match segments.as_slice() {
            ["identity", "names", ..] | ["names", ..] => written(&self.claims, Some(key.clone())),
            ["identity", "domains", id] => written(&self.domains, id.parse().ok()),
            ["identity", "users", id] => written(&self.users, id.parse().ok()),
            ["identity", "groups", id] => written(&self.groups, id.parse().ok()),
            ["identity", "roles", id] => written(&self.roles, id.parse().ok()),
            ["r", "projects", "-", id] => written(&self.projects, id.parse().ok()),
            ["identity", "members", group, user] => written(&self.members, pair(group.parse(), user.parse())),
            ["identity", "grants", ..] => written(&self.grants, grant_id(&segments)),
            ["identity", "implies", prior, implied] => {
                written(&self.implications, pair(prior.parse(), implied.parse()))
            }
            ["identity", "credentials", _, id] => written(&self.credentials, id.parse().ok()),
            ["identity", "passwords", user] => written(&self.passwords, user.parse().ok()),
            ["identity", "tokens", id] => written(&self.tokens, id.parse().ok()),
            ["identity", "keys", kid] => written(&self.keys, Some((*kid).to_owned())),
            ["identity", "turns", _] => written(&self.turns, Some(key.clone())),
            ["identity", "trusts", id] => written(&self.trusts, id.parse().ok()),
            ["identity", "regions", hash] => written(&self.regions, Some((*hash).to_owned())),
            ["identity", "services", id] => written(&self.services, id.parse().ok()),
            ["identity", "endpoints", id] => written(&self.endpoints, id.parse().ok()),
            _ => None,
        }
    }

    fn damage(&mut self, key: &Key, why: &str) {
        tracing::error!(%key, why, "record of identity set aside");
        self.damaged.insert(key.clone(), why.into());
    }

    fn decode<T: Document>(&mut self, key: &Key, document: &Raw) -> Option<Versioned<T>> {
        match serde_json::from_str(document.value.get()) {
            Ok(value) => Some(Versioned {
                key: document.key.clone(),
                value,
                created: document.created,
                modified: document.modified,
            }),
            Err(error) => {
                self.damage(key, &report(&error));
                None
            }
        }
    }

    /// Takes over a record whose key says that its id is `id`.
    fn take<T: Kept>(&mut self, key: &Key, id: Option<T::Id>, document: Option<&Raw>) {
        let Some(id) = id else {
            if document.is_some() {
                self.damage(key, "its key names no id");
            }
            return;
        };
        if let Some(old) = T::map(self).remove(&id) {
            for link in old.value.links() {
                self.links.remove(&link);
            }
            old.value.file(self, false);
        }
        let Some(new) = document.and_then(|document| self.decode::<T>(key, document)) else {
            return;
        };
        if new.value.id() != id {
            self.damage(key, "it is another than its key says");
            return;
        }
        for link in new.value.links() {
            self.links.insert(link, ());
        }
        new.value.file(self, true);
        T::map(self).insert(id, Arc::new(new));
    }

    fn credential(&mut self, key: &Key, user: &str, id: Option<CredentialId>, document: Option<&Raw>) {
        self.take::<Credential>(key, id, document);
        let lost = id.filter(|id| {
            let found = self.credentials.get(id);
            found.is_some_and(|found| found.value.user.to_string() != user)
        });
        if lost.is_some() {
            self.take::<Credential>(key, lost, None);
            self.damage(key, "it belongs to another user than its key says");
        }
    }

    fn claim(&mut self, key: &Key, document: Option<&Raw>) {
        self.claims.remove(key);
        if let Some(claim) = document.and_then(|document| self.decode::<Uuid>(key, document)) {
            self.claims.insert(key.clone(), Arc::new(claim));
        }
    }

    /// A token is taken back by the key alone, whatever is under it.
    fn revoke(&mut self, key: &Key, token: Option<Uuid>, document: Option<&Raw>) {
        let Some(token) = token else { return };
        let Some(document) = document else {
            self.revoked.remove(&token);
            return;
        };
        let readable = self.decode::<Revoked>(key, document);
        let revoked = readable.unwrap_or_else(|| Versioned {
            key: key.clone(),
            value: Revoked {
                until: skyloom_model::Timestamp::MAX,
            },
            created: document.created,
            modified: document.modified,
        });
        self.revoked.insert(token, Arc::new(revoked));
    }

    /// Finds out anew what each role brings with it.
    pub(super) fn close_roles(&mut self) {
        let counts = |role: &RoleId| self.roles.get(role).is_some_and(|role| !role.value.deleting);
        let mut closures = BTreeMap::new();
        for (role, _) in self.roles.iter().filter(|(role, _)| counts(role)) {
            let mut all = BTreeSet::from([*role]);
            let mut next = vec![*role];
            while let Some(prior) = next.pop() {
                for (_, implied) in self.implied(prior) {
                    if counts(&implied) && self.in_one_domain(prior, implied) && all.insert(implied) {
                        next.push(implied);
                    }
                }
            }
            closures.insert(*role, all);
        }
        self.closures = Arc::new(closures);
    }

    /// Whether `implied` can come with `prior`: a role of a domain comes with roles of that domain alone. Keystone keeps implications
    /// between domains; they are kept here too, and count for nothing.
    fn in_one_domain(&self, prior: RoleId, implied: RoleId) -> bool {
        let domain = |role: RoleId| self.roles.get(&role).and_then(|role| role.value.domain);
        domain(implied).is_none() || domain(implied) == domain(prior)
    }

    /// What `prior` implies in one step.
    fn implied(&self, prior: RoleId) -> impl Iterator<Item = (RoleId, RoleId)> {
        self.implications
            .from(&(prior, RoleId::from_uuid(Uuid::nil())))
            .map(|(pair, _)| *pair)
            .take_while(move |(from, _)| *from == prior)
    }

    /// Ids of the records at the end of `link`, in their order.
    pub(crate) fn linked(&self, link: Link) -> impl Iterator<Item = Uuid> + use<'_> {
        self.links
            .from(&(link, Uuid::nil()))
            .take_while(move |((from, _), ())| *from == link)
            .map(|((_, id), ())| *id)
    }
}

fn pair<A, B, E, F>(a: Result<A, E>, b: Result<B, F>) -> Option<(A, B)> {
    a.ok().zip(b.ok())
}

/// What the path of a grant says of it.
fn grant_id(segments: &[&str]) -> Option<GrantId> {
    let [_, _, target, actor, role, how] = segments else {
        return None;
    };
    let inherited = match *how {
        "own" => false,
        "inherited" => true,
        _ => return None,
    };
    let (target, actor) = pair(target.parse(), actor.parse())?;
    Some((target, actor, role.parse().ok()?, inherited))
}

fn written<K: Ord + Clone, T>(map: &Ordered<K, Stored<T>>, id: Option<K>) -> Option<Revision> {
    map.get(&id?).map(|record| record.modified)
}
