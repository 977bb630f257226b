//! A scheduling policy of one's own: graphics cards and NUMA cells.
//!
//! Three things are added to a fleet: a class of resources (cards are counted as memory is), a filter (a server must fit into one NUMA
//! cell of its host) and a weigher (servers without cards stay off hosts that have some). What refuses a server is explained like the
//! scheduler's own conditions. `cargo run --example custom_scheduler`

#![allow(clippy::print_stdout, reason = "a program of its own, not a library")]

use std::collections::BTreeMap;
use std::error::Error;

use skyloom::model::{HostId, Ids as _, Name, OsIds, ServerId, SystemClock};
use skyloom::scheduler::fleet::{
    Amounts, Batch, Class, Demand, Fleet, HostFilter, HostWeigher, Machine, Policy, View,
};

/// A server's virtual CPUs must fit into one NUMA cell. How large the cells are is known to the product, not to the fleet.
#[derive(Debug)]
struct OneCell {
    threads_of_a_cell: BTreeMap<HostId, u32>,
}

impl HostFilter for OneCell {
    fn name(&self) -> &'static str {
        "one_cell"
    }
    fn check(&self, demand: &Demand, host: &View<'_>) -> Result<(), String> {
        let cell = self
            .threads_of_a_cell
            .get(&host.machine().id)
            .copied()
            .unwrap_or(0);
        match demand.amounts.of(Class::VCPUS) {
            need if need > cell => Err(format!("needs {need} threads of one cell, cells have {cell}")),
            _ => Ok(()),
        }
    }
}

/// Who needs no card stays off hosts with cards.
#[derive(Debug)]
struct SaveCards(Class);

impl HostWeigher for SaveCards {
    fn name(&self) -> &'static str {
        "save_cards"
    }
    fn weigh(&self, demand: &Demand, host: &View<'_>) -> f64 {
        f64::from(u8::from(
            demand.amounts.of(self.0) > 0 || host.offered(self.0) == 0,
        ))
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let ids = OsIds::new(SystemClock::new());
    let cards = Class::custom(0).ok_or("the first class of one's own")?;
    let (mut fleet, mut threads_of_a_cell) = (Fleet::new(), BTreeMap::new());
    // Two hosts with four cards and cells of 16 threads; four without cards and with cells of 32.
    let mut machines = Vec::new();
    for number in 0..6 {
        let id = HostId::from_uuid(ids.uuid());
        let (count, cell) = if number < 2 { (4, 16) } else { (0, 32) };
        let total = Amounts::default()
            .with(Class::VCPUS, 64)
            .with(Class::MEMORY, 262_144)
            .with(cards, count);
        machines.push(Machine::new(id, Name::new(format!("host-{number}"))?, total));
        threads_of_a_cell.insert(id, cell);
    }
    fleet.upsert(machines);
    let policy = Policy::spread()
        .with_filter(OneCell { threads_of_a_cell })
        .with_weigher(SaveCards(cards), 10.0);

    let size = |vcpus, count| {
        Amounts::default()
            .with(Class::VCPUS, vcpus)
            .with(Class::MEMORY, 8_192)
            .with(cards, count)
    };
    let demand = |amounts| Demand::new(ServerId::from_uuid(ids.uuid()), amounts);

    let training: Vec<Demand> = (0..3).map(|_| demand(size(16, 2)).apart("training")).collect();
    println!("three trainers of two cards, each on a host of its own:");
    match fleet.place(&policy, &training, Batch::All) {
        Ok(_) => return Err("two hosts with cards cannot take three trainers".into()),
        Err(number) => println!("  number {number} fits nowhere, so none is placed"),
    }
    for host in fleet
        .place(&policy, &training[..2], Batch::All)
        .map_err(|n| n.to_string())?
    {
        println!("  two of them: {}", named(&fleet, host));
    }

    let web = demand(size(4, 0));
    let offer = fleet.decide(&policy, &web).ok_or("there is room")?;
    println!("a web server: {}", named(&fleet, Some(offer.host)));
    fleet.claim(&web, &offer)?;

    println!("\na trainer of 24 threads:");
    println!("{}", fleet.explain(&policy, &demand(size(24, 1))).operator_text());
    let more = fleet.forecast(&policy, &demand(size(8, 1)), "zone");
    println!(
        "\n{} more trainers of one card fit, on {} hosts",
        more.servers, more.hosts
    );
    Ok(())
}

fn named(fleet: &Fleet, host: Option<HostId>) -> String {
    host.and_then(|host| fleet.get(host))
        .map_or_else(|| "nowhere".to_owned(), |machine| machine.name.to_string())
}
