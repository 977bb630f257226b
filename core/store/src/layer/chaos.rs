//! Faults on purpose, the same ones for the same seed.

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt as _;
use futures::stream::BoxStream;
use parking_lot::Mutex;

use crate::{
    Capability, DynBackend, Error, ErrorKind, Grant, Key, KeyValue, LeaseInfo, LeaseMode, LeaseName, Leases,
    ListOptions, Outcome, Page, Prefix, Renewal, Result, Revision, Store, Txn, Watch, WatchEvent,
    WatchOptions,
};

/// How often what goes wrong, in thousandths. All zero is quiet.
///
/// All faults but `watch_repeat` are within the contract: whoever breaks under them has a bug.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ChaosConfig {
    /// A call does not reach the store: [`ErrorKind::Unavailable`].
    pub refuse: u32,
    /// A call is done, but its answer is lost: [`ErrorKind::Unknown`] for commits and grants, else
    /// [`ErrorKind::Timeout`].
    pub lose_answer: u32,
    /// A commit or grant is lost on its way and ends in [`ErrorKind::Unknown`] although nothing happened.
    pub lose_commit: u32,
    /// A call waits for a random part of `longest_delay`, before or after it is done.
    pub delay: u32,
    /// The bound of `delay`.
    pub longest_delay: Duration,
    /// A watch ends in a [`WatchEvent::Gap`] in place of an event.
    pub watch_gap: u32,
    /// A watch ends in an error in place of an event.
    pub watch_error: u32,
    /// A watch just ends in place of an event.
    pub watch_end: u32,
    /// A watch delivers an event twice, which no backend may do.
    pub watch_repeat: u32,
}

impl ChaosConfig {
    /// Everything that the contract allows, `often` thousandths each.
    #[must_use]
    pub fn allowed(often: u32) -> Self {
        Self {
            refuse: often,
            lose_answer: often,
            lose_commit: often,
            watch_gap: often,
            watch_error: often,
            watch_end: often,
            ..Self::default()
        }
    }
    /// With delays.
    #[must_use]
    pub fn with_delay(mut self, often: u32, longest: Duration) -> Self {
        self.delay = often;
        self.longest_delay = longest;
        self
    }
    /// With another frequency of calls that do not reach the store.
    #[must_use]
    pub fn with_refuse(mut self, often: u32) -> Self {
        self.refuse = often;
        self
    }
    /// With another frequency of lost answers.
    #[must_use]
    pub fn with_lose_answer(mut self, often: u32) -> Self {
        self.lose_answer = often;
        self
    }
    /// With another frequency of lost commits.
    #[must_use]
    pub fn with_lose_commit(mut self, often: u32) -> Self {
        self.lose_commit = often;
        self
    }
    /// With other frequencies of watches that end in a gap, in an error, without a word.
    #[must_use]
    pub fn with_watch_faults(mut self, gap: u32, error: u32, end: u32) -> Self {
        self.watch_gap = gap;
        self.watch_error = error;
        self.watch_end = end;
        self
    }
    /// With events delivered twice.
    #[must_use]
    pub fn with_watch_repeat(mut self, often: u32) -> Self {
        self.watch_repeat = often;
        self
    }
}

/// A SplitMix64 sequence.
#[derive(Debug)]
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
    /// True in `often` of a thousand.
    fn happens(&mut self, often: u32) -> bool {
        self.next() % 1000 < u64::from(often)
    }
}

/// What is to happen to one call, drawn before it starts.
#[derive(Debug)]
struct Fate {
    refuse: bool,
    lose_call: bool,
    lose_answer: bool,
    before: Duration,
    after: Duration,
}

/// Makes calls and watches go wrong, as they go wrong in networks. The same seed and the same order of calls give the
/// same faults.
pub struct Chaos {
    inner: DynBackend,
    config: ChaosConfig,
    chance: Mutex<Chance>,
}

impl Chaos {
    /// Faults over `inner`, drawn from `seed`.
    #[must_use]
    pub fn new(inner: DynBackend, config: ChaosConfig, seed: u64) -> Self {
        Self {
            inner,
            config,
            chance: Mutex::new(Chance(seed)),
        }
    }

    fn label(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("chaos")
    }

    fn fate(&self) -> Fate {
        let mut chance = self.chance.lock();
        let refuse = chance.happens(self.config.refuse);
        let lose_call = chance.happens(self.config.lose_commit);
        let lose_answer = chance.happens(self.config.lose_answer);
        let mut delay = || {
            let part = chance.next() % 1024;
            let wait = self.config.longest_delay.mul_f64(part as f64 / 1024.0);
            if chance.happens(self.config.delay) {
                wait
            } else {
                Duration::ZERO
            }
        };
        Fate {
            refuse,
            lose_call,
            lose_answer,
            before: delay(),
            after: delay(),
        }
    }

