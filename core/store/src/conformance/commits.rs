//! Transactions: guards, atomicity, revisions.

use super::failure::{ensure, ensure_eq};
use super::seat::{document, json, key, number};
use super::{Case, Seat, Verdict, case};
use crate::{Guard, Outcome, Revision, Txn};

pub(super) fn cases() -> Vec<Case> {
    vec![
        case!("commit", a_created_document_is_there),
        case!("commit", create_conflicts_when_it_is_there),
        case!("commit", replace_as_read),
        case!("commit", replace_of_a_changed_document_conflicts),
        case!("commit", replace_of_an_absent_document_conflicts),
        case!("commit", revision_zero_is_not_absence),
        case!("commit", an_unguarded_put_creates_and_overwrites),
        case!("commit", a_put_of_the_same_document_is_a_commit),
        case!("commit", delete_removes),
        case!("commit", delete_of_nothing_changes_nothing),
        case!("commit", a_guarded_delete_of_a_changed_document_conflicts),
        case!("commit", many_writes_share_one_revision),
        case!("commit", one_failed_guard_undoes_everything),
        case!("commit", the_first_failed_guard_is_reported),
        case!("commit", a_guard_may_stand_on_a_key_that_is_not_written),
        case!("commit", two_guards_on_one_key),
        case!("commit", guards_alone_are_checked),
        case!("commit", an_empty_transaction_answers_the_present_revision),
        case!("commit", revisions_grow),
        case!("commit", created_stays_and_modified_moves),
        case!("commit", a_document_created_again_is_a_new_one),
        case!("commit", delete_and_create_are_seen_by_guards),
    ]
}

async fn a_created_document_is_there(seat: &mut Seat) -> Verdict {
    let revision = seat.create("a/1", "first").await?;
    ensure!(revision > Revision(0), "the first commit has revision {revision}");
    let kv = seat.have("a/1").await?;
    ensure_eq!(kv.key, key("a/1")?, "wrong key");
    ensure_eq!(document(&kv)?, "first", "wrong document");
    ensure_eq!((kv.created, kv.modified), (revision, revision), "wrong versions");
    Ok(())
}

async fn create_conflicts_when_it_is_there(seat: &mut Seat) -> Verdict {
    let first = seat.create("a", 1).await?;
    let (guard, current) = seat.conflict(Txn::new().create(key("a")?, json(2)?)).await?;
    ensure_eq!((guard, current), (0, Some(first)), "wrong conflict");
    ensure_eq!(number(&seat.have("a").await?)?, 1, "the refused create wrote");
    Ok(())
}

async fn replace_as_read(seat: &mut Seat) -> Verdict {
    let first = seat.create("a", 1).await?;
    let second = seat
        .commit(Txn::new().replace(key("a")?, first, json(2)?))
        .await?;
    let kv = seat.have("a").await?;
    ensure_eq!(
        (number(&kv)?, kv.modified),
        (2, second),
        "the replacement is not there"
    );
    Ok(())
}

async fn replace_of_a_changed_document_conflicts(seat: &mut Seat) -> Verdict {
    let first = seat.create("a", 1).await?;
    let second = seat.put("a", 2).await?;
    let conflict = seat
        .conflict(Txn::new().replace(key("a")?, first, json(3)?))
        .await?;
    ensure_eq!(
        conflict,
        (0, Some(second)),
        "the conflict must name the present revision"
    );
    ensure_eq!(
        number(&seat.have("a").await?)?,
        2,
        "the refused replacement wrote"
    );
    Ok(())
}

async fn replace_of_an_absent_document_conflicts(seat: &mut Seat) -> Verdict {
    let first = seat.create("a", 1).await?;
    seat.delete("a").await?;
    for path in ["a", "never"] {
        let conflict = seat
            .conflict(Txn::new().replace(key(path)?, first, json(3)?))
            .await?;
        ensure_eq!(conflict, (0, None), "{path} is absent");
        ensure!(
            seat.get(path).await?.is_none(),
            "the refused replacement wrote {path}"
        );
    }
    Ok(())
}

async fn revision_zero_is_not_absence(seat: &mut Seat) -> Verdict {
    let conflict = seat
        .conflict(Txn::new().replace(key("a")?, Revision(0), json(1)?))
        .await?;
    ensure_eq!(conflict, (0, None), "a guard on revision 0 holds for nothing");
    Ok(())
}

