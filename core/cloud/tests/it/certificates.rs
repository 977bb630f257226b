//! Hosts' certificates: who gets one, who does not, and what is left of them when they are taken back.

use std::sync::Arc;
use std::time::Duration;

use skyloom_cloud::{
    AuthorityParts, Caller, CloudError, ErrorKind, HostAuthority, JoinTokenAccepted, RevokeCertificates,
};
use skyloom_identity::{FileKeys, Vault};
use skyloom_model::{Clock as _, Host, HostId, Resource as _, Scope, paths};
use skyloom_pki::{
    HostCertificate, HostJoined, JoinHost, Lifetimes, Peer, PrivateKey, RenewCertificate, ServerNames,
    Standing, TrustBundle,
};
use skyloom_store::{Key, ListOptions, Prefix};

use crate::world::World;

const DAY: Duration = Duration::from_secs(86_400);

struct Site {
    world: World,
    authority: Arc<HostAuthority>,
    admin: Caller,
    host: HostId,
}

fn vault(world: &World, current: &str, older: &[&str]) -> Arc<Vault> {
    let at = |name: &str| world.dir.path().join(name);
    for name in older.iter().chain([&current]).filter(|name| !at(name).exists()) {
        FileKeys::generate(&at(name), &*world.ids).unwrap();
    }
    let older: Vec<_> = older.iter().map(|name| at(name)).collect();
    let older: Vec<_> = older.iter().map(|path| path.as_path()).collect();
    let keys = FileKeys::read(&at(current), &older, world.ids.clone()).unwrap();
    Arc::new(Vault::new(Arc::new(keys), world.ids.clone()))
}

async fn authority(world: &World, secrets: Arc<Vault>) -> Result<Arc<HostAuthority>, CloudError> {
    HostAuthority::open(AuthorityParts {
        backend: world.store.clone(),
        clock: Arc::new(world.clock.clone()),
        ids: world.ids.clone(),
        secrets,
        cloud: "test".to_owned(),
        lifetimes: Lifetimes::default(),
    })
    .await
}

fn request(key: &PrivateKey) -> String {
    key.request().unwrap()
}

impl Site {
    async fn new() -> Self {
        let mut world = World::new();
        let authority = authority(&world, vault(&world, "seal.key", &[])).await.unwrap();
        world.cloud = world.cloud.with_authority(authority.clone());
        let admin = world.admin().await;
        let host = world.host(&admin, "node-1").await;
        Self {
            world,
            authority,
            admin,
            host,
        }
    }

    async fn token(&self) -> JoinTokenAccepted {
        self.world
            .cloud
            .host_join_token(&self.admin, self.host)
            .await
            .unwrap()
    }

    async fn join(&self, token: &str, name: &str, key: &PrivateKey) -> Result<HostJoined, CloudError> {
        let request = JoinHost {
            token: token.to_owned(),
            name: name.to_owned(),
            request: request(key),
        };
        self.world.cloud.join_host(&request, None, "join").await
    }

    async fn joined(&self) -> HostJoined {
        let token = self.token().await.token.unwrap();
        let key = PrivateKey::generate().unwrap();
        self.join(token.expose(), "node-1", &key).await.unwrap()
    }

    async fn renew(&self, peer: &Peer) -> Result<HostJoined, CloudError> {
        let key = PrivateKey::generate().unwrap();
        let asked = RenewCertificate {
            request: request(&key),
        };
        self.world.cloud.renew_certificate(peer, &asked).await
    }

    /// Whose certificate it is, as after a handshake.
    fn peer(&self, joined: &HostJoined) -> Peer {
        let der = der(&joined.certificate);
        self.authority
            .judge()
            .identify(&[der], self.world.clock.now())
            .unwrap()
    }

    fn standing(&self, peer: &Peer) -> Standing {
        self.authority.judge().standing(peer, self.world.clock.now())
    }

    async fn revoke(&self) {
        let why = RevokeCertificates {
            why: "stolen".to_owned(),
        };
        let cloud = &self.world.cloud;
        cloud
            .revoke_certificates(&self.admin, self.host, why)
            .await
            .unwrap();
    }

    async fn record(&self) -> Host {
        let path = paths::resource(Host::KIND, Scope::System, self.host.uuid());
        let found = self.world.store.get(&Key::parse(&path).unwrap()).await.unwrap();
        found.unwrap().value.parse().unwrap()
    }
}

fn der(pem: &str) -> rustls::pki_types::CertificateDer<'static> {
    use rustls::pki_types::pem::PemObject as _;
    rustls::pki_types::CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()
}

#[track_caller]
fn refused<T: std::fmt::Debug>(answer: Result<T, CloudError>, code: &str) {
    let error = answer.unwrap_err();
    assert_eq!(error.code(), code, "{error}");
}

