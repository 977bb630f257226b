//! What tests can do with the fake host: step, break, crash, look.
#![allow(clippy::unwrap_used, reason = "test helpers may panic")]

mod abilities;
mod late;
mod network;
mod orders;
mod records;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt};
use skyloom_hypervisor::{
    EffectKind, ErrorKind, FakeDomain, FakeOptions, FakeWorld, Fault, FaultPoint, HostStorage, Hypervisor,
    ImageSpec, Inspection, OverlaySpec, StopMode, Stopped, VmEvent, VmEventKind, VmSpec, never_two_running,
};
use skyloom_model::{DiskFormat, Id, ManualClock, Name, PowerState, SeededIds, ServerId};

fn spec(seed: u64) -> VmSpec {
    let ids = SeededIds::new(ManualClock::new(), seed);
    VmSpec {
        boot: skyloom_hypervisor::Boot::FirstDisk,
        id: Id::fresh(&ids),
        project: Id::fresh(&ids),
        generation: 3,
        name: Name::new("web").unwrap(),
        vcpus: 1,
        memory_mib: 512,
        disks: vec![],
        nics: vec![],
    }
}

/// A world with one domain, off.
async fn world() -> (FakeWorld, VmSpec) {
    let (world, spec) = (FakeWorld::in_memory(), spec(1));
    world.hypervisor().define(&spec).await.unwrap();
    (world, spec)
}

async fn power(world: &FakeWorld, id: ServerId) -> PowerState {
    match world.hypervisor().inspect(id).await.unwrap() {
        Inspection::Found { power, .. } => power,
        other => panic!("{other:?}"),
    }
}

fn powers(events: &mut BoxStream<'static, VmEvent>) -> Vec<PowerState> {
    let mut seen = Vec::new();
    while let Some(Some(event)) = events.next().now_or_never() {
        match event.kind {
            VmEventKind::Power { power, .. } => seen.push(power),
            other => panic!("{other:?}"),
        }
    }
    seen
}

#[tokio::test]
async fn failing_verb_did_nothing_and_failing_late_did_it() {
    let (world, spec) = world().await;
    let hypervisor = world.hypervisor();
    world.fail_next(FaultPoint::Start, ErrorKind::Full).unwrap();
    world
        .fault_next(FaultPoint::Start, Fault::FailAfterEffect(ErrorKind::Timeout))
        .unwrap();
    assert_eq!(
        hypervisor.start(spec.id, 3).await.unwrap_err().kind(),
        ErrorKind::Full
    );
    assert_eq!(power(&world, spec.id).await, PowerState::Stopped);
    assert_eq!(
        hypervisor.start(spec.id, 3).await.unwrap_err().kind(),
        ErrorKind::Timeout
    );
    assert_eq!(power(&world, spec.id).await, PowerState::Running);
    hypervisor.start(spec.id, 3).await.unwrap();
    assert_eq!(
        world.effects_of(spec.id).unwrap(),
        [EffectKind::Defined, EffectKind::Started],
        "started once"
    );
}

