//! What a [`crate::BridgeNetwork`] is made from.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use skyloom_model::NetworkId;

/// Configuration of a host's network. It works in the network namespace of its process.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct BridgeConfig {
    /// The directory of all records; made when it is not there. One network at a time may use it.
    pub dir: PathBuf,
    /// `ip` of iproute2.
    pub ip: PathBuf,
    /// `bridge` of iproute2.
    pub bridge: PathBuf,
    /// `nft` of nftables.
    pub nft: PathBuf,
    /// The user id that may open taps, when QEMU does not run as root.
    pub tap_user: Option<u32>,
    /// Devices that carry a network to other hosts (a VLAN, a VXLAN, …). They are made by the operator; here they are
    /// only plugged into their network's bridge while it has ports.
    pub uplinks: BTreeMap<NetworkId, String>,
    /// How long a tool may take.
    pub tool_timeout: Duration,
    /// How long a request for metadata may take, from its connection to its answer.
    pub request_timeout: Duration,
}

impl BridgeConfig {
    /// A configuration with Debian's paths.
    #[must_use]
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self {
            dir: dir.into(),
            ip: "/usr/sbin/ip".into(),
            bridge: "/usr/sbin/bridge".into(),
            nft: "/usr/sbin/nft".into(),
            tap_user: None,
            uplinks: BTreeMap::new(),
            tool_timeout: Duration::from_secs(20),
            request_timeout: Duration::from_secs(5),
        }
    }
    /// Taps for another user than root.
    #[must_use]
    pub const fn with_tap_user(mut self, user: Option<u32>) -> Self {
        self.tap_user = user;
        self
    }
    /// A way to other hosts for one network.
    #[must_use]
    pub fn with_uplink(mut self, network: NetworkId, device: impl Into<String>) -> Self {
        self.uplinks.insert(network, device.into());
        self
    }
    /// Another time for requests.
    #[must_use]
    pub const fn with_request_timeout(mut self, timeout: Duration) -> Self {
        self.request_timeout = timeout;
        self
    }
}
