//! When a certificate is renewed, and until when it may be.

use std::time::Duration;

use jiff::SignedDuration;
use skyloom_model::Clock as _;
use skyloom_pki::testing::TestPki;
use skyloom_pki::{RevokedBy, Standing, may_renew};

#[test]
fn who_may_renew() {
    let pki = TestPki::new(1);
    let (now, grace) = (pki.now(), Duration::from_secs(3600));
    let ago = |seconds| now - SignedDuration::from_secs(seconds);
    let code = |standing: &Standing| may_renew(standing, now, grace).map_err(|r| r.code);
    assert_eq!(code(&Standing::Valid), Ok(()));
    assert_eq!(code(&Standing::Expired { since: ago(1) }), Ok(()));
    assert_eq!(code(&Standing::Expired { since: ago(3600) }), Ok(()));
    let refused = [
        (Standing::Expired { since: ago(3601) }, "certificate.expired"),
        (Standing::NotYet { from: ago(-1) }, "certificate.not_yet"),
        (
            Standing::Revoked(RevokedBy::Serial { why: "x".into() }),
            "certificate.revoked",
        ),
        (Standing::Foreign, "certificate.foreign"),
    ];
    for (standing, expected) in refused {
        assert_eq!(code(&standing), Err(expected.to_owned()));
        assert!(may_renew(&standing, now, grace).unwrap_err().hint.is_some());
    }
}

#[test]
fn hosts_that_joined_at_once_renew_at_different_times_and_before_the_alarm() {
    let pki = TestPki::new(1);
    let mut moments = std::collections::BTreeSet::new();
    for _ in 0..50 {
        let certificate = pki.host(pki.hosts[0].id, "node-1").certificate;
        let life = certificate
            .not_after
            .duration_since(certificate.not_before)
            .as_secs();
        let at = certificate
            .renew_at()
            .duration_since(certificate.not_before)
            .as_secs();
        assert!(at >= life / 2 && at < life * 2 / 3, "{at} of {life}");
        assert!(certificate.renew_at() < certificate.alarm_at());
        assert!(certificate.alarm_at() < certificate.not_after);
        moments.insert(certificate.renew_at());
    }
    assert!(moments.len() > 20, "{} moments", moments.len());
    assert!(pki.clock.now() < *moments.first().unwrap());
}
