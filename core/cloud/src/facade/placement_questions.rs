//! Questions about servers that are not made: would one fit and why, how many more do, do several.
//!
//! ```text
//!  PlacementQuery ──> Request ──┬─> Scheduler::place ──> explained          what is asked is never written
//!  hosts and ledgers, as the ───┴─> the policy over the index ──> forecast, tested (on a copy)
//!  store has them now
//! ```
//!
//! Who may not see hosts reads counts and changes of the own request: nothing of single hosts, nothing of other projects.

use std::collections::BTreeMap;

use skyloom_flow::InventoryFeed;
use skyloom_model::{Flavor, HostId, Scope, ServerId};
use skyloom_scheduler::fleet::{Batch, Demand};
use skyloom_scheduler::{Inventory, Request};

use super::Cloud;
use crate::{
    Caller, CloudError, FieldError, FlavorForecast, HostShare, ListQuery, PlacementExplained, PlacementQuery,
    PlacementTested, Result, checks,
};

/// Most servers of one test.
const MAX_TESTED: u32 = 1000;
/// The architecture where none is asked for.
const ARCHITECTURE: &str = "x86_64";

impl Cloud {
    /// Whether a server would fit now, and why: what a create would be told.
    ///
    /// # Errors
    /// `flavor.missing`, `flavor.not_found`, `label.invalid`, `auth.forbidden`.
    pub async fn explain_placement(
        &self,
        caller: &Caller,
        query: &PlacementQuery,
    ) -> Result<PlacementExplained> {
        caller.may_here("server:placement")?;
        let labels = labels(query)?;
        let flavor = self.asked_flavor(caller, query).await?;
        let inventory = self.inventory().await?;
        let scheduler = &self.planner.scheduler;
        let request = self.request(caller, query, &labels, &flavor);
        let (fits, report) = match scheduler.place(&request, &inventory) {
            Ok(placed) => (true, placed.report),
            Err(no_fit) => (false, *no_fit.report),
        };
        let mut fitting_flavors = Vec::new();
        if !fits {
            for other in self.flavors(caller).await? {
                let demand = Demand::of(&self.request(caller, query, &labels, &other));
                if inventory.fleet().decide(scheduler.policy(), &demand).is_some() {
                    fitting_flavors.push(other.meta.name);
                }
            }
        }
        Ok(PlacementExplained {
            flavor: flavor.meta.name,
            fits,
            report: if caller.sees_hosts() {
                report
            } else {
                report.for_tenants()
            },
            fitting_flavors,
        })
    }

    /// How many more servers fit, of one flavor or of each, when nothing else is made. Groups are left aside.
    ///
    /// # Errors
    /// `flavor.not_found`, `label.invalid`, `auth.forbidden`.
    pub async fn forecast_placement(
        &self,
        caller: &Caller,
        query: &PlacementQuery,
    ) -> Result<Vec<FlavorForecast>> {
        caller.may_in_cloud("host:read")?;
        let labels = labels(query)?;
        let flavors = match query.flavor {
            Some(_) => vec![self.asked_flavor(caller, query).await?],
            None => self.flavors(caller).await?,
        };
        let inventory = self.inventory().await?;
        let by = query.by.as_deref().unwrap_or_default();
        let policy = self.planner.scheduler.policy();
        let of = |flavor: Flavor| {
            let demand = Demand::of(&self.request(caller, query, &labels, &flavor));
            FlavorForecast {
                forecast: inventory.fleet().forecast(policy, &demand, by),
                flavor: flavor.meta.name,
            }
        };
        Ok(flavors.into_iter().map(of).collect())
    }

