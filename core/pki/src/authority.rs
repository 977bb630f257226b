//! The authority: a root that signs certificates of hosts and servers, and nothing between.

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use rcgen::{
    BasicConstraints, Certificate, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose,
    IsCa, Issuer, KeyPair, KeyUsagePurpose, PublicKeyData, SanType, SerialNumber, date_time_ymd,
};
use rustls::pki_types::{CertificateDer, DnsName};
use skyloom_model::{HostId, Hostname, Ids, Secret, Timestamp};

use crate::certificate::{HOST_URI, read};
use crate::lifetimes::{earlier, later};
use crate::pem::{certificates, moment};
use crate::print::hex;
use crate::trust::Root;
use crate::{
    CertificateRequest, Fingerprint, HostCertificate, Lifetimes, PkiError, PkiErrorKind, PrivateKey,
};

/// Most names that a server's certificate has.
pub const MAX_SERVER_NAMES: usize = 64;

/// A root with its key: ECDSA P-256, since every TLS library and key store takes it.
pub struct Authority {
    root: Root,
    issuer: Issuer<'static, KeyPair>,
}

/// What a host's certificate is issued for: from the host's record, never from the request.
#[derive(Debug, Clone)]
pub struct HostGrant {
    /// The host.
    pub host: HostId,
    /// Its name, for people.
    pub name: Hostname,
    /// The begin of its epoch ([`crate::HostEpoch::not_before`]), if certificates of it were revoked: the new one begins no earlier.
    pub not_earlier: Option<Timestamp>,
}

/// The names of a server, checked: DNS names without wildcards, and addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerNames(Vec<SanType>);

/// A certificate that was issued.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Issued {
    /// It in PEM.
    pub pem: String,
    /// Its fingerprint.
    pub fingerprint: Fingerprint,
    /// Until when it counts.
    pub not_after: Timestamp,
    /// What it says of its host; `None` for a server's.
    pub host: Option<HostCertificate>,
}

impl Authority {
    /// A new root with a new key.
    ///
    /// # Errors
    /// [`PkiErrorKind::NotAllowed`] when the times cannot be written, [`PkiErrorKind::Internal`].
    pub fn generate(
        cloud: &str,
        ids: &dyn Ids,
        now: Timestamp,
        lifetimes: &Lifetimes,
    ) -> Result<Self, PkiError> {
        Self::with_key(PrivateKey::generate()?, cloud, ids, now, lifetimes)
    }

    /// A new root of a key that is there.
    ///
    /// # Errors
    /// As [`Authority::generate`].
    pub fn with_key(
        key: PrivateKey,
        cloud: &str,
        ids: &dyn Ids,
        now: Timestamp,
        lifetimes: &Lifetimes,
    ) -> Result<Self, PkiError> {
        let serial = serial(ids);
        let mut params = CertificateParams::default();
        // Each root has a name of its own, so that a path is never tried with the key of another.
        let cloud: String = cloud.chars().filter(|c| !c.is_control()).take(32).collect();
        params.distinguished_name = common_name(&format!("{cloud} root {}", &hex(&serial)[..8]));
        params.serial_number = Some(SerialNumber::from_slice(&serial));
        params.not_before = moment(date_time_ymd(1970, 1, 1), earlier(now, lifetimes.back_date))?;
        params.not_after = moment(date_time_ymd(1970, 1, 1), later(now, lifetimes.root))?;
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let certificate = params
            .self_signed(&key.pair)
            .map_err(|e| PkiError::internal("no root could be made", e))?;
        Self::from_parts(certificate.der().clone(), key)
    }

    /// The root that was made before, from its certificate and key.
    ///
    /// # Errors
    /// [`PkiErrorKind::Malformed`], [`PkiErrorKind::NotAllowed`] for a certificate that is no root, [`PkiErrorKind::Mismatch`] for a key of another.
    pub fn open(certificate: &str, key: &Secret<String>) -> Result<Self, PkiError> {
        let certificate = certificates(certificate.as_bytes(), 1, "the root's certificate")?.remove(0);
        Self::from_parts(certificate, PrivateKey::from_pem(key)?)
    }

    fn from_parts(certificate: CertificateDer<'static>, key: PrivateKey) -> Result<Self, PkiError> {
        let root = Root::new(certificate.clone())?;
        let spki = read(&certificate, "the root's certificate")?
            .public_key()
            .raw
            .to_vec();
        if spki != key.pair.subject_public_key_info() {
            return Err(PkiError::new(
                PkiErrorKind::Mismatch,
                format!(
                    "the private key is not the one of the root {}",
                    root.fingerprint()
                ),
                "give the key that was made with this root",
            ));
        }
        let issuer = Issuer::from_ca_cert_der(&certificate, key.pair)
            .map_err(|e| PkiError::internal("the root's certificate cannot be used for issuing", e))?;
        Ok(Self { root, issuer })
    }

    /// The root without its key.
    #[must_use]
    pub fn root(&self) -> &Root {
        &self.root
    }

    /// The root's certificate in PEM.
    #[must_use]
    pub fn certificate_pem(&self) -> String {
        self.root.to_pem()
    }

    /// The root's key in PEM: to be sealed, nothing else.
    #[must_use]
    pub fn key_pem(&self) -> Secret<String> {
        Secret::new(self.issuer.key().serialize_pem())
    }

