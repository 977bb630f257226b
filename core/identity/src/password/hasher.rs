//! Argon2id, a bounded number at once.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use argon2::password_hash::phc::{Output, ParamsString, PasswordHash, Salt};
use argon2::{Algorithm, Argon2, Params, PasswordHasher as _, PasswordVerifier as _, Version};
use serde::{Deserialize, Serialize};
use skyloom_model::{Ids, Secret};
use tokio::sync::Semaphore;

use super::{MAX_PASSWORD, PasswordError};

/// When to try again after [`PasswordError::Busy`].
const BUSY: Duration = Duration::from_secs(1);
const SALT: usize = 16;
const OUTPUT: usize = 32;

/// What a hash costs. The defaults are those that OWASP names for argon2id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HashCost {
    /// Memory in KiB.
    pub memory_kib: u32,
    /// Passes over it.
    pub passes: u32,
    /// Lanes.
    pub lanes: u32,
}

impl Default for HashCost {
    fn default() -> Self {
        Self {
            memory_kib: 19_456,
            passes: 2,
            lanes: 1,
        }
    }
}

impl HashCost {
    fn params(self) -> Result<Params, PasswordError> {
        Params::new(self.memory_kib, self.passes, self.lanes, Some(OUTPUT))
            .map_err(|e| PasswordError::Config(e.to_string()))
    }
}

/// How passwords are hashed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HasherConfig {
    /// The cost of a new hash. Weaker ones are replaced when their user logs in.
    pub cost: HashCost,
    /// How many are made at once.
    pub at_once: usize,
    /// How many may wait for that. What comes then is told to come back.
    pub queue: usize,
}

impl Default for HasherConfig {
    fn default() -> Self {
        Self {
            cost: HashCost::default(),
            at_once: 2,
            queue: 64,
        }
    }
}

/// What a comparison found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The right password.
    Right {
        /// A hash of the configured cost when the kept one is weaker: to be kept in its place.
        renewed: Option<String>,
    },
    /// Another one, or there is none to compare with.
    Wrong,
}

/// Hashes and compares passwords on the runtime's blocking threads.
pub struct Hasher {
    params: Params,
    /// A hash of the configured cost that no password has: what a user that does not exist is compared with.
    dummy: Arc<str>,
    running: Arc<Semaphore>,
    places: Arc<Semaphore>,
    ids: Arc<dyn Ids>,
}

impl fmt::Debug for Hasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hasher")
            .field("params", &self.params)
            .field("running", &self.running)
            .field("places", &self.places)
            .finish_non_exhaustive()
    }
}

impl Hasher {
    /// A hasher; `ids` gives the salts.
    ///
    /// # Errors
    /// [`PasswordError::Config`].
    pub fn new(config: &HasherConfig, ids: Arc<dyn Ids>) -> Result<Self, PasswordError> {
        let params = config.cost.params()?;
        let most = Semaphore::MAX_PERMITS / 2;
        if config.at_once == 0 || config.at_once > most || config.queue > most {
            return Err(PasswordError::Config("at_once must be 1 at least".into()));
        }
        Ok(Self {
            dummy: dummy(&params, &*ids)?.into(),
            params,
            running: Arc::new(Semaphore::new(config.at_once)),
            places: Arc::new(Semaphore::new(config.at_once + config.queue)),
            ids,
        })
    }

    /// A new hash with a salt of its own, in PHC form.
    ///
    /// # Errors
    /// [`PasswordError`].
    pub async fn hash(&self, password: Secret<String>) -> Result<String, PasswordError> {
        check_length(&password)?;
        let (params, salt) = (self.params.clone(), self.salt());
        self.run(move || hash(&params, &salt, &password)).await
    }

    /// Compares with the kept hash; without one it takes as long and finds [`Verdict::Wrong`].
    ///
    /// # Errors
    /// [`PasswordError`].
    pub async fn verify(
        &self,
        password: Secret<String>,
        kept: Option<&str>,
    ) -> Result<Verdict, PasswordError> {
        check_length(&password)?;
        let there = kept.is_some();
        let kept: Arc<str> = kept.map_or_else(|| Arc::clone(&self.dummy), Into::into);
        let (params, salt) = (self.params.clone(), self.salt());
        let verdict = move || {
            let (kept, cost) = read(&kept)?;
            if !matches(&password, &kept)? || !there {
                return Ok(Verdict::Wrong);
            }
            let renewed = is_weaker(&cost, &kept, &params)
                .then(|| hash(&params, &salt, &password))
                .transpose()?;
            Ok(Verdict::Right { renewed })
        };
        self.run(verdict).await
    }

    /// Whether the password is one of those kept. Takes one place for all.
    pub(super) async fn any(
        &self,
        password: Secret<String>,
        kept: Vec<String>,
    ) -> Result<bool, PasswordError> {
        check_length(&password)?;
        let any = move || {
            for kept in kept {
                if matches(&password, &read(&kept)?.0)? {
                    return Ok(true);
                }
            }
            Ok(false)
        };
        self.run(any).await
    }

