//! Guessing is slow, logging in is not.
//!
//! Three measures count wrong passwords, each lets a burst pass and then one now and then:
//!
//! * per user and source (8, then one in 20 s): who mistypes waits a little, who guesses gets nowhere;
//! * per source (40, then one in 3 s): trying one password with many users gains nothing;
//! * per user (100, then one in 2 s), soft: many sources against one user. A source from which that user has logged in before is not
//!   held back by it, nor by what others at the same source do; so nobody can be locked out of where they work.
//!
//! Users count by the name that was typed, whether it exists or not. An attempt is charged when it begins and given back when it was
//! right, so a thousand at the same moment gain nothing either. From a proven source it is charged when it was wrong: a user's own
//! logins do not stand in each other's way, and the hasher's queue bounds what can be tried at once.
//!
//! A right password clears the measure of that user and source only: an attacker with an account of its own cannot wash the source
//! clean with it.
//!
//! Memory is bounded. What has run out is dropped first; of a full table goes the entry that is nearest to its end, so to push out an
//! entry an attacker must fail more often with each of as many other names as the table has places (100,000), within minutes. That is
//! more than the hasher can compare, and it would free one entry. The measures live in memory: a restart forgets them.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest::{Context, SHA256};
use parking_lot::Mutex;
use skyloom_model::Clock;

/// A burst, and then one each time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// How many pass at once; 1 at least.
    pub burst: u32,
    /// The time in which one more may pass.
    pub every: Duration,
}

/// How wrong passwords are held back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ThrottleConfig {
    /// For a user from a source.
    pub pair: Rate,
    /// For a source.
    pub source: Rate,
    /// For a user from sources where it has not logged in before.
    pub user: Rate,
    /// For how long a login proves its source.
    pub proven: Duration,
    /// Entries in each of the four tables (some 100 bytes each).
    pub entries: usize,
}

impl Default for ThrottleConfig {
    fn default() -> Self {
        let rate = |burst, every| Rate {
            burst,
            every: Duration::from_secs(every),
        };
        Self {
            pair: rate(8, 20),
            source: rate(40, 3),
            user: rate(100, 2),
            proven: Duration::from_secs(30 * 86_400),
            entries: 100_000,
        }
    }
}

/// Not now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("too many wrong passwords; try again in {} s", retry_after.as_secs().max(1))]
pub struct Throttled {
    /// When to try again, if nobody else fails until then.
    pub retry_after: Duration,
}

/// The source that an address counts as: an IPv4 address itself, of an IPv6 address the network of 64 bits, since who has one address there
/// has them all.
#[must_use]
pub fn source_of(address: IpAddr) -> String {
    match address.to_canonical() {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => format!(
            "{}/64",
            Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX))
        ),
    }
}

/// What is hashed, so that names of any length take the same room.
type Entry = [u8; 16];

/// Holds back wrong passwords.
pub struct Throttle {
    config: ThrottleConfig,
    clock: Arc<dyn Clock>,
    state: Mutex<State>,
}

struct State {
    pairs: Table,
    sources: Table,
    users: Table,
    proven: Table,
}

impl fmt::Debug for Throttle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Throttle")
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

/// An attempt that may be made. Dropped without a word, it counts as a wrong password.
#[derive(Debug)]
#[must_use = "say how it ended; dropped at once, it counts as a wrong password"]
pub struct Attempt<'a> {
    throttle: &'a Throttle,
    pair: Entry,
    source: Entry,
    user: Entry,
    /// Charged at its beginning.
    charged: bool,
    open: bool,
}

impl Throttle {
    /// A throttle without entries.
    pub fn new(config: ThrottleConfig, clock: Arc<dyn Clock>) -> Self {
        let table = || Table::new(config.entries.max(1));
        let state = State {
            pairs: table(),
            sources: table(),
            users: table(),
            proven: table(),
        };
        Self {
            config,
            clock,
            state: Mutex::new(state),
        }
    }

    /// Asks whether a password may be tried for a user (domain and name as typed) from a source. A source is what is dear to an
    /// attacker: see [`source_of`].
    ///
    /// # Errors
    /// [`Throttled`]: no password is looked at.
    pub fn begin(&self, user: &str, source: &str) -> Result<Attempt<'_>, Throttled> {
        let (pair, from, who) = (
            entry(b'p', &[user, source]),
            entry(b's', &[source]),
            entry(b'u', &[user]),
        );
        let ThrottleConfig {
            pair: pair_rate,
            source: source_rate,
            user: user_rate,
            ..
        } = self.config;
        let now = self.clock.monotonic();
        let state = &mut *self.state.lock();
        let proven = state.proven.until(&pair) > now;
        let mut wait = state.pairs.wait(&pair, pair_rate, now);
        if !proven {
            wait = wait
                .max(state.sources.wait(&from, source_rate, now))
                .max(state.users.wait(&who, user_rate, now));
        }
        if !wait.is_zero() {
            return Err(Throttled { retry_after: wait });
        }
        let attempt = Attempt {
            throttle: self,
            pair,
            source: from,
            user: who,
            charged: !proven,
            open: true,
        };
        if attempt.charged {
            state.charge(&attempt, now);
        }
        Ok(attempt)
    }
}

