//! Giving tokens.

use std::fmt;
use std::time::Duration;

use jsonwebtoken::{Algorithm, EncodingKey, Header};
use skyloom_model::{Ids, Secret, Timestamp};

use super::{Grounds, MAX_CHAIN, MAX_TOKEN, SigningKeyRecord, TYPE, TokenClaims, TokenEpochs, TokenError};
use crate::{Method, SecretStore, Via};

/// How tokens are given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignerConfig {
    /// Who gives them: the cloud's own name, the same in all its processes.
    pub issuer: String,
    /// How long they live when nothing shorter is asked for.
    pub life: Duration,
    /// How long they live at most: [`super::RingPolicy::token_life`] must not be less.
    pub longest: Duration,
}

impl SignerConfig {
    /// 15 minutes, an hour at most.
    pub fn new(issuer: impl Into<String>) -> Self {
        Self {
            issuer: issuer.into(),
            life: Duration::from_secs(900),
            longest: Duration::from_secs(3600),
        }
    }
}

/// What a token is to say.
#[derive(Debug, Clone)]
pub struct TokenRequest<'a> {
    /// What it rests on.
    pub grounds: Grounds,
    /// How it was proven.
    pub methods: Vec<Method>,
    /// The epochs of now.
    pub epochs: TokenEpochs,
    /// How long it is to live, if not as long as usual.
    pub life: Option<Duration>,
    /// The end of the credential behind it.
    pub not_after: Option<Timestamp>,
    /// The verified token that it is made from.
    pub parent: Option<&'a TokenClaims>,
}

/// A token that was given.
#[derive(Debug)]
pub struct IssuedToken {
    /// The token itself.
    pub token: Secret<String>,
    /// What it says.
    pub claims: TokenClaims,
}

struct SigningKey {
    kid: String,
    signs_from: Timestamp,
    verify_until: Option<Timestamp>,
    key: EncodingKey,
}

/// Gives tokens. Made anew when the records change.
pub struct TokenSigner {
    config: SignerConfig,
    /// By when they sign.
    keys: Vec<SigningKey>,
}

impl fmt::Debug for TokenSigner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kids: Vec<&String> = self.keys.iter().map(|key| &key.kid).collect();
        f.debug_struct("TokenSigner")
            .field("config", &self.config)
            .field("keys", &kids)
            .finish()
    }
}

impl TokenSigner {
    /// Opens the private halves of the records.
    ///
    /// # Errors
    /// [`TokenError::Vault`], [`TokenError::DamagedKey`].
    pub async fn open(
        config: SignerConfig,
        records: &[SigningKeyRecord],
        secrets: &dyn SecretStore,
    ) -> Result<Self, TokenError> {
        let mut keys = Vec::with_capacity(records.len());
        for record in records {
            keys.push(SigningKey {
                kid: record.kid.clone(),
                signs_from: record.signs_from,
                verify_until: record.verify_until,
                key: record.open(secrets).await?,
            });
        }
        keys.sort_by(|a, b| (a.signs_from, &a.kid).cmp(&(b.signs_from, &b.kid)));
        Ok(Self { config, keys })
    }

    /// The newest key that signs already. A process whose clock is behind may find none of them: then the first, which all know.
    fn key(&self, now: Timestamp) -> Option<&SigningKey> {
        self.keys
            .iter()
            .rev()
            .find(|key| key.signs_from <= now)
            .or_else(|| self.keys.first())
    }

    /// Gives a token. It ends with the life asked for, the credential behind it, and the token that it is made from, whichever is first.
    ///
    /// # Errors
    /// [`TokenError`].
    pub fn issue(
        &self,
        request: &TokenRequest<'_>,
        now: Timestamp,
        ids: &dyn Ids,
    ) -> Result<IssuedToken, TokenError> {
        let key = self.key(now).ok_or(TokenError::NoKey)?;
        let grounds = &request.grounds;
        let mut chain = Vec::new();
        if let Some(parent) = request.parent {
            let trustee = matches!(grounds.via, Via::Trust { trustee, .. } if trustee == parent.sub);
            if parent.sub != grounds.user && !trustee {
                return Err(TokenError::ParentOfAnother);
            }
            chain = parent.audit_ids();
            if chain.len() > MAX_CHAIN {
                return Err(TokenError::ChainTooLong);
            }
        }
        let given = now.as_second();
        let life = request.life.unwrap_or(self.config.life).min(self.config.longest);
        let wanted = given.saturating_add_unsigned(life.as_secs());
        let ends = [request.not_after, key.verify_until]
            .into_iter()
            .flatten()
            .map(Timestamp::as_second);
        let end = ends
            .chain(request.parent.map(|parent| parent.exp))
            .fold(wanted, i64::min);
        if end <= given {
            return Err(TokenError::Ended);
        }
        let claims = TokenClaims {
            iss: self.config.issuer.clone(),
            sub: grounds.user,
            dom: grounds.domain,
            scope: grounds.scope,
            via: grounds.via.clone(),
            methods: request.methods.clone(),
            iat: given,
            nbf: given,
            exp: end,
            jti: ids.uuid(),
            chain,
            epochs: request.epochs,
        };
        let mut header = Header::new(Algorithm::EdDSA);
        header.typ = Some(TYPE.to_owned());
        header.kid = Some(key.kid.clone());
        let token = jsonwebtoken::encode(&header, &claims, &key.key)
            .map_err(|e| TokenError::Internal(e.to_string()))?;
        if token.len() > MAX_TOKEN {
            return Err(TokenError::TooLong(token.len()));
        }
        Ok(IssuedToken {
            token: Secret::new(token),
            claims,
        })
    }
}
