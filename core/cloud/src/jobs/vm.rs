//! `vm.define`, `vm.start`, `vm.stop`, `vm.undefine`.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use skyloom_flow::{Job, JobContext, JobError, Undo};
use skyloom_hypervisor::{
    Boot, DiskSpec, ErrorKind, HostStorage, Hypervisor, ImageSpec, Inspection, NicSpec, PortWiring, StopMode,
    Stopped, VmSpec, VolumeAt, is_seed,
};
use skyloom_model::ablation::{Rule, kept};
use skyloom_model::{IoLimits, Name, PowerState, ProjectId, ServerId};

use super::port::{self, PortGone};
use super::{ServerInput, host_error};

/// Input of `vm.define`: the domain without its generation (the job's) and its paths (the host's).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct DefineInput {
    /// Which server.
    pub(crate) server: ServerId,
    /// Whose.
    pub(crate) project: ProjectId,
    /// Its name.
    pub(crate) name: Name,
    /// Virtual CPUs.
    pub(crate) vcpus: u32,
    /// Memory in MiB.
    pub(crate) memory_mib: u64,
    /// Names of its disks in device order.
    pub(crate) disks: Vec<String>,
    /// Its volumes, behind them; one that is named among the disks has its place there.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) volumes: Vec<VolumeDisk>,
    /// Its NICs in device order.
    pub(crate) nics: Vec<NicSpec>,
    /// What the host's network must know of those that are in networks.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) wirings: Vec<PortWiring>,
    /// What it boots.
    #[serde(default)]
    pub(crate) boot: BootInput,
    /// There is one already, which no way back removes.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) stays: bool,
}

/// What a domain boots: files by their content, found in the host's cache.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "from")]
pub(crate) enum BootInput {
    /// Its first disk.
    #[default]
    FirstDisk,
    /// A kernel.
    Kernel {
        /// Which.
        kernel: ImageSpec,
        /// With which first file system.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        initrd: Option<ImageSpec>,
        /// With which command line.
        command_line: String,
    },
}

/// A volume as a disk of a domain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct VolumeDisk {
    /// Name of the disk.
    pub(crate) disk: String,
    /// The volume.
    pub(crate) at: VolumeAt,
    /// What it may do, at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) limits: Option<IoLimits>,
}

/// Makes a domain.
#[derive(Debug)]
pub(super) struct Define {
    pub(super) hypervisor: Arc<dyn Hypervisor>,
    pub(super) storage: Arc<dyn HostStorage>,
    pub(super) network: port::Network,
}

impl Define {
    /// The domain with the paths that the pool has for its disks.
    pub(super) async fn spec(&self, input: DefineInput, generation: u64) -> Result<VmSpec, JobError> {
        let there = self.storage.disks(input.server).await.map_err(host_error)?;
        let (mut disks, mut volumes) = (Vec::with_capacity(input.disks.len()), input.volumes);
        for name in input.disks {
            if let Some(at) = volumes.iter().position(|volume| volume.disk == name) {
                disks.push(self.volume(volumes.remove(at)).await?);
                continue;
            }
            let Some(disk) = there.iter().find(|d| d.name == name) else {
                let message = format!("the disk {name} of server {} is not in the pool", input.server);
                return Err(JobError::permanent("host.disk_missing", message));
            };
            disks.push(DiskSpec {
                limits: None,
                read_only: is_seed(&name),
                name,
                path: disk.path.clone(),
                format: disk.format,
                backing_format: disk.backing_format,
            });
        }
        for volume in volumes {
            disks.push(self.volume(volume).await?);
        }
        let mut nics = input.nics;
        port::plug(&self.network, &input.wirings, &mut nics).await?;
        Ok(VmSpec {
            boot: self.boot(input.boot).await?,
            id: input.server,
            project: input.project,
            generation,
            name: input.name,
            vcpus: input.vcpus,
            memory_mib: input.memory_mib,
            disks,
            nics,
        })
    }
}

#[async_trait]
impl Job for Define {
    fn kind(&self) -> &'static str {
        "vm.define"
    }

    async fn run(&self, cx: &JobContext<'_>) -> Result<Value, JobError> {
        self.ensure(cx.input()?, cx.record.generation).await
    }

    async fn undo(&self, cx: &JobContext<'_>) -> Result<Undo, JobError> {
        let input: DefineInput = cx.input()?;
        if input.stays {
            return Ok(Undo::Moot("the next start defines it anew".to_owned()));
        }
        let undone = undefine(&*self.hypervisor, input.server, cx.record.generation).await?;
        let ports: Vec<PortGone> = input.wirings.iter().map(PortGone::of).collect();
        if self.network.is_some() {
            port::unplug(&self.network, &ports).await?;
        }
        Ok(undone)
    }
}

