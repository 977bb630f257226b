//! The effects: each job looks, makes one effect, looks again; and takes it back whether or not it ever happened.
//!
//! | kind | where | effect | undo |
//! | --- | --- | --- | --- |
//! | `image.cache` | host | the image is in the host's cache | nothing: the cache is everybody's |
//! | `image.send` | host | a volume's bytes are staged | nothing: `image.expect` drops them |
//! | `disk.overlay` | host | a server's disk exists | that disk is gone |
//! | `disk.seed` | host | the config drive exists | it is gone |
//! | `guest.set-password` | host | the agent in the guest has set it, if it answers | nothing: the one before is not known |
//! | `disk.delete` | host | one disk of a server is gone | nothing: deleted is deleted |
//! | `disk.delete_all` | host | nothing of the server is in the pool | nothing: deleted is deleted |
//! | `vm.define` | host | the domain exists | it is gone, unless it was there before |
//! | `vm.start` | host | the domain runs | it is off |
//! | `vm.stop` | host | the domain is off | nothing: a guest that was told to end has ended |
//! | `vm.halt` | host | the domain is off | it runs again, if it did |
//! | `vm.switch` | host | the domain, which is off, is made another way | it is made as it was |
//! | `vm.pause`, `vm.unpause` | host | the guest's CPUs are held, or go on | the other of the two |
//! | `vm.suspend`, `vm.resume` | host | the guest's memory is on disk, or it goes on with that | the other of the two |
//! | `vm.look` | host | none: what the domain is | nothing to undo |
//! | `volume.create` | host | a volume's file exists | it is gone |
//! | `volume.delete` | host | it is gone | nothing: deleted is deleted |
//! | `volume.grow` | host | a volume is at least so large | nothing: a disk is never made smaller |
//! | `volume.attach`, `volume.detach` | host | a domain has a volume's disk, or has not | the other of the two |
//! | `disk.grow` | host | a disk of a server is larger | nothing: disks never shrink |
//! | `volume.limit` | host | what a disk may do at most | what it might do before |
//! | `snapshot.take` | host | a snapshot is in the disks | it is not |
//! | `snapshot.revert` | host | the disks are as they were in it | nothing: what was written since is gone |
//! | `snapshot.forget` | host | no disk has anything of it | nothing: deleted is deleted |
//! | `nic.attach`, `nic.detach` | host | a domain has a port's NIC, or has not | the other of the two |
//! | `port.ensure` | host | ports are wired as the records say | nothing: the records say it |
//! | `port.remove` | host | nothing is left of ports | nothing: the next start plugs them in |
//! | `vm.undefine` | host | no domain exists | nothing: deleted is deleted |
//! | `vm.receive` | host | a domain waits for a guest's memory | it is gone; with all of the memory the guest is here |
//! | `vm.send` | host | a guest's memory goes out | it stays: the migration is cancelled |
//! | `vm.pass`, `vm.force` | host | the passes go on, or are made to end | nothing: the guest is still its host's |
//! | `vm.hand-over`, `vm.take-over` | host | the guest is the other host's; it runs there | none: both lead onward |
//! | `vm.half` | host | none: what one side of a migration knows | nothing to undo |
//! | `vm.leave` | host | nothing but disks is left of a server that has gone | it is there as before, if it can come back |
//! | `host.look` | host | none: what there is on the host | nothing to undo |
//! | `image.fetch` | engine | content is staged | nothing is staged |
//! | `image.expect` | engine | nothing is staged, something may come | nothing is staged |
//! | `image.inspect` | engine | none: facts of what is staged | nothing is staged |
//! | `image.publish` | engine | the image has content | it has none |
//! | `image.delete` | engine | the image has no content | nothing: deleted is deleted |

mod disk;
mod grow;
mod guest;
mod image_cache;
mod image_import;
mod image_save;
mod look;
mod migration;
mod nic;
mod plug;
mod port;
mod seed;
mod snapshot;
mod vm;
mod vm_hold;
mod volume;
mod way_back;

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use skyloom_flow::{JobError, JobRegistry};
use skyloom_hypervisor::{HostNetwork, HostStorage, Hypervisor};
use skyloom_image::Limits;
use skyloom_model::{HostId, ServerId};
use skyloom_store::DynBackend;

pub(crate) use grow::GrowDiskInput;
pub(crate) use guest::Told;
pub(crate) use image_cache::CacheInput;
pub(crate) use image_import::{DeleteImageInput, FetchInput, InspectInput, Inspected, PublishInput};
pub(crate) use image_save::{ExpectInput, SendInput};
pub(crate) use look::{Looked, Thing};
pub(crate) use migration::{DepartInput, HalfSeen, HandedOver, LeaveInput, Passed};
pub(crate) use nic::NicInput;
pub(crate) use port::{EnsurePortsInput, PortGone, RemovePortsInput};
pub(crate) use seed::{SeedInput, SeedOf};
pub(crate) use snapshot::{SnapshotInput, Taken, Target};
pub(crate) use vm::{BootInput, DefineInput, Started, StopInput, UndefineInput, VolumeDisk};
pub(crate) use vm_hold::Seen;
pub(crate) use volume::{GrowInput, Measured, PlaceInput, keeps_snapshots};
pub(crate) use way_back::{DeleteDiskInput, HaltInput, SwitchInput};

use crate::{ImageContent, ImageFetch, ImageRepo};

