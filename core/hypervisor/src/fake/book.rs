//! The fake host's records: a book for each server, the test's script, and how they are changed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;

use serde::{Deserialize, Serialize};
use skyloom_model::{PowerState, ServerId};

use super::FakeWorld;
use super::history::{Effect, EffectKind};
use super::ledger::Records;
use super::script::Planned;
use super::storage::FakeDisk;
use crate::{Result, VmSpec};

/// A fake domain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FakeDomain {
    /// As it was last defined; its generation is the domain's.
    pub spec: VmSpec,
    /// Its power state.
    pub power: PowerState,
    /// How often it has been started.
    pub boots: u64,
    /// Its console log.
    pub console: String,
}

/// All that is known of one server: written as a whole, so that state and history never differ.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Book {
    pub(super) domain: Option<FakeDomain>,
    pub(super) disks: BTreeMap<String, FakeDisk>,
    pub(super) history: Vec<Effect>,
}

/// The test's orders: in the ledger, so that they outlive the agent and reach another process.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Script {
    pub(super) planned: Vec<Planned>,
    pub(super) ignores_graceful: BTreeSet<ServerId>,
    pub(super) cannot_tell: BTreeSet<ServerId>,
    /// Console line of the next boots; `None` says the default.
    pub(super) ready_line: Option<String>,
}

pub(super) const SCRIPT: &str = "script";
impl FakeWorld {
    pub(super) fn script<T>(&self, change: impl FnOnce(&mut Script) -> T) -> Result<T> {
        self.0.ledger.with(|records| {
            let mut script = records.get::<Script>(SCRIPT)?.unwrap_or_default();
            let done = change(&mut script);
            records.put(SCRIPT, &script)?;
            Ok(done)
        })
    }
    pub(super) fn script_now(&self) -> Result<Script> {
        self.0
            .ledger
            .with(|records| Ok(records.get::<Script>(SCRIPT)?.unwrap_or_default()))
    }

    /// One server's book as it is.
    pub(super) fn read(&self, server: ServerId) -> Result<Book> {
        self.0
            .ledger
            .with(|records| Ok(records.get::<Book>(&book_key(server))?.unwrap_or_default()))
    }

    /// Changes one server's book; what `change` notes is numbered and written together with it.
    pub(super) fn book<T>(
        &self,
        server: ServerId,
        change: impl FnOnce(&mut Book, &mut Note) -> T,
    ) -> Result<T> {
        let key = book_key(server);
        self.0.ledger.with(|records| {
            let mut book = records.get::<Book>(&key)?.unwrap_or_default();
            let mut note = Note::default();
            let done = change(&mut book, &mut note);
            for (generation, kind) in note.effects {
                let at = self.next(records)?;
                book.history.push(Effect {
                    at,
                    server: Some(server),
                    generation,
                    kind,
                });
                note.changed = true;
            }
            if note.changed {
                records.put(&key, &book)?;
            }
            Ok(done)
        })
    }

    /// Looks at the records.
    pub(super) fn look<T>(&self, look: impl FnOnce(&Records<'_>) -> Result<T>) -> Result<T> {
        self.0.ledger.with(|records| look(records))
    }
    /// Writes one record that carries the next number.
    pub(super) fn put<T: Serialize>(&self, key: &str, make: impl FnOnce(u64) -> T) -> Result<()> {
        self.0.ledger.with(|records| {
            let record = make(self.next(records)?);
            records.put(key, &record)
        })
    }

    fn next(&self, records: &mut Records<'_>) -> Result<u64> {
        if !self.0.durable {
            return Ok(self.0.sequence.fetch_add(1, Ordering::Relaxed));
        }
        let at = records.get::<u64>("sequence")?.unwrap_or_default() + 1;
        records.put("sequence", &at)?;
        Ok(at)
    }
}

impl FakeDomain {
    /// Longest console log that is kept, in bytes.
    pub const CONSOLE_LIMIT: usize = 64 * 1024;

    pub(super) fn print(&mut self, text: &str) {
        self.console.push_str(text);
        let mut cut = self.console.len().saturating_sub(Self::CONSOLE_LIMIT);
        while !self.console.is_char_boundary(cut) {
            cut += 1;
        }
        self.console.drain(..cut);
    }
    pub(super) fn boot(&mut self, ready_line: Option<String>) {
        self.power = PowerState::Running;
        self.boots += 1;
        let line = ready_line.unwrap_or_else(|| format!("fake-guest ready hostname={}", self.spec.name));
        self.print(&line);
        self.print("\n");
    }
}

/// What a change did.
#[derive(Debug, Default)]
pub(super) struct Note {
    effects: Vec<(u64, EffectKind)>,
    pub(super) changed: bool,
}

impl Note {
    /// Something happened, for the history.
    pub(super) fn effect(&mut self, generation: u64, kind: EffectKind) {
        self.effects.push((generation, kind));
    }
}

fn book_key(server: ServerId) -> String {
    format!("servers/{server}")
}
