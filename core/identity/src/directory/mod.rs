//! All records of identity in memory, as the store has them: what every decision reads.
//!
//! ```text
//! identity ───────┐
//! r/projects ─────┼─ Mirror ×3 ──> keys that changed ──> Index (ordered maps that share what did not change) ──> Arc<Snapshot>
//! names/projects ─┘                                                                  Directory::snapshot, effective_roles, …
//! pulse: a small commit below `identity`, when it was quiet and somebody asks how old this is ──> Directory::age
//! ```
//!
//! **Cost.** A change of one record copies, in each ordered map that it touches, one piece of at most 128 entries and the list of the pieces (a
//! count per piece): microseconds at ten thousand users, and in proportion to n / 64 beyond. A whole listing (start, lost position) is read anew.
//! Answers that were worked out ([`Snapshot::effective_roles`]) are forgotten with each change. Each record is in memory twice: as its text in the mirror and read
//! here.
//!
//! **Age.** A watch that is quiet tells nothing, and no store promises marks of progress. So a directory that is asked for its age after a second of
//! silence writes [`paths::PULSE`] and waits until its own watch shows that: then everything up to the moment of writing is in. A cloud that
//! nobody calls has no pulse. The projects come by another watch, which lists anew every [`PROJECTS_RESYNC`]; so a lost event there counts for that long at most.

mod epochs;
mod index;
mod ordered;
mod pulse;
mod rank;
mod roles;
mod snapshot;
mod verify;

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use parking_lot::{Mutex, RwLock};
use serde_json::value::RawValue;
use skyloom_model::Clock;
use skyloom_store::{
    Changed, Changes, DynBackend, Error, ErrorKind, Key, Mirror, MirrorDriver, Prefix, Result, Revision,
    latest,
};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::paths;

pub use epochs::MAX_AGE;
pub(crate) use index::{Link, Stored};
pub(crate) use roles::MAX_CHAIN;
pub use roles::MAX_PROJECT_DEPTH;
pub use snapshot::Snapshot;
pub use verify::{Finding, Problem, verify};

/// How often all projects are listed anew.
pub const PROJECTS_RESYNC: Duration = Duration::from_secs(5);
/// How long the directory may have been silent before it asks the store for a sign of life.
const QUIET: Duration = Duration::from_secs(1);

/// Up to where everything is in, in each mirror; `None` before the first listing.
type Position = Option<[Revision; 3]>;
type Documents = Mirror<Box<RawValue>>;

struct Shared {
    backend: DynBackend,
    clock: Arc<dyn Clock>,
    mirrors: [Documents; 3],
    snapshot: RwLock<Arc<Snapshot>>,
    published: latest::Receiver<Position>,
    /// When, by the monotonic clock, the directory was last known to have everything.
    heard: Mutex<Option<Duration>>,
    heard_again: Notify,
    ask: Notify,
}

/// The reading half: cheap to clone, never waits for the store.
#[derive(Clone)]
pub struct Directory(Arc<Shared>);

impl fmt::Debug for Directory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Directory").field(&*self.snapshot()).finish()
    }
}

impl Directory {
    /// A directory of what is in `backend`, and the driver that must be run to feed it.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`]: never, as long as the paths are sound.
    pub fn new(backend: DynBackend, clock: Arc<dyn Clock>) -> Result<(Self, DirectoryDriver)> {
        let prefix =
            |path| Prefix::parse(path).map_err(|e| Error::new(ErrorKind::Invalid, "make prefix").because(e));
        let (identity, first) = Mirror::builder(backend.clone(), prefix(paths::ROOT)?).build();
        let projects = Mirror::builder(backend.clone(), prefix(paths::PROJECTS)?);
        let (projects, second) = projects.with_resync(PROJECTS_RESYNC).build();
        let (names, third) = Mirror::builder(backend.clone(), prefix(paths::CLOUD_PROJECT_NAMES)?).build();
        let (publish, published) = latest::channel(None);
        let shared = Arc::new(Shared {
            backend,
            clock,
            mirrors: [identity, projects, names],
            snapshot: RwLock::default(),
            published,
            heard: Mutex::new(None),
            heard_again: Notify::new(),
            ask: Notify::new(),
        });
        let changes = shared.mirrors.each_ref().map(Mirror::changes);
        let driver = DirectoryDriver {
            shared: Arc::clone(&shared),
            mirrors: [first, second, third],
            changes,
            publish,
        };
        Ok((Self(shared), driver))
    }

    /// Everything as of now. Costs a count.
    #[must_use]
    pub fn snapshot(&self) -> Arc<Snapshot> {
        Arc::clone(&self.0.snapshot.read())
    }

    /// Waits until everything has been read once.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`] when the driver has ended before.
    pub async fn ready(&self) -> Result<()> {
        self.published(|_| true, "wait for directory").await
    }

    /// Waits until a commit that wrote `keys` at `revision` is in. Keys that are none of the directory's are passed over.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`] when the driver has ended before.
    pub async fn wait_for(&self, keys: impl IntoIterator<Item = &Key>, revision: Revision) -> Result<()> {
        let keys: Vec<&Key> = keys.into_iter().collect();
        let touched =
            (self.0.mirrors.each_ref()).map(|mirror| keys.iter().any(|key| mirror.prefix().covers(key)));
        let in_all =
            |revisions: &[Revision; 3]| (revisions.iter().zip(touched)).all(|(r, t)| !t || *r >= revision);
        self.published(in_all, "wait for commit").await
    }

