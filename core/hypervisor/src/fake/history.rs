//! What has really happened on a fake host: one entry per effect, none for a verb that found nothing to do.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use skyloom_model::ServerId;

use crate::Stopped;

/// One change of the fake host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Effect {
    /// Its place in the order of all effects of this host, or of all hosts that share a sequence.
    pub at: u64,
    /// Whose; `None` for cached images.
    pub server: Option<ServerId>,
    /// The generation that the domain then had; 0 where no domain is meant.
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
}

impl EffectKind {
    pub(super) fn stopped(how: Stopped) -> Self {
        Self::Stopped {
            graceful: matches!(how, Stopped::Gracefully),
        }
    }
    /// Whether a guest process begins (`true`) or ends (`false`) here.
    fn runs(&self, was: bool) -> bool {
        match self {
            Self::Started => true,
            Self::Stopped { .. } | Self::PoweredOff | Self::Crashed | Self::Undefined | Self::Vanished => {
                false
            }
            _ => was,
        }
    }
}

/// Checks the histories of several hosts that share a sequence: at no time did two guest processes of one server run.
///
/// # Errors
/// Names the server, the hosts (by their place in `histories`) and the effect.
pub fn never_two_running(histories: &[Vec<Effect>]) -> Result<(), String> {
    let mut all: Vec<(usize, &Effect)> = histories
        .iter()
        .enumerate()
        .flat_map(|(host, h)| h.iter().map(move |e| (host, e)))
        .collect();
    all.sort_by_key(|(_, e)| e.at);
    let mut running: BTreeMap<ServerId, usize> = BTreeMap::new();
    for (host, effect) in all {
        let Some(server) = effect.server else { continue };
        let here = running.get(&server) == Some(&host);
        match (effect.kind.runs(here), running.get(&server)) {
            (true, Some(other)) if !here || effect.kind == EffectKind::Started => {
                return Err(format!(
                    "server {server} was started on host {host} at {} while it ran on host {other}",
                    effect.at
                ));
            }
            (true, _) => {
                running.insert(server, host);
            }
            (false, Some(_)) if here => {
                running.remove(&server);
            }
            (false, _) => {}
        }
    }
    Ok(())
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
        let same_host = effects(&[(1, EffectKind::Started), (2, EffectKind::Started)], server);
        assert!(never_two_running(&[same_host]).is_err());
    }
}
