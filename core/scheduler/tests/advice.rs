//! Advice holds for every fleet: each move fits when it comes, and the goal comes nearer.
#![allow(clippy::unwrap_used, reason = "test helpers may panic")]

use std::collections::BTreeMap;

use proptest::prelude::*;
use skyloom_model::{
    HostFacts, HostId, HostLedger, HostSpec, Id, Ids, ManualClock, Name, Resources, SeededIds, ServerId,
};
use skyloom_scheduler::fleet::{Advice, Goal, Policy, Resident, advise};
use skyloom_scheduler::{HostView, Inventory, Request, claim, release};

fn name(word: &str, n: usize) -> Name {
    Name::new(format!("{word}{n}")).unwrap()
}

fn host_id(n: usize) -> HostId {
    Id::from_uuid(SeededIds::new(ManualClock::new(), n as u64).uuid())
}

fn server_id(n: usize) -> ServerId {
    Id::from_uuid(SeededIds::new(ManualClock::new(), n as u64 + 1_000).uuid())
}

/// A host's vCPUs, GiB of memory, and whether it takes servers.
type Kit = (u32, u64, bool);
/// A server's host, vCPUs, GiB of memory, group, and whether it can go.
type Lodger = (usize, u32, u64, Option<bool>, bool);

fn host(n: usize, (vcpus, gib, enabled): Kit) -> HostView {
    HostView {
        id: host_id(n),
        name: name("h", n),
        spec: HostSpec {
            enabled,
            cpu_ratio: 1.0,
            ..HostSpec::default()
        },
        reachable: true,
        facts: Some(HostFacts {
            architecture: "x86_64".into(),
            hypervisor: "fake".into(),
            hypervisor_version: "1".into(),
            accelerator: "fake".into(),
            accelerator_reason: "test".into(),
            capacity: Resources {
                vcpus,
                memory_mib: gib * 1024,
                disk_gib: 1000,
            },
            traits: vec!["migration".into()],
        }),
        labels: BTreeMap::new(),
        ledger: HostLedger::default(),
        ledger_revision: 1,
    }
}

/// A fleet with what is on it: servers are claimed where they are, whether they fit or not.
fn fleet(kits: &[Kit], lodgers: &[Lodger]) -> (Inventory, Vec<Resident>) {
    let mut hosts: Vec<HostView> = kits.iter().enumerate().map(|(n, kit)| host(n, *kit)).collect();
    let mut residents = Vec::new();
    for (n, (at, vcpus, gib, group, can)) in lodgers.iter().enumerate() {
        let at = at % hosts.len();
        let resources = Resources {
            vcpus: *vcpus,
            memory_mib: gib * 1024,
            disk_gib: 1,
        };
        let mut request = Request::new(server_id(n), resources, "x86_64");
        request.anti_affinity_group = group.map(|a| if a { "a" } else { "b" }.to_owned());
        hosts[at].ledger = claim(&hosts[at].ledger, &request.claim());
        residents.push(Resident {
            server: server_id(n),
            name: name("s", n),
            from: host_id(at),
            asks: if *can {
                Ok(request)
            } else {
                Err("its disks are local".to_owned())
            },
            live: n % 2 == 0,
        });
    }
    (hosts.into_iter().collect(), residents)
}

/// Does the moves one by one, reckoned apart from the advice, and gives the ledgers at the end.
fn replay(advice: &Advice, inventory: &Inventory, residents: &[Resident]) -> BTreeMap<HostId, HostLedger> {
    let mut ledgers: BTreeMap<HostId, HostLedger> =
        inventory.hosts().map(|h| (h.id, h.ledger.clone())).collect();
    let by_name: BTreeMap<Name, HostId> = inventory.hosts().map(|h| (h.name.clone(), h.id)).collect();
    let mut copied = 0;
    for step in &advice.moves {
        let who = residents.iter().find(|who| who.server == step.server).unwrap();
        let request = who.asks.as_ref().unwrap();
        let (from, to) = (by_name[&step.from], by_name[&step.to]);
        assert_eq!(from, who.from, "a server goes once");
        assert_ne!(from, to);
        let there = inventory.get(to).unwrap();
        assert!(there.spec.enabled, "no move to a host that takes none");
        let after = claim(&ledgers[&to], &request.claim());
        let all = there.effective();
        assert!(
            after.used.vcpus <= all.vcpus
                && after.used.memory_mib <= all.memory_mib
                && after.used.disk_gib <= all.disk_gib,
            "{step:?} does not fit: {after:?} of {all:?}"
        );
        if let Some(group) = &request.anti_affinity_group {
            assert_eq!(after.groups[group], 1, "{step:?} breaks its group");
        }
        ledgers.insert(to, after);
        let left = release(&ledgers[&from], &request.claim());
        ledgers.insert(from, left);
        copied += if who.live { request.resources.memory_mib } else { 0 };
    }
    assert_eq!(copied, advice.memory_mib);
    ledgers
}

