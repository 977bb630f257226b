//! What holds for every cloud and every request.
#![allow(clippy::unwrap_used, reason = "test helpers may panic")]

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use skyloom_model::{
    HostFacts, HostId, HostLedger, HostSpec, Id, Ids, ManualClock, Name, Resources, SeededIds, ServerId,
};
use skyloom_scheduler::fleet::{Demand, Fleet, Machine, Policy, Report};
use skyloom_scheduler::{FleetScheduler, HostView, Inventory, Request, Scheduler, claim, release};

fn id<K: ?Sized>(seed: u64) -> Id<K> {
    Id::from_uuid(SeededIds::new(ManualClock::new(), seed).uuid())
}

fn resources(most: u64) -> impl Strategy<Value = Resources> {
    (0..=most as u32 / 4, 0..=most, 0..=most * 2).prop_map(|(vcpus, memory_mib, disk_gib)| Resources {
        vcpus,
        memory_mib,
        disk_gib,
    })
}

fn ratio() -> impl Strategy<Value = f64> {
    prop_oneof![
        Just(1.0),
        Just(4.0),
        Just(0.5),
        Just(1.3),
        Just(0.0),
        Just(-1.0),
        Just(f64::NAN),
        Just(f64::INFINITY)
    ]
}

fn word() -> impl Strategy<Value = String> {
    prop_oneof![4 => Just("a".to_owned()), 1 => Just("b".to_owned())]
}

prop_compose! {
    fn facts()(
        capacity in resources(64), architecture in word(), hypervisor in word(), traits in prop::collection::vec(word(), 0..3),
    ) -> HostFacts {
        HostFacts {
            capacity, architecture, hypervisor, traits,
            hypervisor_version: "1".into(), accelerator: "fake".into(), accelerator_reason: "test".into(),
        }
    }
}

prop_compose! {
    fn spec()(
        enabled in prop::bool::weighted(0.9), cpu_ratio in ratio(), memory_ratio in ratio(), disk_ratio in ratio(),
        reserved in resources(8), limit in prop::option::weighted(0.3, resources(48)),
    ) -> HostSpec {
        HostSpec { enabled, cpu_ratio, memory_ratio, disk_ratio, reserved, limit, closed: None, fenced: None }
    }
}

prop_compose! {
    fn host()(
        seed in 0_u64..1_000, spec in spec(), reachable in prop::bool::weighted(0.9),
        facts in prop::option::weighted(0.9, facts()), used in resources(24),
        zone in prop::option::weighted(0.8, word()), groups in prop::collection::btree_map(word(), 0_u32..3, 0..2),
        ledger_revision in any::<u64>(),
    ) -> HostView {
        HostView {
            id: id(seed), name: Name::new(format!("host-{seed}")).unwrap(), spec, reachable, facts,
            labels: zone.map(|z| ("zone".to_owned(), z)).into_iter().collect(),
            ledger: HostLedger { used, groups, servers: 1, volume_gib: 0 },
            ledger_revision,
        }
    }
}

prop_compose! {
    fn request()(
        server in 0_u64..50, resources in resources(16), architecture in word(), hypervisor in prop::option::of(word()),
        traits in prop::collection::vec(word(), 0..2), zone in prop::option::of(word()),
        anti_affinity_group in prop::option::of(word()), exclude in prop::collection::btree_set(0_u64..1_000, 0..3),
        only in prop::option::weighted(0.1, 0_u64..1_000),
    ) -> Request {
        Request {
            server: id(server), scope: None, resources, architecture, hypervisor, traits,
            labels: zone.map(|z| ("zone".to_owned(), z)).into_iter().collect(),
            anti_affinity_group, exclude: exclude.into_iter().map(id).collect::<BTreeSet<HostId>>(), only: only.map(id),
        }
    }
}

fn cloud() -> impl Strategy<Value = Inventory> {
    prop::collection::vec(host(), 0..60).prop_map(|hosts| hosts.into_iter().collect())
}

fn policy() -> impl Strategy<Value = Policy> {
    prop::sample::select(vec![Policy::spread(), Policy::pack(), Policy::any()])
}

/// Whether a host can take a server, reckoned apart from the fleet.
fn fits(r: &Request, h: &HostView) -> bool {
    let (free, asked) = (h.free(), r.resources);
    h.spec.enabled
        && h.reachable
        && r.only.is_none_or(|only| only == h.id)
        && !r.exclude.contains(&h.id)
        && h.facts.as_ref().is_some_and(|facts| {
            facts.architecture == r.architecture
                && r.hypervisor.as_ref().is_none_or(|v| *v == facts.hypervisor)
                && r.traits.iter().all(|t| facts.traits.contains(t))
        })
        && r.labels.iter().all(|(k, v)| h.labels.get(k) == Some(v))
        && r.anti_affinity_group
            .as_ref()
            .is_none_or(|g| h.ledger.groups.get(g).copied().unwrap_or(0) == 0)
        && asked.vcpus <= free.vcpus
        && asked.memory_mib <= free.memory_mib
        && asked.disk_gib <= free.disk_gib
}

