//! What has really happened on a fake host: one entry per effect, none for a verb that found nothing to do.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use skyloom_model::{MacAddr, PortId, ServerId, SnapshotId};

use crate::Stopped;

/// One change of the fake host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Effect {
    /// Its place in the order of all effects of this host, or of all hosts that share a sequence.
    pub at: u64,
    /// The host's tag ([`crate::FakeOptions::tag`]).
    #[serde(default)]
    pub host: u32,
    /// Whose; `None` for cached images.
    pub server: Option<ServerId>,
    /// The generation of the order that did it; of the domain, where nobody ordered; 0 where no domain is meant.
    pub generation: u64,
    /// What.
    pub kind: EffectKind,
}

/// What changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum EffectKind {
    /// A new domain.
    Defined,
    /// A domain brought to a newer generation.
    Redefined,
    /// A guest process began.
    Started,
    /// A second guest process began while one ran ([`crate::FakeOptions::naive_start`]).
    StartedTwice,
    /// The guest was asked to shut down.
    Asked,
    /// The guest process ended because of a stop.
    Stopped {
        /// Whether by the guest itself.
        graceful: bool,
    },
    /// The guest shut itself down.
    PoweredOff,
    /// The guest process died.
    Crashed,
    /// The domain was removed.
    Undefined,
    /// The domain disappeared without anybody asking.
    Vanished,
    /// An image came into the cache.
    ImageCached {
        /// Its SHA-256.
        sha256: String,
    },
    /// A disk was made.
    DiskCreated {
        /// Its name.
        disk: String,
    },
    /// A config drive got other content.
    SeedReplaced,
    /// A disk was removed.
    DiskDeleted {
        /// Its name.
        disk: String,
    },
    /// The guest's CPUs were held.
    Paused,
    /// The guest's CPUs execute again.
    Unpaused,
    /// The guest's memory went to disk and its process ended.
    Suspended,
    /// A guest process began with memory from disk.
    Resumed,
    /// Memory on disk was removed.
    MemoryDropped,
    /// A snapshot is whole.
    SnapshotTaken {
        /// Which.
        snapshot: SnapshotId,
    },
    /// Disks, and memory if it was kept, are as they were in a snapshot.
    SnapshotReverted {
        /// Which.
        snapshot: SnapshotId,
    },
    /// A snapshot is gone.
    SnapshotForgotten {
        /// Which.
        snapshot: SnapshotId,
    },
    /// A domain got a disk.
    DiskAttached {
        /// Its name.
        disk: String,
    },
    /// A domain lost a disk.
    DiskDetached {
        /// Its name.
        disk: String,
    },
    /// A disk grew.
    DiskGrown {
        /// Its name.
        disk: String,
        /// To this size.
        bytes: u64,
    },
    /// What a disk may do was changed.
    DiskLimited {
        /// Its name.
        disk: String,
    },
    /// A domain got a NIC.
    NicAttached {
        /// Its address.
        mac: MacAddr,
    },
    /// A domain lost a NIC.
    NicDetached {
        /// Its address.
        mac: MacAddr,
    },
    /// A user of the guest got another password.
    PasswordSet {
        /// Who.
        user: String,
    },
    /// A volume was made. The effects of volumes bear the volume's id in the server's place.
    VolumeCreated,
    /// A volume grew.
    VolumeGrown {
        /// To how many bytes.
        bytes: u64,
    },
    /// A volume was removed.
    VolumeDeleted,
    /// A snapshot of a volume at rest.
    VolumeSnapshotTaken {
        /// Which.
        snapshot: SnapshotId,
    },
    /// A volume at rest is what it was in a snapshot.
    VolumeReverted {
        /// Which.
        snapshot: SnapshotId,
    },
    /// A snapshot of a volume at rest was removed.
    VolumeSnapshotForgotten {
        /// Which.
        snapshot: SnapshotId,
    },
    /// A new port.
    PortWired {
        /// Which.
        port: PortId,
    },
    /// A port wired otherwise.
    PortRewired {
        /// Which.
        port: PortId,
    },
    /// A port was removed.
    PortRemoved {
        /// Which.
        port: PortId,
    },
    /// A domain that waits for its memory.
    Incoming,
    /// The guest is another host's: its process does not execute any more.
    HandedOver,
    /// A guest that came from another host goes on.
    TakenOver,
}

