//! Small secrets at rest, sealed by envelope.
//!
//! ```text
//! plaintext ──AES-256-GCM, fresh data key and nonce──> body      place: the record's key in the store, bound into both
//! data key  ──KeyService::wrap, key-encryption key───> key       kek:   the name of that key
//! Sealed {v, kek, key, body}   readable as text, worthless without the key service, and at any other place
//! ```
//!
//! A new key-encryption key takes effect at once for what is sealed from then on; what was sealed before opens as long as the old key
//! is there, and [`SecretStore::rewrap`] moves it to the new key without touching the body. [`FileKeys`] is the key service for one
//! site: keys in files that only the process' user may read. A product with an HSM or a cloud KMS implements [`KeyService`].

mod error;
mod file;

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use skyloom_model::{Ids, Secret};
use skyloom_store::Key;

pub use error::{VaultError, VaultErrorKind};
pub use file::FileKeys;

/// The only version so far.
const VERSION: u8 = 1;
/// Longest plaintext in bytes.
pub const MAX_PLAINTEXT: usize = 64 * 1024;
/// Longest wrapped key in bytes: key services differ.
const MAX_WRAPPED: usize = 4096;
/// Longest name of a key-encryption key.
const MAX_KEK_NAME: usize = 256;

/// A key for one secret.
pub type DataKey = Secret<[u8; 32]>;

/// Wraps data keys with keys that do not leave it.
#[async_trait]
pub trait KeyService: Send + Sync + fmt::Debug + 'static {
    /// The name of the key that [`Self::wrap`] uses now.
    fn current(&self) -> String;
    /// Encrypts a data key with the current key; `place` is bound in.
    async fn wrap(&self, place: &Key, key: &DataKey) -> Result<Wrapped, VaultError>;
    /// Decrypts what [`Self::wrap`] made for the same place, with the key that it names.
    async fn unwrap(&self, place: &Key, wrapped: &Wrapped) -> Result<DataKey, VaultError>;
}

/// A data key, encrypted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wrapped {
    /// The name of the key-encryption key.
    pub kek: String,
    /// The encrypted data key, in the key service's own form.
    pub bytes: Vec<u8>,
}

/// A sealed secret, as it lies in a record. It opens only at the place for which it was sealed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sealed {
    /// Version of this form.
    v: u8,
    /// The name of the key-encryption key.
    kek: String,
    /// The wrapped data key, base64url.
    key: String,
    /// Nonce, ciphertext and tag, base64url.
    body: String,
}

impl Sealed {
    /// The name of the key-encryption key that it needs.
    #[must_use]
    pub fn kek(&self) -> &str {
        &self.kek
    }
}

/// Secrets, sealed at rest. The edge of this crate where a product may bring its own.
#[async_trait]
pub trait SecretStore: Send + Sync + fmt::Debug + 'static {
    /// Seals a secret for one place.
    async fn seal(&self, place: &Key, plaintext: &Secret<Vec<u8>>) -> Result<Sealed, VaultError>;
    /// Opens what was sealed for that place.
    async fn open(&self, place: &Key, sealed: &Sealed) -> Result<Secret<Vec<u8>>, VaultError>;
    /// Whether its key-encryption key is not the current one.
    fn needs_rewrap(&self, sealed: &Sealed) -> bool;
    /// The same secret under the current key-encryption key.
    async fn rewrap(&self, place: &Key, sealed: &Sealed) -> Result<Sealed, VaultError>;
}

/// The [`SecretStore`] over a [`KeyService`].
#[derive(Debug, Clone)]
pub struct Vault {
    keys: Arc<dyn KeyService>,
    ids: Arc<dyn Ids>,
}

impl Vault {
    /// A vault; `ids` gives data keys and nonces.
    pub fn new(keys: Arc<dyn KeyService>, ids: Arc<dyn Ids>) -> Self {
        Self { keys, ids }
    }

    fn wrapped(place: &Key, sealed: &Sealed) -> Result<Wrapped, VaultError> {
        if sealed.v != VERSION {
            return Err(VaultError::new(
                VaultErrorKind::TooNew,
                format!("{place} is sealed in version {}, known is {VERSION}", sealed.v),
                "run the version of Skyloom that wrote it, or a newer one",
            ));
        }
        if sealed.kek.len() > MAX_KEK_NAME {
            return Err(damaged(place));
        }
        Ok(Wrapped {
            kek: sealed.kek.clone(),
            bytes: decode(place, &sealed.key, MAX_WRAPPED)?,
        })
    }
}

