//! The table itself.

use super::Overlay::{Locked, Protected};
use super::{ActionDef, Guard, ServerAction, Words};
use crate::Lifecycle::{self, Active, Error};
use crate::PowerState::{self, Crashed, Paused, Running, Stopped, Suspended, Unknown};

const fn words(en: &'static str, zh: &'static str) -> Words {
    Words { en, zh }
}

const ANY_POWER: &[PowerState] = &PowerState::ALL;
const USABLE: &[Lifecycle] = &[Active];
const THERE: &[Lifecycle] = &[Active, Error];

/// What all rows have in common that do not say otherwise.
const ROW: ActionDef = ActionDef {
    action: ServerAction::Start,
    verb: "",
    flow: None,
    permission: "",
    method: "POST",
    path: "",
    operation: "",
    lifecycles: USABLE,
    powers: ANY_POWER,
    refused_under: &[Locked],
    while_busy: false,
    guard: Guard::None,
    dangerous: false,
    label: words("", ""),
    dialog: words("", ""),
    summary: "",
    description: "",
};

/// All actions, in the order of [`ServerAction`]'s values.
pub const ACTIONS: &[ActionDef] = &[
    ActionDef {
        action: ServerAction::Start,
        verb: "start",
        flow: Some("server.start"),
        permission: "server:start",
        path: "/v1/servers/{id}/actions/start",
        operation: "start_server",
        powers: &[Stopped, Suspended, Crashed],
        label: words("start", "开机"),
        dialog: words("Turn this server on?", "确定要开机吗？"),
        summary: "Start a server",
        description: "Turns a server on that is off, as it is wanted by now; one that is suspended goes on where it was. Follow \
                      the task.",
        ..ROW
    },
    ActionDef {
        action: ServerAction::Stop,
        verb: "stop",
        flow: Some("server.stop"),
        permission: "server:stop",
        path: "/v1/servers/{id}/actions/stop",
        operation: "stop_server",
        powers: &[Running, Paused, Unknown, Suspended, Crashed],
        label: words("stop", "关机"),
        dialog: words(
            "Turn this server off? Its guest is asked first, and forced when it takes too long.",
            "确定要关机吗？将先通知系统正常关机，超时后强制断电。",
        ),
        summary: "Stop a server",
        description: "Asks the guest to turn itself off, and forces it after a time; or forces it at once. What a suspended one kept of \
                      its memory is dropped. Follow the task.",
        ..ROW
    },
    ActionDef {
        action: ServerAction::Reboot,
        verb: "reboot",
        flow: Some("server.reboot"),
        permission: "server:reboot",
        path: "/v1/servers/{id}/actions/reboot",
        operation: "reboot_server",
        powers: &[Running, Paused, Unknown],
        label: words("reboot", "重启"),
        dialog: words(
            "Turn this server off and on again? Its guest is asked first.",
            "确定要重启吗？将先通知系统正常关机。",
        ),
        summary: "Reboot a server",
        description: "Off and on again, off as by `stop`, on as by `start`: changes that wait for a restart are made. Follow the task.",
        ..ROW
    },
    ActionDef {
        action: ServerAction::Delete,
        verb: "delete",
        flow: Some("server.delete"),
        permission: "server:delete",
        method: "DELETE",
        path: "/v1/servers/{id}",
        operation: "delete_server",
        lifecycles: THERE,
        refused_under: &[Locked, Protected],
        dangerous: true,
        label: words("delete", "删除"),
        dialog: words(
            "Delete this server with its disks? They cannot be had back.",
            "确定要删除此云主机及其磁盘吗？此操作无法恢复。",
        ),
        summary: "Delete a server",
        description: "Removes the server with its disks and ports: follow the task.",
        ..ROW
    },
];
