//! Under faults: what callers do with unknown outcomes, and that mirrors and retries cope.

use std::sync::Arc;
use std::time::Duration;

use futures::future::join;
use skyloom_model::{ManualClock, SeededIds};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::failure::{ensure, ensure_eq};
use super::seat::{json, key, prefix};
use super::{Case, Failure, Seat, Verdict, case};
use crate::layer::{Chaos, ChaosConfig, Retry, RetryConfig};
use crate::{Backend, Class, DynBackend, ErrorKind, Mirror, Outcome, Store as _, Txn};

pub(super) fn cases() -> Vec<Case> {
    vec![
        case!("fault", an_unknown_commit_happened_wholly_or_not_at_all),
        case!("fault", reading_back_settles_unknown_outcomes),
        case!("fault", retries_hide_a_store_that_comes_and_goes),
        case!("fault", a_mirror_copes_with_a_bad_network),
        case!("fault", a_mirror_copes_with_repeated_events),
    ]
}

/// The seat's store behind faults.
fn bad(store: &DynBackend, config: ChaosConfig, seed: u64) -> DynBackend {
    Arc::new(Chaos::new(store.clone(), config, seed))
}

async fn an_unknown_commit_happened_wholly_or_not_at_all(seat: &mut Seat) -> Verdict {
    let faulty = bad(
        &seat.store,
        ChaosConfig::default().with_lose_answer(300).with_lose_commit(300),
        1,
    );
    let (mut done, mut not_done) = (0, 0);
    for n in 0..60 {
        let (a, b) = (format!("a/{n}"), format!("b/{n}"));
        let txn = Txn::new().create(key(&a)?, json(n)?).create(key(&b)?, json(n)?);
        match faulty.commit(txn).await {
            Ok(outcome) => ensure!(
                outcome.committed().is_some(),
                "nobody else writes, but: {outcome:?}"
            ),
            Err(e) => {
                ensure_eq!(e.kind(), ErrorKind::Unknown, "wrong kind of error ({e})");
                let (a, b) = (seat.get(&a).await?, seat.get(&b).await?);
                ensure_eq!(
                    a.map(|kv| kv.created),
                    b.map(|kv| kv.created),
                    "half a commit happened"
                );
                if seat.get(&format!("a/{n}")).await?.is_some() {
                    done += 1
                } else {
                    not_done += 1
                }
            }
        }
    }
    ensure!(
        done > 0 && not_done > 0,
        "the faults were too tame: {done} done, {not_done} not done"
    );
    Ok(())
}

/// Appends `id` to the log exactly once, whatever the network does.
async fn append(store: &dyn Backend, id: u64) -> Verdict {
    loop {
        let log = match store.get(&key("log")?).await {
            Ok(Some(log)) => log,
            Ok(None) => return Err(Failure::new("the log is gone")),
            Err(e) if e.class() == Class::Transient => continue,
            Err(e) => return Err(e.into()),
        };
        let mut ids: Vec<u64> = log.value.parse()?;
        if ids.contains(&id) {
            return Ok(());
        }
        ids.push(id);
        match store
            .commit(Txn::new().replace(log.key, log.modified, json(ids)?))
            .await
        {
            Ok(Outcome::Committed { .. }) => return Ok(()),
            Ok(Outcome::Conflict { .. }) => {}
            // Read back: the id is there or it is not.
            Err(e) if e.kind() == ErrorKind::Unknown || e.class() == Class::Transient => {}
            Err(e) => return Err(e.into()),
        }
    }
}

async fn reading_back_settles_unknown_outcomes(seat: &mut Seat) -> Verdict {
    seat.create("log", serde_json::json!([])).await?;
    let mut tasks = JoinSet::new();
    for writer in 0..4 {
        let store = bad(&seat.store, ChaosConfig::allowed(150), writer);
        tasks.spawn(async move {
            for n in 0..15 {
                append(&*store, writer * 100 + n).await?;
            }
            Ok::<_, Failure>(())
        });
    }
    while let Some(done) = tasks.join_next().await {
        done??;
    }
    let mut ids: Vec<u64> = seat.have("log").await?.value.parse()?;
    ids.sort_unstable();
    let wanted: Vec<u64> = (0..4)
        .flat_map(|writer| (0..15).map(move |n| writer * 100 + n))
        .collect();
    ensure_eq!(ids, wanted, "entries got lost or doubled");
    Ok(())
}

async fn retries_hide_a_store_that_comes_and_goes(seat: &mut Seat) -> Verdict {
    let ids = Arc::new(SeededIds::new(ManualClock::new(), 5));
    let config = RetryConfig::default()
        .with_tries(30)
        .with_waits(Duration::from_micros(10), Duration::from_micros(100));
    let store = Retry::new(
        bad(&seat.store, ChaosConfig::default().with_refuse(400), 5),
        config,
        ids,
    );
    for n in 0..40 {
        let path = key(&format!("a/{n}"))?;
        let outcome = store.commit(Txn::new().create(path.clone(), json(n)?)).await?;
        ensure!(outcome.committed().is_some(), "it was done twice: {outcome:?}");
        ensure!(store.get(&path).await?.is_some(), "it was not done");
    }
    Ok(())
}

async fn follows(seat: &Seat, config: ChaosConfig, rounds: u64) -> Verdict {
    let faulty = bad(&seat.store, config, 9);
    let (mirror, driver) = Mirror::<u64>::builder(faulty, prefix("a")?)
        .with_page(4)
        .with_backoff(Duration::from_micros(100), Duration::from_millis(1))
        .build();
    let stop = CancellationToken::new();
    let work = async {
        let verdict = async {
            for n in 0..rounds {
                let path = format!("a/{}", n % 11);
                let last = if n % 3 == 2 {
                    seat.delete(&path).await?
                } else {
                    seat.put(&path, n).await?
                };
                if n % 20 == 19 {
                    let last = seat.put("a/last", n).await?.max(last);
                    mirror.wait_for(last).await?;
                    let held: Vec<_> = mirror
                        .snapshot()
                        .iter()
                        .map(|d| (d.key.clone(), d.modified))
                        .collect();
                    let listed: Vec<_> = seat
                        .list("a")
                        .await?
                        .items
                        .into_iter()
                        .map(|kv| (kv.key, kv.modified))
                        .collect();
                    ensure_eq!(held, listed, "the mirror differs from the store at {last}");
                }
            }
            Ok(())
        };
        let verdict = verdict.await;
        stop.cancel();
        verdict
    };
    join(driver.run(stop.clone()), work).await.1
}

async fn a_mirror_copes_with_a_bad_network(seat: &mut Seat) -> Verdict {
    follows(seat, ChaosConfig::allowed(100), 200).await
}

async fn a_mirror_copes_with_repeated_events(seat: &mut Seat) -> Verdict {
    follows(seat, ChaosConfig::default().with_watch_repeat(500), 100).await
}
