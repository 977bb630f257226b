//! Daemons that die, freeze and come back; guests run on.

use std::time::Duration;

use futures::StreamExt;
use rustix::process::Signal;
use skyloom_hypervisor::{Console, ErrorKind, Hypervisor, Inspection, StopMode, Stopped, VmEventKind};
use skyloom_libvirt::LibvirtHypervisor;
use skyloom_model::{PowerState, ServerId};

use crate::domain::{libvirt, xml};
use crate::guest::{GREETING, Mode, power_off};
use crate::host::{Host, PATIENCE, qemus, quick, signal, until};

const fn found(generation: u64, power: PowerState) -> Inspection {
    Inspection::Found { generation, power }
}
const RUNNING: Inspection = found(1, PowerState::Running);
const STOPPED: Inspection = found(1, PowerState::Stopped);
const CRASHED: Inspection = found(1, PowerState::Crashed);

async fn until_is(hypervisor: &LibvirtHypervisor, id: ServerId, wanted: Inspection) {
    until(&format!("{wanted:?}"), async || {
        (hypervisor.inspect(id).await.unwrap() == wanted).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_killed_daemon_is_told_and_its_guests_are_adopted_when_it_is_back() {
    let host = Host::new();
    let (runs, dies, ends) = (
        host.spec("runs", Mode::Live),
        host.spec("dies", Mode::Idle),
        host.spec("ends", Mode::Idle),
    );
    let hypervisor = host.open_with(host.config().with_timeouts(quick())).await;
    for spec in [&runs, &dies, &ends] {
        hypervisor.define(spec).await.unwrap();
        hypervisor.start(spec.id, 1).await.unwrap();
    }
    let pid = qemus(runs.id);
    let mut events = hypervisor.events();
    host.kill_daemon();
    let lost = async { while events.next().await.unwrap().kind != VmEventKind::Lost {} };
    tokio::time::timeout(PATIENCE, lost)
        .await
        .expect("told that events are lost");
    for spec in [&runs, &dies] {
        let seen = hypervisor.inspect(spec.id).await.unwrap();
        assert!(matches!(seen, Inspection::CannotTell { .. }), "{seen:?}");
    }
    assert!(hypervisor.unreachable().is_some());
    let kind = |e: skyloom_hypervisor::Error| e.kind();
    assert_eq!(
        hypervisor.start(runs.id, 1).await.map_err(kind),
        Err(ErrorKind::Unavailable)
    );
    assert_eq!(hypervisor.list().await.map_err(kind), Err(ErrorKind::Unavailable));
    assert_eq!(qemus(runs.id), pid, "the guest does not mind");
    signal(qemus(dies.id)[0], Signal::KILL);
    power_off(&ends.disks[0].path);

    host.start_daemon();
    until_is(&hypervisor, runs.id, RUNNING).await;
    assert_eq!(qemus(runs.id), pid, "the same process");
    until_is(&hypervisor, dies.id, CRASHED).await;
    until("off", async || {
        let seen = hypervisor.inspect(ends.id).await.unwrap();
        matches!(seen, Inspection::Found { power, .. } if !power.may_execute()).then_some(())
    })
    .await;
    let mode = StopMode::Graceful { timeout: PATIENCE };
    assert_eq!(
        hypervisor.stop(runs.id, 1, mode).await.unwrap(),
        Stopped::Gracefully
    );
    hypervisor.start(dies.id, 1).await.unwrap();
    assert_eq!(hypervisor.inspect(dies.id).await.unwrap(), RUNNING);
}

#[tokio::test]
async fn events_go_on_after_the_daemon_was_restarted() {
    let host = Host::new();
    let hypervisor = host.open_with(host.config().with_timeouts(quick())).await;
    let spec = host.spec("events", Mode::Idle);
    hypervisor.define(&spec).await.unwrap();
    hypervisor.start(spec.id, 1).await.unwrap();
    host.kill_daemon();
    host.start_daemon();
    until_is(&hypervisor, spec.id, RUNNING).await;
    until("both connections", async || {
        hypervisor.unreachable().is_none().then_some(())
    })
    .await;
    // Until the daemon has its guest's monitor again it tells nobody of the guest's end.
    libvirt(&host, |conn| {
        let domain = virt::domain::Domain::lookup_by_uuid_string(conn, &spec.id.to_string()).unwrap();
        let answer = domain.qemu_monitor_command(r#"{"execute": "query-status"}"#, 0);
        assert!(answer.unwrap().contains("running"));
    });
    let mut events = hypervisor.events();
    signal(qemus(spec.id)[0], Signal::KILL);
    let told = async {
        loop {
            let event = events.next().await.unwrap();
            if let VmEventKind::Power { power, .. } = event.kind {
                return (event.id, power);
            }
        }
    };
    let told = tokio::time::timeout(PATIENCE, told)
        .await
        .expect("told of the crash");
    assert_eq!(told, (Some(spec.id), PowerState::Crashed));
}

#[tokio::test]
async fn a_frozen_daemon_cannot_tell_and_is_never_waited_for_long() {
    let host = Host::new();
    let hypervisor = host.open_with(host.config().with_timeouts(quick())).await;
    let spec = host.spec("frozen", Mode::Idle);
    hypervisor.define(&spec).await.unwrap();
    hypervisor.start(spec.id, 1).await.unwrap();
    let pid = qemus(spec.id);
    host.signal_daemon(Signal::STOP);
    let limit = quick().inspect * 3;
    for _ in 0..6 {
        let seen = tokio::time::timeout(limit, hypervisor.inspect(spec.id))
            .await
            .expect("within its limit")
            .unwrap();
        assert!(matches!(seen, Inspection::CannotTell { .. }), "{seen:?}");
    }
    let kind = hypervisor.start(spec.id, 1).await.unwrap_err().kind();
    assert!(
        matches!(kind, ErrorKind::Timeout | ErrorKind::Unavailable),
        "{kind:?}"
    );
    host.signal_daemon(Signal::CONT);
    until_is(&hypervisor, spec.id, RUNNING).await;
    assert_eq!(qemus(spec.id), pid);
    until("both connections", async || {
        hypervisor.unreachable().is_none().then_some(())
    })
    .await;
    assert_eq!(
        hypervisor.stop(spec.id, 1, StopMode::Force).await.unwrap(),
        Stopped::Forced
    );
}

/// The runtime ends though a call hangs: no thread of it waits for libvirt.
#[test]
fn a_runtime_ends_while_the_daemon_is_frozen() {
    let host = Host::new();
    let spec = host.spec("ends", Mode::Idle);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (told, heard) = std::sync::mpsc::channel();
    let thread = std::thread::spawn({
        let config = host.config().with_timeouts(quick());
        move || {
            runtime.block_on(async {
                let hypervisor = LibvirtHypervisor::open(config).await.unwrap();
                hypervisor.define(&spec).await.unwrap();
                told.send(()).unwrap();
                until("late", async || {
                    let seen = hypervisor.inspect(spec.id).await.unwrap();
                    matches!(seen, Inspection::CannotTell { .. }).then_some(())
                })
                .await;
            });
            drop(runtime);
            told.send(()).unwrap();
        }
    });
    heard.recv_timeout(PATIENCE).unwrap();
    host.signal_daemon(Signal::STOP);
    heard.recv_timeout(PATIENCE).expect("the runtime ends");
    thread.join().unwrap();
    host.signal_daemon(Signal::CONT);
}

#[tokio::test]
async fn no_daemon_is_told_at_open() {
    let host = Host::new();
    host.kill_daemon();
    let opened = LibvirtHypervisor::open(host.config()).await;
    assert_eq!(opened.unwrap_err().kind(), ErrorKind::Unavailable);
    let mut config = host.config();
    config.uri = "no-such-driver:///x".into();
    let opened = LibvirtHypervisor::open(config).await;
    assert!(opened.is_err());
    // The directory is free again.
    host.start_daemon();
    host.open().await;
}

#[tokio::test]
async fn two_daemons_are_two_hosts() {
    let (one, other) = (Host::new(), Host::new());
    let (on_one, on_other) = (one.open().await, other.open().await);
    let spec = one.spec("here", Mode::Live);
    on_one.define(&spec).await.unwrap();
    on_one.start(spec.id, 1).await.unwrap();
    assert_eq!(on_other.inspect(spec.id).await.unwrap(), Inspection::Absent);
    assert_eq!(on_other.list().await.unwrap(), []);
    on_other.undefine(spec.id, 9).await.unwrap();
    assert_eq!(on_one.inspect(spec.id).await.unwrap(), RUNNING);
    other.kill_daemon();
    assert_eq!(on_one.inspect(spec.id).await.unwrap(), RUNNING);
    until("greeting", async || {
        let tail = on_one.console_tail(spec.id, 1000).await.unwrap();
        String::from_utf8_lossy(&tail).contains(GREETING).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_crash_that_a_stop_has_seen_stays_seen() {
    let host = Host::new();
    let hypervisor = host.open().await;
    let spec = host.spec("seen", Mode::Idle);
    hypervisor.define(&spec).await.unwrap();
    hypervisor.start(spec.id, 1).await.unwrap();
    signal(qemus(spec.id)[0], Signal::KILL);
    until_is(&hypervisor, spec.id, CRASHED).await;
    assert_eq!(
        hypervisor.stop(spec.id, 1, StopMode::Force).await.unwrap(),
        Stopped::AlreadyOff
    );
    assert_eq!(hypervisor.inspect(spec.id).await.unwrap(), STOPPED);
    drop(hypervisor);
    let hypervisor = host.open().await;
    assert_eq!(hypervisor.inspect(spec.id).await.unwrap(), STOPPED);
    hypervisor.start(spec.id, 1).await.unwrap();
    signal(qemus(spec.id)[0], Signal::KILL);
    until_is(&hypervisor, spec.id, CRASHED).await;
}

#[tokio::test]
async fn a_crash_is_known_though_the_daemon_forgets_it() {
    let host = Host::new();
    let hypervisor = host.open_with(host.config().with_timeouts(quick())).await;
    let spec = host.spec("noted", Mode::Idle);
    hypervisor.define(&spec).await.unwrap();
    hypervisor.start(spec.id, 1).await.unwrap();
    signal(qemus(spec.id)[0], Signal::KILL);
    until_is(&hypervisor, spec.id, CRASHED).await;
    until("noted", async || {
        xml(&host, &spec).contains("crash=\"noted\"").then_some(())
    })
    .await;
    host.kill_daemon();
    host.start_daemon();
    until_is(&hypervisor, spec.id, CRASHED).await;
    until("both connections", async || {
        hypervisor.unreachable().is_none().then_some(())
    })
    .await;
    hypervisor.stop(spec.id, 1, StopMode::Force).await.unwrap();
    assert_eq!(hypervisor.inspect(spec.id).await.unwrap(), STOPPED);
}

#[tokio::test]
async fn a_guest_whose_qemu_is_frozen_is_forced_off() {
    let host = Host::new();
    let hypervisor = host.open().await;
    let spec = host.spec("qemu-frozen", Mode::Idle);
    hypervisor.define(&spec).await.unwrap();
    hypervisor.start(spec.id, 1).await.unwrap();
    signal(qemus(spec.id)[0], Signal::STOP);
    assert_eq!(
        hypervisor.stop(spec.id, 1, StopMode::Force).await.unwrap(),
        Stopped::Forced
    );
    assert!(qemus(spec.id).is_empty());
    assert_eq!(hypervisor.inspect(spec.id).await.unwrap(), STOPPED);
}

#[tokio::test]
async fn a_closed_hypervisor_does_nothing_more() {
    let host = Host::new();
    let spec = host.spec("closed", Mode::Idle);
    let hypervisor = host.open().await;
    let second = LibvirtHypervisor::open(host.config()).await;
    assert_eq!(
        second.unwrap_err().kind(),
        ErrorKind::Conflict,
        "a directory is used by one"
    );
    tokio::time::timeout(Duration::from_secs(60), hypervisor.close())
        .await
        .unwrap();
    assert_eq!(
        hypervisor.define(&spec).await.unwrap_err().kind(),
        ErrorKind::Unavailable
    );
    assert_eq!(
        host.open().await.inspect(spec.id).await.unwrap(),
        Inspection::Absent
    );
}
