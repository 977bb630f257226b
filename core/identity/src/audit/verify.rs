//! Whether the audit is as it was sealed.
//!
//! Two passes: over the seals of a range, each against the one before; then over the entries that they name, and over those that
//! lie beside them. Everything is read; what is kept in memory is a name and a hash for each entry of the range.

use std::collections::{BTreeSet, HashMap};

use serde::Serialize;
use serde_json::Value as Json;
use skyloom_model::{Incarnation, Timestamp};
use skyloom_store::{Key, KeyValue, ListOptions, Result, Revision, Store};

use super::seal::{Noted, Seal, SealHead, SealKind, hash_of, head_key, root_of, seal_key};
use super::sealer::at_of;
use super::{AUDIT, SEALS, prefix};

/// An entry that says it happened so much earlier than another that was sealed before it was put in afterwards.
const LATE: jiff::SignedDuration = jiff::SignedDuration::from_mins(15);
/// Findings that a report has at most.
const MOST_FINDINGS: usize = 1000;

/// What to verify.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct VerifyOptions {
    /// The first seal; 0 and 1 are the same.
    pub first: u64,
    /// The last seal; `None`: all that there are.
    pub last: Option<u64>,
    /// Seals that were noted elsewhere.
    pub known: Vec<Noted>,
}

/// What is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Problem {
    /// An entry's content is not what was sealed.
    EntryChanged,
    /// A sealed entry is gone.
    EntryRemoved,
    /// An entry was put in after its time.
    EntryInserted,
    /// An entry has another's content.
    EntryReordered,
    /// A seal is gone.
    SealMissing,
    /// A seal is not as it was made.
    SealChanged,
    /// The head does not name the chain's end.
    HeadWrong,
}

/// Something that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What.
    pub problem: Problem,
    /// The seal.
    pub seal: Option<u64>,
    /// The entry, as `{day}/{id}`.
    pub entry: Option<String>,
    /// In words.
    pub message: String,
}

/// What verifying found.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Report {
    /// Seals that were looked at.
    pub seals: u64,
    /// Sealed entries that were compared.
    pub entries: u64,
    /// Entries that are too young to be sealed; only the store protects them yet.
    pub waiting: u64,
    /// Entries that were removed for their age, as a seal says.
    pub removed: u64,
    /// What is wrong; nothing, if the audit is whole.
    pub findings: Vec<Finding>,
    /// Whether there is more wrong than the findings tell.
    pub more: bool,
    /// The end of the chain: to be noted elsewhere.
    pub head: Option<Noted>,
}

impl Report {
    /// Whether nothing is wrong.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.findings.is_empty()
    }

    fn add(&mut self, problem: Problem, seal: Option<u64>, entry: Option<&str>, message: impl Into<String>) {
        if self.findings.len() == MOST_FINDINGS {
            self.more = true;
            return;
        }
        self.findings.push(Finding {
            problem,
            seal,
            entry: entry.map(str::to_owned),
            message: message.into(),
        });
    }
}

/// A named entry.
#[derive(Debug)]
struct Named {
    seal: u64,
    hash: String,
    /// When the youngest entry of the seals before was.
    after: Option<Timestamp>,
    seen: bool,
}

/// What the seals of a range say.
#[derive(Debug, Default)]
struct Told {
    named: HashMap<String, Named>,
    /// The commits that the range covers, if all of it is of one incarnation of the store.
    span: Option<(Option<Incarnation>, Revision, Revision)>,
    mixed: bool,
    /// When the youngest entry was.
    newest: Option<Timestamp>,
}

async fn head(store: &dyn Store) -> Result<Option<SealHead>> {
    store
        .get(&head_key()?)
        .await?
        .map(|kv| kv.value.parse())
        .transpose()
}

/// Compares the seals of a range, and the entries that they name, with what they were. Sealing may go on meanwhile.
///
/// # Errors
/// Those of the store.
pub async fn verify(store: &dyn Store, options: &VerifyOptions) -> Result<Report> {
    let mut report = Report::default();
    let end = head(store).await?;
    let (first, until) = (
        options.first.max(1),
        end.as_ref().map_or(0, |head| head.last.number),
    );
    let last = options.last.unwrap_or(until).min(until);
    report.head = end.as_ref().map(|head| head.last.clone());
    for known in options.known.iter().filter(|known| known.number > until) {
        let message = "the chain ends before a seal that was noted elsewhere";
        report.add(Problem::SealMissing, Some(known.number), None, message);
    }
    let told = seals(store, options, end.as_ref(), first..=last, &mut report).await?;
    entries(store, told, first == 1 && last == until, &mut report).await?;
    if last == until {
        beyond(store, until, &mut report).await?;
    }
    Ok(report)
}

