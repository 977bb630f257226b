//! Clients that read and write a few keys at the same time, and what they were told.
//!
//! All keys of one round are checked by themselves, and all calls of the round together: a call that began after another
//! one's end never sees or makes an older revision than that did.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::task::{JoinSet, yield_now};

use super::super::failure::ensure;
use super::super::seat::{json, key};
use super::super::{Exam, Failure, Sitting, Verdict};
use super::{Action, Amount, Answer, CALM, Call, Chance, Demand, linearizable};
use crate::layer::{Chaos, ChaosConfig};
use crate::{DynBackend, ErrorKind, Guard, Key, Outcome, Revision, Txn};

/// Keys that are used at the same time.
const KEYS: usize = 10;
/// Clients of each key.
const CLIENTS: usize = 8;
/// Calls of each client.
const EACH: usize = 25;
/// Longest time that one round may take.
const ROUND: Duration = Duration::from_secs(300);

/// Runs rounds until there are enough histories. Needs a tokio runtime.
///
/// # Errors
/// The first history that is not linearizable, with its seed.
pub async fn histories(exam: &dyn Exam, amount: Amount) -> Verdict {
    let sitting = exam.fresh().await?;
    let rounds = amount.histories.div_ceil(KEYS);
    let mut verdict = Ok(());
    for round in 0..rounds {
        let seed = amount.seed.wrapping_mul(1_000_003).wrapping_add(round as u64);
        let done = tokio::time::timeout(ROUND, one_round(&*sitting, round, seed)).await;
        verdict =
            done.unwrap_or_else(|_| Err(Failure::new(format!("round {round} is not done after {ROUND:?}"))));
        if verdict.is_err() {
            break;
        }
    }
    sitting.end().await;
    verdict
}

async fn one_round(sitting: &dyn Sitting, round: usize, seed: u64) -> Verdict {
    let clock = Arc::new(AtomicU64::new(0));
    let mut clients = JoinSet::new();
    for k in 0..KEYS {
        for client in 0..CLIENTS {
            let seed = seed ^ ((k * CLIENTS + client + 1) as u64).wrapping_mul(0x2545_f491_4f6c_dd1d);
            let store = if client % 2 == 0 {
                sitting.store()
            } else {
                sitting.second()
            };
            let faults = ChaosConfig::allowed(10).with_watch_faults(0, 0, 0);
            let store: DynBackend = Arc::new(Chaos::new(store, faults, seed));
            let client = Client {
                store,
                key: key(&format!("soak/{round}/{k}"))?,
                chance: Chance(seed),
                clock: clock.clone(),
                first_doc: (client * EACH) as u32,
                seen: None,
                calls: Vec::new(),
            };
            clients.spawn(async move { client.run().await.map(|calls| (k, calls)) });
        }
    }
    let mut of_key: Vec<Vec<Call>> = vec![Vec::new(); KEYS];
    let mut chance = Chance(seed);
    loop {
        tokio::select! {
            biased;
            done = clients.join_next() => match done {
                Some(done) => {
                    let (k, calls) = done??;
                    of_key[k].extend(calls);
                }
                None => break,
            },
            () = tokio::time::sleep(CALM) => sitting.disturb(chance.next()).await?,
        }
    }
    for (k, calls) in of_key.iter().enumerate() {
        if let Err(wrong) = linearizable(calls) {
            let mut calls = calls.clone();
            calls.sort_by_key(|c| c.begin);
            return Err(Failure::new(format!(
                "soak/{round}/{k}, seed {seed}: {wrong:#?}\n{calls:#?}"
            )));
        }
    }
    revisions_never_go_back(of_key.into_iter().flatten().collect())
}

