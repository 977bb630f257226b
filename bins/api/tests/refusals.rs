//! What `skyloom-api` refuses before it does anything.

use std::process::{Command, Output};

fn run(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_skyloom-api"))
        .args(args)
        .env_clear()
        .output()
        .expect("the program starts")
}

#[test]
fn an_unknown_key_is_named_with_its_neighbour() {
    let output = run(&["--set", "store.ury=memory:"]);
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{message}");
    assert!(
        message.contains("unknown key \"store.ury\"") && message.contains("store.uri"),
        "{message}"
    );
}

#[test]
fn a_key_that_has_moved_says_where_it_is_now() {
    let output = run(&["--set", "pki.key_file=/var/lib/skyloom/seal.key"]);
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{message}");
    assert!(
        message.contains("identity.key_file") && message.contains("identity.older_key_files"),
        "{message}"
    );
}

#[test]
fn a_missing_file_is_named() {
    let output = run(&["--config", "/does/not/exist.toml"]);
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{message}");
    assert!(message.contains("/does/not/exist.toml"), "{message}");
}

#[test]
fn tokens_do_not_cross_the_network_in_the_clear() {
    let output = run(&["--set", "store.uri=memory:", "--set", "api.listen=0.0.0.0:0"]);
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{message}");
    assert!(
        message.contains("without TLS") && message.contains("hint:"),
        "{message}"
    );
}

#[test]
fn an_unknown_store_lists_the_known_ones() {
    let output = run(&["--set", "store.uri=cassandra://x"]);
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{message}");
    assert!(
        message.contains("memory, sqlite, ") && message.contains("mongodb"),
        "{message}"
    );
}

#[test]
fn an_archive_that_cannot_be_used_is_refused() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let store = format!("store.uri=sqlite://{}/skyloom.db", dir.path().display());
    for (setting, code, said) in [
        ("archive.after=soon", 2, "archive.after"),
        ("archive.keep=1h", 2, "keep things longer"),
        ("archive.ury=x", 2, "archive.uri"),
        ("archive.uri=cassandra://me:s3cret@x/y", 1, "cassandra"),
        // It would forget what the store keeps.
        ("archive.uri=memory:", 1, "survive"),
    ] {
        let output = run(&["--set", &store, "--set", setting]);
        let message = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{setting}: {message}");
        assert!(
            message.contains(said) && !message.contains("s3cret"),
            "{setting}: {message}"
        );
    }
}
