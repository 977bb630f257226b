//! The client against a monitor that behaves badly.

use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value, json};
use skyloom_qmp::client::{Client, ClientError, Connection, connect};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};

const LONG: Duration = Duration::from_secs(30);
const SHORT: Duration = Duration::from_millis(50);
const GREETING: &str = r#"{"QMP": {"version": {"qemu": {"micro": 22, "minor": 2, "major": 7}, "package": ""}, "capabilities": ["oob"]}}"#;

/// The monitor's end.
struct Fake {
    _temp: TempDir,
    listener: UnixListener,
    path: PathBuf,
}

struct Session(BufReader<UnixStream>);

impl Fake {
    fn new() -> Self {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("qmp.sock");
        Self {
            listener: UnixListener::bind(&path).unwrap(),
            _temp: temp,
            path,
        }
    }
    async fn accept(&self) -> Session {
        Session(BufReader::new(self.listener.accept().await.unwrap().0))
    }
    /// Both ends after the handshake.
    async fn pair(&self) -> (Session, Client, Connection) {
        let serve = async {
            let mut session = self.accept().await;
            session.say(GREETING).await;
            let ask = session.hear().await;
            assert_eq!(ask["execute"], "qmp_capabilities");
            session
                .say(&json!({ "return": {}, "id": ask["id"] }).to_string())
                .await;
            session
        };
        let (session, connected) = tokio::join!(serve, connect(&self.path, LONG));
        let (client, connection) = connected.unwrap();
        (session, client, connection)
    }
}

impl Session {
    async fn say(&mut self, line: &str) {
        self.raw(format!("{line}\r\n").as_bytes()).await;
    }
    async fn raw(&mut self, bytes: &[u8]) {
        self.0.get_mut().write_all(bytes).await.unwrap();
    }
    async fn hear(&mut self) -> Value {
        let mut line = String::new();
        self.0.read_line(&mut line).await.unwrap();
        serde_json::from_str(&line).unwrap()
    }
    /// Hears a command and answers it.
    async fn answer(&mut self, value: Value) {
        let ask = self.hear().await;
        self.say(&json!({ "return": value, "id": ask["id"] }).to_string())
            .await;
    }
}

/// Runs `work` while the connection lives; it must live as long as that.
async fn while_connected<T>(connection: Connection, work: impl Future<Output = T>) -> T {
    tokio::select! {
        biased;
        done = work => done,
        why = connection.run() => panic!("the connection ended: {why:?}"),
    }
}

#[tokio::test]
async fn greeting_is_negotiated_and_commands_are_answered_by_id() {
    let fake = Fake::new();
    let (mut session, client, connection) = fake.pair().await;
    assert_eq!(client.version(), "7.2.22");
    assert_eq!(client.peer_pid(), Some(std::process::id()));
    let serve = async {
        let (first, second) = (session.hear().await, session.hear().await);
        assert_ne!(first["id"], second["id"]);
        // The second one first.
        session
            .say(&json!({ "return": second["execute"], "id": second["id"] }).to_string())
            .await;
        session
            .say(&json!({ "return": first["execute"], "id": first["id"] }).to_string())
            .await;
    };
    let (a, b) = (
        client.execute("a", Value::Null, LONG),
        client.execute("b", json!({"x": 1}), LONG),
    );
    let (_, a, b) = while_connected(connection, async { tokio::join!(serve, a, b) }).await;
    assert_eq!((a.unwrap(), b.unwrap()), (json!("a"), json!("b")));
}

