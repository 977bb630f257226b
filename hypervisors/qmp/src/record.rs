//! What is on disk for each domain: `desc.json` (wanted) and `live.json` (what runs, or how it ended).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use skyloom_hypervisor::VmSpec;
use skyloom_model::{PowerState, Timestamp};

use crate::accel::Accelerator;
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
    /// The guest has shut down; its QEMU is being ended.
    Halted { run: Run, cause: String },
    /// No QEMU is there.
    Ended {
        power: PowerState,
        cause: String,
        at: Timestamp,
    },
}

/// How a QEMU was started.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Launch {
    pub(crate) generation: u64,
    pub(crate) accelerator: Accelerator,
    pub(crate) argv: Vec<String>,
    pub(crate) at: Timestamp,
}

/// A QEMU that is there.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Run {
    #[serde(flatten)]
    pub(crate) launch: Launch,
    pub(crate) process: ProcessId,
    pub(crate) qemu_version: String,
    /// PCI address by device id, such as `disk-root` -> `00:01.0`.
    pub(crate) pci: BTreeMap<String, String>,
}

impl Live {
    /// The recorded process, if one may be there.
    pub(crate) fn process(&self) -> Option<&ProcessId> {
        match self {
            Self::Running { run } | Self::Stopping { run } | Self::Halted { run, .. } => Some(&run.process),
            Self::Off | Self::Starting { .. } | Self::Ended { .. } => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::accel::AcceleratorKind;

    #[test]
    fn live_json_is_flat_and_reads_back() {
        let launch = Launch {
            generation: 7,
            accelerator: Accelerator {
                kind: AcceleratorKind::Tcg,
                reason: "x".into(),
            },
            argv: vec!["qemu".into()],
            at: Timestamp::UNIX_EPOCH,
        };
        let process = ProcessId {
            pid: 5,
            start_ticks: 9,
            boot_id: "b".into(),
        };
        let pci = BTreeMap::from([("disk-root".to_owned(), "00:01.0".to_owned())]);
        let run = Run {
            launch: launch.clone(),
            process,
            qemu_version: "7.2.22".into(),
            pci,
        };
        for live in [
            Live::Off,
            Live::Starting { launch },
            Live::Running { run: run.clone() },
            Live::Halted {
                run,
                cause: "guest-shutdown".into(),
            },
            Live::Ended {
                power: PowerState::Crashed,
                cause: "killed".into(),
                at: Timestamp::UNIX_EPOCH,
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
