//! The records that examples show: one small cloud.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use serde_json::json;
use skyloom_cloud::custody::{Difference, DifferenceKind, SilentHost};
use skyloom_cloud::{
    Adopted, AdoptedServer, ChangeKind, HoldStatus, HostRoom, MadeFrom, Preview, PreviewStep, QuotaUse,
    RecordChange, Reservation, ShownPlan,
};
use skyloom_model::{
    Actor, Attachment, DiskFormat, Event, EventKind, FORMAT, Flavor, FlavorRef, FlavorSpec, Hold, Host,
    HostFacts, HostSpec, HostStatus, Hostname, Id, Image, ImageRef, ImageSource, ImageSpec, ImageState,
    ImageStatus, Incarnation, JobId, Keypair, KeypairSpec, Lifecycle, MacAddr, Meta, Name, NicKind, OnCrash,
    Order, OrderVerb, Placement, Pool, Port, PortSpec, PortStatus, PowerState, Priority, Progress, Project,
    ProjectSpec, Reason, Resources, RetryPolicy, Scope, Server, ServerSpec, ServerStatus, Snapshot,
    SnapshotDisk, SnapshotOf, SnapshotSpec, SnapshotState, SnapshotStatus, Subject, Task, TaskState,
    Timestamp, Token, TokenHolder, TokenSpec, Volume, VolumeSource, VolumeSpec, VolumeState, VolumeStatus,
    disk_of,
};
use uuid::Uuid;

pub(super) const PUBLIC_KEY: &str =
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJX0NWVkXQ5sbKdNNMgH4k1kcaaz4Qw7oJkqHeT0iKsl me@laptop";
pub(super) const SECRET: &str = "sky_0000000000000000000000000000000000000000000";

fn moment(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap_or(Timestamp::UNIX_EPOCH)
}

pub(super) fn now() -> Timestamp {
    moment(1_767_225_600)
}

pub(super) fn id(n: u128) -> Uuid {
    Uuid::from_u128(0x0198_0c2e_7b7a_7000_8000_0000_0000_0000 + n)
}

fn name(text: &str) -> Name {
    // Only literals of this file come here; a wrong one shows as a missing example.
    Name::new(text).unwrap_or_else(|_| unreachable!("{text} is a name"))
}

fn hostname(text: &str) -> Hostname {
    Hostname::new(text).unwrap_or_else(|_| unreachable!("{text} is a host name"))
}

pub(super) fn meta(n: u128, text: &str, scope: Scope) -> Meta {
    Meta::new(id(n), name(text), scope, now())
}

pub(super) fn own() -> Scope {
    Scope::Project(Id::from_uuid(id(9)))
}

const SMALL: Resources = Resources {
    vcpus: 1,
    memory_mib: 1024,
    disk_gib: 10,
};

pub(super) fn hold() -> HoldStatus {
    let incarnation = Incarnation::first(id(20), id(21));
    HoldStatus {
        incarnation: Some(incarnation),
        hold: Some(Hold {
            format: FORMAT,
            id: id(22),
            since: now(),
            reason: "the storage network is being rebuilt".to_owned(),
            by: "ann".to_owned(),
            incarnation: Some(incarnation),
        }),
        silent_hosts: vec![SilentHost {
            host: Id::from_uuid(id(7)),
            name: "rack1-07".to_owned(),
        }],
        differences: vec![Difference {
            kind: DifferenceKind::Unknown,
            host: Id::from_uuid(id(8)),
            host_name: "rack1-08".to_owned(),
            server: Id::from_uuid(id(23)),
            server_name: None,
        }],
        more: false,
    }
}

pub(super) fn adopted() -> Adopted {
    let taken_over = AdoptedServer {
        server: Id::from_uuid(server().meta.id),
        name: server().meta.name.to_string(),
        power: PowerState::Running,
    };
    Adopted {
        servers: vec![taken_over],
        more: false,
    }
}

pub(super) fn released() -> HoldStatus {
    HoldStatus {
        hold: None,
        silent_hosts: Vec::new(),
        differences: Vec::new(),
        ..hold()
    }
}

