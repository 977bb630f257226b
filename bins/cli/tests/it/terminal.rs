//! With a person at a terminal: questions, live steps, colours.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::process::Stdio;

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use serde_json::{Value, json};
use tokio::process::Child;

use crate::binary::command;
use crate::records::{TASK, document, id, server, task};
use crate::stub::{Reply, Stub};

/// A program whose stdin and stderr are a terminal.
struct AtTerminal {
    child: Child,
    keys: File,
    screen: File,
}

impl AtTerminal {
    fn start(stub: &Stub, args: &[&str], environment: &[(&str, &str)]) -> Self {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let name = ptsname(&master, Vec::new()).unwrap().into_string().unwrap();
        let side = || File::options().read(true).write(true).open(&name).unwrap();
        let mut command = command(stub, args);
        command.env("TERM", "xterm").envs(environment.iter().copied());
        let child = command
            .stdin(side())
            .stderr(side())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        drop(command);
        let screen = File::from(master);
        Self {
            child,
            keys: screen.try_clone().unwrap(),
            screen,
        }
    }

    /// Types `text` once `question` is on the screen.
    async fn answer(&mut self, question: &'static str, text: &str) {
        let mut screen = self.screen.try_clone().unwrap();
        let seen = tokio::task::spawn_blocking(move || {
            let mut seen = String::new();
            let mut part = [0; 1024];
            while !seen.contains(question) {
                let read = screen.read(&mut part).unwrap_or(0);
                if read == 0 {
                    break;
                }
                seen.push_str(&String::from_utf8_lossy(&part[..read]));
            }
            seen
        });
        let seen = seen.await.unwrap();
        assert!(seen.contains(question), "{seen}");
        self.keys.write_all(text.as_bytes()).unwrap();
    }

    /// Waits for the end; gives exit code, stdout and what else came on the screen.
    async fn finish(self) -> (Option<i32>, String, String) {
        let mut screen = self.screen;
        let rest = tokio::task::spawn_blocking(move || {
            let mut all = Vec::new();
            let mut part = [0; 4096];
            // The terminal ends with an error once nobody holds its other side.
            while let Ok(read) = screen.read(&mut part) {
                all.extend_from_slice(&part[..read]);
            }
            String::from_utf8_lossy(&all).into_owned()
        });
        let output = self.child.wait_with_output().await.unwrap();
        let out = String::from_utf8(output.stdout).unwrap();
        (output.status.code(), out, rest.await.unwrap())
    }
}

async fn deleting() -> (Stub, String) {
    let stub = Stub::furnished().await;
    let what = format!("DELETE /v1/servers/{}", id(1));
    let accepted = json!({"server": server(1, "web-1"), "task": task("queued", Value::Null)});
    stub.on(&what, Reply::Json(202, accepted));
    let report = vec![
        ("task", document("running", Value::Null, "started", "")),
        ("task", document("done", Value::Null, "succeeded", "succeeded")),
    ];
    stub.on(&format!("GET /v1/tasks/{TASK}/events"), Reply::Events(report));
    (stub, what)
}

#[tokio::test]
async fn yes_deletes_and_waits_with_live_steps() {
    let (stub, what) = deleting().await;
    let mut terminal = AtTerminal::start(&stub, &["server", "delete", "web-1"], &[]);
    terminal.answer("Really delete server web-1? [y/N] ", "y\n").await;
    let (code, out, screen) = terminal.finish().await;
    assert_eq!(code, Some(0), "{screen}");
    assert_eq!(out, "server web-1: deleted\n");
    assert!(
        screen.contains("✓ make the root disk") && screen.contains("✓ start the virtual machine"),
        "{screen}"
    );
    assert_eq!(stub.seen(&what).len(), 1);
}

#[tokio::test]
async fn anything_else_changes_nothing() {
    let (stub, what) = deleting().await;
    let mut terminal = AtTerminal::start(&stub, &["server", "delete", "web-1"], &[("NO_COLOR", "1")]);
    terminal.answer("[y/N] ", "\n").await;
    let (code, out, screen) = terminal.finish().await;
    assert_eq!((code, out.as_str()), (Some(2), ""), "{screen}");
    assert!(
        screen.contains("error: not confirmed; nothing was changed"),
        "{screen}"
    );
    assert!(stub.seen(&what).is_empty());
}

#[tokio::test]
async fn errors_have_colour_only_where_it_is_wanted() {
    let stub = Stub::furnished().await;
    let args = ["server", "show", "nobody"];
    let (code, _, screen) = AtTerminal::start(&stub, &args, &[]).finish().await;
    assert_eq!(code, Some(5));
    assert!(screen.contains("\x1b[1;31merror:"), "{screen:?}");
    let (_, _, screen) = AtTerminal::start(&stub, &args, &[("NO_COLOR", "1")])
        .finish()
        .await;
    assert!(!screen.contains('\x1b'), "{screen:?}");
}

#[tokio::test]
async fn a_password_is_asked_for_unseen_and_a_code_when_it_alone_does_not_do() {
    let stub = Stub::furnished().await;
    let refused = crate::records::problem("auth.denied", "the credentials were not accepted");
    stub.on("POST /v1/auth/login", Reply::Json(401, refused));
    let session =
        json!({"token": "sky_session", "expires_at": "2027-01-01T00:00:00Z", "scope": {"type": "system"}});
    stub.on("POST /v1/auth/login", Reply::Json(200, session));
    let home = tempfile::tempdir().unwrap();
    let home = [("XDG_CONFIG_HOME", home.path().to_str().unwrap())];
    let mut terminal = AtTerminal::start(&stub, &["login"], &home);
    terminal.answer("User: ", "alice\n").await;
    terminal.answer("Password: ", "hidden horse\n").await;
    terminal.answer("(empty: none): ", "123456\n").await;
    let (code, _, screen) = terminal.finish().await;
    assert_eq!(code, Some(0), "{screen}");
    assert!(
        !screen.contains("horse") && !screen.contains("123456"),
        "{screen}"
    );
    let seen = stub.seen("POST /v1/auth/login");
    assert_eq!(seen[0].json().get("code"), None);
    assert_eq!(
        (&seen[1].json()["password"], &seen[1].json()["code"]),
        (&json!("hidden horse"), &json!("123456"))
    );
}

#[tokio::test]
async fn an_interrupted_question_leaves_the_terminal_as_it_was() {
    use rustix::termios::{LocalModes, tcgetattr};
    let stub = Stub::furnished().await;
    let mut terminal = AtTerminal::start(&stub, &["login", "alice"], &[("XDG_CONFIG_HOME", "/nonexistent")]);
    terminal.answer("Password: ", "").await;
    let screen = terminal.screen.try_clone().unwrap();
    let echo = || tcgetattr(&screen).unwrap().local_modes.contains(LocalModes::ECHO);
    assert!(!echo(), "what is typed now is not shown");
    let pid = rustix::process::Pid::from_raw(i32::try_from(terminal.child.id().unwrap()).unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    assert_eq!(terminal.child.wait().await.unwrap().code(), Some(130));
    assert!(echo());
}
