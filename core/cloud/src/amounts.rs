//! How much of what a resource takes of a project's quota.

use skyloom_identity::{Amounts, ResourceName};
use skyloom_model::Server;

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

/// What a server takes, with its ports.
pub(crate) fn of_server(server: &Server) -> Amounts {
    let resources = server.spec.flavor.spec.resources;
    of(&[
        ("servers", 1),
        ("vcpus", u64::from(resources.vcpus)),
        ("memory_mib", resources.memory_mib),
        ("ports", server.spec.ports.len() as u64),
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
