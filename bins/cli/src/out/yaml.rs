//! JSON values as YAML: block style, strings plain only where no reader could take them for something else.

use std::fmt::Write as _;

use serde_json::Value;

/// One YAML document.
pub(crate) fn to_yaml(value: &Value) -> String {
    let mut text = String::new();
    match value {
        Value::Array(items) if !items.is_empty() => list(&mut text, items, 0),
        Value::Object(members) if !members.is_empty() => table(&mut text, members, 0, false),
        leaf => {
            scalar(&mut text, leaf);
            text.push('\n');
        }
    }
    text
}

/// What follows a key: on the same line, or as a block below.
fn member(text: &mut String, value: &Value, indent: usize) {
    match value {
        Value::Object(members) if !members.is_empty() => {
            text.push('\n');
            table(text, members, indent + 2, false);
        }
        Value::Array(items) if !items.is_empty() => {
            text.push('\n');
            list(text, items, indent + 2);
        }
        leaf => {
            text.push(' ');
            scalar(text, leaf);
            text.push('\n');
        }
    }
}

/// `inline`: the first key stands on the line that is begun.
fn table(text: &mut String, members: &serde_json::Map<String, Value>, indent: usize, inline: bool) {
    for (at, (key, value)) in members.iter().enumerate() {
        if at > 0 || !inline {
            let _ = write!(text, "{:indent$}", "");
        }
        string(text, key);
        text.push(':');
        member(text, value, indent);
    }
}

fn list(text: &mut String, items: &[Value], indent: usize) {
    for item in items {
        let _ = write!(text, "{:indent$}-", "");
        match item {
            Value::Object(members) if !members.is_empty() => {
                text.push(' ');
                table(text, members, indent + 2, true);
            }
            other => member(text, other, indent),
        }
    }
}

fn scalar(text: &mut String, value: &Value) {
    match value {
        Value::String(value) => string(text, value),
        Value::Array(_) => text.push_str("[]"),
        Value::Object(_) => text.push_str("{}"),
        // null, true and numbers are the same in both.
        other => {
            let _ = write!(text, "{other}");
        }
    }
}

fn string(text: &mut String, value: &str) {
    if is_plain(value) {
        text.push_str(value);
        return;
    }
    text.push('"');
    for c in value.chars() {
        match c {
            '"' => text.push_str("\\\""),
            '\\' => text.push_str("\\\\"),
            '\n' => text.push_str("\\n"),
            '\t' => text.push_str("\\t"),
            c if c.is_control()
                || matches!(c, '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}') =>
            {
                let _ = write!(text, "\\u{:04x}", u32::from(c));
            }
            c => text.push(c),
        }
    }
    text.push('"');
}

/// Words that begin with a letter and hold nothing that YAML gives a meaning.
fn is_plain(value: &str) -> bool {
    let mut chars = value.chars();
    chars.next().is_some_and(|c| c.is_ascii_alphabetic())
        && chars.all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '/'))
        && !matches!(
            value.to_ascii_lowercase().as_str(),
            "null" | "true" | "false" | "yes" | "no" | "on" | "off" | "y" | "n"
        )
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn blocks_look_as_people_write_them() {
        let value = json!({"name": "web-1", "spec": {"keys": [], "on": true, "ports": [1, [2]]},
            "list": [{"a": 1, "b": "no"}, "x: y"], "none": null});
        assert_eq!(
            to_yaml(&value),
            "list:\n  - a: 1\n    b: \"no\"\n  - \"x: y\"\nname: web-1\nnone: null\nspec:\n  keys: []\n  \"on\": true\n  \
             ports:\n    - 1\n    -\n      - 2\n"
        );
    }

    fn arb_value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<u32>().prop_map(|n| Value::from(f64::from(n) / 8.0)),
            "\\PC{0,12}".prop_map(Value::from),
            any::<String>().prop_map(Value::from),
            "(null|~|yes|0x1f|1e3|- a|# x|a: b|\\[x|@a|%b|!t|&c|\\*d| lead|trail )".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 40, 6, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
                prop::collection::btree_map("\\PC{0,8}", inner, 0..5)
                    .prop_map(|members| Value::Object(members.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn a_yaml_reader_gets_the_same_value(value in arb_value()) {
            let text = to_yaml(&value);
            let read: Value = serde_norway::from_str(&text)
                .map_err(|e| TestCaseError::fail(format!("{e}\n{text}")))?;
            prop_assert_eq!(read, value);
        }
    }
}
