//! Canned records, as the API gives them.

use serde_json::{Value, json};

pub(crate) const PROJECT: &str = "01980000-0000-7000-8000-0000000000aa";
pub(crate) const HOST: &str = "01980000-0000-7000-8000-0000000000bb";
pub(crate) const TASK: &str = "01990000-0000-7000-8000-0000000000cc";

/// A UUID whose beginning is telling.
pub(crate) fn id(n: u32) -> String {
    format!("{n:08x}-0000-7000-8000-000000000001")
}

fn meta(id: &str, name: &str) -> Value {
    json!({"id": id, "name": name, "scope": {"project": PROJECT}, "labels": {"env": "test"}, "generation": 1,
        "created_at": "2026-01-01T00:00:00Z", "updated_at": "2026-01-01T00:00:00Z"})
}

fn size() -> Value {
    json!({"resources": {"vcpus": 2, "memory_mib": 2048, "disk_gib": 10}, "host_labels": {}})
}

pub(crate) fn server(n: u32, name: &str) -> Value {
    json!({"meta": meta(&id(n), name),
        "spec": {"flavor": {"id": id(900), "name": "small", "spec": size()}, "image": {"id": id(800), "name": "debian"},
            "hostname": "web", "config_drive": true, "running": true},
        "status": {"lifecycle": "active", "power": "running", "addresses": ["10.0.2.15"],
            "placement": {"host": HOST, "host_name": "host-a"}, "accelerator": "kvm"}})
}

pub(crate) fn flavor(n: u32, name: &str) -> Value {
    json!({"meta": meta(&id(n), name), "spec": size()})
}

pub(crate) fn image(n: u32, name: &str, state: &str) -> Value {
    json!({"meta": meta(&id(n), name),
        "spec": {"format": "qcow2", "source": {"type": "upload"}, "architecture": "x86_64"},
        "status": {"state": state, "size_bytes": 1_610_612_736u64}})
}

pub(crate) fn keypair(n: u32, name: &str) -> Value {
    json!({"meta": meta(&id(n), name),
        "spec": {"public_key": "ssh-ed25519 AAAA me", "fingerprint": "SHA256:abc"}})
}

pub(crate) fn host(name: &str, enabled: bool) -> Value {
    json!({"meta": meta(HOST, name),
        "spec": {"enabled": enabled, "cpu_ratio": 4.0, "memory_ratio": 1.0, "disk_ratio": 1.0,
            "reserved": {"vcpus": 0, "memory_mib": 0, "disk_gib": 0}},
        "status": {"reachable": true, "facts": {"capacity": {"vcpus": 8, "memory_mib": 16384, "disk_gib": 100},
            "architecture": "x86_64", "hypervisor": "qmp", "hypervisor_version": "7.2", "accelerator": "tcg",
            "accelerator_reason": "no /dev/kvm"}}})
}

pub(crate) fn project(name: &str) -> Value {
    json!({"meta": meta(PROJECT, name), "spec": {"description": "x"}})
}

pub(crate) fn token(n: u32, name: &str) -> Value {
    json!({"id": id(n), "name": name, "holder": {"type": "engine"}, "hint": "sky_abcd",
        "created_at": "2026-01-01T00:00:00Z"})
}

pub(crate) fn task(state: &str, reason: Value) -> Value {
    json!({"format": 1, "id": TASK, "scope": {"project": PROJECT}, "flow": "server.create",
        "subject": {"kind": "servers", "id": id(1), "name": "web-1"}, "params": {},
        "actor": {"id": "t", "name": "tester"}, "request_id": "req-of-task", "state": state, "reason": reason,
        "progress": {"done": 1, "total": 2}, "created_at": "2026-01-01T00:00:00Z"})
}

/// A task document with two steps, each in the state given.
pub(crate) fn document(state: &str, reason: Value, disk: &str, start: &str) -> Value {
    let spec = |id: &str, title: &str, after: Value| {
        json!({"id": id, "kind": id, "title": title, "input": {}, "after": after, "place": {"host": HOST},
            "weight": 1})
    };
    let specs = [
        spec("disk.root", "make the root disk", json!([])),
        spec("vm.start", "start the virtual machine", json!(["disk.root"])),
    ];
    let jobs: Vec<Value> = specs
        .iter()
        .zip([disk, start])
        .filter(|(_, state)| !state.is_empty())
        .map(|(spec, state)| {
            json!({"format": 1, "task": TASK, "scope": {"project": PROJECT},
                "subject": {"kind": "servers", "id": id(1), "name": "web-1"}, "generation": 1,
                "request_id": "req-of-task", "spec": spec, "want": "run", "attempt": 1, "state": state,
                "started_at": "2026-01-01T00:00:00Z", "ended_at": "2026-01-01T00:00:00.4Z"})
        })
        .collect();
    json!({"task": task(state, reason),
        "plan": {"format": 1, "task": TASK, "jobs": specs, "made_at": "2026-01-01T00:00:00Z"}, "jobs": jobs})
}

/// A refusal of the API.
pub(crate) fn problem(code: &str, detail: &str) -> Value {
    json!({"type": format!("urn:skyloom:problem:{code}"), "title": "Refused", "status": 0, "detail": detail, "code": code,
        "hint": "do it otherwise", "request_id": "req-of-stub", "retryable": false})
}
