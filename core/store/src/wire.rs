//! The store protocol's JSON: what `backends/remote` sends and `core/api` answers under `/v1/store/`.
//!
//! ```text
//! RemoteStore ── POST /v1/store/commit  CommitRequest ──> API ──> Store::commit
//!             <────────────── 200 Outcome | 4xx/5xx problem+json with `store: WireError` ──
//! RemoteStore ── POST /v1/store/watch   WatchRequest  ──> API ──> Watch::watch
//!             <────────────── 200 NDJSON, one WatchLine each; Progress every few seconds ──
//! ```
//!
//! Documents travel as the JSON they are ([`RawValue`]), never as text inside text. A watch line never holds a line
//! feed: [`WatchLine::encode`] sees to it. Every answer is a page of at most [`MAX_PAGE_BYTES`], every line at most
//! [`MAX_LINE_BYTES`], so both sides know what they may have to hold.

use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::{
    Capability, Change, Error, ErrorKind, Guard, Key, KeyValue, LeaseInfo, LeaseMode, LeaseName, ListOptions,
    Page, Prefix, Result, Revision, Txn, Value, WatchEvent, WatchOptions, Write,
};

/// The folder of the endpoints below the API's base URL.
pub const ROOT: &str = "/v1/store";
/// A server cuts a page when its documents reach this many bytes (it always holds at least one).
pub const MAX_PAGE_BYTES: usize = 8 << 20;
/// A server refuses a request with a longer body.
pub const MAX_REQUEST_BYTES: usize = 16 << 20;
/// Longest time for which a lease can be had: who asks for more wants to be believed alive for ever.
pub const MAX_TTL_MS: u64 = 24 * 60 * 60 * 1000;
/// Longest watch line; a longer commit is told as a gap.
pub const MAX_LINE_BYTES: usize = 32 << 20;

/// Body of `get`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GetRequest {
    /// Which document.
    pub key: Key,
}

/// Answer of `get`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct GetAnswer {
    /// The document, or nothing.
    pub item: Option<WireDocument>,
}

/// A document with its address and versions.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct WireDocument {
    /// Its key.
    pub key: Key,
    /// Its content.
    pub value: Box<RawValue>,
    /// The commit that created it.
    pub created: Revision,
    /// The commit that last wrote it.
    pub modified: Revision,
}

/// Body of `list`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListRequest {
    /// Below which prefix; empty is everything.
    pub prefix: Prefix,
    /// Only keys after this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<Key>,
    /// Most documents wanted; 0 is the server's largest page.
    #[serde(default)]
    pub limit: usize,
    /// As of this revision.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<Revision>,
}

/// Answer of `list`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ListAnswer {
    /// The documents in key order.
    pub items: Vec<WireDocument>,
    /// The revision of which this is the truth.
    pub revision: Revision,
    /// Whether further documents follow.
    pub more: bool,
}

/// Body of `commit`; the answer is an [`crate::Outcome`].
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CommitRequest {
    /// Preconditions.
    #[serde(default)]
    pub guards: Vec<Guard>,
    /// Changes.
    #[serde(default)]
    pub writes: Vec<WireWrite>,
}

/// One change of a transaction.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum WireWrite {
    /// Create or replace.
    Put {
        /// Where.
        key: Key,
        /// What.
        value: Box<RawValue>,
    },
    /// Remove.
    Delete {
        /// Where.
        key: Key,
    },
}

/// Body of `lease-grant`; the answer is a [`crate::Grant`].
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GrantRequest {
    /// Which lease.
    pub name: LeaseName,
    /// Who asks (display text).
    pub holder: String,
    /// For how many milliseconds.
    pub ttl_ms: u64,
    /// What to do when somebody else has it.
    pub mode: LeaseMode,
}

/// Body of `lease-renew`; the answer is a [`crate::Renewal`].
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RenewRequest {
    /// Which lease.
    pub name: LeaseName,
    /// The epoch that was granted.
    pub epoch: u64,
    /// For how many milliseconds.
    pub ttl_ms: u64,
}

/// Body of `lease-revoke`; the answer is [`Done`].
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RevokeRequest {
    /// Which lease.
    pub name: LeaseName,
    /// The epoch that was granted.
    pub epoch: u64,
}

/// Body of `leases`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LeasesRequest {
    /// Below which prefix; empty is all.
    pub prefix: Prefix,
}

/// Answer of `leases`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct LeasesAnswer {
    /// In name order.
    pub leases: Vec<LeaseInfo>,
}

/// An answer that says nothing but "done".
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Done {}

/// Body of `capability`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CapabilityRequest {}

/// Answer of `capability`: what the store behind can do. A newer server may say more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct WireCapability {
    /// As [`Capability::durable`].
    pub durable: bool,
    /// As [`Capability::max_txn_ops`].
    pub max_txn_ops: usize,
    /// As [`Capability::max_value_len`].
    pub max_value_len: usize,
}