impl Define {
    async fn boot(&self, input: BootInput) -> Result<Boot, JobError> {
        let BootInput::Kernel {
            kernel,
            initrd,
            command_line,
        } = input
        else {
            return Ok(Boot::FirstDisk);
        };
        let initrd = match initrd {
            Some(file) => Some(self.cached(&file).await?),
            None => None,
        };
        Ok(Boot::Kernel {
            kernel: self.cached(&kernel).await?,
            initrd,
            command_line,
        })
    }

    async fn cached(&self, file: &ImageSpec) -> Result<PathBuf, JobError> {
        match self.storage.cached_image(file).await.map_err(host_error)? {
            Some(there) => Ok(there.path),
            None => Err(JobError::permanent(
                "host.file_missing",
                format!("the image {} is not in the host's cache", file.id),
            )),
        }
    }

    async fn volume(&self, volume: VolumeDisk) -> Result<DiskSpec, JobError> {
        let there = self.storage.volume(&volume.at).await.map_err(host_error)?;
        let Some(info) = there else {
            let message = format!("the volume {} is not in the host's pool", volume.at.volume);
            return Err(JobError::permanent("host.volume_missing", message));
        };
        Ok(DiskSpec {
            name: volume.disk,
            path: info.path,
            format: info.format,
            backing_format: None,
            read_only: false,
            limits: volume.limits,
        })
    }

    /// Ensures that the domain is as `input` says, and looks.
    pub(super) async fn ensure(&self, input: DefineInput, generation: u64) -> Result<Value, JobError> {
        let spec = self.spec(input, generation).await?;
        self.hypervisor.define(&spec).await.map_err(host_error)?;
        match self.hypervisor.inspect(spec.id).await.map_err(host_error)? {
            Inspection::Found { generation, .. } if generation == spec.generation => Ok(json!({})),
            Inspection::Found { generation, .. } => Err(JobError::permanent(
                "host.stale_order",
                format!(
                    "the domain is of generation {generation}, not {}",
                    spec.generation
                ),
            )),
            Inspection::Absent => Err(JobError::transient(
                "host.not_found",
                "the domain is not there after it was defined",
            )),
            Inspection::CannotTell { reason } => Err(cannot_tell(&reason)),
        }
    }
}

/// What `vm.start` gives.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Started {
    /// What was seen after the start.
    pub(crate) power: PowerState,
    /// How the CPU is run, and why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) accelerator: Option<String>,
}

/// Turns a domain on.
#[derive(Debug)]
pub(super) struct Start {
    pub(super) hypervisor: Arc<dyn Hypervisor>,
}

impl Start {
    /// Whether the domain runs under this order. When nobody can tell, nothing is started.
    async fn runs(&self, server: ServerId, wanted: u64) -> Result<bool, JobError> {
        match self.hypervisor.inspect(server).await.map_err(host_error)? {
            Inspection::Found { generation, power } => {
                Ok(generation == wanted && power == PowerState::Running)
            }
            Inspection::Absent => Ok(false),
            Inspection::CannotTell { reason } => Err(cannot_tell(&reason)),
        }
    }
}

#[async_trait]
impl Job for Start {
    fn kind(&self) -> &'static str {
        "vm.start"
    }

    async fn run(&self, cx: &JobContext<'_>) -> Result<Value, JobError> {
        let ServerInput { server } = cx.input()?;
        let wanted = cx.record.generation;
        let power = if kept(Rule::ObserveBeforeAct) && self.runs(server, wanted).await? {
            PowerState::Running
        } else {
            cx.may_act()?;
            self.hypervisor.start(server, wanted).await.map_err(host_error)?;
            match self.hypervisor.inspect(server).await.map_err(host_error)? {
                // A guest may well have ended again by itself.
                Inspection::Found { power, .. } => power,
                // The start was confirmed; it can only have been removed since, or be silent for a moment.
                Inspection::Absent => PowerState::Stopped,
                Inspection::CannotTell { .. } => PowerState::Running,
            }
        };
        let facts = self.hypervisor.facts().await.ok();
        let accelerator = facts.map(|f| match f.accelerator_reason.as_str() {
            "" => f.accelerator,
            why => format!("{} ({why})", f.accelerator),
        });
        cx.output(&Started { power, accelerator })
    }

    async fn undo(&self, cx: &JobContext<'_>) -> Result<Undo, JobError> {
        let ServerInput { server } = cx.input()?;
        match self
            .hypervisor
            .stop(server, cx.record.generation, StopMode::Force)
            .await
        {
            Ok(Stopped::AlreadyOff) => Ok(Undo::Moot("it was off".to_owned())),
            Ok(_) => Ok(Undo::Undone),
            Err(error) => newer_or(error),
        }
    }
}

