//! Guests that go to another host, when the wire breaks and processes die: always one guest, with all of its memory.

use std::time::Duration;

use skyloom_hypervisor::conformance::{PairUnderExam, Side};
use skyloom_hypervisor::{
    DiskSpec, ErrorKind, Half, Hotplug, Hypervisor, Inspection, Migration, NicSpec, Seen, SnapshotOrder,
    Snapshots, Stream, Suspend, Truth, VmSpec, truth,
};
use skyloom_model::{DiskFormat, MacAddr, NicKind, PowerState, ServerId, SnapshotId};
use skyloom_qmp::QmpHypervisor;

use crate::host::{fresh_uuid, until};
use crate::pair::{Pair, counters};
use crate::proxy::{Cut, Proxy};

use Side::{Destination, Source};

/// A guest that runs at the source with 7 in its memory, and what is ordered of it next.
async fn guest(pair: &Pair, busy: bool) -> VmSpec {
    let spec = pair.counting(busy);
    pair.at(Source).define(&spec).await.unwrap();
    pair.at(Source).start(spec.id, 1).await.unwrap();
    pair.remember(Source, spec.id, 7).await;
    VmSpec {
        generation: 2,
        ..spec
    }
}

async fn ready(hypervisor: &QmpHypervisor, id: ServerId) {
    until("ready", async || {
        let seen = hypervisor.migration(id).await.unwrap();
        assert_ne!(seen.stream, Stream::Broken);
        (seen.stream == Stream::Ready).then_some(())
    })
    .await;
}

async fn go(pair: &Pair, spec: &VmSpec) {
    let there = pair.at(Destination).receive(spec).await.unwrap();
    let source = pair.at(Source);
    source
        .send(spec.id, spec.generation, &there.address)
        .await
        .unwrap();
    ready(&source, spec.id).await;
    let told = source.hand_over(spec.id, spec.generation).await.unwrap();
    assert_eq!(told, Stream::Complete);
    pair.at(Destination)
        .take_over(spec.id, spec.generation)
        .await
        .unwrap();
}

async fn seen(hypervisor: &QmpHypervisor, id: ServerId) -> Seen {
    match hypervisor.migration(id).await {
        Ok(seen) => Seen::Here(seen.half, seen.stream),
        Err(e) if e.kind() == ErrorKind::NotFound => Seen::Gone,
        Err(_) => Seen::CannotTell,
    }
}

/// It runs on one side alone, has 7 in its memory, and no tick of its counter is missing or came twice.
async fn must_go_on(pair: &Pair, spec: &VmSpec, side: Side) {
    assert_eq!(pair.memory(side, spec.id).await, 7);
    for each in [Source, Destination] {
        assert_eq!(
            pair.executes(each, spec.id).await,
            each == side,
            "at the {each:?}"
        );
    }
    let mut written = pair.written(Source, spec.id);
    written.push_str(&pair.written(Destination, spec.id));
    let all = counters(&written);
    assert!(all.len() > 2, "{written}");
    assert!(all.windows(2).all(|two| two[0] + 1 == two[1]), "{all:?}");
}

#[tokio::test]
async fn a_guest_counts_on_at_its_new_host() {
    for busy in [false, true] {
        let pair = Pair::fast().await;
        let spec = guest(&pair, busy).await;
        go(&pair, &spec).await;
        must_go_on(&pair, &spec, Destination).await;
    }
}

#[tokio::test]
async fn devices_keep_their_slots_after_they_came_and_went() {
    let pair = Pair::fast().await;
    let mut spec = pair.counting(false);
    let nic = |number| NicSpec {
        device: None,
        kind: NicKind::User,
        mac: MacAddr::qemu([0, 0, number]),
    };
    let disk = |name: &str| pair.host(Source).disk(name, DiskFormat::Qcow2);
    spec.disks.push(disk("one"));
    spec.nics.push(nic(1));
    let source = pair.at(Source);
    source.define(&spec).await.unwrap();
    source.start(spec.id, 1).await.unwrap();
    pair.remember(Source, spec.id, 7).await;
    let more: [DiskSpec; 2] = [disk("two"), disk("three")];
    source.attach_disk(spec.id, 1, &more[0]).await.unwrap();
    source.attach_nic(spec.id, 1, &nic(2)).await.unwrap();
    source.attach_disk(spec.id, 1, &more[1]).await.unwrap();
    let order = SnapshotOrder {
        snapshot: SnapshotId::from_uuid(fresh_uuid()),
        disks: vec!["one".into(), "two".into()],
        memory: true,
    };
    let snapshot = source.take(spec.id, 1, &order).await.unwrap();
    spec.disks.extend(more);
    spec.nics.push(nic(2));
    spec.generation = 2;

    // Another order than that in which they came: the slots are the source's.
    go(&pair, &spec).await;
    must_go_on(&pair, &spec, Destination).await;
    let slots = |side: Side| pair.host(side).live(spec.id);
    let there = &slots(Destination)["run"]["shape"]["ports"];
    assert_eq!(there["disk-three"], 5);
    assert_eq!(there["disk-two"], 3);

    // What the disks hold is known there, too.
    let there = pair.at(Destination);
    assert_eq!(there.snapshots(spec.id).await.unwrap(), [snapshot]);
    there.revert(spec.id, 2, order.snapshot).await.unwrap();
    assert_eq!(pair.memory(Destination, spec.id).await, 7);

    // And back, with one disk less to be told of: refused, and the guest runs on.
    pair.at(Source).undefine(spec.id, 2).await.unwrap();
    let mut back = spec.clone();
    back.generation = 3;
    let last = back.disks.pop();
    let waits = pair.at(Source).receive(&back).await.unwrap();
    let refused = pair.at(Destination).send(spec.id, 3, &waits.address).await;
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::Unavailable);
    assert!(pair.executes(Destination, spec.id).await);
    pair.at(Source).undefine(spec.id, 3).await.unwrap();
    back.disks.extend(last);
    let waits = pair.at(Source).receive(&back).await.unwrap();
    pair.at(Destination)
        .send(spec.id, 3, &waits.address)
        .await
        .unwrap();
    ready(&pair.at(Destination), spec.id).await;
}

