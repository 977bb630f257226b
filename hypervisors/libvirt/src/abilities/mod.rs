//! The optional abilities. Verbs take the domain's locks and run to their end, as the others do.

mod holding;
mod hotplug;
mod inside;
mod moving;
mod record;
mod snapshots;

use skyloom_hypervisor::Result;
use skyloom_model::ServerId;

use crate::errors::Fault;
use crate::state::Seen;

/// Whether a guest has the disks open.
fn has_guest(operation: &'static str, id: ServerId, seen: Seen) -> Result<bool> {
    match seen {
        Seen::Up | Seen::Held => Ok(true),
        Seen::Off(_) => Ok(false),
        _ => Err(Fault::Conflict("its guest is neither on nor off").of(operation, id)),
    }
}
