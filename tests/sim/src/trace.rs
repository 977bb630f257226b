//! What happened, as a running hash; and, when asked for, as lines to read.

use std::collections::VecDeque;
use std::time::Duration;

/// The trace of one schedule.
#[derive(Debug, Default)]
pub(crate) struct Trace {
    hash: u64,
    steps: u64,
    keep: usize,
    lines: VecDeque<String>,
}

impl Trace {
    /// A trace that keeps its last `keep` lines.
    pub(crate) fn new(keep: usize) -> Self {
        Self {
            keep,
            ..Self::default()
        }
    }

    /// One step: when, who, what, on what, with what outcome. `line` is called only when lines are kept.
    pub(crate) fn step(
        &mut self,
        at: Duration,
        who: &str,
        what: &str,
        on: &[u8],
        outcome: u64,
        line: impl FnOnce() -> String,
    ) {
        self.steps += 1;
        self.word(at.as_millis() as u64);
        self.bytes(who.as_bytes());
        self.bytes(what.as_bytes());
        self.bytes(on);
        self.word(outcome);
        if self.keep > 0 {
            if self.lines.len() == self.keep {
                self.lines.pop_front();
            }
            let seconds = at.as_secs_f64();
            self.lines
                .push_back(format!("{seconds:>9.3} {who:<10} {what} {}", line()));
        }
    }

    fn word(&mut self, word: u64) {
        self.hash = (self.hash.rotate_left(5) ^ word).wrapping_mul(0x517c_c1b7_2722_0a95);
    }

    fn bytes(&mut self, bytes: &[u8]) {
        let mut chunks = bytes.chunks_exact(8);
        for chunk in &mut chunks {
            let mut word = [0; 8];
            word.copy_from_slice(chunk);
            self.word(u64::from_le_bytes(word));
        }
        let mut last = [0; 8];
        let rest = chunks.remainder();
        last[..rest.len()].copy_from_slice(rest);
        self.word(u64::from_le_bytes(last) ^ ((bytes.len() as u64) << 56));
    }

    /// The hash so far.
    pub(crate) fn hash(&self) -> u64 {
        self.hash
    }

    /// The steps so far.
    pub(crate) fn steps(&self) -> u64 {
        self.steps
    }

    /// The kept lines.
    pub(crate) fn lines(&self) -> Vec<String> {
        self.lines.iter().cloned().collect()
    }
}