impl Attempt<'_> {
    /// The password was right: nothing is charged, and the source is proven for this user.
    pub fn right(mut self) {
        let now = self.throttle.clock.monotonic();
        let state = &mut *self.throttle.state.lock();
        state.refund(&self, now);
        state.pairs.set(self.pair, Duration::ZERO, now);
        state
            .proven
            .set(self.pair, now.saturating_add(self.throttle.config.proven), now);
        self.open = false;
    }

    /// No password was compared (the hasher was busy, the store away): nothing is charged.
    pub fn unanswered(mut self) {
        let now = self.throttle.clock.monotonic();
        self.throttle.state.lock().refund(&self, now);
        self.open = false;
    }

    /// The password was wrong.
    pub fn wrong(self) {}
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        if self.open && !self.charged {
            let now = self.throttle.clock.monotonic();
            self.throttle.state.lock().charge(self, now);
        }
    }
}

impl State {
    fn charge(&mut self, attempt: &Attempt<'_>, now: Duration) {
        let config = &attempt.throttle.config;
        self.pairs.charge(attempt.pair, config.pair, now);
        self.sources.charge(attempt.source, config.source, now);
        self.users.charge(attempt.user, config.user, now);
    }

    fn refund(&mut self, attempt: &Attempt<'_>, now: Duration) {
        if attempt.charged {
            let config = &attempt.throttle.config;
            self.pairs.refund(attempt.pair, config.pair, now);
            self.sources.refund(attempt.source, config.source, now);
            self.users.refund(attempt.user, config.user, now);
        }
    }
}

/// Until when something counts, for a bounded number of entries.
struct Table {
    limit: usize,
    until: HashMap<Entry, Duration>,
    order: BTreeSet<(Duration, Entry)>,
}

impl Table {
    fn new(limit: usize) -> Self {
        Self {
            limit,
            until: HashMap::new(),
            order: BTreeSet::new(),
        }
    }

    fn until(&self, entry: &Entry) -> Duration {
        self.until.get(entry).copied().unwrap_or_default()
    }

    fn set(&mut self, entry: Entry, until: Duration, now: Duration) {
        if let Some(former) = self.until.remove(&entry) {
            self.order.remove(&(former, entry));
        }
        while self.order.first().is_some_and(|first| first.0 <= now) {
            self.drop_first();
        }
        if until <= now {
            return;
        }
        if self.until.len() >= self.limit {
            self.drop_first();
        }
        self.until.insert(entry, until);
        self.order.insert((until, entry));
    }

    fn drop_first(&mut self) {
        if let Some((_, entry)) = self.order.pop_first() {
            self.until.remove(&entry);
        }
    }

    /// Each charge moves the end by one step; what lies more than a burst ahead has to wait.
    fn wait(&self, entry: &Entry, rate: Rate, now: Duration) -> Duration {
        let ahead = self.until(entry).max(now) - now;
        let most = rate.every.saturating_mul(rate.burst.max(1) - 1);
        ahead.saturating_sub(most)
    }

    fn charge(&mut self, entry: Entry, rate: Rate, now: Duration) {
        let until = self.until(&entry).max(now).saturating_add(rate.every);
        self.set(entry, until, now);
    }

    fn refund(&mut self, entry: Entry, rate: Rate, now: Duration) {
        let until = self.until(&entry).saturating_sub(rate.every);
        self.set(entry, until, now);
    }
}

fn entry(kind: u8, parts: &[&str]) -> Entry {
    let mut hash = Context::new(&SHA256);
    hash.update(&[kind]);
    for part in parts {
        hash.update(&part.len().to_be_bytes());
        hash.update(part.as_bytes());
    }
    let mut entry = Entry::default();
    entry
        .iter_mut()
        .zip(hash.finish().as_ref())
        .for_each(|(to, from)| *to = *from);
    entry
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_table_drops_what_is_nearest_to_its_end() {
        let mut table = Table::new(3);
        let second = Duration::from_secs;
        for (entry, until) in [(1, 50), (2, 10), (3, 30), (4, 20), (5, 40)] {
            table.set([entry; 16], second(until), second(1));
        }
        assert_eq!(table.until(&[1; 16]), second(50));
        assert_eq!(table.until(&[5; 16]), second(40));
        assert_eq!(table.until.len(), 3);
        assert_eq!(table.order.len(), 3);
        assert_eq!(table.until(&[3; 16]), second(30));
        assert!(table.until(&[2; 16]).is_zero() && table.until(&[4; 16]).is_zero());
    }

    #[test]
    fn what_has_run_out_is_dropped() {
        let mut table = Table::new(1000);
        let second = Duration::from_secs;
        for entry in 0..200 {
            table.set([entry; 16], second(10), second(1));
        }
        assert_eq!(table.until.len(), 200);
        table.set([255; 16], second(60), second(10));
        assert_eq!((table.until.len(), table.order.len()), (1, 1));
    }
}
