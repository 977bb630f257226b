//! A value of which only the latest matters, and those who wait for another.
//!
//! It is used like Tokio's `watch` channel. That one spreads its waiters over several lists by an ambient source of chance, so
//! that those who wait wake in another order each time; here they wake in the order in which they came. One seed gives one
//! trace only where no order is left to chance.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use parking_lot::{MappedRwLockReadGuard, RwLock, RwLockReadGuard};
use tokio::sync::Notify;

struct Shared<T> {
    state: RwLock<State<T>>,
    changed: Notify,
}

struct State<T> {
    value: T,
    version: u64,
    senders: usize,
}

/// Sets the value.
pub struct Sender<T>(Arc<Shared<T>>);

/// Looks at the value and waits for another.
pub struct Receiver<T> {
    shared: Arc<Shared<T>>,
    seen: u64,
}

/// The value, held: nobody can set it meanwhile. Not to be kept.
pub struct Ref<'a, T>(MappedRwLockReadGuard<'a, T>);

/// There will be no other value: all senders are gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("there will be no other value")]
pub struct Closed;

/// Both ends, with a first value that counts as seen.
#[must_use]
pub fn channel<T>(first: T) -> (Sender<T>, Receiver<T>) {
    let sender = Sender::new(first);
    let receiver = sender.subscribe();
    (sender, receiver)
}

impl<T> Sender<T> {
    /// A sender, with a first value.
    #[must_use]
    pub fn new(first: T) -> Self {
        Self(Arc::new(Shared {
            state: RwLock::new(State {
                value: first,
                version: 0,
                senders: 1,
            }),
            changed: Notify::new(),
        }))
    }

    /// A receiver that has seen the value of now.
    #[must_use]
    pub fn subscribe(&self) -> Receiver<T> {
        Receiver {
            shared: self.0.clone(),
            seen: self.0.state.read().version,
        }
    }

    /// The value of now.
    #[must_use]
    pub fn borrow(&self) -> Ref<'_, T> {
        self.0.borrow()
    }

    /// Sets the value and gives back the one before.
    pub fn send_replace(&self, value: T) -> T {
        let mut before = value;
        self.send_modify(|now| std::mem::swap(now, &mut before));
        before
    }

    /// Changes the value.
    pub fn send_modify(&self, change: impl FnOnce(&mut T)) {
        self.send_if_modified(|value| {
            change(value);
            true
        });
    }

    /// Changes the value perhaps: nobody is woken when `change` says that it did not. Gives that back.
    pub fn send_if_modified(&self, change: impl FnOnce(&mut T) -> bool) -> bool {
        let mut state = self.0.state.write();
        let changed = change(&mut state.value);
        if changed {
            state.version += 1;
            drop(state);
            self.0.changed.notify_waiters();
        }
        changed
    }
}

impl<T> Shared<T> {
    fn borrow(&self) -> Ref<'_, T> {
        Ref(RwLockReadGuard::map(self.state.read(), |s| &s.value))
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        self.0.state.write().senders += 1;
        Self(self.0.clone())
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        let mut state = self.0.state.write();
        state.senders -= 1;
        if state.senders == 0 {
            drop(state);
            self.0.changed.notify_waiters();
        }
    }
}

