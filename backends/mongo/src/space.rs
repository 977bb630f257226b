//! The collections of one cloud in one database, with the concerns that the promises need.

use std::fmt;
use std::future::IntoFuture;
use std::time::Duration;

use mongodb::bson::{Bson, Document, doc};
use mongodb::options::{
    Acknowledgment, ClientOptions, CollectionOptions, ReadConcern, ReadPreference, ReturnDocument,
    SelectionCriteria, TransactionOptions, WriteConcern,
};
use mongodb::{Client, ClientSession, Collection, Database};
use skyloom_store::{About, Error, ErrorKind, Key, Prefix, Result};
use tokio::time::Instant;

use crate::MongoConfig;
use crate::check;
use crate::error::{damaged, driver, unmigrated};

/// The `_id` of the document that every commit changes.
pub(crate) const HEAD: &str = "head";
/// Follows every key: keys are ASCII.
const AFTER_ALL: &str = "\u{7f}";

/// The driver's handles.
pub(crate) struct Space {
    name: String,
    pub(crate) client: Client,
    pub(crate) db: Database,
    /// The present documents, by key.
    pub(crate) docs: Collection<Document>,
    /// One document per commit, by revision.
    pub(crate) log: Collection<Document>,
    /// Former versions of documents, by the commit that ended them.
    pub(crate) past: Collection<Document>,
    /// Leases, by name.
    pub(crate) leases: Collection<Document>,
    /// The head and the schema.
    pub(crate) state: Collection<Document>,
    /// The sessions of the processes that commit.
    pub(crate) writers: Collection<Document>,
    concern: WriteConcern,
    call_time: Duration,
    /// What the server is, and why acknowledged commits may be lost.
    pub(crate) about: About,
}

impl fmt::Debug for Space {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

/// Where the store stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) revision: u64,
    pub(crate) floor: u64,
    /// Bytes that all commits so far have written.
    pub(crate) bytes: u64,
    /// Bytes of those that are forgotten.
    pub(crate) forgotten: u64,
    /// Grows when a process could not get its turn.
    pub(crate) turn: u64,
}

impl Head {
    /// Before there is one.
    pub(crate) const NONE: Self = Self {
        revision: 0,
        floor: 0,
        bytes: 0,
        forgotten: 0,
        turn: 0,
    };

    pub(crate) fn parse(document: &Document) -> Result<Self> {
        let field = |name| uint(document, name).ok_or_else(|| damaged("read head", HEAD).with("field", name));
        Ok(Self {
            revision: field("revision")?,
            floor: field("floor")?,
            bytes: field("bytes")?,
            forgotten: field("forgotten")?,
            turn: field("turn")?,
        })
    }
}

/// A field that is a whole number from 0 on, however the server has written it.
pub(crate) fn uint(document: &Document, name: &str) -> Option<u64> {
    match document.get(name)? {
        Bson::Int64(n) => u64::try_from(*n).ok(),
        Bson::Int32(n) => u64::try_from(*n).ok(),
        _ => None,
    }
}

