//! A server's two names: each can be made from the other.

use skyloom_model::{Hostname, Name, Reason};

use super::text;
use crate::{CloudError, FieldError, Result};

/// The name defaults to the hostname, the hostname to a slug of the name; with neither there is `name.missing`.
/// A name without a single letter or digit of ASCII gives the hostname `fallback`.
pub(crate) fn server(name: Option<&str>, hostname: Option<&str>, fallback: &str) -> Result<(Name, Hostname)> {
    let host = |text: &str| {
        Hostname::new(text)
            .map_err(|e| CloudError::field(FieldError::new("hostname", "hostname.invalid", e.to_string())))
    };
    match (name, hostname) {
        (None, None) => {
            let field = FieldError::new("name", "name.missing", "give a name or a hostname");
            Err(CloudError::field(field))
        }
        (None, Some(hostname)) => {
            let hostname = host(hostname)?;
            Ok((
                text::name("name", hostname.as_str()).map_err(CloudError::field)?,
                hostname,
            ))
        }
        (Some(name), hostname) => {
            let name = text::name("name", name).map_err(CloudError::field)?;
            let hostname = match hostname {
                Some(given) => host(given)?,
                None => Hostname::new(slug(name.as_str()).unwrap_or_else(|| fallback.to_owned())).map_err(
                    |e| {
                        CloudError::invalid(Reason::new(
                            "hostname.invalid",
                            format!("no hostname can be made from the name: it {e}"),
                        ))
                    },
                )?,
            };
            Ok((name, hostname))
        }
    }
}

/// Lower-case letters and digits of `text`, everything else as single `-` between them; at most 63 bytes.
fn slug(text: &str) -> Option<String> {
    let mut out = String::new();
    for c in text.chars() {
        if c.is_ascii_alphanumeric() {
            out.push(c.to_ascii_lowercase());
        } else if !out.is_empty() && !out.ends_with('-') {
            out.push('-');
        }
        if out.len() == 63 {
            break;
        }
    }
    let out = out.trim_end_matches('-');
    if out.is_empty() {
        None
    } else {
        Some(out.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn names(name: Option<&str>, hostname: Option<&str>) -> (String, String) {
        let (n, h) = server(name, hostname, "server-1").unwrap();
        (n.to_string(), h.to_string())
    }

    #[test]
    fn each_name_is_made_from_the_other() {
        assert_eq!(names(None, Some("web-1")), ("web-1".into(), "web-1".into()));
        assert_eq!(
            names(Some("My Web (1)"), None),
            ("My Web (1)".into(), "my-web-1".into())
        );
        assert_eq!(
            names(Some("My Web"), Some("h1.example.org")),
            ("My Web".into(), "h1.example.org".into())
        );
        assert_eq!(names(Some("云主机"), None), ("云主机".into(), "server-1".into()));
    }

    #[test]
    fn neither_or_bad_ones_are_refused() {
        for (name, hostname, code) in [
            (None, None, "name.missing"),
            (Some(""), None, "name.invalid"),
            (Some("a\n"), None, "name.invalid"),
            (Some("a"), Some("-a"), "hostname.invalid"),
            (None, Some("a b"), "hostname.invalid"),
        ] {
            assert_eq!(server(name, hostname, "f").unwrap_err().code(), code);
        }
    }

    proptest! {
        #[test]
        fn every_slug_is_a_hostname(text in "\\PC{0,200}") {
            if let Some(slug) = slug(&text) {
                prop_assert!(Hostname::new(slug).is_ok());
            }
        }
    }
}
