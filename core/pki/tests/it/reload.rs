//! New files take the place of old ones while connections go on; broken ones do not.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use skyloom_model::Clock;
use skyloom_pki::testing::TestPki;
use skyloom_pki::{
    Files, IdentityMaterial, MAX_MATERIAL, MaterialSource as _, PkiErrorKind, Reload, Reloader,
    ReloadingClient, ReloadingServer,
};
use tokio_util::sync::CancellationToken;

use crate::wire::{Ends, client, connect, server, shake, talk};

const DAY: Duration = Duration::from_secs(24 * 3600);

fn write(folder: &Path, identity: &IdentityMaterial) -> Files {
    let (certificate, key) = (folder.join("tls.crt"), folder.join("tls.key"));
    std::fs::write(&certificate, &identity.certificates).unwrap();
    std::fs::write(&key, identity.key.expose()).unwrap();
    Files {
        identity: Some((certificate, key)),
        roots: None,
    }
}

/// What the server of this connection has presented.
fn presented(ends: &Ends) -> Vec<u8> {
    ends.1.get_ref().1.peer_certificates().unwrap()[0].to_vec()
}

#[tokio::test]
async fn connections_go_on_while_a_server_changes_its_certificate() {
    let pki = TestPki::new(1);
    let folder = tempfile::tempdir().unwrap();
    let files = write(folder.path(), &pki.server);
    let live = ReloadingServer::new(&files.read().await.unwrap()).unwrap();
    let clock: Arc<dyn Clock> = pki.clock.clone();
    let mut reloader = Reloader::new(files, live.clone(), clock);
    assert_eq!(reloader.look().await, Reload::Replaced);
    assert_eq!(reloader.look().await, Reload::Unchanged);

    let server = server(&pki, live, Some(pki.judge()));
    let client = client(&pki, pki.reloading_client(Some(&pki.hosts[0].identity)));
    let mut old = connect(server.clone(), client.clone()).await;
    talk(&mut old).await;

    write(folder.path(), &pki.server(&["localhost"]));
    assert_eq!(reloader.look().await, Reload::Replaced);
    talk(&mut old).await;
    let mut new = connect(server, client).await;
    talk(&mut new).await;
    talk(&mut old).await;
    assert_ne!(presented(&old), presented(&new));
}

#[tokio::test]
async fn broken_files_leave_what_was_there_and_say_so() {
    let pki = TestPki::new(1);
    let folder = tempfile::tempdir().unwrap();
    let files = write(folder.path(), &pki.server);
    let (certificate, key) = files.identity.clone().unwrap();
    let live = ReloadingServer::new(&files.read().await.unwrap()).unwrap();
    let clock: Arc<dyn Clock> = pki.clock.clone();
    let mut reloader = Reloader::new(files, live.clone(), clock);
    reloader.look().await;
    let status = reloader.status();
    assert_eq!(status.lock().failure, None);
    let until = status.lock().not_after.unwrap();

    let config = server(&pki, live, None);
    let client = client(&pki, pki.reloading_client(None));
    let fresh = pki.server(&["localhost"]);
    let half = |text: &[u8]| text[..text.len() / 2].to_vec();
    type Contents = Option<Vec<u8>>;
    let broken: [(Contents, Contents, &str); 8] = [
        (
            Some(half(&fresh.certificates)),
            Some(fresh.key.expose().clone()),
            "the certificate cannot be read",
        ),
        (
            Some(fresh.certificates.clone()),
            Some(half(fresh.key.expose())),
            "the private key cannot be read",
        ),
        (
            Some(fresh.certificates.clone()),
            Some(pki.server.key.expose().clone()),
            "not the certificate's",
        ),
        (
            Some(Vec::new()),
            Some(fresh.key.expose().clone()),
            "the certificate cannot be read",
        ),
        (
            Some(fresh.key.expose().clone()),
            Some(fresh.certificates.clone()),
            "the certificate cannot be read",
        ),
        (
            Some(b"\xff\xfe rubbish".to_vec()),
            Some(fresh.key.expose().clone()),
            "the certificate cannot be read",
        ),
        (
            Some(vec![b'A'; usize::try_from(MAX_MATERIAL).unwrap() + 1]),
            None,
            "is longer than",
        ),
        (None, Some(fresh.key.expose().clone()), "cannot read"),
    ];
    for (new_certificate, new_key, word) in broken {
        for (path, contents) in [(&certificate, new_certificate), (&key, new_key)] {
            match contents {
                Some(contents) => std::fs::write(path, contents).unwrap(),
                None => std::fs::remove_file(path).unwrap(),
            }
        }
        assert_eq!(reloader.look().await, Reload::Kept, "{word}");
        assert_eq!(reloader.look().await, Reload::Kept, "{word}");
        let failure = status.lock().failure.clone().unwrap();
        assert!(failure.contains(word), "{failure}");
        assert!(!failure.contains("PRIVATE"), "{failure}");
        assert_eq!(status.lock().not_after, Some(until));
        shake(config.clone(), client.clone(), "localhost")
            .await
            .client
            .unwrap();
    }
    // Put right: by the old files, which are in use already, and by new ones.
    write(folder.path(), &pki.server);
    assert_eq!(reloader.look().await, Reload::Unchanged);
    assert_eq!(status.lock().failure, None);
    pki.clock.advance(DAY);
    write(folder.path(), &pki.server(&["localhost"]));
    assert_eq!(reloader.look().await, Reload::Replaced);
    assert!(status.lock().not_after.unwrap() > until);
}

