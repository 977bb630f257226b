//! Searching the audit: oldest first, so many entries per call, and never more work than that.

use skyloom_model::Timestamp;
use skyloom_store::{Error, ErrorKind, Key, ListOptions, Result, Store};
use uuid::Uuid;

use super::entry::{AuditOutcome, AuditScope, Entry};
use super::{AUDIT, key, prefix};
use crate::{Covered, UserId};

/// Entries that one call looks at.
const MOST_LOOKED: usize = 4000;
/// Entries that are read at once.
const PAGE: usize = 500;
/// Entries on a page at most.
const MOST: usize = 1000;
/// Longest cursor: a day and an id.
const CURSOR: usize = 64;

/// What to look for: all that is named must fit.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AuditFilter {
    /// Done by this user.
    pub actor: Option<UserId>,
    /// Done to this object.
    pub object: Option<Uuid>,
    /// Done to objects of this kind.
    pub kind: Option<String>,
    /// The permission that was used.
    pub action: Option<String>,
    /// How it ended: `done`, `denied` or `failed`, or the code of it.
    pub outcome: Option<String>,
    /// The request.
    pub request_id: Option<String>,
    /// Not before this.
    pub from: Option<Timestamp>,
    /// Before this.
    pub until: Option<Timestamp>,
}

/// A page of the audit.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AuditPage {
    /// What fits, oldest first.
    pub items: Vec<Entry>,
    /// Where to go on; `None`: that was all. A page may be short, or empty, and go on.
    pub next: Option<String>,
}

impl AuditFilter {
    fn fits(&self, entry: &Entry) -> bool {
        fn is<T: PartialEq>(wanted: Option<&T>, is: Option<&T>) -> bool {
            wanted.is_none_or(|wanted| is == Some(wanted))
        }
        let text = |wanted: &Option<String>, is: &str| wanted.as_deref().is_none_or(|w| w == is);
        let (outcome, code) = match &entry.outcome {
            AuditOutcome::Done => ("done", None),
            AuditOutcome::Denied { code } => ("denied", Some(code)),
            AuditOutcome::Failed { code } => ("failed", Some(code)),
        };
        let until = entry
            .repeated
            .as_ref()
            .map_or(entry.at, |repeated| repeated.until);
        is(self.actor.as_ref(), entry.actor.user.as_ref())
            && is(self.object.as_ref(), entry.object.id.as_ref())
            && text(&self.kind, entry.object.kind.as_str())
            && text(&self.action, entry.action.as_str())
            && text(&self.request_id, entry.request_id.as_str())
            && (text(&self.outcome, outcome) || code.is_some_and(|code| text(&self.outcome, code.as_str())))
            && self.from.is_none_or(|from| from <= until)
            && self.until.is_none_or(|until| entry.at < until)
    }
}

fn covered(scope: Covered, entry: &Entry) -> bool {
    match (scope, entry.object.scope) {
        (Covered::All, _) => true,
        (Covered::Domain(mine), AuditScope::Domain { id }) => mine == id,
        (Covered::Domain(mine), AuditScope::Project { domain, .. }) => mine == domain,
        (Covered::Project(mine), AuditScope::Project { id, .. }) => mine == id,
        (Covered::Nothing | Covered::Project(_) | Covered::Domain(_), _) => false,
    }
}

/// The days of a filter: what counts over seconds may lie below the day before.
fn first_day(filter: &AuditFilter) -> Option<String> {
    let from = filter.from?;
    let day = from
        .checked_sub(jiff::SignedDuration::from_mins(1))
        .unwrap_or(from);
    Some(Entry::day(day))
}

/// One page of what fits `filter` in `scope`, which is what [`crate::Authorizer::filter_scope`] says of `audit:read`: no filter
/// and no cursor reaches out of it.
///
/// # Errors
/// [`ErrorKind::Invalid`] for a cursor that is none, and those of the store.
pub async fn search_audit(
    store: &dyn Store,
    scope: Covered,
    filter: &AuditFilter,
    limit: usize,
    cursor: Option<&str>,
) -> Result<AuditPage> {
    let mut page = AuditPage::default();
    let mut after = match (cursor, first_day(filter)) {
        (Some(cursor), _) => Some(parse(cursor)?),
        // No id is as small as that.
        (None, Some(day)) => Some(key(&format!("{AUDIT}/{day}/+"))?),
        (None, None) => None,
    };
    if scope == Covered::Nothing {
        return Ok(page);
    }
    let last_day = filter.until.map(Entry::day);
    let (below, limit) = (prefix(AUDIT)?, limit.clamp(1, MOST));
    let mut looked = 0;
    while looked < MOST_LOOKED {
        let mut options = ListOptions::default().with_limit(PAGE.min(MOST_LOOKED - looked));
        options.after = after;
        let found = store.list(&below, options).await?;
        for kv in &found.items {
            let name = kv.key.as_str().strip_prefix("audit/").unwrap_or_default();
            let day = name.split('/').next().unwrap_or_default();
            if last_day.as_deref().is_some_and(|last| day > last) {
                page.next = None;
                return Ok(page);
            }
            looked += 1;
            page.next = Some(name.to_owned());
            // What is no entry is told of by verifying.
            if let Ok(entry) = kv.value.parse::<Entry>()
                && covered(scope, &entry)
                && filter.fits(&entry)
            {
                page.items.push(entry);
                if page.items.len() == limit {
                    return Ok(page);
                }
            }
        }
        if !found.more {
            page.next = None;
            return Ok(page);
        }
        after = found.items.last().map(|kv| kv.key.clone());
    }
    Ok(page)
}

fn parse(cursor: &str) -> Result<Key> {
    let wrong = || {
        Error::new(ErrorKind::Invalid, "search the audit").with("cursor", "it is none that was given here")
    };
    let (day, id) = cursor
        .split_once('/')
        .filter(|_| cursor.len() <= CURSOR)
        .ok_or_else(wrong)?;
    let _day: jiff::civil::Date = day.parse().map_err(|_| wrong())?;
    let _id: Uuid = id.parse().map_err(|_| wrong())?;
    Key::parse(&format!("{AUDIT}/{cursor}")).map_err(|_| wrong())
}
