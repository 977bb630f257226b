//! Lists and single records in every format.

use std::process::Stdio;

use serde_json::{Value, json};
use tokio::io::AsyncReadExt as _;

use crate::binary::{command, finish, run};
use crate::records::{id, server};
use crate::stub::{Reply, Stub};

#[tokio::test]
async fn a_table_has_plain_columns_and_wide_has_more() {
    let stub = Stub::furnished().await;
    let table = run(&stub, &["server", "list"]).await.code(0);
    let lines: Vec<&str> = table.out.lines().collect();
    assert_eq!(lines.len(), 4, "{}", table.out);
    assert!(
        lines[0].starts_with("NAME     STATE    HOST    ADDRESSES  FLAVOR  AGE"),
        "{}",
        lines[0]
    );
    assert!(
        lines[1].starts_with("web-1    running  host-a  10.0.2.15  small   "),
        "{}",
        lines[1]
    );
    assert!(!table.out.contains('\x1b'));
    assert_eq!(table.err, "");
    let wide = run(&stub, &["vm", "ls", "-o", "wide"]).await.code(0);
    assert!(
        wide.out.contains(&id(0xbeef)) && wide.out.contains("env=test"),
        "{}",
        wide.out
    );
}

#[tokio::test]
async fn the_other_formats_give_all_records_over_all_pages() {
    let stub = Stub::furnished().await;
    let as_json = run(&stub, &["server", "list", "-o", "json"]).await.code(0).json();
    let names: Vec<&Value> = as_json
        .as_array()
        .unwrap()
        .iter()
        .map(|s| &s["meta"]["name"])
        .collect();
    assert_eq!(names, ["web-1", "web-2", "db-main"]);
    assert_eq!(stub.seen("GET /v1/servers").len(), 2, "two pages");

    let yaml = run(&stub, &["server", "list", "-o", "yaml"]).await.code(0);
    assert_eq!(serde_norway::from_str::<Value>(&yaml.out).unwrap(), as_json);

    let lines = run(&stub, &["server", "list", "-o", "jsonl"]).await.code(0);
    let read: Vec<Value> = lines
        .out
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(json!(read), as_json);

    let names = run(&stub, &["server", "list", "-o", "name"]).await.code(0);
    assert_eq!(names.out, "web-1\nweb-2\ndb-main\n");
    let two = run(&stub, &["server", "list", "-o", "name", "--limit", "1"])
        .await
        .code(0);
    assert_eq!(two.out, "web-1\n");
}

#[tokio::test]
async fn an_empty_list_is_a_head_or_nothing() {
    let stub = Stub::start().await;
    stub.put("servers", vec![]);
    let table = run(&stub, &["server", "list"]).await.code(0);
    assert_eq!(table.out, "NAME  STATE  HOST  ADDRESSES  FLAVOR  AGE\n");
    assert_eq!(
        run(&stub, &["server", "list", "-o", "json"]).await.code(0).json(),
        json!([])
    );
    assert_eq!(
        run(&stub, &["server", "list", "-o", "name"]).await.code(0).out,
        ""
    );
}

#[tokio::test]
async fn filters_go_to_the_server() {
    let stub = Stub::furnished().await;
    let one = run(
        &stub,
        &[
            "server", "list", "--name", "web-2", "--label", "a=b", "-o", "name",
        ],
    )
    .await;
    assert_eq!(one.code(0).out, "web-2\n");
    let query = &stub.seen("GET /v1/servers")[0].query;
    assert!(
        query.contains("name=web-2") && query.contains("label=a%3Db"),
        "{query}"
    );
}

#[tokio::test]
async fn one_record_is_found_by_name_id_or_beginning_of_the_id() {
    let stub = Stub::furnished().await;
    for text in ["db-main", id(0xbeef).as_str(), "0000beef"] {
        let shown = run(&stub, &["server", "show", text, "-o", "json"]).await.code(0);
        assert_eq!(shown.json()["meta"]["name"], "db-main", "{text}");
    }
    let shown = run(&stub, &["server", "show", "web-1"]).await.code(0);
    assert!(shown.out.contains("State         running\n"), "{}", shown.out);
    assert!(
        shown.out.contains("small (2 vCPU, 2 GiB, 10 GiB disk)"),
        "{}",
        shown.out
    );
}

#[tokio::test]
async fn every_kind_has_a_table() {
    let stub = Stub::furnished().await;
    stub.put("tokens", vec![crate::records::token(600, "ci")]);
    for (noun, text) in [
        ("flavor", "2 GiB"),
        ("image", "1.5 GiB"),
        ("keypair", "SHA256:abc"),
        ("host", "qmp 7.2"),
        ("project", "default"),
        ("token", "sky_abcd"),
    ] {
        let table = run(&stub, &[noun, "list"]).await.code(0);
        assert!(table.out.contains(text), "{noun}: {}", table.out);
    }
}

#[tokio::test]
async fn a_reader_that_goes_away_is_no_failure() {
    let stub = Stub::start().await;
    // Far more than a pipe holds.
    stub.put(
        "servers",
        (1..1500).map(|n| server(n, &format!("web-{n}"))).collect(),
    );
    let mut command = command(&stub, &["server", "list", "-o", "jsonl"]);
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut out = child.stdout.take().unwrap();
    let mut first = [0; 10];
    out.read_exact(&mut first).await.unwrap();
    drop(out);
    let end = child.wait_with_output().await.unwrap();
    assert_eq!(String::from_utf8_lossy(&end.stderr), "");
    assert_eq!(end.status.code(), Some(0));
}

#[tokio::test]
async fn what_others_wrote_cannot_drive_the_terminal() {
    let stub = Stub::start().await;
    let mut odd = server(1, "web-1");
    odd["status"]["addresses"] = json!(["\u{1b}]0;owned\u{7}"]);
    stub.put("servers", vec![odd]);
    let table = finish(command(&stub, &["server", "list"])).await.code(0);
    assert!(!table.out.contains(['\x1b', '\x07']), "{:?}", table.out);
}

#[tokio::test]
async fn an_empty_page_with_a_cursor_is_not_the_end() {
    let stub = Stub::start().await;
    let page = |items: Vec<Value>, next: Value| Reply::Json(200, json!({"items": items, "next": next}));
    stub.on("GET /v1/servers", page(vec![], json!("1")));
    stub.on("GET /v1/servers", page(vec![server(0xbeef, "web-1")], json!("2")));
    stub.on("GET /v1/servers", page(vec![], Value::Null));
    let names = run(&stub, &["server", "list", "-o", "name"]).await.code(0);
    assert_eq!(names.out, "web-1\n");
    assert_eq!(stub.seen("GET /v1/servers").len(), 3);
}
