//! Cases by name, and how they run: each on its own runtime, on a fresh host, within the exam's patience.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use libtest_mimic::{Arguments, Failed, Trial};

use super::{Exam, HostUnderExam, Offers, PoolUnderExam, StorageExam, cases, storage_cases};

/// What a case needs beyond the verbs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Need {
    /// `Capability::graceful_stop` and a live guest.
    GracefulStop,
    /// `Capability::guests_outlive_agent`.
    Outlive,
    /// `Capability::durable_generation`.
    DurableGeneration,
    /// `Capability::console_log` and a live guest.
    Console,
    /// The exam can let a guest shut down.
    GuestPowerOff,
    /// The exam can kill a guest.
    Crash,
    /// A bound of unread events.
    EventBound,
    /// `Capability::pause`.
    Pause,
    /// `Capability::suspend`.
    Suspend,
    /// `Capability::snapshots`.
    Snapshots,
    /// `Capability::snapshots` and `Capability::memory_snapshots`.
    MemorySnapshots,
    /// `Capability::hotplug`.
    Hotplug,
    /// `Capability::hotplug` and a live guest that lets go of devices.
    LetsGo,
    /// `Capability::screenshot`.
    Screenshot,
    /// `Capability::guest_agent`.
    GuestAgent,
    /// `Capability::guest_agent` and a live guest with an agent.
    AgentInGuest,
    /// `Capability::kernel_boot` and `Capability::console_log`.
    KernelBoot,
}

impl Need {
    /// Whether the exam offers it.
    #[must_use]
    pub const fn met(self, offers: &Offers) -> bool {
        match self {
            Self::GracefulStop => offers.capability.graceful_stop && offers.live_guest,
            Self::Outlive => offers.capability.guests_outlive_agent,
            Self::DurableGeneration => offers.capability.durable_generation,
            Self::Console => offers.capability.console_log && offers.live_guest,
            Self::GuestPowerOff => offers.guest_power_off,
            Self::Crash => offers.crash,
            Self::EventBound => offers.event_bound.is_some(),
            Self::Pause => offers.capability.pause,
            Self::Suspend => offers.capability.suspend,
            Self::Snapshots => offers.capability.snapshots,
            Self::MemorySnapshots => offers.capability.snapshots && offers.capability.memory_snapshots,
            Self::Hotplug => offers.capability.hotplug,
            Self::LetsGo => offers.capability.hotplug && offers.live_guest && offers.lets_go,
            Self::Screenshot => offers.capability.screenshot,
            Self::GuestAgent => offers.capability.guest_agent,
            Self::AgentInGuest => offers.capability.guest_agent && offers.live_guest && offers.agent,
            Self::KernelBoot => offers.capability.kernel_boot && offers.capability.console_log,
        }
    }
}

/// What a case of the hypervisor's exam works with.
pub(super) struct Desk {
    pub(super) host: Box<dyn HostUnderExam>,
    pub(super) offers: Offers,
}

/// A case of the hypervisor's exam.
#[derive(Debug, Clone, Copy)]
pub struct Case {
    /// Its name.
    pub name: &'static str,
    /// What it needs.
    pub needs: &'static [Need],
    pub(super) run: for<'a> fn(&'a mut Desk) -> BoxFuture<'a, ()>,
}

impl Case {
    /// Whether the exam offers all that the case needs.
    #[must_use]
    pub fn fits(&self, offers: &Offers) -> bool {
        self.needs.iter().all(|need| need.met(offers))
    }
    /// Takes the case on a fresh host.
    ///
    /// # Panics
    /// When the hypervisor fails the case.
    pub async fn run(&self, exam: &dyn Exam) {
        let offers = exam.offers();
        let mut desk = Desk {
            host: exam.sit().await,
            offers,
        };
        within(offers.patience * 4, (self.run)(&mut desk)).await;
    }
}

/// What a case of the pool's exam works with.
pub(super) struct PoolDesk {
    pub(super) pool: Box<dyn PoolUnderExam>,
    pub(super) images: Vec<super::ExamImage>,
    pub(super) refused: Vec<super::ExamImage>,
}

/// A case of the pool's exam.
#[derive(Debug, Clone, Copy)]
pub struct StorageCase {
    /// Its name.
    pub name: &'static str,
    pub(super) run: for<'a> fn(&'a mut PoolDesk) -> BoxFuture<'a, ()>,
}

/// A pool has no slow verb: more than this is a hang.
const POOL_PATIENCE: Duration = Duration::from_secs(60);

impl StorageCase {
    /// Takes the case on a fresh pool.
    ///
    /// # Panics
    /// When the pool fails the case.
    pub async fn run(&self, exam: &dyn StorageExam) {
        let mut desk = PoolDesk {
            pool: exam.sit().await,
            images: exam.images(),
            refused: exam.refused_images(),
        };
        within(POOL_PATIENCE, (self.run)(&mut desk)).await;
    }
}

pub(super) async fn within(patience: Duration, case: BoxFuture<'_, ()>) {
    assert!(
        tokio::time::timeout(patience, case).await.is_ok(),
        "the case hangs: not done after {patience:?}"
    );
}

/// Makes a case of a function's name.
macro_rules! case {
    ($function:ident) => {
        Case { name: stringify!($function), needs: &[], run: |desk| Box::pin($function(desk)) }
    };
    ($function:ident, $($need:ident),+) => {
        Case { name: stringify!($function), needs: &[$(Need::$need),+], run: |desk| Box::pin($function(desk)) }
    };
}
pub(super) use case;

/// Makes a case of the pool's exam of a function's name.
macro_rules! pool_case {
    ($function:ident) => {
        StorageCase {
            name: stringify!($function),
            run: |desk| Box::pin($function(desk)),
        }
    };
}
pub(super) use pool_case;

pub(super) fn on_a_runtime(case: impl Future<Output = ()>) -> Result<(), Failed> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    runtime.block_on(case);
    Ok(())
}

/// The hypervisor's exam as tests, named `hypervisor::<case>`.
#[must_use]
pub fn trials(exam: Arc<dyn Exam>) -> Vec<Trial> {
    let offers = exam.offers();
    let trial = |case: Case| {
        let exam = exam.clone();
        let run = move || on_a_runtime(case.run(&*exam));
        Trial::test(format!("hypervisor::{}", case.name), run).with_ignored_flag(!case.fits(&offers))
    };
    cases().into_iter().map(trial).collect()
}

/// The pool's exam as tests, named `storage::<case>`.
#[must_use]
pub fn storage_trials(exam: Arc<dyn StorageExam>) -> Vec<Trial> {
    let trial = |case: StorageCase| {
        let exam = exam.clone();
        Trial::test(format!("storage::{}", case.name), move || {
            on_a_runtime(case.run(&*exam))
        })
    };
    storage_cases().into_iter().map(trial).collect()
}

/// Runs tests as `cargo test` expects it of a test program with `harness = false`.
#[must_use]
pub fn main(trials: Vec<Trial>) -> ExitCode {
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}
