//! Whose ports are to be wired anew when security groups change: those of servers in a group whose rules changed, and of servers
//! in a group that names one whose members changed. The task names the groups; who that is it finds out when it is planned.

use std::collections::BTreeSet;

use serde_json::json;
use skyloom_model::{GroupMembers, Resource, SecurityGroupId, ServerId, Task, paths};

use super::Cloud;
use crate::flows::RewireParams;
use crate::{Caller, Result};

impl Cloud {
    /// The task that has the hosts learn that the rules of `ruled` and the members of `joined` are others; none if no port is
    /// concerned. `also` is concerned in any case.
    ///
    /// The commit writes the members of `joined`, so nobody becomes one of them, or names them, unseen.
    pub(super) async fn rewire<R: Resource>(
        &self,
        caller: &Caller,
        subject: &R,
        ruled: &[SecurityGroupId],
        joined: &[SecurityGroupId],
        also: Option<ServerId>,
    ) -> Result<Option<Task>> {
        let mut concerned = also.is_some();
        let mut groups: BTreeSet<SecurityGroupId> = ruled.iter().copied().collect();
        for group in joined {
            if let Some(members) = self.read::<GroupMembers>(&paths::members(*group)).await? {
                groups.extend(members.value.named_by);
            }
        }
        for group in groups {
            // Of a group that this commit does not write somebody may become a member in this moment.
            concerned |= if ruled.contains(&group) || joined.contains(&group) {
                let members = self.read::<GroupMembers>(&paths::members(group)).await?;
                members.is_some_and(|members| !members.value.ports.is_empty())
            } else {
                true
            };
        }
        if !concerned {
            return Ok(None);
        }
        let params = json!(RewireParams {
            servers: also.into_iter().collect(),
            ruled: ruled.to_vec(),
            joined: joined.to_vec(),
            after: None,
        });
        Ok(Some(self.task(caller, "port.rewire", subject, params)))
    }
}
