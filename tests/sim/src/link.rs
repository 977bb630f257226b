//! What a process holds as its store: every call is on its way for a while, there and back, and may go wrong there.
//!
//! ```text
//!  process ── gate ── on its way ── store (it happens) ── on its way back ── gate ── process
//!              │           │                                 │
//!              paused      lost, cut off, very late          lost, cut off, very late
//! ```
//!
//! A request that has left is no longer in its sender's hands: when the sender dies or gives up meanwhile, it arrives
//! all the same.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::stream::{self, BoxStream};
use futures::{FutureExt as _, StreamExt as _};
use parking_lot::Mutex;
use skyloom_store::{
    Capability, DynBackend, Error, ErrorKind, Grant, Key, KeyValue, LeaseInfo, LeaseMode, LeaseName, Leases,
    ListOptions, Outcome, Page, Prefix, Renewal, Result, Revision, Store, Txn, Watch, WatchEvent,
    WatchOptions,
};
use tokio::time::Instant;

use crate::bed::{Bed, Late, Who, ready};
use crate::faults::Kind;
use crate::gate::Gate;
use crate::rng::Rng;

/// A call that changes the store.
#[derive(Debug, Clone)]
pub(crate) enum Request {
    Commit(Txn),
    Grant(LeaseName, String, Duration, LeaseMode),
    Renew(LeaseName, u64, Duration),
    Revoke(LeaseName, u64),
}

/// What the store says to a [`Request`].
#[derive(Debug)]
pub(crate) enum Answer {
    Commit(Outcome),
    Grant(Grant),
    Renew(Renewal),
    Revoke,
}

impl Request {
    /// What it does, now. What lies beneath a link never waits.
    pub(crate) fn apply(self, store: &DynBackend) -> Result<Answer> {
        match self {
            Self::Commit(txn) => ready(store.commit(txn)).map(Answer::Commit),
            Self::Grant(name, holder, ttl, mode) => {
                ready(store.grant(&name, &holder, ttl, mode)).map(Answer::Grant)
            }
            Self::Renew(name, epoch, ttl) => ready(store.renew(&name, epoch, ttl)).map(Answer::Renew),
            Self::Revoke(name, epoch) => ready(store.revoke(&name, epoch)).map(|()| Answer::Revoke),
        }
    }
}

/// A process's way to the store.
pub(crate) struct Link {
    /// What lies at its end.
    store: DynBackend,
    pub(crate) bed: Arc<Bed>,
    pub(crate) who: Who,
    pub(crate) gate: Arc<Gate>,
    rng: Mutex<Rng>,
    /// Calls until the process ends itself, if it is to; and whether that is before the call is sent.
    fuse: Mutex<Option<u64>>,
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "link of {}", self.who.name)
    }
}

/// What becomes of a call.
#[derive(Debug, Clone, Copy)]
struct Fate {
    there: Duration,
    back: Duration,
    lose_request: bool,
    lose_answer: bool,
    /// Whether a loss is noticed at once, or by nobody.
    noticed: bool,
}

/// A request on its way: it arrives also when nobody waits for it any more.
struct OnItsWay<'a> {
    link: &'a Link,
    due: Instant,
    request: Option<Request>,
}

impl Drop for OnItsWay<'_> {
    fn drop(&mut self) {
        if let Some(request) = self.request.take() {
            self.link.bed.later(Late {
                due: self.due,
                store: self.link.store.clone(),
                request,
            });
        }
    }
}

impl Link {
    pub(crate) fn new(store: DynBackend, bed: Arc<Bed>, who: Who, gate: Arc<Gate>, rng: Rng) -> Self {
        Self {
            store,
            bed,
            who,
            gate,
            rng: Mutex::new(rng),
            fuse: Mutex::new(None),
        }
    }

    /// The process ends itself after so many further calls.
    pub(crate) fn burn(&self, calls: u64) {
        *self.fuse.lock() = Some(calls);
    }

    /// Whether the process ends now.
    fn burnt(&self) -> bool {
        let mut fuse = self.fuse.lock();
        match &mut *fuse {
            None => false,
            Some(0) => {
                *fuse = None;
                drop(fuse);
                self.bed.bit(&self.who.name, Kind::CrashAtCall, String::new);
                self.gate.kill();
                self.bed.falls(&self.who.name);
                true
            }
            Some(calls) => {
                *calls -= 1;
                false
            }
        }
    }

