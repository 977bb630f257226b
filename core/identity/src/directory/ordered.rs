//! An ordered map whose clones are cheap and stay as they were.
//!
//! Entries lie in sorted pieces of at most [`MOST`]. A clone shares everything; a change to a shared map copies the list of its pieces (one
//! count each) and the one piece that it touches. So a map of n entries costs n / 32 to n / 128 counts per change after a clone, and a lookup is two
//! binary searches.

use std::sync::Arc;

/// Entries of a full piece.
const MOST: usize = 128;

type Piece<K, V> = Arc<Vec<(K, V)>>;

#[derive(Debug)]
pub(crate) struct Ordered<K, V> {
    pieces: Arc<Vec<Piece<K, V>>>,
    len: usize,
}

impl<K, V> Clone for Ordered<K, V> {
    fn clone(&self) -> Self {
        Self {
            pieces: Arc::clone(&self.pieces),
            len: self.len,
        }
    }
}

impl<K, V> Default for Ordered<K, V> {
    fn default() -> Self {
        Self {
            pieces: Arc::default(),
            len: 0,
        }
    }
}

impl<K: Ord + Clone, V: Clone> Ordered<K, V> {
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// The piece in which `key` is, or would be.
    fn piece(&self, key: &K) -> usize {
        let after = self
            .pieces
            .partition_point(|piece| piece.first().is_some_and(|(first, _)| first <= key));
        after.saturating_sub(1)
    }

    pub(crate) fn get(&self, key: &K) -> Option<&V> {
        let piece = self.pieces.get(self.piece(key))?;
        let at = piece.binary_search_by(|(k, _)| k.cmp(key)).ok()?;
        piece.get(at).map(|(_, value)| value)
    }

    pub(crate) fn contains(&self, key: &K) -> bool {
        self.get(key).is_some()
    }

    pub(crate) fn insert(&mut self, key: K, value: V) -> Option<V> {
        let index = self.piece(&key);
        let pieces = Arc::make_mut(&mut self.pieces);
        let Some(piece) = pieces.get_mut(index) else {
            pieces.push(Arc::new(vec![(key, value)]));
            self.len += 1;
            return None;
        };
        let piece = Arc::make_mut(piece);
        match piece.binary_search_by(|(k, _)| k.cmp(&key)) {
            Ok(at) => Some(std::mem::replace(&mut piece[at].1, value)),
            Err(at) => {
                piece.insert(at, (key, value));
                self.len += 1;
                if piece.len() > MOST {
                    let upper = piece.split_off(MOST / 2);
                    pieces.insert(index + 1, Arc::new(upper));
                }
                None
            }
        }
    }

    pub(crate) fn remove(&mut self, key: &K) -> Option<V> {
        let index = self.piece(key);
        let at = self
            .pieces
            .get(index)?
            .binary_search_by(|(k, _)| k.cmp(key))
            .ok()?;
        let pieces = Arc::make_mut(&mut self.pieces);
        let piece = Arc::make_mut(&mut pieces[index]);
        let (_, value) = piece.remove(at);
        self.len -= 1;
        let left = piece.len();
        if left == 0 {
            pieces.remove(index);
        } else if left < MOST / 4
            && let Some(next) = pieces.get(index + 1)
            && left + next.len() <= MOST / 2
        {
            let next = pieces.remove(index + 1);
            Arc::make_mut(&mut pieces[index]).extend(next.iter().cloned());
        }
        Some(value)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.pieces
            .iter()
            .flat_map(|piece| piece.iter())
            .map(|(k, v)| (k, v))
    }

    /// The entries from `key` on.
    pub(crate) fn from<'a>(&'a self, key: &K) -> impl Iterator<Item = (&'a K, &'a V)> + use<'a, K, V> {
        let index = self.piece(key);
        let skip = (self.pieces.get(index)).map_or(0, |piece| piece.partition_point(|(k, _)| k < key));
        let pieces = self.pieces.get(index..).unwrap_or_default();
        pieces
            .iter()
            .flat_map(|piece| piece.iter())
            .skip(skip)
            .map(|(k, v)| (k, v))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_is_a_map_and_its_clones_stay_as_they_were(
            steps in prop::collection::vec((any::<bool>(), 0_u16..700), 0..2000),
            cut in 0_usize..2000,
            from in 0_u16..700,
        ) {
            let (mut map, mut model) = (Ordered::default(), BTreeMap::new());
            let mut kept = None;
            for (step, (insert, key)) in steps.into_iter().enumerate() {
                if step == cut {
                    kept = Some((map.clone(), model.clone()));
                }
                if insert {
                    prop_assert_eq!(map.insert(key, step), model.insert(key, step));
                } else {
                    prop_assert_eq!(map.remove(&key), model.remove(&key));
                }
            }
            for (map, model) in [(map, model)].into_iter().chain(kept) {
                prop_assert_eq!(map.len(), model.len());
                prop_assert!(map.iter().eq(model.iter()));
                prop_assert!(map.from(&from).eq(model.range(from..)));
                prop_assert!((0..700).all(|key| map.get(&key) == model.get(&key)));
            }
        }
    }
}
