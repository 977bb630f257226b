//! The way to the cluster: one connection to one member at a time, a deadline on every call, and the next member when
//! one fails.
//!
//! ```text
//! call ─> Node: open? ──no──> connect, authenticate, ask version and members (once for all who wait) ─┐
//!           │ yes  <───────────────────────────────────────────────────────────────────────────────────┘
//!           └─> request with a deadline ─> answer
//!                                       ─> refused, or never sent: the next node
//!                                       ─> no answer: the connection is given up; unknown if it could write
//! ```
//!
//! Requests go only to a connection over which the member has already answered. So a cluster that is away is told
//! apart from a request that may have arrived.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use etcd_client::{
    Certificate, Client, ConnectOptions, Error as Native, Identity, KvClient, LeaseClient, TlsOptions,
    WatchClient,
};
use parking_lot::RwLock;
use skyloom_store::{About, Error, ErrorKind, Result};

use crate::config::EtcdConfig;
use crate::error::{Fate, Told, judge, unanswered};
use crate::safety::Version;

/// How often a connection with an open stream is tried. etcd ends connections that ask more often than every 5 s.
const PING_EVERY: Duration = Duration::from_secs(10);
/// Largest answer to a call.
const MAX_ANSWER: usize = 64 << 20;
/// Largest piece of a watch: etcd sends up to 1,000 revisions in one.
const MAX_EVENTS: usize = i32::MAX as usize;

/// A connection over which a member has answered.
pub(crate) struct Clients {
    pub(crate) kv: KvClient,
    pub(crate) watch: WatchClient,
    pub(crate) lease: LeaseClient,
}

/// One member.
struct Node {
    address: String,
    clients: RwLock<Option<Arc<Clients>>>,
    /// Attempts to connect that were begun.
    attempts: AtomicU64,
    /// The last failed attempt and its number; held by whoever connects.
    failed: tokio::sync::Mutex<Option<(u64, Told)>>,
}

/// Which member answered, and over which connection.
#[derive(Clone)]
pub(crate) struct At {
    index: usize,
    clients: Arc<Clients>,
}

/// All members.
pub(crate) struct Link {
    nodes: Vec<Node>,
    config: EtcdConfig,
    current: AtomicUsize,
    cluster: OnceLock<u64>,
    /// A member was taken although it may lose what it acknowledges.
    unsafe_server: AtomicBool,
    /// What the member was that answered first.
    about: OnceLock<About>,
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.addresses())
    }
}

impl Link {
    pub(crate) fn new(config: EtcdConfig) -> Result<Self> {
        let node = |address| Node {
            address,
            clients: RwLock::new(None),
            attempts: AtomicU64::new(0),
            failed: tokio::sync::Mutex::new(None),
        };
        Ok(Self {
            nodes: config.check()?.into_iter().map(node).collect(),
            config,
            current: AtomicUsize::new(0),
            cluster: OnceLock::new(),
            unsafe_server: AtomicBool::new(false),
            about: OnceLock::new(),
        })
    }

    pub(crate) fn config(&self) -> &EtcdConfig {
        &self.config
    }

    /// Whether everything acknowledged is kept, as far as can be seen.
    pub(crate) fn durable(&self) -> bool {
        !self.unsafe_server.load(Ordering::Relaxed)
    }

    /// What the member was that answered first, and whether it may lose something.
    pub(crate) fn about(&self) -> About {
        self.about.get().cloned().unwrap_or_default()
    }

    pub(crate) fn address(&self, at: &At) -> &str {
        &self.nodes[at.index].address
    }

    pub(crate) fn addresses(&self) -> String {
        let all: Vec<&str> = self.nodes.iter().map(|n| n.address.as_str()).collect();
        all.join(", ")
    }

    /// Asks one member after the other until one answers; only what cannot have happened is asked again.
    pub(crate) async fn call<T, Fut>(
        &self,
        operation: &'static str,
        fate: Fate,
        run: impl Fn(Arc<Clients>) -> Fut,
    ) -> Result<T>
    where
        Fut: Future<Output = Result<T, Native>>,
    {
        self.reach(operation, fate, run).await.map(|(answer, _)| answer)
    }

