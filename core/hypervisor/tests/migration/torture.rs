//! Any order of verbs, repeats, lost connections, dead processes and dead hosts: the guest never executes on two hosts,
//! the table of truths says where it is, and it is there with what it last had in its memory.

use std::time::Duration;

use proptest::prelude::*;
use skyloom_hypervisor::{
    ErrorKind, FakeHypervisor, FakeWorld, Fault, FaultPoint, Half, Hypervisor, Migration, Pause, Seen,
    StopMode, Stream, Truth, VmSpec, never_two_running, truth,
};
use skyloom_model::PowerState;

use super::pair::{spec, worlds};

#[derive(Debug, Clone, Copy)]
enum Act {
    Receive,
    Send,
    Cancel,
    Force,
    HandOver,
    /// It is recorded, and then its agent dies.
    HalfHandOver,
    TakeOver,
    Start(bool),
    Unpause(bool),
    Stop(bool),
    LoseStream(bool),
    CrashGuest(bool),
    CrashIncoming,
    SourceDies,
    DestinationDies,
    Fault(FaultPoint, Fault),
}

/// A migration that goes well.
const WAY: [Act; 5] = [Act::Receive, Act::Send, Act::Force, Act::HandOver, Act::TakeOver];

fn acts() -> impl Strategy<Value = Act> {
    let points = prop::sample::select(FaultPoint::MIGRATION.to_vec());
    let faults = prop::sample::select(vec![
        Fault::Fail(ErrorKind::Unavailable),
        Fault::FailAfterEffect(ErrorKind::Unavailable),
        Fault::Halfway(ErrorKind::Unavailable),
        Fault::Twice,
    ]);
    prop_oneof![
        3 => Just(Act::Receive),
        4 => Just(Act::Send),
        1 => Just(Act::Cancel),
        2 => Just(Act::Force),
        4 => Just(Act::HandOver),
        2 => Just(Act::HalfHandOver),
        4 => Just(Act::TakeOver),
        2 => any::<bool>().prop_map(Act::Start),
        1 => any::<bool>().prop_map(Act::Unpause),
        1 => any::<bool>().prop_map(Act::Stop),
        1 => any::<bool>().prop_map(Act::LoseStream),
        1 => any::<bool>().prop_map(Act::CrashGuest),
        1 => Just(Act::CrashIncoming),
        1 => Just(Act::SourceDies),
        1 => Just(Act::DestinationDies),
        5 => (points, faults).prop_map(|(point, fault)| Act::Fault(point, fault)),
    ]
}

struct Scene {
    worlds: [FakeWorld; 2],
    spec: VmSpec,
    /// What the guest last had in its memory; it counts while it runs.
    count: u64,
    /// The guest was ended or booted anew by an act: what it had in its memory is gone.
    ended: bool,
}

impl Scene {
    async fn new(busy: bool) -> Self {
        let (source, destination) = worlds();
        let spec = spec(3);
        source.busy_guest(spec.id, busy).unwrap();
        source.hypervisor().define(&spec).await.unwrap();
        source.hypervisor().start(spec.id, 1).await.unwrap();
        Self {
            worlds: [source, destination],
            spec: VmSpec {
                generation: 2,
                ..spec
            },
            count: 0,
            ended: false,
        }
    }
    /// Each verb goes to a hypervisor that has just been opened: no agent remembers anything.
    fn host(&self, destination: bool) -> FakeHypervisor {
        self.worlds[usize::from(destination)].hypervisor()
    }
    fn running(&self, destination: bool) -> bool {
        let domain = self.worlds[usize::from(destination)]
            .domain(self.spec.id)
            .unwrap();
        domain.is_some_and(|d| d.power == PowerState::Running)
    }
    async fn seen(&self, destination: bool) -> Seen {
        match self.host(destination).migration(self.spec.id).await {
            Ok(seen) => Seen::Here(seen.half, seen.stream),
            Err(e) if e.kind() == ErrorKind::NotFound => Seen::Gone,
            Err(_) => Seen::CannotTell,
        }
    }
    /// The guest is there to be lost: it executes or is held, or its memory is complete.
    fn alive(&self) -> bool {
        self.worlds.iter().any(|w| {
            w.domain(self.spec.id).unwrap().is_some_and(|d| {
                d.power.may_execute()
                    || (d.migration.half, d.migration.stream) == (Half::Receiving, Stream::Complete)
            })
        })
    }

