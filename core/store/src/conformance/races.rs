//! Many at once. Everybody steps back between reading and writing, so that also a store that never waits is raced.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::task::{JoinSet, yield_now};

use super::failure::{ensure, ensure_eq};
use super::seat::{commit, json, key, lease, number, prefix};
use super::{Case, Failure, Seat, Verdict, case};
use crate::{Backend, DynBackend, Grant, Guard, Key, LeaseMode, ListOptions, Outcome, Revision, Table, Txn};

pub(super) fn cases() -> Vec<Case> {
    vec![
        case!("race", counters_lose_nothing),
        case!("race", one_of_many_creates_wins),
        case!("race", transfers_keep_the_sum),
        case!("race", revisions_are_given_once),
        case!("race", a_watcher_sees_every_commit_of_all_writers),
        case!("race", one_of_many_gets_the_lease),
        case!("race", take_overs_get_epochs_of_their_own),
        case!("race", fenced_writes_of_two_holders_do_not_interleave),
        case!("race", a_chain_of_reads_never_goes_back),
        case!("race", typed_updates_lose_nothing),
    ]
}

/// Awaits all tasks; the first failure is the verdict.
async fn all<T: 'static>(mut tasks: JoinSet<Result<T, Failure>>) -> Result<Vec<T>, Failure> {
    let mut answers = Vec::new();
    while let Some(done) = tasks.join_next().await {
        answers.push(done??);
    }
    Ok(answers)
}

/// Reads and replaces until it worked: how often somebody else was faster.
async fn add(store: &dyn Backend, path: &Key, by: i64) -> Result<Revision, Failure> {
    loop {
        let kv = store
            .get(path)
            .await?
            .ok_or_else(|| Failure::new(format!("{path} is gone")))?;
        yield_now().await;
        let txn = Txn::new().replace(path.clone(), kv.modified, json(number(&kv)? + by)?);
        if let Outcome::Committed { revision } = store.commit(txn).await? {
            return Ok(revision);
        }
    }
}

const TASKS: usize = 8;
const EACH: usize = 20;

async fn counters_lose_nothing(seat: &mut Seat) -> Verdict {
    seat.create("counter", 0).await?;
    let mut tasks = JoinSet::new();
    for n in 0..TASKS {
        let store = if n % 2 == 0 {
            seat.store.clone()
        } else {
            seat.second()
        };
        tasks.spawn(async move {
            for _ in 0..EACH {
                add(&*store, &key("counter")?, 1).await?;
            }
            Ok(())
        });
    }
    all(tasks).await?;
    ensure_eq!(
        number(&seat.have("counter").await?)?,
        i64::try_from(TASKS * EACH)?,
        "increments got lost or doubled"
    );
    Ok(())
}

async fn one_of_many_creates_wins(seat: &mut Seat) -> Verdict {
    for round in 0..10 {
        let path = key(&format!("a/{round}"))?;
        let mut tasks = JoinSet::new();
        for n in 0..TASKS {
            let (store, path) = (
                if n % 2 == 0 {
                    seat.store.clone()
                } else {
                    seat.second()
                },
                path.clone(),
            );
            tasks.spawn(async move { Ok((n, store.commit(Txn::new().create(path, json(n)?)).await?)) });
        }
        let answers = all(tasks).await?;
        let won: Vec<_> = answers
            .iter()
            .filter_map(|(n, o)| o.committed().map(|r| (*n, r)))
            .collect();
        let [(winner, revision)] = won[..] else {
            return Err(Failure::new(format!("not one winner: {answers:?}")));
        };
        for (_, outcome) in answers.iter().filter(|(n, _)| *n != winner) {
            ensure_eq!(
                *outcome,
                Outcome::Conflict {
                    guard: 0,
                    current: Some(revision)
                },
                "what the others were told"
            );
        }
        ensure_eq!(
            number(&seat.have(path.as_str()).await?)?,
            i64::try_from(winner)?,
            "another one's document is there"
        );
    }
    Ok(())
}

async fn transfer(store: &dyn Backend, from: &Key, to: &Key) -> Verdict {
    loop {
        let missing = || Failure::new("an account is gone");
        let a = store.get(from).await?.ok_or_else(missing)?;
        let b = store.get(to).await?.ok_or_else(missing)?;
        yield_now().await;
        let txn = Txn::new()
            .replace(from.clone(), a.modified, json(number(&a)? - 1)?)
            .replace(to.clone(), b.modified, json(number(&b)? + 1)?);
        if store.commit(txn).await?.committed().is_some() {
            return Ok(());
        }
    }
}

