//! Clocks over the paused time of the runtime: the true one, and those of processes, which drift and are set.

use std::sync::atomic::{AtomicI64, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use skyloom_model::{Clock, Timestamp};
use tokio::time::Instant;

/// 2026-01-01T00:00:00Z in milliseconds.
const START_MS: i64 = 1_767_225_600_000;
/// More readings than any process makes at one moment. One that makes more goes round without waiting for anything.
const MOST_READINGS: u32 = 1_000_000;

/// The time of the schedule: the store's clock, and what traces show.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TrueClock(Instant);

impl TrueClock {
    pub(crate) fn new() -> Self {
        Self(Instant::now())
    }

    /// Since the schedule began.
    pub(crate) fn elapsed(&self) -> Duration {
        Instant::now() - self.0
    }

    /// The moment at which `elapsed` is `at`.
    pub(crate) fn instant(&self, at: Duration) -> Instant {
        self.0 + at
    }
}

impl Clock for TrueClock {
    fn now(&self) -> Timestamp {
        timestamp(START_MS + millis(self.elapsed()))
    }
    fn monotonic(&self) -> Duration {
        self.elapsed()
    }
}

/// A machine's clock: it runs too fast or too slow, and somebody sets it.
#[derive(Debug)]
pub(crate) struct SimClock {
    real: TrueClock,
    /// Speed in millionths of the true one.
    rate: f64,
    /// How far the wall clock is off, in milliseconds.
    off: AtomicI64,
    /// When it was last read, in true nanoseconds, and how often since then.
    read_at: AtomicU64,
    readings: AtomicU32,
}

impl SimClock {
    /// A clock that gains `ppm` millionths (or loses them).
    pub(crate) fn new(real: TrueClock, ppm: i64, off_ms: i64) -> Self {
        Self {
            real,
            rate: 1.0 + ppm as f64 / 1e6,
            off: AtomicI64::new(off_ms),
            read_at: AtomicU64::new(0),
            readings: AtomicU32::new(0),
        }
    }

    /// The true time, if time goes on at all.
    fn real(&self) -> Duration {
        let real = self.real.elapsed();
        let nanos = real.as_nanos() as u64;
        if self.read_at.swap(nanos, Ordering::Relaxed) != nanos {
            self.readings.store(0, Ordering::Relaxed);
        }
        let readings = self.readings.fetch_add(1, Ordering::Relaxed);
        assert!(readings < MOST_READINGS, "goes round without a pause at {real:?}");
        real
    }

    /// The wall clock is set by so much.
    pub(crate) fn step(&self, by_ms: i64) {
        self.off.fetch_add(by_ms, Ordering::Relaxed);
    }
}

impl Clock for SimClock {
    fn now(&self) -> Timestamp {
        timestamp(START_MS + millis(self.monotonic()) + self.off.load(Ordering::Relaxed))
    }
    fn monotonic(&self) -> Duration {
        self.real().mul_f64(self.rate)
    }
}

fn millis(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX / 2)
}

fn timestamp(ms: i64) -> Timestamp {
    Timestamp::from_millisecond(ms).unwrap_or(Timestamp::UNIX_EPOCH)
}
