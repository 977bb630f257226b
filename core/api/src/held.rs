//! Bytes in flight: how much of requests and answers the server holds, of all callers and of each.
//!
//! Nobody waits for bytes: who finds none left is told to come back. What is held is given back when the request is
//! answered, or, for a long answer, when it is sent: a client that does not read pays with its own share.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use skyloom_model::TokenId;

use crate::problem::ApiError;

#[derive(Debug)]
pub(crate) struct Bytes {
    all: usize,
    each: usize,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    all: usize,
    by: HashMap<TokenId, usize>,
}

/// What one request holds; the last clone to be dropped gives all of it back.
#[derive(Debug, Clone)]
pub(crate) struct Held(Arc<Holding>);

#[derive(Debug)]
struct Holding {
    bytes: Arc<Bytes>,
    by: TokenId,
    held: Mutex<usize>,
}

impl Bytes {
    pub(crate) fn new(all: usize, each: usize) -> Arc<Self> {
        let taken = Mutex::default();
        Arc::new(Self { all, each, taken })
    }

    /// An empty hand of `by`.
    pub(crate) fn hold(self: &Arc<Self>, by: TokenId) -> Held {
        Held(Arc::new(Holding {
            bytes: Arc::clone(self),
            by,
            held: Mutex::new(0),
        }))
    }
}

impl Held {
    /// Takes `more` bytes, or none of them.
    pub(crate) fn take(&self, more: usize) -> Result<(), ApiError> {
        if more == 0 {
            return Ok(());
        }
        let Holding { bytes, by, held } = &*self.0;
        let mut held = held.lock();
        let mut taken = bytes.taken.lock();
        if taken.all.saturating_add(more) > bytes.all {
            return Err(ApiError::overloaded());
        }
        let mine = taken.by.get(by).copied().unwrap_or_default();
        if mine.saturating_add(more) > bytes.each {
            return Err(ApiError::too_many());
        }
        taken.by.insert(*by, mine + more);
        taken.all += more;
        *held += more;
        Ok(())
    }
}

impl Drop for Holding {
    fn drop(&mut self) {
        let held = *self.held.get_mut();
        if held == 0 {
            return;
        }
        let mut taken = self.bytes.taken.lock();
        taken.all = taken.all.saturating_sub(held);
        if let Some(mine) = taken.by.get_mut(&self.by) {
            *mine = mine.saturating_sub(held);
            if *mine == 0 {
                taken.by.remove(&self.by);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_bounded_for_each_and_all_and_given_back() {
        let bytes = Bytes::new(100, 60);
        let token = |n: u128| TokenId::from_uuid(uuid::Uuid::from_u128(n));
        let (a, again, b) = (bytes.hold(token(1)), bytes.hold(token(1)), bytes.hold(token(2)));
        a.take(50).unwrap();
        assert!(again.take(11).is_err(), "one caller has at most 60");
        again.take(10).unwrap();
        assert!(b.take(41).is_err(), "100 in all");
        b.take(40).unwrap();
        let kept = a.clone();
        drop(a);
        assert!(again.take(1).is_err(), "an answer on its way still holds them");
        drop((kept, again, b));
        let taken = bytes.taken.lock();
        assert_eq!((taken.all, taken.by.len()), (0, 0));
    }
}
