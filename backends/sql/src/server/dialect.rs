//! What the engine needs of a database: the one place where PostgreSQL and MySQL differ.
//!
//! A dialect holds the SQL and turns rows into plain data; it decides nothing. Whatever changes something is **one**
//! call of a routine in the database, so no transaction ever waits for a process of ours.

use std::fmt::Debug;
use std::sync::Arc;
use std::sync::atomic::AtomicI64;

use async_trait::async_trait;
use skyloom_store::{About, Error, ErrorKind, Result};

use super::batch::Batch;
use super::config::{Engine, ServerConfig};
use super::leaser::{LeaseAnswer, LeaseCall};
use crate::Migrated;

/// One connection, with what the engine remembers of it.
#[derive(Debug)]
pub struct Link<C> {
    /// The driver's connection.
    pub raw: C,
    /// The server's number of this session.
    pub session: i64,
    /// Largest request in bytes that the server takes.
    pub max_request: usize,
    /// An answer was not read to its end: the connection cannot be used again.
    pub dirty: bool,
    /// What is committed is on disk before anybody can see it.
    pub visible_is_durable: bool,
    /// What it is, and why acknowledged commits may be lost: no risks for a safe server.
    pub about: About,
}

/// Where the store stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// The newest revision.
    pub revision: i64,
    /// The oldest revision that can be listed at and watched from.
    pub floor: i64,
    /// History up to here has been deleted.
    pub swept: i64,
}

/// A document as it is stored.
#[derive(Debug)]
pub struct StoredDocument {
    pub key: String,
    pub created: i64,
    pub modified: i64,
    pub value: String,
}

/// A change as it is logged; without a value it is a removal.
#[derive(Debug)]
pub struct StoredChange {
    pub revision: i64,
    pub key: String,
    pub created: i64,
    pub value: Option<String>,
}

/// A lease as it is stored. Times are microseconds since 1970.
#[derive(Debug)]
pub struct StoredLease {
    pub name: String,
    pub epoch: i64,
    pub holder: String,
    pub expires_at: i64,
    pub expired: bool,
}

/// Rows, and where the store stood when they were read.
#[derive(Debug)]
pub struct Read<T> {
    pub position: Position,
    pub rows: Vec<T>,
    /// More rows were there than the bytes allowed.
    pub cut: bool,
}

/// Which rows: keys between two texts (both exclusive), as many as fit.
#[derive(Debug, Clone)]
pub struct Range {
    pub from: String,
    pub end: String,
    pub rows: i64,
    pub bytes: usize,
}

/// What a batch did.
#[derive(Debug, Default)]
pub struct Applied {
    /// The newest revision before and after it.
    pub base: i64,
    pub head: i64,
    pub floor: i64,
    /// The newest revision after each level.
    pub ends: Vec<i64>,
    pub conflicts: Vec<Failed>,
    pub rows: Vec<Written>,
}

/// A guard that did not hold. Not every transaction's first one comes first.
#[derive(Debug)]
pub struct Failed {
    pub txn: usize,
    pub guard: usize,
    pub current: Option<i64>,
}

/// A write that changed something.
#[derive(Debug)]
pub struct Written {
    /// Its index in the batch.
    pub row: usize,
    pub revision: i64,
    pub created: i64,
}

/// What is found of a batch whose answer was lost. It can no longer happen if it had not.
#[derive(Debug)]
pub struct Fenced {
    pub floor: i64,
    /// Index of the transaction and its revision.
    pub found: Vec<(usize, i64)>,
}

/// What an error says about the call that it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Nothing happened.
    Rejected(ErrorKind),
    /// Nothing happened: this session's leave to write has been withdrawn.
    Fenced,
    /// The answer was lost: it may have happened.
    Lost(ErrorKind),
}

impl Fault {
    /// What to tell somebody whose call changed nothing.
    pub fn kind(self) -> ErrorKind {
        match self {
            Self::Rejected(kind) | Self::Lost(kind) => kind,
            Self::Fenced => ErrorKind::Unavailable,
        }
    }
}

/// Waits for news of other processes' commits.
#[async_trait]
pub trait Bell: Send + Debug {
    /// Comes back when there may be news.
    async fn rung(&mut self) -> sqlx::Result<()>;
}

