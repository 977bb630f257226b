//! A provider's user as a user here.

use std::collections::BTreeMap;

use serde_json::json;
use skyloom_store::Txn;

use super::{ChangeError, ChangeResult, Draft, Edit, create, together};
use crate::{External, GroupId, Membership, OidcConfig, Revoked, User, UserId, paths};

/// Where it is told which provider a user comes from: among the attributes that clients keep. Nothing rests on them; the id does.
const ISSUER: &str = "external_issuer";
const SUBJECT: &str = "external_subject";

impl Edit<'_> {
    /// The user of whom `external` tells: made when there is none, in exactly those of the provider's groups that it names, and with the
    /// token marked as used. Its roles are given like anybody's, best to the groups.
    ///
    /// # Errors
    /// `Conflict`: the token has been used. `NotFound`: the domain is gone.
    pub fn external_user(&self, external: &External, config: &OidcConfig) -> ChangeResult<Draft<User>> {
        let id = external.user_id();
        if self.snapshot().is_revoked(external.token) {
            return Err(used());
        }
        let mark = Revoked {
            until: external.until,
        };
        let mark = create(&paths::revoked(external.token), &mark)?;
        let Some(there) = self.snapshot().user(id) else {
            let Draft { record, txn } = self.create_external(external, config)?;
            let joined = external.groups.iter().map(|group| self.first_member(*group, id));
            let joined = joined.collect::<ChangeResult<Vec<_>>>()?;
            return Ok(Draft {
                record,
                txn: together([txn, mark].into_iter().chain(joined)),
            });
        };
        let user = &there.value;
        let mut parts = vec![mark, Txn::new().guard(there.unchanged())];
        for (group, wanted) in wanted(external, &config.groups) {
            let is_in = self.snapshot().member(group, id).is_some();
            match (wanted, is_in) {
                (true, false) => parts.push(self.add_member(group, id)?.txn),
                (false, true) => parts.push(self.remove_member(group, id)?.txn),
                (true, true) | (false, false) => {}
            }
        }
        Ok(Draft {
            record: user.clone(),
            txn: together(parts),
        })
    }

    fn create_external(&self, external: &External, config: &OidcConfig) -> ChangeResult<Draft<User>> {
        let id = external.user_id();
        let taken = self.snapshot().find_user(config.domain, &external.name).is_some();
        let mut name = external.name.clone();
        if taken {
            // The provider's names are not ours: whoever has the name here keeps it.
            name.push('#');
            name.extend(id.to_string().chars().take(8));
        }
        self.create_user_as(id, config.domain, &name, |user| {
            user.email = external.email.clone();
            user.extra.insert(ISSUER.to_owned(), json!(external.issuer));
            user.extra.insert(SUBJECT.to_owned(), json!(external.subject));
        })
    }
}

impl Edit<'_> {
    /// Puts into a group a user who is made in the same commit.
    fn first_member(&self, group: GroupId, user: UserId) -> ChangeResult<Txn> {
        let member = Membership {
            group,
            user,
            created_at: self.now,
        };
        let made = create(&paths::member(group, user), &member)?;
        Ok(together([self.on_group(group)?, made]))
    }
}

/// The provider's groups here, and whether the user is to be in them.
fn wanted(external: &External, groups: &BTreeMap<String, GroupId>) -> BTreeMap<GroupId, bool> {
    groups
        .values()
        .map(|group| (*group, external.groups.contains(group)))
        .collect()
}

fn used() -> ChangeError {
    ChangeError::Conflict("this ID token has been used".to_owned())
}
