//! The hold on the fleet: shown, set and released by operators.
//!
//! While the record [`paths::HOLD`] is there, agents begin no jobs, engines carry nothing forward, and mutations are refused with
//! 503: each of these commits carries the guard that the record is absent. Reading, observing and reporting go on, and so do
//! guests. A restore sets it, for the records are older than the world then.

use std::time::Duration;

use futures::FutureExt as _;
use serde_json::json;
use skyloom_flow::Standing;
use skyloom_model::{
    Custody, Event, EventId, EventKind, FORMAT, Hold, Incarnation, Name, Origin, Reason, Scope, Subject,
    paths,
};
use skyloom_store::{Guard, Txn};
use uuid::Uuid;

use super::Cloud;
use super::once::Change;
use super::records::{create, key};
use crate::custody::compare;
use crate::{Caller, CloudError, ErrorKind, FieldError, HoldStatus, Result};

/// Longest reason of a hold in characters.
const MOST_WHY: usize = 500;
/// When to ask again what was refused because of a hold.
const ASK_AGAIN: Duration = Duration::from_secs(30);

/// What operators need to get a held fleet in order.
const ALLOWED: [&str; 8] = [
    "hold.set",
    "hold.adopt",
    "hold.release",
    "tasks.order",
    "tasks.cancel",
    "tokens.create",
    "tokens.delete",
    "hosts.patch",
];

/// The guard of a mutation that does not go through while the fleet is held.
pub(super) fn guard_of(operation: &str) -> Result<Option<Guard>> {
    if ALLOWED.contains(&operation) {
        return Ok(None);
    }
    Ok(Some(skyloom_flow::not_held()?))
}

impl Cloud {
    /// Refuses while the fleet is held.
    pub(super) async fn refuse_held(&self) -> Result<()> {
        let Some(hold) = self.read::<Hold>(paths::HOLD).await? else {
            return Ok(());
        };
        let message = format!(
            "the fleet is held since {}: {}",
            hold.value.since, hold.value.reason
        );
        let reason = Reason::new("fleet.held", message)
            .hint("reading works; an administrator ends it with `skyloom hold release`")
            .retryable();
        Err(CloudError::new(ErrorKind::Unavailable, reason).retry_after(ASK_AGAIN))
    }

    /// The store's incarnation, the hold, and what is known of the hosts under it.
    ///
    /// # Errors
    /// `auth.forbidden`, and those of the store.
    pub async fn hold_status(&self, caller: &Caller) -> Result<HoldStatus> {
        caller.may_in_cloud("hold:read")?;
        self.hold_now().await
    }

    async fn hold_now(&self) -> Result<HoldStatus> {
        let standing = Standing::read(&*self.parts.backend).await?;
        let hold = standing.hold.as_ref().map(|h| h.value.clone());
        let compared = match &hold {
            Some(hold) => compare(&*self.parts.backend, hold).await?,
            None => Default::default(),
        };
        Ok(HoldStatus {
            incarnation: standing.incarnation(),
            hold,
            silent_hosts: compared.silent,
            differences: compared.differences,
            more: compared.more,
        })
    }

    /// Holds the fleet: nothing is begun until it is released.
    ///
    /// # Errors
    /// `hold.already`, `reason.invalid`, `auth.forbidden`.
    pub async fn set_hold(&self, caller: &Caller, reason: &str) -> Result<HoldStatus> {
        caller.may_in_cloud("hold:set")?;
        let reason = reason.trim();
        if reason.is_empty() || reason.chars().count() > MOST_WHY {
            let message = format!("say why in 1 to {MOST_WHY} characters");
            return Err(CloudError::field(FieldError::new(
                "reason",
                "reason.invalid",
                message,
            )));
        }
        self.once(caller, "hold.set", json!(reason), || {
            async move {
                let standing = Standing::read(&*self.parts.backend).await?;
                if let Some(hold) = standing.hold {
                    let message = format!("the fleet is held already: {}", hold.value.reason);
                    return Err(CloudError::conflict(Reason::new("hold.already", message)));
                }
                let hold = Hold {
                    format: FORMAT,
                    id: self.parts.ids.uuid(),
                    since: self.now(),
                    reason: reason.to_owned(),
                    by: caller.actor.name.clone(),
                    incarnation: standing.incarnation(),
                };
                let message = format!("held by {}: {reason}", caller.actor.name);
                let told = self.fleet_event(caller, hold.incarnation, EventKind::FleetHeld, message)?;
                let change = Change::new(create(paths::HOLD, &hold)?.and(told), ());
                Ok(change.told_of("hold:set", Some(hold.id), Scope::System))
            }
            .boxed()
        })
        .await?;
        self.hold_now().await
    }

