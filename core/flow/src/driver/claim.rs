//! Whose task it is.
//!
//! Tries are counted before anything is tried, so that a task that kills its engines is noticed by whoever comes next.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use parking_lot::Mutex;
use skyloom_model::ablation::{Rule, kept};
use skyloom_model::{EventKind, Owner, Reason, TaskState};
use skyloom_store::{Outcome, Result, Value};

use super::{Driver, Held, Life};
use crate::compose::{event, prefix};

/// Claims that nobody is known to have survived before a task is set aside.
pub const MAX_CLAIMS: u32 = 5;
/// How long an engine that was seen alive counts as alive.
const ALIVE_FOR: Duration = Duration::from_secs(1);
/// Lives that are remembered as ended. Of a forgotten one the store is asked again.
const DEAD_KNOWN: usize = 4096;

/// Whose a task is.
#[derive(Debug)]
pub(super) enum Claim {
    /// This engine's.
    Mine,
    /// A living other engine's, or nobody's business.
    Theirs,
    /// Somebody was faster: look again.
    Lost,
}

/// What is known of other engines' leases.
#[derive(Debug, Default)]
pub(super) struct Liveness(Mutex<Seen>);

/// An engine's name and its lease's epoch.
type Who = (String, u64);

#[derive(Debug, Default)]
struct Seen {
    /// A lease that ran out at an epoch never lives again at that epoch.
    dead: BTreeSet<Who>,
    alive: BTreeMap<Who, Duration>,
}

impl Driver {
    /// Makes the task this engine's own, if it is free or its owner's lease is gone.
    pub(super) async fn claim(&self, held: &mut Held, life: &Life) -> Result<Claim> {
        let me = &self.parts.engine;
        let claims = match &held.task.value.owner {
            Some(owner) if owner.engine == *me && owner.lease_epoch == life.fence.epoch => {
                return Ok(Claim::Mine);
            }
            Some(owner)
                if owner.engine != *me && kept(Rule::AdoptOnlyOrphans) && self.alive(owner).await? =>
            {
                return Ok(Claim::Theirs);
            }
            Some(owner) => owner.claims,
            // Younger than this life: claimed with its first commit. Should that kill this life, it is older than the next.
            None if held.task.created > life.born => return Ok(Claim::Mine),
            None => 0,
        };
        let ordered = crate::decide::open_order(&held.task.value).is_some();
        let counted = if kept(Rule::PoisonCount) && !ordered {
            claims.saturating_add(1)
        } else {
            0
        };
        let mut next = held.task.value.clone();
        next.owner = Some(Owner {
            engine: me.clone(),
            lease_epoch: life.fence.epoch,
            claims: counted,
        });
        let mut txn = held.guards(life)?;
        if counted > MAX_CLAIMS && next.state != TaskState::Stuck {
            let reason = Reason::new(
                "task.poison",
                format!("{claims} engines in a row took the task up and were not heard of again"),
            )
            .hint("look at the engines' logs; then: task retry, or task abandon");
            next.resume = Some(next.state);
            next.state = TaskState::Stuck;
            next.reason = Some(reason.clone());
            let now = self.parts.clock.now();
            let message = format!("{}: set aside", next.flow);
            txn = txn.and(event(
                &next,
                EventKind::TaskStuck,
                message,
                Some(reason),
                now,
                &*self.parts.ids,
            )?);
            tracing::error!(task = %next.id, flow = next.flow, request_id = next.request_id, claims, "poison: set aside");
        }
        txn = txn.put(held.task.key.clone(), Value::json(&next)?);
        match self.parts.backend.commit(txn).await? {
            Outcome::Committed { revision } => {
                held.counted = counted > 0;
                held.task.value = next;
                held.task.modified = revision;
                Ok(Claim::Mine)
            }
            Outcome::Conflict { .. } => Ok(Claim::Lost),
        }
    }

    async fn alive(&self, owner: &Owner) -> Result<bool> {
        let who = (owner.engine.clone(), owner.lease_epoch);
        let now = self.parts.clock.monotonic();
        {
            let seen = self.liveness.0.lock();
            if seen.dead.contains(&who) {
                return Ok(false);
            }
            if seen
                .alive
                .get(&who)
                .is_some_and(|at| now.saturating_sub(*at) < ALIVE_FOR)
            {
                return Ok(true);
            }
        }
        let alive = self.living().await?.contains(&who);
        let mut seen = self.liveness.0.lock();
        if alive {
            seen.alive.insert(who, now);
        } else {
            seen.bury(who);
        }
        Ok(alive)
    }

    /// Whether an engine that was seen alive has died since: then its tasks want to be taken over.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn deaths(&self) -> Result<bool> {
        let known: Vec<Who> = self.liveness.0.lock().alive.keys().cloned().collect();
        if known.is_empty() {
            return Ok(false);
        }
        let living = self.living().await?;
        let mut seen = self.liveness.0.lock();
        let dead: Vec<Who> = known.into_iter().filter(|who| !living.contains(who)).collect();
        let any = !dead.is_empty();
        dead.into_iter().for_each(|who| seen.bury(who));
        Ok(any)
    }

    /// The engines whose lease lives.
    async fn living(&self) -> Result<BTreeSet<Who>> {
        let leases = self.parts.backend.leases(&prefix("engines")?).await?;
        let living = leases.iter().filter(|l| !l.expired);
        Ok(living
            .map(|l| (l.name.as_key().last().to_owned(), l.epoch))
            .collect())
    }
}

impl Seen {
    fn bury(&mut self, who: Who) {
        self.alive.remove(&who);
        if self.dead.len() >= DEAD_KNOWN {
            self.dead.pop_first();
        }
        self.dead.insert(who);
    }
}
