//! An example for every operation, made of the real types, so that none can be out of date.

mod networks;
mod records;
mod sample;

use serde_json::{Value, json};
use skyloom_model::OrderVerb;
use utoipa::openapi::path::Operation;
use utoipa::openapi::{Components, Content, RefOr};

use self::records as r;
use crate::problem::Problem;

pub(super) const ID: &str = "01980c2e-7b7a-7000-8000-000000000001";

/// Writes an operation's examples into its request body and its good answer.
pub(super) fn fill(operation: &mut Operation, known: &Components) {
    let Some(id) = operation.operation_id.clone() else {
        return;
    };
    if let Some(RefOr::T(body)) = &mut operation.request_body {
        let written = request(&id);
        body.content
            .values_mut()
            .for_each(|content| put(content, written.as_ref(), known));
    }
    let written = answer(&id);
    for (status, response) in &mut operation.responses.responses {
        if let (true, RefOr::T(response)) = (status.starts_with('2'), response) {
            // A host is answered something else than a person.
            let of_host = id == "upload_image" && status == "200";
            let written = written.as_ref().filter(|_| !of_host);
            response
                .content
                .values_mut()
                .for_each(|content| put(content, written, known));
        }
    }
}

/// The example that is written, or one of the schema.
fn put(content: &mut RefOr<Content>, written: Option<&Value>, known: &Components) {
    if let RefOr::T(content) = content {
        let of_schema = || content.schema.as_ref().map(|schema| sample::of(schema, known, 0));
        content.example = written.cloned().or_else(of_schema);
    }
}

pub(super) fn problem(status: u16, about: &str) -> Value {
    let title = http::StatusCode::from_u16(status)
        .ok()
        .and_then(|s| s.canonical_reason())
        .unwrap_or_default();
    let code = match status {
        400 => "body.malformed",
        401 => "auth.required",
        403 => "role.denied",
        404 => "server.not_found",
        408 => "body.too_slow",
        409 => "server.busy",
        412 => "precondition.failed",
        413 => "body.too_large",
        415 => "body.media_type",
        422 => "field.invalid",
        429 => "caller.too_many",
        503 => "store.unavailable",
        504 => "request.timeout",
        _ => "internal",
    };
    json!(Problem {
        r#type: format!("urn:skyloom:problem:{code}"),
        title: title.to_owned(),
        status,
        detail: about.to_owned(),
        code: code.to_owned(),
        hint: None,
        request_id: format!("req-{ID}"),
        retryable: matches!(status, 429 | 503 | 504),
        errors: Vec::new(),
        store: None,
    })
}

/// What dry runs answer.
pub(super) fn preview() -> Value {
    json!(r::plan().preview)
}