#[tokio::test]
async fn a_machine_becomes_its_host_and_no_other() {
    let site = Site::new().await;
    let made = site.token().await;
    let token = made.token.as_ref().unwrap().expose();
    assert_eq!((made.host, made.name.as_str()), (site.host, "node-1"));
    assert_eq!(
        TrustBundle::from_pem(made.roots.as_bytes())
            .unwrap()
            .roots()
            .len(),
        1
    );
    let key = PrivateKey::generate().unwrap();
    let joined = site.join(token, "node-1", &key).await.unwrap();
    let says = HostCertificate::parse(&der(&joined.certificate)).unwrap();
    assert_eq!(
        (joined.host, says.host, says.key),
        (site.host, site.host, key.fingerprint())
    );
    assert_eq!(site.standing(&site.peer(&joined)), Standing::Valid);
    assert_eq!(
        site.record().await.status.certificate_until,
        Some(joined.not_after)
    );

    // A token that nobody can read back: the store has its hash alone.
    let all = site
        .world
        .store
        .list(&Prefix::all(), ListOptions::default())
        .await
        .unwrap();
    let body = token.strip_prefix("skyjoin_").unwrap();
    for kv in &all.items {
        let text = String::from_utf8_lossy(kv.value.bytes()).into_owned();
        assert!(
            !kv.key.as_str().contains(body) && !text.contains(body),
            "{}",
            kv.key
        );
        assert!(!text.contains("PRIVATE KEY"), "{}", kv.key);
    }
}

/// Attack 77.
#[tokio::test]
async fn a_join_token_is_for_one_key_one_name_and_one_day() {
    let site = Site::new().await;
    let made = site.token().await;
    let token = made.token.unwrap();
    let (first, second) = (PrivateKey::generate().unwrap(), PrivateKey::generate().unwrap());
    refused(
        site.join(token.expose(), "node-2", &first).await,
        "join.other_host",
    );
    refused(site.join("skyjoin_x", "node-1", &first).await, "join.unknown");
    let unknown = format!("skyjoin_{}", "A".repeat(43));
    refused(site.join(&unknown, "node-1", &first).await, "join.unknown");
    site.join(token.expose(), "node-1", &first).await.unwrap();
    refused(site.join(token.expose(), "node-1", &second).await, "join.used");
    // The answer was lost: the same key again, for ten minutes.
    site.join(token.expose(), "node-1", &first).await.unwrap();
    site.world.clock.advance(Duration::from_secs(601));
    refused(site.join(token.expose(), "node-1", &first).await, "join.used");

    let late = site.token().await.token.unwrap();
    site.world.clock.advance(DAY);
    refused(site.join(late.expose(), "node-1", &first).await, "join.expired");

    let (old, new) = (
        site.token().await.token.unwrap(),
        site.token().await.token.unwrap(),
    );
    refused(site.join(old.expose(), "node-1", &first).await, "join.unknown");
    site.join(new.expose(), "node-1", &first).await.unwrap();
}

#[tokio::test]
async fn of_two_machines_with_one_token_one_becomes_the_host() {
    let site = Site::new().await;
    let token = site.token().await.token.unwrap();
    let keys: Vec<_> = (0..8).map(|_| PrivateKey::generate().unwrap()).collect();
    let tries = keys.iter().map(|key| site.join(token.expose(), "node-1", key));
    let answers = futures::future::join_all(tries).await;
    let (good, bad): (Vec<_>, Vec<_>) = answers.into_iter().partition(Result::is_ok);
    assert_eq!((good.len(), bad.len()), (1, 7));
    bad.into_iter().for_each(|answer| refused(answer, "join.used"));
}

#[tokio::test]
async fn bad_requests_are_refused_and_use_nothing_up() {
    let site = Site::new().await;
    let token = site.token().await.token.unwrap();
    for (request, code) in [("", "pki.malformed"), (&*"x".repeat(9000), "pki.too_large")] {
        let asked = JoinHost {
            token: token.expose().to_owned(),
            name: "node-1".to_owned(),
            request: request.to_owned(),
        };
        refused(site.world.cloud.join_host(&asked, None, "join").await, code);
    }
    let key = PrivateKey::generate().unwrap();
    refused(site.join(token.expose(), "a b", &key).await, "name.invalid");
    site.join(token.expose(), "node-1", &key).await.unwrap();
}

#[tokio::test]
async fn a_certificate_is_renewed_with_itself_also_within_the_grace() {
    let site = Site::new().await;
    let first = site.peer(&site.joined().await);
    site.world.clock.advance(DAY * 4);
    let second = site.renew(&first).await.unwrap();
    assert_eq!(site.standing(&site.peer(&second)), Standing::Valid);
    assert_eq!(
        site.record().await.status.certificate_until,
        Some(second.not_after)
    );

    let second = site.peer(&second);
    site.world.clock.advance(DAY * 36);
    assert!(matches!(site.standing(&second), Standing::Expired { .. }));
    let third = site.peer(&site.renew(&second).await.unwrap());
    assert_eq!(site.standing(&third), Standing::Valid);
    // The first one ended 33 days ago.
    refused(site.renew(&first).await, "certificate.expired");
    site.world.clock.advance(DAY * 38);
    refused(site.renew(&third).await, "certificate.expired");
}

