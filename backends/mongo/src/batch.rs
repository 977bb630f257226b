//! One batch as one database transaction.
//!
//! ```text
//! head: $inc revision (from here on nobody else commits) ─> leases: touch, read ─> docs: read ─> plan
//!      ─> docs: put, remove ─> past, log: insert ─> head: what it became, if less ─> commitTransaction
//! ```
//!
//! The head is written first, so two processes cannot both be beyond that step, and revisions are dense in the order of the
//! commits. Leases that guard are written too (a counter): nobody can renew, revoke or take over one of them between the look
//! at it and the commit.

use std::collections::{BTreeMap, BTreeSet};

use mongodb::bson::{Bson, Document, doc};
use mongodb::options::ReturnDocument;
use mongodb::{ClientSession, Collection};
use skyloom_store::{Error, ErrorKind, Key, LeaseName};
use tokio::time::{Duration, Instant, timeout, timeout_at};

use crate::error::{code, damaged, from_driver, unmigrated};
use crate::leases;
use crate::plan::{Plan, Prepared, Present, plan};
use crate::record::Version;
use crate::space::{HEAD, Head, Space, int, uint};

/// Most bytes of one command; servers take 16 MiB.
const MAX_COMMAND: usize = 8 << 20;
/// How long the end of a failed transaction may take.
const ABORT_TIME: Duration = Duration::from_secs(1);

/// A batch that is committed, and where the head stood before.
#[derive(Debug)]
pub(crate) struct Done {
    pub(crate) plan: Plan,
    pub(crate) head: Head,
}

/// Why a batch is not known to be committed.
#[derive(Debug)]
pub(crate) enum Failed {
    /// Nothing happened; the server said why.
    Driver(mongodb::error::Error),
    /// Nothing happened; something stored is not what it must be.
    Store(Error),
    /// Nothing happened; it took too long.
    Late,
    /// The commit was sent; `None` when no answer came in time.
    Unclear(Box<Done>, Option<mongodb::error::Error>),
}

impl From<mongodb::error::Error> for Failed {
    fn from(e: mongodb::error::Error) -> Self {
        Self::Driver(e)
    }
}

impl From<Error> for Failed {
    fn from(e: Error) -> Self {
        Self::Store(e)
    }
}

/// One try at one batch.
pub(crate) struct Attempt<'a> {
    pub(crate) space: &'a Space,
    pub(crate) session: &'a mut ClientSession,
    pub(crate) jobs: &'a [&'a Prepared],
    /// The batch's own name.
    pub(crate) name: &'a str,
    pub(crate) deadline: Instant,
}

