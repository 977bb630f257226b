//! Agents that are killed in the middle of what they do, and daemons that are.

use std::process::{ExitCode, Stdio};
use std::sync::Arc;
use std::time::Duration;

use libtest_mimic::Trial;
use rustix::process::{Pid, Signal};
use skyloom_hypervisor::{Hypervisor, Inspection, StopMode, VmSpec};
use skyloom_libvirt::{LibvirtConfig, LibvirtHypervisor};
use skyloom_model::{PowerState, SystemClock};
use tokio::io::{AsyncBufReadExt, BufReader};

use crate::guest::Mode;
use crate::host::{self, Host, PATIENCE, quick, until};

/// An agent of its own process, so that it can be killed: starts the domain, says so, waits for its end.
pub(crate) fn agent(uri: &str, dir: &str, spec: &str) -> ExitCode {
    let spec: VmSpec = serde_json::from_str(spec).expect("a spec");
    let config = LibvirtConfig::new(uri, dir, Arc::new(SystemClock::new()));
    let config = config.with_daemon_user(Host::daemon_user());
    tokio::runtime::Runtime::new()
        .expect("a runtime")
        .block_on(async {
            let hypervisor = LibvirtHypervisor::open(config).await.expect("open");
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
    let mut child = tokio::process::Command::new(std::env::current_exe().unwrap())
        .arg("--agent")
        .arg(host.uri())
        .arg(host.path("logs"))
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

async fn must_run_once(hypervisor: &LibvirtHypervisor, spec: &VmSpec) {
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
    let host = Host::new();
    // A whole start tells where to cut; the first one takes longer than others.
    killed_agent(&host, &host.spec("first", Mode::Idle), None).await;
    let begin = tokio::time::Instant::now();
    killed_agent(&host, &host.spec("whole", Mode::Idle), None).await;
    let whole = begin.elapsed();
    for cut in 1..CUTS {
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

async fn start_cut_by_the_daemons_death_ends_in_one_guest() {
    const CUTS: u32 = 12;
    let host = Host::new();
    let hypervisor = host.open_with(host.config().with_timeouts(quick())).await;
    let first = host.spec("first", Mode::Idle);
    hypervisor.define(&first).await.unwrap();
    let begin = tokio::time::Instant::now();
    hypervisor.start(first.id, 1).await.unwrap();
    let whole = begin.elapsed();
    for cut in 1..CUTS {
        let spec = host.spec("cut", Mode::Idle);
        hypervisor.define(&spec).await.unwrap();
        let cut = async {
            tokio::time::sleep(whole * cut / CUTS).await;
            host.kill_daemon();
        };
        let _ = tokio::join!(hypervisor.start(spec.id, 1), cut);
        host.start_daemon();
        until("both connections", async || {
            hypervisor.unreachable().is_none().then_some(())
        })
        .await;
        until("a guest", async || hypervisor.start(spec.id, 1).await.ok()).await;
        must_run_once(&hypervisor, &spec).await;
        hypervisor.undefine(spec.id, 1).await.unwrap();
        assert_eq!(host::qemus(spec.id).len(), 0);
    }
    must_run_once(&hypervisor, &first).await;
}

fn trial<F: Future<Output = ()> + 'static>(name: &str, case: fn() -> F) -> Trial {
    Trial::test(format!("processes::{name}"), move || {
        tokio::runtime::Runtime::new()?.block_on(case());
        Ok(())
    })
}

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("guest_outlives_a_killed_agent", guest_outlives_a_killed_agent),
        trial(
            "start_cut_anywhere_ends_in_one_guest",
            start_cut_anywhere_ends_in_one_guest,
        ),
        trial(
            "start_cut_by_the_daemons_death_ends_in_one_guest",
            start_cut_by_the_daemons_death_ends_in_one_guest,
        ),
    ]
}