    /// `lost` is what a lost answer is called; calls that may be repeated are never lost on their way.
    async fn call<T>(
        &self,
        operation: &'static str,
        lost: ErrorKind,
        call: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        let fate = self.fate();
        pause(fate.before).await;
        if fate.refuse {
            return Err(Error::new(ErrorKind::Unavailable, operation).with("cause", "chaos, before the call"));
        }
        if fate.lose_call && lost == ErrorKind::Unknown {
            return Err(Error::new(lost, operation).with("cause", "chaos, in place of the call"));
        }
        let answer = call.await?;
        pause(fate.after).await;
        if fate.lose_answer {
            return Err(Error::new(lost, operation).with("cause", "chaos, after the call"));
        }
        Ok(answer)
    }
}

async fn pause(time: Duration) {
    if !time.is_zero() {
        tokio::time::sleep(time).await;
    }
}

super::show_layer!(Chaos);

#[async_trait]
impl Store for Chaos {
    async fn get(&self, key: &Key) -> Result<Option<KeyValue>> {
        self.call("get", ErrorKind::Timeout, self.inner.get(key)).await
    }
    async fn list(&self, prefix: &Prefix, options: ListOptions) -> Result<Page> {
        self.call("list", ErrorKind::Timeout, self.inner.list(prefix, options))
            .await
    }
    async fn commit(&self, txn: Txn) -> Result<Outcome> {
        self.call("commit", ErrorKind::Unknown, self.inner.commit(txn))
            .await
    }
    fn capability(&self) -> Capability {
        self.inner.capability()
    }
}

/// A watch with its own sequence of faults.
struct Faulty {
    stream: BoxStream<'static, Result<WatchEvent>>,
    chance: Chance,
    config: ChaosConfig,
    again: Option<WatchEvent>,
    /// A revision from which watching works.
    reached: Revision,
    ended: bool,
}

impl Faulty {
    async fn next(&mut self) -> Option<Result<WatchEvent>> {
        if let Some(event) = self.again.take() {
            return Some(Ok(event));
        }
        if self.ended {
            return None;
        }
        let event = match self.stream.next().await {
            Some(Ok(event)) => event,
            last => return last,
        };
        if self.chance.happens(self.config.watch_gap) {
            self.ended = true;
            return Some(Ok(WatchEvent::Gap { floor: self.reached }));
        }
        if self.chance.happens(self.config.watch_error) {
            self.ended = true;
            return Some(Err(
                Error::new(ErrorKind::Unavailable, "watch").with("cause", "chaos")
            ));
        }
        if self.chance.happens(self.config.watch_end) {
            self.ended = true;
            return None;
        }
        if let WatchEvent::Commit { revision, .. } | WatchEvent::Progress(revision) = &event {
            self.reached = *revision;
        }
        if self.chance.happens(self.config.watch_repeat) {
            self.again = Some(event.clone());
        }
        Some(Ok(event))
    }
}

impl Watch for Chaos {
    fn watch(&self, prefix: &Prefix, options: WatchOptions) -> BoxStream<'static, Result<WatchEvent>> {
        let faulty = Faulty {
            reached: options.after,
            stream: self.inner.watch(prefix, options),
            chance: Chance(self.chance.lock().next()),
            config: self.config,
            again: None,
            ended: false,
        };
        futures::stream::unfold(faulty, |mut faulty| async move {
            Some((faulty.next().await?, faulty))
        })
        .boxed()
    }
}

#[async_trait]
impl Leases for Chaos {
    async fn grant(&self, name: &LeaseName, holder: &str, ttl: Duration, mode: LeaseMode) -> Result<Grant> {
        self.call(
            "grant lease",
            ErrorKind::Unknown,
            self.inner.grant(name, holder, ttl, mode),
        )
        .await
    }
    async fn renew(&self, name: &LeaseName, epoch: u64, ttl: Duration) -> Result<Renewal> {
        self.call(
            "renew lease",
            ErrorKind::Timeout,
            self.inner.renew(name, epoch, ttl),
        )
        .await
    }
    async fn revoke(&self, name: &LeaseName, epoch: u64) -> Result<()> {
        self.call("revoke lease", ErrorKind::Timeout, self.inner.revoke(name, epoch))
            .await
    }
    async fn leases(&self, prefix: &Prefix) -> Result<Vec<LeaseInfo>> {
        self.call("list leases", ErrorKind::Timeout, self.inner.leases(prefix))
            .await
    }
}
