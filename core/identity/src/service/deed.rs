//! Changes with what the audit says of them, in one commit.

use std::net::IpAddr;

use skyloom_model::{ProjectId, TaskId};
use skyloom_store::Txn;
use uuid::Uuid;

use super::Identity;
use crate::audit::{AuditActor, AuditObject, AuditOutcome, AuditScope, Entry, EntryId, Text, Word};
use crate::{AuthScope, ChangeResult, DomainId, Doomed, Draft, Edit, Principal};

/// Who does something, from where and in which request.
#[derive(Debug, Clone, Copy)]
pub struct Call<'a> {
    /// Who.
    pub by: &'a Principal,
    /// From where.
    pub source: Option<IpAddr>,
    /// In which request.
    pub request_id: &'a str,
}

/// What was done to what.
#[derive(Debug, Clone)]
pub struct Deed {
    action: &'static str,
    kind: &'static str,
    id: Option<Uuid>,
    name: Option<Text>,
    scope: AuditScope,
    changes: Vec<&'static str>,
    task: Option<TaskId>,
}

impl Deed {
    /// The use of a permission (`user:create`): on the kind before its colon, in the cloud itself.
    #[must_use]
    pub fn new(action: &'static str) -> Self {
        Self {
            action,
            kind: action.split_once(':').map_or(action, |(kind, _)| kind),
            id: None,
            name: None,
            scope: AuditScope::System,
            changes: Vec::new(),
            task: None,
        }
    }
    /// On that object.
    #[must_use]
    pub fn on(mut self, id: Uuid) -> Self {
        self.id = Some(id);
        self
    }
    /// Which is called so.
    #[must_use]
    pub fn named(mut self, name: &str) -> Self {
        self.name = Some(Text::new(name));
        self
    }
    /// In a domain.
    #[must_use]
    pub fn in_domain(mut self, id: DomainId) -> Self {
        self.scope = AuditScope::Domain { id };
        self
    }
    /// In a project of a domain.
    #[must_use]
    pub fn in_project(mut self, id: ProjectId, domain: DomainId) -> Self {
        self.scope = AuditScope::Project { id, domain };
        self
    }
    /// With these fields changed.
    #[must_use]
    pub fn changed(mut self, fields: &[&'static str]) -> Self {
        self.changes.extend_from_slice(fields);
        self
    }
    /// By a task.
    #[must_use]
    pub fn by_task(mut self, task: TaskId) -> Self {
        self.task = Some(task);
        self
    }
    /// What a call did to it, or tried.
    #[must_use]
    pub fn entry(self, identity: &Identity, call: &Call<'_>, outcome: AuditOutcome) -> Entry {
        Entry {
            id: EntryId::fresh(&*identity.0.ids),
            at: identity.0.clock.now(),
            request_id: Text::new(call.request_id),
            actor: AuditActor::from(call.by),
            source: call.source,
            action: Word::new(self.action),
            object: AuditObject {
                kind: Word::new(self.kind),
                id: self.id,
                name: self.name,
                scope: self.scope,
            },
            outcome,
            task: self.task,
            changes: self.changes.into_iter().map(Word::new).collect(),
            token_audit_ids: call.by.audit_ids.clone(),
            repeated: None,
        }
    }
}

impl Identity {
    /// The part of a commit that tells of something done.
    ///
    /// # Errors
    /// Those of encoding.
    pub fn told(&self, call: &Call<'_>, deed: Deed) -> ChangeResult<Txn> {
        Ok(self.0.audit.part(&deed.entry(self, call, AuditOutcome::Done))?)
    }

    /// Makes a change with what the audit says of it in the same commit: see [`crate::Editor::change`]. What is so already is neither written nor told.
    ///
    /// # Errors
    /// As [`crate::Editor::change`].
    pub async fn change<T>(
        &self,
        call: &Call<'_>,
        build: impl Fn(&Edit<'_>) -> ChangeResult<Draft<T>>,
        deed: impl Fn(&T) -> Deed,
    ) -> ChangeResult<T> {
        self.0
            .editor
            .change(|edit| {
                let draft = build(edit)?;
                if draft.txn.writes.is_empty() {
                    return Ok(draft);
                }
                let told = self.told(call, deed(&draft.record))?;
                Ok(draft.and(told))
            })
            .await
    }

    /// Removes something with all that refers to it: see [`crate::Editor::remove`]. The first commit tells of it.
    ///
    /// # Errors
    /// As [`crate::Editor::remove`].
    pub async fn remove(&self, call: &Call<'_>, doomed: Doomed, deed: Deed) -> ChangeResult<()> {
        let told = self.told(call, deed)?;
        self.0.editor.remove(doomed, told).await
    }

    /// Tells of something that was not allowed.
    pub async fn refused(&self, call: &Call<'_>, deed: Deed, code: &'static str) {
        let entry = deed.entry(
            self,
            call,
            AuditOutcome::Denied {
                code: Word::new(code),
            },
        );
        if let Err(error) = self.0.audit.record(entry).await {
            tracing::error!(
                error = skyloom_model::report(&error),
                "what was not allowed is not in the audit"
            );
        }
    }
}

impl Deed {
    /// In the place of a scope: what it is done to lies there.
    #[must_use]
    pub fn in_scope(self, identity: &Identity, scope: AuthScope) -> Self {
        match scope {
            AuthScope::System | AuthScope::None => self,
            AuthScope::Domain(domain) => self.in_domain(domain),
            AuthScope::Project(project) => {
                let at = identity.directory().snapshot();
                match at.project(project) {
                    Some(found) => self.in_project(project, DomainId::from_uuid(found.value.spec.domain)),
                    None => self,
                }
            }
        }
    }
}
