//! Random clouds and demands from a seed, small and full of edges, so that every filter refuses and every rule is met.
#![allow(dead_code, reason = "each test and bench uses a part")]

use std::collections::BTreeSet;

use skyloom_model::{HostId, Id, Ids, ManualClock, Name, SeededIds};
use skyloom_scheduler::fleet::{
    Amounts, CLASSES, Class, Closed, Demand, Feature, Fleet, GroupRule, HostFilter, Machine, Policy, Stand,
    Topology, View, Weigh,
};

/// SplitMix64.
#[derive(Debug, Clone)]
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    pub(crate) fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.roll() % limit
    }
    pub(crate) fn once_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
    pub(crate) fn pick<T: Clone>(&mut self, all: &[T]) -> T {
        all[self.below(all.len() as u64) as usize].clone()
    }
}

pub(crate) fn id<K: ?Sized>(seed: u64) -> Id<K> {
    Id::from_uuid(SeededIds::new(ManualClock::new(), seed).uuid())
}

pub(crate) fn host_id(number: u64) -> HostId {
    id(number)
}

pub(crate) fn machine(number: u64, dice: &mut Dice) -> Machine {
    let mut total = Amounts::default();
    for class in Class::all().take(4) {
        total = total.with(class, dice.below(64) as u32);
    }
    let mut machine = Machine::new(
        host_id(number),
        Name::new(format!("host-{number}")).unwrap(),
        total,
    );
    machine.ratios[0] = dice.pick(&[1.0, 1.0, 4.0, 1.3, 0.0, -1.0, f64::NAN, f64::INFINITY]);
    machine.reserved = Amounts::default().with(Class::MEMORY, dice.below(8) as u32);
    for state in [
        Closed::Disabled,
        Closed::Maintenance,
        Closed::Unreachable,
        Closed::Unreported,
    ] {
        if dice.once_in(16) {
            machine.closed.insert(state);
        }
    }
    for number in 0..6 {
        if dice.once_in(2) {
            machine.features.insert(Feature::Trait(format!("t{number}")));
        }
    }
    // More names than there are bits, so that some features are looked up host by host.
    machine
        .features
        .insert(Feature::Trait(format!("serial-{}", number * 7)));
    machine
        .features
        .insert(Feature::Aggregate(format!("a{}", dice.below(3))));
    if !dice.once_in(5) {
        machine
            .labels
            .insert("zone".into(), format!("z{}", dice.below(3)));
    }
    if dice.once_in(3) {
        machine.labels.insert("rack".into(), format!("r{}", number / 2));
    }
    if dice.once_in(5) {
        machine.tenants.insert(format!("p{}", dice.below(3)));
    }
    machine
}

pub(crate) fn cloud(hosts: u64, dice: &mut Dice) -> Fleet {
    let mut fleet = Fleet::new();
    fleet.upsert((0..hosts).map(|number| machine(number, dice)).collect::<Vec<_>>());
    fleet
}

fn rule(dice: &mut Dice) -> GroupRule {
    GroupRule {
        group: format!("g{}", dice.below(4)),
        stand: dice.pick(&[
            Stand::Together,
            Stand::Apart { most: 1 },
            Stand::Apart { most: 2 },
            Stand::Apart {
                most: dice.clone().below(2) as u32,
            },
        ]),
        topology: dice.pick(&[
            Topology::Host,
            Topology::Label("zone".into()),
            Topology::Label("rack".into()),
        ]),
        hard: !dice.once_in(3),
    }
}

pub(crate) fn demand(server: u64, hosts: u64, dice: &mut Dice) -> Demand {
    let mut amounts = Amounts::default();
    let most = dice.pick(&[4, 8, 48]);
    for class in Class::all().take(CLASSES / 2) {
        amounts = amounts.with(class, dice.below(most) as u32);
    }
    let mut demand = Demand::new(id(1 << 40 | server), amounts);
    demand.tenant = (!dice.once_in(4)).then(|| format!("p{}", dice.below(4)));
    demand.dedicated = dice.once_in(12);
    for _ in 0..dice.below(3) {
        demand
            .required
            .insert(Feature::Trait(format!("t{}", dice.below(7))));
    }
    if dice.once_in(3) {
        demand
            .required
            .insert(Feature::Label("zone".into(), format!("z{}", dice.below(3))));
    }
    if dice.once_in(12) {
        demand
            .required
            .insert(Feature::Trait(format!("serial-{}", dice.below(hosts + 1) * 7)));
    }
    if dice.once_in(3) {
        demand
            .forbidden
            .insert(Feature::Aggregate(format!("a{}", dice.below(4))));
    }
    if dice.once_in(6) {
        demand
            .forbidden
            .insert(Feature::Trait(format!("serial-{}", dice.below(hosts + 1) * 7)));
    }
    if dice.once_in(2) {
        demand.joins.insert(format!("g{}", dice.below(4)));
    }
    let rules: BTreeSet<GroupRule> = (0..dice.below(3)).map(|_| rule(dice)).collect();
    demand.rules = rules.into_iter().collect();
    if dice.once_in(8) {
        demand.only = Some(
            (0..=dice.below(4))
                .map(|_| host_id(dice.below(hosts + 1)))
                .collect(),
        );
    }
    demand.exclude = (0..dice.below(3))
        .map(|_| host_id(dice.below(hosts + 1)))
        .collect();
    demand
}

/// Refuses hosts whose names end in 3.
#[derive(Debug)]
pub(crate) struct NotThree;
impl HostFilter for NotThree {
    fn name(&self) -> &'static str {
        "not_three"
    }
    fn check(&self, _: &Demand, host: &View<'_>) -> Result<(), String> {
        if host.machine().name.as_str().ends_with('3') {
            Err("three".into())
        } else {
            Ok(())
        }
    }
}

pub(crate) fn policy(dice: &mut Dice) -> Policy {
    let policy = dice.pick(&[
        Policy::any(),
        Policy::spread(),
        Policy::pack(),
        Policy::spread().whole(),
    ]);
    let policy = if dice.once_in(2) {
        policy
    } else {
        policy.candidates(1 + dice.below(6) as usize)
    };
    let policy = if dice.once_in(2) {
        policy
    } else {
        policy.window(dice.below(20) as usize)
    };
    let policy = if dice.once_in(4) {
        policy.with_filter(NotThree)
    } else {
        policy
    };
    if dice.once_in(4) {
        policy.with_weigher(Weigh::Free(Class::DISK), -0.5)
    } else {
        policy
    }
}
