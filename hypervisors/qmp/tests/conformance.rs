//! The hypervisor's exam on real QEMU, and what only a killed process can show.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test program")]

#[path = "it/guest.rs"]
mod guest;
#[path = "it/host.rs"]
mod host;
#[path = "it/pair.rs"]
mod pair;

use std::process::{ExitCode, Stdio};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use rustix::process::{Pid, Signal};
use skyloom_hypervisor::conformance::{self, Exam, Guest, HostUnderExam, Offers};
use skyloom_hypervisor::{
    Boot, Capability, Console, DiskSpec, Hotplug, Hypervisor, Inspection, NicSpec, SnapshotOrder, Snapshots,
    StopMode, Stopped, Suspend, VmSpec,
};
use skyloom_model::{DiskFormat, MacAddr, Name, NicKind, PowerState, ServerId, SnapshotId};
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

/// What an agent of its own process does when the domain runs.
async fn then(hypervisor: &QmpHypervisor, spec: &VmSpec, verb: &str) {
    match verb {
        "nothing" => {}
        "suspend" => hypervisor.suspend(spec.id, 1).await.expect("suspend"),
        "take" => drop(hypervisor.take(spec.id, 1, &order(spec)).await.expect("take")),
        "revert" => {
            let order = order(spec);
            hypervisor.take(spec.id, 1, &order).await.expect("take");
            hypervisor
                .revert(spec.id, 1, order.snapshot)
                .await
                .expect("revert");
        }
        "attach" => {
            let disk = more(spec);
            hypervisor.attach_disk(spec.id, 1, &disk).await.expect("attach");
        }
        other => panic!("{other}"),
    }
}

/// A disk beside the first one.
fn more(spec: &VmSpec) -> DiskSpec {
    DiskSpec {
        name: "more".into(),
        path: spec.disks[0].path.with_extension("more"),
        ..spec.disks[0].clone()
    }
}

/// A snapshot of memory and of the second and third disk.
fn order(spec: &VmSpec) -> SnapshotOrder {
    SnapshotOrder {
        snapshot: SnapshotId::from_uuid(spec.project.uuid()),
        disks: vec!["one".into(), "two".into()],
        memory: true,
    }
}

/// An agent of its own process, so that it can be killed: starts the domain, says so, does one more thing, says so, and
/// waits for its end.
fn agent(dir: &str, spec: &str, verb: &str) -> ExitCode {
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
            then(&hypervisor, &spec, verb).await;
            println!("done");
            std::future::pending::<()>().await;
        });
    ExitCode::FAILURE
}

/// When an agent is killed.
#[derive(Debug, Clone, Copy)]
enum Cut {
    /// So long after its begin.
    After(Duration),
    /// When the guest runs, so long after that.
    Started(Duration),
    /// When it has done all.
    Done,
}

