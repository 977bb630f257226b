//! What of a server has its time: small marks in order of time, looked at every few seconds.
//!
//! ```text
//!  start-rescue, recycle, a crash seen, … ── same commit ──> timers/{time}/{scope}/{server} ──> look: is it due by its record? ──> action, once
//! ```
//!
//! A mark says only when to look; what is done then, the server's record says. A mark that came for nothing (the rescue was left before)
//! is dropped. What is refused at that moment is found again by the look at everything (`reconcile`).

use std::time::Duration;

use skyloom_model::{
    Lifecycle, OnCrash, PowerState, Scope, Server, ServerAction, ServerId, Timer, Timestamp, paths,
};
use skyloom_store::{ListOptions, Txn, Value, Versioned};
use tokio_util::sync::CancellationToken;

use super::Cloud;
use super::records::{key, prefix};
use crate::{ErrorKind, Result};

/// Time between two looks.
const PERIOD: Duration = Duration::from_secs(5);

/// The part of a commit that has `server` looked at when `at` has come.
pub(crate) fn timer(at: Timestamp, scope: Scope, server: ServerId) -> Result<Txn> {
    let mark = Timer { at, scope, server };
    Ok(Txn::new().put(key(&paths::timer(at, scope, server))?, Value::json(&mark)?))
}

impl Cloud {
    /// Looks every five seconds, until `shutdown`.
    pub(super) async fn keep_time(&self, shutdown: CancellationToken) {
        loop {
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(PERIOD) => {}
            }
            if let Err(error) = self.see_to_timers().await {
                tracing::warn!(%error, "what is due cannot be looked at now");
            }
            if let Err(error) = self.see_to_drains().await {
                tracing::warn!(%error, "hosts cannot be emptied now");
            }
        }
    }

    /// Asks for what is due now, unless the fleet is held: how many actions that were.
    ///
    /// # Errors
    /// Those of the store; what was asked for before stays asked for.
    pub async fn see_to_timers(&self) -> Result<usize> {
        if self.refuse_held().await.is_err() {
            return Ok(0);
        }
        // In order of time: what is not due yet ends the page that matters.
        let page = self
            .parts
            .backend
            .list(&prefix(paths::TIMERS)?, ListOptions::default())
            .await?;
        let mut asked = 0;
        for found in &page.items {
            let Ok(mark) = Versioned::<Timer>::decode(found) else {
                tracing::error!(key = %found.key, "a timer that cannot be read is left alone");
                continue;
            };
            if mark.value.at > self.now() {
                break;
            }
            match self.see_to_mark(&mark.value).await {
                Ok(now) => asked += usize::from(now),
                // It stays for the next look, and holds up none behind it.
                Err(error) => {
                    tracing::warn!(server = %mark.value.server, %error, "what is due cannot be asked for now");
                    continue;
                }
            }
            // Another process may have been faster: then it is gone.
            self.commit(mark.delete()).await?;
        }
        Ok(asked)
    }

    /// Asks for what a mark is for. Whether anything was asked for now.
    async fn see_to_mark(&self, mark: &Timer) -> Result<bool> {
        let Some(server) = self.resource::<Server>(mark.scope, mark.server.uuid()).await? else {
            return Ok(false);
        };
        Ok(self.see_to(&server.value).await? || self.tidy_up(&server).await?)
    }

    /// Asks for what a server's time has come for, once. Whether it was asked for now.
    pub(super) async fn see_to(&self, server: &Server) -> Result<bool> {
        let (Some(action), Scope::Project(project)) = (self.due(server), server.meta.scope) else {
            return Ok(false);
        };
        let (id, verb) = (server.meta.id, action.def().verb);
        // Of this state of the record: a task that has failed is asked for anew.
        let key = format!("server.{verb}/{id}/{}", server.meta.updated_at);
        let caller = self.asks(project, key).await?;
        let asked = self
            .act_on_server(&caller, ServerId::from_uuid(id), action, serde_json::Value::Null)
            .await;
        match asked {
            Ok(_) => Ok(true),
            // Locked or protected since, or done by somebody at this moment.
            Err(error) if matches!(error.kind(), ErrorKind::Conflict | ErrorKind::NotFound) => {
                tracing::info!(server = %id, %error, "{verb} is due and refused");
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    /// Asks for the end of a server's spare disks, and of the image that it was shelved as, once for each state of its record. Whether it was asked for now.
    pub(super) async fn tidy_up(&self, server: &Versioned<Server>) -> Result<bool> {
        let (status, Scope::Project(project)) = (&server.value.status, server.value.meta.scope) else {
            return Ok(false);
        };
        let image = status.own_image.is_some() && status.lifecycle == Lifecycle::Active;
        if (status.spare_disks.is_empty() && !image) || status.activity.is_some() {
            return Ok(false);
        }
        let id = ServerId::from_uuid(server.value.meta.id);
        let key = format!("server.tidy/{id}/{}", server.modified);
        match self.tidy_server(&self.asks(project, key).await?, id).await {
            Ok(_) => Ok(true),
            // Locked, or busy by now: another look finds it again.
            Err(error) if error.kind() == ErrorKind::Conflict => {
                tracing::debug!(server = %id, %error, "its former disks stay for now");
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    /// What a server's time has come for: to leave the recycle bin for good, or its host, or its rescue, to keep its new size, to run again after a crash.
    fn due(&self, server: &Server) -> Option<ServerAction> {
        let (status, now) = (&server.status, self.now());
        let past = |at: Option<Timestamp>| at.is_some_and(|at| at <= now);
        let rescued_until = server.spec.rescue.as_ref().and_then(|rescue| rescue.until);
        if status.activity.is_some() {
            None
        } else if status.lifecycle == Lifecycle::Recycled && past(status.purge_at) {
            Some(ServerAction::Purge)
        } else if status.lifecycle == Lifecycle::Shelved
            && status.placement.is_some()
            && !status.overlays.host_unreachable
        {
            Some(ServerAction::Offload)
        } else if status.overlays.rescued && past(rescued_until) {
            Some(ServerAction::StopRescue)
        } else if status.lifecycle == Lifecycle::Active
            && status.overlays.resized
            && past(status.resize.as_ref().and_then(|resize| resize.confirm_at))
        {
            Some(ServerAction::ConfirmResize)
        } else if status.lifecycle == Lifecycle::Active
            && status.power == PowerState::Crashed
            && server.spec.on_crash == OnCrash::Restart
            && server.spec.running
            && status
                .crashes
                .and_then(|c| c.restart_at)
                .is_none_or(|at| at <= now)
        {
            Some(ServerAction::Start)
        } else {
            None
        }
    }
}
