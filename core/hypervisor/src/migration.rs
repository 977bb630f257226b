//! Ability: a running guest goes to another host, and is never on both.
//!
//! ```text
//!        source                                    destination
//!                                                  receive(g): Receiving, durably ──> address
//!  send(g, address): Sending ── passes ──────────> memory comes in
//!    │ the guest runs; when little is left it is held: Ready
//!  hand_over(g): HandedOver, durably
//!    └─ and only then the last pass ─────────────> Complete
//!    its process has ended                         take_over(g): an ordinary domain that runs
//! ```
//!
//! What a host keeps of its half outlives its agent and its guest's process; what the stream does, need not. One sentence
//! carries all: **a destination's stream is `Complete` only after its source has recorded `HandedOver`.** A source that has
//! recorded it never lets the guest execute again, whatever becomes of the stream, and a destination lets it execute only
//! when it is complete. So each side decides by what it knows itself, and no third one can be late:
//!
//! | half | may execute | verbs | way out |
//! |---|---|---|---|
//! | `Whole` | as ever | all but `hand_over` | `send` |
//! | `Sending` | yes; held when `Ready` | `cancel`, `force`, `hand_over` when `Ready`, `stop` | `cancel`, `stop`: whole; `hand_over` |
//! | `HandedOver` | **never again** | `hand_over` (the rest of it), `stop` (is off) | `undefine` |
//! | `Receiving` | **never** | `receive`, `take_over` when `Complete`, `stop` (is off) | `take_over`; `undefine` |
//!
//! A domain that is not whole refuses every other verb with [`Conflict`](crate::ErrorKind::Conflict), of whatever
//! generation. Which side has the guest after any failure is told by [`truth`]:
//!
//! | source | destination | truth | what is done |
//! |---|---|---|---|
//! | whole, sending | not complete, gone, nobody can tell | `Source` | `cancel`, `undefine` the destination |
//! | handed over, gone, nobody can tell | complete, whole | `Destination` | `take_over`, `undefine` the source |
//! | handed over, gone | broken, gone | `Disks` | the memory is lost: `undefine` both, boot under a newer generation |
//! | handed over, gone | waiting, flowing | `Unknown` | wait; or `undefine` the destination, which makes it `Disks` |
//! | nobody can tell | not complete | `Unknown` | wait, or fence the source: then it is gone |
//! | whole, sending | complete, whole | `Unknown` | cannot be; nothing is done without an operator |

use std::fmt::Debug;
use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use skyloom_model::ServerId;

use crate::{Result, VmSpec};

/// Ability: a guest that goes to another host with its memory. Its disks are files that both hosts see.
///
/// The rules of the other abilities hold: verbs ensure, and each carries the order's generation.
#[async_trait]
pub trait Migration: Send + Sync + Debug {
    /// Destination: ensures a domain as `spec` says that waits for a guest's memory, and says where. Recorded before
    /// anything can come in; it does not run before [`Migration::take_over`].
    ///
    /// # Errors
    /// [`Conflict`](crate::ErrorKind::Conflict) when a domain is there that waits for nothing.
    async fn receive(&self, spec: &VmSpec) -> Result<Incoming>;

    /// Source: ensures that the guest's memory is on its way to `address`. Returns when it has begun; the guest runs on
    /// until the stream is [`Ready`](Stream::Ready). A stream that broke is begun anew.
    ///
    /// # Errors
    /// [`Conflict`](crate::ErrorKind::Conflict) when the guest does not run or is on its way to somewhere else;
    /// [`Unavailable`](crate::ErrorKind::Unavailable) when nothing waits there: the guest runs on.
    async fn send(&self, id: ServerId, generation: u64, address: &str) -> Result<()>;

    /// Either side: what is.
    async fn migration(&self, id: ServerId) -> Result<Migrating>;

    /// Source: ensures that the guest is this host's alone and runs. The destination is undefined by its own order.
    ///
    /// # Errors
    /// [`Conflict`](crate::ErrorKind::Conflict) when it is handed over.
    async fn cancel(&self, id: ServerId, generation: u64) -> Result<()>;

    /// Source: ensures that the passes end, though the guest writes faster than they do: it may be held for as long as
    /// `downtime`, and is slowed down where the hypervisor can. (Not by running it at the destination before its memory is
    /// there: a lost connection would then lose the guest.)
    ///
    /// # Errors
    /// [`Conflict`](crate::ErrorKind::Conflict) when it is not on its way.
    async fn force(&self, id: ServerId, generation: u64, downtime: Duration) -> Result<()>;

