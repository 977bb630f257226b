//! What goes over the wire comes back, and nonsense is refused.

use super::*;
use proptest::prelude::*;

fn key(text: &str) -> Key {
    Key::parse(text).unwrap()
}

fn document(bytes: &'static str) -> KeyValue {
    KeyValue {
        key: key("a/b"),
        value: Value::from_json_bytes(bytes),
        created: Revision(1),
        modified: Revision(7),
    }
}

#[test]
fn a_line_holds_one_line_feed_whatever_the_document_holds() {
    let kv = document("{\n  \"a\": \"x\\ny\",\r\n \"b\": [1,\n2]}");
    let event = WatchEvent::Commit {
        revision: Revision(7),
        changes: vec![Change::Put(kv.clone()), Change::Delete(key("a/c"))],
    };
    let (line, last) = WatchLine::from_item(&Ok(event)).encode().unwrap();
    assert!(!last);
    assert_eq!(line.iter().filter(|b| **b == b'\n').count(), 1);
    assert_eq!(line.last(), Some(&b'\n'));
    let WatchEvent::Commit { revision, changes } = WatchLine::decode(&line).unwrap().into_item().unwrap()
    else {
        panic!("no commit")
    };
    assert_eq!(revision, Revision(7));
    let [Change::Put(put), Change::Delete(gone)] = changes.as_slice() else {
        panic!("{changes:?}")
    };
    assert_eq!(gone, &key("a/c"));
    assert_eq!(
        put.value.parse::<serde_json::Value>().unwrap(),
        kv.value.parse::<serde_json::Value>().unwrap()
    );
}

#[test]
fn numbers_and_order_of_a_document_are_not_touched() {
    let text = r#"{"z":1e400,"a":18446744073709551616,"z2":0.10}"#;
    let txn = Txn::new().put(key("k"), Value::from_json_bytes(text));
    let json = serde_json::to_string(&CommitRequest::try_from(&txn).unwrap()).unwrap();
    assert!(json.contains(text), "{json}");
    let back: Txn = serde_json::from_str::<CommitRequest>(&json).unwrap().into();
    assert_eq!(back, txn);
}

#[test]
fn a_page_is_cut_at_the_limit_and_says_so() {
    let big = Value::json(&"x".repeat(MAX_PAGE_BYTES / 2)).unwrap();
    let item = |i: u32| KeyValue {
        key: key(&format!("k/{i}")),
        value: big.clone(),
        created: Revision(1),
        modified: Revision(1),
    };
    let page = Page {
        items: (0..3).map(item).collect(),
        revision: Revision(9),
        more: false,
    };
    let answer = ListAnswer::from_page(&page).unwrap();
    assert_eq!(answer.items.len(), 1);
    assert!(answer.more);
}

#[test]
fn a_commit_that_is_too_long_for_a_line_is_a_gap() {
    let changes = (0..5)
        .map(|i| {
            Change::Put(KeyValue {
                key: key(&format!("k/{i}")),
                value: Value::json(&"x".repeat(MAX_LINE_BYTES / 4)).unwrap(),
                created: Revision(1),
                modified: Revision(1),
            })
        })
        .collect();
    let event = WatchEvent::Commit {
        revision: Revision(5),
        changes,
    };
    let (line, last) = WatchLine::from_item(&Ok(event)).encode().unwrap();
    assert!(last);
    let item = WatchLine::decode(&line).unwrap().into_item().unwrap();
    assert_eq!(item, WatchEvent::Gap { floor: Revision(5) });
}

#[test]
fn an_error_keeps_its_kind_and_text() {
    let error = Error::new(ErrorKind::Full, "commit").with("bytes", 5);
    let json = serde_json::to_string(&WireError::from(&error)).unwrap();
    let back = serde_json::from_str::<WireError>(&json)
        .unwrap()
        .into_error("put");
    assert_eq!(back.kind(), ErrorKind::Full);
    assert_eq!(
        skyloom_model::report(&back),
        "put: store full (far end commit): commit: store full (bytes 5)"
    );
}

#[test]
fn unknown_members_and_bad_keys_are_refused() {
    for bad in [
        r#"{"key":"a","x":1}"#,
        r#"{"key":"a//b"}"#,
        r#"{"key":"../a b"}"#,
        r#"{}"#,
    ] {
        assert!(serde_json::from_str::<GetRequest>(bad).is_err(), "{bad}");
    }
    assert!(serde_json::from_str::<CommitRequest>(r#"{"writes":[{"put":{"key":"a"}}]}"#).is_err());
}

proptest! {
    #[test]
    fn decoding_any_bytes_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = WatchLine::decode(&bytes);
    }

    #[test]
    fn a_transaction_survives_the_way(keys in proptest::collection::vec("[a-z]{1,3}(/[a-z]{1,3}){0,2}", 0..6), n in any::<u64>()) {
        let mut txn = Txn::new();
        for k in &keys {
            let k = key(k);
            txn = txn.guard(Guard::Revision(k.clone(), Revision(n))).guard(Guard::Absent(k.clone()));
            txn = if n % 2 == 0 { txn.delete(k) } else { txn.put(k, Value::json(&n).unwrap()) };
        }
        let json = serde_json::to_vec(&CommitRequest::try_from(&txn).unwrap()).unwrap();
        let back: Txn = serde_json::from_slice::<CommitRequest>(&json).unwrap().into();
        prop_assert_eq!(back, txn);
    }
}