impl<T> Receiver<T> {
    /// The value of now; whether it was seen does not change.
    #[must_use]
    pub fn borrow(&self) -> Ref<'_, T> {
        self.shared.borrow()
    }

    /// The value of now, which is seen by that.
    #[must_use]
    pub fn borrow_and_update(&mut self) -> Ref<'_, T> {
        let state = self.shared.state.read();
        self.seen = state.version;
        Ref(RwLockReadGuard::map(state, |s| &s.value))
    }

    /// Counts the value of now as seen.
    pub fn mark_unchanged(&mut self) {
        self.seen = self.shared.state.read().version;
    }

    /// Waits for a value that was not seen, and counts it as seen.
    ///
    /// # Errors
    /// [`Closed`] when there will be none.
    pub async fn changed(&mut self) -> Result<(), Closed> {
        loop {
            let changed = self.shared.changed.notified();
            {
                let state = self.shared.state.read();
                if state.version != self.seen {
                    self.seen = state.version;
                    return Ok(());
                }
                if state.senders == 0 {
                    return Err(Closed);
                }
            }
            changed.await;
        }
    }

    /// Waits for a value that fits, which the one of now may do, and counts it as seen.
    ///
    /// # Errors
    /// [`Closed`] when there will be none.
    pub async fn wait_for(&mut self, mut fits: impl FnMut(&T) -> bool) -> Result<Ref<'_, T>, Closed> {
        loop {
            let changed = self.shared.changed.notified();
            {
                let state = self.shared.state.read();
                self.seen = state.version;
                if fits(&state.value) {
                    return Ok(Ref(RwLockReadGuard::map(state, |s| &s.value)));
                }
                if state.senders == 0 {
                    return Err(Closed);
                }
            }
            changed.await;
        }
    }
}

impl<T> Clone for Receiver<T> {
    fn clone(&self) -> Self {
        Self {
            shared: self.shared.clone(),
            seen: self.seen,
        }
    }
}

impl<T> Deref for Ref<'_, T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T: fmt::Debug> fmt::Debug for Ref<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

impl<T: fmt::Debug> fmt::Debug for Sender<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Sender").field(&*self.borrow()).finish()
    }
}

impl<T: fmt::Debug> fmt::Debug for Receiver<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Receiver").field(&*self.borrow()).finish()
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;
    use parking_lot::Mutex;
    use tokio::task::JoinSet;

    use super::*;

    #[test]
    fn a_first_value_counts_as_seen_and_each_later_one_once() {
        let (sender, mut receiver) = channel(1);
        assert_eq!(receiver.changed().now_or_never(), None);
        assert_eq!(sender.send_replace(2), 1);
        let mut other = receiver.clone();
        assert_eq!(receiver.changed().now_or_never(), Some(Ok(())));
        assert_eq!(receiver.changed().now_or_never(), None);
        assert_eq!(*other.borrow(), 2);
        assert_eq!(*other.borrow_and_update(), 2);
        assert_eq!(other.changed().now_or_never(), None);
        assert!(!sender.send_if_modified(|_| false));
        assert_eq!(other.changed().now_or_never(), None);
    }

    #[test]
    fn the_end_of_all_senders_is_told_after_the_last_value() {
        let (sender, mut receiver) = channel(1);
        let second = sender.clone();
        drop(sender);
        assert_eq!(receiver.changed().now_or_never(), None);
        second.send_modify(|n| *n += 1);
        drop(second);
        assert_eq!(receiver.changed().now_or_never(), Some(Ok(())));
        assert_eq!(receiver.changed().now_or_never(), Some(Err(Closed)));
        assert_eq!(
            *receiver.wait_for(|n| *n == 2).now_or_never().unwrap().unwrap(),
            2
        );
        assert!(receiver.wait_for(|n| *n == 3).now_or_never().unwrap().is_err());
    }

    #[tokio::test]
    async fn those_who_wait_wake_in_the_order_in_which_they_came() {
        for _ in 0..50 {
            let (sender, receiver) = channel(0);
            let woken = Arc::new(Mutex::new(Vec::new()));
            let mut waiting = JoinSet::new();
            for i in 0..20 {
                let (mut receiver, woken) = (receiver.clone(), woken.clone());
                waiting.spawn(async move {
                    receiver.changed().await.unwrap();
                    woken.lock().push(i);
                });
                tokio::task::yield_now().await;
            }
            sender.send_replace(1);
            while waiting.join_next().await.is_some() {}
            assert_eq!(*woken.lock(), (0..20).collect::<Vec<_>>());
        }
    }
}
