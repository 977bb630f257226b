//! Domains on a real daemon: what stands in their XML, what start refuses, what is not ours.

use std::fs;
use std::path::Path;
use std::process::Command;

use skyloom_hypervisor::{
    Console, DiskSpec, ErrorKind, Hypervisor, Inspection, NicSpec, Result, StopMode, VmSpec,
};
use skyloom_libvirt::LibvirtHypervisor;
use skyloom_model::{DiskFormat, IoLimits, MacAddr, NicKind, PowerState};
use virt::connect::Connect;
use virt::domain::Domain;

use crate::guest::Mode;
use crate::host::{Host, cmdline, fresh_uuid, qemus, quick, until};

fn kind<T: std::fmt::Debug>(result: Result<T>) -> ErrorKind {
    result.unwrap_err().kind()
}

async fn power(hypervisor: &LibvirtHypervisor, spec: &VmSpec) -> PowerState {
    match hypervisor.inspect(spec.id).await.unwrap() {
        Inspection::Found { power, .. } => power,
        other => panic!("{other:?}"),
    }
}

/// Asks libvirt without our hypervisor.
pub(crate) fn libvirt<T>(host: &Host, ask: impl FnOnce(&Connect) -> T) -> T {
    let mut conn = Connect::open(Some(&host.uri())).unwrap();
    let answer = ask(&conn);
    conn.close().unwrap();
    answer
}

pub(crate) fn xml(host: &Host, spec: &VmSpec) -> String {
    libvirt(host, |conn| {
        let domain = Domain::lookup_by_uuid_string(conn, &spec.id.to_string()).unwrap();
        domain.get_xml_desc(virt_sys::VIR_DOMAIN_XML_INACTIVE).unwrap()
    })
}

#[tokio::test]
async fn hostile_names_reach_neither_libvirt_nor_the_command_line() {
    let host = Host::new();
    let hypervisor = host.open().await;
    let names = [
        "x,file=/etc/shadow",
        "</name><evil/>",
        "]]>&lt;&#0;",
        "$(reboot)",
        "--help",
        "名前 \u{1f600}",
    ];
    let mut shapes = Vec::new();
    for name in names {
        let spec = host.spec(name, Mode::Idle);
        hypervisor.define(&spec).await.unwrap();
        hypervisor.start(spec.id, 1).await.unwrap();
        let argv = cmdline(Path::new(&format!("/proc/{}", qemus(spec.id)[0])));
        assert!(argv.iter().all(|a| !a.contains(name)), "{argv:?}");
        let made = xml(&host, &spec);
        assert!(made.contains(&format!("<name>{}</name>", spec.id)), "{made}");
        assert!(!made.contains("<evil"), "{made}");
        let id = spec.id.to_string();
        let same = |line: &&str| !line.contains(&id) && !line.contains("skyloom:");
        shapes.push(made.lines().filter(same).collect::<Vec<_>>().join("\n"));
        hypervisor.undefine(spec.id, 1).await.unwrap();
    }
    assert!(shapes.windows(2).all(|two| two[0] == two[1]), "{shapes:#?}");
}

#[tokio::test]
async fn devices_are_those_of_the_spec_and_nothing_else() {
    let host = Host::new();
    let hypervisor = host.open().await;
    let mut spec = host.spec("devices", Mode::Idle);
    spec.disks[0].limits = Some(IoLimits {
        operations: Some(1000),
        bytes: Some(50_000_000),
    });
    spec.nics.push(NicSpec {
        device: None,
        kind: NicKind::User,
        mac: MacAddr::qemu([1, 2, 3]),
    });
    hypervisor.define(&spec).await.unwrap();
    hypervisor.start(spec.id, 1).await.unwrap();
    let made = xml(&host, &spec);
    for needed in [
        "<total_bytes_sec>50000000</total_bytes_sec>",
        "<total_iops_sec>1000</total_iops_sec>",
        "<serial>root</serial>",
        "52:54:00:01:02:03",
        "<memballoon model='none'/>",
        "model='none'",
        "<backingStore/>",
    ] {
        assert!(made.contains(needed), "{needed} in {made}");
    }
    for unwanted in ["<graphics", "<sound", "<rng"] {
        assert!(!made.contains(unwanted), "{unwanted} in {made}");
    }
    let argv = cmdline(Path::new(&format!("/proc/{}", qemus(spec.id)[0]))).join(" ");
    for needed in [
        "-accel tcg",
        "-nodefaults",
        "-sandbox on",
        "\"serial\":\"root\"",
        "-display none",
    ] {
        assert!(argv.contains(needed), "{needed} in {argv}");
    }
    let facts = hypervisor.facts().await.unwrap();
    assert_eq!(
        (facts.hypervisor.as_str(), facts.accelerator.as_str()),
        ("libvirt", "tcg")
    );
    assert!(
        facts.hypervisor_version.contains("libvirt"),
        "{}",
        facts.hypervisor_version
    );
}

#[tokio::test]
async fn a_refused_start_says_why_and_leaves_the_domain_off() {
    let host = Host::new();
    let hypervisor = host.open().await;
    let mut gone = host.spec("gone", Mode::Idle);
    gone.disks[0].path.set_extension("missing");
    let mut not_qcow2 = host.spec("not-qcow2", Mode::Idle);
    not_qcow2.disks[0].format = DiskFormat::Qcow2;
    let mut no_overlay = host.spec("no-overlay", Mode::Idle);
    no_overlay.disks[0].format = DiskFormat::Qcow2;
    no_overlay.disks[0].backing_format = Some(DiskFormat::Raw);
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
        let said = skyloom_model::report(&error);
        assert!(wanted.contains(&error.kind()), "{} {said}", spec.name);
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
    assert!(!host.path("logs").join(spec.id.to_string()).exists());
}

