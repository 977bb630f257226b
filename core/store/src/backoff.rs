//! Growing waits with full jitter, so that many clients never come back in step.

use std::sync::Arc;
use std::time::Duration;

use skyloom_model::Ids;

/// How long to wait before the n-th repetition: a random part of `first · 2ⁿ`, at most `most`.
#[derive(Debug, Clone)]
pub(crate) struct Backoff {
    first: Duration,
    most: Duration,
    /// Where the jitter comes from; without it the whole wait is taken.
    ids: Option<Arc<dyn Ids>>,
}

impl Backoff {
    pub(crate) fn new(first: Duration, most: Duration, ids: Option<Arc<dyn Ids>>) -> Self {
        Self { first, most, ids }
    }

    /// The wait before repetition `n` (0 is the first).
    pub(crate) fn wait(&self, n: u32) -> Duration {
        let bound = self.first.saturating_mul(2_u32.saturating_pow(n)).min(self.most);
        match &self.ids {
            None => bound,
            Some(ids) => {
                let mut random = [0; 4];
                ids.random(&mut random);
                bound.mul_f64(f64::from(u32::from_le_bytes(random)) / f64::from(u32::MAX))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use skyloom_model::{ManualClock, SeededIds};

    use super::*;

    #[test]
    fn waits_grow_to_the_bound_and_stay_there() {
        let b = Backoff::new(Duration::from_millis(10), Duration::from_millis(100), None);
        let waits: Vec<_> = (0..40).map(|n| b.wait(n).as_millis()).collect();
        assert_eq!(waits[..5], [10, 20, 40, 80, 100]);
        assert!(waits[5..].iter().all(|w| *w == 100));
    }

    #[test]
    fn jitter_spreads_over_the_whole_wait() {
        let ids = Arc::new(SeededIds::new(ManualClock::new(), 3));
        let b = Backoff::new(Duration::from_secs(1), Duration::from_secs(1), Some(ids));
        let waits: Vec<_> = (0..1000).map(|_| b.wait(0)).collect();
        assert!(waits.iter().all(|w| *w <= Duration::from_secs(1)));
        assert!(waits.iter().any(|w| *w < Duration::from_millis(100)));
        assert!(waits.iter().any(|w| *w > Duration::from_millis(900)));
    }
}
