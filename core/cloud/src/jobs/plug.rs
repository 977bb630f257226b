//! What jobs share that change the devices of a domain, running or not.

use skyloom_flow::{JobError, Undo};
use skyloom_hypervisor::{ErrorKind, Hotplug, Hypervisor, Inspection};
use skyloom_model::ServerId;

use super::host_error;
use super::vm::cannot_tell;

/// Whether a guest has its devices in use. When nobody can tell, nothing is done.
pub(super) async fn executes(hypervisor: &dyn Hypervisor, server: ServerId) -> Result<bool, JobError> {
    match hypervisor.inspect(server).await.map_err(host_error)? {
        Inspection::Found { power, .. } => Ok(power.may_execute()),
        Inspection::Absent => Ok(false),
        Inspection::CannotTell { reason } => Err(cannot_tell(&reason)),
    }
}

/// Devices that come and go; nothing where there is no such ability and none is needed.
pub(super) async fn hotplug(
    hypervisor: &dyn Hypervisor,
    server: ServerId,
) -> Result<Option<&dyn Hotplug>, JobError> {
    match hypervisor.as_hotplug() {
        Some(hotplug) => Ok(Some(hotplug)),
        None if !executes(hypervisor, server).await? => Ok(None),
        None => Err(JobError::permanent(
            ErrorKind::Unsupported.code(),
            "the host's hypervisor changes no devices of a running guest: turn it off first",
        )),
    }
}

/// What is not there needs no change.
pub(super) fn or_absent(done: skyloom_hypervisor::Result<()>) -> Result<(), JobError> {
    match done {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        done => done.map_err(host_error),
    }
}

/// What was undone, unless the domain belongs to a newer order.
pub(super) fn undone(done: Result<(), JobError>) -> Result<Undo, JobError> {
    match done {
        Ok(()) => Ok(Undo::Undone),
        Err(error) if error.0.code == ErrorKind::Stale.code() => {
            Ok(Undo::Moot("the domain belongs to a newer order".to_owned()))
        }
        Err(error) => Err(error),
    }
}
