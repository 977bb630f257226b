//! Users of identity providers, when they come.

use super::Inner;
use super::ask::Proof;
use crate::{AuthError, ChangeError, Denied, Why};

impl Inner {
    /// Makes the user of whom a provider has spoken, and marks its word as used. To be done before the snapshot that the login goes by.
    pub(super) async fn introduce(&self, proofs: &[Proof]) -> Result<(), AuthError> {
        for proof in proofs {
            let Proof::External { said, provider } = proof else {
                continue;
            };
            match self
                .editor
                .change(|edit| edit.external_user(said, provider))
                .await
            {
                Ok(_) => {}
                Err(ChangeError::Store(error)) => {
                    return Err(AuthError::Unavailable(skyloom_model::report(&error)));
                }
                Err(ChangeError::Conflict(_)) => return Err(Denied::new(Why::UsedCode).into()),
                Err(error) => {
                    tracing::warn!(issuer = said.issuer, %error, "a provider's user cannot be taken on");
                    return Err(Denied::new(Why::Gone).into());
                }
            }
        }
        Ok(())
    }
}
