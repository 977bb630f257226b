//! Who wants to know which keys changed.

use std::collections::BTreeSet;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::Key;

/// Keys that may wait for one consumer before it is told [`Changed::Everything`].
const MOST_KEYS: usize = 4096;

/// What to look at again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Changed {
    /// These keys were written, deleted, or could not be decoded; in key order, each once however often it changed.
    Keys(Vec<Key>),
    /// Anything may have changed: the first item always, and after the consumer fell far behind.
    Everything,
}

/// The keys that changed in a mirror, for consumers that look at the present state of a key and not at its history.
///
/// The first item is [`Changed::Everything`], as soon as the mirror is ready, so that nothing lies between looking at
/// everything and following the changes. Changes that wait are merged; beyond 4096 waiting keys they become
/// [`Changed::Everything`].
#[derive(Debug)]
pub struct Changes(Arc<Queue>);

#[derive(Debug, Default)]
struct Queue {
    waiting: Mutex<Waiting>,
    wake: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    keys: BTreeSet<Key>,
    everything: bool,
    ended: bool,
}

impl Changes {
    /// The next batch; `None` when the mirror's driver has ended.
    pub async fn next(&mut self) -> Option<Changed> {
        loop {
            let woken = self.0.wake.notified();
            if let Some(answer) = self.0.take() {
                return answer;
            }
            woken.await;
        }
    }
}

impl Queue {
    fn take(&self) -> Option<Option<Changed>> {
        let mut waiting = self.waiting.lock();
        if waiting.everything {
            waiting.everything = false;
            waiting.keys.clear();
            return Some(Some(Changed::Everything));
        }
        if !waiting.keys.is_empty() {
            let keys = std::mem::take(&mut waiting.keys);
            return Some(Some(Changed::Keys(keys.into_iter().collect())));
        }
        waiting.ended.then_some(None)
    }

    fn change(&self, change: impl FnOnce(&mut Waiting)) {
        change(&mut self.waiting.lock());
        self.wake.notify_one();
    }
}

#[derive(Debug, Default)]
pub(super) struct Subscribers(Mutex<List>);

#[derive(Debug, Default)]
struct List {
    queues: Vec<Weak<Queue>>,
    ended: bool,
}

impl Subscribers {
    /// A new consumer; `ready` when there is something to look at already.
    pub(super) fn add(&self, ready: bool) -> Changes {
        let mut list = self.0.lock();
        let waiting = Waiting {
            keys: BTreeSet::new(),
            everything: ready,
            ended: list.ended,
        };
        let queue = Arc::new(Queue {
            waiting: Mutex::new(waiting),
            wake: Notify::new(),
        });
        list.queues.push(Arc::downgrade(&queue));
        Changes(queue)
    }

    pub(super) fn keys<'k>(&self, keys: impl Iterator<Item = &'k Key> + Clone) {
        self.each(|waiting| {
            waiting.keys.extend(keys.clone().cloned());
            if waiting.keys.len() > MOST_KEYS {
                waiting.keys.clear();
                waiting.everything = true;
            }
        });
    }

    pub(super) fn everything(&self) {
        self.each(|waiting| waiting.everything = true);
    }

    pub(super) fn end(&self) {
        self.0.lock().ended = true;
        self.each(|waiting| waiting.ended = true);
    }

    fn each(&self, change: impl Fn(&mut Waiting)) {
        self.0.lock().queues.retain(|queue| {
            let Some(queue) = queue.upgrade() else {
                return false;
            };
            queue.change(&change);
            true
        });
    }
}
