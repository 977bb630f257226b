//! Lists: what a query filters, in which order, and how far.

use axum::Json;
use axum::response::{IntoResponse as _, Response};
use serde_json::{Map, Value, json};

use super::error::{Answer, Refusal};

/// The parameters of a request, in their order.
#[derive(Debug, Clone, Default)]
pub(crate) struct Query(Vec<(String, String)>);

/// Most parameters that are looked at.
const MOST: usize = 64;

impl Query {
    pub(crate) fn parse(text: &str) -> Self {
        let pairs = text
            .split('&')
            .filter(|pair| !pair.is_empty())
            .take(MOST)
            .map(|pair| {
                let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
                (decoded(name), decoded(value))
            });
        Self(pairs.collect())
    }

    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        let found = self.0.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str())
    }

    /// Whether a flag is set: there, and not said to be off.
    pub(crate) fn flag(&self, name: &str) -> bool {
        self.get(name).is_some_and(is_true)
    }
}

/// `+` and `%xx` undone; what is no UTF-8 becomes question marks.
fn decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        let value = |digit: u8| char::from(digit).to_digit(16).and_then(|n| u8::try_from(n).ok());
        match byte {
            b'+' => bytes.push(b' '),
            b'%' => {
                let mut ahead = rest.clone();
                match (ahead.next().and_then(value), ahead.next().and_then(value)) {
                    (Some(high), Some(low)) => {
                        bytes.push(high << 4 | low);
                        rest = ahead;
                    }
                    _ => bytes.push(byte),
                }
            }
            byte => bytes.push(byte),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn is_true(text: &str) -> bool {
    !matches!(
        text.to_ascii_lowercase().as_str(),
        "0" | "false" | "f" | "no" | "n" | "off"
    )
}

/// Whether an item's value is what a filter wants; `operation` is the part after `__`.
fn matches(value: &Value, operation: &str, wanted: &str) -> bool {
    let text = match value {
        Value::Bool(flag) => return operation == "exact" && *flag == is_true(wanted),
        Value::String(text) => text.to_lowercase(),
        Value::Null => String::new(),
        other => other.to_string(),
    };
    let wanted = wanted.to_lowercase();
    match operation.trim_start_matches('i') {
        "exact" => text == wanted,
        "contains" => text.contains(&wanted),
        "startswith" => text.starts_with(&wanted),
        "endswith" => text.ends_with(&wanted),
        _ => true,
    }
}

/// Leaves what the query wants. Keystone passes over parameters that it does not know, and so do we.
fn filtered(items: &mut Vec<Value>, query: &Query, filters: &[&str]) {
    for (name, wanted) in &query.0 {
        let (field, operation) = name.split_once("__").unwrap_or((name, "exact"));
        let operation = match operation {
            "iexact" => "exact",
            operation => operation,
        };
        if filters.contains(&field) {
            items.retain(|item| matches(&item[field], operation, wanted));
        }
    }
}

fn sorted(items: &mut [Value], query: &Query) {
    let Some(field) = query.get("sort_key") else {
        return;
    };
    let down = query
        .get("sort_dir")
        .is_some_and(|dir| dir.eq_ignore_ascii_case("desc"));
    let key = |item: &Value| match &item[field] {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    };
    items.sort_by(|a, b| {
        let order = key(a).cmp(&key(b));
        if down { order.reverse() } else { order }
    });
}

/// A list's answer: filtered, sorted, from the marker on, at most `limit` of them, and with links.
pub(crate) fn page(
    name: &str,
    mut items: Vec<Value>,
    query: &Query,
    filters: &[&str],
    here: &str,
) -> Answer<Response> {
    filtered(&mut items, query, filters);
    sorted(&mut items, query);
    if let Some(marker) = query.get("marker") {
        let at = items.iter().position(|item| item["id"] == marker);
        let at = at.ok_or_else(|| Refusal::bad(format!("Marker {marker} could not be found.")))?;
        items.drain(..=at);
    }
    let mut next = Value::Null;
    if let Some(limit) = query.get("limit") {
        let limit: usize = limit
            .parse()
            .map_err(|_| Refusal::bad("Invalid input for field 'limit': it is a number"))?;
        if limit > 0 && items.len() > limit {
            items.truncate(limit);
            let last = items.last().map(|item| item["id"].clone());
            if let Some(Value::String(last)) = last {
                next = format!("{here}?limit={limit}&marker={last}").into();
            }
        }
    }
    let mut answer = Map::new();
    answer.insert(name.to_owned(), items.into());
    let links = json!({"next": next, "self": here, "previous": null});
    answer.insert("links".to_owned(), links);
    Ok(Json(Value::Object(answer)).into_response())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn items() -> Vec<Value> {
        vec![
            json!({"id": "1", "name": "Alpha", "enabled": true, "domain_id": "default"}),
            json!({"id": "2", "name": "beta", "enabled": false, "domain_id": "default"}),
            json!({"id": "3", "name": "gamma", "enabled": true, "domain_id": "other"}),
        ]
    }

    fn found(query: &str) -> Vec<String> {
        let mut items = items();
        let query = Query::parse(query);
        filtered(&mut items, &query, &["name", "enabled", "domain_id"]);
        sorted(&mut items, &query);
        items
            .iter()
            .map(|item| item["id"].as_str().unwrap().to_owned())
            .collect()
    }

    #[test]
    fn filters_are_those_of_keystone() {
        assert_eq!(found(""), ["1", "2", "3"]);
        assert_eq!(found("name=alpha"), ["1"]);
        assert_eq!(found("name__contains=AM"), ["3"]);
        assert_eq!(found("name__istartswith=B"), ["2"]);
        assert_eq!(found("name__endswith=a&enabled=0"), ["2"]);
        assert_eq!(found("enabled=False"), ["2"]);
        assert_eq!(found("enabled=True&domain_id=other"), ["3"]);
        assert_eq!(found("enabled"), ["1", "3"]);
        assert_eq!(found("unknown=1"), ["1", "2", "3"]);
        assert_eq!(found("sort_key=name&sort_dir=desc"), ["3", "2", "1"]);
    }

    #[test]
    fn parameters_are_decoded_once() {
        let query = Query::parse("name=a%20b%2Bc+d&x=%zz&y=%252F&flag&scope.project.id=1");
        assert_eq!(query.get("name"), Some("a b+c d"));
        assert_eq!(query.get("x"), Some("%zz"));
        assert_eq!(query.get("y"), Some("%2F"));
        assert_eq!(query.get("scope.project.id"), Some("1"));
        assert!(query.flag("flag") && !query.flag("gone") && !Query::parse("flag=0").flag("flag"));
    }

    proptest::proptest! {
        #[test]
        fn anything_can_be_decoded(text in "\\PC{0,60}") {
            let _any = Query::parse(&text);
        }
    }
}
