//! What a backend found out about itself when it was opened, for people: `skyloom store check` shows it.

use std::collections::BTreeMap;

use serde::Serialize;

/// Which server and which settings acknowledged commits rest on. Nothing in here decides anything.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct About {
    /// Product and version, such as `PostgreSQL 15.14`.
    pub server: String,
    /// The version of the tables or collections; none where nothing has to be made.
    pub schema: Option<u64>,
    /// The settings that durability hangs on, as they were found. What the server did not tell is missing.
    pub durability: BTreeMap<String, String>,
    /// Why acknowledged commits may be lost. Not empty only where that was allowed.
    pub risks: Vec<String>,
}

impl About {
    /// Of `server`, with nothing else known.
    #[must_use]
    pub fn new(server: impl Into<String>) -> Self {
        Self {
            server: server.into(),
            ..Self::default()
        }
    }

    /// With the schema's version.
    #[must_use]
    pub fn with_schema(mut self, version: u64) -> Self {
        self.schema = Some(version);
        self
    }

    /// With a setting as it was found.
    #[must_use]
    pub fn with_setting(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.durability.insert(name.into(), value.into());
        self
    }

    /// With a reason why commits may be lost.
    #[must_use]
    pub fn with_risk(mut self, why: impl Into<String>) -> Self {
        self.risks.push(why.into());
        self
    }
}
