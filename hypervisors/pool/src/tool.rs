//! `qemu-img`: the only tool that the pool runs, on files whose format we name.
//!
//! No shell, no environment, no probing: a source is a JSON description that names the driver of each file of its chain. The
//! tool runs as the owner of disks, in bounded memory, and ends with its caller.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Resource, Rlimit};
use serde_json::{Value, json};
use skyloom_hypervisor::{Error, ErrorKind, Result};
use skyloom_model::DiskFormat;
use tokio::io::AsyncReadExt;
use tokio::process::Command;

use crate::pool::Owner;

/// Memory that it may map.
const ADDRESS_SPACE: u64 = 2 << 30;
/// Bytes of its complaint that are kept.
const COMPLAINT: u64 = 2000;
/// Copies of large disks take long; nothing takes longer than this.
const PATIENCE: Duration = Duration::from_secs(6 * 3600);

/// A file that it reads, with the chain below.
#[derive(Debug, Clone)]
pub(crate) struct Source {
    pub(crate) path: PathBuf,
    pub(crate) format: DiskFormat,
    /// The file below an overlay. Nothing lies below that.
    pub(crate) backing: Option<(PathBuf, DiskFormat)>,
}

impl Source {
    fn text(path: &Path) -> io::Result<&str> {
        path.to_str()
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "the pool's path is no UTF-8"))
    }

    /// As QEMU reads it after `json:`.
    fn describe(&self) -> io::Result<String> {
        let file = |path: &Path| io::Result::Ok(json!({ "driver": "file", "filename": Self::text(path)? }));
        let mut node = json!({ "driver": self.format.as_str(), "file": file(&self.path)? });
        if self.format == DiskFormat::Qcow2 {
            node["backing"] = match &self.backing {
                Some((path, DiskFormat::Qcow2)) => {
                    json!({ "driver": "qcow2", "file": file(path)?, "backing": Value::Null })
                }
                Some((path, format)) => json!({ "driver": format.as_str(), "file": file(path)? }),
                None => Value::Null,
            };
        }
        Ok(format!("json:{node}"))
    }
}

/// Runs it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tool {
    pub(crate) owner: Option<Owner>,
}

impl Tool {
    /// Copies what `source` holds, or held in a snapshot, into the empty file `target`, which is as large or larger.
    pub(crate) async fn copy(
        self,
        source: &Source,
        snapshot: Option<&str>,
        target: &Path,
        format: DiskFormat,
    ) -> Result<()> {
        let operation = "copy disk";
        let described = source
            .describe()
            .map_err(|e| refused(operation, &e.to_string()))?;
        // The target is new, made by us, and reads as zeroes.
        let mut arguments: Vec<OsString> = ["convert", "-n", "--target-is-zero", "-O", format.as_str()]
            .map(OsString::from)
            .into();
        if let Some(snapshot) = snapshot {
            // A snapshot does not change while a guest writes to the disk.
            arguments.extend(["-U", "-l"].map(OsString::from));
            arguments.push(format!("snapshot.name={snapshot}").into());
        }
        arguments.extend([described.into(), target.as_os_str().to_owned()]);
        self.run(operation, arguments).await
    }

    pub(crate) async fn resize(self, path: &Path, format: DiskFormat, bytes: u64) -> Result<()> {
        let mut arguments: Vec<OsString> = ["resize", "-q", "-f", format.as_str()].map(OsString::from).into();
        arguments.extend([path.as_os_str().to_owned(), bytes.to_string().into()]);
        self.run("grow volume", arguments).await
    }

    /// `-c`, `-a` or `-d` with a snapshot of a qcow2 file that stands alone.
    pub(crate) async fn snapshot(
        self,
        operation: &'static str,
        verb: &'static str,
        snapshot: &str,
        path: &Path,
    ) -> Result<()> {
        let source = Source {
            path: path.to_owned(),
            format: DiskFormat::Qcow2,
            backing: None,
        };
        let described = source
            .describe()
            .map_err(|e| refused(operation, &e.to_string()))?;
        let arguments = ["snapshot", "-q", verb, snapshot, &described].map(OsString::from);
        self.run(operation, arguments.into()).await
    }

    async fn run(self, operation: &'static str, arguments: Vec<OsString>) -> Result<()> {
        let mut command = Command::new("qemu-img");
        command
            .args(&arguments)
            .env_clear()
            .env("PATH", "/usr/local/bin:/usr/bin:/bin")
            .env("LC_ALL", "C")
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        if let Some(owner) = self.owner {
            command.uid(owner.uid).gid(owner.gid);
        }
        let unavailable = |e: io::Error| {
            Error::new(ErrorKind::Unavailable, operation)
                .with("tool", "qemu-img")
                .because(e)
        };
        let mut child = command.spawn().map_err(unavailable)?;
        bound(child.id());
        let mut complaint = Vec::new();
        let stderr = child.stderr.take();
        let work = async {
            if let Some(stderr) = stderr {
                stderr.take(COMPLAINT).read_to_end(&mut complaint).await?;
            }
            child.wait().await
        };
        let status = tokio::time::timeout(PATIENCE, work)
            .await
            .map_err(|_| Error::new(ErrorKind::Timeout, operation).with("tool", "qemu-img"))?
            .map_err(unavailable)?;
        if status.success() {
            return Ok(());
        }
        Err(refused(operation, String::from_utf8_lossy(&complaint).trim()))
    }
}

/// Keeps it from taking all memory and from writing a core file. It has hardly begun.
fn bound(pid: Option<u32>) {
    let Some(pid) = pid.and_then(|p| i32::try_from(p).ok()).and_then(Pid::from_raw) else {
        return;
    };
    for (resource, most) in [(Resource::As, ADDRESS_SPACE), (Resource::Core, 0)] {
        let limit = Rlimit {
            current: Some(most),
            maximum: Some(most),
        };
        if let Err(error) = rustix::process::prlimit(Some(pid), resource, limit) {
            tracing::debug!(%error, "qemu-img has ended before it was bounded");
        }
    }
}

fn refused(operation: &'static str, complaint: &str) -> Error {
    let kind = if complaint.contains("No space left") {
        ErrorKind::Full
    } else if complaint.contains("Failed to get") && complaint.contains("lock") {
        // Somebody has it open: this passes.
        ErrorKind::Unavailable
    } else {
        ErrorKind::Refused
    };
    Error::new(kind, operation).with("qemu-img", format!("{complaint:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_cannot_become_an_option() {
        let source = Source {
            path: "/pool/a\",\"driver\":\"nbd".into(),
            format: DiskFormat::Qcow2,
            backing: Some(("/pool/b,c=d".into(), DiskFormat::Raw)),
        };
        let described = source.describe().unwrap();
        let node: Value = serde_json::from_str(described.strip_prefix("json:").unwrap()).unwrap();
        assert_eq!(
            node,
            json!({
                "driver": "qcow2",
                "file": { "driver": "file", "filename": "/pool/a\",\"driver\":\"nbd" },
                "backing": { "driver": "raw", "file": { "driver": "file", "filename": "/pool/b,c=d" } },
            })
        );
    }

    #[test]
    fn nothing_lies_below_what_stands_alone() {
        let source = Source {
            path: "/pool/a".into(),
            format: DiskFormat::Qcow2,
            backing: None,
        };
        assert!(source.describe().unwrap().contains("\"backing\":null"));
    }
}
