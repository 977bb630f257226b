//! What each operation takes, in one table: shown in the document as `x-skyloom-permission`, and compared with what the server does by a test.

use serde_json::json;
use skyloom_model::action::{ACTIONS, ActionDef};
use utoipa::openapi::extensions::ExtensionsBuilder;
use utoipa::openapi::path::Operation;

/// Nothing at all.
const PUBLIC: &str = "public";
/// Only that it is known who calls.
const ANY: &str = "any";
/// A machine of the cloud: an engine, or the agent of a host.
const MACHINE: &str = "machine";

/// What an operation takes.
fn needed(operation: &str) -> Option<&'static str> {
    Some(match operation {
        "healthz" | "readyz" | "openapi" | "version" | "metrics" | "login" | "join_host" => PUBLIC,
        "logout" | "whoami" => ANY,
        "store_capability" | "store_commit" | "store_get" | "store_lease_grant" | "store_lease_renew"
        | "store_lease_revoke" | "store_leases" | "store_list" | "store_watch" | "renew_certificate" => {
            MACHINE
        }
        "list_servers" | "get_server" | "get_server_timeline" => "server:read",
        "create_server" | "create_servers" => "server:create",
        // Beside it each server takes what the action takes.
        "batch_servers" => "server:batch",
        "get_server_console" | "get_server_screenshot" | "get_server_rescue_report" => "server:console",
        "get_server_placement" | "explain_placement" => "server:placement",
        "list_flavors" | "get_flavor" => "flavor:read",
        "create_flavor" => "flavor:create",
        "delete_flavor" => "flavor:delete",
        "list_images" | "get_image" => "image:read",
        "create_image" => "image:create",
        "delete_image" => "image:delete",
        "upload_image" => "image:upload",
        "download_image" => "image:download",
        "list_keypairs" | "get_keypair" => "keypair:read",
        "create_keypair" => "keypair:create",
        "delete_keypair" => "keypair:delete",
        "list_volumes" | "get_volume" => "volume:read",
        "create_volume" => "volume:create",
        "delete_volume" => "volume:delete",
        "grow_volume" => "volume:grow",
        "limit_volume" => "volume:limit",
        "attach_volume" => "volume:attach",
        "detach_volume" => "volume:detach",
        "list_snapshots" | "get_snapshot" => "snapshot:read",
        "create_snapshot" => "snapshot:create",
        "revert_snapshot" => "snapshot:revert",
        "delete_snapshot" => "snapshot:delete",
        "list_ports" | "get_port" => "port:read",
        "create_port" => "port:create",
        "update_port" => "port:update",
        "delete_port" => "port:delete",
        "attach_port" => "port:attach",
        "detach_port" => "port:detach",
        "list_networks" | "get_network" => "network:read",
        "create_network" => "network:create",
        "update_network" => "network:update",
        "delete_network" => "network:delete",
        "list_subnets" | "get_subnet" => "subnet:read",
        "create_subnet" => "subnet:create",
        "update_subnet" => "subnet:update",
        "delete_subnet" => "subnet:delete",
        "list_security_groups" | "get_security_group" => "security-group:read",
        "create_security_group" => "security-group:create",
        "update_security_group" | "add_security_group_rule" | "remove_security_group_rule" => {
            "security-group:update"
        }
        "delete_security_group" => "security-group:delete",
        "list_hosts" | "get_host" | "get_host_drain" | "forecast_placement" | "test_placement"
        | "advise_placement" => "host:read",
        "create_host" => "host:create",
        "patch_host" => "host:update",
        "delete_host" => "host:delete",
        "sweep_host" => "host:sweep",
        "recount_hosts" => "host:recount",
        "drain_host" => "host:drain",
        "fence_host" | "unfence_host" | "evacuate_host" => "host:fence",
        "create_join_token" | "revoke_certificates" => "host:join",
        "get_hold" => "hold:read",
        "set_hold" => "hold:set",
        "adopt_guests" => "hold:adopt",
        "release_hold" => "hold:release",
        "list_tasks" | "get_task" | "follow_task" => "task:read",
        "cancel_task" => "task:cancel",
        "retry_task" => "task:retry",
        "skip_task" => "task:skip",
        "abandon_task" => "task:abandon",
        "list_plans" | "get_plan" => "plan:read",
        "apply_plan" => "plan:apply",
        "list_events" => "event:read",
        "watch" => "watch:read",
        "list_kinds" | "get_kind" => "kind:read",
        operation => {
            return action(operation)
                .map(|def| def.permission)
                .or_else(|| of_identity(operation));
        }
    })
}

/// The action of a server that an operation is.
pub(super) fn action(operation: &str) -> Option<&'static ActionDef> {
    ACTIONS.iter().find(|def| def.operation == operation)
}

fn of_identity(operation: &str) -> Option<&'static str> {
    Some(match operation {
        "list_domains" | "get_domain" => "domain:read",
        "create_domain" => "domain:create",
        "update_domain" => "domain:update",
        "delete_domain" => "domain:delete",
        "list_projects" | "get_project" => "project:read",
        "create_project" => "project:create",
        "update_project" => "project:update",
        "delete_project" => "project:delete",
        "list_users" | "get_user" => "user:read",
        "create_user" => "user:create",
        "update_user" => "user:update",
        "delete_user" => "user:delete",
        "set_password" => "user:set-password",
        "change_password" => "user:change-password",
        "list_credentials" => "credential:read",
        "create_credential" | "enrol_second_factor" | "confirm_second_factor" | "renew_recovery_codes" => {
            "credential:create"
        }
        "delete_credential" => "credential:delete",
        "list_groups" | "get_group" | "list_members" => "group:read",
        "create_group" => "group:create",
        "update_group" | "add_member" | "remove_member" => "group:update",
        "delete_group" => "group:delete",
        "list_roles" | "get_role" => "role:read",
        "create_role" => "role:create",
        "update_role" | "imply_role" | "unimply_role" => "role:update",
        "delete_role" => "role:delete",
        "list_grants" => "grant:read",
        "create_grant" => "grant:create",
        "delete_grant" => "grant:delete",
        "list_trusts" | "get_trust" => "trust:read",
        "create_trust" => "trust:create",
        "delete_trust" => "trust:delete",
        "list_tokens" => "token:read",
        "create_token" => "token:create",
        "delete_token" => "token:delete",
        "get_catalog" => "catalog:read",
        "get_quota" => "quota:read",
        "set_quota" => "quota:update",
        "recount_quotas" => "quota:recount",
        "search_audit" => "audit:read",
        "verify_audit" => "audit:verify",
        "list_permissions" => "policy:read",
        "explain_policy" => "policy:explain",
        _ => return None,
    })
}

/// Writes it into an operation; into one that is an action of a server also what the table of actions says about it.
pub(super) fn declare(operation: &mut Operation) {
    if let Some(def) = operation.operation_id.as_deref().and_then(action) {
        operation.summary = Some(def.summary.to_owned());
        operation.description = Some(def.description.to_owned());
    }
    let needed = operation.operation_id.as_deref().and_then(needed);
    if let Some(needed) = needed {
        let extension = ExtensionsBuilder::new()
            .add("x-skyloom-permission", json!(needed))
            .build();
        operation.extensions.get_or_insert_default().merge(extension);
    }
}
