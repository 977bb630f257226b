//! Moves a cloud from one store to another.

use serde::Serialize;
use skyloom_model::{Clock, Copying, FORMAT, Ids, Incarnation, Origin};
use skyloom_store::{Error, ErrorKind, ListOptions, Prefix, Result, Revision, Store};

use super::digest::{Tally, Tallying};
use super::fill::{self, Filler, Target};
use super::snapshot::{Snapshot, source};

const COPY: &str = "copy store";

/// What a copy did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CopySummary {
    /// What is in the target now.
    #[serde(flatten)]
    pub tally: Tally,
    /// How many of the records this call has written; the others were there from a call before.
    pub written: u64,
    /// As of which revision of the source.
    pub source_revision: u64,
    /// The source has been written to since: what came later is not in the target.
    pub source_moved_on: bool,
    /// The target's incarnation.
    pub incarnation: Incarnation,
}

/// Copies all records of `from`, as of one revision, into the empty store `to`, which becomes a new incarnation of the same
/// cloud. A call that was cut off is gone on with by the next one. Leases stay behind, so nobody may use either store meanwhile;
/// a hold goes along. `named` is the source's address as it may be shown.
///
/// # Errors
/// [`ErrorKind::Invalid`] when `to` is not empty or half filled by something else; [`ErrorKind::Compacted`] when the source forgot
/// the revision on the way; [`ErrorKind::Corrupt`] when the target differs at the end; those of the stores.
pub async fn copy(
    from: &dyn Store,
    named: &str,
    to: &dyn Store,
    clock: &dyn Clock,
    ids: &dyn Ids,
) -> Result<CopySummary> {
    let source = source(from, COPY).await?;
    let (mut snapshot, mut filler) = match fill::target(to, COPY).await? {
        Target::Empty => {
            let snapshot = Snapshot::now(from).await?;
            let mark = Copying {
                format: FORMAT,
                source: named.to_owned(),
                from: Some(source.incarnation),
                at: snapshot.revision().0,
                after: None,
                since: clock.now(),
            };
            (snapshot, Filler::begin(to, COPY, mark).await?)
        }
        Target::Begun(mark) if mark.value.from == Some(source.incarnation) && mark.value.source == named => {
            let snapshot = Snapshot::at(from, Revision(mark.value.at));
            (snapshot, Filler::resume(to, COPY, mark))
        }
        Target::Begun(mark) => {
            return Err(Error::new(ErrorKind::Invalid, COPY)
                .with("the target is half filled from", mark.value.source)
                .with("what to do", "end that copy, or empty the target"));
        }
    };
    let mut tallying = Tallying::default();
    while let Some(records) = snapshot.page().await? {
        for kv in records {
            tallying.add(&kv.key, &kv.value)?;
            filler.put(kv.key, kv.value).await?;
        }
    }
    let tally = tallying.end();
    let now = clock.now();
    let custody = fill::custody(&source.incarnation, Origin::Moved, ids, now);
    let hold = match &source.standing.hold {
        Some(hold) => {
            let (reason, by) = (hold.value.reason.clone(), &hold.value.by);
            Some(fill::held(&custody, reason, by, ids, now)?)
        }
        None => None,
    };
    let (hold, told) = hold.as_ref().map_or((None, None), |(h, e)| (Some(h), Some(e)));
    let written = filler.finish(&tally, &custody, hold, told).await?;
    let last = from
        .list(&Prefix::all(), ListOptions::default().with_limit(1))
        .await?
        .revision;
    Ok(CopySummary {
        tally,
        written,
        source_revision: snapshot.revision().0,
        source_moved_on: last > snapshot.revision(),
        incarnation: custody.incarnation,
    })
}