/// As the database has it. Revisions and epochs that have been given out are far below its limit; one that was not
/// compares unequal to all that were.
pub(crate) fn int(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

/// The filter for ids below `prefix` and after `after`.
pub(crate) fn range(prefix: &Prefix, after: Option<&Key>) -> Document {
    let from = after.map_or("", Key::as_str).max(prefix.as_str());
    let end = prefix.end();
    doc! { "$gt": from, "$lt": end.as_deref().unwrap_or(AFTER_ALL) }
}

/// The filter for ids of the log after `after` and up to `through`. Revisions are dense, so a few are named one by one.
pub(crate) fn revisions(after: u64, through: u64) -> Document {
    const FEW: u64 = 512;
    if through.saturating_sub(after) > FEW {
        return doc! { "$gt": int(after), "$lte": int(through) };
    }
    let ids: Vec<i64> = (after.saturating_add(1)..=through).map(int).collect();
    doc! { "$in": ids }
}

impl Space {
    /// Connects and refuses servers and settings that cannot keep the promises.
    pub(crate) async fn connect(config: &MongoConfig) -> Result<Self> {
        const OPERATION: &str = "open store";
        config.check()?;
        let mut options = ClientOptions::parse(&config.uri)
            .await
            .map_err(|e| Error::new(ErrorKind::Invalid, OPERATION).because(e))?;
        let risks = check::options(&options);
        let mut concern = WriteConcern::majority();
        concern.journal = Some(true);
        if config.allow_unsafe
            && let Some(own) = options.write_concern.clone()
        {
            concern = own;
        }
        let primary = SelectionCriteria::ReadPreference(ReadPreference::Primary);
        options.write_concern = None;
        options.read_concern = None;
        options.selection_criteria = Some(primary.clone());
        options.retry_writes = Some(true);
        options.retry_reads = Some(true);
        options.connect_timeout = Some(config.connect_time());
        options.server_selection_timeout = Some(config.connect_time());
        options.max_pool_size.get_or_insert(config.connections);
        options.app_name.get_or_insert_with(|| "skyloom".to_owned());

        let client = Client::with_options(options).map_err(driver(OPERATION))?;
        let db = client.database(&config.database);
        let mut collection = CollectionOptions::default();
        collection.read_concern = Some(ReadConcern::majority());
        collection.write_concern = Some(concern.clone());
        collection.selection_criteria = Some(primary);
        let named =
            |name: &str| db.collection_with_options(&format!("{}{name}", config.prefix), collection.clone());
        let mut space = Self {
            name: format!("mongodb:{}/{}", config.database, config.prefix),
            docs: named("docs"),
            log: named("log"),
            past: named("past"),
            leases: named("leases"),
            state: named("state"),
            writers: named("writers"),
            client: client.clone(),
            db: db.clone(),
            concern,
            call_time: config.call_time(),
            about: About::default(),
        };
        let server = space.read(OPERATION, check::ask(&client)).await?;
        server.usable()?;
        let risks: Vec<String> = risks.into_iter().chain(server.risks()).collect();
        let w = space
            .concern
            .w
            .as_ref()
            .map_or("1".to_owned(), |w| format!("{w:?}").to_lowercase());
        let journal = space.concern.journal.unwrap_or(false);
        space.about = server
            .about()
            .with_schema(crate::migrate::SCHEMA)
            .with_setting("write concern", format!("w: {w}, j: {journal}"));
        if let Some(risk) = risks.first() {
            if !config.allow_unsafe {
                return Err(Error::new(ErrorKind::Unsupported, OPERATION)
                    .with("reason", risk)
                    .with(
                        "hint",
                        "change it, or set allow_unsafe where losing commits does not matter",
                    ));
            }
            tracing::warn!(store = %space.name, ?risks, "acknowledged commits may be lost");
            space.about.risks = risks;
        }
        Ok(space)
    }

    /// By when a call that begins now must end.
    pub(crate) fn deadline(&self) -> Instant {
        Instant::now() + self.call_time
    }

    /// One reading step, with its time limit.
    pub(crate) async fn read<T>(
        &self,
        operation: &'static str,
        step: impl IntoFuture<Output = mongodb::error::Result<T>>,
    ) -> Result<T> {
        match tokio::time::timeout(self.call_time, step).await {
            Ok(answer) => answer.map_err(driver(operation)),
            Err(_) => Err(self.late(ErrorKind::Timeout, operation)),
        }
    }

    /// The call took too long.
    pub(crate) fn late(&self, kind: ErrorKind, operation: &'static str) -> Error {
        Error::new(kind, operation).with("waited ms", self.call_time.as_millis())
    }

    /// Settings of every transaction.
    pub(crate) fn transaction(&self) -> TransactionOptions {
        TransactionOptions::builder()
            .read_concern(ReadConcern::snapshot())
            .write_concern(self.concern.clone())
            .selection_criteria(SelectionCriteria::ReadPreference(ReadPreference::Primary))
            .build()
    }

    /// The head as no older than this call: the primary proves that it still is one.
    pub(crate) async fn head(&self, operation: &'static str) -> Result<Head> {
        let find = self.state.find_one(doc! { "_id": HEAD });
        let found = self
            .read(operation, find.read_concern(ReadConcern::linearizable()))
            .await?;
        Head::parse(&found.ok_or_else(|| unmigrated("there is none"))?)
    }

    /// Changes the head outside of any transaction: waits for one that has it, at most `most`, and ends those that
    /// began before. What it answers is final.
    pub(crate) async fn turn(&self, most: Duration) -> mongodb::error::Result<Option<Document>> {
        self.state
            .find_one_and_update(doc! { "_id": HEAD }, doc! { "$inc": { "turn": 1_i64 } })
            .return_document(ReturnDocument::After)
            .max_time(most)
            .await
    }

    /// Ends the sessions with these ids, and the transactions that they have open. Commits that were made stay.
    pub(crate) async fn end_sessions(&self, ids: Vec<Bson>) -> mongodb::error::Result<()> {
        let sessions: Vec<Bson> = ids.into_iter().map(|id| doc! { "id": id }.into()).collect();
        let admin = self.client.database("admin");
        admin
            .run_command(doc! { "killSessions": sessions })
            .await
            .map(drop)
    }

    /// A session without a transaction.
    pub(crate) async fn session(&self) -> mongodb::error::Result<ClientSession> {
        self.client.start_session().await
    }
}

/// Whether a write concern is at least a majority with a journal.
pub(crate) fn is_weak(concern: &WriteConcern) -> bool {
    !matches!(concern.w, None | Some(Acknowledgment::Majority)) || concern.journal == Some(false)
}
