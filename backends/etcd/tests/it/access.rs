//! Users, passwords and certificates.

use etcd_client::{Permission, PermissionType};
use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use skyloom_model::Secret;
use skyloom_store::{ErrorKind, Leases as _, Store as _};
use skyloom_store_etcd::{EtcdConfig, EtcdTls};

use super::support::{Etcd, free_port, open};
use super::{commit, key, put, revision, seen, until, watch};

fn secret(text: &str) -> Secret<String> {
    Secret::new(text.to_owned())
}

/// Users `root` and `sky`; the second may do everything below the prefix `c` and nothing else.
async fn enable(server: &Etcd) {
    let mut client = server.native().await;
    client.role_add("root").await.unwrap();
    client.user_add("root", "root's", None).await.unwrap();
    client.user_grant_role("root", "root").await.unwrap();
    client.role_add("sky").await.unwrap();
    let below = Permission::new(PermissionType::Readwrite, "/c/").with_prefix();
    client.role_grant_permission("sky", below).await.unwrap();
    client.user_add("sky", "hunter2", None).await.unwrap();
    client.user_grant_role("sky", "sky").await.unwrap();
    client.auth_enable().await.unwrap();
}

/// The kind of the error, and its story, which must have all parts and no password.
async fn refused(config: EtcdConfig, kind: ErrorKind, parts: &[&str]) {
    let error = open(config).await.unwrap_err();
    let text = skyloom_model::report(&error);
    assert_eq!(error.kind(), kind, "{text}");
    for part in parts {
        assert!(text.contains(part), "{part} is missing in: {text}");
    }
    assert!(!text.contains("hunter"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn users_and_passwords() {
    let mut server = Etcd::start(&[]).await;
    let sky = |password| server.config("c").with_user("sky", secret(password));
    refused(
        sky("hunter2"),
        ErrorKind::Denied,
        &["authentication is not enabled", "leave user and password out"],
    )
    .await;
    enable(&server).await;
    refused(
        sky("hunter3"),
        ErrorKind::Denied,
        &[
            "open etcd store",
            &server.endpoint(),
            "user or password are wrong",
        ],
    )
    .await;
    refused(
        server.config("c"),
        ErrorKind::Denied,
        &["the server wants a user; set user and password"],
    )
    .await;
    refused(
        sky("hunter2").with_prefix("d"),
        ErrorKind::Denied,
        &["permission denied", "roles do not allow this below the prefix"],
    )
    .await;

    let config = sky("hunter2");
    let store = open(config.clone()).await.unwrap();
    let mut events = watch(&store, "", revision(&store).await);
    let first = commit(&store, put("a", 1)).await;
    assert_eq!(seen(&mut events).await.0, first);
    let name = skyloom_store::LeaseName::parse("hosts/h1").unwrap();
    let minute = std::time::Duration::from_secs(60);
    store
        .grant(&name, "h", minute, skyloom_store::LeaseMode::Acquire)
        .await
        .unwrap();

    // The server forgets the tokens it gave when it ends.
    server.kill();
    server.run();
    server.wait_with(config).await;
    let next = commit(&store, put("a", 2)).await;
    assert_eq!(seen(&mut events).await.0, next);
}

/// An authority, and PEM files made by it.
struct Authority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new(name: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        let pem = params.self_signed(&key).unwrap().pem();
        Self {
            pem,
            issuer: Issuer::new(params, key),
        }
    }

    /// Certificate and key for `names`.
    fn sign(&self, names: &[&str]) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let names: Vec<String> = names.iter().map(|n| (*n).to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        (
            params.signed_by(&key, &self.issuer).unwrap().pem(),
            key.serialize_pem(),
        )
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates() {
    let (ours, theirs) = (Authority::new("ours"), Authority::new("theirs"));
    let (cert, cert_key) = ours.sign(&["etcd.example"]);
    let (client_cert, client_key) = ours.sign(&["engine"]);
    let port = free_port();
    let mut server = Etcd::prepare(port, &format!("https://127.0.0.1:{port}"), &[]);
    let file = |name: &str, text: &str| {
        let path = server.dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let files = [
        ("--cert-file", file("cert", &cert)),
        ("--key-file", file("key", &cert_key)),
        ("--trusted-ca-file", file("ca", &ours.pem)),
    ];
    let (client_cert_file, client_key_file) =
        (file("client-cert", &client_cert), file("client-key", &client_key));
    server.args.extend(
        files
            .iter()
            .flat_map(|(flag, path)| [(*flag).to_owned(), path.clone()]),
    );
    server.args.push("--client-cert-auth".to_owned());
    server.run();

    let config = |ca: &Authority, identity: bool, name: &str| {
        let mut tls = EtcdTls::new(ca.pem.as_str());
        tls.server_name = Some(name.to_owned());
        if identity {
            tls.cert_pem = Some(client_cert.clone());
            tls.key_pem = Some(secret(&client_key));
        }
        EtcdConfig::new([server.endpoint()]).with_tls(tls)
    };
    let good = config(&ours, true, "etcd.example");
    server.wait_with(good.clone()).await;
    let store = open(good).await.unwrap();
    let start = revision(&store).await;
    let next = commit(&store, put("a", 1)).await;
    assert_eq!(seen(&mut watch(&store, "", start)).await.0, next);

    let uri = format!(
        "etcd://{}?ca={}&cert={client_cert_file}&key={client_key_file}&server_name=etcd.example",
        server.endpoint(),
        files[2].1
    );
    let by_uri = open(EtcdConfig::from_uri(&uri).unwrap()).await.unwrap();
    assert!(by_uri.get(&key("a")).await.unwrap().is_some());

    let endpoint = server.endpoint();
    refused(
        config(&theirs, true, "etcd.example"),
        ErrorKind::Unavailable,
        &[&endpoint, "is not from the authority in ca"],
    )
    .await;
    refused(
        config(&ours, true, "other.example"),
        ErrorKind::Unavailable,
        &["is for another name; set server_name"],
    )
    .await;
    refused(
        config(&ours, false, "etcd.example"),
        ErrorKind::Unavailable,
        &[&endpoint, "client certificate"],
    )
    .await;
    refused(
        EtcdConfig::new([endpoint.as_str()]),
        ErrorKind::Unavailable,
        &[&endpoint, "does it want TLS"],
    )
    .await;
    let mut garbage = EtcdTls::new("no certificate");
    garbage.server_name = Some("etcd.example".to_owned());
    assert!(
        open(EtcdConfig::new([endpoint.as_str()]).with_tls(garbage))
            .await
            .is_err()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn rights_taken_away_are_noticed_and_given_back() {
    let server = Etcd::start(&[]).await;
    enable(&server).await;
    let store = open(server.config("c").with_user("sky", secret("hunter2")))
        .await
        .unwrap();
    commit(&store, put("a", 1)).await;
    let options = etcd_client::ConnectOptions::new().with_user("root", "root's");
    let mut root = etcd_client::Client::connect([server.endpoint()], Some(options))
        .await
        .unwrap();
    root.user_revoke_role("sky", "sky").await.unwrap();
    assert_eq!(super::kind(store.commit(put("a", 2)).await), ErrorKind::Denied);
    root.user_grant_role("sky", "sky").await.unwrap();
    until("commits go on", async || store.commit(put("a", 3)).await.is_ok()).await;
    assert_eq!(
        store
            .get(&key("a"))
            .await
            .unwrap()
            .unwrap()
            .value
            .parse::<u8>()
            .unwrap(),
        3
    );
}
