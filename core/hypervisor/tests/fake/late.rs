//! Operations that take their time, and requests that are delivered twice.

use std::time::Duration;

use futures::FutureExt;
use skyloom_hypervisor::{
    EffectKind, ErrorKind, FakeWorld, Fault, FaultPoint, HostStorage, Hypervisor, ImageSpec, Inspection,
    OverlaySpec, StopMode, Stopped, VmSpec,
};
use skyloom_model::{DiskFormat, Id, PowerState};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{power, powers, spec, world};

const LATE: Duration = Duration::from_secs(30);

/// An image without content.
fn image(spec: &VmSpec) -> ImageSpec {
    ImageSpec {
        id: Id::from_uuid(spec.id.uuid()),
        sha256: "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855".into(),
        format: DiskFormat::Raw,
        size_bytes: 0,
    }
}

fn root(spec: &VmSpec) -> OverlaySpec {
    OverlaySpec {
        server: spec.id,
        disk: "root".into(),
        base: image(spec),
        size_bytes: 1 << 20,
    }
}

/// Drives late operations while `script` runs.
async fn driven(world: &FakeWorld, script: impl Future<Output = ()>) {
    let shutdown = CancellationToken::new();
    let all = async {
        script.await;
        shutdown.cancel();
    };
    futures::join!(world.run_late(shutdown.clone()), all);
}

