//! What each failure, refusal and broken answer means.

use std::time::Duration;

use futures::StreamExt as _;
use skyloom_model::Secret;
use skyloom_store::{
    Class, ErrorKind, LeaseMode, LeaseName, Leases as _, Prefix, Revision, Store as _, Txn, Value,
    Watch as _, WatchEvent, WatchOptions,
};
use skyloom_store_remote::{RemoteConfig, RemoteStore};
use tokio::net::TcpListener;

use crate::peer::{Answer, Then, peer};
use crate::{key, put};

#[tokio::test]
async fn nobody_there_is_unavailable_also_for_commits() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let store = RemoteStore::open(RemoteConfig::new(
        format!("http://{address}"),
        Secret::new("t".to_owned()),
    ))
    .unwrap();
    let error = store.commit(put("a")).await.unwrap_err();
    assert_eq!(
        (error.kind(), error.class()),
        (ErrorKind::Unavailable, Class::Transient)
    );
    assert_eq!(
        store.get(&key("a")).await.unwrap_err().kind(),
        ErrorKind::Unavailable
    );
    let mut watch = store.watch(&Prefix::all(), WatchOptions::after(Revision(0)));
    assert_eq!(
        watch.next().await.unwrap().unwrap_err().kind(),
        ErrorKind::Unavailable
    );
    assert!(watch.next().await.is_none(), "an error is the last item");
}

#[tokio::test]
async fn a_lost_answer_is_unknown_for_commits_only_and_nothing_is_sent_twice() {
    let half = Answer::new(200, "application/json", "{\"comm");
    for (answer, timely) in [
        (Answer::nothing(Then::Close), true),
        (half.clone().then(Then::Close), true),
        (half.clone().header("content-length", "50"), true),
        (half.then(Then::Silence), false),
        (Answer::nothing(Then::Silence), false),
        // It covers the request: nobody can tell whether that was done.
        (Answer::nothing(Then::Farewell), true),
    ] {
        let mut peer = peer(answer.clone()).await;
        let store = peer.store();
        let error = store.commit(put("a")).await.unwrap_err();
        assert_eq!(
            (error.kind(), error.class()),
            (ErrorKind::Unknown, Class::Permanent),
            "{answer:?}"
        );
        assert_eq!(peer.heard(), 1, "one commit, one request");
        let store = peer.store();
        let read = store.get(&key("a")).await.unwrap_err().kind();
        let want = if timely {
            ErrorKind::Unavailable
        } else {
            ErrorKind::Timeout
        };
        assert_eq!(read, want, "{answer:?}");
        // Without writes nothing can have happened.
        let store = peer.store();
        let checked = store.commit(Txn::new()).await.unwrap_err().kind();
        assert_eq!(checked, want, "{answer:?}");
    }
}

