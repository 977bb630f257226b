//! A process that only watches: a mirror over a bad link, to see that what it shows never goes back and ends at the truth (I9).

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use skyloom_model::paths;
use skyloom_store::{Changed, DynBackend, Key, Mirror, Prefix, Revision};
use tokio_util::sync::CancellationToken;

use crate::bed::Bed;

/// A document of which only its version matters here.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Seen;

impl serde::Serialize for Seen {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_unit()
    }
}

impl<'de> serde::Deserialize<'de> for Seen {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        serde::de::IgnoredAny::deserialize(deserializer).map(|_| Self)
    }
}

/// What the watcher of this schedule shows, once it is there.
pub(crate) type Shown = Arc<Mutex<Option<Mirror<Seen>>>>;

/// What is mirrored.
pub(crate) const WATCHED: &str = paths::TASKS;

/// Watches until it is ended.
pub(crate) async fn watch(backend: DynBackend, bed: Arc<Bed>, shown: Shown) {
    let Ok(prefix) = Prefix::parse(WATCHED) else {
        return;
    };
    let (mirror, driver) = Mirror::<Seen>::new(backend, prefix);
    *shown.lock() = Some(mirror.clone());
    let follow = async {
        let mut seen: BTreeMap<Key, Revision> = BTreeMap::new();
        let mut changes = mirror.changes();
        while let Some(changed) = changes.next().await {
            let keys = match changed {
                Changed::Keys(keys) => keys,
                Changed::Everything => mirror.snapshot().iter().map(|d| d.key.clone()).collect(),
            };
            for key in keys {
                let Some(now) = mirror.get(&key).map(|d| d.modified) else {
                    continue;
                };
                let before = seen.insert(key.clone(), now).unwrap_or_default();
                if now < before {
                    bed.violated("I9", format!("{key} is shown at {now} after {before}"));
                }
            }
        }
    };
    tokio::select! {
        biased;
        () = driver.run(CancellationToken::new()) => {}
        () = follow => {}
    }
}

/// What the mirror shows otherwise than it is.
pub(crate) fn compare(shown: &Shown, truth: &BTreeMap<Key, Revision>) -> Option<String> {
    let mirror = shown.lock().clone()?;
    let shows: BTreeMap<Key, Revision> = mirror
        .snapshot()
        .iter()
        .map(|d| (d.key.clone(), d.modified))
        .collect();
    let differs = truth
        .iter()
        .find(|(key, at)| shows.get(*key) != Some(at))
        .or_else(|| shows.iter().find(|(key, _)| !truth.contains_key(*key)));
    let (key, _) = differs?;
    Some(format!(
        "{key} is at {:?} and a mirror shows it at {:?}",
        truth.get(key),
        shows.get(key)
    ))
}
