//! Rows of the table: changes of what a server is.

use super::Overlay::{HostUnreachable, Locked, Rescued, Resized};
use super::table::{ROW, THERE, words};
use super::{ActionDef, Guard, ServerAction};
use crate::PowerState::{Crashed, Running, Stopped, Unknown};

pub(super) const RESIZE: ActionDef = ActionDef {
    action: ServerAction::Resize,
    name: "server.resize",
    verb: "resize",
    flow: Some("server.resize"),
    permission: "server:resize",
    path: "/v1/servers/{id}/actions/resize",
    operation: "resize_server",
    powers: &[Running, Stopped, Crashed],
    refused_under: &[Locked, Rescued, Resized, HostUnreachable],
    guard: Guard::Placed,
    label: words("resize", "调整规格"),
    dialog: words(
        "Stop this server and give it another size? It can be taken back until it is confirmed.",
        "确定要关机并调整规格吗？确认之前可以撤销。",
    ),
    summary: "Resize a server",
    description: "Stops the server, makes it of another flavor on the same host, and turns it on again if it ran. Then it waits, `resized`, \
                  to be confirmed or taken back, and confirms itself after a time. Until then the larger of both sizes is charged and \
                  kept on the host. The root disk grows and never shrinks. Follow the task.",
    ..ROW
};

pub(super) const CONFIRM_RESIZE: ActionDef = ActionDef {
    action: ServerAction::ConfirmResize,
    name: "server.confirm-resize",
    verb: "confirm-resize",
    flow: Some("server.confirm-resize"),
    permission: "server:resize",
    path: "/v1/servers/{id}/actions/confirm-resize",
    operation: "confirm_server_resize",
    lifecycles: THERE,
    guard: Guard::Resized,
    label: words("confirm resize", "确认调整规格"),
    dialog: words(
        "Keep this server's new size? What was kept for the size before is given back.",
        "确定保留新规格吗？原规格占用的资源将释放。",
    ),
    summary: "Confirm a server's resize",
    description: "Keeps the new size: what the size before took is given back, and there is no way back any more. The guest is not \
                  touched. Follow the task.",
    ..ROW
};

pub(super) const REVERT_RESIZE: ActionDef = ActionDef {
    action: ServerAction::RevertResize,
    name: "server.revert-resize",
    verb: "revert-resize",
    flow: Some("server.revert-resize"),
    permission: "server:resize",
    path: "/v1/servers/{id}/actions/revert-resize",
    operation: "revert_server_resize",
    lifecycles: THERE,
    powers: &[Running, Stopped, Crashed, Unknown],
    refused_under: &[Locked, Rescued, HostUnreachable],
    guard: Guard::Resized,
    label: words("revert resize", "撤销调整规格"),
    dialog: words(
        "Stop this server and go back to the size before? What it has written stays.",
        "确定要关机并恢复原规格吗？已写入的数据会保留。",
    ),
    summary: "Revert a server's resize",
    description: "Stops the server, makes it of its former flavor again, and turns it on again if it ran. What it has written stays, and \
                  so does a root disk that has grown: the flavor says so then. Follow the task.",
    ..ROW
};
