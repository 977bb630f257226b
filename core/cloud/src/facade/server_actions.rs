//! Actions of servers that a task carries out: from the checks of the table of actions to one commit.
//!
//! ```text
//! act(action, options) ──> the table: may it be asked now? ──> Ask {flow, params, want} ──> once: server + task
//!                      └─> edits.rs: what is done at once
//! ```

use futures::FutureExt as _;
use serde::de::DeserializeOwned;
use serde_json::{Value as Json, json};
use skyloom_model::action::Guard;
use skyloom_model::{Activity, Host, Lifecycle, Reason, Scope, Server, ServerAction, ServerId};
use skyloom_store::Versioned;

use super::Cloud;
use super::once::Change;
use super::records::precondition;
use crate::flows::{RecycleParams, StopParams};
use crate::{
    Caller, CloudError, DeleteServer, FieldError, Result, ServerChanged, ServerTask, StopOptions, checks,
};

/// Longest time in the recycle bin, in hours.
const MOST_KEPT: u32 = 8760;

/// What an action asks for.
#[derive(Debug, Clone)]
pub(super) struct Ask {
    pub(super) action: ServerAction,
    /// The flow, where it is not the table's.
    pub(super) flow: Option<&'static str>,
    pub(super) params: Json,
    /// What tells this request from others of the action.
    pub(super) request: Json,
    /// What is wanted of the server from now on.
    pub(super) want: fn(&mut Server),
}

impl Ask {
    fn plain(action: ServerAction, want: fn(&mut Server)) -> Self {
        Self {
            action,
            flow: None,
            params: json!({}),
            request: Json::Null,
            want,
        }
    }
}

impl Cloud {
    /// Any action by its name, with its options as its own request would have them. For batches and kept plans.
    ///
    /// # Errors
    /// Those of the action; `options.invalid`.
    pub async fn act_on_server(
        &self,
        caller: &Caller,
        id: ServerId,
        action: ServerAction,
        options: Json,
    ) -> Result<ServerChanged> {
        let by_task = match action {
            ServerAction::Start
            | ServerAction::Pause
            | ServerAction::Unpause
            | ServerAction::Suspend
            | ServerAction::Resume
            | ServerAction::HardReboot
            | ServerAction::Purge
            | ServerAction::ConfirmResize
            | ServerAction::Offload
            | ServerAction::Unshelve
            | ServerAction::ResetState => self.simple_action(caller, id, action).await?,
            ServerAction::Stop => self.stop_server(caller, id, read(options)?).await?,
            ServerAction::StopRescue => self.stop_rescue(caller, id, read(options)?).await?,
            // Its password is shown once, which a batch does not.
            ServerAction::StartRescue => {
                let reason = Reason::new("action.alone", "a rescue is started of one server at a time");
                return Err(CloudError::invalid(reason));
            }
            ServerAction::SetPassword => {
                let reason = Reason::new("action.alone", "a password is set in one server at a time");
                return Err(CloudError::invalid(reason));
            }
            ServerAction::SetKeys => self.set_server_keys(caller, id, read(options)?).await?,
            ServerAction::Rebuild => self.rebuild_server(caller, id, read(options)?).await?,
            ServerAction::Resize => self.resize_server(caller, id, read(options)?).await?,
            ServerAction::Migrate => self.migrate_server(caller, id, read(options)?).await?,
            ServerAction::LiveMigrate => self.live_migrate_server(caller, id, read(options)?).await?,
            ServerAction::Evacuate => self.evacuate_server(caller, id, read(options)?).await?,
            ServerAction::Shelve => self.shelve_server(caller, id, read(options)?).await?,
            ServerAction::RevertResize => self.revert_resize(caller, id, read(options)?).await?,
            ServerAction::Reboot => self.reboot_server(caller, id, read(options)?).await?,
            ServerAction::Delete => self.remove_server(caller, id, read(options)?).await?,
            ServerAction::Update => {
                return Ok(done(self.update_server(caller, id, read(options)?).await?));
            }
            ServerAction::Lock => return Ok(done(self.lock_server(caller, id, read(options)?).await?)),
            ServerAction::Unlock
            | ServerAction::Protect
            | ServerAction::Unprotect
            | ServerAction::Restore
            | ServerAction::ForceCompleteMigration => {
                return Ok(done(self.edit_server(caller, id, action).await?));
            }
        };
        Ok(ServerChanged {
            server: by_task.server,
            task: Some(by_task.task),
        })
    }

