//! Commits changes, and tries again when others were faster.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value as Json;
use skyloom_model::ablation::{Rule, kept};
use skyloom_model::{Clock, Ids};
use skyloom_store::{DynBackend, ErrorKind, Guard, Key, Outcome, Revision, Txn, Write};

use super::{ChangeError, ChangeResult, Doomed, Draft, Edit, guarded, key};
use crate::{Directory, Snapshot};

/// Tries before a change gives up with [`ChangeError::Conflict`].
const TRIES: usize = 16;
/// How long to wait until the directory has seen what is known to be in the store.
const CATCH_UP: Duration = Duration::from_secs(5);

/// Makes changes: builds them from the directory, commits them, and returns when the directory shows them.
#[derive(Clone)]
pub struct Editor {
    directory: Directory,
    backend: DynBackend,
    clock: Arc<dyn Clock>,
    ids: Arc<dyn Ids>,
}

impl fmt::Debug for Editor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Editor")
            .field("directory", &self.directory)
            .finish_non_exhaustive()
    }
}

impl Editor {
    /// An editor of `backend`, which `directory` follows.
    #[must_use]
    pub fn new(directory: Directory, backend: DynBackend, clock: Arc<dyn Clock>, ids: Arc<dyn Ids>) -> Self {
        Self {
            directory,
            backend,
            clock,
            ids,
        }
    }

    /// The directory that it reads.
    #[must_use]
    pub fn directory(&self) -> &Directory {
        &self.directory
    }

    /// Builds a change from the newest snapshot and commits it; again from a newer one when others were faster, or when the directory had not seen
    /// yet what the change needs. `build` may be called several times.
    ///
    /// # Errors
    /// Those of `build`; [`ChangeError::Conflict`] when others were faster every time; [`ChangeError::Store`].
    pub async fn change<T>(&self, build: impl Fn(&Edit<'_>) -> ChangeResult<Draft<T>>) -> ChangeResult<T> {
        let mut asked = None;
        for _ in 0..TRIES {
            let snapshot = self.directory.snapshot();
            let edit = Edit::new(&snapshot, &*self.ids, self.clock.now());
            let draft = match build(&edit) {
                Ok(draft) => draft,
                Err(error) => {
                    // Once for each thing that is missing or in the way.
                    let path = doubted(&error).filter(|path| asked.as_ref() != Some(path));
                    match path {
                        Some(path) if self.was_old(&snapshot, &path).await? => asked = Some(path),
                        _ => return Err(error),
                    }
                    continue;
                }
            };
            if draft.txn.writes.is_empty() || self.commit(draft.txn, &snapshot).await? {
                return Ok(draft.record);
            }
        }
        Err(contended())
    }

    /// Removes something with all that refers to it, in as many commits as that takes. `first` goes into the first of them: the audit's entry.
    ///
    /// # Errors
    /// [`ChangeError::NotFound`], those of [`Edit::removal`], and those of [`Editor::change`]. After a failure on the way it can be called again.
    pub async fn remove(&self, doomed: Doomed, first: Txn) -> ChangeResult<()> {
        let limits = self.backend.capability();
        let mut more = self
            .change(|edit| {
                edit.is_there(doomed)?;
                let txn = edit.removal(doomed, &limits)?.unwrap_or_default();
                Ok(Draft {
                    record: true,
                    txn: txn.and(first.clone()),
                })
            })
            .await?;
        while more {
            more = self
                .change(|edit| {
                    let txn = edit.removal(doomed, &limits)?;
                    Ok(Draft {
                        record: txn.is_some(),
                        txn: txn.unwrap_or_default(),
                    })
                })
                .await?;
        }
        Ok(())
    }

    /// Brings to their end the removals in which somebody stopped; tells how many there were.
    ///
    /// # Errors
    /// Those of [`Editor::remove`].
    pub async fn finish_removals(&self) -> ChangeResult<usize> {
        let snapshot = self.directory.snapshot();
        let unfinished = Edit::new(&snapshot, &*self.ids, self.clock.now()).unfinished();
        for doomed in &unfinished {
            match self.remove(*doomed, Txn::new()).await {
                Ok(()) | Err(ChangeError::NotFound { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(unfinished.len())
    }

    /// Commits and waits until the directory shows it. `false` when a guard did not hold; then the directory has moved on.
    async fn commit(&self, txn: Txn, seen: &Snapshot) -> ChangeResult<bool> {
        let guards = txn.guards.clone();
        // What is made here proves more than what may have been written as it was.
        let made = |write: &&Write| guards.contains(&Guard::Absent(write.key().clone()));
        let probe = txn.writes.iter().find(made).or(txn.writes.first()).cloned();
        let keys: Vec<Key> = txn.writes.iter().map(|write| write.key().clone()).collect();
        match self.backend.commit(txn).await {
            Ok(Outcome::Committed { revision }) => {
                self.catch_up(&keys, revision).await;
                Ok(true)
            }
            Ok(Outcome::Conflict { guard, current }) => {
                match (guards.get(guard).and_then(guarded), current) {
                    (Some(key), Some(revision)) => self.catch_up([key], revision).await,
                    _ => {
                        self.directory.until(CATCH_UP, |now| !now.same_moment(seen)).await;
                    }
                }
                Ok(false)
            }
            Err(error) if error.kind() == ErrorKind::Unknown && kept(Rule::ReadBackUnknown) => match probe {
                Some(probe) if self.happened(&probe).await => {
                    self.directory.until(CATCH_UP, |now| !now.same_moment(seen)).await;
                    Ok(true)
                }
                _ => Err(error.into()),
            },
            Err(error) => Err(error.into()),
        }
    }

    async fn catch_up(&self, keys: impl IntoIterator<Item = &Key>, revision: Revision) {
        // What it does not see in time it sees later: the next change is guarded all the same.
        let _late = tokio::time::timeout(CATCH_UP, self.directory.wait_for(keys, revision)).await;
    }

    /// Whether the store says otherwise than the snapshot about what is missing, or in the way, at `path`; then the directory has moved on.
    async fn was_old(&self, seen: &Snapshot, path: &str) -> ChangeResult<bool> {
        let key = key(path)?;
        let known = seen.modified(&key);
        let there = self.backend.get(&key).await?.map(|there| there.modified);
        if there == known {
            return Ok(false);
        }
        match there {
            Some(revision) => self.catch_up([&key], revision).await,
            None => {
                self.directory
                    .until(CATCH_UP, |now| now.modified(&key).is_none())
                    .await;
            }
        }
        Ok(true)
    }

    /// Whether a write is to be seen. `false` also when that cannot be told.
    async fn happened(&self, write: &Write) -> bool {
        let Ok(there) = self.backend.get(write.key()).await else {
            return false;
        };
        match (write, there) {
            (Write::Put(_, value), Some(there)) => {
                let (wanted, found) = (value.parse::<Json>(), there.value.parse::<Json>());
                matches!((wanted, found), (Ok(a), Ok(b)) if a == b)
            }
            (Write::Delete(_), None) => true,
            _ => false,
        }
    }
}

/// Where to look whether a refusal still holds.
fn doubted(error: &ChangeError) -> Option<String> {
    match error {
        ChangeError::NotFound { path, .. } | ChangeError::NameTaken { path, .. } if !path.is_empty() => {
            Some(path.clone())
        }
        _ => None,
    }
}

fn contended() -> ChangeError {
    ChangeError::Conflict("others changed the same records again and again".to_owned())
}
