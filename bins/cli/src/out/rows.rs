//! How each record looks in a table.

use serde::Serialize;
use skyloom_model::{
    Event, Flavor, Host, Image, ImageSource, Keypair, Meta, Order, Port, PowerState, Project, Resources,
    Scope, Server, Task, Timestamp,
};

use crate::text::{age, bytes, mib, word};

/// A record that can be printed.
pub(crate) trait Row: Serialize {
    /// Columns of `-o table`.
    const HEAD: &'static [&'static str];
    /// What `-o wide` adds.
    const WIDE: &'static [&'static str];
    /// The cells of both, in order.
    fn cells(&self, now: Timestamp) -> Vec<String>;
    /// What `-o name` prints.
    fn name(&self) -> String;
    /// What `show` prints: by default all cells.
    fn details(&self, now: Timestamp) -> Vec<(&'static str, String)> {
        let heads = Self::HEAD.iter().chain(Self::WIDE).copied();
        heads.zip(self.cells(now)).collect()
    }
}

fn id(meta: &Meta) -> String {
    meta.id.to_string()
}

fn marks(marks: &std::collections::BTreeMap<String, String>) -> String {
    let pairs: Vec<String> = marks
        .iter()
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    pairs.join(",")
}

fn scope(scope: Scope) -> String {
    match scope {
        Scope::System => "the cloud".into(),
        Scope::Project(id) => id.to_string(),
    }
}

fn size(r: Resources) -> String {
    format!("{} vCPU, {}, {} GiB disk", r.vcpus, mib(r.memory_mib), r.disk_gib)
}

/// One word or two for all axes of a server's state.
pub(crate) fn server_state(server: &Server) -> String {
    use skyloom_model::Lifecycle;
    let status = &server.status;
    let mut text = match status.lifecycle {
        Lifecycle::Active => word(&status.power),
        other => word(&other),
    };
    if let Some(activity) = &status.activity {
        text.push_str(&format!(" ({})", activity.flow));
    }
    for (on, mark) in [
        (status.overlays.rescued, "rescued"),
        (status.overlays.resized, "resized"),
        (status.overlays.locked, "locked"),
        (status.overlays.protected, "protected"),
        (status.overlays.host_unreachable, "host unreachable"),
    ] {
        if on {
            text.push_str(&format!(", {mark}"));
        }
    }
    text
}

impl Row for Server {
    const HEAD: &'static [&'static str] = &["NAME", "STATE", "HOST", "ADDRESSES", "FLAVOR", "AGE"];
    const WIDE: &'static [&'static str] = &["IMAGE", "HOSTNAME", "LABELS", "ID"];
    fn cells(&self, now: Timestamp) -> Vec<String> {
        let host = self.status.placement.as_ref().map(|p| p.host_name.to_string());
        vec![
            self.meta.name.to_string(),
            server_state(self),
            host.unwrap_or_default(),
            self.status.addresses.join(","),
            self.spec.flavor.name.to_string(),
            age(now, self.meta.created_at),
            self.spec.image.name.to_string(),
            self.spec.hostname.to_string(),
            marks(&self.meta.labels),
            id(&self.meta),
        ]
    }
    fn name(&self) -> String {
        self.meta.name.to_string()
    }
    fn details(&self, now: Timestamp) -> Vec<(&'static str, String)> {
        let status = &self.status;
        let flavor = &self.spec.flavor;
        let mut pairs = vec![
            ("Name", self.meta.name.to_string()),
            ("Id", id(&self.meta)),
            ("State", server_state(self)),
        ];
        if let Some(fault) = &status.fault {
            pairs.push(("Fault", fault.to_string()));
            pairs.extend(fault.hint.clone().map(|hint| ("Hint", hint)));
        }
        if let Some(lock) = &status.lock {
            let why = if lock.why.is_empty() {
                String::new()
            } else {
                format!(": {}", lock.why)
            };
            pairs.push(("Locked", format!("by {} at {}{why}", lock.by.name, lock.at)));
        }
        if let Some(at) = status.purge_at {
            pairs.push(("Purged at", at.to_string()));
        }
        if let Some(crashes) = &status.crashes {
            let again = match crashes.restart_at {
                Some(at) if status.power == PowerState::Crashed => format!("; started again at {at}"),
                _ => String::new(),
            };
            let (count, last) = (crashes.count, crashes.last_at);
            pairs.push(("Crashes", format!("{count} in a row, the last at {last}{again}")));
        }
        if let Some(resize) = &status.resize {
            let until = match resize.confirm_at {
                Some(at) => format!("; confirmed by itself at {at}"),
                None => String::new(),
            };
            pairs.push(("Resized from", format!("{}{until}", resize.former.name)));
        }
        let pending = self.pending_restart();
        if !pending.is_empty() {
            pairs.push(("Pending a restart", pending.join(", ")));
        }
        if let Some(activity) = &status.activity {
            pairs.push(("Task", activity.task.to_string()));
        }
        let host = status.placement.as_ref().map(|p| p.host_name.to_string());
        pairs.extend([
            ("Host", host.unwrap_or_default()),
            ("Accelerator", status.accelerator.clone().unwrap_or_default()),
            ("Addresses", status.addresses.join("\n")),
            ("Hostname", self.spec.hostname.to_string()),
            (
                "Flavor",
                format!("{} ({})", flavor.name, size(flavor.spec.resources)),
            ),
            ("Image", self.spec.image.name.to_string()),
            (
                "Config drive",
                if self.spec.config_drive { "yes" } else { "no" }.into(),
            ),
            ("Keys", self.spec.ssh_keys.len().to_string()),
            ("Metadata", marks(&self.spec.metadata)),
            ("Labels", marks(&self.meta.labels)),
            (
                "Created",
                format!(
                    "{} ({} ago)",
                    self.meta.created_at.strftime("%Y-%m-%dT%H:%M:%SZ"),
                    age(now, self.meta.created_at)
                ),
            ),
        ]);
        pairs
    }
}

