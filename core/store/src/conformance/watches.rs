//! What a watcher must see.

use super::failure::{ensure, ensure_eq};
use super::seat::{document, json, key, number};
use super::{Case, Failure, Seat, Verdict, case};
use crate::{Change, Guard, Revision, Txn};

pub(super) fn cases() -> Vec<Case> {
    vec![
        case!("watch", commits_come_in_order),
        case!("watch", one_event_per_commit),
        case!("watch", changes_are_in_key_order),
        case!("watch", a_put_carries_the_whole_document),
        case!("watch", a_created_document_is_recognisable),
        case!("watch", deletes_are_seen),
        case!("watch", a_document_created_again_is_seen_as_new),
        case!("watch", only_changes_below_the_prefix),
        case!("watch", a_prefix_ends_at_a_delimiter),
        case!("watch", a_commit_partly_below_the_prefix),
        case!("watch", other_commits_make_no_event),
        case!("watch", what_did_not_happen_makes_no_event),
        case!("watch", from_the_beginning),
        case!("watch", from_the_present),
        case!("watch", from_every_revision),
        case!("watch", from_a_revision_of_another_prefix),
        case!("watch", resuming_delivers_nothing_twice),
        case!("watch", many_commits_before_the_first_look),
        case!("watch", many_watchers_see_the_same),
        case!("watch", every_watcher_sees_its_own_prefix),
        case!("watch", another_handle_is_seen),
        case!("watch", a_dropped_watcher_disturbs_nobody),
        case!("watch", large_commits),
    ]
}

async fn commits_come_in_order(seat: &mut Seat) -> Verdict {
    let mut events = seat.watch("a", seat.revision().await?)?;
    for n in 0..50 {
        let revision = seat.put(&format!("a/{}", n % 3), n).await?;
        events.expect(revision).await?;
    }
    let mut revisions = Vec::new();
    for n in 0..50 {
        revisions.push(seat.put(&format!("a/{}", n % 3), n).await?);
    }
    for revision in revisions {
        events.expect(revision).await?;
    }
    Ok(())
}

async fn one_event_per_commit(seat: &mut Seat) -> Verdict {
    seat.put("a/old", 0).await?;
    let mut events = seat.watch("a", seat.revision().await?)?;
    for n in 0..10 {
        let txn = Txn::new()
            .put(key("a/1")?, json(n)?)
            .put(key("a/2")?, json(n)?)
            .put(key("a/3")?, json(n)?);
        let revision = seat.commit(txn).await?;
        let seen = events.expect(revision).await?;
        ensure_eq!(seen.paths(), ["a/1", "a/2", "a/3"], "the commit came in pieces");
    }
    Ok(())
}

async fn changes_are_in_key_order(seat: &mut Seat) -> Verdict {
    seat.put("a/m", 0).await?;
    let mut events = seat.watch("", seat.revision().await?)?;
    let txn = Txn::new()
        .put(key("b")?, json(1)?)
        .put(key("a/z")?, json(1)?)
        .delete(key("a/m")?)
        .put(key("a-")?, json(1)?);
    let revision = seat.commit(txn).await?;
    ensure_eq!(
        events.expect(revision).await?.paths(),
        ["a-", "a/m", "a/z", "b"],
        "another order"
    );
    Ok(())
}

fn only_put(changes: &[Change]) -> Result<&crate::KeyValue, Failure> {
    match changes {
        [Change::Put(kv)] => Ok(kv),
        other => Err(Failure::new(format!("wanted one put, got {other:?}"))),
    }
}

async fn a_put_carries_the_whole_document(seat: &mut Seat) -> Verdict {
    let created = seat.create("a/1", "one").await?;
    let mut events = seat.watch("a", created)?;
    let modified = seat.put("a/1", "two").await?;
    let seen = events.expect(modified).await?;
    let kv = only_put(&seen.changes)?;
    ensure_eq!(
        (kv.created, kv.modified, document(kv)?),
        (created, modified, "two".into()),
        "wrong document"
    );
    ensure_eq!(seat.get("a/1").await?.as_ref(), Some(kv), "get and watch differ");
    Ok(())
}

async fn a_created_document_is_recognisable(seat: &mut Seat) -> Verdict {
    let mut events = seat.watch("a", seat.revision().await?)?;
    seat.create("a/1", 1).await?;
    seat.put("a/1", 2).await?;
    let (first, second) = (events.commit().await?, events.commit().await?);
    let (first, second) = (only_put(&first.changes)?, only_put(&second.changes)?);
    ensure!(
        first.created == first.modified,
        "a creation looks like a replacement: {first:?}"
    );
    ensure!(
        second.created < second.modified,
        "a replacement looks like a creation: {second:?}"
    );
    Ok(())
}

