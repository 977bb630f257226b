//! What holds for every fleet and every demand.
#![allow(clippy::unwrap_used, reason = "test helpers may panic")]

mod clouds;

use std::collections::BTreeMap;

use clouds::{Dice, cloud, demand, host_id, id, machine, policy};
use proptest::prelude::*;
use skyloom_model::{HostId, Name};
use skyloom_scheduler::fleet::{
    Amounts, Batch, CLASSES, Class, Conflict, Demand, Fleet, GroupRule, Machine, Occupied, Policy, Stand,
    Topology,
};

/// Taken of each host and still free, for comparing fleets.
fn state(fleet: &Fleet) -> Vec<(HostId, [u64; CLASSES], Amounts)> {
    let each = fleet.machines().map(|m| m.id);
    each.map(|host| (host, fleet.used(host).unwrap(), fleet.free(host).unwrap()))
        .collect()
}

/// Each class that somebody took is within what the host offers.
fn within(fleet: &Fleet) -> bool {
    fleet.machines().all(|machine| {
        let used = fleet.used(machine.id).unwrap();
        let mut offered = machine.offered().0.into_iter().zip(used);
        offered.all(|(offered, used)| used <= u64::from(offered))
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    #[test]
    fn index_answers_as_the_scan_and_never_overcommits(seed in any::<u64>(), hosts in 0_u64..120) {
        let mut dice = Dice(seed);
        let mut fleet = cloud(hosts, &mut dice);
        let mut placed = Vec::new();
        for server in 0..80 {
            let (policy, demand) = (policy(&mut dice), demand(server, hosts, &mut dice));
            let offer = fleet.decide(&policy, &demand);
            prop_assert_eq!(&offer, &fleet.scan(&policy, &demand));
            if let Some(offer) = offer {
                fleet.claim(&demand, &offer).unwrap();
                placed.push(demand.server);
            }
            if dice.once_in(4) && !placed.is_empty() {
                fleet.release(placed.swap_remove(dice.below(placed.len() as u64) as usize)).unwrap();
            }
            if dice.once_in(8) && hosts > 0 {
                // The world changes: a host is another now, but what is taken of it stays. It must not offer less than that here.
                let number = dice.below(hosts);
                let mut other = machine(number, &mut dice);
                let old = fleet.get(host_id(number)).unwrap();
                (other.total, other.reserved, other.ratios) = (old.total, old.reserved, old.ratios);
                fleet.upsert([other]);
            }
            prop_assert!(within(&fleet));
        }
        let all = placed.len();
        prop_assert_eq!(fleet.servers(), all);
        let empty = state(&{ let mut fresh = Fleet::new(); fresh.upsert(fleet.machines().cloned().collect::<Vec<_>>()); fresh });
        placed.into_iter().for_each(|server| { fleet.release(server).unwrap(); });
        prop_assert_eq!(state(&fleet), empty, "releases undo claims");
    }

    #[test]
    fn order_of_hosts_changes_no_answer(seed in any::<u64>(), hosts in 0_u64..60) {
        let mut dice = Dice(seed);
        let forwards = cloud(hosts, &mut dice);
        let machines: Vec<Machine> = forwards.machines().cloned().collect();
        let mut backwards = Fleet::new();
        for machine in machines.into_iter().rev() {
            backwards.upsert([machine]);
        }
        for server in 0..20 {
            let (policy, demand) = (policy(&mut dice), demand(server, hosts, &mut dice));
            let host = |fleet: &Fleet| fleet.decide(&policy, &demand).map(|offer| (offer.host, offer.score.to_bits()));
            prop_assert_eq!(host(&forwards), host(&backwards));
            prop_assert_eq!(forwards.explain(&policy, &demand), backwards.explain(&policy, &demand));
        }
    }

    #[test]
    fn claims_of_many_schedulers_conflict_in_place_of_breaking_a_rule(seed in any::<u64>(), hosts in 1_u64..20) {
        let mut dice = Dice(seed);
        let mut fleet = Fleet::new();
        let bare = |number: u64| {
            let total = Amounts::default().with(Class::MEMORY, 4);
            let mut machine = Machine::new(host_id(number), Name::new(format!("host-{number}")).unwrap(), total);
            machine.labels.insert("zone".into(), format!("z{}", number % 4));
            machine
        };
        fleet.upsert((0..hosts).map(bare).collect::<Vec<_>>());
        let by_zone = GroupRule {
            group: "zonal".into(), stand: Stand::Apart { most: 1 }, topology: Topology::Label("zone".into()), hard: true,
        };
        let demands: Vec<Demand> = (0..40).map(|server| {
            let mut demand = Demand::new(id(1_000 + server), Amounts::default().with(Class::MEMORY, 1));
            match server % 3 {
                0 => demand = demand.apart("db"),
                1 => { demand.joins.insert("zonal".into()); demand.rules.push(by_zone.clone()); }
                _ => {}
            }
            demand
        }).collect();
        // Rounds of schedulers that all decide on one view before any claims; who loses decides again in the next round.
        let mut waiting = demands.clone();
        let mut hosts_of: BTreeMap<_, HostId> = BTreeMap::new();
        let mut lost = 0;
        while !waiting.is_empty() {
            let round = waiting.len().min(1 + dice.below(8) as usize);
            let offers: Vec<_> = waiting.drain(..round).map(|d| (fleet.decide(&Policy::spread(), &d), d)).collect();
            for (offer, demand) in offers {
                let Some(offer) = offer else { continue };
                match fleet.claim(&demand, &offer) {
                    Ok(()) => { hosts_of.insert(demand.server, offer.host); }
                    Err(conflict) => {
                        prop_assert_ne!(conflict, Conflict::Held);
                        lost += 1;
                        prop_assert!(lost < 10_000, "the first of a round never loses");
                        waiting.push(demand);
                    }
                }
                prop_assert!(within(&fleet));
            }
        }
        for demand in &demands {
            for rule in &demand.rules {
                let place = |host: HostId| match &rule.topology {
                    Topology::Host => host.to_string(),
                    Topology::Label(key) => fleet.get(host).unwrap().labels[key].clone(),
                };
                let members: Vec<String> = demands.iter().filter(|d| d.joins.contains(&rule.group))
                    .filter_map(|d| hosts_of.get(&d.server)).map(|host| place(*host)).collect();
                let distinct: std::collections::BTreeSet<_> = members.iter().collect();
                prop_assert_eq!(distinct.len(), members.len(), "members stand apart");
            }
        }
    }

    #[test]
    fn batches_are_whole_or_as_many_as_fit(seed in any::<u64>(), hosts in 0_u64..30) {
        let mut dice = Dice(seed);
        let mut fleet = cloud(hosts, &mut dice);
        let demands: Vec<Demand> = (0..6).map(|server| demand(server, hosts, &mut dice)).collect();
        let policy = policy(&mut dice);
        let before = state(&fleet);
        let mut one_by_one = fleet.clone();
        let most = one_by_one.place(&policy, &demands, Batch::Most).unwrap();
        match fleet.place(&policy, &demands, Batch::All) {
            Ok(placed) => {
                prop_assert!(placed.iter().all(Option::is_some));
                prop_assert_eq!(placed, most);
            }
            Err(first) => {
                prop_assert_eq!(most.iter().position(Option::is_none), Some(first));
                prop_assert_eq!(state(&fleet), before, "nothing is left behind");
                prop_assert_eq!(fleet.servers(), 0);
            }
        }
    }
}

fn plain(hosts: u64, memory: u32) -> Fleet {
    let mut fleet = Fleet::new();
    let one = |n: u64| {
        let total = Amounts::default().with(Class::MEMORY, memory);
        Machine::new(host_id(n), Name::new(format!("host-{n}")).unwrap(), total)
    };
    fleet.upsert((0..hosts).map(one).collect::<Vec<_>>());
    fleet
}

fn server(number: u64, memory: u32) -> Demand {
    Demand::new(id(5_000 + number), Amounts::default().with(Class::MEMORY, memory))
}

#[test]
fn offer_holds_only_while_its_host_and_groups_are_as_they_were() {
    let mut fleet = plain(1, 10);
    let (first, second) = (server(1, 2), server(2, 2));
    let (one, two) = (
        fleet.decide(&Policy::any(), &first).unwrap(),
        fleet.decide(&Policy::any(), &second).unwrap(),
    );
    fleet.claim(&first, &one).unwrap();
    assert_eq!(fleet.claim(&first, &one), Err(Conflict::Held));
    assert_eq!(fleet.claim(&second, &two), Err(Conflict::Host));
    let again = fleet.decide(&Policy::any(), &second).unwrap();
    fleet.claim(&second, &again).unwrap();
    assert_eq!(fleet.remove(host_id(0)), Err(Occupied { servers: 2 }));
    assert_eq!(fleet.release(first.server), Some(host_id(0)));
    assert_eq!(fleet.release(first.server), None);
    fleet.release(second.server);
    fleet.remove(host_id(0)).unwrap();
    assert!(fleet.is_empty() && fleet.decide(&Policy::any(), &first).is_none());
}

#[test]
fn whole_policy_finds_the_best_of_all() {
    let mut fleet = plain(5_000, 100);
    let mut fuller = server(0, 1);
    for number in 0..5_000_u64 {
        fuller.server = id(100_000 + number);
        fuller.only = Some([host_id(number)].into());
        if number != 4_321 {
            let offer = fleet.decide(&Policy::any(), &fuller).unwrap();
            fleet.claim(&fuller, &offer).unwrap();
        }
    }
    let asked = server(7, 1);
    assert_eq!(
        fleet.decide(&Policy::spread().whole(), &asked).unwrap().host,
        host_id(4_321)
    );
    // Packing wants any other.
    assert_ne!(
        fleet.decide(&Policy::pack().whole(), &asked).unwrap().host,
        host_id(4_321)
    );
}

#[test]
fn soft_rules_are_preferences() {
    let mut fleet = plain(4, 100);
    let mut soft = server(0, 1).apart("web");
    soft.rules[0].hard = false;
    let mut hosts = BTreeMap::<HostId, u32>::new();
    for number in 0..8 {
        soft.server = id(9_000 + number);
        let offer = fleet.decide(&Policy::pack(), &soft).unwrap();
        fleet.claim(&soft, &offer).unwrap();
        *hosts.entry(offer.host).or_default() += 1;
    }
    assert_eq!(
        hosts.into_values().collect::<Vec<_>>(),
        [2, 2, 2, 2],
        "spread against the wish to pack"
    );
}
