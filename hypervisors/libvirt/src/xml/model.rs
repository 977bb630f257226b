//! The elements of libvirt's domain XML that we write, as a serializer needs them.

use serde::Serialize;

use crate::kept::Element;

#[derive(Debug, Serialize)]
pub(super) struct Empty {}

#[derive(Debug, Serialize)]
pub(super) struct Named {
    #[serde(rename = "@name")]
    pub(super) name: &'static str,
}

#[derive(Debug, Serialize)]
pub(super) struct Typed {
    #[serde(rename = "@type")]
    pub(super) kind: &'static str,
}

#[derive(Debug, Serialize)]
#[serde(rename = "domain")]
pub(super) struct Domain {
    #[serde(rename = "@type")]
    pub(super) kind: &'static str,
    #[serde(rename = "@xmlns:qemu", skip_serializing_if = "Option::is_none")]
    pub(super) qemu: Option<&'static str>,
    pub(super) name: String,
    pub(super) uuid: String,
    pub(super) metadata: Metadata,
    pub(super) memory: Memory,
    pub(super) vcpu: u32,
    pub(super) os: Os,
    pub(super) features: Features,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) cpu: Option<Mode>,
    pub(super) clock: Clock,
    pub(super) on_poweroff: &'static str,
    pub(super) on_reboot: &'static str,
    pub(super) on_crash: &'static str,
    pub(super) devices: Devices,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) seclabel: Option<Typed>,
    #[serde(rename = "qemu:commandline", skip_serializing_if = "Option::is_none")]
    pub(super) commandline: Option<CommandLine>,
}

/// What QEMU is told beside what libvirt tells it.
#[derive(Debug, Serialize)]
pub(super) struct CommandLine {
    #[serde(rename = "qemu:arg")]
    pub(super) args: Vec<Arg>,
}

#[derive(Debug, Serialize)]
pub(super) struct Arg {
    #[serde(rename = "@value")]
    pub(super) value: &'static str,
}

#[derive(Debug, Serialize)]
pub(super) struct Metadata {
    pub(super) domain: Element,
}

#[derive(Debug, Serialize)]
pub(super) struct Memory {
    #[serde(rename = "@unit")]
    pub(super) unit: &'static str,
    #[serde(rename = "$text")]
    pub(super) amount: u64,
}

#[derive(Debug, Serialize)]
pub(super) struct Os {
    #[serde(rename = "type")]
    pub(super) machine: Machine,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) kernel: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) initrd: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) cmdline: Option<String>,
}

#[derive(Debug, Serialize)]
pub(super) struct Machine {
    #[serde(rename = "@arch", skip_serializing_if = "Option::is_none")]
    pub(super) arch: Option<&'static str>,
    #[serde(rename = "@machine", skip_serializing_if = "Option::is_none")]
    pub(super) machine: Option<&'static str>,
    #[serde(rename = "$text")]
    pub(super) kind: &'static str,
}

#[derive(Debug, Serialize)]
pub(super) struct Features {
    pub(super) acpi: Empty,
    pub(super) apic: Empty,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) vmport: Option<Switch>,
}

#[derive(Debug, Serialize)]
pub(super) struct Switch {
    #[serde(rename = "@state")]
    pub(super) state: &'static str,
}

#[derive(Debug, Serialize)]
pub(super) struct Mode {
    #[serde(rename = "@mode")]
    pub(super) mode: &'static str,
}

#[derive(Debug, Serialize)]
pub(super) struct Clock {
    #[serde(rename = "@offset")]
    pub(super) offset: &'static str,
}

#[derive(Debug, Serialize)]
pub(super) struct Devices {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) emulator: Option<String>,
    pub(super) disk: Vec<Disk>,
    pub(super) controller: Vec<Controller>,
    pub(super) interface: Vec<Interface>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) serial: Option<Serial>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) channel: Option<Channel>,
    pub(super) video: Video,
    pub(super) memballoon: Model,
}

