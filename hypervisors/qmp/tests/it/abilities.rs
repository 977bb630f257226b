//! The abilities on a Linux guest that counts: in its memory, on its console, and on its disk `scratch`.

use sha2::{Digest, Sha256};
use skyloom_hypervisor::{
    Console, DiskSpec, ErrorKind, GuestAgent, Hotplug, Hypervisor, Inspection, NicSpec, Pause, Screen,
    SnapshotOrder, Snapshots, StopMode, Suspend, VmSpec,
};
use skyloom_model::{DiskFormat, MacAddr, NicKind, PowerState, Secret, SnapshotId};
use skyloom_qmp::QmpHypervisor;

use crate::guest::{Mode, linux_image};
use crate::host::{Host, content, fresh_uuid, holds, img, img_info, qemus, until};

/// A defined Linux domain of an overlay, with these further disks.
async fn linux(host: &Host, hypervisor: &QmpHypervisor, more: &[&DiskSpec]) -> VmSpec {
    let overlay = host.temp.path().join(format!("{}.qcow2", fresh_uuid()));
    let (base, path) = (linux_image(), overlay.to_str().unwrap());
    let base = base.to_str().unwrap();
    img(&[
        "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", base, path, "1G",
    ]);
    let mut spec = host.spec("linux", Mode::Idle);
    spec.memory_mib = 192;
    spec.disks = vec![DiskSpec {
        limits: None,
        name: "root".into(),
        path: overlay,
        format: DiskFormat::Qcow2,
        backing_format: Some(DiskFormat::Qcow2),
        read_only: false,
    }];
    spec.disks.extend(more.iter().map(|d| (*d).clone()));
    hypervisor.define(&spec).await.unwrap();
    hypervisor.start(spec.id, 1).await.unwrap();
    spec
}

/// The numbers in all lines of this kind on the console.
async fn numbers(hypervisor: &QmpHypervisor, spec: &VmSpec, kind: &str) -> Vec<u64> {
    let tail = hypervisor.console_tail(spec.id, 1 << 20).await.unwrap();
    let start = format!("skyloom-guest {kind} n=");
    let text = String::from_utf8_lossy(&tail).into_owned();
    text.split(&start)
        .skip(1)
        .filter_map(|rest| {
            let (number, ended) = rest.split_at(rest.find(|c: char| !c.is_ascii_digit())?);
            (!ended.is_empty()).then(|| number.parse().unwrap())
        })
        .collect()
}

/// Waits until the console has `count` such lines; all of them.
async fn until_lines(hypervisor: &QmpHypervisor, spec: &VmSpec, kind: &str, count: usize) -> Vec<u64> {
    until(kind, async || {
        let seen = numbers(hypervisor, spec, kind).await;
        (seen.len() >= count).then_some(seen)
    })
    .await
}

async fn power(hypervisor: &QmpHypervisor, spec: &VmSpec) -> PowerState {
    match hypervisor.inspect(spec.id).await.unwrap() {
        Inspection::Found { power, .. } => power,
        other => panic!("{other:?}"),
    }
}

fn number_on(host: &Host, disk: &DiskSpec) -> u64 {
    let bytes = content(host, disk);
    let text = String::from_utf8_lossy(&bytes[..512]).into_owned();
    let line = text.lines().next().unwrap();
    line.strip_prefix("n=").unwrap().parse().unwrap()
}

fn order(disks: &[&str], memory: bool) -> SnapshotOrder {
    SnapshotOrder {
        snapshot: SnapshotId::from_uuid(fresh_uuid()),
        disks: disks.iter().map(|d| (*d).to_owned()).collect(),
        memory,
    }
}

#[tokio::test]
async fn linux_goes_on_where_it_was_suspended() {
    let host = Host::new();
    let hypervisor = host.open().await;
    let scratch = host.disk("scratch", DiskFormat::Qcow2);
    let spec = linux(&host, &hypervisor, &[&scratch]).await;
    until_lines(&hypervisor, &spec, "wrote", 1).await;
    hypervisor.suspend(spec.id, 1).await.unwrap();
    assert!(qemus(spec.id).is_empty());
    let memory = host.vm_dir(spec.id).join("memory.state");
    assert!(memory.exists());
    let before = numbers(&hypervisor, &spec, "heartbeat").await;
    drop(hypervisor);
    let hypervisor = host.open().await;
    assert_eq!(power(&hypervisor, &spec).await, PowerState::Suspended);
    hypervisor.start(spec.id, 1).await.unwrap();
    assert!(!memory.exists(), "nobody goes back to it");
    let after = until_lines(&hypervisor, &spec, "wrote", before.len() + 2).await;
    assert!(
        after.windows(2).all(|two| two[1] == two[0] + 1),
        "it counts on: {after:?}"
    );
    hypervisor.stop(spec.id, 1, StopMode::Force).await.unwrap();
    let last = *numbers(&hypervisor, &spec, "wrote").await.last().unwrap();
    let written = number_on(&host, &scratch);
    assert!(written == last || written == last + 1, "{written} {last}");
}