/// The request bodies.
pub(super) fn request(operation: &str) -> Option<Value> {
    Some(match operation {
        "create_server" => json!({
            "name": "web-1", "image": "debian-13", "flavor": "m1.small", "keypairs": ["laptop"],
            "metadata": {"role": "web"}, "networks": [{"kind": "user", "vnic_type": "normal"}],
        }),
        "create_servers" => json!({
            "count": 3, "server": {"name": "web", "image": "debian-13", "flavor": "m1.small"},
        }),
        "batch_servers" => {
            json!({"action": "stop", "selector": {"labels": {"env": "test"}}, "options": {"force": false}})
        }
        "update_server" => json!({"name": "web-1", "labels": {"env": "test"}}),
        "start_server_rescue" => json!({"image": "rescue"}),
        "set_server_password" => json!({}),
        "set_server_keys" => json!({"keypairs": ["laptop"]}),
        "resize_server" => json!({"flavor": "m1.large", "confirm_after_seconds": 86400}),
        "migrate_server" => json!({"host": "rack1-08", "timeout_seconds": 60}),
        "live_migrate_server" | "evacuate_server" => json!({"host": "rack1-08"}),
        "drain_host" => json!({"why": "a fan is broken", "at_once": 2}),
        "fence_host" => json!({"why": "mainboard burnt; power cord pulled", "is_off": true}),
        "rebuild_server" => json!({"image": "debian-13", "timeout_seconds": 60}),
        "lock_server" => json!({"why": "month end: no restarts"}),
        "stop_server" | "reboot_server" | "shelve_server" => json!({"force": false, "timeout_seconds": 60}),
        "create_flavor" => json!({"name": "m1.small", "vcpus": 1, "memory_mib": 1024, "disk_gib": 10}),
        "create_image" => json!({
            "name": "debian-13", "format": "qcow2", "url": "https://images.example.org/debian-13.qcow2",
        }),
        "upload_image" => json!("(the bytes of the image)"),
        "create_keypair" => json!({"name": "laptop", "public_key": r::PUBLIC_KEY}),
        "create_volume" => json!({"name": "data", "size_gib": 10, "server": ID}),
        "grow_volume" => json!({"size_gib": 20}),
        "limit_volume" => json!({"limits": {"operations": 1000, "bytes": 104_857_600}}),
        "attach_volume" => json!({"server": ID, "delete_with_server": false}),
        "attach_port" => json!({"server": ID}),
        "create_snapshot" => json!({"name": "before-upgrade", "server": ID, "memory": false}),
        "create_network" => json!({"name": "backend", "mtu": 1500}),
        "update_network" => json!({"name": "backend-2"}),
        "create_subnet" => json!({
            "name": "backend-v4", "network": "backend", "cidr": "192.168.10.0/24", "gateway": "192.168.10.1",
            "dns": ["192.168.10.2"],
        }),
        "update_subnet" => json!({"pools": [{"first": "192.168.10.10", "last": "192.168.10.250"}]}),
        "create_port" => {
            json!({"network": "backend", "fixed_address": "192.168.10.20", "security_groups": ["web"]})
        }
        "update_port" => json!({"security_groups": ["web", "default"]}),
        "create_security_group" => json!({"name": "web", "description": "What the world may ask."}),
        "update_security_group" => json!({"description": "What everybody may ask."}),
        "add_security_group_rule" => json!({
            "direction": "ingress", "protocol": "tcp", "port_min": 443, "port_max": 443, "remote_prefix": "0.0.0.0/0",
        }),
        "create_host" => json!({"name": "rack1-07", "labels": {"disk": "nvme"}, "cpu_ratio": 4.0}),
        "patch_host" => json!({"enabled": false}),
        "sweep_host" => json!({"remove": false}),
        "revoke_certificates" => json!({"why": "the machine was stolen"}),
        "join_host" => json!({"token": r::JOIN_TOKEN, "name": "rack1-07", "request": r::CERTIFICATE_REQUEST}),
        "renew_certificate" => json!({"request": r::CERTIFICATE_REQUEST}),
        "set_hold" => json!({"reason": "the storage network is being rebuilt"}),
        "release_hold" => json!({"anyway": false}),
        "retry_task" | "skip_task" | "abandon_task" => json!({"why": "the disk was deleted by hand"}),
        "create_project" => json!({"name": "shop", "description": "The web shop."}),
        "create_token" => json!({"name": "engine-1", "holder": {"type": "engine"}}),
        "store_capability" => json!({}),
        "store_get" => json!({"key": "vms/h1/s1"}),
        "store_list" => json!({"prefix": "vms/h1", "limit": 100}),
        "store_commit" => json!({
            "guards": [{"revision": ["queries/h1/q1", 41]}, {"lease": ["hosts/h1", 3]}],
            "writes": [{"put": {"key": "queries/h1/q1", "value": {"answer": "…"}}}],
        }),
        "store_lease_grant" => {
            json!({"name": "hosts/h1", "holder": "agent rack1-07", "ttl_ms": 15000, "mode": "take_over"})
        }
        "store_lease_renew" => json!({"name": "hosts/h1", "epoch": 3, "ttl_ms": 15000}),
        "store_lease_revoke" => json!({"name": "hosts/h1", "epoch": 3}),
        "store_leases" => json!({"prefix": "hosts"}),
        "store_watch" => json!({"prefix": "jobs/h1", "after": 41}),
        _ => return None,
    })
}

