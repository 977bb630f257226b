//! Actions of servers that are done at once, in the record alone: name and labels, lock, protection, the way out of the recycle bin.

use futures::FutureExt as _;
use serde_json::{Value as Json, json};
use skyloom_model::{Lifecycle, Lock, Name, PowerState, Reason, Server, ServerAction, ServerId};

use super::Cloud;
use super::once::Change;
use super::records::precondition;
use crate::{Caller, CloudError, FieldError, LockServer, Result, UpdateServer, checks};

/// Longest reason of a lock in characters.
const MOST_WHY: usize = 500;

impl Cloud {
    /// Changes name, labels, metadata and what is done after a crash of a server; what is absent stays.
    ///
    /// # Errors
    /// `server.not_found`, `name.invalid`, `labels.invalid`, `metadata.…`, `precondition.failed`, `auth.forbidden`, those of
    /// [`ServerAction::allowed`].
    pub async fn update_server(
        &self,
        caller: &Caller,
        id: ServerId,
        request: UpdateServer,
    ) -> Result<Server> {
        let mut errors = Vec::new();
        let mut name: Option<Name> = None;
        if let Some(asked) = &request.name {
            match checks::text::name("name", asked) {
                Ok(good) => name = Some(good),
                Err(error) => errors.push(error),
            }
        }
        errors.extend(
            request
                .labels
                .iter()
                .flat_map(|l| checks::text::labels("labels", l)),
        );
        if let Some(error) = CloudError::fields(errors) {
            return Err(error);
        }
        if let Some(metadata) = &request.metadata {
            checks::metadata::check(metadata)?;
        }
        let (name, request) = (&name, &request);
        self.edit(caller, id, ServerAction::Update, json!(request), move |server| {
            if let Some(name) = name {
                server.meta.name = name.clone();
            }
            if let Some(labels) = &request.labels {
                server.meta.labels = labels.clone();
            }
            if let Some(metadata) = &request.metadata {
                server.spec.metadata = metadata.clone();
            }
            if let Some(on_crash) = request.on_crash {
                server.spec.on_crash = on_crash;
            }
            Ok(())
        })
        .await
    }

    /// Refuses all changes of a server to those who may not unlock any. A lock of one's own takes the new reason.
    ///
    /// # Errors
    /// As [`Cloud::update_server`]; `why.invalid`.
    pub async fn lock_server(&self, caller: &Caller, id: ServerId, request: LockServer) -> Result<Server> {
        let why = request.why.trim();
        if why.chars().count() > MOST_WHY || why.chars().any(char::is_control) {
            let message = format!("at most {MOST_WHY} characters, no control characters");
            return Err(CloudError::field(FieldError::new("why", "why.invalid", message)));
        }
        let lock = Lock {
            by: caller.actor.clone(),
            why: why.to_owned(),
            at: self.now(),
        };
        let lock = &lock;
        self.edit(caller, id, ServerAction::Lock, json!(request), move |server| {
            server.status.overlays.locked = true;
            server.status.lock = Some(lock.clone());
            Ok(())
        })
        .await
    }

    /// Unlocks, protects, unprotects or restores a server.
    ///
    /// # Errors
    /// As [`Cloud::update_server`]; `server.locked_by_other`; `action.unknown` for one that is not of this sort.
    pub async fn edit_server(&self, caller: &Caller, id: ServerId, action: ServerAction) -> Result<Server> {
        let request = Json::Null;
        match action {
            ServerAction::Unlock => {
                self.edit(caller, id, action, request, move |server| {
                    if let Some(lock) = &server.status.lock
                        && lock.by.id != caller.actor.id
                        && caller.may_to("server:unlock", &server.meta).is_err()
                    {
                        let message = format!("it was locked by {}: this takes server:unlock", lock.by.name);
                        return Err(CloudError::conflict(Reason::new(
                            "server.locked_by_other",
                            message,
                        )));
                    }
                    server.status.overlays.locked = false;
                    server.status.lock = None;
                    Ok(())
                })
                .await
            }
            ServerAction::Protect | ServerAction::Unprotect => {
                self.edit(caller, id, action, request, move |server| {
                    server.status.overlays.protected = action == ServerAction::Protect;
                    Ok(())
                })
                .await
            }
            ServerAction::Restore => {
                self.edit(caller, id, action, request, |server| {
                    server.status.lifecycle = Lifecycle::Active;
                    server.status.power = PowerState::Stopped;
                    server.status.purge_at = None;
                    Ok(())
                })
                .await
            }
            ServerAction::ForceCompleteMigration => {
                self.edit(caller, id, action, request, |server| {
                    if let Some(moving) = &mut server.status.migration {
                        moving.forced = true;
                    }
                    Ok(())
                })
                .await
            }
            _ => {
                let reason = Reason::new(
                    "action.unknown",
                    format!("{} is done by a task", action.def().verb),
                );
                Err(CloudError::invalid(reason))
            }
        }
    }

    async fn edit(
        &self,
        caller: &Caller,
        id: ServerId,
        action: ServerAction,
        request: Json,
        change: impl Fn(&mut Server) -> Result<()> + Send + Sync,
    ) -> Result<Server> {
        let def = action.def();
        let change = &change;
        let done = self
            .once(caller, def.name, json!([id, request]), || {
                async move {
                    let found = self.own::<Server>(caller, def.permission, id.uuid()).await?;
                    precondition(caller, found.modified)?;
                    let mut server = found.value.clone();
                    let past_locks = caller.may_to("server:unlock", &server.meta).is_ok()
                        // Who has locked it may say why anew.
                        || (action == ServerAction::Lock
                            && server.status.lock.as_ref().is_some_and(|l| l.by.id == caller.actor.id));
                    action
                        .allowed_to(&server.status, past_locks)
                        .map_err(CloudError::conflict)?;
                    change(&mut server)?;
                    server.meta.updated_at = self.now();
                    let txn = found.replace(&server)?;
                    Ok(Change::new(txn, server).told(def.permission, &found.value.meta))
                }
                .boxed()
            })
            .await?;
        Ok(done.answer)
    }
}
