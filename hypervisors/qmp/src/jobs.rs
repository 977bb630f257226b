//! QEMU's jobs: begun by a command, asked for until they are concluded, then dismissed.

use std::time::Duration;

use serde_json::{Value, json};
use skyloom_hypervisor::{ErrorKind, Result};

use crate::client::{Client, ClientError};
use crate::errors;
use crate::vm::Vm;

/// How often a job is asked for.
const LOOK_AGAIN: Duration = Duration::from_millis(30);
/// Id of our only job.
const JOB: &str = "skyloom";

/// Runs a job to its end. While QEMU writes memory it does not answer: that is no failure.
pub(crate) async fn run(
    vm: &Vm,
    client: &Client,
    operation: &'static str,
    command: &'static str,
    mut arguments: Value,
) -> Result<()> {
    let limits = vm.env.config.timeouts;
    let whole = async {
        // One that an earlier agent began.
        until_concluded(vm, client, operation).await?;
        arguments["job-id"] = json!(JOB);
        match client.execute(command, arguments, limits.command).await {
            Ok(_) | Err(ClientError::Timeout { .. }) => {}
            Err(e) => return Err(errors::monitor(operation, vm.id, e)),
        }
        match until_concluded(vm, client, operation).await? {
            Some(why) if !why.is_empty() => Err(vm
                .error(errors::start_kind(&why), operation)
                .with("QEMU", why.escape_debug())),
            Some(_) => Ok(()),
            None => Err(vm
                .error(ErrorKind::Refused, operation)
                .with("because", "the job is gone")),
        }
    };
    let late = |_| {
        vm.error(ErrorKind::Timeout, operation)
            .with("after", format!("{:?}", limits.memory))
    };
    tokio::time::timeout(limits.memory, whole).await.map_err(late)?
}

/// Waits for our job and dismisses it: what went wrong in it, or `None` when there was none.
async fn until_concluded(vm: &Vm, client: &Client, operation: &'static str) -> Result<Option<String>> {
    let limit = vm.env.config.timeouts.command;
    loop {
        let jobs = match client.execute("query-jobs", Value::Null, limit).await {
            Ok(jobs) => jobs,
            Err(ClientError::Timeout { .. }) => continue,
            Err(e) => return Err(errors::monitor(operation, vm.id, e)),
        };
        let ours = |job: &&Value| job.get("id").and_then(Value::as_str) == Some(JOB);
        let Some(job) = jobs.as_array().and_then(|all| all.iter().find(ours)) else {
            return Ok(None);
        };
        let text = |name: &str| job.get(name).and_then(Value::as_str).unwrap_or_default();
        if text("status") == "concluded" {
            let why = text("error").chars().take(500).collect();
            let dismissed = client.execute("job-dismiss", json!({ "id": JOB }), limit).await;
            dismissed.map_err(|e| errors::monitor(operation, vm.id, e))?;
            return Ok(Some(why));
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}
