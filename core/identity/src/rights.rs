//! Somebody who was let in, with all that decides what they may do.
//!
//! ```text
//! Authorization: Bearer … ──Authenticator──> Identified ─┬─ Person(Rights) ──may(permission, object)──> Decision
//!                                                        ├─ Engine, Agent(host): machines of the cloud itself; no user calls
//!                                                        └─ AuthError: one answer for all that was wrong
//! ```

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use skyloom_model::{HostId, ProjectId, TokenId};

use crate::{
    AuthScope, Authorizer, BuiltIn, Coverage, DEFAULT_DOMAIN, Decision, Denied, DomainId, Explanation,
    FIRST_ADMIN, Method, Narrowed, Object, PERMISSIONS, Permission, Place, Policy, PolicyError, Principal,
    Registry, Throttled, UserId, Via, Who,
};

/// Says whose a bearer's secret is. [`crate::Directory`] and what lies around it do; a product with users of its own brings its own.
#[async_trait]
pub trait Authenticator: Send + Sync + fmt::Debug + 'static {
    /// Whose `bearer` (an API token or a bearer token) is, presented from `source` (see [`crate::source_of`]).
    ///
    /// # Errors
    /// [`AuthError`].
    async fn authenticate(&self, bearer: &str, source: &str) -> Result<Identified, AuthError>;

    /// What a user is called, for records that people read; `None`: by its id.
    fn name_of(&self, user: UserId) -> Option<String> {
        let _ = user;
        None
    }
}

/// Who was let in.
#[derive(Debug, Clone)]
pub enum Identified {
    /// A user or a service account.
    Person(Rights),
    /// An engine of the cloud: it has the store, and makes no user calls.
    Engine {
        /// By which token.
        token: TokenId,
    },
    /// The agent of a host: it has its own areas of the store, and makes no user calls.
    Agent {
        /// Which host.
        host: HostId,
        /// By which token; `None`: by its certificate.
        token: Option<TokenId>,
    },
}

/// Why nobody was let in.
#[derive(Debug, thiserror::Error)]
pub enum AuthError {
    /// The credential was not accepted: one answer for all causes.
    #[error(transparent)]
    Denied(#[from] Denied),
    /// Too many wrong ones.
    #[error(transparent)]
    Throttled(#[from] Throttled),
    /// Nothing can be said now: the store is away, the hasher is busy. It may pass.
    #[error("credentials cannot be checked now: {0}")]
    Unavailable(String),
}

/// Where a project stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lineage {
    /// Its domain.
    pub domain: DomainId,
    /// The projects above it, nearest first.
    pub ancestors: Arc<[ProjectId]>,
}

/// Knows where projects stand.
pub trait Lineages: Send + Sync + fmt::Debug + 'static {
    /// Where it stands; `None`: there is no such project.
    fn lineage(&self, project: ProjectId) -> Option<Lineage>;
}

/// All projects side by side in the default domain: for products without domains.
#[derive(Debug, Clone, Copy, Default)]
pub struct FlatProjects;

impl Lineages for FlatProjects {
    fn lineage(&self, _: ProjectId) -> Option<Lineage> {
        Some(Lineage {
            domain: DEFAULT_DOMAIN,
            ancestors: Arc::default(),
        })
    }
}

/// What somebody may do: who they are, how far their credential reaches, and the rules of this moment. Valid for one call; cheap to clone.
#[derive(Debug, Clone)]
pub struct Rights {
    /// Who it is.
    pub principal: Arc<Principal>,
    /// To what the credential's access rules narrow it.
    pub narrowed: Option<Arc<Narrowed>>,
    /// The rules.
    pub rules: Arc<dyn Authorizer>,
    /// Where projects stand.
    pub projects: Arc<dyn Lineages>,
}

impl Rights {
    /// Those of the cloud itself: an administrator of the system under the built-in roles. For embedding, where the product has asked
    /// its own users already.
    ///
    /// # Errors
    /// [`PolicyError`]: the built-in tables are wrong.
    pub fn of_the_cloud() -> Result<Self, PolicyError> {
        Self::built_in(AuthScope::System, BuiltIn::Admin)
    }

    /// Those of one built-in role in one scope, with what it implies at the beginning.
    ///
    /// # Errors
    /// [`PolicyError`]: the built-in tables are wrong.
    pub fn built_in(scope: AuthScope, role: BuiltIn) -> Result<Self, PolicyError> {
        let registry = Arc::new(Registry::new(&[PERMISSIONS])?);
        let policy = Policy::builder(registry).built_in()?.build()?;
        let mut roles = BTreeSet::from([role.id()]);
        for (prior, implied) in BuiltIn::IMPLICATIONS {
            if roles.contains(&prior.id()) {
                roles.insert(implied.id());
            }
        }
        let principal = Principal {
            user: FIRST_ADMIN,
            domain: DEFAULT_DOMAIN,
            scope,
            roles: Arc::new(roles),
            via: Via::User,
            methods: vec![Method::External],
            until: None,
            audit_ids: Vec::new(),
        };
        Ok(Self {
            principal: Arc::new(principal),
            narrowed: None,
            rules: Arc::new(policy),
            projects: Arc::new(FlatProjects),
        })
    }

    fn who(&self) -> Who<'_> {
        let who = Who::from(&*self.principal);
        match &self.narrowed {
            Some(narrowed) => who.narrowed(narrowed),
            None => who,
        }
    }

    /// A permission by its name; `None`: the rules know none of that name, and nothing of it is allowed.
    #[must_use]
    pub fn permission(&self, name: &str) -> Option<Permission> {
        self.rules.permission(name)
    }

    /// May they do that to that?
    #[must_use]
    pub fn decide(&self, permission: Permission, object: &Object<'_>) -> Decision {
        self.rules.decide(self.who(), permission, object)
    }

    /// What a list by this permission may cover.
    #[must_use]
    pub fn coverage(&self, permission: Permission) -> Coverage {
        self.rules.filter_scope(self.who(), permission)
    }

    /// The same as [`Rights::decide`], with all that led to it.
    #[must_use]
    pub fn explain(&self, permission: Permission, object: &Object<'_>) -> Explanation {
        self.rules.explain(self.who(), permission, object)
    }
}

impl Lineage {
    /// The place of the project that stands here.
    #[must_use]
    pub fn place(&self, project: ProjectId) -> Place<'_> {
        Place::Project {
            id: project,
            domain: self.domain,
            ancestors: &self.ancestors,
        }
    }
}
