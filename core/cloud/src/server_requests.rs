//! What callers ask of servers that are there: the bodies of their actions, as types. Unknown fields are refused.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use skyloom_model::{Lifecycle, OnCrash, PowerState, Reason, Secret, Server, ServerAction, ServerId, Task};

use crate::{CreateServer, ShownOnce};

/// Changes a server; what is absent stays.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct UpdateServer {
    /// Display name.
    #[cfg_attr(
        feature = "openapi",
        schema(example = "web-1", min_length = 1, max_length = 255)
    )]
    pub name: Option<String>,
    /// All labels anew.
    pub labels: Option<BTreeMap<String, String>>,
    /// All metadata anew: at most 128 entries.
    pub metadata: Option<BTreeMap<String, String>>,
    /// What is done when its process ends by itself.
    pub on_crash: Option<OnCrash>,
}

/// What a server is rescued with: a disk over an image, or a kernel.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct StartRescue {
    /// Id or name of the image that is booted from a disk of its own; by default the public one named `rescue`.
    #[cfg_attr(feature = "openapi", schema(example = "rescue"))]
    pub image: Option<String>,
    /// Id or name of an image of format `kernel`, instead of a disk.
    pub kernel: Option<String>,
    /// Id or name of an image of format `initrd`, with the kernel.
    pub initrd: Option<String>,
    /// The kernel's command line, at most 2047 characters.
    #[cfg_attr(feature = "openapi", schema(max_length = 2047))]
    pub command_line: Option<String>,
    /// Root's password in the rescue system, 8 to 128 printable characters; by default one is made and shown once.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>, min_length = 8, max_length = 128))]
    pub password: Option<Secret<String>>,
    /// Stop the guest at once, without asking it.
    #[serde(default)]
    pub force: bool,
    /// How long the guest may take to stop before it is forced off; by default 60, at most 3600.
    #[cfg_attr(feature = "openapi", schema(example = 60, minimum = 0, maximum = 3600))]
    pub timeout_seconds: Option<u32>,
    /// After how many seconds the rescue ends by itself, 60 to 604800; by default it does not.
    #[cfg_attr(feature = "openapi", schema(example = 3600, minimum = 60, maximum = 604_800))]
    pub leave_after_seconds: Option<u32>,
}

impl StartRescue {
    /// What tells this request from others: all but the password.
    pub(crate) fn told(&self) -> serde_json::Value {
        serde_json::json!([
            self.image,
            self.kernel,
            self.initrd,
            self.command_line,
            self.force,
            self.timeout_seconds,
            self.leave_after_seconds,
        ])
    }
}

/// Which password a server's first user gets.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SetServerPassword {
    /// The password, 8 to 128 printable characters; by default one is made and shown once.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>, min_length = 8, max_length = 128))]
    pub password: Option<Secret<String>>,
}

/// Which keys a server's first user has.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SetServerKeys {
    /// Ids or names of keypairs, in place of those that it has; none: no key.
    #[cfg_attr(feature = "openapi", schema(example = json!(["laptop"])))]
    pub keypairs: Vec<String>,
}

/// How a server is rebuilt.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RebuildServer {
    /// Id or name of the image; by default the one that it was made from.
    #[cfg_attr(feature = "openapi", schema(example = "debian-13"))]
    pub image: Option<String>,
    /// Off at once, without asking the guest.
    pub force: bool,
    /// How long the guest may take before it is forced off; by default 60, at most 3600.
    #[cfg_attr(feature = "openapi", schema(example = 60, minimum = 0, maximum = 3600))]
    pub timeout_seconds: Option<u32>,
}

/// Which size a server gets.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ResizeServer {
    /// Id or name of the flavor. Its disk is not smaller than the server's.
    #[cfg_attr(feature = "openapi", schema(example = "m1.large"))]
    pub flavor: String,
    /// After how many seconds the new size is kept without being asked, 60 to 2592000; 0: never. By default after a day.
    #[cfg_attr(
        feature = "openapi",
        schema(example = 86_400, minimum = 0, maximum = 2_592_000)
    )]
    #[serde(default)]
    pub confirm_after_seconds: Option<u32>,
    /// Off at once, without asking the guest.
    #[serde(default)]
    pub force: bool,
    /// How long the guest may take before it is forced off; by default 60, at most 3600.
    #[cfg_attr(feature = "openapi", schema(example = 60, minimum = 0, maximum = 3600))]
    #[serde(default)]
    pub timeout_seconds: Option<u32>,
}

/// How a server goes to another host.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct MigrateServer {
    /// Id or name of the only host that is wanted; by default the best one that can take it.
    #[cfg_attr(feature = "openapi", schema(example = "rack1-08"))]
    pub host: Option<String>,
    /// Off at once, without asking the guest.
    pub force: bool,
    /// How long the guest may take before it is forced off; by default 60, at most 3600.
    #[cfg_attr(feature = "openapi", schema(example = 60, minimum = 0, maximum = 3600))]
    pub timeout_seconds: Option<u32>,
}