impl Row for Flavor {
    const HEAD: &'static [&'static str] = &["NAME", "VCPUS", "MEMORY", "DISK"];
    const WIDE: &'static [&'static str] = &["HOST LABELS", "ID"];
    fn cells(&self, _: Timestamp) -> Vec<String> {
        let resources = self.spec.resources;
        vec![
            self.meta.name.to_string(),
            resources.vcpus.to_string(),
            mib(resources.memory_mib),
            format!("{} GiB", resources.disk_gib),
            marks(&self.spec.host_labels),
            id(&self.meta),
        ]
    }
    fn name(&self) -> String {
        self.meta.name.to_string()
    }
}

impl Row for Image {
    const HEAD: &'static [&'static str] = &["NAME", "STATE", "FORMAT", "SIZE", "DISK", "AGE"];
    const WIDE: &'static [&'static str] = &["ARCHITECTURE", "PUBLIC", "SHA256", "SOURCE", "FAULT", "ID"];
    fn cells(&self, now: Timestamp) -> Vec<String> {
        let source = match &self.spec.source {
            ImageSource::Upload => "upload".to_owned(),
            ImageSource::Url { url } => url.clone(),
            ImageSource::Server { server } => format!("server {server}"),
            ImageSource::Volume { volume } => format!("volume {volume}"),
            ImageSource::Snapshot { snapshot, disk } => format!("disk {disk} of snapshot {snapshot}"),
        };
        let known = |count: u64| if count == 0 { String::new() } else { bytes(count) };
        let fault = self.status.fault.as_ref().map(ToString::to_string);
        vec![
            self.meta.name.to_string(),
            word(&self.status.state),
            self.spec.format.as_str().to_owned(),
            known(self.status.size_bytes),
            known(self.status.virtual_size_bytes),
            age(now, self.meta.created_at),
            self.spec.architecture.clone(),
            if self.spec.public { "yes" } else { "no" }.to_owned(),
            self.status.sha256.clone().unwrap_or_default(),
            source,
            fault.unwrap_or_default(),
            id(&self.meta),
        ]
    }
    fn name(&self) -> String {
        self.meta.name.to_string()
    }
}

impl Row for Keypair {
    const HEAD: &'static [&'static str] = &["NAME", "FINGERPRINT", "AGE"];
    const WIDE: &'static [&'static str] = &["PUBLIC KEY", "ID"];
    fn cells(&self, now: Timestamp) -> Vec<String> {
        vec![
            self.meta.name.to_string(),
            self.spec.fingerprint.clone(),
            age(now, self.meta.created_at),
            self.spec.public_key.clone(),
            id(&self.meta),
        ]
    }
    fn name(&self) -> String {
        self.meta.name.to_string()
    }
}

impl Row for Host {
    const HEAD: &'static [&'static str] = &[
        "NAME",
        "STATE",
        "VCPUS",
        "MEMORY",
        "DISK",
        "HYPERVISOR",
        "ACCELERATOR",
    ];
    const WIDE: &'static [&'static str] = &[
        "ARCHITECTURE",
        "ACCELERATOR REASON",
        "RATIOS",
        "LABELS",
        "AGE",
        "ID",
    ];
    fn cells(&self, now: Timestamp) -> Vec<String> {
        let mut state = String::from(match self.status.reachable {
            true => "up",
            false => "unreachable",
        });
        if self.status.certificate_expired {
            state.push_str(", certificate expired");
        }
        if !self.spec.enabled {
            let drained = self.spec.closed.as_ref().is_some_and(|closed| closed.drain);
            state.push_str(if drained { ", drained" } else { ", disabled" });
        }
        if self.spec.fenced.is_some() {
            state.push_str(", fenced");
        }
        let facts = self.status.facts.as_ref();
        let fact = |get: &dyn Fn(&skyloom_model::HostFacts) -> String| facts.map(get).unwrap_or_default();
        let spec = &self.spec;
        vec![
            self.meta.name.to_string(),
            state,
            fact(&|f| f.capacity.vcpus.to_string()),
            fact(&|f| mib(f.capacity.memory_mib)),
            fact(&|f| format!("{} GiB", f.capacity.disk_gib)),
            fact(&|f| format!("{} {}", f.hypervisor, f.hypervisor_version)),
            fact(&|f| f.accelerator.clone()),
            fact(&|f| f.architecture.clone()),
            fact(&|f| f.accelerator_reason.clone()),
            format!(
                "cpu {} memory {} disk {}",
                spec.cpu_ratio, spec.memory_ratio, spec.disk_ratio
            ),
            marks(&self.meta.labels),
            age(now, self.meta.created_at),
            id(&self.meta),
        ]
    }
    fn name(&self) -> String {
        self.meta.name.to_string()
    }
}

