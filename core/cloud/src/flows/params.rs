//! What flows know beyond their subject: put into the task when it is asked for, so that planning needs no look-ups.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use skyloom_hypervisor::ImageSpec;
use skyloom_model::{
    DiskFormat, HostId, Image, ImageId, MacAddr, Name, NicKind, Port, PortId, Resource as _, ServerId,
    Timestamp, VolumeId,
};
use uuid::Uuid;

use super::volume::VolumeFrom;

/// Parameters of `server.create`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CreateParams {
    /// The image as it was when the server was asked for.
    /// None: it boots from a volume.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<BaseImage>,
    /// The CPU architecture of its system.
    pub architecture: String,
    /// The ports that were made with the server, in device order.
    pub ports: Vec<PortPlan>,
    /// Whether the server is turned on.
    pub start: bool,
    /// Volumes that are made with it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) volumes: Vec<NewVolume>,
    /// The only host that has all its volumes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) host: Option<HostId>,
    /// Labels of hosts that see the pools of its volumes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) pools: Vec<String>,
    /// Until when it waits for room, where no host has any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) room_until: Option<Timestamp>,
}

/// A volume that is made with a server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct NewVolume {
    /// Which.
    pub(crate) volume: VolumeId,
    /// What it is made of.
    pub(crate) from: VolumeFrom,
}

/// An active image's facts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BaseImage {
    /// Which image.
    pub id: ImageId,
    /// Its name.
    pub name: Name,
    /// SHA-256 of the file in lower-case hex.
    pub sha256: String,
    /// Its format.
    pub format: DiskFormat,
    /// Bytes of the file.
    pub size_bytes: u64,
    /// Bytes of the disk that it describes.
    pub virtual_size_bytes: u64,
}

impl BaseImage {
    /// Of an image whose content has been measured.
    #[must_use]
    pub fn of(image: &Image) -> Option<Self> {
        Some(Self {
            id: image.id(),
            name: image.meta.name.clone(),
            sha256: image.status.sha256.clone()?,
            format: image.spec.format,
            size_bytes: image.status.size_bytes,
            virtual_size_bytes: image.status.virtual_size_bytes,
        })
    }

    /// As hosts need it.
    #[must_use]
    pub fn spec(&self) -> ImageSpec {
        ImageSpec {
            id: self.id,
            sha256: self.sha256.clone(),
            format: self.format,
            size_bytes: self.size_bytes,
        }
    }
}

/// A port as the guest and the hypervisor need it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortPlan {
    /// Which port.
    pub id: PortId,
    /// How the NIC is made.
    pub kind: NicKind,
    /// Its MAC address.
    pub mac: MacAddr,
    /// Its address.
    pub address: IpAddr,
    /// Length of its network's prefix.
    pub prefix_len: u8,
    /// Its default gateway.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<IpAddr>,
    /// Its name servers.
    #[serde(default)]
    pub dns: Vec<IpAddr>,
}

impl PortPlan {
    /// The plan for a port.
    #[must_use]
    pub fn of(port: &Port) -> Self {
        Self {
            id: port.id(),
            kind: port.spec.kind,
            mac: port.spec.mac,
            address: port.spec.address,
            prefix_len: port.spec.prefix_len,
            gateway: port.spec.gateway,
            dns: port.spec.dns.clone(),
        }
    }
}

/// Parameters of `server.stop` and `server.reboot`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct StopParams {
    /// Off at once.
    pub force: bool,
    /// How long the guest may take.
    pub timeout_seconds: u32,
}

/// Parameters of `server.recycle`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecycleParams {
    /// How long it is kept in the recycle bin.
    pub keep_hours: u32,
    /// How long the guest may take to turn itself off.
    pub timeout_seconds: u32,
}

/// Parameters of `host.sweep`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SweepParams {
    /// Whether what belongs to nobody is removed; otherwise it is only named.
    pub remove: bool,
}

/// Parameters of `claim.release`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReleaseParams {
    /// Whose claims on the host are looked at.
    pub servers: Vec<ServerId>,
}

/// Parameters of `image.import`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImportParams {
    /// Under which id the content is staged, or will be.
    pub upload: Uuid,
    /// Where to fetch it; `None` when it was sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// The claimed format.
    pub format: DiskFormat,
    /// The SHA-256 that it must have, in lower-case hex.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
}