#[tokio::test]
async fn what_is_taken_back_is_of_no_use_and_the_host_may_join_again() {
    let site = Site::new().await;
    let peer = site.peer(&site.joined().await);
    let unused = site.token().await.token.unwrap();
    site.world.clock.advance(Duration::from_secs(600));
    site.revoke().await;
    assert!(matches!(site.standing(&peer), Standing::Revoked(_)));
    refused(site.renew(&peer).await, "certificate.revoked");
    let key = PrivateKey::generate().unwrap();
    refused(site.join(unused.expose(), "node-1", &key).await, "join.unknown");
    assert_eq!(site.record().await.status.certificate_until, None);

    let again = site.peer(&site.joined().await);
    site.world.clock.advance(Duration::from_secs(1));
    assert_eq!(site.standing(&again), Standing::Valid);
    assert!(matches!(site.standing(&peer), Standing::Revoked(_)));
}

/// A process that has not heard of a revocation gives out nothing that counts.
#[tokio::test]
async fn another_process_that_is_behind_renews_nothing() {
    let site = Site::new().await;
    let behind = authority(&site.world, vault(&site.world, "seal.key", &[]))
        .await
        .unwrap();
    let peer = site.peer(&site.joined().await);
    site.world.clock.advance(Duration::from_secs(600));
    site.revoke().await;
    let now = site.world.clock.now();
    assert_eq!(
        behind.judge().standing(&peer, now),
        Standing::Valid,
        "it has not heard of it"
    );
    let there = site.world.cloud.clone().with_authority(behind.clone());
    let asked = RenewCertificate {
        request: request(&PrivateKey::generate().unwrap()),
    };
    refused(
        there.renew_certificate(&peer, &asked).await,
        "certificate.revoked",
    );
    behind.refresh().await.unwrap();
    assert!(matches!(
        behind.judge().standing(&peer, now),
        Standing::Revoked(_)
    ));
}

#[tokio::test]
async fn all_processes_have_the_same_root_and_its_key_only_with_the_key_file() {
    let site = Site::new().await;
    let other = authority(&site.world, vault(&site.world, "seal.key", &[]))
        .await
        .unwrap();
    assert_eq!(other.roots(), site.authority.roots());
    let stranger = vault(&site.world, "other.key", &[]);
    refused(authority(&site.world, stranger).await, "vault.unknown_key");
    // A new key takes over what the old one has sealed; then the old one is not needed any more.
    let moved = authority(&site.world, vault(&site.world, "new.key", &["seal.key"])).await;
    assert_eq!(moved.unwrap().roots(), site.authority.roots());
    authority(&site.world, vault(&site.world, "new.key", &[]))
        .await
        .unwrap();
    refused(
        authority(&site.world, vault(&site.world, "seal.key", &[])).await,
        "vault.unknown_key",
    );
}

#[tokio::test]
async fn roots_follow_each_other_and_hosts_stay_themselves() {
    let site = Site::new().await;
    let secrets = vault(&site.world, "seal.key", &[]);
    let names = ServerNames::new(&["localhost"]).unwrap();
    let mut joined = site.joined().await;
    let mut seen = std::collections::BTreeSet::new();
    // Three years, a host that renews each four days, and a process that starts anew each time.
    for _ in 0..270 {
        site.world.clock.advance(DAY * 4);
        let authority = authority(&site.world, secrets.clone()).await.unwrap();
        let cloud = site.world.cloud.clone().with_authority(authority.clone());
        let now = site.world.clock.now();
        let peer = authority
            .judge()
            .identify(&[der(&joined.certificate)], now)
            .unwrap();
        assert_eq!(authority.judge().standing(&peer, now), Standing::Valid);
        let key = PrivateKey::generate().unwrap();
        let asked = RenewCertificate {
            request: request(&key),
        };
        joined = cloud.renew_certificate(&peer, &asked).await.unwrap();
        authority.issue_server(&names).unwrap();
        let roots = TrustBundle::from_pem(authority.roots().as_bytes()).unwrap();
        assert!((1..=2).contains(&roots.roots().len()), "{}", roots.roots().len());
        seen.insert(peer.root().as_str().to_owned());
    }
    assert_eq!(seen.len(), 3, "each year another root signs");
}

#[tokio::test]
async fn only_those_who_may_let_hosts_join() {
    let site = Site::new().await;
    let member = site.world.member(&site.admin, "p").await;
    let cloud = &site.world.cloud;
    for error in [
        cloud.host_join_token(&member, site.host).await.unwrap_err(),
        cloud
            .revoke_certificates(&member, site.host, RevokeCertificates::default())
            .await
            .unwrap_err(),
    ] {
        assert!(
            matches!(error.kind(), ErrorKind::Denied | ErrorKind::NotFound),
            "{error}"
        );
    }
    let nobody = HostId::fresh(&*site.world.ids);
    refused(cloud.host_join_token(&site.admin, nobody).await, "host.not_found");
}
