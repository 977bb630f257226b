//! Explanations and forecasts are true.
#![allow(clippy::unwrap_used, reason = "test helpers may panic")]

mod clouds;

use std::collections::BTreeSet;

use clouds::{Dice, cloud, demand, host_id, id, policy};
use proptest::prelude::*;
use skyloom_model::Name;
use skyloom_scheduler::fleet::{
    Amounts, Change, Class, Closed, Counterfactual, Demand, Feature, Fleet, Lack, Machine, Policy, Report,
};

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
    // Few and large.
    #![proptest_config(ProptestConfig { cases: 6, ..ProptestConfig::default() })]

    #[test]
    fn a_kept_report_counts_some_of_what_a_whole_one_counts(seed in any::<u64>(), hosts in 1_000_u64..1_500) {
        let mut dice = Dice(seed);
        let fleet = cloud(hosts, &mut dice);
        for server in 0..4 {
            let (policy, demand) = (policy(&mut dice), demand(90_000 + server, hosts, &mut dice));
            let (offer, kept) = fleet.decide_with_reasons(&policy, &demand);
            let whole = fleet.explain(&policy, &demand);
            prop_assert_eq!(&offer, &fleet.decide(&policy, &demand));
            let fallen: u64 = kept.fallen.iter().map(|fallen| fallen.hosts).sum();
            prop_assert_eq!(kept.fitting + fallen, kept.considered);
            prop_assert_eq!(kept.considered + kept.uncounted, hosts);
            prop_assert!((64..=256).contains(&kept.considered) || offer.is_none(), "{}", kept.considered);
            prop_assert!(kept.fitting <= whole.fitting);
            for few in &kept.fallen {
                let all = whole.fallen.iter().find(|all| all.reason == few.reason).unwrap();
                prop_assert!(few.hosts <= all.hosts && few.alone <= all.alone);
            }
            match offer {
                None => prop_assert_eq!(kept, whole),
                Some(offer) => {
                    prop_assert!(kept.fitting > 0);
                    prop_assert_eq!(kept.chosen.unwrap().host, offer.host);
                    prop_assert!(whole.compared.starts_with(&kept.compared));
                }
            }
        }
    }
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
