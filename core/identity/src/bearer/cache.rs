//! Signatures that were found right, remembered by the token's hash: bounded, in two generations.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

use super::TokenClaims;

/// SHA-256 of a token.
pub(super) type TokenHash = [u8; 32];

/// What a right signature says for ever: this key has signed these claims. Whether that still counts is asked at each use.
#[derive(Debug)]
pub(super) struct Signed {
    pub(super) kid: String,
    pub(super) public: [u8; 32],
    pub(super) claims: Arc<TokenClaims>,
}

/// So many parts, each with a lock of its own.
const SHARDS: usize = 16;

#[derive(Debug, Default)]
struct Shard {
    young: HashMap<TokenHash, Arc<Signed>>,
    old: HashMap<TokenHash, Arc<Signed>>,
}

/// What is used stays; what is not used while as many others come is forgotten. Wrong signatures never get in.
#[derive(Debug)]
pub(super) struct Cache {
    shards: [Mutex<Shard>; SHARDS],
    /// Entries in one generation of a shard.
    most: usize,
}

impl Cache {
    /// Room for about that many tokens; 0 remembers none.
    pub(super) fn new(entries: usize) -> Self {
        Self {
            shards: Default::default(),
            most: entries.div_ceil(SHARDS * 2),
        }
    }

    fn shard(&self, hash: &TokenHash) -> &Mutex<Shard> {
        &self.shards[usize::from(hash[0]) % SHARDS]
    }

    pub(super) fn get(&self, hash: &TokenHash) -> Option<Arc<Signed>> {
        let mut shard = self.shard(hash).lock();
        if let Some(found) = shard.young.get(hash) {
            return Some(Arc::clone(found));
        }
        let found = shard.old.remove(hash)?;
        shard.insert(*hash, Arc::clone(&found), self.most);
        Some(found)
    }

    pub(super) fn put(&self, hash: TokenHash, signed: Arc<Signed>) {
        if self.most > 0 {
            self.shard(&hash).lock().insert(hash, signed, self.most);
        }
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        let sizes = self.shards.iter().map(|shard| {
            let shard = shard.lock();
            shard.young.len() + shard.old.len()
        });
        sizes.sum()
    }
}

impl Shard {
    fn insert(&mut self, hash: TokenHash, signed: Arc<Signed>, most: usize) {
        if self.young.len() >= most {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(hash, signed);
    }
}

#[cfg(test)]
mod tests {
    use skyloom_model::Id;
    use uuid::Uuid;

    use super::*;
    use crate::{AuthScope, TokenEpochs, Via};

    fn signed() -> Arc<Signed> {
        let claims = TokenClaims {
            iss: "sky".into(),
            sub: Id::from_uuid(Uuid::nil()),
            dom: Id::from_uuid(Uuid::nil()),
            scope: AuthScope::None,
            via: Via::User,
            methods: Vec::new(),
            iat: 0,
            nbf: 0,
            exp: 0,
            jti: Uuid::nil(),
            chain: Vec::new(),
            epochs: TokenEpochs::default(),
        };
        Arc::new(Signed {
            kid: "k".into(),
            public: [0; 32],
            claims: Arc::new(claims),
        })
    }

    fn hash(n: u32) -> TokenHash {
        let mut hash = [0; 32];
        hash[0] = n.to_le_bytes()[0];
        hash[1..5].copy_from_slice(&n.to_le_bytes());
        hash
    }

    #[test]
    fn it_is_bounded_and_keeps_what_is_used() {
        let cache = Cache::new(1000);
        let signed = signed();
        cache.put(hash(0), Arc::clone(&signed));
        for n in 1..100_000 {
            cache.put(hash(n), Arc::clone(&signed));
            assert!(cache.get(&hash(0)).is_some(), "after {n} others");
        }
        assert!((400..=1100).contains(&cache.len()), "{}", cache.len());
        assert!(cache.get(&hash(1)).is_none());
        assert!(cache.get(&hash(99_999)).is_some());
    }

    #[test]
    fn no_room_remembers_nothing() {
        let cache = Cache::new(0);
        cache.put(hash(1), signed());
        assert!(cache.get(&hash(1)).is_none());
    }
}
