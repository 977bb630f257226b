//! Who is let in, and as what.

use std::sync::Arc;
use std::time::Duration;

use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, Issuer, KeyPair, SanType};
use skyloom_model::{Clock, Hostname, Secret};
use skyloom_pki::testing::{TestPki, identity, request, server_material};
use skyloom_pki::{
    HostGrant, IdentityMaterial, Judge, Oldest, PkiErrorKind, PrivateKey, ReloadingServer, Revocations,
    RevokedBy, RevokedCertificate, Standing, client_config, server_config,
};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::wire::{client, connect, meet, server, shake};

const DAY: Duration = Duration::from_secs(24 * 3600);

#[tokio::test]
async fn a_host_is_known_by_its_certificate() {
    let pki = TestPki::new(1);
    let judge = pki.judge();
    for host in &pki.hosts {
        let peer = meet(&pki, &judge, Some(&host.identity)).await.peer(&judge, &pki);
        assert_eq!(peer.certificate(), &host.certificate);
        assert_eq!(peer.root(), pki.authority.root().fingerprint());
        assert_eq!(judge.standing(&peer, pki.now()), Standing::Valid);
        assert_eq!(judge.host(&peer, pki.now()), Some(host.id));
    }
}

#[tokio::test]
async fn a_client_without_a_certificate_is_let_in_as_nobody() {
    let pki = TestPki::new(1);
    let met = meet(&pki, &pki.judge(), None).await;
    met.client.unwrap();
    assert_eq!(met.server.unwrap(), None);
}

#[tokio::test]
async fn another_clouds_host_is_refused() {
    let (ours, theirs) = (TestPki::new(1), TestPki::new(2));
    let met = meet(&ours, &ours.judge(), Some(&theirs.hosts[0].identity)).await;
    met.refused("UnknownIssuer");
}

/// Both clouds may have the same name, even the same name of the root: the key decides.
#[tokio::test]
async fn another_root_of_the_same_name_is_refused() {
    let (ours, theirs) = (TestPki::new(1), TestPki::new(1));
    assert_ne!(
        ours.authority.root().fingerprint(),
        theirs.authority.root().fingerprint()
    );
    let met = meet(&ours, &ours.judge(), Some(&theirs.hosts[0].identity)).await;
    met.refused("UnknownIssuer");
    let chain = [rustls::pki_types::CertificateDer::from(der(
        &theirs.hosts[0].identity
    ))];
    let error = ours.judge().identify(&chain, ours.now()).unwrap_err();
    assert_eq!(error.kind(), PkiErrorKind::Foreign);
}

#[tokio::test]
async fn a_self_signed_certificate_that_names_a_host_is_refused() {
    let pki = TestPki::new(1);
    let key = KeyPair::generate().unwrap();
    let uri = format!("skyloom:host:{}", pki.hosts[0].id).try_into().unwrap();
    let mut params = CertificateParams::default();
    params.subject_alt_names = vec![SanType::URI(uri)];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    let forged = params.self_signed(&key).unwrap();
    let met = meet(&pki, &pki.judge(), Some(&material(forged.pem(), &key))).await;
    met.refused("UnknownIssuer");
}

