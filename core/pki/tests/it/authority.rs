//! What is taken from a request, what is not, and what stands in the certificate.

use proptest::prelude::*;
use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, PKCS_ECDSA_P384_SHA384, PKCS_ED25519, SanType,
};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use skyloom_model::Secret;
use skyloom_pki::testing::{TestPki, request};
use skyloom_pki::{
    Authority, CertificateRequest, HostCertificate, HostGrant, Issued, Lifetimes, MAX_REQUEST, PkiErrorKind,
    PrivateKey, ServerNames, TrustBundle,
};
use x509_parser::prelude::{FromDer as _, GeneralName, X509Certificate};

fn grant(pki: &TestPki) -> HostGrant {
    HostGrant {
        host: pki.hosts[0].id,
        name: pki.hosts[0].name.clone(),
        not_earlier: None,
    }
}

fn issue(pki: &TestPki, request: &CertificateRequest) -> Issued {
    pki.authority
        .issue_host(request, &grant(pki), &*pki.ids, pki.now(), &pki.lifetimes)
        .unwrap()
}

fn der(pem: &str) -> Vec<u8> {
    CertificateDer::from_pem_slice(pem.as_bytes()).unwrap().to_vec()
}

/// All that a request could ask for.
fn hostile() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "admin");
    params
        .distinguished_name
        .push(DnType::OrganizationName, "system:masters");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::Any];
    params.subject_alt_names = vec![
        SanType::DnsName("localhost".try_into().unwrap()),
        SanType::URI(
            "skyloom:host:00000000-0000-7000-8000-000000000000"
                .try_into()
                .unwrap(),
        ),
    ];
    let mut odd = CustomExtension::from_oid_content(&[1, 3, 6, 1, 4, 1, 99999, 1], vec![4, 1, 0]);
    odd.set_criticality(true);
    params.custom_extensions = vec![odd];
    params
}

#[test]
fn nothing_but_the_key_is_taken_from_a_request() {
    let pki = TestPki::new(1);
    let key = KeyPair::generate().unwrap();
    let pem = hostile().serialize_request(&key).unwrap().pem().unwrap();
    let issued = issue(&pki, &CertificateRequest::from_pem(&pem).unwrap());
    let der = der(&issued.pem);
    let (_, read) = X509Certificate::from_der(&der).unwrap();
    assert_eq!(read.subject().to_string(), "CN=node-1");
    let names = &read
        .subject_alternative_name()
        .unwrap()
        .unwrap()
        .value
        .general_names;
    let uri = format!("skyloom:host:{}", pki.hosts[0].id);
    assert_eq!(names, &[GeneralName::URI(&uri)]);
    assert!(!read.basic_constraints().unwrap().unwrap().value.ca);
    let usage = read.extended_key_usage().unwrap().unwrap().value;
    assert!(usage.client_auth && !usage.server_auth && !usage.any && usage.other.is_empty());
    let usage = read.key_usage().unwrap().unwrap().value;
    assert!(usage.digital_signature() && !usage.key_cert_sign() && !usage.crl_sign());
    let extensions: Vec<_> = read.extensions().iter().map(|e| e.oid.to_id_string()).collect();
    // Both keys' ids, the name, two usages, no authority; nothing of the request's own.
    assert!(
        extensions.iter().all(|oid| oid.starts_with("2.5.29.")),
        "{extensions:?}"
    );
    assert_eq!(extensions.len(), 6, "{extensions:?}");
    let back_date = i64::try_from(pki.lifetimes.back_date.as_secs()).unwrap();
    assert_eq!(
        read.validity().not_before.timestamp(),
        pki.now().as_second() - back_date
    );
    assert_eq!(
        read.validity().not_after.timestamp(),
        pki.now().as_second() + 7 * 86400
    );
}

#[test]
fn serial_numbers_have_128_random_bits() {
    let pki = TestPki::new(1);
    let key = PrivateKey::generate().unwrap();
    let mut seen = std::collections::BTreeSet::new();
    let mut longest = 0;
    for _ in 0..64 {
        let serial = issue(&pki, &request(&key)).host.unwrap().serial;
        longest = longest.max(serial.as_str().len());
        assert!(seen.insert(serial), "a serial number came twice");
    }
    assert_eq!(longest, 32);
}

