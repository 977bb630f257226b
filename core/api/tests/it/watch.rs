//! `GET /v1/watch`: resources as they change.

use http::Response;
use serde_json::json;

use crate::harness::{Api, Events, Role, Setup, SseEvent};

const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJX0NWVkXQ5sbKdNNMgH4k1kcaaz4Qw7oJkqHeT0iKsl me";

async fn open(api: &Api, token: &str, query: &str, last: Option<&str>) -> Response<axum::body::Body> {
    let call = api.call("GET", &format!("/v1/watch{query}"), token);
    match last {
        Some(id) => call.header("last-event-id", id).open().await,
        None => call.open().await,
    }
}

async fn keypair(api: &Api, token: &str, name: &str) -> String {
    let body = json!({"name": name, "public_key": KEY});
    let made = api.call("POST", "/v1/keypairs", token).json(body).await.ok(201);
    made.json["meta"]["id"].as_str().unwrap().to_owned()
}

/// The first part of an event's id.
fn revision(event: &SseEvent) -> u64 {
    let (revision, history) = event.id.as_deref().unwrap().split_once('-').unwrap();
    assert_eq!(history.len(), 8);
    revision.parse().unwrap()
}

fn summary(event: &SseEvent) -> (String, String, bool) {
    let data = event.json();
    (
        event.event.clone(),
        data["kind"].as_str().unwrap().to_owned(),
        data["record"].is_object(),
    )
}

#[tokio::test]
async fn changes_come_in_order_and_only_the_projects_own() {
    let api = Api::new().await;
    let (mine, other) = (api.member().await, api.project("other").await);
    let stranger = api.token(Role::Member { project: other }).await;
    let mut events = Events::of(open(&api, &mine, "?kinds=keypairs,images,tasks", None).await);
    let ready = events.next().await.unwrap();
    assert_eq!(
        (ready.event.as_str(), revision(&ready).to_string()),
        ("ready", ready.data.clone())
    );

    keypair(&api, &stranger, "theirs").await;
    let id = keypair(&api, &mine, "k").await;
    let image = json!({"name": "i", "format": "raw", "url": "https://images.example.org/i"});
    api.call("POST", "/v1/images", &mine).json(image).await.ok(202);
    api.call("DELETE", &format!("/v1/keypairs/{id}"), &mine)
        .send()
        .await
        .ok(204);

    let first = events.next().await.unwrap();
    assert_eq!(first.json()["id"], id);
    assert_eq!(first.json()["revision"], revision(&first));
    let image = events.next().await.unwrap();
    let task = events.next().await.unwrap();
    let gone = events.next().await.unwrap();
    let seen = [&first, &image, &task, &gone].map(summary);
    let want = [
        ("put", "keypairs", true),
        ("put", "images", true),
        ("put", "tasks", true),
        ("delete", "keypairs", false),
    ];
    assert_eq!(
        seen,
        want.map(|(event, kind, record)| (event.to_owned(), kind.to_owned(), record))
    );
    assert_eq!(
        image.id, None,
        "who comes back inside a commit gets all of it again"
    );
    assert!(task.id.is_some() && image.json()["revision"] == task.json()["revision"]);
}

#[tokio::test]
async fn who_comes_back_goes_on_where_it_was() {
    let api = Api::new().await;
    let mine = api.member().await;
    for kinds in ["?kinds=keypairs", "?kinds=keypairs,servers"] {
        let mut events = Events::of(open(&api, &mine, kinds, None).await);
        events.next().await.unwrap();
        let name = |n: u32| format!("k{n}{}", kinds.len());
        keypair(&api, &mine, &name(0)).await;
        let seen = events.next().await.unwrap();
        drop(events);
        keypair(&api, &mine, &name(1)).await;
        keypair(&api, &mine, &name(2)).await;
        let mut events = Events::of(open(&api, &mine, kinds, seen.id.as_deref()).await);
        assert_eq!(
            events.next().await.unwrap().id,
            seen.id,
            "ready says where it goes on"
        );
        for n in [1, 2] {
            assert_eq!(
                events.next().await.unwrap().json()["record"]["meta"]["name"],
                name(n)
            );
        }
    }
    for bad in ["-1", "1-", "1-9f03a1c", "1-9f03a1cg", "x-9f03a1c7"] {
        let call = api.call("GET", "/v1/watch", &mine).header("last-event-id", bad);
        call.send().await.refused(400, "last_event_id.invalid");
    }
}