#[derive(Debug, Serialize)]
#[serde(rename = "disk")]
pub(super) struct Disk {
    #[serde(rename = "@type")]
    pub(super) kind: &'static str,
    #[serde(rename = "@device")]
    pub(super) device: &'static str,
    pub(super) driver: Driver,
    pub(super) source: FileSource,
    #[serde(rename = "backingStore")]
    pub(super) below: Below,
    pub(super) target: Target,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) iotune: Option<IoTune>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) readonly: Option<Empty>,
    pub(super) serial: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) boot: Option<Order>,
}

#[derive(Debug, Serialize)]
pub(super) struct Driver {
    #[serde(rename = "@name")]
    pub(super) name: &'static str,
    #[serde(rename = "@type")]
    pub(super) format: &'static str,
    #[serde(rename = "@discard")]
    pub(super) discard: &'static str,
}

#[derive(Debug, Serialize)]
pub(super) struct FileSource {
    #[serde(rename = "@file")]
    pub(super) file: String,
}

/// The file below a disk; an empty element is the end of the chain.
#[derive(Debug, Serialize)]
pub(super) struct Below {
    #[serde(rename = "@type", skip_serializing_if = "Option::is_none")]
    pub(super) kind: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) format: Option<Typed>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) source: Option<FileSource>,
    #[serde(rename = "backingStore", skip_serializing_if = "Option::is_none")]
    pub(super) below: Option<Empty>,
}

#[derive(Debug, Serialize)]
pub(super) struct Target {
    #[serde(rename = "@dev")]
    pub(super) dev: String,
    #[serde(rename = "@bus")]
    pub(super) bus: &'static str,
}

#[derive(Debug, Serialize)]
pub(super) struct IoTune {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) total_bytes_sec: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) total_iops_sec: Option<u64>,
}

#[derive(Debug, Serialize)]
pub(super) struct Order {
    #[serde(rename = "@order")]
    pub(super) order: u32,
}

#[derive(Debug, Serialize)]
pub(super) struct Controller {
    #[serde(rename = "@type")]
    pub(super) kind: &'static str,
    #[serde(rename = "@model")]
    pub(super) model: &'static str,
}

#[derive(Debug, Serialize)]
#[serde(rename = "interface")]
pub(super) struct Interface {
    #[serde(rename = "@type")]
    pub(super) kind: &'static str,
    pub(super) mac: Address,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) target: Option<Tap>,
    pub(super) model: Typed,
    pub(super) rom: Enabled,
}

#[derive(Debug, Serialize)]
pub(super) struct Address {
    #[serde(rename = "@address")]
    pub(super) address: String,
}

#[derive(Debug, Serialize)]
pub(super) struct Tap {
    #[serde(rename = "@dev")]
    pub(super) dev: String,
    #[serde(rename = "@managed")]
    pub(super) managed: &'static str,
}

#[derive(Debug, Serialize)]
pub(super) struct Enabled {
    #[serde(rename = "@enabled")]
    pub(super) enabled: &'static str,
}

#[derive(Debug, Serialize)]
pub(super) struct Serial {
    #[serde(rename = "@type")]
    pub(super) kind: &'static str,
    pub(super) source: Log,
    pub(super) target: SerialTarget,
}

#[derive(Debug, Serialize)]
pub(super) struct Log {
    #[serde(rename = "@path")]
    pub(super) path: String,
    #[serde(rename = "@append")]
    pub(super) append: &'static str,
}

#[derive(Debug, Serialize)]
pub(super) struct SerialTarget {
    #[serde(rename = "@type")]
    pub(super) kind: &'static str,
    #[serde(rename = "@port")]
    pub(super) port: u32,
    pub(super) model: Named,
}

#[derive(Debug, Serialize)]
pub(super) struct Channel {
    #[serde(rename = "@type")]
    pub(super) kind: &'static str,
    pub(super) target: ChannelTarget,
}

#[derive(Debug, Serialize)]
pub(super) struct ChannelTarget {
    #[serde(rename = "@type")]
    pub(super) kind: &'static str,
    #[serde(rename = "@name")]
    pub(super) name: &'static str,
}

#[derive(Debug, Serialize)]
pub(super) struct Video {
    pub(super) model: Typed,
}

#[derive(Debug, Serialize)]
pub(super) struct Model {
    #[serde(rename = "@model")]
    pub(super) model: &'static str,
}
