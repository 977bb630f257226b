//! Backups and what is put back from them.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use skyloom_cloud::custody::{backup, check, inspect_backup, restore};
use skyloom_model::{EventKind, Kinship, Origin};
use skyloom_store::ErrorKind;

use crate::stage::{Fault, Faulty, cloud, documents, empty, outside, standing};
use crate::world::World;

async fn kept(documents: usize) -> (World, tempfile::TempDir, PathBuf) {
    let world = cloud(documents).await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("cloud.backup");
    let (clock, _) = outside(1);
    backup(&*world.store, "memory:", &file, &*clock).await.unwrap();
    (world, folder, file)
}

#[tokio::test]
async fn what_is_put_back_is_what_was_kept_in_a_newer_incarnation_on_hold() {
    let (world, _folder, file) = kept(300).await;
    let (header, tally) = inspect_backup(&file).unwrap();
    assert_eq!(
        std::fs::metadata(&file).unwrap().permissions().mode() & 0o777,
        0o600
    );
    assert!(!file.with_extension("backup.part").exists());
    let source = standing(&world.store).await.incarnation().unwrap();
    assert_eq!(header.incarnation, source);
    let mut seen = Vec::new();
    for seed in [2, 3] {
        let (to, (clock, ids)) = (empty(), outside(seed));
        let done = restore(&file, &*to, "ann", &*clock, &*ids).await.unwrap();
        assert_eq!(done.tally, tally);
        let mut there = documents(&*to).await;
        let told: Vec<String> = there
            .keys()
            .filter(|k| k.starts_with("events/"))
            .cloned()
            .collect();
        let wanted = documents(&*world.store).await;
        let new: Vec<&String> = told.iter().filter(|k| !wanted.contains_key(*k)).collect();
        assert_eq!(new.len(), 1);
        let event: skyloom_model::Event = serde_json::from_value(there[new[0]].clone()).unwrap();
        assert_eq!(event.kind, EventKind::FleetHeld);
        there.retain(|key, _| wanted.contains_key(key));
        assert_eq!(there, wanted);
        let standing = standing(&to).await;
        let custody = standing.custody.unwrap();
        assert_eq!(
            (custody.incarnation, custody.origin),
            (done.incarnation, Origin::Restored)
        );
        assert_eq!(source.kinship(&done.incarnation), Kinship::Newer);
        let hold = standing.hold.unwrap().value;
        assert_eq!((&hold, hold.by.as_str()), (&done.hold, "ann"));
        assert_eq!(hold.incarnation, Some(done.incarnation));
        assert!(check(&*to).await.unwrap().is_sound());
        seen.push(done.incarnation);
    }
    assert_eq!(
        seen[0].kinship(&seen[1]),
        Kinship::Newer,
        "of two restores the later one is obeyed"
    );
}

#[tokio::test]
async fn a_file_that_is_there_is_not_overwritten() {
    let (world, _folder, file) = kept(3).await;
    let before = std::fs::read(&file).unwrap();
    let (clock, _) = outside(9);
    let error = backup(&*world.store, "a", &file, &*clock).await.unwrap_err();
    assert!(error.to_string().contains("already a file"), "{error}");
    assert_eq!(std::fs::read(&file).unwrap(), before);
}

async fn refused(file: &Path, why: &str) {
    let (to, (clock, ids)) = (empty(), outside(1));
    let error = restore(file, &*to, "ann", &*clock, &*ids).await.expect_err(why);
    assert!(
        matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::TooNew),
        "{why}: {error:?}"
    );
    assert!(documents(&*to).await.is_empty(), "{why}");
    assert!(standing(&to).await.copying.is_none(), "{why}");
}

#[tokio::test]
async fn a_file_that_was_cut_off_or_changed_anywhere_is_refused_before_anything_is_written() {
    let (_world, folder, file) = kept(20).await;
    let sound = std::fs::read(&file).unwrap();
    let bad = folder.path().join("bad");
    let lines: Vec<&[u8]> = sound.split_inclusive(|b| *b == b'\n').collect();
    for keep in 0..lines.len() {
        std::fs::write(&bad, lines[..keep].concat()).unwrap();
        refused(&bad, &format!("{keep} lines")).await;
        let mut gone = lines.clone();
        gone.remove(keep);
        std::fs::write(&bad, gone.concat()).unwrap();
        refused(&bad, &format!("without line {keep}")).await;
    }
    for at in (0..sound.len()).step_by(131) {
        std::fs::write(&bad, &sound[..at]).unwrap();
        refused(&bad, &format!("{at} bytes")).await;
        let mut changed = sound.clone();
        changed[at] ^= 1;
        std::fs::write(&bad, &changed).unwrap();
        refused(&bad, &format!("byte {at}")).await;
    }
    for (name, more) in [("a line more", "{\"k\":\"zz\",\"v\":1}\n"), ("a byte more", "x")] {
        std::fs::write(&bad, [sound.as_slice(), more.as_bytes()].concat()).unwrap();
        refused(&bad, name).await;
    }
    let newer = String::from_utf8(sound)
        .unwrap()
        .replacen("\"skyloom_backup\":1", "\"skyloom_backup\":2", 1);
    std::fs::write(&bad, newer).unwrap();
    refused(&bad, "a newer format").await;
}

#[tokio::test]
async fn a_restore_that_is_cut_off_anywhere_is_gone_on_with() {
    let (world, folder, file) = kept(250).await;
    let wanted = documents(&*world.store).await;
    let (clock, ids) = outside(4);
    let other = folder.path().join("other");
    backup(&*cloud(9).await.store, "b", &other, &*clock)
        .await
        .unwrap();
    for after in 0.. {
        let to = empty();
        let faulty = Faulty::new(&to, after, Fault::Dead);
        if restore(&file, &faulty, "ann", &*clock, &*ids).await.is_ok() {
            assert!(after > 4);
            return;
        }
        if after > 0 {
            assert!(standing(&to).await.whole().is_err());
            let error = restore(&other, &*to, "ann", &*clock, &*ids).await.unwrap_err();
            assert!(error.to_string().contains("half filled"), "{error}");
        }
        restore(&file, &*to, "ann", &*clock, &*ids).await.unwrap();
        let there = documents(&*to).await;
        assert!(wanted.iter().all(|(key, value)| there.get(key) == Some(value)));
        assert_eq!(there.len(), wanted.len() + 1, "and the event that tells of it");
        assert!(standing(&to).await.hold.is_some());
    }
}