    fn salt(&self) -> [u8; SALT] {
        let mut salt = [0; SALT];
        self.ids.random(&mut salt);
        salt
    }

    /// The places go with the work: it counts until it has ended, also when nobody waits for it any more.
    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, PasswordError> + Send + 'static,
    ) -> Result<T, PasswordError> {
        let busy = |_| PasswordError::Busy { retry_after: BUSY };
        let internal = |e: &dyn fmt::Display| PasswordError::Internal(e.to_string());
        let place = Arc::clone(&self.places).try_acquire_owned().map_err(busy)?;
        let turn = Arc::clone(&self.running)
            .acquire_owned()
            .await
            .map_err(|e| internal(&e))?;
        let work = move || {
            let _held = (place, turn);
            work()
        };
        tokio::task::spawn_blocking(work)
            .await
            .map_err(|e| internal(&e))?
    }
}

fn check_length(password: &Secret<String>) -> Result<(), PasswordError> {
    match password.expose().len() {
        length if length > MAX_PASSWORD => Err(PasswordError::TooLong(length)),
        _ => Ok(()),
    }
}

fn argon2(params: Params) -> Argon2<'static> {
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
}

fn hash(params: &Params, salt: &[u8], password: &Secret<String>) -> Result<String, PasswordError> {
    let hash = argon2(params.clone())
        .hash_password_with_salt(password.expose().as_bytes(), salt)
        .map_err(|e| PasswordError::Internal(e.to_string()))?;
    Ok(hash.to_string())
}

fn read(kept: &str) -> Result<(PasswordHash, Params), PasswordError> {
    let damaged = |e: argon2::password_hash::Error| PasswordError::Damaged(e.to_string());
    let hash = PasswordHash::new(kept).map_err(|e| PasswordError::Damaged(e.to_string()))?;
    let params = Params::try_from(&hash).map_err(damaged)?;
    if hash.algorithm != Algorithm::Argon2id.ident() || hash.salt.is_none() || hash.hash.is_none() {
        return Err(PasswordError::Damaged("not an argon2id hash".into()));
    }
    Ok((hash, params))
}

/// Compares in constant time (that of [`Output`]).
fn matches(password: &Secret<String>, kept: &PasswordHash) -> Result<bool, PasswordError> {
    use argon2::password_hash::Error;
    match Argon2::default().verify_password(password.expose().as_bytes(), kept) {
        Ok(()) => Ok(true),
        Err(Error::PasswordInvalid) => Ok(false),
        Err(e) => Err(PasswordError::Internal(e.to_string())),
    }
}

fn is_weaker(cost: &Params, kept: &PasswordHash, wanted: &Params) -> bool {
    cost.m_cost() < wanted.m_cost()
        || cost.t_cost() < wanted.t_cost()
        || kept.version != Some(Version::V0x13.into())
        || kept.hash.as_ref().is_none_or(|output| output.len() < OUTPUT)
}

/// Random bytes in place of a hash: it costs nothing to make, and as much as any to compare with.
fn dummy(params: &Params, ids: &dyn Ids) -> Result<String, PasswordError> {
    let internal = |e: &dyn fmt::Display| PasswordError::Internal(e.to_string());
    let (mut salt, mut output) = ([0; SALT], [0; OUTPUT]);
    ids.random(&mut salt);
    ids.random(&mut output);
    let hash = PasswordHash {
        algorithm: Algorithm::Argon2id.ident(),
        version: Some(Version::V0x13.into()),
        params: ParamsString::try_from(params).map_err(|e| internal(&e))?,
        salt: Some(Salt::new(&salt).map_err(|e| internal(&e))?),
        hash: Some(Output::new(&output).map_err(|e| internal(&e))?),
    };
    Ok(hash.to_string())
}

#[cfg(test)]
mod tests {
    use skyloom_model::{ManualClock, SeededIds};

    use super::*;

    #[test]
    fn a_user_that_does_not_exist_costs_the_same() {
        let ids = SeededIds::new(ManualClock::new(), 1);
        for cost in [
            HashCost::default(),
            HashCost {
                memory_kib: 64,
                passes: 3,
                lanes: 2,
            },
        ] {
            let params = cost.params().unwrap();
            let (hash, dummy_cost) = read(&dummy(&params, &ids).unwrap()).unwrap();
            let mut real =
                read(&super::hash(&params, &[7; SALT], &Secret::new("p".into())).unwrap()).unwrap();
            assert_eq!(dummy_cost, real.1);
            real.0.salt = hash.salt;
            real.0.hash = hash.hash;
            assert_eq!(hash, real.0, "it differs in salt and output only");
            assert!(!matches(&Secret::new(String::new()), &hash).unwrap());
        }
    }
}
