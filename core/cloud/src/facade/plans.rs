//! Plans that were shown: kept for a day, applied as long as the world has not moved.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value as Json, json};
use skyloom_model::action::ACTIONS;
use skyloom_model::{FORMAT, Reason, Scope, Task, TaskId, paths};
use skyloom_store::{Key, Prefix, Revision, Txn, Versioned};
use uuid::Uuid;

use super::Cloud;
use super::draft::{Draft, Seen, address, changes, made_from, seen};
use super::list::PageOf;
use super::records::{create, prefix};
use super::tasks::listed_scopes;
use crate::{
    Caller, CloudError, ErrorKind, ListQuery, Listed, PlanApplied, Preview, QuotaUse, Result, ShownOnce,
    ShownPlan,
};

/// How long a shown plan can be applied; then the sweep forgets it.
const KEPT_FOR: jiff::SignedDuration = jiff::SignedDuration::from_hours(24);

/// A shown plan as it is kept at [`paths::preview`], with all that operators see.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct KeptPlan {
    format: u16,
    #[serde(flatten)]
    shown: ShownPlan,
    scope: Scope,
    /// The request, without secrets: requests that carry any are not kept.
    request: Json,
    fingerprint: String,
    seen: std::collections::BTreeMap<String, Revision>,
}

/// The shown plan that a mutation carries out.
#[derive(Debug, Clone, Copy)]
pub(super) struct Applying {
    /// Which plan.
    pub(super) plan: Uuid,
    /// The id that was shown for what is made: hosts that are equally good are told apart by it.
    subject: Option<Uuid>,
}

impl Cloud {
    /// The id of what a request makes.
    pub(super) fn subject_id(&self) -> Uuid {
        self.applying
            .and_then(|applying| applying.subject)
            .unwrap_or_else(|| self.parts.ids.uuid())
    }

    /// What a mutation would do: the end of every dry run.
    pub(super) async fn previewed(
        &self,
        caller: &Caller,
        operation: &str,
        request: &Json,
        txn: Txn,
        task: Option<&Task>,
        quota: Vec<QuotaUse>,
    ) -> Result<Preview> {
        let Some(task) = task else {
            return Ok(shown_to(
                caller,
                Preview {
                    operation: operation.to_owned(),
                    plan: None,
                    flow: None,
                    subject: None,
                    steps: Vec::new(),
                    placement: None,
                    reservation: None,
                    changes: changes(&txn),
                    later: Vec::new(),
                    risks: Vec::new(),
                    made_from: made_from(&seen(&txn)),
                    quota,
                },
            ));
        };
        let draft = self.draft(txn, task).await?;
        let mut preview = draft.preview(operation);
        preview.quota = quota;
        if let Some(request) = keepable(operation, request) {
            let id = self.parts.ids.uuid();
            preview.plan = Some(id);
            self.keep_plan(caller, task.scope, request, &draft, &preview, id)
                .await?;
        }
        Ok(shown_to(caller, preview))
    }

    async fn keep_plan(
        &self,
        caller: &Caller,
        scope: Scope,
        request: Json,
        draft: &Draft,
        preview: &Preview,
        id: Uuid,
    ) -> Result<()> {
        let now = self.now();
        let kept = KeptPlan {
            format: FORMAT,
            shown: ShownPlan {
                id,
                at: now,
                expires_at: now.saturating_add(KEPT_FOR).unwrap_or(now),
                actor: caller.actor.clone(),
                applied: None,
                preview: preview.clone(),
            },
            scope,
            request,
            fingerprint: draft.fingerprint(),
            seen: draft
                .seen
                .iter()
                .map(|(key, revision)| (key.to_string(), *revision))
                .collect(),
        };
        if self.commit(create(&paths::preview(scope, id), &kept)?).await? {
            Ok(())
        } else {
            Err(CloudError::contended())
        }
    }

