//! The scheduler's table, and `--agree N`: N random requests of which the index and the scan must say the same.
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::print_stdout,
    missing_docs,
    reason = "a program that measures"
)]

#[path = "../tests/clouds/mod.rs"]
mod clouds;
mod world;

use std::time::{Duration, Instant};

use clouds::Dice;
use world::World;

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    match arguments.iter().position(|a| a == "--agree") {
        Some(at) => agree(arguments[at + 1].parse().unwrap()),
        None => table(),
    }
}

/// Random requests to random clouds, with claims, releases and changes of hosts between them.
fn agree(requests: u64) {
    let (mut dice, mut asked, mut placed) = (Dice(1), 0, 0);
    while asked < requests {
        let hosts = dice.below(200);
        let mut fleet = clouds::cloud(hosts, &mut dice);
        let policy = clouds::policy(&mut dice);
        let mut servers = Vec::new();
        for server in 0..500 {
            let demand = clouds::demand(server, hosts, &mut dice);
            let offer = fleet.decide(&policy, &demand);
            assert_eq!(
                offer,
                fleet.scan(&policy, &demand),
                "the index and the scan differ"
            );
            asked += 1;
            if let Some(offer) = offer {
                fleet.claim(&demand, &offer).unwrap();
                let machine = fleet.get(offer.host).unwrap();
                let used = fleet.used(offer.host).unwrap();
                let mut each = machine.offered().0.into_iter().zip(used);
                assert!(
                    each.all(|(offered, used)| used <= u64::from(offered)),
                    "overcommitted"
                );
                placed += 1;
                servers.push(demand.server);
            }
            if dice.once_in(3) && !servers.is_empty() {
                fleet
                    .release(servers.swap_remove(dice.below(servers.len() as u64) as usize))
                    .unwrap();
            }
        }
    }
    println!(
        "{asked} requests, {placed} of them placed: the index and the scan agree, nothing is overcommitted"
    );
}

fn table() {
    println!(
        "decide, claim, release; 95 % full; 8 flavors, 64 traits, 3 zones, a quarter in groups that stand apart\n"
    );
    println!(
        "| hosts | p50 us | p99 us | p99.9 us | placements/s (clock) | placements/s (CPU) | kept report p50 us | p99 us | refused | scan us | explain ms | index B/host |"
    );
    println!("| ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |");
    for hosts in [1_000, 5_000, 10_000, 100_000] {
        row(hosts);
    }
    fill(100_000, 2_000_000);
}

fn row(hosts: u64) {
    const ROUNDS: usize = 100_000;
    let mut world = World::full(hosts);
    let (mut times, mut refused) = (Vec::with_capacity(ROUNDS), 0);
    let cpu = on_cpu();
    for _ in 0..ROUNDS {
        let demand = world.demand();
        let leaver = world.any_server();
        let start = Instant::now();
        let offer = world.fleet.decide(&world.policy, &demand);
        if let Some(offer) = &offer {
            world.fleet.claim(&demand, offer).unwrap();
            world.fleet.release(world.servers[leaver]);
        }
        times.push(start.elapsed());
        match offer {
            Some(_) => world.servers[leaver] = demand.server,
            None => refused += 1,
        }
    }
    let cpu = on_cpu() - cpu;
    let clock: Duration = times.iter().sum();
    times.sort_unstable();
    let micros = |time: Duration| time.as_secs_f64() * 1e6;
    let kept = reports(&mut world);
    let demand = world.demand();
    let whole = world.policy.clone();
    let scan = Instant::now();
    let rounds = 20;
    for _ in 0..rounds {
        std::hint::black_box(world.fleet.scan(&whole, &demand));
    }
    let scan = micros(scan.elapsed()) / f64::from(rounds);
    let explain = Instant::now();
    std::hint::black_box(world.fleet.explain(&whole, &demand));
    let explain = micros(explain.elapsed()) / 1e3;
    println!(
        "| {hosts} | {:.2} | {:.2} | {:.2} | {:.0} | {:.0} | {:.2} | {:.2} | {refused} of {ROUNDS} | {scan:.0} | {explain:.1} | {} |",
        micros(times[ROUNDS / 2]),
        micros(times[ROUNDS * 99 / 100]),
        micros(times[ROUNDS * 999 / 1_000]),
        ROUNDS as f64 / clock.as_secs_f64(),
        ROUNDS as f64 / cpu,
        micros(kept[kept.len() / 2]),
        micros(kept[kept.len() * 99 / 100]),
        world.fleet.index_bytes() as u64 / hosts,
    );
}

/// What a decision takes that comes with the report that is kept, of servers that have a host.
fn reports(world: &mut World) -> Vec<Duration> {
    const REPORTS: usize = 2_000;
    let mut times = Vec::with_capacity(REPORTS);
    while times.len() < REPORTS {
        let demand = world.demand();
        let start = Instant::now();
        let (offer, report) = world.fleet.decide_with_reasons(&world.policy, &demand);
        let took = start.elapsed();
        std::hint::black_box(report);
        if offer.is_some() {
            times.push(took);
        }
    }
    times.sort_unstable();
    times
}

/// Seconds that this process was on a CPU: other processes of a shared machine do not count, making the requests does.
fn on_cpu() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/schedstat").unwrap();
    stat.split(' ').next().unwrap().parse::<f64>().unwrap() / 1e9
}

/// Memory of this process in bytes.
fn resident() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4_096
}

fn fill(hosts: u64, servers: usize) {
    let before = resident();
    let mut world = World::new(hosts);
    let empty = resident();
    let start = Instant::now();
    let mut refused = 0;
    while world.servers.len() < servers {
        let demand = world.demand();
        refused += usize::from(!world.place(&demand));
    }
    let took = start.elapsed().as_secs_f64();
    println!(
        "\nfilling {hosts} hosts with {servers} servers: {took:.1} s, {:.0} placements/s, {refused} refused; {} bytes a host in all, {} bytes a server",
        servers as f64 / took,
        (empty.saturating_sub(before)) / hosts,
        (resident().saturating_sub(empty)) / servers as u64,
    );
}
