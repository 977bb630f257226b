//! Passwords: how they are kept, compared, chosen and guessed at.
//!
//! ```text
//! Throttle::begin(user, source) ──Attempt──> Hasher::verify ──Right──> Attempt::right()     Wrong: drop the Attempt
//!         └─ Throttled (retry after)               └─ Busy ──────────> Attempt::unanswered()
//! PasswordRules::change(new, former hashes) ──> the hashes to keep
//! ```
//!
//! At rest is argon2id. A hash costs memory and a core for some 20 ms, so a [`Hasher`] makes a bounded number at once and refuses what
//! would wait too long: logins cannot starve the rest. A user that does not exist costs the same as one that does. Wrong passwords are
//! held back by the [`Throttle`], in proportion to what guessing gains, and never by locking a user out for everybody.

mod hasher;
mod rules;
mod throttle;

use std::time::Duration;

use skyloom_model::Reason;

pub use hasher::{HashCost, Hasher, HasherConfig, Verdict};
pub use rules::{BrokenRule, PasswordChange, PasswordRules};
pub use throttle::{Attempt, Rate, Throttle, ThrottleConfig, Throttled, source_of};

/// Longest password in bytes. Longer ones are refused before anything is computed over them.
pub const MAX_PASSWORD: usize = 1024;

/// A password was not looked at, or not taken as a new one. All but [`Self::Damaged`] say nothing of whether the user exists; that one
/// is for the operator, and whoever logs in is told what everybody is told ([`crate::Denied`]).
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PasswordError {
    /// Longer than [`MAX_PASSWORD`].
    #[error("a password of {0} bytes; {MAX_PASSWORD} are allowed")]
    TooLong(usize),
    /// Too many are being compared; nothing happened.
    #[error("too many logins at once; try again in {} s", retry_after.as_secs())]
    Busy {
        /// When to try again.
        retry_after: Duration,
    },
    /// A new password breaks rules.
    #[error("the new password is not allowed: {}", rules::list(.0))]
    Rules(Vec<BrokenRule>),
    /// The kept hash cannot be read.
    #[error("the kept password hash is damaged: {0}; set the password anew")]
    Damaged(String),
    /// The configured cost makes no sense.
    #[error("the configured cost of password hashes is not possible: {0}")]
    Config(String),
    /// A bug, or no memory for the hash.
    #[error("hashing a password failed: {0}")]
    Internal(String),
}

impl PasswordError {
    /// The same as data.
    #[must_use]
    pub fn reason(&self) -> Reason {
        let what = self.to_string();
        match self {
            Self::TooLong(_) => Reason::new("password.too_long", what).hint("choose a shorter one"),
            Self::Busy { .. } => Reason::new("password.busy", what)
                .hint("try again a little later")
                .retryable(),
            Self::Rules(_) => Reason::new("password.rules", what).hint("choose another one"),
            Self::Damaged(_) => Reason::new("password.damaged", what),
            Self::Config(_) => {
                Reason::new("password.config", what).hint("see `identity.password` in the configuration")
            }
            Self::Internal(_) => Reason::new("password.internal", what),
        }
    }
}
