//! The user's files.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use tokio::process::Command;

use crate::binary::{bare, finish};
use crate::stub::{Stub, TOKEN};

fn at(home: &Path, args: &[&str]) -> Command {
    let mut command = bare(args);
    command.env("XDG_CONFIG_HOME", home);
    command
}

#[tokio::test]
async fn a_context_is_made_used_and_forgotten() {
    let stub = Stub::furnished().await;
    let home = tempfile::tempdir().unwrap();
    let secret = home.path().join("secret");
    std::fs::write(&secret, format!("{TOKEN}\n")).unwrap();
    let set = [
        "context",
        "set",
        "home",
        "--endpoint",
        &stub.endpoint,
        "--token-file",
        secret.to_str().unwrap(),
    ];
    finish(at(home.path(), &set)).await.code(0);
    let set = [
        "context",
        "set",
        "work",
        "--endpoint",
        "https://work.example",
        "--project",
        "shop",
    ];
    finish(at(home.path(), &set)).await.code(0);

    let dir = home.path().join("skyloom");
    let config = std::fs::read_to_string(dir.join("config.toml")).unwrap();
    assert!(
        config.contains(&stub.endpoint) && !config.contains(TOKEN),
        "{config}"
    );
    let mode = std::fs::metadata(dir.join("credentials.toml"))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);

    let servers = finish(at(home.path(), &["server", "list", "-o", "name"]))
        .await
        .code(0);
    assert_eq!(servers.out, "web-1\nweb-2\ndb-main\n");
    let list = finish(at(home.path(), &["context", "list"])).await.code(0);
    assert!(list.out.contains("home  yes"), "{}", list.out);
    assert!(!list.out.contains(TOKEN));

    finish(at(home.path(), &["context", "use", "work"])).await.code(0);
    let show = finish(at(home.path(), &["context", "show", "-o", "json"]))
        .await
        .code(0)
        .json();
    assert_eq!(
        (&show["name"], &show["project"]),
        (&"work".into(), &"shop".into())
    );
    // A token never goes to another endpoint than its own.
    let other = [
        "server",
        "list",
        "--context",
        "work",
        "--endpoint",
        &stub.endpoint,
    ];
    finish(at(home.path(), &other)).await.code(3);
    finish(at(home.path(), &["server", "list", "--context", "home"]))
        .await
        .code(0);
    finish(at(home.path(), &["server", "list", "--context", "nope"]))
        .await
        .code(5)
        .says(&["home, work"]);

    finish(at(home.path(), &["context", "remove", "home"]))
        .await
        .code(0);
    assert!(
        !std::fs::read_to_string(dir.join("credentials.toml"))
            .unwrap()
            .contains(TOKEN)
    );
    finish(at(home.path(), &["context", "use", "home"])).await.code(5);
}

#[tokio::test]
async fn a_broken_file_is_named() {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path().join("skyloom");
    std::fs::create_dir(&dir).unwrap();
    std::fs::write(dir.join("config.toml"), "curent = 'x'\n").unwrap();
    let run = finish(at(home.path(), &["server", "list"])).await.code(2);
    run.says(&["config.toml is not understood", "curent"]);
}