impl Attempt<'_> {
    pub(crate) async fn run(mut self) -> Result<Done, Failed> {
        let deadline = self.deadline;
        let decided = match timeout_at(deadline, self.body()).await {
            Ok(decided) => decided,
            Err(_) => Err(Failed::Late),
        };
        let done = match decided {
            Ok(done) => done,
            Err(e) => {
                // What does not end now ends with the session.
                let _ = timeout(ABORT_TIME, self.session.abort_transaction()).await;
                return Err(e);
            }
        };
        match timeout_at(deadline, self.session.commit_transaction()).await {
            Ok(Ok(())) => Ok(done),
            Ok(Err(e)) => Err(Failed::Unclear(Box::new(done), Some(e))),
            Err(_) => Err(Failed::Unclear(Box::new(done), None)),
        }
    }

    async fn body(&mut self) -> Result<Done, Failed> {
        let options = self.space.transaction();
        self.session.start_transaction().with_options(options).await?;
        let head = self.take_head().await?;
        let present = Present {
            leases: self.leases().await?,
            documents: self.documents().await?,
        };
        let mut plan = plan(self.jobs.iter().copied(), head, present, self.name);
        self.put(&mut plan).await?;
        let past = std::mem::take(&mut plan.past);
        self.insert(&self.space.past, past).await?;
        let log = std::mem::take(&mut plan.log);
        self.insert(&self.space.log, log).await?;
        if plan.revision != head.revision + self.most().0 {
            let set = doc! { "$set": { "revision": int(plan.revision), "bytes": int(plan.bytes) } };
            self.space
                .state
                .update_one(doc! { "_id": HEAD }, set)
                .session(&mut *self.session)
                .await?;
        }
        Ok(Done { plan, head })
    }

    /// Revisions and bytes that the batch takes if all guards hold and all deletes find something.
    fn most(&self) -> (u64, u64) {
        let writing = self.jobs.iter().filter(|job| !job.writes.is_empty());
        writing.fold((0, 0), |(n, bytes), job| (n + 1, bytes + job.bytes as u64))
    }

    /// Takes the turn: the head before this batch.
    async fn take_head(&mut self) -> Result<Head, Failed> {
        let (revisions, bytes) = self.most();
        let add = doc! { "$inc": { "revision": int(revisions), "bytes": int(bytes), "batches": 1_i64 } };
        let head = self
            .space
            .state
            .find_one_and_update(doc! { "_id": HEAD }, add)
            .return_document(ReturnDocument::Before)
            .session(&mut *self.session)
            .await?;
        Ok(Head::parse(&head.ok_or_else(|| unmigrated("there is none"))?)?)
    }

    /// The epochs of those leases that guards name and that are held now.
    async fn leases(&mut self) -> Result<BTreeMap<LeaseName, u64>, Failed> {
        let names: BTreeSet<&LeaseName> = self.jobs.iter().flat_map(|job| job.leases()).collect();
        if names.is_empty() {
            return Ok(BTreeMap::new());
        }
        let ids: Vec<&str> = names.iter().map(|name| name.as_key().as_str()).collect();
        let filter = doc! { "_id": { "$in": ids } };
        self.space
            .leases
            .update_many(filter.clone(), leases::touch())
            .session(&mut *self.session)
            .await?;
        let mut held = BTreeMap::new();
        let mut cursor = self.space.leases.find(filter).session(&mut *self.session).await?;
        while let Some(document) = cursor.next(&mut *self.session).await {
            let lease = leases::Lease::parse(document?, "commit")?;
            if lease.is_held() {
                held.insert(lease.name, lease.epoch);
            }
        }
        Ok(held)
    }

    /// The present versions of all documents that the batch looks at.
    async fn documents(&mut self) -> Result<BTreeMap<Key, Version>, Failed> {
        let keys: BTreeSet<&Key> = self.jobs.iter().flat_map(|job| job.keys()).collect();
        let mut versions = BTreeMap::new();
        if keys.is_empty() {
            return Ok(versions);
        }
        let ids: Vec<&str> = keys.into_iter().map(Key::as_str).collect();
        let mut cursor = self
            .space
            .docs
            .find(doc! { "_id": { "$in": ids } })
            .session(&mut *self.session)
            .await?;
        while let Some(document) = cursor.next(&mut *self.session).await {
            let (key, version) = Version::parse(document?)?;
            versions.insert(key, version);
        }
        Ok(versions)
    }

    /// Writes the documents as the plan has them.
    async fn put(&mut self, plan: &mut Plan) -> Result<(), Failed> {
        let mut updates: Vec<Bson> = Vec::new();
        let mut removed: Vec<String> = Vec::new();
        let mut bytes = 0;
        for (key, version) in std::mem::take(&mut plan.documents) {
            let Some(version) = version else {
                removed.push(key.as_str().to_owned());
                continue;
            };
            bytes += version.stored.size();
            updates.push(
                doc! { "q": { "_id": key.as_str() }, "u": version.present(&key), "upsert": true }.into(),
            );
            if bytes > MAX_COMMAND {
                self.update(std::mem::take(&mut updates)).await?;
                bytes = 0;
            }
        }
        self.update(updates).await?;
        if !removed.is_empty() {
            self.space
                .docs
                .delete_many(doc! { "_id": { "$in": removed } })
                .session(&mut *self.session)
                .await?;
        }
        Ok(())
    }

    async fn update(&mut self, updates: Vec<Bson>) -> Result<(), Failed> {
        if updates.is_empty() {
            return Ok(());
        }
        let wanted = updates.len() as u64;
        let command = doc! { "update": self.space.docs.name(), "updates": updates };
        let answer = self
            .space
            .db
            .run_command(command)
            .session(&mut *self.session)
            .await?;
        if uint(&answer, "n") == Some(wanted) {
            return Ok(());
        }
        Err(Error::new(ErrorKind::Internal, "commit")
            .with("server's answer to update", answer)
            .into())
    }

    async fn insert(&mut self, into: &Collection<Document>, documents: Vec<Document>) -> Result<(), Failed> {
        if documents.is_empty() {
            return Ok(());
        }
        into.insert_many(documents).session(&mut *self.session).await?;
        Ok(())
    }
}

impl Failed {
    /// Whether somebody else was faster.
    pub(crate) fn is_conflict(&self) -> bool {
        matches!(self, Self::Driver(e) if code(e) == Some(crate::error::WRITE_CONFLICT))
    }

    /// The error for callers whose transaction did not happen.
    pub(crate) fn into_error(self, space: &Space) -> Error {
        match self {
            Self::Driver(e) => from_driver("commit", e),
            Self::Store(e) => e,
            Self::Late => space.late(ErrorKind::Unavailable, "commit"),
            Self::Unclear(_, e) => {
                let unknown = Error::new(ErrorKind::Unknown, "commit");
                match e {
                    Some(e) => unknown.because(e),
                    None => unknown,
                }
            }
        }
    }
}

/// Whether the log says that the batch `name`, whose first commit would be `first`, was committed. `head` is where the
/// store stands after the batch can no longer begin to be.
pub(crate) async fn was_logged(
    space: &Space,
    head: Head,
    first: u64,
    name: &str,
) -> mongodb::error::Result<Option<bool>> {
    if head.revision < first {
        return Ok(Some(false));
    }
    let find = space.log.find_one(doc! { "_id": int(first) });
    let found = find.projection(doc! { "batch": 1 }).await?;
    // Without a document it was trimmed already, or lost.
    Ok(found.map(|document| document.get_str("batch").is_ok_and(|batch| batch == name)))
}

/// A head that should be there.
pub(crate) fn head_of(document: Option<Document>) -> skyloom_store::Result<Head> {
    Head::parse(&document.ok_or_else(|| damaged("commit", HEAD))?)
}