/// What an operator or a flow does, whatever happened: looks who has the guest, and lets it go on there.
async fn settle(pair: &Pair, spec: &VmSpec) -> Side {
    let id = spec.id;
    let (source, destination) = (pair.at(Source), pair.at(Destination));
    until("one side has it", async || {
        match truth(seen(&source, id).await, seen(&destination, id).await) {
            Truth::Source => {
                source.cancel(id, 2).await.unwrap();
                destination.undefine(id, 2).await.unwrap();
                Some(Source)
            }
            Truth::Destination => {
                destination.take_over(id, 2).await.unwrap();
                Some(Destination)
            }
            Truth::Disks => panic!("its memory is lost"),
            Truth::Unknown => {
                let _ = source.hand_over(id, 2).await;
                None
            }
        }
    })
    .await
}

/// One migration over a wire that breaks: no side but one ever executes, and the guest goes on with all of its memory.
async fn over_a_wire_that_breaks(cut: Cut) -> (Side, u64) {
    let pair = Pair::fast().await;
    let spec = guest(&pair, false).await;
    let id = spec.id;
    pair.at(Destination).receive(&spec).await.unwrap();
    let proxy = Proxy::new(pair.address(Destination), cut).await;
    let source = pair.at(Source);
    if source.send(id, 2, &proxy.address.to_string()).await.is_ok() {
        until("the stream has ended", async || {
            let stream = source.migration(id).await.unwrap().stream;
            (stream == Stream::Ready || stream == Stream::Broken || proxy.is_broken()).then_some(())
        })
        .await;
        let _ = source.hand_over(id, 2).await;
    }
    assert_eq!(proxy.is_broken(), cut != Cut::Never, "{cut:?}");
    // While the wire is broken, and with nobody who does anything.
    let handed_over = pair.host(Source).live(id)["phase"] == "handed_over";
    assert!(!pair.executes(Destination, id).await, "{cut:?}");
    if handed_over {
        assert!(!pair.executes(Source, id).await, "{cut:?}");
    }
    let passed = proxy.passed();
    proxy.mend();
    let side = settle(&pair, &spec).await;
    assert_eq!(side == Destination, handed_over, "{cut:?}");
    must_go_on(&pair, &spec, side).await;
    (side, passed)
}

#[tokio::test]
async fn a_wire_that_breaks_anywhere_leaves_one_guest() {
    let (side, whole) = over_a_wire_that_breaks(Cut::Never).await;
    assert_eq!(side, Destination);
    // The last bytes are the states of devices: there the source holds its guest already.
    let places = [0, 1, whole / 3, whole / 2, whole - 20_000, whole - 4_000];
    let cuts = places.iter().flat_map(|at| [Cut::After(*at), Cut::Swallow(*at)]);
    for cut in cuts {
        assert_eq!(over_a_wire_that_breaks(cut).await.0, Source, "{cut:?}");
    }
}

#[tokio::test]
async fn a_wire_that_breaks_at_the_switch_over_loses_nothing() {
    // Three times it is asked whether all has arrived: by a look, by the hand-over's own, and right before its record.
    let questions = [
        ("send", 1),
        ("arrived", 1),
        ("arrived", 2),
        ("arrived", 3),
        ("handed_over", 1),
    ];
    for (text, nth) in questions {
        for cut in [Cut::Question(text, nth), Cut::Answer(text, nth)] {
            let (side, _) = over_a_wire_that_breaks(cut).await;
            assert_eq!(side == Destination, text == "handed_over", "{cut:?}");
        }
    }
}

