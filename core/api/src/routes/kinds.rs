//! `/v1/kinds`: what states things have, and what can be asked of them in each. Read off the model's tables, so that
//! CLI and web need no tables of their own.

use std::collections::BTreeMap;

use axum::Json as Answer;
use serde::Serialize;
use serde_json::Value;
use skyloom_model::{Lifecycle, Overlays, PowerState, ServerAction, ServerStatus, TaskState};
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
    labels: Labels,
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

/// Text for people in two languages.
#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
pub(crate) struct Labels {
    /// English.
    #[schema(example = "running")]
    en: &'static str,
    /// Chinese.
    #[schema(example = "运行中")]
    zh: &'static str,
}

/// One axis of a state.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(crate) struct Axis {
    /// Its field below `status`, or `state`.
    #[schema(example = "power")]
    name: &'static str,
    labels: Labels,
    states: Vec<State>,
}

/// One state on an axis.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(crate) struct State {
    #[schema(value_type = String, example = "running")]
    value: Value,
    /// Whether it stays like this without a task under way.
    steady: bool,
    labels: Labels,
}

/// Something that can be asked.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(crate) struct Action {
    #[schema(value_type = String, example = "start")]
    name: Value,
    labels: Labels,
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
    /// The states in which it can be asked, as long as no task is under way: one state per axis.
    #[schema(value_type = Vec<Object>, example = json!([{"lifecycle": "active", "power": "stopped"}]))]
    allowed: Vec<BTreeMap<&'static str, Value>>,
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

const fn labels(en: &'static str, zh: &'static str) -> Labels {
    Labels { en, zh }
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
        actions: ServerAction::ALL.iter().copied().map(server_action).collect(),
    }
}

fn server_action(action: ServerAction) -> Action {
    let (method, path) = match action {
        ServerAction::Delete => ("DELETE", "/v1/servers/{id}".to_owned()),
        ServerAction::Start | ServerAction::Stop | ServerAction::Reboot => {
            let name = word(action);
            (
                "POST",
                format!("/v1/servers/{{id}}/actions/{}", name.as_str().unwrap_or_default()),
            )
        }
    };
    let pairs = Lifecycle::ALL
        .iter()
        .flat_map(|l| PowerState::ALL.map(|p| (*l, p)));
    let allowed = pairs.filter(|(lifecycle, power)| action.allowed(&idle(*lifecycle, *power)).is_ok());
    Action {
        name: word(action),
        labels: match action {
            ServerAction::Start => labels("start", "开机"),
            ServerAction::Stop => labels("stop", "关机"),
            ServerAction::Reboot => labels("reboot", "重启"),
            ServerAction::Delete => labels("delete", "删除"),
        },
        method,
        path,
        permission: action.permission(),
        flow: Some(action.flow()),
        allowed: allowed
            .map(|(l, p)| BTreeMap::from([("lifecycle", word(l)), ("power", word(p))]))
            .collect(),
    }
}

/// A server on which nothing is under way.
fn idle(lifecycle: Lifecycle, power: PowerState) -> ServerStatus {
    ServerStatus {
        lifecycle,
        power,
        activity: None,
        overlays: Overlays::default(),
        placement: None,
        addresses: Vec::new(),
        accelerator: None,
        fault: None,
        launched_at: None,
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
        method: "POST",
        path: format!("/v1/tasks/{{id}}/{path}"),
        permission,
        flow: None,
        allowed: states.map(|s| BTreeMap::from([("state", word(s))])).collect(),
    }
}
