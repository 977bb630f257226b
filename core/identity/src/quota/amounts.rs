//! Names of what is counted, amounts of it, and limits.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The name of something that is counted: `servers`, `memory_mib`. 1 to 63 of `a-z`, `0-9` and `_`, beginning with a letter.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ResourceName(String);

/// A text that is no resource's name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no name of a resource; write 1 to 63 of a-z, 0-9 and _, a letter first, such as memory_mib"
)]
pub struct BadResource(String);

impl ResourceName {
    /// Checks a name.
    ///
    /// # Errors
    /// [`BadResource`].
    pub fn new(name: impl Into<String>) -> Result<Self, BadResource> {
        let name = name.into();
        let good = (1..=63).contains(&name.len())
            && name.starts_with(|c: char| c.is_ascii_lowercase())
            && name
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
        if good {
            Ok(Self(name))
        } else {
            Err(BadResource(name.chars().take(64).collect()))
        }
    }
    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ResourceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
impl FromStr for ResourceName {
    type Err = BadResource;
    fn from_str(s: &str) -> Result<Self, BadResource> {
        Self::new(s)
    }
}
impl TryFrom<String> for ResourceName {
    type Error = BadResource;
    fn try_from(s: String) -> Result<Self, BadResource> {
        Self::new(s)
    }
}
impl From<ResourceName> for String {
    fn from(name: ResourceName) -> Self {
        name.0
    }
}

/// So much of each resource. What is not named is 0.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Amounts(BTreeMap<ResourceName, u64>);

impl Amounts {
    /// Nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }
    /// The same and `amount` of `resource`.
    #[must_use]
    pub fn and(mut self, resource: ResourceName, amount: u64) -> Self {
        let sum = self.0.entry(resource).or_default();
        *sum = sum.saturating_add(amount);
        self
    }
    /// Both together.
    #[must_use]
    pub fn plus(mut self, more: &Self) -> Self {
        self.add(more);
        self
    }
    /// Whether nothing is named.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
    /// How much of `resource`.
    #[must_use]
    pub fn of(&self, resource: &ResourceName) -> u64 {
        self.0.get(resource).copied().unwrap_or(0)
    }
    /// All that is named, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&ResourceName, u64)> {
        self.0.iter().map(|(name, amount)| (name, *amount))
    }
    pub(super) fn names(&self) -> impl Iterator<Item = &ResourceName> {
        self.0.keys()
    }
    /// Adds; the caller has seen that it fits.
    pub(super) fn add(&mut self, more: &Self) {
        for (name, amount) in more.iter() {
            let used = self.0.entry(name.clone()).or_default();
            *used = used.saturating_add(amount);
        }
    }
    /// Takes away, never below 0.
    pub(super) fn take(&mut self, less: &Self) {
        for (name, amount) in less.iter() {
            if let Some(used) = self.0.get_mut(name) {
                *used = used.saturating_sub(amount);
            }
        }
    }
}

/// How much there may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Limit {
    /// Any amount, whatever a wider limit says.
    Unlimited,
    /// At most so much.
    Most(u64),
}

impl Limit {
    /// The bound, if there is one.
    #[must_use]
    pub const fn most(self) -> Option<u64> {
        match self {
            Self::Unlimited => None,
            Self::Most(most) => Some(most),
        }
    }
}

/// Limits by resource. What is not named is left to the next wider limits.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Limits(BTreeMap<ResourceName, Limit>);

impl Limits {
    /// None.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }
    /// The same with this limit.
    #[must_use]
    pub fn with(mut self, resource: ResourceName, limit: Limit) -> Self {
        self.0.insert(resource, limit);
        self
    }
    /// The limit on `resource`, if it is named.
    #[must_use]
    pub fn get(&self, resource: &ResourceName) -> Option<Limit> {
        self.0.get(resource).copied()
    }
    /// Whether nothing is named.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
    /// All that are named.
    pub fn iter(&self) -> impl Iterator<Item = (&ResourceName, Limit)> {
        self.0.iter().map(|(resource, limit)| (resource, *limit))
    }
    pub(super) fn names(&self) -> impl Iterator<Item = &ResourceName> {
        self.0.keys()
    }
}
