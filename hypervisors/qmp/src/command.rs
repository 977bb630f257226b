//! The monitor commands that we use, typed by hand.

use std::collections::BTreeMap;
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

    /// `query-pci`: addresses of the devices that have an id.
    ///
    /// # Errors
    /// As [`Client::execute`].
    pub async fn query_pci(&self, limit: Duration) -> Result<BTreeMap<String, String>, ClientError> {
        Ok(pci_addresses(
            &self.execute("query-pci", Value::Null, limit).await?,
        ))
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

fn pci_addresses(answer: &Value) -> BTreeMap<String, String> {
    let list = |v: &Value, name: &str| v.get(name).and_then(Value::as_array).cloned().unwrap_or_default();
    let mut found = BTreeMap::new();
    for bus in answer.as_array().into_iter().flatten() {
        for device in list(bus, "devices") {
            let number = |name: &str| device.get(name).and_then(Value::as_u64);
            let id = device
                .get("qdev_id")
                .and_then(Value::as_str)
                .filter(|id| !id.is_empty());
            if let (Some(id), Some(bus), Some(slot), Some(function)) =
                (id, number("bus"), number("slot"), number("function"))
            {
                found.insert(id.to_owned(), format!("{bus:02x}:{slot:02x}.{function:x}"));
            }
        }
    }
    found
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_devices_with_an_id_are_told_and_odd_answers_give_nothing() {
        let device = |id: &str, slot: u64| json!({"bus": 0, "slot": slot, "function": 0, "qdev_id": id});
        let answer =
            json!([{ "bus": 0, "devices": [device("", 0), device("disk-root", 17), {"qdev_id": "x"}] }]);
        let wanted = BTreeMap::from([("disk-root".to_owned(), "00:11.0".to_owned())]);
        assert_eq!(pci_addresses(&answer), wanted);
        for odd in [json!(null), json!([1]), json!([{ "devices": {} }])] {
            assert!(pci_addresses(&odd).is_empty());
        }
    }
}
