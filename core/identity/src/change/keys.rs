//! Signing keys.

use skyloom_store::Txn;

use super::{ChangeResult, Edit, create, together};
use crate::{SigningKeyRecord, paths};

impl Edit<'_> {
    /// Files a new signing key, writes some in place of the former and deletes others. Of two who make one at the same moment one loses.
    pub(crate) fn replace_keys(
        &self,
        make: Option<&SigningKeyRecord>,
        update: &[SigningKeyRecord],
        delete: &[String],
    ) -> ChangeResult<Txn> {
        let mut parts = Vec::new();
        if let Some(key) = make {
            parts.push(create(&paths::key(&key.kid), key)?);
            parts.push(self.take_turn(paths::KEY_TURN)?);
        }
        for key in update {
            if let Some(old) = self.at.key(&key.kid) {
                parts.push(old.replace(key)?);
            }
        }
        parts.extend(
            delete
                .iter()
                .filter_map(|kid| self.at.key(kid))
                .map(|old| old.delete()),
        );
        Ok(together(parts))
    }
}
