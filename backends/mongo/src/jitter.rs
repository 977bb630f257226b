//! Growing waits of random length, so that processes which hindered each other do not meet again at once.

use std::time::Duration;

const FIRST: Duration = Duration::from_millis(1);
const MOST: Duration = Duration::from_millis(50);

/// Numbers that differ between processes, because each begins with the id of its own database session.
#[derive(Debug)]
pub(crate) struct Jitter(u64);

impl Jitter {
    pub(crate) fn new(seed: &[u8]) -> Self {
        // FNV-1a
        let hash = seed.iter().fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
            (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3)
        });
        Self(hash)
    }

    /// Splitmix64: from 0 to 1.
    fn next(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let top = u32::try_from((z ^ (z >> 31)) >> 32).unwrap_or(0);
        f64::from(top) / f64::from(u32::MAX)
    }

    /// The wait before try `n` (0 is the first that is repeated).
    pub(crate) fn backoff(&mut self, n: u32) -> Duration {
        let bound = FIRST.saturating_mul(2_u32.saturating_pow(n)).min(MOST);
        bound.mul_f64(self.next())
    }

    /// A wait between half of `about` and `about`, at most as long as the longest backoff.
    pub(crate) fn around(&mut self, about: Duration) -> Duration {
        about.min(MOST).mul_f64(0.5 + self.next() / 2.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_are_bounded_spread_and_of_their_own() {
        let (mut a, mut b) = (Jitter::new(b"a"), Jitter::new(b"b"));
        let waits: Vec<_> = (0..1000).map(|_| a.backoff(30)).collect();
        assert!(waits.iter().all(|w| *w <= MOST));
        assert!(waits.iter().any(|w| *w < MOST / 10) && waits.iter().any(|w| *w > MOST * 9 / 10));
        assert!(waits.iter().any(|w| *w != b.backoff(30)));
        assert!((0..1000).all(|_| a.backoff(0) <= FIRST));
        let about = Duration::from_millis(10);
        assert!((0..1000).all(|_| (about / 2..=about).contains(&a.around(about))));
    }
}
