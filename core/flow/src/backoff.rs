//! How long to wait before a next try: drawn from what tries it, not from an ambient source of chance.

use std::time::Duration;

use skyloom_model::Timestamp;

/// Longest wait before any try.
const MOST: Duration = Duration::from_secs(60);

/// A wait between zero and `first * 2^(attempt - 1)`, at most a minute (full jitter). The same attempt of the same thing always
/// waits the same time; different things are spread evenly.
#[must_use]
pub(crate) fn full_jitter(first: Duration, attempt: u32, of: &[&[u8]]) -> Duration {
    let most = first
        .saturating_mul(1 << attempt.saturating_sub(1).min(16))
        .min(MOST);
    let most = u64::try_from(most.as_millis()).unwrap_or(u64::MAX);
    Duration::from_millis(spread(attempt, of) % (most + 1))
}

/// Whether a wait until `at` is over. No wait is longer than a minute, so a moment further away was set by a clock that was
/// not like this one, or this one has been set back since: whoever waited for it might wait for ever.
#[must_use]
pub(crate) fn is_over(at: Timestamp, now: Timestamp) -> bool {
    at <= now || Duration::try_from(at.duration_since(now)).is_ok_and(|left| left > MOST)
}

/// FNV-1a, then a finalizer so that near inputs land far apart.
fn spread(attempt: u32, of: &[&[u8]]) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for byte in of
        .iter()
        .flat_map(|part| part.iter())
        .chain(&attempt.to_le_bytes())
    {
        hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
    }
    hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ (hash >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_fill_the_whole_range_and_never_leave_it() {
        let first = Duration::from_millis(100);
        for attempt in 1..=40 {
            let most = first.saturating_mul(1 << (attempt - 1).min(16)).min(MOST);
            let waits: Vec<Duration> = (0..200_u32)
                .map(|i| full_jitter(first, attempt, &[&i.to_le_bytes()]))
                .collect();
            assert!(waits.iter().all(|w| *w <= most));
            assert!(
                waits.iter().any(|w| *w < most / 10),
                "attempt {attempt}: none is short"
            );
            assert!(
                waits.iter().any(|w| *w > most * 9 / 10),
                "attempt {attempt}: none is long"
            );
        }
    }

    #[test]
    fn a_wait_ends_at_its_moment_or_when_no_clock_can_have_meant_it() {
        let at = |second| Timestamp::from_second(second).unwrap();
        assert!(is_over(at(100), at(100)));
        assert!(!is_over(at(101), at(100)));
        assert!(!is_over(at(160), at(100)));
        assert!(is_over(at(161), at(100)));
    }

    #[test]
    fn the_same_try_waits_the_same_time() {
        let wait = |id: &[u8]| full_jitter(Duration::from_secs(1), 3, &[id]);
        assert_eq!(wait(b"a"), wait(b"a"));
        assert_ne!(wait(b"a"), wait(b"b"));
    }
}
