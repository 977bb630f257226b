//! Agents that come and go, processes that are not what they seem, monitors that do not answer.

use std::fs;
use std::process::Stdio;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::json;
use skyloom_hypervisor::{Console, ErrorKind, Hypervisor, Inspection, StopMode, Stopped};
use skyloom_model::PowerState;
use skyloom_qmp::client::connect;

use crate::guest::{GREETING, Mode, power_off};
use crate::host::{Host, PATIENCE, qemus, quick, signal, until};

const RUNNING: Inspection = Inspection::Found {
    generation: 1,
    power: PowerState::Running,
};
const STOPPED: Inspection = Inspection::Found {
    generation: 1,
    power: PowerState::Stopped,
};
const CRASHED: Inspection = Inspection::Found {
    generation: 1,
    power: PowerState::Crashed,
};

#[tokio::test]
async fn an_adopted_guest_is_the_same_process_and_its_console_goes_on() {
    let host = Host::new();
    let spec = host.spec("adopted", Mode::Live);
    let hypervisor = host.open().await;
    hypervisor.define(&spec).await.unwrap();
    hypervisor.start(spec.id, 1).await.unwrap();
    let pid = qemus(spec.id);
    until("greeting", async || {
        let tail = hypervisor.console_tail(spec.id, 1000).await.unwrap();
        String::from_utf8_lossy(&tail).contains(GREETING).then_some(())
    })
    .await;
    drop(hypervisor);
    for _ in 0..3 {
        drop(host.open().await);
    }
    let hypervisor = host.open().await;
    assert_eq!(hypervisor.inspect(spec.id).await.unwrap(), RUNNING);
    assert_eq!(qemus(spec.id), pid);
    let before = hypervisor.console_tail(spec.id, 1 << 20).await.unwrap();
    until("more on the console", async || {
        let now = hypervisor.console_tail(spec.id, 1 << 20).await.unwrap();
        (now.len() > before.len() && now.starts_with(&before)).then_some(())
    })
    .await;
    let mode = StopMode::Graceful { timeout: PATIENCE };
    assert_eq!(
        hypervisor.stop(spec.id, 1, mode).await.unwrap(),
        Stopped::Gracefully
    );
    assert_eq!(host.live(spec.id)["cause"], "guest-shutdown");
}

#[tokio::test]
async fn a_guest_that_shut_down_while_nobody_looked_is_stopped_not_crashed() {
    let host = Host::new();
    let spec = host.spec("unseen", Mode::Idle);
    let hypervisor = host.open().await;
    hypervisor.define(&spec).await.unwrap();
    hypervisor.start(spec.id, 1).await.unwrap();
    drop(hypervisor);
    power_off(&spec.disks[0].path);
    // Its QEMU waits, paused, for somebody to tell: the monitor says so.
    let socket = host.vm_dir(spec.id).join("run/qmp.sock");
    until("shutdown", async || {
        let (client, connection) = connect(&socket, Duration::from_secs(5)).await.ok()?;
        let status = tokio::select! { biased; s = client.query_status(PATIENCE) => s.unwrap(), _ = connection.run() => return None };
        (status == "shutdown").then_some(())
    })
    .await;
    let hypervisor = host.open().await;
    assert_eq!(hypervisor.inspect(spec.id).await.unwrap(), STOPPED);
    until("the end of its process", async || {
        qemus(spec.id).is_empty().then_some(())
    })
    .await;
    until("the record of its end", async || {
        (host.live(spec.id)["phase"] == "ended").then_some(())
    })
    .await;
    assert_eq!(host.live(spec.id)["cause"], "guest-shutdown");
    hypervisor.start(spec.id, 1).await.unwrap();
    assert_eq!(hypervisor.inspect(spec.id).await.unwrap(), RUNNING);
}

