//! Metadata that the guest may read.

use std::collections::BTreeMap;

use super::text;
use crate::{CloudError, FieldError, Result};

/// At most 128 entries; keys of 1 to 255 of `[A-Za-z0-9._:-]`; values of at most 255 bytes without control characters.
pub(crate) fn check(metadata: &BTreeMap<String, String>) -> Result<()> {
    let wrong = |field: String, message: String| {
        Err(CloudError::field(FieldError::new(
            field,
            "metadata.invalid",
            message,
        )))
    };
    if metadata.len() > 128 {
        return wrong(
            "metadata".to_owned(),
            format!("{} entries; at most 128 are allowed", metadata.len()),
        );
    }
    for (key, value) in metadata {
        if !text::is_key(key, false) {
            return wrong(
                "metadata".to_owned(),
                format!("the key {key:?} is not 1 to 255 of A-Z a-z 0-9 . _ : -"),
            );
        }
        if value.len() > 255 {
            return wrong(
                format!("metadata.{key}"),
                format!("{} bytes; at most 255 are allowed", value.len()),
            );
        }
        if value.chars().any(char::is_control) {
            return wrong(
                format!("metadata.{key}"),
                "control characters are not allowed".to_owned(),
            );
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_is_bounded_text() {
        let one = |k: &str, v: &str| BTreeMap::from([(k.to_owned(), v.to_owned())]);
        assert!(check(&one("role.a:b-c_d", "云 ok")).is_ok());
        for bad in [
            one("", "x"),
            one("a b", "x"),
            one("a/b", "x"),
            one("k", &"x".repeat(256)),
            one("k", "a\0"),
            one(&"k".repeat(256), ""),
        ] {
            assert_eq!(check(&bad).unwrap_err().code(), "metadata.invalid", "{bad:?}");
        }
        let entries = |n| {
            (0..n)
                .map(|i| (format!("k{i}"), String::new()))
                .collect::<BTreeMap<_, _>>()
        };
        assert!(check(&entries(128)).is_ok());
        assert_eq!(check(&entries(129)).unwrap_err().code(), "metadata.invalid");
    }
}
