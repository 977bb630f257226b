//! Lost positions are told, never passed over; and list-then-watch finds everything.

use std::collections::BTreeMap;

use futures::future::try_join;
use tokio::task::yield_now;
use tokio_util::sync::CancellationToken;

use super::failure::{ensure, ensure_eq};
use super::seat::{Events, commit, json, key, list_in_pages, prefix, replay};
use super::{Abilities, Case, Failure, Seat, Verdict, case};
use crate::{DynBackend, Mirror, Revision, Txn, WatchEvent, WatchOptions};

pub(super) fn cases() -> Vec<Case> {
    let compact = Abilities {
        compact: true,
        reopen: false,
    };
    vec![
        case!("gap", from_a_compacted_revision).needing(compact),
        case!("gap", the_floor_can_be_watched_from).needing(compact),
        case!("gap", compaction_does_not_disturb_those_who_are_ahead).needing(compact),
        case!("gap", from_a_revision_that_is_not_reached),
        case!("gap", a_slow_consumer_loses_nothing_silently),
        case!("gap", a_slow_consumer_slows_nobody_down),
        case!("follow", list_then_watch_finds_everything),
        case!("follow", a_replayed_history_equals_a_listing),
        case!("follow", a_mirror_follows_writers),
        case!("follow", a_mirror_survives_compaction).needing(compact),
    ]
}

async fn from_a_compacted_revision(seat: &mut Seat) -> Verdict {
    let mut revisions = Vec::new();
    for n in 0..10 {
        revisions.push(seat.put("a/1", n).await?);
    }
    seat.compact(revisions[5]).await?;
    for after in [Revision(0), revisions[0], revisions[4]] {
        let floor = seat.watch("a", after)?.gap().await?;
        ensure!(
            floor > after,
            "watching after {after} is a gap, but the floor is {floor}"
        );
        ensure!(floor <= revisions[9], "the floor {floor} lies in the future");
    }
    // Also where nothing below the prefix is lost: nobody can know that.
    seat.watch("b", revisions[0])?.gap().await?;
    Ok(())
}

async fn the_floor_can_be_watched_from(seat: &mut Seat) -> Verdict {
    let mut revisions = Vec::new();
    for n in 0..10 {
        revisions.push(seat.put("a/1", n).await?);
    }
    seat.compact(revisions[5]).await?;
    let floor = seat.watch("a", revisions[0])?.gap().await?;
    let mut events = seat.watch("a", floor)?;
    for revision in revisions.into_iter().filter(|r| *r > floor) {
        events.expect(revision).await?;
    }
    Ok(())
}

async fn compaction_does_not_disturb_those_who_are_ahead(seat: &mut Seat) -> Verdict {
    let mut events = seat.watch("a", seat.revision().await?)?;
    for n in 0..10 {
        let revision = seat.put("a/1", n).await?;
        events.expect(revision).await?;
        seat.compact(revision).await?;
    }
    let last = seat.put("a/1", 10).await?;
    events.expect(last).await?;
    Ok(())
}

async fn from_a_revision_that_is_not_reached(seat: &mut Seat) -> Verdict {
    let present = seat.put("a/1", 0).await?;
    let floor = seat.watch("a", Revision(present.0 + 100))?.gap().await?;
    ensure!(floor <= present, "the floor {floor} lies in the future as well");
    Ok(())
}

/// Reads a watch that may end in a gap: the revisions it delivered.
async fn until_gap_or(events: &mut Events, last: Revision) -> Result<Vec<Revision>, Failure> {
    let mut delivered = Vec::new();
    loop {
        match events.item().await? {
            Some(Ok(WatchEvent::Commit { revision, .. })) => {
                delivered.push(revision);
                if revision >= last {
                    return Ok(delivered);
                }
            }
            Some(Ok(WatchEvent::Gap { floor })) => {
                ensure!(floor <= last, "the floor {floor} lies in the future");
                let after = events.item().await?;
                ensure!(after.is_none(), "after the gap came {after:?}");
                return Ok(delivered);
            }
            other => return Err(Failure::new(format!("wanted a commit or a gap, got {other:?}"))),
        }
    }
}

async fn a_slow_consumer_loses_nothing_silently(seat: &mut Seat) -> Verdict {
    let options = WatchOptions::after(seat.revision().await?).with_buffer(4);
    let mut events = Events::open(&*seat.store, "a", options)?;
    let mut revisions = Vec::new();
    for n in 0..300 {
        revisions.push(seat.put("a/1", n).await?);
    }
    let delivered = until_gap_or(&mut events, revisions[299]).await?;
    ensure!(
        revisions.starts_with(&delivered),
        "commits are missing or doubled before the gap: {delivered:?}"
    );
    Ok(())
}

async fn a_slow_consumer_slows_nobody_down(seat: &mut Seat) -> Verdict {
    let start = seat.revision().await?;
    let sleeper = Events::open(&*seat.store, "a", WatchOptions::after(start).with_buffer(2))?;
    let mut awake = seat.watch("a", start)?;
    for n in 0..300 {
        let revision = seat.put("a/1", n).await?;
        awake.expect(revision).await?;
    }
    drop(sleeper);
    Ok(())
}

