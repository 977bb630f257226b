//! Many stores in one: everything below a prefix of the store beneath.

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt as _;
use futures::stream::BoxStream;

use crate::{
    Capability, Change, DynBackend, Error, ErrorKind, Grant, Guard, Key, KeyError, KeyValue, LeaseInfo,
    LeaseMode, LeaseName, Leases, ListOptions, Outcome, Page, Prefix, Renewal, Result, Store, Txn, Watch,
    WatchEvent, WatchOptions, Write,
};

/// A whole store below `prefix` of another: keys, lease names and watch events are rewritten both ways. Revisions are
/// those of the store beneath, so they may skip. Keys are shorter by the length of the prefix.
pub struct Prefixed {
    inner: DynBackend,
    prefix: Prefix,
}

impl Prefixed {
    /// The part of `inner` below `prefix`.
    #[must_use]
    pub fn new(inner: DynBackend, prefix: Prefix) -> Self {
        Self { inner, prefix }
    }

    fn label(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "prefix({})", self.prefix)
    }

    fn down(&self, key: &Key) -> Result<Key> {
        self.prefix.key(key.as_str()).map_err(too_long)
    }
    fn down_prefix(&self, prefix: &Prefix) -> Result<Prefix> {
        self.prefix.join(prefix.as_str()).map_err(too_long)
    }
    fn down_name(&self, name: &LeaseName) -> Result<LeaseName> {
        self.prefix
            .key(name.as_key().as_str())
            .and_then(|key| LeaseName::parse(key.as_str()))
            .map_err(too_long)
    }
    fn down_guard(&self, guard: Guard) -> Result<Guard> {
        Ok(match guard {
            Guard::Absent(key) => Guard::Absent(self.down(&key)?),
            Guard::Revision(key, revision) => Guard::Revision(self.down(&key)?, revision),
            Guard::Lease(name, epoch) => Guard::Lease(self.down_name(&name)?, epoch),
        })
    }
    fn down_write(&self, write: Write) -> Result<Write> {
        Ok(match write {
            Write::Put(key, value) => Write::Put(self.down(&key)?, value),
            Write::Delete(key) => Write::Delete(self.down(&key)?),
        })
    }
    fn up_lease(&self, mut info: LeaseInfo) -> Result<LeaseInfo> {
        let name = self
            .prefix
            .strip(info.name.as_key())
            .ok_or_else(|| stray(&self.prefix, info.name.as_key()))?;
        info.name = LeaseName::parse(name).map_err(too_long)?;
        Ok(info)
    }
}

fn too_long(error: KeyError) -> Error {
    Error::new(ErrorKind::Invalid, "rewrite key").because(error)
}

/// The store beneath answered with something that was not asked for.
fn stray(prefix: &Prefix, key: &Key) -> Error {
    Error::new(ErrorKind::Internal, "rewrite key")
        .with("key", key)
        .with("is not below", prefix)
}

fn up(prefix: &Prefix, key: &Key) -> Result<Key> {
    let rest = prefix.strip(key).ok_or_else(|| stray(prefix, key))?;
    Key::parse(rest).map_err(too_long)
}

fn up_document(prefix: &Prefix, mut kv: KeyValue) -> Result<KeyValue> {
    kv.key = up(prefix, &kv.key)?;
    Ok(kv)
}

fn up_event(prefix: &Prefix, event: WatchEvent) -> Result<WatchEvent> {
    let WatchEvent::Commit { revision, changes } = event else {
        return Ok(event);
    };
    let up_change = |change| match change {
        Change::Put(kv) => up_document(prefix, kv).map(Change::Put),
        Change::Delete(key) => up(prefix, &key).map(Change::Delete),
    };
    let changes = changes.into_iter().map(up_change).collect::<Result<_>>()?;
    Ok(WatchEvent::Commit { revision, changes })
}

super::show_layer!(Prefixed);

#[async_trait]
impl Store for Prefixed {
    async fn get(&self, key: &Key) -> Result<Option<KeyValue>> {
        let found = self.inner.get(&self.down(key)?).await?;
        found.map(|kv| up_document(&self.prefix, kv)).transpose()
    }
    async fn list(&self, prefix: &Prefix, mut options: ListOptions) -> Result<Page> {
        options.after = options.after.as_ref().map(|key| self.down(key)).transpose()?;
        let page = self.inner.list(&self.down_prefix(prefix)?, options).await?;
        let items = page
            .items
            .into_iter()
            .map(|kv| up_document(&self.prefix, kv))
            .collect::<Result<_>>()?;
        Ok(Page { items, ..page })
    }
    async fn commit(&self, txn: Txn) -> Result<Outcome> {
        let guards = txn
            .guards
            .into_iter()
            .map(|g| self.down_guard(g))
            .collect::<Result<_>>()?;
        let writes = txn
            .writes
            .into_iter()
            .map(|w| self.down_write(w))
            .collect::<Result<_>>()?;
        self.inner.commit(Txn { guards, writes }).await
    }
    fn capability(&self) -> Capability {
        self.inner.capability()
    }
}

impl Watch for Prefixed {
    fn watch(&self, prefix: &Prefix, options: WatchOptions) -> BoxStream<'static, Result<WatchEvent>> {
        let beneath = match self.down_prefix(prefix) {
            Ok(beneath) => beneath,
            Err(e) => return futures::stream::iter([Err(e)]).boxed(),
        };
        let own = self.prefix.clone();
        self.inner
            .watch(&beneath, options)
            .map(move |event| event.and_then(|e| up_event(&own, e)))
            .boxed()
    }
}

#[async_trait]
impl Leases for Prefixed {
    async fn grant(&self, name: &LeaseName, holder: &str, ttl: Duration, mode: LeaseMode) -> Result<Grant> {
        match self
            .inner
            .grant(&self.down_name(name)?, holder, ttl, mode)
            .await?
        {
            Grant::Held(info) => Ok(Grant::Held(self.up_lease(info)?)),
            granted @ Grant::Granted { .. } => Ok(granted),
        }
    }
    async fn renew(&self, name: &LeaseName, epoch: u64, ttl: Duration) -> Result<Renewal> {
        self.inner.renew(&self.down_name(name)?, epoch, ttl).await
    }
    async fn revoke(&self, name: &LeaseName, epoch: u64) -> Result<()> {
        self.inner.revoke(&self.down_name(name)?, epoch).await
    }
    async fn leases(&self, prefix: &Prefix) -> Result<Vec<LeaseInfo>> {
        let leases = self.inner.leases(&self.down_prefix(prefix)?).await?;
        leases.into_iter().map(|info| self.up_lease(info)).collect()
    }
}
