//! Roots follow each other, and nobody is locked out on the way.

use std::time::Duration;

use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, Issuer, KeyPair, SanType};
use skyloom_model::{Secret, Timestamp};
use skyloom_pki::testing::{TestPki, server_material};
use skyloom_pki::{
    Authority, IdentityMaterial, Judge, Lifetimes, Live as _, Material, PkiErrorKind, ReloadingServer,
    Revocations, RootPlan, RootRecord, Standing, TrustBundle,
};

use crate::wire::{client, meet, server, shake};

const DAY: Duration = Duration::from_secs(24 * 3600);

#[tokio::test]
async fn both_roots_count_while_they_overlap() {
    let mut pki = TestPki::new(1);
    let judge = pki.judge();
    let old_host = pki.host(pki.hosts[0].id, "node-1");
    let old_root = pki.authority.root().clone();
    let next = Authority::generate("test", &*pki.ids, pki.now(), &pki.lifetimes).unwrap();
    let next_root = next.root().clone();
    let both = TrustBundle::new([old_root.clone(), next_root.clone()]).unwrap();

    // 1. Everybody learns of the new root; a client that was there before too.
    let to_api = pki.reloading_client(Some(&old_host.identity));
    let material = Material {
        identity: Some(old_host.identity.clone()),
        roots: Some(both.to_pem().into_bytes()),
    };
    to_api.replace(&material, pki.now()).unwrap();
    judge.trust(both);

    // 2. The new one signs. Old and new hosts meet old and new servers.
    let old_server = pki.reloading_server();
    let old_authority = std::mem::replace(&mut pki.authority, next);
    let new_host = pki.host(pki.hosts[1].id, "node-2");
    let new_server = ReloadingServer::new(&server_material(&pki.server(&["localhost"]))).unwrap();
    for api in [old_server, new_server.clone()] {
        let config = server(&pki, api, Some(judge.clone()));
        let peer = shake(config, client(&pki, to_api.clone()), "localhost")
            .await
            .peer(&judge, &pki);
        assert_eq!(judge.host(&peer, pki.now()), Some(old_host.id));
        assert_eq!(peer.root(), old_root.fingerprint());
    }
    let before = {
        let config = server(&pki, new_server.clone(), Some(judge.clone()));
        shake(config, client(&pki, to_api.clone()), "localhost")
            .await
            .peer(&judge, &pki)
    };

    // 3. The old one is dropped: what it has signed is foreign, on open connections too.
    judge.trust(TrustBundle::new([next_root]).unwrap());
    assert_eq!(judge.standing(&before, pki.now()), Standing::Foreign);
    let config = server(&pki, new_server, Some(judge.clone()));
    shake(config, client(&pki, to_api), "localhost")
        .await
        .refused("UnknownIssuer");
    let peer = meet_new(&pki, &judge, &new_host.identity).await;
    assert_eq!(judge.host(&peer, pki.now()), Some(new_host.id));
    drop(old_authority);
}

async fn meet_new(
    pki: &TestPki,
    judge: &std::sync::Arc<Judge>,
    identity: &IdentityMaterial,
) -> skyloom_pki::Peer {
    let api = ReloadingServer::new(&server_material(&pki.server(&["localhost"]))).unwrap();
    let config = server(pki, api, Some(judge.clone()));
    shake(
        config,
        client(pki, pki.reloading_client(Some(identity))),
        "localhost",
    )
    .await
    .peer(judge, pki)
}

/// TLS libraries trust a root for ever; here its end counts.
#[tokio::test]
async fn a_root_that_has_ended_counts_no_more() {
    let mut pki = TestPki::new(1);
    let short = Lifetimes {
        root: DAY,
        ..pki.lifetimes
    };
    pki.authority = Authority::generate("short", &*pki.ids, pki.now(), &short).unwrap();
    let host = pki.host(pki.hosts[0].id, "node-1");
    let judge = Judge::new(pki.trust(), Revocations::default(), pki.lifetimes.grace);
    let peer = meet_new(&pki, &judge, &host.identity).await;
    pki.clock.advance(DAY + Duration::from_secs(1));
    assert_eq!(judge.standing(&peer, pki.now()), Standing::Foreign);
    let met = meet(&pki, &judge, Some(&host.identity)).await;
    assert!(met.server.is_err() && met.client.is_err());
}

