//! Documents come back equal as JSON.

use serde_json::{Value as Json, json};

use super::failure::ensure_eq;
use super::seat::{document, key};
use super::{Case, Seat, Verdict, case};
use crate::{Change, Txn, Value};

pub(super) fn cases() -> Vec<Case> {
    vec![
        case!("value", scalars),
        case!("value", numbers_keep_their_value),
        case!("value", texts_of_all_scripts),
        case!("value", escapes),
        case!("value", odd_names_of_members),
        case!("value", empty_and_nested),
        case!("value", spaces_between_tokens),
        case!("value", large_documents),
        case!("value", many_members),
    ]
}

/// Writes the document and reads it in all three ways.
async fn returns(seat: &Seat, wanted: &Json) -> Verdict {
    let before = seat.revision().await?;
    let revision = seat.put("v/1", wanted.clone()).await?;
    ensure_eq!(document(&seat.have("v/1").await?)?, *wanted, "by get");
    let listed = seat
        .list("v")
        .await?
        .items
        .iter()
        .map(document)
        .collect::<Result<Vec<_>, _>>()?;
    ensure_eq!(listed, std::slice::from_ref(wanted), "by list");
    let seen = seat.watch("v", before)?.expect(revision).await?;
    match &seen.changes[..] {
        [Change::Put(kv)] => ensure_eq!(document(kv)?, *wanted, "by watch"),
        other => return Err(super::Failure::new(format!("wanted one put, got {other:?}"))),
    }
    Ok(())
}

async fn scalars(seat: &mut Seat) -> Verdict {
    for value in [
        Json::Null,
        json!(true),
        json!(false),
        json!(0),
        json!(-1),
        json!(""),
        json!("text"),
    ] {
        returns(seat, &value).await?;
    }
    Ok(())
}

async fn numbers_keep_their_value(seat: &mut Seat) -> Verdict {
    returns(
        seat,
        &json!([0, 1, -1, i64::MIN, i64::MAX, u64::MAX, 9_007_199_254_740_993_u64]),
    )
    .await?;
    returns(seat, &json!([0.5, -0.25, 0.1, 1e-7, 1.5e300, 123_456.789, 2.0])).await
}

async fn texts_of_all_scripts(seat: &mut Seat) -> Verdict {
    returns(
        seat,
        &json!([
            "Größe",
            "サーバー",
            "خادم",
            "🐘🧵",
            "e\u{301} é",
            "\u{feff}bom",
            "a\u{2028}b",
            "\u{10ffff}"
        ]),
    )
    .await
}

async fn escapes(seat: &mut Seat) -> Verdict {
    returns(
        seat,
        &json!("\" \\ / \u{8} \u{c} \n \r \t \u{1f} \u{7f} ' ` $1 %s ? :name -- ; {}"),
    )
    .await?;
    let written = Value::from_json_bytes(r#"{"a":"\u00e9\ud83d\ude00\/"}"#.as_bytes().to_vec());
    seat.commit(Txn::new().put(key("e")?, written)).await?;
    ensure_eq!(
        document(&seat.have("e").await?)?,
        json!({"a": "é😀/"}),
        "escaped forms"
    );
    Ok(())
}

async fn odd_names_of_members(seat: &mut Seat) -> Verdict {
    returns(
        seat,
        &json!({"": 1, "$set": 2, "a.b": 3, "_id": 4, "ключ": 5, "a b": 6, "\"": 7, "__proto__": 8}),
    )
    .await
}

async fn empty_and_nested(seat: &mut Seat) -> Verdict {
    let mut deep = json!([]);
    for _ in 0..60 {
        deep = json!({ "d": [deep] });
    }
    for value in [
        json!({}),
        json!([]),
        json!([[], {}, [{}], null]),
        json!({"a": {}}),
        deep,
    ] {
        returns(seat, &value).await?;
    }
    Ok(())
}

async fn spaces_between_tokens(seat: &mut Seat) -> Verdict {
    let written = Value::from_json_bytes(b" {\n\t\"a\" : [ 1 , 2 ]\r\n} ".to_vec());
    seat.commit(Txn::new().put(key("s")?, written)).await?;
    ensure_eq!(
        document(&seat.have("s").await?)?,
        json!({"a": [1, 2]}),
        "with spaces"
    );
    Ok(())
}

async fn large_documents(seat: &mut Seat) -> Verdict {
    let text: String = (0..200_000_u32)
        .filter_map(|n| char::from_u32(0x21 + n % 0x500))
        .collect();
    returns(seat, &json!({ "text": text })).await
}

async fn many_members(seat: &mut Seat) -> Verdict {
    let members: serde_json::Map<String, Json> =
        (0..5000).map(|n| (format!("member-{n}"), json!(n))).collect();
    returns(seat, &Json::Object(members)).await
}