async fn an_unguarded_put_creates_and_overwrites(seat: &mut Seat) -> Verdict {
    seat.put("a", 1).await?;
    ensure_eq!(number(&seat.have("a").await?)?, 1, "not created");
    seat.put("a", 2).await?;
    ensure_eq!(number(&seat.have("a").await?)?, 2, "not overwritten");
    Ok(())
}

async fn a_put_of_the_same_document_is_a_commit(seat: &mut Seat) -> Verdict {
    let first = seat.put("a", 1).await?;
    let second = seat.put("a", 1).await?;
    ensure!(second > first, "writing the same again stayed at {second}");
    ensure_eq!(seat.have("a").await?.modified, second, "modified did not move");
    Ok(())
}

async fn delete_removes(seat: &mut Seat) -> Verdict {
    let first = seat.create("a", 1).await?;
    seat.create("b", 2).await?;
    let deleted = seat.delete("a").await?;
    ensure!(deleted > first, "a delete is a commit");
    ensure!(seat.get("a").await?.is_none(), "still there");
    ensure_eq!(number(&seat.have("b").await?)?, 2, "the neighbour is gone");
    Ok(())
}

async fn delete_of_nothing_changes_nothing(seat: &mut Seat) -> Verdict {
    let before = seat.create("a", 1).await?;
    let mut events = seat.watch("", before)?;
    let answer = seat.delete("b").await?;
    ensure!(answer >= before, "revision went back from {before} to {answer}");
    let marker = seat.put("marker", 0).await?;
    let seen = events.commit().await?;
    ensure_eq!(seen.revision, marker, "deleting nothing made an event: {seen:?}");
    Ok(())
}

async fn a_guarded_delete_of_a_changed_document_conflicts(seat: &mut Seat) -> Verdict {
    let first = seat.create("a", 1).await?;
    let second = seat.put("a", 2).await?;
    let delete =
        |at| Ok::<_, super::Failure>(Txn::new().guard(Guard::Revision(key("a")?, at)).delete(key("a")?));
    ensure_eq!(
        seat.conflict(delete(first)?).await?,
        (0, Some(second)),
        "wrong conflict"
    );
    ensure!(seat.get("a").await?.is_some(), "the refused delete removed");
    seat.commit(delete(second)?).await?;
    ensure!(
        seat.get("a").await?.is_none(),
        "the guarded delete removed nothing"
    );
    Ok(())
}

async fn many_writes_share_one_revision(seat: &mut Seat) -> Verdict {
    seat.create("old", 0).await?;
    let mut txn = Txn::new().delete(key("old")?);
    for n in 0..20 {
        txn = txn.put(key(&format!("n/{n}"))?, json(n)?);
    }
    let revision = seat.commit(txn).await?;
    let page = seat.list("").await?;
    ensure_eq!(page.items.len(), 20, "twenty puts and a delete");
    ensure!(
        page.items
            .iter()
            .all(|kv| kv.modified == revision && kv.created == revision),
        "other revisions: {page:?}"
    );
    ensure_eq!(
        page.revision,
        revision,
        "the commit moved the revision further than its own"
    );
    Ok(())
}

async fn one_failed_guard_undoes_everything(seat: &mut Seat) -> Verdict {
    let a = seat.create("a", 1).await?;
    let b = seat.create("b", 1).await?;
    let txn = Txn::new()
        .replace(key("a")?, a, json(2)?)
        .delete(key("b")?)
        .put(key("c")?, json(2)?)
        .guard(Guard::Absent(key("b")?));
    ensure_eq!(seat.conflict(txn).await?, (1, Some(b)), "wrong conflict");
    ensure_eq!(seat.have("a").await?.modified, a, "a was written");
    ensure_eq!(seat.have("b").await?.modified, b, "b was written");
    ensure!(seat.get("c").await?.is_none(), "c was written");
    Ok(())
}

async fn the_first_failed_guard_is_reported(seat: &mut Seat) -> Verdict {
    let a = seat.create("a", 1).await?;
    let b = seat.create("b", 1).await?;
    let txn = Txn::new()
        .guard(Guard::Revision(key("a")?, a))
        .guard(Guard::Absent(key("x")?))
        .guard(Guard::Absent(key("b")?))
        .guard(Guard::Absent(key("a")?))
        .put(key("c")?, json(1)?);
    ensure_eq!(
        seat.conflict(txn).await?,
        (2, Some(b)),
        "guards are checked in their order"
    );
    Ok(())
}

