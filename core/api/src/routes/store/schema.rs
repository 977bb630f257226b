//! The store protocol's words once more, for the OpenAPI document. Never used as values: the types that are stand in
//! [`skyloom_store::wire`], and a test below compares the two.
#![cfg_attr(not(test), expect(dead_code, reason = "schemas only"))]

use skyloom_model::Timestamp;
use utoipa::ToSchema;

/// A path of one or more segments with `/` between them.
#[derive(Debug, ToSchema)]
#[cfg_attr(test, derive(serde::Serialize, serde::Deserialize))]
#[schema(as = StoreKey, example = "vms/h1/s1", min_length = 1, max_length = 512)]
pub(crate) struct Key(String);

/// A document: any JSON.
#[derive(Debug, ToSchema)]
#[cfg_attr(test, derive(serde::Serialize, serde::Deserialize))]
#[schema(as = StoreValue)]
pub(crate) struct Value(serde_json::Value);

/// Nothing to say.
#[derive(Debug, ToSchema)]
#[cfg_attr(
    test,
    derive(serde::Serialize, serde::Deserialize),
    serde(deny_unknown_fields)
)]
#[schema(as = StoreCapabilityRequest)]
pub(crate) struct CapabilityRequest {}

/// What the store can do.
#[derive(Debug, ToSchema)]
#[cfg_attr(
    test,
    derive(serde::Serialize, serde::Deserialize),
    serde(deny_unknown_fields)
)]
#[schema(as = StoreCapability)]
pub(crate) struct Capability {
    /// Commits outlive the process and the machine.
    durable: bool,
    /// Most guards plus writes in one transaction.
    max_txn_ops: usize,
    /// Longest document in bytes.
    max_value_len: usize,
}

/// Which document.
#[derive(Debug, ToSchema)]
#[cfg_attr(
    test,
    derive(serde::Serialize, serde::Deserialize),
    serde(deny_unknown_fields)
)]
#[schema(as = StoreGetRequest)]
pub(crate) struct GetRequest {
    key: Key,
}

/// The document, or null.
#[derive(Debug, ToSchema)]
#[cfg_attr(
    test,
    derive(serde::Serialize, serde::Deserialize),
    serde(deny_unknown_fields)
)]
#[schema(as = StoreGetAnswer)]
pub(crate) struct GetAnswer {
    item: Option<Document>,
}

/// A document with its address and versions.
#[derive(Debug, ToSchema)]
#[cfg_attr(
    test,
    derive(serde::Serialize, serde::Deserialize),
    serde(deny_unknown_fields)
)]
#[schema(as = StoreDocument)]
pub(crate) struct Document {
    key: Key,
    value: Value,
    /// The commit that created it.
    created: u64,
    /// The commit that last wrote it.
    modified: u64,
}

/// Which documents.
#[derive(Debug, ToSchema)]
#[cfg_attr(
    test,
    derive(serde::Serialize, serde::Deserialize),
    serde(deny_unknown_fields)
)]
#[schema(as = StoreListRequest)]
pub(crate) struct ListRequest {
    /// A path without a segment cut in two; empty is everything.
    #[schema(example = "vms/h1", max_length = 512)]
    prefix: String,
    /// Only keys after this one.
    #[cfg_attr(test, serde(default))]
    after: Option<Key>,
    /// Most documents; 0 is the server's largest page.
    #[schema(required = false, default = 0, format = "uint64")]
    limit: usize,
    /// As of this revision.
    #[cfg_attr(test, serde(default))]
    at: Option<u64>,
}

/// One page.
#[derive(Debug, ToSchema)]
#[cfg_attr(
    test,
    derive(serde::Serialize, serde::Deserialize),
    serde(deny_unknown_fields)
)]
#[schema(as = StoreListAnswer)]
pub(crate) struct ListAnswer {
    items: Vec<Document>,
    /// The revision of which this is the truth.
    revision: u64,
    /// Whether documents follow.
    more: bool,
}

/// A transaction.
#[derive(Debug, ToSchema)]
#[cfg_attr(
    test,
    derive(serde::Serialize, serde::Deserialize),
    serde(deny_unknown_fields)
)]
#[schema(as = StoreCommitRequest)]
pub(crate) struct CommitRequest {
    /// Preconditions.
    #[schema(required = false)]
    guards: Vec<Guard>,
    /// Changes; each key at most once.
    #[schema(required = false)]
    writes: Vec<Write>,
}