impl From<Capability> for WireCapability {
    fn from(c: Capability) -> Self {
        Self {
            durable: c.durable,
            max_txn_ops: c.max_txn_ops,
            max_value_len: c.max_value_len,
        }
    }
}

impl From<WireCapability> for Capability {
    /// Values longer than half a request cannot be sent, whatever the store says.
    fn from(c: WireCapability) -> Self {
        Self::PORTABLE
            .with_durable(c.durable)
            .with_max_txn_ops(c.max_txn_ops)
            .with_max_value_len(c.max_value_len.min(MAX_REQUEST_BYTES / 2))
    }
}

/// Body of `watch`; the answer is a stream of [`WatchLine`]s.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WatchRequest {
    /// Below which prefix; empty is everything.
    pub prefix: Prefix,
    /// Commits after this revision.
    pub after: Revision,
    /// Commits that may wait for this watcher.
    #[serde(default = "default_buffer")]
    pub buffer: usize,
}

fn default_buffer() -> usize {
    WatchOptions::after(Revision(0)).buffer
}

/// One line of a watch stream.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WatchLine {
    /// As [`WatchEvent::Commit`].
    Commit {
        /// The commit's revision.
        revision: Revision,
        /// Its changes below the prefix.
        changes: Vec<WireChange>,
    },
    /// As [`WatchEvent::Progress`]; also the heartbeat.
    Progress {
        /// Everything up to it has been delivered.
        revision: Revision,
    },
    /// As [`WatchEvent::Gap`]; the last line.
    Gap {
        /// The oldest revision from which watching still works.
        floor: Revision,
    },
    /// The watch failed; the last line.
    Error(WireError),
}

/// One change inside a commit.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WireChange {
    /// Created or replaced.
    Put(WireDocument),
    /// Removed.
    Delete {
        /// What.
        key: Key,
    },
}

/// A store error on its way: the member `store` of a problem document, or a watch line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WireError {
    /// What went wrong.
    pub kind: ErrorKind,
    /// What the server was doing.
    pub operation: String,
    /// The server's one-line text, with its context.
    pub message: String,
}

impl From<&Error> for WireError {
    fn from(e: &Error) -> Self {
        Self {
            kind: e.kind(),
            operation: e.operation().to_owned(),
            message: e.to_string(),
        }
    }
}

impl WireError {
    /// The error at the caller's side, while doing `operation` there.
    #[must_use]
    pub fn into_error(self, operation: &'static str) -> Error {
        Error::new(self.kind, operation)
            .with("far end", self.operation)
            .because(self.message)
    }
}

/// Raw JSON text of a value that was checked to be JSON.
fn raw(value: &Value) -> Result<Box<RawValue>> {
    serde_json::from_slice(value.bytes())
        .map_err(|e| Error::new(ErrorKind::Corrupt, "encode document").because(e))
}

fn value(raw: Box<RawValue>) -> Value {
    Value::from_json_bytes(Bytes::from(String::from(Box::<str>::from(raw))))
}

impl TryFrom<&KeyValue> for WireDocument {
    type Error = Error;
    fn try_from(kv: &KeyValue) -> Result<Self> {
        Ok(Self {
            key: kv.key.clone(),
            value: raw(&kv.value)?,
            created: kv.created,
            modified: kv.modified,
        })
    }
}

impl From<WireDocument> for KeyValue {
    fn from(d: WireDocument) -> Self {
        Self {
            key: d.key,
            value: value(d.value),
            created: d.created,
            modified: d.modified,
        }
    }
}

impl ListRequest {
    /// The request for `options` below `prefix`.
    #[must_use]
    pub fn new(prefix: &Prefix, options: ListOptions) -> Self {
        Self {
            prefix: prefix.clone(),
            after: options.after,
            limit: options.limit,
            at: options.at,
        }
    }
    /// The options asked for.
    #[must_use]
    pub fn options(&self) -> ListOptions {
        ListOptions {
            after: self.after.clone(),
            limit: self.limit,
            at: self.at,
        }
    }
}

