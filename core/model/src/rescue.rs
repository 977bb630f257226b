//! Rescue: another launch of the same server, with the same ports and with its own disks as data.

use serde::{Deserialize, Serialize};

use crate::{ImageRef, PowerState, Timestamp};

/// A rescue as it is wanted. It stands in the server's record, so that every start of the server while it is there boots
/// the rescue system, on whatever host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Rescue {
    /// What is booted.
    pub media: RescueMedia,
    /// What the server was before: it is that again afterwards.
    pub former_power: PowerState,
    /// When it was asked for.
    pub since: Timestamp,
    /// When it ends by itself, if it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
}

/// What a rescue boots.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "type")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum RescueMedia {
    /// A fresh disk over an image, before the server's own disks.
    Image {
        /// Which.
        image: ImageRef,
    },
    /// A kernel that the host loads into the guest's memory; no disk is added.
    Kernel {
        /// The kernel.
        kernel: BootFile,
        /// The first file system.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        initrd: Option<BootFile>,
        /// The kernel's command line.
        command_line: String,
    },
}

/// A file that a host loads into a guest's memory: the content of an image of raw format, as it was when it was asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct BootFile {
    /// Which image.
    pub image: ImageRef,
    /// SHA-256 of the file in lower-case hex: a host loads nothing else.
    pub sha256: String,
    /// Its size in bytes.
    pub size_bytes: u64,
}

/// Name of the rescue system's disk in a server.
pub const RESCUE_DISK: &str = "rescue";
/// Name of the rescue system's config drive in a server.
pub const RESCUE_SEED: &str = "rescue-seed";
