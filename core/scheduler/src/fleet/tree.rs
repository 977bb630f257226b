//! The index: a tree of summaries over the hosts, eight children to a node.
//!
//! A summary never says "no" where a host below would say "yes", so leaving out what it refuses changes no answer.

use std::ops::{ControlFlow, Range};

use super::machine::CLASSES;

/// Children of a node.
const FAN: usize = 8;
/// Words of a set of features.
pub(super) const WORDS: usize = 3;
/// Features that have a bit. Those that came later are looked up host by host.
pub(super) const BITS: u32 = WORDS as u32 * 64;

/// A set of features.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Bits([u64; WORDS]);

impl Bits {
    pub(super) fn set(&mut self, bit: u32) {
        self.0[bit as usize / 64] |= 1 << (bit % 64);
    }
    pub(super) fn has(&self, bit: u32) -> bool {
        self.0[bit as usize / 64] & (1 << (bit % 64)) != 0
    }
    pub(super) fn and(&self, other: &Self) -> Self {
        Self(std::array::from_fn(|word| self.0[word] & other.0[word]))
    }
    pub(super) fn or(&self, other: &Self) -> Self {
        Self(std::array::from_fn(|word| self.0[word] | other.0[word]))
    }
    pub(super) fn has_all(&self, other: &Self) -> bool {
        self.0.iter().zip(other.0).all(|(a, b)| a & b == b)
    }
    pub(super) fn has_any(&self, other: &Self) -> bool {
        self.0.iter().zip(other.0).any(|(a, b)| a & b != 0)
    }
}

/// What is asked of a host most often, in one line of a CPU's cache.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Leaf {
    pub(super) free: [u32; CLASSES],
    pub(super) bits: Bits,
}

/// What is true of all hosts below a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Summary {
    /// No host has more free.
    pub(super) most: [u32; CLASSES],
    /// No host has other features.
    pub(super) some: Bits,
    /// Each host has these features.
    pub(super) each: Bits,
}

impl Summary {
    const NONE: Self = Self {
        most: [0; CLASSES],
        some: Bits([0; WORDS]),
        each: Bits([u64::MAX; WORDS]),
    };
    fn add(&mut self, most: &[u32; CLASSES], some: &Bits, each: &Bits) {
        for (mine, other) in self.most.iter_mut().zip(most) {
            *mine = (*mine).max(*other);
        }
        for word in 0..WORDS {
            self.some.0[word] |= some.0[word];
            self.each.0[word] &= each.0[word];
        }
    }
}

/// The hosts by their position, and summaries of them.
#[derive(Debug, Clone, Default)]
pub(super) struct Tree {
    leaves: Vec<Leaf>,
    /// The lowest first; the last has one node.
    levels: Vec<Vec<Summary>>,
}

impl Tree {
    pub(super) fn new(leaves: Vec<Leaf>) -> Self {
        let mut tree = Self {
            leaves,
            levels: Vec::new(),
        };
        let mut width = tree.leaves.len();
        while tree.levels.is_empty() && width > 0 || width > 1 {
            width = width.div_ceil(FAN);
            let level = tree.levels.len();
            let nodes = (0..width).map(|node| tree.summary(level, node)).collect();
            tree.levels.push(nodes);
        }
        tree
    }
    pub(super) fn leaf(&self, at: usize) -> &Leaf {
        &self.leaves[at]
    }
    /// Bytes of the index.
    pub(super) fn bytes(&self) -> usize {
        let nodes: usize = self.levels.iter().map(Vec::capacity).sum();
        self.leaves.capacity() * size_of::<Leaf>() + nodes * size_of::<Summary>()
    }

    fn summary(&self, level: usize, node: usize) -> Summary {
        let below = node * FAN..(node + 1) * FAN;
        let mut sum = Summary::NONE;
        match level.checked_sub(1) {
            None => {
                for leaf in &self.leaves[below.start..below.end.min(self.leaves.len())] {
                    sum.add(&leaf.free, &leaf.bits, &leaf.bits);
                }
            }
            Some(lower) => {
                let lower = &self.levels[lower];
                for child in &lower[below.start..below.end.min(lower.len())] {
                    sum.add(&child.most, &child.some, &child.each);
                }
            }
        }
        sum
    }

    /// Replaces a host, and what changes above it.
    pub(super) fn set(&mut self, at: usize, leaf: Leaf) {
        self.leaves[at] = leaf;
        let mut node = at;
        for level in 0..self.levels.len() {
            node /= FAN;
            let sum = self.summary(level, node);
            if std::mem::replace(&mut self.levels[level][node], sum) == sum {
                break;
            }
        }
    }

    /// Visits the hosts of a range in order, without those below nodes of which `may` says no.
    pub(super) fn walk<M, V>(&self, range: Range<usize>, may: &M, visit: &mut V) -> ControlFlow<()>
    where
        M: Fn(&Summary) -> bool,
        V: FnMut(usize) -> ControlFlow<()>,
    {
        match self.levels.len().checked_sub(1) {
            Some(top) if !range.is_empty() => self.descend(top, 0, &range, may, visit),
            _ => ControlFlow::Continue(()),
        }
    }

    fn descend<M, V>(
        &self,
        level: usize,
        node: usize,
        range: &Range<usize>,
        may: &M,
        visit: &mut V,
    ) -> ControlFlow<()>
    where
        M: Fn(&Summary) -> bool,
        V: FnMut(usize) -> ControlFlow<()>,
    {
        if !may(&self.levels[level][node]) {
            return ControlFlow::Continue(());
        }
        // How many hosts one child stands for.
        let span = FAN.pow(level as u32);
        let first = (node * FAN).max(range.start / span);
        let last = ((node + 1) * FAN).min(range.end.min(self.leaves.len()).div_ceil(span));
        for child in first..last {
            match level {
                0 => visit(child)?,
                _ => self.descend(level - 1, child, range, may, visit)?,
            }
        }
        ControlFlow::Continue(())
    }
}