    /// A host's certificate: for clients alone, with the host's id as its only name.
    ///
    /// # Errors
    /// [`PkiErrorKind::Expired`] when the root's time is over, [`PkiErrorKind::Internal`].
    pub fn issue_host(
        &self,
        request: &CertificateRequest,
        grant: &HostGrant,
        ids: &dyn Ids,
        now: Timestamp,
        lifetimes: &Lifetimes,
    ) -> Result<Issued, PkiError> {
        let uri = format!("{HOST_URI}{}", grant.host).try_into();
        let uri = uri.map_err(|e| PkiError::internal("a host's id cannot be written", e))?;
        let begin = earlier(now, lifetimes.back_date);
        let leaf = Leaf {
            name: grant.name.as_str(),
            names: vec![SanType::URI(uri)],
            usage: ExtendedKeyUsagePurpose::ClientAuth,
            begin: grant.not_earlier.map_or(begin, |epoch| epoch.max(begin)),
            life: lifetimes.host,
        };
        let (certificate, not_after) = self.sign(request, leaf, ids, now)?;
        Ok(Issued {
            host: Some(HostCertificate::parse(certificate.der())?),
            pem: certificate.pem(),
            fingerprint: Fingerprint::of(certificate.der()),
            not_after,
        })
    }

    /// A server's certificate: for servers alone, with the names that the operator has listed.
    ///
    /// # Errors
    /// As [`Authority::issue_host`].
    pub fn issue_server(
        &self,
        request: &CertificateRequest,
        names: &ServerNames,
        ids: &dyn Ids,
        now: Timestamp,
        lifetimes: &Lifetimes,
    ) -> Result<Issued, PkiError> {
        let leaf = Leaf {
            name: "skyloom api",
            names: names.0.clone(),
            usage: ExtendedKeyUsagePurpose::ServerAuth,
            begin: earlier(now, lifetimes.back_date),
            life: lifetimes.server,
        };
        let (certificate, not_after) = self.sign(request, leaf, ids, now)?;
        Ok(Issued {
            host: None,
            pem: certificate.pem(),
            fingerprint: Fingerprint::of(certificate.der()),
            not_after,
        })
    }

    fn sign(
        &self,
        request: &CertificateRequest,
        leaf: Leaf<'_>,
        ids: &dyn Ids,
        now: Timestamp,
    ) -> Result<(Certificate, Timestamp), PkiError> {
        // Nothing outlives the root that has signed it.
        let end = later(now, leaf.life).min(self.root.not_after());
        if end <= now || !self.root.counts_at(now) {
            return Err(PkiError::new(
                PkiErrorKind::Expired,
                format!("the root {} does not count at {now}", self.root.fingerprint()),
                "look at the clock; if it is right, make a new root",
            ));
        }
        let mut params = CertificateParams::default();
        params.distinguished_name = common_name(leaf.name);
        params.serial_number = Some(SerialNumber::from_slice(&serial(ids)));
        params.not_before = moment(date_time_ymd(1970, 1, 1), leaf.begin.max(self.root.not_before()))?;
        params.not_after = moment(date_time_ymd(1970, 1, 1), end)?;
        params.subject_alt_names = leaf.names;
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![leaf.usage];
        params.use_authority_key_identifier_extension = true;
        let certificate = params
            .signed_by(request, &self.issuer)
            .map_err(|e| PkiError::internal("no certificate could be issued", e))?;
        Ok((certificate, end))
    }
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Authority")
            .field(&self.root.fingerprint().as_str())
            .finish()
    }
}

impl ServerNames {
    /// Checks an operator's list.
    ///
    /// # Errors
    /// [`PkiErrorKind::NotAllowed`]: none, too many, or one that is neither a DNS name nor an address.
    pub fn new<S: AsRef<str>>(names: &[S]) -> Result<Self, PkiError> {
        if names.is_empty() || names.len() > MAX_SERVER_NAMES {
            return Err(PkiError::new(
                PkiErrorKind::NotAllowed,
                format!("a server's certificate cannot have {} names", names.len()),
                format!("give 1 to {MAX_SERVER_NAMES}"),
            ));
        }
        names
            .iter()
            .map(|name| san(name.as_ref()))
            .collect::<Result<_, _>>()
            .map(Self)
    }
}

fn san(name: &str) -> Result<SanType, PkiError> {
    if let Ok(address) = name.parse::<IpAddr>() {
        return Ok(SanType::IpAddress(address));
    }
    let refused = || {
        PkiError::new(
            PkiErrorKind::NotAllowed,
            format!(
                "{:?} is no name of a server",
                name.chars().take(255).collect::<String>()
            ),
            "give DNS names without wildcards, and IP addresses",
        )
    };
    DnsName::try_from(name).map_err(|e| refused().with_source(e))?;
    let name = name.trim_end_matches('.').to_ascii_lowercase();
    name.try_into().map(SanType::DnsName).map_err(|_| refused())
}

struct Leaf<'a> {
    name: &'a str,
    names: Vec<SanType>,
    usage: ExtendedKeyUsagePurpose,
    begin: Timestamp,
    life: Duration,
}

/// 128 random bits.
fn serial(ids: &dyn Ids) -> [u8; 16] {
    let mut bytes = [0; 16];
    ids.random(&mut bytes);
    bytes
}

fn common_name(name: &str) -> DistinguishedName {
    let mut distinguished = DistinguishedName::new();
    distinguished.push(DnType::CommonName, name);
    distinguished
}
