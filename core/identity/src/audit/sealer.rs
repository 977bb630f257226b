//! Sealing: one process follows the entries in order of commit and writes seals.
//!
//! What it remembers is in the store alone: the head says up to which commit all is sealed. Each seal is created under its
//! number, together with the head as it was read and the lease, so each entry is in exactly one seal however often and
//! wherever a sealer dies, and also when two of them take themselves for the only one.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use serde_json::Value as Json;
use skyloom_model::{Clock, Custody, Incarnation, Timestamp, paths};
use skyloom_store::{
    Change, DynBackend, Error, ErrorKind, Grant, Guard, Key, KeyValue, LeaseMode, LeaseName, ListOptions,
    Renewal, Result, Revision, WatchEvent, WatchOptions,
};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::seal::{Chain, Leaf, Noted, Seal, SealHead, SealKind, hash_of, root_of};
use super::{AUDIT, SEALS, bad, key, prefix};

/// The lease of the one that seals.
const LEASE: &str = "audit/sealer";

/// How a sealer works.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct SealerConfig {
    /// Who it is, for those who wait for its lease.
    pub holder: String,
    /// How long the lease lasts.
    pub ttl: Duration,
    /// How long entries wait for others to be sealed with them.
    pub pause: Duration,
    /// Entries in a seal; a commit is never cut.
    pub most: usize,
    /// For how many days entries are kept. `None`: for ever.
    pub keep_days: Option<u32>,
    /// How often it looks for entries that need not be kept any more.
    pub retain_every: Duration,
}

impl SealerConfig {
    /// A seal per second and at most 256 entries each, entries kept for ever.
    #[must_use]
    pub fn new(holder: impl Into<String>) -> Self {
        Self {
            holder: holder.into(),
            ttl: Duration::from_secs(15),
            pause: Duration::from_secs(1),
            most: 256,
            keep_days: None,
            retain_every: Duration::from_secs(3600),
        }
    }
    /// With another number of entries in a seal.
    #[must_use]
    pub fn with_most(mut self, entries: usize) -> Self {
        self.most = entries.clamp(1, 1024);
        self
    }
    /// With a bound on how long entries are kept.
    #[must_use]
    pub fn with_keep_days(mut self, days: Option<u32>) -> Self {
        self.keep_days = days;
        self
    }
    /// With another pause between seals.
    #[must_use]
    pub fn with_pause(mut self, pause: Duration) -> Self {
        self.pause = pause.max(Duration::from_millis(1));
        self
    }
}

/// An entry that is not sealed yet.
#[derive(Debug)]
struct Unsealed {
    created: Revision,
    at: Option<Timestamp>,
    leaf: Leaf,
}

/// Seals what is committed. Any number of processes may run one: one of them works, the others wait.
#[derive(Debug)]
pub struct Sealer {
    backend: DynBackend,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) config: SealerConfig,
}

impl Sealer {
    /// A sealer of the audit in `backend`.
    #[must_use]
    pub fn new(backend: DynBackend, clock: Arc<dyn Clock>, config: SealerConfig) -> Self {
        Self {
            backend,
            clock,
            config,
        }
    }

    /// Seals until `shutdown`.
    pub async fn run(self, shutdown: CancellationToken) {
        while !shutdown.is_cancelled() {
            if let Err(error) = self.life(&shutdown).await {
                tracing::warn!(error = %skyloom_model::report(&error), "the audit is not sealed; trying again");
            }
            tokio::select! {
                biased;
                () = shutdown.cancelled() => {}
                () = tokio::time::sleep(self.config.pause) => {}
            }
        }
    }

