//! The hosts that can be chosen from, kept up to date from two mirrors.
//!
//! `r/hosts/` (what operators want and agents report) + `ledgers/` (what is claimed) -> [`Inventory`].

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::RwLock;
use skyloom_model::{Host, HostId, HostLedger, Resource, Scope, paths};
use skyloom_scheduler::{HostView, Inventory};
use skyloom_store::{
    Changed, Changes, DynBackend, Error, ErrorKind, Key, Mirror, MirrorDriver, Prefix, Result, Revision,
    Table, latest,
};
use tokio_util::sync::CancellationToken;

/// Longest wait for the inventory to see a commit that planning lost against; then planning tries anyway.
const CATCH_UP: Duration = Duration::from_secs(1);

/// An inventory that follows the store.
#[derive(Debug)]
pub struct InventoryFeed {
    inventory: RwLock<Inventory>,
    hosts: Mirror<Host>,
    ledgers: Mirror<HostLedger>,
    applied: latest::Sender<Revision>,
    grown: latest::Sender<u64>,
}

/// The half of an [`InventoryFeed`] that does the work.
#[derive(Debug)]
pub struct InventoryDriver {
    feed: Arc<InventoryFeed>,
    hosts: MirrorDriver<Host>,
    ledgers: MirrorDriver<HostLedger>,
}

impl InventoryFeed {
    /// A feed from `backend`, and the half to run.
    ///
    /// # Errors
    /// Never in practice: the paths are valid.
    pub fn new(backend: &DynBackend) -> Result<(Arc<Self>, InventoryDriver)> {
        let prefix =
            |p: &str| Prefix::parse(p).map_err(|e| Error::new(ErrorKind::Internal, "inventory").because(e));
        let (hosts, host_driver) = Mirror::new(
            backend.clone(),
            prefix(&paths::scoped(Host::KIND, Scope::System))?,
        );
        let (ledgers, ledger_driver) = Mirror::new(backend.clone(), prefix(paths::LEDGERS)?);
        let feed = Arc::new(Self {
            inventory: RwLock::new(Inventory::new()),
            hosts,
            ledgers,
            applied: latest::channel(Revision(0)).0,
            grown: latest::channel(0).0,
        });
        Ok((
            feed.clone(),
            InventoryDriver {
                feed,
                hosts: host_driver,
                ledgers: ledger_driver,
            },
        ))
    }

    /// Waits until all hosts are known.
    ///
    /// # Errors
    /// When the driver has ended before.
    pub async fn ready(&self) -> Result<()> {
        self.hosts.ready().await?;
        self.ledgers.ready().await
    }

    /// The mirror of host records that this feed reads.
    #[must_use]
    pub fn hosts(&self) -> &Mirror<Host> {
        &self.hosts
    }

    /// Looks at the inventory as it is now.
    pub fn with<R>(&self, look: impl FnOnce(&Inventory) -> R) -> R {
        look(&self.inventory.read())
    }

    /// Tells when a host may have more room than before: see [`Inventory::grown`].
    #[must_use]
    pub fn grown(&self) -> latest::Receiver<u64> {
        self.grown.subscribe()
    }

    /// Whether everything up to `revision` is in for sure. `false` also when nothing was heard since.
    #[must_use]
    pub fn has_seen(&self, revision: Revision) -> bool {
        *self.applied.borrow() >= revision && self.hosts.revision() >= revision
    }

    /// The inventory straight from the store, for when being behind would matter.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn read(&self, backend: &DynBackend) -> Result<Inventory> {
        let hosts = Table::<Host>::new(backend.clone(), self.hosts.prefix().clone());
        let ledgers = Table::<HostLedger>::new(backend.clone(), self.ledgers.prefix().clone());
        let (hosts, ledgers) = futures::try_join!(hosts.list_all(), ledgers.list_all())?;
        let ledgers: BTreeMap<_, _> = ledgers.items.iter().map(|l| (host_of(&l.key), l)).collect();
        let view = |host: &Host| match ledgers.get(&Some(host.id())) {
            Some(ledger) => HostView::of(host, ledger.value.clone(), ledger.modified.0),
            None => HostView::of(host, HostLedger::default(), 0),
        };
        Ok(hosts.items.iter().map(|h| view(&h.value)).collect())
    }

    /// Waits until a ledger's commit at `revision` is in, but not long.
    pub async fn wait_for(&self, revision: Revision) {
        let mut applied = self.applied.subscribe();
        let _ = tokio::time::timeout(CATCH_UP, applied.wait_for(|r| *r >= revision)).await;
    }

    /// Takes over what the mirrors say of `keys`, or of everything.
    fn refresh(&self, changed: &Changed) {
        let revision = self.ledgers.revision();
        let ids: Vec<HostId> = match changed {
            Changed::Keys(keys) => keys.iter().filter_map(host_of).collect(),
            Changed::Everything => {
                let mut all: Vec<HostId> = self.hosts.snapshot().iter().map(|h| h.value.id()).collect();
                all.extend(self.inventory.read().hosts().map(|h| h.id));
                all
            }
        };
        let (mut views, mut gone) = (Vec::with_capacity(ids.len()), Vec::new());
        for id in ids {
            match self.view(id) {
                Some(view) => views.push(view),
                None => gone.push(id),
            }
        }
        let mut inventory = self.inventory.write();
        gone.into_iter().for_each(|id| inventory.remove(id));
        // Together: new hosts cost one rebuild of the index.
        inventory.extend(views);
        let grown = inventory.grown();
        drop(inventory);
        self.grown
            .send_if_modified(|known| std::mem::replace(known, grown) != grown);
        self.applied
            .send_if_modified(|r| std::mem::replace(r, revision.max(*r)) < revision);
    }

    fn view(&self, id: HostId) -> Option<HostView> {
        let host = self
            .hosts
            .get(&Key::parse(&paths::resource(Host::KIND, Scope::System, id.uuid())).ok()?)?;
        let ledger = self.ledgers.get(&Key::parse(&paths::ledger(id)).ok()?);
        let revision = ledger.as_ref().map_or(0, |l| l.modified.0);
        Some(HostView::of(
            &host.value,
            ledger.map(|l| l.value.clone()).unwrap_or_default(),
            revision,
        ))
    }
}

impl InventoryDriver {
    /// Follows the store until `shutdown`.
    pub async fn run(self, shutdown: CancellationToken) {
        let Self { feed, hosts, ledgers } = self;
        let follow = async {
            let (mut host_changes, mut ledger_changes) = (feed.hosts.changes(), feed.ledgers.changes());
            while let Some(changed) = either(&mut host_changes, &mut ledger_changes).await {
                feed.refresh(&changed);
            }
        };
        tokio::join!(hosts.run(shutdown.clone()), ledgers.run(shutdown), follow);
    }
}

async fn either(a: &mut Changes, b: &mut Changes) -> Option<Changed> {
    tokio::select! {
            biased;
        changed = a.next() => changed,
        changed = b.next() => changed,
    }
}

/// Both kinds of keys end in the host's id.
fn host_of(key: &Key) -> Option<HostId> {
    key.last().parse().ok()
}
