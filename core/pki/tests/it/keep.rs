//! What a host keeps: whole, private, and of one issue.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use skyloom_model::Secret;
use skyloom_pki::testing::{TestPki, request};
use skyloom_pki::{HostFolder, HostGrant, Live as _, PkiErrorKind, PrivateKey, ReloadingClient};

fn issue(pki: &TestPki, key: &PrivateKey) -> String {
    let grant = HostGrant {
        host: pki.hosts[0].id,
        name: pki.hosts[0].name.clone(),
        not_earlier: None,
    };
    let issued = pki
        .authority
        .issue_host(&request(key), &grant, &*pki.ids, pki.now(), &pki.lifetimes);
    issued.unwrap().pem
}

#[test]
fn a_joining_key_outlives_a_crash_and_goes_when_its_certificate_is_here() {
    let (pki, dir) = (TestPki::new(1), tempfile::tempdir().unwrap());
    let path = dir.path().join("a/pki");
    let folder = HostFolder::open(&path).unwrap();
    assert!(folder.identity().unwrap().is_none() && folder.roots().unwrap().is_none());
    let key = folder.joining_key().unwrap();
    let again = HostFolder::open(&path).unwrap().joining_key().unwrap();
    assert_eq!(key.fingerprint(), again.fingerprint());

    let roots = pki.authority.certificate_pem();
    let kept = folder.keep(&key, &issue(&pki, &key), &roots).unwrap();
    assert_eq!(kept.certificate.host, pki.hosts[0].id);
    let (token, other) = (
        Secret::new("skyjoin_a".to_owned()),
        Secret::new("skyjoin_b".to_owned()),
    );
    assert!(!folder.joined_with(&token).unwrap());
    folder.note_joined(&token).unwrap();
    assert!(folder.joined_with(&token).unwrap() && !folder.joined_with(&other).unwrap());
    let found = HostFolder::open(&path).unwrap().identity().unwrap().unwrap();
    assert_eq!(found.certificate, kept.certificate);
    assert_eq!(folder.roots().unwrap(), Some(roots.into_bytes()));
    assert_ne!(folder.joining_key().unwrap().fingerprint(), key.fingerprint());
    for entry in fs::read_dir(&path).unwrap() {
        let entry = entry.unwrap();
        let mode = entry.metadata().unwrap().permissions().mode() & 0o7777;
        assert_eq!(mode, 0o600, "{:?}", entry.path());
    }
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o700);
}

#[test]
fn what_does_not_belong_together_is_not_kept() {
    let (pki, dir) = (TestPki::new(1), tempfile::tempdir().unwrap());
    let folder = HostFolder::open(dir.path()).unwrap();
    let (key, other) = (PrivateKey::generate().unwrap(), PrivateKey::generate().unwrap());
    let roots = pki.authority.certificate_pem();
    let kept = folder.keep(&key, &issue(&pki, &key), &roots).unwrap();
    let kind = |certificate: &str, roots: &str| folder.keep(&key, certificate, roots).unwrap_err().kind();
    assert_eq!(kind(&issue(&pki, &other), &roots), PkiErrorKind::Mismatch);
    assert_eq!(kind("no certificate", &roots), PkiErrorKind::Malformed);
    let server = String::from_utf8(pki.server.certificates.clone()).unwrap();
    assert_eq!(kind(&server, &roots), PkiErrorKind::NotAllowed);
    assert_eq!(kind(&issue(&pki, &key), "no root"), PkiErrorKind::Malformed);
    let there = folder.identity().unwrap().unwrap();
    assert_eq!(there.certificate, kept.certificate);
}

#[test]
fn a_key_that_others_may_read_is_refused() {
    let (pki, dir) = (TestPki::new(1), tempfile::tempdir().unwrap());
    let folder = HostFolder::open(dir.path()).unwrap();
    let key = PrivateKey::generate().unwrap();
    folder
        .keep(&key, &issue(&pki, &key), &pki.authority.certificate_pem())
        .unwrap();
    let open = fs::Permissions::from_mode(0o640);
    fs::set_permissions(dir.path().join("identity.pem"), open).unwrap();
    let error = folder.identity().unwrap_err();
    assert_eq!(error.kind(), PkiErrorKind::NotAllowed);
    assert!(error.to_string().contains("0640"), "{error}");
}

#[test]
fn a_client_of_the_folder_trusts_the_given_roots_and_those_that_came_along() {
    let (pki, other, dir) = (TestPki::new(1), TestPki::new(2), tempfile::tempdir().unwrap());
    let folder = HostFolder::open(dir.path()).unwrap();
    assert!(folder.material(None).unwrap().roots.is_none());
    let given = other.authority.certificate_pem();
    let before = folder.material(Some(given.trim_end().as_bytes())).unwrap();
    let client = ReloadingClient::new(&before).unwrap();
    assert_eq!(client.generation(), 0);

    let key = PrivateKey::generate().unwrap();
    let roots = pki.authority.certificate_pem();
    folder.keep(&key, &issue(&pki, &key), &roots).unwrap();
    let after = folder.material(Some(given.trim_end().as_bytes())).unwrap();
    let bundle = skyloom_pki::TrustBundle::from_pem(after.roots.as_deref().unwrap()).unwrap();
    assert_eq!(bundle.roots().len(), 2);
    assert!(after.identity.is_some());
    client.replace(&after, pki.now()).unwrap();
    assert_eq!(client.generation(), 1);
}
