//! The `[archive]` section: where finished tasks and old events go, and when.
//!
//! An archive that cannot be reached when a process starts holds nobody up: it is opened when it is there ([`Late`]).

use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};
use skyloom::cloud::{Archive, ArchiveConfig, ArchiveParts};
use skyloom::store::{
    Capability, DynBackend, Error, ErrorKind, Key, KeyValue, ListOptions, Outcome, Page, Prefix, Result,
    Store, Txn,
};
use skyloom::{Opened, StoreOptions, open_store};
use skyloom_model::{Clock, Ids, Readiness};
use tokio::sync::Mutex;

use crate::exit::MainError;
use crate::store::StoreConfig;

/// How long a process waits for its archive when it starts, and a call for one that was away.
const PATIENCE: Duration = Duration::from_secs(10);
/// The pause between two attempts to open it.
const PAUSE: Duration = Duration::from_secs(5);

/// Where finished tasks go, and when. All processes of a cloud need the same.
#[derive(Clone, Serialize, Deserialize)]
#[serde(default)]
pub struct ArchiveSection {
    /// A store of any kind, such as `mongodb://…`. Without one they stay in the main store, out of the way.
    pub uri: String,
    /// Create or upgrade the schema of a database on a server when opening it.
    pub migrate: bool,
    /// File with the bearer token, for stores behind an API.
    pub token_file: Option<PathBuf>,
    /// File with certificate authorities in PEM, believed instead of the system's.
    pub ca_file: Option<PathBuf>,
    /// How long ago a task must have ended: `90s`, `30m`, `24h`, `7d`. `0`: nothing moves.
    pub after: String,
    /// How long the archive keeps things; `forever`, or a time as in `after`.
    pub keep: String,
}

impl Default for ArchiveSection {
    fn default() -> Self {
        Self {
            uri: String::new(),
            migrate: false,
            token_file: None,
            ca_file: None,
            after: "24h".into(),
            keep: FOREVER.into(),
        }
    }
}

// By hand: there may be a password in the address.
impl fmt::Debug for ArchiveSection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ArchiveSection")
            .field("uri", &skyloom::shown(&self.uri))
            .field("migrate", &self.migrate)
            .field("token_file", &self.token_file)
            .field("ca_file", &self.ca_file)
            .field("after", &self.after)
            .field("keep", &self.keep)
            .finish()
    }
}

const FOREVER: &str = "forever";

/// An archive, and how to end it in order.
#[derive(Debug)]
pub struct OpenArchive {
    /// The archive.
    pub archive: Archive,
    store: Option<Arc<Late>>,
}

impl OpenArchive {
    /// Ends it in order. Not needed for safety.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn close(self) -> std::result::Result<(), MainError> {
        let Some(store) = self.store else { return Ok(()) };
        let closed = store.close().await;
        closed.map_err(|e| MainError::failed("the archive did not close in order", e))
    }
}

impl ArchiveSection {
    /// Whether it is a store of its own.
    #[must_use]
    pub fn is_named(&self) -> bool {
        !self.uri.is_empty()
    }

    /// Opens it beside `hot`.
    ///
    /// # Errors
    /// When it is configured wrongly, or refuses; not when it cannot be reached now.
    pub async fn open(
        &self,
        hot: &DynBackend,
        clock: Arc<dyn Clock>,
        ids: Arc<dyn Ids>,
        readiness: &Readiness,
    ) -> std::result::Result<OpenArchive, MainError> {
        let config = self.times()?;
        let (store, late): (Arc<dyn Store>, _) = if self.is_named() {
            let late = Arc::new(self.late(hot, clock.clone(), ids)?);
            let shown = skyloom::shown(&self.uri);
            match late.open().await {
                Ok(_) => {}
                Err(error) if away(&error) => {
                    let error = skyloom_model::report(&error);
                    tracing::warn!(
                        archive = shown,
                        error,
                        "the archive cannot be reached; it is tried again"
                    );
                }
                Err(error) => {
                    return Err(MainError::failed(
                        format!("cannot open the archive {shown}"),
                        error,
                    ));
                }
            }
            (late.clone(), Some(late))
        } else {
            (hot.clone(), None)
        };
        let archive = Archive::new(ArchiveParts {
            hot: hot.clone(),
            store,
            clock,
            readiness: Some(readiness.clone()),
            config,
        })
        .map_err(|e| MainError::usage("the [archive] section cannot be used", e))?;
        Ok(OpenArchive { archive, store: late })
    }

