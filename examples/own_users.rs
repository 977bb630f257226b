//! A product with users of its own: the cloud asks the product who calls, by which rules, and tells it what was done.
//!
//! ```text
//! Bearer … ──Authenticator──> Rights {who, rules} ──Authorizer──> the cloud ──AuditSink──> the product's journal
//! ```
//!
//! The product has two people in a table and one rule of its own beside the built-in roles: while its books are closed, nobody deletes
//! a keypair. Nothing of the cloud's own directory of users is used. `cargo run --example own_users`

#![allow(clippy::print_stdout, reason = "a program of its own, not a library")]

use std::error::Error;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use skyloom::api::{ApiLimits, ApiParts, EdgeConfig, ServeLimits, router, serve};
use skyloom::cloud::{Cloud, CloudParts, DirImageRepo};
use skyloom::identity::audit::{AuditOutcome, Entry, Recorded};
use skyloom::identity::{
    AuditSink, AuthError, AuthScope, Authenticator, Authorizer, BuiltIn, Coverage, Decision, Denied, Effect,
    Explanation, Identified, Object, Permission, Rights, Ruling, Who, Why,
};
use skyloom::model::{OsIds, ProjectId, Readiness, Resource as _, SystemClock};
use skyloom::store::{MemoryConfig, MemoryStore, Txn};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

/// The product's people: what they send, who they are, and which built-in role they have.
const PEOPLE: [(&str, &str, BuiltIn); 2] = [
    (
        "anna-of-the-shop",
        "00000000-0000-7000-8000-00000000000a",
        BuiltIn::Member,
    ),
    (
        "ben-who-looks-on",
        "00000000-0000-7000-8000-00000000000b",
        BuiltIn::Reader,
    ),
];

/// Knows the people.
#[derive(Debug)]
struct Door {
    project: ProjectId,
    books: Arc<AtomicBool>,
}

#[async_trait]
impl Authenticator for Door {
    async fn authenticate(&self, bearer: &str, _source: &str) -> Result<Identified, AuthError> {
        // A real product compares hashes, and holds back who guesses.
        let known = PEOPLE.into_iter().find(|(secret, _, _)| *secret == bearer);
        let (_, id, role) = known.ok_or(Denied::new(Why::UnknownSecret))?;
        let built_in = Rights::built_in(AuthScope::Project(self.project), role);
        let mut rights = built_in.map_err(|e| AuthError::Unavailable(e.to_string()))?;
        let mut principal = (*rights.principal).clone();
        principal.user = id.parse().map_err(|_| Denied::new(Why::UnknownUser))?;
        rights.principal = Arc::new(principal);
        rights.rules = Arc::new(HouseRules {
            usual: rights.rules,
            books_closed: self.books.load(Ordering::Relaxed),
        });
        Ok(Identified::Person(rights))
    }
}

/// The built-in rules, and one of the house.
#[derive(Debug)]
struct HouseRules {
    usual: Arc<dyn Authorizer>,
    books_closed: bool,
}

impl Authorizer for HouseRules {
    fn permission(&self, name: &str) -> Option<Permission> {
        self.usual.permission(name)
    }
    fn decide(&self, who: Who<'_>, permission: Permission, object: &Object<'_>) -> Decision {
        if self.books_closed && self.permission("keypair:delete") == Some(permission) {
            return Decision {
                effect: Effect::Forbidden,
                rule: Ruling::NoRule,
            };
        }
        self.usual.decide(who, permission, object)
    }
    fn filter_scope(&self, who: Who<'_>, permission: Permission) -> Coverage {
        self.usual.filter_scope(who, permission)
    }
    fn explain(&self, who: Who<'_>, permission: Permission, object: &Object<'_>) -> Explanation {
        self.usual.explain(who, permission, object)
    }
}

/// The product's own audit. What is written here and not into the commit is also there when the commit then fails; a product that cannot
/// live with that gives the records to write into the commit, as `StoreAudit` does.
#[derive(Debug, Default)]
struct Journal(Mutex<Vec<String>>);

impl Journal {
    fn write(&self, entry: &Entry) {
        let done = match entry.outcome {
            AuditOutcome::Done => "did",
            _ => "wanted to",
        };
        let user = entry.actor.user.map(|id| id.to_string()).unwrap_or_default();
        let person = PEOPLE.into_iter().find(|(_, id, _)| *id == user);
        let name = person.map_or("somebody", |(secret, _, _)| {
            secret.split('-').next().unwrap_or_default()
        });
        let line = format!("{name} {done} {}", entry.action.as_str());
        self.lines().push(line);
    }
    fn lines(&self) -> std::sync::MutexGuard<'_, Vec<String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl AuditSink for Journal {
    fn part(&self, entry: &Entry) -> skyloom::store::Result<Txn> {
        self.write(entry);
        Ok(Txn::new())
    }
    async fn record(&self, entry: Entry) -> skyloom::store::Result<Recorded> {
        self.write(&entry);
        Ok(Recorded::Written)
    }
}

