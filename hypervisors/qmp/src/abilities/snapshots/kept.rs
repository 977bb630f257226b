//! `snapshots.json`: what is known of a domain's snapshots, in the order in which they were taken.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use skyloom_hypervisor::{Error, ErrorKind, Result, SnapshotFound, SnapshotOrder};

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
pub(super) struct Kept {
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
pub(super) struct KeptMemory {
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
}

pub(super) async fn read(vm: &Vm, operation: &'static str) -> Result<Vec<Kept>> {
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

pub(super) async fn write(vm: &Vm, operation: &'static str, all: &[Kept]) -> Result<()> {
    let dir = Arc::clone(&vm.dir);
    let file = File {
        format: FORMAT,
        snapshots: all.to_vec(),
    };
    let written = blocking(move || dir.write(dir::SNAPSHOTS, &file)).await;
    written.map_err(|e| errors::file(operation, vm.id, e))
}
