//! The safety rules by name, so that a test build can leave one out and show that the simulator notices.
//!
//! In every normal build [`kept`] is the constant `true` and costs nothing. With the feature `ablation` (tests/sim alone
//! turns it on) a thread can break one rule for as long as an [`Ablated`] lives. `docs/reliability.md` has the table: rule,
//! what goes wrong without it, schedules until the simulator sees it.

/// A rule without which something is lost, doubled or forgotten.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Rule {
    /// An engine's commit carries the guard on its lease's epoch.
    EngineEpoch,
    /// An agent's commit carries the guard on its host's lease epoch.
    AgentEpoch,
    /// A job's result replaces only the record of the attempt that was started.
    AttemptCompare,
    /// A hypervisor refuses orders of an older generation than the domain's.
    GenerationCompare,
    /// What an agent saw is taken over only for the generation and the host that the server has now.
    ObservedGeneration,
    /// The answer to an idempotency key is written in the commit that it answers.
    IdempotencyRecord,
    /// What an agent did stands in its journal, on disk, before it is reported.
    AgentJournal,
    /// A host job's `started` is committed before its effect.
    IntentBeforeEffect,
    /// A job looks before it acts.
    ObserveBeforeAct,
    /// A mirror lists again after a gap, and now and then.
    RelistOnGap,
    /// Undo is called for every job that was started, not only for those that succeeded.
    UndoStarted,
    /// A job is undone only when all that was built on it is gone.
    UndoOrder,
    /// A job starts only when all that it builds on has succeeded.
    DependencyOrder,
    /// Capacity is claimed by a compare on the host's ledger.
    ClaimCompare,
    /// Tries of a task are counted before trying.
    PoisonCount,
    /// A lease's own deadline counts from before the request.
    LeaseFromRequest,
    /// A worker looks at its own lease's deadline right before it acts.
    DeadlineBeforeAct,
    /// Resource and task are one commit.
    OneCommit,
    /// An agent touches only its own host's keys.
    HostScope,
    /// A started job is taken over only when its worker's lease is gone.
    AdoptOnlyOrphans,
    /// A task is taken over only by whoever compares the record that names its owner.
    TaskRevision,
    /// The end of a task and the record changes that go with it are one commit.
    SettleWithEnd,
    /// After an unknown outcome the record is read back before anything else.
    ReadBackUnknown,
    /// What a resource takes of a quota is charged in the resource's own commit.
    QuotaWithResource,
}

impl Rule {
    /// All rules.
    pub const ALL: [Self; 24] = [
        Self::EngineEpoch,
        Self::AgentEpoch,
        Self::AttemptCompare,
        Self::GenerationCompare,
        Self::ObservedGeneration,
        Self::IdempotencyRecord,
        Self::AgentJournal,
        Self::IntentBeforeEffect,
        Self::ObserveBeforeAct,
        Self::RelistOnGap,
        Self::UndoStarted,
        Self::UndoOrder,
        Self::DependencyOrder,
        Self::ClaimCompare,
        Self::PoisonCount,
        Self::LeaseFromRequest,
        Self::DeadlineBeforeAct,
        Self::OneCommit,
        Self::HostScope,
        Self::AdoptOnlyOrphans,
        Self::TaskRevision,
        Self::SettleWithEnd,
        Self::ReadBackUnknown,
        Self::QuotaWithResource,
    ];
}

/// Whether `rule` is in force: always, but in a test that leaves it out.
#[cfg(not(feature = "ablation"))]
#[must_use]
#[inline(always)]
pub const fn kept(_rule: Rule) -> bool {
    true
}

#[cfg(feature = "ablation")]
pub use switch::{Ablated, kept};

#[cfg(feature = "ablation")]
mod switch {
    use std::cell::Cell;

    use super::Rule;

    thread_local! {
        static LEFT_OUT: Cell<Option<Rule>> = const { Cell::new(None) };
    }

    /// Whether `rule` is in force on this thread.
    #[must_use]
    pub fn kept(rule: Rule) -> bool {
        LEFT_OUT.get() != Some(rule)
    }

    /// Leaves a rule out on this thread while it lives.
    #[derive(Debug)]
    pub struct Ablated(Option<Rule>);

    impl Ablated {
        /// Leaves `rule` out from now on.
        #[must_use]
        pub fn without(rule: Rule) -> Self {
            Self(LEFT_OUT.replace(Some(rule)))
        }
    }

    impl Drop for Ablated {
        fn drop(&mut self) {
            LEFT_OUT.set(self.0);
        }
    }
}
