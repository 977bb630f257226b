//! What a machine and the API say to each other when it joins, and when it renews.

use std::fmt;

use serde::{Deserialize, Serialize};
use skyloom_model::{HostId, Timestamp};

/// `POST /v1/join`: a machine that has a join token asks for its first certificate.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct JoinHost {
    /// The join token.
    pub token: String,
    /// The name that the operator entered for this host.
    pub name: String,
    /// A request for a certificate (PKCS #10) in PEM. Only its public key is taken: ECDSA P-256 or Ed25519.
    pub request: String,
}

impl fmt::Debug for JoinHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinHost")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// `POST /v1/join/renew`, over a connection that the host's present certificate was shown on: it asks for the next one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct RenewCertificate {
    /// A request for a certificate (PKCS #10) in PEM, of the present key or a new one.
    pub request: String,
}

/// A host's certificate, issued.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct HostJoined {
    /// The host that it is for.
    pub host: HostId,
    /// The certificate in PEM.
    pub certificate: String,
    /// The cloud's roots of today in PEM.
    pub roots: String,
    /// From when it counts: a moment ago, or a moment from now.
    pub not_before: Timestamp,
    /// Until when it counts.
    pub not_after: Timestamp,
}