#[tokio::test]
async fn every_point_meets_its_fault() {
    let (world, spec) = world().await;
    let (hypervisor, storage) = (world.hypervisor(), world.storage());
    let console = hypervisor.as_console().unwrap();
    let image = ImageSpec {
        id: Id::from_uuid(spec.id.uuid()),
        sha256: "0".repeat(64),
        format: DiskFormat::Raw,
        size_bytes: 0,
    };
    let overlay = OverlaySpec {
        server: spec.id,
        disk: "root".into(),
        base: image.clone(),
        size_bytes: 0,
    };
    let nothing = || futures::stream::empty().boxed();
    for point in FaultPoint::ALL {
        world.fail_next(point, ErrorKind::Refused).unwrap();
        let failed = match point {
            FaultPoint::Facts => hypervisor.facts().await.err(),
            FaultPoint::Define => hypervisor.define(&spec).await.err(),
            FaultPoint::Start => hypervisor.start(spec.id, 3).await.err(),
            FaultPoint::Stop => hypervisor.stop(spec.id, 3, StopMode::Force).await.err(),
            FaultPoint::Undefine => hypervisor.undefine(spec.id, 3).await.err(),
            FaultPoint::Inspect => hypervisor.inspect(spec.id).await.err(),
            FaultPoint::Recover => hypervisor.recover().await.err(),
            FaultPoint::List => hypervisor.list().await.err(),
            FaultPoint::Console => console.console_tail(spec.id, 1).await.err(),
            FaultPoint::CachedImage => storage.cached_image(&image).await.err(),
            FaultPoint::CacheImage => storage
                .cache_image(&image, nothing(), Arc::new(|_, _| {}))
                .await
                .err(),
            FaultPoint::CreateOverlay => storage.create_overlay(&overlay).await.err(),
            FaultPoint::CreateSeed => storage.create_seed(spec.id, "seed", b"x").await.err(),
            FaultPoint::DeleteDisk => storage.delete_disk(spec.id, "root").await.err(),
            FaultPoint::DeleteServer => storage.delete_server(spec.id).await.err(),
            FaultPoint::Disks => storage.disks(spec.id).await.err(),
            FaultPoint::Servers => storage.servers().await.err(),
            _ => {
                assert_eq!(point, FaultPoint::Event);
                assert_eq!(
                    world.heal().unwrap(),
                    1,
                    "an event cannot fail; its fault is still planned"
                );
                continue;
            }
        };
        assert_eq!(failed.map(|e| e.kind()), Some(ErrorKind::Refused), "{point:?}");
        assert_eq!(world.heal().unwrap(), 0, "{point:?} met its fault once");
    }
    assert_eq!(
        world.effects_of(spec.id).unwrap(),
        [EffectKind::Defined],
        "no failed verb did anything"
    );
}

#[tokio::test]
async fn hanging_verb_can_be_dropped_before_and_after_its_effect() {
    let (world, spec) = world().await;
    world.fault_next(FaultPoint::Start, Fault::Hang).unwrap();
    assert!(world.hypervisor().start(spec.id, 3).now_or_never().is_none());
    assert_eq!(power(&world, spec.id).await, PowerState::Stopped);
    world
        .fault_next(FaultPoint::Start, Fault::HangAfterEffect)
        .unwrap();
    assert!(world.hypervisor().start(spec.id, 3).now_or_never().is_none());
    assert_eq!(power(&world, spec.id).await, PowerState::Running);
}

#[tokio::test]
async fn faults_of_one_server_leave_the_others_alone() {
    let (world, one) = world().await;
    let other = spec(2);
    world.hypervisor().define(&other).await.unwrap();
    world
        .fault_for(other.id, FaultPoint::Start, Fault::Vanish)
        .unwrap();
    world.hypervisor().start(one.id, 3).await.unwrap();
    let gone = world.hypervisor().start(other.id, 3).await.unwrap_err();
    assert_eq!(gone.kind(), ErrorKind::NotFound);
    assert_eq!(
        world.hypervisor().inspect(other.id).await.unwrap(),
        Inspection::Absent
    );
    assert_eq!(
        world.effects_of(other.id).unwrap(),
        [EffectKind::Defined, EffectKind::Vanished]
    );
}

#[tokio::test]
async fn nobody_can_tell_until_somebody_can() {
    let (world, spec) = world().await;
    let unknown = |i: Inspection| matches!(i, Inspection::CannotTell { .. });
    world.cannot_tell(spec.id, true).unwrap();
    world.heal().unwrap();
    assert!(unknown(world.hypervisor().inspect(spec.id).await.unwrap()));
    assert!(unknown(
        world.hypervisor().recover().await.unwrap().remove(0).inspection
    ));
    world.cannot_tell(spec.id, false).unwrap();
    world.fault_next(FaultPoint::Inspect, Fault::CannotTell).unwrap();
    assert!(unknown(world.hypervisor().inspect(spec.id).await.unwrap()));
    assert_eq!(power(&world, spec.id).await, PowerState::Stopped);
}

