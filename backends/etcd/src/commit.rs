//! One commit as one etcd transaction, and its answer.
//!
//! ```text
//! if  all guards hold                    (compares)
//! then the writes, and the head          one revision for all of them
//! else the versions of the guarded keys  so that the conflict is told without another question
//! ```
//!
//! The head is a key that every commit writes. Its modification revision is the revision of the store: etcd's own also
//! moves for leases and for other clouds in the same cluster. Deletes of absent keys change nothing and must not move
//! it, so a commit that only deletes, and does not know by its guards what is there, asks that inside.

use std::collections::HashMap;

use etcd_client::{
    Compare, CompareOp, GetOptions, GetResponse, Txn as NativeTxn, TxnOp, TxnOpResponse, TxnResponse,
};
use skyloom_store::{Error, ErrorKind, Guard, Key, Outcome, Result, Revision, Txn, Write};

use crate::keys::Keys;

/// What stands under the head.
pub(crate) const HEAD: &str = "{\"format\":1}";
/// The server's `--max-txn-ops`, by default; checked when the store is opened.
pub(crate) const MAX_OPS: usize = 128;
/// What a request has beside keys and values, at most, for each operation.
const OVERHEAD: usize = 64;

/// A revision as etcd counts; those beyond are of no use to anybody.
pub(crate) fn native(revision: u64) -> i64 {
    i64::try_from(revision).unwrap_or(i64::MAX)
}

/// A revision that etcd gave.
pub(crate) fn revision(native: i64) -> Revision {
    Revision(u64::try_from(native).unwrap_or(0))
}

/// The revision of an answer.
pub(crate) fn header(response: &TxnResponse) -> Revision {
    revision(response.header().map_or(0, etcd_client::ResponseHeader::revision))
}

/// The modification revision of the only key of an answer; `None` when it is absent.
pub(crate) fn modified(get: &GetResponse) -> Option<Revision> {
    get.kvs().first().map(|kv| revision(kv.mod_revision()))
}

pub(crate) fn get_keys_only(key: String) -> TxnOp {
    TxnOp::get(key, Some(GetOptions::new().with_keys_only()))
}

/// The compares of one guard. All of them must hold.
fn compares(guard: &Guard, keys: &Keys, into: &mut Vec<Compare>) {
    match guard {
        Guard::Absent(key) => into.push(absent(keys.doc(key))),
        // etcd says that an absent key was modified at 0.
        Guard::Revision(key, Revision(0)) => {
            into.push(Compare::mod_revision(keys.doc(key), CompareOp::Less, 0));
        }
        Guard::Revision(key, at) => {
            into.push(Compare::mod_revision(
                keys.doc(key),
                CompareOp::Equal,
                native(at.0),
            ));
        }
        Guard::Lease(name, epoch) => into.extend([
            Compare::mod_revision(keys.lease(name), CompareOp::Equal, native(*epoch)),
            Compare::create_revision(keys.held(name), CompareOp::Greater, 0),
        ]),
    }
}

fn absent(key: String) -> Compare {
    Compare::create_revision(key, CompareOp::Equal, 0)
}

/// What a commit does to the head.
enum Effect<'t> {
    /// It writes, for certain.
    Writes,
    /// It checks its guards, and deletes what is known to be absent.
    Nothing,
    /// It only deletes, and these may be there or not.
    Deletes(Vec<&'t Key>),
}

fn effect(txn: &Txn) -> Effect<'_> {
    let mut known: HashMap<&Key, bool> = HashMap::new();
    for guard in &txn.guards {
        match guard {
            Guard::Absent(key) => known.insert(key, false),
            Guard::Revision(key, _) => known.insert(key, true),
            Guard::Lease(..) => None,
        };
    }
    let mut open = Vec::new();
    for write in &txn.writes {
        match write {
            Write::Put(..) => return Effect::Writes,
            Write::Delete(key) => match known.get(key) {
                Some(true) => return Effect::Writes,
                Some(false) => {}
                None => open.push(key),
            },
        }
    }
    if open.is_empty() {
        Effect::Nothing
    } else {
        Effect::Deletes(open)
    }
}

