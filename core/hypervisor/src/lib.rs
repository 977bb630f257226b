//! The Hypervisor contract: virtual machines of one host.
//!
//! ```text
//!  job ── define(VmSpec g7) ──> Hypervisor ──> domain that carries (id, generation 7) in itself
//!  job ── start(id, g7) ──────>            ──> running
//!  job ── inspect(id) ────────>            ──> Found { generation, state } | Absent | CannotTell
//! ```
//!
//! * All verbs say *ensure*: asking for what already is succeeds and changes nothing.
//! * Every verb carries the generation of the order. A domain of a newer generation refuses it ([`ErrorKind::Stale`]); one
//!   of an older generation takes the order's on, durably and before anything else happens. So an order that was held
//!   up or delivered twice changes nothing once a newer one has come.
//! * After any error, ask [`Hypervisor::inspect`]: it tells what is. Its answer `CannotTell` never justifies a start.
//! * Guests outlive the agent: dropping a `Hypervisor` never stops one, [`Hypervisor::recover`] adopts them.
//!
//! [`HostStorage`] is the host's disks: image cache, overlays, config drives; [`HostNetwork`] is its guests' ports. What one host's hypervisor and storage have
//! in common is only the paths in [`VmSpec`].

mod ability;
#[cfg(feature = "conformance")]
pub mod conformance;
mod error;
mod event;
mod fake;
mod migration;
mod network;
mod spec;
mod storage;
mod volume;

use std::fmt::Debug;
use std::time::Duration;

use async_trait::async_trait;
use futures::stream::BoxStream;
use skyloom_model::{HostFacts, PowerState, ServerId};

pub use ability::{GuestAgent, Hotplug, Pause, Screen, SnapshotFound, SnapshotOrder, Snapshots, Suspend};
pub use error::{Class, Error, ErrorKind, Result};
pub use event::{VmEvent, VmEventKind};
pub use fake::{
    Effect, EffectKind, Executions, FakeDomain, FakeHalf, FakeHypervisor, FakeMemory, FakeNetwork,
    FakeOptions, FakeSnapshot, FakeStorage, FakeVolume, FakeWire, FakeWorld, Fault, FaultPoint, Holding,
    Platter, never_two_running,
};
pub use migration::{Half, Incoming, Migrating, Migration, Progress, Seen, Step, Stream, Truth, truth};
pub use network::{
    AddressPair, FirewallRule, HostNetwork, InstanceMetadata, NetworkCapability, NetworkWiring, NicDevice,
    PortThere, PortWiring, Prefix, Route, SubnetWiring, family_of,
};
pub use spec::{Boot, DiskSpec, NicSpec, VmSpec};
pub use storage::{CachedImage, DiskInfo, HostStorage, ImageSpec, OverlaySpec, ProgressFn, is_seed};
pub use volume::{
    DiskAt, HostVolumes, VolumeAt, VolumeContent, VolumeFile, VolumeInfo, VolumeOrder, VolumeSnapshot,
};

/// A host's facts with what its hypervisor can do among their traits.
///
/// # Errors
/// Those of [`Hypervisor::facts`].
pub async fn facts_of(hypervisor: &dyn Hypervisor) -> Result<HostFacts> {
    let mut facts = hypervisor.facts().await?;
    facts.traits.extend(hypervisor.capability().traits());
    facts.traits.sort();
    facts.traits.dedup();
    Ok(facts)
}

/// The virtual machines of one host.
#[async_trait]
pub trait Hypervisor: Send + Sync + Debug + 'static {
    /// What this hypervisor can do.
    fn capability(&self) -> Capability;

    /// What the host offers; measured anew on each call.
    async fn facts(&self) -> Result<HostFacts>;

    /// Ensures that a domain exists as `spec` says, off if it is new. A domain of the same generation is left alone,
    /// one of an older generation is brought to the new one (while it runs: for its next start). So a task defines before
    /// it starts or stops: these bring the generation, too, but not the rest of `spec`.
    ///
    /// # Errors
    /// [`ErrorKind::Stale`] when the domain is of a newer generation; [`ErrorKind::Unsupported`] for a kernel of the host
    /// without [`Capability::kernel_boot`].
    async fn define(&self, spec: &VmSpec) -> Result<()>;

    /// Ensures that the domain runs: from its boot, where it was suspended, or where it was held. Returns when the
    /// hypervisor has confirmed that its CPUs execute. A domain of an older
    /// generation takes on `generation` first; a guest that runs already is not disturbed.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] when it is not defined, [`ErrorKind::Stale`] when it is of a newer generation.
    async fn start(&self, id: ServerId, generation: u64) -> Result<()>;

    /// Ensures that the domain is off, and says how that came about. A domain of an older generation takes on `generation`
    /// first, also when it is off already.
    ///
    /// # Errors
    /// [`ErrorKind::Stale`] when it is of a newer generation. An absent domain is off: no error.
    async fn stop(&self, id: ServerId, generation: u64, mode: StopMode) -> Result<Stopped>;

    /// Ensures that no domain `id` exists, running or not. Disks are not touched.
    ///
    /// # Errors
    /// [`ErrorKind::Stale`] when it is of a newer generation.
    async fn undefine(&self, id: ServerId, generation: u64) -> Result<()>;

    /// What is. Never blocks longer than a few seconds: an answer that cannot be had is `CannotTell`.
    async fn inspect(&self, id: ServerId) -> Result<Inspection>;

    /// Finds all domains of this host after a restart of the agent, takes over the running ones without disturbing
    /// them, and tells what was found. Called once before any other verb.
    async fn recover(&self) -> Result<Vec<Recovered>>;

    /// All domains that there are now, in id order. Only looks, and waits for no verb that is under way; may be called
    /// at any time.
    async fn list(&self) -> Result<Vec<Recovered>>;

    /// Changes as they happen, from the time of the call. May lose events (a slow consumer is told
    /// [`VmEventKind::Lost`]); the truth is [`Hypervisor::inspect`].
    fn events(&self) -> BoxStream<'static, VmEvent>;

    /// Serial console and its log, if this hypervisor has them.
    fn as_console(&self) -> Option<&dyn Console>;

    /// Holding CPUs, if this hypervisor can.
    fn as_pause(&self) -> Option<&dyn Pause>;

    /// Memory kept on disk, if this hypervisor can.
    fn as_suspend(&self) -> Option<&dyn Suspend>;

    /// Snapshots, if this hypervisor can.
    fn as_snapshots(&self) -> Option<&dyn Snapshots>;

    /// Disks and NICs that come and go, if this hypervisor can.
    fn as_hotplug(&self) -> Option<&dyn Hotplug>;

    /// A picture of the screen, if this hypervisor can.
    fn as_screen(&self) -> Option<&dyn Screen>;

    /// The agent in the guest, if this hypervisor can reach it.
    fn as_guest_agent(&self) -> Option<&dyn GuestAgent>;

    /// Guests that go to another host, if this hypervisor can.
    fn as_migration(&self) -> Option<&dyn Migration> {
        None
    }
}

