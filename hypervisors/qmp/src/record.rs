//! What is on disk for each domain: `desc.json` (wanted) and `live.json` (what runs, or how it ended).

use serde::{Deserialize, Serialize};
use skyloom_hypervisor::{Half, Stream, VmSpec};
use skyloom_model::{PowerState, SnapshotId, Timestamp};

use crate::accel::Accelerator;
use crate::devices::Shape;
use crate::process::ProcessId;

/// Version of both files' format.
pub(crate) const FORMAT: u16 = 1;

/// `desc.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Desc {
    pub(crate) format: u16,
    pub(crate) spec: VmSpec,
}

/// `live.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct LiveFile {
    pub(crate) format: u16,
    #[serde(flatten)]
    pub(crate) live: Live,
}

/// Where a domain stands. Written before the step that it announces.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "phase", rename_all = "snake_case")]
pub(crate) enum Live {
    /// Never started (no file).
    Off,
    /// A QEMU is being started; its CPUs have not run.
    Starting { launch: Launch },
    /// A QEMU is there; its CPUs may run.
    Running { run: Run },
    /// It was told to end.
    Stopping { run: Run },
    /// Its memory is being written to disk; its CPUs are held.
    Saving { run: Run },
    /// Its memory is on disk, whole; its QEMU, whose CPUs execute no more, is being ended.
    Saved { run: Run },
    /// The guest has shut down; its QEMU is being ended.
    Halted { run: Run, cause: String },
    /// Its memory goes to another host; the guest is this host's.
    Sending {
        run: Run,
        /// `None`: that ended, and the guest goes on here.
        to: Option<Goal>,
    },
    /// The guest is another host's, for ever.
    HandedOver {
        /// While its process may be there.
        run: Option<Box<Run>>,
        to: Goal,
        /// `Ready` until the other host knows.
        stream: Stream,
    },
    /// Its memory comes from another host; the guest is that host's.
    Receiving { arrival: Arrival },
    /// No QEMU is there.
    Ended {
        power: PowerState,
        cause: String,
        at: Timestamp,
        /// What wrote the memory on disk, of a suspended guest.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        memory: Option<Box<Shape>>,
    },
}

/// Where a guest's memory goes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Goal {
    /// Where the other driver listens.
    pub(crate) address: String,
    /// The QEMU there that takes it in: tells this stream from every other one.
    pub(crate) ticket: ProcessId,
}

/// How far memory has come in.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "step")]
pub(crate) enum Arrival {
    /// Nobody has come.
    Waiting,
    /// A QEMU for it is being started.
    Starting { launch: Launch },
    /// A QEMU takes it in.
    Flowing { run: Run },
    /// All of it is here, and the other host has let go of the guest.
    Complete { run: Run },
    /// It is lost.
    Broken,
}

/// Where a guest begins.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "from")]
pub(crate) enum Entry {
    /// At its boot.
    #[default]
    Boot,
    /// Where it was suspended.
    Memory,
    /// In a snapshot with memory.
    Snapshot { snapshot: SnapshotId },
}

/// How a QEMU was started.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Launch {
    pub(crate) generation: u64,
    pub(crate) accelerator: Accelerator,
    pub(crate) argv: Vec<String>,
    pub(crate) at: Timestamp,
    /// `None` of one that an earlier version started: it can be stopped, and no more.
    #[serde(default)]
    pub(crate) shape: Option<Shape>,
    #[serde(default)]
    pub(crate) entry: Entry,
}

/// A QEMU that is there.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Run {
    #[serde(flatten)]
    pub(crate) launch: Launch,
    pub(crate) process: ProcessId,
    pub(crate) qemu_version: String,
    /// Its CPUs are to be held.
    #[serde(default)]
    pub(crate) paused: bool,
}