#[tokio::test]
async fn events_can_be_lost_doubled_and_late() {
    let (world, spec) = world().await;
    let hypervisor = world.hypervisor();
    let mut events = hypervisor.events();
    for fault in [Fault::Lose, Fault::Duplicate, Fault::Delay] {
        world.fault_next(FaultPoint::Event, fault).unwrap();
    }
    hypervisor.start(spec.id, 3).await.unwrap();
    assert_eq!(powers(&mut events), [], "lost");
    hypervisor.stop(spec.id, 3, StopMode::Force).await.unwrap();
    assert_eq!(powers(&mut events), [PowerState::Stopped; 2]);
    hypervisor.start(spec.id, 3).await.unwrap();
    assert!(world.crash_guest(spec.id).unwrap());
    assert_eq!(
        powers(&mut events),
        [PowerState::Crashed],
        "the start's event is late"
    );
    world.release_events();
    assert_eq!(powers(&mut events), [PowerState::Running]);
    assert!(!world.crash_guest(spec.id).unwrap(), "it is dead already");
}

#[tokio::test(start_paused = true)]
async fn deaf_guest_is_forced_off() {
    let (world, spec) = world().await;
    let hypervisor = world.hypervisor();
    let mode = StopMode::Graceful {
        timeout: std::time::Duration::from_secs(600),
    };
    for (deaf, how) in [(true, Stopped::Forced), (false, Stopped::Gracefully)] {
        world.ignore_graceful(spec.id, deaf).unwrap();
        hypervisor.start(spec.id, 3).await.unwrap();
        assert_eq!(hypervisor.stop(spec.id, 3, mode).await.unwrap(), how);
    }
}

#[tokio::test]
async fn steps_let_verbs_go_one_by_one() {
    let world = FakeWorld::open(FakeOptions::in_memory().stepwise()).unwrap();
    let (one, other) = (spec(1), spec(2));
    let hypervisor = world.hypervisor();
    let both = async { futures::join!(hypervisor.define(&one), hypervisor.define(&other)) };
    let script = async {
        world.until_waiting(2).await;
        assert!(world.domains().unwrap().is_empty());
        world.step();
        while world.domains().unwrap().is_empty() {
            tokio::task::yield_now().await;
        }
        world.until_waiting(1).await;
        assert_eq!(world.domains().unwrap().len(), 1);
        world.step();
    };
    let (done, ()) = futures::join!(both, script);
    done.0.unwrap();
    done.1.unwrap();
    assert_eq!(world.domains().unwrap().len(), 2);
    assert!(
        hypervisor.undefine(one.id, 3).now_or_never().is_none(),
        "waits for a step, and may be dropped"
    );
    world.step();
    hypervisor.undefine(one.id, 3).await.unwrap();
    assert_eq!(
        hypervisor.inspect(one.id).await.unwrap(),
        Inspection::Absent,
        "looking needs no step"
    );
}

#[tokio::test]
async fn directory_outlives_everything_and_is_shared() {
    let directory = tempfile::tempdir().unwrap();
    let open = || FakeWorld::open(FakeOptions::directory(directory.path())).unwrap();
    let spec = spec(1);
    {
        let world = open();
        world.hypervisor().define(&spec).await.unwrap();
        world.hypervisor().start(spec.id, 3).await.unwrap();
        world
            .storage()
            .create_seed(spec.id, "seed", b"seed")
            .await
            .unwrap();
    }
    let (agent, test) = (open(), open());
    let mut history = test.history().unwrap();
    assert!(history.is_sorted_by(|a, b| a.at < b.at), "{history:?}");
    let kinds: Vec<EffectKind> = history.drain(..).map(|e| e.kind).collect();
    assert_eq!(
        kinds,
        [
            EffectKind::Defined,
            EffectKind::Started,
            EffectKind::DiskCreated { disk: "seed".into() }
        ]
    );
    // One process plans a fault, the other one meets it.
    test.fail_next(FaultPoint::Stop, ErrorKind::Unavailable).unwrap();
    let failed = agent
        .hypervisor()
        .stop(spec.id, 3, StopMode::Force)
        .await
        .unwrap_err();
    assert_eq!(failed.kind(), ErrorKind::Unavailable);
    assert!(test.crash_guest(spec.id).unwrap());
    assert_eq!(power(&agent, spec.id).await, PowerState::Crashed);
    let disks = agent.storage().disks(spec.id).await.unwrap();
    assert_eq!(
        disks[0].path,
        directory
            .path()
            .join("disks")
            .join(spec.id.to_string())
            .join("seed")
    );
}

