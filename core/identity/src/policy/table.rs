//! The permissions of the cloud itself and of identity. Products add tables of their own.

use super::registry::Access::{self, Operate, Read, Write};
use super::registry::{PermissionSpec, Places};

const P: Places = Places::PROJECT;
const S: Places = Places::SYSTEM;
const PS: Places = P.or(S);
const DS: Places = Places::DOMAIN.or(S);
const PDS: Places = P.or(DS);
const OWN: Places = Places::OWN;
const DSO: Places = DS.or(OWN);

const fn spec(
    name: &'static str,
    access: Access,
    object: Places,
    en: &'static str,
    zh: &'static str,
) -> PermissionSpec {
    PermissionSpec {
        name,
        en,
        zh,
        access,
        object,
        reserved: false,
    }
}

const fn reserved(spec: PermissionSpec) -> PermissionSpec {
    PermissionSpec {
        reserved: true,
        ..spec
    }
}

/// The built-in table.
#[rustfmt::skip]
pub const PERMISSIONS: &[PermissionSpec] = &[
    spec("server:read", Read, PS, "see servers", "查看云主机"),
    spec("server:create", Write, PS, "create servers", "创建云主机"),
    spec("server:update", Write, PS, "change names and labels of servers", "修改云主机的名称和标签"),
    spec("server:delete", Write, PS, "delete servers", "删除云主机"),
    spec("server:start", Operate, PS, "start servers", "开机"),
    spec("server:stop", Operate, PS, "stop servers", "关机"),
    spec("server:reboot", Operate, PS, "reboot servers", "重启云主机"),
    spec("server:pause", Operate, PS, "pause and unpause servers", "暂停和取消暂停云主机"),
    spec("server:suspend", Operate, PS, "suspend and resume servers", "休眠和恢复云主机"),
    spec("server:batch", Operate, PS, "act on several servers at once", "批量操作云主机"),
    spec("server:lock", Operate, PS, "lock servers, end one's own locks", "锁定云主机、解除自己的锁定"),
    spec("server:unlock", Operate, S, "end all locks, and not be hindered by them", "解除任何锁定且不受其限制"),
    spec("server:protect", Operate, PS, "protect servers from deletion", "开关云主机删除保护"),
    spec("server:rebuild", Operate, PS, "make the root disks of servers anew", "重装云主机系统盘"),
    spec("server:reset-state", Operate, S, "have a server's record say what its host says", "按宿主机实际情况校正云主机状态"),
    spec("server:start-rescue", Operate, PS, "start servers in rescue mode", "进入救援模式"),
    spec("server:stop-rescue", Operate, PS, "leave rescue mode", "退出救援模式"),
    spec("server:console", Operate, PS, "read and use consoles of servers", "使用云主机控制台"),
    spec("server:placement", Read, PS, "see why a server is where it is", "查看云主机的调度结果"),
    spec("flavor:read", Read, S, "see flavors", "查看规格"),
    spec("flavor:create", Write, S, "create flavors", "创建规格"),
    spec("flavor:delete", Write, S, "delete flavors", "删除规格"),
    spec("image:read", Read, PS, "see images", "查看镜像"),
    spec("image:create", Write, PS, "create images", "创建镜像"),
    spec("image:delete", Write, PS, "delete images", "删除镜像"),
    spec("image:upload", Write, PS, "upload an image's content", "上传镜像内容"),
    spec("image:download", Read, PS, "download an image's content", "下载镜像内容"),
    spec("image:publish", Write, S, "make images for all projects", "创建公共镜像"),
    spec("volume:read", Read, PS, "see volumes", "查看云硬盘"),
    spec("volume:create", Write, PS, "create volumes", "创建云硬盘"),
    spec("volume:delete", Write, PS, "delete volumes", "删除云硬盘"),
    spec("volume:grow", Write, PS, "make volumes larger", "扩容云硬盘"),
    spec("volume:limit", Write, PS, "limit what volumes may do", "设置云硬盘限速"),
    spec("volume:attach", Operate, PS, "give volumes to servers", "挂载云硬盘"),
    spec("volume:detach", Operate, PS, "take volumes from servers", "卸载云硬盘"),
    spec("snapshot:read", Read, PS, "see snapshots", "查看快照"),
    spec("snapshot:create", Write, PS, "take snapshots", "创建快照"),
    spec("snapshot:revert", Operate, PS, "make disks what they were in a snapshot", "回滚快照"),
    spec("snapshot:delete", Write, PS, "delete snapshots", "删除快照"),
    spec("keypair:read", Read, PS, "see keypairs", "查看密钥对"),
    spec("keypair:create", Write, PS, "create keypairs", "创建密钥对"),
    spec("keypair:delete", Write, PS, "delete keypairs", "删除密钥对"),
    spec("port:read", Read, PS, "see ports", "查看网络端口"),
    spec("host:read", Read, S, "see hosts", "查看宿主机"),
    spec("host:create", Write, S, "add hosts", "添加宿主机"),
    spec("host:update", Write, S, "change hosts, take them out of service", "修改或停用宿主机"),
    spec("host:delete", Write, S, "remove hosts", "移除宿主机"),
    spec("host:join", Operate, S, "let hosts join, take their certificates back", "允许宿主机加入、吊销其证书"),
    spec("host:sweep", Operate, S, "sweep leftovers off hosts", "清理宿主机残留"),
    spec("task:read", Read, PS, "see and follow tasks", "查看任务"),
    spec("task:cancel", Operate, PS, "cancel tasks", "取消任务"),
    spec("task:retry", Operate, S, "have stuck tasks tried again", "重试卡住的任务"),
    spec("task:skip", Operate, S, "skip a stuck task's job", "跳过卡住的作业"),
    spec("task:abandon", Operate, S, "give up stuck tasks", "放弃卡住的任务"),
    spec("plan:read", Read, PS, "see plans that were shown and not run", "查看执行计划"),
    spec("plan:apply", Operate, PS, "run a plan as it was shown", "执行计划"),
    spec("event:read", Read, PS, "see events", "查看事件"),
    spec("watch:read", Read, PS, "follow changes", "订阅变更"),
    spec("kind:read", Read, PDS, "see what kinds there are and their states", "查看资源类型"),
    spec("metrics:read", Read, S, "read a process's metrics", "读取指标"),
    spec("hold:read", Read, S, "see whether the fleet is held", "查看机群是否冻结"),
    spec("hold:set", Operate, S, "hold the fleet", "冻结机群"),
    spec("hold:adopt", Operate, S, "take over what hosts report after a restore", "恢复后接管宿主机上报的状态"),
    spec("hold:release", Operate, S, "release the fleet", "解除机群冻结"),
    reserved(spec("store:use", Operate, S, "use the store itself, past all rules", "直接访问存储")),
    spec("project:read", Read, PDS, "see projects", "查看项目"),
    spec("project:create", Write, DS, "create projects", "创建项目"),
    spec("project:update", Write, DS, "change, disable and enable projects", "修改、停用和启用项目"),
    spec("project:delete", Write, DS, "delete projects", "删除项目"),
    spec("domain:read", Read, DS, "see domains", "查看域"),
    spec("domain:create", Write, S, "create domains", "创建域"),
    spec("domain:update", Write, S, "change, disable and enable domains", "修改、停用和启用域"),
    spec("domain:delete", Write, S, "delete domains", "删除域"),
    spec("user:read", Read, DSO, "see users", "查看用户"),
    spec("user:create", Write, DS, "create users", "创建用户"),
    spec("user:update", Write, DS, "change, disable and enable users", "修改、停用和启用用户"),
    spec("user:delete", Write, DS, "delete users", "删除用户"),
    spec("user:set-password", Write, DS, "set users' passwords", "重置用户密码"),
    spec("user:change-password", Write, OWN, "change one's own password", "修改自己的密码"),
    spec("group:read", Read, DS, "see groups and who is in them", "查看用户组"),
    spec("group:create", Write, DS, "create groups", "创建用户组"),
    spec("group:update", Write, DS, "change groups and who is in them", "修改用户组及成员"),
    spec("group:delete", Write, DS, "delete groups", "删除用户组"),
    spec("role:read", Read, PDS, "see roles and what they allow", "查看角色"),
    spec("role:create", Write, DS, "create roles", "创建角色"),
    spec("role:update", Write, DS, "change roles and what they imply", "修改角色及其蕴含关系"),
    spec("role:delete", Write, DS, "delete roles", "删除角色"),
    spec("grant:read", Read, PDS.or(OWN), "see who has which role where", "查看授权"),
    spec("grant:create", Write, DS, "give roles", "授予角色"),
    spec("grant:delete", Write, DS, "take roles away", "收回角色"),
    spec("credential:read", Read, DSO, "see credentials, without their secrets", "查看凭据"),
    spec("credential:create", Write, DSO, "create application credentials, second factors and keys", "创建凭据"),
    spec("credential:delete", Write, DSO, "delete credentials", "删除凭据"),
    spec("token:read", Read, DSO, "see API tokens, without their secrets", "查看令牌"),
    spec("token:create", Write, DSO, "create API tokens", "创建令牌"),
    spec("token:delete", Write, DSO, "take tokens back", "吊销令牌"),
    spec("trust:read", Read, DSO, "see delegations", "查看委托"),
    spec("trust:create", Write, OWN, "delegate one's own roles", "委托自己的角色"),
    spec("trust:delete", Write, DSO, "end delegations", "终止委托"),
    spec("catalog:read", Read, PDS, "see regions, services and endpoints", "查看服务目录"),
    spec("catalog:update", Write, S, "change regions, services and endpoints", "修改服务目录"),
    spec("quota:read", Read, PDS, "see limits and what is used", "查看配额"),
    spec("quota:update", Write, DS, "change limits", "修改配额"),
    spec("quota:recount", Operate, S, "count anew what is used", "重新统计配额"),
    reserved(spec("audit:read", Read, PDS, "search the audit", "检索审计记录")),
    reserved(spec("audit:verify", Operate, S, "check that the audit is whole", "校验审计记录")),
    spec("policy:read", Read, PDS, "see permissions and field rules", "查看权限策略"),
    spec("policy:explain", Read, DSO, "see why something is allowed or not", "解释授权结果"),
];
