//! The first user's password: given ones are checked, absent ones are made.

use skyloom_model::Ids;

use crate::{CloudError, FieldError, Result};

/// Letters and digits that nobody mistakes for one another.
const ALPHABET: &[u8] = b"abcdefghijkmnpqrstuvwxyzABCDEFGHJKLMNPQRSTUVWXYZ23456789";
/// 23 of 56 letters are 133 bits: see `hash::Maker::Chance`.
const LENGTH: usize = 23;

/// A given password has 8 to 128 printable characters: `password.weak`.
pub(crate) fn given(password: &str) -> Result<()> {
    let count = password.chars().count();
    if (8..=128).contains(&count) && !password.chars().any(char::is_control) {
        return Ok(());
    }
    Err(CloudError::field(FieldError::new(
        "password",
        "password.weak",
        "a password has 8 to 128 printable characters",
    ))
    .hint("leave it out to have one made"))
}

/// A new password of 23 characters, each equally likely.
pub(crate) fn generate(ids: &dyn Ids) -> String {
    let even = 256 - 256 % ALPHABET.len();
    let mut password = String::with_capacity(LENGTH);
    while password.len() < LENGTH {
        let mut bytes = [0; 32];
        ids.random(&mut bytes);
        // Bytes beyond the largest multiple of the alphabet would favour its first letters.
        let letters = bytes.iter().filter(|b| usize::from(**b) < even);
        password.extend(letters.map(|b| char::from(ALPHABET[usize::from(*b) % ALPHABET.len()])));
    }
    password.truncate(LENGTH);
    password
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use skyloom_model::{ManualClock, SeededIds};

    use super::*;

    #[test]
    fn given_passwords_are_long_and_printable() {
        for good in ["12345678", &"x".repeat(128), "pass wörd ok"] {
            assert!(given(good).is_ok(), "{good}");
        }
        for bad in ["", "1234567", &"x".repeat(129), "1234567\n", "12345678\0"] {
            assert_eq!(given(bad).unwrap_err().code(), "password.weak", "{bad:?}");
        }
    }

    #[test]
    fn the_refusal_does_not_repeat_the_password() {
        let error = given("hunter2").unwrap_err();
        assert!(!format!("{error:?}").contains("hunter2"));
    }

    #[test]
    fn made_passwords_use_the_whole_alphabet_evenly() {
        let ids = SeededIds::new(ManualClock::new(), 1);
        let mut seen: BTreeMap<char, u32> = BTreeMap::new();
        for _ in 0..2000 {
            let password = generate(&ids);
            assert_eq!(password.len(), LENGTH);
            assert!(given(&password).is_ok());
            for c in password.chars() {
                *seen.entry(c).or_default() += 1;
            }
        }
        assert_eq!(seen.len(), ALPHABET.len());
        let expected = 2000 * u32::try_from(LENGTH).unwrap() / u32::try_from(ALPHABET.len()).unwrap();
        assert!(
            seen.values().all(|n| n.abs_diff(expected) < expected / 4),
            "{seen:?}"
        );
    }
}
