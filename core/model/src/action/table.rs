//! The table itself.

use super::Overlay::{HostUnreachable, Locked, Protected, Rescued, Resized};
use super::access::{SET_KEYS, SET_PASSWORD};
use super::changes::{CONFIRM_RESIZE, RESIZE, REVERT_RESIZE};
use super::moves::{EVACUATE, FORCE_COMPLETE_MIGRATION, LIVE_MIGRATE, MIGRATE};
use super::shelves::{OFFLOAD, SHELVE, UNSHELVE};
use super::{ActionDef, Guard, ServerAction, Words};
use crate::Lifecycle::{self, Active, Building, Error, Recycled, Shelved};
use crate::PowerState::{self, Crashed, Paused, Running, Stopped, Suspended, Unknown};

pub(super) const fn words(en: &'static str, zh: &'static str) -> Words {
    Words { en, zh }
}

const ANY_POWER: &[PowerState] = &PowerState::ALL;
const USABLE: &[Lifecycle] = &[Active];
pub(super) const THERE: &[Lifecycle] = &[Active, Error];
const KEPT: &[Lifecycle] = &[Active, Error, Shelved, Recycled];
const NOT_GOING: &[Lifecycle] = &[Building, Active, Error, Shelved, Recycled];
const EXECUTES: &[PowerState] = &[Running, Unknown];

