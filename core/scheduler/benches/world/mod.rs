//! The cloud that is measured: racks of sixteen equal hosts, three zones, 64 traits, eight flavors, 95 % of memory taken.
#![allow(dead_code, reason = "each bench uses a part")]

use skyloom_model::{Id, Ids, ManualClock, Name, SeededIds, ServerId};
use skyloom_scheduler::fleet::{Amounts, Class, Demand, Feature, Fleet, Machine, Policy};

/// vCPUs, MiB, GiB.
const FLAVORS: [(u32, u32, u32); 8] = [
    (1, 1_024, 10),
    (1, 2_048, 20),
    (2, 4_096, 40),
    (4, 4_096, 40),
    (2, 8_192, 80),
    (4, 8_192, 80),
    (8, 16_384, 160),
    (16, 32_768, 320),
];

#[derive(Debug)]
pub(crate) struct World {
    pub(crate) fleet: Fleet,
    pub(crate) policy: Policy,
    pub(crate) servers: Vec<ServerId>,
    ids: SeededIds<ManualClock>,
    dice: u64,
    asked: u64,
    memory: u64,
    used: u64,
}

impl World {
    /// Empty hosts.
    pub(crate) fn new(hosts: u64) -> Self {
        let ids = SeededIds::new(ManualClock::new(), 1);
        let mut world = Self {
            fleet: Fleet::new(),
            policy: Policy::spread(),
            servers: Vec::new(),
            ids,
            dice: 7,
            asked: 0,
            memory: 0,
            used: 0,
        };
        let mut machines = Vec::new();
        let (mut traits, mut size) = (Vec::new(), 0);
        for number in 0..hosts {
            if number % 16 == 0 {
                traits = (0..64)
                    .filter(|_| world.below(4) > 0)
                    .map(|t| Feature::Trait(format!("trait-{t}")))
                    .collect();
                size = world.below(3) as u32;
            }
            let total = Amounts::default()
                .with(Class::VCPUS, 48 + size * 16)
                .with(Class::MEMORY, (192 + size * 96) * 1_024)
                .with(Class::DISK, 8_000);
            // Ids in the order of making, as those of hosts are that are unpacked rack by rack.
            let mut machine = Machine::new(world.id(), Name::new(format!("host-{number}")).unwrap(), total);
            machine.ratios[0] = 4.0;
            machine.features.extend(traits.iter().cloned());
            machine
                .labels
                .insert("zone".into(), format!("zone-{}", number / 16 % 3));
            world.memory += u64::from(total.of(Class::MEMORY));
            machines.push(machine);
        }
        world.fleet.upsert(machines);
        world
    }

    /// Hosts of which 95 % of memory is taken.
    pub(crate) fn full(hosts: u64) -> Self {
        let mut world = Self::new(hosts);
        while world.used * 100 < world.memory * 95 {
            let demand = world.demand();
            world.place(&demand);
        }
        world
    }

    fn id<K: ?Sized>(&self) -> Id<K> {
        Id::from_uuid(self.ids.uuid())
    }
    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.dice = self
            .dice
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.dice >> 33) % limit
    }

    /// A flavor; up to two traits; each third a zone; each fourth a member of a group of eight that stand apart.
    pub(crate) fn demand(&mut self) -> Demand {
        self.asked += 1;
        let (vcpus, memory, disk) = FLAVORS[self.below(8) as usize];
        let amounts = Amounts::default()
            .with(Class::VCPUS, vcpus)
            .with(Class::MEMORY, memory)
            .with(Class::DISK, disk);
        let mut demand = Demand::new(self.id(), amounts);
        for _ in 0..self.below(3) {
            demand
                .required
                .insert(Feature::Trait(format!("trait-{}", self.below(64))));
        }
        if self.below(3) == 0 {
            demand
                .required
                .insert(Feature::Label("zone".into(), format!("zone-{}", self.below(3))));
        }
        if self.below(4) == 0 {
            let group = format!("group-{}", self.asked / 32);
            demand = demand.apart(&group);
        }
        demand
    }

    /// Decides and claims.
    pub(crate) fn place(&mut self, demand: &Demand) -> bool {
        let Some(offer) = self.fleet.decide(&self.policy, demand) else {
            return false;
        };
        self.fleet.claim(demand, &offer).unwrap();
        self.servers.push(demand.server);
        self.used += u64::from(demand.amounts.of(Class::MEMORY));
        true
    }

    /// Any server but the newest leaves.
    pub(crate) fn any_server(&mut self) -> usize {
        self.below(self.servers.len() as u64 - 1) as usize
    }
}
