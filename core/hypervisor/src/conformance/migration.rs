//! The exam of migrations: one guest, two hosts, never both.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use libtest_mimic::Trial;
use skyloom_model::{PowerState, ServerId};

use super::domains::{at, must_refuse};
use super::harness::{on_a_runtime, within};
use crate::{ErrorKind, Half, Hypervisor, Inspection, Seen, StopMode, Stream, Truth, VmSpec, truth};

/// What an implementer brings so that its migrations can be examined.
#[async_trait]
pub trait MigrationExam: Send + Sync + std::fmt::Debug + 'static {
    /// Two fresh, empty hosts that see the same disks, on which [`Hypervisor::recover`] was called.
    async fn sit(&self) -> Box<dyn PairUnderExam>;
    /// How long anything may take.
    fn patience(&self) -> Duration;
}

/// One of the two hosts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// Where the guest was.
    Source,
    /// Where it goes.
    Destination,
}

/// Two hosts that take the exam. When they are dropped, no guest may stay.
#[async_trait]
pub trait PairUnderExam: Send + Sync {
    /// A side's hypervisor, as last opened. It has the ability.
    fn hypervisor(&self, side: Side) -> Arc<dyn Hypervisor>;
    /// Drops both hypervisors as if their agents had died, opens others on the same hosts and lets them recover.
    async fn reopen(&mut self);
    /// A domain of generation 1 that both hosts can have; nobody knows of it yet. Its guest runs until it is forced off;
    /// a busy one writes to its memory faster than any pass sends.
    async fn spec(&self, busy: bool) -> VmSpec;
    /// Whether a guest's CPUs execute on this side, found without asking the hypervisor.
    async fn executes(&self, side: Side, id: ServerId) -> bool;
    /// Lets the running guest write a number to its memory.
    async fn remember(&self, side: Side, id: ServerId, number: u64);
    /// The number in the running guest's memory.
    async fn memory(&self, side: Side, id: ServerId) -> u64;
    /// Kills the process of this side's guest, or of what waits for one. The other side finds its connection broken.
    async fn crash(&self, side: Side, id: ServerId);
}

struct Desk {
    pair: Box<dyn PairUnderExam>,
    patience: Duration,
}

/// A case of the exam of migrations.
#[derive(Debug, Clone, Copy)]
pub struct MigrationCase {
    /// Its name.
    pub name: &'static str,
    run: for<'a> fn(&'a mut Desk) -> futures::future::BoxFuture<'a, ()>,
}

impl MigrationCase {
    /// Takes the case on a fresh pair.
    ///
    /// # Panics
    /// When the hypervisor fails the case.
    pub async fn run(&self, exam: &dyn MigrationExam) {
        let patience = exam.patience();
        let pair = exam.sit().await;
        let mut desk = Desk { pair, patience };
        within(patience * 4, (self.run)(&mut desk)).await;
    }
}

macro_rules! migration_case {
    ($function:ident) => {
        MigrationCase {
            name: stringify!($function),
            run: |desk| Box::pin($function(desk)),
        }
    };
}

/// All cases of the exam of migrations.
#[must_use]
pub fn migration_cases() -> Vec<MigrationCase> {
    vec![
        migration_case!(guest_goes_with_its_memory),
        migration_case!(guest_comes_back_the_same_way),
        migration_case!(what_waits_does_not_run),
        migration_case!(what_waits_is_not_booted_after_a_stop),
        migration_case!(nothing_is_taken_over_before_it_is_complete),
        migration_case!(nothing_is_handed_over_before_it_is_ready),
        migration_case!(handed_over_never_runs_again),
        migration_case!(handed_over_is_remembered),
        migration_case!(handed_over_cannot_be_cancelled),
        migration_case!(held_guest_is_not_let_go_by_others),
        migration_case!(cancel_gives_the_guest_back),
        migration_case!(lost_destination_leaves_the_guest),
        migration_case!(lost_stream_is_begun_anew),
        migration_case!(busy_guest_is_forced),
        migration_case!(agents_may_die_on_the_way),
        migration_case!(verbs_may_come_twice),
        migration_case!(stale_orders_change_nothing),
    ]
}

/// The exam of migrations as tests, named `migration::<case>`.
#[must_use]
pub fn migration_trials(exam: Arc<dyn MigrationExam>) -> Vec<Trial> {
    let trial = |case: MigrationCase| {
        let exam = exam.clone();
        Trial::test(format!("migration::{}", case.name), move || {
            on_a_runtime(case.run(&*exam))
        })
    };
    migration_cases().into_iter().map(trial).collect()
}

use Side::{Destination, Source};

