//! What a [`crate::LibvirtHypervisor`] is made from.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use skyloom_model::Clock;

/// Configuration of a hypervisor.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct LibvirtConfig {
    /// Which libvirt: `qemu:///session`, `qemu:///system`, `qemu+unix:///session?socket=PATH`, `test:///default`.
    pub uri: String,
    /// The directory of the guests' console logs; made when it is not there. One hypervisor at a time may use it.
    pub dir: PathBuf,
    /// Time for the host's records.
    pub clock: Arc<dyn Clock>,
    /// As whom the libvirt daemon runs, when that is another user than this process; it must be able to enter `dir`.
    /// Needs root.
    pub daemon_user: Option<DaemonUser>,
    /// QEMU's system emulator; `None` is the one that libvirt finds.
    pub emulator: Option<PathBuf>,
    /// `qemu-img`, for disks of domains that are off.
    pub qemu_img: PathBuf,
    /// Size at which a console log is rotated. At most two files of this size (and what comes in
    /// [`Timeouts::log_check`]) are kept per domain.
    pub log_bytes: u64,
    /// Events that a listener may be behind before it is told that it lost some.
    pub event_buffer: usize,
    /// How guests go to other hosts; `None`: not at all.
    pub migration: Option<Moving>,
    /// How long to wait for what.
    pub timeouts: Timeouts,
}

/// How guests go to other hosts.
#[derive(Debug, Clone, Copy)]
pub struct Moving {
    /// Where this host waits for guests. Their memory comes as it is, from whoever connects first: a network of the
    /// hosts' own.
    pub listen: IpAddr,
    /// Bytes sent in a second, at most; at most 1 GiB.
    pub bytes_per_second: u64,
    /// For how long a guest may be held, as far as that can be told.
    pub downtime: Duration,
}

impl Moving {
    /// As fast as can be, waiting for guests at this address.
    #[must_use]
    pub const fn new(listen: IpAddr) -> Self {
        Self {
            listen,
            bytes_per_second: 1 << 30,
            downtime: Duration::from_millis(300),
        }
    }
}

/// The user of an unprivileged libvirt daemon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DaemonUser {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
}

/// How long to wait for what.
#[derive(Debug, Clone, Copy)]
pub struct Timeouts {
    /// The first connection, together with libvirt's look at the emulators that there are.
    pub connect: Duration,
    /// A call that changes a record.
    pub command: Duration,
    /// All that `inspect` may take.
    pub inspect: Duration,
    /// All that `list` and `facts` may take.
    pub list: Duration,
    /// From the order to start to a running guest.
    pub start: Duration,
    /// Forcing a guest off. libvirt asks QEMU to end, and kills it after half a minute.
    pub force: Duration,
    /// Writing a guest's memory to disk, or a snapshot of it.
    pub memory: Duration,
    /// Plugging a device in or out, the guest's part included.
    pub plug: Duration,
    /// How often the power button is pressed again while a guest does not react (early in its boot it cannot).
    pub press_again: Duration,
    /// How often the sizes of the console logs are looked at.
    pub log_check: Duration,
    /// Seconds between signs of life on a connection; it is given up after three without an answer.
    pub keep_alive: u16,
    /// Longest pause between two attempts to connect again.
    pub reconnect: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(30),
            command: Duration::from_secs(10),
            inspect: Duration::from_secs(3),
            list: Duration::from_secs(20),
            start: Duration::from_secs(60),
            force: Duration::from_secs(45),
            memory: Duration::from_secs(600),
            plug: Duration::from_secs(20),
            press_again: Duration::from_secs(3),
            log_check: Duration::from_secs(2),
            keep_alive: 5,
            reconnect: Duration::from_secs(5),
        }
    }
}

impl LibvirtConfig {
    /// A configuration for the daemon at `uri`.
    #[must_use]
    pub fn new(uri: impl Into<String>, dir: impl Into<PathBuf>, clock: Arc<dyn Clock>) -> Self {
        Self {
            uri: uri.into(),
            dir: dir.into(),
            clock,
            daemon_user: None,
            emulator: None,
            qemu_img: "/usr/bin/qemu-img".into(),
            log_bytes: 1024 * 1024,
            event_buffer: 1024,
            migration: None,
            timeouts: Timeouts::default(),
        }
    }
    /// A daemon of another user.
    #[must_use]
    pub const fn with_daemon_user(mut self, user: Option<DaemonUser>) -> Self {
        self.daemon_user = user;
        self
    }
    /// Another emulator than the one that libvirt finds.
    #[must_use]
    pub fn with_emulator(mut self, emulator: Option<PathBuf>) -> Self {
        self.emulator = emulator;
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
    /// With a way to other hosts.
    #[must_use]
    pub const fn with_migration(mut self, migration: Moving) -> Self {
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
