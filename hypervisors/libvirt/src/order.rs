//! Who works on which domain.
//!
//! * `op` is held by one verb at a time, for as long as it takes (a graceful stop: minutes).
//! * `record` is held only while what the domain carries is read and written again; `define` needs no more.
//!
//! A call to libvirt that is late keeps the lock that it was made under until it has returned.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use skyloom_model::ServerId;
use tokio::sync::OwnedMutexGuard;

/// A lock that a call can take along.
pub(crate) type Hold = Arc<OwnedMutexGuard<()>>;

/// The locks of one domain.
#[derive(Debug, Default)]
pub(crate) struct Slot {
    op: Arc<tokio::sync::Mutex<()>>,
    record: Arc<tokio::sync::Mutex<()>>,
}

impl Slot {
    pub(crate) async fn op(&self) -> Hold {
        Arc::new(Arc::clone(&self.op).lock_owned().await)
    }
    pub(crate) async fn record(&self) -> Hold {
        Arc::new(Arc::clone(&self.record).lock_owned().await)
    }
}

/// The locks of all domains that somebody works on.
#[derive(Debug, Default)]
pub(crate) struct Slots(Mutex<BTreeMap<ServerId, Weak<Slot>>>);

impl Slots {
    pub(crate) fn get(&self, id: ServerId) -> Arc<Slot> {
        let mut slots = self.0.lock();
        if let Some(slot) = slots.get(&id).and_then(Weak::upgrade) {
            return slot;
        }
        slots.retain(|_, slot| slot.strong_count() > 0);
        let slot = Arc::new(Slot::default());
        slots.insert(id, Arc::downgrade(&slot));
        slot
    }
}