impl EffectKind {
    pub(super) fn stopped(how: Stopped) -> Self {
        Self::Stopped {
            graceful: matches!(how, Stopped::Gracefully),
        }
    }
    /// Whether a guest process begins (`true`) or ends (`false`) here.
    const fn runs(&self, was: bool) -> bool {
        match self {
            Self::Started | Self::StartedTwice | Self::Resumed | Self::TakenOver => true,
            Self::Stopped { .. }
            | Self::Suspended
            | Self::PoweredOff
            | Self::Crashed
            | Self::Undefined
            | Self::Vanished
            | Self::HandedOver => false,
            _ => was,
        }
    }
}

/// Which guest processes run where, told effect by effect, of any number of hosts.
#[derive(Debug, Clone, Default)]
pub struct Executions(BTreeMap<ServerId, u32>);

impl Executions {
    /// Takes note of the next effect; hosts are told apart by their tags.
    ///
    /// # Errors
    /// When a second guest process of a server begins while one runs: names the server, the hosts and the effect.
    pub fn see(&mut self, effect: &Effect) -> Result<(), String> {
        self.see_on(effect.host, effect)
    }

    /// The host on which the server runs.
    #[must_use]
    pub fn host_of(&self, server: ServerId) -> Option<u32> {
        self.0.get(&server).copied()
    }

    fn see_on(&mut self, host: u32, effect: &Effect) -> Result<(), String> {
        let Some(server) = effect.server else {
            return Ok(());
        };
        let on = self.host_of(server);
        let here = on == Some(host);
        let begins = matches!(
            effect.kind,
            EffectKind::Started | EffectKind::StartedTwice | EffectKind::Resumed | EffectKind::TakenOver
        );
        match on {
            Some(other) if begins => Err(format!(
                "server {server} was started on host {host} at {} while it ran on host {other}",
                effect.at
            )),
            _ if effect.kind == EffectKind::StartedTwice => Err(format!(
                "server {server} was started twice on host {host} at {}",
                effect.at
            )),
            _ => {
                if effect.kind.runs(here) {
                    self.0.insert(server, host);
                } else if here {
                    self.0.remove(&server);
                }
                Ok(())
            }
        }
    }
}

/// Checks the histories of several hosts that share a sequence: at no time did two guest processes of one server run.
///
/// # Errors
/// Names the server, the hosts (by their place in `histories`) and the effect.
pub fn never_two_running(histories: &[Vec<Effect>]) -> Result<(), String> {
    let mut all: Vec<(u32, &Effect)> = (0..)
        .zip(histories)
        .flat_map(|(host, history)| history.iter().map(move |e| (host, e)))
        .collect();
    all.sort_by_key(|(_, e)| e.at);
    let mut running = Executions::default();
    all.into_iter()
        .try_for_each(|(host, effect)| running.see_on(host, effect))
}

#[cfg(test)]
mod tests {
    use super::*;
    use skyloom_model::{Ids, ManualClock, SeededIds};

    fn effects(kinds: &[(u64, EffectKind)], server: ServerId) -> Vec<Effect> {
        kinds
            .iter()
            .map(|(at, kind)| Effect {
                at: *at,
                host: 0,
                server: Some(server),
                generation: 1,
                kind: kind.clone(),
            })
            .collect()
    }

    #[test]
    fn two_guests_at_once_are_seen_and_one_after_the_other_is_fine() {
        let server = ServerId::from_uuid(SeededIds::new(ManualClock::new(), 1).uuid());
        let first = effects(&[(1, EffectKind::Started), (4, EffectKind::Crashed)], server);
        let moved = effects(&[(5, EffectKind::Started), (6, EffectKind::Defined)], server);
        assert_eq!(never_two_running(&[first.clone(), moved]), Ok(()));
        let twice = effects(&[(2, EffectKind::Started)], server);
        assert!(never_two_running(&[first.clone(), twice]).is_err());
        let removed_elsewhere = effects(&[(2, EffectKind::Undefined), (3, EffectKind::Started)], server);
        assert!(never_two_running(&[first, removed_elsewhere]).is_err());
        for again in [EffectKind::Started, EffectKind::StartedTwice] {
            let same_host = effects(&[(1, EffectKind::Started), (2, again)], server);
            assert!(never_two_running(&[same_host]).is_err());
        }
    }
}