    async fn published(
        &self,
        mut condition: impl FnMut(&[Revision; 3]) -> bool,
        what: &'static str,
    ) -> Result<()> {
        let mut published = self.0.published.clone();
        let seen = published
            .wait_for(|position| position.as_ref().is_some_and(&mut condition))
            .await;
        seen.map(|_| ())
            .map_err(|_| Error::new(ErrorKind::Unavailable, what))
    }

    /// Told of each new snapshot, and of the one of now.
    pub(crate) fn moved(&self) -> latest::Receiver<Option<[Revision; 3]>> {
        self.0.published.clone()
    }

    /// Waits until a snapshot fulfils `condition`, or for `most`; tells whether one did.
    pub async fn until(&self, most: Duration, condition: impl Fn(&Snapshot) -> bool) -> bool {
        let seen = async {
            let mut published = self.0.published.clone();
            loop {
                published.mark_unchanged();
                if condition(&self.snapshot()) {
                    return true;
                }
                if published.changed().await.is_err() {
                    return false;
                }
            }
        };
        tokio::time::timeout(most, seen).await.unwrap_or(false)
    }

    /// Why the store cannot be followed at the moment; `None` while all is well. For health pages.
    #[must_use]
    pub fn last_error(&self) -> Option<String> {
        self.0.mirrors.iter().find_map(Mirror::last_error)
    }
}

/// The driving half of a [`Directory`]: nothing moves until [`DirectoryDriver::run`] is awaited.
#[must_use = "a directory stays empty until its driver runs"]
pub struct DirectoryDriver {
    shared: Arc<Shared>,
    mirrors: [MirrorDriver<Box<RawValue>>; 3],
    changes: [Changes; 3],
    publish: latest::Sender<Position>,
}

impl fmt::Debug for DirectoryDriver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DirectoryDriver").finish_non_exhaustive()
    }
}

/// What is to be looked at again in each mirror. `None`: everything.
type Again = [Option<BTreeSet<Key>>; 3];

impl DirectoryDriver {
    /// Feeds the directory until `shutdown`.
    pub async fn run(self, shutdown: CancellationToken) {
        let Self {
            shared,
            mirrors: [first, second, third],
            mut changes,
            publish,
        } = self;
        let feed = async {
            tokio::join!(
                first.run(shutdown.clone()),
                second.run(shutdown.clone()),
                third.run(shutdown.clone()),
                shared.apply(&mut changes, &publish),
                shutdown.run_until_cancelled(shared.beat()),
            );
        };
        feed.await;
    }
}

impl Shared {
    /// Takes over what changes until the mirrors end.
    async fn apply(&self, changes: &mut [Changes; 3], publish: &latest::Sender<Position>) {
        let mut again: Again = [(); 3].map(|()| Some(BTreeSet::new()));
        loop {
            let [identity, projects, names] = &mut *changes;
            // Each takes what waits only when it is ready: the two others lose nothing.
            let (which, told) = tokio::select! {
                biased;
                told = identity.next() => (0, told),
                told = projects.next() => (1, told),
                told = names.next() => (2, told),
            };
            let Some(told) = told else { return };
            merge(&mut again[which], told);
            while let Some(rest) = self.take_over(changes, again, publish) {
                again = rest;
            }
            again = [(); 3].map(|()| Some(BTreeSet::new()));
        }
    }

    /// Makes a snapshot with `again` looked at. Gives what must be looked at once more, because it changed meanwhile.
    fn take_over(
        &self,
        changes: &mut [Changes; 3],
        mut again: Again,
        publish: &latest::Sender<Position>,
    ) -> Option<Again> {
        if !self.mirrors.iter().all(Mirror::is_ready) {
            return None;
        }
        let now = self.mirrors.each_ref().map(Mirror::snapshot);
        // All that is told of from here on, and maybe is not in those yet, is looked at twice.
        for (changes, again) in changes.iter_mut().zip(&mut again) {
            while let Some(Some(told)) = changes.next().now_or_never() {
                merge(again, told);
            }
        }
        let old = Arc::clone(&self.snapshot.read());
        let mut new = Snapshot {
            revisions: now.each_ref().map(skyloom_store::Snapshot::revision),
            complete: true,
            ..Snapshot::default()
        };
        // Everything of one is everything of all: the index does not know what came from which.
        if again.iter().any(Option::is_none) || !old.complete {
            for document in now.iter().flat_map(|mirror| mirror.iter()) {
                new.index.apply(&document.key, Some(document));
            }
            new.index.close_roles();
        } else {
            new.index = old.index.clone();
            for (mirror, keys) in now.iter().zip(&again) {
                for key in keys.iter().flatten() {
                    new.index.apply(key, mirror.get(key).map(|document| &**document));
                }
            }
            let role = |key: &Key| matches!(key.segments().nth(1), Some("roles" | "implies"));
            if again[0].iter().flatten().any(role) {
                new.index.close_roles();
            }
        }
        let taken = new.revisions;
        *self.snapshot.write() = Arc::new(new);
        publish.send_replace(Some(taken));
        let same = |(mirror, revision): (&Documents, Revision)| mirror.revision() == revision;
        (!self.mirrors.iter().zip(taken).all(same)).then_some(again)
    }
}

fn merge(again: &mut Option<BTreeSet<Key>>, told: Changed) {
    match (again.as_mut(), told) {
        (Some(again), Changed::Keys(keys)) => again.extend(keys),
        (_, Changed::Everything) => *again = None,
        (None, Changed::Keys(_)) => {}
    }
}