    fn times(&self) -> std::result::Result<ArchiveConfig, MainError> {
        let read = |key: &str, text: &str| {
            parse_age(text).ok_or_else(|| {
                MainError::usage(format!("archive.{key} is {text:?}"), "it is no time")
                    .hint("write 90s, 30m, 24h or 7d")
            })
        };
        let keep = match self.keep.as_str() {
            FOREVER => None,
            text => Some(read("keep", text)?),
        };
        let after = read("after", &self.after)?;
        Ok(ArchiveConfig::default().with_after(after).with_keep(keep))
    }

    fn late(
        &self,
        hot: &DynBackend,
        clock: Arc<dyn Clock>,
        ids: Arc<dyn Ids>,
    ) -> std::result::Result<Late, MainError> {
        let like = StoreConfig {
            uri: self.uri.clone(),
            migrate: self.migrate,
            token_file: self.token_file.clone(),
            ca_file: self.ca_file.clone(),
        };
        let options: StoreOptions = like.options(clock.clone(), ids)?;
        let uri = self.uri.clone();
        let open: Open = Box::new(move || {
            let (uri, options) = (uri.clone(), options.clone());
            Box::pin(async move {
                match tokio::time::timeout(PATIENCE, open_store(&uri, &options)).await {
                    Ok(opened) => opened,
                    Err(_) => Err(Error::new(ErrorKind::Unavailable, "open archive").with("waited", "10 s")),
                }
            })
        });
        Ok(Late {
            open,
            clock,
            durable: hot.capability().durable,
            backend: OnceLock::new(),
            opening: Mutex::default(),
        })
    }
}

/// `90s`, `30m`, `24h`, `7d`, or several as in `1h30m`.
fn parse_age(text: &str) -> Option<Duration> {
    if text == "0" {
        return Some(Duration::ZERO);
    }
    if let Some(days) = text.strip_suffix('d') {
        return days
            .parse::<u64>()
            .ok()?
            .checked_mul(24 * 3600)
            .map(Duration::from_secs);
    }
    let span: jiff::SignedDuration = text.parse().ok()?;
    Duration::try_from(span).ok()
}

/// Whether the store may be there later.
fn away(error: &Error) -> bool {
    use ErrorKind as K;
    matches!(
        error.kind(),
        K::Unavailable | K::Timeout | K::Overloaded | K::Unknown
    )
}

type Open = Box<dyn Fn() -> BoxFuture<'static, Result<Opened>> + Send + Sync>;

/// A store that is opened when it is there. Until then every call is [`ErrorKind::Unavailable`].
struct Late {
    open: Open,
    clock: Arc<dyn Clock>,
    /// Whether it must survive its process.
    durable: bool,
    backend: OnceLock<DynBackend>,
    opening: Mutex<Opening>,
}

#[derive(Default)]
struct Opening {
    last: Option<Duration>,
    opened: Option<Opened>,
}

impl fmt::Debug for Late {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Late").field("store", &self.backend).finish()
    }
}

impl Late {
    async fn open(&self) -> Result<&DynBackend> {
        if let Some(backend) = self.backend.get() {
            return Ok(backend);
        }
        let not_yet = || Error::new(ErrorKind::Unavailable, "open archive");
        // Nobody waits for somebody else's attempt.
        let mut opening = self.opening.try_lock().map_err(|_| not_yet())?;
        let now = self.clock.monotonic();
        if opening.last.is_some_and(|last| now.saturating_sub(last) < PAUSE) {
            return Err(not_yet());
        }
        opening.last = Some(now);
        let opened = (self.open)().await?;
        let backend = opened.backend.clone();
        if self.durable && !backend.capability().durable {
            return Err(Error::new(ErrorKind::Invalid, "open archive").because(
                "it does not survive a restart, the main store does: finished tasks would be lost",
            ));
        }
        opening.opened = Some(opened);
        Ok(self.backend.get_or_init(|| backend))
    }

    async fn close(&self) -> Result<()> {
        let opened = self.opening.lock().await.opened.take();
        match opened {
            Some(opened) => opened.close().await,
            None => Ok(()),
        }
    }
}

#[async_trait]
impl Store for Late {
    async fn get(&self, key: &Key) -> Result<Option<KeyValue>> {
        self.open().await?.get(key).await
    }
    async fn list(&self, prefix: &Prefix, options: ListOptions) -> Result<Page> {
        self.open().await?.list(prefix, options).await
    }
    async fn commit(&self, txn: Txn) -> Result<Outcome> {
        self.open().await?.commit(txn).await
    }
    fn capability(&self) -> Capability {
        match self.backend.get() {
            Some(backend) => backend.capability(),
            // What every store can do; that it survives is checked when it is opened.
            None => Capability::PORTABLE.with_durable(self.durable),
        }
    }
}

