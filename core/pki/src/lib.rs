//! The cloud's own certificates: who a host is, and TLS that says so.
//!
//! ```text
//! operator ──JoinToken──> machine ── key, request ──> Authority ──> host certificate (7 days) ──renewed with itself──> …
//!                                                        │ signs
//! TrustBundle (roots, overlapping) <── RootPlan ─────────┘
//!      │
//!      └─ Judge (+ Revocations) ── TLS handshake, then each request ──> Standing: Valid | Expired | Revoked | NotYet | Foreign
//! ```
//!
//! Why it is so: `docs/rfd/0010-certificates.md`. The records are plain data; who keeps them writes them under guards. Time, ids and
//! files are handed in; keys alone are drawn from the operating system.

mod authority;
mod certificate;
mod error;
mod exchange;
mod join;
mod judge;
mod keep;
mod lifetimes;
mod pem;
mod print;
mod request;
mod revocation;
mod rotation;
#[cfg(feature = "testing")]
pub mod testing;
mod tls;
mod trust;

pub use authority::{Authority, HostGrant, Issued, MAX_SERVER_NAMES, ServerNames};
pub use certificate::HostCertificate;
pub use error::{PkiError, PkiErrorKind};
pub use exchange::{HostJoined, JoinHost, RenewCertificate};
pub use join::{JoinRefused, JoinToken, JoinTokenRecord, JoinUse, Redeemed};
pub use judge::{Judge, Peer, Standing, may_renew};
pub use keep::{HostFolder, KeptIdentity};
pub use lifetimes::Lifetimes;
pub use print::{Fingerprint, Serial};
pub use request::{CertificateRequest, MAX_REQUEST, PrivateKey};
pub use revocation::{HostEpoch, Revocations, RevokedBy, RevokedCertificate};
pub use rotation::{RootPlan, RootRecord};
pub use tls::{
    Files, IdentityMaterial, Live, MAX_MATERIAL, Material, MaterialSource, Oldest, Reload, ReloadStatus,
    Reloader, ReloadingClient, ReloadingServer, client_config, server_config,
};
pub use trust::{MAX_ROOTS, Root, TrustBundle};
