//! What a [`crate::QmpHypervisor`] is made from.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use skyloom_model::Clock;

/// Configuration of a hypervisor.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct QmpConfig {
    /// The directory of all domains; made when it is not there. One hypervisor at a time may use it.
    pub dir: PathBuf,
    /// Time for records.
    pub clock: Arc<dyn Clock>,
    /// QEMU's system emulator.
    pub qemu: PathBuf,
    /// `qemu-img`: sizes and snapshots of disks whose domain is off.
    pub qemu_img: PathBuf,
    /// `setsid` of util-linux: gives each QEMU a session of its own.
    pub setsid: PathBuf,
    /// As whom QEMU runs; `None` is as this process does. Needs root.
    pub run_as: Option<RunAs>,
    /// Size at which a log is rotated. At most two files of this size (and what comes in [`Timeouts::log_check`]) are
    /// kept per domain.
    pub log_bytes: u64,
    /// Events that a listener may be behind before it is told that it lost some.
    pub event_buffer: usize,
    /// How guests come and go with their memory; `None`: they do not.
    pub migration: Option<MigrationConfig>,
    /// How long to wait for what.
    pub timeouts: Timeouts,
}

/// How guests come from other hosts and go there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct MigrationConfig {
    /// Where other hosts' drivers reach this one, as they are told: an address and a port of this host. Neither they nor
    /// the memory are encrypted or authenticated: this is to be a network of hosts only, such as WireGuard's.
    pub listen: SocketAddr,
    /// Bytes of memory that are sent in a second at most, for each guest.
    pub bytes_per_second: u64,
    /// For how long a guest may be held for its last pass, as QEMU expects it.
    pub downtime: Duration,
}

impl MigrationConfig {
    /// As fast as it goes, and 300 ms.
    #[must_use]
    pub const fn new(listen: SocketAddr) -> Self {
        Self {
            listen,
            bytes_per_second: 1 << 40,
            downtime: Duration::from_millis(300),
        }
    }
    /// At most so many bytes a second.
    #[must_use]
    pub const fn with_bytes_per_second(mut self, bytes: u64) -> Self {
        self.bytes_per_second = bytes;
        self
    }
    /// Another time for the last pass.
    #[must_use]
    pub const fn with_downtime(mut self, downtime: Duration) -> Self {
        self.downtime = downtime;
        self
    }
}

/// An unprivileged user for QEMU processes. Its group must be able to open `/dev/kvm` where KVM is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RunAs {
    /// User id.
    pub uid: u32,
    /// Group id; no other groups are kept.
    pub gid: u32,
}

/// How long to wait for what.
#[derive(Debug, Clone, Copy)]
pub struct Timeouts {
    /// Greeting of a monitor.
    pub connect: Duration,
    /// Answer to a monitor command.
    pub command: Duration,
    /// All that `inspect` may take.
    pub inspect: Duration,
    /// From a QEMU's start to its monitor's greeting.
    pub start: Duration,
    /// Time for QEMU to end by itself when told to, before it is killed.
    pub quit: Duration,
    /// Time for a killed process to be gone.
    pub kill: Duration,
    /// Writing or reading a guest's memory, or a snapshot.
    pub memory: Duration,
    /// Time for a guest to let go of a device.
    pub unplug: Duration,
    /// Time for the agent in a guest to answer.
    pub agent: Duration,
    /// How often the power button is pressed again while a guest does not react (early in its boot it cannot).
    pub press_again: Duration,
    /// How often the sizes of the logs are looked at.
    pub log_check: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(2),
            command: Duration::from_secs(5),
            inspect: Duration::from_secs(3),
            start: Duration::from_secs(30),
            quit: Duration::from_secs(5),
            kill: Duration::from_secs(10),
            memory: Duration::from_secs(600),
            unplug: Duration::from_secs(15),
            agent: Duration::from_secs(3),
            press_again: Duration::from_secs(3),
            log_check: Duration::from_secs(2),
        }
    }
}

impl QmpConfig {
    /// A configuration with Debian's paths.
    #[must_use]
    pub fn new(dir: impl Into<PathBuf>, clock: Arc<dyn Clock>) -> Self {
        Self {
            dir: dir.into(),
            clock,
            qemu: "/usr/bin/qemu-system-x86_64".into(),
            qemu_img: "/usr/bin/qemu-img".into(),
            setsid: "/usr/bin/setsid".into(),
            run_as: None,
            log_bytes: 1024 * 1024,
            event_buffer: 1024,
            migration: None,
            timeouts: Timeouts::default(),
        }
    }
    /// Another emulator.
    #[must_use]
    pub fn with_qemu(mut self, qemu: impl Into<PathBuf>) -> Self {
        self.qemu = qemu.into();
        self
    }
    /// QEMU as another user.
    #[must_use]
    pub const fn with_run_as(mut self, run_as: Option<RunAs>) -> Self {
        self.run_as = run_as;
        self
    }
    /// Another size of logs.
    #[must_use]
    pub const fn with_log_bytes(mut self, bytes: u64) -> Self {
        self.log_bytes = bytes;
        self
    }
    /// Another buffer of events; not 0.
    #[must_use]
    pub const fn with_event_buffer(mut self, events: usize) -> Self {
        self.event_buffer = events;
        self
    }
    /// Guests come and go with their memory.
    #[must_use]
    pub const fn with_migration(mut self, migration: MigrationConfig) -> Self {
        self.migration = Some(migration);
        self
    }
    /// Other timeouts.
    #[must_use]
    pub const fn with_timeouts(mut self, timeouts: Timeouts) -> Self {
        self.timeouts = timeouts;
        self
    }
}
