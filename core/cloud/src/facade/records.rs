//! Reading records of a scope and putting the parts of commits together.

use jiff::SignedDuration;
use serde::Serialize;
use serde_json::Value as Json;
use skyloom_model::ablation::{Rule, kept};
use skyloom_model::{
    Actor, FORMAT, Name, Priority, Progress, Reason, Resource, Scope, Subject, Task, TaskId, TaskState,
    Timestamp, paths,
};
use skyloom_store::{Document, ErrorKind, Key, Outcome, Prefix, Revision, Txn, Value, Versioned, Write};
use uuid::Uuid;

use super::Cloud;
use crate::caller::kind_of;
use crate::{Caller, CloudError, ErrorKind as CloudErrorKind, Result, hash};

/// The key of a path made of ids and fixed words.
pub(crate) fn key(path: &str) -> Result<Key> {
    Ok(Key::parse(path)?)
}

/// The prefix of a path made of ids and fixed words.
pub(crate) fn prefix(path: &str) -> Result<Prefix> {
    Ok(Prefix::parse(path)?)
}

/// The part of a commit that creates `document` at `path`.
pub(crate) fn create<T: Serialize>(path: &str, document: &T) -> Result<Txn> {
    Ok(Txn::new().create(key(path)?, Value::json(document)?))
}

/// The part of a commit that creates a resource.
pub(crate) fn create_resource<R: Resource>(resource: &R) -> Result<Txn> {
    let meta = resource.meta();
    create(&paths::resource(R::KIND, meta.scope, meta.id), resource)
}

/// Where the claim of a unique name lies.
pub(crate) fn name_path<R: Resource>(scope: Scope, name: &str) -> String {
    paths::name(R::KIND, scope, &hash::sha256(name.as_bytes()))
}

impl Cloud {
    pub(crate) fn now(&self) -> Timestamp {
        self.parts.clock.now()
    }

    /// The document at `path`.
    pub(crate) async fn read<T: Document>(&self, path: &str) -> Result<Option<Versioned<T>>> {
        let found = self.parts.backend.get(&key(path)?).await?;
        Ok(found.as_ref().map(Versioned::decode).transpose()?)
    }

    /// The resource of `scope`.
    pub(crate) async fn resource<R: Resource>(&self, scope: Scope, id: Uuid) -> Result<Option<Versioned<R>>> {
        self.read(&paths::resource(R::KIND, scope, id)).await
    }

    /// The resource of `scope`, if the caller may do that to it.
    pub(crate) async fn allowed<R: Resource>(
        &self,
        caller: &Caller,
        permission: &'static str,
        scope: Scope,
        id: Uuid,
    ) -> Result<Versioned<R>> {
        let found = self.resource::<R>(scope, id).await?;
        let found = found.ok_or_else(|| CloudError::not_found(kind_of(permission)))?;
        caller.may_to(permission, found.value.meta())?;
        Ok(found)
    }

    /// The caller's own resource, if it may do that to it.
    pub(crate) async fn own<R: Resource>(
        &self,
        caller: &Caller,
        permission: &'static str,
        id: Uuid,
    ) -> Result<Versioned<R>> {
        self.allowed(caller, permission, caller.scope(), id).await
    }

    /// The id that has a unique name.
    pub(crate) async fn id_of_name<R: Resource>(
        &self,
        scope: Scope,
        name: &str,
    ) -> Result<Option<Versioned<Uuid>>> {
        self.read(&name_path::<R>(scope, name)).await
    }

    /// The resource with that id, or else with that unique name.
    pub(crate) async fn by_id_or_name<R: Resource>(
        &self,
        scope: Scope,
        asked: &str,
    ) -> Result<Option<Versioned<R>>> {
        if let Ok(id) = asked.parse::<Uuid>()
            && let Some(found) = self.resource(scope, id).await?
        {
            return Ok(Some(found));
        }
        match self.id_of_name::<R>(scope, asked).await? {
            Some(id) => self.resource(scope, id.value).await,
            None => Ok(None),
        }
    }

    /// The part of a commit that claims a unique name for `id`: refused when somebody has it.
    pub(crate) async fn claim_name<R: Resource>(
        &self,
        what: &str,
        scope: Scope,
        name: &Name,
        id: Uuid,
    ) -> Result<Txn> {
        if self.id_of_name::<R>(scope, name.as_str()).await?.is_some() {
            let message = format!("there is already a {what} with the name {name}");
            return Err(CloudError::conflict(Reason::new(
                format!("{what}.name_taken"),
                message,
            )));
        }
        create(&name_path::<R>(scope, name.as_str()), &id)
    }