/// A kind of database server.
#[async_trait]
pub trait Dialect: Send + Sync + Debug + Sized + 'static {
    /// The driver's connection.
    type Raw: Send + Debug;
    const ENGINE: Engine;
    /// Whether [`Dialect::bell`] gives something.
    const RINGS: bool;

    /// `config` has been checked.
    fn new(config: &ServerConfig) -> Self;

    /// Logs in, sets the session up, and refuses servers that cannot do what is promised.
    async fn connect(&self) -> Result<Link<Self::Raw>>;
    async fn disconnect(&self, link: Link<Self::Raw>);

    /// Creates or upgrades the tables.
    async fn migrate(&self, link: &mut Link<Self::Raw>) -> Result<Migrated>;
    /// The version of the tables; `None` when there are none.
    async fn version(&self, link: &mut Link<Self::Raw>) -> sqlx::Result<Option<i64>>;

    /// Gets leave to write: the number of a new writer. From then on this process is told of others' commits.
    async fn register(&self, link: &mut Link<Self::Raw>) -> sqlx::Result<i64>;
    /// Does `batch`, as number `number` of `writer`.
    async fn commit(
        &self,
        link: &mut Link<Self::Raw>,
        writer: i64,
        number: i64,
        batch: &Batch,
    ) -> sqlx::Result<Applied>;
    /// Withdraws the writer's leave, and tells what its batch `number` did. It came after revision `after`.
    async fn fence(
        &self,
        link: &mut Link<Self::Raw>,
        writer: i64,
        number: i64,
        after: i64,
    ) -> sqlx::Result<Fenced>;
    /// A durable write that changes nothing: whatever was visible before is on disk afterwards.
    async fn barrier(&self, link: &mut Link<Self::Raw>) -> sqlx::Result<()>;
    /// Does `calls`, which name each lease once, in the order of their names.
    async fn lease(&self, link: &mut Link<Self::Raw>, calls: &[LeaseCall]) -> sqlx::Result<Vec<LeaseAnswer>>;

    async fn position(&self, link: &mut Link<Self::Raw>) -> sqlx::Result<Position>;
    /// The document under `key`, if any.
    async fn get(&self, link: &mut Link<Self::Raw>, key: String) -> sqlx::Result<Read<StoredDocument>>;
    /// Documents in the order of their keys, now or as of a revision.
    async fn list(
        &self,
        link: &mut Link<Self::Raw>,
        range: Range,
        at: Option<i64>,
    ) -> sqlx::Result<Read<StoredDocument>>;
    /// Changes after `after` and up to `through`, in the order of revision and key.
    async fn log(
        &self,
        link: &mut Link<Self::Raw>,
        range: Range,
        after: i64,
        through: i64,
    ) -> sqlx::Result<Read<StoredChange>>;
    /// Leases that are not revoked, in the order of their names.
    async fn leases(
        &self,
        link: &mut Link<Self::Raw>,
        from: String,
        end: String,
    ) -> sqlx::Result<Vec<StoredLease>>;

    /// Raises the floor, as far as there are revisions, and notes what has been swept.
    async fn raise(&self, link: &mut Link<Self::Raw>, floor: i64, swept: i64) -> sqlx::Result<Position>;
    /// Deletes history after `from` and up to `to`.
    async fn sweep(&self, link: &mut Link<Self::Raw>, from: i64, to: i64) -> sqlx::Result<()>;

    /// Who keeps the session `waiting` from going on, for people to read; `None` when nobody is seen.
    async fn holder(&self, link: &mut Link<Self::Raw>, waiting: i64) -> sqlx::Result<Option<String>>;
    /// Something that rings at commits of writers other than this one; `None` when the engine has to look.
    async fn bell(&self, writer: Arc<AtomicI64>) -> Result<Option<Box<dyn Bell>>>;

    /// What an error means.
    fn fault(&self, e: &sqlx::Error) -> Fault;
}

/// The error of `operation`, which changed nothing.
pub(super) fn failed<D: Dialect>(dialect: &D, operation: &'static str, e: sqlx::Error) -> Error {
    Error::new(dialect.fault(&e).kind(), operation).because(e)
}

/// What an error means that the server did not send.
pub(super) fn driver_fault(e: &sqlx::Error) -> Fault {
    Fault::Lost(match e {
        sqlx::Error::Configuration(_) | sqlx::Error::Tls(_) => ErrorKind::Invalid,
        sqlx::Error::Io(_)
        | sqlx::Error::Protocol(_)
        | sqlx::Error::PoolTimedOut
        | sqlx::Error::PoolClosed
        | sqlx::Error::WorkerCrashed => ErrorKind::Unavailable,
        sqlx::Error::RowNotFound | sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_) => {
            ErrorKind::Corrupt
        }
        _ => ErrorKind::Internal,
    })
}

/// Gathers rows until they are enough bytes.
#[derive(Debug)]
pub(super) struct Reading<T> {
    position: Option<Position>,
    rows: Vec<T>,
    bytes: usize,
    most: usize,
}

impl<T> Reading<T> {
    pub(super) fn new(most: usize) -> Self {
        Self {
            position: None,
            rows: Vec::new(),
            bytes: 0,
            most,
        }
    }

    pub(super) fn seen(&mut self, position: Position) {
        self.position = Some(position);
    }

    /// Takes a row of this many bytes; `false` when there is enough and the rows may be cut here.
    pub(super) fn take(&mut self, row: T, bytes: usize, between: bool) -> bool {
        if between && self.bytes >= self.most {
            return false;
        }
        self.bytes += bytes;
        self.rows.push(row);
        true
    }

    pub(super) fn end(self, cut: bool) -> sqlx::Result<Read<T>> {
        Ok(Read {
            position: self.position.ok_or(sqlx::Error::RowNotFound)?,
            rows: self.rows,
            cut,
        })
    }
}
