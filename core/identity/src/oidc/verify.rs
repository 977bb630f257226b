//! What is asked of an ID token (OpenID Connect Core 1.0, section 3.1.3.7; RFC 8725).

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use serde_json::{Map, Value};
use skyloom_model::Timestamp;
use subtle::ConstantTimeEq as _;

use super::keys::Looked;
use super::{External, Oidc, hashed};
use crate::{AuthError, Denied, Why, check_name};

/// Longest ID token: those with many groups are large.
const MAX_ID_TOKEN: usize = 16 << 10;
/// Longest subject, by the standard.
const MAX_SUBJECT: usize = 255;

#[derive(Deserialize)]
struct Header {
    alg: String,
    kid: String,
    #[serde(default)]
    crit: Option<Value>,
}

#[derive(Deserialize)]
struct Claims {
    iss: String,
    sub: String,
    aud: Audience,
    #[serde(default)]
    azp: Option<String>,
    exp: f64,
    iat: f64,
    #[serde(default)]
    nbf: Option<f64>,
    #[serde(default)]
    nonce: Option<String>,
    #[serde(default)]
    email: Option<String>,
    #[serde(default)]
    email_verified: Option<bool>,
    #[serde(flatten)]
    others: Map<String, Value>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Many(Vec<String>),
}

impl Oidc {
    /// What the provider says of the bearer of `id_token`, if it is right, new, for us, and made for this `nonce` (the random text that was
    /// sent to the provider when the login began).
    ///
    /// # Errors
    /// [`AuthError::Denied`]; [`AuthError::Unavailable`] when the provider's keys cannot be had.
    pub async fn verify(&self, id_token: &str, nonce: &str) -> Result<External, AuthError> {
        if id_token.len() > MAX_ID_TOKEN {
            return Err(denied(Why::TooLong));
        }
        let (message, signature) = id_token.rsplit_once('.').ok_or_else(|| denied(Why::Malformed))?;
        let (header, claims) = message.split_once('.').ok_or_else(|| denied(Why::Malformed))?;
        let header: Header = part(header, Why::Header)?;
        if header.crit.is_some() {
            return Err(denied(Why::Header));
        }
        let key = match self.0.keys.get(&header.kid).await {
            Looked::Found(key) => key,
            Looked::Unknown => return Err(denied(Why::UnknownKey)),
            Looked::Away(why) => return Err(AuthError::Unavailable(why)),
        };
        // The key says which algorithm, not the token.
        if header.alg != format!("{:?}", key.algorithm) {
            return Err(denied(Why::Header));
        }
        let right = jsonwebtoken::crypto::verify(signature, message.as_bytes(), &key.decoding, key.algorithm);
        if !right.map_err(|_| denied(Why::Malformed))? {
            return Err(denied(Why::Signature));
        }
        let claims: Claims = part(claims, Why::Malformed)?;
        let until = self.check(&claims, nonce)?;
        let hash = URL_SAFE_NO_PAD.encode(digest(&SHA256, message.as_bytes()));
        let config = self.config();
        let email = claims.email.filter(|_| claims.email_verified == Some(true));
        let said = claims.others.get(&config.name_claim).and_then(Value::as_str);
        let name = [said, email.as_deref(), Some(&claims.sub)]
            .into_iter()
            .flatten()
            .find(|name| check_name(name).is_ok())
            .ok_or_else(|| denied(Why::Malformed))?
            .to_owned();
        let mut groups: Vec<_> = strings(claims.others.get(&config.groups_claim))
            .filter_map(|group| config.groups.get(group).copied())
            .collect();
        groups.sort();
        groups.dedup();
        Ok(External {
            token: hashed(&["skyloom:oidc:token", &hash]),
            issuer: claims.iss,
            subject: claims.sub,
            name,
            email,
            groups,
            until,
        })
    }

    /// Issuer, audience, nonce, times. Gives the end.
    fn check(&self, claims: &Claims, nonce: &str) -> Result<Timestamp, AuthError> {
        let config = self.config();
        if claims.iss != config.issuer {
            return Err(denied(Why::Issuer));
        }
        let for_us = match &claims.aud {
            Audience::One(one) => *one == config.client_id,
            Audience::Many(many) => {
                many.contains(&config.client_id) && (many.len() == 1 || claims.azp.is_some())
            }
        };
        if !for_us || claims.azp.as_ref().is_some_and(|azp| *azp != config.client_id) {
            return Err(denied(Why::Audience));
        }
        let given = claims.nonce.as_deref().unwrap_or_default();
        if nonce.is_empty() || !bool::from(given.as_bytes().ct_eq(nonce.as_bytes())) {
            return Err(denied(Why::Audience));
        }
        if claims.sub.is_empty() || claims.sub.len() > MAX_SUBJECT {
            return Err(denied(Why::Malformed));
        }
        let now = self.0.clock.now();
        let (exp, iat) = (time(claims.exp)?, time(claims.iat)?);
        let begins = claims.nbf.map(time).transpose()?.map_or(iat, |nbf| nbf.max(iat));
        // The last moment at which it is taken; the record that it was used stays until then.
        let last = later(exp.min(later(iat, config.longest)?), config.leeway)?;
        if now >= last {
            return Err(denied(Why::Expired));
        }
        if later(now, config.leeway)? < begins {
            return Err(denied(Why::NotYet));
        }
        Ok(last)
    }
}

fn denied(why: Why) -> AuthError {
    AuthError::Denied(Denied::new(why))
}

fn part<T: serde::de::DeserializeOwned>(text: &str, wrong: Why) -> Result<T, AuthError> {
    let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| denied(Why::Malformed))?;
    serde_json::from_slice(&bytes).map_err(|_| denied(wrong))
}

/// Seconds since 1970, which JSON lets be a fraction.
#[expect(clippy::cast_possible_truncation, reason = "bounded before")]
fn time(seconds: f64) -> Result<Timestamp, AuthError> {
    let sane = (0.0..=1e11).contains(&seconds);
    let whole = sane
        .then_some(seconds as i64)
        .ok_or_else(|| denied(Why::Malformed))?;
    Timestamp::from_second(whole).map_err(|_| denied(Why::Malformed))
}

fn later(at: Timestamp, by: std::time::Duration) -> Result<Timestamp, AuthError> {
    at.checked_add(by).map_err(|_| denied(Why::Malformed))
}

/// One text, or a list of texts.
fn strings(value: Option<&Value>) -> impl Iterator<Item = &str> {
    let list = match value {
        Some(Value::Array(list)) => list.as_slice(),
        Some(one) => std::slice::from_ref(one),
        None => &[],
    };
    list.iter().filter_map(Value::as_str)
}