#[tokio::test]
async fn linux_goes_back_with_its_memory_and_without() {
    let host = Host::new();
    let hypervisor = host.open().await;
    let scratch = host.disk("scratch", DiskFormat::Qcow2);
    let spec = linux(&host, &hypervisor, &[&scratch]).await;
    until_lines(&hypervisor, &spec, "wrote", 1).await;
    let (memory, disks) = (
        order(&["root", "scratch"], true),
        order(&["scratch", "root"], false),
    );
    let found = hypervisor.take(spec.id, 1, &memory).await.unwrap();
    assert!(found.memory_bytes > 1 << 20);
    assert_eq!(found.disks[0], ("root".to_owned(), 1 << 30));
    let taken_at = *numbers(&hypervisor, &spec, "heartbeat").await.last().unwrap();
    let seen = numbers(&hypervisor, &spec, "wrote").await.len();
    until_lines(&hypervisor, &spec, "wrote", seen + 2).await;
    hypervisor.take(spec.id, 1, &disks).await.unwrap();
    let seen = until_lines(&hypervisor, &spec, "wrote", seen + 3).await.len();
    drop(hypervisor);
    let hypervisor = host.open().await;

    // With memory: the counter itself goes back, in a new process.
    let pid = qemus(spec.id);
    hypervisor.revert(spec.id, 1, memory.snapshot).await.unwrap();
    assert_eq!(power(&hypervisor, &spec).await, PowerState::Running);
    assert_ne!(qemus(spec.id), pid);
    let all = until_lines(&hypervisor, &spec, "wrote", seen + 2).await;
    let back = all
        .windows(2)
        .find(|two| two[1] <= two[0])
        .expect("it counts from an earlier number");
    assert!(
        back[1] >= taken_at && back[1] <= taken_at + 1,
        "{all:?}, taken at {taken_at}"
    );
    hypervisor.stop(spec.id, 1, StopMode::Force).await.unwrap();
    let later = number_on(&host, &scratch);

    // Without: what the disk holds is exactly what the snapshot holds.
    let kept = host.temp.path().join("kept");
    let name = format!("snapshot.name={}", disks.snapshot);
    let from = scratch.path.to_str().unwrap();
    img(&[
        "convert",
        "-f",
        "qcow2",
        "-O",
        "raw",
        "-l",
        &name,
        from,
        kept.to_str().unwrap(),
    ]);
    let kept = Sha256::digest(std::fs::read(kept).unwrap());
    hypervisor.revert(spec.id, 1, disks.snapshot).await.unwrap();
    assert_eq!(Sha256::digest(content(&host, &scratch)), kept);
    let then = number_on(&host, &scratch);
    assert!(then >= taken_at + 2, "{then} {later} {taken_at}");
    hypervisor.start(spec.id, 1).await.unwrap();

    for order in [&memory, &disks] {
        hypervisor.forget(spec.id, 1, order.snapshot).await.unwrap();
    }
    hypervisor.stop(spec.id, 1, StopMode::Force).await.unwrap();
    for disk in &spec.disks {
        let left = &img_info(disk)["snapshots"];
        assert!(left.as_array().is_none_or(Vec::is_empty), "{left}");
    }
}

