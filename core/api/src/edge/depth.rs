//! How deep a JSON text is nested, told without parsing it: a parser that calls itself for each bracket would run out of
//! stack on what this refuses.

/// How deep the brackets go. One pass, no memory.
pub(crate) fn depth(json: &[u8]) -> usize {
    let (mut now, mut most, mut text, mut escaped) = (0_usize, 0, false, false);
    for byte in json {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if text => escaped = true,
            b'"' => text = !text,
            _ if text => {}
            b'[' | b'{' => {
                now += 1;
                most = most.max(now);
            }
            b']' | b'}' => now = now.saturating_sub(1),
            _ => {}
        }
    }
    most
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    #[test]
    fn brackets_are_counted_outside_of_text() {
        assert_eq!(depth(br#"{"a":[1,{"b":"]]}}[[["}]}"#), 3);
        assert_eq!(depth(br#""\"[[""#), 0);
        assert_eq!(depth(br#"["\\",[]]"#), 2);
        assert_eq!(depth("[".repeat(100_000).as_bytes()), 100_000);
    }

    fn real(value: &Value) -> usize {
        match value {
            Value::Array(items) => 1 + items.iter().map(real).max().unwrap_or(0),
            Value::Object(fields) => 1 + fields.values().map(real).max().unwrap_or(0),
            _ => 0,
        }
    }

    fn values() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(json!(null)),
            any::<i32>().prop_map(Value::from),
            ".{0,6}".prop_map(Value::from)
        ];
        leaf.prop_recursive(6, 40, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map("[\\[\\]{}\"\\\\a]{0,5}", inner, 0..4)
                    .prop_map(|fields| Value::Object(fields.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn it_is_the_depth_of_what_a_parser_would_make(value in values()) {
            prop_assert_eq!(depth(value.to_string().as_bytes()), real(&value));
        }
    }
}