impl Live {
    /// The recorded process, if one may be there.
    pub(crate) fn process(&self) -> Option<&ProcessId> {
        match self {
            Self::Running { run }
            | Self::Stopping { run }
            | Self::Saving { run }
            | Self::Saved { run }
            | Self::Halted { run, .. }
            | Self::Sending { run, .. }
            | Self::Receiving {
                arrival: Arrival::Flowing { run } | Arrival::Complete { run },
            } => Some(&run.process),
            Self::HandedOver { run, .. } => run.as_ref().map(|run| &run.process),
            Self::Off | Self::Starting { .. } | Self::Receiving { .. } | Self::Ended { .. } => None,
        }
    }

    /// Its half of a migration.
    pub(crate) const fn half(&self) -> Half {
        match self {
            Self::Sending { .. } => Half::Sending,
            Self::HandedOver { .. } => Half::HandedOver,
            Self::Receiving { .. } => Half::Receiving,
            _ => Half::Whole,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::accel::AcceleratorKind;

    #[test]
    fn live_json_is_flat_and_reads_back() {
        let shape = Shape::new(VmSpec {
            boot: skyloom_hypervisor::Boot::FirstDisk,
            id: skyloom_model::ServerId::from_uuid(uuid::Uuid::from_u128(7)),
            project: skyloom_model::ProjectId::from_uuid(uuid::Uuid::from_u128(8)),
            generation: 7,
            name: skyloom_model::Name::new("x").unwrap(),
            vcpus: 1,
            memory_mib: 16,
            disks: vec![],
            nics: vec![],
        });
        let launch = Launch {
            generation: 7,
            accelerator: Accelerator {
                kind: AcceleratorKind::Tcg,
                reason: "x".into(),
            },
            argv: vec!["qemu".into()],
            at: Timestamp::UNIX_EPOCH,
            shape: Some(shape.clone()),
            entry: Entry::Memory,
        };
        let process = ProcessId {
            pid: 5,
            start_ticks: 9,
            boot_id: "b".into(),
        };
        let run = Run {
            launch: launch.clone(),
            process,
            qemu_version: "7.2.22".into(),
            paused: true,
        };
        let goal = Goal {
            address: "127.0.0.1:1".into(),
            ticket: run.process.clone(),
        };
        for live in [
            Live::Off,
            Live::Starting { launch },
            Live::Running { run: run.clone() },
            Live::Saving { run: run.clone() },
            Live::Saved { run: run.clone() },
            Live::Sending {
                run: run.clone(),
                to: None,
            },
            Live::Sending {
                run: run.clone(),
                to: Some(goal.clone()),
            },
            Live::HandedOver {
                run: Some(Box::new(run.clone())),
                to: goal.clone(),
                stream: Stream::Ready,
            },
            Live::HandedOver {
                run: None,
                to: goal,
                stream: Stream::Complete,
            },
            Live::Receiving {
                arrival: Arrival::Waiting,
            },
            Live::Receiving {
                arrival: Arrival::Starting {
                    launch: run.launch.clone(),
                },
            },
            Live::Receiving {
                arrival: Arrival::Flowing { run: run.clone() },
            },
            Live::Receiving {
                arrival: Arrival::Complete { run: run.clone() },
            },
            Live::Receiving {
                arrival: Arrival::Broken,
            },
            Live::Halted {
                run,
                cause: "guest-shutdown".into(),
            },
            Live::Ended {
                power: PowerState::Crashed,
                cause: "killed".into(),
                at: Timestamp::UNIX_EPOCH,
                memory: None,
            },
            Live::Ended {
                power: PowerState::Suspended,
                cause: "host-request".into(),
                at: Timestamp::UNIX_EPOCH,
                memory: Some(Box::new(shape)),
            },
        ] {
            let text = serde_json::to_string(&LiveFile {
                format: FORMAT,
                live: live.clone(),
            })
            .unwrap();
            assert_eq!(
                serde_json::from_str::<LiveFile>(&text).unwrap().live,
                live,
                "{text}"
            );
        }
    }
}