impl ListAnswer {
    /// The page on its way, cut after [`MAX_PAGE_BYTES`].
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`] when a document is no JSON.
    pub fn from_page(page: &Page) -> Result<Self> {
        let mut size = 0;
        let mut items = Vec::with_capacity(page.items.len());
        for kv in &page.items {
            size += kv.key.as_str().len() + kv.value.bytes().len() + 64;
            if size > MAX_PAGE_BYTES && !items.is_empty() {
                break;
            }
            items.push(WireDocument::try_from(kv)?);
        }
        let more = page.more || items.len() < page.items.len();
        Ok(Self {
            items,
            revision: page.revision,
            more,
        })
    }
}

impl From<ListAnswer> for Page {
    fn from(a: ListAnswer) -> Self {
        Self {
            items: a.items.into_iter().map(KeyValue::from).collect(),
            revision: a.revision,
            more: a.more,
        }
    }
}

impl TryFrom<&Txn> for CommitRequest {
    type Error = Error;
    fn try_from(txn: &Txn) -> Result<Self> {
        let write = |write: &Write| {
            Ok(match write {
                Write::Put(key, value) => WireWrite::Put {
                    key: key.clone(),
                    value: raw(value)?,
                },
                Write::Delete(key) => WireWrite::Delete { key: key.clone() },
            })
        };
        Ok(Self {
            guards: txn.guards.clone(),
            writes: txn.writes.iter().map(write).collect::<Result<_>>()?,
        })
    }
}

impl From<CommitRequest> for Txn {
    fn from(request: CommitRequest) -> Self {
        let write = |write| match write {
            WireWrite::Put { key, value: json } => Write::Put(key, value(json)),
            WireWrite::Delete { key } => Write::Delete(key),
        };
        Self {
            guards: request.guards,
            writes: request.writes.into_iter().map(write).collect(),
        }
    }
}

impl WatchRequest {
    /// The request for `options` below `prefix`.
    #[must_use]
    pub fn new(prefix: &Prefix, options: &WatchOptions) -> Self {
        Self {
            prefix: prefix.clone(),
            after: options.after,
            buffer: options.buffer,
        }
    }
    /// The options asked for, with the buffer cut to `max_buffer`.
    #[must_use]
    pub fn options(&self, max_buffer: usize) -> WatchOptions {
        WatchOptions::after(self.after).with_buffer(self.buffer.min(max_buffer))
    }
}

impl WatchLine {
    /// The line of one item of a watch stream.
    #[must_use]
    pub fn from_item(item: &Result<WatchEvent>) -> Self {
        let event = match item {
            Ok(event) => event,
            Err(e) => return Self::Error(e.into()),
        };
        match event {
            WatchEvent::Commit { revision, changes } => {
                let changes: Result<Vec<_>> = changes
                    .iter()
                    .map(|change| match change {
                        Change::Put(kv) => WireDocument::try_from(kv).map(WireChange::Put),
                        Change::Delete(key) => Ok(WireChange::Delete { key: key.clone() }),
                    })
                    .collect();
                match changes {
                    Ok(changes) => Self::Commit {
                        revision: *revision,
                        changes,
                    },
                    Err(e) => Self::Error((&e).into()),
                }
            }
            WatchEvent::Progress(revision) => Self::Progress { revision: *revision },
            WatchEvent::Gap { floor } => Self::Gap { floor: *floor },
        }
    }

    /// The item at the caller's side.
    ///
    /// # Errors
    /// The error that the line carries.
    pub fn into_item(self) -> Result<WatchEvent> {
        Ok(match self {
            Self::Commit { revision, changes } => WatchEvent::Commit {
                revision,
                changes: changes
                    .into_iter()
                    .map(|change| match change {
                        WireChange::Put(document) => Change::Put(document.into()),
                        WireChange::Delete { key } => Change::Delete(key),
                    })
                    .collect(),
            },
            Self::Progress { revision } => WatchEvent::Progress(revision),
            Self::Gap { floor } => WatchEvent::Gap { floor },
            Self::Error(e) => return Err(e.into_error("watch")),
        })
    }

    /// The line in bytes, ending in its only line feed, and whether it is the stream's last. A commit over
    /// [`MAX_LINE_BYTES`] becomes a gap.
    ///
    /// # Errors
    /// [`ErrorKind::Internal`] when serde refuses it.
    pub fn encode(&self) -> Result<(Bytes, bool)> {
        let json = |line: &Self| {
            serde_json::to_vec(line)
                .map_err(|e| Error::new(ErrorKind::Internal, "encode watch line").because(e))
        };
        let mut bytes = json(self)?;
        let mut last = match self {
            Self::Gap { .. } | Self::Error(_) => true,
            Self::Commit { .. } | Self::Progress { .. } => false,
        };
        if let Self::Commit { revision, .. } = self
            && bytes.len() > MAX_LINE_BYTES
        {
            bytes = json(&Self::Gap { floor: *revision })?;
            last = true;
        }
        // In JSON a raw line feed can only stand between tokens, where a blank says the same.
        for byte in &mut bytes {
            if *byte == b'\n' || *byte == b'\r' {
                *byte = b' ';
            }
        }
        bytes.push(b'\n');
        Ok((bytes.into(), last))
    }

    /// Reads one line.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`] when it is none.
    pub fn decode(line: &[u8]) -> Result<Self> {
        serde_json::from_slice(line)
            .map_err(|e| Error::new(ErrorKind::Corrupt, "decode watch line").because(e))
    }
}

/// Milliseconds of a lease's time, never rounded down to nothing.
#[must_use]
pub fn ttl_ms(ttl: Duration) -> u64 {
    if ttl.is_zero() {
        return 0;
    }
    u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX).max(1)
}

#[cfg(test)]
mod tests;