/// Input of `vm.stop`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct StopInput {
    /// Which server.
    pub(crate) server: ServerId,
    /// Off at once.
    pub(crate) force: bool,
    /// How long the guest may take otherwise.
    pub(crate) timeout_seconds: u32,
}

/// Turns a domain off.
#[derive(Debug)]
pub(super) struct Stop {
    pub(super) hypervisor: Arc<dyn Hypervisor>,
}

#[async_trait]
impl Job for Stop {
    fn kind(&self) -> &'static str {
        "vm.stop"
    }

    async fn run(&self, cx: &JobContext<'_>) -> Result<Value, JobError> {
        self.ensure_off(cx.input()?, cx.record.generation).await
    }

    async fn undo(&self, _cx: &JobContext<'_>) -> Result<Undo, JobError> {
        Ok(Undo::Moot("a guest that was told to end has ended".to_owned()))
    }
}

impl Stop {
    /// Ensures that the domain is off, and looks.
    pub(super) async fn ensure_off(&self, input: StopInput, generation: u64) -> Result<Value, JobError> {
        let timeout = Duration::from_secs(u64::from(input.timeout_seconds));
        let mode = if input.force {
            StopMode::Force
        } else {
            StopMode::Graceful { timeout }
        };
        let how = self
            .hypervisor
            .stop(input.server, generation, mode)
            .await
            .map_err(host_error)?;
        match self.hypervisor.inspect(input.server).await.map_err(host_error)? {
            Inspection::Absent
            | Inspection::Found {
                power: PowerState::Stopped | PowerState::Suspended | PowerState::Crashed,
                ..
            } => {}
            Inspection::Found { .. } => {
                return Err(JobError::transient(
                    "host.still_running",
                    "the domain runs after it was stopped",
                ));
            }
            Inspection::CannotTell { reason } => return Err(cannot_tell(&reason)),
        }
        let how = match how {
            Stopped::AlreadyOff => "already_off",
            Stopped::Gracefully => "gracefully",
            Stopped::Forced => "forced",
        };
        Ok(json!({ "power": PowerState::Stopped, "how": how }))
    }
}

/// Input of `vm.undefine`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct UndefineInput {
    /// Which server.
    pub(crate) server: ServerId,
    /// The newest generation that is removed, if not the job's own: of a domain that belongs to nobody.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) generation: Option<u64>,
}

/// Removes a domain, running or not.
#[derive(Debug)]
pub(super) struct Undefine {
    pub(super) hypervisor: Arc<dyn Hypervisor>,
}

#[async_trait]
impl Job for Undefine {
    fn kind(&self) -> &'static str {
        "vm.undefine"
    }

    async fn run(&self, cx: &JobContext<'_>) -> Result<Value, JobError> {
        let UndefineInput { server, generation } = cx.input()?;
        self.hypervisor
            .undefine(server, generation.unwrap_or(cx.record.generation))
            .await
            .map_err(host_error)?;
        proven_gone(&*self.hypervisor, server).await?;
        Ok(json!({}))
    }

    async fn undo(&self, _cx: &JobContext<'_>) -> Result<Undo, JobError> {
        Ok(Undo::Moot("a deleted domain is not made again".to_owned()))
    }
}

pub(super) fn cannot_tell(reason: &str) -> JobError {
    JobError::transient(
        "host.cannot_tell",
        format!("nobody can tell what the domain does: {reason}"),
    )
}

pub(super) async fn proven_gone(hypervisor: &dyn Hypervisor, server: ServerId) -> Result<(), JobError> {
    match hypervisor.inspect(server).await.map_err(host_error)? {
        Inspection::Absent => Ok(()),
        Inspection::Found { .. } => Err(JobError::transient(
            "host.still_there",
            "the domain is there after it was removed",
        )),
        Inspection::CannotTell { reason } => Err(cannot_tell(&reason)),
    }
}

async fn undefine(hypervisor: &dyn Hypervisor, server: ServerId, generation: u64) -> Result<Undo, JobError> {
    match hypervisor.undefine(server, generation).await {
        Ok(()) => proven_gone(hypervisor, server).await.map(|()| Undo::Undone),
        Err(error) => newer_or(error),
    }
}

/// A domain of a newer order is none of this job's business.
pub(super) fn newer_or(error: skyloom_hypervisor::Error) -> Result<Undo, JobError> {
    if error.kind() == ErrorKind::Stale {
        Ok(Undo::Moot("the domain belongs to a newer order".to_owned()))
    } else {
        Err(host_error(error))
    }
}