#[tokio::test]
async fn a_half_done_start_is_finished_with_the_same_process() {
    let host = Host::new();
    let spec = host.spec("half", Mode::Live);
    let hypervisor = host.open().await;
    hypervisor.define(&spec).await.unwrap();
    hypervisor.start(spec.id, 1).await.unwrap();
    let pid = qemus(spec.id);
    hypervisor.close().await;
    // As an agent leaves it that dies between the start of QEMU and the record of it.
    let mut launch = host.live(spec.id)["run"].clone();
    for field in ["process", "qemu_version", "paused"] {
        launch.as_object_mut().unwrap().remove(field).unwrap();
    }
    host.set_live(
        spec.id,
        &json!({ "format": 1, "phase": "starting", "launch": launch }),
    );
    let (client, connection) = connect(&host.vm_dir(spec.id).join("run/qmp.sock"), PATIENCE)
        .await
        .unwrap();
    tokio::select! { biased; done = client.stop(PATIENCE) => done.unwrap(), why = connection.run() => panic!("{why:?}") }

    let hypervisor = host.open().await;
    let paused = Inspection::Found {
        generation: 1,
        power: PowerState::Paused,
    };
    assert_eq!(hypervisor.inspect(spec.id).await.unwrap(), paused);
    assert_eq!(host.live(spec.id)["phase"], "running");
    hypervisor.start(spec.id, 1).await.unwrap();
    assert_eq!(hypervisor.inspect(spec.id).await.unwrap(), RUNNING);
    assert_eq!(qemus(spec.id), pid);
}

#[tokio::test]
async fn a_start_that_left_no_process_is_off() {
    let host = Host::new();
    let spec = host.spec("nothing", Mode::Idle);
    let hypervisor = host.open().await;
    hypervisor.define(&spec).await.unwrap();
    hypervisor.start(spec.id, 1).await.unwrap();
    hypervisor.stop(spec.id, 1, StopMode::Force).await.unwrap();
    hypervisor.close().await;
    let launch = json!({
        "generation": 1, "argv": [], "at": "2026-01-01T00:00:00Z", "accelerator": { "kind": "tcg", "reason": "" },
    });
    host.set_live(
        spec.id,
        &json!({ "format": 1, "phase": "starting", "launch": launch }),
    );
    let hypervisor = host.open().await;
    assert_eq!(hypervisor.inspect(spec.id).await.unwrap(), STOPPED);
    hypervisor.start(spec.id, 1).await.unwrap();
    assert_eq!(qemus(spec.id).len(), 1);
}

