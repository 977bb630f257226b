//! What Keystone keeps and identity does not: documents as they came, below `openstack/` in the store.

use serde_json::{Map, Value};
use skyloom_store::{Guard, Key, KeyError, ListOptions, Outcome, Prefix, Txn, Value as Stored, Versioned};

use super::ask::Ask;
use super::error::{Answer, Refusal};

/// An object as it came.
pub(crate) type Document = Map<String, Value>;

/// Tries before it is given up that others write the same document.
const TRIES: usize = 8;
/// Most documents of one kind: each list reads all of them.
const MOST: usize = 1000;

fn bad_key(error: KeyError) -> Refusal {
    Refusal::bad(format!("Invalid input for field 'id': {error}"))
}

fn key(path: &str) -> Answer<Key> {
    Key::parse(path).map_err(bad_key)
}

/// One that could be read.
fn decoded(kv: &skyloom_store::KeyValue) -> Answer<Versioned<Document>> {
    Ok(Versioned::decode(kv)?)
}

impl Ask {
    pub(crate) async fn shelved(&self, path: &str) -> Answer<Option<Document>> {
        let found = self.parts.backend.get(&key(path)?).await?;
        found.map(|kv| Ok(decoded(&kv)?.value)).transpose()
    }

    /// All below a path, by their keys.
    pub(crate) async fn all_shelved(&self, below: &str) -> Answer<Vec<Document>> {
        let prefix = Prefix::parse(below).map_err(bad_key)?;
        let mut all = Vec::new();
        let mut options = ListOptions::default();
        loop {
            let page = self.parts.backend.list(&prefix, options.clone()).await?;
            for kv in &page.items {
                all.push(decoded(kv)?.value);
            }
            match page.items.last() {
                Some(last) if page.more => {
                    options = options.with_at(page.revision).with_after(last.key.clone());
                }
                _ => return Ok(all),
            }
        }
    }

    /// Puts a new one there. `below` is where all of its kind are, which are bounded.
    pub(crate) async fn shelve(&self, below: &str, path: &str, document: &Document) -> Answer<()> {
        if self.all_shelved(below).await?.len() >= MOST {
            return Err(Refusal::forbidden(format!("There are {MOST} of them already.")));
        }
        let txn = Txn::new().create(key(path)?, Stored::json(document)?);
        match self.parts.backend.commit(txn).await? {
            Outcome::Committed { .. } => Ok(()),
            Outcome::Conflict { .. } => Err(Refusal::conflict("Conflict occurred: it is there already.")),
        }
    }

    /// Changes the one that is there; `change` may refuse. Gives it as it is then; `None`: there is none.
    pub(crate) async fn reshelve(
        &self,
        path: &str,
        change: impl Fn(&mut Document) -> Answer<()>,
    ) -> Answer<Option<Document>> {
        let key = key(path)?;
        for _ in 0..TRIES {
            let Some(kv) = self.parts.backend.get(&key).await? else {
                return Ok(None);
            };
            let found = decoded(&kv)?;
            let mut document = found.value;
            change(&mut document)?;
            let txn = Txn::new().replace(key.clone(), found.modified, Stored::json(&document)?);
            if let Outcome::Committed { .. } = self.parts.backend.commit(txn).await? {
                return Ok(Some(document));
            }
        }
        Err(Refusal::conflict(
            "Conflict occurred: others change it at the same time.",
        ))
    }

    /// Takes it away; tells whether it was there.
    pub(crate) async fn unshelve(&self, path: &str) -> Answer<bool> {
        let key = key(path)?;
        for _ in 0..TRIES {
            let Some(kv) = self.parts.backend.get(&key).await? else {
                return Ok(false);
            };
            let same = Guard::Revision(key.clone(), kv.modified);
            let txn = Txn::new().guard(same).delete(key.clone());
            if let Outcome::Committed { .. } = self.parts.backend.commit(txn).await? {
                return Ok(true);
            }
        }
        Err(Refusal::conflict(
            "Conflict occurred: others change it at the same time.",
        ))
    }
}
