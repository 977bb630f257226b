//! The exam on real session daemons, one for each case.

use std::process::Command;
use std::sync::Arc;

use async_trait::async_trait;
use rustix::process::Signal;
use skyloom_hypervisor::conformance::{Exam, Guest, HostUnderExam, Offers};
use skyloom_hypervisor::{Boot, Capability, DiskSpec, Hypervisor, NicSpec, VmSpec};
use skyloom_libvirt::LibvirtHypervisor;
use skyloom_model::{DiskFormat, MacAddr, Name, NicKind, ServerId};

use crate::guest::{self, Mode};
use crate::host::{self, Host, PATIENCE};

#[derive(Debug)]
pub(crate) struct QemuExam;

/// The hypervisor is dropped first, as an agent ends before its host.
struct ExamHost {
    hypervisor: Option<Arc<LibvirtHypervisor>>,
    host: Host,
}

#[async_trait]
impl Exam for QemuExam {
    fn offers(&self) -> Offers {
        Offers {
            capability: Capability::full(),
            live_guest: true,
            lets_go: false,
            agent: false,
            guest_power_off: true,
            crash: true,
            event_bound: Some(8),
            patience: PATIENCE,
        }
    }
    async fn sit(&self) -> Box<dyn HostUnderExam> {
        let host = Host::new();
        let hypervisor = Some(Arc::new(host.open().await));
        Box::new(ExamHost { hypervisor, host })
    }
}

fn image_tool(tool: &str, args: &[&str]) {
    let done = Command::new(tool)
        .args(args)
        .output()
        .expect("qemu-utils is installed");
    assert!(
        done.status.success(),
        "{tool} {args:?}: {}",
        String::from_utf8_lossy(&done.stderr)
    );
}

#[async_trait]
impl HostUnderExam for ExamHost {
    fn hypervisor(&self) -> Arc<dyn Hypervisor> {
        self.hypervisor.clone().expect("open")
    }
    async fn spec(&self, name: Name, guest: Guest) -> VmSpec {
        let mode = if guest == Guest::Live {
            Mode::Live
        } else {
            Mode::Idle
        };
        self.host.spec(name.as_str(), mode)
    }
    async fn reopen(&mut self) {
        self.hypervisor = None;
        let opened = LibvirtHypervisor::open(self.host.config()).await;
        self.hypervisor = Some(Arc::new(opened.expect("open again")));
    }
    async fn processes(&self, id: ServerId) -> usize {
        host::qemus(id).len()
    }
    async fn power_off_guest(&self, id: ServerId) {
        guest::power_off(&self.host.path(&format!("{id}.raw")));
    }
    async fn crash_guest(&self, id: ServerId) {
        for pid in host::qemus(id) {
            host::signal(pid, Signal::KILL);
        }
    }
    fn live_text(&self) -> &str {
        guest::GREETING
    }
    async fn disk(&self, _id: ServerId, name: &str, format: DiskFormat) -> DiskSpec {
        let path = self
            .host
            .path(&format!("{}.{}", host::fresh_uuid(), format.as_str()));
        image_tool(
            "qemu-img",
            &[
                "create",
                "-q",
                "-f",
                format.as_str(),
                path.to_str().unwrap(),
                "4M",
            ],
        );
        self.host.give(&path);
        DiskSpec {
            name: name.to_owned(),
            path,
            format,
            backing_format: None,
            read_only: false,
            limits: None,
        }
    }
    async fn nic(&self, number: u8) -> NicSpec {
        NicSpec {
            kind: NicKind::User,
            mac: MacAddr::qemu([0, 0, number]),
            device: None,
        }
    }
    async fn kernel(&self, command_line: &str) -> Boot {
        let kernel = self.host.path("kernel");
        std::fs::write(&kernel, guest::tiny_kernel()).unwrap();
        self.host.give(&kernel);
        Boot::Kernel {
            kernel,
            initrd: None,
            command_line: command_line.to_owned(),
        }
    }
    async fn write(&self, _id: ServerId, disk: &DiskSpec, number: u64) {
        let sector = self.host.path("sector");
        let mut bytes = number.to_be_bytes().to_vec();
        bytes.resize(512, 0);
        std::fs::write(&sector, bytes).unwrap();
        let write = format!("write -q -s {} 0 512", sector.display());
        image_tool(
            "qemu-io",
            &["-f", "qcow2", "-c", &write, disk.path.to_str().unwrap()],
        );
    }
    async fn read(&self, _id: ServerId, disk: &DiskSpec) -> u64 {
        let raw = self.host.path("read.raw");
        let (from, to) = (disk.path.to_str().unwrap(), raw.to_str().unwrap());
        image_tool("qemu-img", &["convert", "-f", "qcow2", "-O", "raw", from, to]);
        let bytes = std::fs::read(&raw).unwrap();
        u64::from_be_bytes(bytes[..8].try_into().unwrap())
    }
    async fn bytes(&self, _id: ServerId, disk: &DiskSpec) -> u64 {
        if disk.format == DiskFormat::Raw {
            return std::fs::metadata(&disk.path).unwrap().len();
        }
        let head = std::fs::read(&disk.path).unwrap();
        u64::from_be_bytes(head[24..32].try_into().unwrap())
    }
    async fn holds(&self, id: ServerId, disk: &DiskSpec) -> bool {
        host::qemus(id).into_iter().any(|pid| {
            let files = std::fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten();
            files
                .filter_map(|fd| std::fs::read_link(fd.ok()?.path()).ok())
                .any(|file| file == disk.path)
        })
    }
}
