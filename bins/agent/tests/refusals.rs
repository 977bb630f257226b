//! What `skyloom-agent` refuses before it does anything.

use std::process::{Command, Output};

fn run(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_skyloom-agent"))
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
fn an_agent_without_a_host_says_where_to_get_one() {
    let output = run(&["--set", "store.uri=http://127.0.0.1:1"]);
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{message}");
    assert!(message.contains("skyloom host add"), "{message}");
}

#[cfg(feature = "libvirt")]
#[test]
fn a_libvirt_that_does_not_answer_is_named() {
    let temp = tempfile::tempdir().expect("a directory");
    let token = temp.path().join("token");
    std::fs::write(&token, "x").expect("a token");
    let set = |key: &str, value: &str| ["--set".to_owned(), format!("{key}={value}")];
    let uri = "qemu+unix:///session?socket=/does/not/exist";
    let args: Vec<String> = [
        set("store.uri", "http://127.0.0.1:1"),
        set("store.token_file", &token.display().to_string()),
        set("agent.host", "0198c0de-0000-7000-8000-000000000000"),
        set("agent.data_dir", &temp.path().display().to_string()),
        set("hypervisor.kind", "libvirt"),
        set("hypervisor.libvirt.uri", uri),
    ]
    .concat();
    let output = run(&args.iter().map(String::as_str).collect::<Vec<_>>());
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{message}");
    assert!(
        message.contains(uri) && message.contains("hypervisor.libvirt.uri"),
        "{message}"
    );
}