/// The verbs of the ability on one side.
macro_rules! on {
    ($desk:expr, $side:expr) => {
        $desk
            .pair
            .hypervisor($side)
            .as_migration()
            .expect("the ability is promised")
    };
}

impl Desk {
    /// A guest that runs at the source, with 7 in its memory.
    async fn guest(&self, busy: bool) -> VmSpec {
        let spec = self.pair.spec(busy).await;
        let source = self.pair.hypervisor(Source);
        source.define(&spec).await.expect("define");
        source.start(spec.id, 1).await.expect("start");
        self.pair.remember(Source, spec.id, 7).await;
        spec
    }
    /// Its memory is on the way, in generation 2.
    async fn sent(&self, busy: bool) -> VmSpec {
        let spec = at(&self.guest(busy).await, 2);
        self.send(&spec, Source, Destination).await;
        spec
    }
    async fn send(&self, spec: &VmSpec, from: Side, to: Side) {
        let there = on!(self, to).receive(spec).await.expect("receive");
        let sent = on!(self, from)
            .send(spec.id, spec.generation, &there.address)
            .await;
        sent.expect("send");
    }
    /// Waits until a side's stream is this.
    async fn until(&self, side: Side, spec: &VmSpec, wanted: Stream) {
        let there = async {
            let mut pause = tokio::time::interval(Duration::from_millis(50));
            loop {
                pause.tick().await;
                match on!(self, side).migration(spec.id).await {
                    Ok(seen) if seen.stream == wanted => return,
                    Ok(_) => {}
                    // On a busy machine a look may come too late: another one will tell.
                    Err(e) if matches!(e.kind(), ErrorKind::Timeout | ErrorKind::Unavailable) => {}
                    Err(e) => panic!("look: {e:?}"),
                }
            }
        };
        let in_time = tokio::time::timeout(self.patience, there).await;
        assert!(in_time.is_ok(), "the {side:?}'s stream never is {wanted:?}");
    }
    async fn hand_over(&self, spec: &VmSpec) {
        self.until(Source, spec, Stream::Ready).await;
        let told = on!(self, Source).hand_over(spec.id, spec.generation).await;
        assert_eq!(told.expect("hand over"), Stream::Complete);
        self.until(Destination, spec, Stream::Complete).await;
    }
    /// The guest executes on this side alone.
    async fn runs_on(&self, spec: &VmSpec, side: Option<Side>) {
        for each in [Source, Destination] {
            let executes = self.pair.executes(each, spec.id).await;
            assert_eq!(executes, side == Some(each), "guest at the {each:?}");
        }
    }
    async fn seen(&self, side: Side, id: ServerId) -> Seen {
        match on!(self, side).migration(id).await {
            Ok(seen) => Seen::Here(seen.half, seen.stream),
            Err(e) if e.kind() == ErrorKind::NotFound => Seen::Gone,
            Err(_) => Seen::CannotTell,
        }
    }
    async fn must_be(&self, spec: &VmSpec, wanted: Truth) {
        let (source, destination) = (
            self.seen(Source, spec.id).await,
            self.seen(Destination, spec.id).await,
        );
        assert_eq!(truth(source, destination), wanted, "{source:?}, {destination:?}");
    }
    /// No verb lets the guest execute on this side, in this generation or a newer one.
    async fn nothing_lets_it_run(&self, side: Side, spec: &VmSpec) {
        let hypervisor = self.pair.hypervisor(side);
        for generation in [spec.generation, spec.generation + 1] {
            must_refuse(hypervisor.start(spec.id, generation).await, ErrorKind::Conflict);
            if let Some(pause) = hypervisor.as_pause() {
                must_refuse(pause.unpause(spec.id, generation).await, ErrorKind::Conflict);
            }
        }
        assert!(
            !self.pair.executes(side, spec.id).await,
            "it executes at the {side:?}"
        );
    }
}

async fn guest_goes_with_its_memory(desk: &mut Desk) {
    let spec = desk.sent(false).await;
    desk.hand_over(&spec).await;
    desk.runs_on(&spec, None).await;
    desk.must_be(&spec, Truth::Destination).await;
    on!(desk, Destination)
        .take_over(spec.id, 2)
        .await
        .expect("take over");
    desk.runs_on(&spec, Some(Destination)).await;
    desk.must_be(&spec, Truth::Destination).await;
    assert_eq!(
        desk.pair.memory(Destination, spec.id).await,
        7,
        "what was in its memory"
    );
    let there = desk.pair.hypervisor(Destination);
    let power = PowerState::Running;
    let running = Inspection::Found { generation: 2, power };
    assert_eq!(there.inspect(spec.id).await.expect("inspect"), running);
    desk.pair
        .hypervisor(Source)
        .undefine(spec.id, 2)
        .await
        .expect("undefine");
    desk.runs_on(&spec, Some(Destination)).await;
}

