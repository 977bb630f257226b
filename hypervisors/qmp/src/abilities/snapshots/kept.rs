//! `snapshots.json`: what is known of a domain's snapshots, in the order in which they were taken.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use skyloom_hypervisor::{DiskSpec, Error, ErrorKind, NicSpec, Result, SnapshotFound, SnapshotOrder, VmSpec};

use crate::argv;
use crate::devices::Shape;
use crate::dir;
use crate::errors::{self, blocking};
use crate::record::FORMAT;
use crate::vm::Vm;

/// The file.
#[derive(Debug, Serialize, Deserialize)]
struct File {
    format: u16,
    snapshots: Vec<Kept>,
}

/// A snapshot, begun or whole.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Kept {
    /// All disks hold it.
    pub(super) whole: bool,
    /// The disks' files by name.
    pub(super) files: BTreeMap<String, PathBuf>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) memory: Option<KeptMemory>,
    #[serde(flatten)]
    pub(super) found: SnapshotFound,
}

/// A guest's memory in a snapshot.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct KeptMemory {
    /// What it was made of.
    pub(super) shape: Shape,
    /// Whether it was held.
    pub(super) held: bool,
    /// The disk that holds the memory.
    pub(super) disk: String,
}

impl Kept {
    /// Whether it is what is ordered.
    pub(super) fn fits(&self, order: &SnapshotOrder) -> bool {
        self.memory.is_some() == order.memory
            && self.files.len() == order.disks.len()
            && order.disks.iter().all(|d| self.files.contains_key(d))
    }

    /// As it is for a host that the domain comes to: made of what that host knows of the domain, and of nothing else that
    /// it is told. `None` when it cannot be.
    pub(crate) fn on_other_host(mut self, spec: &VmSpec) -> Option<Self> {
        if let Some(memory) = &mut self.memory {
            let told = &memory.shape.spec;
            let disk = |d: &DiskSpec| spec.disks.iter().find(|o| o.name == d.name && o.path == d.path);
            let nic = |n: &NicSpec| spec.nics.iter().find(|o| o.mac == n.mac);
            if told.vcpus > spec.vcpus || told.memory_mib > spec.memory_mib {
                return None;
            }
            let made_of = VmSpec {
                vcpus: told.vcpus,
                memory_mib: told.memory_mib,
                disks: told
                    .disks
                    .iter()
                    .map(|d| disk(d).cloned())
                    .collect::<Option<_>>()?,
                nics: told.nics.iter().map(|n| nic(n).cloned()).collect::<Option<_>>()?,
                ..spec.clone()
            };
            argv::check(&made_of).ok()?;
            memory.shape = Shape::plugged(made_of, memory.shape.ports.clone())?;
        }
        Some(self)
    }
}

pub(crate) async fn read(vm: &Vm, operation: &'static str) -> Result<Vec<Kept>> {
    let dir = Arc::clone(&vm.dir);
    let file = blocking(move || dir.read::<File>(dir::SNAPSHOTS)).await;
    match file.map_err(|e| errors::file(operation, vm.id, e))? {
        Some(file) if file.format != FORMAT => Err(Error::new(ErrorKind::Corrupt, operation)
            .with("server", vm.id)
            .with("format", file.format)),
        Some(file) => Ok(file.snapshots),
        None => Ok(Vec::new()),
    }
}

pub(crate) async fn write(vm: &Vm, operation: &'static str, all: &[Kept]) -> Result<()> {
    let dir = Arc::clone(&vm.dir);
    let file = File {
        format: FORMAT,
        snapshots: all.to_vec(),
    };
    let written = blocking(move || dir.write(dir::SNAPSHOTS, &file)).await;
    written.map_err(|e| errors::file(operation, vm.id, e))
}
