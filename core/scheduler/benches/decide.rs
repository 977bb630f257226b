//! One placement (decide, claim, release of another server) at three sizes of clouds that are 95 % full.
#![allow(clippy::unwrap_used, missing_docs, reason = "a bench")]

mod world;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use world::World;

fn placements(c: &mut Criterion) {
    let mut group = c.benchmark_group("place");
    for hosts in [1_000, 10_000, 100_000] {
        let mut world = World::full(hosts);
        let demands: Vec<_> = (0..4_096).map(|_| world.demand()).collect();
        let mut next = 0;
        group.bench_function(BenchmarkId::from_parameter(hosts), |b| {
            b.iter(|| {
                let demand = &demands[next % demands.len()];
                next += 1;
                if let Some(offer) = world.fleet.decide(&world.policy, demand) {
                    world.fleet.claim(demand, &offer).unwrap();
                    world.fleet.release(demand.server);
                }
            });
        });
    }
    group.finish();
}

criterion_group!(benches, placements);
criterion_main!(benches);