#[async_trait]
impl SecretStore for Vault {
    async fn seal(&self, place: &Key, plaintext: &Secret<Vec<u8>>) -> Result<Sealed, VaultError> {
        if plaintext.expose().len() > MAX_PLAINTEXT {
            return Err(VaultError::new(
                VaultErrorKind::TooLarge,
                format!("a secret of {} bytes for {place}", plaintext.expose().len()),
                format!("a sealed secret holds {MAX_PLAINTEXT} bytes at most"),
            ));
        }
        let mut key = [0; 32];
        self.ids.random(&mut key);
        let body = encrypt(&key, place, plaintext.expose(), &*self.ids)?;
        let wrapped = self.keys.wrap(place, &Secret::new(key)).await?;
        Ok(Sealed {
            v: VERSION,
            kek: wrapped.kek,
            key: URL_SAFE_NO_PAD.encode(wrapped.bytes),
            body: URL_SAFE_NO_PAD.encode(body),
        })
    }

    async fn open(&self, place: &Key, sealed: &Sealed) -> Result<Secret<Vec<u8>>, VaultError> {
        let wrapped = Self::wrapped(place, sealed)?;
        let body = decode(
            place,
            &sealed.body,
            MAX_PLAINTEXT + NONCE_LEN + AES_256_GCM.tag_len(),
        )?;
        let key = self.keys.unwrap(place, &wrapped).await?;
        decrypt(key.expose(), place, body).map(Secret::new)
    }

    fn needs_rewrap(&self, sealed: &Sealed) -> bool {
        sealed.kek != self.keys.current()
    }

    async fn rewrap(&self, place: &Key, sealed: &Sealed) -> Result<Sealed, VaultError> {
        // Opened as a whole: what is damaged is found now, while the old key is still there.
        self.open(place, sealed).await?;
        let key = self.keys.unwrap(place, &Self::wrapped(place, sealed)?).await?;
        let wrapped = self.keys.wrap(place, &key).await?;
        Ok(Sealed {
            kek: wrapped.kek,
            key: URL_SAFE_NO_PAD.encode(wrapped.bytes),
            ..sealed.clone()
        })
    }
}

/// Nonce, ciphertext and tag of `plaintext` at `place`.
fn encrypt(key: &[u8; 32], place: &Key, plaintext: &[u8], ids: &dyn Ids) -> Result<Vec<u8>, VaultError> {
    let mut nonce = [0; NONCE_LEN];
    ids.random(&mut nonce);
    let mut text = plaintext.to_vec();
    cipher(key)?
        .seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), aad(place), &mut text)
        .map_err(|_| broken("sealing"))?;
    Ok([&nonce, text.as_slice()].concat())
}

/// The plaintext of what [`encrypt`] made with that key for that place.
fn decrypt(key: &[u8; 32], place: &Key, mut body: Vec<u8>) -> Result<Vec<u8>, VaultError> {
    let nonce = body
        .first_chunk::<NONCE_LEN>()
        .copied()
        .ok_or_else(|| damaged(place))?;
    let plain = cipher(key)?
        .open_within(
            Nonce::assume_unique_for_key(nonce),
            aad(place),
            &mut body,
            NONCE_LEN..,
        )
        .map_err(|_| damaged(place))?
        .len();
    body.truncate(plain);
    Ok(body)
}

fn cipher(key: &[u8; 32]) -> Result<LessSafeKey, VaultError> {
    UnboundKey::new(&AES_256_GCM, key)
        .map(LessSafeKey::new)
        .map_err(|_| broken("preparing a key"))
}

fn aad(place: &Key) -> Aad<Vec<u8>> {
    Aad::from([b"skyloom sealed 1 ", place.as_str().as_bytes()].concat())
}

fn decode(place: &Key, text: &str, max: usize) -> Result<Vec<u8>, VaultError> {
    // Four characters for three bytes.
    if text.len() > max.div_ceil(3) * 4 {
        return Err(damaged(place));
    }
    URL_SAFE_NO_PAD.decode(text).map_err(|_| damaged(place))
}

fn damaged(place: &Key) -> VaultError {
    VaultError::new(
        VaultErrorKind::Damaged,
        format!("the sealed secret at {place} does not open"),
        "it was changed, or sealed for another place: restore the record, or set the secret anew",
    )
}

fn broken(what: &str) -> VaultError {
    VaultError::new(
        VaultErrorKind::Internal,
        format!("{what}: the cipher failed"),
        "this is a bug, or memory ran out",
    )
}