    /// Source: the switch-over. Records [`HandedOver`](Half::HandedOver) durably, then lets the last pass go, and returns
    /// when the guest's process has ended: with [`Complete`](Stream::Complete) or [`Broken`](Stream::Broken), as far as
    /// this side knows. A switch-over that was interrupted is ended by the next call.
    ///
    /// A hypervisor that lets the guest go again by itself when the last pass fails is kept from it. (QEMU 7.2 does: with
    /// `pause-before-switchover` a guest that was running executes again when the connection is lost after
    /// `migrate-continue`, also when it was told to `stop` in between; one that was told to `stop` before the passes ended
    /// stays held. After a complete stream, too, it obeys `cont`.)
    ///
    /// # Errors
    /// [`Conflict`](crate::ErrorKind::Conflict) when the stream is not [`Ready`](Stream::Ready).
    async fn hand_over(&self, id: ServerId, generation: u64) -> Result<Stream>;

    /// Destination: ensures that the guest runs here, going on where it was held.
    ///
    /// # Errors
    /// [`Conflict`](crate::ErrorKind::Conflict) when its memory is not [`Complete`](Stream::Complete), or when a whole
    /// domain is off: it is not booted.
    async fn take_over(&self, id: ServerId, generation: u64) -> Result<()>;
}

/// Where a destination waits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Incoming {
    /// For [`Migration::send`] of a hypervisor of the same kind.
    pub address: String,
}

/// What a host durably knows of its half of a migration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Half {
    /// An ordinary domain.
    #[default]
    Whole,
    /// Its memory goes out; the guest is this host's.
    Sending,
    /// The guest is not this host's any more, and never will be.
    HandedOver,
    /// Its memory comes in; the guest is not this host's yet.
    Receiving,
}

/// What a stream of memory does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stream {
    /// Nothing has come or gone.
    #[default]
    Waiting,
    /// Passes.
    Flowing,
    /// Source: all is there but the last pass; the guest is held.
    Ready,
    /// All of it is there.
    Complete,
    /// It ended before it was complete.
    Broken,
}

/// What a verb is to a half of a migration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Step {
    /// [`Migration::receive`] of a domain that is there.
    Receive,
    /// [`Migration::send`].
    Send,
    /// [`Migration::cancel`].
    Cancel,
    /// [`Migration::force`].
    Force,
    /// [`Migration::hand_over`].
    HandOver,
    /// [`Migration::take_over`].
    TakeOver,
    /// [`Hypervisor::stop`](crate::Hypervisor::stop).
    Stop,
    /// All other verbs that change a domain or let its guest execute. `undefine` asks nobody.
    Other,
}

impl Half {
    /// What is to be recorded before a verb does anything; an `Err` says why it may not.
    ///
    /// # Errors
    /// The reason, for a [`Conflict`](crate::ErrorKind::Conflict).
    pub const fn step(self, step: Step, stream: Stream) -> Result<Self, &'static str> {
        match (self, step) {
            (Self::Whole, Step::Send) => Ok(Self::Sending),
            (Self::Whole, Step::Cancel | Step::TakeOver | Step::Stop | Step::Other) => Ok(Self::Whole),
            (Self::Whole, Step::Receive) => Err("the domain is this host's already"),
            (Self::Whole, Step::Force | Step::HandOver) => Err("it is not on its way"),

            (Self::Sending, Step::Send | Step::Force) => Ok(Self::Sending),
            (Self::Sending, Step::Cancel | Step::Stop) => Ok(Self::Whole),
            (Self::Sending, Step::HandOver) => match stream {
                Stream::Ready => Ok(Self::HandedOver),
                _ => Err("the last pass is not due"),
            },
            (Self::Sending, Step::Receive | Step::TakeOver | Step::Other) => {
                Err("it is on its way to another host")
            }

            (Self::HandedOver, Step::HandOver | Step::Stop) => Ok(Self::HandedOver),
            (Self::HandedOver, _) => Err("it is handed over to another host"),

            (Self::Receiving, Step::Receive | Step::Stop) => Ok(Self::Receiving),
            (Self::Receiving, Step::TakeOver) => match stream {
                Stream::Complete => Ok(Self::Whole),
                _ => Err("its memory is not complete"),
            },
            (Self::Receiving, _) => Err("it waits for its memory"),
        }
    }
}

/// What is known of a migration on one side.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Migrating {
    /// The half.
    pub half: Half,
    /// The stream; of a whole domain that of its last migration, if it is known.
    pub stream: Stream,
    /// How far it is, at the source.
    pub progress: Progress,
}

/// How far a migration is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Progress {
    /// The pass under way, counted from 1.
    pub pass: u64,
    /// Bytes of memory in all.
    pub total_bytes: u64,
    /// Bytes sent, over all passes.
    pub sent_bytes: u64,
    /// Bytes that are still to be sent.
    pub remaining_bytes: u64,
    /// Bytes that the guest writes in a second.
    pub dirtied_per_second: u64,
    /// Bytes sent in a second.
    pub sent_per_second: u64,
    /// For how long the guest would be held if the last pass were now.
    pub downtime: Duration,
}

