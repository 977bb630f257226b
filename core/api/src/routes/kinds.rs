//! `/v1/kinds`: what states things have, and what can be asked of them in each. Read off the model's tables, so that
//! CLI and web need no tables of their own.

use std::collections::BTreeMap;

use axum::Json as Answer;
use serde::Serialize;
use serde_json::Value;
use skyloom_model::action::{ACTIONS, ActionDef, Guard};
use skyloom_model::{Lifecycle, Overlay, PowerState, TaskState, Words};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::answer::Result;
use crate::auth::Identity;
use crate::extract::RawId;
use crate::parts::AppState;
use crate::problem::ApiError;

pub(super) fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(get))
}

/// A kind of thing.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(crate) struct Kind {
    /// Its name, as in the path of this document.
    #[schema(example = "server")]
    name: &'static str,
    /// As in paths of the things.
    #[schema(example = "servers")]
    plural: &'static str,
    /// For people.
    labels: Words,
    /// The axes of its state.
    axes: Vec<Axis>,
    /// What can be asked of it.
    actions: Vec<Action>,
}

/// All kinds.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(crate) struct Kinds {
    items: Vec<Kind>,
}

/// One axis of a state.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(crate) struct Axis {
    /// Its field below `status`, or `state`.
    #[schema(example = "power")]
    name: &'static str,
    labels: Words,
    states: Vec<State>,
}

/// One state on an axis.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(crate) struct State {
    #[schema(value_type = String, example = "running")]
    value: Value,
    /// Whether it stays like this without a task under way.
    steady: bool,
    labels: Words,
}

/// Something that can be asked.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(crate) struct Action {
    #[schema(value_type = String, example = "start")]
    name: Value,
    labels: Words,
    /// What is asked before, where there is something to ask.
    dialog: Option<Words>,
    /// Whether something is lost by it that cannot be had back.
    dangerous: bool,
    /// The HTTP method.
    #[schema(example = "POST")]
    method: &'static str,
    /// The path, with `{id}` for the thing's id.
    #[schema(example = "/v1/servers/{id}/actions/start")]
    path: String,
    /// The permission that it needs.
    #[schema(example = "server:start")]
    permission: &'static str,
    /// The flow that does it, where it is one.
    #[schema(example = "server.start")]
    flow: Option<&'static str>,
    /// The states in which it can be asked: one state per axis.
    #[schema(value_type = Vec<Object>, example = json!([{"lifecycle": "active", "power": "stopped"}]))]
    allowed: Vec<BTreeMap<&'static str, Value>>,
    /// Conditions under which it is refused.
    refused_under: Vec<Overlay>,
    /// Whether it can be asked while a task is under way.
    while_busy: bool,
    /// What the host's hypervisor must be able to do: one of the traits of the host's facts.
    #[schema(example = "pause")]
    needs: Option<&'static str>,
}

/// List kinds
///
/// All kinds of things with their states and actions, and their names in English and Chinese.
#[utoipa::path(get, path = "/v1/kinds", operation_id = "list_kinds", tag = "kinds",
    responses((status = 200, description = "The kinds.", body = Kinds)))]
async fn list(_: Identity) -> Answer<Kinds> {
    Answer(Kinds {
        items: vec![server(), task()],
    })
}

/// Show a kind
///
/// The states of one kind, which of them are steady, and in which of them which action can be asked.
#[utoipa::path(get, path = "/v1/kinds/{name}", operation_id = "get_kind", tag = "kinds",
    responses((status = 200, description = "The kind.", body = Kind)))]
async fn get(_: Identity, name: RawId) -> Result<Answer<Kind>> {
    match name.text() {
        "server" => Ok(Answer(server())),
        "task" => Ok(Answer(task())),
        _ => Err(ApiError::not_found("kind")),
    }
}

const fn labels(en: &'static str, zh: &'static str) -> Words {
    Words { en, zh }
}

/// A state or action by its name in JSON.
fn word(value: impl Serialize) -> Value {
    serde_json::to_value(value).unwrap_or_default()
}