/// What is seen or made after the end of a call that saw or made a revision is not older.
fn revisions_never_go_back(calls: Vec<Call>) -> Verdict {
    let mut made: Vec<(u64, u64, Revision, bool)> = calls
        .iter()
        .filter_map(|call| match (call.action, call.answer) {
            (Action::Put(..), Answer::Done(revision)) => Some((call.begin, call.end, revision, true)),
            (_, Answer::Found(Some((_, revision)))) => Some((call.begin, call.end, revision, false)),
            _ => None,
        })
        .collect();
    let mut ends: Vec<(u64, Revision)> = made
        .iter()
        .map(|(_, end, revision, _)| (*end, *revision))
        .collect();
    ends.sort_unstable();
    made.sort_unstable();
    let (mut newest, mut ended) = (Revision(0), ends.into_iter().peekable());
    for (begin, _, revision, written) in made {
        while let Some((_, old)) = ended.next_if(|(end, _)| *end < begin) {
            newest = newest.max(old);
        }
        // A read of one key may be older than the newest commit of another key; a commit may not.
        ensure!(
            !written || revision > newest,
            "a commit at {revision} began after {newest} had been seen"
        );
    }
    Ok(())
}

struct Client {
    store: DynBackend,
    key: Key,
    chance: Chance,
    clock: Arc<AtomicU64>,
    /// The documents of this client are numbered from here on.
    first_doc: u32,
    /// What this client saw last.
    seen: Option<Revision>,
    calls: Vec<Call>,
}

impl Client {
    fn now(&self) -> u64 {
        self.clock.fetch_add(1, Ordering::SeqCst)
    }

    async fn run(mut self) -> Result<Vec<Call>, Failure> {
        for n in 0..EACH {
            let action = self.action(self.first_doc + n as u32);
            let begin = self.now();
            // So that calls overlap also on a store that never waits.
            yield_now().await;
            let answer = match action {
                Action::Read => self.read().await?,
                Action::Put(doc, demand) => {
                    let txn = Txn::new().put(self.key.clone(), json(i64::from(doc))?);
                    self.write(self.demanding(txn, demand)).await?
                }
                Action::Delete(demand) => {
                    self.write(self.demanding(Txn::new().delete(self.key.clone()), demand))
                        .await?
                }
            };
            yield_now().await;
            let end = self.now();
            match answer {
                Some(Answer::Found(found)) => self.seen = found.map(|(_, revision)| revision),
                Some(Answer::Done(revision)) => self.seen = Some(revision),
                Some(Answer::Conflict(current)) => self.seen = current,
                _ => {}
            }
            self.calls.extend(answer.map(|answer| Call {
                begin,
                end,
                action,
                answer,
            }));
        }
        Ok(self.calls)
    }

    fn action(&mut self, doc: u32) -> Action {
        let demand = match (self.chance.below(4), self.seen) {
            (0, _) => Demand::Any,
            (_, None) => Demand::Absent,
            (1, Some(_)) => Demand::Absent,
            (_, Some(seen)) => Demand::At(seen),
        };
        match self.chance.below(10) {
            0..=3 => Action::Read,
            4..=7 => Action::Put(doc, demand),
            _ if demand == Demand::Absent => Action::Delete(Demand::Any),
            _ => Action::Delete(demand),
        }
    }

    fn demanding(&self, txn: Txn, demand: Demand) -> Txn {
        match demand {
            Demand::Any => txn,
            Demand::Absent => txn.guard(Guard::Absent(self.key.clone())),
            Demand::At(revision) => txn.guard(Guard::Revision(self.key.clone(), revision)),
        }
    }

    /// `None`: nothing was seen.
    async fn read(&self) -> Result<Option<Answer>, Failure> {
        match self.store.get(&self.key).await {
            Ok(None) => Ok(Some(Answer::Found(None))),
            Ok(Some(kv)) => {
                let doc = u32::try_from(kv.value.parse::<i64>()?)?;
                Ok(Some(Answer::Found(Some((doc, kv.modified)))))
            }
            Err(error) if may_fail(error.kind()) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// `None`: it did not happen.
    async fn write(&self, txn: Txn) -> Result<Option<Answer>, Failure> {
        match self.store.commit(txn).await {
            Ok(Outcome::Committed { revision }) => Ok(Some(Answer::Done(revision))),
            Ok(Outcome::Conflict { current, .. }) => Ok(Some(Answer::Conflict(current))),
            Err(error) if error.kind() == ErrorKind::Unknown => Ok(Some(Answer::Unknown)),
            Err(error) if may_fail(error.kind()) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

/// What a call may end in while the store is disturbed.
fn may_fail(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::Unavailable | ErrorKind::Timeout | ErrorKind::Overloaded
    )
}