async fn transfers_keep_the_sum(seat: &mut Seat) -> Verdict {
    const ACCOUNTS: usize = 5;
    for n in 0..ACCOUNTS {
        seat.create(&format!("account/{n}"), 100).await?;
    }
    let mut tasks = JoinSet::new();
    for n in 0..4 {
        let store = seat.second();
        tasks.spawn(async move {
            for step in 0..15 {
                let (from, to) = ((n + step) % ACCOUNTS, (n + step * 2 + 1) % ACCOUNTS);
                if from != to {
                    transfer(
                        &*store,
                        &key(&format!("account/{from}"))?,
                        &key(&format!("account/{to}"))?,
                    )
                    .await?;
                }
            }
            Ok(())
        });
    }
    let reader = seat.store.clone();
    tasks.spawn(async move {
        for _ in 0..40 {
            let page = reader.list(&prefix("account")?, ListOptions::default()).await?;
            let sum: i64 = page.items.iter().map(number).sum::<Result<_, _>>()?;
            yield_now().await;
            ensure_eq!(sum, 500, "a listing at {} saw half a transfer", page.revision);
        }
        Ok(())
    });
    all(tasks).await?;
    let sum: i64 = seat
        .list("account")
        .await?
        .items
        .iter()
        .map(number)
        .sum::<Result<_, _>>()?;
    ensure_eq!(sum, 500, "money was made or lost");
    Ok(())
}

/// Many writers on keys of their own: the revisions they were told.
async fn many_writers(seat: &Seat) -> Result<Vec<Revision>, Failure> {
    let mut tasks = JoinSet::new();
    for w in 0..TASKS {
        let store = if w % 2 == 0 {
            seat.store.clone()
        } else {
            seat.second()
        };
        tasks.spawn(async move {
            let mut revisions = Vec::new();
            for n in 0..EACH {
                let txn = Txn::new()
                    .put(key(&format!("a/{w}"))?, json(n)?)
                    .put(key("a/shared")?, json(n)?);
                revisions.push(commit(&*store, txn).await?);
                yield_now().await;
            }
            ensure!(
                revisions.windows(2).all(|r| r[0] < r[1]),
                "one writer's revisions went back: {revisions:?}"
            );
            Ok(revisions)
        });
    }
    Ok(all(tasks).await?.into_iter().flatten().collect())
}

async fn revisions_are_given_once(seat: &mut Seat) -> Verdict {
    let revisions = many_writers(seat).await?;
    let different: BTreeSet<_> = revisions.iter().collect();
    ensure_eq!(different.len(), revisions.len(), "two commits have one revision");
    ensure_eq!(
        different.last().copied().copied(),
        Some(seat.revision().await?),
        "the last revision"
    );
    Ok(())
}

async fn a_watcher_sees_every_commit_of_all_writers(seat: &mut Seat) -> Verdict {
    let mut events = seat.watch("a", seat.revision().await?)?;
    let mut wanted = many_writers(seat).await?;
    wanted.sort_unstable();
    for revision in wanted {
        let seen = events.expect(revision).await?;
        ensure_eq!(seen.changes.len(), 2, "the commit came in pieces");
    }
    Ok(())
}

async fn everybody_asks(seat: &Seat, mode: LeaseMode) -> Result<Vec<Grant>, Failure> {
    let mut tasks = JoinSet::new();
    for n in 0..TASKS {
        let (store, ttl) = (
            if n % 2 == 0 {
                seat.store.clone()
            } else {
                seat.second()
            },
            seat.ttl * 10,
        );
        tasks.spawn(async move { Ok(store.grant(&lease("a")?, &format!("task {n}"), ttl, mode).await?) });
    }
    all(tasks).await
}

async fn one_of_many_gets_the_lease(seat: &mut Seat) -> Verdict {
    let answers = everybody_asks(seat, LeaseMode::Acquire).await?;
    let granted = answers
        .iter()
        .filter(|g| matches!(g, Grant::Granted { .. }))
        .count();
    ensure_eq!(granted, 1, "who got it: {answers:?}");
    Ok(())
}