pub(crate) fn server() -> Kind {
    let lifecycle = Lifecycle::ALL.iter().map(|l| State {
        value: word(l),
        steady: l.steady(),
        labels: match l {
            Lifecycle::Building => labels("building", "创建中"),
            Lifecycle::Active => labels("active", "可用"),
            Lifecycle::Error => labels("error", "错误"),
            Lifecycle::Shelved => labels("shelved", "已搁置"),
            Lifecycle::Recycled => labels("recycled", "回收站"),
            Lifecycle::Deleting => labels("deleting", "删除中"),
        },
    });
    let power = PowerState::ALL.iter().map(|p| State {
        value: word(p),
        steady: !matches!(p, PowerState::Unknown),
        labels: match p {
            PowerState::Unknown => labels("unknown", "未知"),
            PowerState::Running => labels("running", "运行中"),
            PowerState::Paused => labels("paused", "已暂停"),
            PowerState::Stopped => labels("stopped", "已关机"),
            PowerState::Suspended => labels("suspended", "已休眠"),
            PowerState::Crashed => labels("crashed", "已崩溃"),
        },
    });
    Kind {
        name: "server",
        plural: "servers",
        labels: labels("server", "云主机"),
        axes: vec![
            Axis {
                name: "lifecycle",
                labels: labels("lifecycle", "生命周期"),
                states: lifecycle.collect(),
            },
            Axis {
                name: "power",
                labels: labels("power", "电源"),
                states: power.collect(),
            },
        ],
        actions: ACTIONS.iter().map(server_action).collect(),
    }
}

fn server_action(def: &ActionDef) -> Action {
    let pairs = Lifecycle::ALL
        .iter()
        .flat_map(|l| PowerState::ALL.map(|p| (*l, p)));
    let allowed = pairs.filter(|(l, p)| def.lifecycles.contains(l) && def.powers.contains(p));
    Action {
        name: word(def.action),
        labels: def.label,
        dialog: Some(def.dialog),
        dangerous: def.dangerous,
        method: def.method,
        path: def.path.to_owned(),
        permission: def.permission,
        flow: def.flow,
        allowed: allowed
            .map(|(l, p)| BTreeMap::from([("lifecycle", word(l)), ("power", word(p))]))
            .collect(),
        refused_under: def.refused_under.to_vec(),
        while_busy: def.while_busy,
        needs: match def.guard {
            Guard::None
            | Guard::Placed
            | Guard::Unplaced
            | Guard::Rescued
            | Guard::Resized
            | Guard::Migrating => None,
            Guard::Ability(ability) => Some(ability),
        },
    }
}

fn task() -> Kind {
    let states = TaskState::ALL.iter().map(|s| State {
        value: word(s),
        steady: s.rests(),
        labels: match s {
            TaskState::Queued => labels("queued", "排队中"),
            TaskState::Waiting => labels("waiting", "等待中"),
            TaskState::Running => labels("running", "执行中"),
            TaskState::Unwinding => labels("unwinding", "回退中"),
            TaskState::Done => labels("done", "已完成"),
            TaskState::Failed => labels("failed", "失败"),
            TaskState::Cancelled => labels("cancelled", "已取消"),
            TaskState::Stuck => labels("stuck", "卡住"),
        },
    });
    Kind {
        name: "task",
        plural: "tasks",
        labels: labels("task", "任务"),
        axes: vec![Axis {
            name: "state",
            labels: labels("state", "状态"),
            states: states.collect(),
        }],
        actions: vec![
            task_action("cancel", "取消", "cancel", "task:cancel", |s| !s.rests()),
            task_action("retry", "重试", "actions/retry", "task:order", waits_for_order),
            task_action("skip", "跳过", "actions/skip", "task:order", waits_for_order),
            task_action(
                "abandon",
                "放弃",
                "actions/abandon",
                "task:order",
                waits_for_order,
            ),
        ],
    }
}

fn waits_for_order(state: TaskState) -> bool {
    state == TaskState::Stuck
}

fn task_action(
    name: &'static str,
    zh: &'static str,
    path: &str,
    permission: &'static str,
    allowed: impl Fn(TaskState) -> bool,
) -> Action {
    let states = TaskState::ALL.into_iter().filter(|s| allowed(*s));
    Action {
        name: word(name),
        labels: labels(name, zh),
        dialog: None,
        dangerous: false,
        refused_under: Vec::new(),
        while_busy: true,
        needs: None,
        method: "POST",
        path: format!("/v1/tasks/{{id}}/{path}"),
        permission,
        flow: None,
        allowed: states.map(|s| BTreeMap::from([("state", word(s))])).collect(),
    }
}