    async fn act(&mut self, act: Act) {
        let id = self.spec.id;
        let world = |d: bool| &self.worlds[usize::from(d)];
        // What each verb answers is its own matter here: what counts is what is.
        match act {
            Act::Receive => drop(self.host(true).receive(&self.spec).await),
            Act::Send => drop(self.host(false).send(id, 2, "fake:2").await),
            Act::Cancel => drop(self.host(false).cancel(id, 2).await),
            Act::Force => drop(self.host(false).force(id, 2, Duration::ZERO).await),
            Act::HandOver => drop(self.host(false).hand_over(id, 2).await),
            Act::HalfHandOver => {
                let dies = Fault::Halfway(ErrorKind::Unavailable);
                world(false).fault_next(FaultPoint::HandOver, dies).unwrap();
                drop(self.host(false).hand_over(id, 2).await);
            }
            Act::TakeOver => drop(self.host(true).take_over(id, 2).await),
            Act::Start(d) => {
                let boots = |w: &FakeWorld| w.domain(id).unwrap().map_or(0, |d| d.boots);
                let before = boots(world(d));
                drop(self.host(d).start(id, 2).await);
                self.ended |= boots(world(d)) > before;
            }
            Act::Unpause(d) => drop(self.host(d).unpause(id, 2).await),
            Act::Stop(d) => drop(self.host(d).stop(id, 2, StopMode::Force).await),
            Act::LoseStream(d) => world(d).lose_stream(id).unwrap(),
            Act::CrashGuest(d) => {
                world(d).crash_guest(id).unwrap();
            }
            Act::CrashIncoming => {
                world(true).crash_incoming(id).unwrap();
            }
            Act::SourceDies => world(false).vanish(id).unwrap(),
            Act::DestinationDies => world(true).vanish(id).unwrap(),
            Act::Fault(point, fault) => {
                let host = matches!(point, FaultPoint::Receive | FaultPoint::TakeOver);
                world(host).fault_next(point, fault).unwrap();
            }
        }
        self.ended |= !self.alive();
        assert!(
            !(self.running(false) && self.running(true)),
            "two guests after {act:?}"
        );
        for world in &self.worlds {
            let domain = world.domain(id).unwrap();
            let never = domain.filter(|d| matches!(d.migration.half, Half::HandedOver | Half::Receiving));
            assert!(
                never.is_none_or(|d| d.power != PowerState::Running),
                "runs without its memory, or after it was handed over: {act:?}"
            );
        }
        for world in &self.worlds {
            if world.remember(id, self.count + 1).unwrap() {
                self.count += 1;
            }
        }
    }

