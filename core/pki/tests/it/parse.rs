//! Bytes that somebody has changed never make anything panic, and never make somebody else of a host.

use std::sync::OnceLock;

use proptest::prelude::*;
use proptest::sample::Index;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, CertificateSigningRequestDer};
use skyloom_pki::testing::TestPki;
use skyloom_pki::{CertificateRequest, HostCertificate, PrivateKey, Serial, TrustBundle};

struct Samples {
    pki: TestPki,
    host: Vec<u8>,
    root: Vec<u8>,
    request: Vec<u8>,
}

fn samples() -> &'static Samples {
    static SAMPLES: OnceLock<Samples> = OnceLock::new();
    SAMPLES.get_or_init(|| {
        let pki = TestPki::new(1);
        let der = |pem: &[u8]| CertificateDer::from_pem_slice(pem).unwrap().to_vec();
        let request = PrivateKey::generate().unwrap().request().unwrap();
        Samples {
            host: der(&pki.hosts[0].identity.certificates),
            root: der(pki.authority.certificate_pem().as_bytes()),
            request: CertificateSigningRequestDer::from_pem_slice(request.as_bytes())
                .unwrap()
                .to_vec(),
            pki,
        }
    })
}

type Changes = (Vec<(Index, u8)>, Option<Index>, Vec<u8>);

fn changes() -> impl Strategy<Value = Changes> {
    (
        proptest::collection::vec((any::<Index>(), any::<u8>()), 0..6),
        proptest::option::weighted(0.2, any::<Index>()),
        proptest::collection::vec(any::<u8>(), 0..3),
    )
}

fn changed(der: &[u8], (bytes, cut, more): &Changes) -> Vec<u8> {
    let mut der = der.to_vec();
    for (at, byte) in bytes {
        let at = at.index(der.len());
        der[at] = *byte;
    }
    if let Some(cut) = cut {
        der.truncate(cut.index(der.len()));
    }
    der.extend(more);
    der
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn a_changed_host_certificate_is_nobodys(changes in changes()) {
        let s = samples();
        let der = changed(&s.host, &changes);
        let _ = HostCertificate::parse(&der);
        let known = s.pki.judge().identify(&[CertificateDer::from(der.clone())], s.pki.now());
        prop_assert!(known.is_ok() || der != s.host, "as it was signed, it is taken");
        // What is outside of the signed part may be written in more than one way; what is inside says the same, or it is refused.
        if let Ok(peer) = known {
            let mut certificate = peer.certificate().clone();
            certificate.fingerprint = s.pki.hosts[0].certificate.fingerprint.clone();
            prop_assert_eq!(&certificate, &s.pki.hosts[0].certificate);
        }
    }

    #[test]
    fn a_changed_root_never_panics(changes in changes()) {
        let der = changed(&samples().root, &changes);
        let _ = skyloom_pki::Root::new(CertificateDer::from(der));
    }

    #[test]
    fn a_changed_request_is_refused_or_for_the_same_key(changes in changes()) {
        let s = samples();
        let der = changed(&s.request, &changes);
        let read = CertificateRequest::from_der(&der);
        prop_assert!(read.is_ok() || der != s.request, "as it was signed, it is taken");
        if let Ok(read) = read {
            let signed = CertificateRequest::from_der(&s.request).unwrap();
            prop_assert_eq!(read.fingerprint(), signed.fingerprint());
        }
    }

    #[test]
    fn changed_pem_never_panics(changes in changes()) {
        let pem = changed(&samples().pki.hosts[0].identity.certificates, &changes);
        let _ = TrustBundle::from_pem(&pem);
        let _ = CertificateRequest::from_pem(&String::from_utf8_lossy(&pem));
    }

    #[test]
    fn any_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = HostCertificate::parse(&bytes);
        let _ = CertificateRequest::from_der(&bytes);
        let _ = TrustBundle::from_pem(&bytes);
    }
}

#[test]
fn records_are_checked_when_they_are_read() {
    let certificate = &samples().pki.hosts[0].certificate;
    let json = serde_json::to_string(certificate).unwrap();
    assert_eq!(
        &serde_json::from_str::<HostCertificate>(&json).unwrap(),
        certificate
    );
    for wrong in ["", "0", "00ff", "FF", "zz", &"ab".repeat(21)] {
        assert!(Serial::try_from(wrong.to_owned()).is_err(), "{wrong}");
    }
    assert_eq!(Serial::try_from("ab01".to_owned()).unwrap().as_str(), "ab01");
}
