//! Names of devices and of what belongs to them, made of ids.
//!
//! A device's name has at most 15 characters, an id 32 digits: the name takes the id's last twelve, which are random, and
//! the device's alias the whole id, by which a chance meeting of two names is noticed.

use skyloom_model::{Id, MacAddr, NetworkId, PortId};

/// Taps begin so: what is not wired yet is dropped by this name.
pub(crate) const TAP: &str = "skt";
/// Bridges begin so.
pub(crate) const BRIDGE: &str = "skb";
/// The bridge's ends of the ways to the services begin so.
pub(crate) const SERVICE: &str = "skv";
/// The services' device in their namespace.
pub(crate) const INNER: &str = "eth0";
/// The services' MAC address in every network.
pub(crate) const SERVICE_MAC: MacAddr = MacAddr([0x02, 0x53, 0x4b, 0xa9, 0xfe, 0xfe]);

fn tail<K: ?Sized>(id: Id<K>) -> String {
    let digits = id.uuid().simple().to_string();
    digits[digits.len() - 12..].to_owned()
}

/// A port's tap.
pub(crate) fn tap(port: PortId) -> String {
    format!("{TAP}{}", tail(port))
}
/// What a port's tap says of itself.
pub(crate) fn tap_alias(port: PortId) -> String {
    format!("skyloom port {port}")
}
/// The host's MAC address of a tap: never the guest's.
pub(crate) fn tap_mac(guest: MacAddr) -> MacAddr {
    let [_, b, c, d, e, f] = guest.0;
    MacAddr([0xfe, b, c, d, e, f])
}
/// A network's bridge.
pub(crate) fn bridge(network: NetworkId) -> String {
    format!("{BRIDGE}{}", tail(network))
}
/// What a network's devices say of themselves.
pub(crate) fn network_alias(network: NetworkId) -> String {
    format!("skyloom network {network}")
}
/// A bridge's MAC address: it must not change with its ports.
pub(crate) fn bridge_mac(network: NetworkId) -> MacAddr {
    let bytes = network.uuid().into_bytes();
    MacAddr([0x06, bytes[11], bytes[12], bytes[13], bytes[14], bytes[15]])
}
/// The bridge's end of the way to a network's services.
pub(crate) fn service(network: NetworkId) -> String {
    format!("{SERVICE}{}", tail(network))
}
/// The network namespace of a network's services.
pub(crate) fn namespace(network: NetworkId) -> String {
    format!("skyloom-{network}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use skyloom_hypervisor::conformance::exam_wiring;

    #[test]
    fn names_fit_and_differ() {
        let (one, two) = (exam_wiring(1, 1), exam_wiring(2, 2));
        for w in [&one, &two] {
            for name in [tap(w.port), bridge(w.network.id), service(w.network.id)] {
                assert_eq!(name.len(), 15, "{name}");
                assert!(name.bytes().all(|b| b.is_ascii_alphanumeric()), "{name}");
            }
            assert_eq!(
                bridge_mac(w.network.id).0[0] & 3,
                2,
                "unicast, locally administered"
            );
            assert_eq!(tap_mac(w.mac).0[0] & 1, 0);
        }
        assert_ne!(tap(one.port), tap(two.port));
        assert_ne!(bridge(one.network.id), bridge(two.network.id));
    }
}
