//! One worker at a time per name.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use tokio::sync::OwnedMutexGuard;

/// Locks by name; a name that nobody uses takes no room.
#[derive(Debug, Default)]
pub(crate) struct Locks(Mutex<HashMap<String, Weak<tokio::sync::Mutex<()>>>>);

impl Locks {
    pub(crate) async fn lock(&self, name: String) -> OwnedMutexGuard<()> {
        let lock = {
            let mut locks = self.0.lock();
            locks.retain(|_, lock| lock.strong_count() > 0);
            match locks.get(&name).and_then(Weak::upgrade) {
                Some(lock) => lock,
                None => {
                    let lock = Arc::new(tokio::sync::Mutex::new(()));
                    locks.insert(name, Arc::downgrade(&lock));
                    lock
                }
            }
        };
        lock.lock_owned().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;

    #[tokio::test]
    async fn a_name_is_held_once_and_names_are_independent() {
        let locks = Locks::default();
        let a = locks.lock("a".into()).await;
        assert!(locks.lock("a".into()).now_or_never().is_none());
        assert!(locks.lock("b".into()).now_or_never().is_some());
        drop(a);
        assert!(locks.lock("a".into()).now_or_never().is_some());
        assert!(locks.0.lock().len() <= 1, "unused names take no room");
    }
}
