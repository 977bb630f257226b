//! Records take over what hosts report under a hold: after a restore the guests are newer than what is written of them.
//!
//! ```text
//! guests/{host}/all (of this hold) ── runs, off, newer ──> servers: power, wanted power, generation; one event each
//! ```
//!
//! Only records change, nothing on any host. So after the release nothing is stopped for being on, and no order is refused for
//! being older than its guest.

use futures::FutureExt as _;
use serde_json::json;
use skyloom_flow::Standing;
use skyloom_model::{
    Event, EventId, EventKind, FORMAT, PowerState, Reason, Resource as _, Scope, Server, Subject, paths,
};
use skyloom_store::{Txn, Value};

use super::Cloud;
use super::once::Change;
use super::records::key;
use crate::answers::{Adopted, AdoptedServer};
use crate::custody::{Adoptable, adoptable};
use crate::{Caller, CloudError, Result};

/// Servers of one commit: each takes five of its operations (record, event, and the host's report), and the smallest store has room
/// for 128.
const MOST: usize = 20;

impl Cloud {
    /// Takes over at most twenty guests that run or are off against their records, or are newer than them. Asked again until
    /// there are no more, it leaves only differences that no record can settle.
    ///
    /// # Errors
    /// `hold.none`, `auth.forbidden`.
    pub async fn adopt_guests(&self, caller: &Caller) -> Result<Adopted> {
        caller.may_in_cloud("hold:adopt")?;
        let done = self
            .once(caller, "hold.adopt", json!(null), || {
                async move {
                    let standing = Standing::read(&*self.parts.backend).await?;
                    let Some(hold) = standing.hold else {
                        let reason = Reason::new("hold.none", "the fleet is not held")
                            .hint("what hosts see is recorded by itself then");
                        return Err(CloudError::conflict(reason));
                    };
                    let mut found = adoptable(&*self.parts.backend, &hold.value, MOST + 1).await?;
                    let more = found.len() > MOST;
                    found.truncate(MOST);
                    // Under this hold, and of the hosts' last looks.
                    let mut txn = Txn::new().guard(hold.unchanged());
                    let mut servers = Vec::with_capacity(found.len());
                    for one in found {
                        txn = txn.and(self.adopt(caller, &one)?);
                        servers.push(AdoptedServer {
                            server: one.server.value.id(),
                            name: one.server.value.meta.name.to_string(),
                            power: one.guest.power,
                        });
                    }
                    let change = Change::new(txn, Adopted { servers, more });
                    Ok(change.told_of("hold:adopt", Some(hold.value.id), Scope::System))
                }
                .boxed()
            })
            .await?;
        Ok(done.answer)
    }

    fn adopt(&self, caller: &Caller, one: &Adoptable) -> Result<Txn> {
        let mut server = one.server.value.clone();
        server.meta.generation = server.meta.generation.max(one.generation);
        server.meta.updated_at = self.now();
        server.spec.running = one.guest.power.may_execute();
        server.status.power = one.guest.power;
        let power = match one.guest.power {
            PowerState::Running => "it runs",
            power if power.may_execute() => "it is not off",
            _ => "it is off",
        };
        let event = Event {
            format: FORMAT,
            id: EventId::fresh(&*self.parts.ids),
            at: self.now(),
            scope: server.meta.scope,
            kind: EventKind::ServerPower,
            subject: Subject {
                kind: Server::KIND.to_owned(),
                id: server.meta.id,
                name: server.meta.name.clone(),
            },
            task: None,
            request_id: Some(caller.request_id.clone()),
            message: format!(
                "{} took over what its host reports: {power}, generation {}",
                caller.actor.name, server.meta.generation
            ),
            reason: None,
        };
        let told = Txn::new().create(key(&paths::event(event.scope, event.id))?, Value::json(&event)?);
        Ok(one
            .server
            .replace(&server)?
            .guard(one.last_look.clone())
            .and(told))
    }
}
