//! Explanations and forecasts are true.
#![allow(clippy::unwrap_used, reason = "test helpers may panic")]

mod clouds;

use std::collections::BTreeSet;

use clouds::{Dice, cloud, demand, host_id, id, policy};
use proptest::prelude::*;
use skyloom_model::{HostLedger, Name, Resources};
use skyloom_scheduler::fleet::{
    Amounts, Change, Class, Closed, Counterfactual, Demand, Feature, Fleet, Lack, Machine, Policy, Report,
};
use skyloom_scheduler::{FilterScheduler, HostView, Inventory, Request, Scheduler};

/// A fleet in which servers have claimed.
fn busy(hosts: u64, dice: &mut Dice) -> Fleet {
    let mut fleet = cloud(hosts, dice);
    for server in 0..hosts * 2 {
        let demand = demand(server, hosts, dice);
        if let Some(offer) = fleet.decide(&Policy::spread(), &demand) {
            fleet.claim(&demand, &offer).unwrap();
        }
    }
    fleet
}

/// Makes the changes, those of the demand and those of hosts.
fn changed(fleet: &Fleet, demand: &Demand, changes: &[Change]) -> (Fleet, Demand) {
    let (mut fleet, mut demand) = (fleet.clone(), demand.clone());
    for change in changes {
        if change.apply(&mut demand) {
            continue;
        }
        let (Change::Open { host, .. } | Change::Admit { host }) = change else {
            panic!("{change:?} changes nothing")
        };
        let mut machine = fleet.get(*host).unwrap().clone();
        match change {
            Change::Open { state, .. } => assert!(machine.closed.remove(state)),
            _ => machine.tenants.extend(demand.tenant.clone()),
        }
        fleet.upsert([machine]);
    }
    (fleet, demand)
}

fn fits(fleet: &Fleet, policy: &Policy, demand: &Demand) -> bool {
    fleet.decide(policy, demand).is_some()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    #[test]
    fn counterfactuals_make_it_fit_and_each_change_is_needed(seed in any::<u64>(), hosts in 0_u64..40) {
        let mut dice = Dice(seed);
        let fleet = busy(hosts, &mut dice);
        for server in 0..30 {
            let (policy, demand) = (policy(&mut dice), demand(90_000 + server, hosts, &mut dice));
            let report = fleet.explain(&policy, &demand);
            let fallen: u64 = report.fallen.iter().map(|fallen| fallen.hosts).sum();
            prop_assert_eq!((report.considered, report.fitting + fallen), (hosts, hosts));
            prop_assert_eq!(report.fitting > 0, fits(&fleet, &policy, &demand));
            prop_assert_eq!(report.chosen.map(|c| c.host), fleet.decide(&policy, &demand).map(|o| o.host));
            for Counterfactual { changes, .. } in report.for_tenant.iter().chain(&report.for_operator) {
                let (there, asked) = changed(&fleet, &demand, changes);
                prop_assert!(fits(&there, &policy, &asked), "{:?}", changes);
            }
            for Counterfactual { changes, .. } in &report.for_tenant {
                prop_assert!(changes.iter().all(Change::is_tenants));
                for left_out in 0..changes.len() {
                    let mut fewer = changes.clone();
                    fewer.remove(left_out);
                    let (there, asked) = changed(&fleet, &demand, &fewer);
                    prop_assert!(!fits(&there, &policy, &asked), "{:?} needs no {left_out}", changes);
                }
            }
        }
    }

    #[test]
    fn nearest_hosts_lack_what_is_said_of_them(seed in any::<u64>(), hosts in 1_u64..40) {
        let mut dice = Dice(seed);
        let fleet = busy(hosts, &mut dice);
        for server in 0..20 {
            let (policy, demand) = (policy(&mut dice), demand(90_000 + server, hosts, &mut dice));
            for refused in fleet.explain(&policy, &demand).nearest {
                prop_assert!(!refused.lacks.is_empty());
                if refused.lacks.contains(&Lack::NotAsked) {
                    prop_assert!(!demand.only.as_ref().unwrap().contains(&refused.host));
                    continue;
                }
                let only = Demand { only: Some(BTreeSet::from([refused.host])), ..demand.clone() };
                prop_assert!(!fits(&fleet, &policy, &only));
            }
        }
    }

    #[test]
    fn forecast_counts_what_then_fits(seed in any::<u64>(), hosts in 0_u64..20) {
        let mut dice = Dice(seed);
        let mut fleet = busy(hosts, &mut dice);
        let (policy, mut asked) = (policy(&mut dice), demand(90_000, hosts, &mut dice));
        asked.rules.clear();
        asked.joins.clear();
        asked.amounts = asked.amounts.with(Class::DISK, 1 + asked.amounts.of(Class::DISK));
        let forecast = fleet.forecast(&policy, &asked, "zone");
        let mut zones = std::collections::BTreeMap::new();
        let mut placed = 0;
        while let Some(offer) = fleet.decide(&policy, &asked) {
            fleet.claim(&asked, &offer).unwrap();
            placed += 1;
            if let Some(zone) = fleet.get(offer.host).unwrap().labels.get("zone") {
                *zones.entry(zone.clone()).or_default() += 1;
            }
            asked.server = id(200_000 + placed);
        }
        prop_assert_eq!((forecast.servers, forecast.by_label), (placed, zones));
    }

    #[test]
    fn servers_in_the_way_make_room_by_leaving(seed in any::<u64>(), hosts in 1_u64..20) {
        let mut dice = Dice(seed);
        let fleet = busy(hosts, &mut dice);
        for server in 0..10 {
            let (policy, mut asked) = (policy(&mut dice), demand(90_000 + server, hosts, &mut dice));
            asked.rules.clear();
            if fits(&fleet, &policy, &asked) { continue }
            for (server, host) in fleet.in_the_way(&policy, &asked, 3) {
                let mut without = fleet.clone();
                prop_assert_eq!(without.release(server), Some(host));
                prop_assert!(fits(&without, &policy, &asked));
            }
        }
    }
}

