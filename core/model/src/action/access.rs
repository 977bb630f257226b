//! Rows of the table: who gets into the guest.

use super::Overlay::{HostUnreachable, Locked, Rescued};
use super::table::{ROW, words};
use super::{ActionDef, Guard, ServerAction};
use crate::PowerState::{self, Crashed, Paused, Running, Stopped, Unknown};

/// Not while its memory is on disk: the drive must not change under it.
const AWAKE: &[PowerState] = &[Running, Paused, Stopped, Crashed, Unknown];

pub(super) const SET_PASSWORD: ActionDef = ActionDef {
    action: ServerAction::SetPassword,
    name: "server.set-password",
    verb: "set-password",
    flow: Some("server.set-password"),
    permission: "server:set-password",
    path: "/v1/servers/{id}/actions/set-password",
    operation: "set_server_password",
    powers: AWAKE,
    refused_under: &[Locked, Rescued, HostUnreachable],
    guard: Guard::Placed,
    label: words("set password", "重置密码"),
    dialog: words(
        "Give this server's first user another password? If no agent answers in the guest, the next boot sets it.",
        "确定要重置初始用户的密码吗？若系统内代理无响应，将在下次启动时生效。",
    ),
    summary: "Set a server's password",
    description: "Gives the guest's first user another password: a given one, or one that is made and shown this once. The agent in the guest \
                  sets it at once when it answers; otherwise the config drive carries it, and the next boot sets it: `pending_restart` says \
                  so, and the task's result which of both it was. Only a hash of it is kept. Follow the task.",
    ..ROW
};

pub(super) const SET_KEYS: ActionDef = ActionDef {
    action: ServerAction::SetKeys,
    name: "server.set-keys",
    verb: "set-keys",
    flow: Some("server.set-keys"),
    permission: "server:set-keys",
    path: "/v1/servers/{id}/actions/set-keys",
    operation: "set_server_keys",
    powers: AWAKE,
    refused_under: &[Locked, Rescued, HostUnreachable],
    guard: Guard::Placed,
    label: words("set keys", "更换密钥"),
    dialog: words(
        "Give this server's first user other SSH keys, from its next boot on?",
        "确定要更换初始用户的 SSH 密钥吗？将在下次启动时生效。",
    ),
    summary: "Set a server's SSH keys",
    description: "Gives the guest's first user other SSH keys: the config drive carries them, and the next boot reads it; \
                  `pending_restart` says so. What the guest has stored of former keys is the guest's to remove. Follow the task.",
    ..ROW
};