#[test]
fn a_request_that_is_not_signed_by_its_key_is_refused() {
    let key = KeyPair::generate().unwrap();
    let other = KeyPair::generate().unwrap();
    let params = CertificateParams::default();
    let request = params.serialize_request(&key).unwrap().der().to_vec();
    let theirs = params.serialize_request(&other).unwrap().der().to_vec();
    CertificateRequest::from_der(&request).unwrap();

    // A broken signature.
    let mut broken = request.clone();
    let last = broken.len() - 1;
    broken[last] ^= 1;
    assert_eq!(kind(&broken), PkiErrorKind::BadSignature);

    // The other key's point in place of this one's: signed, but by somebody else.
    let (ours, point) = (key.public_key_raw(), other.public_key_raw());
    let at = request.windows(ours.len()).position(|w| w == ours).unwrap();
    let mut swapped = request.clone();
    swapped[at..at + point.len()].copy_from_slice(point);
    assert_eq!(kind(&swapped), PkiErrorKind::BadSignature);
    assert_ne!(swapped, theirs);
}

#[test]
fn a_request_that_is_long_cut_or_followed_by_more_is_refused() {
    let key = PrivateKey::generate().unwrap();
    let pem = key.request().unwrap();
    let long = pem.clone() + &"A".repeat(1 << 20);
    assert_eq!(
        CertificateRequest::from_pem(&long).unwrap_err().kind(),
        PkiErrorKind::TooLarge
    );
    assert_eq!(kind(&vec![0x30; 1 << 20]), PkiErrorKind::TooLarge);
    assert_eq!(kind(&vec![0x30; MAX_REQUEST]), PkiErrorKind::Malformed);

    let cut = &pem[..pem.len() / 2];
    assert_eq!(
        CertificateRequest::from_pem(cut).unwrap_err().kind(),
        PkiErrorKind::Malformed
    );
    let mut more = KeyPair::generate()
        .and_then(|k| CertificateParams::default().serialize_request(&k))
        .unwrap()
        .der()
        .to_vec();
    more.push(0);
    assert_eq!(kind(&more), PkiErrorKind::Malformed);
    // A certificate is no request.
    let pki = TestPki::new(1);
    assert_eq!(
        CertificateRequest::from_pem(&pki.authority.certificate_pem())
            .unwrap_err()
            .kind(),
        PkiErrorKind::Malformed
    );
}

#[test]
fn keys_of_two_kinds_are_taken() {
    let pki = TestPki::new(1);
    let request = |alg| {
        let key = KeyPair::generate_for(alg).unwrap();
        CertificateParams::default()
            .serialize_request(&key)
            .unwrap()
            .der()
            .to_vec()
    };
    let ed = CertificateRequest::from_der(&request(&PKCS_ED25519)).unwrap();
    let issued = issue(&pki, &ed);
    assert_eq!(&issued.host.unwrap().key, ed.fingerprint());
    assert_eq!(kind(&request(&PKCS_ECDSA_P384_SHA384)), PkiErrorKind::NotAllowed);
    let p384 = KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384)
        .unwrap()
        .serialize_pem();
    let error = PrivateKey::from_pem(&Secret::new(p384)).unwrap_err();
    assert_eq!(error.kind(), PkiErrorKind::NotAllowed);
}

#[test]
fn a_key_survives_its_pem_and_is_shown_by_nothing_else() {
    let key = PrivateKey::generate().unwrap();
    let pem = key.to_pem();
    let again = PrivateKey::from_pem(&pem).unwrap();
    assert_eq!(again.fingerprint(), key.fingerprint());
    assert_eq!(request(&key).fingerprint(), &key.fingerprint());
    let body = pem.expose().lines().nth(1).unwrap();
    let pki = TestPki::new(1);
    let root_key = pki.authority.key_pem();
    let root_body = root_key.expose().lines().nth(1).unwrap();
    let shown = format!(
        "{key:?} {:?} {:?} {:?}",
        pki.authority,
        pki.hosts,
        pki.reloading_server()
    );
    assert!(!shown.contains(body) && !shown.contains(root_body) && !shown.contains("PRIVATE"));
    // Nor by an error.
    let cut = Secret::new(pem.expose()[..pem.expose().len() - 60].to_owned());
    let error = PrivateKey::from_pem(&cut).unwrap_err();
    assert_eq!(error.kind(), PkiErrorKind::Malformed);
    assert!(!format!("{error:?}").contains(&body[..16]));
}