#[tokio::test(start_paused = true)]
async fn late_start_happens_though_its_caller_has_gone() {
    let (world, spec) = world().await;
    let hypervisor = world.hypervisor();
    world.fault_next(FaultPoint::Start, Fault::Late(LATE)).unwrap();
    assert!(hypervisor.start(spec.id, 3).now_or_never().is_none());
    assert_eq!(world.under_way(), 1);
    assert_eq!(world.domain(spec.id).unwrap().unwrap().power, PowerState::Stopped);
    let before = Instant::now();
    driven(&world, async {
        while world.under_way() > 0 {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    })
    .await;
    assert!(before.elapsed() >= LATE);
    assert_eq!(power(&world, spec.id).await, PowerState::Running);
}

#[tokio::test(start_paused = true)]
async fn late_verb_answers_late_and_nobody_can_tell_before() {
    let (world, spec) = world().await;
    let hypervisor = world.hypervisor();
    world.fault_next(FaultPoint::Start, Fault::Late(LATE)).unwrap();
    let before = Instant::now();
    let start = async {
        hypervisor.start(spec.id, 3).await.unwrap();
        assert_eq!(before.elapsed(), LATE);
    };
    let look = async {
        let seen = hypervisor.inspect(spec.id).await.unwrap();
        assert!(matches!(seen, Inspection::CannotTell { .. }), "{seen:?}");
        assert!(before.elapsed() < Duration::from_secs(5), "and says so soon");
        let listed = hypervisor.list().await.unwrap();
        assert!(matches!(listed[0].inspection, Inspection::CannotTell { .. }));
    };
    futures::join!(start, look);
    assert_eq!(power(&world, spec.id).await, PowerState::Running);
}

#[tokio::test(start_paused = true)]
async fn later_verbs_wait_for_the_late_one_of_their_server_only() {
    let (world, one) = world().await;
    let (hypervisor, storage) = (world.hypervisor(), world.storage());
    let other = spec(2);
    world
        .fault_for(one.id, FaultPoint::Start, Fault::Late(LATE))
        .unwrap();
    assert!(hypervisor.start(one.id, 3).now_or_never().is_none());
    let before = Instant::now();
    hypervisor.define(&other).await.unwrap();
    hypervisor.start(other.id, 3).await.unwrap();
    assert_eq!(before.elapsed(), Duration::ZERO);
    // Nobody drives the queue: whoever waits does it.
    storage.delete_server(one.id).await.unwrap();
    assert_eq!(before.elapsed(), LATE);
    assert_eq!(
        hypervisor.stop(one.id, 3, StopMode::Force).await.unwrap(),
        Stopped::Forced
    );
    assert_eq!(
        world.effects_of(one.id).unwrap(),
        [
            EffectKind::Defined,
            EffectKind::Started,
            EffectKind::Stopped { graceful: false }
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn late_order_is_judged_when_it_happens() {
    let (world, spec) = world().await;
    world.fault_next(FaultPoint::Start, Fault::Late(LATE)).unwrap();
    let hypervisor = world.hypervisor();
    let start = hypervisor.start(spec.id, 3);
    let vanish = async { world.vanish(spec.id).unwrap() };
    let (started, ()) = futures::join!(start, vanish);
    assert_eq!(started.unwrap_err().kind(), ErrorKind::NotFound);
}

#[tokio::test(start_paused = true)]
async fn every_changing_verb_can_be_late_and_its_effect_comes() {
    let (world, spec) = world().await;
    let (hypervisor, storage) = (world.hypervisor(), world.storage());
    let quiet = || std::sync::Arc::new(|_, _| {});
    let nothing = || Box::pin(futures::stream::empty());
    for point in FaultPoint::ALL.into_iter().filter(|p| p.changes()) {
        world.fault_next(point, Fault::Late(LATE)).unwrap();
        let (before, changes) = (Instant::now(), world.position().unwrap());
        match point {
            FaultPoint::Define => {
                let newer = VmSpec {
                    generation: 4,
                    ..spec.clone()
                };
                hypervisor.define(&newer).await.unwrap();
            }
            FaultPoint::Start => hypervisor.start(spec.id, 4).await.unwrap(),
            FaultPoint::Stop => drop(hypervisor.stop(spec.id, 4, StopMode::Force).await.unwrap()),
            FaultPoint::Undefine => hypervisor.undefine(spec.id, 4).await.unwrap(),
            FaultPoint::CacheImage => {
                let cached = storage.cache_image(&image(&spec), nothing(), quiet()).await;
                cached.unwrap();
            }
            FaultPoint::CreateOverlay => drop(storage.create_overlay(&root(&spec)).await.unwrap()),
            FaultPoint::CreateSeed => drop(storage.create_seed(spec.id, "seed", b"x").await.unwrap()),
            FaultPoint::DeleteDisk => storage.delete_disk(spec.id, "root").await.unwrap(),
            FaultPoint::DeleteServer => storage.delete_server(spec.id).await.unwrap(),
            other => panic!("{other:?} changes something?"),
        }
        assert_eq!(before.elapsed(), LATE, "{point:?}");
        assert_eq!(world.history_since(changes).unwrap().len(), 1, "{point:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn looks_and_events_can_be_late() {
    let (world, spec) = world().await;
    let hypervisor = world.hypervisor();
    let mut events = hypervisor.events();
    for point in [FaultPoint::Inspect, FaultPoint::Event] {
        world.fault_next(point, Fault::Late(LATE)).unwrap();
    }
    let before = Instant::now();
    hypervisor.inspect(spec.id).await.unwrap();
    assert_eq!(before.elapsed(), LATE);
    driven(&world, async {
        hypervisor.start(spec.id, 3).await.unwrap();
        assert_eq!(powers(&mut events), []);
        tokio::time::sleep(LATE * 2).await;
        assert_eq!(powers(&mut events), [PowerState::Running]);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn deaf_guest_is_forced_off_though_nobody_waits() {
    let (world, spec) = world().await;
    let hypervisor = world.hypervisor();
    world.ignore_graceful(spec.id, true).unwrap();
    hypervisor.start(spec.id, 3).await.unwrap();
    let mode = StopMode::Graceful { timeout: LATE };
    assert!(hypervisor.stop(spec.id, 3, mode).now_or_never().is_none());
    assert_eq!(power(&world, spec.id).await, PowerState::Running, "it runs on");
    // A start that comes meanwhile is a newer wish: it waits its turn.
    let before = Instant::now();
    hypervisor.start(spec.id, 4).await.unwrap();
    assert_eq!(before.elapsed(), LATE);
    assert_eq!(
        world.effects_of(spec.id).unwrap()[1..],
        [
            EffectKind::Started,
            EffectKind::Asked,
            EffectKind::Stopped { graceful: false },
            EffectKind::Started
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn guest_that_ends_while_it_is_asked_ends_the_stop() {
    let (world, spec) = world().await;
    let hypervisor = world.hypervisor();
    world.ignore_graceful(spec.id, true).unwrap();
    hypervisor.start(spec.id, 3).await.unwrap();
    let before = Instant::now();
    let stop = hypervisor.stop(spec.id, 3, StopMode::Graceful { timeout: LATE });
    let guest = async {
        tokio::time::sleep(LATE / 2).await;
        assert!(world.power_off_guest(spec.id).unwrap());
    };
    let (how, ()) = futures::join!(stop, guest);
    assert_eq!(how.unwrap(), Stopped::Gracefully);
    assert_eq!(before.elapsed(), LATE / 2);
}

#[tokio::test]
async fn what_is_delivered_twice_happens_once() {
    let (world, spec) = world().await;
    let (hypervisor, storage) = (world.hypervisor(), world.storage());
    let mut events = hypervisor.events();
    let quiet = std::sync::Arc::new(|_, _| {});
    let nothing = Box::pin(futures::stream::empty());
    for point in FaultPoint::ALL.into_iter().filter(|p| p.changes()) {
        world.fault_next(point, Fault::Twice).unwrap();
    }
    storage.cache_image(&image(&spec), nothing, quiet).await.unwrap();
    storage.create_overlay(&root(&spec)).await.unwrap();
    storage.create_seed(spec.id, "seed", b"x").await.unwrap();
    hypervisor.define(&spec).await.unwrap();
    hypervisor.start(spec.id, 3).await.unwrap();
    assert_eq!(
        hypervisor.stop(spec.id, 3, StopMode::Force).await.unwrap(),
        Stopped::AlreadyOff,
        "the second answer"
    );
    hypervisor.undefine(spec.id, 3).await.unwrap();
    storage.delete_disk(spec.id, "root").await.unwrap();
    storage.delete_server(spec.id).await.unwrap();
    assert_eq!(world.heal().unwrap(), 0, "all were met");
    assert_eq!(powers(&mut events), [PowerState::Running, PowerState::Stopped]);
    let disk = |name: &str| name.to_owned();
    let kinds: Vec<EffectKind> = world.history().unwrap().into_iter().map(|e| e.kind).collect();
    assert_eq!(
        kinds,
        [
            EffectKind::Defined,
            EffectKind::ImageCached {
                sha256: image(&spec).sha256
            },
            EffectKind::DiskCreated { disk: disk("root") },
            EffectKind::DiskCreated { disk: disk("seed") },
            EffectKind::Started,
            EffectKind::Stopped { graceful: false },
            EffectKind::Undefined,
            EffectKind::DiskDeleted { disk: disk("root") },
            EffectKind::DiskDeleted { disk: disk("seed") },
        ]
    );
}
