//! A libvirt host of its own: an unprivileged session daemon in a temporary directory, and what tests look at without
//! asking the hypervisor.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rustix::process::{Pid, Signal};
use skyloom_hypervisor::{Boot, DiskSpec, Hypervisor, VmSpec};
use skyloom_libvirt::{DaemonUser, LibvirtConfig, LibvirtHypervisor, Timeouts};
use skyloom_model::{DiskFormat, Name, ProjectId, ServerId, SystemClock};
use tempfile::TempDir;

use crate::guest::{Mode, tiny_disk};

/// How long anything may take on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(90);

const NOBODY: DaemonUser = DaemonUser {
    uid: 65534,
    gid: 65534,
};

/// Dropped, it leaves neither process nor file behind.
#[derive(Debug)]
pub(crate) struct Host {
    pub(crate) temp: TempDir,
    daemon: Mutex<Option<Child>>,
}

impl Drop for Host {
    fn drop(&mut self) {
        self.kill_daemon();
        self.give_capabilities();
        let root = self.temp.path().to_owned();
        for _ in 0..1_000 {
            let alive = pids(|p| cmdline(p).iter().any(|a| a.contains(&*root.to_string_lossy())));
            for pid in &alive {
                signal(*pid, Signal::KILL);
            }
            if alive.is_empty() && (fs::remove_dir_all(&root).is_ok() || !root.exists()) {
                return;
            }
            pause(10);
        }
        assert!(
            std::thread::panicking(),
            "{} cannot be left clean",
            root.display()
        );
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "waits for other processes, and neither drop nor a blocking start can await"
)]
fn pause(millis: u64) {
    std::thread::sleep(Duration::from_millis(millis));
}

#[allow(dead_code, reason = "not every test program uses it")]
impl Host {
    /// A host with a running daemon.
    pub(crate) fn new() -> Self {
        let host = Self {
            temp: tempfile::tempdir().unwrap(),
            daemon: Mutex::new(None),
        };
        fs::set_permissions(host.path(""), Permissions::from_mode(0o711)).unwrap();
        for dir in [
            "lv",
            "lv/run",
            "lv/cfg",
            "lv/cfg/libvirt",
            "lv/data",
            "lv/tmp",
            CACHE,
        ] {
            fs::create_dir_all(host.path(dir)).unwrap();
        }
        let uuid = fresh_uuid();
        let conf = format!("listen_tls = 0\nauth_unix_rw = \"none\"\nhost_uuid = \"{uuid}\"\n");
        fs::write(host.path("lv/libvirtd.conf"), conf).unwrap();
        let qemu = "security_driver = \"none\"\ncgroup_controllers = []\nnamespaces = []\nstdio_handler = \"file\"\nremember_owner = 0\n";
        fs::write(host.path("lv/cfg/libvirt/qemu.conf"), qemu).unwrap();
        if let Ok(known) = fs::read_dir(capabilities()) {
            for file in known.map(|f| f.unwrap()) {
                if file.path().extension().is_some_and(|e| e == "xml") {
                    // Without, the daemon finds out itself.
                    let _ = fs::copy(file.path(), host.path(CACHE).join(file.file_name()));
                }
            }
        }
        host.give(&host.path("lv"));
        host.start_daemon();
        host
    }

    pub(crate) fn path(&self, below: &str) -> PathBuf {
        self.temp.path().join(below)
    }

    /// As whom the daemon runs: never as root.
    pub(crate) fn daemon_user() -> Option<DaemonUser> {
        rustix::process::getuid().is_root().then_some(NOBODY)
    }

    /// Gives what is there to the daemon's user.
    pub(crate) fn give(&self, path: &Path) {
        let Some(user) = Self::daemon_user() else { return };
        chown(path, Some(user.uid), Some(user.gid)).unwrap();
        if path.is_dir() {
            for entry in fs::read_dir(path).unwrap() {
                self.give(&entry.unwrap().path());
            }
        }
    }

    pub(crate) fn start_daemon(&self) {
        let env = [
            ("PATH", "/usr/sbin:/usr/bin:/sbin:/bin".to_owned()),
            ("HOME", self.path("lv").display().to_string()),
            ("XDG_RUNTIME_DIR", self.path("lv/run").display().to_string()),
            ("XDG_CONFIG_HOME", self.path("lv/cfg").display().to_string()),
            ("XDG_CACHE_HOME", self.path("lv/cache").display().to_string()),
            ("XDG_DATA_HOME", self.path("lv/data").display().to_string()),
            ("TMPDIR", self.path("lv/tmp").display().to_string()),
        ];
        let mut command = match Self::daemon_user() {
            Some(user) => {
                let mut command = Command::new("setpriv");
                command
                    .arg(format!("--reuid={}", user.uid))
                    .arg(format!("--regid={}", user.gid))
                    .args(["--clear-groups", "libvirtd"]);
                command
            }
            None => Command::new("libvirtd"),
        };
        let log = fs::File::options()
            .create(true)
            .append(true)
            .open(self.path("libvirtd.log"))
            .unwrap();
        let _ = fs::remove_file(self.socket());
        let mut child = command
            .arg("-f")
            .arg(self.path("lv/libvirtd.conf"))
            .arg("-p")
            .arg(self.path("lv/run/libvirtd.pid"))
            .env_clear()
            .envs(env)
            .current_dir(self.path("lv"))
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .process_group(0)
            .spawn()
            .expect("libvirtd (and setpriv) are installed");
        for _ in 0..6_000 {
            if std::os::unix::net::UnixStream::connect(self.socket()).is_ok() {
                *self.daemon.lock() = Some(child);
                return;
            }
            if let Some(status) = child.try_wait().unwrap() {
                panic!("libvirtd ends: {status}: {}", self.daemon_log());
            }
            pause(10);
        }
        panic!("libvirtd does not listen: {}", self.daemon_log());
    }

