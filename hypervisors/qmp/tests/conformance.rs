//! The hypervisor's exam on real QEMU, and what only a killed process can show.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test program")]

#[path = "it/guest.rs"]
mod guest;
#[path = "it/host.rs"]
mod host;

use std::process::{ExitCode, Stdio};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use rustix::process::{Pid, Signal};
use skyloom_hypervisor::conformance::{self, Exam, Guest, HostUnderExam, Offers};
use skyloom_hypervisor::{Boot, Capability, DiskSpec, Hypervisor, Inspection, NicSpec, StopMode, VmSpec};
use skyloom_model::{DiskFormat, MacAddr, Name, NicKind, PowerState, ServerId};
use skyloom_qmp::{QmpConfig, QmpHypervisor, Timeouts};

use crate::guest::Mode;
use crate::host::{Host, PATIENCE};

#[derive(Debug)]
struct QmpExam;

/// The hypervisor is dropped first, as an agent ends before its host.
struct ExamHost {
    hypervisor: Option<Arc<QmpHypervisor>>,
    host: Host,
}

#[async_trait]
impl Exam for QmpExam {
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
        let hypervisor = Some(Arc::new(host.open_with(exam_config(&host)).await));
        Box::new(ExamHost { hypervisor, host })
    }
}

#[async_trait]
impl HostUnderExam for ExamHost {
    fn hypervisor(&self) -> Arc<dyn Hypervisor> {
        self.hypervisor.clone().expect("open")
    }
    async fn spec(&self, name: Name, guest: Guest) -> VmSpec {
        self.host.spec(
            name.as_str(),
            if guest == Guest::Live {
                Mode::Live
            } else {
                Mode::Idle
            },
        )
    }
    async fn reopen(&mut self) {
        self.hypervisor = None;
        self.hypervisor = Some(Arc::new(
            QmpHypervisor::open(exam_config(&self.host))
                .await
                .expect("open again"),
        ));
    }
    async fn processes(&self, id: ServerId) -> usize {
        host::qemus(id).len()
    }
    async fn power_off_guest(&self, id: ServerId) {
        guest::power_off(&self.host.temp.path().join(format!("{id}.raw")));
    }
    async fn crash_guest(&self, id: ServerId) {
        for pid in host::qemus(id) {
            host::signal(pid, Signal::KILL);
        }
    }
    fn live_text(&self) -> &str {
        guest::GREETING
    }
    async fn disk(&self, _: ServerId, name: &str, format: DiskFormat) -> DiskSpec {
        self.host.disk(name, format)
    }
    async fn nic(&self, number: u8) -> NicSpec {
        NicSpec {
            device: None,
            kind: NicKind::User,
            mac: MacAddr::qemu([0, 1, number]),
        }
    }
    async fn kernel(&self, command_line: &str) -> Boot {
        let kernel = self.host.temp.path().join("kernel");
        std::fs::write(&kernel, guest::tiny_kernel()).unwrap();
        Boot::Kernel {
            kernel,
            initrd: None,
            command_line: command_line.to_owned(),
        }
    }
    async fn write(&self, _: ServerId, disk: &DiskSpec, number: u64) {
        host::fill(disk, u8::try_from(number).unwrap());
    }
    async fn read(&self, _: ServerId, disk: &DiskSpec) -> u64 {
        host::content(&self.host, disk)[0].into()
    }
    async fn bytes(&self, _: ServerId, disk: &DiskSpec) -> u64 {
        host::img_info(disk)["virtual-size"].as_u64().unwrap()
    }
    async fn holds(&self, id: ServerId, disk: &DiskSpec) -> bool {
        host::holds(id, &disk.path)
    }
}

/// Guests that never let go and agents that never answer are waited for briefly.
fn exam_config(host: &Host) -> QmpConfig {
    host.config().with_timeouts(Timeouts {
        unplug: Duration::from_secs(3),
        agent: Duration::from_secs(1),
        ..Timeouts::default()
    })
}

