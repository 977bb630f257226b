//! A whole PKI in one call, for tests: a root, a server called `localhost`, two hosts, and a clock that stands still.

#![allow(
    clippy::unwrap_used,
    clippy::missing_panics_doc,
    reason = "for tests, which may panic"
)]

use std::sync::Arc;

use skyloom_model::{HostId, Hostname, Ids, ManualClock, Secret, SeededIds, Timestamp};

use crate::{
    Authority, CertificateRequest, HostCertificate, HostGrant, IdentityMaterial, Issued, Judge, Lifetimes,
    Material, PrivateKey, ReloadingClient, ReloadingServer, Revocations, ServerNames, TrustBundle,
};
use skyloom_model::Clock as _;

/// A cloud's certificates.
#[derive(Debug)]
pub struct TestPki {
    /// Its time, 2026-01-01 at first.
    pub clock: Arc<ManualClock>,
    /// Its ids and serial numbers, from a seed.
    pub ids: Arc<SeededIds<Arc<ManualClock>>>,
    /// The default ones.
    pub lifetimes: Lifetimes,
    /// The root.
    pub authority: Authority,
    /// The server's certificate and key, for `localhost` and 127.0.0.1.
    pub server: IdentityMaterial,
    /// Two hosts, `node-1` and `node-2`.
    pub hosts: [TestHost; 2],
}

/// A host with its certificate.
#[derive(Debug)]
pub struct TestHost {
    /// Its id.
    pub id: HostId,
    /// Its name.
    pub name: Hostname,
    /// Certificate and key.
    pub identity: IdentityMaterial,
    /// What the certificate says.
    pub certificate: HostCertificate,
}

impl TestPki {
    /// Makes all of it. Another seed gives another cloud.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self::with_clock(seed, ManualClock::new())
    }

    /// The same as of a later moment, for those who have another clock.
    #[must_use]
    pub fn at(seed: u64, now: Timestamp) -> Self {
        let clock = ManualClock::new();
        clock.advance(now.duration_since(clock.now()).unsigned_abs());
        Self::with_clock(seed, clock)
    }

    fn with_clock(seed: u64, clock: ManualClock) -> Self {
        let clock = Arc::new(clock);
        let ids = Arc::new(SeededIds::new(clock.clone(), seed));
        let lifetimes = Lifetimes::default();
        let now = clock.now();
        let authority = Authority::generate("test", &*ids, now, &lifetimes).unwrap();
        let key = PrivateKey::generate().unwrap();
        let names = ServerNames::new(&["localhost", "127.0.0.1"]).unwrap();
        let issued = authority
            .issue_server(&request(&key), &names, &*ids, now, &lifetimes)
            .unwrap();
        let server = identity(&issued, &key);
        let hosts = ["node-1", "node-2"].map(|name| {
            let id = HostId::fresh(&*ids);
            host(&authority, id, name, &*ids, now, &lifetimes)
        });
        Self {
            clock,
            ids,
            lifetimes,
            authority,
            server,
            hosts,
        }
    }

    /// The time.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// The root as bundle.
    #[must_use]
    pub fn trust(&self) -> TrustBundle {
        TrustBundle::new([self.authority.root().clone()]).unwrap()
    }

    /// Trusts the root, and has nothing revoked.
    #[must_use]
    pub fn judge(&self) -> Arc<Judge> {
        Judge::new(self.trust(), Revocations::default(), self.lifetimes.grace)
    }

    /// The server's side.
    #[must_use]
    pub fn reloading_server(&self) -> Arc<ReloadingServer> {
        ReloadingServer::new(&server_material(&self.server)).unwrap()
    }

    /// A client that trusts the root, with this identity or none.
    #[must_use]
    pub fn reloading_client(&self, identity: Option<&IdentityMaterial>) -> Arc<ReloadingClient> {
        ReloadingClient::new(&self.client_material(identity)).unwrap()
    }

    /// A client's material: the root, and this identity.
    #[must_use]
    pub fn client_material(&self, identity: Option<&IdentityMaterial>) -> Material {
        Material {
            identity: identity.cloned(),
            roots: Some(self.authority.certificate_pem().into_bytes()),
        }
    }

    /// A new certificate with a new key for a host, as of now.
    #[must_use]
    pub fn host(&self, id: HostId, name: &str) -> TestHost {
        host(&self.authority, id, name, &*self.ids, self.now(), &self.lifetimes)
    }

    /// A new certificate with a new key for a server of these names, as of now.
    #[must_use]
    pub fn server(&self, names: &[&str]) -> IdentityMaterial {
        let key = PrivateKey::generate().unwrap();
        let names = ServerNames::new(names).unwrap();
        let issued = self
            .authority
            .issue_server(&request(&key), &names, &*self.ids, self.now(), &self.lifetimes)
            .unwrap();
        identity(&issued, &key)
    }
}

/// A server's material.
#[must_use]
pub fn server_material(identity: &IdentityMaterial) -> Material {
    Material {
        identity: Some(identity.clone()),
        roots: None,
    }
}

/// The key's request, checked.
#[must_use]
pub fn request(key: &PrivateKey) -> CertificateRequest {
    CertificateRequest::from_pem(&key.request().unwrap()).unwrap()
}

/// A certificate with its key.
#[must_use]
pub fn identity(issued: &Issued, key: &PrivateKey) -> IdentityMaterial {
    IdentityMaterial {
        certificates: issued.pem.clone().into_bytes(),
        key: Secret::new(key.to_pem().expose().clone().into_bytes()),
    }
}

fn host(
    authority: &Authority,
    id: HostId,
    name: &str,
    ids: &dyn Ids,
    now: Timestamp,
    lifetimes: &Lifetimes,
) -> TestHost {
    let name = Hostname::new(name).unwrap();
    let key = PrivateKey::generate().unwrap();
    let grant = HostGrant {
        host: id,
        name: name.clone(),
        not_earlier: None,
    };
    let issued = authority
        .issue_host(&request(&key), &grant, ids, now, lifetimes)
        .unwrap();
    TestHost {
        id,
        name,
        identity: identity(&issued, &key),
        certificate: issued.host.unwrap(),
    }
}