impl Progress {
    /// When the passes will be over; `None` when the guest writes as fast as they send, so that it must be forced.
    #[must_use]
    pub fn remaining(&self) -> Option<Duration> {
        if self.remaining_bytes == 0 {
            return Some(Duration::ZERO);
        }
        let gain = self.sent_per_second.checked_sub(self.dirtied_per_second)?;
        let millis = self.remaining_bytes.saturating_mul(1000).checked_div(gain)?;
        Some(Duration::from_millis(millis))
    }
}

/// What is known of one side's domain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seen {
    /// It is there.
    Here(Half, Stream),
    /// It certainly is not: its host says so, or is fenced.
    Gone,
    /// Nobody can tell.
    CannotTell,
}

/// Whose the guest is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Truth {
    /// The source's.
    Source,
    /// The destination's: it runs there, or can be taken over.
    Destination,
    /// Nobody's: its memory is lost, its disks are what is left.
    Disks,
    /// Not settled: nobody may act on it.
    Unknown,
}

/// Whose the guest is, by what is known of both sides; see the table above.
#[must_use]
pub const fn truth(source: Seen, destination: Seen) -> Truth {
    let arrived = matches!(
        destination,
        Seen::Here(Half::Receiving, Stream::Complete) | Seen::Here(Half::Whole | Half::Sending, _)
    );
    match source {
        Seen::Here(Half::Whole | Half::Sending, _) if arrived => Truth::Unknown,
        Seen::Here(Half::Whole | Half::Sending, _) => Truth::Source,
        // A source that receives is of another migration.
        Seen::Here(Half::Receiving, _) => Truth::Unknown,
        _ if arrived => Truth::Destination,
        Seen::CannotTell => Truth::Unknown,
        Seen::Here(Half::HandedOver, _) | Seen::Gone => match destination {
            Seen::Gone | Seen::Here(Half::Receiving, Stream::Broken) => Truth::Disks,
            _ => Truth::Unknown,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HALVES: [Half; 4] = [Half::Whole, Half::Sending, Half::HandedOver, Half::Receiving];
    const STREAMS: [Stream; 5] = [
        Stream::Waiting,
        Stream::Flowing,
        Stream::Ready,
        Stream::Complete,
        Stream::Broken,
    ];
    const STEPS: [Step; 8] = [
        Step::Receive,
        Step::Send,
        Step::Cancel,
        Step::Force,
        Step::HandOver,
        Step::TakeOver,
        Step::Stop,
        Step::Other,
    ];

    #[test]
    fn handed_over_is_for_ever_and_a_receiver_becomes_whole_only_by_taking_over_all_of_it() {
        for (half, stream, step) in HALVES
            .iter()
            .flat_map(|h| STREAMS.iter().flat_map(move |s| STEPS.map(|t| (*h, *s, t))))
        {
            let next = half.step(step, stream);
            match half {
                Half::HandedOver => assert!(matches!(next, Err(_) | Ok(Half::HandedOver)), "{step:?}"),
                Half::Receiving if (step, stream) != (Step::TakeOver, Stream::Complete) => {
                    assert!(
                        matches!(next, Err(_) | Ok(Half::Receiving)),
                        "{step:?} {stream:?}"
                    );
                }
                Half::Sending if matches!(step, Step::Other | Step::Receive | Step::TakeOver) => {
                    assert!(next.is_err(), "{step:?}");
                }
                _ => {}
            }
            let handed = half == Half::Sending && next == Ok(Half::HandedOver);
            assert!(!handed || (step, stream) == (Step::HandOver, Stream::Ready));
        }
    }

    #[test]
    fn what_cannot_be_told_never_gives_the_guest_to_the_other_side_without_its_memory() {
        let sides: Vec<Seen> = HALVES
            .iter()
            .flat_map(|h| STREAMS.map(|s| Seen::Here(*h, s)))
            .chain([Seen::Gone, Seen::CannotTell])
            .collect();
        for source in &sides {
            for destination in &sides {
                match truth(*source, *destination) {
                    Truth::Destination => assert!(matches!(
                        destination,
                        Seen::Here(Half::Receiving, Stream::Complete)
                            | Seen::Here(Half::Whole | Half::Sending, _)
                    )),
                    Truth::Source => assert!(matches!(source, Seen::Here(Half::Whole | Half::Sending, _))),
                    Truth::Disks => {
                        assert_ne!(*source, Seen::CannotTell);
                        assert_ne!(*destination, Seen::CannotTell);
                    }
                    Truth::Unknown => {}
                }
            }
        }
    }

    proptest! {
        #[test]
        fn the_rest_is_told_only_when_it_gets_less(remaining: u64, sent: u64, dirtied: u64) {
            let progress = Progress {
                remaining_bytes: remaining,
                sent_per_second: sent,
                dirtied_per_second: dirtied,
                ..Progress::default()
            };
            prop_assert_eq!(progress.remaining().is_some(), remaining == 0 || sent > dirtied);
        }
    }
}