fn report(s: &FleetScheduler, r: &Request, c: &Inventory) -> Report {
    match s.place(r, c) {
        Ok(placed) => placed.report,
        Err(no_fit) => *no_fit.report,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn placement_fulfils_every_condition_and_never_overcommits(p in policy(), r in request(), c in cloud()) {
        let Ok(placed) = FleetScheduler::new(p).place(&r, &c) else { return Ok(()) };
        let host = c.get(placed.host).unwrap();
        let facts = host.facts.as_ref().unwrap();
        prop_assert!(host.spec.enabled && host.reachable);
        prop_assert_eq!(&facts.architecture, &r.architecture);
        prop_assert!(r.hypervisor.as_ref().is_none_or(|h| *h == facts.hypervisor));
        prop_assert!(r.traits.iter().all(|t| facts.traits.contains(t)));
        prop_assert!(r.labels.iter().all(|(k, v)| host.labels.get(k) == Some(v)));
        prop_assert!(!r.exclude.contains(&host.id));
        prop_assert!(r.only.is_none_or(|only| only == host.id));
        if let Some(group) = &r.anti_affinity_group {
            prop_assert_eq!(host.ledger.groups.get(group).copied().unwrap_or(0), 0);
            prop_assert_eq!(placed.ledger_after.groups[group], 1);
        }
        // Reckoned anew, apart from the scheduler's own arithmetic. What is not asked for may be overcommitted already.
        let limit = host.spec.limit.unwrap_or(facts.capacity);
        let room = |real: u64, limit: u64, reserved: u64, ratio: f64| {
            let real = real.min(limit).saturating_sub(reserved) as f64;
            if ratio.is_finite() { (real * ratio).max(0.0) } else { 0.0 }
        };
        let (real, kept, spec, after, asked) =
            (facts.capacity, host.spec.reserved, &host.spec, placed.ledger_after.used, r.resources);
        let vcpus = room(real.vcpus.into(), limit.vcpus.into(), kept.vcpus.into(), spec.cpu_ratio);
        let memory = room(real.memory_mib, limit.memory_mib, kept.memory_mib, spec.memory_ratio);
        let disk = room(real.disk_gib, limit.disk_gib, kept.disk_gib, spec.disk_ratio);
        prop_assert!(asked.vcpus == 0 || f64::from(after.vcpus) <= vcpus);
        prop_assert!(asked.memory_mib == 0 || after.memory_mib as f64 <= memory);
        prop_assert!(asked.disk_gib == 0 || after.disk_gib as f64 <= disk);
        prop_assert_eq!(placed.ledger_revision, host.ledger_revision);
        prop_assert_eq!(after, host.ledger.used.plus(r.resources));
        prop_assert_eq!(placed.claim, r.claim());
    }

    #[test]
    fn same_arguments_same_answer(p in policy(), r in request(), hosts in prop::collection::vec(host(), 0..40)) {
        // Names are unique, so that a later host replaces an earlier one of the same id in either order.
        let unique: BTreeMap<HostId, HostView> = hosts.into_iter().map(|h| (h.id, h)).collect();
        let forwards: Inventory = unique.values().cloned().collect();
        let mut backwards = Inventory::new();
        unique.values().rev().cloned().for_each(|h| backwards.insert(h));
        let s = FleetScheduler::new(p);
        prop_assert_eq!(s.place(&r, &forwards), s.place(&r, &backwards));
    }

    #[test]
    fn no_fit_is_true(p in policy(), r in request(), c in cloud()) {
        prop_assert_eq!(FleetScheduler::new(p).place(&r, &c).is_ok(), c.hosts().any(|h| fits(&r, h)));
    }

    #[test]
    fn an_inventory_that_changes_is_one_that_was_so_from_the_beginning(
        p in policy(), r in request(), before in prop::collection::vec(host(), 0..30), after in prop::collection::vec(host(), 0..30),
    ) {
        let after: BTreeMap<HostId, HostView> = after.into_iter().map(|h| (h.id, h)).collect();
        let mut changed: Inventory = before.iter().cloned().collect();
        for old in &before {
            match after.get(&old.id) {
                // Only its ledger.
                Some(new) if old.ledger_revision % 2 == 0 => {
                    changed.insert(HostView { ledger: old.ledger.clone(), ledger_revision: 1, ..new.clone() });
                    prop_assert!(changed.set_ledger(old.id, new.ledger.clone(), new.ledger_revision));
                }
                Some(_) => {}
                None => changed.remove(old.id),
            }
        }
        changed.extend(after.values().cloned());
        let fresh: Inventory = after.into_values().collect();
        let s = FleetScheduler::new(p);
        prop_assert_eq!(s.place(&r, &changed), s.place(&r, &fresh));
    }

    #[test]
    fn reports_are_true_and_add_up(p in policy(), r in request(), c in cloud()) {
        let report = report(&FleetScheduler::new(p), &r, &c);
        let asked = c.hosts().filter(|h| r.only.is_none_or(|only| only == h.id));
        prop_assert_eq!(report.considered, asked.count() as u64);
        prop_assert_eq!(report.fitting, c.hosts().filter(|h| fits(&r, h)).count() as u64);
        let fallen: u64 = report.fallen.iter().map(|f| f.hosts).sum();
        prop_assert_eq!(report.fitting + fallen, report.considered);
        for refused in &report.nearest {
            prop_assert!(!refused.lacks.is_empty() && !fits(&r, c.get(refused.host).unwrap()));
        }
        for scored in report.chosen.iter().chain(&report.compared) {
            prop_assert!(fits(&r, c.get(scored.host).unwrap()));
            prop_assert!(scored.score <= report.chosen.as_ref().unwrap().score);
        }
    }

    #[test]
    fn what_the_index_counts_is_what_a_look_at_every_host_counts(p in policy(), r in request(), hosts in prop::collection::vec(host(), 0..60)) {
        let mut fleet = Fleet::new();
        let unique: BTreeMap<HostId, HostView> = hosts.into_iter().map(|h| (h.id, h)).collect();
        fleet.upsert(unique.values().map(Machine::of));
        for host in unique.values() {
            prop_assert!(fleet.observe(host.id, &host.ledger));
        }
        let demand = Demand::of(&r);
        let (offer, quick) = fleet.decide_with_reasons(&p, &demand);
        prop_assert_eq!(&offer, &fleet.decide(&p, &demand));
        let full = fleet.explain(&p, &demand);
        let counted = |report: &Report| (report.considered, report.fitting, report.fallen.clone(), report.chosen.clone());
        prop_assert_eq!(counted(&quick), counted(&full));
        prop_assert_eq!(quick.chosen.map(|chosen| chosen.host), offer.map(|offer| offer.host));
    }

    #[test]
    fn the_remedy_of_a_refusal_is_one(r in request(), c in cloud()) {
        let s = FleetScheduler::default();
        let Err(no_fit) = s.place(&r, &c) else { return Ok(()) };
        for remedy in &no_fit.report.for_tenant {
            let mut demand = Demand::of(&r);
            for change in &remedy.changes {
                prop_assert!(change.apply(&mut demand), "{change}");
            }
            prop_assert!(c.fleet().decide(s.policy(), &demand).is_some());
        }
    }

    #[test]
    fn release_undoes_claim(h in host(), r in request()) {
        let mut before = h.ledger;
        before.groups.retain(|_, members| *members > 0);
        prop_assert_eq!(release(&claim(&before, &r.claim()), &r.claim()), before);
    }

    #[test]
    fn filling_a_cloud_never_overcommits_and_keeps_groups_apart(
        hosts in prop::collection::vec(host(), 1..8), size in resources(8), pack in any::<bool>(),
    ) {
        let s = if pack { FleetScheduler::pack() } else { FleetScheduler::spread() };
        let mut c: Inventory = hosts.into_iter().map(|h| HostView { ledger: HostLedger::default(), ..h }).collect();
        let mut group: BTreeSet<HostId> = BTreeSet::new();
        for n in 0..60 {
            let server: ServerId = id(n);
            let mut r = Request::new(server, size, "a");
            r.anti_affinity_group = (n % 2 == 0).then(|| "g".to_owned());
            let Ok(placed) = s.place(&r, &c) else { continue };
            if n % 2 == 0 {
                prop_assert!(group.insert(placed.host), "two servers of a group on one host");
            }
            prop_assert!(c.set_ledger(placed.host, placed.ledger_after, n));
        }
        for host in c.hosts() {
            let (used, all) = (host.ledger.used, host.effective());
            prop_assert!(used.vcpus <= all.vcpus && used.memory_mib <= all.memory_mib && used.disk_gib <= all.disk_gib);
        }
    }
}