#[tokio::test]
async fn linux_takes_and_lets_go_of_disks_and_nics() {
    let host = Host::new();
    let hypervisor = host.open().await;
    let spec = linux(&host, &hypervisor, &[]).await;
    until_lines(&hypervisor, &spec, "heartbeat", 1).await;
    let scratch = host.disk("scratch", DiskFormat::Qcow2);
    for round in 0..2 {
        hypervisor.attach_disk(spec.id, 1, &scratch).await.unwrap();
        let seen = numbers(&hypervisor, &spec, "wrote").await.len();
        until_lines(&hypervisor, &spec, "wrote", seen + 1).await;
        hypervisor
            .grow_disk(spec.id, 1, "scratch", (2 + round) << 20)
            .await
            .unwrap();
        hypervisor.detach_disk(spec.id, 1, "scratch").await.unwrap();
        assert!(!holds(spec.id, &scratch.path), "nothing holds its file any more");
        let last = *numbers(&hypervisor, &spec, "wrote").await.last().unwrap();
        assert!(number_on(&host, &scratch) >= last, "the guest has written");
        assert_eq!(img_info(&scratch)["virtual-size"], (2 + round) << 20);
    }
    let hypervisor = {
        drop(hypervisor);
        host.open().await
    };
    let nic = NicSpec {
        device: None,
        kind: NicKind::User,
        mac: MacAddr::qemu([0, 0, 9]),
    };
    for _ in 0..2 {
        hypervisor.attach_nic(spec.id, 1, &nic).await.unwrap();
        hypervisor.detach_nic(spec.id, 1, nic.mac).await.unwrap();
    }
    // A disk of its boot goes as well, and a held guest lets go of nothing.
    hypervisor.attach_disk(spec.id, 1, &scratch).await.unwrap();
    hypervisor.stop(spec.id, 1, StopMode::Force).await.unwrap();
    hypervisor.start(spec.id, 1).await.unwrap();
    assert!(holds(spec.id, &scratch.path));
    let beats = numbers(&hypervisor, &spec, "wrote").await.len();
    until_lines(&hypervisor, &spec, "wrote", beats + 1).await;
    hypervisor.detach_disk(spec.id, 1, "scratch").await.unwrap();
    assert!(!holds(spec.id, &scratch.path));
    assert_eq!(
        host.live(spec.id)["run"]["shape"]["ports"]
            .as_object()
            .unwrap()
            .len(),
        1
    );
}

#[tokio::test]
async fn linux_answers_through_its_agent_and_shows_its_screen() {
    let host = Host::new();
    let hypervisor = host.open().await;
    let spec = linux(&host, &hypervisor, &[]).await;
    until("an answer", async || {
        hypervisor.answers(spec.id).await.unwrap().then_some(())
    })
    .await;
    let text = "a \"long\" pass\nword, 云";
    let password = Secret::new(text.to_owned());
    hypervisor.set_password(spec.id, "root", &password).await.unwrap();
    let digest: String = Sha256::digest(text).iter().map(|b| format!("{b:02x}")).collect();
    until("the digest on the console", async || {
        let tail = hypervisor.console_tail(spec.id, 1 << 20).await.unwrap();
        String::from_utf8_lossy(&tail).contains(&digest).then_some(())
    })
    .await;
    let refused = hypervisor
        .set_password(spec.id, "mallory", &password)
        .await
        .unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Refused);
    let words = skyloom_model::report(&refused);
    assert!(
        words.contains("no such user") && !words.contains("long"),
        "{words}"
    );
    let picture = hypervisor.screenshot(spec.id).await.unwrap();
    assert!(
        picture.starts_with(b"\x89PNG") && picture.len() > 500,
        "{}",
        picture.len()
    );
    hypervisor.pause(spec.id, 1).await.unwrap();
    assert!(
        !hypervisor.answers(spec.id).await.unwrap(),
        "a held guest is silent"
    );
    hypervisor.unpause(spec.id, 1).await.unwrap();
    until("an answer again", async || {
        hypervisor.answers(spec.id).await.unwrap().then_some(())
    })
    .await;
}

#[tokio::test]
async fn limits_of_disks_are_real() {
    use skyloom_model::IoLimits;
    let host = Host::new();
    let hypervisor = host.open().await;
    let mut spec = host.spec("limits", Mode::Idle);
    let most = Some(IoLimits {
        operations: Some(77),
        bytes: Some(1 << 20),
    });
    spec.disks[0].limits = most;
    hypervisor.define(&spec).await.unwrap();
    hypervisor.start(spec.id, 1).await.unwrap();
    let block = async || {
        hypervisor.close().await;
        let socket = host.vm_dir(spec.id).join("run/qmp.sock");
        let (client, connection) = skyloom_qmp::client::connect(&socket, crate::host::PATIENCE)
            .await
            .unwrap();
        let asked = client.execute("query-block", serde_json::Value::Null, crate::host::PATIENCE);
        tokio::select! { biased; told = asked => told.unwrap(), why = connection.run() => panic!("{why:?}") }
    };
    let told = block().await;
    let inserted = &told[0]["inserted"];
    assert_eq!(
        (&inserted["iops"], &inserted["bps"]),
        (&77.into(), &(1 << 20).into()),
        "{inserted}"
    );
}
