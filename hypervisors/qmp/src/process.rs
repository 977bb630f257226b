//! A process that is not mistaken for another one.
//!
//! A pid alone is re-used by the kernel; pid, start time and boot id together are not. Signals go through a pidfd that
//! was compared with them after it was opened. A zombie is dead: in a container nobody may reap it.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags, Signal};
use serde::{Deserialize, Serialize};
use tokio::io::unix::AsyncFd;

/// Which process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ProcessId {
    /// Its number.
    pub pid: u32,
    /// When it started, in clock ticks since boot (field 22 of `/proc/PID/stat`).
    pub start_ticks: u64,
    /// In which boot of the machine.
    pub boot_id: String,
}

/// What is read from `/proc/PID/stat`.
#[derive(Debug, PartialEq, Eq)]
struct Stat {
    state: char,
    start_ticks: u64,
}

/// The command name stands in brackets and may hold anything, brackets too: fields are counted from the last one.
fn parse_stat(text: &str) -> Option<Stat> {
    let (_, rest) = text.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace();
    let state = fields.next()?.chars().next()?;
    Some(Stat {
        state,
        start_ticks: fields.nth(18)?.parse().ok()?,
    })
}

fn stat(pid: u32) -> Option<Stat> {
    let text = std::fs::read(format!("/proc/{pid}/stat")).ok()?;
    parse_stat(&String::from_utf8_lossy(&text)).filter(|s| !matches!(s.state, 'Z' | 'X' | 'x'))
}

/// The id of this boot of the machine.
pub(crate) fn boot_id() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .unwrap_or_default()
        .trim()
        .to_owned()
}

impl ProcessId {
    /// The living process that has this pid now.
    pub(crate) fn of(pid: u32) -> Option<Self> {
        Some(Self {
            pid,
            start_ticks: stat(pid)?.start_ticks,
            boot_id: boot_id(),
        })
    }

    /// Whether exactly this process lives.
    pub(crate) fn alive(&self) -> bool {
        Self::of(self.pid).is_some_and(|now| now == *self)
    }

    /// A handle on exactly this process; `None` when it is gone.
    fn pidfd(&self) -> io::Result<Option<OwnedFd>> {
        let Some(pid) = i32::try_from(self.pid).ok().and_then(Pid::from_raw) else {
            return Ok(None);
        };
        match rustix::process::pidfd_open(pid, PidfdFlags::empty()) {
            Ok(fd) => Ok(self.alive().then_some(fd)),
            Err(rustix::io::Errno::SRCH) => Ok(None),
            Err(e) => Err(e.into()),
        }
    }

    /// Kills it. A process that is gone is no error.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub(crate) fn kill(&self) -> io::Result<()> {
        match self.pidfd()? {
            Some(fd) => match rustix::process::pidfd_send_signal(&fd, Signal::KILL) {
                Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
                Err(e) => Err(e.into()),
            },
            None => Ok(()),
        }
    }

    /// Waits until it is gone.
    pub(crate) async fn exited(&self) {
        match self.pidfd().and_then(|fd| fd.map(watch).transpose()) {
            Ok(None) => return,
            // A pidfd is readable when its process has ended.
            Ok(Some(fd)) => drop(fd.readable().await),
            Err(e) => {
                tracing::warn!(pid = self.pid, error = %e, "cannot wait on a process: looking now and then")
            }
        }
        while self.alive() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

#[expect(
    deprecated,
    reason = "deprecated for what does not own its descriptor; the successor is unsafe code"
)]
fn watch(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    AsyncFd::new(fd)
}

/// The process that works in `dir` and has `argument` on its command line: a QEMU whose start was not recorded.
pub(crate) fn find(dir: &Path, argument: &str) -> Option<ProcessId> {
    let dir = dir.canonicalize().ok()?;
    std::fs::read_dir("/proc")
        .ok()?
        .filter_map(Result::ok)
        .find_map(|entry| {
            let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
            let here = std::fs::read_link(entry.path().join("cwd")).is_ok_and(|cwd| cwd == dir);
            let command = if here {
                std::fs::read(entry.path().join("cmdline")).ok()?
            } else {
                return None;
            };
            let ours = command.split(|b| *b == 0).any(|a| a == argument.as_bytes());
            if ours { ProcessId::of(pid) } else { None }
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_name_cannot_shift_the_fields() {
        let tail = "S 1 7 7 0 -1 4194560 5254 0 36 0 1 4 0 0 20 0 5 0 202616 1588649984";
        for name in ["qemu", "a b", ") R 1 1", "(((", "\u{fffd})"] {
            assert_eq!(
                parse_stat(&format!("42 ({name}) {tail}")),
                Some(Stat {
                    state: 'S',
                    start_ticks: 202_616
                }),
                "{name}"
            );
        }
        for bad in ["", "42 (x", "42 (x) S 1 2"] {
            assert_eq!(parse_stat(bad), None);
        }
    }

    #[tokio::test]
    async fn another_process_with_the_same_pid_is_neither_alive_nor_killed() {
        let mut child = tokio::process::Command::new("/bin/cat")
            .stdin(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let real = ProcessId::of(child.id().unwrap()).unwrap();
        assert!(real.alive());
        let others = [
            ProcessId {
                start_ticks: real.start_ticks - 1,
                ..real.clone()
            },
            ProcessId {
                boot_id: "00000000-0000-0000-0000-000000000000".into(),
                ..real.clone()
            },
        ];
        for other in others {
            assert!(!other.alive());
            other.kill().unwrap();
            other.exited().await;
        }
        assert!(real.alive());
        real.kill().unwrap();
        real.exited().await;
        assert!(!real.alive(), "a zombie is dead");
        child.wait().await.unwrap();
        real.kill().unwrap();
    }
}
