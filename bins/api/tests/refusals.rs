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
    assert!(message.contains("memory, sqlite, http, https"), "{message}");
}