/// A precondition.
#[derive(Debug, ToSchema)]
#[cfg_attr(
    test,
    derive(serde::Serialize, serde::Deserialize),
    serde(rename_all = "snake_case")
)]
#[schema(as = StoreGuard, rename_all = "snake_case")]
pub(crate) enum Guard {
    /// The key has no document.
    Absent(Key),
    /// The key's document was last written at this revision: `[key, revision]`.
    Revision(Vec<Value>),
    /// The lease is held at this epoch: `[name, epoch]`.
    Lease(Vec<Value>),
}

/// A change.
#[derive(Debug, ToSchema)]
#[cfg_attr(
    test,
    derive(serde::Serialize, serde::Deserialize),
    serde(rename_all = "snake_case", deny_unknown_fields)
)]
#[schema(as = StoreWrite, rename_all = "snake_case")]
pub(crate) enum Write {
    /// Create or replace.
    Put {
        /// Where.
        key: Key,
        /// What.
        value: Value,
    },
    /// Remove.
    Delete {
        /// Where.
        key: Key,
    },
}

/// What became of a transaction.
#[derive(Debug, ToSchema)]
#[cfg_attr(
    test,
    derive(serde::Serialize, serde::Deserialize),
    serde(rename_all = "snake_case", deny_unknown_fields)
)]
#[schema(as = StoreOutcome, rename_all = "snake_case")]
pub(crate) enum Outcome {
    /// All guards held.
    Committed {
        /// The commit's revision.
        revision: u64,
    },
    /// A guard did not hold; nothing changed.
    Conflict {
        /// Which guard, from 0.
        guard: usize,
        /// The key's revision now.
        current: Option<u64>,
    },
}

/// A wish for a lease.
#[derive(Debug, ToSchema)]
#[cfg_attr(
    test,
    derive(serde::Serialize, serde::Deserialize),
    serde(deny_unknown_fields)
)]
#[schema(as = StoreGrantRequest)]
pub(crate) struct GrantRequest {
    /// Which lease.
    name: Key,
    /// Who asks.
    #[schema(max_length = 256)]
    holder: String,
    /// For how many milliseconds.
    #[schema(minimum = 1, maximum = 86_400_000)]
    ttl_ms: u64,
    /// What to do when somebody else has it.
    mode: LeaseMode,
}

/// What to do when somebody else has a lease.
#[derive(Debug, ToSchema)]
#[cfg_attr(
    test,
    derive(serde::Serialize, serde::Deserialize),
    serde(rename_all = "snake_case")
)]
#[schema(as = StoreLeaseMode, rename_all = "snake_case")]
pub(crate) enum LeaseMode {
    /// Wait for its end.
    Acquire,
    /// Take it at once: right for one's own former life.
    TakeOver,
}

/// Granted, or who has it.
#[derive(Debug, ToSchema)]
#[cfg_attr(
    test,
    derive(serde::Serialize, serde::Deserialize),
    serde(rename_all = "snake_case", deny_unknown_fields)
)]
#[schema(as = StoreGrant, rename_all = "snake_case")]
pub(crate) enum Grant {
    /// It is yours.
    Granted {
        /// Greater than every epoch before.
        epoch: u64,
    },
    /// Another has it.
    Held(LeaseInfo),
}

/// A lease.
#[derive(Debug, ToSchema)]
#[cfg_attr(
    test,
    derive(serde::Serialize, serde::Deserialize),
    serde(deny_unknown_fields)
)]
#[schema(as = StoreLeaseInfo)]
pub(crate) struct LeaseInfo {
    name: Key,
    epoch: u64,
    /// Who asked for it.
    holder: String,
    /// When it runs out, by the store's clock.
    expires_at: Timestamp,
    /// Whether it has.
    expired: bool,
}

/// Which lease, and for how long.
#[derive(Debug, ToSchema)]
#[cfg_attr(
    test,
    derive(serde::Serialize, serde::Deserialize),
    serde(deny_unknown_fields)
)]
#[schema(as = StoreRenewRequest)]
pub(crate) struct RenewRequest {
    name: Key,
    /// As it was granted.
    #[schema(format = "uint64")]
    epoch: u64,
    /// For how many milliseconds.
    #[schema(minimum = 1, maximum = 86_400_000)]
    ttl_ms: u64,
}

