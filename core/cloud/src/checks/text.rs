//! Names and labels, wherever they stand.

use std::collections::BTreeMap;

use skyloom_model::Name;

use crate::FieldError;

/// Most labels of one resource.
const MAX_LABELS: usize = 64;

/// A display name.
pub(crate) fn name(field: &str, text: &str) -> Result<Name, FieldError> {
    Name::new(text).map_err(|e| FieldError::new(field, "name.invalid", e.to_string()))
}

/// Whether `key` is 1 to 255 characters of `[A-Za-z0-9._:/-]` (`/` only where `slash` says so).
pub(crate) fn is_key(key: &str, slash: bool) -> bool {
    let good = |b: u8| b.is_ascii_alphanumeric() || b"._:-".contains(&b) || (slash && b == b'/');
    (1..=255).contains(&key.len()) && key.bytes().all(good)
}

/// Labels: at most 64; keys of `[A-Za-z0-9._:/-]`, values of at most 255 characters without control characters.
pub(crate) fn labels(field: &str, labels: &BTreeMap<String, String>) -> Vec<FieldError> {
    let mut errors = Vec::new();
    if labels.len() > MAX_LABELS {
        errors.push(FieldError::new(
            field,
            "labels.invalid",
            format!("more than {MAX_LABELS} labels"),
        ));
    }
    for (key, value) in labels {
        if !is_key(key, true) {
            errors.push(FieldError::new(
                field,
                "labels.invalid",
                format!("the key {key:?} is not 1 to 255 of A-Z a-z 0-9 . _ : / -"),
            ));
        } else if value.len() > 255 || value.chars().any(char::is_control) {
            let message = format!("the value of {key:?} is longer than 255 bytes or has control characters");
            errors.push(FieldError::new(field, "labels.invalid", message));
        }
        if errors.len() >= 8 {
            break;
        }
    }
    errors
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect()
    }

    #[test]
    fn labels_are_bounded_text() {
        assert!(labels("labels", &map(&[("a.b/c", "x y"), ("k", "")])).is_empty());
        for bad in [
            map(&[("", "x")]),
            map(&[("a b", "x")]),
            map(&[("k", "a\nb")]),
            map(&[("k", &"x".repeat(256))]),
        ] {
            assert_eq!(labels("labels", &bad)[0].code, "labels.invalid", "{bad:?}");
        }
        let many: BTreeMap<_, _> = (0..65).map(|i| (format!("k{i}"), String::new())).collect();
        assert_eq!(labels("labels", &many).len(), 1);
    }

    #[test]
    fn names_are_checked_by_the_model() {
        assert!(name("name", "web 1").is_ok());
        assert_eq!(name("name", "a\u{202e}").unwrap_err().code, "name.invalid");
    }
}
