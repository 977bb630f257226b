//! The fleet as a [`Scheduler`]: what an engine asks.

use crate::fleet::{Demand, Lack, Policy, Report};
use crate::{Inventory, NoFit, Placement, Request, Scheduler, claim};

/// Places by a policy over the inventory's fleet.
#[derive(Debug, Clone, Default)]
pub struct FleetScheduler {
    policy: Policy,
}

impl FleetScheduler {
    /// A scheduler of this policy.
    #[must_use]
    pub fn new(policy: Policy) -> Self {
        Self { policy }
    }
    /// Prefers hosts with much free memory.
    #[must_use]
    pub fn spread() -> Self {
        Self::new(Policy::spread())
    }
    /// Prefers hosts that are used already, so that others stay empty.
    #[must_use]
    pub fn pack() -> Self {
        Self::new(Policy::pack())
    }
}

/// Who asks for one host wants to know of that one: the others are not counted.
fn of_asked(mut report: Report) -> Report {
    let others = Lack::NotAsked.reason();
    let fell = report.fallen.iter().filter(|fallen| fallen.reason == others);
    report.considered -= fell.map(|fallen| fallen.hosts).sum::<u64>();
    report.uncounted = 0;
    report.fallen.retain(|fallen| fallen.reason != others);
    report
        .nearest
        .retain(|refused| !refused.lacks.contains(&Lack::NotAsked));
    report
}

impl Scheduler for FleetScheduler {
    fn place(&self, request: &Request, inventory: &Inventory) -> Result<Placement, NoFit> {
        let demand = Demand::of(request);
        let (offer, report) = inventory.fleet().decide_with_reasons(&self.policy, &demand);
        let report = if request.only.is_some() {
            of_asked(report)
        } else {
            report
        };
        match offer.and_then(|offer| inventory.get(offer.host)) {
            Some(host) => {
                let claimed = request.claim();
                Ok(Placement {
                    host: host.id,
                    name: host.name.clone(),
                    ledger_after: claim(&host.ledger, &claimed),
                    ledger_revision: host.ledger_revision,
                    claim: claimed,
                    report,
                })
            }
            None => Err(NoFit {
                report: Box::new(report),
            }),
        }
    }

    fn policy(&self) -> &Policy {
        &self.policy
    }
}
