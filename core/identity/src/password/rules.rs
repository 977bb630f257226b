//! What a new password must be like.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use skyloom_model::{Secret, Timestamp};

use super::{Hasher, MAX_PASSWORD, PasswordError};

/// Rules for new passwords. Length counts, not the kinds of characters.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PasswordRules {
    /// Fewest characters.
    pub min_length: usize,
    /// How many of a user's former passwords may not be taken again, the one in force included; 24 at most.
    pub history: usize,
    /// Seconds for which a user must keep a password, so that nobody runs through the history in a minute.
    pub min_age_seconds: u64,
    /// Passwords that are not allowed, in lower case: the usual ones.
    pub refused: BTreeSet<String>,
}

/// Each former password is a hash to compute.
const MAX_HISTORY: usize = 24;

impl Default for PasswordRules {
    fn default() -> Self {
        Self {
            min_length: 12,
            history: 0,
            min_age_seconds: 0,
            refused: BTreeSet::new(),
        }
    }
}

/// A rule that a new password breaks.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum BrokenRule {
    /// Too few characters.
    TooShort {
        /// The fewest.
        min: usize,
    },
    /// It is the user's name.
    IsName,
    /// Everybody tries it first.
    Usual,
    /// It is one of the last.
    UsedBefore {
        /// How many are remembered.
        last: usize,
    },
    /// The one in force is too new.
    TooSoon {
        /// For how long still.
        wait: Duration,
    },
}

impl fmt::Display for BrokenRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooShort { min } => write!(f, "it has fewer than {min} characters"),
            Self::IsName => write!(f, "it is the name of the user"),
            Self::Usual => write!(f, "it is one of those that are tried first"),
            Self::UsedBefore { last } => write!(f, "it is one of the last {last}"),
            Self::TooSoon { wait } => {
                write!(f, "the one in force must be kept for {} s more", wait.as_secs())
            }
        }
    }
}

pub(super) fn list(rules: &[BrokenRule]) -> String {
    let rules: Vec<String> = rules.iter().map(ToString::to_string).collect();
    rules.join(", ")
}

/// A change of password.
#[derive(Debug, Clone, Copy)]
pub struct PasswordChange<'a> {
    /// The user's name.
    pub name: &'a str,
    /// The kept hashes, the one in force first.
    pub former: &'a [String],
    /// When the one in force was set, if the user itself changes it. An administrator may always set one, and it may be an old one.
    pub own_since: Option<Timestamp>,
}

impl PasswordRules {
    /// The rules that can be checked without a hash.
    #[must_use]
    pub fn check(&self, new: &Secret<String>, name: &str) -> Vec<BrokenRule> {
        let new = new.expose();
        let lower = new.to_lowercase();
        let mut broken = Vec::new();
        if new.chars().count() < self.min_length {
            broken.push(BrokenRule::TooShort { min: self.min_length });
        }
        if lower == name.to_lowercase() {
            broken.push(BrokenRule::IsName);
        }
        if self.refused.contains(&lower) {
            broken.push(BrokenRule::Usual);
        }
        broken
    }

    /// Checks a new password by all rules; the hashes to keep, the new one first.
    ///
    /// # Errors
    /// [`PasswordError::Rules`] with all broken rules; the others of the [`Hasher`].
    pub async fn change(
        &self,
        hasher: &Hasher,
        change: &PasswordChange<'_>,
        new: Secret<String>,
        now: Timestamp,
    ) -> Result<Vec<String>, PasswordError> {
        if new.expose().len() > MAX_PASSWORD {
            return Err(PasswordError::TooLong(new.expose().len()));
        }
        let mut broken = self.check(&new, change.name);
        let history = self.history.min(MAX_HISTORY);
        let former: Vec<String> = change.former.iter().take(history).cloned().collect();
        if let Some(since) = change.own_since {
            // A clock that was set back makes a password older, never younger than new.
            let age = Duration::try_from(now.duration_since(since)).unwrap_or_default();
            let wait = Duration::from_secs(self.min_age_seconds).saturating_sub(age);
            if !wait.is_zero() {
                broken.push(BrokenRule::TooSoon { wait });
            }
            // Hashes are dear: only for what is otherwise right.
            if broken.is_empty() && !former.is_empty() && hasher.any(new.clone(), former.clone()).await? {
                broken.push(BrokenRule::UsedBefore { last: history });
            }
        }
        if !broken.is_empty() {
            return Err(PasswordError::Rules(broken));
        }
        let mut hashes = vec![hasher.hash(new).await?];
        hashes.extend(former);
        hashes.truncate(history.max(1));
        Ok(hashes)
    }
}
