//! What the audit says: of a change in the change's own commit, of what was not allowed by itself.

use std::net::IpAddr;
use std::sync::Arc;

use skyloom_identity::audit::{
    AuditActor, AuditObject, AuditOutcome, AuditScope, Entry, EntryId, Text, Word,
};
use skyloom_identity::{AuditSink, AuthScope, Rights, Via};
use skyloom_model::{Meta, Scope, Task, TaskId};
use skyloom_pki::JoinTokenRecord;
use skyloom_store::Txn;
use uuid::Uuid;

use super::Cloud;
use crate::caller::kind_of;
use crate::{Caller, Result};

/// What was done to what.
#[derive(Debug, Clone)]
pub(crate) struct Told {
    action: &'static str,
    id: Option<Uuid>,
    name: Option<Text>,
    scope: Scope,
}

impl Told {
    pub(crate) fn of(action: &'static str, meta: &Meta) -> Self {
        Self {
            name: Some(Text::new(meta.name.as_str())),
            ..Self::nameless(action, Some(meta.id), meta.scope)
        }
    }

    pub(crate) fn nameless(action: &'static str, id: Option<Uuid>, scope: Scope) -> Self {
        Self {
            action,
            id,
            name: None,
            scope,
        }
    }
}

impl Cloud {
    /// With an audit: each change is told in its own commit.
    #[must_use]
    pub fn with_audit(mut self, audit: Arc<dyn AuditSink>) -> Self {
        self.audit = Some(audit);
        self
    }

    fn entry(&self, caller: &Caller, told: Told, outcome: AuditOutcome, task: Option<TaskId>) -> Entry {
        let principal = &*caller.rights.principal;
        Entry {
            id: EntryId::fresh(&*self.parts.ids),
            at: self.now(),
            request_id: Text::new(&caller.request_id),
            actor: AuditActor::from(principal),
            source: caller.source,
            action: Word::new(told.action),
            object: AuditObject {
                kind: Word::new(kind_of(told.action)),
                id: told.id,
                name: told.name,
                scope: match told.scope {
                    Scope::System => AuditScope::System,
                    Scope::Project(id) => AuditScope::Project {
                        id,
                        domain: caller.lineage.domain,
                    },
                },
            },
            outcome,
            task,
            changes: Vec::new(),
            token_audit_ids: principal.audit_ids.clone(),
            repeated: None,
        }
    }

    /// What is told of a machine that presented the join token of a host.
    pub(super) fn joining(
        &self,
        token: &JoinTokenRecord,
        source: Option<IpAddr>,
        request_id: &str,
        outcome: AuditOutcome,
    ) -> Entry {
        let actor = AuditActor {
            via: Via::Host { id: token.host },
            ..AuditActor::unknown(Vec::new())
        };
        Entry {
            id: EntryId::fresh(&*self.parts.ids),
            at: self.now(),
            request_id: Text::new(request_id),
            actor,
            source,
            action: Word::new("host:join"),
            object: AuditObject {
                kind: Word::new("host"),
                id: Some(token.host.uuid()),
                name: Some(Text::new(token.name.as_str())),
                scope: AuditScope::System,
            },
            outcome,
            task: None,
            changes: Vec::new(),
            token_audit_ids: Vec::new(),
            repeated: None,
        }
    }

    /// The part of a commit that writes an entry, where there is an audit.
    pub(super) fn audit_part(&self, entry: impl FnOnce() -> Entry) -> Result<Txn> {
        match &self.audit {
            Some(audit) => Ok(audit.part(&entry())?),
            None => Ok(Txn::new()),
        }
    }

    /// Writes an entry of what made no commit.
    pub(super) async fn audit_alone(&self, entry: impl FnOnce() -> Entry) {
        let Some(audit) = &self.audit else {
            return;
        };
        if let Err(error) = audit.record(entry()).await {
            let error = skyloom_model::report(&error);
            tracing::error!(error, "what was not allowed is not in the audit");
        }
    }

    /// The part of a commit that tells of it.
    pub(super) fn audited(&self, caller: &Caller, told: Told, task: Option<&Task>) -> Result<Txn> {
        let done = AuditOutcome::Done;
        self.audit_part(|| self.entry(caller, told, done, task.map(|task| task.id)))
    }

    /// Tells of a change that was not allowed for want of a permission ([`crate::CloudError::missing_permission`]). For the door,
    /// which knows which calls are changes. It lies where the credential counts.
    pub async fn audit_denied(
        &self,
        rights: &Rights,
        source: Option<IpAddr>,
        request_id: &str,
        permission: &'static str,
    ) {
        let scope = rights.principal.scope;
        let project = match scope {
            AuthScope::Project(project) => project,
            _ => Caller::NO_PROJECT,
        };
        let caller = Caller {
            source,
            request_id: request_id.to_owned(),
            ..Caller::internal("door", rights.clone(), project)
        };
        let lies = caller.place().map_or(Scope::System, |_| caller.scope());
        let code = Word::new("auth.forbidden");
        let told = Told::nameless(permission, None, lies);
        self.audit_alone(|| {
            let mut entry = self.entry(&caller, told, AuditOutcome::Denied { code }, None);
            if let AuthScope::Domain(id) = scope {
                entry.object.scope = AuditScope::Domain { id };
            }
            entry
        })
        .await;
    }
}
