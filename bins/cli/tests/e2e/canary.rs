//! Secrets that are planted on every way in, and looked for wherever they must not be: files, logs, records, the audit, what the kernel tells
//! of the process.

use std::fs;
use std::path::Path;

use reqwest::Method;
use serde_json::{Value, json};
use skyloom::identity::BuiltIn;

use crate::http::{Http, import, small_server, task_of};
use crate::support::{Process, Sky};

/// What was planted: on which way, and the secret.
type Planted = Vec<(&'static str, String)>;

/// Sends one request, and tells status and answer.
fn ask(http: &Http, method: &Method, path: &str, body: &Value) -> (u16, Value) {
    let body = (method != Method::GET).then_some(body);
    http.send(method, path, None, body).expect("an answer")
}

fn made(http: &Http, path: &str, body: &Value) -> Value {
    let (status, answer) = ask(http, &Method::POST, path, body);
    assert!((200..300).contains(&status), "{path}: {status} {answer:#}");
    answer
}

fn text(answer: &Value, field: &str) -> String {
    answer[field]
        .as_str()
        .unwrap_or_else(|| panic!("{answer:#}"))
        .to_owned()
}

/// Uses all credentials that there are.
fn plant(sky: &Sky, http: &Http) -> Planted {
    let mut planted: Planted = Vec::new();
    let mut plant = |way, secret: String| {
        planted.push((way, secret.clone()));
        secret
    };
    let password = plant("a new user's password", "canary-Aardvark-7391-first".to_owned());
    let anna = made(http, "/v1/users", &json!({"name": "anna", "password": password}));
    let user = text(&anna, "id");
    let (_, projects) = ask(http, &Method::GET, "/v1/projects", &Value::Null);
    let project = text(&projects["items"][0]["meta"], "id");
    let member = json!({"role": BuiltIn::Member.id(), "user": user, "project": project});
    let (status, answer) = ask(http, &Method::PUT, "/v1/grants", &member);
    assert_eq!(status, 200, "{answer:#}");

    let wrong = plant("a wrong password", "canary-Bumblebee-5502-wrong".to_owned());
    let login = |password: &str| json!({"user": "anna", "password": password, "scope": {"project": project}});
    let (status, _) = ask(http, &Method::POST, "/v1/auth/login", &login(&wrong));
    assert_eq!(status, 401);
    let typed = plant(
        "a password typed as a name",
        "canary-Cormorant-8113-name".to_owned(),
    );
    let (status, _) = ask(
        http,
        &Method::POST,
        "/v1/auth/login",
        &json!({"user": typed, "password": "x"}),
    );
    assert_eq!(status, 401);
    let session = made(http, "/v1/auth/login", &login(&password));
    let bearer = plant("a bearer token", text(&session, "token"));

    let own = Http::new(&Sky {
        endpoint: sky.endpoint.clone(),
        token: bearer,
    });
    let token = made(&own, "/v1/tokens", &json!({"name": "canary"}));
    plant("an API token", text(&token, "secret"));
    let credential = made(
        &own,
        &format!("/v1/users/{user}/credentials"),
        &json!({"name": "canary"}),
    );
    plant("an application credential", text(&credential, "secret"));

    let chosen = plant("a server's password", "canary-Dragonfly-2248-server".to_owned());
    let mut server = small_server("canary");
    server["password"] = json!(chosen);
    let created = made(&own, "/v1/servers", &server);
    assert_eq!(own.task_end(&task_of(&created))["state"], "done");
    let second = made(&own, "/v1/servers", &small_server("canary-2"));
    plant(
        "a server's password that the cloud made",
        text(&second, "password"),
    );
    assert_eq!(own.task_end(&task_of(&second))["state"], "done");

    let changed = plant(
        "a password that was changed to",
        "canary-Elephant-6674-second".to_owned(),
    );
    let path = "/v1/users/me/actions/change-password";
    let body = json!({"old": password, "new": changed});
    let (status, answer) = ask(&own, &Method::POST, path, &body);
    assert_eq!(status, 204, "{answer:#}");
    planted
}

/// In which of the texts which secret stands.
fn leaks(planted: &Planted, place: &str, bytes: &[u8]) -> Vec<String> {
    let stands = |secret: &str| bytes.windows(secret.len()).any(|part| part == secret.as_bytes());
    planted
        .iter()
        .filter(|(_, secret)| stands(secret))
        .map(|(way, _)| format!("{way} in {place}"))
        .collect()
}

fn in_files(planted: &Planted, folder: &Path, found: &mut Vec<String>) -> usize {
    let mut seen = 0;
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_symlink() {
            continue;
        }
        if path.is_dir() {
            seen += in_files(planted, &path, found);
        } else if path.is_file() {
            seen += 1;
            found.extend(leaks(
                planted,
                &path.display().to_string(),
                &fs::read(&path).unwrap(),
            ));
        }
    }
    seen
}

#[test]
fn what_is_secret_stands_nowhere() {
    let dir = tempfile::tempdir().unwrap();
    let (data, log) = (dir.path().join("data"), dir.path().join("log"));
    let args = [
        "dev",
        "--hypervisor",
        "fake",
        "--data-dir",
        data.to_str().unwrap(),
        "--listen",
        "127.0.0.1:0",
    ];
    let process = Process::start("skyloom", &[&args[..], &["--log", "debug"]].concat(), &log);
    let sky = Sky {
        endpoint: process.line("SKYLOOM_ENDPOINT="),
        token: process.line("SKYLOOM_TOKEN="),
    };
    let http = Http::new(&sky);
    http.host_ready();
    import(&sky, dir.path());
    let planted = plant(&sky, &http);
    assert_eq!(planted.len(), 9);
    let mut found = Vec::new();

    // What the API shows to who may see everything.
    for path in [
        "/v1/tasks",
        "/v1/events",
        "/v1/servers",
        "/v1/users",
        "/v1/tokens",
    ] {
        let (_, answer) = ask(&http, &Method::GET, path, &Value::Null);
        found.extend(leaks(&planted, path, answer.to_string().as_bytes()));
    }
    // What the kernel tells of the process; and nothing of it stays behind if it dies.
    let proc = process.proc();
    for file in ["cmdline", "environ"] {
        found.extend(leaks(&planted, file, &fs::read(proc.join(file)).unwrap()));
    }
    let limits = fs::read_to_string(proc.join("limits")).unwrap();
    let core = limits.lines().find(|line| line.starts_with("Max core file size"));
    assert_eq!(core.unwrap().split_whitespace().nth(4), Some("0"), "{limits}");
    process.end();

    // The store, the hosts' folders, the log: every file.
    let seen = in_files(&planted, dir.path(), &mut found);
    assert!(seen > 5, "only {seen} files");
    let log = fs::read_to_string(&log).unwrap();
    assert!(log.contains("/v1/auth/login"), "the log tells of requests");
    assert!(found.is_empty(), "{found:#?}");
}
