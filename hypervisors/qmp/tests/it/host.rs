//! A host in a temporary directory, and what tests look at without asking the hypervisor.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Pid, Signal};
use skyloom_hypervisor::{DiskSpec, Hypervisor, VmSpec};
use skyloom_model::{DiskFormat, Name, ProjectId, ServerId, SystemClock};
use skyloom_qmp::{QmpConfig, QmpHypervisor, Timeouts};
use tempfile::TempDir;

use crate::guest::{Mode, tiny_disk};

/// How long anything may take on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Dropped, it leaves neither process nor file behind.
#[derive(Debug)]
pub(crate) struct Host {
    pub(crate) temp: TempDir,
}

impl Drop for Host {
    fn drop(&mut self) {
        let root = self.temp.path();
        // A dropped hypervisor may be in the middle of writing a file, and a killed process takes a while to end.
        for _ in 0..1_000 {
            let alive = pids(|p| fs::read_link(p.join("cwd")).is_ok_and(|cwd| cwd.starts_with(root)));
            for pid in &alive {
                signal(*pid, Signal::KILL);
            }
            if alive.is_empty() && (fs::remove_dir_all(root).is_ok() || !root.exists()) {
                return;
            }
            #[expect(
                clippy::disallowed_methods,
                reason = "waits for other processes, and drop cannot await"
            )]
            std::thread::sleep(Duration::from_millis(10));
        }
        assert!(
            std::thread::panicking(),
            "{} cannot be left clean",
            root.display()
        );
    }
}

#[allow(dead_code, reason = "not every test program uses it")]
impl Host {
    pub(crate) fn new() -> Self {
        Self {
            temp: tempfile::tempdir().unwrap(),
        }
    }
    pub(crate) fn config(&self) -> QmpConfig {
        QmpConfig::new(self.temp.path().join("vms"), Arc::new(SystemClock::new())).with_event_buffer(8)
    }
    pub(crate) async fn open(&self) -> QmpHypervisor {
        self.open_with(self.config()).await
    }
    /// Opens and recovers.
    pub(crate) async fn open_with(&self, config: QmpConfig) -> QmpHypervisor {
        let hypervisor = QmpHypervisor::open(config).await.unwrap();
        hypervisor.recover().await.unwrap();
        hypervisor
    }
    /// A small domain with a tiny guest; its disk exists.
    pub(crate) fn spec(&self, name: &str, mode: Mode) -> VmSpec {
        let id = ServerId::from_uuid(fresh_uuid());
        let path = self.temp.path().join(format!("{id}.raw"));
        fs::write(&path, tiny_disk(mode)).unwrap();
        VmSpec {
            boot: skyloom_hypervisor::Boot::FirstDisk,
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
        }
    }
    /// A new, empty disk of 1 MiB.
    pub(crate) fn disk(&self, name: &str, format: DiskFormat) -> DiskSpec {
        let path = self
            .temp
            .path()
            .join(format!("{}.{}", fresh_uuid(), format.as_str()));
        img(&[
            "create",
            "-q",
            "-f",
            format.as_str(),
            path.to_str().unwrap(),
            "1M",
        ]);
        DiskSpec {
            limits: None,
            name: name.to_owned(),
            path,
            format,
            backing_format: None,
            read_only: false,
        }
    }
    pub(crate) fn vm_dir(&self, id: ServerId) -> PathBuf {
        self.temp.path().join("vms").join(id.to_string())
    }
    pub(crate) fn live(&self, id: ServerId) -> serde_json::Value {
        serde_json::from_slice(&fs::read(self.vm_dir(id).join("live.json")).unwrap()).unwrap()
    }
    pub(crate) fn set_live(&self, id: ServerId, live: &serde_json::Value) {
        fs::write(self.vm_dir(id).join("live.json"), live.to_string()).unwrap();
    }
}

/// Runs `qemu-img`; what it says.
#[allow(dead_code, reason = "not every test program uses it")]
pub(crate) fn img(args: &[&str]) -> Vec<u8> {
    let output = std::process::Command::new("qemu-img")
        .args(args)
        .output()
        .unwrap();
    let words = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "qemu-img {args:?}: {words}");
    output.stdout
}

/// What qemu-img says of a disk, also of one that is in use.
#[allow(dead_code, reason = "not every test program uses it")]
pub(crate) fn img_info(disk: &DiskSpec) -> serde_json::Value {
    let path = disk.path.to_str().unwrap();
    serde_json::from_slice(&img(&[
        "info",
        "-U",
        "--output=json",
        "-f",
        disk.format.as_str(),
        path,
    ]))
    .unwrap()
}

/// The bytes that a disk's guest sees, of one that is off.
#[allow(dead_code, reason = "not every test program uses it")]
pub(crate) fn content(host: &Host, disk: &DiskSpec) -> Vec<u8> {
    let raw = host.temp.path().join(format!("{}.content", fresh_uuid()));
    let (from, to) = (disk.path.to_str().unwrap(), raw.to_str().unwrap());
    img(&["convert", "-f", disk.format.as_str(), "-O", "raw", from, to]);
    let bytes = fs::read(&raw).unwrap();
    fs::remove_file(raw).unwrap();
    bytes
}

/// Fills the first sector of a disk that is off.
#[allow(dead_code, reason = "not every test program uses it")]
pub(crate) fn fill(disk: &DiskSpec, byte: u8) {
    let wanted = format!("write -q -P {byte} 0 512");
    let path = disk.path.to_str().unwrap();
    let args = ["-f", disk.format.as_str(), "-c", &wanted, path];
    let done = std::process::Command::new("qemu-io").args(args).status().unwrap();
    assert!(done.success());
}

/// Whether one of the domain's QEMU processes has the file open.
#[allow(dead_code, reason = "not every test program uses it")]
pub(crate) fn holds(id: ServerId, file: &Path) -> bool {
    qemus(id).into_iter().any(|pid| {
        let open = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten();
        open.filter_map(Result::ok)
            .any(|fd| fs::read_link(fd.path()).is_ok_and(|to| to == file))
    })
}

#[allow(dead_code, reason = "not every test program uses it")]
pub(crate) fn quick() -> Timeouts {
    Timeouts {
        connect: Duration::from_millis(500),
        command: Duration::from_secs(1),
        inspect: Duration::from_secs(2),
        quit: Duration::from_secs(2),
        log_check: Duration::from_millis(20),
        unplug: Duration::from_secs(2),
        agent: Duration::from_secs(1),
        ..Timeouts::default()
    }
}

/// The QEMU processes of a domain.
pub(crate) fn qemus(id: ServerId) -> Vec<u32> {
    let id = id.to_string();
    pids(|p| exists(p) && cmdline(p).windows(2).any(|two| two[0] == "-uuid" && two[1] == id))
}

/// Whether a process runs, or is on its way to its end. Its folder and its arguments go before it does.
pub(crate) fn exists(proc: &Path) -> bool {
    let stat = fs::read_to_string(proc.join("stat"));
    stat.is_ok_and(|s| !s.rsplit(')').next().unwrap_or("").starts_with(" Z"))
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
    numbers
        .filter(|(_, path)| wanted(path))
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