    /// As long as the lease is held and all goes well.
    async fn life(&self, shutdown: &CancellationToken) -> Result<()> {
        let name = LeaseName::parse(LEASE).map_err(bad)?;
        let (holder, ttl) = (&self.config.holder, self.config.ttl);
        let granted = self.backend.grant(&name, holder, ttl, LeaseMode::Acquire).await?;
        let Grant::Granted { epoch } = granted else {
            return Ok(());
        };
        let ended = tokio::select! {
            biased;
            () = shutdown.cancelled() => Ok(()),
            ended = self.follow(&name, epoch) => ended,
        };
        if let Err(error) = self.backend.revoke(&name, epoch).await {
            tracing::debug!(%error, "the sealer's lease was not given back; it runs out");
        }
        ended
    }

    async fn follow(&self, name: &LeaseName, epoch: u64) -> Result<()> {
        let lease = Guard::Lease(name.clone(), epoch);
        let mut chain = Chain::load(self.backend.clone(), lease).await?;
        let incarnation = self.incarnation().await?;
        let mut unsealed = VecDeque::new();
        let after = match chain.last() {
            // Revisions of another incarnation say nothing here.
            Some(head) if head.incarnation == incarnation => head.to,
            Some(_) | None => self.relist(&mut unsealed).await?,
        };
        let entries = prefix(AUDIT)?;
        let mut stream = self.backend.watch(&entries, WatchOptions::after(after));
        let every = |period| {
            let mut ticks = interval(period);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            ticks
        };
        let mut renew = every((self.config.ttl / 3).max(Duration::from_millis(1)));
        let mut retain = every(self.config.retain_every.max(Duration::from_secs(1)));
        let mut seal = every(self.config.pause);
        loop {
            tokio::select! {
                biased;
                _ = renew.tick() => {
                    if self.backend.renew(name, epoch, self.config.ttl).await? == Renewal::Lost {
                        return Ok(());
                    }
                }
                _ = retain.tick() => self.retain(&mut chain).await?,
                _ = seal.tick() => {
                    while !unsealed.is_empty() {
                        self.seal(&mut chain, &mut unsealed, incarnation).await?;
                    }
                }
                event = stream.next() => match event {
                    Some(Ok(WatchEvent::Commit { revision, changes })) => {
                        for change in changes {
                            take(revision, change, &mut unsealed)?;
                        }
                        // One commit more than a seal holds: the last one may go on.
                        while unsealed.len() > self.config.most {
                            self.seal(&mut chain, &mut unsealed, incarnation).await?;
                        }
                    }
                    Some(Ok(WatchEvent::Progress(_))) => {}
                    Some(Ok(WatchEvent::Gap { .. })) => {
                        unsealed.clear();
                        let after = self.relist(&mut unsealed).await?;
                        stream = self.backend.watch(&entries, WatchOptions::after(after));
                    }
                    Some(Err(error)) => return Err(error),
                    None => return Err(Error::new(ErrorKind::Unavailable, "follow the audit")),
                }
            }
        }
    }

    async fn incarnation(&self) -> Result<Option<Incarnation>> {
        let found = self.backend.get(&key(paths::INCARNATION)?).await?;
        let custody: Option<Custody> = found.map(|kv| kv.value.parse()).transpose()?;
        Ok(custody.map(|custody| custody.incarnation))
    }

    /// All entries that no seal names, in order of commit, as of the revision that is answered. Reads everything: for the
    /// first time, after a restore, and when the history has gone past where sealing stopped.
    async fn relist(&self, unsealed: &mut VecDeque<Unsealed>) -> Result<Revision> {
        let mut sealed: HashSet<String> = HashSet::new();
        let mut at = None;
        let backend = &self.backend;
        each(backend, SEALS, &mut at, |kv| {
            if kv.key.last() != "head" {
                // What is no seal any more names nothing; verifying tells of it.
                if let Ok(seal) = kv.value.parse::<Seal>() {
                    sealed.extend(seal.entries.into_iter().flatten().map(|leaf| leaf.0));
                }
            }
            Ok(())
        })
        .await?;
        let mut found = Vec::new();
        each(backend, AUDIT, &mut at, |kv| {
            let entry = read(kv)?;
            if !sealed.contains(&entry.leaf.0) {
                found.push(entry);
            }
            Ok(())
        })
        .await?;
        found.sort_by(|a, b| (a.created, &a.leaf.0).cmp(&(b.created, &b.leaf.0)));
        unsealed.extend(found);
        Ok(at.unwrap_or_default())
    }