    /// What is left is settled as the table says.
    async fn settle(&mut self) {
        let id = self.spec.id;
        for world in &self.worlds {
            world.heal().unwrap();
        }
        let mut sides = (self.seen(false).await, self.seen(true).await);
        if truth(sides.0, sides.1) == Truth::Unknown {
            // A stream whose source is over ends sooner or later.
            assert!(
                !matches!(sides.0, Seen::Here(Half::Whole | Half::Sending, _)),
                "{sides:?}"
            );
            if matches!(sides.0, Seen::Here(Half::HandedOver, Stream::Ready)) {
                drop(self.host(false).hand_over(id, 2).await);
            }
            self.worlds[1].lose_stream(id).unwrap();
            sides = (self.seen(false).await, self.seen(true).await);
        }
        let left = match truth(sides.0, sides.1) {
            Truth::Source => {
                self.host(false).cancel(id, 2).await.unwrap();
                self.host(true).undefine(id, 2).await.unwrap();
                assert!(!self.running(true));
                Some(0)
            }
            Truth::Destination => {
                if matches!(sides.1, Seen::Here(Half::Receiving, _)) {
                    self.host(true).take_over(id, 2).await.unwrap();
                }
                self.host(false).undefine(id, 2).await.unwrap();
                Some(1)
            }
            Truth::Disks => {
                assert!(!self.running(false) && !self.running(true), "{sides:?}");
                // Whoever boots from the disks now must not be surprised by a memory that comes late.
                drop(self.host(false).hand_over(id, 2).await);
                assert!(self.host(true).take_over(id, 2).await.is_err(), "{sides:?}");
                None
            }
            Truth::Unknown => panic!("not settled: {sides:?}"),
        };
        if !self.ended {
            let domain = left.and_then(|side: usize| self.worlds[side].domain(id).unwrap());
            if let Some(domain) = domain {
                assert_eq!(
                    (domain.power, domain.memory),
                    (PowerState::Running, self.count),
                    "{sides:?}"
                );
            }
        }
        let histories = self.worlds.each_ref().map(|w| w.history().unwrap());
        never_two_running(&histories).unwrap();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn a_guest_is_never_on_two_hosts(busy: bool, begun in 0..=WAY.len(), acts in prop::collection::vec(acts(), 1..24)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let mut scene = Scene::new(busy).await;
            for act in WAY.into_iter().take(begun).chain(acts) {
                scene.act(act).await;
            }
            scene.settle().await;
        });
    }
}

/// Each fault at each point of a migration that otherwise goes well: it is over, or it can be settled, with its memory
/// unless that was lost on the last pass.
#[tokio::test]
async fn each_fault_at_each_point_is_settled() {
    let faults = [
        Fault::Fail(ErrorKind::Unavailable),
        Fault::FailAfterEffect(ErrorKind::Unavailable),
        Fault::Halfway(ErrorKind::Unavailable),
        Fault::Twice,
    ];
    for point in FaultPoint::MIGRATION {
        for fault in faults {
            for at in 0..WAY.len() {
                let mut scene = Scene::new(true).await;
                for (place, act) in WAY.into_iter().enumerate() {
                    if place == at {
                        scene.act(Act::Fault(point, fault)).await;
                    }
                    scene.act(act).await;
                }
                scene.settle().await;
                let lost = point == FaultPoint::Stream && matches!(fault, Fault::Fail(_));
                assert!(
                    !scene.ended || lost && at >= 2,
                    "{point:?} {fault:?} before step {at} ended the guest"
                );
            }
        }
    }
}

/// What can come between.
const ACCIDENTS: [Act; 14] = [
    Act::Cancel,
    Act::TakeOver,
    Act::Start(false),
    Act::Start(true),
    Act::Unpause(false),
    Act::Unpause(true),
    Act::Stop(true),
    Act::LoseStream(false),
    Act::LoseStream(true),
    Act::CrashGuest(false),
    Act::CrashGuest(true),
    Act::CrashIncoming,
    Act::SourceDies,
    Act::DestinationDies,
];

/// Every two accidents at every two points of a migration whose switch-over is cut short, and then ended.
#[tokio::test]
async fn every_two_accidents_are_settled() {
    let [receive, send, force, hand_over, take_over] = WAY;
    let way = [receive, send, force, Act::HalfHandOver, hand_over, take_over];
    for first in 0..=way.len() {
        for second in first..=way.len() {
            for (one, other) in ACCIDENTS.iter().flat_map(|a| ACCIDENTS.map(|b| (*a, b))) {
                let mut scene = Scene::new(true).await;
                for place in 0..=way.len() {
                    if place == first {
                        scene.act(one).await;
                    }
                    if place == second {
                        scene.act(other).await;
                    }
                    if let Some(act) = way.get(place) {
                        scene.act(*act).await;
                    }
                }
                scene.settle().await;
            }
        }
    }
}