pub(super) fn flavor() -> Flavor {
    let spec = FlavorSpec {
        resources: SMALL,
        host_labels: BTreeMap::new(),
    };
    Flavor {
        meta: meta(2, "m1.small", Scope::System),
        spec,
    }
}

/// What a scheduler says when no host can take a server.
pub(super) fn placement_report() -> serde_json::Value {
    json!({
        "considered": 4,
        "fitting": 0,
        "fallen": [
            {"reason": "fewer than 8192 MiB of memory left", "hosts": 3, "alone": 3},
            {"reason": "disabled", "hosts": 1, "alone": 1},
        ],
        "chosen": null,
        "compared": [],
        "nearest": [],
        "for_tenant": [{"changes": [{"type": "shrink", "class": "memory", "to": 6144}], "hosts": 3}],
        "for_operator": [],
    })
}

pub(super) fn image() -> Image {
    Image {
        meta: meta(3, "debian-13", own()),
        spec: ImageSpec {
            format: DiskFormat::Qcow2,
            source: ImageSource::Url {
                url: "https://images.example.org/debian-13.qcow2".to_owned(),
            },
            sha256: None,
            architecture: "x86_64".to_owned(),
            min_disk_gib: 2,
            min_memory_mib: 128,
            public: false,
        },
        status: ImageStatus {
            state: ImageState::Importing,
            size_bytes: 0,
            virtual_size_bytes: 0,
            sha256: None,
            fault: None,
        },
    }
}

pub(super) fn keypair() -> Keypair {
    Keypair {
        meta: meta(4, "laptop", own()),
        spec: KeypairSpec {
            public_key: PUBLIC_KEY.to_owned(),
            fingerprint: "SHA256:8mQnXkZbN1cXb8Vj0lq2u3w4y5z6A7B8C9D0E1F2G3H".to_owned(),
        },
    }
}

pub(super) fn volume() -> Volume {
    Volume {
        meta: meta(15, "data", own()),
        spec: VolumeSpec {
            system: None,
            size_gib: 10,
            format: DiskFormat::Qcow2,
            source: VolumeSource::Blank,
            pool: Pool::Local,
            bootable: false,
            limits: None,
            description: String::new(),
        },
        status: VolumeStatus {
            reserved_gib: 10,
            state: VolumeState::InUse,
            activity: None,
            host: Some(Id::from_uuid(id(6))),
            attachment: Some(Attachment {
                server: Id::from_uuid(id(1)),
                disk: disk_of(Id::from_uuid(id(15))),
                at: now(),
                delete_with_server: false,
            }),
            allocated_bytes: 200_704,
            fault: None,
        },
    }
}

pub(super) fn snapshot() -> Snapshot {
    Snapshot {
        meta: meta(16, "before-upgrade", own()),
        spec: SnapshotSpec {
            of: SnapshotOf::Server {
                server: Id::from_uuid(id(1)),
                memory: false,
            },
            description: String::new(),
        },
        status: SnapshotStatus {
            state: SnapshotState::Available,
            activity: None,
            disks: vec![SnapshotDisk {
                name: "root".to_owned(),
                volume: None,
                virtual_size_bytes: 10 << 30,
            }],
            memory_bytes: 0,
            taken_at: Some(now()),
            fault: None,
        },
    }
}

pub(super) fn port() -> Port {
    Port {
        meta: meta(5, "web-1-0", own()),
        spec: PortSpec {
            server: Some(Id::from_uuid(id(1))),
            goes_with_server: true,
            network: Some(Id::from_uuid(id(17))),
            subnet: Some(Id::from_uuid(id(18))),
            security_groups: vec![Id::from_uuid(id(19))],
            kind: NicKind::Tap,
            mac: MacAddr::qemu([0x12, 0x34, 0x56]),
            address: IpAddr::V4(Ipv4Addr::new(192, 168, 10, 20)),
            prefix_len: 24,
            gateway: Some(IpAddr::V4(Ipv4Addr::new(192, 168, 10, 1))),
            dns: vec![IpAddr::V4(Ipv4Addr::new(192, 168, 10, 2))],
        },
        status: PortStatus { bound: true },
    }
}

