//! What this host offers.

use std::io;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use skyloom_hypervisor::{Error, ErrorKind, Result};
use skyloom_model::{HostFacts, Resources};
use tokio::process::Command;

use crate::accel;

/// Asks the emulator for its version: also the check that there is one.
pub(crate) async fn qemu_version(qemu: &Path) -> Result<String> {
    let error = |kind| Error::new(kind, "ask QEMU for its version").with("program", qemu.display());
    let mut command = Command::new(qemu);
    command
        .arg("-version")
        .stdin(Stdio::null())
        .env_clear()
        .kill_on_drop(true);
    let output = tokio::time::timeout(Duration::from_secs(20), command.output()).await;
    let output = output.map_err(|_| error(ErrorKind::Timeout))?;
    let output = output.map_err(|e| match e.kind() {
        io::ErrorKind::NotFound => error(ErrorKind::NotFound).because(e),
        _ => error(ErrorKind::Unavailable).because(e),
    })?;
    parse_version(&String::from_utf8_lossy(&output.stdout)).ok_or_else(|| error(ErrorKind::Unsupported))
}

fn parse_version(text: &str) -> Option<String> {
    let version = text
        .lines()
        .next()?
        .strip_prefix("QEMU emulator version ")?
        .split_ascii_whitespace()
        .next()?;
    version
        .starts_with(|c: char| c.is_ascii_digit())
        .then(|| version.to_owned())
}

/// Measures CPUs, memory and the size of the file system of `dir`.
pub(crate) fn measure(dir: &Path, hypervisor_version: String) -> io::Result<HostFacts> {
    let accelerator = accel::probe();
    let cpus = std::thread::available_parallelism()?.get();
    let memory_mib = total_mib(&std::fs::read_to_string("/proc/meminfo")?)
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "/proc/meminfo has no MemTotal"))?;
    let disk = rustix::fs::statvfs(dir)?;
    Ok(HostFacts {
        capacity: Resources {
            vcpus: u32::try_from(cpus).unwrap_or(u32::MAX),
            memory_mib,
            disk_gib: disk.f_blocks.saturating_mul(disk.f_frsize) >> 30,
        },
        architecture: std::env::consts::ARCH.to_owned(),
        hypervisor: "qmp".to_owned(),
        hypervisor_version,
        accelerator: accelerator.kind.as_str().to_owned(),
        accelerator_reason: accelerator.reason,
        traits: Vec::new(),
    })
}

fn total_mib(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|l| l.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib / 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_and_memory_are_read() {
        let debian = "QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7)\nCopyright (c)";
        assert_eq!(parse_version(debian), Some("7.2.22".into()));
        assert_eq!(parse_version("QEMU emulator version 9.1.0"), Some("9.1.0".into()));
        assert_eq!(parse_version("hello"), None);
        assert_eq!(
            total_mib("MemTotal:       24609832 kB\nMemFree: 1 kB"),
            Some(24033)
        );
        assert_eq!(total_mib("MemFree: 1 kB"), None);
    }
}
