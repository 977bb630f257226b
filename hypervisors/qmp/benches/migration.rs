//! How long a guest of 256 MiB takes to another host over the loopback, and for how long it is held: an idle Linux, and a
//! boot sector that writes to 128 pages all the time. Beside them QEMU's own figures (`query-migrate`).
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a bench")]

#[path = "../tests/it/guest.rs"]
mod guest;
#[path = "../tests/it/host.rs"]
mod host;
#[path = "../tests/it/pair.rs"]
mod pair;

use std::time::Duration;

use futures::StreamExt;
use serde_json::Value;
use skyloom_hypervisor::conformance::Side;
use skyloom_hypervisor::{Console, Hypervisor, Migration, Stream, VmEventKind, VmSpec};
use skyloom_model::PowerState;
use skyloom_qmp::client;
use tokio::time::Instant;

use crate::host::until;
use crate::pair::Pair;

const RUNS: usize = 3;

#[derive(Debug, Default)]
struct Figures {
    total: Vec<Duration>,
    held: Vec<Duration>,
    qemu_total: Vec<Duration>,
    qemu_held: Vec<Duration>,
    sent: u64,
}

fn median(mut all: Vec<Duration>) -> Duration {
    all.sort();
    all[all.len() / 2]
}

async fn guest(pair: &Pair, linux: bool) -> VmSpec {
    let mut spec = pair.counting(!linux);
    spec.memory_mib = 256;
    if linux {
        let (from, to) = (guest::linux_image(), spec.disks[0].path.clone());
        host::img(&[
            "convert",
            "-O",
            "raw",
            from.to_str().unwrap(),
            to.to_str().unwrap(),
        ]);
    }
    let hypervisor = pair.at(Side::Source);
    hypervisor.define(&spec).await.unwrap();
    hypervisor.start(spec.id, 1).await.unwrap();
    let text = if linux { "skyloom-guest ready" } else { "aabaaa\n" };
    until(text, async || {
        let tail = hypervisor.console_tail(spec.id, 1 << 20).await.unwrap();
        String::from_utf8_lossy(&tail).contains(text).then_some(())
    })
    .await;
    VmSpec {
        generation: 2,
        ..spec
    }
}

async fn run(linux: bool, figures: &mut Figures) {
    let pair = Pair::fast().await;
    let spec = guest(&pair, linux).await;
    let (source, destination) = (pair.at(Side::Source), pair.at(Side::Destination));
    let mut events = source.events();
    let begin = Instant::now();
    let there = destination.receive(&spec).await.unwrap();
    source.send(spec.id, 2, &there.address).await.unwrap();
    let held = async {
        loop {
            let event = events.next().await.unwrap();
            let off = |p: PowerState| matches!(p, PowerState::Paused | PowerState::Stopped);
            if matches!(event.kind, VmEventKind::Power { power, .. } if off(power)) {
                return Instant::now();
            }
        }
    };
    let go = async {
        let seen = loop {
            let seen = source.migration(spec.id).await.unwrap();
            if seen.stream == Stream::Ready {
                break seen;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        };
        source.hand_over(spec.id, 2).await.unwrap();
        destination.take_over(spec.id, 2).await.unwrap();
        (seen, Instant::now())
    };
    let (held, (seen, end)) = tokio::join!(held, go);
    figures.total.push(end - begin);
    figures.held.push(end - held);
    figures.qemu_held.push(seen.progress.downtime);
    figures.sent = seen.progress.sent_bytes;
}

/// The same without us: what the source's QEMU says when its stream is whole.
async fn run_of_qemu(linux: bool, figures: &mut Figures) {
    let pair = Pair::fast().await;
    let spec = guest(&pair, linux).await;
    let source = pair.at(Side::Source);
    let there = pair.at(Side::Destination).receive(&spec).await.unwrap();
    source.send(spec.id, 2, &there.address).await.unwrap();
    until("ready", async || {
        let seen = source.migration(spec.id).await.unwrap();
        (seen.stream == Stream::Ready).then_some(())
    })
    .await;
    source.close().await;
    let socket = pair.host(Side::Source).vm_dir(spec.id).join("run/qmp.sock");
    let patience = Duration::from_secs(5);
    let (client, connection) = client::connect(&socket, patience).await.unwrap();
    let asked = client.execute("query-migrate", Value::Null, patience);
    let told =
        tokio::select! { biased; told = asked => told.unwrap(), why = connection.run() => panic!("{why}") };
    figures
        .qemu_total
        .push(Duration::from_millis(told["total-time"].as_u64().unwrap()));
}

#[tokio::main]
async fn main() {
    for (name, linux) in [("idle Linux", true), ("writes", false)] {
        let mut figures = Figures::default();
        for _ in 0..RUNS {
            run(linux, &mut figures).await;
            run_of_qemu(linux, &mut figures).await;
        }
        println!(
            "{name}: total {:?}, held {:?}; QEMU's own: total {:?}, held {:?}; sent {} KiB (medians of {RUNS})",
            median(figures.total),
            median(figures.held),
            median(figures.qemu_total),
            median(figures.qemu_held),
            figures.sent >> 10,
        );
    }
}