fn host(number: u64, memory: u32) -> Machine {
    let total = Amounts::default().with(Class::MEMORY, memory);
    Machine::new(
        host_id(number),
        Name::new(format!("rack-1-host-{number}")).unwrap(),
        total,
    )
}

fn told(machines: Vec<Machine>, asked: &Demand) -> Report {
    let mut fleet = Fleet::new();
    fleet.upsert(machines);
    fleet.explain(&Policy::spread(), asked)
}

#[test]
fn tenants_read_counts_and_changes_and_operators_read_hosts() {
    let mut closed = host(3, 64);
    closed.closed.insert(Closed::Maintenance);
    let mut asked = Demand::new(id(77), Amounts::default().with(Class::MEMORY, 32));
    asked.required.insert(Feature::Trait("avx512".into()));
    closed.features = asked.required.clone();
    let mut small = host(4, 24);
    small.features = asked.required.clone();
    let report = told(vec![host(1, 64), host(2, 64), closed, small], &asked);
    assert_eq!(
        report.tenant_text(),
        "0 of 4 hosts fit\n  \
         2: trait avx512 is missing (and nothing else for 2)\n  \
         1: fewer than 32 MiB of memory left (and nothing else for 1)\n  \
         1: maintenance (and nothing else for 1)\n  \
         it would fit if you: require trait avx512 no more\n  \
         it would fit if you: ask for at most 24 MiB of memory"
    );
    let operator = report.operator_text();
    for part in [
        "rack-1-host-4: needs 32 MiB of memory, has 24",
        "which is maintenance",
    ] {
        assert!(operator.contains(part), "{operator}");
    }
    let json = serde_json::to_string(&report.for_tenants()).unwrap();
    assert!(
        !json.contains("rack-1") && !json.contains(&host_id(3).to_string()),
        "{json}"
    );
    let whole = serde_json::to_string(&report).unwrap();
    assert_eq!(serde_json::from_str::<Report>(&whole).unwrap(), report);
}

