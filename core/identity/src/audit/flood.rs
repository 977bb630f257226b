//! Floods of the same thing from one source: the first ones are written, the rest are counted, and the count is written.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use skyloom_model::Ids;

use super::entry::{AuditOutcome, Entry, EntryId, Repeated, Word};

/// Entries of one source, action and outcome that are written in one window.
const FREE: u32 = 16;
/// How long a window is, and so how late a count is written at most.
const WINDOW: Duration = Duration::from_secs(10);
/// Windows at the same time. Sources beyond are counted together.
const MOST: usize = 4096;

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Source {
    /// `None`: unknown, or many.
    address: Option<IpAddr>,
    action: Word,
    outcome: AuditOutcome,
}

#[derive(Debug)]
struct Window {
    ends: Duration,
    written: u32,
    /// What was not written, as one entry.
    counted: Option<Entry>,
}

#[derive(Debug, Default)]
pub(super) struct Floods(BTreeMap<Source, Window>);

/// Who has one address of this kind has as many as they like beside it.
fn network(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(v6) => match v6.to_ipv4_mapped() {
            Some(v4) => v4.into(),
            None => Ipv6Addr::from_bits(v6.to_bits() & (u128::MAX << 64)).into(),
        },
    }
}

impl Floods {
    /// The entry, if it is to be written now; otherwise it has been counted.
    pub(super) fn admit(&mut self, now: Duration, entry: Entry, full: bool) -> Option<Entry> {
        let mut source = Source {
            address: entry.source.map(network),
            action: entry.action.clone(),
            outcome: entry.outcome.clone(),
        };
        if !self.0.contains_key(&source) && self.0.len() >= MOST {
            self.0
                .retain(|_, window| window.ends > now || window.counted.is_some());
            if self.0.len() >= MOST {
                source.address = None;
            }
        }
        let together = source.address.is_none();
        let window = self.0.entry(source).or_insert(Window {
            ends: now + WINDOW,
            written: 0,
            counted: None,
        });
        if window.ends <= now && window.counted.is_none() {
            (window.ends, window.written) = (now + WINDOW, 0);
        }
        if window.written < FREE && window.counted.is_none() && !full {
            window.written += 1;
            return Some(entry);
        }
        match &mut window.counted {
            None => {
                let first = Repeated {
                    times: 1,
                    until: entry.at,
                };
                window.counted = Some(Entry {
                    source: entry.source.filter(|_| !together),
                    repeated: Some(first),
                    ..entry
                });
            }
            Some(counted) => merge(counted, &entry),
        }
        None
    }

    /// The counts that are to be written: of windows that are over, or of all.
    pub(super) fn due(&mut self, now: Duration, all: bool, ids: &dyn Ids) -> Vec<Entry> {
        let mut due = Vec::new();
        for window in self.0.values_mut().filter(|window| all || window.ends <= now) {
            let counted = window.counted.take();
            // The id of the first of them belongs to none of them.
            due.extend(counted.map(|entry| Entry {
                id: EntryId::fresh(ids),
                ..entry
            }));
        }
        due
    }
}

/// Counts one more. What is not the same in all of them is left out.
fn merge(counted: &mut Entry, more: &Entry) {
    if let Some(repeated) = &mut counted.repeated {
        repeated.times = repeated.times.saturating_add(1);
        repeated.until = repeated.until.max(more.at);
    }
    if counted.actor.user != more.actor.user {
        (counted.actor.user, counted.actor.domain) = (None, None);
    }
    if counted.object.id != more.object.id {
        (counted.object.id, counted.object.name) = (None, None);
    }
    if counted.source != more.source {
        counted.source = counted
            .source
            .map(network)
            .filter(|n| more.source.map(network) == Some(*n));
    }
    if counted.object.scope != more.object.scope {
        counted.object.scope = super::entry::AuditScope::System;
    }
    counted.task = counted.task.filter(|task| more.task == Some(*task));
    counted.token_audit_ids.clear();
}
