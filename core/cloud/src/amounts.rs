//! How much of what a resource takes of a project's quota.

use skyloom_identity::{Amounts, ResourceName};
use skyloom_model::{FlavorSpec, Resources, Server};

/// So much of each of these.
pub(crate) fn of(counted: &[(&str, u64)]) -> Amounts {
    counted.iter().fold(Amounts::new(), |sum, (name, amount)| {
        match ResourceName::new(*name) {
            Ok(name) => sum.and(name, *amount),
            // They are written here.
            Err(_) => sum,
        }
    })
}

/// What a server takes. Ports are counted by themselves: a server may have some that outlive it.
pub(crate) fn of_server(server: &Server) -> Amounts {
    of(&[("servers", 1)]).plus(&of_size(server.reserved()))
}

/// What size alone takes; nothing for none.
pub(crate) fn of_size(size: Resources) -> Amounts {
    let counted = [("vcpus", u64::from(size.vcpus)), ("memory_mib", size.memory_mib)];
    let counted: Vec<_> = counted.into_iter().filter(|(_, amount)| *amount > 0).collect();
    of(&counted)
}

/// The same of one that is to be made, with so many ports of its own.
pub(crate) fn of_new_server(flavor: &FlavorSpec, ports: usize) -> Amounts {
    let resources = flavor.resources;
    of(&[
        ("servers", 1),
        ("vcpus", u64::from(resources.vcpus)),
        ("memory_mib", resources.memory_mib),
        ("ports", ports as u64),
    ])
}

/// What an image takes.
pub(crate) fn of_image() -> Amounts {
    of(&[("images", 1)])
}

/// What a keypair takes.
pub(crate) fn of_keypair() -> Amounts {
    of(&[("keypairs", 1)])
}

/// What a volume takes.
pub(crate) fn of_volume(size_gib: u64) -> Amounts {
    of(&[("volumes", 1), ("volume_gib", size_gib)])
}

/// What so many GiB more of a volume take.
pub(crate) fn of_growth(more_gib: u64) -> Amounts {
    of(&[("volume_gib", more_gib)])
}

/// What a snapshot takes.
pub(crate) fn of_snapshot() -> Amounts {
    of(&[("snapshots", 1)])
}

/// What so many ports take.
pub(crate) fn of_ports(ports: usize) -> Amounts {
    of(&[("ports", ports as u64)])
}

/// What a network takes.
pub(crate) fn of_network() -> Amounts {
    of(&[("networks", 1)])
}

/// What a subnet takes.
pub(crate) fn of_subnet() -> Amounts {
    of(&[("subnets", 1)])
}

/// What a security group takes, with its rules.
pub(crate) fn of_security_group(rules: usize) -> Amounts {
    of(&[("security_groups", 1), ("security_group_rules", rules as u64)])
}

/// What a rule takes.
pub(crate) fn of_rule() -> Amounts {
    of(&[("security_group_rules", 1)])
}