#[tokio::test]
async fn a_pid_that_belongs_to_another_process_now_is_left_alone() {
    let host = Host::new();
    let spec = host.spec("reused", Mode::Idle);
    let hypervisor = host.open().await;
    hypervisor.define(&spec).await.unwrap();
    hypervisor.start(spec.id, 1).await.unwrap();
    hypervisor.close().await;
    for pid in qemus(spec.id) {
        signal(pid, Signal::KILL);
    }
    let mut innocent = tokio::process::Command::new("/bin/cat")
        .stdin(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut live = host.live(spec.id);
    live["run"]["process"]["pid"] = json!(innocent.id().unwrap());
    host.set_live(spec.id, &live);

    let hypervisor = host.open().await;
    assert_eq!(hypervisor.inspect(spec.id).await.unwrap(), CRASHED);
    assert_eq!(
        hypervisor.stop(spec.id, 1, StopMode::Force).await.unwrap(),
        Stopped::AlreadyOff
    );
    assert_eq!(
        hypervisor.inspect(spec.id).await.unwrap(),
        STOPPED,
        "a stop makes a crashed domain a stopped one"
    );
    hypervisor.undefine(spec.id, 1).await.unwrap();
    assert!(innocent.try_wait().unwrap().is_none(), "it lives");
}

#[tokio::test]
async fn a_guest_of_an_earlier_boot_of_the_host_has_crashed() {
    let host = Host::new();
    let spec = host.spec("rebooted", Mode::Idle);
    let hypervisor = host.open().await;
    hypervisor.define(&spec).await.unwrap();
    hypervisor.start(spec.id, 1).await.unwrap();
    hypervisor.close().await;
    for pid in qemus(spec.id) {
        signal(pid, Signal::KILL);
    }
    let mut live = host.live(spec.id);
    live["run"]["process"]["boot_id"] = json!("00000000-0000-0000-0000-000000000000");
    host.set_live(spec.id, &live);
    let hypervisor = host.open().await;
    assert_eq!(hypervisor.inspect(spec.id).await.unwrap(), CRASHED);
    assert_eq!(host.live(spec.id)["cause"], "host-reboot");
}

#[tokio::test]
async fn a_frozen_qemu_cannot_be_told_and_is_not_started_again() {
    let host = Host::new();
    let spec = host.spec("frozen", Mode::Idle);
    let hypervisor = host.open_with(host.config().with_timeouts(quick())).await;
    hypervisor.define(&spec).await.unwrap();
    hypervisor.start(spec.id, 1).await.unwrap();
    let pid = qemus(spec.id);
    signal(pid[0], Signal::STOP);
    assert!(matches!(
        hypervisor.inspect(spec.id).await.unwrap(),
        Inspection::CannotTell { .. }
    ));
    let kind = hypervisor.start(spec.id, 1).await.unwrap_err().kind();
    assert!(
        matches!(kind, ErrorKind::Timeout | ErrorKind::Unavailable),
        "{kind:?}"
    );
    assert_eq!(qemus(spec.id), pid);
    signal(pid[0], Signal::CONT);
    until("running again", async || {
        (hypervisor.inspect(spec.id).await.unwrap() == RUNNING).then_some(())
    })
    .await;
    signal(pid[0], Signal::STOP);
    assert_eq!(
        hypervisor.stop(spec.id, 1, StopMode::Force).await.unwrap(),
        Stopped::Forced,
        "a kill needs no answer"
    );
    assert!(qemus(spec.id).is_empty());
    assert_eq!(host.live(spec.id)["cause"], "host-request");
}

#[tokio::test]
async fn a_monitor_in_foreign_hands_cannot_be_told_until_it_is_free() {
    let host = Host::new();
    let spec = host.spec("zombie", Mode::Idle);
    let hypervisor = host.open().await;
    hypervisor.define(&spec).await.unwrap();
    hypervisor.start(spec.id, 1).await.unwrap();
    hypervisor.close().await;
    let foreign = connect(&host.vm_dir(spec.id).join("run/qmp.sock"), PATIENCE)
        .await
        .unwrap();
    let hypervisor = host.open_with(host.config().with_timeouts(quick())).await;
    assert!(matches!(
        hypervisor.inspect(spec.id).await.unwrap(),
        Inspection::CannotTell { .. }
    ));
    assert_eq!(
        hypervisor.start(spec.id, 1).await.unwrap_err().kind(),
        ErrorKind::Unavailable
    );
    assert_eq!(qemus(spec.id).len(), 1);
    drop(foreign);
    until("taken over", async || {
        (hypervisor.inspect(spec.id).await.unwrap() == RUNNING).then_some(())
    })
    .await;
}

#[tokio::test]
async fn damaged_records_are_neither_used_nor_overwritten() {
    let host = Host::new();
    let (desc, live) = (host.spec("desc", Mode::Idle), host.spec("live", Mode::Idle));
    let newer = host.spec("newer", Mode::Idle);
    let hypervisor = host.open().await;
    for spec in [&desc, &live, &newer] {
        hypervisor.define(spec).await.unwrap();
    }
    hypervisor.close().await;
    fs::write(host.vm_dir(desc.id).join("desc.json"), b"{\"form").unwrap();
    fs::write(host.vm_dir(live.id).join("live.json"), b"\0\0\0").unwrap();
    fs::write(
        host.vm_dir(newer.id).join("live.json"),
        br#"{"format": 2, "phase": "off"}"#,
    )
    .unwrap();
    let hypervisor = host.open().await;
    let listed = hypervisor.list().await.unwrap();
    assert_eq!(listed.len(), 3, "they are there: {listed:?}");
    for spec in [&desc, &live, &newer] {
        assert!(matches!(
            hypervisor.inspect(spec.id).await.unwrap(),
            Inspection::CannotTell { .. }
        ));
        assert_eq!(
            hypervisor.start(spec.id, 1).await.unwrap_err().kind(),
            ErrorKind::Corrupt
        );
        assert_eq!(
            hypervisor.define(spec).await.unwrap_err().kind(),
            ErrorKind::Corrupt
        );
        assert_eq!(
            hypervisor.undefine(spec.id, 1).await.unwrap_err().kind(),
            ErrorKind::Corrupt
        );
    }
    assert_eq!(
        fs::read(host.vm_dir(desc.id).join("desc.json")).unwrap(),
        b"{\"form"
    );
}

#[tokio::test]
async fn what_was_half_removed_or_half_made_is_swept_and_foreign_things_stay() {
    let host = Host::new();
    let spec = host.spec("swept", Mode::Idle);
    drop(host.open().await);
    let vms = host.temp.path().join("vms");
    let foreign = vms.join("lost+found");
    let (half, gone) = (host.vm_dir(spec.id), vms.join(format!(".gone-{}-0", spec.id)));
    for dir in [&foreign, &half, &gone] {
        fs::create_dir(dir).unwrap();
        fs::write(dir.join("file"), b"x").unwrap();
    }
    let hypervisor = host.open().await;
    assert_eq!(hypervisor.inspect(spec.id).await.unwrap(), Inspection::Absent);
    assert!(foreign.exists() && !half.exists() && !gone.exists());
    hypervisor.define(&spec).await.unwrap();
    assert_eq!(hypervisor.inspect(spec.id).await.unwrap(), STOPPED);
}

#[tokio::test]
async fn a_stop_that_was_cut_short_is_forgotten_by_a_start() {
    let host = Host::new();
    let spec = host.spec("stopping", Mode::Idle);
    let hypervisor = host.open().await;
    hypervisor.define(&spec).await.unwrap();
    hypervisor.start(spec.id, 1).await.unwrap();
    hypervisor.close().await;
    let mut live = host.live(spec.id);
    live["phase"] = json!("stopping");
    host.set_live(spec.id, &live);
    let hypervisor = host.open().await;
    hypervisor.start(spec.id, 1).await.unwrap();
    signal(qemus(spec.id)[0], Signal::KILL);
    until("the end", async || {
        (hypervisor.inspect(spec.id).await.unwrap() == CRASHED).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_held_guest_is_not_asked_but_forced() {
    let host = Host::new();
    let spec = host.spec("held", Mode::Live);
    let hypervisor = host.open().await;
    hypervisor.define(&spec).await.unwrap();
    hypervisor.start(spec.id, 1).await.unwrap();
    hypervisor.close().await;
    let (client, connection) = connect(&host.vm_dir(spec.id).join("run/qmp.sock"), PATIENCE)
        .await
        .unwrap();
    tokio::select! { biased; done = client.stop(PATIENCE) => done.unwrap(), why = connection.run() => panic!("{why:?}") }
    drop(client);
    let hypervisor = host.open().await;
    // Longer than the test may take.
    let mode = StopMode::Graceful {
        timeout: PATIENCE * 100,
    };
    let stopped = tokio::time::timeout(PATIENCE, hypervisor.stop(spec.id, 1, mode))
        .await
        .expect("at once");
    assert_eq!(stopped.unwrap(), Stopped::Forced);
}

#[tokio::test]
async fn a_closed_hypervisor_does_nothing_more() {
    let host = Host::new();
    let spec = host.spec("closed", Mode::Idle);
    let hypervisor = host.open().await;
    hypervisor.close().await;
    assert_eq!(
        hypervisor.define(&spec).await.unwrap_err().kind(),
        ErrorKind::Unavailable
    );
    assert_eq!(
        host.open().await.inspect(spec.id).await.unwrap(),
        Inspection::Absent
    );
}
