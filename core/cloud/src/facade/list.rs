//! Pages of lists, straight from the store's pages.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::de::DeserializeOwned;
use skyloom_model::{Reason, Resource, Scope, paths};
use skyloom_store::{Key, ListOptions, Prefix, Store};

use super::Cloud;
use super::records::prefix;
use crate::{Caller, CloudError, FieldError, ListQuery, Listed, Result};

const DEFAULT_LIMIT: u32 = 100;
const MAX_LIMIT: u32 = 1000;
/// Documents that one call looks at; a filter that finds little gives short pages with a `next`.
const MAX_SCAN: usize = 5000;
/// Documents that are asked for at once.
const MAX_PAGE: usize = 1000;

/// Where a page begins and ends.
pub(crate) struct PageOf<'q> {
    pub(crate) cursor: Option<&'q str>,
    pub(crate) limit: Option<u32>,
}

/// The documents below a prefix, or some of them.
#[derive(Debug, Clone)]
pub(crate) struct Range {
    pub(crate) below: Prefix,
    /// Only those behind this key.
    pub(crate) from: Option<Key>,
    /// Only those before this key.
    pub(crate) until: Option<Key>,
}

impl From<Prefix> for Range {
    fn from(below: Prefix) -> Self {
        Self {
            below,
            from: None,
            until: None,
        }
    }
}

/// What a list is read from.
#[derive(Debug)]
pub(crate) struct Source<'s> {
    pub(crate) store: &'s dyn Store,
    /// One range after the other.
    pub(crate) ranges: Vec<Range>,
    /// Documents that one call looks at.
    pub(crate) scan: usize,
    /// Documents that are asked for at once.
    pub(crate) page: usize,
}

/// Conditions of [`ListQuery`] on a resource.
pub(crate) struct Wanted<'q> {
    name: Option<&'q str>,
    label: Option<(&'q str, &'q str)>,
}

impl<'q> Wanted<'q> {
    pub(crate) fn of(query: &'q ListQuery) -> Result<Self> {
        let label = match query.label.as_deref() {
            None => None,
            Some(text) => Some(text.split_once('=').ok_or_else(|| {
                CloudError::field(FieldError::new("label", "label.invalid", "write it as key=value"))
            })?),
        };
        Ok(Self {
            name: query.name.as_deref(),
            label,
        })
    }

    pub(crate) fn fits<R: Resource>(&self, resource: &R) -> bool {
        let meta = resource.meta();
        self.name.is_none_or(|n| meta.name.as_str() == n)
            && self
                .label
                .is_none_or(|(k, v)| meta.labels.get(k).is_some_and(|have| have == v))
    }
}

/// How many items a page has at most.
pub(super) fn limit_of(asked: Option<u32>) -> Result<usize> {
    let limit = asked.unwrap_or(DEFAULT_LIMIT);
    if !(1..=MAX_LIMIT).contains(&limit) {
        let message = format!("{limit} is not within 1 to {MAX_LIMIT}");
        return Err(CloudError::field(FieldError::new(
            "limit",
            "limit.invalid",
            message,
        )));
    }
    Ok(usize::try_from(limit).unwrap_or(usize::MAX))
}

/// The last key of a page as text for clients.
fn cursor_of(key: &Key) -> String {
    URL_SAFE_NO_PAD.encode(key.as_str())
}

/// The key of a cursor and the number of the range that it lies in.
fn position(cursor: &str, ranges: &[Range]) -> Result<(usize, Key)> {
    let read = || {
        let text = String::from_utf8(URL_SAFE_NO_PAD.decode(cursor).ok()?).ok()?;
        let key = Key::parse(&text).ok()?;
        let at = ranges.iter().position(|r| r.below.covers(&key))?;
        Some((at, key))
    };
    read().ok_or_else(|| {
        let reason = Reason::new("cursor.invalid", "the cursor does not belong to this list");
        CloudError::bad_request(reason.hint("pass `next` of the page before unchanged, or leave it out"))
    })
}

