//! What some clients did to one key, and what they were told.

use std::fmt;

use crate::Revision;

/// The number of a document among all that the clients of a history wrote. No two writes write the same.
pub type DocId = u32;

/// What a write demands of the key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Demand {
    /// Nothing.
    Any,
    /// That nothing is there.
    Absent,
    /// That it was modified last at this revision.
    At(Revision),
}

/// One call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// A read.
    Read,
    /// A write of a document of its own.
    Put(DocId, Demand),
    /// A removal. One that demands nothing may find nothing.
    Delete(Demand),
}

/// What the caller was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// The read found this document, modified at this revision, or nothing.
    Found(Option<(DocId, Revision)>),
    /// The write happened at this revision.
    Done(Revision),
    /// The write did not happen, for the key was modified last at this revision, or is absent.
    Conflict(Option<Revision>),
    /// Nobody can tell whether the write happened, or will happen yet.
    Unknown,
}

/// One call with its answer. Calls that certainly did nothing and saw nothing are not part of a history.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Call {
    /// When it was made: moments are numbered in their order.
    pub begin: u64,
    /// When it was answered; of no meaning where the answer is [`Answer::Unknown`].
    pub end: u64,
    /// What was called.
    pub action: Action,
    /// What was answered.
    pub answer: Answer,
}

impl fmt::Debug for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            begin,
            end,
            action,
            answer,
        } = self;
        write!(f, "[{begin}, {end}] {action:?} -> {answer:?}")
    }
}