impl Row for Port {
    const HEAD: &'static [&'static str] = &["NAME", "KIND", "MAC", "ADDRESS", "BOUND", "SERVER"];
    const WIDE: &'static [&'static str] = &["GATEWAY", "DNS", "ID"];
    fn cells(&self, _: Timestamp) -> Vec<String> {
        let dns: Vec<String> = self.spec.dns.iter().map(ToString::to_string).collect();
        vec![
            self.meta.name.to_string(),
            word(&self.spec.kind),
            self.spec.mac.to_string(),
            format!("{}/{}", self.spec.address, self.spec.prefix_len),
            if self.status.bound { "yes" } else { "no" }.to_owned(),
            self.spec
                .server
                .map_or_else(|| "-".to_owned(), |server| server.to_string()),
            self.spec.gateway.map(|g| g.to_string()).unwrap_or_default(),
            dns.join(","),
            id(&self.meta),
        ]
    }
    fn name(&self) -> String {
        self.meta.name.to_string()
    }
}

impl Row for Task {
    const HEAD: &'static [&'static str] = &["ID", "FLOW", "SUBJECT", "STATE", "PROGRESS", "AGE"];
    const WIDE: &'static [&'static str] = &["ACTOR", "REASON", "REQUEST", "SCOPE"];
    fn cells(&self, now: Timestamp) -> Vec<String> {
        let percent = match self.progress.total {
            0 => String::new(),
            total => format!("{}%", u64::from(self.progress.done) * 100 / u64::from(total)),
        };
        let mut state = word(&self.state);
        if self.cancel && !self.state.rests() {
            state.push_str(" (cancelling)");
        }
        vec![
            self.id.to_string(),
            self.flow.clone(),
            self.subject.name.to_string(),
            state,
            percent,
            age(now, self.created_at),
            self.actor.name.clone(),
            self.reason.as_ref().map(ToString::to_string).unwrap_or_default(),
            self.request_id.clone(),
            scope(self.scope),
        ]
    }
    fn name(&self) -> String {
        self.id.to_string()
    }
    fn details(&self, now: Timestamp) -> Vec<(&'static str, String)> {
        let heads = Self::HEAD.iter().chain(Self::WIDE).copied();
        let mut pairs: Vec<_> = heads.zip(self.cells(now)).collect();
        pairs.push(("Priority", word(&self.priority)));
        let end = |at: Timestamp| at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        pairs.extend(self.deadline.map(|at| ("Deadline", end(at))));
        let orders: Vec<String> = self.orders.iter().map(|order| order_text(order, now)).collect();
        if !orders.is_empty() {
            pairs.push(("Orders", orders.join("\n")));
        }
        pairs
    }
}

fn order_text(order: &Order, now: Timestamp) -> String {
    let state = if order.carried_out { "carried out" } else { "open" };
    format!(
        "{} by {} {} ago: {} ({state})",
        word(&order.verb),
        order.by.name,
        age(now, order.at),
        order.why
    )
}

impl Row for Event {
    const HEAD: &'static [&'static str] = &["TIME", "KIND", "SUBJECT", "MESSAGE"];
    const WIDE: &'static [&'static str] = &["TASK", "REASON", "REQUEST", "SCOPE", "ID"];
    fn cells(&self, _: Timestamp) -> Vec<String> {
        vec![
            self.at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
            word(&self.kind),
            self.subject.name.to_string(),
            self.message.clone(),
            self.task.map(|task| task.to_string()).unwrap_or_default(),
            self.reason.as_ref().map(ToString::to_string).unwrap_or_default(),
            self.request_id.clone().unwrap_or_default(),
            scope(self.scope),
            self.id.to_string(),
        ]
    }
    fn name(&self) -> String {
        self.id.to_string()
    }
}

impl Row for Project {
    const HEAD: &'static [&'static str] = &["NAME", "ID", "DESCRIPTION", "AGE"];
    const WIDE: &'static [&'static str] = &["LABELS"];
    fn cells(&self, now: Timestamp) -> Vec<String> {
        vec![
            self.meta.name.to_string(),
            id(&self.meta),
            self.spec.description.clone(),
            age(now, self.meta.created_at),
            marks(&self.meta.labels),
        ]
    }
    fn name(&self) -> String {
        self.meta.name.to_string()
    }
}
