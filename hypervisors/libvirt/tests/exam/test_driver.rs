//! The exam on `test:///default`: libvirt's own pretended host, where nothing runs.

use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use libtest_mimic::Trial;
use skyloom_hypervisor::conformance::{self, Case, Exam, Guest, HostUnderExam, Offers};
use skyloom_hypervisor::{Boot, Capability, DiskSpec, Hypervisor, NicSpec, VmSpec};
use skyloom_libvirt::{LibvirtConfig, LibvirtHypervisor};
use skyloom_model::{DiskFormat, MacAddr, Name, NicKind, ServerId, SystemClock};
use tempfile::TempDir;
use tokio::sync::{Mutex, MutexGuard};
use virt::connect::Connect;
use virt::domain::Domain;

use crate::host::{PATIENCE, fresh_uuid, spec_on};

const URI: &str = "test:///default";

/// Cases with a guest that does not answer the power button. The test driver's always do.
const ANSWERS: &[&str] = &[
    "graceful_stop_of_a_deaf_guest_is_forced",
    "list_does_not_wait_for_a_slow_stop",
];

/// The process has one such host.
static TURN: Mutex<()> = Mutex::const_new(());

#[derive(Debug)]
struct TestExam;

/// Dropped in this order: the hypervisor, then what asks beside it, which ends the host.
struct ExamHost {
    hypervisor: Option<Arc<LibvirtHypervisor>>,
    beside: Beside,
    temp: TempDir,
    _turn: MutexGuard<'static, ()>,
}

/// A connection of our own to the same host.
struct Beside(Connect);

impl Drop for Beside {
    fn drop(&mut self) {
        // The host may outlive its connections for a while: it is left empty.
        for domain in self.0.list_all_domains(0).unwrap() {
            if domain.get_name().unwrap().parse::<ServerId>().is_ok() {
                let _ = domain.destroy();
                domain.undefine().unwrap();
            }
        }
        self.0.close().unwrap();
    }
}

impl Beside {
    fn domain(&self, id: ServerId) -> Option<Domain> {
        Domain::lookup_by_uuid_string(&self.0, &id.to_string()).ok()
    }
}

pub(crate) fn trials() -> Vec<Trial> {
    let exam: Arc<dyn Exam> = Arc::new(TestExam);
    let can = |trial: &Trial| !ANSWERS.iter().any(|name| trial.name().ends_with(name));
    assert!(
        ANSWERS
            .iter()
            .all(|name| conformance::cases().iter().any(|c: &Case| c.name == *name)),
        "these cases exist"
    );
    let trials = conformance::trials(exam).into_iter();
    trials
        .map(|trial| {
            let ignored = trial.has_ignored_flag() || !can(&trial);
            trial.with_kind("test driver").with_ignored_flag(ignored)
        })
        .collect()
}

#[async_trait]
impl Exam for TestExam {
    fn offers(&self) -> Offers {
        let mut capability = Capability::basic();
        capability.guests_outlive_agent = false;
        capability.durable_generation = false;
        capability.console_log = false;
        Offers {
            capability,
            live_guest: false,
            lets_go: false,
            agent: false,
            guest_power_off: true,
            crash: true,
            event_bound: Some(8),
            patience: PATIENCE,
        }
    }
    async fn sit(&self) -> Box<dyn HostUnderExam> {
        let turn = TURN.lock().await;
        let temp = tempfile::tempdir().unwrap();
        let hypervisor = open(&temp).await;
        hypervisor.recover().await.unwrap();
        Box::new(ExamHost {
            hypervisor: Some(Arc::new(hypervisor)),
            beside: Beside(Connect::open(Some(URI)).unwrap()),
            temp,
            _turn: turn,
        })
    }
}

async fn open(temp: &TempDir) -> LibvirtHypervisor {
    let config = LibvirtConfig::new(URI, temp.path().join("logs"), Arc::new(SystemClock::new()));
    LibvirtHypervisor::open(config.with_event_buffer(8))
        .await
        .unwrap()
}

#[async_trait]
impl HostUnderExam for ExamHost {
    fn hypervisor(&self) -> Arc<dyn Hypervisor> {
        self.hypervisor.clone().expect("open")
    }
    async fn spec(&self, name: Name, _guest: Guest) -> VmSpec {
        let id = ServerId::from_uuid(fresh_uuid());
        let path = self.temp.path().join(format!("{id}.raw"));
        std::fs::write(&path, []).unwrap();
        spec_on(id, name.as_str(), path)
    }
    async fn reopen(&mut self) {
        self.hypervisor = None;
        self.hypervisor = Some(Arc::new(open(&self.temp).await));
    }
    async fn processes(&self, id: ServerId) -> usize {
        self.beside
            .domain(id)
            .map_or(0, |d| usize::from(d.is_active().unwrap()))
    }
    async fn power_off_guest(&self, id: ServerId) {
        self.beside.domain(id).unwrap().shutdown().unwrap();
    }
    async fn crash_guest(&self, id: ServerId) {
        let to = self.temp.path().join("core");
        let domain = self.beside.domain(id).unwrap();
        domain
            .core_dump(to.to_str().unwrap(), virt_sys::VIR_DUMP_CRASH)
            .unwrap();
    }
    fn live_text(&self) -> &str {
        ""
    }
    async fn disk(&self, id: ServerId, name: &str, format: DiskFormat) -> DiskSpec {
        let path: PathBuf = self.temp.path().join(format!("{id}-{name}"));
        std::fs::write(&path, vec![0; 1 << 20]).unwrap();
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
    async fn kernel(&self, _command_line: &str) -> Boot {
        unreachable!("not offered")
    }
    async fn write(&self, _id: ServerId, _disk: &DiskSpec, _number: u64) {
        unreachable!("not offered")
    }
    async fn read(&self, _id: ServerId, _disk: &DiskSpec) -> u64 {
        unreachable!("not offered")
    }
    async fn bytes(&self, _id: ServerId, disk: &DiskSpec) -> u64 {
        std::fs::metadata(&disk.path).unwrap().len()
    }
    async fn holds(&self, _id: ServerId, _disk: &DiskSpec) -> bool {
        false
    }
}