async fn deletes_are_seen(seat: &mut Seat) -> Verdict {
    seat.create("a/1", 1).await?;
    let created = seat.create("a/2", 1).await?;
    let mut events = seat.watch("a", created)?;
    let deleted = seat.delete("a/1").await?;
    ensure_eq!(
        events.expect(deleted).await?.changes,
        [Change::Delete(key("a/1")?)],
        "not the delete"
    );
    let both = seat
        .commit(
            Txn::new()
                .delete(key("a/2")?)
                .delete(key("a/1")?)
                .put(key("a/3")?, json(1)?),
        )
        .await?;
    let seen = events.expect(both).await?;
    ensure_eq!(
        seen.paths(),
        ["a/2", "a/3"],
        "deleting what is absent is no change"
    );
    Ok(())
}

async fn a_document_created_again_is_seen_as_new(seat: &mut Seat) -> Verdict {
    let start = seat.create("a/1", 1).await?;
    seat.delete("a/1").await?;
    let again = seat.create("a/1", 2).await?;
    let mut events = seat.watch("a", start)?;
    events.commit().await?;
    let seen = events.expect(again).await?;
    ensure_eq!(
        only_put(&seen.changes)?.created,
        again,
        "the old life shines through"
    );
    Ok(())
}

async fn only_changes_below_the_prefix(seat: &mut Seat) -> Verdict {
    let mut events = seat.watch("a/b", seat.revision().await?)?;
    for path in ["a", "a/b", "a/c/1", "b/a/b/1", "x"] {
        seat.put(path, 0).await?;
    }
    let below = seat.put("a/b/1", 0).await?;
    events.expect(below).await?;
    Ok(())
}

async fn a_prefix_ends_at_a_delimiter(seat: &mut Seat) -> Verdict {
    let mut events = seat.watch("hosts/host1", seat.revision().await?)?;
    seat.put("hosts/host10/jobs", 0).await?;
    seat.put("hosts/host1-b/jobs", 0).await?;
    seat.put("hosts/host1", 0).await?;
    let mine = seat.put("hosts/host1/jobs", 0).await?;
    ensure_eq!(
        events.expect(mine).await?.paths(),
        ["hosts/host1/jobs"],
        "another host's key"
    );
    Ok(())
}

async fn a_commit_partly_below_the_prefix(seat: &mut Seat) -> Verdict {
    seat.put("b/9", 0).await?;
    let mut events = seat.watch("a", seat.revision().await?)?;
    let txn = Txn::new()
        .put(key("b/1")?, json(1)?)
        .put(key("a/1")?, json(1)?)
        .delete(key("b/9")?);
    let revision = seat.commit(txn).await?;
    ensure_eq!(
        events.expect(revision).await?.paths(),
        ["a/1"],
        "changes outside the prefix"
    );
    Ok(())
}

async fn other_commits_make_no_event(seat: &mut Seat) -> Verdict {
    let mut events = seat.watch("a", seat.revision().await?)?;
    for n in 0..100 {
        seat.put(&format!("b/{n}"), n).await?;
    }
    let mine = seat.put("a/1", 0).await?;
    events.expect(mine).await?;
    Ok(())
}

async fn what_did_not_happen_makes_no_event(seat: &mut Seat) -> Verdict {
    let start = seat.create("a/1", 1).await?;
    let mut events = seat.watch("", start)?;
    seat.conflict(
        Txn::new()
            .create(key("a/1")?, json(2)?)
            .put(key("a/2")?, json(2)?),
    )
    .await?;
    let twice = Txn::new().put(key("a/3")?, json(1)?).delete(key("a/3")?);
    ensure!(
        seat.store.commit(twice).await.is_err(),
        "a key written twice was taken"
    );
    seat.commit(Txn::new().guard(Guard::Absent(key("x")?))).await?;
    seat.commit(Txn::new()).await?;
    let marker = seat.put("marker", 0).await?;
    events.expect(marker).await?;
    Ok(())
}

/// Twenty commits of all sorts: the revisions.
async fn history(seat: &Seat) -> Result<Vec<Revision>, Failure> {
    let mut revisions = Vec::new();
    for n in 0..20 {
        revisions.push(match n % 4 {
            3 => seat.delete(&format!("a/{}", n - 1)).await?,
            _ => seat.put(&format!("a/{n}"), n).await?,
        });
    }
    Ok(revisions)
}

async fn from_the_beginning(seat: &mut Seat) -> Verdict {
    let revisions = history(seat).await?;
    let mut events = seat.watch("", Revision(0))?;
    for revision in revisions {
        events.expect(revision).await?;
    }
    Ok(())
}

async fn from_the_present(seat: &mut Seat) -> Verdict {
    let revisions = history(seat).await?;
    let Some(last) = revisions.last() else {
        return Ok(());
    };
    let mut events = seat.watch("a", *last)?;
    let next = seat.put("a/next", 0).await?;
    events.expect(next).await?;
    Ok(())
}

