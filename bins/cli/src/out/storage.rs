//! Rows of volumes and snapshots.

use skyloom_model::{Pool, Snapshot, SnapshotOf, Timestamp, Volume};

use super::Row;
use crate::text::{age, bytes, word};

impl Row for Volume {
    const HEAD: &'static [&'static str] = &["NAME", "STATE", "SIZE", "SERVER", "AGE"];
    const WIDE: &'static [&'static str] = &["POOL", "FORMAT", "DISK", "TAKES", "ACTIVITY", "FAULT", "ID"];
    fn cells(&self, now: Timestamp) -> Vec<String> {
        let status = &self.status;
        let attachment = status.attachment.as_ref();
        let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
        vec![
            self.meta.name.to_string(),
            word(&status.state),
            format!("{} GiB", self.spec.size_gib),
            or_dash(attachment.map(|a| a.server.to_string())),
            age(now, self.meta.created_at),
            match &self.spec.pool {
                Pool::Local => "local".to_owned(),
                Pool::Shared { name } => name.to_string(),
            },
            self.spec.format.as_str().to_owned(),
            or_dash(attachment.map(|a| a.disk.clone())),
            bytes(status.allocated_bytes),
            or_dash(status.activity.as_ref().map(|a| a.flow.clone())),
            or_dash(status.fault.as_ref().map(|f| f.message.clone())),
            self.meta.id.to_string(),
        ]
    }
    fn name(&self) -> String {
        self.meta.name.to_string()
    }
}

impl Row for Snapshot {
    const HEAD: &'static [&'static str] = &["NAME", "STATE", "OF", "DISKS", "MEMORY", "AGE"];
    const WIDE: &'static [&'static str] = &["SIZES", "ACTIVITY", "FAULT", "ID"];
    fn cells(&self, now: Timestamp) -> Vec<String> {
        let status = &self.status;
        let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
        let sizes: Vec<String> = status
            .disks
            .iter()
            .map(|disk| format!("{}={}", disk.name, bytes(disk.virtual_size_bytes)))
            .collect();
        vec![
            self.meta.name.to_string(),
            word(&status.state),
            match &self.spec.of {
                SnapshotOf::Server { server, .. } => format!("server {server}"),
                SnapshotOf::Volume { volume } => format!("volume {volume}"),
            },
            status.disks.len().to_string(),
            bytes(status.memory_bytes),
            age(now, self.meta.created_at),
            sizes.join(","),
            or_dash(status.activity.as_ref().map(|a| a.flow.clone())),
            or_dash(status.fault.as_ref().map(|f| f.message.clone())),
            self.meta.id.to_string(),
        ]
    }
    fn name(&self) -> String {
        self.meta.name.to_string()
    }
}
