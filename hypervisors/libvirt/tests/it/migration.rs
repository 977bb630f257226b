//! Guests between two real session daemons, and what dies on the way.

use std::net::Ipv4Addr;

use rustix::process::Signal;
use skyloom_hypervisor::{
    ErrorKind, Half, Hypervisor, Inspection, Migration, Seen, Stream, Truth, VmSpec, truth,
};
use skyloom_libvirt::{LibvirtConfig, LibvirtHypervisor, Moving};
use skyloom_model::PowerState;

use crate::guest::{GREETING, Mode};
use crate::host::{Host, qemus, quick, signal, until};

const RUNNING: Inspection = Inspection::Found {
    generation: 2,
    power: PowerState::Running,
};

fn config(host: &Host) -> LibvirtConfig {
    let moving = Moving::new(Ipv4Addr::LOCALHOST.into());
    host.config().with_timeouts(quick()).with_migration(moving)
}

/// A guest that counts on the first host, on its way to the second.
async fn on_its_way(hosts: &[Host; 2]) -> ([LibvirtHypervisor; 2], VmSpec) {
    let [a, b] = hosts;
    let source = a.open_with(config(a)).await;
    let destination = b.open_with(config(b)).await;
    let mut spec = a.spec("counts", Mode::Flood);
    source.define(&spec).await.unwrap();
    source.start(spec.id, 1).await.unwrap();
    until("a counter", async || {
        (log(a, &spec).lines().count() > 2).then_some(())
    })
    .await;
    spec.generation = 2;
    let there = destination.receive(&spec).await.unwrap();
    source.send(spec.id, 2, &there.address).await.unwrap();
    ([source, destination], spec)
}

fn log(host: &Host, spec: &VmSpec) -> String {
    let path = host.path(&format!("logs/{}/run/serial.log", spec.id));
    std::fs::read_to_string(path).unwrap_or_default()
}

/// Every line of the counter, over both hosts, is one more than the last.
fn counts_on(hosts: &[Host; 2], spec: &VmSpec) {
    let [there, here] = hosts.each_ref().map(|host| log(host, spec));
    let (_, counted) = there.split_once(&format!("{GREETING}\r\n")).unwrap();
    let all = format!("{counted}{here}");
    let number = |line: &str| line.bytes().fold(0u16, |n, b| (n << 4) | u16::from(b - b'a'));
    let whole = all.rsplit_once('\n').unwrap().0;
    let numbers: Vec<u16> = whole.lines().map(number).collect();
    assert!(here.lines().count() > 2, "it goes on");
    for two in numbers.windows(2) {
        assert_eq!(two[1], two[0].wrapping_add(1));
    }
}

async fn until_stream(hypervisor: &LibvirtHypervisor, spec: &VmSpec, wanted: Stream) {
    until(&format!("{wanted:?}"), async || {
        let seen = hypervisor.migration(spec.id).await.ok()?;
        (seen.stream == wanted).then_some(())
    })
    .await;
}

async fn connected(hypervisor: &LibvirtHypervisor) {
    until("both connections", async || {
        hypervisor.unreachable().is_none().then_some(())
    })
    .await;
}

async fn seen(hypervisor: &LibvirtHypervisor, spec: &VmSpec) -> Seen {
    match hypervisor.migration(spec.id).await {
        Ok(seen) => Seen::Here(seen.half, seen.stream),
        Err(e) if e.kind() == ErrorKind::NotFound => Seen::Gone,
        Err(_) => Seen::CannotTell,
    }
}

#[tokio::test]
async fn a_guest_counts_on_though_both_daemons_are_killed_at_each_step() {
    let hosts = [Host::new(), Host::new()];
    let ([source, destination], spec) = on_its_way(&hosts).await;
    let restart = async || {
        for (host, hypervisor) in hosts.iter().zip([&source, &destination]) {
            host.kill_daemon();
            until("a dead connection", async || hypervisor.unreachable().map(drop)).await;
            host.start_daemon();
            connected(hypervisor).await;
        }
    };
    restart().await;
    until_stream(&source, &spec, Stream::Ready).await;
    restart().await;
    assert_eq!(source.hand_over(spec.id, 2).await.unwrap(), Stream::Complete);
    until_stream(&destination, &spec, Stream::Complete).await;
    restart().await;
    assert_eq!(
        seen(&source, &spec).await,
        Seen::Here(Half::HandedOver, Stream::Complete)
    );
    destination.take_over(spec.id, 2).await.unwrap();
    assert_eq!(destination.inspect(spec.id).await.unwrap(), RUNNING);
    assert_eq!(qemus(spec.id).len(), 1);
    until("more numbers", async || {
        (log(&hosts[1], &spec).lines().count() > 10).then_some(())
    })
    .await;
    counts_on(&hosts, &spec);
}

#[tokio::test]
async fn a_destination_that_dies_before_the_switch_over_is_found_by_it_and_the_source_stays_held() {
    let hosts = [Host::new(), Host::new()];
    let ([source, destination], spec) = on_its_way(&hosts).await;
    until_stream(&source, &spec, Stream::Ready).await;
    destination.undefine(spec.id, 2).await.unwrap();
    assert_eq!(source.hand_over(spec.id, 2).await.unwrap(), Stream::Broken);
    let counted = log(&hosts[0], &spec);
    let (from, to) = (seen(&source, &spec).await, seen(&destination, &spec).await);
    assert_eq!(truth(from, to), Truth::Disks);
    let start = source.start(spec.id, 3).await.unwrap_err();
    assert_eq!(start.kind(), ErrorKind::Conflict);
    assert_eq!(qemus(spec.id).len(), 0);
    assert_eq!(log(&hosts[0], &spec), counted, "it has not executed");
}

#[tokio::test]
async fn a_source_that_dies_before_the_switch_over_leaves_nothing_to_take_over() {
    let hosts = [Host::new(), Host::new()];
    let ([source, destination], spec) = on_its_way(&hosts).await;
    until_stream(&source, &spec, Stream::Ready).await;
    for pid in qemus(spec.id) {
        let args = crate::host::cmdline(format!("/proc/{pid}").as_ref());
        if !args.iter().any(|arg| arg == "-incoming") {
            signal(pid, Signal::KILL);
        }
    }
    until_stream(&destination, &spec, Stream::Broken).await;
    let refused = destination.take_over(spec.id, 2).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Conflict);
    until_stream(&source, &spec, Stream::Broken).await;
    let (from, to) = (seen(&source, &spec).await, seen(&destination, &spec).await);
    assert_eq!(truth(from, to), Truth::Source);
}

#[tokio::test]
async fn where_nobody_waits_nothing_goes_and_the_guest_runs_on() {
    let host = Host::new();
    let hypervisor = host.open_with(config(&host)).await;
    let spec = host.spec("stays", Mode::Idle);
    hypervisor.define(&spec).await.unwrap();
    hypervisor.start(spec.id, 1).await.unwrap();
    // Nobody listens at the port of a listener that is gone.
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = free.local_addr().unwrap().to_string();
    drop(free);
    let nobody = hypervisor.send(spec.id, 1, &address).await.unwrap_err();
    assert_eq!(nobody.kind(), ErrorKind::Unavailable);
    let bad = hypervisor.send(spec.id, 1, "tcp:somewhere").await.unwrap_err();
    assert_eq!(bad.kind(), ErrorKind::Invalid);
    hypervisor.cancel(spec.id, 1).await.unwrap();
    let running = Inspection::Found {
        generation: 1,
        power: PowerState::Running,
    };
    assert_eq!(hypervisor.inspect(spec.id).await.unwrap(), running);
}
