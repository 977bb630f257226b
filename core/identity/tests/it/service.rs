//! The service as a whole: processes that share a store.

mod attacks;
mod bearers;
mod externals;
mod factors;
mod logins;
mod tidying;
mod tokens;

use std::net::IpAddr;
use std::sync::Arc;

use skyloom_identity::audit::{AuditFilter, AuditPage, search_audit};
use skyloom_identity::{
    AuthError, AuthScope, Authenticator as _, BuiltIn, Call, Covered, DEFAULT_DOMAIN, DomainId, DomainRef,
    FileKeys, HashCost, HasherConfig, Identified, Identity, IdentityConfig, IdentityParts, LogIn, Method,
    Principal, ProjectRef, Proof, Rights, ScopeAsked, Session, Target, UserId, UserRef, Vault, Via, Why,
};
use skyloom_model::{Clock as _, ManualClock, ProjectId, Secret, SeededIds};
use skyloom_store::{Capability, DynBackend, MemoryConfig, MemoryStore};
use tempfile::TempDir;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

pub(crate) const SOURCE: &str = "192.0.2.7";
pub(crate) const PASSWORD: &str = "correct horse battery";

pub(crate) struct Site {
    pub(crate) clock: ManualClock,
    pub(crate) ids: Arc<SeededIds<ManualClock>>,
    pub(crate) store: Arc<MemoryStore>,
    pub(crate) identity: Identity,
    config: IdentityConfig,
    keys: TempDir,
    drivers: JoinSet<()>,
}

/// Hashes that cost nothing.
pub(crate) fn cheap() -> IdentityConfig {
    IdentityConfig {
        password: HasherConfig {
            cost: HashCost {
                memory_kib: 64,
                passes: 1,
                lanes: 1,
            },
            at_once: 2,
            queue: 1000,
        },
        tidy_seconds: 1,
        ..IdentityConfig::default()
    }
}

impl Site {
    pub(crate) async fn new() -> Self {
        Self::with(cheap()).await
    }

    pub(crate) async fn with(config: IdentityConfig) -> Self {
        let clock = ManualClock::new();
        let store_config = MemoryConfig::default().with_capability(Capability::PORTABLE);
        let store = Arc::new(MemoryStore::new(Arc::new(clock.clone()), store_config));
        let ids = Arc::new(SeededIds::new(clock.clone(), 11));
        let keys = tempfile::tempdir().unwrap();
        FileKeys::generate(&keys.path().join("kek"), &*ids).unwrap();
        let mut drivers = JoinSet::new();
        let identity = open(&clock, &store, &ids, &keys, config.clone(), &mut drivers);
        identity.ready().await.unwrap();
        Self {
            clock,
            ids,
            store,
            identity,
            config,
            keys,
            drivers,
        }
    }

    /// With the default domain, the built-in roles and the first administrator.
    pub(crate) async fn bootstrapped() -> Self {
        let site = Self::new().await;
        site.identity.bootstrap(None).await.unwrap().unwrap();
        site
    }

    /// Another process over the same store.
    pub(crate) async fn another(&mut self) -> Identity {
        self.another_with(self.config.clone()).await
    }

    pub(crate) async fn another_with(&mut self, config: IdentityConfig) -> Identity {
        let identity = open(
            &self.clock,
            &self.store,
            &self.ids,
            &self.keys,
            config,
            &mut self.drivers,
        );
        identity.ready().await.unwrap();
        identity
    }

    /// The cloud itself, as whoever runs the system.
    pub(crate) fn root(&self) -> Principal {
        Principal::clone(&Rights::of_the_cloud().unwrap().principal)
    }

    /// A user with a password and, if asked, a role in a new project of the same name.
    pub(crate) async fn user(&self, name: &str) -> UserId {
        let root = self.root();
        let by = call(&root);
        let password = Some(Secret::new(PASSWORD.to_owned()));
        let made = self
            .identity
            .create_user(&by, DEFAULT_DOMAIN, name, password, |_| {});
        made.await.unwrap().id
    }

    pub(crate) async fn project(&self, name: &str) -> ProjectId {
        let made = (self.identity.editor())
            .change(|edit| edit.create_project(DEFAULT_DOMAIN, None, name, |_| {}))
            .await;
        ProjectId::from_uuid(made.unwrap().meta.id)
    }

    pub(crate) async fn domain(&self, name: &str) -> DomainId {
        let made = self
            .identity
            .editor()
            .change(|edit| edit.create_domain(name, |_| {}))
            .await;
        made.unwrap().id
    }

