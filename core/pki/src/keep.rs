//! What a host keeps of its certificates, in a folder of its own.
//!
//! | file | what |
//! | --- | --- |
//! | `identity.pem` | the private key and its certificate: one file, so that they are exchanged as one |
//! | `joining.key` | the key that a join token was presented with, until its certificate is here |
//! | `joined-with` | the hash of the join token that was used |
//! | `roots.pem` | the cloud's roots, as they were given with the last certificate |
//!
//! All are readable by their owner alone. Each is written whole beside its place, brought to the disk, and moved there: a crash leaves
//! the old file or the new one. These calls block; they are rare and small.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rustls::pki_types::CertificateDer;
use skyloom_model::Secret;

use crate::pem::certificates;
use crate::{
    Fingerprint, HostCertificate, IdentityMaterial, MAX_MATERIAL, Material, PkiError, PkiErrorKind,
    PrivateKey, TrustBundle,
};

const IDENTITY: &str = "identity.pem";
const JOINING: &str = "joining.key";
const JOINED: &str = "joined-with";
const ROOTS: &str = "roots.pem";

/// The folder.
#[derive(Debug, Clone)]
pub struct HostFolder {
    dir: PathBuf,
}

/// The certificate that a host has, with its key.
#[derive(Debug, Clone)]
pub struct KeptIdentity {
    /// Both in PEM.
    pub material: IdentityMaterial,
    /// What the certificate says.
    pub certificate: HostCertificate,
}

