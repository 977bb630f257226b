//! What a server's domain is made of: computed here from its records, for every flow. Nobody patches a domain by hand.
//!
//! ```text
//! Server (flavor, config drive, ports) + Port records ── definition ──> DefineInput ──> vm.define ──> VmSpec with the host's paths
//!                                                    └── applied ──> status.applied, once it runs
//! ```

use skyloom_flow::Records;
use skyloom_hypervisor::{ImageSpec, NicSpec};
use skyloom_model::{
    Applied, BootFile, DiskFormat, Port, ProjectId, RESCUE_DISK, RESCUE_SEED, Reason, RescueMedia,
    Resource as _, Scope, Server, Task, Volume, disk_of,
};
use skyloom_store::Key;
use uuid::Uuid;

use super::records::port_key;
use super::volume_records::{at, volume_key};
use super::wiring::wirings;
use crate::jobs::{BootInput, DefineInput, VolumeDisk};

/// The root disk's name.
pub(super) const ROOT: &str = "root";
/// The config drive's name.
pub(super) const SEED: &str = "seed";

/// The records beside the server that its definition is made of.
pub(super) fn definition_reads(task: &Task, server: &Server) -> Result<Vec<Key>, Reason> {
    let ports = server.spec.ports.iter().map(|port| port_key(task, *port));
    let volumes = server
        .status
        .volumes
        .iter()
        .map(|volume| volume_key(task, *volume));
    ports.chain(volumes).collect()
}

/// The domain. `stays`: there is one already, and no way back removes it.
pub(super) fn definition(
    task: &Task,
    server: &Server,
    records: &Records,
    stays: bool,
) -> Result<DefineInput, Reason> {
    let project = match server.meta.scope {
        Scope::Project(project) => project,
        Scope::System => ProjectId::from_uuid(Uuid::nil()),
    };
    let mut nics = Vec::with_capacity(server.spec.ports.len());
    for id in &server.spec.ports {
        let port: Port = records.need(&port_key(task, *id)?)?;
        nics.push(NicSpec {
            device: None,
            kind: port.spec.kind,
            mac: port.spec.mac,
        });
    }
    let mut volumes = Vec::with_capacity(server.status.volumes.len());
    for id in &server.status.volumes {
        let volume: Volume = records.need(&volume_key(task, *id)?)?;
        volumes.push(VolumeDisk {
            disk: disk_of(*id),
            at: at(&volume),
            limits: volume.spec.limits,
        });
    }
    let resources = server.spec.flavor.spec.resources;
    Ok(DefineInput {
        wirings: wirings(task, server, records)?,
        server: server.id(),
        project,
        name: server.meta.name.clone(),
        vcpus: resources.vcpus,
        memory_mib: resources.memory_mib,
        disks: disks(server),
        volumes,
        nics,
        boot: boot(server),
        stays,
    })
}

/// The name of the disk that the server's own system is on.
pub(super) fn root(server: &Server) -> String {
    if let Some(volume) = server.spec.boot_volume {
        return disk_of(volume);
    }
    server.status.root_disk.as_deref().unwrap_or(ROOT).to_owned()
}

/// Names of the disks that lie in the folder of the server's host: all but its volumes.
pub(super) fn own_disks(server: &Server) -> Vec<String> {
    let boots = server.spec.boot_volume.map(disk_of);
    let mut own = disks(server);
    own.retain(|disk| Some(disk) != boots.as_ref());
    own
}

/// Names of the disks, in device order. A rescue's disk comes before the server's own, its config drive behind them.
fn disks(server: &Server) -> Vec<String> {
    let mut disks = vec![root(server)];
    if server.spec.config_drive {
        disks.push(SEED.to_owned());
    }
    if let Some(rescue) = &server.spec.rescue {
        if matches!(rescue.media, RescueMedia::Image { .. }) {
            disks.insert(0, RESCUE_DISK.to_owned());
        }
        disks.push(RESCUE_SEED.to_owned());
    }
    disks
}

fn boot(server: &Server) -> BootInput {
    match server.spec.rescue.as_ref().map(|rescue| &rescue.media) {
        Some(RescueMedia::Kernel {
            kernel,
            initrd,
            command_line,
        }) => BootInput::Kernel {
            kernel: boot_file(kernel, DiskFormat::Kernel),
            initrd: initrd.as_ref().map(|file| boot_file(file, DiskFormat::Initrd)),
            command_line: command_line.clone(),
        },
        Some(RescueMedia::Image { .. }) | None => BootInput::FirstDisk,
    }
}

fn boot_file(file: &BootFile, format: DiskFormat) -> ImageSpec {
    ImageSpec {
        id: file.image.id,
        sha256: file.sha256.clone(),
        format,
        size_bytes: file.size_bytes,
    }
}

/// What a guest is made of that was turned on by the definition of now.
pub(super) fn applied(server: &Server) -> Applied {
    Applied {
        resources: server.spec.flavor.spec.resources,
        disks: {
            let others = server.status.volumes.iter();
            let others = others.filter(|volume| server.spec.boot_volume != Some(**volume));
            let own = disks(server).into_iter();
            own.chain(others.map(|volume| disk_of(*volume))).collect()
        },
        ports: server.spec.ports.clone(),
        drive_edition: server.status.drive_edition,
    }
}