fn fullest(inventory: &Inventory, ledgers: &BTreeMap<HostId, HostLedger>) -> f64 {
    let share = |h: &std::sync::Arc<HostView>| {
        ledgers[&h.id].used.memory_mib as f64 / h.effective().memory_mib as f64
    };
    inventory.hosts().map(share).fold(0.0, f64::max)
}

fn kits() -> impl Strategy<Value = Vec<Kit>> {
    prop::collection::vec((1_u32..16, 1_u64..32, prop::bool::weighted(0.9)), 1..12)
}

fn lodgers() -> impl Strategy<Value = Vec<Lodger>> {
    let group = prop::option::weighted(0.3, any::<bool>());
    let one = (0_usize..12, 1_u32..4, 1_u64..8, group, prop::bool::weighted(0.85));
    prop::collection::vec(one, 0..40)
}

proptest! {
    #[test]
    fn each_step_fits_when_it_comes(kits in kits(), lodgers in lodgers(), at in 0_usize..12, most in 0_usize..30) {
        let (inventory, residents) = fleet(&kits, &lodgers);
        for goal in [Goal::Spread, Goal::Consolidate, Goal::Drain(host_id(at % kits.len()))] {
            let advice = advise(goal, &residents, &inventory, &Policy::spread(), most);
            replay(&advice, &inventory, &residents);
            prop_assert_eq!(&advice, &advise(goal, &residents, &inventory, &Policy::spread(), most), "the same again");
            prop_assert!(advice.moves.len() <= most || matches!(goal, Goal::Drain(_)));
        }
    }

    #[test]
    fn a_drain_speaks_of_each_server_of_the_host_and_of_no_other(kits in kits(), lodgers in lodgers(), at in 0_usize..12) {
        let (inventory, residents) = fleet(&kits, &lodgers);
        let host = host_id(at % kits.len());
        let advice = advise(Goal::Drain(host), &residents, &inventory, &Policy::spread(), 0);
        let mut named: Vec<ServerId> = advice.moves.iter().map(|m| m.server).collect();
        named.extend(advice.stays.iter().map(|s| s.server));
        named.sort_unstable();
        let mut here: Vec<ServerId> = residents.iter().filter(|r| r.from == host).map(|r| r.server).collect();
        here.sort_unstable();
        prop_assert_eq!(&named, &here);
        let left = replay(&advice, &inventory, &residents)[&host].servers as usize;
        prop_assert_eq!(left, advice.stays.len());
        prop_assert_eq!(advice.emptied.len(), usize::from(left == 0 && !here.is_empty()));
    }

    #[test]
    fn consolidating_empties_hosts_and_uses_no_empty_one(kits in kits(), lodgers in lodgers()) {
        let (inventory, residents) = fleet(&kits, &lodgers);
        let advice = advise(Goal::Consolidate, &residents, &inventory, &Policy::spread(), 1000);
        let after = replay(&advice, &inventory, &residents);
        for host in inventory.hosts() {
            let now = after[&host.id].servers;
            prop_assert!(host.ledger.servers > 0 || now == 0, "{} was empty", host.name);
            prop_assert_eq!(advice.emptied.contains(&host.name), host.ledger.servers > 0 && now == 0);
        }
        prop_assert!(advice.emptied.is_empty() == advice.moves.is_empty(), "no move for nothing");
    }

    #[test]
    fn spreading_never_makes_the_fullest_host_fuller(kits in kits(), lodgers in lodgers()) {
        let (inventory, residents) = fleet(&kits, &lodgers);
        let before = inventory.hosts().map(|h| (h.id, h.ledger.clone())).collect();
        let advice = advise(Goal::Spread, &residents, &inventory, &Policy::pack(), 1000);
        let after = replay(&advice, &inventory, &residents);
        prop_assert!(fullest(&inventory, &after) <= fullest(&inventory, &before) + 1e-9);
    }
}

#[test]
fn two_full_hosts_and_an_empty_one_become_alike() {
    let lodgers: Vec<Lodger> = (0..8).map(|n| (n % 2, 1, 4, None, true)).collect();
    let (inventory, residents) = fleet(&[(16, 16, true); 3], &lodgers);
    let advice = advise(Goal::Spread, &residents, &inventory, &Policy::spread(), 1000);
    let after = replay(&advice, &inventory, &residents);
    let mut counts: Vec<u32> = after.values().map(|ledger| ledger.servers).collect();
    counts.sort_unstable();
    assert_eq!(counts, [2, 3, 3]);
}

#[test]
fn three_hosts_with_a_little_become_one() {
    let lodgers: Vec<Lodger> = (0..3).map(|n| (n, 1, 2, None, true)).collect();
    let (inventory, residents) = fleet(&[(16, 16, true); 3], &lodgers);
    let advice = advise(Goal::Consolidate, &residents, &inventory, &Policy::spread(), 1000);
    assert_eq!((advice.moves.len(), advice.emptied.len()), (2, 2));
    let held = advise(Goal::Consolidate, &residents, &inventory, &Policy::spread(), 1);
    assert_eq!((held.moves.len(), held.emptied.len()), (1, 1));
}
