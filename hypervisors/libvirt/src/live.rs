//! What a running domain has now, read from libvirt's XML.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use skyloom_model::MacAddr;
use virt::domain::Domain;

use crate::errors::Fault;
use crate::xml;

#[derive(Debug, Deserialize)]
struct Definition {
    devices: Devices,
}

#[derive(Debug, Default, Deserialize)]
struct Devices {
    #[serde(default)]
    disk: Vec<Disk>,
    #[serde(default)]
    interface: Vec<Interface>,
}

#[derive(Debug, Deserialize)]
struct Disk {
    #[serde(default)]
    serial: String,
    source: Option<Source>,
    target: Target,
}

#[derive(Debug, Deserialize)]
struct Source {
    #[serde(rename = "@file")]
    file: Option<PathBuf>,
}

#[derive(Debug, Deserialize)]
struct Target {
    #[serde(rename = "@dev")]
    dev: String,
}

#[derive(Debug, Deserialize)]
struct Interface {
    mac: Mac,
}

#[derive(Debug, Deserialize)]
struct Mac {
    #[serde(rename = "@address")]
    address: String,
}

/// The devices of a running domain.
#[derive(Debug)]
pub(crate) struct Live(Devices);

impl Live {
    pub(crate) fn of(domain: &Domain) -> Result<Self, Fault> {
        Self::read(&domain.get_xml_desc(0)?)
    }

    fn read(xml: &str) -> Result<Self, Fault> {
        let read: Definition = quick_xml::de::from_str(xml).map_err(|e| Fault::Damaged(e.to_string()))?;
        Ok(Self(read.devices))
    }

    /// Device and file of the disk of this name.
    pub(crate) fn disk(&self, name: &str) -> Option<(&str, Option<&Path>)> {
        let disk = self.0.disk.iter().find(|d| d.serial == name)?;
        let file = disk.source.as_ref().and_then(|s| s.file.as_deref());
        Some((&disk.target.dev, file))
    }

    /// A device that no disk is.
    pub(crate) fn free_target(&self) -> Option<String> {
        let taken = |dev: &String| self.0.disk.iter().any(|d| d.target.dev == *dev);
        (0..26).map(xml::target).find(|dev| !taken(dev))
    }

    pub(crate) fn has_nic(&self, mac: MacAddr) -> bool {
        let mac = mac.to_string();
        self.0
            .interface
            .iter()
            .any(|nic| nic.mac.address.eq_ignore_ascii_case(&mac))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_found_by_what_they_are_and_odd_ones_do_no_harm() {
        let live = Live::read(
            "<domain type='qemu' id='3'><name>x</name><devices><emulator>/q</emulator>\
             <disk type='file' device='disk'><source file='/a&amp;b' index='2'/><target dev='vda' bus='virtio'/><serial>root</serial></disk>\
             <controller type='usb' model='none'/>\
             <disk type='file' device='cdrom'><target dev='vdb'/><readonly/></disk>\
             <interface type='user'><mac address='52:54:00:01:02:0A'/></interface>\
             <memballoon model='none'/></devices></domain>",
        )
        .unwrap();
        assert_eq!(live.disk("root"), Some(("vda", Some(Path::new("/a&b")))));
        assert_eq!(live.disk("other"), None);
        assert_eq!(live.free_target().as_deref(), Some("vdc"));
        assert!(live.has_nic(MacAddr::qemu([1, 2, 10])) && !live.has_nic(MacAddr::qemu([1, 2, 3])));
        assert!(Live::read("<domain/>").is_err());
    }
}