#[cfg(test)]
mod tests {
    use parking_lot::Mutex as Sync;
    use skyloom_model::{ManualClock, SeededIds};

    use super::*;

    #[test]
    fn times_are_read() {
        for (text, seconds) in [
            ("0", 0),
            ("90s", 90),
            ("30m", 1800),
            ("24h", 86_400),
            ("1h30m", 5400),
            ("7d", 604_800),
        ] {
            assert_eq!(parse_age(text), Some(Duration::from_secs(seconds)), "{text}");
        }
        for text in ["", "d", "-1h", "soon", "99999999999999999999d", "forever"] {
            assert_eq!(parse_age(text), None, "{text}");
        }
        let section = ArchiveSection {
            after: "soon".into(),
            ..ArchiveSection::default()
        };
        let error = section.times().unwrap_err();
        assert_eq!(error.code(), 2);
        assert!(error.render().contains("archive.after"), "{}", error.render());
        let usual = ArchiveSection::default().times().unwrap();
        assert_eq!(usual, ArchiveConfig::default());
    }

    #[test]
    fn no_password_is_shown() {
        let section = ArchiveSection {
            uri: "mongodb://me:s3cret@db:27017/archive".into(),
            ..ArchiveSection::default()
        };
        let text = format!("{section:?}");
        assert!(
            text.contains("mongodb://db:27017/archive") && !text.contains("s3cret"),
            "{text}"
        );
    }

    fn options(clock: &ManualClock) -> StoreOptions {
        StoreOptions::new(
            Arc::new(clock.clone()),
            Arc::new(SeededIds::new(clock.clone(), 1)),
        )
    }

    /// A store that opens from its third attempt on.
    fn late(clock: &ManualClock, durable: bool, tries: &Arc<Sync<u32>>) -> Late {
        let (given, tries) = (options(clock), tries.clone());
        Late {
            open: Box::new(move || {
                let (given, tries) = (given.clone(), tries.clone());
                Box::pin(async move {
                    let number = {
                        let mut tries = tries.lock();
                        *tries += 1;
                        *tries
                    };
                    if number < 3 {
                        return Err(Error::new(ErrorKind::Unavailable, "open"));
                    }
                    open_store("memory:", &given).await
                })
            }),
            clock: Arc::new(clock.clone()),
            durable,
            backend: OnceLock::new(),
            opening: Mutex::default(),
        }
    }

    #[tokio::test]
    async fn a_store_that_comes_late_is_opened_when_it_is_there() {
        let clock = ManualClock::new();
        let tries = Arc::new(Sync::new(0));
        let store = late(&clock, false, &tries);
        let key = Key::parse("a/b").unwrap();
        for _ in 0..2 {
            for _ in 0..10 {
                let error = store.get(&key).await.unwrap_err();
                assert_eq!(error.kind(), ErrorKind::Unavailable);
            }
            clock.advance(PAUSE);
        }
        assert_eq!(*tries.lock(), 2, "not at every call");
        assert!(store.get(&key).await.unwrap().is_none());
        assert!(
            store
                .list(&Prefix::all(), ListOptions::default())
                .await
                .unwrap()
                .items
                .is_empty()
        );
        assert!(store.commit(Txn::new()).await.unwrap().committed().is_some());
        assert_eq!(*tries.lock(), 3);
        store.close().await.unwrap();
        // What forgets is none for a store that does not.
        let store = late(&clock, true, &tries);
        assert!(store.capability().durable);
        assert_eq!(store.get(&key).await.unwrap_err().kind(), ErrorKind::Invalid);
    }

    #[tokio::test]
    async fn without_an_address_it_is_the_main_store_and_a_wrong_one_is_refused() {
        let clock = ManualClock::new();
        let given = options(&clock);
        let hot = open_store("memory:", &given).await.unwrap().backend;
        let readiness = Readiness::new();
        let open = async |section: &ArchiveSection| {
            section
                .open(&hot, given.clock.clone(), given.ids.clone(), &readiness)
                .await
        };
        let section = ArchiveSection::default();
        let opened = open(&section).await.unwrap();
        assert_eq!(opened.archive.config(), ArchiveConfig::default());
        opened.close().await.unwrap();
        assert_eq!(readiness.report().len(), 1);
        let section = ArchiveSection {
            uri: "teapot://me:s3cret@x".into(),
            ..section
        };
        let error = open(&section).await.unwrap_err().render();
        assert!(error.contains("teapot") && !error.contains("s3cret"), "{error}");
    }
}