#[tokio::test]
async fn an_expired_certificate_does_not_replace_a_valid_one() {
    let pki = TestPki::new(1);
    let expired = pki.server(&["localhost"]);
    pki.clock.advance(29 * DAY);
    let valid = pki.server(&["localhost"]);
    pki.clock.advance(2 * DAY);
    let folder = tempfile::tempdir().unwrap();
    let files = write(folder.path(), &valid);
    let live = ReloadingServer::new(&files.read().await.unwrap()).unwrap();
    let clock: Arc<dyn Clock> = pki.clock.clone();
    let mut reloader = Reloader::new(files, live, clock);
    assert_eq!(reloader.look().await, Reload::Replaced);
    write(folder.path(), &expired);
    assert_eq!(reloader.look().await, Reload::Kept);
    assert!(
        reloader
            .status()
            .lock()
            .failure
            .as_ref()
            .unwrap()
            .contains("expired")
    );
}

/// An agent that was away for weeks begins with what it has: that is what it renews with.
#[tokio::test]
async fn an_expired_host_can_begin() {
    let pki = TestPki::new(1);
    pki.clock.advance(10 * DAY);
    ReloadingClient::new(&pki.client_material(Some(&pki.hosts[0].identity))).unwrap();
}

#[tokio::test]
async fn a_host_changes_its_key_without_a_gap() {
    let pki = TestPki::new(1);
    let judge = pki.judge();
    let host = &pki.hosts[0];
    let folder = tempfile::tempdir().unwrap();
    let mut files = write(folder.path(), &host.identity);
    let roots = folder.path().join("roots.pem");
    std::fs::write(&roots, pki.authority.certificate_pem()).unwrap();
    files.roots = Some(roots);
    let live = ReloadingClient::new(&files.read().await.unwrap()).unwrap();
    let clock: Arc<dyn Clock> = pki.clock.clone();
    let mut reloader = Reloader::new(files, live.clone(), clock);
    reloader.look().await;
    let (server, client) = (
        server(&pki, pki.reloading_server(), Some(judge.clone())),
        client(&pki, live),
    );
    let mut old = connect(server.clone(), client.clone()).await;
    talk(&mut old).await;

    let next = pki.host(host.id, "node-1");
    write(folder.path(), &next.identity);
    assert_eq!(reloader.look().await, Reload::Replaced);
    let peer = shake(server, client, "localhost").await.peer(&judge, &pki);
    assert_eq!(peer.certificate(), &next.certificate);
    // Both keys are the same host, until the old one ends.
    let chain = old.0.get_ref().1.peer_certificates().unwrap();
    let before = judge.identify(chain, pki.now()).unwrap();
    assert_ne!(before.certificate().key, peer.certificate().key);
    assert_eq!(judge.host(&before, pki.now()), judge.host(&peer, pki.now()));
    talk(&mut old).await;
}

#[tokio::test(start_paused = true)]
async fn it_looks_until_it_is_told_to_end() {
    let pki = TestPki::new(1);
    let folder = tempfile::tempdir().unwrap();
    let files = write(folder.path(), &pki.server);
    let live = ReloadingServer::new(&files.read().await.unwrap()).unwrap();
    let clock: Arc<dyn Clock> = pki.clock.clone();
    let reloader = Reloader::new(files, live, clock);
    let status = reloader.status();
    let end = CancellationToken::new();
    let watch = async {
        while status.lock().replaced_at.is_none() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        end.cancel();
    };
    tokio::join!(reloader.run(Duration::from_secs(10), end.clone()), watch);
}

#[tokio::test]
async fn what_is_missing_is_named() {
    let pki = TestPki::new(1);
    let none = skyloom_pki::Material {
        identity: None,
        roots: None,
    };
    let error = ReloadingServer::new(&none).unwrap_err();
    assert_eq!(error.kind(), PkiErrorKind::Unreadable);
    let error = ReloadingClient::new(&none).unwrap_err();
    assert_eq!(error.reason().hint.unwrap(), "give the file of the cloud's roots");
    ReloadingClient::new(&pki.client_material(None)).unwrap();
}