    /// An action without options that a task carries out.
    ///
    /// # Errors
    /// `server.not_found`, `server.busy`, `server.wrong_power_state`, …: those of [`ServerAction::allowed`];
    /// `host.cannot`, `precondition.failed`, `auth.forbidden`; `action.unknown` for one that is not of this sort.
    pub async fn simple_action(
        &self,
        caller: &Caller,
        id: ServerId,
        action: ServerAction,
    ) -> Result<ServerTask> {
        let ask = match action {
            ServerAction::Start | ServerAction::Resume => Ask::plain(action, |s| s.spec.running = true),
            ServerAction::Pause
            | ServerAction::Unpause
            | ServerAction::ConfirmResize
            | ServerAction::Offload
            | ServerAction::ResetState => Ask::plain(action, |_| {}),
            ServerAction::Suspend => Ask::plain(action, |s| s.spec.running = false),
            ServerAction::HardReboot => Ask {
                params: json!(StopParams {
                    force: true,
                    timeout_seconds: 0
                }),
                ..Ask::plain(action, |s| s.spec.running = true)
            },
            ServerAction::Purge => Ask::plain(action, |s| s.status.lifecycle = Lifecycle::Deleting),
            ServerAction::Unshelve => return self.unshelve_server(caller, id).await,
            _ => {
                let reason = Reason::new("action.unknown", format!("{} has options", action.def().verb));
                return Err(CloudError::invalid(reason));
            }
        };
        self.ask(caller, id, ask).await
    }

    /// Turns a server on.
    ///
    /// # Errors
    /// As [`Cloud::simple_action`].
    pub async fn start_server(&self, caller: &Caller, id: ServerId) -> Result<ServerTask> {
        self.simple_action(caller, id, ServerAction::Start).await
    }

    /// Turns a server off.
    ///
    /// # Errors
    /// As [`Cloud::simple_action`]; `timeout.invalid`.
    pub async fn stop_server(
        &self,
        caller: &Caller,
        id: ServerId,
        options: StopOptions,
    ) -> Result<ServerTask> {
        let off = |s: &mut Server| s.spec.running = false;
        self.ask(caller, id, stopping(ServerAction::Stop, options, off)?)
            .await
    }

    /// Turns a server off and on again. By force it is a hard reboot.
    ///
    /// # Errors
    /// As [`Cloud::stop_server`].
    pub async fn reboot_server(
        &self,
        caller: &Caller,
        id: ServerId,
        options: StopOptions,
    ) -> Result<ServerTask> {
        let on = |s: &mut Server| s.spec.running = true;
        self.ask(caller, id, stopping(ServerAction::Reboot, options, on)?)
            .await
    }

    /// Removes a server with its disks and ports, or puts it into the recycle bin, as the cloud is configured.
    ///
    /// # Errors
    /// As [`Cloud::simple_action`]; `server.protected`.
    pub async fn delete_server(&self, caller: &Caller, id: ServerId) -> Result<ServerTask> {
        self.remove_server(caller, id, DeleteServer::default()).await
    }

    /// The same, with how long it is kept in the recycle bin.
    ///
    /// # Errors
    /// As [`Cloud::delete_server`]; `keep_hours.invalid`.
    pub async fn remove_server(
        &self,
        caller: &Caller,
        id: ServerId,
        options: DeleteServer,
    ) -> Result<ServerTask> {
        let keep_hours = options.keep_hours.unwrap_or(self.recycle_hours);
        if keep_hours > MOST_KEPT {
            let message = format!("at most {MOST_KEPT} hours");
            return Err(CloudError::field(FieldError::new(
                "keep_hours",
                "keep_hours.invalid",
                message,
            )));
        }
        let gone = Ask {
            request: json!(options),
            ..Ask::plain(ServerAction::Delete, |s| s.status.lifecycle = Lifecycle::Deleting)
        };
        // Only what can be used can be kept for use: the bin's own, and what failed, goes.
        let found = self
            .own::<Server>(caller, gone.action.permission(), id.uuid())
            .await?;
        let status = &found.value.status;
        if keep_hours == 0 || status.lifecycle != Lifecycle::Active || status.placement.is_none() {
            return self.ask(caller, id, gone).await;
        }
        let kept = Ask {
            flow: Some("server.recycle"),
            params: json!(RecycleParams {
                keep_hours,
                timeout_seconds: checks::server::stop_timeout(None)?,
            }),
            want: |s| s.spec.running = false,
            ..gone
        };
        self.ask(caller, id, kept).await
    }