async fn guest_comes_back_the_same_way(desk: &mut Desk) {
    let spec = desk.sent(false).await;
    desk.hand_over(&spec).await;
    on!(desk, Destination)
        .take_over(spec.id, 2)
        .await
        .expect("take over");
    desk.pair
        .hypervisor(Source)
        .undefine(spec.id, 2)
        .await
        .expect("undefine");
    let back = at(&spec, 3);
    desk.send(&back, Destination, Source).await;
    desk.until(Destination, &back, Stream::Ready).await;
    on!(desk, Destination)
        .hand_over(back.id, 3)
        .await
        .expect("hand over");
    desk.until(Source, &back, Stream::Complete).await;
    on!(desk, Source).take_over(back.id, 3).await.expect("take over");
    desk.runs_on(&back, Some(Source)).await;
    assert_eq!(
        desk.pair.memory(Source, back.id).await,
        7,
        "what was in its memory"
    );
}

async fn what_waits_does_not_run(desk: &mut Desk) {
    let spec = at(&desk.guest(false).await, 2);
    on!(desk, Destination).receive(&spec).await.expect("receive");
    desk.nothing_lets_it_run(Destination, &spec).await;
    desk.pair.reopen().await;
    desk.nothing_lets_it_run(Destination, &spec).await;
    desk.runs_on(&spec, Some(Source)).await;
    desk.pair
        .hypervisor(Destination)
        .undefine(spec.id, 9)
        .await
        .expect("undefine");
    desk.must_be(&spec, Truth::Source).await;
}

async fn what_waits_is_not_booted_after_a_stop(desk: &mut Desk) {
    let spec = desk.sent(false).await;
    let there = desk.pair.hypervisor(Destination);
    there.stop(spec.id, 2, StopMode::Force).await.expect("stop");
    desk.nothing_lets_it_run(Destination, &spec).await;
}

async fn nothing_is_taken_over_before_it_is_complete(desk: &mut Desk) {
    let spec = desk.sent(false).await;
    desk.until(Source, &spec, Stream::Ready).await;
    must_refuse(
        on!(desk, Destination).take_over(spec.id, 2).await,
        ErrorKind::Conflict,
    );
    desk.runs_on(&spec, None).await;
    desk.must_be(&spec, Truth::Source).await;
}

async fn nothing_is_handed_over_before_it_is_ready(desk: &mut Desk) {
    let spec = at(&desk.guest(false).await, 2);
    must_refuse(on!(desk, Source).hand_over(spec.id, 2).await, ErrorKind::Conflict);
    desk.runs_on(&spec, Some(Source)).await;
}

async fn handed_over_never_runs_again(desk: &mut Desk) {
    let spec = desk.sent(false).await;
    desk.hand_over(&spec).await;
    desk.nothing_lets_it_run(Source, &spec).await;
    desk.pair.crash(Destination, spec.id).await;
    desk.nothing_lets_it_run(Source, &spec).await;
}

async fn handed_over_is_remembered(desk: &mut Desk) {
    let spec = desk.sent(false).await;
    desk.hand_over(&spec).await;
    desk.pair.reopen().await;
    desk.nothing_lets_it_run(Source, &spec).await;
    assert!(matches!(
        desk.seen(Source, spec.id).await,
        Seen::Here(Half::HandedOver, _)
    ));
    on!(desk, Destination)
        .take_over(spec.id, 2)
        .await
        .expect("take over");
    desk.runs_on(&spec, Some(Destination)).await;
}

async fn handed_over_cannot_be_cancelled(desk: &mut Desk) {
    let spec = desk.sent(false).await;
    desk.hand_over(&spec).await;
    must_refuse(on!(desk, Source).cancel(spec.id, 2).await, ErrorKind::Conflict);
    desk.runs_on(&spec, None).await;
}

async fn held_guest_is_not_let_go_by_others(desk: &mut Desk) {
    let spec = desk.sent(false).await;
    desk.until(Source, &spec, Stream::Ready).await;
    desk.nothing_lets_it_run(Source, &spec).await;
    desk.hand_over(&spec).await;
}

async fn cancel_gives_the_guest_back(desk: &mut Desk) {
    let spec = desk.sent(false).await;
    desk.until(Source, &spec, Stream::Ready).await;
    on!(desk, Source).cancel(spec.id, 2).await.expect("cancel");
    desk.runs_on(&spec, Some(Source)).await;
    assert_eq!(
        desk.pair.memory(Source, spec.id).await,
        7,
        "what was in its memory"
    );
    desk.must_be(&spec, Truth::Source).await;
}

