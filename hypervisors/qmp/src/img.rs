//! `qemu-img`: disks of domains that are off. The whole chain is told, as one JSON document: nothing is probed, and what
//! lies below an overlay is not opened.

use std::process::Stdio;
use std::time::Duration;

use serde::Deserialize;
use skyloom_hypervisor::{DiskSpec, ErrorKind, Result};
use tokio::process::Command;

use crate::devices::block_node;
use crate::errors;
use crate::vm::Vm;

/// A snapshot of a big disk takes a while: all its tables are counted.
const PATIENCE: Duration = Duration::from_secs(300);

/// What a disk's file says of itself.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct Info {
    /// Bytes that the disk describes.
    pub(crate) virtual_size: u64,
    #[serde(default)]
    pub(crate) snapshots: Vec<Internal>,
}

/// A snapshot in a disk's file.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct Internal {
    pub(crate) name: String,
    /// Bytes of memory.
    pub(crate) vm_state_size: u64,
}

fn file(disk: &DiskSpec) -> String {
    format!("json:{}", block_node(disk.format, &disk.path, false))
}

async fn run(vm: &Vm, operation: &'static str, args: &[&str]) -> Result<Vec<u8>> {
    let config = &vm.env.config;
    let mut command = Command::new(&config.qemu_img);
    command
        .args(args)
        .env_clear()
        .stdin(Stdio::null())
        .kill_on_drop(true);
    if let Some(user) = config.run_as {
        command.uid(user.uid).gid(user.gid);
    }
    let output = tokio::time::timeout(PATIENCE, command.output()).await;
    let output = output.map_err(|_| vm.error(ErrorKind::Timeout, operation))?;
    let output =
        output.map_err(|e| errors::file(operation, vm.id, e).with("program", config.qemu_img.display()))?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    let words: String = String::from_utf8_lossy(&output.stderr)
        .chars()
        .take(500)
        .collect();
    Err(vm
        .error(errors::start_kind(&words), operation)
        .with("qemu-img", words.trim().escape_debug()))
}

/// Reads what the disk's file says.
pub(crate) async fn info(vm: &Vm, operation: &'static str, disk: &DiskSpec) -> Result<Info> {
    let told = run(vm, operation, &["info", "--output=json", &file(disk)]).await?;
    serde_json::from_slice(&told).map_err(|e| vm.error(ErrorKind::Corrupt, operation).because(e))
}

/// Makes (`-c`), goes back to (`-a`) or removes (`-d`) a snapshot.
pub(crate) async fn snapshot(
    vm: &Vm,
    operation: &'static str,
    what: &'static str,
    name: &str,
    disk: &DiskSpec,
) -> Result<()> {
    run(vm, operation, &["snapshot", "-q", what, name, &file(disk)])
        .await
        .map(drop)
}

/// Grows the disk.
pub(crate) async fn resize(vm: &Vm, operation: &'static str, disk: &DiskSpec, bytes: u64) -> Result<()> {
    run(vm, operation, &["resize", "-q", &file(disk), &bytes.to_string()])
        .await
        .map(drop)
}