    /// Where several servers would go, each seeing those before it. Nothing is kept.
    ///
    /// # Errors
    /// `flavor.missing`, `flavor.not_found`, `label.invalid`, `servers.out_of_range`, `auth.forbidden`.
    pub async fn test_placement(&self, caller: &Caller, query: &PlacementQuery) -> Result<PlacementTested> {
        caller.may_in_cloud("host:read")?;
        let labels = labels(query)?;
        let servers = query.servers.unwrap_or(1);
        if !(1..=MAX_TESTED).contains(&servers) {
            let message = format!("{servers} is not within 1 to {MAX_TESTED}");
            return Err(CloudError::field(FieldError::new(
                "servers",
                "servers.out_of_range",
                message,
            )));
        }
        let flavor = self.asked_flavor(caller, query).await?;
        let inventory = self.inventory().await?;
        let policy = self.planner.scheduler.policy();
        let mut fleet = inventory.fleet().clone();
        let mut shares: BTreeMap<HostId, u32> = BTreeMap::new();
        let mut report = None;
        for _ in 0..servers {
            let demand = Demand::of(&self.request(caller, query, &labels, &flavor));
            match fleet.place(policy, std::slice::from_ref(&demand), Batch::Most) {
                Ok(hosts) if hosts.iter().all(Option::is_some) => {
                    for host in hosts.into_iter().flatten() {
                        *shares.entry(host).or_default() += 1;
                    }
                }
                _ => {
                    report = Some(fleet.explain(policy, &demand));
                    break;
                }
            }
        }
        let share = |(host, servers): (&HostId, &u32)| {
            Some(HostShare {
                host: *host,
                name: inventory.get(*host)?.name.clone(),
                servers: *servers,
            })
        };
        let mut hosts: Vec<HostShare> = shares.iter().filter_map(share).collect();
        hosts.sort_by_key(|share| std::cmp::Reverse(share.servers));
        Ok(PlacementTested {
            flavor: flavor.meta.name,
            servers,
            placed: shares.values().sum(),
            hosts,
            report,
        })
    }

    /// The hosts as the store has them now: nobody waits here for a mirror.
    pub(super) async fn inventory(&self) -> Result<Inventory> {
        let (feed, _) = InventoryFeed::new(&self.parts.backend)?;
        Ok(feed.read(&self.parts.backend).await?)
    }

    async fn asked_flavor(&self, caller: &Caller, query: &PlacementQuery) -> Result<Flavor> {
        let Some(asked) = &query.flavor else {
            let error = FieldError::new("flavor", "flavor.missing", "say of which flavor the server is");
            return Err(CloudError::field(error));
        };
        let found = self
            .by_id_or_name::<Flavor>(Scope::System, asked)
            .await?
            .filter(|f| caller.may_to("flavor:read", &f.value.meta).is_ok());
        Ok(checks::found("flavor", "flavor", asked, found)?.value)
    }

    /// The first thousand flavors.
    async fn flavors(&self, caller: &Caller) -> Result<Vec<Flavor>> {
        let query = ListQuery {
            limit: Some(1000),
            ..ListQuery::default()
        };
        Ok(self.list_flavors(caller, &query).await?.items)
    }

    /// What a create would ask of the scheduler.
    fn request(
        &self,
        caller: &Caller,
        query: &PlacementQuery,
        labels: &BTreeMap<String, String>,
        flavor: &Flavor,
    ) -> Request {
        let server = ServerId::from_uuid(self.parts.ids.uuid());
        let architecture = query.architecture.as_deref().unwrap_or(ARCHITECTURE);
        let mut request = Request::new(server, flavor.spec.resources, architecture);
        request.labels = flavor.spec.host_labels.clone();
        request.labels.extend(labels.clone());
        request.anti_affinity_group = query
            .anti_affinity_group
            .as_ref()
            .map(|group| crate::flows::group_of(caller.scope(), group));
        request
    }
}

fn labels(query: &PlacementQuery) -> Result<BTreeMap<String, String>> {
    let asked = query.host_labels.as_deref().unwrap_or_default();
    let pairs = asked.split(',').filter(|pair| !pair.is_empty());
    let labels: Option<BTreeMap<String, String>> = pairs
        .map(|pair| pair.split_once('=').map(|(k, v)| (k.to_owned(), v.to_owned())))
        .collect();
    let Some(labels) = labels else {
        let error = FieldError::new(
            "host_labels",
            "label.invalid",
            "write them as key=value,key=value",
        );
        return Err(CloudError::field(error));
    };
    match CloudError::fields(checks::text::labels("host_labels", &labels)) {
        Some(error) => Err(error),
        None => Ok(labels),
    }
}
