//! TLS over TCP: the server's certificate is compared with the authority and the name.

use std::net::TcpListener;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use skyloom_store::ErrorKind;
use skyloom_store_sql::{Engine, TlsMode};

use crate::servers::{Handle, Server};
use crate::support::put;

fn authority() -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

pub(crate) async fn certificates_are_checked(engine: Engine) {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, content: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, content).unwrap();
        path
    };
    let (ours, theirs) = (authority(), authority());
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(["localhost".to_owned()]).unwrap();
    let cert = params.signed_by(&key, &ours).unwrap();
    let ours = file("ours.pem", &ours.pem());
    let theirs = file("theirs.pem", &theirs.pem());
    // Free at this moment; the server says if not.
    let port = TcpListener::bind(("127.0.0.1", 0))
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let (cert, key) = (cert.pem(), key.serialize_pem());
    let server =
        tokio::task::spawn_blocking(move || Server::start_with_tls(engine, port, &cert, &key).unwrap())
            .await
            .unwrap();
    let mut config = server.config();
    config.socket = None;
    config.host = "localhost".to_owned();
    config.port = Some(port);
    config.tls = TlsMode::VerifyFull;
    config.tls_ca = Some(ours.clone());
    let store = Handle::create(config.clone()).await.unwrap();
    put(&*store.backend(), "a", "1").await;
    store.close().await.unwrap();

    // Another name for the same server: fine for whoever looks at the authority alone.
    config.host = "127.0.0.1".to_owned();
    let e = Handle::open(config.clone()).await.err().unwrap();
    assert!(
        matches!(e.kind(), ErrorKind::Invalid | ErrorKind::Unavailable),
        "{e:?}"
    );
    config.tls = TlsMode::VerifyCa;
    Handle::open(config.clone()).await.unwrap().close().await.unwrap();
    // An unknown authority.
    config.tls_ca = Some(theirs);
    let e = Handle::open(config.clone()).await.err().unwrap();
    assert!(
        matches!(e.kind(), ErrorKind::Invalid | ErrorKind::Unavailable),
        "{e:?}"
    );
    // The usual authorities alone do not know it either, and that is what other hosts are asked for by default.
    config.tls_ca = None;
    assert!(Handle::open(config).await.is_err());
    drop(server);
}
