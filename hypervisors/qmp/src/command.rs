//! The monitor commands that we use, typed by hand.

use std::time::Duration;

use serde_json::{Value, json};
use skyloom_model::PowerState;

use crate::argv::SERIAL_ID;
use crate::client::{Client, ClientError};

impl Client {
    /// `query-status`: the run state, such as `running`.
    ///
    /// # Errors
    /// As [`Client::execute`].
    pub async fn query_status(&self, limit: Duration) -> Result<String, ClientError> {
        let answer = self.execute("query-status", Value::Null, limit).await?;
        let status = answer.get("status").and_then(Value::as_str);
        status
            .map(str::to_owned)
            .ok_or(ClientError::Unexpected("a run state"))
    }

    /// `cont`: CPUs run.
    ///
    /// # Errors
    /// As [`Client::execute`].
    pub async fn cont(&self, limit: Duration) -> Result<(), ClientError> {
        self.execute("cont", Value::Null, limit).await.map(drop)
    }

    /// `stop`: CPUs are held.
    ///
    /// # Errors
    /// As [`Client::execute`].
    pub async fn stop(&self, limit: Duration) -> Result<(), ClientError> {
        self.execute("stop", Value::Null, limit).await.map(drop)
    }

    /// `system_powerdown`: presses the ACPI power button.
    ///
    /// # Errors
    /// As [`Client::execute`].
    pub async fn system_powerdown(&self, limit: Duration) -> Result<(), ClientError> {
        self.execute("system_powerdown", Value::Null, limit)
            .await
            .map(drop)
    }

    /// `quit`: QEMU flushes its disks and ends. The connection may end before the answer.
    ///
    /// # Errors
    /// As [`Client::execute`].
    pub async fn quit(&self, limit: Duration) -> Result<(), ClientError> {
        match self.execute("quit", Value::Null, limit).await {
            Ok(_) | Err(ClientError::Closed) => Ok(()),
            Err(e) => Err(e),
        }
    }

    /// `chardev-change`: the serial port goes on with the file of this name.
    pub(crate) async fn reopen_serial(&self, file: &str, limit: Duration) -> Result<(), ClientError> {
        let backend = json!({ "type": "file", "data": { "out": file, "append": true } });
        self.execute(
            "chardev-change",
            json!({ "id": SERIAL_ID, "backend": backend }),
            limit,
        )
        .await
        .map(drop)
    }
}

/// What a run state means. `None` is one that we do not know.
#[must_use]
pub fn power_of(run_state: &str) -> Option<PowerState> {
    match run_state {
        "running" => Some(PowerState::Running),
        "shutdown" => Some(PowerState::Stopped),
        "internal-error" | "guest-panicked" => Some(PowerState::Crashed),
        "paused" | "prelaunch" | "suspended" | "io-error" | "watchdog" | "debug" | "save-vm"
        | "restore-vm" | "inmigrate" | "finish-migrate" | "postmigrate" | "colo" => Some(PowerState::Paused),
        _ => None,
    }
}