/// An agent of its own process, so that it can be killed: starts the domain, says so, waits for its end.
fn agent(dir: &str, spec: &str) -> ExitCode {
    let spec: VmSpec = serde_json::from_str(spec).expect("a spec");
    let config = skyloom_qmp::QmpConfig::new(dir, Arc::new(skyloom_model::SystemClock::new()));
    tokio::runtime::Runtime::new()
        .expect("a runtime")
        .block_on(async {
            let hypervisor = QmpHypervisor::open(config).await.expect("open");
            hypervisor.recover().await.expect("recover");
            hypervisor.define(&spec).await.expect("define");
            hypervisor.start(spec.id, spec.generation).await.expect("start");
            println!("started");
            std::future::pending::<()>().await;
        });
    ExitCode::FAILURE
}

/// Kills an agent and its whole process group in the middle of what it does; `after` is `None` for: when it has
/// started the guest.
async fn killed_agent(host: &Host, spec: &VmSpec, after: Option<Duration>) {
    use tokio::io::{AsyncBufReadExt, BufReader};
    let mut child = tokio::process::Command::new(std::env::current_exe().unwrap())
        .arg("--agent")
        .arg(host.temp.path().join("vms"))
        .arg(serde_json::to_string(spec).unwrap())
        .stdout(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    match after {
        Some(after) => tokio::time::sleep(after).await,
        None => {
            let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
            let line = tokio::time::timeout(PATIENCE, lines.next_line())
                .await
                .expect("the agent starts")
                .unwrap();
            assert_eq!(line.as_deref(), Some("started"));
        }
    }
    let group = Pid::from_raw(child.id().unwrap() as i32).unwrap();
    rustix::process::kill_process_group(group, Signal::KILL).unwrap();
    child.wait().await.unwrap();
}

async fn must_run_once(hypervisor: &QmpHypervisor, spec: &VmSpec) {
    let running = Inspection::Found {
        generation: spec.generation,
        power: PowerState::Running,
    };
    assert_eq!(hypervisor.inspect(spec.id).await.unwrap(), running);
    assert_eq!(host::qemus(spec.id).len(), 1);
}

async fn guest_outlives_a_killed_agent() {
    let host = Host::new();
    let spec = host.spec("outlives", Mode::Live);
    killed_agent(&host, &spec, None).await;
    let before = host::qemus(spec.id);
    let hypervisor = host.open().await;
    must_run_once(&hypervisor, &spec).await;
    assert_eq!(host::qemus(spec.id), before, "the same process");
    hypervisor.stop(spec.id, 1, StopMode::Force).await.unwrap();
}

async fn start_cut_anywhere_ends_in_one_guest() {
    const CUTS: u32 = 16;
    // A whole start tells where to cut.
    let begin = tokio::time::Instant::now();
    let host = Host::new();
    killed_agent(&host, &host.spec("whole", Mode::Idle), None).await;
    let whole = begin.elapsed();
    for cut in 1..CUTS {
        let host = Host::new();
        let spec = host.spec("cut", Mode::Idle);
        killed_agent(&host, &spec, Some(whole * cut / CUTS)).await;
        let hypervisor = host.open().await;
        hypervisor.define(&spec).await.unwrap();
        hypervisor.start(spec.id, 1).await.unwrap();
        must_run_once(&hypervisor, &spec).await;
        hypervisor.undefine(spec.id, 1).await.unwrap();
        assert_eq!(host::qemus(spec.id).len(), 0);
    }
}

fn own_trial<F: Future<Output = ()> + 'static>(name: &str, case: fn() -> F) -> libtest_mimic::Trial {
    libtest_mimic::Trial::test(format!("processes::{name}"), move || {
        tokio::runtime::Runtime::new()?.block_on(case());
        Ok(())
    })
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().collect();
    if let [_, flag, dir, spec] = args.as_slice()
        && flag == "--agent"
    {
        return agent(dir, spec);
    }
    let mut trials = conformance::trials(Arc::new(QmpExam));
    trials.push(own_trial(
        "guest_outlives_a_killed_agent",
        guest_outlives_a_killed_agent,
    ));
    trials.push(own_trial(
        "start_cut_anywhere_ends_in_one_guest",
        start_cut_anywhere_ends_in_one_guest,
    ));
    conformance::main(trials)
}