/// A header that names a host file as its backing file: whoever follows it leaks the file to the guest.
#[tokio::test]
async fn a_header_cannot_name_a_file_that_the_spec_does_not_know() {
    let host = Host::new();
    let hypervisor = host.open().await;
    let secret = host.path("secret.raw");
    fs::write(&secret, vec![b's'; 1 << 20]).unwrap();
    let mut spec = host.spec("leak", Mode::Idle);
    let evil = host.path("evil.qcow2");
    let made = Command::new("qemu-img")
        .args(["create", "-q", "-f", "qcow2", "-F", "raw", "-b"])
        .arg(&secret)
        .arg(&evil)
        .status();
    assert!(made.unwrap().success());
    host.give(&secret);
    host.give(&evil);
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
async fn domains_of_others_are_neither_listed_nor_touched() {
    let host = Host::new();
    let hypervisor = host.open().await;
    let (foreign, twin) = (fresh_uuid(), host.spec("twin", Mode::Idle));
    let plain = |name: &str, uuid: &str| {
        format!(
            "<domain type='qemu'><name>{name}</name><uuid>{uuid}</uuid><memory>16384</memory><os><type>hvm</type></os></domain>"
        )
    };
    let id = twin.id.to_string();
    libvirt(&host, |conn| {
        Domain::define_xml(conn, &plain("web-1", &foreign.to_string())).unwrap();
        Domain::define_xml(conn, &plain(&id, &id)).unwrap();
    });
    assert_eq!(hypervisor.list().await.unwrap(), []);
    let seen = hypervisor.inspect(twin.id).await.unwrap();
    assert!(matches!(seen, Inspection::CannotTell { .. }), "{seen:?}");
    assert_eq!(kind(hypervisor.define(&twin).await), ErrorKind::Conflict);
    assert_eq!(kind(hypervisor.start(twin.id, 1).await), ErrorKind::Conflict);
    assert_eq!(
        kind(hypervisor.stop(twin.id, 1, StopMode::Force).await),
        ErrorKind::Conflict
    );
    assert_eq!(kind(hypervisor.undefine(twin.id, 1).await), ErrorKind::Conflict);
    libvirt(&host, |conn| {
        assert_eq!(conn.list_all_domains(0).unwrap().len(), 2)
    });
}

#[tokio::test]
async fn damaged_records_are_neither_used_nor_overwritten() {
    let host = Host::new();
    let hypervisor = host.open().await;
    let spec = host.spec("damaged", Mode::Idle);
    hypervisor.define(&spec).await.unwrap();
    let damaged = xml(&host, &spec).replace("generation=\"1\"", "generation=\"2\"");
    libvirt(&host, |conn| drop(Domain::define_xml(conn, &damaged).unwrap()));
    let seen = hypervisor.inspect(spec.id).await.unwrap();
    assert!(matches!(seen, Inspection::CannotTell { .. }), "{seen:?}");
    assert_eq!(hypervisor.list().await.unwrap().len(), 1, "it is there");
    assert_eq!(kind(hypervisor.define(&spec).await), ErrorKind::Corrupt);
    assert_eq!(kind(hypervisor.start(spec.id, 1).await), ErrorKind::Corrupt);
    assert_eq!(kind(hypervisor.undefine(spec.id, 9).await), ErrorKind::Corrupt);
    assert!(xml(&host, &spec).contains("generation=\"2\""));
}

#[tokio::test]
async fn a_flooding_console_stays_bounded() {
    const LIMIT: u64 = 40_000;
    let host = Host::new();
    let hypervisor = host
        .open_with(host.config().with_timeouts(quick()).with_log_bytes(LIMIT))
        .await;
    let spec = host.spec("flood", Mode::Flood);
    hypervisor.define(&spec).await.unwrap();
    hypervisor.start(spec.id, 1).await.unwrap();
    let dir = host.path("logs").join(spec.id.to_string());
    let old = dir.join("serial.log.1");
    for _ in 0..3 {
        let before = fs::read(&old).ok();
        until("a rotation", async || {
            fs::read(&old)
                .ok()
                .filter(|now| Some(now) != before.as_ref())
                .map(drop)
        })
        .await;
    }
    hypervisor.stop(spec.id, 1, StopMode::Force).await.unwrap();
    let tail = hypervisor.console_tail(spec.id, 1 << 24).await.unwrap();
    assert!(tail.len() as u64 > LIMIT, "both files: {}", tail.len());
    hypervisor.undefine(spec.id, 1).await.unwrap();
    assert!(!dir.exists(), "nothing stays");
}

#[tokio::test]
async fn what_removed_domains_left_is_swept_and_foreign_things_stay() {
    let host = Host::new();
    let spec = host.spec("stays", Mode::Idle);
    let hypervisor = host.open().await;
    hypervisor.define(&spec).await.unwrap();
    drop(hypervisor);
    let logs = host.path("logs");
    let (foreign, left) = (logs.join("lost+found"), logs.join(fresh_uuid().to_string()));
    for dir in [&foreign, &left] {
        fs::create_dir(dir).unwrap();
    }
    let hypervisor = host.open().await;
    assert!(foreign.exists() && !left.exists() && logs.join(spec.id.to_string()).exists());
    assert_eq!(hypervisor.list().await.unwrap().len(), 1);
}