async fn from_every_revision(seat: &mut Seat) -> Verdict {
    let revisions = history(seat).await?;
    for (n, after) in revisions.iter().enumerate() {
        let mut events = seat.watch("a", *after)?;
        for later in &revisions[n + 1..] {
            events.expect(*later).await?;
        }
    }
    Ok(())
}

async fn from_a_revision_of_another_prefix(seat: &mut Seat) -> Verdict {
    seat.put("a/1", 0).await?;
    let other = seat.put("b/1", 0).await?;
    let mine = seat.put("a/2", 0).await?;
    seat.watch("a", other)?.expect(mine).await?;
    Ok(())
}

async fn resuming_delivers_nothing_twice(seat: &mut Seat) -> Verdict {
    let start = seat.revision().await?;
    let revisions = history(seat).await?;
    let mut last = start;
    let mut delivered = Vec::new();
    while delivered.len() < revisions.len() {
        let mut events = seat.watch("a", last)?;
        for _ in 0..3.min(revisions.len() - delivered.len()) {
            let seen = events.commit().await?;
            last = seen.revision;
            delivered.push(last);
        }
    }
    ensure_eq!(delivered, revisions, "in pieces of three");
    Ok(())
}

async fn many_commits_before_the_first_look(seat: &mut Seat) -> Verdict {
    let mut events = seat.watch("a", seat.revision().await?)?;
    let mut revisions = Vec::new();
    for n in 0..200 {
        revisions.push(seat.put("a/1", n).await?);
    }
    for (n, revision) in revisions.into_iter().enumerate() {
        let seen = events.expect(revision).await?;
        ensure_eq!(
            number(only_put(&seen.changes)?)?,
            i64::try_from(n)?,
            "another content than was committed"
        );
    }
    Ok(())
}

async fn many_watchers_see_the_same(seat: &mut Seat) -> Verdict {
    let start = seat.revision().await?;
    let mut watchers = (0..50)
        .map(|_| seat.watch("a", start))
        .collect::<Result<Vec<_>, _>>()?;
    let revisions = history(seat).await?;
    let mut first = None;
    for events in &mut watchers {
        let mut seen = Vec::new();
        for revision in &revisions {
            seen.push(events.expect(*revision).await?);
        }
        ensure_eq!(
            *first.get_or_insert_with(|| format!("{seen:?}")),
            format!("{seen:?}"),
            "watchers differ"
        );
    }
    Ok(())
}

async fn every_watcher_sees_its_own_prefix(seat: &mut Seat) -> Verdict {
    let start = seat.revision().await?;
    let hosts = 30;
    let mut watchers = (0..hosts)
        .map(|h| seat.watch(&format!("hosts/{h}"), start))
        .collect::<Result<Vec<_>, _>>()?;
    let mut all = seat.watch("hosts", start)?;
    for n in 0..3 {
        for (h, events) in watchers.iter_mut().enumerate() {
            let revision = seat.put(&format!("hosts/{h}/job"), n).await?;
            events.expect(revision).await?;
            all.expect(revision).await?;
        }
    }
    Ok(())
}

async fn another_handle_is_seen(seat: &mut Seat) -> Verdict {
    let other = seat.second();
    let mut here = seat.watch("a", seat.revision().await?)?;
    let mut there =
        super::seat::Events::open(&*other, "a", crate::WatchOptions::after(seat.revision().await?))?;
    for n in 0..10 {
        let writer = if n % 2 == 0 { &other } else { &seat.store };
        let revision = super::seat::commit(&**writer, Txn::new().put(key("a/1")?, json(n)?)).await?;
        here.expect(revision).await?;
        there.expect(revision).await?;
    }
    Ok(())
}

async fn a_dropped_watcher_disturbs_nobody(seat: &mut Seat) -> Verdict {
    let start = seat.revision().await?;
    let mut stays = seat.watch("a", start)?;
    for n in 0..20 {
        let mut goes = seat.watch("a", seat.revision().await?)?;
        let never_read = seat.watch("a", start)?;
        let revision = seat.put("a/1", n).await?;
        goes.expect(revision).await?;
        drop((goes, never_read));
        stays.expect(revision).await?;
    }
    Ok(())
}

async fn large_commits(seat: &mut Seat) -> Verdict {
    let mut events = seat.watch("a", seat.revision().await?)?;
    let text = "x".repeat(20_000);
    for _ in 0..5 {
        let mut txn = Txn::new();
        for n in 0..50 {
            txn = txn.put(key(&format!("a/{n:02}"))?, json(text.clone())?);
        }
        let revision = seat.commit(txn).await?;
        ensure_eq!(
            events.expect(revision).await?.changes.len(),
            50,
            "not the whole commit"
        );
    }
    Ok(())
}