async fn take_overs_get_epochs_of_their_own(seat: &mut Seat) -> Verdict {
    let answers = everybody_asks(seat, LeaseMode::TakeOver).await?;
    let epochs: BTreeSet<u64> = answers
        .iter()
        .filter_map(|g| match g {
            Grant::Granted { epoch } => Some(*epoch),
            Grant::Held(_) => None,
        })
        .collect();
    ensure_eq!(epochs.len(), TASKS, "two holders with one epoch: {answers:?}");
    Ok(())
}

/// Takes the lease over and appends its epoch to the log until it is fenced off.
async fn append_while_held(store: DynBackend, ttl: Duration) -> Verdict {
    let Grant::Granted { epoch } = store
        .grant(&lease("a")?, "writer", ttl, LeaseMode::TakeOver)
        .await?
    else {
        return Err(Failure::new("a take-over was not granted"));
    };
    for _ in 0..10 {
        let log = store
            .get(&key("log")?)
            .await?
            .ok_or_else(|| Failure::new("the log is gone"))?;
        let mut epochs: Vec<u64> = log.value.parse()?;
        epochs.push(epoch);
        yield_now().await;
        let txn =
            Txn::new()
                .guard(Guard::Lease(lease("a")?, epoch))
                .replace(log.key, log.modified, json(epochs)?);
        match store.commit(txn).await? {
            Outcome::Conflict { guard: 0, .. } => return Ok(()),
            Outcome::Conflict { .. } | Outcome::Committed { .. } => {}
        }
    }
    Ok(())
}

async fn fenced_writes_of_two_holders_do_not_interleave(seat: &mut Seat) -> Verdict {
    seat.create("log", serde_json::json!([])).await?;
    let mut tasks = JoinSet::new();
    for n in 0..TASKS {
        let store = if n % 2 == 0 {
            seat.store.clone()
        } else {
            seat.second()
        };
        tasks.spawn(append_while_held(store, seat.ttl * 10));
    }
    all(tasks).await?;
    let epochs: Vec<u64> = seat.have("log").await?.value.parse()?;
    ensure!(!epochs.is_empty(), "nobody wrote");
    ensure!(
        epochs.is_sorted(),
        "a former holder wrote after a later one: {epochs:?}"
    );
    Ok(())
}

async fn a_chain_of_reads_never_goes_back(seat: &mut Seat) -> Verdict {
    seat.create("a", 0).await?;
    let mut tasks = JoinSet::new();
    let writer = seat.second();
    tasks.spawn(async move {
        for _ in 0..60 {
            add(&*writer, &key("a")?, 1).await?;
        }
        Ok(())
    });
    for _ in 0..2 {
        let (here, there) = (seat.store.clone(), seat.second());
        tasks.spawn(async move {
            let mut last = Revision(0);
            for n in 0..100 {
                let store = if n % 2 == 0 { &here } else { &there };
                let kv = store
                    .get(&key("a")?)
                    .await?
                    .ok_or_else(|| Failure::new("it is gone"))?;
                ensure!(
                    kv.modified >= last,
                    "a later read saw {} after {last}",
                    kv.modified
                );
                last = kv.modified;
                yield_now().await;
            }
            Ok(())
        });
    }
    all(tasks).await?;
    Ok(())
}

async fn typed_updates_lose_nothing(seat: &mut Seat) -> Verdict {
    let table = Table::<i64>::new(seat.store.clone(), prefix("n")?);
    let counter = table.key("1")?;
    table.create(&counter, &0).await?;
    let mut tasks = JoinSet::new();
    for _ in 0..4 {
        let (table, counter) = (table.clone(), counter.clone());
        tasks.spawn(async move {
            let mut done = 0;
            while done < EACH {
                let add = |n: &mut i64| {
                    *n += 1;
                    Ok::<(), crate::Error>(())
                };
                match table.update(&counter, add).await {
                    Ok(_) => done += 1,
                    Err(e) if e.kind() == crate::ErrorKind::Conflict => {}
                    Err(e) => return Err(e.into()),
                }
            }
            Ok(())
        });
    }
    all(tasks).await?;
    ensure_eq!(
        table.get(&counter).await?.map(|d| d.value),
        Some(i64::try_from(4 * EACH)?),
        "updates got lost"
    );
    Ok(())
}