    pub(crate) fn daemon_log(&self) -> String {
        fs::read_to_string(self.path("libvirtd.log")).unwrap_or_default()
    }

    fn socket(&self) -> PathBuf {
        self.path("lv/run/libvirt/libvirt-sock")
    }

    /// Kills the daemon as a crash would. Guests run on.
    pub(crate) fn kill_daemon(&self) {
        if let Some(mut child) = self.daemon.lock().take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    pub(crate) fn signal_daemon(&self, what: Signal) {
        signal(self.daemon.lock().as_ref().unwrap().id(), what);
    }

    /// Keeps what this daemon has found out about the emulators for the next ones: that takes it seconds.
    fn give_capabilities(&self) {
        let Ok(found) = fs::read_dir(self.path(CACHE)) else {
            return;
        };
        fs::create_dir_all(capabilities()).unwrap();
        for file in found.filter_map(Result::ok) {
            let kept = capabilities().join(file.file_name());
            let part = capabilities().join(format!("{}.part", fresh_uuid()));
            if !kept.exists() && fs::copy(file.path(), &part).is_ok() {
                fs::rename(part, kept).unwrap();
            }
        }
    }

    pub(crate) fn uri(&self) -> String {
        format!("qemu+unix:///session?socket={}", self.socket().display())
    }

    pub(crate) fn config(&self) -> LibvirtConfig {
        LibvirtConfig::new(self.uri(), self.path("logs"), Arc::new(SystemClock::new()))
            .with_daemon_user(Self::daemon_user())
            .with_event_buffer(8)
    }
    pub(crate) async fn open(&self) -> LibvirtHypervisor {
        self.open_with(self.config()).await
    }
    /// Opens and recovers.
    pub(crate) async fn open_with(&self, config: LibvirtConfig) -> LibvirtHypervisor {
        let hypervisor = LibvirtHypervisor::open(config).await.unwrap();
        hypervisor.recover().await.unwrap();
        hypervisor
    }

    /// A small domain with a tiny guest; its disk exists.
    pub(crate) fn spec(&self, name: &str, mode: Mode) -> VmSpec {
        let id = ServerId::from_uuid(fresh_uuid());
        let path = self.path(&format!("{id}.raw"));
        fs::write(&path, tiny_disk(mode)).unwrap();
        self.give(&path);
        spec_on(id, name, path)
    }
}

/// A domain that boots from a raw disk.
pub(crate) fn spec_on(id: ServerId, name: &str, path: PathBuf) -> VmSpec {
    VmSpec {
        id,
        project: ProjectId::from_uuid(fresh_uuid()),
        generation: 1,
        name: Name::new(name).unwrap(),
        vcpus: 1,
        memory_mib: 16,
        disks: vec![DiskSpec {
            limits: None,
            name: "root".into(),
            path,
            format: DiskFormat::Raw,
            backing_format: None,
            read_only: false,
        }],
        nics: vec![],
        boot: Boot::FirstDisk,
    }
}

const CACHE: &str = "lv/cache/libvirt/qemu/cache/capabilities";

fn capabilities() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("libvirt-capabilities")
}

#[allow(dead_code, reason = "not every test program uses it")]
pub(crate) fn quick() -> Timeouts {
    Timeouts {
        command: Duration::from_secs(3),
        inspect: Duration::from_secs(2),
        keep_alive: 1,
        reconnect: Duration::from_millis(200),
        log_check: Duration::from_millis(20),
        ..Timeouts::default()
    }
}

/// The QEMU processes of a domain.
pub(crate) fn qemus(id: ServerId) -> Vec<u32> {
    let id = id.to_string();
    pids(|p| {
        let alive = fs::read_to_string(p.join("stat"))
            .is_ok_and(|s| !s.rsplit(')').next().unwrap_or("").starts_with(" Z"));
        alive && cmdline(p).windows(2).any(|two| two[0] == "-uuid" && two[1] == id)
    })
}

/// The arguments of a process.
pub(crate) fn cmdline(proc: &Path) -> Vec<String> {
    let bytes = fs::read(proc.join("cmdline")).unwrap_or_default();
    bytes
        .split(|b| *b == 0)
        .map(|a| String::from_utf8_lossy(a).into_owned())
        .collect()
}

fn pids(wanted: impl Fn(&Path) -> bool) -> Vec<u32> {
    let entries = fs::read_dir("/proc").unwrap().filter_map(Result::ok);
    let numbers = entries.filter_map(|e| Some((e.file_name().to_str()?.parse().ok()?, e.path())));
    let me = std::process::id();
    numbers
        .filter(|(pid, path)| *pid != me && wanted(path))
        .map(|(pid, _)| pid)
        .collect()
}

pub(crate) fn signal(pid: u32, signal: Signal) {
    let _ = rustix::process::kill_process(Pid::from_raw(pid as i32).unwrap(), signal);
}

#[expect(
    clippy::disallowed_methods,
    reason = "tests run side by side: their ids must differ"
)]
pub(crate) fn fresh_uuid() -> uuid::Uuid {
    uuid::Uuid::new_v4()
}

/// Looks again and again at something outside of this process until it is as wanted.
#[allow(dead_code, reason = "not every test program uses it")]
pub(crate) async fn until<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let looking = async {
        loop {
            if let Some(found) = look().await {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, looking)
        .await
        .unwrap_or_else(|_| panic!("never: {what}"))
}