    /// As [`Link::call`], for streams: also says who answered.
    pub(crate) async fn reach<T, Fut>(
        &self,
        operation: &'static str,
        fate: Fate,
        run: impl Fn(Arc<Clients>) -> Fut,
    ) -> Result<(T, At)>
    where
        Fut: Future<Output = Result<T, Native>>,
    {
        let first = self.current.load(Ordering::Relaxed);
        let mut refused: Option<Error> = None;
        for n in 0..self.nodes.len() {
            let index = (first + n) % self.nodes.len();
            let node = &self.nodes[index];
            let told = match self.clients(node).await {
                Ok(clients) => {
                    let at = At { index, clients };
                    match self.ask(&at, fate, &run).await {
                        Ok(answer) => {
                            if n > 0 {
                                self.current.store(index, Ordering::Relaxed);
                            }
                            return Ok((answer, at));
                        }
                        Err((told, true)) => told,
                        Err((told, false)) => return Err(told.at(operation, &node.address)),
                    }
                }
                Err(told) => told,
            };
            // What says more than that nobody is there is not covered by it.
            if refused
                .as_ref()
                .is_none_or(|e| e.kind() == ErrorKind::Unavailable)
            {
                let error = told.at(operation, &node.address);
                refused = Some(if self.nodes.len() > 1 {
                    error.with("tried", self.addresses())
                } else {
                    error
                });
            }
        }
        Err(refused.unwrap_or_else(|| Error::new(ErrorKind::Internal, operation)))
    }

    /// One attempt; with the error, whether another member may be asked.
    async fn ask<T, Fut>(
        &self,
        at: &At,
        fate: Fate,
        run: &impl Fn(Arc<Clients>) -> Fut,
    ) -> Result<T, (Told, bool)>
    where
        Fut: Future<Output = Result<T, Native>>,
    {
        let patience = self.config.request_timeout();
        let (verdict, told) = match tokio::time::timeout(patience, run(Arc::clone(&at.clients))).await {
            Ok(Ok(answer)) => return Ok(answer),
            Ok(Err(e)) => {
                let verdict = judge(&e, fate);
                (verdict, Told::of(&e, verdict))
            }
            Err(_) => {
                let verdict = unanswered(fate, ErrorKind::Timeout);
                let why = format!("no answer within {} ms", patience.as_millis());
                (verdict, Told::new(verdict.kind, why))
            }
        };
        if verdict.broken {
            self.give_up(at);
        } else if verdict.elsewhere {
            self.leave(at.index);
        }
        Err((told, verdict.elsewhere))
    }

    /// Forgets a connection that failed; the next call begins with the next member.
    pub(crate) fn give_up(&self, at: &At) {
        let mut clients = self.nodes[at.index].clients.write();
        if clients.as_ref().is_some_and(|c| Arc::ptr_eq(c, &at.clients)) {
            *clients = None;
            drop(clients);
            self.leave(at.index);
        }
    }

    /// Lets go of all connections.
    pub(crate) fn close(&self) {
        for node in &self.nodes {
            *node.clients.write() = None;
        }
    }