#[test]
fn smaller_flavors_that_fit_are_named() {
    let mut fleet = Fleet::new();
    fleet.upsert([host(1, 16)]);
    let asked = Demand::new(id(77), Amounts::default().with(Class::MEMORY, 32));
    let sizes = [8, 16, 64].map(|memory| {
        (
            format!("m{memory}"),
            Amounts::default().with(Class::MEMORY, memory),
        )
    });
    assert_eq!(
        fleet.fitting_sizes(&Policy::spread(), &asked, &sizes),
        ["m8", "m16"]
    );
}

/// The same world for both: an inventory, and a fleet that follows it.
fn both(hosts: u64, dice: &mut Dice) -> (Inventory, Fleet) {
    let (mut inventory, mut fleet) = (Inventory::new(), Fleet::new());
    for number in 0..hosts {
        let amount = |dice: &mut Dice| Resources {
            vcpus: dice.below(32) as u32,
            memory_mib: dice.below(32),
            disk_gib: dice.below(32),
        };
        let mut view = HostView {
            id: host_id(number),
            name: Name::new(format!("host-{number}")).unwrap(),
            spec: skyloom_model::HostSpec::default(),
            reachable: !dice.once_in(8),
            facts: (!dice.once_in(8)).then(|| skyloom_model::HostFacts {
                capacity: amount(dice),
                architecture: dice.pick(&["a", "b"]).into(),
                hypervisor: dice.pick(&["h", "i"]).into(),
                hypervisor_version: "1".into(),
                accelerator: "fake".into(),
                accelerator_reason: "test".into(),
                traits: (0..3)
                    .filter(|_| dice.once_in(2))
                    .map(|n| format!("t{n}"))
                    .collect(),
            }),
            labels: [("zone".to_owned(), format!("z{}", dice.below(2)))].into(),
            ledger: HostLedger {
                used: amount(dice),
                servers: 1,
                ..HostLedger::default()
            },
            ledger_revision: number,
        };
        view.spec.enabled = !dice.once_in(8);
        view.spec.reserved.memory_mib = dice.below(4);
        view.spec.limit = dice.once_in(4).then(|| amount(dice));
        view.spec.memory_ratio = dice.pick(&[1.0, 2.0, 1.3, f64::NAN]);
        if dice.once_in(3) {
            view.ledger.groups.insert("g".into(), dice.below(2) as u32);
        }
        fleet.upsert([Machine::of(&view)]);
        assert!(fleet.observe(view.id, &view.ledger));
        inventory.insert(view);
    }
    (inventory, fleet)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    #[test]
    fn fleet_and_filter_scheduler_agree_on_what_fits(seed in any::<u64>(), hosts in 0_u64..40) {
        let mut dice = Dice(seed);
        let (inventory, fleet) = both(hosts, &mut dice);
        for number in 0..30 {
            let size = Resources { vcpus: dice.below(16) as u32, memory_mib: dice.below(16), disk_gib: dice.below(8) };
            let mut request = Request::new(id(70_000 + number), size, dice.pick(&["a", "b"]));
            request.hypervisor = dice.once_in(3).then(|| "h".into());
            request.traits = (0..2).filter(|_| dice.once_in(2)).map(|n| format!("t{n}")).collect();
            request.anti_affinity_group = dice.once_in(2).then(|| "g".into());
            if dice.once_in(2) { request.labels.insert("zone".into(), "z1".into()); }
            request.only = dice.once_in(6).then(|| host_id(dice.below(hosts + 1)));
            request.exclude = (0..dice.below(3)).map(|_| host_id(dice.below(hosts + 1))).collect();
            let old = FilterScheduler::spread().place(&request, &inventory).map(|p| p.host);
            let new = fleet.decide(&Policy::spread().whole(), &Demand::of(&request)).map(|o| o.host);
            prop_assert_eq!(old.is_ok(), new.is_some());
            if let Some(host) = new {
                let only = Request { only: Some(host), ..request };
                prop_assert!(FilterScheduler::spread().place(&only, &inventory).is_ok());
            }
        }
    }
}