/// The good answers.
pub(super) fn answer(operation: &str) -> Option<Value> {
    let list = |item: Value| json!({"items": [item], "next": null});
    let document = json!({"key": "vms/h1/s1", "value": {"power": "running"}, "created": 40, "modified": 42});
    let lease = json!({
        "name": "hosts/h1", "epoch": 3, "holder": "agent rack1-07", "expires_at": r::now(), "expired": false,
    });
    if let Some(def) = super::permissions::action(operation) {
        return Some(match def.flow {
            Some(flow) => json!({"server": r::server(), "task": r::task(flow)}),
            None => json!(r::server()),
        });
    }
    Some(match operation {
        "create_servers" | "batch_servers" | "evacuate_host" => json!({
            "refused": 0,
            "items": [{
                "id": ID, "name": "web-1", "server": r::server(), "task": r::task("server.stop"), "password": null,
                "refused": null,
            }],
        }),
        "create_server" => {
            json!({"server": r::server(), "task": r::task("server.create"), "password": "shown-only-this-once"})
        }
        "get_server_timeline" => list(json!({
            "at": "2026-01-01T00:00:00Z", "until": "2026-01-01T00:00:02Z", "what": "step", "name": "vm.start",
            "text": "start the virtual machine", "task": ID, "state": "succeeded",
        })),
        "get_server" => json!(r::server()),
        "list_servers" => list(json!(r::server())),
        "get_server_console" => json!("skyloom-guest ready hostname=web-1\n"),
        "get_server_screenshot" => json!("(the bytes of the picture)"),
        "get_server_placement" => json!({"task": ID, "placement": r::placement_report()}),
        "explain_placement" => json!({
            "flavor": "m1.large", "fits": false, "report": r::placement_report(), "fitting_flavors": ["m1.small"],
        }),
        "forecast_placement" => list(json!({
            "flavor": "m1.large", "servers": 42, "hosts": 7, "by_label": {"a": 30, "b": 12},
        })),
        "test_placement" => json!({
            "flavor": "m1.large", "servers": 3, "placed": 3, "report": null,
            "hosts": [{"host": ID, "name": "rack1-07", "servers": 3}],
        }),
        "create_flavor" | "get_flavor" => json!(r::flavor()),
        "list_flavors" => list(json!(r::flavor())),
        "create_image" | "upload_image" => json!({"image": r::image(), "task": r::task("image.import")}),
        "delete_image" => json!({"image": r::image(), "task": r::task("image.delete")}),
        "get_image" => json!(r::image()),
        "list_images" => list(json!(r::image())),
        "download_image" => json!("(the bytes of the image)"),
        "create_keypair" | "get_keypair" => json!(r::keypair()),
        "list_keypairs" => list(json!(r::keypair())),
        "get_port" | "create_port" | "update_port" => json!(r::port()),
        "get_network" | "create_network" | "update_network" => json!(networks::network()),
        "list_networks" => list(json!(networks::network())),
        "get_subnet" | "create_subnet" | "update_subnet" => json!(networks::subnet()),
        "list_subnets" => list(json!(networks::subnet())),
        "get_security_group"
        | "create_security_group"
        | "update_security_group"
        | "add_security_group_rule"
        | "remove_security_group_rule" => json!(networks::security_group()),
        "list_security_groups" => list(json!(networks::security_group())),
        "list_ports" => list(json!(r::port())),
        "get_volume" => json!(r::volume()),
        "list_volumes" => list(json!(r::volume())),
        "create_volume" | "delete_volume" | "grow_volume" | "limit_volume" | "attach_volume"
        | "detach_volume" => {
            let verb = operation.trim_end_matches("_volume");
            json!({"volume": r::volume(), "task": r::task(&format!("volume.{verb}"))})
        }
        "attach_port" | "detach_port" => {
            let verb = operation.trim_end_matches("_port");
            json!({"port": r::port(), "task": r::task(&format!("server.{verb}-port"))})
        }
        "get_snapshot" => json!(r::snapshot()),
        "list_snapshots" => list(json!(r::snapshot())),
        "create_snapshot" | "delete_snapshot" | "revert_snapshot" => {
            let verb = operation.trim_end_matches("_snapshot");
            json!({"snapshot": r::snapshot(), "task": r::task(&format!("snapshot.{verb}"))})
        }
        "create_host" => json!({"host": r::host(), "token": r::SECRET}),
        "get_host" | "patch_host" => json!(r::host()),
        "list_hosts" => list(json!(r::host())),
        "create_join_token" => json!({
            "host": ID, "name": "rack1-07", "token": r::JOIN_TOKEN, "until": r::now(), "roots": r::CERTIFICATE,
        }),
        "revoke_certificates" => json!({"host": ID, "not_before": r::now()}),
        "join_host" | "renew_certificate" => json!({
            "host": ID, "certificate": r::CERTIFICATE, "roots": r::CERTIFICATE,
            "not_before": r::now(), "not_after": r::now(),
        }),
        "get_hold" | "set_hold" => json!(r::hold()),
        "adopt_guests" => json!(r::adopted()),
        "release_hold" => json!(r::released()),
        "create_project" | "get_project" => json!(r::project()),
        "list_projects" => list(json!(r::project())),
        "create_token" => json!({"token": r::token(), "secret": r::SECRET}),
        "list_tokens" => list(json!(r::token())),
        "list_tasks" => list(json!(r::task("server.create"))),
        "get_task" => {
            json!({"task": r::task("server.create"), "plan": null, "jobs": [], "running": [], "archived": false})
        }
        "cancel_task" => json!({"task": r::task("server.create")}),
        "retry_task" => json!({"task": r::stuck(OrderVerb::Retry)}),
        "skip_task" => json!({"task": r::stuck(OrderVerb::Skip)}),
        "abandon_task" => json!({"task": r::stuck(OrderVerb::Abandon)}),
        "sweep_host" | "unfence_host" => json!({"task": r::task("host.sweep")}),
        "drain_host" | "fence_host" => json!(r::host()),
        "recount_hosts" => list(json!({
            "host": ID, "name": "rack1-08", "resource": "memory_mib", "was": 8192, "is": 4096,
        })),
        "get_host_drain" => json!({
            "host": "rack1-08", "closed": null, "under_way": true, "memory_mib": 1024, "servers": [{
                "server": ID, "name": "web-1", "state": "waits", "way": "live", "to": "rack1-09", "memory_mib": 1024,
                "why": "12 hosts considered: 11 fit, 1 (disabled)",
            }],
        }),
        "list_plans" => list(json!(r::plan())),
        "get_plan" => json!(r::plan()),
        "apply_plan" => {
            json!({"plan": ID, "task": r::task("server.create"), "password": "shown-only-this-once"})
        }
        "list_events" => list(json!(r::event())),
        "follow_task" => {
            json!("event: task\nid: 42\ndata: {\"task\":{…},\"plan\":null,\"jobs\":[],\"running\":[]}\n\n")
        }
        "watch" => json!(
            "event: put\nid: 42\ndata: {\"kind\":\"servers\",\"id\":\"…\",\"revision\":42,\"record\":{…}}\n\n"
        ),
        "list_kinds" => json!({"items": [crate::routes::kinds::server()]}),
        "get_kind" => json!(crate::routes::kinds::server()),
        "store_capability" => json!({"durable": true, "max_txn_ops": 128, "max_value_len": 1_048_576}),
        "store_get" => json!({"item": document}),
        "store_list" => json!({"items": [document], "revision": 42, "more": false}),
        "store_commit" => json!({"committed": {"revision": 42}}),
        "store_lease_grant" => json!({"granted": {"epoch": 3}}),
        "store_lease_renew" => json!("held"),
        "store_lease_revoke" => json!({}),
        "store_leases" => json!({"leases": [lease]}),
        "store_watch" => json!({"progress": {"revision": 42}}),
        "healthz" => json!("ok"),
        "readyz" => json!({"ready": true, "phases": [{"name": "watch", "state": "ok"}]}),
        "metrics" => json!("skyloom_http_requests_total{method=\"GET\",route=\"/v1\",status=\"200\"} 1\n"),
        "openapi" => json!({"openapi": "3.1.0"}),
        "version" => json!({"name": "skyloom", "version": "0.1.0", "api": "v1"}),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use serde::de::DeserializeOwned;
    use skyloom_cloud as c;
    use skyloom_store::wire;

    use super::*;

    fn read<T: DeserializeOwned>(operation: &str, example: Option<Value>) {
        let example = example.unwrap_or_else(|| panic!("{operation} has no example"));
        if let Err(e) = serde_json::from_value::<T>(example) {
            panic!("the example of {operation} is none: {e}");
        }
    }

    #[test]
    fn request_examples_are_requests() {
        read::<c::CreateServer>("create_server", request("create_server"));
        read::<c::StopOptions>("stop_server", request("stop_server"));
        read::<c::CreateFlavor>("create_flavor", request("create_flavor"));
        read::<c::CreateImage>("create_image", request("create_image"));
        read::<c::CreateKeypair>("create_keypair", request("create_keypair"));
        read::<c::CreateVolume>("create_volume", request("create_volume"));
        read::<c::GrowVolume>("grow_volume", request("grow_volume"));
        read::<c::LimitVolume>("limit_volume", request("limit_volume"));
        read::<c::AttachVolume>("attach_volume", request("attach_volume"));
        read::<c::AttachPort>("attach_port", request("attach_port"));
        read::<c::CreateSnapshot>("create_snapshot", request("create_snapshot"));
        read::<c::CreateNetwork>("create_network", request("create_network"));
        read::<c::UpdateNetwork>("update_network", request("update_network"));
        read::<c::CreateSubnet>("create_subnet", request("create_subnet"));
        read::<c::UpdateSubnet>("update_subnet", request("update_subnet"));
        read::<c::CreatePort>("create_port", request("create_port"));
        read::<c::UpdatePort>("update_port", request("update_port"));
        read::<c::CreateSecurityGroup>("create_security_group", request("create_security_group"));
        read::<c::UpdateSecurityGroup>("update_security_group", request("update_security_group"));
        read::<c::AddRule>("add_security_group_rule", request("add_security_group_rule"));
        read::<c::CreateHost>("create_host", request("create_host"));
        read::<c::PatchHost>("patch_host", request("patch_host"));
        read::<c::SweepHost>("sweep_host", request("sweep_host"));
        read::<c::RevokeCertificates>("revoke_certificates", request("revoke_certificates"));
        read::<skyloom_pki::JoinHost>("join_host", request("join_host"));
        read::<skyloom_pki::RenewCertificate>("renew_certificate", request("renew_certificate"));
        read::<c::SetHold>("set_hold", request("set_hold"));
        read::<c::ReleaseHold>("release_hold", request("release_hold"));
        read::<c::HoldStatus>("get_hold", answer("get_hold"));
        read::<c::Adopted>("adopt_guests", answer("adopt_guests"));
        for order in ["retry_task", "skip_task", "abandon_task"] {
            read::<c::OrderTask>(order, request(order));
            read::<c::TaskAccepted>(order, answer(order));
        }
        read::<c::CreateProject>("create_project", request("create_project"));
        read::<c::CreateToken>("create_token", request("create_token"));
        read::<wire::GetRequest>("store_get", request("store_get"));
        read::<wire::ListRequest>("store_list", request("store_list"));
        read::<wire::CommitRequest>("store_commit", request("store_commit"));
        read::<wire::GrantRequest>("store_lease_grant", request("store_lease_grant"));
        read::<wire::RenewRequest>("store_lease_renew", request("store_lease_renew"));
        read::<wire::RevokeRequest>("store_lease_revoke", request("store_lease_revoke"));
        read::<wire::LeasesRequest>("store_leases", request("store_leases"));
        read::<wire::WatchRequest>("store_watch", request("store_watch"));
    }

    #[test]
    fn answer_examples_are_answers() {
        read::<c::ServerAccepted>("create_server", answer("create_server"));
        read::<c::ServerTask>("stop_server", answer("stop_server"));
        read::<c::PlacementAnswer>("get_server_placement", answer("get_server_placement"));
        read::<c::PlacementExplained>("explain_placement", answer("explain_placement"));
        read::<c::Listed<c::FlavorForecast>>("forecast_placement", answer("forecast_placement"));
        read::<c::PlacementTested>("test_placement", answer("test_placement"));
        read::<c::ImageAccepted>("create_image", answer("create_image"));
        read::<c::HostAccepted>("create_host", answer("create_host"));
        read::<c::JoinTokenAccepted>("create_join_token", answer("create_join_token"));
        read::<c::CertificatesRevoked>("revoke_certificates", answer("revoke_certificates"));
        read::<skyloom_pki::HostJoined>("join_host", answer("join_host"));
        read::<c::TokenAccepted>("create_token", answer("create_token"));
        read::<c::TaskDetail>("get_task", answer("get_task"));
        read::<c::TaskAccepted>("cancel_task", answer("cancel_task"));
        read::<c::Listed<skyloom_model::Port>>("list_ports", answer("list_ports"));
        read::<c::Listed<skyloom_model::Event>>("list_events", answer("list_events"));
        read::<c::TaskAccepted>("sweep_host", answer("sweep_host"));
        read::<c::Preview>("every dry run", Some(preview()));
        read::<c::ShownPlan>("get_plan", answer("get_plan"));
        read::<c::PlanApplied>("apply_plan", answer("apply_plan"));
        read::<wire::GetAnswer>("store_get", answer("store_get"));
        read::<wire::ListAnswer>("store_list", answer("store_list"));
        read::<skyloom_store::Outcome>("store_commit", answer("store_commit"));
        read::<skyloom_store::Grant>("store_lease_grant", answer("store_lease_grant"));
        read::<wire::LeasesAnswer>("store_leases", answer("store_leases"));
        read::<wire::WatchLine>("store_watch", answer("store_watch"));
    }
}