async fn a_guard_may_stand_on_a_key_that_is_not_written(seat: &mut Seat) -> Verdict {
    let lock = seat.create("lock", 1).await?;
    let write = |at| {
        Ok::<_, super::Failure>(
            Txn::new()
                .guard(Guard::Revision(key("lock")?, at))
                .put(key("a")?, json(1)?),
        )
    };
    seat.commit(write(lock)?).await?;
    ensure_eq!(seat.have("lock").await?.modified, lock, "a guard wrote");
    let moved = seat.put("lock", 2).await?;
    ensure_eq!(
        seat.conflict(write(lock)?).await?,
        (0, Some(moved)),
        "wrong conflict"
    );
    Ok(())
}

async fn two_guards_on_one_key(seat: &mut Seat) -> Verdict {
    let a = seat.create("a", 1).await?;
    let same = Txn::new()
        .guard(Guard::Revision(key("a")?, a))
        .replace(key("a")?, a, json(2)?);
    let second = seat.commit(same).await?;
    let contrary = Txn::new()
        .guard(Guard::Revision(key("a")?, second))
        .guard(Guard::Absent(key("a")?))
        .delete(key("a")?);
    ensure_eq!(
        seat.conflict(contrary).await?,
        (1, Some(second)),
        "contrary guards cannot both hold"
    );
    Ok(())
}

async fn guards_alone_are_checked(seat: &mut Seat) -> Verdict {
    let a = seat.create("a", 1).await?;
    let present = seat.put("b", 1).await?;
    let holds = seat
        .commit(
            Txn::new()
                .guard(Guard::Revision(key("a")?, a))
                .guard(Guard::Absent(key("x")?)),
        )
        .await?;
    ensure_eq!(holds, present, "a check answers the present revision");
    ensure_eq!(
        seat.conflict(Txn::new().guard(Guard::Absent(key("a")?))).await?,
        (0, Some(a)),
        "wrong conflict"
    );
    ensure_eq!(seat.revision().await?, present, "a check moved the revision");
    Ok(())
}

async fn an_empty_transaction_answers_the_present_revision(seat: &mut Seat) -> Verdict {
    let start = seat.revision().await?;
    ensure_eq!(
        seat.store.commit(Txn::new()).await?,
        Outcome::Committed { revision: start },
        "on the empty store"
    );
    let present = seat.create("a", 1).await?;
    ensure_eq!(
        seat.store.commit(Txn::new()).await?,
        Outcome::Committed { revision: present },
        "after a commit"
    );
    ensure_eq!(
        seat.revision().await?,
        present,
        "the empty transaction moved the revision"
    );
    Ok(())
}

async fn revisions_grow(seat: &mut Seat) -> Verdict {
    let mut last = seat.revision().await?;
    for n in 0..30 {
        let next = match n % 3 {
            0 => seat.put("a", n).await?,
            1 => seat.put(&format!("b/{n}"), n).await?,
            _ => seat.delete("a").await?,
        };
        ensure!(next > last, "revision {next} after {last}");
        last = next;
    }
    Ok(())
}

async fn created_stays_and_modified_moves(seat: &mut Seat) -> Verdict {
    let created = seat.create("a", 0).await?;
    for n in 1..5 {
        let modified = seat.put("a", n).await?;
        let kv = seat.have("a").await?;
        ensure_eq!((kv.created, kv.modified), (created, modified), "after write {n}");
    }
    Ok(())
}

async fn a_document_created_again_is_a_new_one(seat: &mut Seat) -> Verdict {
    let first = seat.create("a", 1).await?;
    seat.delete("a").await?;
    let again = seat.create("a", 2).await?;
    let kv = seat.have("a").await?;
    ensure_eq!(
        (kv.created, kv.modified),
        (again, again),
        "the old life shines through"
    );
    let stale = Txn::new().replace(key("a")?, first, json(3)?);
    ensure_eq!(
        seat.conflict(stale).await?,
        (0, Some(again)),
        "a revision of the old life is stale"
    );
    Ok(())
}

async fn delete_and_create_are_seen_by_guards(seat: &mut Seat) -> Verdict {
    seat.create("a", 1).await?;
    seat.delete("a").await?;
    seat.commit(
        Txn::new()
            .guard(Guard::Absent(key("a")?))
            .put(key("b")?, json(1)?),
    )
    .await?;
    seat.create("a", 2).await?;
    ensure_eq!(
        seat.conflict(Txn::new().guard(Guard::Absent(key("a")?))).await?.0,
        0,
        "a is there again"
    );
    Ok(())
}