#[tokio::test]
async fn unknown_events_are_passed_on_and_disturb_nothing() {
    let fake = Fake::new();
    let (mut session, client, connection) = fake.pair().await;
    let mut events = client.events();
    let serve = async {
        session.say(r#"{"event": "BRAND_NEW_EVENT", "data": {"a": [1]}, "timestamp": {"seconds": 1, "microseconds": 0}}"#).await;
        session.say(r#"{"event": "NO_DATA", "future": true}"#).await;
        session.answer(json!({"status": "running"})).await;
    };
    let (_, status) = while_connected(connection, async {
        tokio::join!(serve, client.query_status(LONG))
    })
    .await;
    assert_eq!(status.unwrap(), "running");
    let first = events.recv().await.unwrap();
    assert_eq!(
        (first.name.as_str(), first.data),
        ("BRAND_NEW_EVENT", json!({"a": [1]}))
    );
    assert_eq!(events.recv().await.unwrap().name, "NO_DATA");
}

#[tokio::test]
async fn refusals_are_told() {
    let fake = Fake::new();
    let (mut session, client, connection) = fake.pair().await;
    let serve = async {
        let ask = session.hear().await;
        session
            .say(
                &json!({ "error": {"class": "GenericError", "desc": "not now"}, "id": ask["id"] })
                    .to_string(),
            )
            .await;
    };
    let (_, done) = while_connected(connection, async { tokio::join!(serve, client.cont(LONG)) }).await;
    assert!(matches!(done, Err(ClientError::Refused(r)) if r.class == "GenericError" && r.text == "not now"));
}

#[tokio::test]
async fn late_repeated_and_foreign_replies_change_nothing() {
    let fake = Fake::new();
    let (mut session, client, connection) = fake.pair().await;
    while_connected(connection, async {
        assert!(matches!(
            client.execute("slow", Value::Null, SHORT).await,
            Err(ClientError::Timeout { what: "slow", .. })
        ));
        let late = session.hear().await;
        let serve = async {
            let ask = session.hear().await;
            session
                .say(&json!({ "return": "late", "id": late["id"] }).to_string())
                .await;
            session
                .say(&json!({ "return": "foreign", "id": 999_999 }).to_string())
                .await;
            session
                .say(&json!({ "return": "right", "id": ask["id"] }).to_string())
                .await;
            session
                .say(&json!({ "return": "again", "id": ask["id"] }).to_string())
                .await;
        };
        let (_, done) = tokio::join!(serve, client.execute("x", Value::Null, LONG));
        assert_eq!(done.unwrap(), json!("right"));
        let (_, done) = tokio::join!(
            session.answer(json!("next")),
            client.execute("y", Value::Null, LONG)
        );
        assert_eq!(done.unwrap(), json!("next"));
    })
    .await;
}

#[tokio::test]
async fn split_and_merged_lines_are_read() {
    let fake = Fake::new();
    let (mut session, client, connection) = fake.pair().await;
    let serve = async {
        let (a, b) = (session.hear().await, session.hear().await);
        let all = format!(
            "{}\n\n{}\n",
            json!({"return": 1, "id": a["id"]}),
            json!({"return": 2, "id": b["id"]})
        );
        let (head, tail) = all.split_at(9);
        session.raw(head.as_bytes()).await;
        tokio::task::yield_now().await;
        session.raw(tail.as_bytes()).await;
    };
    let both = async {
        tokio::join!(
            client.execute("a", Value::Null, LONG),
            client.execute("b", Value::Null, LONG)
        )
    };
    let (_, (a, b)) = while_connected(connection, async { tokio::join!(serve, both) }).await;
    assert_eq!((a.unwrap(), b.unwrap()), (json!(1), json!(2)));
}

#[tokio::test]
async fn nonsense_ends_the_connection_and_all_who_wait() {
    let deep = [b"{\"return\":".as_slice(), &[b'['; 200_000], b"\n"].concat();
    let long = vec![b' '; 2 * 1024 * 1024];
    let without_id = br#"{"error": {"class": "GenericError", "desc": "JSON parse error"}}
"#;
    let table: [&[u8]; 6] = [
        b"hello\n",
        b"{\"return\": \"\xff\", \"id\": 1}\n",
        b"[]\n",
        &deep,
        &long,
        without_id,
    ];
    for bytes in table {
        let fake = Fake::new();
        let (mut session, client, connection) = fake.pair().await;
        let serve = async {
            session.hear().await;
            // A peer that has had enough closes before all of it is written.
            let _ = session.0.get_mut().write_all(bytes).await;
        };
        let (_, why, done) = tokio::join!(serve, connection.run(), client.execute("x", Value::Null, LONG));
        let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(20)]);
        assert!(
            matches!(why, ClientError::Wire(_) | ClientError::Unexpected(_)),
            "{shown}: {why:?}"
        );
        assert!(matches!(done, Err(ClientError::Closed)), "{shown}: {done:?}");
        assert!(client.is_closed());
        assert!(matches!(
            client.execute("y", Value::Null, LONG).await,
            Err(ClientError::Closed)
        ));
    }
}