/// Seals behind the end that the head names, unless the head has moved on.
async fn beyond(store: &dyn Store, until: u64, report: &mut Report) -> Result<()> {
    let next = store.get(&seal_key(until + 1)?).await?.is_some();
    if next && head(store).await?.map_or(0, |head| head.last.number) == until {
        let message = "there are seals behind the one that the head names as the last";
        report.add(Problem::HeadWrong, Some(until + 1), None, message);
    }
    Ok(())
}

async fn seals(
    store: &dyn Store,
    options: &VerifyOptions,
    end: Option<&SealHead>,
    range: std::ops::RangeInclusive<u64>,
    report: &mut Report,
) -> Result<Told> {
    let (first, last) = range.into_inner();
    let mut told = Told::default();
    let mut before: Option<Seal> = None;
    if first > 1 {
        before = one(store, first - 1, report).await?;
        told.newest = before.as_ref().and_then(|seal| seal.newest);
    }
    for number in first..=last {
        let Some(seal) = one(store, number, report).await? else {
            before = None;
            continue;
        };
        report.seals += 1;
        let changed = |report: &mut Report, message: &str| {
            report.add(Problem::SealChanged, Some(number), None, message);
        };
        if seal.number != number {
            changed(report, "it is another seal, under this one's number");
        }
        let previous = before.as_ref().map(Seal::hash);
        let follows = match &previous {
            Some(hash) => *hash == seal.previous,
            None => number > 1 || seal.previous.is_empty(),
        };
        if !follows {
            // One of the two: this one's own hash is in the next.
            changed(
                report,
                "it, or the one before it, was changed: it does not follow that one",
            );
        }
        let hash = seal.hash();
        if end.is_some_and(|head| head.last.number == number && head.last.hash != hash) {
            report.add(
                Problem::HeadWrong,
                Some(number),
                None,
                "the head has another hash of the last seal",
            );
        }
        if options
            .known
            .iter()
            .any(|known| known.number == number && known.hash != hash)
        {
            changed(report, "it is not the seal that was noted elsewhere");
        }
        told.take(&seal, end, report);
        before = Some(seal);
    }
    removals(store, end, report).await?;
    Ok(told)
}

/// That what the head says to be removed is said by a seal.
async fn removals(store: &dyn Store, end: Option<&SealHead>, report: &mut Report) -> Result<()> {
    let Some(removed) = end.and_then(|head| head.removed) else {
        return Ok(());
    };
    let by = one(store, removed.by, report).await?;
    let told = by.is_some_and(
        |seal| matches!(seal.kind, SealKind::Removed { through, .. } if through == removed.through),
    );
    if !told || removed.cleaned > removed.through || removed.through >= removed.by {
        let message = "the head tells of removed entries, but no seal does";
        report.add(Problem::HeadWrong, Some(removed.by), None, message);
    }
    Ok(())
}

async fn one(store: &dyn Store, number: u64, report: &mut Report) -> Result<Option<Seal>> {
    let Some(found) = store.get(&seal_key(number)?).await? else {
        report.add(Problem::SealMissing, Some(number), None, "the seal is gone");
        return Ok(None);
    };
    match found.value.parse::<Seal>() {
        Ok(seal) => Ok(Some(seal)),
        Err(_) => {
            report.add(Problem::SealChanged, Some(number), None, "it is no seal any more");
            Ok(None)
        }
    }
}

