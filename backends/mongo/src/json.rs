//! JSON documents as BSON, so that operators can query them, and back without loss.
//!
//! ```text
//! JSON bytes ── parse ──> BSON ── render ──> the same bytes?  yes: BSON alone      no: BSON to look at, and the text
//! ```
//!
//! Whatever BSON cannot hold (whole numbers beyond 64 bits, names that begin with `$` or hold a dot, very deep nesting),
//! and every other way of writing (spaces, escapes, a name twice), makes the rendering differ. Then the text is kept beside,
//! and the text is what is read.

use std::fmt;

use mongodb::bson::{Bson, Document};
use serde::de::{DeserializeSeed, MapAccess, SeqAccess, Visitor};
use serde::ser::{SerializeMap as _, SerializeSeq as _};
use serde::{Deserialize as _, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;

/// Deepest nesting that goes into BSON; servers refuse more than 100, and the value lies a few levels deep itself.
const MAX_DEPTH: usize = 90;
/// Longer BSON is not stored; the text alone is then. Many tiny members make BSON several times as long as JSON.
const MAX_BSON: usize = 4 << 20;

/// A JSON document as it is stored. At least one of the two is there.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Stored {
    /// For people and their queries; also the document itself when there is no text.
    pub(crate) value: Option<Bson>,
    /// The document's exact text, where `value` does not give it back.
    pub(crate) text: Option<String>,
}

impl Stored {
    /// From the text of one JSON document.
    pub(crate) fn new(text: &str) -> Self {
        let mut parser = serde_json::Deserializer::from_str(text);
        let value = Nested { depth: 0 }.deserialize(&mut parser).ok();
        let value = value.filter(|v| size_of(v) <= MAX_BSON);
        let exact = value
            .as_ref()
            .and_then(render)
            .is_some_and(|back| back == text.as_bytes());
        Self {
            value,
            text: (!exact).then(|| text.to_owned()),
        }
    }

    /// From the fields of a stored document; `None` when there is neither, or the value is nothing that JSON has.
    pub(crate) fn take(document: &mut Document) -> Option<Self> {
        let text = match document.remove("text") {
            Some(Bson::String(text)) => Some(text),
            _ => None,
        };
        let value = document.remove("value");
        (value.is_some() || text.is_some()).then_some(Self { value, text })
    }

    /// The document's bytes.
    pub(crate) fn into_json(self) -> Option<Vec<u8>> {
        match self.text {
            Some(text) => Some(text.into_bytes()),
            None => self.value.as_ref().and_then(render),
        }
    }

    /// Adds the fields to a document.
    pub(crate) fn put_into(self, document: &mut Document) {
        if let Some(value) = self.value {
            document.insert("value", value);
        }
        if let Some(text) = self.text {
            document.insert("text", text);
        }
    }

    /// Bytes in BSON, about.
    pub(crate) fn size(&self) -> usize {
        self.value.as_ref().map_or(0, size_of) + self.text.as_ref().map_or(0, String::len)
    }
}

/// Bytes in BSON, names included, about.
fn size_of(value: &Bson) -> usize {
    match value {
        Bson::String(s) => 5 + s.len(),
        Bson::Array(items) => 5 + items.iter().map(|v| 8 + size_of(v)).sum::<usize>(),
        Bson::Document(d) => 5 + d.iter().map(|(k, v)| 2 + k.len() + size_of(v)).sum::<usize>(),
        _ => 8,
    }
}

/// The JSON text of a value that was parsed from JSON; `None` when it holds anything that JSON has not.
fn render(value: &Bson) -> Option<Vec<u8>> {
    serde_json::to_vec(&Rendered(value)).ok()
}

struct Rendered<'v>(&'v Bson);

impl Serialize for Rendered<'_> {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Bson::Null => s.serialize_unit(),
            Bson::Boolean(b) => s.serialize_bool(*b),
            Bson::Int32(n) => s.serialize_i32(*n),
            Bson::Int64(n) => s.serialize_i64(*n),
            Bson::Double(n) if n.is_finite() => s.serialize_f64(*n),
            Bson::String(text) => s.serialize_str(text),
            Bson::Array(items) => {
                let mut seq = s.serialize_seq(Some(items.len()))?;
                for item in items {
                    seq.serialize_element(&Rendered(item))?;
                }
                seq.end()
            }
            Bson::Document(members) => {
                let mut map = s.serialize_map(Some(members.len()))?;
                for (name, member) in members {
                    map.serialize_entry(name, &Rendered(member))?;
                }
                map.end()
            }
            other => Err(serde::ser::Error::custom(format_args!(
                "BSON type {:?} is not JSON",
                other.element_type()
            ))),
        }
    }
}

/// Reads one JSON value at this depth.
#[derive(Clone, Copy)]
struct Nested {
    depth: usize,
}

impl Nested {
    fn below(self) -> Self {
        Self {
            depth: self.depth + 1,
        }
    }
}

impl<'de> DeserializeSeed<'de> for Nested {
    type Value = Bson;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Bson, D::Error> {
        if self.depth < MAX_DEPTH {
            return from.deserialize_any(self);
        }
        let rest = Box::<RawValue>::deserialize(from)?;
        Ok(Bson::String(rest.get().to_owned()))
    }
}

