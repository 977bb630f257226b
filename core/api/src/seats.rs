//! How many may be inside at a time: of all callers, and of each.
//!
//! Nobody waits in a queue: who finds no seat is told to come back.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use skyloom_model::TokenId;

use crate::problem::ApiError;

#[derive(Debug)]
pub(crate) struct Seats {
    all: usize,
    each: usize,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    all: usize,
    by: HashMap<TokenId, usize>,
}

/// A taken seat; dropping it leaves.
#[derive(Debug)]
pub(crate) struct Seat {
    seats: Arc<Seats>,
    by: Option<TokenId>,
}

impl Seats {
    pub(crate) fn new(all: usize, each: usize) -> Arc<Self> {
        let taken = Mutex::new(Taken::default());
        Arc::new(Self { all, each, taken })
    }

    /// A seat for somebody who is not known yet.
    pub(crate) fn take(self: &Arc<Self>) -> Result<Seat, ApiError> {
        let mut taken = self.taken.lock();
        if taken.all >= self.all {
            return Err(ApiError::overloaded());
        }
        taken.all += 1;
        Ok(Seat {
            seats: Arc::clone(self),
            by: None,
        })
    }
}

impl Seat {
    /// Puts the holder's name on the seat.
    pub(crate) fn name(&mut self, token: TokenId) -> Result<(), ApiError> {
        let mut taken = self.seats.taken.lock();
        let count = taken.by.entry(token).or_default();
        if *count >= self.seats.each {
            return Err(ApiError::too_many());
        }
        *count += 1;
        self.by = Some(token);
        Ok(())
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut taken = self.seats.taken.lock();
        taken.all = taken.all.saturating_sub(1);
        let Some(token) = self.by else { return };
        if let Some(count) = taken.by.get_mut(&token) {
            *count -= 1;
            if *count == 0 {
                taken.by.remove(&token);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(n: u128) -> TokenId {
        TokenId::from_uuid(uuid::Uuid::from_u128(n))
    }

    #[test]
    fn seats_are_given_back_and_nobody_is_remembered() {
        let seats = Seats::new(3, 2);
        let mut held: Vec<Seat> = Vec::new();
        for _ in 0..2 {
            let mut seat = seats.take().unwrap();
            seat.name(token(1)).unwrap();
            held.push(seat);
        }
        let mut third = seats.take().unwrap();
        assert!(third.name(token(1)).is_err(), "one caller takes at most two");
        third.name(token(2)).unwrap();
        assert!(seats.take().is_err(), "three in all");
        drop(third);
        held.clear();
        let taken = seats.taken.lock();
        assert_eq!((taken.all, taken.by.len()), (0, 0));
    }
}