async fn lost_destination_leaves_the_guest(desk: &mut Desk) {
    let spec = desk.sent(true).await;
    desk.pair.crash(Destination, spec.id).await;
    desk.until(Source, &spec, Stream::Broken).await;
    desk.runs_on(&spec, Some(Source)).await;
    desk.must_be(&spec, Truth::Source).await;
    must_refuse(on!(desk, Source).hand_over(spec.id, 2).await, ErrorKind::Conflict);
}

async fn lost_stream_is_begun_anew(desk: &mut Desk) {
    let spec = desk.sent(false).await;
    desk.pair.crash(Destination, spec.id).await;
    desk.until(Source, &spec, Stream::Broken).await;
    desk.pair
        .hypervisor(Destination)
        .undefine(spec.id, 2)
        .await
        .expect("undefine");
    desk.send(&spec, Source, Destination).await;
    desk.hand_over(&spec).await;
    on!(desk, Destination)
        .take_over(spec.id, 2)
        .await
        .expect("take over");
    desk.runs_on(&spec, Some(Destination)).await;
}

async fn busy_guest_is_forced(desk: &mut Desk) {
    let spec = desk.sent(true).await;
    must_refuse(on!(desk, Source).hand_over(spec.id, 2).await, ErrorKind::Conflict);
    desk.runs_on(&spec, Some(Source)).await;
    let downtime = desk.patience;
    on!(desk, Source)
        .force(spec.id, 2, downtime)
        .await
        .expect("force");
    desk.hand_over(&spec).await;
    on!(desk, Destination)
        .take_over(spec.id, 2)
        .await
        .expect("take over");
    desk.runs_on(&spec, Some(Destination)).await;
}

async fn agents_may_die_on_the_way(desk: &mut Desk) {
    let spec = at(&desk.guest(false).await, 2);
    let there = on!(desk, Destination).receive(&spec).await.expect("receive");
    desk.pair.reopen().await;
    on!(desk, Source)
        .send(spec.id, 2, &there.address)
        .await
        .expect("send");
    desk.pair.reopen().await;
    desk.until(Source, &spec, Stream::Ready).await;
    desk.pair.reopen().await;
    desk.hand_over(&spec).await;
    desk.pair.reopen().await;
    on!(desk, Destination)
        .take_over(spec.id, 2)
        .await
        .expect("take over");
    desk.pair.reopen().await;
    desk.runs_on(&spec, Some(Destination)).await;
    assert_eq!(
        desk.pair.memory(Destination, spec.id).await,
        7,
        "what was in its memory"
    );
}

async fn verbs_may_come_twice(desk: &mut Desk) {
    let spec = at(&desk.guest(false).await, 2);
    let there = on!(desk, Destination).receive(&spec).await.expect("receive");
    assert_eq!(
        on!(desk, Destination)
            .receive(&spec)
            .await
            .expect("receive again"),
        there
    );
    for _ in 0..2 {
        on!(desk, Source)
            .send(spec.id, 2, &there.address)
            .await
            .expect("send");
    }
    desk.hand_over(&spec).await;
    desk.hand_over_again(&spec).await;
    for _ in 0..2 {
        on!(desk, Destination)
            .take_over(spec.id, 2)
            .await
            .expect("take over");
    }
    desk.runs_on(&spec, Some(Destination)).await;
    must_refuse(on!(desk, Destination).receive(&spec).await, ErrorKind::Conflict);
    assert_eq!(
        desk.pair.memory(Destination, spec.id).await,
        7,
        "what was in its memory"
    );
}

impl Desk {
    async fn hand_over_again(&self, spec: &VmSpec) {
        let again = on!(self, Source).hand_over(spec.id, spec.generation).await;
        assert_eq!(again.expect("hand over again"), Stream::Complete);
    }
}

async fn stale_orders_change_nothing(desk: &mut Desk) {
    let spec = desk.sent(false).await;
    let id = spec.id;
    desk.until(Source, &spec, Stream::Ready).await;
    must_refuse(on!(desk, Source).send(id, 1, "elsewhere").await, ErrorKind::Stale);
    must_refuse(on!(desk, Source).cancel(id, 1).await, ErrorKind::Stale);
    must_refuse(
        on!(desk, Source).force(id, 1, desk.patience).await,
        ErrorKind::Stale,
    );
    must_refuse(on!(desk, Source).hand_over(id, 1).await, ErrorKind::Stale);
    must_refuse(
        on!(desk, Destination).receive(&at(&spec, 1)).await,
        ErrorKind::Stale,
    );
    desk.hand_over(&spec).await;
    must_refuse(on!(desk, Destination).take_over(id, 1).await, ErrorKind::Stale);
    desk.runs_on(&spec, None).await;
}
