//! Where services are: what clients read to find them.

use serde::{Deserialize, Serialize};
use skyloom_model::Timestamp;

use super::{EndpointId, ServiceId, yes};

/// A place of services. Its id is a name that operators choose.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Region {
    /// Which.
    pub id: String,
    /// Free text.
    #[serde(default)]
    pub description: String,
    /// The region around it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<String>,
    /// When it was made.
    pub created_at: Timestamp,
}

/// A service.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Service {
    /// Which.
    pub id: ServiceId,
    /// What it does, such as `compute`.
    #[serde(rename = "type")]
    pub kind: String,
    /// What it is called; need not be unique.
    #[serde(default)]
    pub name: String,
    /// Free text.
    #[serde(default)]
    pub description: String,
    /// Whether clients are told of it.
    #[serde(default = "yes")]
    pub enabled: bool,
    /// When it was made.
    pub created_at: Timestamp,
}

/// For whom an endpoint is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Interface {
    /// Everybody.
    Public,
    /// Other services.
    Internal,
    /// Operators.
    Admin,
}

/// One address of a service.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Endpoint {
    /// Which.
    pub id: EndpointId,
    /// Of which service.
    pub service: ServiceId,
    /// For whom.
    pub interface: Interface,
    /// Where.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    /// The address; `$(project_id)s` and the like in it are filled in for each token.
    pub url: String,
    /// Whether clients are told of it.
    #[serde(default = "yes")]
    pub enabled: bool,
    /// When it was made.
    pub created_at: Timestamp,
}
