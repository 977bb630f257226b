//! Signing keys: made, retired and deleted by whichever process is first, taken over by all.

use std::sync::Arc;

use skyloom_store::Revision;

use super::Inner;
use crate::{ChangeError, ChangeResult, Draft, KeyRing, SigningKeyRecord, Snapshot, TokenError, TokenSigner};

/// The keys that are known: their ids and revisions.
pub(super) type Known = Vec<(String, Revision)>;

fn records(at: &Snapshot) -> (Known, Vec<SigningKeyRecord>) {
    at.keys()
        .map(|key| ((key.value.kid.clone(), key.modified), key.value.clone()))
        .unzip()
}

impl Inner {
    /// Takes over the keys of now, if they are others than before.
    pub(super) async fn take_keys(&self) -> Result<(), TokenError> {
        let (known, records) = records(&self.directory.snapshot());
        if *self.ring.borrow() == known {
            return Ok(());
        }
        // What verifies first: a key that signs here is in the ring of this process already.
        self.verifier.replace_ring(KeyRing::new(&records)?);
        let signer = match records.as_slice() {
            [] => None,
            records => Some(Arc::new(
                TokenSigner::open(self.config.signer(), records, &*self.secrets).await?,
            )),
        };
        *self.signer.write() = signer;
        self.ring.send_replace(known);
        Ok(())
    }

    /// Does what the ring needs now. Of several processes that do so at the same moment, one passes.
    pub(super) async fn rotate_keys(&self) -> ChangeResult<()> {
        let policy = self.config.ring();
        let plan_of = |at: &Snapshot| policy.plan(&records(at).1, self.clock.now());
        let first = plan_of(&self.directory.snapshot());
        let made = match first.create {
            Some(from) => {
                let record =
                    SigningKeyRecord::generate(&*self.secrets, &*self.ids, self.clock.now(), from).await;
                Some(record.map_err(|error| ChangeError::Conflict(skyloom_model::report(&error)))?)
            }
            None => None,
        };
        self.editor
            .change(|edit| {
                let plan = plan_of(edit.snapshot());
                let made = made.as_ref().filter(|_| plan.create.is_some());
                let txn = edit.replace_keys(made, &plan.update, &plan.delete)?;
                Ok(Draft { record: (), txn })
            })
            .await
    }
}