    /// The part of a commit that removes a resource with its unique name.
    pub(crate) async fn remove_named<R: Resource>(&self, found: &Versioned<R>) -> Result<Txn> {
        let meta = found.value.meta();
        let txn = found.delete();
        match self.id_of_name::<R>(meta.scope, meta.name.as_str()).await? {
            Some(claim) if claim.value == meta.id => Ok(txn.and(claim.delete())),
            _ => Ok(txn),
        }
    }

    /// A task as it is asked for.
    pub(crate) fn task<R: Resource>(&self, caller: &Caller, flow: &str, subject: &R, params: Json) -> Task {
        let asked = self.task_of(&caller.actor, &caller.request_id, flow, subject, params);
        Task {
            idempotency_key: caller.idempotency_key.clone(),
            ..asked
        }
    }

    /// A task as `actor` asks for it.
    pub(crate) fn task_of<R: Resource>(
        &self,
        actor: &Actor,
        request_id: &str,
        flow: &str,
        subject: &R,
        params: Json,
    ) -> Task {
        let (meta, now) = (subject.meta(), self.now());
        Task {
            format: FORMAT,
            id: TaskId::fresh(&*self.parts.ids),
            scope: meta.scope,
            flow: flow.to_owned(),
            subject: Subject {
                kind: R::KIND.to_owned(),
                id: meta.id,
                name: meta.name.clone(),
            },
            params,
            actor: actor.clone(),
            request_id: request_id.to_owned(),
            idempotency_key: None,
            state: TaskState::Queued,
            reason: None,
            progress: Progress::default(),
            owner: None,
            cancel: false,
            priority: Priority::Normal,
            deadline: now.checked_add(time_for(flow)).ok(),
            plan_version: 0,
            resume: None,
            orders: Vec::new(),
            result: None,
            created_at: now,
            planned_at: None,
            ended_at: None,
        }
    }

    /// Commits; `false` when a guard did not hold. An unknown outcome is cleared up by reading back the first write.
    pub(crate) async fn commit(&self, txn: Txn) -> Result<bool> {
        let probe = txn.writes.first().cloned();
        match self.parts.backend.commit(txn).await {
            Ok(Outcome::Committed { .. }) => Ok(true),
            Ok(Outcome::Conflict { .. }) => Ok(false),
            Err(error) if error.kind() == ErrorKind::Unknown => {
                if !kept(Rule::ReadBackUnknown) {
                    return Ok(false);
                }
                let happened = match &probe {
                    Some(probe) => self.happened(probe).await,
                    None => false,
                };
                if happened { Ok(true) } else { Err(error.into()) }
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Whether a write is to be seen. `false` also when that cannot be told.
    async fn happened(&self, write: &Write) -> bool {
        let Ok(there) = self.parts.backend.get(write.key()).await else {
            return false;
        };
        match (write, there) {
            (Write::Put(_, value), Some(there)) => {
                let (wanted, found) = (value.parse::<Json>(), there.value.parse::<Json>());
                matches!((wanted, found), (Ok(a), Ok(b)) if a == b)
            }
            (Write::Delete(_), None) => true,
            _ => false,
        }
    }
}

/// How long a task may take in all, from the request on; then it is given up and undone.
///
/// | flow | time |
/// | --- | --- |
/// | `image.import` | 12 hours: a large file over a slow line |
/// | `host.sweep` | 6 hours: the next sweep looks again anyway |
/// | all others | 24 hours |
fn time_for(flow: &str) -> SignedDuration {
    SignedDuration::from_hours(match flow {
        "image.import" => 12,
        "host.sweep" => 6,
        _ => 24,
    })
}

/// Lets through what still is at the revision that the caller read.
pub(crate) fn precondition(caller: &Caller, modified: Revision) -> Result<()> {
    match caller.if_match {
        Some(wanted) if wanted != modified => {
            let message = format!("it is at revision {modified} now, not at {wanted}");
            let reason = Reason::new("precondition.failed", message)
                .hint("read it again and look at what has changed");
            Err(CloudError::new(CloudErrorKind::PreconditionFailed, reason))
        }
        _ => Ok(()),
    }
}