    /// The server of the caller's project, which may be asked for this now.
    pub(super) async fn askable(
        &self,
        caller: &Caller,
        id: ServerId,
        action: ServerAction,
    ) -> Result<Versioned<Server>> {
        let found = self.own::<Server>(caller, action.permission(), id.uuid()).await?;
        precondition(caller, found.modified)?;
        let past_locks = caller.may_to("server:unlock", &found.value.meta).is_ok();
        action
            .allowed_to(&found.value.status, past_locks)
            .map_err(CloudError::conflict)?;
        Ok(found)
    }

    /// The checks of the table, then server and task in one commit.
    pub(super) async fn ask(&self, caller: &Caller, id: ServerId, ask: Ask) -> Result<ServerTask> {
        let def = ask.action.def();
        let request = json!([id, ask.request]);
        let ask = &ask;
        let done = self
            .once(caller, def.name, request, || {
                async move {
                    let found = self.askable(caller, id, ask.action).await?;
                    let server = &found.value;
                    if matches!(
                        ask.action,
                        ServerAction::Delete
                            | ServerAction::Purge
                            | ServerAction::Rebuild
                            | ServerAction::RevertResize
                            | ServerAction::Migrate
                            | ServerAction::LiveMigrate
                            | ServerAction::Evacuate
                    ) {
                        self.no_snapshots(caller, server).await?;
                    }
                    if ask.action == ServerAction::Evacuate {
                        self.home_fenced(server).await?;
                    }
                    if matches!(
                        ask.action,
                        ServerAction::Migrate | ServerAction::LiveMigrate | ServerAction::Evacuate
                    ) {
                        self.seen_elsewhere(server).await?;
                    }
                    if let Guard::Ability(ability) = def.guard {
                        self.able(server, ability).await?;
                    }
                    let flow = ask.flow.or(def.flow).unwrap_or(def.name);
                    let task = self.task(caller, flow, server, ask.params.clone());
                    let mut server: Server = server.clone();
                    server.status.activity = Some(Activity {
                        task: task.id,
                        flow: task.flow.clone(),
                    });
                    (ask.want)(&mut server);
                    server.meta.updated_at = self.now();
                    let txn = found.replace(&server)?;
                    let answer = ServerTask {
                        server,
                        task: task.clone(),
                    };
                    Ok(Change::new(txn, answer)
                        .task(task)
                        .told(def.permission, &found.value.meta))
                }
                .boxed()
            })
            .await?;
        Ok(done.answer)
    }

    /// Refuses what the hypervisor of the server's host cannot do.
    pub(super) async fn able(&self, server: &Server, ability: &'static str) -> Result<()> {
        let Some(placement) = &server.status.placement else {
            return Ok(());
        };
        let host = self
            .resource::<Host>(Scope::System, placement.host.uuid())
            .await?;
        let facts = host.and_then(|host| host.value.status.facts);
        if facts.is_some_and(|facts| facts.traits.iter().any(|t| t == ability)) {
            return Ok(());
        }
        let message = format!("the hypervisor of the server's host cannot {ability} guests");
        Err(CloudError::conflict(Reason::new("host.cannot", message)))
    }
}

fn stopping(action: ServerAction, options: StopOptions, want: fn(&mut Server)) -> Result<Ask> {
    Ok(Ask {
        params: json!(StopParams {
            force: options.force,
            timeout_seconds: checks::server::stop_timeout(options.timeout_seconds)?,
        }),
        request: json!(options),
        ..Ask::plain(action, want)
    })
}

const fn done(server: Server) -> ServerChanged {
    ServerChanged { server, task: None }
}

fn read<T: DeserializeOwned + Default>(options: Json) -> Result<T> {
    if options.is_null() {
        return Ok(T::default());
    }
    serde_json::from_value(options)
        .map_err(|e| CloudError::field(FieldError::new("options", "options.invalid", e.to_string())))
}
