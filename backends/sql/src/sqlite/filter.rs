//! Which keys have a row in `documents`, as far as a few bits for each can tell.
//!
//! "No" is certain, so that what is created needs no query; "perhaps" has the writer ask the database. Bits are never taken
//! back: a removed key costs a query when it comes again. Opening counts anew.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};

/// Bits for each key: about one "perhaps" in ten thousand is wrong.
const BITS: usize = 20;
/// Bits that a key sets.
const PROBES: u64 = 10;
/// Keys of the first layer, unless more are known from the start.
const SMALLEST: usize = 1 << 18;

/// The keys, in layers: when one is full, another of four times its size is begun.
#[derive(Debug)]
pub(super) struct Filter(Vec<Layer>);

#[derive(Debug)]
struct Layer {
    bits: Vec<u64>,
    keys: usize,
    room: usize,
}

impl Layer {
    fn new(keys: usize) -> Self {
        Self {
            bits: vec![0; (keys * BITS).div_ceil(64)],
            keys,
            room: keys,
        }
    }

    fn places(&self, hash: u64) -> impl Iterator<Item = (usize, u64)> {
        let all = self.bits.len() as u64 * 64;
        let step = (hash >> 32) | 1;
        (0..PROBES).map(move |n| {
            let at = hash.wrapping_add(n.wrapping_mul(step)) % all;
            // The remainder is less than the length, which is a usize.
            ((at / 64) as usize, 1 << (at % 64))
        })
    }

    fn has(&self, hash: u64) -> bool {
        self.places(hash).all(|(word, bit)| self.bits[word] & bit != 0)
    }
}

fn hash(key: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    key.hash(&mut hasher);
    hasher.finish()
}

impl Filter {
    /// An empty one that holds `keys` in its first layer.
    pub(super) fn new(keys: usize) -> Self {
        Self(vec![Layer::new(keys.max(SMALLEST))])
    }

    /// Whether `key` may have been put in.
    pub(super) fn may_have(&self, key: &str) -> bool {
        let hash = hash(key);
        self.0.iter().any(|layer| layer.has(hash))
    }

    pub(super) fn insert(&mut self, key: &str) {
        let hash = hash(key);
        if self.0.iter().any(|layer| layer.has(hash)) {
            return;
        }
        let next = self
            .0
            .last()
            .filter(|l| l.room == 0)
            .map(|l| l.keys.saturating_mul(4));
        self.0.extend(next.map(Layer::new));
        let Some(layer) = self.0.last_mut() else { return };
        layer.room -= 1;
        let places: Vec<_> = layer.places(hash).collect();
        for (word, bit) in places {
            layer.bits[word] |= bit;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Filter, SMALLEST};

    #[test]
    fn what_is_in_is_never_denied_and_what_is_not_hardly_ever_affirmed() {
        let mut filter = Filter::new(0);
        let key = |n: usize| format!("tasks/system/{n}");
        let keys = SMALLEST + 1000; // into the second layer
        for n in 0..keys {
            filter.insert(&key(n));
        }
        assert!((0..keys).all(|n| filter.may_have(&key(n))));
        let wrong = (keys..2 * keys).filter(|n| filter.may_have(&key(*n))).count();
        assert!(wrong < keys / 1000, "{wrong} of {keys}");
    }
}
