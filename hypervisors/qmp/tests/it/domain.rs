//! Domains on real QEMU: what stands on the command line, what start refuses, who may look into the files.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::Command;

use skyloom_hypervisor::{DiskSpec, ErrorKind, Hypervisor, Inspection, NicSpec, Result, StopMode, VmSpec};
use skyloom_model::{DiskFormat, MacAddr, NicKind, PowerState};
use skyloom_qmp::{QmpHypervisor, RunAs};

use crate::guest::Mode;
use crate::host::{Host, cmdline, qemus};

fn kind<T: std::fmt::Debug>(result: Result<T>) -> ErrorKind {
    result.unwrap_err().kind()
}

async fn power(hypervisor: &QmpHypervisor, spec: &VmSpec) -> PowerState {
    match hypervisor.inspect(spec.id).await.unwrap() {
        Inspection::Found { power, .. } => power,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn hostile_names_never_reach_the_command_line() {
    let host = Host::new();
    let hypervisor = host.open().await;
    let marker = host.temp.path().join("marker");
    let names = [
        "x,file=/etc/shadow".to_owned(),
        "-drive".to_owned(),
        "--help".to_owned(),
        format!("$(touch {})", marker.display()),
        format!("`touch {}`;|&", marker.display()),
        "'\"*?[a]".to_owned(),
        "../../etc/passwd".to_owned(),
        r#""},"execute":"quit""#.to_owned(),
        "%s%n".to_owned(),
    ];
    let mut shapes = Vec::new();
    for name in &names {
        let spec = host.spec(name, Mode::Idle);
        hypervisor.define(&spec).await.unwrap();
        hypervisor.start(spec.id, 1).await.unwrap();
        let argv = cmdline(Path::new(&format!("/proc/{}", qemus(spec.id)[0])));
        assert!(argv.iter().all(|a| !a.contains(name.as_str())), "{argv:?}");
        // But for the id all command lines are one.
        shapes.push(
            argv.iter()
                .map(|a| a.replace(&spec.id.to_string(), "ID"))
                .collect::<Vec<_>>(),
        );
        let desc: serde_json::Value =
            serde_json::from_slice(&fs::read(host.vm_dir(spec.id).join("desc.json")).unwrap()).unwrap();
        assert_eq!(desc["spec"]["name"], **name, "the name is kept as it is");
        assert_eq!(
            host.live(spec.id)["run"]["argv"].as_array().unwrap().len(),
            argv.len() - 1,
            "argv is recorded"
        );
        hypervisor.undefine(spec.id, 1).await.unwrap();
    }
    assert!(shapes.windows(2).all(|two| two[0] == two[1]));
    assert!(!marker.exists());
}

#[tokio::test]
async fn live_json_tells_process_devices_and_accelerator() {
    let host = Host::new();
    let hypervisor = host.open().await;
    let mut spec = host.spec("devices", Mode::Idle);
    spec.nics.push(NicSpec {
        device: None,
        kind: NicKind::User,
        mac: MacAddr::qemu([1, 2, 3]),
    });
    hypervisor.define(&spec).await.unwrap();
    hypervisor.start(spec.id, 1).await.unwrap();
    let run = &host.live(spec.id)["run"];
    assert_eq!(run["process"]["pid"], qemus(spec.id)[0]);
    for (device, port) in [("disk-root", 0), ("nic-525400010203", 1)] {
        assert_eq!(run["shape"]["ports"][device], port, "the root port of {device}");
    }
    let facts = hypervisor.facts().await.unwrap();
    assert_eq!(run["accelerator"]["kind"], facts.accelerator.as_str());
    assert_eq!(run["accelerator"]["reason"], facts.accelerator_reason.as_str());
    assert_eq!(run["qemu_version"], facts.hypervisor_version.as_str());
    assert!(facts.capacity.disk_gib > 0);
}

#[tokio::test]
async fn files_are_private_and_the_guest_has_its_own_session() {
    let host = Host::new();
    let hypervisor = host.open().await;
    let spec = host.spec("private", Mode::Idle);
    hypervisor.define(&spec).await.unwrap();
    hypervisor.start(spec.id, 1).await.unwrap();
    let dir = host.vm_dir(spec.id);
    let mode = |name: &str| fs::metadata(dir.join(name)).unwrap().permissions().mode() & 0o777;
    for name in ["desc.json", "live.json", "serial.log", "qemu.log"] {
        assert_eq!(mode(name), 0o600, "{name}");
    }
    assert_eq!((mode("."), mode("run")), (0o700, 0o700));
    let stat = fs::read_to_string(format!("/proc/{}/stat", qemus(spec.id)[0])).unwrap();
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap().split(' ').collect();
    let (group, session) = (fields[2], fields[3]);
    assert_eq!(
        (group, session),
        (&*qemus(spec.id)[0].to_string(), &*qemus(spec.id)[0].to_string())
    );
}

#[tokio::test]
async fn a_long_data_directory_is_no_problem() {
    let host = Host::new();
    let deep = host.temp.path().join("d".repeat(120)).join("e".repeat(120));
    let mut config = host.config();
    config.dir = deep;
    let hypervisor = host.open_with(config).await;
    let spec = host.spec("deep", Mode::Idle);
    hypervisor.define(&spec).await.unwrap();
    hypervisor.start(spec.id, 1).await.unwrap();
    assert_eq!(power(&hypervisor, &spec).await, PowerState::Running);
}

#[tokio::test]
async fn a_directory_is_used_by_one_hypervisor() {
    let host = Host::new();
    let hypervisor = host.open().await;
    assert_eq!(
        kind(QmpHypervisor::open(host.config()).await),
        ErrorKind::Conflict
    );
    hypervisor.close().await;
    host.open().await;
}

#[tokio::test]
async fn no_emulator_is_told_at_open() {
    let host = Host::new();
    assert_eq!(
        kind(QmpHypervisor::open(host.config().with_qemu("/nonexistent/qemu")).await),
        ErrorKind::NotFound
    );
    assert_eq!(
        kind(QmpHypervisor::open(host.config().with_qemu("/bin/true")).await),
        ErrorKind::Unsupported
    );
}

#[tokio::test]
async fn a_refused_start_says_why_and_leaves_the_domain_off() {
    let host = Host::new();
    let hypervisor = host.open().await;
    let disk = |spec: &mut VmSpec, change: fn(&mut DiskSpec)| change(&mut spec.disks[0]);

    let mut gone = host.spec("gone", Mode::Idle);
    disk(&mut gone, |d| {
        d.path.set_extension("missing").then_some(()).unwrap()
    });
    let mut not_qcow2 = host.spec("not-qcow2", Mode::Idle);
    disk(&mut not_qcow2, |d| d.format = DiskFormat::Qcow2);
    let mut no_overlay = host.spec("no-overlay", Mode::Idle);
    disk(&mut no_overlay, |d| {
        (d.format, d.backing_format) = (DiskFormat::Qcow2, Some(DiskFormat::Raw))
    });
    let owner = host.spec("owner", Mode::Idle);
    let mut thief = host.spec("thief", Mode::Idle);
    thief.disks[0].path = owner.disks[0].path.clone();
    hypervisor.define(&owner).await.unwrap();
    hypervisor.start(owner.id, 1).await.unwrap();
    let mut huge = host.spec("huge", Mode::Idle);
    huge.memory_mib = 4 * 1024 * 1024;

    for (spec, wanted) in [
        (gone, &[ErrorKind::NotFound][..]),
        (not_qcow2, &[ErrorKind::Refused]),
        (no_overlay, &[ErrorKind::Corrupt]),
        (thief, &[ErrorKind::Conflict]),
        (huge, &[ErrorKind::Full, ErrorKind::Refused]),
    ] {
        hypervisor.define(&spec).await.unwrap();
        let error = hypervisor.start(spec.id, 1).await.unwrap_err();
        assert!(wanted.contains(&error.kind()), "{} {error}", spec.name);
        assert_eq!(
            power(&hypervisor, &spec).await,
            PowerState::Stopped,
            "{}",
            spec.name
        );
        assert!(qemus(spec.id).is_empty());
    }
    assert_eq!(power(&hypervisor, &owner).await, PowerState::Running);
}

#[tokio::test]
async fn an_order_is_taken_on_before_it_is_carried_out() {
    let host = Host::new();
    let hypervisor = host.open().await;
    let mut spec = host.spec("cannot", Mode::Idle);
    spec.disks[0].path.set_extension("missing");
    hypervisor.define(&spec).await.unwrap();
    assert_eq!(kind(hypervisor.start(spec.id, 5).await), ErrorKind::NotFound);
    drop(hypervisor);
    let hypervisor = host.open().await;
    let stopped = Inspection::Found {
        generation: 5,
        power: PowerState::Stopped,
    };
    assert_eq!(hypervisor.inspect(spec.id).await.unwrap(), stopped);
    assert_eq!(kind(hypervisor.start(spec.id, 4).await), ErrorKind::Stale);
}

#[tokio::test]
async fn a_bad_spec_leaves_nothing() {
    let host = Host::new();
    let hypervisor = host.open().await;
    let mut spec = host.spec("bad", Mode::Idle);
    spec.vcpus = 0;
    assert_eq!(kind(hypervisor.define(&spec).await), ErrorKind::Invalid);
    assert_eq!(hypervisor.inspect(spec.id).await.unwrap(), Inspection::Absent);
    assert!(!host.vm_dir(spec.id).exists());
}

/// A header that names a host file as its backing file: whoever follows it leaks the file to the guest.
#[tokio::test]
async fn a_header_cannot_name_a_file_that_the_spec_does_not_know() {
    let host = Host::new();
    let hypervisor = host.open().await;
    let secret = host.temp.path().join("secret.raw");
    fs::write(&secret, vec![b's'; 1 << 20]).unwrap();
    let mut spec = host.spec("leak", Mode::Idle);
    let evil = host.temp.path().join("evil.qcow2");
    let made = Command::new("qemu-img")
        .args(["create", "-q", "-f", "qcow2", "-F", "raw", "-b"])
        .arg(&secret)
        .arg(&evil)
        .status();
    assert!(made.unwrap().success());
    spec.disks.push(DiskSpec {
        limits: None,
        name: "evil".into(),
        path: evil,
        format: DiskFormat::Qcow2,
        backing_format: None,
        read_only: false,
    });
    hypervisor.define(&spec).await.unwrap();
    hypervisor.start(spec.id, 1).await.unwrap();
    let fds = fs::read_dir(format!("/proc/{}/fd", qemus(spec.id)[0])).unwrap();
    let open: Vec<_> = fds
        .filter_map(|fd| fs::read_link(fd.unwrap().path()).ok())
        .collect();
    assert!(open.contains(&spec.disks[1].path), "{open:?}");
    assert!(!open.contains(&secret), "{open:?}");
}

#[tokio::test]
async fn qemu_runs_as_the_user_that_is_named() {
    let host = Host::new();
    let (me, mine) = (rustix::process::getuid(), rustix::process::getgid());
    // Only root can become somebody else.
    let run_as = if me.is_root() {
        RunAs {
            uid: 65534,
            gid: 65534,
        }
    } else {
        RunAs {
            uid: me.as_raw(),
            gid: mine.as_raw(),
        }
    };
    fs::set_permissions(host.temp.path(), fs::Permissions::from_mode(0o711)).unwrap();
    let hypervisor = host.open_with(host.config().with_run_as(Some(run_as))).await;
    let spec = host.spec("nobody", Mode::Live);
    std::os::unix::fs::chown(&spec.disks[0].path, Some(run_as.uid), Some(run_as.gid)).unwrap();
    hypervisor.define(&spec).await.unwrap();
    hypervisor.start(spec.id, 1).await.unwrap();
    let proc = fs::metadata(format!("/proc/{}", qemus(spec.id)[0])).unwrap();
    assert_eq!((proc.uid(), proc.gid()), (run_as.uid, run_as.gid));
    let status = fs::read_to_string(format!("/proc/{}/status", qemus(spec.id)[0])).unwrap();
    if me.is_root() {
        let groups = status.lines().find_map(|l| l.strip_prefix("Groups:")).unwrap();
        assert_eq!(groups.trim(), "", "no group of root is kept");
    }
    // Our records stay ours.
    assert_eq!(
        fs::metadata(host.vm_dir(spec.id).join("live.json"))
            .unwrap()
            .uid(),
        me.as_raw()
    );
    assert_eq!(power(&hypervisor, &spec).await, PowerState::Running);
    hypervisor.stop(spec.id, 1, StopMode::Force).await.unwrap();
    hypervisor.start(spec.id, 1).await.unwrap();
}