    fn leave(&self, index: usize) {
        let next = (index + 1) % self.nodes.len();
        // Somebody else may have moved on already.
        let _ = self
            .current
            .compare_exchange(index, next, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// The connection to a member, made if there is none. All who wait for the same attempt share its failure.
    async fn clients(&self, node: &Node) -> Result<Arc<Clients>, Told> {
        let open = || node.clients.read().clone();
        if let Some(clients) = open() {
            return Ok(clients);
        }
        let seen = node.attempts.load(Ordering::Acquire);
        let mut failed = node.failed.lock().await;
        if let Some(clients) = open() {
            return Ok(clients);
        }
        if let Some((attempt, told)) = &*failed
            && *attempt > seen
        {
            return Err(told.clone());
        }
        let attempt = node.attempts.fetch_add(1, Ordering::AcqRel) + 1;
        match self.connect(&node.address).await {
            Ok(clients) => {
                let clients = Arc::new(clients);
                *node.clients.write() = Some(Arc::clone(&clients));
                *failed = None;
                Ok(clients)
            }
            Err(told) => {
                *failed = Some((attempt, told.clone()));
                Err(told)
            }
        }
    }

    async fn connect(&self, address: &str) -> Result<Clients, Told> {
        let limit = self.config.connect_timeout() + self.config.request_timeout();
        match tokio::time::timeout(limit, self.introduce(address)).await {
            Ok(done) => done,
            Err(_) => Err(Told {
                hint: Some("something takes connections there, but does not answer as etcd does"),
                ..Told::new(
                    ErrorKind::Unavailable,
                    format!("no answer within {} ms", limit.as_millis()),
                )
            }),
        }
    }

    /// Connects, says who we are, and looks at who answers.
    async fn introduce(&self, address: &str) -> Result<Clients, Told> {
        let told = |e: Native| {
            let mut told = Told::of(&e, judge(&e, Fate::Nothing));
            if told.kind == ErrorKind::Timeout {
                told.kind = ErrorKind::Unavailable;
            }
            let ended = ["connection closed", "broken pipe", "connection reset"];
            if told.kind == ErrorKind::Unavailable && ended.iter().any(|e| told.why.contains(e)) {
                told.hint = told.hint.or(Some(
                    "the server ends the connection; does it want TLS, or a client certificate?",
                ));
            }
            told
        };
        let client = Client::connect([address], Some(self.options()))
            .await
            .map_err(told)?;
        let status = client.maintenance_client().status().await.map_err(told)?;
        let members = match client.cluster_client().member_list().await {
            Ok(list) => Some(list.members().len()),
            Err(e) if judge(&e, Fate::Nothing).kind == ErrorKind::Denied => None,
            Err(e) => return Err(told(e)),
        };
        let refuse = |kind, why: String| Err(Told::new(kind, why));
        let Some(version) = Version::parse(status.version()) else {
            let why = format!("the server's version {:?} cannot be read", status.version());
            return refuse(ErrorKind::Unsupported, why);
        };
        if version.too_old() {
            let why = format!(
                "the server is etcd {}; 3.4 is the oldest that will do",
                status.version()
            );
            return refuse(ErrorKind::Unsupported, why);
        }
        if status.is_learner() {
            let why = "the member is a learner, which serves nobody until it is promoted".to_owned();
            return refuse(ErrorKind::Unavailable, why);
        }
        if status.errors().iter().any(|e| e.contains("CORRUPT")) {
            return refuse(
                ErrorKind::Corrupt,
                "the cluster has raised its alarm CORRUPT".to_owned(),
            );
        }
        if status.errors().iter().any(|e| e.contains("NOSPACE")) {
            tracing::warn!(address, "etcd is over its quota and takes no commits");
        }
        let mut about = About::new(format!("etcd {}", status.version()));
        if let Some(members) = members {
            about = about.with_setting("members", members.to_string());
        }
        // A user who may not list the members has at least been told apart from others by a cluster.
        if let Some(danger) = version.danger(members.unwrap_or(2)) {
            about = about.with_risk(danger);
            if !self.config.allow_unsafe {
                return Err(Told {
                    hint: Some("allow_unsafe = true takes it all the same"),
                    ..Told::new(ErrorKind::Unsupported, danger)
                });
            }
            self.unsafe_server.store(true, Ordering::Relaxed);
        }
        let _ = self.about.set(about);
        if let Some(header) = status.header() {
            let cluster = *self.cluster.get_or_init(|| header.cluster_id());
            if cluster != header.cluster_id() {
                let why = format!(
                    "the member is of cluster {:x}, not of {cluster:x}",
                    header.cluster_id()
                );
                return refuse(ErrorKind::Invalid, why);
            }
        }
        Ok(Clients {
            kv: client.kv_client().max_decoding_message_size(MAX_ANSWER),
            watch: client.watch_client().max_decoding_message_size(MAX_EVENTS),
            lease: client.lease_client(),
        })
    }

    fn options(&self) -> ConnectOptions {
        let config = &self.config;
        let mut options = ConnectOptions::new()
            .with_connect_timeout(config.connect_timeout())
            .with_keep_alive(PING_EVERY, config.request_timeout())
            .with_keep_alive_while_idle(false)
            .with_require_leader(true)
            .with_auto_token_refresh(true);
        if let (Some(user), Some(password)) = (&config.user, &config.password) {
            options = options.with_user(user, password.expose());
        }
        if let Some(tls) = &config.tls {
            let mut native = TlsOptions::new().ca_certificate(Certificate::from_pem(&tls.ca_pem));
            if let (Some(cert), Some(key)) = (&tls.cert_pem, &tls.key_pem) {
                native = native.identity(Identity::from_pem(cert, key.expose()));
            }
            if let Some(name) = &tls.server_name {
                native = native.domain_name(name);
            }
            options = options.with_tls(native);
        }
        options
    }
}
