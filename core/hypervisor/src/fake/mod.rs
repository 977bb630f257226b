//! A host that is not there: a hypervisor and a pool whose guests are records.
//!
//! ```text
//!  FakeWorld ── hypervisor() ──> FakeHypervisor ─┐ verbs
//!            ── storage() ─────> FakeStorage ────┤
//!            ── network() ─────> FakeNetwork ────┤
//!            <── fail_next(), step(), vanish() … ┘ the test's hand
//!      ├─> ledger: a book per server, in memory or in a directory
//!      └─> queue: what takes its time
//! ```
//!
//! The world is what a real host is to its agent: it stays when the agent dies. With a directory it also stays when the
//! process is killed, and a second process that opens the same directory sees and scripts the same host. In memory it is
//! light enough for ten thousand hosts in one process, and a verb costs about a microsecond.

mod abilities;
mod book;
mod domains;
mod guests;
mod history;
mod hypervisor;
mod late;
mod ledger;
mod left;
mod migration;
mod network;
mod options;
mod passage;
mod plugs;
mod qcow2;
mod script;
mod snapshots;
mod storage;
mod volumes;
mod world;

pub use book::FakeDomain;
pub use history::{Effect, EffectKind, Executions, never_two_running};
pub use hypervisor::FakeHypervisor;
pub use left::Holding;
pub use migration::{FakeHalf, FakeWire};
pub use network::FakeNetwork;
pub use options::FakeOptions;
pub use script::{Fault, FaultPoint};
pub use snapshots::{FakeMemory, FakeSnapshot, Platter};
pub use storage::FakeStorage;
pub use volumes::FakeVolume;
pub use world::FakeWorld;
