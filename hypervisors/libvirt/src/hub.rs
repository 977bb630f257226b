//! From libvirt's events to the contract's, each change once.

use std::collections::BTreeMap;

use parking_lot::Mutex;
use skyloom_hypervisor::{VmEvent, VmEventKind};
use skyloom_model::{PowerState, ServerId};
use tokio::sync::broadcast;
use virt_sys as sys;

use crate::raw::Lifecycle;

/// Where all listeners hang.
#[derive(Debug)]
pub(crate) struct Hub {
    events: broadcast::Sender<VmEvent>,
    /// What was told last of each domain.
    told: Mutex<BTreeMap<ServerId, PowerState>>,
}

/// The cause of what we did ourselves.
pub(crate) const HOST_REQUEST: &str = "host-request";

impl Hub {
    pub(crate) fn new(buffer: usize) -> Self {
        Self {
            events: broadcast::Sender::new(buffer.max(1)),
            told: Mutex::new(BTreeMap::new()),
        }
    }

    pub(crate) fn listen(&self) -> broadcast::Receiver<VmEvent> {
        self.events.subscribe()
    }

    /// A domain has changed. Domains that are not named by their UUID are not ours.
    pub(crate) fn changed(&self, change: &Lifecycle) {
        let id = ServerId::from_uuid(change.uuid);
        if change.name != id.to_string() {
            return;
        }
        if change.event == sys::VIR_DOMAIN_EVENT_UNDEFINED as i32 {
            self.told.lock().remove(&id);
        } else if let Some((power, cause)) = meaning(change.event as u32, change.detail as u32) {
            self.publish(id, power, cause);
        }
    }

    /// Tells listeners, once per change.
    pub(crate) fn publish(&self, id: ServerId, power: PowerState, cause: &str) {
        let mut told = self.told.lock();
        if told.insert(id, power) != Some(power) {
            tracing::info!(server = %id, ?power, cause, "power state");
            let kind = VmEventKind::Power {
                power,
                cause: Some(cause.to_owned()),
            };
            // No listener is no error.
            let _ = self.events.send(VmEvent { id: Some(id), kind });
        }
    }

    /// Events may have been lost.
    pub(crate) fn lost(&self) {
        self.told.lock().clear();
        let _ = self.events.send(VmEvent {
            id: None,
            kind: VmEventKind::Lost,
        });
    }
}

/// What an event says of the domain's power, and why.
fn meaning(event: sys::virDomainEventType, detail: u32) -> Option<(PowerState, &'static str)> {
    use PowerState::{Crashed, Paused, Running, Stopped, Suspended};
    Some(match (event, detail) {
        (sys::VIR_DOMAIN_EVENT_STARTED, sys::VIR_DOMAIN_EVENT_STARTED_MIGRATED)
        | (sys::VIR_DOMAIN_EVENT_RESUMED, sys::VIR_DOMAIN_EVENT_RESUMED_MIGRATED) => (Running, "migrated"),
        (sys::VIR_DOMAIN_EVENT_STARTED | sys::VIR_DOMAIN_EVENT_RESUMED, _) => (Running, HOST_REQUEST),
        (sys::VIR_DOMAIN_EVENT_SUSPENDED, sys::VIR_DOMAIN_EVENT_SUSPENDED_PAUSED) => (Paused, HOST_REQUEST),
        (sys::VIR_DOMAIN_EVENT_SUSPENDED, sys::VIR_DOMAIN_EVENT_SUSPENDED_IOERROR) => (Paused, "io-error"),
        (sys::VIR_DOMAIN_EVENT_SUSPENDED, sys::VIR_DOMAIN_EVENT_SUSPENDED_WATCHDOG) => (Paused, "watchdog"),
        (sys::VIR_DOMAIN_EVENT_SUSPENDED, _) => (Paused, "held"),
        (sys::VIR_DOMAIN_EVENT_STOPPED, sys::VIR_DOMAIN_EVENT_STOPPED_SHUTDOWN) => {
            (Stopped, "guest-shutdown")
        }
        (sys::VIR_DOMAIN_EVENT_STOPPED, sys::VIR_DOMAIN_EVENT_STOPPED_MIGRATED) => (Stopped, "migrated"),
        (sys::VIR_DOMAIN_EVENT_STOPPED, sys::VIR_DOMAIN_EVENT_STOPPED_SAVED) => (Suspended, HOST_REQUEST),
        (sys::VIR_DOMAIN_EVENT_STOPPED, sys::VIR_DOMAIN_EVENT_STOPPED_CRASHED) => (Crashed, "panicked"),
        (sys::VIR_DOMAIN_EVENT_STOPPED, sys::VIR_DOMAIN_EVENT_STOPPED_FAILED) => (Crashed, "killed"),
        (sys::VIR_DOMAIN_EVENT_STOPPED, _) => (Stopped, HOST_REQUEST),
        (sys::VIR_DOMAIN_EVENT_CRASHED, _) => (Crashed, "panicked"),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(name: &str, id: ServerId, event: u32, detail: u32) -> Lifecycle {
        Lifecycle {
            name: name.to_owned(),
            uuid: id.uuid(),
            event: event as i32,
            detail: detail as i32,
        }
    }

    #[test]
    fn a_change_is_told_once_and_foreign_domains_never() {
        let hub = Hub::new(8);
        let mut heard = hub.listen();
        let id = ServerId::from_uuid(uuid::Uuid::from_u128(7));
        let name = id.to_string();
        hub.changed(&change("web-1", id, sys::VIR_DOMAIN_EVENT_STARTED, 0));
        hub.changed(&change(&name, id, sys::VIR_DOMAIN_EVENT_DEFINED, 0));
        hub.changed(&change(&name, id, sys::VIR_DOMAIN_EVENT_RESUMED, 0));
        hub.changed(&change(&name, id, sys::VIR_DOMAIN_EVENT_STARTED, 0));
        hub.changed(&change(
            &name,
            id,
            sys::VIR_DOMAIN_EVENT_STOPPED,
            sys::VIR_DOMAIN_EVENT_STOPPED_FAILED,
        ));
        hub.lost();
        let mut all = Vec::new();
        while let Ok(event) = heard.try_recv() {
            all.push(match event.kind {
                VmEventKind::Power { power, .. } => Some(power),
                _ => None,
            });
        }
        assert_eq!(all, [Some(PowerState::Running), Some(PowerState::Crashed), None]);
    }
}
