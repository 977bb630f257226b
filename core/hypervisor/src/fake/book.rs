//! What a fake host knows of one server: its domain, its disks, the orders that came.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use skyloom_model::{PortId, PowerState};

use super::history::{Effect, EffectKind};
use super::migration::FakeHalf;
use super::network::FakePort;
use super::snapshots::{FakeSnapshot, Platter};
use super::storage::FakeDisk;
use super::volumes::FakeVolume;
use crate::{Boot, VmSpec};

/// A fake domain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FakeDomain {
    /// As it was last defined; its generation is the domain's.
    pub spec: VmSpec,
    /// Its power state.
    pub power: PowerState,
    /// How often it has been started.
    pub boots: u64,
    /// Its console log.
    pub console: String,
    /// What its guest is made of: the definition of its start with what came and went since. `None` when it is off; of a
    /// suspended one the definition that its memory was written by.
    #[serde(default)]
    pub guest: Option<VmSpec>,
    /// What the guest keeps in its memory: one number, told by [`crate::FakeWorld::remember`].
    #[serde(default)]
    pub memory: u64,
    /// Its disks' content and size by path.
    #[serde(default)]
    pub platters: BTreeMap<PathBuf, Platter>,
    /// Its snapshots in the order in which they were taken; also those that are not whole.
    #[serde(default)]
    pub snapshots: Vec<FakeSnapshot>,
    /// Its half of a migration.
    #[serde(default)]
    pub migration: FakeHalf,
}

/// All that is known of one server: written as a whole, so that state and history never differ.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Book {
    pub(super) domain: Option<FakeDomain>,
    pub(super) disks: BTreeMap<String, FakeDisk>,
    /// The volume of this id: the book is a volume's then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) volume: Option<FakeVolume>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) ports: BTreeMap<PortId, FakePort>,
    /// Only in a directory: in memory all effects are in one list.
    pub(super) history: Vec<Effect>,
    #[serde(default)]
    pub(super) orders: Orders,
}

impl Book {
    pub(super) fn is_empty(&self) -> bool {
        self.domain.is_none() && self.disks.is_empty()
    }

    /// Nothing is there, whoever asks.
    pub(super) fn is_forgettable(&self) -> bool {
        self.is_empty() && self.volume.is_none() && self.ports.is_empty()
    }
}

/// The generations of the latest orders for power, so that an old one can come again.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Orders {
    pub(super) starts: Latest,
    pub(super) stops: Latest,
}

/// The two latest generations: of two at least one is older than the domain's.
#[derive(Debug, Default, Clone, Copy, Serialize, Deserialize)]
pub(super) struct Latest([Option<u64>; 2]);

impl Latest {
    /// Notes an order; says whether that is news.
    pub(super) fn note(&mut self, generation: u64) -> bool {
        let news = self.0[1].is_none_or(|latest| latest < generation);
        if news {
            self.0 = [self.0[1], Some(generation)];
        }
        news
    }
    /// The latest one before `generation`.
    pub(super) fn before(self, generation: u64) -> Option<u64> {
        self.0.into_iter().rev().flatten().find(|g| *g < generation)
    }
}

impl FakeDomain {
    /// Longest console log that is kept, in bytes.
    pub const CONSOLE_LIMIT: usize = 64 * 1024;

    /// A new domain, off.
    pub(super) fn new(spec: &VmSpec) -> Self {
        Self {
            spec: spec.clone(),
            power: PowerState::Stopped,
            boots: 0,
            console: String::new(),
            guest: None,
            memory: 0,
            platters: BTreeMap::new(),
            snapshots: Vec::new(),
            migration: FakeHalf::default(),
        }
    }

    pub(super) fn print(&mut self, text: &str) {
        self.console.push_str(text);
        let mut cut = self.console.len().saturating_sub(Self::CONSOLE_LIMIT);
        while !self.console.is_char_boundary(cut) {
            cut += 1;
        }
        self.console.drain(..cut);
    }
    /// Its process ends.
    pub(super) fn off(&mut self, power: PowerState) {
        self.power = power;
        self.guest = None;
    }
    pub(super) fn boot(&mut self, ready_line: Option<&str>) {
        self.power = PowerState::Running;
        self.boots += 1;
        self.memory = 0;
        self.guest = Some(self.spec.clone());
        let kernel = match &self.spec.boot {
            Boot::Kernel { command_line, .. } => Some(command_line.clone()),
            Boot::FirstDisk => None,
        };
        if let Some(command_line) = kernel {
            self.print("fake-kernel ");
            self.print(&command_line);
            self.print("\n");
        }
        match ready_line {
            Some(line) => self.print(line),
            None => {
                self.print("fake-guest ready hostname=");
                let name = self.spec.name.clone();
                self.print(name.as_str());
            }
        }
        self.print("\n");
    }
}

/// What a change did.
#[derive(Debug, Default)]
pub(super) struct Note {
    pub(super) effects: Vec<(u64, EffectKind)>,
    /// Something else than an effect is to be written.
    pub(super) changed: bool,
}

impl Note {
    /// Something happened, for the history.
    pub(super) fn effect(&mut self, generation: u64, kind: EffectKind) {
        self.effects.push((generation, kind));
    }
}