/// Refuses what one etcd transaction cannot carry; [`Txn::check`] has been passed.
pub(crate) fn fits(txn: &Txn, max_request_bytes: usize) -> Result<()> {
    let leases = txn
        .guards
        .iter()
        .filter(|g| matches!(g, Guard::Lease(..)))
        .count();
    let (compares, writes) = (txn.guards.len() + leases, txn.writes.len() + 1);
    if compares > MAX_OPS || writes > MAX_OPS {
        return Err(Error::new(ErrorKind::TooLarge, "commit")
            .with("compares", compares)
            .with("writes with the head", writes)
            .with("limit of each", MAX_OPS));
    }
    let bytes: usize = txn
        .writes
        .iter()
        .map(|write| match write {
            Write::Put(key, value) => key.as_str().len() + value.bytes().len() + OVERHEAD,
            Write::Delete(key) => key.as_str().len() + OVERHEAD,
        })
        .sum();
    if bytes > max_request_bytes {
        return Err(Error::new(ErrorKind::TooLarge, "commit")
            .with("bytes", bytes)
            .with("limit", max_request_bytes)
            .with("hint", "etcd takes 1.5 MiB in one commit; see max_request_bytes"));
    }
    Ok(())
}

/// The transaction as etcd takes it.
pub(crate) fn request(txn: &Txn, keys: &Keys) -> NativeTxn {
    let mut when = Vec::with_capacity(txn.guards.len());
    let mut otherwise = Vec::with_capacity(txn.guards.len());
    for guard in &txn.guards {
        compares(guard, keys, &mut when);
        match guard {
            Guard::Absent(key) | Guard::Revision(key, _) => otherwise.push(get_keys_only(keys.doc(key))),
            Guard::Lease(name, _) => {
                otherwise.extend([get_keys_only(keys.lease(name)), get_keys_only(keys.held(name))]);
            }
        }
    }
    let mut writes: Vec<TxnOp> = Vec::with_capacity(txn.writes.len() + 1);
    writes.extend(txn.writes.iter().map(|write| match write {
        Write::Put(key, value) => TxnOp::put(keys.doc(key), value.bytes().as_ref(), None),
        Write::Delete(key) => TxnOp::delete(keys.doc(key), None),
    }));
    writes.push(TxnOp::put(keys.head(), HEAD, None));
    let look = || vec![get_keys_only(keys.head().to_owned())];
    let then = match effect(txn) {
        Effect::Writes => writes,
        Effect::Nothing => look(),
        Effect::Deletes(open) => {
            let all_absent: Vec<Compare> = open.iter().map(|key| absent(keys.doc(key))).collect();
            let inner = NativeTxn::new().when(all_absent).and_then(look()).or_else(writes);
            vec![TxnOp::txn(inner)]
        }
    };
    NativeTxn::new().when(when).and_then(then).or_else(otherwise)
}

/// What etcd's answer to [`request`] means.
pub(crate) fn outcome(txn: &Txn, response: &TxnResponse) -> Result<Outcome> {
    if !response.succeeded() {
        return conflict(txn, response);
    }
    let revision = match effect(txn) {
        Effect::Writes => header(response),
        Effect::Nothing => seen_head(response)?,
        Effect::Deletes(_) => match response.op_responses().first() {
            // All were absent.
            Some(TxnOpResponse::Txn(inner)) if inner.succeeded() => seen_head(inner)?,
            Some(TxnOpResponse::Txn(_)) => header(response),
            _ => return Err(garbled()),
        },
    };
    Ok(Outcome::Committed { revision })
}

/// The head as the first answer of a transaction.
pub(crate) fn seen_head(response: &TxnResponse) -> Result<Revision> {
    match response.op_responses().first() {
        Some(TxnOpResponse::Get(head)) => present(head),
        _ => Err(garbled()),
    }
}

/// The store's revision by its head.
pub(crate) fn present(head: &GetResponse) -> Result<Revision> {
    modified(head).ok_or_else(|| {
        Error::new(ErrorKind::Corrupt, "read the store's revision").with(
            "hint",
            "the key docs.head is gone; was the prefix deleted while the store was open?",
        )
    })
}

fn garbled() -> Error {
    Error::new(ErrorKind::Internal, "commit")
        .because("etcd's answer does not have the form that was asked for")
}

/// The first guard that does not hold by what the answer says is there.
fn conflict(txn: &Txn, response: &TxnResponse) -> Result<Outcome> {
    let mut answers = response.op_responses().into_iter();
    let mut next = || match answers.next() {
        Some(TxnOpResponse::Get(get)) => Ok(modified(&get)),
        _ => Err(garbled()),
    };
    for (index, guard) in txn.guards.iter().enumerate() {
        let now = next()?;
        let (holds, current) = match guard {
            Guard::Absent(_) => (now.is_none(), now),
            Guard::Revision(_, at) => (now == Some(*at), now),
            Guard::Lease(_, epoch) => (now == Some(Revision(*epoch)) && next()?.is_some(), None),
        };
        if !holds {
            return Ok(Outcome::Conflict {
                guard: index,
                current,
            });
        }
    }
    Err(garbled())
}
