//! Layers: each wraps a [`DynBackend`] and is a [`crate::Backend`] itself.
//!
//! ```text
//! observe ─> retry ─> timeout ─> limit ─> (prefix) ─> backend          what [`standard`] puts together
//! ```
//!
//! The order matters: one retried call is one measured call; each try has a time limit of its own; waiting for a turn
//! counts against it. `Debug` of a layer prints the whole stack below it, `Display` prints the layer alone.

mod chaos;
mod limit;
mod observe;
mod prefix;
mod retry;
mod timeout;

use std::sync::Arc;

use skyloom_model::{Clock, Ids};

pub use self::chaos::{Chaos, ChaosConfig};
pub use self::limit::{Limit, LimitConfig};
pub use self::observe::Observe;
pub use self::prefix::Prefixed;
pub use self::retry::{Retry, RetryConfig};
pub use self::timeout::{Timeout, TimeoutConfig};
use crate::DynBackend;

/// Settings of [`standard`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct StandardConfig {
    /// How often, and how long between.
    pub retry: RetryConfig,
    /// How long each try may take.
    pub timeout: TimeoutConfig,
    /// How many calls at once.
    pub limit: LimitConfig,
}

impl StandardConfig {
    /// With other retries.
    #[must_use]
    pub fn with_retry(mut self, retry: RetryConfig) -> Self {
        self.retry = retry;
        self
    }
    /// With other time limits.
    #[must_use]
    pub fn with_timeout(mut self, timeout: TimeoutConfig) -> Self {
        self.timeout = timeout;
        self
    }
    /// With other limits.
    #[must_use]
    pub fn with_limit(mut self, limit: LimitConfig) -> Self {
        self.limit = limit;
        self
    }
}

/// The layers that every Skyloom process puts over its backend.
#[must_use]
pub fn standard(
    backend: DynBackend,
    config: StandardConfig,
    clock: Arc<dyn Clock>,
    ids: Arc<dyn Ids>,
) -> DynBackend {
    let limited = Arc::new(Limit::new(backend, config.limit));
    let timed = Arc::new(Timeout::new(limited, config.timeout));
    let retried = Arc::new(Retry::new(timed, config.retry, ids));
    Arc::new(Observe::new(retried, clock))
}

/// `Debug` prints the stack, `Display` the layer; both from one `label` method.
macro_rules! show_layer {
    ($layer:ty) => {
        impl std::fmt::Display for $layer {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                self.label(f)
            }
        }
        impl std::fmt::Debug for $layer {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                self.label(f)?;
                write!(f, " > {:?}", self.inner)
            }
        }
    };
}
use show_layer;
