//! Removing what is older than it must be kept, so that the chain still holds.
//!
//! 1. a seal says that the entries of all seals up to some number are removed, and the head with it;
//! 2. they are deleted, seal by seal;
//! 3. the seal's list of them is taken out, its root stays, and so does its hash.
//!
//! A life that ends in between leaves the rest to the next one.

use skyloom_store::{Error, ErrorKind, Result, Txn, Versioned};

use super::seal::{Chain, Noted, Seal, SealHead, SealKind, SealsRemoved, root_of, seal_key};
use super::sealer::Sealer;
use super::{AUDIT, key};

/// Seals that one look goes through.
const MOST: u64 = 1000;
/// Deletes in one commit.
const BATCH: usize = 100;

async fn seal(chain: &Chain, number: u64) -> Result<Option<Versioned<Seal>>> {
    let found = chain.backend.get(&seal_key(number)?).await?;
    found.as_ref().map(Versioned::decode).transpose()
}

impl Sealer {
    pub(super) async fn retain(&self, chain: &mut Chain) -> Result<()> {
        let mut done = Ok(());
        if let (Some(days), Some(head)) = (self.config.keep_days, chain.last().cloned()) {
            done = self.announce(chain, head, days).await;
        }
        if done.is_ok() {
            done = self.clean(chain).await;
        }
        match done {
            // New entries are sealed all the same.
            Err(error) if error.kind() == ErrorKind::Corrupt => {
                tracing::error!(error = %skyloom_model::report(&error), "old entries of the audit cannot be removed");
                Ok(())
            }
            done => done,
        }
    }

    /// Step 1.
    async fn announce(&self, chain: &mut Chain, head: SealHead, days: u32) -> Result<()> {
        let age = jiff::SignedDuration::from_hours(i64::from(days) * 24);
        let Ok(limit) = self.clock.now().checked_sub(age) else {
            return Ok(());
        };
        let done = head.removed.map_or(0, |removed| removed.through);
        let (mut through, mut count) = (done, 0_u64);
        for number in done + 1..=head.last.number.min(done + MOST) {
            let Some(found) = seal(chain, number).await? else {
                break; // verifying tells of it
            };
            if found.value.newest.is_some_and(|newest| newest >= limit) {
                break;
            }
            if found.value.kind == SealKind::Entries {
                (through, count) = (number, count + found.value.count);
            }
        }
        if through == done {
            return Ok(());
        }
        let (at, cleaned) = (
            self.clock.now(),
            head.removed.map_or(0, |removed| removed.cleaned),
        );
        tracing::info!(entries = count, through, days, "entries of the audit are removed");
        chain
            .append(|number, previous| {
                let seal = Seal {
                    number,
                    at,
                    kind: SealKind::Removed { through, days },
                    incarnation: head.incarnation,
                    from: head.to,
                    to: head.to,
                    count,
                    newest: None,
                    root: root_of(&[]),
                    previous,
                    entries: None,
                };
                let removed = SealsRemoved {
                    through,
                    by: number,
                    cleaned,
                };
                let head = SealHead {
                    last: Noted {
                        number,
                        hash: String::new(),
                    },
                    removed: Some(removed),
                    ..head
                };
                (seal, head)
            })
            .await
    }

    /// Steps 2 and 3.
    async fn clean(&self, chain: &mut Chain) -> Result<()> {
        while let Some(head) = chain.last().cloned() {
            let Some(removed) = head.removed.filter(|removed| removed.cleaned < removed.through) else {
                return Ok(());
            };
            let number = removed.cleaned + 1;
            let mut txn = Txn::new();
            if let Some(old) = seal(chain, number).await? {
                let entries = old.value.entries.as_deref().unwrap_or_default();
                for some in entries.chunks(BATCH) {
                    let mut delete = Txn::new().guard(chain.lease.clone());
                    for leaf in some {
                        delete = delete.delete(key(&format!("{AUDIT}/{}", leaf.0))?);
                    }
                    if chain.backend.commit(delete).await?.committed().is_none() {
                        return Err(Error::new(ErrorKind::Conflict, "remove old entries of the audit"));
                    }
                }
                if old.value.entries.is_some() {
                    txn = old.replace(&Seal {
                        entries: None,
                        ..old.value.clone()
                    })?;
                }
            }
            let removed = SealsRemoved {
                cleaned: number,
                ..removed
            };
            let head = SealHead {
                removed: Some(removed),
                ..head
            };
            chain.commit(txn, head).await?;
        }
        Ok(())
    }
}
