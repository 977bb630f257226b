//! The exam for implementers of [`crate::Backend`]: one named case for each promise of the contract.
//!
//! ```text
//! Exam::fresh() ─> Sitting { store, clock or patience, … } ─> Case ─> Verdict          (one empty store per case)
//! ```
//!
//! A backend's test file has `harness = false` in its manifest and this body:
//!
//! ```no_run
//! # use skyloom_store::conformance::MemoryExam;
//! fn main() -> std::process::ExitCode {
//!     skyloom_store::conformance::main(MemoryExam::new())
//! }
//! ```
//!
//! Every case is then a test of its own (`name of the exam::subject::case`), run on a multi-threaded tokio runtime that
//! the harness makes. What this module exports may change in any release.

mod commits;
mod durable;
mod failure;
mod faults;
mod keys;
mod lease_guards;
mod leases;
mod lists;
mod memory_exam;
mod races;
mod refusals;
mod seat;
pub mod soak;
mod values;
mod watch_faults;
mod watches;

use std::fmt;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::future::BoxFuture;
use libtest_mimic::{Arguments, Trial};

pub use self::failure::{Failure, Verdict};
pub use self::memory_exam::MemoryExam;
pub use self::seat::Seat;
use crate::{DynBackend, Revision};

/// Longest time that one case may take.
const CASE_LIMIT: Duration = Duration::from_secs(180);

/// A backend that wants to be examined.
#[async_trait]
pub trait Exam: Send + Sync + 'static {
    /// The name that stands before each case.
    fn name(&self) -> String;

    /// What this backend's sittings can do beyond the contract. Cases that need more are not part of the exam.
    fn abilities(&self) -> Abilities;

    /// How long leases are asked for. With a real clock: long enough that a slow machine gets a few calls done in half
    /// of it, short enough to wait for (2 s).
    fn ttl(&self) -> Duration {
        Duration::from_secs(10)
    }

    /// An empty store, of which nobody else knows.
    async fn fresh(&self) -> Result<Box<dyn Sitting>, Failure>;
}

/// One empty store for one case, with the means to treat it badly.
#[async_trait]
pub trait Sitting: Send + Sync + 'static {
    /// The store.
    fn store(&self) -> DynBackend;

    /// The same store through another handle, as another process would see it.
    fn second(&self) -> DynBackend {
        self.store()
    }

    /// Lets this much of the store's lease time go by: moves a manual clock, or waits.
    async fn pass_time(&self, by: Duration);

    /// Makes the store forget its history up to and including `revision` ([`Abilities::compact`]).
    async fn compact(&self, revision: Revision) -> Verdict {
        Err(Failure::new(format!(
            "this exam cannot compact up to {revision}, but says it can"
        )))
    }

    /// Lets go of every handle, as at the end of the process, and opens the same data again ([`Abilities::reopen`]).
    /// [`Sitting::store`] is the new handle from then on.
    async fn reopen(&mut self) -> Verdict {
        Err(Failure::new("this exam cannot reopen, but says it can"))
    }

    /// Makes trouble that the contract allows, and that is over soon: cuts connections, restarts the server. `seed` says
    /// which. Called again and again in [`soak`].
    async fn disturb(&self, seed: u64) -> Verdict {
        let _ = seed;
        Ok(())
    }

    /// Cleans up.
    async fn end(self: Box<Self>) {}
}

/// What a sitting can do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Abilities {
    /// [`Sitting::compact`] works.
    pub compact: bool,
    /// [`Sitting::reopen`] works.
    pub reopen: bool,
}

impl Abilities {
    fn include(self, needed: Self) -> bool {
        (self.compact || !needed.compact) && (self.reopen || !needed.reopen)
    }
}

type Run = for<'s> fn(&'s mut Seat) -> BoxFuture<'s, Verdict>;

/// One promise, and how to try it.
#[derive(Clone, Copy)]
pub struct Case {
    /// `subject::case`.
    pub name: &'static str,
    /// What the sitting must be able to do.
    pub needs: Abilities,
    run: Run,
}

impl fmt::Debug for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

impl Case {
    const fn needing(mut self, needs: Abilities) -> Self {
        self.needs = needs;
        self
    }
}

/// A case named after its function.
macro_rules! case {
    ($subject:literal, $function:ident) => {
        $crate::conformance::Case {
            name: concat!($subject, "::", stringify!($function)),
            needs: $crate::conformance::Abilities {
                compact: false,
                reopen: false,
            },
            run: |seat| Box::pin($function(seat)),
        }
    };
}
use case;

/// All cases.
#[must_use]
pub fn cases() -> Vec<Case> {
    let subjects = [
        commits::cases(),
        refusals::cases(),
        lists::cases(),
        keys::cases(),
        values::cases(),
        watches::cases(),
        watch_faults::cases(),
        leases::cases(),
        lease_guards::cases(),
        races::cases(),
        faults::cases(),
        durable::cases(),
    ];
    subjects.into_iter().flatten().collect()
}

/// The cases that `exam` can sit.
#[must_use]
pub fn cases_for(exam: &dyn Exam) -> Vec<Case> {
    let abilities = exam.abilities();
    cases()
        .into_iter()
        .filter(|case| abilities.include(case.needs))
        .collect()
}

/// Runs one case on an empty store. Needs a multi-threaded tokio runtime.
///
/// # Errors
/// What the store did that it must not do.
pub async fn run_case(exam: &dyn Exam, case: Case) -> Verdict {
    let sitting = exam.fresh().await?;
    let mut seat = Seat::new(sitting, exam.ttl());
    let verdict = tokio::time::timeout(CASE_LIMIT, (case.run)(&mut seat)).await;
    seat.end().await;
    verdict.unwrap_or_else(|_| Err(Failure::new(format!("not done after {CASE_LIMIT:?}"))))
}

/// One libtest-mimic trial per case.
#[must_use]
pub fn trials(exam: Arc<dyn Exam>) -> Vec<Trial> {
    let name = exam.name();
    let trial = |case: Case| {
        let exam = Arc::clone(&exam);
        Trial::test(format!("{name}::{}", case.name), move || {
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .worker_threads(2)
                .enable_all()
                .build()?;
            Ok(runtime.block_on(run_case(&*exam, case))?)
        })
    };
    cases_for(&*exam).into_iter().map(trial).collect()
}

/// The body of a test file with `harness = false`: sits `exam`.
#[must_use]
pub fn main(exam: impl Exam) -> ExitCode {
    main_all([Arc::new(exam) as Arc<dyn Exam>])
}

/// As [`main`] for several exams in one test file.
#[must_use]
pub fn main_all(exams: impl IntoIterator<Item = Arc<dyn Exam>>) -> ExitCode {
    conclude(exams.into_iter().flat_map(trials).collect())
}

/// The body of a test file that has put its trials together by itself.
#[must_use]
pub fn conclude(trials: Vec<Trial>) -> ExitCode {
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}
