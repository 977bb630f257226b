//! Where the authority's records lie.

use serde::{Deserialize, Serialize};
use skyloom_identity::Sealed;
use skyloom_model::HostId;
use skyloom_pki::{Fingerprint, RootRecord, Serial};

/// What all processes follow.
pub(crate) const PKI: &str = "pki";
/// All roots.
pub(crate) const ROOTS: &str = "pki/roots";
/// What each change of roots writes, so that two cannot make one at once.
pub(crate) const TURN: &str = "pki/turn";
/// All epochs of hosts.
pub(crate) const EPOCHS: &str = "pki/epochs";
/// All certificates that were taken back alone.
pub(crate) const REVOKED: &str = "pki/revoked";
/// All join tokens. Beside what is followed: they come and go.
pub(crate) const JOINS: &str = "joins";

/// A root, with its key sealed for the place where this lies.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct KeptRoot {
    /// The root.
    pub(crate) root: RootRecord,
    /// Its key in PEM, sealed.
    pub(crate) key: Sealed,
}

/// A root.
pub(crate) fn root(fingerprint: &Fingerprint) -> String {
    format!("{ROOTS}/{fingerprint}")
}
/// A host's epoch.
pub(crate) fn epoch(host: HostId) -> String {
    format!("{EPOCHS}/{host}")
}
/// That a certificate was taken back.
pub(crate) fn revoked(serial: &Serial) -> String {
    format!("{REVOKED}/{serial}")
}
/// All join tokens.
pub(crate) fn joins() -> &'static str {
    JOINS
}
/// A join token, by its hash.
pub(crate) fn join_token(hash: &Fingerprint) -> String {
    format!("{JOINS}/{hash}")
}
