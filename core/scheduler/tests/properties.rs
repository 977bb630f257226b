//! What holds for every cloud and every request.
#![allow(clippy::unwrap_used, reason = "test helpers may panic")]

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use skyloom_model::{
    HostFacts, HostId, HostLedger, HostSpec, Id, Ids, ManualClock, Name, Resources, SeededIds, ServerId,
};
use skyloom_scheduler::{
    BuiltinFilter, Filter, FilterScheduler, HostView, Inventory, Request, Scheduler, Verdict, claim, release,
};

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
        HostSpec { enabled, cpu_ratio, memory_ratio, disk_ratio, reserved, limit }
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

fn scheduler() -> impl Strategy<Value = FilterScheduler> {
    (
        prop::sample::select(vec![
            FilterScheduler::spread(),
            FilterScheduler::pack(),
            FilterScheduler::any(),
        ]),
        0_usize..60,
    )
        .prop_map(|(scheduler, kept)| scheduler.keep_verdicts(kept))
}

/// The host, changed so that one filter has nothing to refuse any more.
fn cured(filter: BuiltinFilter, request: &Request, host: &HostView) -> (Request, HostView) {
    let (mut request, mut host) = (request.clone(), host.clone());
    match filter {
        BuiltinFilter::Enabled => host.spec.enabled = true,
        BuiltinFilter::Reachable => host.reachable = true,
        BuiltinFilter::Reported => {
            host.facts = Some(HostFacts {
                capacity: Resources::default(),
                architecture: String::new(),
                hypervisor: String::new(),
                hypervisor_version: String::new(),
                accelerator: String::new(),
                accelerator_reason: String::new(),
                traits: vec![],
            });
        }
        BuiltinFilter::NotExcluded => {
            request.exclude.remove(&host.id);
        }
        BuiltinFilter::Architecture => {
            request.architecture = host.facts.as_ref().unwrap().architecture.clone()
        }
        BuiltinFilter::Hypervisor => request.hypervisor = None,
        BuiltinFilter::Traits => request.traits.clear(),
        BuiltinFilter::Labels => request.labels.clear(),
        BuiltinFilter::AntiAffinity => request.anti_affinity_group = None,
        BuiltinFilter::Cpu => request.resources.vcpus = host.free().vcpus,
        BuiltinFilter::Memory => request.resources.memory_mib = host.free().memory_mib,
        BuiltinFilter::Disk => request.resources.disk_gib = host.free().disk_gib,
    }
    (request, host)
}

fn builtin(name: &str) -> BuiltinFilter {
    BuiltinFilter::ALL.into_iter().find(|f| f.name() == name).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn placement_fulfils_every_condition_and_never_overcommits(s in scheduler(), r in request(), c in cloud()) {
        let Ok(placed) = s.place(&r, &c) else { return Ok(()) };
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
    fn same_arguments_same_answer(s in scheduler(), r in request(), hosts in prop::collection::vec(host(), 0..40)) {
        // Names are unique, so that a later host replaces an earlier one of the same id in either order.
        let unique: BTreeMap<HostId, HostView> = hosts.into_iter().map(|h| (h.id, h)).collect();
        let forwards: Inventory = unique.values().cloned().collect();
        let mut backwards = Inventory::new();
        unique.values().rev().cloned().for_each(|h| backwards.insert(h));
        prop_assert_eq!(s.place(&r, &forwards), s.place(&r, &backwards));
    }

    #[test]
    fn no_fit_is_true(s in scheduler(), r in request(), c in cloud()) {
        let fits = |h: &HostView| {
            r.only.is_none_or(|only| only == h.id) && BuiltinFilter::ALL.iter().all(|f| f.check(&r, h).is_ok())
        };
        prop_assert_eq!(s.place(&r, &c).is_ok(), c.hosts().any(|h| fits(h)));
    }

    #[test]
    fn explanations_add_up_and_are_bounded(r in request(), c in cloud(), kept in 0_usize..60) {
        let s = FilterScheduler::spread().keep_verdicts(kept);
        let explanation = match s.place(&r, &c) {
            Ok(placed) => {
                if let Some(first) = placed.explanation.hosts.first() {
                    prop_assert_eq!(first.host, placed.host, "the chosen one comes first");
                }
                placed.explanation
            }
            Err(no_fit) => {
                prop_assert_eq!(no_fit.explanation.fitting, 0);
                *no_fit.explanation
            }
        };
        let rejected: u64 = explanation.rejected.iter().map(|r| r.hosts).sum();
        prop_assert_eq!(explanation.fitting + rejected, explanation.considered);
        let expected = match r.only { Some(only) => usize::from(c.get(only).is_some()), None => c.len() };
        prop_assert_eq!(explanation.considered, expected as u64);
        prop_assert_eq!(explanation.hosts.len(), kept.min(expected));
        prop_assert_eq!(explanation.hosts.len() as u64 + explanation.omitted, explanation.considered);
        let unique: BTreeSet<HostId> = explanation.hosts.iter().map(|h| h.host).collect();
        prop_assert_eq!(unique.len(), explanation.hosts.len());
        // Every outcome is shown before any is shown twice.
        let kinds = explanation.rejected.len() + usize::from(explanation.fitting > 0);
        let shown: BTreeSet<_> = explanation.hosts.iter().map(|h| match &h.verdict {
            Verdict::Fit { .. } => "fit",
            Verdict::Rejected(miss) => builtin(&miss.filter).name(),
        }).collect();
        prop_assert_eq!(shown.len(), kinds.min(kept));
    }

    #[test]
    fn every_rejection_is_true(r in request(), c in cloud()) {
        let explanation = match FilterScheduler::spread().keep_verdicts(100).place(&r, &c) {
            Ok(placed) => placed.explanation,
            Err(no_fit) => *no_fit.explanation,
        };
        for verdict in &explanation.hosts {
            let host = c.get(verdict.host).unwrap();
            let failing: Vec<BuiltinFilter> =
                BuiltinFilter::ALL.into_iter().filter(|f| f.check(&r, host).is_err()).collect();
            match &verdict.verdict {
                Verdict::Fit { .. } => prop_assert_eq!(failing, vec![]),
                Verdict::Rejected(miss) => {
                    let filter = builtin(&miss.filter);
                    prop_assert_eq!(failing.first(), Some(&filter), "the first filter that refuses is named");
                    let (r, host) = cured(filter, &r, host);
                    prop_assert!(filter.check(&r, &host).is_ok(), "without that it passes: {}", miss);
                }
            }
        }
    }

    #[test]
    fn nearest_host_fits_once_its_misses_are_cured(r in request(), c in cloud()) {
        let Err(no_fit) = FilterScheduler::spread().place(&r, &c) else { return Ok(()) };
        let Some(nearest) = &no_fit.explanation.nearest else {
            prop_assert_eq!(no_fit.explanation.considered, 0);
            return Ok(());
        };
        // Without facts there is nothing to reckon with: curing would invent a host.
        let host = c.get(nearest.host).unwrap();
        prop_assume!(host.facts.is_some());
        prop_assert!(!nearest.misses.is_empty() && nearest.advice.len() == nearest.misses.len());
        let (mut r, mut host) = (r, HostView::clone(host));
        for miss in &nearest.misses {
            (r, host) = cured(builtin(&miss.filter), &r, &host);
        }
        let alone: Inventory = [host].into_iter().collect();
        prop_assert!(FilterScheduler::spread().place(&r, &alone).is_ok());
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
        let s = if pack { FilterScheduler::pack() } else { FilterScheduler::spread() };
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