#[tokio::test]
async fn agents_that_die_in_the_middle_of_a_verb_are_followed_by_others() {
    const CUTS: u32 = 4;
    let mut took = [Duration::ZERO; 3];
    for cut in 0..=CUTS {
        for verb in 0..3 {
            let mut pair = Pair::fast().await;
            let spec = guest(&pair, false).await;
            let id = spec.id;
            let there = pair.at(Destination).receive(&spec).await.unwrap();
            for step in 0..3 {
                let (source, destination) = (pair.at(Source), pair.at(Destination));
                let address = there.address.clone();
                if step == 1 {
                    ready(&source, id).await;
                }
                let work = async {
                    let done = match step {
                        0 => source.send(id, 2, &address).await,
                        1 => source.hand_over(id, 2).await.map(drop),
                        _ => destination.take_over(id, 2).await,
                    };
                    done.unwrap();
                };
                let begin = tokio::time::Instant::now();
                if step == verb && cut > 0 {
                    let short = took[verb] * (cut - 1) / CUTS;
                    let _ = tokio::time::timeout(short, work).await;
                    drop((source, destination));
                    pair.reopen().await;
                    break;
                }
                work.await;
                took[step] = begin.elapsed();
            }
            let side = settle(&pair, &spec).await;
            // What was recorded is never taken back.
            assert!(side == Destination || verb < 2, "{verb} {cut}");
            must_go_on(&pair, &spec, side).await;
        }
    }
}

#[tokio::test]
async fn a_qemu_that_is_killed_is_told_of_at_each_step() {
    // The source's, while its memory goes: an ordinary domain that crashed.
    let pair = Pair::slow().await;
    let spec = guest(&pair, true).await;
    let there = pair.at(Destination).receive(&spec).await.unwrap();
    pair.at(Source).send(spec.id, 2, &there.address).await.unwrap();
    pair.crash(Source, spec.id).await;
    until("the destination's stream is broken", async || {
        let broken = Seen::Here(Half::Receiving, Stream::Broken);
        (seen(&pair.at(Destination), spec.id).await == broken).then_some(())
    })
    .await;
    let crashed = Inspection::Found {
        generation: 2,
        power: PowerState::Crashed,
    };
    assert_eq!(pair.at(Source).inspect(spec.id).await.unwrap(), crashed);
    assert_eq!(settle(&pair, &spec).await, Source);

    // The destination's, when all is there and the source holds the guest for it: the guest goes on.
    let pair = Pair::fast().await;
    let spec = guest(&pair, false).await;
    let there = pair.at(Destination).receive(&spec).await.unwrap();
    pair.at(Source).send(spec.id, 2, &there.address).await.unwrap();
    ready(&pair.at(Source), spec.id).await;
    assert!(!pair.executes(Source, spec.id).await);
    pair.crash(Destination, spec.id).await;
    let failed = pair.at(Source).hand_over(spec.id, 2).await.unwrap_err();
    assert_eq!(failed.kind(), ErrorKind::Conflict);
    assert_eq!(settle(&pair, &spec).await, Source);
    must_go_on(&pair, &spec, Source).await;

    // The destination's, after the hand-over: the memory is lost, and nobody takes it for one that runs.
    let pair = Pair::fast().await;
    let spec = guest(&pair, false).await;
    let there = pair.at(Destination).receive(&spec).await.unwrap();
    pair.at(Source).send(spec.id, 2, &there.address).await.unwrap();
    ready(&pair.at(Source), spec.id).await;
    pair.at(Source).hand_over(spec.id, 2).await.unwrap();
    pair.crash(Destination, spec.id).await;
    let (source, destination) = (
        seen(&pair.at(Source), spec.id).await,
        seen(&pair.at(Destination), spec.id).await,
    );
    assert_eq!(truth(source, destination), Truth::Disks);
    for side in [Source, Destination] {
        assert!(!pair.executes(side, spec.id).await);
        pair.at(side).undefine(spec.id, 2).await.unwrap();
    }
    let anew = VmSpec {
        generation: 3,
        ..spec
    };
    pair.at(Destination).define(&anew).await.unwrap();
    pair.at(Destination).start(anew.id, 3).await.unwrap();
    assert!(pair.executes(Destination, anew.id).await, "its disks are free");
}

#[tokio::test]
async fn a_guest_that_did_not_go_can_do_all_that_others_can() {
    let pair = Pair::slow().await;
    let spec = guest(&pair, true).await;
    let there = pair.at(Destination).receive(&spec).await.unwrap();
    let source = pair.at(Source);
    source.send(spec.id, 2, &there.address).await.unwrap();
    let progress = until("it is under way", async || {
        let seen = source.migration(spec.id).await.unwrap();
        (seen.progress.pass > 1).then_some(seen.progress)
    })
    .await;
    assert!(progress.total_bytes > 16 << 20 && progress.sent_bytes > 0 && progress.remaining_bytes > 0);
    let refused = source.suspend(spec.id, 2).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Conflict);
    source.cancel(spec.id, 2).await.unwrap();
    source.suspend(spec.id, 2).await.unwrap();
    source.start(spec.id, 2).await.unwrap();
    must_go_on(&pair, &spec, Source).await;
}

#[tokio::test]
async fn no_host_can_be_told_of_every_address_or_of_none() {
    let host = crate::host::Host::new();
    for at in ["0.0.0.0:4711", "127.0.0.1:0", "[::]:4711"] {
        let config = host
            .config()
            .with_migration(skyloom_qmp::MigrationConfig::new(at.parse().unwrap()));
        let refused = QmpHypervisor::open(config).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Invalid, "{at}");
    }
    assert!(host.open().await.as_migration().is_none());
}