/// Where a server goes that runs on.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct LiveMigrateServer {
    /// Id or name of the only host that is wanted; by default the best one that can take it.
    #[cfg_attr(feature = "openapi", schema(example = "rack1-08"))]
    pub host: Option<String>,
}

/// Where a server goes whose host is fenced.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct EvacuateServer {
    /// Id or name of the only host that is wanted; by default the best one that can take it.
    #[cfg_attr(feature = "openapi", schema(example = "rack1-08"))]
    pub host: Option<String>,
}

/// Why a server is locked.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct LockServer {
    /// Why, for those who are refused: at most 500 characters.
    #[cfg_attr(
        feature = "openapi",
        schema(example = "month end: no restarts", max_length = 500)
    )]
    pub why: String,
}

/// How a server is deleted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema, utoipa::IntoParams))]
#[cfg_attr(feature = "openapi", into_params(parameter_in = Query))]
pub struct DeleteServer {
    /// How long it is kept in the recycle bin, at most a year of hours; 0: not at all. By default as the cloud is configured.
    #[cfg_attr(feature = "openapi", param(minimum = 0, maximum = 8760))]
    pub keep_hours: Option<u32>,
}

/// A server after an action, and the task that does the rest where there is one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ServerChanged {
    /// The server as it is now.
    pub server: Server,
    /// The task; `null` when everything is done.
    pub task: Option<Task>,
}

/// Several servers of one making.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct CreateServers {
    /// How many: 1 to 100. Their names and host names end in `-1`, `-2`, ….
    #[cfg_attr(feature = "openapi", schema(example = 3, minimum = 1, maximum = 100))]
    pub count: u32,
    /// What each is.
    pub server: CreateServer,
}

/// One action on several servers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct BatchServers {
    /// Which action.
    pub action: ServerAction,
    /// On which servers.
    pub selector: Selector,
    /// What the action's own request would have as its body.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(value_type = Object))]
    pub options: serde_json::Map<String, serde_json::Value>,
}

/// Which servers: by id or by labels, not both.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Selector {
    /// These: at most 100.
    pub ids: Vec<ServerId>,
    /// All of the project that have all these labels: refused when there are more than 100.
    pub labels: BTreeMap<String, String>,
}

/// What became of each of several.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct BatchAnswer {
    /// One for each, in the order of the request.
    pub items: Vec<BatchItem>,
    /// How many were refused.
    pub refused: usize,
}

/// What became of one of several.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct BatchItem {
    /// Which, once it has an id.
    pub id: Option<ServerId>,
    /// Its name.
    pub name: Option<String>,
    /// The server as it is now; `null` when it was refused, or only asked whether it would be.
    pub server: Option<Server>,
    /// The task that does the rest.
    pub task: Option<Task>,
    /// The first user's password, only when the cloud made it, only this once.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub password: Option<ShownOnce>,
    /// Why it was refused.
    pub refused: Option<Reason>,
}

/// Which servers, in which order.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema, utoipa::IntoParams))]
#[cfg_attr(feature = "openapi", into_params(parameter_in = Query))]
pub struct ServerQuery {
    /// Most items in the answer: 1 to 1000, by default 100.
    #[cfg_attr(feature = "openapi", param(minimum = 1, maximum = 1000))]
    pub limit: Option<u32>,
    /// The `next` of the page before.
    pub cursor: Option<String>,
    /// Only what has exactly this name.
    pub name: Option<String>,
    /// Only what has these labels, as `key=value`, several with commas between them.
    pub label: Option<String>,
    /// Only in this lifecycle.
    pub lifecycle: Option<Lifecycle>,
    /// Only in this power state.
    pub power: Option<PowerState>,
    /// Only on the host of this id or name. Who may not see hosts is refused.
    pub host: Option<String>,
    /// Only those made from the image of this id or name.
    pub image: Option<String>,
    /// Only those of the flavor of this id or name.
    pub flavor: Option<String>,
    /// In which order; by default the oldest first.
    #[cfg_attr(feature = "openapi", param(inline))]
    pub sort: Option<ServerSort>,
}

/// An order of servers; those that are alike in it, by id. With `-` the other way round.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum ServerSort {
    /// By name.
    #[serde(rename = "name")]
    Name,
    /// By name, the other way round.
    #[serde(rename = "-name")]
    NameDown,
    /// The oldest first.
    #[serde(rename = "created")]
    Created,
    /// The newest first.
    #[serde(rename = "-created")]
    CreatedDown,
    /// By lifecycle, then by power state.
    #[serde(rename = "state")]
    State,
    /// The same the other way round.
    #[serde(rename = "-state")]
    StateDown,
}