impl Told {
    fn take(&mut self, seal: &Seal, end: Option<&SealHead>, report: &mut Report) {
        let changed = |report: &mut Report, message: &str| {
            report.add(Problem::SealChanged, Some(seal.number), None, message);
        };
        let after = self.newest;
        self.newest = self.newest.max(seal.newest);
        if seal.kind != SealKind::Entries {
            return;
        }
        self.mixed |= self
            .span
            .is_some_and(|(incarnation, ..)| incarnation != seal.incarnation);
        let from = self.span.map_or(seal.from, |(_, from, _)| from);
        self.span = Some((seal.incarnation, from, seal.to));
        let Some(leaves) = &seal.entries else {
            let removed = end.and_then(|head| head.removed);
            if removed.is_some_and(|removed| seal.number <= removed.through) {
                report.removed += seal.count;
            } else {
                changed(report, "its list of entries is gone");
            }
            return;
        };
        if root_of(leaves) != seal.root || u64::try_from(leaves.len()) != Ok(seal.count) {
            changed(report, "its list of entries was changed");
        }
        for leaf in leaves {
            let named = Named {
                seal: seal.number,
                hash: leaf.1.clone(),
                after,
                seen: false,
            };
            if self.named.insert(leaf.0.clone(), named).is_some() {
                let message = "it was sealed twice: removed in between, and put in again";
                report.add(Problem::EntryInserted, Some(seal.number), Some(&leaf.0), message);
            }
        }
    }

    /// Whether an entry that no seal of the range names was committed among those that it names.
    fn covers(&self, created: Revision) -> bool {
        !self.mixed
            && self
                .span
                .is_some_and(|(_, from, to)| from < created && created <= to)
    }

    fn compare(&mut self, name: &str, kv: &KeyValue, all: bool, report: &mut Report) {
        let document: Json = kv.value.parse().unwrap_or_default();
        let at = at_of(&document);
        let late = |before: Option<Timestamp>| {
            at.zip(before)
                .is_some_and(|(at, before)| before.duration_since(at) > LATE)
        };
        let Some(named) = self.named.get_mut(name) else {
            // Beside a part of the chain lies what other parts name.
            if self.covers(kv.created) || (all && late(self.newest)) {
                let message = "no seal names it, and it lies among what is sealed";
                report.add(Problem::EntryInserted, None, Some(name), message);
            } else if all {
                report.waiting += 1;
            }
            return;
        };
        named.seen = true;
        report.entries += 1;
        let (seal, after, hash) = (named.seal, named.after, hash_of(&document));
        if named.hash != hash {
            // Looked for as long as somebody is told of it.
            let other = !report.more && self.named.values().any(|other| other.hash == hash);
            let (problem, message) = if other {
                (
                    Problem::EntryReordered,
                    "it has the content of another sealed entry",
                )
            } else {
                (Problem::EntryChanged, "its content is not what was sealed")
            };
            report.add(problem, Some(seal), Some(name), message);
        } else if late(after) {
            let message = "it was put in long after it says that it happened";
            report.add(Problem::EntryInserted, Some(seal), Some(name), message);
        }
    }
}

async fn entries(store: &dyn Store, mut told: Told, all: bool, report: &mut Report) -> Result<()> {
    let days: BTreeSet<String> = if all {
        BTreeSet::from([AUDIT.to_owned()])
    } else {
        let days = told.named.keys().filter_map(|name| name.split('/').next());
        days.map(|day| format!("{AUDIT}/{day}")).collect()
    };
    for day in days {
        let below = prefix(&day)?;
        let mut after: Option<Key> = None;
        loop {
            let mut options = ListOptions::default();
            options.after = after;
            let page = store.list(&below, options).await?;
            for kv in &page.items {
                let name = kv.key.as_str().strip_prefix("audit/").unwrap_or_default();
                told.compare(name, kv, all, report);
            }
            match page.items.last() {
                Some(last) if page.more => after = Some(last.key.clone()),
                _ => break,
            }
        }
    }
    // Read last: what was removed for its age while we looked is no finding.
    let removed = head(store).await?.and_then(|head| head.removed);
    let through = removed.map_or(0, |removed| removed.through);
    let mut gone: Vec<_> = told.named.iter().filter(|(_, named)| !named.seen).collect();
    gone.sort_by_key(|(name, named)| (named.seal, *name));
    for (name, named) in gone {
        if named.seal <= through {
            report.removed += 1;
        } else {
            let message = format!("it was sealed in {SEALS}/{} and is gone", named.seal);
            report.add(Problem::EntryRemoved, Some(named.seal), Some(name), message);
        }
    }
    Ok(())
}
