//! Which servers to move so that the hosts are alike full, few, or one of them empty. Only said, never done.

use std::collections::BTreeMap;

use skyloom_model::{Host, HostId, Lifecycle, Port, Resource as _, Scope, Server, Volume, paths};
use skyloom_scheduler::fleet::{Advice, Goal, Resident, advise};
use skyloom_store::Versioned;

use super::Cloud;
use super::drain::Lodger;
use crate::{AdviceQuery, Caller, CloudError, FieldError, Result, checks};

/// Moves of an answer: by default, and at most.
const MOVES: (u32, u32) = (100, 1000);

impl Cloud {
    /// What to move for a goal, in an order in which each move fits, with the memory to copy. Nothing is moved.
    ///
    /// # Errors
    /// `goal.invalid`, `host.not_found`, `most.out_of_range`, `auth.forbidden`.
    pub async fn advise_placement(&self, caller: &Caller, query: &AdviceQuery) -> Result<Advice> {
        caller.may_in_cloud("host:read")?;
        let most = query.most.unwrap_or(MOVES.0);
        if most > MOVES.1 {
            let message = format!("{most} is not within 0 to {}", MOVES.1);
            return Err(CloudError::field(FieldError::new(
                "most",
                "most.out_of_range",
                message,
            )));
        }
        let goal = self.goal(query).await?;
        let lodgers = match goal {
            Goal::Drain(host) => self.lodgers(host).await?,
            Goal::Spread | Goal::Consolidate => self.all_lodgers().await?,
        };
        let snapshots = self.all_snapshots().await?;
        let hosts: Vec<Versioned<Host>> = self.everything(&paths::scoped(Host::KIND, Scope::System)).await?;
        let hosts: BTreeMap<HostId, Host> = hosts.into_iter().map(|h| (h.value.id(), h.value)).collect();
        let resident = |lodger: &Lodger| {
            let host = lodger.server.status.placement.as_ref()?.host;
            Some(lodger.resident(hosts.get(&host)?, &snapshots))
        };
        let residents: Vec<Resident> = lodgers.iter().filter_map(resident).collect();
        let inventory = self.inventory().await?;
        let policy = self.planner.scheduler.policy();
        Ok(advise(goal, &residents, &inventory, policy, most as usize))
    }

    async fn goal(&self, query: &AdviceQuery) -> Result<Goal> {
        let wrong = |field, message: &str| CloudError::field(FieldError::new(field, "goal.invalid", message));
        match (query.goal.as_str(), &query.host) {
            ("spread", None) => Ok(Goal::Spread),
            ("consolidate", None) => Ok(Goal::Consolidate),
            ("spread" | "consolidate", Some(_)) => Err(wrong("host", "only a drain is of one host")),
            ("drain", Some(name)) => {
                let host = self.by_id_or_name::<Host>(Scope::System, name).await?;
                Ok(Goal::Drain(checks::found("host", "host", name, host)?.value.id()))
            }
            ("drain", None) => Err(wrong("host", "say which host is to be drained")),
            _ => Err(wrong("goal", "it is spread, consolidate or drain")),
        }
    }

    /// All servers that live somewhere, with what goes along with them.
    async fn all_lodgers(&self) -> Result<Vec<Lodger>> {
        let servers: Vec<Versioned<Server>> = self.everything(&paths::kind(Server::KIND)).await?;
        let servers = servers.into_iter().map(|found| found.value);
        let placed =
            servers.filter(|s| s.status.placement.is_some() && s.status.lifecycle == Lifecycle::Active);
        let volumes: Vec<Versioned<Volume>> = self.everything(&paths::kind(Volume::KIND)).await?;
        let ports: Vec<Versioned<Port>> = self.everything(&paths::kind(Port::KIND)).await?;
        Ok(Lodger::all(placed, volumes, ports))
    }
}