pub(super) const JOIN_TOKEN: &str = "skyjoin_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
pub(super) const CERTIFICATE: &str = "-----BEGIN CERTIFICATE-----\n…\n-----END CERTIFICATE-----\n";
pub(super) const CERTIFICATE_REQUEST: &str =
    "-----BEGIN CERTIFICATE REQUEST-----\n…\n-----END CERTIFICATE REQUEST-----\n";

pub(super) fn host() -> Host {
    Host {
        meta: meta(6, "rack1-07", Scope::System),
        spec: HostSpec::default(),
        status: HostStatus {
            reachable: true,
            facts: Some(HostFacts {
                capacity: Resources {
                    vcpus: 32,
                    memory_mib: 131_072,
                    disk_gib: 2000,
                },
                architecture: "x86_64".to_owned(),
                hypervisor: "qmp".to_owned(),
                hypervisor_version: "10.0.2".to_owned(),
                accelerator: "kvm".to_owned(),
                accelerator_reason: "the CPU shows vmx and /dev/kvm opens".to_owned(),
                traits: Vec::new(),
            }),
            ..HostStatus::default()
        },
    }
}

pub(super) fn project() -> Project {
    Project {
        meta: meta(9, "shop", Scope::System),
        spec: ProjectSpec {
            description: "The web shop.".to_owned(),
            ..ProjectSpec::default()
        },
    }
}

pub(super) fn token() -> Token {
    Token {
        meta: meta(7, "engine-1", Scope::System),
        spec: TokenSpec {
            holder: TokenHolder::Engine,
            hint: "sky_0000".to_owned(),
            expires_at: None,
        },
    }
}

pub(super) fn server() -> Server {
    let (flavor, image) = (flavor(), image());
    Server {
        meta: meta(1, "web-1", own()),
        spec: ServerSpec {
            boot_volume: None,
            flavor: FlavorRef {
                id: Id::from_uuid(flavor.meta.id),
                name: flavor.meta.name,
                spec: flavor.spec,
            },
            image: ImageRef {
                id: Id::from_uuid(image.meta.id),
                name: image.meta.name,
            },
            hostname: hostname("web-1"),
            config_drive: true,
            ssh_keys: vec![PUBLIC_KEY.to_owned()],
            metadata: BTreeMap::from([("role".to_owned(), "web".to_owned())]),
            ports: vec![Id::from_uuid(id(5))],
            host_labels: BTreeMap::new(),
            anti_affinity_group: None,
            running: true,
            on_crash: OnCrash::Leave,
            rescue: None,
        },
        status: ServerStatus {
            placement: Some(Placement {
                host: Id::from_uuid(id(6)),
                host_name: name("rack1-07"),
                by: None,
            }),
            addresses: vec!["10.0.2.15".to_owned()],
            accelerator: Some("kvm".to_owned()),
            launched_at: Some(now()),
            ..ServerStatus::new(Lifecycle::Active, PowerState::Running)
        },
    }
}

/// A task that was stuck until an operator gave this order.
pub(super) fn stuck(verb: OrderVerb) -> Task {
    let task = task("server.create");
    let order = Order {
        verb,
        by: Actor {
            id: id(7).to_string(),
            name: "ops".to_owned(),
        },
        at: now(),
        request_id: task.request_id.clone(),
        why: "the disk was deleted by hand".to_owned(),
        carried_out: false,
    };
    Task {
        state: TaskState::Stuck,
        reason: Some(Reason::new(
            "task.undo_failed",
            "cannot undo disk.root: the pool does not answer",
        )),
        resume: Some(TaskState::Unwinding),
        priority: Priority::High,
        orders: vec![order],
        ..task
    }
}