/// What all rows have in common that do not say otherwise.
pub(super) const ROW: ActionDef = ActionDef {
    action: ServerAction::Start,
    name: "",
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
        name: "server.start",
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
        name: "server.stop",
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
        name: "server.reboot",
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
        action: ServerAction::HardReboot,
        name: "server.hard-reboot",
        verb: "hard-reboot",
        flow: Some("server.reboot"),
        permission: "server:reboot",
        path: "/v1/servers/{id}/actions/hard-reboot",
        operation: "hard_reboot_server",
        lifecycles: THERE,
        guard: Guard::Placed,
        dangerous: true,
        label: words("hard reboot", "强制重启"),
        dialog: words(
            "Pull the plug and turn this server on again? What its guest has not written is lost.",
            "确定要强制断电并重启吗？未写入磁盘的数据将丢失。",
        ),
        summary: "Reboot a server hard",
        description: "Off at once, defined anew from its records, and on again, in whatever power state it is; one in error is usable \
                      again afterwards. Follow the task.",
        ..ROW
    },
    ActionDef {
        action: ServerAction::Pause,
        name: "server.pause",
        verb: "pause",
        flow: Some("server.pause"),
        permission: "server:pause",
        path: "/v1/servers/{id}/actions/pause",
        operation: "pause_server",
        powers: EXECUTES,
        refused_under: &[Locked, Rescued],
        guard: Guard::Ability("pause"),
        label: words("pause", "暂停"),
        dialog: words(
            "Hold this server's CPUs? Its memory stays in place.",
            "确定要暂停吗？内存内容保留在宿主机上。",
        ),
        summary: "Pause a server",
        description: "Holds the guest's CPUs; its memory stays in place, and everything that it keeps stays taken. Follow the task.",
        ..ROW
    },
    ActionDef {
        action: ServerAction::Unpause,
        name: "server.unpause",
        verb: "unpause",
        flow: Some("server.unpause"),
        permission: "server:pause",
        path: "/v1/servers/{id}/actions/unpause",
        operation: "unpause_server",
        powers: &[Paused],
        guard: Guard::Ability("pause"),
        label: words("unpause", "取消暂停"),
        dialog: words("Let this server go on?", "确定要取消暂停吗？"),
        summary: "Unpause a server",
        description: "Lets the CPUs of a paused guest go on. Follow the task.",
        ..ROW
    },
    ActionDef {
        action: ServerAction::Suspend,
        name: "server.suspend",
        verb: "suspend",
        flow: Some("server.suspend"),
        permission: "server:suspend",
        path: "/v1/servers/{id}/actions/suspend",
        operation: "suspend_server",
        powers: &[Running, Paused, Unknown],
        refused_under: &[Locked, Rescued],
        guard: Guard::Ability("suspend"),
        label: words("suspend", "休眠"),
        dialog: words(
            "Write this server's memory to disk and turn it off? It goes on there when it is resumed.",
            "确定要休眠吗？内存将写入磁盘，恢复后从当前状态继续运行。",
        ),
        summary: "Suspend a server",
        description: "Writes the guest's memory to disk and turns it off; `resume` and `start` go on from there, `stop` drops it. Follow \
                      the task.",
        ..ROW
    },
    ActionDef {
        action: ServerAction::Resume,
        name: "server.resume",
        verb: "resume",
        flow: Some("server.resume"),
        permission: "server:suspend",
        path: "/v1/servers/{id}/actions/resume",
        operation: "resume_server",
        powers: &[Suspended],
        guard: Guard::Ability("suspend"),
        label: words("resume", "恢复运行"),
        dialog: words(
            "Let this server go on where it was suspended?",
            "确定要从休眠状态恢复运行吗？",
        ),
        summary: "Resume a server",
        description: "Turns a suspended server on, with the memory that it was suspended with. Follow the task.",
        ..ROW
    },
    ActionDef {
        action: ServerAction::Update,
        name: "server.update",
        verb: "update",
        permission: "server:update",
        method: "PATCH",
        path: "/v1/servers/{id}",
        operation: "update_server",
        lifecycles: NOT_GOING,
        while_busy: true,
        label: words("edit", "修改"),
        dialog: words(
            "Change name, labels or metadata of this server?",
            "确定要修改名称、标签或元数据吗？",
        ),
        summary: "Change a server",
        description: "Changes its name, labels and metadata at once; what is absent stays. With `If-Match` only if it still is as it was read.",
        ..ROW
    },
    ActionDef {
        action: ServerAction::Lock,
        name: "server.lock",
        verb: "lock",
        permission: "server:lock",
        path: "/v1/servers/{id}/actions/lock",
        operation: "lock_server",
        lifecycles: NOT_GOING,
        while_busy: true,
        label: words("lock", "锁定"),
        dialog: words(
            "Refuse changes of this server until it is unlocked?",
            "确定要锁定吗？解锁前将拒绝一切变更。",
        ),
        summary: "Lock a server",
        description: "Refuses all changes of the server but its unlocking, with the reason that is given, except by those who may unlock any.",
        ..ROW
    },
    ActionDef {
        action: ServerAction::Unlock,
        name: "server.unlock",
        verb: "unlock",
        permission: "server:lock",
        path: "/v1/servers/{id}/actions/unlock",
        operation: "unlock_server",
        lifecycles: NOT_GOING,
        refused_under: &[],
        while_busy: true,
        label: words("unlock", "解锁"),
        dialog: words("Allow changes of this server again?", "确定要解锁吗？"),
        summary: "Unlock a server",
        description: "Ends a lock of one's own. A lock of somebody else takes the permission server:unlock.",
        ..ROW
    },
    ActionDef {
        action: ServerAction::Protect,
        name: "server.protect",
        verb: "protect",
        permission: "server:protect",
        path: "/v1/servers/{id}/actions/protect",
        operation: "protect_server",
        lifecycles: NOT_GOING,
        while_busy: true,
        label: words("protect", "开启删除保护"),
        dialog: words("Refuse the deletion of this server?", "确定要开启删除保护吗？"),
        summary: "Protect a server from deletion",
        description: "Refuses its deletion until the protection is removed; everything else goes on as usual.",
        ..ROW
    },
    ActionDef {
        action: ServerAction::Unprotect,
        name: "server.unprotect",
        verb: "unprotect",
        permission: "server:protect",
        path: "/v1/servers/{id}/actions/unprotect",
        operation: "unprotect_server",
        lifecycles: NOT_GOING,
        while_busy: true,
        label: words("unprotect", "关闭删除保护"),
        dialog: words("Allow the deletion of this server?", "确定要关闭删除保护吗？"),
        summary: "Remove a server's protection",
        description: "Allows its deletion again.",
        ..ROW
    },
    ActionDef {
        action: ServerAction::Delete,
        name: "server.delete",
        verb: "delete",
        flow: Some("server.delete"),
        permission: "server:delete",
        method: "DELETE",
        path: "/v1/servers/{id}",
        operation: "delete_server",
        lifecycles: KEPT,
        refused_under: &[Locked, Protected],
        dangerous: true,
        label: words("delete", "删除"),
        dialog: words(
            "Delete this server? Without a recycle bin its disks are gone, too, and cannot be had back.",
            "确定要删除此云主机吗？若未启用回收站，磁盘将一并删除且无法恢复。",
        ),
        summary: "Delete a server",
        description: "Removes the server with its disks and ports; or, where a recycle bin is kept, turns it off and puts it there for \
                      `keep_hours`. One that is in the bin is removed. Follow the task.",
        ..ROW
    },
    ActionDef {
        action: ServerAction::Restore,
        name: "server.restore",
        verb: "restore",
        permission: "server:delete",
        path: "/v1/servers/{id}/actions/restore",
        operation: "restore_server",
        lifecycles: &[Recycled],
        label: words("restore", "恢复"),
        dialog: words(
            "Take this server out of the recycle bin?",
            "确定要从回收站恢复吗？",
        ),
        summary: "Restore a server",
        description: "Takes a server out of the recycle bin, with its disks and addresses. It is off, and can be started.",
        ..ROW
    },
    ActionDef {
        action: ServerAction::Purge,
        name: "server.purge",
        verb: "purge",
        flow: Some("server.delete"),
        permission: "server:delete",
        path: "/v1/servers/{id}/actions/purge",
        operation: "purge_server",
        lifecycles: KEPT,
        refused_under: &[Locked, Protected],
        dangerous: true,
        label: words("purge", "彻底删除"),
        dialog: words(
            "Remove this server with its disks, now and for good?",
            "确定要立即彻底删除此云主机及其磁盘吗？此操作无法恢复。",
        ),
        summary: "Purge a server",
        description: "Removes the server with its disks and ports at once, in the recycle bin or not. Follow the task.",
        ..ROW
    },
    ActionDef {
        action: ServerAction::ResetState,
        name: "server.reset-state",
        verb: "reset-state",
        flow: Some("server.reset-state"),
        permission: "server:reset-state",
        path: "/v1/servers/{id}/actions/reset-state",
        operation: "reset_server_state",
        lifecycles: THERE,
        refused_under: &[],
        guard: Guard::Placed,
        label: words("reset state", "校正状态"),
        dialog: words(
            "Ask the host what this server is, and write that into its record?",
            "确定要向宿主机查询实际状态并据此更新记录吗？",
        ),
        summary: "Reset a server's state",
        description: "Asks the server's host what its virtual machine is and writes that: usable with the power state that was seen, or \
                      in error when there is none. For operators. Follow the task.",
        ..ROW
    },
    ActionDef {
        action: ServerAction::Rebuild,
        name: "server.rebuild",
        verb: "rebuild",
        flow: Some("server.rebuild"),
        permission: "server:rebuild",
        path: "/v1/servers/{id}/actions/rebuild",
        operation: "rebuild_server",
        lifecycles: THERE,
        powers: &[Running, Stopped, Crashed, Unknown],
        refused_under: &[Locked, Protected, Rescued, Resized],
        guard: Guard::Placed,
        dangerous: true,
        label: words("rebuild", "重装系统"),
        dialog: words(
            "Make this server's root disk anew from an image? What is on it now is lost; id, addresses and volumes stay.",
            "确定要用镜像重装系统盘吗？系统盘数据将丢失，ID、地址和数据卷保持不变。",
        ),
        summary: "Rebuild a server",
        description: "Makes the root disk anew over an image, and turns the server on again if it ran. Id, MAC addresses, addresses and volumes \
                      stay. When it fails, the server is what it was. Follow the task.",
        ..ROW
    },
    ActionDef {
        action: ServerAction::StartRescue,
        name: "server.start-rescue",
        verb: "start-rescue",
        flow: Some("server.start-rescue"),
        permission: "server:start-rescue",
        path: "/v1/servers/{id}/actions/start-rescue",
        operation: "start_server_rescue",
        powers: &[Running, Stopped, Crashed],
        refused_under: &[Locked, Rescued, HostUnreachable],
        guard: Guard::Placed,
        label: words("start rescue", "进入救援模式"),
        dialog: words(
            "Stop this server and boot a rescue system, with the server's own disks as data?",
            "确定要关机并启动救援系统吗？云主机自身的磁盘将作为数据盘挂载。",
        ),
        summary: "Start a server's rescue",
        description: "Stops the server and boots a rescue system: a disk over an image, or a kernel with its first file system. The \
                      server's own disks are data there, in their order; ports and addresses stay. Root's password is shown once. \
                      Follow the task.",
        ..ROW
    },
    ActionDef {
        action: ServerAction::StopRescue,
        name: "server.stop-rescue",
        verb: "stop-rescue",
        flow: Some("server.stop-rescue"),
        permission: "server:stop-rescue",
        path: "/v1/servers/{id}/actions/stop-rescue",
        operation: "stop_server_rescue",
        lifecycles: THERE,
        refused_under: &[Locked, HostUnreachable],
        guard: Guard::Rescued,
        label: words("stop rescue", "退出救援模式"),
        dialog: words(
            "Leave the rescue system and boot from the server's own disks again?",
            "确定要退出救援系统并从自身磁盘启动吗？",
        ),
        summary: "Stop a server's rescue",
        description: "Ends the rescue system. The server is what it was before the rescue: running from its own disks, or off. Follow \
                      the task.",
        ..ROW
    },
    RESIZE,
    CONFIRM_RESIZE,
    REVERT_RESIZE,
    MIGRATE,
    LIVE_MIGRATE,
    FORCE_COMPLETE_MIGRATION,
    SET_PASSWORD,
    SET_KEYS,
    EVACUATE,
    SHELVE,
    OFFLOAD,
    UNSHELVE,
];
