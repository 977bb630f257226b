//! Seals: which entries there were, in order of commit, each seal bound to the one before.

use aws_lc_rs::digest::{Context, SHA256};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;
use skyloom_model::{Incarnation, Timestamp};
use skyloom_store::{
    DynBackend, Error, ErrorKind, Guard, Key, Outcome, Result, Revision, Txn, Value, Versioned,
};

use super::{SEALS, key};

/// An entry as a seal names it: `{day}/{id}`, and the hash of its content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leaf(pub String, pub String);

/// What a seal is for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "type")]
pub enum SealKind {
    /// It names entries.
    Entries,
    /// It says that the entries of all seals up to one are removed, for they are older than they are kept.
    Removed {
        /// The last of those seals.
        through: u64,
        /// For how many days entries are kept.
        days: u32,
    },
}

/// The record at `audit-seals/{number}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seal {
    /// Its number, from 1.
    pub number: u64,
    /// When it was made.
    pub at: Timestamp,
    /// What it is for.
    pub kind: SealKind,
    /// Of which incarnation of the store the revisions are.
    pub incarnation: Option<Incarnation>,
    /// The entries of commits after this one …
    pub from: Revision,
    /// … up to this one.
    pub to: Revision,
    /// How many entries: those it names, or those that were removed.
    pub count: u64,
    /// When the youngest of them was.
    pub newest: Option<Timestamp>,
    /// The hash over them in order.
    pub root: String,
    /// The hash of the seal before; empty in the first.
    pub previous: String,
    /// The entries in order of commit. Gone when they are removed: then `root` stands for them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entries: Option<Vec<Leaf>>,
}

/// A seal that somebody has noted elsewhere.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Noted {
    /// Its number.
    pub number: u64,
    /// Its hash.
    pub hash: String,
}

/// The last removal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SealsRemoved {
    /// The entries of all seals up to this one are removed, or about to be.
    pub through: u64,
    /// The seal that says so.
    pub by: u64,
    /// Up to this one they are gone, and their list too.
    pub cleaned: u64,
}

/// The record at `audit-seals/head`: where the chain ends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SealHead {
    /// The last seal.
    pub last: Noted,
    /// Entries that have been sealed, ever.
    pub entries: u64,
    /// Up to where, as in the last seal that named entries.
    pub to: Revision,
    /// Of which incarnation of the store that is.
    pub incarnation: Option<Incarnation>,
    /// What is removed.
    pub removed: Option<SealsRemoved>,
}

impl Seal {
    /// The hash by which the next seal names this one. It stands for the entries by `root`.
    #[must_use]
    pub fn hash(&self) -> String {
        let mut bare = self.clone();
        bare.entries = None;
        // A seal is plain data: it can be encoded.
        hash_of(&serde_json::to_value(&bare).unwrap_or_default())
    }
}

/// The hash over entries in order.
pub(super) fn root_of(leaves: &[Leaf]) -> String {
    let mut hash = Context::new(&SHA256);
    for Leaf(key, content) in leaves {
        feed_text(&mut hash, key);
        feed_text(&mut hash, content);
    }
    text(hash)
}

/// The hash of a document that is the same however a store writes it.
pub(super) fn hash_of(document: &Json) -> String {
    let mut hash = Context::new(&SHA256);
    feed(&mut hash, document);
    text(hash)
}

fn text(hash: Context) -> String {
    URL_SAFE_NO_PAD.encode(hash.finish().as_ref())
}

fn feed_len(hash: &mut Context, mark: u8, len: usize) {
    hash.update(&[mark]);
    hash.update(&u64::try_from(len).unwrap_or(u64::MAX).to_be_bytes());
}

fn feed_text(hash: &mut Context, text: &str) {
    feed_len(hash, b's', text.len());
    hash.update(text.as_bytes());
}

fn feed(hash: &mut Context, document: &Json) {
    match document {
        Json::Null => hash.update(b"n"),
        Json::Bool(yes) => hash.update(if *yes { b"t" } else { b"f" }),
        Json::Number(number) => {
            hash.update(b"#");
            feed_text(hash, &number.to_string());
        }
        Json::String(text) => feed_text(hash, text),
        Json::Array(items) => {
            feed_len(hash, b'a', items.len());
            items.iter().for_each(|item| feed(hash, item));
        }
        Json::Object(fields) => {
            feed_len(hash, b'o', fields.len());
            let mut fields: Vec<_> = fields.iter().collect();
            fields.sort_by_key(|(name, _)| *name);
            for (name, value) in fields {
                feed_text(hash, name);
                feed(hash, value);
            }
        }
    }
}

pub(super) fn seal_key(number: u64) -> Result<Key> {
    key(&format!("{SEALS}/{number:016}"))
}

pub(super) fn head_key() -> Result<Key> {
    key(&format!("{SEALS}/head"))
}

/// The end of the chain, as whoever holds the lease sees it.
#[derive(Debug)]
pub(super) struct Chain {
    pub(super) backend: DynBackend,
    pub(super) head: Option<Versioned<SealHead>>,
    /// Carried by each write.
    pub(super) lease: Guard,
}

impl Chain {
    pub(super) async fn load(backend: DynBackend, lease: Guard) -> Result<Self> {
        let found = backend.get(&head_key()?).await?;
        let head = found.as_ref().map(Versioned::decode).transpose()?;
        Ok(Self { backend, head, lease })
    }

    pub(super) fn last(&self) -> Option<&SealHead> {
        self.head.as_ref().map(|head| &head.value)
    }

    /// Adds a seal: `make` gets its number and the hash of the one before, and gives it with what the head says then.
    pub(super) async fn append(
        &mut self,
        make: impl FnOnce(u64, String) -> (Seal, SealHead) + Send,
    ) -> Result<()> {
        let (number, previous) = match self.last() {
            Some(head) => (head.last.number + 1, head.last.hash.clone()),
            None => (1, String::new()),
        };
        let (seal, mut head) = make(number, previous);
        head.last = Noted {
            number,
            hash: seal.hash(),
        };
        let txn = Txn::new().create(seal_key(number)?, Value::json(&seal)?);
        self.commit(txn, head).await
    }

    /// Commits `txn` with this head. On any error this chain is of no more use: only the store knows where it ends.
    pub(super) async fn commit(&mut self, txn: Txn, head: SealHead) -> Result<()> {
        let key = head_key()?;
        let value = Value::json(&head)?;
        let guard = match &self.head {
            Some(head) => head.unchanged(),
            None => Guard::Absent(key.clone()),
        };
        let created = self.head.as_ref().map(|head| head.created);
        let txn = txn.guard(self.lease.clone()).guard(guard).put(key.clone(), value);
        let Outcome::Committed { revision } = self.backend.commit(txn).await? else {
            return Err(
                Error::new(ErrorKind::Conflict, "seal the audit").with("cause", "another process seals")
            );
        };
        self.head = Some(Versioned {
            key,
            value: head,
            created: created.unwrap_or(revision),
            modified: revision,
        });
        Ok(())
    }
}