#[test]
fn damaged_record_is_said_to_be_corrupt() {
    let directory = tempfile::tempdir().unwrap();
    let world = FakeWorld::open(FakeOptions::directory(directory.path())).unwrap();
    let id = spec(1).id;
    std::fs::write(directory.path().join("servers").join(id.to_string()), b"{").unwrap();
    assert_eq!(world.domain(id).unwrap_err().kind(), ErrorKind::Corrupt);
    let file: PathBuf = directory.path().join("file");
    std::fs::write(&file, b"").unwrap();
    assert!(FakeWorld::open(FakeOptions::directory(file)).is_err());
}

#[tokio::test]
async fn threads_on_one_directory_start_a_guest_once() {
    let directory = tempfile::tempdir().unwrap();
    let open = || FakeWorld::open(FakeOptions::directory(directory.path())).unwrap();
    let spec = spec(1);
    open().hypervisor().define(&spec).await.unwrap();
    std::thread::scope(|threads| {
        for _ in 0..4 {
            threads.spawn(|| {
                let hypervisor = open().hypervisor();
                for _ in 0..20 {
                    futures::executor::block_on(hypervisor.start(spec.id, 3)).unwrap();
                }
            });
        }
    });
    assert_eq!(
        open().effects_of(spec.id).unwrap(),
        [EffectKind::Defined, EffectKind::Started]
    );
}

#[tokio::test]
async fn histories_of_several_hosts_have_one_order() {
    let sequence = Arc::new(AtomicU64::new(0));
    let host = || FakeWorld::open(FakeOptions::in_memory().sequence(sequence.clone())).unwrap();
    let (one, other, spec) = (host(), host(), spec(1));
    let histories = || [one.history().unwrap(), other.history().unwrap()];
    for world in [&one, &other] {
        world.hypervisor().define(&spec).await.unwrap();
    }
    one.hypervisor().start(spec.id, 3).await.unwrap();
    assert!(one.power_off_guest(spec.id).unwrap());
    other.hypervisor().start(spec.id, 3).await.unwrap();
    assert_eq!(never_two_running(&histories()), Ok(()));
    one.hypervisor().start(spec.id, 3).await.unwrap();
    assert!(never_two_running(&histories()).is_err());
}

#[tokio::test]
async fn console_is_scripted_and_bounded() {
    let (world, spec) = world().await;
    let hypervisor = world.hypervisor();
    let console = hypervisor.as_console().unwrap();
    world.ready_line("login:").unwrap();
    hypervisor.start(spec.id, 3).await.unwrap();
    world.print(spec.id, "云\n").unwrap();
    assert_eq!(
        console.console_tail(spec.id, 1_000).await.unwrap(),
        "login:\n云\n".as_bytes()
    );
    for _ in 0..20 {
        world.print(spec.id, &"云".repeat(2_000)).unwrap();
    }
    let tail = console.console_tail(spec.id, usize::MAX).await.unwrap();
    assert!(tail.len() <= FakeDomain::CONSOLE_LIMIT && tail.len() > FakeDomain::CONSOLE_LIMIT - 4);
    assert!(String::from_utf8(tail).unwrap().chars().all(|c| c == '云'));
}
