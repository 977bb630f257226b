//! Reading: documents, listings at one revision, and the log.
//!
//! * A document is read linearizably: the primary proves that it still is one before it answers.
//! * A listing is one snapshot. So that it is no old one, the head is read linearizably beside it, and a snapshot that lies
//!   before that is taken again.
//! * The log is read first and the floor afterwards: what was deleted meanwhile is noticed.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use futures::TryStreamExt as _;
use mongodb::bson::{Document, doc};
use mongodb::options::ReadConcern;
use mongodb::{ClientSession, SessionCursor};
use skyloom_store::feed::{Commit, Past, Replay};
use skyloom_store::{Error, ErrorKind, Key, KeyValue, ListOptions, Page, Prefix, Result, Revision};
use tokio::time::{Duration, Instant, sleep, timeout_at};

use crate::error::{damaged, from_driver, is_passing};
use crate::record::{commit, key_value, past_after};
use crate::space::{HEAD, Head, Space, int, range, revisions};

/// A page, or a stretch of the log, ends early when it holds this many bytes.
const PAGE_BYTES: usize = 8 << 20;
/// Most commits read at once from the log.
const PAGE_COMMITS: i64 = 1_000;
/// Between two tries of a listing.
const PAUSE: Duration = Duration::from_millis(10);

/// A stretch of the log as it is.
#[derive(Debug, Default)]
pub(crate) struct Stretch {
    pub(crate) commits: Vec<Commit>,
    /// There may be more before the revision that was asked for.
    pub(crate) cut: bool,
}

#[derive(Debug)]
pub(crate) struct Reader {
    pub(crate) space: Arc<Space>,
}

/// Reads a cursor of a session until the page is full; whether something was left.
struct Filling {
    items: Vec<KeyValue>,
    limit: usize,
}

impl Filling {
    async fn fill(
        &mut self,
        cursor: &mut SessionCursor<Document>,
        session: &mut ClientSession,
        id: &str,
    ) -> Result<bool> {
        let mut bytes = 0;
        while let Some(document) = cursor.next(session).await {
            if self.items.len() >= self.limit || bytes >= PAGE_BYTES {
                return Ok(true);
            }
            let document = document.map_err(|e| from_driver("list", e))?;
            let item = key_value(document, id, "list")?;
            bytes += item.value.bytes().len();
            self.items.push(item);
        }
        Ok(false)
    }
}

impl Reader {
    pub(crate) async fn get(&self, key: &Key) -> Result<Option<KeyValue>> {
        const OPERATION: &str = "get";
        let find = self.space.docs.find_one(doc! { "_id": key.as_str() });
        let found = self
            .space
            .read(OPERATION, find.read_concern(ReadConcern::linearizable()))
            .await?;
        found.map(|d| key_value(d, "_id", OPERATION)).transpose()
    }

    pub(crate) async fn list(&self, prefix: &Prefix, options: &ListOptions, limit: usize) -> Result<Page> {
        let deadline = self.space.deadline();
        let mut fresh = None;
        loop {
            let newest = async {
                match fresh {
                    Some(revision) => Ok(revision),
                    None if options.at.is_some() => Ok(0),
                    None => self.space.head("list").await.map(|head| head.revision),
                }
            };
            let (newest, answer) = futures::join!(newest, self.snapshot(prefix, options, limit, deadline));
            let newest = newest?;
            match answer {
                Ok((head, _)) if head.revision < newest => {}
                // A revision that somebody was told of may not have reached this snapshot.
                Ok((_, Err(e))) if e.kind() == ErrorKind::Invalid && fresh.is_none() => {}
                Ok((_, page)) => return page,
                Err(Some(e)) if !is_passing(&e) => return Err(from_driver("list", e)),
                Err(Some(e)) if Instant::now() + PAUSE >= deadline => return Err(from_driver("list", e)),
                Err(None) => return Err(self.space.late(ErrorKind::Timeout, "list")),
                Err(Some(_)) => sleep(PAUSE).await,
            }
            if Instant::now() >= deadline {
                return Err(self.space.late(ErrorKind::Timeout, "list"));
            }
            fresh = Some(self.space.head("list").await?.revision.max(newest));
        }
    }

