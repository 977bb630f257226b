//! Rows of the table: changes of where a server is. All are for operators.

use super::Overlay::{HostUnreachable, Locked, Rescued, Resized};
use super::table::{ROW, words};
use super::{ActionDef, Guard, ServerAction};
use crate::PowerState::{self, Crashed, Running, Stopped};

pub(super) const MIGRATE: ActionDef = ActionDef {
    action: ServerAction::Migrate,
    name: "server.migrate",
    verb: "migrate",
    flow: Some("server.migrate"),
    permission: "server:migrate",
    path: "/v1/servers/{id}/actions/migrate",
    operation: "migrate_server",
    powers: &[Running, Stopped, Crashed],
    refused_under: &[Locked, Rescued, Resized, HostUnreachable],
    guard: Guard::Placed,
    label: words("migrate", "冷迁移"),
    dialog: words(
        "Stop this server and move it to another host? It is turned on there if it runs now.",
        "确定要关机并迁移到其他宿主机吗？原先运行的将在目标宿主机上重新开机。",
    ),
    summary: "Migrate a server",
    description: "Stops the server, makes it on another host that sees all of its disks, and turns it on there if it ran. What it takes is \
                  claimed there before anything happens, and given back here when nothing of it is left. A dry run shows which hosts \
                  could take it, and why the others could not. Follow the task.",
    ..ROW
};

pub(super) const LIVE_MIGRATE: ActionDef = ActionDef {
    action: ServerAction::LiveMigrate,
    name: "server.live-migrate",
    verb: "live-migrate",
    flow: Some("server.live-migrate"),
    permission: "server:migrate",
    path: "/v1/servers/{id}/actions/live-migrate",
    operation: "live_migrate_server",
    powers: &[Running],
    refused_under: &[Locked, Rescued, Resized, HostUnreachable],
    guard: Guard::Ability("migration"),
    label: words("live migrate", "热迁移"),
    dialog: words(
        "Move this server to another host while it runs?",
        "确定要在运行中迁移到其他宿主机吗？",
    ),
    summary: "Live-migrate a server",
    description: "Moves the guest with its memory to another host that sees all of its disks; it is held only for the last pass. The steps \
                  of the task tell the pass, what the guest writes and when the passes are over. Until the switch-over it can be \
                  cancelled with its task. After any failure it is asked of both hosts where the guest is, and it runs on there. \
                  A dry run shows which hosts could take it, and why the others could not. Follow the task.",
    ..ROW
};

pub(super) const FORCE_COMPLETE_MIGRATION: ActionDef = ActionDef {
    action: ServerAction::ForceCompleteMigration,
    name: "server.force-complete-migration",
    verb: "force-complete-migration",
    permission: "server:migrate",
    path: "/v1/servers/{id}/actions/force-complete-migration",
    operation: "force_complete_server_migration",
    powers: &PowerState::ALL,
    refused_under: &[],
    while_busy: true,
    guard: Guard::Migrating,
    label: words("force completion", "强制完成迁移"),
    dialog: words(
        "Hold this server's guest for as long as it takes to complete its migration?",
        "确定要强制完成迁移吗？虚拟机可能会暂停较长时间。",
    ),
    summary: "Force a live migration to complete",
    description: "Lets the passes of a live migration end although the guest writes faster than they do: it may be held for longer.",
    ..ROW
};

pub(super) const EVACUATE: ActionDef = ActionDef {
    action: ServerAction::Evacuate,
    name: "server.evacuate",
    verb: "evacuate",
    flow: Some("server.evacuate"),
    permission: "server:evacuate",
    path: "/v1/servers/{id}/actions/evacuate",
    operation: "evacuate_server",
    powers: &PowerState::ALL,
    refused_under: &[Locked, Rescued, Resized],
    guard: Guard::Placed,
    dangerous: true,
    label: words("evacuate", "疏散"),
    dialog: words(
        "Start this server on another host? What its memory held is lost. Its own host must be off and stay off.",
        "确定要在其他宿主机上重新启动此云主机吗？内存中的内容将丢失；原宿主机必须已断电且保持关机。",
    ),
    summary: "Evacuate a server",
    description: "For a server whose host is fenced: makes it on another host that sees all of its disks, and turns it on there if it is \
                  wanted on. That host is asked for nothing; what is left there is removed when it comes back and is unfenced. Follow the \
                  task.",
    ..ROW
};