    /// A page of the project's shown plans, oldest first; for who runs the cloud also the cloud's own.
    ///
    /// # Errors
    /// `cursor.invalid`, `limit.invalid`.
    pub async fn list_plans(&self, caller: &Caller, query: &ListQuery) -> Result<Listed<ShownPlan>> {
        let prefixes: Vec<Prefix> = listed_scopes(caller, "plan:read")?
            .into_iter()
            .map(|s| prefix(&format!("previews/{s}")))
            .collect::<Result<_>>()?;
        let page = PageOf {
            cursor: query.cursor.as_deref(),
            limit: query.limit,
        };
        let now = self.now();
        let found = self
            .page(&prefixes, page, |p: &KeptPlan| p.shown.expires_at > now)
            .await?;
        Ok(Listed {
            items: found
                .items
                .into_iter()
                .map(|p| plan_to(caller, p.shown))
                .collect(),
            next: found.next,
        })
    }

    /// One shown plan.
    ///
    /// # Errors
    /// `plan.not_found`.
    pub async fn get_plan(&self, caller: &Caller, id: Uuid) -> Result<Versioned<ShownPlan>> {
        let kept = self.kept_plan(caller, "plan:read", id).await?;
        Ok(Versioned {
            value: plan_to(caller, kept.value.shown),
            key: kept.key,
            created: kept.created,
            modified: kept.modified,
        })
    }

    async fn kept_plan(
        &self,
        caller: &Caller,
        permission: &'static str,
        id: Uuid,
    ) -> Result<Versioned<KeptPlan>> {
        for scope in [caller.scope(), Scope::System] {
            if let Some(found) = self.read::<KeptPlan>(&paths::preview(scope, id)).await?
                && found.value.shown.expires_at > self.now()
            {
                caller.may_in(permission, scope)?;
                return Ok(found);
            }
        }
        Err(CloudError::not_found("plan"))
    }

    /// Makes a shown plan's request again and commits exactly what was shown: resource, task, plan, claims and first
    /// jobs at once, if nothing that it was made from has changed.
    ///
    /// # Errors
    /// `plan.not_found`, `plan.world_moved`, `plan.applied`, `tasks.too_many`, `auth.forbidden`.
    pub async fn apply_plan(&self, caller: &Caller, id: Uuid) -> Result<PlanApplied> {
        let kept = self.kept_plan(caller, "plan:apply", id).await?.value;
        let applying = Self {
            applying: Some(Applying {
                plan: id,
                subject: kept.shown.preview.subject.as_ref().map(|s| s.id),
            }),
            ..self.clone()
        };
        let caller = &Caller {
            if_match: None,
            ..caller.clone()
        };
        let again = applying.ask_again(caller, &kept).await;
        let (task, password) = again.map_err(|error| match error.kind() {
            ErrorKind::Conflict | ErrorKind::NotFound | ErrorKind::Invalid
                if !error.code().starts_with("quota.")
                    && !error.code().starts_with("plan.")
                    && !error.code().starts_with("idempotency.") =>
            {
                world_moved(&[error.reason().to_string()])
            }
            _ => error,
        })?;
        let scopes = [caller.scope(), Scope::System];
        let gone = || CloudError::not_found("task");
        Ok(PlanApplied {
            plan: id,
            task: self.task_in(&scopes, task).await?.ok_or_else(gone)?.value,
            password,
        })
    }