    /// One snapshot: the head and the page, or the driver's error (`None`: too late).
    async fn snapshot(
        &self,
        prefix: &Prefix,
        options: &ListOptions,
        limit: usize,
        deadline: Instant,
    ) -> std::result::Result<(Head, Result<Page>), Option<mongodb::error::Error>> {
        let work = async {
            let mut session = self.space.session().await?;
            session
                .start_transaction()
                .with_options(self.space.transaction())
                .await?;
            let find = self.space.state.find_one(doc! { "_id": HEAD });
            let head = find.session(&mut session).await?;
            let head = match head
                .as_ref()
                .map_or_else(|| Err(damaged("list", HEAD)), Head::parse)
            {
                Ok(head) => head,
                Err(e) => return Ok((Head::NONE, Err(e))),
            };
            let page = match position(head, options) {
                Ok(at) => self.page(&mut session, prefix, options, limit, head, at).await?,
                Err(e) => Err(e),
            };
            // So that nothing of it can be rolled back.
            session.commit_transaction().await?;
            Ok((head, page))
        };
        match timeout_at(deadline, work).await {
            Ok(answer) => answer.map_err(Some),
            Err(_) => Err(None),
        }
    }

    async fn page(
        &self,
        session: &mut ClientSession,
        prefix: &Prefix,
        options: &ListOptions,
        limit: usize,
        head: Head,
        at: u64,
    ) -> mongodb::error::Result<Result<Page>> {
        let keys = range(prefix, options.after.as_ref());
        let most = i64::try_from(limit.saturating_add(1)).unwrap_or(i64::MAX);
        let mut filter = doc! { "_id": keys.clone() };
        if at != head.revision {
            filter.insert("modified", doc! { "$lte": int(at) });
        }
        let mut cursor = self
            .space
            .docs
            .find(filter)
            .sort(doc! { "_id": 1 })
            .limit(most)
            .batch_size(u32::try_from(most).unwrap_or(u32::MAX))
            .session(&mut *session)
            .await?;
        let filling = || Filling {
            items: Vec::new(),
            limit,
        };
        let mut present = filling();
        let mut more = match present.fill(&mut cursor, session, "_id").await {
            Ok(more) => more,
            Err(e) => return Ok(Err(e)),
        };
        let mut items = present.items;
        if at != head.revision {
            // What stood at `at` and was changed since: the version that the first later commit ended.
            let filter = doc! {
                "_id": { "$gte": past_after(at) }, "key": keys, "modified": { "$lte": int(at) },
            };
            let mut cursor = self
                .space
                .past
                .find(filter)
                .sort(doc! { "key": 1 })
                .limit(most)
                .allow_disk_use(true)
                .session(&mut *session)
                .await?;
            let mut former = filling();
            let more_former = match former.fill(&mut cursor, session, "key").await {
                Ok(more) => more,
                Err(e) => return Ok(Err(e)),
            };
            (items, more) = merge((items, more), (former.items, more_former), limit);
        }
        Ok(Ok(Page {
            items,
            revision: Revision(at),
            more,
        }))
    }

    /// The log after `after` and up to `through`. With `prefix`: only commits and changes below it.
    pub(crate) async fn log(&self, prefix: &Prefix, after: u64, through: u64) -> Result<Stretch> {
        const OPERATION: &str = "watch";
        let mut filter = doc! { "_id": revisions(after, through) };
        if *prefix != Prefix::all() {
            let keys = range(prefix, None);
            filter.insert("changes", doc! { "$elemMatch": { "key": keys } });
        }
        let work = async {
            let mut cursor = self
                .space
                .log
                .find(filter)
                .sort(doc! { "_id": 1 })
                .limit(PAGE_COMMITS)
                .await?;
            let mut documents = Vec::new();
            let mut bytes = 0;
            while let Some(document) = cursor.try_next().await? {
                bytes += crate::space::uint(&document, "bytes").unwrap_or(0);
                documents.push(document);
                if bytes >= PAGE_BYTES as u64 {
                    return Ok((documents, true));
                }
            }
            let cut = documents.len() as i64 >= PAGE_COMMITS;
            Ok((documents, cut))
        };
        let (documents, cut) = self.space.read(OPERATION, work).await?;
        let commits = documents
            .into_iter()
            .map(|d| commit(d, |key| prefix.covers(key), OPERATION).map(|(commit, _)| commit));
        Ok(Stretch {
            commits: commits.collect::<Result<_>>()?,
            cut,
        })
    }