#[tokio::test]
async fn a_refused_stream_was_not_begun() {
    let mut peer = peer(Answer::nothing(Then::Refuse)).await;
    let error = peer.store().commit(put("a")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(peer.heard() > 1, "so it was tried again");
}

#[tokio::test]
async fn strangers_in_between_leave_a_commit_unknown() {
    let page = "<html>Bad Gateway</html>";
    for (status, read) in [
        (502, ErrorKind::Unavailable),
        (503, ErrorKind::Unavailable),
        (504, ErrorKind::Timeout),
        (500, ErrorKind::Internal),
        (302, ErrorKind::Internal),
    ] {
        let answer = Answer::new(status, "text/html", page).header("location", "http://127.0.0.1:1/");
        let peer = peer(answer).await;
        assert_eq!(
            peer.store().commit(put("a")).await.unwrap_err().kind(),
            ErrorKind::Unknown,
            "{status}"
        );
        assert_eq!(
            peer.store().get(&key("a")).await.unwrap_err().kind(),
            read,
            "{status}"
        );
    }
}

#[tokio::test]
async fn refusals_of_our_own_server_say_what_happened() {
    let problem = |code: &str| format!("{{\"code\":\"{code}\",\"detail\":\"d\"}}");
    let told =
        "{\"code\":\"store.full\",\"store\":{\"kind\":\"full\",\"operation\":\"commit\",\"message\":\"m\"}}";
    let newer = "{\"code\":\"x\",\"store\":{\"kind\":\"from_the_future\",\"operation\":\"commit\",\"message\":\"m\"}}";
    for (status, body, kind) in [
        (401, problem("auth.required"), ErrorKind::Denied),
        (403, problem("role.denied"), ErrorKind::Denied),
        (413, problem("body.too_large"), ErrorKind::TooLarge),
        (429, problem("caller.too_many"), ErrorKind::Overloaded),
        (503, problem("server.overloaded"), ErrorKind::Unavailable),
        (504, problem("request.timeout"), ErrorKind::Unknown),
        (503, told.to_owned(), ErrorKind::Full),
        (422, newer.to_owned(), ErrorKind::Invalid),
    ] {
        let peer = peer(Answer::new(status, "application/problem+json", body.clone())).await;
        assert_eq!(
            peer.store().commit(put("a")).await.unwrap_err().kind(),
            kind,
            "{status} {body}"
        );
    }
}

#[tokio::test]
async fn endless_answers_are_cut_off() {
    let peer = peer(Answer::new(200, "application/json", vec![b' '; 40 << 20])).await;
    let store = RemoteStore::open(peer.config().with_request_timeout(Duration::from_secs(60))).unwrap();
    let error = store.get(&key("a")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Internal);
    assert!(skyloom_model::report(&error).contains("longer than"), "{error:?}");
}

#[tokio::test]
async fn a_silent_or_broken_watch_ends_with_one_error() {
    let line = "{\"progress\":{\"revision\":7}}\n";
    for (tail, then, kind) in [
        ("", Then::Silence, ErrorKind::Timeout),
        ("", Then::Close, ErrorKind::Unavailable),
        ("", Then::End, ErrorKind::Unavailable),
        ("", Then::Farewell, ErrorKind::Unavailable),
        ("{\n", Then::Silence, ErrorKind::Corrupt),
    ] {
        let body = format!("{line}{tail}");
        let peer = peer(Answer::new(200, "application/x-ndjson", body).then(then)).await;
        let mut watch = peer
            .store()
            .watch(&Prefix::all(), WatchOptions::after(Revision(3)));
        assert_eq!(
            watch.next().await.unwrap().unwrap(),
            WatchEvent::Progress(Revision(7))
        );
        assert_eq!(
            watch.next().await.unwrap().unwrap_err().kind(),
            kind,
            "{tail:?} {then:?}"
        );
        assert!(watch.next().await.is_none());
    }
}

#[tokio::test]
async fn the_token_stands_in_one_header_and_in_no_text() {
    let mut peer = peer(Answer::new(200, "application/json", "{\"item\":null}")).await;
    let store = peer.store();
    assert!(store.get(&key("a/b")).await.unwrap().is_none());
    let heard = peer.requests.recv().await.unwrap();
    let head = &heard.head;
    assert_eq!(
        (head.method().as_str(), head.uri().path()),
        ("POST", "/v1/store/get")
    );
    let tokens: Vec<_> = head.headers().get_all("authorization").iter().collect();
    assert_eq!(tokens, ["Bearer sky_secret"]);
    assert!(!head.uri().to_string().contains("secret"));
    assert_eq!(heard.body, "{\"key\":\"a/b\"}");
    assert!(!format!("{store:?} {:?}", peer.config()).contains("secret"));
}

#[tokio::test]
async fn what_cannot_be_right_is_refused_here() {
    let open = |config| RemoteStore::open(config).map(|_| ()).unwrap_err().kind();
    let config = |url: &str| RemoteConfig::new(url, Secret::new("t".to_owned()));
    assert_eq!(open(config("http://192.0.2.1")), ErrorKind::Invalid);
    assert_eq!(
        open(config("https://x").with_ca_pem("no certificate")),
        ErrorKind::Invalid
    );
    assert_eq!(
        open(RemoteConfig::new("https://x", Secret::new("a\nb".to_owned()))),
        ErrorKind::Invalid
    );

    let mut peer = peer(Answer::nothing(Then::Close)).await;
    let store = peer.store();
    let no_json = Txn::new().put(key("a"), Value::from_json_bytes("{"));
    assert_eq!(
        store.commit(no_json).await.unwrap_err().kind(),
        ErrorKind::Invalid
    );
    let long = Txn::new().put(key("a"), Value::json(&"x".repeat(2 << 20)).unwrap());
    assert_eq!(store.commit(long).await.unwrap_err().kind(), ErrorKind::TooLarge);
    let name = LeaseName::parse("a").unwrap();
    let nothing = store.grant(&name, "me", Duration::ZERO, LeaseMode::Acquire).await;
    assert_eq!(nothing.unwrap_err().kind(), ErrorKind::Invalid);
    assert_eq!(peer.heard(), 0, "nothing of this is sent");
}
