//! Feeds the watchers: every commit of every process, in order, from the log.
//!
//! ```text
//! own writer ── its commits ──────────┐
//! change stream on the head ── wakes ─┼─> log after the last published revision ─> hub ─> watchers
//! clock ── wakes ─────────────────────┘
//! ```
//!
//! The log has no holes, because every commit changes the head and so comes after the one before. The change stream only says
//! that something is new (the driver resumes it by its token where it can). When it ends for good, because the server forgot
//! where it was, because a collection was dropped, or because nobody answers, another one is opened, and the log is read from
//! the last published revision on: nothing is lost by that. Only when the log itself no longer goes back that far, watchers
//! are told of a gap.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures::StreamExt as _;
use mongodb::bson::{Document, doc};
use mongodb::change_stream::ChangeStream;
use skyloom_store::feed::{Commit, Hub};
use skyloom_store::{Error, ErrorKind, Prefix, Result, Revision};
use tokio::sync::mpsc;
use tokio::time::{Duration, sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::read::Reader;
use crate::space::{HEAD, uint};

/// How long the own writer, when it is at work, may take to tell what the change stream has told already.
const OWN_TIME: Duration = Duration::from_millis(5);
/// With an open change stream the log is looked at this much less often.
const PATIENCE: u32 = 10;

/// What the own writer has just committed.
#[derive(Debug)]
pub(crate) struct Published {
    pub(crate) commits: Vec<Arc<Commit>>,
    pub(crate) floor: u64,
}

type Stream = ChangeStream<Document>;

#[derive(Debug)]
pub(crate) struct Follower {
    pub(crate) reader: Arc<Reader>,
    pub(crate) hub: Arc<Hub>,
    pub(crate) own: mpsc::Receiver<Published>,
    /// Whether the own writer is at work.
    pub(crate) busy: Arc<AtomicBool>,
    pub(crate) poll: Duration,
    pub(crate) stop: CancellationToken,
}

/// Why the follower woke.
enum Wake {
    Stop,
    Own(Published),
    Event(Option<mongodb::error::Result<Document>>),
    Time,
}

/// The next event, or never without a stream.
async fn event(stream: &mut Option<Stream>) -> Option<mongodb::error::Result<Document>> {
    match stream {
        Some(stream) => stream.next().await,
        None => std::future::pending().await,
    }
}

impl Follower {
    /// Runs until it is stopped.
    pub(crate) async fn run(mut self) {
        let mut stream = None;
        loop {
            if stream.is_none() {
                stream = self.open().await;
                // What happened before it was open.
                self.catch_up().await;
            }
            let wait = if stream.is_some() {
                self.poll * PATIENCE
            } else {
                self.poll
            };
            let wake = tokio::select! {
                biased;
                () = self.stop.cancelled() => Wake::Stop,
                Some(published) = self.own.recv() => Wake::Own(published),
                event = event(&mut stream) => Wake::Event(event),
                () = sleep(wait) => Wake::Time,
            };
            match wake {
                Wake::Stop => return,
                Wake::Own(published) => self.own(published).await,
                Wake::Event(Some(Ok(event))) => {
                    if is_end(&event) {
                        tracing::warn!(%event, "the change stream was ended; opening another");
                        stream = None;
                    }
                    self.event(revision(&event)).await;
                }
                Wake::Event(Some(Err(e))) => {
                    tracing::warn!(
                        error = &e as &dyn std::error::Error,
                        "the change stream broke; reading on from the log"
                    );
                    stream = None;
                    if !self.pause().await {
                        return;
                    }
                }
                Wake::Event(None) => {
                    stream = None;
                    if !self.pause().await {
                        return;
                    }
                }
                Wake::Time => self.catch_up().await,
            }
        }
    }

    /// The head has changed, to this revision if it is known. Mostly the own writer did that, and has it all to give.
    async fn event(&mut self, revision: Option<u64>) {
        let news = |hub: &Hub| revision.is_none_or(|r| r > hub.head().revision.0);
        if news(&self.hub)
            && self.busy.load(Ordering::Acquire)
            && let Ok(Some(published)) = timeout(OWN_TIME, self.own.recv()).await
        {
            self.own(published).await;
        }
        if news(&self.hub) {
            self.catch_up().await;
        }
    }

    /// Waits before another stream is opened; `false` when the follower is stopped.
    async fn pause(&self) -> bool {
        tokio::select! {
            biased;
            () = self.stop.cancelled() => false,
            () = sleep(self.poll) => true,
        }
    }

    /// A stream of the changes of the head; without one the log is looked at more often.
    async fn open(&self) -> Option<Stream> {
        let space = &self.reader.space;
        let pipeline = [
            doc! { "$match": { "$or": [
                { "documentKey._id": HEAD }, { "operationType": { "$in": ["invalidate", "drop", "rename", "dropDatabase"] } },
            ] } },
            doc! { "$project": { "operationType": 1, "updateDescription.updatedFields.revision": 1 } },
        ];
        let opened = async {
            let stream = space
                .read("watch", space.state.watch().pipeline(pipeline))
                .await?;
            Ok::<_, Error>(stream.with_type::<Document>())
        };
        let opened = tokio::select! {
            biased;
            () = self.stop.cancelled() => return None,
            opened = opened => opened,
        };
        opened
            .inspect_err(|e| {
                tracing::warn!(
                    error = e as &dyn std::error::Error,
                    "no change stream; polling the log"
                )
            })
            .ok()
    }

    /// Publishes what the own writer committed, after what others committed before it.
    async fn own(&self, published: Published) {
        let head = self.hub.head();
        let new: Vec<_> = published
            .commits
            .into_iter()
            .filter(|commit| commit.revision > head.revision)
            .collect();
        let (Some(first), Some(last)) = (new.first(), new.last()) else {
            return;
        };
        if first.revision.0 != head.revision.0 + 1 {
            self.catch_up().await;
            return;
        }
        let last = last.revision;
        self.hub
            .publish(&new, last, head.floor.max(Revision(published.floor)));
    }

    /// Publishes everything in the log that is not published.
    async fn catch_up(&self) {
        let caught = tokio::select! {
            biased;
            () = self.stop.cancelled() => return,
            caught = self.read_on() => caught,
        };
        if let Err(e) = caught {
            tracing::warn!(
                error = &e as &dyn std::error::Error,
                "the log could not be read; watchers wait"
            );
        }
    }

    async fn read_on(&self) -> Result<()> {
        loop {
            let known = self.hub.head();
            let head = self.reader.head().await?;
            if head.floor > known.revision.0 {
                self.hub.lose(Revision(head.revision), Revision(head.floor));
                return Ok(());
            }
            if head.revision <= known.revision.0 {
                if head.floor > known.floor.0 {
                    self.hub.publish(&[], known.revision, Revision(head.floor));
                }
                return Ok(());
            }
            let stretch = self
                .reader
                .log(&Prefix::all(), known.revision.0, head.revision)
                .await?;
            let commits: Vec<Arc<Commit>> = stretch.commits.into_iter().map(Arc::new).collect();
            let next = (known.revision.0 + 1..).zip(&commits);
            if let Some((wanted, found)) = next.into_iter().find(|(n, commit)| commit.revision.0 != *n) {
                // Trimmed between the two reads, or damaged: a second look at the floor tells.
                if self.reader.head().await?.floor > known.revision.0 {
                    continue;
                }
                self.hub.lose(Revision(head.revision), Revision(head.revision));
                return Err(Error::new(ErrorKind::Corrupt, "watch")
                    .with("missing in the log", wanted)
                    .with("found", found.revision));
            }
            let Some(last) = commits.last() else {
                // The head was seen before the log.
                return Ok(());
            };
            self.hub.publish(&commits, last.revision, Revision(head.floor));
        }
    }
}

/// The revision that the head has since this event.
fn revision(event: &Document) -> Option<u64> {
    let description = event.get_document("updateDescription").ok()?;
    uint(description.get_document("updatedFields").ok()?, "revision")
}

/// Whether the stream says nothing more after this.
fn is_end(event: &Document) -> bool {
    event
        .get_str("operationType")
        .is_ok_and(|kind| matches!(kind, "invalidate" | "drop" | "rename" | "dropDatabase"))
}

/// A new hub that stands where the store does.
pub(crate) async fn hub(reader: &Reader) -> Result<Hub> {
    let head = reader.space.head("open store").await?;
    Ok(Hub::new(Revision(head.revision), Revision(head.floor)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_say_how_far_the_store_is() {
        let event = doc! { "operationType": "update", "updateDescription": { "updatedFields": { "revision": 7_i64 } } };
        assert_eq!((revision(&event), is_end(&event)), (Some(7), false));
        let turn = doc! { "operationType": "update", "updateDescription": { "updatedFields": {} } };
        assert_eq!((revision(&turn), is_end(&turn)), (None, false));
        for kind in ["invalidate", "drop", "rename", "dropDatabase"] {
            assert!(is_end(&doc! { "operationType": kind }), "{kind}");
        }
    }
}