    /// The head as the majority has it.
    pub(crate) async fn head(&self) -> Result<Head> {
        let find = self.space.state.find_one(doc! { "_id": HEAD });
        let head = self.space.read("watch", find).await?;
        Head::parse(&head.ok_or_else(|| damaged("watch", HEAD))?)
    }
}

/// The revision that is asked for, if the history has it.
fn position(head: Head, options: &ListOptions) -> Result<u64> {
    let at = options.at.map_or(head.revision, |at| at.0);
    if at > head.revision {
        return Err(Error::new(ErrorKind::Invalid, "list")
            .with("revision", at)
            .with("newest", head.revision));
    }
    if at < head.floor {
        return Err(Error::new(ErrorKind::Compacted, "list")
            .with("revision", at)
            .with("oldest", head.floor));
    }
    Ok(at)
}

/// Two listings without common keys as one, of at most `limit` items. Where one of them says that it has more, nothing beyond
/// its last item is known.
fn merge(a: (Vec<KeyValue>, bool), b: (Vec<KeyValue>, bool), limit: usize) -> (Vec<KeyValue>, bool) {
    let known = |(items, more): &(Vec<KeyValue>, bool)| match items.last() {
        Some(last) if *more => Some(last.key.clone()),
        _ => None,
    };
    let end = match (known(&a), known(&b)) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (end, None) | (None, end) => end,
    };
    let mut more = a.1 || b.1;
    let mut all: BTreeMap<Key, KeyValue> =
        a.0.into_iter()
            .chain(b.0)
            .map(|kv| (kv.key.clone(), kv))
            .collect();
    if let Some(end) = end {
        all.retain(|key, _| *key <= end);
    }
    more |= all.len() > limit;
    (all.into_values().take(limit).collect(), more)
}

#[async_trait]
impl Past for Reader {
    async fn replay(&self, prefix: &Prefix, after: Revision, through: Revision) -> Result<Replay> {
        let stretch = self.log(prefix, after.0, through.0).await?;
        let head = self.head().await?;
        if after.0 < head.floor {
            return Ok(Replay::Lost {
                floor: Revision(head.floor),
            });
        }
        let through = match stretch.commits.last() {
            Some(last) if stretch.cut => last.revision,
            _ => through,
        };
        Ok(Replay::Commits {
            commits: stretch.commits,
            through,
        })
    }

    async fn revision(&self) -> Result<Revision> {
        self.space.head("watch").await.map(|head| Revision(head.revision))
    }
}

#[cfg(test)]
mod tests {
    use skyloom_store::Value;

    use super::*;

    fn listing(keys: &str, more: bool) -> (Vec<KeyValue>, bool) {
        let items = keys.chars().map(|c| KeyValue {
            key: Key::parse(&c.to_string()).unwrap(),
            value: Value::from_json_bytes("1"),
            created: Revision(1),
            modified: Revision(1),
        });
        (items.collect(), more)
    }

    #[test]
    fn merged_listings_end_where_one_is_unknown() {
        for (a, b, limit, wanted, more) in [
            (("ace", false), ("bd", false), 9, "abcde", false),
            (("ace", false), ("bd", false), 5, "abcde", false),
            (("ace", false), ("bd", false), 4, "abcd", true),
            (("ac", true), ("bdf", false), 9, "abc", true),
            (("ac", true), ("b", true), 9, "ab", true),
            (("", false), ("b", false), 1, "b", false),
            (("a", false), ("", false), 1, "a", false),
        ] {
            let (items, has_more) = merge(listing(a.0, a.1), listing(b.0, b.1), limit);
            let keys: String = items.iter().map(|kv| kv.key.as_str()).collect();
            assert_eq!((&*keys, has_more), (wanted, more), "{a:?} {b:?} {limit}");
        }
    }

    #[test]
    fn only_the_history_can_be_listed() {
        let head = Head {
            revision: 9,
            floor: 4,
            ..Head::NONE
        };
        let at = |at| position(head, &ListOptions::default().with_at(Revision(at)));
        assert_eq!(position(head, &ListOptions::default()).unwrap(), 9);
        assert_eq!((at(9).unwrap(), at(4).unwrap()), (9, 4));
        assert_eq!(at(10).unwrap_err().kind(), ErrorKind::Invalid);
        assert_eq!(at(3).unwrap_err().kind(), ErrorKind::Compacted);
    }
}