#[tokio::test]
async fn who_comes_back_from_another_history_is_sent_away() {
    let api = Api::new().await;
    let mine = api.member().await;
    let mut events = Events::of(open(&api, &mine, "?kinds=keypairs", None).await);
    let ready = events.next().await.unwrap();
    // A bare number is of now.
    let bare = revision(&ready).to_string();
    let mut events = Events::of(open(&api, &mine, "?kinds=keypairs", Some(&bare)).await);
    assert_eq!(events.next().await.unwrap().id, ready.id);
    let id = ready.id.unwrap();
    let (number, tag) = id.split_once('-').unwrap();
    let other = if tag == "00000001" { "00000002" } else { "00000001" };
    let before = format!("{number}-{other}");
    let mut events = Events::of(open(&api, &mine, "?kinds=keypairs", Some(&before)).await);
    let gap = events.next().await.unwrap();
    assert_eq!((gap.event.as_str(), gap.id.as_deref()), ("gap", Some("")));
    assert!(events.any().await.is_none());
}

#[tokio::test]
async fn heartbeats_move_the_position_past_what_is_not_shown() {
    let api = Api::new().await;
    let mine = api.member().await;
    let mut events = Events::of(open(&api, &mine, "?kinds=keypairs,servers", None).await);
    let ready: u64 = events.next().await.unwrap().data.parse().unwrap();
    let unseen = api.project("unseen").await;
    assert_ne!(unseen, api.project);
    loop {
        let beat = events.any().await.unwrap();
        assert!(beat.comment, "{beat:?}");
        if revision(&beat) > ready {
            break;
        }
    }
}

#[tokio::test]
async fn a_position_too_old_is_one_gap_and_the_end() {
    let api = Api::with(Setup {
        history: 4,
        ..Setup::default()
    })
    .await;
    let mine = api.member().await;
    for n in 0..20 {
        keypair(&api, &mine, &format!("k{n}")).await;
    }
    let mut events = Events::of(open(&api, &mine, "?kinds=keypairs", Some("2")).await);
    assert_eq!(events.next().await.unwrap().event, "ready");
    let gap = events.next().await.unwrap();
    assert_eq!((gap.event.as_str(), gap.id.as_deref()), ("gap", Some("")));
    assert_eq!(events.next().await, None);
}

#[tokio::test]
async fn streams_end_with_the_server_and_with_the_token() {
    let api = Api::new().await;
    let mine = api.member().await;
    let mut first = Events::of(open(&api, &mine, "", None).await);
    let id = api.get("/v1/tokens?name=t").await.json["items"][0]["meta"]["id"]
        .as_str()
        .unwrap()
        .to_owned();
    api.call("DELETE", &format!("/v1/tokens/{id}"), &api.admin)
        .send()
        .await
        .ok(204);
    while first.any().await.is_some() {}
    let mut second = Events::of(open(&api, &api.admin, "", None).await);
    second.next().await.unwrap();
    api.shutdown.cancel();
    assert_eq!(second.next().await, None);
}

#[tokio::test]
async fn who_sees_what() {
    let api = Api::new().await;
    let mine = api.member().await;
    for (kind, status, code) in [
        ("hosts", 403, "auth.forbidden"),
        ("projects", 400, "kinds.unknown"),
    ] {
        let query = format!("/v1/watch?kinds={kind}");
        api.call("GET", &query, &mine).send().await.refused(status, code);
        assert_eq!(
            open(&api, &api.admin, &format!("?kinds={kind}"), None)
                .await
                .status(),
            200
        );
    }
    let engine = api.token(Role::Engine).await;
    api.call("GET", "/v1/watch", &engine)
        .send()
        .await
        .refused(403, "auth.forbidden");
    for bad in ["?kinds=", "?kinds=servers,", "?kinds=tokens", "?kind=servers"] {
        let reply = api.call("GET", &format!("/v1/watch{bad}"), &mine).send().await;
        assert_eq!(reply.status, 400, "{bad}");
    }
}