#[test]
fn an_authority_is_opened_with_its_own_key_alone() {
    let (a, b) = (TestPki::new(1), TestPki::new(2));
    let opened = Authority::open(&a.authority.certificate_pem(), &a.authority.key_pem()).unwrap();
    assert_eq!(opened.root().fingerprint(), a.authority.root().fingerprint());
    let key = PrivateKey::generate().unwrap();
    let issued = opened
        .issue_host(&request(&key), &grant(&a), &*a.ids, a.now(), &a.lifetimes)
        .unwrap();
    let chain = [CertificateDer::from(der(&issued.pem))];
    a.judge().identify(&chain, a.now()).unwrap();

    let error = Authority::open(&a.authority.certificate_pem(), &b.authority.key_pem()).unwrap_err();
    assert_eq!(error.kind(), PkiErrorKind::Mismatch);
    // A host's certificate makes no authority.
    let host = &a.hosts[0].identity;
    let pem = String::from_utf8(host.certificates.clone()).unwrap();
    let key = Secret::new(String::from_utf8(host.key.expose().clone()).unwrap());
    assert_eq!(
        Authority::open(&pem, &key).unwrap_err().kind(),
        PkiErrorKind::NotAllowed
    );
}

#[test]
fn nothing_outlives_its_root() {
    let pki = TestPki::new(1);
    let day = std::time::Duration::from_secs(86400);
    let short = Lifetimes {
        root: 3 * day,
        ..Lifetimes::default()
    };
    let authority = Authority::generate("short", &*pki.ids, pki.now(), &short).unwrap();
    let key = PrivateKey::generate().unwrap();
    let issue = || authority.issue_host(&request(&key), &grant(&pki), &*pki.ids, pki.now(), &short);
    assert_eq!(issue().unwrap().not_after, authority.root().not_after());
    pki.clock.advance(3 * day);
    let error = issue().unwrap_err();
    assert_eq!(error.kind(), PkiErrorKind::Expired);
    assert_eq!(error.reason().code, "pki.expired");
}

/// Our own root signs no such thing; if it ever did, they would be no hosts.
#[test]
fn a_certificate_that_says_more_or_less_than_a_host_is_no_hosts() {
    let pki = TestPki::new(1);
    let root_key = KeyPair::from_pem(pki.authority.key_pem().expose()).unwrap();
    let issuer = Issuer::from_ca_cert_pem(&pki.authority.certificate_pem(), root_key).unwrap();
    let id = pki.hosts[0].id.to_string();
    let uri = |id: &str| SanType::URI(format!("skyloom:host:{id}").try_into().unwrap());
    let sign = |names: Vec<SanType>, usages: &[ExtendedKeyUsagePurpose], is_ca: IsCa| {
        let mut params = CertificateParams::default();
        params.subject_alt_names = names;
        params.extended_key_usages = usages.to_vec();
        params.is_ca = is_ca;
        let key = KeyPair::generate().unwrap();
        HostCertificate::parse(params.signed_by(&key, &issuer).unwrap().der())
    };
    use ExtendedKeyUsagePurpose::{Any, ClientAuth, CodeSigning, ServerAuth};
    let dns = || SanType::DnsName("node-1".try_into().unwrap());
    assert!(sign(vec![uri(&id)], &[ClientAuth], IsCa::ExplicitNoCa).is_ok());
    let wrong = [
        sign(vec![uri(&id)], &[], IsCa::NoCa),
        sign(vec![uri(&id)], &[ServerAuth], IsCa::NoCa),
        sign(vec![uri(&id)], &[ClientAuth, ServerAuth], IsCa::NoCa),
        sign(vec![uri(&id)], &[ClientAuth, Any], IsCa::NoCa),
        sign(vec![uri(&id)], &[ClientAuth, CodeSigning], IsCa::NoCa),
        sign(
            vec![uri(&id)],
            &[ClientAuth],
            IsCa::Ca(BasicConstraints::Constrained(0)),
        ),
        sign(vec![], &[ClientAuth], IsCa::NoCa),
        sign(vec![dns()], &[ClientAuth], IsCa::NoCa),
        sign(vec![uri(&id), dns()], &[ClientAuth], IsCa::NoCa),
        sign(vec![uri(&id), uri(&id)], &[ClientAuth], IsCa::NoCa),
        sign(vec![uri(&id.to_uppercase())], &[ClientAuth], IsCa::NoCa),
        sign(vec![uri(&id.replace('-', ""))], &[ClientAuth], IsCa::NoCa),
        sign(vec![uri(&format!("{id}/.."))], &[ClientAuth], IsCa::NoCa),
        sign(vec![uri("")], &[ClientAuth], IsCa::NoCa),
    ];
    for (at, read) in wrong.into_iter().enumerate() {
        assert_eq!(read.unwrap_err().kind(), PkiErrorKind::NotAllowed, "number {at}");
    }
}