    fn fate(&self) -> Fate {
        let mut rng = self.rng.lock();
        let mut way = || match rng.below(16) {
            0..=7 => 0,
            8..=13 => rng.within(1, 4),
            _ => rng.within(5, 40),
        };
        let (mut there, mut back) = (way(), way() + self.gate.lagging() + self.bed.slow());
        let weather = &self.bed.weather;
        let slow = weather.bites(&mut rng, Kind::Slow);
        let (far, very) = (rng.within(50, 3_000), rng.within(3_000, 30_000));
        if slow {
            let late = if rng.happens(250) { very } else { far };
            if rng.happens(500) {
                there += late
            } else {
                back += late
            }
        }
        let lose_request = weather.bites(&mut rng, Kind::LoseRequest);
        let lose_answer = weather.bites(&mut rng, Kind::LoseAnswer);
        let noticed = rng.happens(600);
        drop(rng);
        for (bites, kind) in [
            (slow, Kind::Slow),
            (lose_request, Kind::LoseRequest),
            (lose_answer && !lose_request, Kind::LoseAnswer),
        ] {
            if bites {
                self.bed.bit(&self.who.name, kind, || {
                    format!("{there} ms there, {back} ms back")
                });
            }
        }
        Fate {
            there: Duration::from_millis(there),
            back: Duration::from_millis(back),
            lose_request,
            lose_answer,
            noticed,
        }
    }

    /// What the process learns when its request is lost on the way; nothing, unless it is `noticed`.
    async fn lost_there<T>(&self, fate: Fate, operation: &'static str) -> Result<T> {
        if !fate.noticed {
            return std::future::pending().await;
        }
        sleep(fate.back).await;
        self.gate.pass().await;
        Err(Error::new(ErrorKind::Unavailable, operation).with("sim", "the request was refused"))
    }

    /// What the process learns when the answer is lost.
    async fn lost_back<T>(&self, fate: Fate, lost: ErrorKind, operation: &'static str) -> Result<T> {
        if !fate.noticed {
            return std::future::pending().await;
        }
        sleep(fate.back).await;
        self.gate.pass().await;
        Err(Error::new(lost, operation).with("sim", "the answer was lost"))
    }

    /// A call that only reads.
    async fn read<T>(
        &self,
        operation: &'static str,
        look: impl Future<Output = Result<T>> + Send,
    ) -> Result<T> {
        self.gate.pass().await;
        if self.burnt() {
            return std::future::pending().await;
        }
        let fate = self.fate();
        if fate.lose_request || self.gate.cuts().0 {
            return self.lost_there(fate, operation).await;
        }
        sleep(fate.there).await;
        let answer = ready(look);
        sleep(fate.back).await;
        if fate.lose_answer || self.gate.cuts().1 {
            return self.lost_back(fate, ErrorKind::Timeout, operation).await;
        }
        self.gate.pass().await;
        answer
    }

    /// A call that changes something. `lost` is what a lost answer is called.
    async fn change(&self, operation: &'static str, lost: ErrorKind, request: Request) -> Result<Answer> {
        self.gate.pass().await;
        if self.burnt() {
            return std::future::pending().await;
        }
        let fate = self.fate();
        if fate.lose_request || self.gate.cuts().0 {
            return match lost {
                // Whoever cannot tell where it was lost must say so.
                ErrorKind::Unknown if fate.lose_answer => self.lost_back(fate, lost, operation).await,
                _ => self.lost_there(fate, operation).await,
            };
        }
        let mut on_its_way = OnItsWay {
            link: self,
            due: Instant::now() + fate.there,
            request: Some(request),
        };
        sleep(fate.there).await;
        let Some(request) = on_its_way.request.take() else {
            return Err(Error::new(ErrorKind::Internal, operation));
        };
        let answer = request.apply(&self.store);
        if self.burnt() {
            return std::future::pending().await;
        }
        sleep(fate.back).await;
        if fate.lose_answer || self.gate.cuts().1 {
            return self.lost_back(fate, lost, operation).await;
        }
        self.gate.pass().await;
        answer
    }
}

async fn sleep(time: Duration) {
    if !time.is_zero() {
        tokio::time::sleep(time).await;
    }
}

fn other<T>(operation: &'static str) -> Result<T> {
    Err(Error::new(ErrorKind::Internal, operation).with("sim", "the answer to another request"))
}

#[async_trait]
impl Store for Link {
    async fn get(&self, key: &Key) -> Result<Option<KeyValue>> {
        self.read("get", self.store.get(key)).await
    }
    async fn list(&self, prefix: &Prefix, options: ListOptions) -> Result<Page> {
        self.read("list", self.store.list(prefix, options)).await
    }
    async fn commit(&self, txn: Txn) -> Result<Outcome> {
        match self
            .change("commit", ErrorKind::Unknown, Request::Commit(txn))
            .await?
        {
            Answer::Commit(outcome) => Ok(outcome),
            _ => other("commit"),
        }
    }
    fn capability(&self) -> Capability {
        Capability::PORTABLE
    }
}

