//! Checksums of rows: a CRC-32 over every column, with the lengths, so that any flipped bit and any torn row shows.

use crc32fast::Hasher;

/// Builds the checksum of one row, column by column.
pub(super) struct Crc(Hasher);

impl Crc {
    pub(super) fn new() -> Self {
        Self(Hasher::new())
    }

    pub(super) fn int(mut self, n: u64) -> Self {
        self.0.update(&n.to_le_bytes());
        self
    }

    pub(super) fn text(mut self, text: Option<&str>) -> Self {
        match text {
            Some(text) => {
                self.0.update(&(text.len() as u64).to_le_bytes());
                self.0.update(text.as_bytes());
            }
            None => self.0.update(&u64::MAX.to_le_bytes()),
        }
        self
    }

    pub(super) fn finish(self) -> u32 {
        self.0.finalize()
    }
}

/// The checksum of a document, or (without `value`) of its removal at `modified`.
pub(super) fn of_document(key: &str, value: Option<&str>, created: u64, modified: u64) -> u32 {
    Crc::new()
        .int(created)
        .int(modified)
        .text(Some(key))
        .text(value)
        .finish()
}

/// The checksum of the state row.
pub(super) fn of_state(revision: u64, floor: u64) -> u32 {
    Crc::new().int(revision).int(floor).finish()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::of_document;

    proptest! {
        #[test]
        fn every_flipped_bit_shows(value in "[ -~]{1,200}", at in any::<prop::sample::Index>(), bit in 0..7u8) {
            let mut damaged = value.clone().into_bytes();
            let i = at.index(damaged.len());
            damaged[i] ^= 1 << bit;
            let damaged = String::from_utf8(damaged).unwrap();
            prop_assert_ne!(of_document("a/b", Some(&value), 1, 2), of_document("a/b", Some(&damaged), 1, 2));
        }
    }

    #[test]
    fn columns_do_not_run_into_one_another() {
        assert_ne!(
            of_document("ab", Some("c"), 1, 1),
            of_document("a", Some("bc"), 1, 1)
        );
        assert_ne!(of_document("a", None, 1, 1), of_document("a", Some(""), 1, 1));
        assert_ne!(
            of_document("a", Some("1"), 1, 2),
            of_document("a", Some("1"), 2, 1)
        );
    }
}