    /// The request of a shown plan, made again.
    async fn ask_again(&self, caller: &Caller, kept: &KeptPlan) -> Result<(TaskId, Option<ShownOnce>)> {
        let request = kept.request.clone();
        let image_task = |task: Option<Task>| {
            task.map(|t| (t.id, None))
                .ok_or_else(|| CloudError::internal("a plan without a task"))
        };
        match kept.shown.preview.operation.as_str() {
            "servers.create" => {
                let made = self.create_server(caller, read(request)?).await?;
                Ok((made.task.id, made.password))
            }
            "images.create" => image_task(self.create_image(caller, read(request)?).await?.task),
            "images.delete" => image_task(self.delete_image(caller, read(request)?).await?.task),
            "hosts.sweep" => {
                let (id, options) = read(request)?;
                Ok((self.sweep_host(caller, id, options).await?.task.id, None))
            }
            other => {
                let Some(def) = ACTIONS.iter().find(|def| def.name == other) else {
                    let message = format!("a plan of {other} cannot be applied");
                    return Err(CloudError::internal(message));
                };
                let (id, options) = read(request)?;
                let asked = self.act_on_server(caller, id, def.action, options).await?;
                let task = asked.task.map(|task| (task.id, None));
                task.ok_or_else(|| CloudError::internal("a plan without a task"))
            }
        }
    }

    /// The commit of a plan that was shown, if the world has not moved.
    pub(super) async fn applied(&self, caller: &Caller, id: Uuid, txn: Txn, task: &Task) -> Result<Txn> {
        let kept = self.kept_plan(caller, "plan:apply", id).await?;
        if let Some(task) = kept.value.shown.applied {
            let reason = Reason::new("plan.applied", format!("the plan was applied: task {task}"));
            return Err(CloudError::conflict(
                reason.hint("to do the same once more, make the request again"),
            ));
        }
        let draft = self.draft(txn, task).await?;
        let moved = moved(caller, &kept.value, &draft);
        if !moved.is_empty() {
            return Err(world_moved(&moved));
        }
        let mut done = kept.value.clone();
        done.shown.applied = Some(task.id);
        Ok(draft.txn.and(kept.replace(&done)?))
    }
}

/// What has changed since a plan was shown, for the caller.
fn moved(caller: &Caller, kept: &KeptPlan, draft: &Draft) -> Vec<String> {
    let now: Seen = draft.seen.clone();
    let mut moved = Vec::new();
    for (path, then) in &kept.seen {
        let Some(key) = Key::parse(path).ok() else {
            continue;
        };
        if now.get(&key) == Some(then) {
            continue;
        }
        let what = match address(&key) {
            Some((kind, _)) if kind == paths::LEDGERS && !caller.sees_hosts() => {
                "what is free on the chosen host has changed".to_owned()
            }
            Some((kind, Some(id))) if kind == paths::LEDGERS => {
                format!("what is free on the host {id} has changed, or another host is chosen")
            }
            Some((kind, Some(id))) => format!("{kind} {id} has changed"),
            _ => format!("{path} has changed"),
        };
        moved.push(what);
    }
    if moved.is_empty() && kept.fingerprint != draft.fingerprint() {
        moved.push("another plan would be made now".to_owned());
    }
    moved
}

fn world_moved(moved: &[String]) -> CloudError {
    let message = format!(
        "the world has moved since the plan was shown: {}",
        moved.join("; ")
    );
    let reason = Reason::new("plan.world_moved", message);
    CloudError::conflict(reason.hint("make the request again as a dry run, and look at the new plan"))
}

fn read<T: DeserializeOwned>(request: Json) -> Result<T> {
    serde_json::from_value(request)
        .map_err(|e| CloudError::internal(format!("a kept request cannot be read: {e}")))
}

/// The request as it can be kept and made again; nothing when it carried secrets or content.
fn keepable(operation: &str, request: &Json) -> Option<Json> {
    match operation {
        "servers.create" => {
            let mut request = request.clone();
            let secret = request["password"] != json!(false) || !request["user_data"].is_null();
            // Of a password only is kept whether there was one.
            request["password"] = Json::Null;
            (!secret).then_some(request)
        }
        "images.upload" => None,
        _ => Some(request.clone()),
    }
}

fn shown_to(caller: &Caller, preview: Preview) -> Preview {
    if caller.sees_hosts() {
        preview
    } else {
        preview.for_tenant()
    }
}

fn plan_to(caller: &Caller, plan: ShownPlan) -> ShownPlan {
    ShownPlan {
        preview: shown_to(caller, plan.preview),
        ..plan
    }
}