/// Writes and deletes a few documents many times over.
async fn busy(store: DynBackend, seed: u64, commits: u64) -> Result<Revision, Failure> {
    let mut last = Revision(0);
    for n in 0..commits {
        let pick = (n.wrapping_mul(7) ^ seed.wrapping_mul(13)) % 9;
        let path = key(&format!("a/{pick}"))?;
        let other = key(&format!("a/x{seed}"))?;
        let txn = match n % 4 {
            3 => Txn::new().delete(path).put(other, json(n)?),
            2 => Txn::new().put(path, json(n)?).delete(other),
            _ => Txn::new().put(path, json(n)?),
        };
        last = commit(&*store, txn).await?;
        yield_now().await;
    }
    Ok(last)
}

async fn list_then_watch_finds_everything(seat: &mut Seat) -> Verdict {
    let (writer, reader) = (seat.second(), seat.store.clone());
    let end = key("a/end")?;
    let writing = async {
        busy(writer.clone(), 1, 200).await?;
        commit(&*writer, Txn::new().put(end.clone(), json("end")?)).await?;
        Ok::<_, Failure>(())
    };
    let reading = async {
        for _ in 0..10 {
            let (items, revision) = list_in_pages(&*reader, &prefix("a")?, 4).await?;
            yield_now().await;
            let mut map: BTreeMap<_, _> = items.into_iter().map(|kv| (kv.key.clone(), kv)).collect();
            let mut events = Events::open(&*reader, "a", WatchOptions::after(revision))?;
            while !map.contains_key(&end) {
                replay(&mut map, &events.commit().await?);
            }
            let (items, _) = list_in_pages(&*reader, &prefix("a")?, 100).await?;
            ensure_eq!(
                map.into_values().collect::<Vec<_>>(),
                items,
                "list and watch from {revision} missed something"
            );
        }
        Ok(())
    };
    try_join(writing, reading).await?;
    Ok(())
}

async fn a_replayed_history_equals_a_listing(seat: &mut Seat) -> Verdict {
    let last = busy(seat.store.clone(), 3, 120).await?;
    let mut map = BTreeMap::new();
    let mut events = seat.watch("a", Revision(0))?;
    loop {
        let seen = events.commit().await?;
        replay(&mut map, &seen);
        let then = seat
            .list_with("a", crate::ListOptions::default().with_at(seen.revision))
            .await?;
        ensure_eq!(
            map.values().cloned().collect::<Vec<_>>(),
            then.items,
            "as of {}",
            seen.revision
        );
        if seen.revision == last {
            return Ok(());
        }
    }
}

/// A mirror of `a/` that has seen `last` must hold what a listing says.
async fn same(mirror: &Mirror<serde_json::Value>, seat: &Seat, last: Revision) -> Verdict {
    mirror.wait_for(last).await?;
    let listed = seat.list("a").await?;
    let held = mirror.snapshot();
    let held: Vec<_> = held
        .iter()
        .map(|d| (d.key.clone(), d.value.clone(), d.modified))
        .collect();
    let mut wanted = Vec::new();
    for kv in listed.items {
        wanted.push((kv.key.clone(), super::seat::document(&kv)?, kv.modified));
    }
    ensure_eq!(held, wanted, "the mirror differs from the store at {last}");
    Ok(())
}

async fn a_mirror_follows_writers(seat: &mut Seat) -> Verdict {
    let (mirror, driver) = Mirror::builder(seat.store.clone(), prefix("a")?)
        .with_page(3)
        .build();
    let stop = CancellationToken::new();
    let work = async {
        for round in 0..3 {
            let writers = (0..3).map(|w| busy(seat.second(), w * 3 + round, 40));
            let last = futures::future::try_join_all(writers).await?.into_iter().max();
            same(&mirror, seat, last.unwrap_or_default()).await?;
        }
        Ok(())
    };
    let ((), verdict) = tokio::join!(driver.run(stop.clone()), stopping(&stop, work));
    verdict
}

async fn a_mirror_survives_compaction(seat: &mut Seat) -> Verdict {
    let (mirror, driver) = Mirror::builder(seat.store.clone(), prefix("a")?)
        .with_page(2)
        .with_buffer(3)
        .build();
    let stop = CancellationToken::new();
    let work = async {
        for round in 0..10 {
            let last = busy(seat.second(), round, 30).await?;
            seat.compact(last).await?;
            let end = seat.put("a/round", round).await?;
            same(&mirror, seat, end).await?;
        }
        Ok(())
    };
    let ((), verdict) = tokio::join!(driver.run(stop.clone()), stopping(&stop, work));
    verdict
}

/// Stops the driver also when the work failed.
async fn stopping(stop: &CancellationToken, work: impl Future<Output = Verdict>) -> Verdict {
    let verdict = work.await;
    stop.cancel();
    verdict
}
