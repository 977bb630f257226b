//! How a fake host is made.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use skyloom_model::{HostFacts, Name, Resources};

use super::volumes::Shared;
use super::{FakeWire, FakeWorld};
use crate::Capability;

/// How a fake host is made.
#[derive(Debug, Clone)]
pub struct FakeOptions {
    pub(super) directory: Option<PathBuf>,
    pub(super) facts: HostFacts,
    pub(super) capability: Capability,
    pub(super) step: bool,
    pub(super) naive_start: bool,
    pub(super) tag: u32,
    pub(super) event_capacity: usize,
    pub(super) sequence: Arc<AtomicU64>,
    pub(super) shared: Shared,
    pub(super) wire: Option<FakeWire>,
    pub(super) forgetful: bool,
}

impl FakeOptions {
    /// A host in this process's memory: it lives as long as a clone of its [`FakeWorld`].
    #[must_use]
    pub fn in_memory() -> Self {
        Self {
            directory: None,
            facts: HostFacts {
                capacity: Resources {
                    vcpus: 16,
                    memory_mib: 65_536,
                    disk_gib: 1_000,
                },
                architecture: "x86_64".into(),
                hypervisor: "fake".into(),
                hypervisor_version: "1".into(),
                accelerator: "fake".into(),
                accelerator_reason: "guests are records: nothing is executed".into(),
                traits: Vec::new(),
            },
            capability: Capability::full(),
            step: false,
            naive_start: false,
            tag: 0,
            event_capacity: 64,
            sequence: Arc::default(),
            shared: Shared::new(),
            wire: None,
            forgetful: false,
        }
    }
    /// A host in a directory, which is made if need be: it outlives the process.
    #[must_use]
    pub fn directory(root: impl Into<PathBuf>) -> Self {
        Self {
            directory: Some(root.into()),
            ..Self::in_memory()
        }
    }
    /// What it says of itself.
    #[must_use]
    pub fn facts(mut self, facts: HostFacts) -> Self {
        self.facts = facts;
        self
    }
    /// What its hypervisor can do.
    #[must_use]
    pub fn capability(mut self, capability: Capability) -> Self {
        self.capability = capability;
        self
    }
    /// Step mode: each verb that changes the host waits for one [`FakeWorld::step`].
    #[must_use]
    pub fn stepwise(mut self) -> Self {
        self.step = true;
        self
    }
    /// A repeated start of a running domain begins a second execution ([`crate::EffectKind::StartedTwice`]), as on a
    /// hypervisor without image locks: jobs must look before they act. An order of a newer generation takes the running
    /// guest over as ever, and a [`crate::Fault::Twice`] is one order.
    #[must_use]
    pub fn naive_start(mut self) -> Self {
        self.naive_start = true;
        self
    }
    /// Tells the effects of this host from those of others that share its sequence.
    #[must_use]
    pub fn tag(mut self, tag: u32) -> Self {
        self.tag = tag;
        self
    }
    /// A shared pool that the host sees: a world of its own, whose volumes are the pool's.
    #[must_use]
    pub fn shared_pool(mut self, name: Name, pool: FakeWorld) -> Self {
        self.shared.insert(name, pool);
        self
    }
    /// Plugs the host into a wire, on which it is found by its tag: its guests can go to other hosts there.
    #[must_use]
    pub fn wire(mut self, wire: &FakeWire) -> Self {
        self.wire = Some(wire.clone());
        self.capability = self.capability.with_migration();
        self
    }
    /// Without a memory of what is over: no history of effects, nothing of servers that have left nothing. For what runs
    /// for long; in memory only.
    #[must_use]
    pub fn forgetful(mut self) -> Self {
        self.forgetful = true;
        self
    }
    /// Events that wait for a slow consumer before it is told `Lost`. At least 1.
    #[must_use]
    pub fn event_capacity(mut self, events: usize) -> Self {
        self.event_capacity = events.max(1);
        self
    }
    /// Numbers the effects of several in-memory hosts in one order: it holds the number that the next effect gets. While
    /// it stands still, nothing happens on any of them. A host in a directory keeps its own numbers.
    #[must_use]
    pub fn sequence(mut self, sequence: Arc<AtomicU64>) -> Self {
        self.sequence = sequence;
        self
    }
}
