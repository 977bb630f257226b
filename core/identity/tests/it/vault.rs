//! Sealed secrets: what opens them, and everything that must not.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use proptest::prelude::*;
use serde_json::Value;
use skyloom_identity::{FileKeys, MAX_PLAINTEXT, Sealed, SecretStore as _, Vault, VaultErrorKind};
use skyloom_model::{Ids, ManualClock, Secret, SeededIds};
use skyloom_store::Key;

fn ids(seed: u64) -> Arc<dyn Ids> {
    Arc::new(SeededIds::new(ManualClock::new(), seed))
}

fn place(path: &str) -> Key {
    Key::parse(path).unwrap()
}

fn key_file(folder: &Path, name: &str, seed: u64) -> PathBuf {
    let path = folder.join(name);
    FileKeys::generate(&path, &*ids(seed)).unwrap();
    path
}

fn vault(current: &Path, older: &[&Path]) -> Vault {
    let ids = ids(7);
    Vault::new(
        Arc::new(FileKeys::read(current, older, ids.clone()).unwrap()),
        ids,
    )
}

fn secret(bytes: &[u8]) -> Secret<Vec<u8>> {
    Secret::new(bytes.to_vec())
}

#[tokio::test]
async fn a_secret_opens_where_it_was_sealed_and_nowhere_else() {
    let folder = tempfile::tempdir().unwrap();
    let vault = vault(&key_file(folder.path(), "a", 1), &[]);
    let here = place("identity/credentials/u1/c1");
    let sealed = vault.seal(&here, &secret(b"hush")).await.unwrap();
    assert_eq!(vault.open(&here, &sealed).await.unwrap().expose(), b"hush");
    for there in [
        "identity/credentials/u2/c1",
        "identity/credentials/u1/c2",
        "identity/credentials/u1",
    ] {
        let error = vault.open(&place(there), &sealed).await.unwrap_err();
        assert_eq!(error.kind(), VaultErrorKind::Damaged, "{error}");
    }
    let again = vault.seal(&here, &secret(b"hush")).await.unwrap();
    assert_ne!(sealed, again, "each has its own key and nonce");
    let text = serde_json::to_string(&sealed).unwrap();
    assert!(
        !text.contains("hush") && text.contains(r#""kek":"file-"#),
        "{text}"
    );
}

/// All texts that differ from `text` in one bit, as far as they are text.
fn flipped(text: &str) -> Vec<String> {
    let bits = (0..text.len() * 8).map(|bit| {
        let mut bytes = text.as_bytes().to_vec();
        bytes[bit / 8] ^= 1 << (bit % 8);
        bytes
    });
    bits.filter_map(|bytes| String::from_utf8(bytes).ok()).collect()
}

#[tokio::test]
async fn each_flipped_bit_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let vault = vault(&key_file(folder.path(), "a", 1), &[]);
    let here = place("identity/keys/k1");
    let sealed = serde_json::to_value(vault.seal(&here, &secret(b"hush")).await.unwrap()).unwrap();
    let mut tried = 0;
    for field in ["kek", "key", "body"] {
        for text in flipped(sealed[field].as_str().unwrap()) {
            let mut changed = sealed.clone();
            changed[field] = Value::from(text);
            let changed: Sealed = serde_json::from_value(changed).unwrap();
            vault.open(&here, &changed).await.unwrap_err();
            tried += 1;
        }
    }
    assert!(tried > 1000, "{tried}");
    for (field, value) in [
        ("v", Value::from(0)),
        ("v", Value::from(2)),
        ("key", "".into()),
        ("body", "".into()),
    ] {
        let mut changed = sealed.clone();
        changed[field] = value;
        let changed: Sealed = serde_json::from_value(changed).unwrap();
        vault.open(&here, &changed).await.unwrap_err();
    }
    let mut more = sealed.clone();
    more["extra"] = Value::from(1);
    serde_json::from_value::<Sealed>(more).unwrap_err();
}

#[tokio::test]
async fn cut_and_swapped_parts_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let vault = vault(&key_file(folder.path(), "a", 1), &[]);
    let here = place("identity/keys/k1");
    let one = serde_json::to_value(vault.seal(&here, &secret(b"one")).await.unwrap()).unwrap();
    let two = serde_json::to_value(vault.seal(&here, &secret(b"two")).await.unwrap()).unwrap();
    let mut mixed = one.clone();
    mixed["body"] = two["body"].clone();
    vault
        .open(&here, &serde_json::from_value(mixed).unwrap())
        .await
        .unwrap_err();
    for field in ["key", "body"] {
        let text = one[field].as_str().unwrap();
        for end in 0..text.len() {
            let mut cut = one.clone();
            cut[field] = Value::from(&text[..end]);
            vault
                .open(&here, &serde_json::from_value(cut).unwrap())
                .await
                .unwrap_err();
        }
    }
}