impl<'de> Visitor<'de> for Nested {
    type Value = Bson;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }
    fn visit_unit<E>(self) -> Result<Bson, E> {
        Ok(Bson::Null)
    }
    fn visit_bool<E>(self, v: bool) -> Result<Bson, E> {
        Ok(Bson::Boolean(v))
    }
    fn visit_i64<E>(self, v: i64) -> Result<Bson, E> {
        Ok(whole(v))
    }
    #[expect(
        clippy::cast_precision_loss,
        reason = "for people to look at; the text is kept"
    )]
    fn visit_u64<E>(self, v: u64) -> Result<Bson, E> {
        Ok(i64::try_from(v).map_or(Bson::Double(v as f64), whole))
    }
    fn visit_f64<E>(self, v: f64) -> Result<Bson, E> {
        Ok(Bson::Double(v))
    }
    fn visit_str<E>(self, v: &str) -> Result<Bson, E> {
        Ok(Bson::String(v.to_owned()))
    }
    fn visit_string<E>(self, v: String) -> Result<Bson, E> {
        Ok(Bson::String(v))
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut from: A) -> Result<Bson, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = from.next_element_seed(self.below())? {
            items.push(item);
        }
        Ok(Bson::Array(items))
    }
    fn visit_map<A: MapAccess<'de>>(self, mut from: A) -> Result<Bson, A::Error> {
        let mut members = Document::new();
        while let Some(name) = from.next_key::<String>()? {
            members.insert(plain(name), from.next_value_seed(self.below())?);
        }
        Ok(Bson::Document(members))
    }
}

/// The shorter type where it fits: shells show it as a plain number.
fn whole(n: i64) -> Bson {
    i32::try_from(n).map_or(Bson::Int64(n), Bson::Int32)
}

/// A name that every server takes and every query can say: look-alikes for `$` in front, dots and NUL.
fn plain(name: String) -> String {
    if !name.starts_with('$') && !name.contains(['.', '\0']) {
        return name;
    }
    let name = name.replace('.', "\u{ff0e}").replace('\0', "\u{2400}");
    match name.strip_prefix('$') {
        Some(rest) => format!("\u{ff04}{rest}"),
        None => name,
    }
}

#[cfg(test)]
mod tests {
    use mongodb::bson::doc;
    use proptest::prelude::*;
    use serde_json::Value as Json;

    use super::*;

    /// Through the bytes of a whole BSON document, as the server has it.
    fn through_the_server(text: &str) -> String {
        let mut document = doc! { "_id": "k" };
        Stored::new(text).put_into(&mut document);
        let bytes = document.to_vec().unwrap();
        let mut back = Document::from_reader(&bytes[..]).unwrap();
        String::from_utf8(Stored::take(&mut back).unwrap().into_json().unwrap()).unwrap()
    }

    #[test]
    fn plain_documents_are_bson_alone() {
        for text in [
            "null",
            "true",
            "0",
            "-1",
            "9223372036854775807",
            "0.1",
            "-0.0",
            "1e+300",
            r#""a\u0000ü""#,
            "[]",
            "{}",
            r#"{"b":1,"a":{"z":[1,2.5,null],"":""}}"#,
        ] {
            let stored = Stored::new(text);
            assert!(
                stored.text.is_none() && stored.value.is_some(),
                "{text}: {stored:?}"
            );
            assert_eq!(through_the_server(text), text);
        }
    }

    #[test]
    fn what_bson_changes_is_kept_as_text_too() {
        let deep = format!("{}1{}", "[".repeat(120), "]".repeat(120));
        let wide = format!("[{}0]", "0,".repeat(500_000));
        let deeper = format!("{}1{}", "[".repeat(5000), "]".repeat(5000));
        for text in [
            "18446744073709551615",
            "123456789012345678901234567890",
            "1e2",
            "-0",
            "0.10",
            "1e999",
            " {}",
            r#"{"a": 1}"#,
            r#""\u0041""#,
            r#"{"$set":1}"#,
            r#"{"a.b":1}"#,
            r#"{"a\u0000":1}"#,
            r#"{"a":1,"a":2}"#,
            &deep,
            &deeper,
            &wide,
        ] {
            assert!(Stored::new(text).text.is_some(), "{text:.40}");
            assert_eq!(through_the_server(text), text);
        }
    }

    #[test]
    fn operators_see_what_can_be_shown() {
        let stored = Stored::new(r#"{"a.b":1,"$x":18446744073709551615}"#);
        let shown = doc! { "a\u{ff0e}b": 1, "\u{ff04}x": 18446744073709551615.0 };
        assert_eq!(stored.value, Some(Bson::Document(shown)));
    }

    #[test]
    fn what_json_has_not_is_no_document() {
        let mut edited = doc! { "value": { "at": mongodb::bson::DateTime::from_millis(0) } };
        assert_eq!(Stored::take(&mut edited).unwrap().into_json(), None);
        assert_eq!(Stored::take(&mut doc! { "_id": "k" }), None);
    }

    fn json() -> impl Strategy<Value = Json> {
        let leaf = prop_oneof![
            Just(Json::Null),
            any::<bool>().prop_map(Json::from),
            any::<i64>().prop_map(Json::from),
            any::<u64>().prop_map(Json::from),
            any::<f64>().prop_map(Json::from),
            ".{0,12}".prop_map(Json::from),
        ];
        leaf.prop_recursive(6, 64, 6, |inner| {
            let name = prop_oneof!["[a-c]{0,2}", r"[$.]?[a-z.]{0,4}", ".{0,6}"];
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Json::from),
                prop::collection::vec((name, inner), 0..6)
                    .prop_map(|members| Json::Object(members.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn every_document_comes_back_byte_for_byte(document in json(), pretty in any::<bool>()) {
            let text = if pretty {
                serde_json::to_string_pretty(&document).unwrap()
            } else {
                serde_json::to_string(&document).unwrap()
            };
            prop_assert_eq!(through_the_server(&text), text);
        }

        #[test]
        fn any_text_comes_back(text in "[0-9eE+\\-.\\[\\]{}\",:a $\\\\u]{0,24}") {
            let stored = Stored::new(&text);
            prop_assert_eq!(stored.into_json().unwrap(), text.into_bytes());
        }
    }
}
