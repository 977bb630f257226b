//! Public SSH keys: one line of a known type whose body says the same type.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use sha2::{Digest as _, Sha256};
use skyloom_model::KeypairSpec;

use crate::{CloudError, FieldError, Result};

const TYPES: [&str; 7] = [
    "ssh-ed25519",
    "ssh-rsa",
    "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp521",
    "sk-ssh-ed25519@openssh.com",
    "sk-ecdsa-sha2-nistp256@openssh.com",
];

/// Reads a line as in `id_ed25519.pub`: `keypair.invalid_key` for anything else, options included.
pub(crate) fn parse(line: &str) -> Result<KeypairSpec> {
    let wrong = |why: &str| {
        CloudError::field(FieldError::new("public_key", "keypair.invalid_key", why))
            .hint("send the one line of a file such as ~/.ssh/id_ed25519.pub")
    };
    let line = line.trim();
    if line.len() > 8192 {
        return Err(wrong("it is longer than 8192 bytes"));
    }
    if line.contains("PRIVATE KEY") {
        return Err(wrong("this is a private key: never send it anywhere"));
    }
    if line.chars().any(char::is_control) {
        return Err(wrong("it is not one line of printable text"));
    }
    let mut parts = line.splitn(3, ' ');
    let kind = parts
        .next()
        .filter(|k| TYPES.contains(k))
        .ok_or_else(|| wrong("it does not begin with a known key type"))?;
    let body = parts.next().ok_or_else(|| wrong("the key itself is missing"))?;
    let blob = STANDARD
        .decode(body)
        .map_err(|_| wrong("the key itself is no base64"))?;
    // The blob begins with the length and text of the type again.
    let inner = blob.split_first_chunk::<4>().and_then(|(length, rest)| {
        let length = usize::try_from(u32::from_be_bytes(*length)).ok()?;
        let (inner, key) = rest.split_at_checked(length)?;
        if key.is_empty() { None } else { Some(inner) }
    });
    if inner != Some(kind.as_bytes()) {
        return Err(wrong("the key itself is of another type or cut off"));
    }
    let fingerprint = format!("SHA256:{}", STANDARD_NO_PAD.encode(Sha256::digest(&blob)));
    Ok(KeypairSpec {
        public_key: line.to_owned(),
        fingerprint,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJX0NWVkXQ5sbKdNNMgH4k1kcaaz4Qw7oJkqHeT0iKsl";

    #[test]
    fn keys_and_their_fingerprints() {
        let spec = parse(&format!("{KEY} me@laptop\n")).unwrap();
        assert_eq!(spec.public_key, format!("{KEY} me@laptop"));
        // As printed by ssh-keygen -l.
        assert_eq!(
            spec.fingerprint,
            "SHA256:Ra4FMh73bfkBD1tpb0FHH0i+Pa1kXabHY0hKetLxv8s"
        );
        assert!(parse(KEY).is_ok());
    }

    #[test]
    fn anything_else_is_refused() {
        for bad in [
            "",
            "ssh-ed25519",
            "ssh-ed25519 !!!!",
            "ssh-dss AAAAB3NzaC1kc3M=",
            "command=\"rm\" ssh-ed25519 AAAA",
            "ssh-rsa AAAAC3NzaC1lZDI1NTE5AAAAIJX0NWVkXQ5sbKdNNMgH4k1kcaaz4Qw7oJkqHeT0iKsl",
            "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5",
            "-----BEGIN OPENSSH PRIVATE KEY-----",
            &format!("{KEY} a\n{KEY} b"),
            &format!("{KEY} {}", "x".repeat(8192)),
        ] {
            assert_eq!(parse(bad).unwrap_err().code(), "keypair.invalid_key", "{bad:?}");
        }
    }
}
