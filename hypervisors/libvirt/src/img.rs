//! `qemu-img`: disks of domains that are off. The whole chain is told, as one JSON document: nothing is probed, and what
//! lies below an overlay is not opened. It runs as the daemon's user.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};
use skyloom_hypervisor::{DiskSpec, Error, ErrorKind, Result};
use skyloom_model::{DiskFormat, ServerId};
use tokio::process::Command;

use crate::config::LibvirtConfig;
use crate::errors;

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
    #[serde(default)]
    pub(crate) vm_state_size: u64,
}

/// Whose disk, for what.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Img<'a> {
    pub(crate) config: &'a LibvirtConfig,
    pub(crate) operation: &'static str,
    pub(crate) id: ServerId,
}

fn file(format: DiskFormat, path: &Path) -> String {
    let mut node = json!({
        "driver": format.as_str(),
        "file": { "driver": "file", "filename": path },
    });
    if format == DiskFormat::Qcow2 {
        node["backing"] = Value::Null;
    }
    format!("json:{node}")
}

impl Img<'_> {
    fn error(&self, kind: ErrorKind) -> Error {
        Error::new(kind, self.operation).with("server", self.id)
    }

    async fn run(&self, args: &[&str]) -> Result<Vec<u8>> {
        let mut command = Command::new(&self.config.qemu_img);
        command
            .args(args)
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::null())
            .kill_on_drop(true);
        if let Some(user) = self.config.daemon_user {
            command.uid(user.uid).gid(user.gid);
        }
        let output = tokio::time::timeout(PATIENCE, command.output()).await;
        let output = output.map_err(|_| self.error(ErrorKind::Timeout))?;
        let output = output.map_err(|e| {
            errors::file(self.operation, e)
                .with("server", self.id)
                .with("program", self.config.qemu_img.display())
        })?;
        if output.status.success() {
            return Ok(output.stdout);
        }
        let words: String = String::from_utf8_lossy(&output.stderr)
            .chars()
            .take(500)
            .collect();
        Err(self
            .error(errors::words(&words))
            .with("qemu-img", words.trim().escape_debug()))
    }

    /// Reads what the disk's file says.
    pub(crate) async fn info(&self, disk: &DiskSpec) -> Result<Info> {
        let told = self
            .run(&["info", "--output=json", &file(disk.format, &disk.path)])
            .await?;
        serde_json::from_slice(&told).map_err(|e| self.error(ErrorKind::Corrupt).because(e))
    }

    /// Grows the disk.
    pub(crate) async fn resize(&self, disk: &DiskSpec, bytes: u64) -> Result<()> {
        let file = file(disk.format, &disk.path);
        self.run(&["resize", "-q", &file, &bytes.to_string()])
            .await
            .map(drop)
    }

    /// Makes (`-c`), goes back to (`-a`) or removes (`-d`) a snapshot.
    pub(crate) async fn snapshot(&self, what: &'static str, name: &str, disk: &DiskSpec) -> Result<()> {
        self.run(&["snapshot", "-q", what, name, &file(disk.format, &disk.path)])
            .await
            .map(drop)
    }
}