/// One request, as any client makes it; its status and its body.
async fn ask(
    api: SocketAddr,
    method: &str,
    path: &str,
    bearer: &str,
    body: &str,
) -> std::io::Result<(u16, String)> {
    let mut stream = TcpStream::connect(api).await?;
    let length = body.len();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nhost: {api}\r\nauthorization: Bearer {bearer}\r\ncontent-type: application/json\r\n\
         content-length: {length}\r\nconnection: close\r\n\r\n{body}"
    );
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    let status = answer
        .get(9..12)
        .and_then(|code| code.parse().ok())
        .unwrap_or_default();
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    Ok((status, body.to_owned()))
}

/// Shows it all; gives what was answered, and the journal.
pub(crate) async fn show() -> Result<(Vec<u16>, Vec<String>), Box<dyn Error>> {
    let (clock, images) = (Arc::new(SystemClock::new()), tempfile::tempdir()?);
    let ids = Arc::new(OsIds::new(clock.clone()));
    let backend = Arc::new(MemoryStore::new(clock.clone(), MemoryConfig::default()));
    let (journal, books) = (Arc::new(Journal::default()), Arc::new(AtomicBool::new(false)));
    let cloud = Cloud::new(CloudParts {
        backend: backend.clone(),
        clock: clock.clone(),
        ids: ids.clone(),
        images: Arc::new(DirImageRepo::open(images.path(), 1 << 20)?),
    });
    let cloud = Arc::new(cloud.with_audit(journal.clone()));
    let project = cloud.bootstrap().await?.project.id();

    let (stop, listener) = (CancellationToken::new(), TcpListener::bind("127.0.0.1:0").await?);
    let api = listener.local_addr()?;
    let routes = router(ApiParts {
        cloud,
        backend,
        authenticator: Arc::new(Door {
            project,
            books: books.clone(),
        }),
        // No users of the cloud's own: its routes for them say so.
        identity: None,
        providers: Vec::new(),
        clock,
        ids,
        readiness: Readiness::new(),
        metrics: Arc::new(String::new),
        open_metrics: false,
        limits: ApiLimits::default(),
        edge: EdgeConfig::default(),
        shutdown: stop.clone(),
    });
    let mut server = tokio::task::JoinSet::new();
    server.spawn(serve(
        listener,
        routes,
        None,
        ServeLimits::default(),
        stop.clone(),
    ));

    let key = r#"{"name": "laptop", "public_key": "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJX0NWVkXQ5sbKdNNMgH4k1kcaaz4Qw7oJkqHeT0iKsl"}"#;
    let (anna, ben) = (PEOPLE[0].0, PEOPLE[1].0);
    let mut statuses = Vec::new();
    let mut say = |what: &str, (status, _): &(u16, String)| {
        println!("{what}: {status}");
        statuses.push(*status);
    };
    say(
        "a stranger looks",
        &ask(api, "GET", "/v1/keypairs", "nobody", "").await?,
    );
    say(
        "ben makes a keypair",
        &ask(api, "POST", "/v1/keypairs", ben, key).await?,
    );
    let made = ask(api, "POST", "/v1/keypairs", anna, key).await?;
    say("anna makes a keypair", &made);
    say("ben looks", &ask(api, "GET", "/v1/keypairs", ben, "").await?);
    let id = made
        .1
        .split("\"id\":\"")
        .nth(1)
        .and_then(|rest| rest.get(..36))
        .unwrap_or_default();
    let path = format!("/v1/keypairs/{id}");
    books.store(true, Ordering::Relaxed);
    say(
        "anna deletes it while the books are closed",
        &ask(api, "DELETE", &path, anna, "").await?,
    );
    books.store(false, Ordering::Relaxed);
    say("anna deletes it", &ask(api, "DELETE", &path, anna, "").await?);
    say(
        "anna asks for the cloud's own users",
        &ask(api, "GET", "/v1/users", anna, "").await?,
    );

    stop.cancel();
    while let Some(ended) = server.join_next().await {
        ended??;
    }
    let lines = journal.lines().clone();
    println!("the journal: {lines:#?}");
    Ok((statuses, lines))
}

#[tokio::main]
pub(crate) async fn main() -> Result<(), Box<dyn Error>> {
    show().await.map(drop)
}