/// Kills an agent and its whole process group in the middle of what it does; how long it did that since its last word.
async fn killed_agent(host: &Host, spec: &VmSpec, verb: &str, cut: Cut) -> Duration {
    use tokio::io::{AsyncBufReadExt, BufReader};
    let mut child = tokio::process::Command::new(std::env::current_exe().unwrap())
        .arg("--agent")
        .arg(host.temp.path().join("vms"))
        .arg(serde_json::to_string(spec).unwrap())
        .arg(verb)
        .stdout(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut says = async |word: &str| {
        let line = tokio::time::timeout(PATIENCE, lines.next_line()).await;
        let line = line.expect("the agent goes on").unwrap();
        assert_eq!(line.as_deref(), Some(word));
        tokio::time::Instant::now()
    };
    let took = match cut {
        Cut::After(after) => {
            tokio::time::sleep(after).await;
            after
        }
        Cut::Started(after) => {
            says("started").await;
            tokio::time::sleep(after).await;
            after
        }
        Cut::Done => {
            let started = says("started").await;
            says("done").await - started
        }
    };
    let group = Pid::from_raw(child.id().unwrap() as i32).unwrap();
    rustix::process::kill_process_group(group, Signal::KILL).unwrap();
    child.wait().await.unwrap();
    took
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
    killed_agent(&host, &spec, "nothing", Cut::Done).await;
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
    killed_agent(&host, &host.spec("whole", Mode::Idle), "nothing", Cut::Done).await;
    let whole = begin.elapsed();
    for cut in 1..CUTS {
        let host = Host::new();
        let spec = host.spec("cut", Mode::Idle);
        killed_agent(&host, &spec, "nothing", Cut::After(whole * cut / CUTS)).await;
        let hypervisor = host.open().await;
        hypervisor.define(&spec).await.unwrap();
        hypervisor.start(spec.id, 1).await.unwrap();
        must_run_once(&hypervisor, &spec).await;
        hypervisor.undefine(spec.id, 1).await.unwrap();
        assert_eq!(host::qemus(spec.id).len(), 0);
    }
}

/// Cuts a verb at several places, each on a host of its own, and lets `check` look at what is left.
async fn cut_anywhere(verb: &str, check: impl AsyncFn(&Host, &QmpHypervisor, &VmSpec)) {
    const CUTS: u32 = 8;
    let mut whole = None;
    for cut in 0..=CUTS {
        let host = Host::new();
        let mut spec = host.spec(verb, Mode::Live);
        for name in ["one", "two"] {
            spec.disks.push(host.disk(name, DiskFormat::Qcow2));
        }
        std::fs::copy(&spec.disks[0].path, more(&spec).path).unwrap();
        match whole {
            None => whole = Some(killed_agent(&host, &spec, verb, Cut::Done).await),
            Some(whole) => drop(killed_agent(&host, &spec, verb, Cut::Started(whole * cut / CUTS)).await),
        }
        let hypervisor = host.open().await;
        assert!(host::qemus(spec.id).len() <= 1);
        check(&host, &hypervisor, &spec).await;
        hypervisor.undefine(spec.id, 1).await.unwrap();
        assert_eq!(host::qemus(spec.id).len(), 0);
    }
}

async fn suspend_cut_anywhere_loses_no_guest() {
    cut_anywhere("suspend", async |_, hypervisor, spec| {
        hypervisor.suspend(spec.id, 1).await.unwrap();
        assert!(host::qemus(spec.id).is_empty());
        hypervisor.start(spec.id, 1).await.unwrap();
        must_run_once(hypervisor, spec).await;
        // It answers the button, and has booted once.
        let mode = StopMode::Graceful { timeout: PATIENCE };
        assert_eq!(
            hypervisor.stop(spec.id, 1, mode).await.unwrap(),
            Stopped::Gracefully
        );
        let tail = hypervisor.console_tail(spec.id, 1 << 20).await.unwrap();
        let boots = String::from_utf8_lossy(&tail).matches(guest::GREETING).count();
        assert_eq!(boots, 1);
    })
    .await;
}

async fn snapshot_cut_anywhere_is_whole_or_not_told_of() {
    cut_anywhere("take", async |_, hypervisor, spec| {
        must_run_once(hypervisor, spec).await;
        let told = hypervisor.snapshots(spec.id).await.unwrap();
        let found = hypervisor.take(spec.id, 1, &order(spec)).await.unwrap();
        assert!(told.is_empty() || told == [found.clone()]);
        hypervisor.stop(spec.id, 1, StopMode::Force).await.unwrap();
        for disk in &spec.disks[1..] {
            let inside = host::img_info(disk)["snapshots"].as_array().unwrap().len();
            assert_eq!(inside, 1, "once in {}", disk.name);
        }
        hypervisor.revert(spec.id, 1, found.snapshot).await.unwrap();
        must_run_once(hypervisor, spec).await;
    })
    .await;
}

async fn revert_cut_anywhere_can_be_repeated() {
    cut_anywhere("revert", async |_, hypervisor, spec| {
        let power = match hypervisor.inspect(spec.id).await.unwrap() {
            Inspection::Found { power, .. } => power,
            other => panic!("{other:?}"),
        };
        // A guest that was held before its first step is finished by the next start.
        assert!(
            matches!(
                power,
                PowerState::Running | PowerState::Paused | PowerState::Stopped
            ),
            "{power:?}"
        );
        if hypervisor.snapshots(spec.id).await.unwrap().is_empty() {
            hypervisor.take(spec.id, 1, &order(spec)).await.unwrap();
        }
        hypervisor.revert(spec.id, 1, order(spec).snapshot).await.unwrap();
        must_run_once(hypervisor, spec).await;
    })
    .await;
}

async fn attach_cut_anywhere_can_be_repeated() {
    cut_anywhere("attach", async |_, hypervisor, spec| {
        hypervisor.attach_disk(spec.id, 1, &more(spec)).await.unwrap();
        assert!(host::holds(spec.id, &more(spec).path));
        must_run_once(hypervisor, spec).await;
    })
    .await;
}

fn own_trial<F: Future<Output = ()> + 'static>(name: &str, case: fn() -> F) -> libtest_mimic::Trial {
    libtest_mimic::Trial::test(format!("processes::{name}"), move || {
        tokio::runtime::Runtime::new()?.block_on(case());
        Ok(())
    })
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().collect();
    if let [_, flag, dir, spec, verb] = args.as_slice()
        && flag == "--agent"
    {
        return agent(dir, spec, verb);
    }
    let mut trials = conformance::trials(Arc::new(QmpExam));
    trials.extend(conformance::migration_trials(Arc::new(pair::QmpPairs)));
    trials.push(own_trial(
        "guest_outlives_a_killed_agent",
        guest_outlives_a_killed_agent,
    ));
    trials.push(own_trial(
        "start_cut_anywhere_ends_in_one_guest",
        start_cut_anywhere_ends_in_one_guest,
    ));
    trials.push(own_trial(
        "suspend_cut_anywhere_loses_no_guest",
        suspend_cut_anywhere_loses_no_guest,
    ));
    trials.push(own_trial(
        "snapshot_cut_anywhere_is_whole_or_not_told_of",
        snapshot_cut_anywhere_is_whole_or_not_told_of,
    ));
    trials.push(own_trial(
        "revert_cut_anywhere_can_be_repeated",
        revert_cut_anywhere_can_be_repeated,
    ));
    trials.push(own_trial(
        "attach_cut_anywhere_can_be_repeated",
        attach_cut_anywhere_can_be_repeated,
    ));
    conformance::main(trials)
}