/// What jobs on a host work with.
#[derive(Debug, Clone)]
pub struct HostParts {
    /// Which host.
    pub host: HostId,
    /// Its virtual machines.
    pub hypervisor: Arc<dyn Hypervisor>,
    /// Its disks.
    pub storage: Arc<dyn HostStorage>,
    /// Its network, if it can plug guests into any but the user network.
    pub network: Option<Arc<dyn HostNetwork>>,
    /// Where image content comes from.
    pub content: Arc<dyn ImageContent>,
    /// Where lent secrets lie.
    pub backend: DynBackend,
}

/// What jobs in an engine work with.
#[derive(Debug, Clone)]
pub struct EngineParts {
    /// Where image content is kept.
    pub images: Arc<dyn ImageRepo>,
    /// Fetches what users name by URL.
    pub fetch: Arc<dyn ImageFetch>,
    /// What an image may be at most.
    pub limits: Limits,
}

/// The jobs that a host's agent does.
#[must_use]
pub fn host_jobs(parts: &HostParts) -> JobRegistry {
    let verbs = [
        vm_hold::Verb::Pause,
        vm_hold::Verb::Unpause,
        vm_hold::Verb::Suspend,
        vm_hold::Verb::Resume,
    ];
    let held = verbs.into_iter().fold(JobRegistry::new(), |jobs, verb| {
        jobs.with(vm_hold::HoldGuest {
            verb,
            hypervisor: parts.hypervisor.clone(),
        })
    });
    let goes = [
        migration::Verb::Send,
        migration::Verb::Pass,
        migration::Verb::Force,
        migration::Verb::HandOver,
    ];
    let held = goes.into_iter().fold(held, |jobs, verb| {
        jobs.with(migration::Go {
            verb,
            hypervisor: parts.hypervisor.clone(),
        })
    });
    let parts_of_volumes = volume::VolumeParts {
        hypervisor: parts.hypervisor.clone(),
        storage: parts.storage.clone(),
    };
    let held = held
        .with(volume::Create(parts_of_volumes.clone()))
        .with(volume::Delete(parts_of_volumes.clone()))
        .with(volume::Grow(parts_of_volumes.clone()))
        .with(volume::Attach(parts_of_volumes.clone()))
        .with(volume::Detach(parts_of_volumes.clone()))
        .with(volume::Limit(parts_of_volumes.clone()))
        .with(snapshot::Take(parts_of_volumes.clone()))
        .with(snapshot::Revert(parts_of_volumes.clone()))
        .with(snapshot::Forget(parts_of_volumes));
    let parts_of_nics = nic::NicParts {
        hypervisor: parts.hypervisor.clone(),
        network: parts.network.clone(),
    };
    let held = held
        .with(nic::Attach(parts_of_nics.clone()))
        .with(nic::Detach(parts_of_nics));
    held.with(vm_hold::LookAtGuest {
        hypervisor: parts.hypervisor.clone(),
    })
    .with(image_cache::CacheImage {
        storage: parts.storage.clone(),
        content: parts.content.clone(),
    })
    .with(image_save::Send {
        storage: parts.storage.clone(),
        content: parts.content.clone(),
    })
    .with(disk::Overlay {
        storage: parts.storage.clone(),
    })
    .with(disk::DeleteAll {
        hypervisor: parts.hypervisor.clone(),
        storage: parts.storage.clone(),
    })
    .with(look::Look {
        hypervisor: parts.hypervisor.clone(),
        storage: parts.storage.clone(),
    })
    .with(seed::Seed {
        host: parts.host,
        storage: parts.storage.clone(),
        backend: parts.backend.clone(),
    })
    .with(guest::SetPassword {
        host: parts.host,
        hypervisor: parts.hypervisor.clone(),
        backend: parts.backend.clone(),
    })
    .with(port::Ensure {
        network: parts.network.clone(),
    })
    .with(port::Remove {
        network: parts.network.clone(),
    })
    .with(define(parts))
    .with(vm::Start {
        hypervisor: parts.hypervisor.clone(),
    })
    .with(vm::Stop {
        hypervisor: parts.hypervisor.clone(),
    })
    .with(vm::Undefine {
        hypervisor: parts.hypervisor.clone(),
    })
    .with(way_back::Halt(vm::Stop {
        hypervisor: parts.hypervisor.clone(),
    }))
    .with(way_back::Switch(define(parts)))
    .with(migration::Receive(define(parts)))
    .with(migration::TakeOver(parts.hypervisor.clone()))
    .with(migration::LookAtHalf(parts.hypervisor.clone()))
    .with(migration::Leave(define(parts)))
    .with(grow::GrowDisk {
        hypervisor: parts.hypervisor.clone(),
    })
    .with(way_back::DeleteDisk {
        storage: parts.storage.clone(),
    })
}

/// What makes domains of this host.
fn define(parts: &HostParts) -> vm::Define {
    vm::Define {
        hypervisor: parts.hypervisor.clone(),
        storage: parts.storage.clone(),
        network: parts.network.clone(),
    }
}

/// The jobs that an engine does.
#[must_use]
pub fn engine_jobs(parts: &EngineParts) -> JobRegistry {
    JobRegistry::new()
        .with(image_import::Fetch {
            images: parts.images.clone(),
            fetch: parts.fetch.clone(),
        })
        .with(image_save::Expect {
            images: parts.images.clone(),
        })
        .with(image_import::Inspect {
            images: parts.images.clone(),
            limits: parts.limits,
        })
        .with(image_import::Publish {
            images: parts.images.clone(),
        })
        .with(image_import::Delete {
            images: parts.images.clone(),
        })
}

/// Input of jobs that need nothing but the server: `vm.start`, `disk.delete_all`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ServerInput {
    /// Which server.
    pub(crate) server: ServerId,
}

/// A host's error as a job's.
fn host_error(error: skyloom_hypervisor::Error) -> JobError {
    JobError(error.reason())
}
