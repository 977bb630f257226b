//! What must be refused, and that nothing happens then.

use super::failure::{ensure, ensure_eq};
use super::seat::{json, key, refused};
use super::{Case, Seat, Verdict, case};
use crate::{ErrorKind, Guard, Txn, Value};

pub(super) fn cases() -> Vec<Case> {
    vec![
        case!("refusal", a_key_written_twice),
        case!("refusal", a_key_put_and_deleted),
        case!("refusal", too_many_operations),
        case!("refusal", as_many_operations_as_allowed_are_done),
        case!("refusal", a_value_that_is_too_long),
        case!("refusal", the_longest_value_is_taken),
        case!("refusal", a_value_that_is_no_json),
        case!("refusal", refused_before_the_guards_are_looked_at),
    ]
}

async fn a_key_written_twice(seat: &mut Seat) -> Verdict {
    let txn = Txn::new()
        .put(key("a")?, json(1)?)
        .put(key("b")?, json(1)?)
        .put(key("a")?, json(2)?);
    refused(
        seat.store.commit(txn).await,
        ErrorKind::Invalid,
        "two puts of one key",
    )?;
    ensure!(seat.list("").await?.items.is_empty(), "something was written");
    Ok(())
}

async fn a_key_put_and_deleted(seat: &mut Seat) -> Verdict {
    let before = seat.create("a", 1).await?;
    let txn = Txn::new().delete(key("a")?).put(key("a")?, json(2)?);
    refused(
        seat.store.commit(txn).await,
        ErrorKind::Invalid,
        "delete and put of one key",
    )?;
    ensure_eq!(seat.have("a").await?.modified, before, "something was written");
    Ok(())
}

async fn too_many_operations(seat: &mut Seat) -> Verdict {
    let most = seat.store.capability().max_txn_ops;
    let mut txn = Txn::new().guard(Guard::Absent(key("x")?));
    for n in 0..most {
        txn = txn.put(key(&format!("n/{n}"))?, json(n)?);
    }
    refused(
        seat.store.commit(txn).await,
        ErrorKind::TooLarge,
        "one operation too many",
    )?;
    ensure!(seat.list("").await?.items.is_empty(), "something was written");
    Ok(())
}

async fn as_many_operations_as_allowed_are_done(seat: &mut Seat) -> Verdict {
    let most = seat.store.capability().max_txn_ops;
    ensure!(
        most >= 128,
        "the portable limit is 128 operations, this store has {most}"
    );
    let mut txn = Txn::new();
    for n in 0..most / 2 {
        txn = txn.create(key(&format!("n/{n}"))?, json(n)?);
    }
    seat.commit(txn).await?;
    ensure_eq!(seat.list("n").await?.items.len(), most / 2, "not all was written");
    Ok(())
}

/// A JSON string of `length` bytes.
fn text(length: usize) -> Value {
    Value::from_json_bytes(format!("\"{}\"", "x".repeat(length.saturating_sub(2))).into_bytes())
}

async fn a_value_that_is_too_long(seat: &mut Seat) -> Verdict {
    let most = seat.store.capability().max_value_len;
    let txn = Txn::new().put(key("a")?, json(1)?).put(key("b")?, text(most + 1));
    refused(
        seat.store.commit(txn).await,
        ErrorKind::TooLarge,
        "one byte too many",
    )?;
    ensure!(seat.list("").await?.items.is_empty(), "something was written");
    Ok(())
}

async fn the_longest_value_is_taken(seat: &mut Seat) -> Verdict {
    let value = text(seat.store.capability().max_value_len);
    seat.commit(Txn::new().put(key("a")?, value.clone())).await?;
    let kv = seat.have("a").await?;
    ensure!(
        kv.value.parse::<String>()? == value.parse::<String>()?,
        "it came back changed"
    );
    Ok(())
}

async fn a_value_that_is_no_json(seat: &mut Seat) -> Verdict {
    for bad in ["", "{", "{\"a\":1,}", "nil", "1 2", "\"\\x\"", "'a'"] {
        let txn = Txn::new().put(key("a")?, Value::from_json_bytes(bad.as_bytes().to_vec()));
        refused(
            seat.store.commit(txn).await,
            ErrorKind::Invalid,
            &format!("value {bad:?}"),
        )?;
    }
    let txn = Txn::new().put(key("a")?, Value::from_json_bytes(vec![b'"', 0xff, b'"']));
    refused(
        seat.store.commit(txn).await,
        ErrorKind::Invalid,
        "a value that is no UTF-8",
    )?;
    ensure!(seat.get("a").await?.is_none(), "something was written");
    Ok(())
}

async fn refused_before_the_guards_are_looked_at(seat: &mut Seat) -> Verdict {
    seat.create("a", 1).await?;
    let txn = Txn::new()
        .guard(Guard::Absent(key("a")?))
        .put(key("b")?, json(1)?)
        .delete(key("b")?);
    refused(
        seat.store.commit(txn).await,
        ErrorKind::Invalid,
        "an invalid transaction whose guard fails",
    )
}
