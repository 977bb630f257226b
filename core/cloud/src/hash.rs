//! Hashes: of texts for keys, of passwords for guests.

use sha_crypt::{Algorithm, Params, PasswordHasher as _, ShaCrypt};
use sha2::{Digest as _, Sha256};
use skyloom_model::{Ids, Secret};

use crate::{CloudError, Result};

/// Lower-case hex.
pub(crate) fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |n: u8| char::from(DIGITS[usize::from(n & 15)]);
    bytes.iter().flat_map(|b| [digit(b >> 4), digit(*b)]).collect()
}

/// SHA-256 of `parts` with their lengths between them, in lower-case hex.
pub(crate) fn sha256_of(parts: &[&[u8]]) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
        hash.update(part);
    }
    hex(&hash.finalize())
}

/// Plain SHA-256 in lower-case hex.
pub(crate) fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// Who thought of a password.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Maker {
    /// A person: guesses have to be slow.
    Person,
    /// [`crate::checks::password::generate`]: 133 bits of chance, which nobody guesses however fast. As few rounds as crypt(3) allows.
    Chance,
}

/// The SHA-512 crypt hash (`$6$…`) of a password. Takes up to milliseconds, so it is done beside the runtime's threads.
pub(crate) async fn crypt(password: Secret<String>, maker: Maker, ids: &dyn Ids) -> Result<String> {
    // 12 bytes make the 16 characters of salt that crypt(3) reads.
    let mut salt = [0; 12];
    ids.random(&mut salt);
    tokio::task::spawn_blocking(move || crypt_with(password.expose(), maker, &salt))
        .await
        .map_err(|e| CloudError::internal(format!("hashing a password: {e}")))?
}

fn crypt_with(password: &str, maker: Maker, salt: &[u8; 12]) -> Result<String> {
    let params = match maker {
        Maker::Person => Params::RECOMMENDED,
        Maker::Chance => Params::new(Params::ROUNDS_MIN)
            .map_err(|e| CloudError::internal(format!("hashing a password: {e}")))?,
    };
    ShaCrypt::new(Algorithm::Sha512Crypt, params)
        .hash_password_with_salt(password.as_bytes(), salt)
        .map(|hash| hash.as_str().to_owned())
        .map_err(|e| CloudError::internal(format!("hashing a password: {e}")))
}

#[cfg(test)]
mod tests {
    use sha_crypt::PasswordVerifier as _;
    use skyloom_model::{ManualClock, SeededIds};

    use super::*;

    #[test]
    fn crypt_is_what_other_systems_compute() {
        // openssl passwd -6 -salt saltstring 'Hello world!'
        let plain = "$6$saltstring$svn8UoSVapNtMuq1ukKS4tPQd8iKwSMHWjl/O817G3uBnIFNjnQJuesI68u4OTLiBFdcbYEdFCoEOfaS35inz1";
        assert!(ShaCrypt::SHA512.verify_password(b"Hello world!", plain).is_ok());
        // openssl passwd -6 -salt 'rounds=5000$abcdefghijklmnop' 'correct horse'
        let openssl = "$6$rounds=5000$abcdefghijklmnop$q2YZbPhm1LySTIzZVDisu/y2CX1McrFsw529ViOLMxoKT.sfgjBo4aFu.hwtGjEDxRb6mn/TZMj7V4/1AUTLi1";
        assert!(
            ShaCrypt::SHA512
                .verify_password(b"correct horse", openssl)
                .is_ok()
        );
    }

    #[tokio::test]
    async fn a_hash_verifies_its_password_only() {
        let ids = SeededIds::new(ManualClock::new(), 3);
        for (maker, rounds) in [(Maker::Person, "rounds=5000"), (Maker::Chance, "rounds=1000")] {
            let password = || Secret::new("correct horse".to_owned());
            let hash = crypt(password(), maker, &ids).await.unwrap();
            let again = crypt(password(), maker, &ids).await.unwrap();
            assert_ne!(hash, again, "each has its own salt");
            let parts: Vec<_> = hash.split('$').collect();
            assert_eq!((parts[1], parts[2], parts[3].len()), ("6", rounds, 16), "{hash}");
            let verified = |guess: &[u8]| ShaCrypt::SHA512.verify_password(guess, hash.as_str()).is_ok();
            assert!(verified(b"correct horse") && !verified(b"correct horsf"));
        }
    }

    #[test]
    fn hashes_of_parts_depend_on_where_they_are_cut() {
        assert_ne!(sha256_of(&[b"ab", b"c"]), sha256_of(&[b"a", b"bc"]));
        assert_eq!(
            sha256(b""),
            "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
        );
    }
}
