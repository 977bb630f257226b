//! Rows of the table: servers that are put away, on no host.

use super::Overlay::{HostUnreachable, Locked, Rescued, Resized};
use super::table::{ROW, words};
use super::{ActionDef, Guard, ServerAction};
use crate::Lifecycle::{self, Shelved};
use crate::PowerState::{Crashed, Running, Stopped};

const PUT_AWAY: &[Lifecycle] = &[Shelved];

pub(super) const SHELVE: ActionDef = ActionDef {
    action: ServerAction::Shelve,
    name: "server.shelve",
    verb: "shelve",
    flow: Some("server.shelve"),
    permission: "server:shelve",
    path: "/v1/servers/{id}/actions/shelve",
    operation: "shelve_server",
    powers: &[Running, Stopped, Crashed],
    refused_under: &[Locked, Rescued, Resized, HostUnreachable],
    guard: Guard::Placed,
    label: words("shelve", "搁置"),
    dialog: words(
        "Turn this server off and keep it as an image? Its host is given back; id, addresses and volumes stay.",
        "确定要关机并搁置吗？系统盘将保存为镜像并释放宿主机，ID、地址和数据卷保持不变。",
    ),
    summary: "Shelve a server",
    description: "Stops the server and keeps its root disk as an image; then its host forgets it and has room for others. Id, ports, \
                  addresses and volumes stay. When it fails, the server is what it was. Follow the task.",
    ..ROW
};

pub(super) const OFFLOAD: ActionDef = ActionDef {
    action: ServerAction::Offload,
    name: "server.offload",
    verb: "offload",
    flow: Some("server.offload"),
    permission: "server:shelve",
    path: "/v1/servers/{id}/actions/offload",
    operation: "offload_server",
    lifecycles: PUT_AWAY,
    guard: Guard::Placed,
    label: words("offload", "释放宿主机"),
    dialog: words(
        "Have the host of this shelved server forget it now?",
        "确定要立即释放此搁置云主机占用的宿主机资源吗？",
    ),
    summary: "Offload a shelved server",
    description: "Removes what the host of a shelved server still has of it. The cloud asks for this by itself when a server has been \
                  shelved, and again where that fails. Of one whose host is fenced it is for operators to ask. Follow the task.",
    ..ROW
};

pub(super) const UNSHELVE: ActionDef = ActionDef {
    action: ServerAction::Unshelve,
    name: "server.unshelve",
    verb: "unshelve",
    flow: Some("server.unshelve"),
    permission: "server:shelve",
    path: "/v1/servers/{id}/actions/unshelve",
    operation: "unshelve_server",
    lifecycles: PUT_AWAY,
    guard: Guard::Unplaced,
    label: words("unshelve", "取消搁置"),
    dialog: words(
        "Make this server again on a host, and turn it on?",
        "确定要取消搁置并开机吗？",
    ),
    summary: "Unshelve a server",
    description: "Chooses a host, makes the server there from the image of its root disk, and turns it on. The image goes then. When it \
                  fails, the server stays shelved. Follow the task.",
    ..ROW
};
