//! Damage: every flipped bit is noticed or harmless.

use std::sync::Arc;

use futures::StreamExt as _;
use skyloom_store::{
    Change, Error, ErrorKind, KeyValue, LeaseInfo, LeaseMode, LeaseName, Leases, Result, Revision,
};
use skyloom_store::{Store, Watch, WatchEvent, WatchOptions};
use skyloom_store_sql::{SqliteConfig, SqliteStore};

use crate::support::{Place, all, delete, json, key, prefix, put};

const WORD: &[u8] = b"conspicuous";

async fn filled(place: &Place) {
    let store = place.open().await;
    for n in 0..40 {
        put(
            &store,
            &format!("servers/s{n}"),
            &format!("{{\"n\":{n},\"padding\":\"{}\"}}", "p".repeat(n * 9)),
        )
        .await;
    }
    put(&store, "servers/s7", "{\"n\":\"again\"}").await;
    delete(&store, "servers/s8").await;
    put(&store, "marked", "{\"word\":\"conspicuous\"}").await;
    let name = LeaseName::parse("hosts/h1").unwrap();
    store
        .grant(
            &name,
            "holder",
            std::time::Duration::from_secs(60),
            LeaseMode::Acquire,
        )
        .await
        .unwrap();
    store.close().await.unwrap();
}

async fn open(place: &Place, check: bool) -> Result<SqliteStore> {
    let mut config: SqliteConfig = place.config();
    config.check_on_open = check;
    SqliteStore::open(config, Arc::new(place.clock.clone())).await
}

async fn refusal(place: &Place) -> Error {
    match open(place, true).await {
        Ok(store) => panic!("{store:?} opened"),
        Err(e) => e,
    }
}

/// Flips one bit of each occurrence of the word.
fn damage_word(place: &Place) -> usize {
    let mut bytes = std::fs::read(place.path()).unwrap();
    let places: Vec<usize> = (0..bytes.len())
        .filter(|i| bytes[*i..].starts_with(WORD))
        .collect();
    for i in &places {
        bytes[i + 3] ^= 1;
    }
    std::fs::write(place.path(), bytes).unwrap();
    places.len()
}

#[tokio::test]
async fn a_damaged_document_is_named_and_can_be_written_anew() {
    let place = Place::new();
    filled(&place).await;
    assert_eq!(damage_word(&place), 2, "once in documents, once in history");
    let e = refusal(&place).await;
    assert_eq!(e.kind(), ErrorKind::Corrupt);
    assert!(e.to_string().contains("key marked"), "{e}");

    // Without the check it opens, and the damage stays with its document.
    let store = open(&place, false).await.unwrap();
    for e in [
        store.get(&key("marked")).await.unwrap_err(),
        all(&store, "", None).await.unwrap_err(),
    ] {
        assert_eq!(e.kind(), ErrorKind::Corrupt);
        assert!(e.to_string().contains("key marked"), "{e}");
    }
    assert!(store.get(&key("servers/s1")).await.unwrap().is_some());
    assert_eq!(all(&store, "servers", None).await.unwrap().len(), 39);
    // The history is damaged too: watchers must list again.
    let mut stream = store.watch(&prefix(""), WatchOptions::after(Revision(0)));
    assert_eq!(
        stream.next().await.unwrap().unwrap(),
        WatchEvent::Gap {
            floor: store.stats().revision
        }
    );
    put(&store, "marked", "1").await;
    assert_eq!(store.get(&key("marked")).await.unwrap().unwrap().value, json("1"));
    store.close().await.unwrap();
    open(&place, true).await.unwrap().close().await.unwrap();
}

#[tokio::test]
async fn text_edited_by_hand_is_noticed() {
    let place = Place::new();
    filled(&place).await;
    place
        .sql_run("UPDATE documents SET value = '{\"word\":\"other\"}' WHERE key = 'marked'")
        .await;
    assert_eq!(refusal(&place).await.kind(), ErrorKind::Corrupt);
}

#[tokio::test]
async fn garbage_and_a_cut_off_file_are_refused() {
    let place = Place::new();
    std::fs::write(
        place.path(),
        b"this is no database, but it is long enough to be one".repeat(200),
    )
    .unwrap();
    let e = refusal(&place).await;
    assert_eq!(e.kind(), ErrorKind::Corrupt, "{e}");
    assert!(e.to_string().contains("restore it from a backup"), "{e}");

    let place = Place::new();
    filled(&place).await;
    let bytes = std::fs::read(place.path()).unwrap();
    std::fs::write(place.path(), &bytes[..bytes.len() / 2]).unwrap();
    assert_eq!(refusal(&place).await.kind(), ErrorKind::Corrupt);
}

/// All that can be read.
#[derive(Debug, PartialEq)]
struct Contents {
    documents: Vec<KeyValue>,
    past: Vec<KeyValue>,
    leases: Vec<LeaseInfo>,
    /// `None` after a gap.
    events: Option<Vec<Change>>,
    revision: Revision,
}

async fn contents(store: &SqliteStore) -> Result<Contents> {
    let revision = store.stats().revision;
    let mut stream = store.watch(&prefix(""), WatchOptions::after(Revision(0)));
    let mut events = Vec::new();
    let events = loop {
        match stream.next().await.expect("a watch does not end by itself")? {
            WatchEvent::Commit { changes, .. } => events.extend(changes),
            WatchEvent::Progress(_) => break Some(events),
            WatchEvent::Gap { .. } => break None,
        }
    };
    Ok(Contents {
        documents: all(store, "", None).await?,
        past: all(store, "", Some(Revision(20))).await?,
        leases: store.leases(&prefix("")).await?,
        events,
        revision,
    })
}

#[tokio::test]
async fn every_flipped_bit_is_noticed_or_harmless() {
    let place = Place::new();
    filled(&place).await;
    let sound = std::fs::read(place.path()).unwrap();
    let store = open(&place, true).await.unwrap();
    let want = contents(&store).await.unwrap();
    assert!(want.events.is_some());
    store.close().await.unwrap();

    let (mut noticed, mut harmless) = (0, 0);
    // All of the first header, then a spread over the whole file.
    let spread = (0..400)
        .map(|i| i * 7919 + 800)
        .map(|bit| bit % (sound.len() * 8));
    for bit in (0..800).step_by(5).chain(spread) {
        let mut bytes = sound.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        std::fs::write(place.path(), &bytes).unwrap();
        for side in ["-wal", "-shm"] {
            let _ = std::fs::remove_file(format!("{}{side}", place.path().display()));
        }
        let have = match open(&place, true).await {
            Ok(store) => {
                let have = contents(&store).await;
                let _ = store.close().await;
                have
            }
            Err(e) => Err(e),
        };
        match have {
            Err(_) => noticed += 1,
            Ok(Contents { events: None, .. }) => noticed += 1,
            Ok(have) => {
                assert_eq!(have, want, "bit {bit} was flipped and nobody noticed");
                harmless += 1;
            }
        }
    }
    assert!(
        noticed > 100 && harmless > 10,
        "noticed {noticed}, harmless {harmless}"
    );
}