/// Ability: the serial console.
#[async_trait]
pub trait Console: Send + Sync + Debug {
    /// The last `max_bytes` of what the guest has written to its serial console, over restarts of the guest and of the
    /// agent. Untrusted bytes.
    async fn console_tail(&self, id: ServerId, max_bytes: usize) -> Result<Vec<u8>>;
}

/// What a hypervisor can do: data for the scheduler, and checked before planning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Capability {
    /// The guest can be asked to shut down.
    pub graceful_stop: bool,
    /// Guests run on when the agent dies.
    pub guests_outlive_agent: bool,
    /// Domains carry their generation durably.
    pub durable_generation: bool,
    /// A serial console log is kept.
    pub console_log: bool,
    /// Guests can be paused.
    pub pause: bool,
    /// Guests can be suspended to disk.
    pub suspend: bool,
    /// Disks of qcow2 can keep snapshots.
    pub snapshots: bool,
    /// A snapshot can keep the guest's memory.
    pub memory_snapshots: bool,
    /// Disks and NICs can come and go while the guest runs.
    pub hotplug: bool,
    /// The guest's screen can be seen.
    pub screenshot: bool,
    /// The agent in the guest can be reached.
    pub guest_agent: bool,
    /// A domain can boot a kernel that the host loads.
    pub kernel_boot: bool,
    /// Running guests can go to another host.
    pub migration: bool,
}

impl Capability {
    /// The verbs of [`Hypervisor`] with a console, and no further ability.
    #[must_use]
    pub const fn basic() -> Self {
        Self {
            graceful_stop: true,
            guests_outlive_agent: true,
            durable_generation: true,
            console_log: true,
            pause: false,
            suspend: false,
            snapshots: false,
            memory_snapshots: false,
            hotplug: false,
            screenshot: false,
            guest_agent: false,
            kernel_boot: false,
            migration: false,
        }
    }

    /// The abilities by their names, as a host's facts tell them.
    #[must_use]
    pub fn traits(&self) -> Vec<String> {
        let named = [
            ("guest-agent", self.guest_agent),
            ("hotplug", self.hotplug),
            ("kernel-boot", self.kernel_boot),
            ("memory-snapshots", self.memory_snapshots),
            ("migration", self.migration),
            ("pause", self.pause),
            ("screenshot", self.screenshot),
            ("snapshots", self.snapshots),
            ("suspend", self.suspend),
        ];
        let there = named.into_iter().filter(|(_, has)| *has);
        there.map(|(name, _)| name.to_owned()).collect()
    }

    /// All abilities that a host has by itself: without [`Migration`], which takes two.
    #[must_use]
    pub const fn full() -> Self {
        Self {
            graceful_stop: true,
            guests_outlive_agent: true,
            durable_generation: true,
            console_log: true,
            pause: true,
            suspend: true,
            snapshots: true,
            memory_snapshots: true,
            hotplug: true,
            screenshot: true,
            guest_agent: true,
            kernel_boot: true,
            migration: false,
        }
    }

    /// With [`Migration`].
    #[must_use]
    pub const fn with_migration(mut self) -> Self {
        self.migration = true;
        self
    }
}

/// How to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopMode {
    /// Ask the guest (ACPI power button), then force it off when `timeout` has passed.
    Graceful {
        /// How long the guest may take.
        timeout: Duration,
    },
    /// Off at once.
    Force,
}

/// How a domain came to be off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stopped {
    /// It was off already.
    AlreadyOff,
    /// The guest shut itself down when asked.
    Gracefully,
    /// It was forced.
    Forced,
}

/// What is known of a domain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Inspection {
    /// It exists.
    Found {
        /// The generation that it carries.
        generation: u64,
        /// Its power state.
        power: PowerState,
    },
    /// It certainly does not exist on this host.
    Absent,
    /// Nobody can tell now (monitor busy or gone while its process lives, …).
    CannotTell {
        /// Why.
        reason: String,
    },
}

/// A domain that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recovered {
    /// Whose.
    pub id: ServerId,
    /// What is known of it.
    pub inspection: Inspection,
}
