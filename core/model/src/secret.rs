//! Values that must not show up in logs, tasks or debug prints.

use std::fmt;

use serde::{Deserialize, Serialize};
use zeroize::Zeroize;

/// A secret in memory: no `Debug` of its content, no `Display`, no `Serialize`; overwritten when it is dropped.
#[derive(Clone)]
pub struct Secret<T: Zeroize>(T);

impl<T: Zeroize> Drop for Secret<T> {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl<T: Zeroize> Secret<T> {
    /// Wraps a secret.
    pub const fn new(value: T) -> Self {
        Self(value)
    }
    /// The secret itself: call it only where it is used up.
    pub const fn expose(&self) -> &T {
        &self.0
    }
}

impl<T: Zeroize> fmt::Debug for Secret<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

impl<'de, T: Deserialize<'de> + Zeroize> Deserialize<'de> for Secret<T> {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        T::deserialize(d).map(Self)
    }
}

/// What a server's first boot needs and nobody else may see. Lives in its own record
/// ([`crate::paths::server_secrets`]); tasks, plans and jobs carry only a reference. The password itself is nowhere:
/// only its salted SHA-512 crypt hash.
#[derive(Clone, Serialize, Deserialize)]
pub struct ServerSecrets {
    /// crypt(3) hash (`$6$…`) of the first password; empty when the server has none.
    pub password_hash: String,
    /// The same of root's password in the rescue system, from the request on that starts the rescue.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rescue_password_hash: Option<String>,
    /// The user's own cloud-init user-data, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_data: Option<String>,
}

impl fmt::Debug for ServerSecrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ServerSecrets(…)")
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    struct Probe<'a>(&'a Cell<usize>);

    impl Zeroize for Probe<'_> {
        fn zeroize(&mut self) {
            self.0.set(self.0.get() + 1);
        }
    }

    #[test]
    fn a_secret_is_overwritten_when_it_goes() {
        let wiped = Cell::new(0);
        let secret = Secret::new(Probe(&wiped));
        assert_eq!(format!("{secret:?}"), "Secret(…)");
        assert_eq!(wiped.get(), 0);
        drop(secret);
        assert_eq!(wiped.get(), 1);
    }
}