    /// Lets the fleet go on. While hosts have not reported under the hold, or records and guests disagree, only with `anyway`.
    ///
    /// # Errors
    /// `hold.none`, `hold.differences`, `auth.forbidden`.
    pub async fn release_hold(&self, caller: &Caller, anyway: bool) -> Result<()> {
        caller.may_in_cloud("hold:release")?;
        self.once(caller, "hold.release", json!(anyway), || {
            async move {
                let standing = Standing::read(&*self.parts.backend).await?;
                let incarnation = standing.incarnation();
                let Some(hold) = standing.hold else {
                    let message = "the fleet is not held";
                    return Err(CloudError::conflict(Reason::new("hold.none", message)));
                };
                let compared = compare(&*self.parts.backend, &hold.value).await?;
                let (silent, different) = (compared.silent.len(), compared.differences.len());
                if !anyway && silent + different > 0 {
                    let message = format!(
                        "{silent} hosts have not reported and {different} guests are not as recorded"
                    );
                    let hint = "`skyloom hold show` names them; `skyloom hold adopt` records what hosts report; with --anyway the \
                                fleet goes on as it is";
                    return Err(CloudError::conflict(
                        Reason::new("hold.differences", message).hint(hint),
                    ));
                }
                let message = format!(
                    "released by {} with {silent} silent hosts and {different} differences",
                    caller.actor.name
                );
                let told = self.fleet_event(caller, incarnation, EventKind::FleetReleased, message)?;
                let change = Change::new(hold.delete().and(told), ());
                Ok(change.told_of("hold:release", Some(hold.value.id), Scope::System))
            }
            .boxed()
        })
        .await?;
        Ok(())
    }

    /// The part of a commit that says which cloud this store holds, if it does not say so yet.
    ///
    /// # Errors
    /// `store.unfinished_copy`.
    pub(super) async fn incarnate(&self) -> Result<Txn> {
        let standing = Standing::read(&*self.parts.backend).await?;
        standing.whole().map_err(|e| {
            let reason = Reason::new("store.unfinished_copy", skyloom_model::report(&e));
            CloudError::new(ErrorKind::Unavailable, reason)
        })?;
        if standing.custody.is_some() {
            return Ok(Txn::new());
        }
        let custody = Custody {
            format: FORMAT,
            incarnation: Incarnation::first(self.parts.ids.uuid(), self.parts.ids.uuid()),
            origin: Origin::Founded,
            since: self.now(),
        };
        create(paths::INCARNATION, &custody)
    }

    fn fleet_event(
        &self,
        caller: &Caller,
        incarnation: Option<Incarnation>,
        kind: EventKind,
        message: String,
    ) -> Result<Txn> {
        let event = Event {
            format: FORMAT,
            id: EventId::fresh(&*self.parts.ids),
            at: self.now(),
            scope: Scope::System,
            kind,
            subject: Subject {
                kind: paths::CLOUD.to_owned(),
                id: incarnation.map_or(Uuid::nil(), |i| i.cluster),
                name: Name::new(paths::CLOUD).map_err(|e| CloudError::internal(e.to_string()))?,
            },
            task: None,
            request_id: Some(caller.request_id.clone()),
            message,
            reason: None,
        };
        Ok(Txn::new().create(
            key(&paths::event(event.scope, event.id))?,
            skyloom_store::Value::json(&event)?,
        ))
    }
}