impl Cloud {
    /// A page of the resources of `scopes` that the caller may see, one scope after the other.
    pub(crate) async fn list_resources<R: Resource>(
        &self,
        caller: &Caller,
        permission: &'static str,
        scopes: &[Scope],
        query: &ListQuery,
    ) -> Result<Listed<R>> {
        self.list_resources_where(caller, permission, scopes, query, |_| true)
            .await
    }

    /// The same of those that `fits` says fit, too.
    pub(crate) async fn list_resources_where<R: Resource>(
        &self,
        caller: &Caller,
        permission: &'static str,
        scopes: &[Scope],
        query: &ListQuery,
        fits: impl Fn(&R) -> bool + Send + Sync,
    ) -> Result<Listed<R>> {
        if scopes == [caller.scope()] {
            caller.here()?;
        }
        let shown = caller.list(permission)?;
        let wanted = Wanted::of(query)?;
        let page = PageOf {
            cursor: query.cursor.as_deref(),
            limit: query.limit,
        };
        let prefixes: Vec<Prefix> = scopes
            .iter()
            .filter(|scope| shown.covers(**scope))
            .map(|scope| prefix(&paths::scoped(R::KIND, *scope)))
            .collect::<Result<_>>()?;
        let keep = |r: &R| wanted.fits(r) && fits(r) && shown.item(caller, r.meta());
        self.page(&prefixes, page, keep).await
    }

    /// A page of the documents below `prefixes` that `keep` keeps. What cannot be decoded is left out.
    pub(crate) async fn page<T: DeserializeOwned>(
        &self,
        prefixes: &[Prefix],
        page: PageOf<'_>,
        keep: impl Fn(&T) -> bool + Send,
    ) -> Result<Listed<T>> {
        let source = Source {
            store: &*self.parts.backend,
            ranges: prefixes.iter().cloned().map(Range::from).collect(),
            scan: MAX_SCAN,
            page: MAX_PAGE,
        };
        source.page(page, keep).await
    }
}

impl Source<'_> {
    /// A page of the documents that `keep` keeps. What cannot be decoded is left out.
    pub(crate) async fn page<T: DeserializeOwned>(
        &self,
        page: PageOf<'_>,
        keep: impl Fn(&T) -> bool + Send,
    ) -> Result<Listed<T>> {
        let limit = limit_of(page.limit)?;
        let (first, mut cursor) = match page.cursor {
            None => (0, None),
            Some(cursor) => position(cursor, &self.ranges).map(|(at, key)| (at, Some(key)))?,
        };
        let (mut items, mut last_kept, mut scanned) = (Vec::new(), None, 0);
        for range in self.ranges.iter().skip(first) {
            // A cursor of a wider question may lie before this one's beginning.
            let mut after = cursor.take().max(range.from.clone());
            loop {
                let mut options = ListOptions::default().with_limit(limit.saturating_add(1).min(self.page));
                if let Some(key) = after.take() {
                    options = options.with_after(key);
                }
                let found = self.store.list(&range.below, options).await?;
                let mut ended = false;
                for kv in &found.items {
                    if range.until.as_ref().is_some_and(|until| kv.key >= *until) {
                        ended = true;
                        break;
                    }
                    let document = match kv.value.parse::<T>() {
                        Ok(document) => document,
                        Err(error) => {
                            tracing::warn!(key = %kv.key, error = %skyloom_model::report(&error), "left out of a list");
                            continue;
                        }
                    };
                    if !keep(&document) {
                        continue;
                    }
                    if items.len() == limit {
                        return Ok(Listed {
                            items,
                            next: last_kept.as_ref().map(cursor_of),
                        });
                    }
                    items.push(document);
                    last_kept = Some(kv.key.clone());
                }
                scanned += found.items.len();
                let Some(last) = found.items.last().filter(|_| found.more && !ended) else {
                    break;
                };
                if scanned >= self.scan {
                    return Ok(Listed {
                        items,
                        next: Some(cursor_of(&last.key)),
                    });
                }
                after = Some(last.key.clone());
            }
        }
        Ok(Listed { items, next: None })
    }
}
