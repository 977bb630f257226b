//! Leases: time-bounded, fenced ownership of a name.
//!
//! A lease is never a lock by itself: the holder may be paused past its end and wake up. Every write made under a
//! lease carries [`crate::Guard::Lease`] with its epoch, and the store compares it inside the commit.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use skyloom_model::Timestamp;

use crate::{Error, ErrorKind, Key, KeyError, Prefix, Result};

/// The name of a lease: a [`Key`] in a space of its own (leases make no revisions and no watch events, so heartbeats
/// never push real history out of the window).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct LeaseName(Key);

impl LeaseName {
    /// Parses a name such as `hosts/h1`.
    ///
    /// # Errors
    /// As for keys.
    pub fn parse(name: &str) -> Result<Self, KeyError> {
        Key::parse(name).map(Self)
    }
    /// The name as a key, for scopes and storage.
    #[must_use]
    pub fn as_key(&self) -> &Key {
        &self.0
    }
}

impl fmt::Display for LeaseName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
impl FromStr for LeaseName {
    type Err = KeyError;
    fn from_str(s: &str) -> Result<Self, KeyError> {
        Self::parse(s)
    }
}

/// What to do when somebody else holds the lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LeaseMode {
    /// Wait for its end: answer [`Grant::Held`].
    Acquire,
    /// Take it at once with a higher epoch: right when the name belongs to the caller's own former life and that is known to
    /// be over, by a lock that ended with it. One that only stands still would act again.
    TakeOver,
}

/// The answer to [`Leases::grant`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Grant {
    /// It is yours, from before the call for the asked time.
    Granted {
        /// Greater than every epoch this name ever had, across expiry and revocation.
        epoch: u64,
    },
    /// Another holder has it.
    Held(LeaseInfo),
}

/// The answer to [`Leases::renew`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Renewal {
    /// Still yours, for the asked time counted from before the call.
    Held,
    /// Ran out, was revoked or taken over. Never comes back: ask for a new grant.
    Lost,
}

/// A lease as the store sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseInfo {
    /// Its name.
    pub name: LeaseName,
    /// Its epoch.
    pub epoch: u64,
    /// Who asked for it (display text).
    pub holder: String,
    /// When it runs out, by the store's clock.
    pub expires_at: Timestamp,
    /// Whether it has run out, by the store's clock at the time of reading.
    pub expired: bool,
}

/// Checks what every backend must refuse in [`Leases::grant`]: a holder text over 256 bytes, a `ttl` of nothing.
///
/// # Errors
/// [`ErrorKind::Invalid`].
pub fn check_grant(holder: &str, ttl: Duration) -> Result<()> {
    if holder.len() > 256 {
        return Err(Error::new(ErrorKind::Invalid, "grant lease")
            .with("bytes of holder", holder.len())
            .with("limit", 256));
    }
    if ttl.is_zero() {
        return Err(Error::new(ErrorKind::Invalid, "grant lease").with("ttl", "0"));
    }
    Ok(())
}

/// Time-bounded ownership with epochs. Time is the store's own, never the caller's.
#[async_trait]
pub trait Leases: Send + Sync + fmt::Debug + 'static {
    /// Asks for `name` for `ttl`. `holder` is display text of at most 256 bytes; backends call [`check_grant`] first.
    async fn grant(&self, name: &LeaseName, holder: &str, ttl: Duration, mode: LeaseMode) -> Result<Grant>;

    /// Extends the lease to `ttl` from now, if `epoch` still holds it and it has not run out.
    async fn renew(&self, name: &LeaseName, epoch: u64, ttl: Duration) -> Result<Renewal>;

    /// Gives it back; a lease that is not held at `epoch` is left alone. The epoch stays remembered.
    async fn revoke(&self, name: &LeaseName, epoch: u64) -> Result<()>;

    /// All leases below `prefix` that are not revoked, run-out ones included, in name order.
    async fn leases(&self, prefix: &Prefix) -> Result<Vec<LeaseInfo>>;
}
