//! Ids as Keystone writes them: 32 hex digits, and `default` for the domain that is always there.

use skyloom_identity::{DEFAULT_DOMAIN, DomainId};
use skyloom_model::{Id, Timestamp};
use uuid::Uuid;

/// How Keystone's clients name the first domain.
const DEFAULT: &str = "default";

/// An id as it is shown.
pub(crate) fn hex<K: ?Sized>(id: Id<K>) -> String {
    id.uuid().simple().to_string()
}

/// A domain's id as it is shown.
pub(crate) fn domain(id: DomainId) -> String {
    if id == DEFAULT_DOMAIN {
        DEFAULT.to_owned()
    } else {
        hex(id)
    }
}

/// An id as it came: with dashes or without.
pub(crate) fn parse<K: ?Sized>(text: &str) -> Option<Id<K>> {
    let known = matches!(text.len(), 32 | 36);
    known.then(|| Uuid::try_parse(text).ok())?.map(Id::from_uuid)
}

/// A domain's id as it came.
pub(crate) fn parse_domain(text: &str) -> Option<DomainId> {
    if text == DEFAULT {
        return Some(DEFAULT_DOMAIN);
    }
    parse(text)
}

/// The shown form of what may be an id.
pub(crate) fn simple(text: &str) -> String {
    match Uuid::try_parse(text) {
        Ok(id) => id.simple().to_string(),
        Err(_) => text.to_owned(),
    }
}

/// A time as tokens and trusts have it.
pub(crate) fn time(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string()
}

/// A time as application credentials and passwords have it: without the zone, which is UTC.
pub(crate) fn bare_time(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%S.%6f").to_string()
}

/// A time as clients write it: ISO 8601, with or without a zone (then it is UTC).
pub(crate) fn parse_time(text: &str) -> Option<Timestamp> {
    if text.len() > 64 {
        return None;
    }
    let zoned: Result<Timestamp, _> = text.parse();
    zoned.ok().or_else(|| {
        let bare: jiff::civil::DateTime = text.parse().ok()?;
        Some(bare.to_zoned(jiff::tz::TimeZone::UTC).ok()?.timestamp())
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use skyloom_identity::User;

    use super::*;

    #[test]
    fn the_default_domain_has_the_name_that_clients_know() {
        assert_eq!(domain(DEFAULT_DOMAIN), "default");
        assert_eq!(parse_domain("default"), Some(DEFAULT_DOMAIN));
        assert_eq!(parse_domain(&hex(DEFAULT_DOMAIN)), Some(DEFAULT_DOMAIN));
        assert_eq!(parse_domain("Default"), None);
    }

    #[test]
    fn times_go_both_ways() {
        for text in [
            "2026-11-22T17:40:23.123456Z",
            "2026-11-22T17:40:23.123456",
            "2026-11-22T18:40:23.123456+01:00",
        ] {
            let at = parse_time(text).unwrap();
            assert_eq!(time(at), "2026-11-22T17:40:23.123456Z", "{text}");
            assert_eq!(bare_time(at), "2026-11-22T17:40:23.123456");
        }
        assert_eq!(
            time(parse_time("2026-11-22T17:40:23Z").unwrap()),
            "2026-11-22T17:40:23.000000Z"
        );
        for text in ["bad.123Z", "", "2026", "yesterday"] {
            assert_eq!(parse_time(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn ids_go_both_ways(number: u128) {
            let id: Id<User> = Id::from_uuid(Uuid::from_u128(number));
            prop_assert_eq!(parse::<User>(&hex(id)), Some(id));
            prop_assert_eq!(parse::<User>(&id.to_string()), Some(id));
            prop_assert_eq!(hex(id).len(), 32);
            prop_assert_eq!(simple(&id.to_string()), hex(id));
        }

        #[test]
        fn nothing_else_is_an_id(text in "\\PC{0,40}") {
            if let Some(id) = parse::<User>(&text) {
                prop_assert_eq!(simple(&text), hex(id));
            }
        }
    }
}
