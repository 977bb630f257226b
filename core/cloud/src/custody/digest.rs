//! The count and hash of records, the same in every store.
//!
//! Stores give back an equal document, not equal bytes: some order members, or write numbers anew. So each document is hashed in
//! one canonical form.

use serde::{Deserialize, Serialize};
use serde_json::Value as Json;
use sha2::{Digest as _, Sha256};
use skyloom_store::{Key, Result, Value};

use crate::hash::hex;

/// How many records, and the hash of all of them in the order of their keys.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// How many.
    pub records: u64,
    /// SHA-256 in lower-case hex.
    pub sha256: String,
}

/// Counts and hashes.
#[derive(Default)]
pub(super) struct Tallying {
    records: u64,
    hash: Sha256,
}

impl Tallying {
    pub(super) fn add(&mut self, key: &Key, value: &Value) -> Result<()> {
        let document: Json = value.parse()?;
        let mut text = Vec::with_capacity(value.bytes().len());
        canonical(&document, &mut text);
        self.records += 1;
        for part in [key.as_str().as_bytes(), &text] {
            self.hash
                .update(u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
            self.hash.update(part);
        }
        Ok(())
    }

    pub(super) fn end(self) -> Tally {
        Tally {
            records: self.records,
            sha256: hex(&self.hash.finalize()),
        }
    }
}

/// Members by name, whole numbers without a fraction.
fn canonical(value: &Json, out: &mut Vec<u8>) {
    match value {
        Json::Null => out.push(b'n'),
        Json::Bool(true) => out.push(b't'),
        Json::Bool(false) => out.push(b'f'),
        Json::Number(number) => out.extend(numeral(number).bytes()),
        Json::String(text) => string(text, out),
        Json::Array(items) => {
            out.push(b'[');
            for item in items {
                canonical(item, out);
                out.push(b',');
            }
            out.push(b']');
        }
        Json::Object(members) => {
            let mut members: Vec<_> = members.iter().collect();
            members.sort_unstable_by(|a, b| a.0.cmp(b.0));
            out.push(b'{');
            for (name, value) in members {
                string(name, out);
                canonical(value, out);
                out.push(b',');
            }
            out.push(b'}');
        }
    }
}

/// With its length before it, so that no text can look like what stands around it.
fn string(text: &str, out: &mut Vec<u8>) {
    out.extend(format!("\"{}:", text.len()).bytes());
    out.extend(text.bytes());
}

fn numeral(number: &serde_json::Number) -> String {
    match number.as_f64() {
        Some(float) if number.is_f64() && float.fract() == 0.0 && float.abs() < 9e15 => {
            format!("{:.0}", float + 0.0)
        }
        _ => number.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn tally(documents: &[(&str, &str)]) -> Tally {
        let mut tallying = Tallying::default();
        for (key, value) in documents {
            let value = Value::from_json_bytes(value.as_bytes().to_vec());
            tallying.add(&Key::parse(key).unwrap(), &value).unwrap();
        }
        tallying.end()
    }

    #[test]
    fn how_a_document_is_written_does_not_matter_and_what_it_says_does() {
        let a = tally(&[("k", r#"{"a":1,"b":[true,null,"x"]}"#)]);
        assert_eq!(
            a,
            tally(&[("k", r#" { "b": [true, null, "\u0078"], "a": 1.0 } "#)])
        );
        for other in [
            r#"{"a":2,"b":[true,null,"x"]}"#,
            r#"{"a":"1","b":[true,null,"x"]}"#,
            r#"{"a":1,"b":[true,"x",null]}"#,
            r#"{"a":1,"b":[true,null,"x"],"c":null}"#,
        ] {
            assert_ne!(a, tally(&[("k", other)]), "{other}");
        }
        assert_ne!(a, tally(&[("l", r#"{"a":1,"b":[true,null,"x"]}"#)]));
        assert_eq!(tally(&[("k", "-0.0")]), tally(&[("k", "0")]));
    }

    #[test]
    fn records_do_not_run_into_each_other() {
        assert_ne!(
            tally(&[("a", r#""b""#), ("c", r#""d""#)]),
            tally(&[("a", r#""bc""#), ("c", r#""d""#)])
        );
        assert_ne!(tally(&[("a", r#"["b","c"]"#)]), tally(&[("a", r#"["b\",\"c"]"#)]));
    }

    proptest! {
        #[test]
        fn different_texts_have_different_forms(a in ".{0,12}", b in ".{0,12}", c in ".{0,12}", d in ".{0,12}") {
            let (mut first, mut second) = (Vec::new(), Vec::new());
            canonical(&json!([a, b]), &mut first);
            canonical(&json!([c, d]), &mut second);
            prop_assert_eq!(first == second, (a, b) == (c, d));
        }
    }
}