/// Still held, or lost for ever.
#[derive(Debug, ToSchema)]
#[cfg_attr(
    test,
    derive(serde::Serialize, serde::Deserialize),
    serde(rename_all = "snake_case")
)]
#[schema(as = StoreRenewal, rename_all = "snake_case")]
pub(crate) enum Renewal {
    /// Still yours.
    Held,
    /// Ran out, was revoked or taken over.
    Lost,
}

/// Which lease.
#[derive(Debug, ToSchema)]
#[cfg_attr(
    test,
    derive(serde::Serialize, serde::Deserialize),
    serde(deny_unknown_fields)
)]
#[schema(as = StoreRevokeRequest)]
pub(crate) struct RevokeRequest {
    name: Key,
    /// As it was granted.
    #[schema(format = "uint64")]
    epoch: u64,
}

/// Done.
#[derive(Debug, ToSchema)]
#[cfg_attr(
    test,
    derive(serde::Serialize, serde::Deserialize),
    serde(deny_unknown_fields)
)]
#[schema(as = StoreDone)]
pub(crate) struct Done {}

/// Which leases.
#[derive(Debug, ToSchema)]
#[cfg_attr(
    test,
    derive(serde::Serialize, serde::Deserialize),
    serde(deny_unknown_fields)
)]
#[schema(as = StoreLeasesRequest)]
pub(crate) struct LeasesRequest {
    /// A path without a segment cut in two; empty is everything.
    #[schema(example = "hosts", max_length = 512)]
    prefix: String,
}

/// Leases in name order.
#[derive(Debug, ToSchema)]
#[cfg_attr(
    test,
    derive(serde::Serialize, serde::Deserialize),
    serde(deny_unknown_fields)
)]
#[schema(as = StoreLeasesAnswer)]
pub(crate) struct LeasesAnswer {
    leases: Vec<LeaseInfo>,
}

/// From where to watch.
#[derive(Debug, ToSchema)]
#[cfg_attr(
    test,
    derive(serde::Serialize, serde::Deserialize),
    serde(deny_unknown_fields)
)]
#[schema(as = StoreWatchRequest)]
pub(crate) struct WatchRequest {
    /// A path without a segment cut in two; empty is everything.
    #[schema(example = "vms/h1", max_length = 512)]
    prefix: String,
    /// Commits after this revision.
    after: u64,
    /// Commits that may wait for this watcher.
    #[schema(required = false, default = 1024)]
    buffer: usize,
}

/// One line of a watch.
#[derive(Debug, ToSchema)]
#[cfg_attr(
    test,
    derive(serde::Serialize, serde::Deserialize),
    serde(rename_all = "snake_case", deny_unknown_fields)
)]
#[schema(as = StoreWatchLine, rename_all = "snake_case")]
pub(crate) enum WatchLine {
    /// A commit, whole.
    Commit {
        /// Its revision.
        revision: u64,
        /// Its changes below the prefix.
        changes: Vec<Change>,
    },
    /// Everything up to this revision has been delivered.
    Progress {
        /// Which.
        revision: u64,
    },
    /// The position is lost. The last line.
    Gap {
        /// The oldest revision from which watching works.
        floor: u64,
    },
    /// The store failed. The last line.
    Error(StoreError),
}

/// A change inside a commit.
#[derive(Debug, ToSchema)]
#[cfg_attr(
    test,
    derive(serde::Serialize, serde::Deserialize),
    serde(rename_all = "snake_case", deny_unknown_fields)
)]
#[schema(as = StoreChange, rename_all = "snake_case")]
pub(crate) enum Change {
    /// Created or replaced.
    Put(Document),
    /// Removed.
    Delete {
        /// What.
        key: Key,
    },
}

/// The store's own error.
#[derive(Debug, ToSchema)]
#[cfg_attr(
    test,
    derive(serde::Serialize, serde::Deserialize),
    serde(deny_unknown_fields)
)]
#[schema(as = StoreError)]
pub(crate) struct StoreError {
    /// Such as `unavailable` or `unknown`.
    #[schema(example = "unavailable")]
    kind: String,
    /// What the server was doing.
    operation: String,
    /// One line.
    message: String,
}

