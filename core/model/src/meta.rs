//! What all resources share.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{Id, Name, ProjectId, Timestamp};

/// Who owns a record: the cloud itself or one project. Every store call on resources carries one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum Scope {
    /// The cloud itself (hosts, flavors, …).
    System,
    /// One project.
    Project(ProjectId),
}

impl fmt::Display for Scope {
    /// As it stands in store keys: `-` or the project's id.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::System => f.write_str("-"),
            Self::Project(id) => id.fmt(f),
        }
    }
}

/// Identity and versions of a resource.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Meta {
    /// Unique for ever, over all kinds.
    pub id: Uuid,
    /// Display name.
    pub name: Name,
    /// Owner.
    pub scope: Scope,
    /// Free key-value marks.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Grows with each change of the spec or the placement. Instructions of an older generation are refused.
    pub generation: u64,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was last changed.
    pub updated_at: Timestamp,
}

impl Meta {
    /// The first version of a resource.
    #[must_use]
    pub fn new(id: Uuid, name: Name, scope: Scope, now: Timestamp) -> Self {
        Self {
            id,
            name,
            scope,
            labels: BTreeMap::new(),
            generation: 1,
            created_at: now,
            updated_at: now,
        }
    }
}

/// A kind of resource.
pub trait Resource: Serialize + DeserializeOwned + Clone + fmt::Debug + Send + Sync + 'static {
    /// The plural noun in paths and URLs, such as `servers`.
    const KIND: &'static str;
    /// Its meta part.
    fn meta(&self) -> &Meta;
    /// Its meta part, to change.
    fn meta_mut(&mut self) -> &mut Meta;
    /// Its typed id.
    fn id(&self) -> Id<Self>
    where
        Self: Sized,
    {
        Id::from_uuid(self.meta().id)
    }
}
