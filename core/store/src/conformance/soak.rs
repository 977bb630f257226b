//! The long part of the exam: many clients at once, with faults, and every answer checked.
//!
//! ```text
//! clients ── get, commit ──> Chaos ──> store          histories ──> linearizable, key by key; revisions never go back
//! writers ── commit ───────> Chaos ──> store ── watch ──> readers ──> every commit once, in order, or a gap
//!                                       └── disturbed by the sitting meanwhile: connections cut, server restarted, compacted
//! ```
//!
//! How much of it is run is the caller's choice ([`Amount`]): a backend's test runs [`Amount::SHORT`] of it with every
//! build, and any number by hand.

mod check;
mod clients;
mod history;
mod line;
mod watchers;

use std::sync::Arc;
use std::time::Duration;

use libtest_mimic::Trial;

pub use self::check::{Wrong, linearizable};
pub use self::clients::histories;
pub use self::history::{Action, Answer, Call, Demand, DocId};
pub use self::line::{Line, private_port};
pub use self::watchers::watched;
use super::{Exam, Verdict};

/// How much is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Amount {
    /// Histories of one key each: 8 clients, 200 calls.
    pub histories: usize,
    /// Changes that are committed under the eyes of watchers.
    pub changes: usize,
    /// Where chance begins.
    pub seed: u64,
}

impl Amount {
    /// What every build runs: 500 histories, 50,000 changes.
    pub const SHORT: Self = Self {
        histories: 500,
        changes: 50_000,
        seed: 1,
    };

    /// Reads `HISTORIES,CHANGES[,SEED]`, as a person gives it to a test by a variable; nothing is [`Amount::SHORT`].
    ///
    /// # Errors
    /// What is not a number.
    pub fn parse(text: Option<&str>) -> Result<Self, std::num::ParseIntError> {
        let mut amount = Self::SHORT;
        let mut parts = text
            .unwrap_or_default()
            .split(',')
            .filter(|part| !part.is_empty());
        if let Some(histories) = parts.next() {
            amount.histories = histories.parse()?;
        }
        if let Some(changes) = parts.next() {
            amount.changes = changes.parse()?;
        }
        if let Some(seed) = parts.next() {
            amount.seed = seed.parse()?;
        }
        Ok(amount)
    }
}

/// The pause between two disturbances.
const CALM: Duration = Duration::from_millis(700);

/// The two trials of the long part.
#[must_use]
pub fn trials(exam: Arc<dyn Exam>, amount: Amount) -> Vec<Trial> {
    let name = exam.name();
    let other = Arc::clone(&exam);
    vec![
        Trial::test(format!("{name}::soak::histories_are_linearizable"), move || {
            Ok(run(histories(&*exam, amount))??)
        }),
        Trial::test(format!("{name}::soak::watchers_see_everything_once"), move || {
            Ok(run(watched(&*other, amount))??)
        }),
    ]
}

fn run(soak: impl Future<Output = Verdict>) -> std::io::Result<Verdict> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    Ok(runtime.block_on(soak))
}

/// A SplitMix64 sequence.
#[derive(Debug, Clone)]
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_read() {
        assert_eq!(Amount::parse(None), Ok(Amount::SHORT));
        let some = Amount {
            histories: 10_000,
            changes: 1_000_000,
            seed: 3,
        };
        assert_eq!(Amount::parse(Some("10000,1000000,3")), Ok(some));
        assert!(Amount::parse(Some("many")).is_err());
    }
}