#[cfg(test)]
mod tests {
    use serde::Serialize;
    use serde::de::DeserializeOwned;
    use serde_json::{Value as Json, json};
    use skyloom_store::{LeaseName, Revision, wire};

    use super::*;

    /// The wire type and its schema read and write the same JSON.
    fn same<W: Serialize + DeserializeOwned, S: Serialize + DeserializeOwned>(example: Json) {
        let wire: W = serde_json::from_value(example.clone()).expect("the wire type reads it");
        let schema: S = serde_json::from_value(example.clone()).expect("the schema reads it");
        assert_eq!(serde_json::to_value(wire).unwrap(), example);
        assert_eq!(serde_json::to_value(schema).unwrap(), example);
    }

    #[test]
    fn schemas_are_those_of_the_wire() {
        let document = json!({"key": "a/b", "value": {"x": [1]}, "created": 1, "modified": 2});
        let lease = json!({"name": "hosts/h1", "epoch": 3, "holder": "agent", "expires_at": "2026-01-01T00:00:00Z", "expired": false});
        same::<wire::CapabilityRequest, CapabilityRequest>(json!({}));
        same::<wire::WireCapability, Capability>(
            json!({"durable": true, "max_txn_ops": 128, "max_value_len": 1_048_576}),
        );
        same::<wire::GetRequest, GetRequest>(json!({"key": "a/b"}));
        same::<wire::GetAnswer, GetAnswer>(json!({"item": document}));
        same::<wire::ListRequest, ListRequest>(json!({"prefix": "a/", "after": "a/b", "limit": 5, "at": 7}));
        same::<wire::ListAnswer, ListAnswer>(json!({"items": [document], "revision": 7, "more": true}));
        same::<wire::CommitRequest, CommitRequest>(json!({
            "guards": [{"absent": "a"}, {"revision": ["b", 3]}, {"lease": ["hosts/h1", 4]}],
            "writes": [{"put": {"key": "a", "value": null}}, {"delete": {"key": "b"}}],
        }));
        same::<skyloom_store::Outcome, Outcome>(json!({"committed": {"revision": 4}}));
        same::<skyloom_store::Outcome, Outcome>(json!({"conflict": {"guard": 0, "current": null}}));
        for mode in ["acquire", "take_over"] {
            same::<wire::GrantRequest, GrantRequest>(
                json!({"name": "hosts/h1", "holder": "x", "ttl_ms": 1000, "mode": mode}),
            );
        }
        same::<skyloom_store::Grant, Grant>(json!({"granted": {"epoch": 1}}));
        same::<skyloom_store::Grant, Grant>(json!({"held": lease}));
        same::<wire::RenewRequest, RenewRequest>(json!({"name": "hosts/h1", "epoch": 1, "ttl_ms": 1}));
        same::<skyloom_store::Renewal, Renewal>(json!("held"));
        same::<skyloom_store::Renewal, Renewal>(json!("lost"));
        same::<wire::RevokeRequest, RevokeRequest>(json!({"name": "hosts/h1", "epoch": 1}));
        same::<wire::Done, Done>(json!({}));
        same::<wire::LeasesRequest, LeasesRequest>(json!({"prefix": "hosts/"}));
        same::<wire::LeasesAnswer, LeasesAnswer>(json!({"leases": [lease]}));
        same::<wire::WatchRequest, WatchRequest>(json!({"prefix": "a/", "after": 3, "buffer": 9}));
        same::<wire::WatchLine, WatchLine>(
            json!({"commit": {"revision": 2, "changes": [{"put": document}, {"delete": {"key": "c"}}]}}),
        );
        same::<wire::WatchLine, WatchLine>(json!({"progress": {"revision": 2}}));
        same::<wire::WatchLine, WatchLine>(json!({"gap": {"floor": 2}}));
        same::<wire::WatchLine, WatchLine>(
            json!({"error": {"kind": "unavailable", "operation": "watch", "message": "m"}}),
        );
        // What stands in a schema as a plain string or number.
        assert_eq!(
            serde_json::to_value(LeaseName::parse("a/b").unwrap()).unwrap(),
            json!("a/b")
        );
        assert_eq!(serde_json::to_value(Revision(4)).unwrap(), json!(4));
    }
}
