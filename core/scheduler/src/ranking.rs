//! The best few of many, without keeping the many.

/// Keeps the `limit` smallest values by key; of equal keys those that came first.
#[derive(Debug)]
pub(crate) struct Best<K, T> {
    limit: usize,
    kept: Vec<(K, T)>,
}

impl<K: Ord, T> Best<K, T> {
    pub(crate) fn new(limit: usize) -> Self {
        Self {
            limit,
            kept: Vec::new(),
        }
    }
    pub(crate) fn offer(&mut self, key: K, value: T) {
        if self.kept.len() == self.limit {
            match self.kept.last() {
                Some((worst, _)) if key < *worst => {
                    self.kept.pop();
                }
                _ => return,
            }
        }
        let place = self.kept.partition_point(|(k, _)| *k <= key);
        self.kept.insert(place, (key, value));
    }
    /// The best first.
    pub(crate) fn into_iter(self) -> impl Iterator<Item = T> {
        self.kept.into_iter().map(|(_, value)| value)
    }
}

/// A number that looks random but is the same for the same pair: tells equally good hosts apart.
pub(crate) fn pair_hash(a: u128, b: u128) -> u64 {
    let words = [a as u64, (a >> 64) as u64, b as u64, (b >> 64) as u64];
    words.into_iter().fold(0, |state, word| {
        // SplitMix64 over the words.
        let mut z = (state ^ word).wrapping_add(0x9e37_79b9_7f4a_7c15);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn best_keeps_what_a_stable_sort_would(keys in prop::collection::vec(0_u8..20, 0..60), limit in 0_usize..12) {
            let mut best = Best::new(limit);
            keys.iter().enumerate().for_each(|(i, k)| best.offer(*k, i));
            let mut sorted: Vec<usize> = (0..keys.len()).collect();
            sorted.sort_by_key(|i| keys[*i]);
            sorted.truncate(limit);
            prop_assert_eq!(best.into_iter().collect::<Vec<_>>(), sorted);
        }
    }
}
