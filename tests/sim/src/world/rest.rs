//! Whether everything has come to rest, and as it should.

use std::sync::Arc;
use std::time::Duration;

use skyloom_cloud::{Cloud, CloudParts, Reconciled, Suspects};
use skyloom_model::{OrderVerb, SeededIds, TaskState};

use super::{Action, LOOK, World};
use crate::bed::{Part, Who};
use crate::checker::Leftover;
use crate::client::Client;
use crate::direct::Direct;
use crate::watcher;

/// How long a wrong record may stay wrong at rest.
const SETTLE: Duration = Duration::from_secs(90);
/// What the operator orders for stuck tasks, one after the other.
const ORDERS: [OrderVerb; 3] = [OrderVerb::Retry, OrderVerb::Skip, OrderVerb::Abandon];

impl World {
    /// Whether everything has come to rest as it should. `true`: the schedule is over.
    pub(super) async fn look(&mut self) -> bool {
        let bed = self.ground.bed.clone();
        let now = bed.clock.elapsed();
        while self.clients.try_join_next().is_some() {}
        let open: Vec<_> = bed.checker(|c| c.open_tasks().collect());
        if self.clients.is_empty() && open.is_empty() && self.late.is_empty() {
            let since = *self.quiet.get_or_insert(now);
            let stuck = bed.checker(|c| c.stuck_tasks());
            let wrong = if stuck.is_empty() {
                self.at_rest().await
            } else if let Some(verb) = ORDERS.get(self.orders) {
                self.orders += 1;
                bed.diary(|diary, now| diary.orders(now, *verb, stuck.len()));
                let operator = Client::new(100 + self.orders, self.terms.clone(), self.scenario.seed);
                self.clients.spawn(operator.order(stuck, *verb));
                vec![("I8", format!("{verb:?} is ordered"))]
            } else {
                vec![("I8", format!("tasks are stuck after all orders: {stuck:?}"))]
            };
            let Some((invariant, what)) = wrong.first() else {
                return true;
            };
            if now - since > SETTLE {
                bed.violated(invariant, format!("{what}; in all {} such things", wrong.len()));
                return true;
            }
        } else {
            self.quiet = None;
        }
        let (most_steps, rest) = (self.scenario.most_steps, self.scenario.rest);
        if bed.steps() > most_steps {
            bed.violated("I8", format!("{most_steps} steps and no end; open: {open:?}"));
            return true;
        }
        if now > self.scenario.faults_until + rest {
            let open: Vec<String> = bed.checker(|c| open.iter().map(|(id, _)| c.task(*id)).collect());
            let clients = self.clients.len();
            bed.violated(
                "I8",
                format!("no rest after {rest:?}; {clients} clients wait; open: {open:#?}"),
            );
            return true;
        }
        self.after(LOOK, Action::Look);
        false
    }

    async fn at_rest(&self) -> Vec<Leftover> {
        let bed = &self.ground.bed;
        let seen: Vec<_> = self.ground.hosts.iter().map(|h| h.seen()).collect();
        let pool = self.ground.pool.as_ref().map(|pool| pool.seen());
        let mut wrong = bed.checker(|c| c.at_rest(&seen, pool.as_ref()));
        for (task, job) in self.ground.marks.there() {
            if matches!(
                bed.checker(|c| c.state(task)),
                Some(TaskState::Failed | TaskState::Cancelled)
            ) && !bed.checker(|c| c.abandoned(task))
            {
                wrong.push((
                    "I10",
                    format!("task {task} was undone and the mark of {job} is there"),
                ));
            }
        }
        if self.scenario.watcher {
            let truth = self.looker("looker").everything(watcher::WATCHED).await;
            let truth = truth.into_iter().map(|kv| (kv.key, kv.modified)).collect();
            wrong.extend(watcher::compare(&self.ground.shown, &truth).map(|what| ("I9", what)));
        }
        if wrong.is_empty() && self.orders == 0 {
            wrong.extend(self.reconciled().await.map(|what| ("I12", what)));
        }
        wrong
    }

    /// What the product's own reconciler finds to do: there should be nothing.
    async fn reconciled(&self) -> Option<String> {
        let clock = Arc::new(self.ground.bed.clock);
        let cloud = Cloud::new(CloudParts {
            backend: Arc::new(self.looker("reconciler")),
            clock: clock.clone(),
            ids: Arc::new(SeededIds::new(clock, self.scenario.seed)),
            images: self.ground.images.clone(),
        });
        match cloud.reconcile(&mut Suspects::default()).await {
            Ok(found) if found == Reconciled::default() => None,
            found => Some(format!("the reconciler finds {found:?}")),
        }
    }

    fn looker(&self, name: &str) -> Direct {
        Direct {
            bed: self.ground.bed.clone(),
            who: Who {
                name: name.into(),
                part: Part::Watcher,
                life: 1,
            },
        }
    }
}
