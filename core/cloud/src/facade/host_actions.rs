//! What can be asked of a host beyond its record.

use futures::FutureExt as _;
use serde_json::json;
use skyloom_model::{Host, HostId, Scope};

use super::Cloud;
use super::once::Change;
use super::records::precondition;
use crate::{Caller, Result, SweepHost, TaskAccepted};

impl Cloud {
    /// Looks for what lies on a host and belongs to no server: domains, disks, claims. With `remove` it is taken away,
    /// otherwise only named in the task's result.
    ///
    /// # Errors
    /// `host.not_found`, `precondition.failed`, `auth.forbidden`.
    pub async fn sweep_host(&self, caller: &Caller, id: HostId, options: SweepHost) -> Result<TaskAccepted> {
        let done = self
            .once(caller, "hosts.sweep", json!([id, options]), || {
                async move {
                    let host = self
                        .allowed::<Host>(caller, "host:sweep", Scope::System, id.uuid())
                        .await?;
                    precondition(caller, host.modified)?;
                    let params = json!({ "remove": options.remove });
                    let task = self.task(caller, "host.sweep", &host.value, params);
                    // A host that is deleted meanwhile is not swept.
                    let txn = skyloom_store::Txn::new().guard(host.unchanged());
                    Ok(Change::new(txn, TaskAccepted { task: task.clone() })
                        .task(task)
                        .told("host:sweep", &host.value.meta))
                }
                .boxed()
            })
            .await?;
        Ok(done.answer)
    }
}