#[tokio::test]
async fn a_dropped_connection_fails_commands_at_once_and_a_new_one_works() {
    let fake = Fake::new();
    let (mut session, client, connection) = fake.pair().await;
    let drop_it = async {
        session.hear().await;
        drop(session);
    };
    let (_, why, done) = tokio::join!(drop_it, connection.run(), client.execute("x", Value::Null, LONG));
    assert!(matches!(why, ClientError::Closed | ClientError::Io(_)), "{why:?}");
    assert!(matches!(done, Err(ClientError::Closed)));
    let (mut session, client, connection) = fake.pair().await;
    let both = async { tokio::join!(session.answer(json!({})), client.stop(LONG)) };
    while_connected(connection, both).await.1.unwrap();
}

#[tokio::test]
async fn a_monitor_that_does_not_greet_is_a_timeout() {
    let fake = Fake::new();
    // As the second client of a QEMU: connected, but never served.
    let refused = connect(&fake.path, SHORT).await;
    assert!(matches!(
        refused,
        Err(ClientError::Timeout { what: "greeting", .. })
    ));
    assert!(matches!(
        connect(&fake.path.with_file_name("none"), LONG).await,
        Err(ClientError::Io(_))
    ));
}

#[tokio::test]
async fn a_wrong_greeting_is_refused() {
    for first in [
        r#"{"return": {}, "id": 0}"#,
        "HTTP/1.1 200 OK",
        r#"{"event": "STOP"}"#,
    ] {
        let fake = Fake::new();
        let serve = async {
            let mut session = fake.accept().await;
            session.say(first).await;
            let mut rest = Vec::new();
            let _ = session.0.read_to_end(&mut rest).await;
            assert!(rest.is_empty(), "nothing is asked of it");
        };
        let (_, connected) = tokio::join!(serve, connect(&fake.path, LONG));
        assert!(connected.is_err(), "{first}");
    }
}

#[tokio::test]
async fn hostile_values_stay_values() {
    let fake = Fake::new();
    let (mut session, client, connection) = fake.pair().await;
    let evil = "\"},\"execute\":\"quit\"}\n{\"execute\":\"quit\"}";
    let serve = async {
        let heard = session.hear().await;
        assert_eq!(
            (&heard["execute"], &heard["arguments"]["x"]),
            (&json!("set"), &json!(evil))
        );
        session
            .say(&json!({ "return": {}, "id": heard["id"] }).to_string())
            .await;
        session.answer(json!("one command each")).await;
    };
    let ask = async {
        client.execute("set", json!({ "x": evil }), LONG).await.unwrap();
        client.execute("get", Value::Null, LONG).await.unwrap()
    };
    let (_, done) = while_connected(connection, async { tokio::join!(serve, ask) }).await;
    assert_eq!(done, json!("one command each"));
}

#[tokio::test]
async fn a_flood_of_events_is_told_as_lost_and_replies_still_come() {
    let fake = Fake::new();
    let (mut session, client, connection) = fake.pair().await;
    let mut events = client.events();
    let serve = async {
        for n in 0..2000 {
            session
                .say(&json!({ "event": format!("E{n}") }).to_string())
                .await;
        }
        session.answer(json!({"status": "paused"})).await;
    };
    let (_, status) = while_connected(connection, async {
        tokio::join!(serve, client.query_status(LONG))
    })
    .await;
    assert_eq!(status.unwrap(), "paused");
    assert!(matches!(
        events.recv().await,
        Err(tokio::sync::broadcast::error::RecvError::Lagged(_))
    ));
}