impl HostFolder {
    /// Opens the folder; makes it when it is not there.
    ///
    /// # Errors
    /// [`PkiErrorKind::Unreadable`] when it cannot be made.
    pub fn open(dir: &Path) -> Result<Self, PkiError> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(dir)
            .map_err(|e| refused("cannot make the folder", dir, e))?;
        Ok(Self { dir: dir.to_owned() })
    }

    /// The certificate and key that are here.
    ///
    /// # Errors
    /// [`PkiErrorKind::Unreadable`] and [`PkiErrorKind::Malformed`] when the file cannot be used, [`PkiErrorKind::NotAllowed`] when others may
    /// read it, [`PkiErrorKind::Mismatch`] when key and certificate are of different issues.
    pub fn identity(&self) -> Result<Option<KeptIdentity>, PkiError> {
        let Some(text) = self.read(IDENTITY)? else {
            return Ok(None);
        };
        identity(text).map(Some)
    }

    /// The key to join with: the one that a token was presented with before, or a new one, which is on the disk before anybody hears of
    /// it. A token answers no other key.
    ///
    /// # Errors
    /// As [`HostFolder::identity`].
    pub fn joining_key(&self) -> Result<PrivateKey, PkiError> {
        if let Some(text) = self.read(JOINING)? {
            return PrivateKey::from_pem(&text);
        }
        let key = PrivateKey::generate()?;
        self.write(JOINING, key.to_pem().expose().as_bytes())?;
        Ok(key)
    }

    /// Whether the host has joined with this token already. With another one it is meant to join again.
    ///
    /// # Errors
    /// As [`HostFolder::identity`].
    pub fn joined_with(&self, token: &Secret<String>) -> Result<bool, PkiError> {
        let hash = Fingerprint::of(token.expose().as_bytes());
        let kept = self.read(JOINED)?;
        Ok(kept.is_some_and(|kept| kept.expose().trim() == hash.as_str()))
    }

    /// Remembers that the host has joined with this token.
    ///
    /// # Errors
    /// As [`HostFolder::keep`].
    pub fn note_joined(&self, token: &Secret<String>) -> Result<(), PkiError> {
        let hash = Fingerprint::of(token.expose().as_bytes());
        self.write(JOINED, hash.as_str().as_bytes())
    }

    /// Keeps the roots, then the certificate with its key in place of the one before; the key that it was joined with is not needed any
    /// more.
    ///
    /// # Errors
    /// [`PkiErrorKind::Mismatch`] when the certificate is of another key, [`PkiErrorKind::Malformed`] when it or the roots cannot be read,
    /// [`PkiErrorKind::Unreadable`] when nothing can be written. What was there stays.
    pub fn keep(&self, key: &PrivateKey, certificate: &str, roots: &str) -> Result<KeptIdentity, PkiError> {
        TrustBundle::from_pem(roots.as_bytes())?;
        let text = Secret::new(format!("{}{certificate}", key.to_pem().expose()));
        let kept = identity(text.clone())?;
        self.write(ROOTS, roots.as_bytes())?;
        self.write(IDENTITY, text.expose().as_bytes())?;
        match std::fs::remove_file(self.dir.join(JOINING)) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => {
                Err(refused("cannot remove", &self.dir.join(JOINING), e))
            }
            _ => Ok(kept),
        }
    }

    /// The roots that came with the last certificate.
    ///
    /// # Errors
    /// As [`HostFolder::identity`].
    pub fn roots(&self) -> Result<Option<Vec<u8>>, PkiError> {
        Ok(self.read(ROOTS)?.map(|text| text.expose().clone().into_bytes()))
    }

    /// What a client of the host is made of: the roots that are here and the `given` ones, and the identity, if there is one.
    ///
    /// # Errors
    /// As [`HostFolder::identity`].
    pub fn material(&self, given: Option<&[u8]>) -> Result<Material, PkiError> {
        let mut roots = Vec::new();
        for part in [given.map(<[u8]>::to_vec), self.roots()?].into_iter().flatten() {
            roots.extend_from_slice(&part);
            // The last line of a file may have no end.
            roots.push(b'\n');
        }
        Ok(Material {
            identity: self.identity()?.map(|kept| kept.material),
            roots: (!roots.is_empty()).then_some(roots),
        })
    }

    fn read(&self, name: &str) -> Result<Option<Secret<String>>, PkiError> {
        let path = self.dir.join(name);
        let unreadable = |e| refused("cannot read", &path, e);
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(unreadable(e)),
        };
        // Of the open file: what was looked at is what is read.
        let mode = file.metadata().map_err(unreadable)?.mode() & 0o7777;
        if mode & !0o600 != 0 {
            return Err(PkiError::new(
                PkiErrorKind::NotAllowed,
                format!(
                    "{} has mode {mode:04o}: others may get at the key",
                    path.display()
                ),
                "chmod 0600; if others may have read it, revoke the host's certificates and join again",
            ));
        }
        let mut text = String::new();
        file.take(MAX_MATERIAL)
            .read_to_string(&mut text)
            .map_err(unreadable)?;
        Ok(Some(Secret::new(text)))
    }

    fn write(&self, name: &str, text: &[u8]) -> Result<(), PkiError> {
        let path = self.dir.join(name);
        let part = self.dir.join(format!("{name}.part"));
        let write = || {
            // One that a crash left behind may have been made by hand, with another mode.
            match std::fs::remove_file(&part) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
                _ => {}
            }
            let mut file = OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(&part)?;
            file.write_all(text)?;
            file.sync_all()?;
            std::fs::rename(&part, &path)?;
            File::open(&self.dir)?.sync_all()
        };
        write().map_err(|e| refused("cannot write", &path, e))
    }
}

fn identity(text: Secret<String>) -> Result<KeptIdentity, PkiError> {
    let chain = certificates(text.expose().as_bytes(), 1, "the host's certificate")?;
    let certificate = HostCertificate::from_chain(&chain)?;
    let key = PrivateKey::from_pem(&text)?;
    if key.fingerprint() != certificate.key {
        return Err(PkiError::new(
            PkiErrorKind::Mismatch,
            "the private key is not the host certificate's",
            "let the host join again with a new join token",
        ));
    }
    let bytes = Secret::new(text.expose().clone().into_bytes());
    Ok(KeptIdentity {
        material: IdentityMaterial {
            certificates: pem(&chain),
            key: bytes,
        },
        certificate,
    })
}

fn pem(chain: &[CertificateDer<'_>]) -> Vec<u8> {
    chain
        .iter()
        .map(|c| crate::trust::pem_of(c))
        .collect::<String>()
        .into_bytes()
}

fn refused(what: &str, path: &Path, source: io::Error) -> PkiError {
    PkiError::new(
        PkiErrorKind::Unreadable,
        format!("{what} {}", path.display()),
        "look at its path, its owner and the space on the disk",
    )
    .with_source(source)
}
