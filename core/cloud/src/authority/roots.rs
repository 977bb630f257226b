//! Roots: made, signing and dropped by their plan, with keys that only open here.

use std::sync::Arc;

use skyloom_model::{Secret, Timestamp};
use skyloom_pki::{Authority, RootPlan, RootRecord, TrustBundle};
use skyloom_store::{Documents, Key, Outcome, Revision, Txn, Value, Versioned};

use super::records::{self, KeptRoot};
use super::{HostAuthority, refused, sealed};
use crate::{CloudError, Result};

/// Tries against others before it is left for later.
const TRIES: usize = 8;

impl HostAuthority {
    /// Does what the plan says: makes a root, drops those that are over. Keys that are sealed with an older key are sealed anew.
    pub(super) async fn carry_out(&self) -> Result<()> {
        for _ in 0..TRIES {
            let turn = Key::parse(records::TURN)?;
            let before = self.parts.backend.get(&turn).await?;
            let before = before.as_ref().map(Versioned::<u64>::decode).transpose()?;
            let roots = self.roots_kept().await?;
            let plan = plan(&roots, self.now(), self);
            let mut txn = Txn::new();
            if let Some(signs_from) = plan.make {
                txn = txn.and(self.new_root(signs_from).await?);
            }
            for root in &roots.items {
                if plan.drop.contains(&root.value.root.fingerprint) {
                    txn = txn.and(root.delete());
                } else if self.parts.secrets.needs_rewrap(&root.value.key) {
                    let key = self.parts.secrets.rewrap(&root.key, &root.value.key).await;
                    let kept = KeptRoot {
                        key: key.map_err(sealed)?,
                        ..root.value.clone()
                    };
                    txn = txn.and(root.replace(&kept)?);
                }
            }
            if txn.writes.is_empty() {
                return Ok(());
            }
            txn = txn.and(match &before {
                None => Txn::new().create(turn, Value::json(&1_u64)?),
                Some(n) => n.replace(&(n.value + 1))?,
            });
            if let Outcome::Committed { .. } = self.parts.backend.commit(txn).await? {
                tracing::info!(
                    made = plan.make.is_some(),
                    dropped = plan.drop.len(),
                    "the roots were changed by their plan"
                );
                return Ok(());
            }
        }
        Err(CloudError::contended())
    }

    async fn new_root(&self, signs_from: Timestamp) -> Result<Txn> {
        let parts = &self.parts;
        let authority =
            Authority::generate(&parts.cloud, &*parts.ids, self.now(), &parts.lifetimes).map_err(refused)?;
        let place = Key::parse(&records::root(authority.root().fingerprint()))?;
        let key = Secret::new(authority.key_pem().expose().clone().into_bytes());
        let kept = KeptRoot {
            root: RootRecord::new(authority.root(), signs_from),
            key: parts.secrets.seal(&place, &key).await.map_err(sealed)?,
        };
        Ok(Txn::new().create(place, Value::json(&kept)?))
    }

    /// Trusts the roots that are there, and signs with the one whose turn it is.
    pub(super) async fn refresh_roots(&self) -> Result<Revision> {
        let roots = self.roots_kept().await?;
        let plan = plan(&roots, self.now(), self);
        let trusted = roots
            .items
            .iter()
            .filter(|r| plan.trusted.contains(&r.value.root.fingerprint));
        let text: String = trusted.map(|r| r.value.root.certificate.as_str()).collect();
        let trust = if text.is_empty() {
            TrustBundle::default()
        } else {
            TrustBundle::from_pem(text.as_bytes()).map_err(refused)?
        };
        let signer = match &plan.signer {
            None => None,
            Some(wanted) => {
                let now = self.state.read().signer.clone();
                match now.filter(|signer| signer.root().fingerprint() == wanted) {
                    Some(signer) => Some(signer),
                    None => self.open_root(&roots, wanted.as_str()).await?,
                }
            }
        };
        self.judge.trust(trust.clone());
        let mut state = self.state.write();
        (state.trust, state.signer) = (trust, signer);
        Ok(roots.revision)
    }

    async fn open_root(
        &self,
        roots: &Documents<KeptRoot>,
        fingerprint: &str,
    ) -> Result<Option<Arc<Authority>>> {
        let found = roots
            .items
            .iter()
            .find(|r| r.value.root.fingerprint.as_str() == fingerprint);
        let Some(found) = found else { return Ok(None) };
        let key = self.parts.secrets.open(&found.key, &found.value.key).await;
        let key = String::from_utf8(key.map_err(sealed)?.expose().clone())
            .map_err(|_| CloudError::internal("a root's key is no text"))?;
        let authority = Authority::open(&found.value.root.certificate, &Secret::new(key)).map_err(refused)?;
        Ok(Some(Arc::new(authority)))
    }

    async fn roots_kept(&self) -> Result<Documents<KeptRoot>> {
        Ok(self.table::<KeptRoot>(records::ROOTS)?.list_all().await?)
    }
}

fn plan(roots: &Documents<KeptRoot>, now: Timestamp, authority: &HostAuthority) -> RootPlan {
    let records: Vec<RootRecord> = roots.items.iter().map(|r| r.value.root.clone()).collect();
    RootPlan::new(&records, now, authority.lifetimes())
}