    pub(crate) async fn grant(&self, target: Target, user: UserId, role: BuiltIn) {
        let actor = skyloom_identity::Actor::User(user);
        (self.identity.editor())
            .change(|edit| edit.grant(target, actor, role.id(), false))
            .await
            .unwrap();
    }

    /// `name` with a role in a project of the same name.
    pub(crate) async fn member(&self, name: &str) -> (UserId, ProjectId) {
        let (user, project) = (self.user(name).await, self.project(name).await);
        self.grant(Target::Project(project), user, BuiltIn::Member).await;
        (user, project)
    }

    /// The user in a project, as after a login.
    pub(crate) fn principal(&self, user: UserId, scope: AuthScope) -> Principal {
        let at = self.identity.directory().snapshot();
        Principal {
            user,
            domain: at.user(user).unwrap().value.domain,
            scope,
            roles: at.effective_roles(user, scope),
            via: Via::User,
            methods: vec![Method::Password],
            until: None,
            audit_ids: Vec::new(),
        }
    }

    /// The audit's entries of an action, once `count` of them are there.
    pub(crate) async fn audit(&self, action: &str) -> AuditPage {
        let filter = AuditFilter {
            action: Some(action.to_owned()),
            ..AuditFilter::default()
        };
        search_audit(&*self.store, Covered::All, &filter, 1000, None)
            .await
            .unwrap()
    }

    pub(crate) fn later(&self, seconds: u64) {
        self.clock.advance(std::time::Duration::from_secs(seconds));
    }
}

fn open(
    clock: &ManualClock,
    store: &Arc<MemoryStore>,
    ids: &Arc<SeededIds<ManualClock>>,
    keys: &TempDir,
    config: IdentityConfig,
    drivers: &mut JoinSet<()>,
) -> Identity {
    let keys = FileKeys::read(&keys.path().join("kek"), &[], ids.clone()).unwrap();
    let parts = IdentityParts {
        backend: Arc::clone(store) as DynBackend,
        clock: Arc::new(clock.clone()),
        ids: ids.clone(),
        secrets: Arc::new(Vault::new(Arc::new(keys), ids.clone())),
        audit: None,
        registry: None,
    };
    let (identity, driver) = Identity::open(parts, config).unwrap();
    drivers.spawn(driver.run(CancellationToken::new()));
    identity
}

pub(crate) fn call(by: &Principal) -> Call<'_> {
    Call {
        by,
        source: Some(IpAddr::from([192, 0, 2, 7])),
        request_id: "a request",
    }
}

pub(crate) fn named(name: &str) -> UserRef {
    UserRef::Name {
        domain: DomainRef::default(),
        name: name.to_owned(),
    }
}

pub(crate) fn password(name: &str, password: &str) -> Proof {
    Proof::Password {
        user: named(name),
        password: Secret::new(password.to_owned()),
    }
}

pub(crate) fn in_project(name: &str) -> ScopeAsked {
    ScopeAsked::Project(ProjectRef::Name {
        domain: DomainRef::default(),
        name: name.to_owned(),
    })
}

pub(crate) async fn log_in(
    identity: &Identity,
    proofs: Vec<Proof>,
    scope: ScopeAsked,
) -> Result<Session, AuthError> {
    identity.log_in(LogIn::new(proofs, scope), SOURCE).await
}

/// The rights of who is let in.
pub(crate) async fn rights(identity: &Identity, bearer: &str) -> Result<Rights, AuthError> {
    match identity.authenticate(bearer, SOURCE).await? {
        Identified::Person(rights) => Ok(rights),
        other => panic!("a machine: {other:?}"),
    }
}

/// Why it was denied; what the caller is told is the same whatever it was.
#[track_caller]
pub(crate) fn why<T: std::fmt::Debug>(result: Result<T, AuthError>) -> Why {
    match result.unwrap_err() {
        AuthError::Denied(denied) => {
            assert_eq!(denied.to_string(), "the credentials were not accepted");
            assert_eq!(denied.reason().code, "auth.denied");
            denied.why()
        }
        other => panic!("not denied: {other:?}"),
    }
}

pub(crate) fn allows(rights: &Rights, permission: &str, project: ProjectId) -> bool {
    let kind = permission.split(':').next().unwrap();
    let lineage = rights.projects.lineage(project).unwrap();
    let object = skyloom_identity::Object::one(kind, lineage.place(project));
    let permission = rights.permission(permission).unwrap();
    rights.decide(permission, &object).effect == skyloom_identity::Effect::Allow
}

pub(crate) fn now(site: &Site) -> skyloom_model::Timestamp {
    site.clock.now()
}
