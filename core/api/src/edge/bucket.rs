//! How often, in bounded memory: token buckets, of which only the moment is kept at which each will be full again.
//!
//! The places stand in sets of eight; a key has its place in one set, chosen by a keyed hash that nobody outside can foresee.
//! A new key takes the place that is full soonest: who asks most is forgotten last. A lock is held for a look at eight places.

use std::hash::{DefaultHasher, Hash, Hasher as _};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use skyloom_identity::Rate;
use skyloom_model::Clock;

const WAYS: usize = 8;

#[derive(Debug, Clone, Copy, Default)]
struct Place {
    key: u64,
    /// When the bucket is full again, in nanoseconds of the clock.
    full_at: u64,
}

pub(super) struct Buckets {
    sets: Box<[Mutex<[Place; WAYS]>]>,
    seed: u128,
    clock: Arc<dyn Clock>,
}

impl Buckets {
    pub(super) fn new(places: usize, seed: u128, clock: Arc<dyn Clock>) -> Self {
        let sets = places.div_ceil(WAYS).max(1);
        Self {
            sets: (0..sets).map(|_| Mutex::default()).collect(),
            seed,
            clock,
        }
    }

    /// Takes one from the bucket of `key`; when it is empty, in which time there will be one.
    pub(super) fn take(&self, key: impl Hash, rate: Rate) -> Result<(), Duration> {
        let mut hasher = DefaultHasher::new();
        (self.seed, key).hash(&mut hasher);
        let key = hasher.finish();
        let set = usize::try_from(key % self.sets.len() as u64).unwrap_or_default();
        let Some(set) = self.sets.get(set) else {
            return Ok(());
        };
        let nanos = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let now = nanos(self.clock.monotonic());
        let every = nanos(rate.every);
        let most = every.saturating_mul(u64::from(rate.burst.max(1)) - 1);

        let mut set = set.lock();
        let known = set.iter_mut().position(|place| place.key == key);
        let soonest = || (0..WAYS).min_by_key(|&i| set.get(i).map(|place| place.full_at));
        let Some(place) = known.or_else(soonest).and_then(|i| set.get_mut(i)) else {
            return Ok(());
        };
        let full_at = if known.is_some() {
            place.full_at.max(now)
        } else {
            now
        };
        let ahead = full_at - now;
        if ahead > most {
            return Err(Duration::from_nanos(ahead - most));
        }
        *place = Place {
            key,
            full_at: full_at.saturating_add(every),
        };
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use skyloom_model::ManualClock;

    fn rate(burst: u32, millis: u64) -> Rate {
        Rate {
            burst,
            every: Duration::from_millis(millis),
        }
    }

    #[test]
    fn a_burst_passes_and_then_one_each_time() {
        let clock = ManualClock::new();
        let buckets = Buckets::new(64, 7, Arc::new(clock.clone()));
        let rate = rate(3, 100);
        for _ in 0..3 {
            buckets.take("a", rate).unwrap();
        }
        assert_eq!(buckets.take("a", rate), Err(Duration::from_millis(100)));
        buckets.take("b", rate).unwrap();
        clock.advance(Duration::from_millis(100));
        buckets.take("a", rate).unwrap();
        assert!(buckets.take("a", rate).is_err());
        clock.advance(Duration::from_secs(1000));
        for _ in 0..3 {
            buckets.take("a", rate).unwrap();
        }
        assert!(
            buckets.take("a", rate).is_err(),
            "a rest fills no more than the bucket"
        );
    }

    #[test]
    fn a_million_strangers_take_no_memory_and_free_nobody_who_is_busy() {
        let clock = ManualClock::new();
        let buckets = Buckets::new(1024, 7, Arc::new(clock));
        let size = size_of_val(&*buckets.sets);
        let rate = rate(100, 1000);
        while buckets.take("busy", rate).is_ok() {}
        for stranger in 0..100_000_u32 {
            let _ = buckets.take(stranger, rate);
        }
        assert!(buckets.take("busy", rate).is_err());
        assert_eq!(size_of_val(&*buckets.sets), size);
        assert!(size <= 1024 * 24);
    }

    proptest! {
        /// As a bucket of tokens, filled one by one.
        #[test]
        fn it_counts_like_a_bucket(steps in prop::collection::vec((0..400_u64, 0..3_u8), 1..200), burst in 1..6_u32) {
            let clock = ManualClock::new();
            let buckets = Buckets::new(64, 7, Arc::new(clock.clone()));
            let rate = rate(burst, 100);
            // In each bucket: hundredths of a token, and no more than the burst.
            let full = u64::from(burst) * 100;
            let mut naive = [full; 3];
            for (wait, key) in steps {
                clock.advance(Duration::from_millis(wait));
                naive = naive.map(|tokens| (tokens + wait).min(full));
                let tokens = &mut naive[usize::from(key)];
                let passes = *tokens >= 100;
                let answer = buckets.take(key, rate);
                prop_assert_eq!(answer.is_ok(), passes);
                match answer {
                    Ok(()) => *tokens -= 100,
                    Err(wait) => prop_assert_eq!(wait, Duration::from_millis(100 - *tokens)),
                }
            }
        }
    }
}
