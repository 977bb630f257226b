//! The exam for implementers of [`Hypervisor`](crate::Hypervisor) and [`HostStorage`](crate::HostStorage).
//!
//! ```text
//!  your crate: tests/conformance.rs (harness = false)
//!     impl Exam for Mine { … }         fn main() -> ExitCode {
//!     impl HostUnderExam for Host { … }    conformance::main(conformance::trials(Arc::new(Mine)))
//!                                      }
//! ```
//!
//! Every case gets a fresh, empty host. A case that needs what the exam does not offer (see [`Offers`]) is shown as
//! ignored: what is not promised is not examined. What is promised has no way round.
//!
//! Not under semantic versioning: a new case may fail an implementation that passed before.

mod disks;
mod domains;
mod generations;
mod harness;
mod hypervisor;
mod images;
mod pool;
mod reopening;
mod watching;

use std::fmt::Debug;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use skyloom_model::{DiskFormat, Name, ServerId};

use crate::{Capability, DiskInfo, HostStorage, Hypervisor, VmSpec};

pub use harness::{Case, Need, StorageCase, main, storage_trials, trials};
pub use hypervisor::cases;
pub use pool::cases as storage_cases;

/// What an implementer brings so that its hypervisor can be examined.
#[async_trait]
pub trait Exam: Send + Sync + Debug + 'static {
    /// What is promised, and so examined.
    fn offers(&self) -> Offers;
    /// A fresh, empty host with an open hypervisor, on which [`Hypervisor::recover`] was called.
    async fn sit(&self) -> Box<dyn HostUnderExam>;
}

/// What an exam can do beyond the verbs.
#[derive(Debug, Clone, Copy)]
pub struct Offers {
    /// What [`Hypervisor::capability`] will say.
    pub capability: Capability,
    /// There are guests that boot, answer the power button and write to their console.
    pub live_guest: bool,
    /// The exam can let a guest shut itself down.
    pub guest_power_off: bool,
    /// The exam can kill a guest's process.
    pub crash: bool,
    /// Unread events after which a stream must have said `Lost`; `None` if there is no bound that can be reached.
    pub event_bound: Option<usize>,
    /// How long anything may take.
    pub patience: Duration,
}

/// What the guest of a domain does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Guest {
    /// Runs until it is forced off; may have nothing to boot. It does not answer the power button.
    Idle,
    /// Boots, writes to its console, answers the power button. Asked for only if the exam offers a live guest.
    Live,
}

/// A host that takes the exam. When it is dropped, no guest may stay.
#[async_trait]
pub trait HostUnderExam: Send + Sync {
    /// The hypervisor, as last opened.
    fn hypervisor(&self) -> Arc<dyn Hypervisor>;
    /// A domain of generation 1 with a fresh id; its disks exist. It is not defined yet.
    async fn spec(&self, name: Name, guest: Guest) -> VmSpec;
    /// Drops the hypervisor as if its agent had died, and opens another one on the same host. Does not call
    /// [`Hypervisor::recover`].
    async fn reopen(&mut self);
    /// How many processes run this guest, counted without asking the hypervisor.
    async fn processes(&self, id: ServerId) -> usize;
    /// Lets the guest shut itself down.
    async fn power_off_guest(&self, id: ServerId);
    /// Kills the guest's process.
    async fn crash_guest(&self, id: ServerId);
    /// Part of what a live guest writes to its console when it has booted.
    fn live_text(&self) -> &str;
}

/// What an implementer brings so that its pool can be examined.
#[async_trait]
pub trait StorageExam: Send + Sync + Debug + 'static {
    /// A fresh, empty pool.
    async fn sit(&self) -> Box<dyn PoolUnderExam>;
    /// At least two images that differ, and that the pool's inspector accepts.
    fn images(&self) -> Vec<ExamImage>;
    /// Images that the pool's inspector must refuse, though size and digest are right.
    fn refused_images(&self) -> Vec<ExamImage>;
}

/// A pool that takes the exam.
#[async_trait]
pub trait PoolUnderExam: Send + Sync {
    /// The pool, as last opened.
    fn storage(&self) -> Arc<dyn HostStorage>;
    /// Drops the pool as if its agent had died, and opens it again.
    async fn reopen(&mut self);
    /// Every file that belongs to an image or a server, temporary ones too, found without asking the pool.
    async fn files(&self) -> Vec<PathBuf>;
    /// Whether the disk's file holds exactly `content`.
    async fn holds(&self, server: ServerId, disk: &DiskInfo, content: &[u8]) -> bool;
}

/// An image of the exam.
#[derive(Debug, Clone)]
pub struct ExamImage {
    /// Its claimed format.
    pub format: DiskFormat,
    /// The file.
    pub content: Bytes,
    /// Bytes of the disk that it describes.
    pub virtual_size: u64,
}
