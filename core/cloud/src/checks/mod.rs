//! The checks that a request passes before anything is written. Each is a small pure function with its own code.
//!
//! The way of [`crate::CreateServer`], in this order:
//!
//! | step | code when it fails |
//! | --- | --- |
//! | a body is there and is one: the API's extractor, before anything here is called | `body.missing`, `body.malformed`, `field.unknown` |
//! | [`server::config_drive`] default `true` | |
//! | [`password::given`] (one is made when absent) | `password.weak` |
//! | [`text::labels`], [`server::group`], [`server::user_data`], [`server::disk_needs_seed`] | `labels.invalid`, … |
//! | [`metadata::check`] | `metadata.invalid` |
//! | [`names::server`] name from hostname or the other way round | `name.missing`, `name.invalid`, `hostname.invalid` |
//! | [`networks::check`] | `network.physical_function_refused`, `network.unsupported`, `network.too_many` |
//! | [`found`] keypairs, flavor, image exist | `keypair.not_found`, `flavor.not_found`, `image.not_found` |
//! | [`image::usable`] | `image.not_active`, `image.architecture_unsupported`, `image.needs_more_disk`, `…_memory` |

pub(crate) mod addresses;
pub(crate) mod flavor;
pub(crate) mod host;
pub(crate) mod image;
pub(crate) mod keypair;
pub(crate) mod metadata;
pub(crate) mod names;
pub(crate) mod networks;
pub(crate) mod password;
pub(crate) mod server;
pub(crate) mod text;
pub(crate) mod volume;

use skyloom_model::Reason;

use crate::{CloudError, FieldError, Result};

/// What a request names must exist: `flavor.not_found` and the like.
pub(crate) fn found<T>(field: &str, what: &str, asked: &str, found: Option<T>) -> Result<T> {
    found.ok_or_else(|| {
        let message = format!("there is no {what} with the id or name {asked:?}");
        CloudError::field(FieldError::new(field, &format!("{what}.not_found"), message))
    })
}

/// The text of the caller's key for a repeated request: 1 to 128 printable ASCII characters.
pub(crate) fn idempotency_key(key: &str) -> Result<()> {
    if (1..=128).contains(&key.len()) && key.bytes().all(|b| (0x20..0x7f).contains(&b)) {
        return Ok(());
    }
    Err(CloudError::bad_request(Reason::new(
        "idempotency.key_invalid",
        "the Idempotency-Key must be 1 to 128 printable ASCII characters",
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_named_must_exist() {
        assert_eq!(found("flavor", "flavor", "m1", Some(7)).unwrap(), 7);
        let error = found::<u8>("flavor", "flavor", "m1", None).unwrap_err();
        assert_eq!(error.code(), "flavor.not_found");
        assert_eq!(error.wrong_fields()[0].field, "flavor");
    }

    #[test]
    fn idempotency_keys_are_short_printable_text() {
        assert!(idempotency_key("a b-c").is_ok());
        for bad in ["", "a\n", "ä", &"x".repeat(129)] {
            assert_eq!(
                idempotency_key(bad).unwrap_err().code(),
                "idempotency.key_invalid",
                "{bad:?}"
            );
        }
    }
}