/// The same when the root has signed something that outlives it, as an operator's own root may have.
#[tokio::test]
async fn a_root_that_has_ended_vouches_for_nothing_that_goes_on() {
    let mut pki = TestPki::new(1);
    let short = Lifetimes {
        root: DAY,
        ..pki.lifetimes
    };
    pki.authority = Authority::generate("short", &*pki.ids, pki.now(), &short).unwrap();
    let root_key = KeyPair::from_pem(pki.authority.key_pem().expose()).unwrap();
    let issuer = Issuer::from_ca_cert_pem(&pki.authority.certificate_pem(), root_key).unwrap();
    let sign = |name: SanType, usage: ExtendedKeyUsagePurpose| {
        // To the year 4096.
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![name];
        params.extended_key_usages = vec![usage];
        let key = KeyPair::generate().unwrap();
        IdentityMaterial {
            certificates: params.signed_by(&key, &issuer).unwrap().pem().into_bytes(),
            key: Secret::new(key.serialize_pem().into_bytes()),
        }
    };
    let api = sign(
        SanType::DnsName("localhost".try_into().unwrap()),
        ExtendedKeyUsagePurpose::ServerAuth,
    );
    let uri = format!("skyloom:host:{}", pki.hosts[0].id).try_into().unwrap();
    let host = sign(SanType::URI(uri), ExtendedKeyUsagePurpose::ClientAuth);
    let judge = pki.judge();
    let with_api = || ReloadingServer::new(&server_material(&api)).unwrap();
    let as_nobody = client(&pki, pki.reloading_client(None));
    let as_host = client(&pki, pki.reloading_client(Some(&host)));
    let config = server(&pki, with_api(), Some(judge.clone()));
    let met = shake(config.clone(), as_host.clone(), "localhost").await;
    let chain = met.server.unwrap().unwrap();
    judge.identify(&chain, pki.now()).unwrap();

    pki.clock.advance(DAY + Duration::from_secs(1));
    let met = shake(config, as_nobody, "localhost").await;
    assert!(met.client.unwrap_err().contains("UnknownIssuer"));
    let error = judge.identify(&chain, pki.now()).unwrap_err();
    assert_eq!(error.kind(), PkiErrorKind::Foreign);
}

/// The plan is carried out for thirty years, day by day: there is always a signer that everybody has known for long enough, and no
/// root goes while anything that it has signed could be of use.
#[test]
fn the_plan_leaves_no_gap() {
    let pki = TestPki::new(1);
    let lifetimes = Lifetimes {
        root: 500 * DAY,
        ..Lifetimes::default()
    };
    let mut records: Vec<RootRecord> = Vec::new();
    let mut known_since = std::collections::BTreeMap::new();
    let mut last_signed = std::collections::BTreeMap::new();
    let mut roots = 0;
    for day in 0..30 * 365 {
        let now = pki.now();
        let plan = RootPlan::new(&records, now, &lifetimes);
        for gone in &plan.drop {
            let last: Timestamp = last_signed[gone];
            assert!(
                now.duration_since(last) >= jiff::SignedDuration::from_hours(37 * 24),
                "day {day}"
            );
        }
        records.retain(|r| !plan.drop.contains(&r.fingerprint));
        assert_eq!(records.len(), plan.trusted.len());
        if let Some(signs_from) = plan.make {
            let authority = Authority::generate("t", &*pki.ids, now, &lifetimes).unwrap();
            records.push(RootRecord::new(authority.root(), signs_from));
            known_since.insert(authority.root().fingerprint().clone(), now);
            roots += 1;
        }
        let plan = RootPlan::new(&records, now, &lifetimes);
        assert_eq!(plan.make, None, "asked again, it is content");
        let signer = plan.signer.expect("somebody signs");
        assert!(plan.trusted.contains(&signer));
        assert!(plan.trusted.len() <= 2);
        let record = records.iter().find(|r| r.fingerprint == signer).unwrap();
        let left = record.not_after.duration_since(now);
        assert!(
            left >= jiff::SignedDuration::from_hours(37 * 24),
            "full lives on day {day}"
        );
        if roots > 1 {
            let known = now.duration_since(known_since[&signer]);
            assert!(known >= jiff::SignedDuration::from_hours(14 * 24), "day {day}");
        }
        last_signed.insert(signer, now);
        pki.clock.advance(DAY);
    }
    assert_eq!(roots, 30 + 1);
}

#[test]
fn a_cloud_without_a_signer_gets_one_at_once() {
    let pki = TestPki::new(1);
    let empty = RootPlan::new(&[], pki.now(), &pki.lifetimes);
    assert_eq!((empty.signer, empty.make), (None, Some(pki.now())));
    // All have ended, since nobody ran the plan.
    let record = RootRecord::new(pki.authority.root(), pki.now());
    pki.clock.advance(3651 * DAY);
    let late = RootPlan::new(std::slice::from_ref(&record), pki.now(), &pki.lifetimes);
    assert_eq!(late.make, Some(pki.now()));
    assert_eq!(late.drop, vec![record.fingerprint]);
}
