//! The collections and their version. Only [`migrate`] makes or changes them.

use mongodb::Collection;
use mongodb::bson::{Document, doc};
use skyloom_store::{Error, ErrorKind, Result};

use crate::MongoConfig;
use crate::error::{DUPLICATE_KEY, code, damaged, driver, unmigrated};
use crate::space::{HEAD, Space, int, uint};

/// The version that this program reads and writes.
pub(crate) const SCHEMA: u64 = 1;
const SCHEMA_ID: &str = "schema";
/// NamespaceExists
const EXISTS: i32 = 48;
const OPERATION: &str = "migrate store";

/// What [`migrate`] has done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Migrated {
    /// There was nothing; now there is an empty store.
    Created,
    /// It was of this version already.
    Current,
}

/// Creates the collections, or finds that they are current. Doing it twice, or in two processes at once, is no error.
///
/// # Errors
/// [`ErrorKind::TooNew`] when a newer program has made them; otherwise as for opening the store.
pub async fn migrate(config: &MongoConfig) -> Result<Migrated> {
    let space = Space::connect(config).await?;
    let done = create(&space).await;
    space.client.shutdown().immediate(true).await;
    done
}

async fn create(space: &Space) -> Result<Migrated> {
    if version(space, OPERATION).await?.is_some() {
        return Ok(Migrated::Current);
    }
    let all = [
        &space.docs,
        &space.log,
        &space.past,
        &space.leases,
        &space.state,
        &space.writers,
    ];
    for collection in all {
        let made = space.db.create_collection(collection.name());
        match tokio::time::timeout_at(space.deadline(), made).await {
            Ok(Ok(())) => {}
            Ok(Err(e)) if code(&e) == Some(EXISTS) => {}
            Ok(Err(e)) => return Err(driver(OPERATION)(e)),
            Err(_) => return Err(space.late(ErrorKind::Timeout, OPERATION)),
        }
    }
    let head = doc! {
        "_id": HEAD, "revision": 0_i64, "floor": 0_i64, "bytes": 0_i64, "forgotten": 0_i64, "batches": 0_i64,
        "turn": 0_i64,
    };
    insert(space, &space.state, head).await?;
    // The version comes last: what has one is complete.
    insert(
        space,
        &space.state,
        doc! { "_id": SCHEMA_ID, "version": int(SCHEMA) },
    )
    .await?;
    Ok(Migrated::Created)
}

/// Inserts what may be there already.
async fn insert(space: &Space, into: &Collection<Document>, document: Document) -> Result<()> {
    match tokio::time::timeout_at(space.deadline(), into.insert_one(document)).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(e)) if code(&e) == Some(DUPLICATE_KEY) => Ok(()),
        Ok(Err(e)) => Err(driver(OPERATION)(e)),
        Err(_) => Err(space.late(ErrorKind::Timeout, OPERATION)),
    }
}

/// The stored version, which this program understands; `None` when there is none.
async fn version(space: &Space, operation: &'static str) -> Result<Option<u64>> {
    let find = space.state.find_one(doc! { "_id": SCHEMA_ID });
    let Some(document) = space.read(operation, find).await? else {
        return Ok(None);
    };
    let version = uint(&document, "version").ok_or_else(|| damaged(operation, SCHEMA_ID))?;
    if version > SCHEMA {
        return Err(Error::new(ErrorKind::TooNew, operation)
            .with("schema", version)
            .with("this program's", SCHEMA));
    }
    Ok(Some(version))
}

/// Refuses collections that are not of this program's version.
pub(crate) async fn require(space: &Space) -> Result<()> {
    match version(space, "open store").await? {
        Some(SCHEMA) => Ok(()),
        Some(_) => Err(unmigrated("it is older than this program")),
        None => Err(unmigrated("there is none")),
    }
}