    /// One seal of the oldest that wait.
    async fn seal(
        &self,
        chain: &mut Chain,
        unsealed: &mut VecDeque<Unsealed>,
        incarnation: Option<Incarnation>,
    ) -> Result<()> {
        let mut count = self.config.most.min(unsealed.len());
        // Whole commits: the next life begins behind the last one.
        while count > 0
            && unsealed
                .get(count)
                .is_some_and(|next| next.created == unsealed[count - 1].created)
        {
            count += 1;
        }
        let sealed: Vec<Unsealed> = unsealed.drain(..count).collect();
        let Some(to) = sealed.last().map(|entry| entry.created) else {
            return Ok(());
        };
        let newest = sealed.iter().filter_map(|entry| entry.at).max();
        let leaves: Vec<Leaf> = sealed.into_iter().map(|entry| entry.leaf).collect();
        let before = chain.last().cloned();
        let same = before.as_ref().filter(|head| head.incarnation == incarnation);
        let from = same.map_or(Revision(0), |head| head.to);
        let at = self.clock.now();
        let count = u64::try_from(leaves.len()).unwrap_or(u64::MAX);
        chain
            .append(|number, previous| {
                let seal = Seal {
                    number,
                    at,
                    kind: SealKind::Entries,
                    incarnation,
                    from,
                    to,
                    count,
                    newest,
                    root: root_of(&leaves),
                    previous,
                    entries: Some(leaves),
                };
                let head = SealHead {
                    last: Noted {
                        number,
                        hash: String::new(),
                    },
                    entries: before.as_ref().map_or(0, |head| head.entries) + count,
                    to,
                    incarnation,
                    removed: before.and_then(|head| head.removed),
                };
                (seal, head)
            })
            .await
    }
}

/// Takes in what a commit did. Only what is new is sealed: what is changed or deleted is found by verifying.
fn take(revision: Revision, change: Change, unsealed: &mut VecDeque<Unsealed>) -> Result<()> {
    match change {
        Change::Put(kv) if kv.created == revision => unsealed.push_back(read(&kv)?),
        Change::Put(kv) => tracing::error!(key = %kv.key, "an entry of the audit was changed"),
        Change::Delete(_) => {}
    }
    Ok(())
}

fn read(kv: &KeyValue) -> Result<Unsealed> {
    // Sealed as it is, also if it is no entry: it is there.
    let document: Json = kv.value.parse()?;
    let name = kv.key.as_str().strip_prefix("audit/").unwrap_or(kv.key.as_str());
    Ok(Unsealed {
        created: kv.created,
        at: at_of(&document),
        leaf: Leaf(name.to_owned(), hash_of(&document)),
    })
}

/// When an entry says that it happened.
pub(super) fn at_of(document: &Json) -> Option<Timestamp> {
    document.get("at")?.as_str()?.parse().ok()
}

/// Calls `look` for each document below `of`, in key order, all as of the revision in `at`, or now and then set there.
async fn each(
    backend: &DynBackend,
    of: &str,
    at: &mut Option<Revision>,
    mut look: impl FnMut(&KeyValue) -> Result<()> + Send,
) -> Result<()> {
    let prefix = prefix(of)?;
    let mut after: Option<Key> = None;
    loop {
        let mut options = ListOptions::default();
        (options.after, options.at) = (after, *at);
        let page = backend.list(&prefix, options).await?;
        *at = Some(page.revision);
        page.items.iter().try_for_each(&mut look)?;
        match page.items.last() {
            Some(last) if page.more => after = Some(last.key.clone()),
            _ => return Ok(()),
        }
    }
}
