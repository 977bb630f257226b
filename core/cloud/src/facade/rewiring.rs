//! Whose ports are to be wired anew when security groups change: those of servers in a group whose rules changed, and of servers
//! in a group that names one whose members changed.

use std::collections::BTreeSet;

use serde_json::json;
use skyloom_model::{
    GroupMembers, Port, Remote, Resource, Scope, SecurityGroup, SecurityGroupId, ServerId, Task, paths,
};

use super::Cloud;
use crate::flows::RewireParams;
use crate::{Caller, Result};

/// Most servers of one task.
const MOST: usize = 500;

impl Cloud {
    /// The task that has the hosts learn that the rules of `ruled` and the members of `joined` are others; none if no server is
    /// concerned. `also` is concerned in any case.
    pub(super) async fn rewire<R: Resource>(
        &self,
        caller: &Caller,
        subject: &R,
        ruled: &[SecurityGroupId],
        joined: &[SecurityGroupId],
        also: Option<ServerId>,
    ) -> Result<Option<Task>> {
        let scope: Scope = caller.scope();
        let mut groups: BTreeSet<SecurityGroupId> = ruled.iter().copied().collect();
        if !joined.is_empty() {
            let all = self
                .everything::<SecurityGroup>(&paths::scoped(SecurityGroup::KIND, scope))
                .await?;
            let names = |group: &SecurityGroup| {
                let rules = &group.spec.rules;
                rules.iter().any(
                    |rule| matches!(&rule.remote, Some(Remote::Group { group }) if joined.contains(group)),
                )
            };
            groups.extend(
                all.iter()
                    .filter(|group| names(&group.value))
                    .map(|group| group.value.id()),
            );
        }
        let mut servers: BTreeSet<ServerId> = also.into_iter().collect();
        for group in groups {
            let members = self.read::<GroupMembers>(&paths::members(group)).await?;
            for port in members.iter().flat_map(|members| members.value.ports.keys()) {
                let port = self.resource::<Port>(scope, port.uuid()).await?;
                servers.extend(port.and_then(|port| port.value.spec.server));
            }
        }
        if servers.is_empty() {
            return Ok(None);
        }
        let servers = servers.into_iter().take(MOST).collect();
        let params = json!(RewireParams { servers });
        Ok(Some(self.task(caller, "port.rewire", subject, params)))
    }
}