pub(super) fn event() -> Event {
    let task = task("server.create");
    Event {
        format: FORMAT,
        id: Id::from_uuid(id(11)),
        at: now(),
        scope: own(),
        kind: EventKind::TaskAccepted,
        subject: task.subject,
        task: Some(task.id),
        request_id: Some(task.request_id),
        message: "server.create of web-1 was asked for by ci".to_owned(),
        reason: None,
    }
}

pub(super) fn task(flow: &str) -> Task {
    let (kind, subject, called) = match flow.split('.').next() {
        Some("image") => ("images", 3, "debian-13"),
        Some("host") => ("hosts", 6, "rack1-07"),
        Some("volume") => ("volumes", 15, "data"),
        Some("snapshot") => ("snapshots", 16, "before-upgrade"),
        _ => ("servers", 1, "web-1"),
    };
    Task {
        format: FORMAT,
        id: Id::from_uuid(id(8)),
        scope: if kind == "hosts" { Scope::System } else { own() },
        flow: flow.to_owned(),
        subject: Subject {
            kind: kind.to_owned(),
            id: id(subject),
            name: name(called),
        },
        params: json!({}),
        actor: Actor {
            id: id(7).to_string(),
            name: "ci".to_owned(),
        },
        request_id: format!("req-{}", id(10)),
        idempotency_key: None,
        state: TaskState::Queued,
        reason: None,
        progress: Progress::default(),
        owner: None,
        cancel: false,
        priority: Priority::Normal,
        deadline: Some(moment(1_767_225_600 + 24 * 3600)),
        plan_version: 0,
        resume: None,
        orders: Vec::new(),
        result: None,
        created_at: now(),
        planned_at: None,
        ended_at: None,
    }
}

/// What a dry run of a create has shown.
pub(super) fn plan() -> ShownPlan {
    let task = task("server.create");
    let step = |id: &str, kind: &str, title: &str, after: &[&str]| PreviewStep {
        id: JobId::new(id),
        title: title.to_owned(),
        kind: kind.to_owned(),
        place: "rack1-07".to_owned(),
        after: after.iter().map(|a| JobId::new(*a)).collect(),
        weight: 2,
        retry: RetryPolicy::default(),
        timeout_ms: None,
    };
    let created = |kind: &str| RecordChange {
        change: ChangeKind::Created,
        kind: kind.to_owned(),
        id: None,
        name: (kind == "servers").then(|| "web-1".to_owned()),
    };
    let capacity = Resources {
        vcpus: 128,
        memory_mib: 131_072,
        disk_gib: 2000,
    };
    let room = HostRoom {
        name: name("rack1-07"),
        capacity,
        used_before: SMALL,
        used_after: SMALL.plus(SMALL),
        nearly_full: Vec::new(),
    };
    ShownPlan {
        id: id(1),
        at: now(),
        expires_at: moment(1_767_225_600 + 24 * 3600),
        actor: task.actor,
        applied: None,
        preview: Preview {
            quota: vec![QuotaUse {
                resource: "servers".to_owned(),
                used: 3,
                asked: 1,
                limit: Some(10),
            }],
            operation: "servers.create".to_owned(),
            plan: Some(id(1)),
            flow: Some(task.flow),
            subject: Some(task.subject),
            steps: vec![
                step("disk.root", "disk.overlay", "make the root disk", &[]),
                step(
                    "vm.define",
                    "vm.define",
                    "define the virtual machine",
                    &["disk.root"],
                ),
                step(
                    "vm.start",
                    "vm.start",
                    "start the virtual machine",
                    &["vm.define"],
                ),
            ],
            placement: Some(json!({"considered": 4, "fitting": 3})),
            reservation: Some(Reservation {
                resources: SMALL,
                host: Some(room),
            }),
            changes: vec![created("servers"), created("ports"), created("tasks")],
            later: vec!["when the chosen host cannot make it, the next best host is tried".to_owned()],
            risks: Vec::new(),
            made_from: vec![MadeFrom {
                kind: "images".to_owned(),
                id: id(3),
                revision: 41,
            }],
        },
    }
}
