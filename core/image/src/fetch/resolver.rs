//! The resolver inside the HTTP client: what it gives out has been checked, and is what is connected to.

use std::error::Error;
use std::fmt::{self, Debug};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use async_trait::async_trait;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use skyloom_model::Reason;

use super::FetchPolicy;
use super::address::permitted;
use super::target::denied;

/// Finds the addresses of a name.
#[async_trait]
pub trait Lookup: Debug + Send + Sync + 'static {
    /// The addresses of `host`.
    async fn lookup(&self, host: &str) -> io::Result<Vec<IpAddr>>;
}

/// The system's resolver.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemLookup;

#[async_trait]
impl Lookup for SystemLookup {
    async fn lookup(&self, host: &str) -> io::Result<Vec<IpAddr>> {
        Ok(tokio::net::lookup_host((host, 0))
            .await?
            .map(|address| address.ip())
            .collect())
    }
}

/// A [`Lookup`] under a policy.
pub(super) struct Guard {
    lookup: Arc<dyn Lookup>,
    policy: Arc<FetchPolicy>,
}

impl Guard {
    pub(super) fn new(lookup: Arc<dyn Lookup>, policy: Arc<FetchPolicy>) -> Self {
        Self { lookup, policy }
    }
}

impl Resolve for Guard {
    fn resolve(&self, name: Name) -> Resolving {
        let (lookup, policy) = (self.lookup.clone(), self.policy.clone());
        Box::pin(async move {
            let addresses = lookup.lookup(name.as_str()).await?;
            if addresses.is_empty() {
                return Err(io::Error::new(io::ErrorKind::NotFound, "the name has no address").into());
            }
            // One bad address spoils the name: it would be a way to smuggle it in as a fallback.
            if !addresses.iter().all(|address| permitted(*address, &policy.allow)) {
                return Err(Denied(name.as_str().to_owned()).into());
            }
            Ok(Box::new(addresses.into_iter().map(|ip| SocketAddr::new(ip, 0))) as Addrs)
        })
    }
}

/// The name has an address that the policy does not permit.
#[derive(Debug)]
struct Denied(String);

impl fmt::Display for Denied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} has an address that is not permitted", self.0)
    }
}
impl Error for Denied {}

/// The denial among the causes of a client's error.
pub(super) fn denial(error: &(dyn Error + 'static)) -> Option<Reason> {
    let mut next = Some(error);
    while let Some(cause) = next {
        if let Some(Denied(host)) = cause.downcast_ref() {
            return Some(denied(host));
        }
        next = cause.source();
    }
    None
}