#[test]
fn a_root_is_constrained_to_sign_leaves() {
    let pki = TestPki::new(1);
    let der = der(&pki.authority.certificate_pem());
    let (_, read) = X509Certificate::from_der(&der).unwrap();
    let constraints = read.basic_constraints().unwrap().unwrap();
    assert!(constraints.critical && constraints.value.ca);
    assert_eq!(constraints.value.path_len_constraint, Some(0));
    let usage = read.key_usage().unwrap().unwrap().value;
    assert!(usage.key_cert_sign() && !usage.digital_signature());
}

#[test]
fn server_names_are_names_and_addresses() {
    ServerNames::new(&["api.example.org", "10.0.0.1", "fd00::1", "api"]).unwrap();
    for wrong in [
        "",
        "*.example.org",
        "a b",
        "api.example.org/x",
        "http://api",
        "ä.example",
        "x\0y",
        "-a",
    ] {
        let error = ServerNames::new(&[wrong]).unwrap_err();
        assert_eq!(error.kind(), PkiErrorKind::NotAllowed, "{wrong:?}");
    }
    assert!(ServerNames::new::<&str>(&[]).is_err());
    assert!(ServerNames::new(&vec!["a"; 65]).is_err());
}

#[test]
fn a_bundle_takes_roots_alone() {
    let (a, b) = (TestPki::new(1), TestPki::new(2));
    let both =
        a.authority.certificate_pem() + &b.authority.certificate_pem() + &a.authority.certificate_pem();
    let bundle = TrustBundle::from_pem(both.as_bytes()).unwrap();
    assert_eq!(bundle.roots().len(), 2);
    assert_eq!(
        TrustBundle::from_pem(bundle.to_pem().as_bytes())
            .unwrap()
            .roots()
            .len(),
        2
    );
    let error = TrustBundle::from_pem(&a.hosts[0].identity.certificates).unwrap_err();
    assert_eq!(error.kind(), PkiErrorKind::NotAllowed);
    assert_eq!(
        TrustBundle::from_pem(b"").unwrap_err().kind(),
        PkiErrorKind::Malformed
    );
    let cut = &both.as_bytes()[..both.len() - 40];
    assert_eq!(
        TrustBundle::from_pem(cut).unwrap_err().kind(),
        PkiErrorKind::Malformed
    );
    let many = both.repeat(20);
    assert_eq!(
        TrustBundle::from_pem(many.as_bytes()).unwrap_err().kind(),
        PkiErrorKind::TooLarge
    );
}

fn kind(der: &[u8]) -> PkiErrorKind {
    CertificateRequest::from_der(der).unwrap_err().kind()
}

proptest! {
    #[test]
    fn no_list_of_names_makes_it_panic(names in proptest::collection::vec(".{0,80}", 0..4)) {
        let _ = ServerNames::new(&names);
    }
}