/// A host has a valid certificate of ours; it is no authority for another one.
#[tokio::test]
async fn a_host_cannot_sign_for_another() {
    let pki = TestPki::new(1);
    let host = &pki.hosts[0];
    let host_key = String::from_utf8(host.identity.key.expose().clone()).unwrap();
    let host_pem = String::from_utf8(host.identity.certificates.clone()).unwrap();
    let issuer = Issuer::from_ca_cert_pem(&host_pem, KeyPair::from_pem(&host_key).unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.subject_alt_names = vec![SanType::URI(
        format!("skyloom:host:{}", pki.hosts[1].id).try_into().unwrap(),
    )];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    let forged = params.signed_by(&key, &issuer).unwrap();
    let met = meet(
        &pki,
        &pki.judge(),
        Some(&material(forged.pem() + &host_pem, &key)),
    )
    .await;
    met.refused("UnknownIssuer");
}

#[tokio::test]
async fn a_server_is_no_host_and_a_host_no_server() {
    let pki = TestPki::new(1);
    meet(&pki, &pki.judge(), Some(&pki.server))
        .await
        .refused("InvalidPurpose");

    // A host that poses as the API is not believed, whatever the name.
    let posing = ReloadingServer::new(&server_material(&pki.hosts[0].identity)).unwrap();
    let client = client(&pki, pki.reloading_client(None));
    let met = shake(server(&pki, posing, None), client, "localhost").await;
    assert!(met.client.unwrap_err().contains("certificate"));
}

/// Somebody has another host's certificate, but not its key.
#[tokio::test]
async fn a_certificate_without_its_key_is_refused() {
    let pki = TestPki::new(1);
    let [a, b] = &pki.hosts;
    let mixed = IdentityMaterial {
        certificates: a.identity.certificates.clone(),
        key: b.identity.key.clone(),
    };
    let error = ReloadingServer::new(&server_material(&mixed)).unwrap_err();
    assert_eq!(error.kind(), PkiErrorKind::Mismatch);
    // A client of its own making presents it all the same.
    let key = rustls::pki_types::PrivatePkcs8KeyDer::from(
        KeyPair::from_pem(std::str::from_utf8(b.identity.key.expose()).unwrap())
            .unwrap()
            .serialize_der(),
    );
    let signer = rustls::crypto::aws_lc_rs::sign::any_ecdsa_type(&key.into()).unwrap();
    let lie = rustls::sign::CertifiedKey::new(vec![der(&a.identity).into()], signer);
    let mut config = Arc::unwrap_or_clone(client(&pki, pki.reloading_client(None)));
    config.client_auth_cert_resolver = Arc::new(rustls::sign::SingleCertAndKey::from(lie));
    let server = server(&pki, pki.reloading_server(), Some(pki.judge()));
    shake(server, Arc::new(config), "localhost")
        .await
        .refused("BadSignature");
}

#[tokio::test]
async fn an_expired_host_is_let_in_as_expired_within_the_grace() {
    let pki = TestPki::new(1);
    let judge = pki.judge();
    let host = &pki.hosts[0];
    // The server's own certificate is renewed as it should be.
    let meet_now = async || {
        let fresh = ReloadingServer::new(&server_material(&pki.server(&["localhost"]))).unwrap();
        let server = server(&pki, fresh, Some(judge.clone()));
        shake(
            server,
            client(&pki, pki.reloading_client(Some(&host.identity))),
            "localhost",
        )
        .await
    };
    pki.clock.advance(7 * DAY);
    assert_eq!(
        judge.standing(&meet_now().await.peer(&judge, &pki), pki.now()),
        Standing::Valid,
        "its last second"
    );
    pki.clock.advance(Duration::from_secs(1));
    let peer = meet_now().await.peer(&judge, &pki);
    let since = host.certificate.not_after;
    assert_eq!(judge.standing(&peer, pki.now()), Standing::Expired { since });
    assert_eq!(judge.host(&peer, pki.now()), None, "it may not act as the host");

    pki.clock.advance(30 * DAY - Duration::from_secs(1));
    meet_now().await.peer(&judge, &pki);
    pki.clock.advance(Duration::from_secs(1));
    meet_now().await.refused("certificate expired");
}

#[tokio::test]
async fn a_revoked_host_is_refused_and_a_connection_of_it_counts_no_more() {
    let pki = TestPki::new(1);
    let judge = pki.judge();
    let [bad, good] = &pki.hosts;
    let before = meet(&pki, &judge, Some(&bad.identity)).await.peer(&judge, &pki);
    let record = RevokedCertificate::new(&bad.certificate, pki.now(), "stolen", &pki.lifetimes);
    judge.revoke(Revocations::new([record], []));
    meet(&pki, &judge, Some(&bad.identity)).await.refused("Revoked");
    let by = RevokedBy::Serial { why: "stolen".into() };
    assert_eq!(judge.standing(&before, pki.now()), Standing::Revoked(by.clone()));
    // Also when it has expired: revoked is the stronger word.
    pki.clock.advance(8 * DAY);
    assert_eq!(judge.standing(&before, pki.now()), Standing::Revoked(by));
    let other = meet(&pki, &judge, Some(&good.identity)).await.peer(&judge, &pki);
    assert!(matches!(
        judge.standing(&other, pki.now()),
        Standing::Expired { .. }
    ));
}

#[tokio::test]
async fn a_certificate_of_the_future_is_refused() {
    let pki = TestPki::new(1);
    let grant = HostGrant {
        host: pki.hosts[0].id,
        name: Hostname::new("node-1").unwrap(),
        not_earlier: Some(pki.now() + jiff::SignedDuration::from_hours(1)),
    };
    let key = PrivateKey::generate().unwrap();
    let issued = pki
        .authority
        .issue_host(&request(&key), &grant, &*pki.ids, pki.now(), &pki.lifetimes)
        .unwrap();
    let met = meet(&pki, &pki.judge(), Some(&identity(&issued, &key))).await;
    met.refused("not valid yet");
}

#[tokio::test]
async fn a_server_is_believed_under_its_names_alone() {
    let pki = TestPki::new(1);
    let server = server(&pki, pki.reloading_server(), Some(pki.judge()));
    let to = async |name| {
        shake(server.clone(), client(&pki, pki.reloading_client(None)), name)
            .await
            .client
    };
    to("localhost").await.unwrap();
    to("127.0.0.1").await.unwrap();
    for other in ["api.example.org", "127.0.0.2", "localhost.example.org"] {
        let error = to(other).await.unwrap_err();
        assert!(error.contains("not valid for name"), "{other}: {error}");
    }
}

#[tokio::test]
async fn a_server_of_another_cloud_or_an_expired_one_is_not_believed() {
    let (ours, theirs) = (TestPki::new(1), TestPki::new(2));
    let to = client(&ours, ours.reloading_client(Some(&ours.hosts[0].identity)));
    let met = shake(
        server(&theirs, theirs.reloading_server(), None),
        to.clone(),
        "localhost",
    )
    .await;
    assert!(met.client.unwrap_err().contains("UnknownIssuer"));

    ours.clock.advance(31 * DAY);
    let met = shake(server(&ours, ours.reloading_server(), None), to, "localhost").await;
    assert!(met.client.unwrap_err().contains("expired"));
}

/// Resumed sessions would bring the chain of the first handshake past the revocations of today.
#[tokio::test]
async fn sessions_are_not_resumed() {
    let pki = TestPki::new(1);
    let server = server(&pki, pki.reloading_server(), Some(pki.judge()));
    // A client that would.
    let mut eager = Arc::unwrap_or_clone(client(&pki, pki.reloading_client(Some(&pki.hosts[0].identity))));
    eager.resumption = rustls::client::Resumption::in_memory_sessions(16);
    let eager = Arc::new(eager);
    for _ in 0..3 {
        let mut ends = connect(server.clone(), eager.clone()).await;
        crate::wire::talk(&mut ends).await;
        assert_eq!(
            ends.1.get_ref().1.handshake_kind(),
            Some(rustls::HandshakeKind::Full)
        );
    }
}

#[tokio::test]
async fn tls_1_2_is_spoken_only_where_it_is_allowed() {
    let pki = TestPki::new(1);
    let clock: Arc<dyn Clock> = pki.clock.clone();
    let host = &pki.hosts[0];
    let old = || {
        let config = rustls::ClientConfig::builder_with_details(
            Arc::new(rustls::crypto::aws_lc_rs::default_provider()),
            client(&pki, pki.reloading_client(None)).time_provider.clone(),
        );
        let config = config.with_protocol_versions(&[&rustls::version::TLS12]).unwrap();
        let live = pki.reloading_client(Some(&host.identity));
        let config = config
            .dangerous()
            .with_custom_certificate_verifier(live.clone())
            .with_client_cert_resolver(live);
        Arc::new(config)
    };
    let judge = pki.judge();
    let strict = server(&pki, pki.reloading_server(), Some(judge.clone()));
    assert!(shake(strict, old(), "localhost").await.server.is_err());
    let lax = server_config(
        pki.reloading_server(),
        Some(judge.clone()),
        clock.clone(),
        Oldest::Tls12,
    )
    .unwrap();
    let peer = shake(Arc::new(lax), old(), "localhost").await.peer(&judge, &pki);
    assert_eq!(judge.host(&peer, pki.now()), Some(host.id));
    let both = client_config(pki.reloading_client(None), clock, Oldest::Tls12).unwrap();
    let strict = server(&pki, pki.reloading_server(), None);
    shake(strict, Arc::new(both), "localhost").await.client.unwrap();
}

#[tokio::test]
async fn it_works_over_a_socket() {
    let pki = TestPki::new(1);
    let judge = pki.judge();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let acceptor = TlsAcceptor::from(server(&pki, pki.reloading_server(), Some(judge.clone())));
    let connector = TlsConnector::from(client(&pki, pki.reloading_client(Some(&pki.hosts[1].identity))));
    let (accepted, connected) = tokio::join!(
        async { acceptor.accept(listener.accept().await.unwrap().0).await },
        async {
            let name = rustls::pki_types::ServerName::from(address.ip());
            connector
                .connect(name, TcpStream::connect(address).await.unwrap())
                .await
        }
    );
    connected.unwrap();
    let accepted = accepted.unwrap();
    let peer = judge
        .identify(accepted.get_ref().1.peer_certificates().unwrap(), pki.now())
        .unwrap();
    assert_eq!(judge.host(&peer, pki.now()), Some(pki.hosts[1].id));
}

#[test]
fn a_judge_of_no_roots_knows_nobody() {
    let pki = TestPki::new(1);
    let judge = Judge::new(skyloom_pki::TrustBundle::default(), Revocations::default(), DAY);
    let chain = [rustls::pki_types::CertificateDer::from(der(
        &pki.hosts[0].identity
    ))];
    assert_eq!(
        judge.identify(&chain, pki.now()).unwrap_err().kind(),
        PkiErrorKind::Foreign
    );
    assert_eq!(
        judge.identify(&[], pki.now()).unwrap_err().kind(),
        PkiErrorKind::Malformed
    );
}

fn der(identity: &IdentityMaterial) -> Vec<u8> {
    use rustls::pki_types::pem::PemObject as _;
    rustls::pki_types::CertificateDer::from_pem_slice(&identity.certificates)
        .unwrap()
        .to_vec()
}

fn material(pem: String, key: &KeyPair) -> IdentityMaterial {
    IdentityMaterial {
        certificates: pem.into_bytes(),
        key: Secret::new(key.serialize_pem().into_bytes()),
    }
}
