//! The exam of migrations, on two real session daemons that see the same disks.

use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use rustix::process::Signal;
use skyloom_hypervisor::conformance::{MigrationExam, PairUnderExam, Side};
use skyloom_hypervisor::{Hypervisor, VmSpec};
use skyloom_libvirt::{LibvirtConfig, LibvirtHypervisor, Moving};
use skyloom_model::ServerId;
use virt::connect::Connect;
use virt::domain::Domain;

use crate::host::{self, Host, PATIENCE};

/// Slow enough that a guest can write faster.
const BYTES_PER_SECOND: u64 = 1 << 20;
/// Where the guest keeps its number.
const NUMBER: &str = "xp /1bx 0x7e00";

/// The guest's code, for 0x7c00. In outline:
///
/// ```text
///        registers and stack; sti
/// poll:  int 13h: read sector 2 to 0x9000; starts with "RM" -> its third byte goes to 0x7e00
///        mode 'B' (at 0x7df0) -> busy
///        hlt; -> poll
/// busy:  8192 times: increment a word of each page from 0x10000 to 0x80000; -> poll
/// ```
const CODE: [u8; 92] = [
    0xfa, 0x31, 0xc0, 0x8e, 0xd8, 0x8e, 0xc0, 0x8e, 0xd0, 0xbc, 0x00, 0x7c, 0x88, 0x16, 0xf1, 0x7d, 0xfb,
    0xb8, 0x01, 0x02, 0xb9, 0x02, 0x00, 0x30, 0xf6, 0x8a, 0x16, 0xf1, 0x7d, 0xbb, 0x00, 0x90, 0xcd, 0x13,
    0x72, 0x0e, 0x81, 0x3e, 0x00, 0x90, 0x52, 0x4d, 0x75, 0x06, 0xa0, 0x02, 0x90, 0xa2, 0x00, 0x7e, 0x80,
    0x3e, 0xf0, 0x7d, 0x42, 0x74, 0x03, 0xf4, 0xeb, 0xd5, 0xbe, 0x00, 0x20, 0xbb, 0x00, 0x10, 0x8e, 0xc3,
    0x26, 0xff, 0x06, 0x00, 0x00, 0x81, 0xc3, 0x00, 0x01, 0x81, 0xfb, 0x00, 0x80, 0x72, 0xef, 0x4e, 0x75,
    0xe9, 0x31, 0xc0, 0x8e, 0xc0, 0xeb, 0xb5,
];

/// The bytes of the guest's raw disk.
fn disk(busy: bool) -> Vec<u8> {
    let mut disk = vec![0; 1 << 20];
    disk[..CODE.len()].copy_from_slice(&CODE);
    disk[0x1f0] = if busy { b'B' } else { b'I' };
    disk[510..512].copy_from_slice(&[0x55, 0xaa]);
    disk
}

fn order(disk: &Path, order: [u8; 3]) {
    let mut file = File::options().write(true).open(disk).unwrap();
    file.seek(SeekFrom::Start(512)).unwrap();
    file.write_all(&order).unwrap();
    file.sync_all().unwrap();
}

#[derive(Debug)]
pub(crate) struct QemuMigrationExam;

/// Hypervisors are dropped first, as agents end before their hosts.
struct Pair {
    opened: Option<[Arc<LibvirtHypervisor>; 2]>,
    hosts: [Host; 2],
}

fn config(host: &Host) -> LibvirtConfig {
    host.config().with_migration(Moving {
        bytes_per_second: BYTES_PER_SECOND,
        ..Moving::new(Ipv4Addr::LOCALHOST.into())
    })
}

async fn open(hosts: &[Host; 2]) -> [Arc<LibvirtHypervisor>; 2] {
    let [source, destination] = hosts;
    [
        Arc::new(source.open_with(config(source)).await),
        Arc::new(destination.open_with(config(destination)).await),
    ]
}

#[async_trait]
impl MigrationExam for QemuMigrationExam {
    async fn sit(&self) -> Box<dyn PairUnderExam> {
        let hosts = [Host::new(), Host::new()];
        let opened = open(&hosts).await;
        assert!(opened.iter().all(|h| h.capability().migration), "it is claimed");
        let opened = Some(opened);
        Box::new(Pair { opened, hosts })
    }
    fn patience(&self) -> Duration {
        PATIENCE
    }
}

impl Pair {
    fn host(&self, side: Side) -> &Host {
        &self.hosts[side as usize]
    }
    fn disk(&self, id: ServerId) -> std::path::PathBuf {
        self.hosts[0].path(&format!("{id}.raw"))
    }
    /// Asks QEMU's monitor without our hypervisor; `None` when it has no such guest.
    fn monitor(&self, side: Side, id: ServerId, command: &str, flags: u32) -> Option<String> {
        let mut conn = Connect::open(Some(&self.host(side).uri())).unwrap();
        let domain = Domain::lookup_by_uuid_string(&conn, &id.to_string()).ok();
        let answer = domain.and_then(|d| d.qemu_monitor_command(command, flags).ok());
        conn.close().unwrap();
        answer
    }
    fn number(&self, side: Side, id: ServerId) -> u64 {
        let human = virt_sys::VIR_DOMAIN_QEMU_MONITOR_COMMAND_HMP;
        let answer = self.monitor(side, id, NUMBER, human).expect("a guest");
        let byte = answer.trim().rsplit("0x").next().expect("a number");
        u64::from_str_radix(byte, 16).expect("a byte")
    }
}

#[async_trait]
impl PairUnderExam for Pair {
    fn hypervisor(&self, side: Side) -> Arc<dyn Hypervisor> {
        self.opened.as_ref().expect("open")[side as usize].clone()
    }
    async fn reopen(&mut self) {
        self.opened = None;
        self.opened = Some(open(&self.hosts).await);
    }
    async fn spec(&self, busy: bool) -> VmSpec {
        let id = ServerId::from_uuid(host::fresh_uuid());
        let path = self.disk(id);
        std::fs::write(&path, disk(busy)).unwrap();
        self.hosts[0].give(&path);
        host::spec_on(id, "moves", path)
    }
    async fn executes(&self, side: Side, id: ServerId) -> bool {
        let status = self.monitor(side, id, r#"{"execute":"query-status"}"#, 0);
        status.is_some_and(|s| s.contains("\"running\":true"))
    }
    async fn remember(&self, side: Side, id: ServerId, number: u64) {
        order(&self.disk(id), [b'R', b'M', u8::try_from(number).unwrap()]);
        let kept = async {
            while self.number(side, id) != number {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(PATIENCE, kept)
            .await
            .expect("the guest keeps the number");
        order(&self.disk(id), [0; 3]);
    }
    async fn memory(&self, side: Side, id: ServerId) -> u64 {
        self.number(side, id)
    }
    async fn crash(&self, side: Side, id: ServerId) {
        let own = self.host(side).path("lv/").display().to_string();
        for pid in host::qemus(id) {
            let args = host::cmdline(Path::new(&format!("/proc/{pid}")));
            if args.iter().any(|arg| arg.contains(&own)) {
                host::signal(pid, Signal::KILL);
            }
        }
    }
}
