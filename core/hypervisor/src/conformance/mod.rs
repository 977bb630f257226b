//! The exam for implementers of [`Hypervisor`], [`HostStorage`] and
//! [`HostNetwork`](crate::HostNetwork).
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

mod abilities;
mod disks;
mod domains;
mod generations;
mod harness;
mod hypervisor;
mod images;
mod migration;
mod network;
mod pool;
mod reopening;
mod volumes;
mod watching;

use std::fmt::Debug;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use skyloom_model::{DiskFormat, Name, ServerId};

use crate::{Boot, Capability, DiskInfo, DiskSpec, HostStorage, Hypervisor, NicSpec, VmSpec, VolumeInfo};

pub use harness::{Case, Need, StorageCase, main, storage_trials, trials};
pub use hypervisor::cases;
pub use migration::{MigrationCase, MigrationExam, PairUnderExam, Side, migration_cases, migration_trials};
pub use network::{NetworkCase, NetworkExam, NetworkUnderExam, exam_wiring, network_cases, network_trials};
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
    /// Live guests let go of disks and NICs when they are asked to.
    pub lets_go: bool,
    /// In live guests an agent runs, which knows the user `root` and no `nobody-at-all`.
    pub agent: bool,
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
    /// Runs until it is forced off; may have nothing to boot. It does not answer the power button, lets go of no device,
    /// and has no agent.
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
    /// A fresh, empty, writable disk for the domain, of 1 MiB at least; its file is there. Nobody knows of it yet.
    async fn disk(&self, id: ServerId, name: &str, format: DiskFormat) -> DiskSpec;
    /// A NIC that can be plugged in; another address for each number.
    async fn nic(&self, number: u8) -> NicSpec;
    /// A kernel that writes its command line to the console. Asked for only with `Capability::kernel_boot`.
    async fn kernel(&self, command_line: &str) -> Boot;
    /// Writes a number to a qcow2 disk of a domain that is defined and off, as its guest could have.
    async fn write(&self, id: ServerId, disk: &DiskSpec, number: u64);
    /// The number on a qcow2 disk of a domain that is defined and off; 0 on an empty one.
    async fn read(&self, id: ServerId, disk: &DiskSpec) -> u64;
    /// Bytes that the disk describes, found without asking the hypervisor.
    async fn bytes(&self, id: ServerId, disk: &DiskSpec) -> u64;
    /// Whether the guest's process holds the disk's file, found without asking the hypervisor.
    async fn holds(&self, id: ServerId, disk: &DiskSpec) -> bool;
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
    /// Writes `byte` all over the volume's beginning, as a guest would.
    async fn fill(&self, volume: &VolumeInfo, byte: u8);
    /// Whether the volume's beginning holds nothing but `byte`.
    async fn filled(&self, volume: &VolumeInfo, byte: u8) -> bool;
    /// Whether the volume holds what the image describes, and zeroes behind it.
    async fn holds_image(&self, volume: &VolumeInfo, image: &ExamImage) -> bool;
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