#[tokio::test]
async fn a_new_key_takes_over_without_a_gap() {
    let folder = tempfile::tempdir().unwrap();
    let first = key_file(folder.path(), "first", 1);
    let second = key_file(folder.path(), "second", 2);
    let here = place("identity/keys/k1");
    let before = vault(&first, &[]);
    let sealed = before.seal(&here, &secret(b"hush")).await.unwrap();
    assert!(!before.needs_rewrap(&sealed));

    let during = vault(&second, &[&first]);
    assert_eq!(during.open(&here, &sealed).await.unwrap().expose(), b"hush");
    assert!(during.needs_rewrap(&sealed));
    let moved = during.rewrap(&here, &sealed).await.unwrap();
    assert!(!during.needs_rewrap(&moved));
    during
        .rewrap(&place("identity/keys/k2"), &sealed)
        .await
        .unwrap_err();

    let mut damaged = serde_json::to_value(&sealed).unwrap();
    damaged["body"] = Value::from("AAAA".repeat(8));
    let damaged: Sealed = serde_json::from_value(damaged).unwrap();
    let error = during.rewrap(&here, &damaged).await.unwrap_err();
    assert_eq!(
        error.kind(),
        VaultErrorKind::Damaged,
        "found while the old key is still there"
    );

    let after = vault(&second, &[]);
    assert_eq!(after.open(&here, &moved).await.unwrap().expose(), b"hush");
    let error = after.open(&here, &sealed).await.unwrap_err();
    assert_eq!(error.kind(), VaultErrorKind::UnknownKey);
    assert!(
        error.to_string().contains(sealed.kek()),
        "it names the key: {error}"
    );
    assert!(
        error.to_string().contains(moved.kek()),
        "and those that are there: {error}"
    );
}

#[test]
fn key_files_that_others_may_read_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = key_file(folder.path(), "a", 1);
    let made = std::fs::metadata(&path).unwrap().permissions().mode() & 0o7777;
    assert_eq!(made, 0o600);
    for mode in [0o640, 0o604, 0o660, 0o644, 0o777, 0o700, 0o4600] {
        std::fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        let error = FileKeys::read(&path, &[], ids(7)).unwrap_err();
        assert_eq!(error.kind(), VaultErrorKind::KeyFile);
        assert!(error.to_string().contains(&format!("{mode:04o}")), "{error}");
        assert!(error.hint().contains("chmod 0600"), "{error}");
    }
    for mode in [0o600, 0o400] {
        std::fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        FileKeys::read(&path, &[], ids(7)).unwrap();
    }
}

#[test]
fn files_without_a_key_are_refused_and_none_is_overwritten() {
    let folder = tempfile::tempdir().unwrap();
    let path = key_file(folder.path(), "a", 1);
    let key = std::fs::read_to_string(&path).unwrap();
    FileKeys::generate(&path, &*ids(2)).unwrap_err();
    assert_eq!(std::fs::read_to_string(&path).unwrap(), key);

    let long = format!("{key}{}", " ".repeat(200));
    for text in [
        "",
        "\n",
        "AAAA",
        &key[1..],
        &format!("{key}{key}"),
        &long,
        "not base64url, but of some length, 43 ch",
    ] {
        std::fs::write(&path, text).unwrap();
        let error = FileKeys::read(&path, &[], ids(7)).unwrap_err();
        assert_eq!(error.kind(), VaultErrorKind::KeyFile, "{text:?}");
        assert!(
            text.trim().is_empty() || !format!("{error} {error:?}").contains(text.trim()),
            "{error:?}"
        );
    }
    for path in [folder.path(), &folder.path().join("none")] {
        let error = FileKeys::read(path, &[], ids(7)).unwrap_err();
        assert_eq!(error.kind(), VaultErrorKind::KeyFile);
    }
}

#[test]
fn no_key_is_printed() {
    let folder = tempfile::tempdir().unwrap();
    let path = key_file(folder.path(), "a", 1);
    let key = std::fs::read_to_string(&path).unwrap();
    let shown = format!("{:?}", FileKeys::read(&path, &[], ids(7)).unwrap());
    assert!(shown.contains("file-") && !shown.contains(key.trim()), "{shown}");
}

#[tokio::test]
async fn what_is_too_large_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let vault = vault(&key_file(folder.path(), "a", 1), &[]);
    let here = place("identity/keys/k1");
    let most = vault
        .seal(&here, &Secret::new(vec![7; MAX_PLAINTEXT]))
        .await
        .unwrap();
    assert_eq!(
        vault.open(&here, &most).await.unwrap().expose().len(),
        MAX_PLAINTEXT
    );
    let error = vault
        .seal(&here, &Secret::new(vec![7; MAX_PLAINTEXT + 1]))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), VaultErrorKind::TooLarge);
    let mut huge = serde_json::to_value(&most).unwrap();
    huge["body"] = Value::from("A".repeat(1 << 20));
    vault
        .open(&here, &serde_json::from_value(huge).unwrap())
        .await
        .unwrap_err();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn what_is_sealed_opens_to_the_same(bytes in proptest::collection::vec(any::<u8>(), 0..2000), name in "[a-z0-9._~:@+=-]{1,40}") {
        let folder = tempfile::tempdir().unwrap();
        let vault = vault(&key_file(folder.path(), "a", 1), &[]);
        let here = place(&format!("identity/{name}"));
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let opened = runtime.block_on(async {
            let sealed = vault.seal(&here, &Secret::new(bytes.clone())).await.unwrap();
            let text = serde_json::to_string(&sealed).unwrap();
            vault.open(&here, &serde_json::from_str(&text).unwrap()).await.unwrap()
        });
        prop_assert_eq!(opened.expose(), &bytes);
    }
}