#[async_trait]
impl Leases for Link {
    async fn grant(&self, name: &LeaseName, holder: &str, ttl: Duration, mode: LeaseMode) -> Result<Grant> {
        let request = Request::Grant(name.clone(), holder.to_owned(), ttl, mode);
        match self.change("grant lease", ErrorKind::Unknown, request).await? {
            Answer::Grant(grant) => Ok(grant),
            _ => other("grant lease"),
        }
    }
    async fn renew(&self, name: &LeaseName, epoch: u64, ttl: Duration) -> Result<Renewal> {
        let request = Request::Renew(name.clone(), epoch, ttl);
        match self.change("renew lease", ErrorKind::Timeout, request).await? {
            Answer::Renew(renewal) => Ok(renewal),
            _ => other("renew lease"),
        }
    }
    async fn revoke(&self, name: &LeaseName, epoch: u64) -> Result<()> {
        let request = Request::Revoke(name.clone(), epoch);
        self.change("revoke lease", ErrorKind::Timeout, request)
            .await
            .map(|_| ())
    }
    async fn leases(&self, prefix: &Prefix) -> Result<Vec<LeaseInfo>> {
        self.read("list leases", self.store.leases(prefix)).await
    }
}

/// A watch on its way to a process.
struct Feed {
    store: DynBackend,
    bed: Arc<Bed>,
    who: Who,
    gate: Arc<Gate>,
    rng: Rng,
    prefix: Prefix,
    options: WatchOptions,
    stream: Option<BoxStream<'static, Result<WatchEvent>>>,
    /// Comes before anything else: the second of two, the later of two that changed places.
    next: Option<WatchEvent>,
    ended: bool,
}

impl Feed {
    fn bites(&mut self, kind: Kind) -> bool {
        let bites = self.bed.weather.bites(&mut self.rng, kind);
        if bites {
            let prefix = &self.prefix;
            self.bed.bit(&self.who.name, kind, || prefix.to_string());
        }
        bites
    }

    async fn event(&mut self) -> Option<Result<WatchEvent>> {
        if self.ended {
            return None;
        }
        let event = match self.arriving().await {
            Some(Ok(event)) => event,
            last => {
                self.ended = true;
                return last;
            }
        };
        self.gate.receive().await;
        self.ended = matches!(event, WatchEvent::Gap { .. });
        self.bed.delivered(&self.who, &self.prefix, &event);
        Some(Ok(event))
    }

    async fn arriving(&mut self) -> Option<Result<WatchEvent>> {
        if let Some(event) = self.next.take() {
            return Some(Ok(event));
        }
        if self.stream.is_none() {
            self.gate.pass().await;
            sleep(Duration::from_millis(self.rng.below(4))).await;
            if self.gate.cuts().0 {
                return Some(Err(
                    Error::new(ErrorKind::Unavailable, "watch").with("sim", "cut off")
                ));
            }
            self.stream = Some(self.store.watch(&self.prefix, self.options.clone()));
        }
        loop {
            let event = match self.stream.as_mut()?.next().await? {
                Ok(event) => event,
                Err(error) => return Some(Err(error)),
            };
            let late = if self.bites(Kind::WatchLate) {
                self.rng.within(100, 10_000)
            } else {
                self.rng.below(8).saturating_sub(4)
            };
            sleep(Duration::from_millis(late)).await;
            if self.bites(Kind::WatchDrop) {
                continue;
            }
            if self.bites(Kind::WatchGap) {
                return Some(Ok(WatchEvent::Gap { floor: Revision(0) }));
            }
            if self.bites(Kind::WatchError) {
                return Some(Err(
                    Error::new(ErrorKind::Unavailable, "watch").with("sim", "broke off")
                ));
            }
            if self.bites(Kind::WatchEnd) {
                return None;
            }
            if self.bites(Kind::WatchTwice) {
                self.next = Some(event.clone());
            } else if self.bites(Kind::WatchSwap)
                && let Some(Some(Ok(later))) = self.stream.as_mut()?.next().now_or_never()
            {
                self.next = Some(event);
                return Some(Ok(later));
            }
            return Some(Ok(event));
        }
    }
}

impl Watch for Link {
    fn watch(&self, prefix: &Prefix, options: WatchOptions) -> BoxStream<'static, Result<WatchEvent>> {
        let seed = self.rng.lock().next();
        let feed = Feed {
            store: self.store.clone(),
            bed: self.bed.clone(),
            who: self.who.clone(),
            gate: self.gate.clone(),
            rng: Rng::of(seed, "watch"),
            prefix: prefix.clone(),
            options,
            stream: None,
            next: None,
            ended: false,
        };
        stream::unfold(feed, |mut feed| async move { Some((feed.event().await?, feed)) }).boxed()
    }
}
