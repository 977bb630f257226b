//! Taking back single certificates and all that a host ever had.

use std::time::Duration;

use skyloom_model::Hostname;
use skyloom_pki::testing::{TestPki, identity, request};
use skyloom_pki::{HostEpoch, HostGrant, PrivateKey, Revocations, RevokedBy, RevokedCertificate, Standing};

use crate::wire::meet;

const DAY: Duration = Duration::from_secs(24 * 3600);

#[tokio::test]
async fn an_epoch_takes_back_all_before_it_and_nothing_after() {
    let pki = TestPki::new(1);
    let judge = pki.judge();
    let [bad, good] = &pki.hosts;
    let second = pki.host(bad.id, "node-1");
    pki.clock.advance(Duration::from_millis(1500));
    let epoch = HostEpoch::raise(None, bad.id, pki.now(), "disk stolen", &pki.lifetimes);
    assert_eq!(epoch.not_before.subsec_nanosecond(), 0);
    judge.revoke(Revocations::new([], [epoch.clone()]));
    for old in [bad, &second] {
        meet(&pki, &judge, Some(&old.identity)).await.refused("Revoked");
    }
    meet(&pki, &judge, Some(&good.identity)).await.peer(&judge, &pki);

    // Issued by a process that does not know of it yet: back-dated, so refused, though issued later.
    pki.clock.advance(Duration::from_secs(1));
    let unaware = pki.host(bad.id, "node-1");
    meet(&pki, &judge, Some(&unaware.identity))
        .await
        .refused("Revoked");

    // Issued with the epoch: taken, within the back-dating too.
    let grant = HostGrant {
        host: bad.id,
        name: Hostname::new("node-1").unwrap(),
        not_earlier: Some(epoch.not_before),
    };
    let key = PrivateKey::generate().unwrap();
    let issued = pki
        .authority
        .issue_host(&request(&key), &grant, &*pki.ids, pki.now(), &pki.lifetimes)
        .unwrap();
    let peer = meet(&pki, &judge, Some(&identity(&issued, &key)))
        .await
        .peer(&judge, &pki);
    assert_eq!(judge.standing(&peer, pki.now()), Standing::Valid);
}

#[test]
fn an_epoch_never_falls() {
    let pki = TestPki::new(1);
    let host = pki.hosts[0].id;
    let first = HostEpoch::raise(None, host, pki.now(), "a", &pki.lifetimes);
    let behind = pki.now() - jiff::SignedDuration::from_hours(1);
    let second = HostEpoch::raise(Some(&first), host, behind, "b", &pki.lifetimes);
    assert_eq!(second.not_before, first.not_before);
    assert_eq!(second.until, first.until);
    let later = pki.now() + jiff::SignedDuration::from_hours(1);
    assert_eq!(
        HostEpoch::raise(Some(&second), host, later, "c", &pki.lifetimes).not_before,
        later
    );
}

/// A record goes when what it refuses could not even be renewed any more.
#[test]
fn records_go_when_they_refuse_nothing_any_more() {
    let pki = TestPki::new(1);
    let [a, b] = &pki.hosts;
    let revocations = Revocations::new(
        [RevokedCertificate::new(
            &a.certificate,
            pki.now(),
            "lost",
            &pki.lifetimes,
        )],
        [HostEpoch::raise(None, b.id, pki.now(), "sold", &pki.lifetimes)],
    );
    assert_eq!(revocations.over(pki.now()), (vec![], vec![]));
    // 7 days of life and 30 of grace.
    pki.clock.advance(37 * DAY);
    assert_eq!(
        revocations.over(pki.now()),
        (vec![], vec![]),
        "it might still be renewed"
    );
    assert_eq!(
        revocations.find(&a.certificate),
        Some(RevokedBy::Serial { why: "lost".into() })
    );
    assert!(matches!(
        revocations.find(&b.certificate),
        Some(RevokedBy::Epoch { .. })
    ));
    pki.clock.advance(Duration::from_secs(1));
    assert_eq!(
        revocations.over(pki.now()),
        (vec![a.certificate.serial.clone()], vec![b.id])
    );
}

#[test]
fn records_are_read_as_they_were_written() {
    let pki = TestPki::new(1);
    let host = &pki.hosts[0];
    let one = RevokedCertificate::new(&host.certificate, pki.now(), "lost", &pki.lifetimes);
    let json = serde_json::to_string(&one).unwrap();
    assert_eq!(serde_json::from_str::<RevokedCertificate>(&json).unwrap(), one);
    let all = HostEpoch::raise(None, host.id, pki.now(), "sold", &pki.lifetimes);
    let json = serde_json::to_string(&all).unwrap();
    assert_eq!(serde_json::from_str::<HostEpoch>(&json).unwrap(), all);
}
