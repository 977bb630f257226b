//! One batch as rows, and the rows as one SQL text with its arguments.
//!
//! A batch is one command to the connection's thread: `BEGIN IMMEDIATE; …; COMMIT` with all values bound. Rows go in
//! by multi-row statements whose row counts are rounded up to powers of two (spare rows are NULL and filtered out), so
//! that few texts exist and their prepared statements are reused.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::sync::Arc;

use skyloom_store::LeaseName;
use skyloom_store::feed::Commit;
use sqlx::Arguments as _;
use sqlx::error::BoxDynError;
use sqlx::sqlite::SqliteArguments;

use super::crc::{self, Crc};
use super::leases::Record;
use super::state::{Documents, Entry, State};

/// Most rows of one statement.
const CHUNK: usize = 128;

/// One change of one commit.
#[derive(Debug)]
pub(super) struct HistoryRow {
    pub(super) revision: u64,
    pub(super) key: Arc<str>,
    pub(super) created: u64,
    pub(super) crc: u32,
    pub(super) bytes: u64,
    pub(super) value: Option<Arc<str>>,
    /// What it replaces.
    pub(super) old: Option<Entry>,
    /// The replaced value when this same batch wrote (or removed) it; otherwise SQL copies it from `documents`.
    pub(super) old_inline: Option<Option<Arc<str>>>,
}

/// How to take one decision back.
#[derive(Debug)]
pub(super) enum Undo {
    Entry(Arc<str>, Option<Entry>),
    Lease(LeaseName, Option<Record>),
}

/// What a batch of calls changes.
#[derive(Debug)]
pub(super) struct Batch {
    pub(super) commits: Vec<Arc<Commit>>,
    pub(super) rows: Vec<HistoryRow>,
    pub(super) documents: Documents,
    pub(super) leases: BTreeSet<LeaseName>,
    pub(super) undo: Vec<Undo>,
    pub(super) floor: u64,
    /// History up to here is deleted with this batch.
    pub(super) sweep: u64,
}

impl Batch {
    pub(super) fn new(state: &State) -> Self {
        Self {
            commits: Vec::new(),
            rows: Vec::new(),
            documents: Documents::new(),
            leases: BTreeSet::new(),
            undo: Vec::new(),
            floor: state.floor,
            sweep: state.swept,
        }
    }

    /// Whether there is nothing to write.
    pub(super) fn is_empty(&self, state: &State) -> bool {
        self.rows.is_empty() && self.leases.is_empty() && self.floor == state.floor
    }
}

/// SQL with its arguments, in one piece.
#[derive(Debug, Default)]
pub(super) struct Script {
    pub(super) text: String,
    pub(super) arguments: SqliteArguments,
    /// The number of statements, the last of which is COMMIT.
    pub(super) statements: usize,
}

fn int(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

impl Script {
    /// All of `batch`, as decided by `state`.
    pub(super) fn new(batch: &Batch, state: &State) -> Result<Self, BoxDynError> {
        let mut script = Self::default();
        script.statement("BEGIN IMMEDIATE");
        script.history(&batch.rows)?;
        script.documents(&batch.documents, state)?;
        script.leases(&batch.leases, state)?;
        if batch.sweep > state.swept {
            script.statement("DELETE FROM history WHERE revision <= ?");
            script.arguments.add(int(batch.sweep))?;
        }
        if batch.commits.is_empty() && batch.floor == state.floor {
            script.statement("COMMIT");
            return Ok(script);
        }
        script.statement("UPDATE state SET revision = ?, floor = ?, crc = ?");
        script.arguments.add(int(state.revision))?;
        script.arguments.add(int(batch.floor))?;
        script
            .arguments
            .add(i64::from(crc::of_state(state.revision, batch.floor)))?;
        script.statement("COMMIT");
        Ok(script)
    }

    fn statement(&mut self, sql: &str) {
        self.text.push_str(sql);
        self.text.push_str(";\n");
        self.statements += 1;
    }

    /// Statements of the form `before (row), (row), … after` for `count` rows, in chunks. `bind` binds row `i`, or a row
    /// of NULLs for `None`.
    fn rows<'r, R>(
        &mut self,
        [before, row, after]: [&str; 3],
        rows: &'r [R],
        mut bind: impl FnMut(&mut SqliteArguments, Option<&'r R>) -> Result<(), BoxDynError>,
    ) -> Result<(), BoxDynError> {
        for chunk in rows.chunks(CHUNK) {
            let padded = chunk.len().next_power_of_two();
            self.text.push_str(before);
            for i in 0..padded {
                let comma = if i == 0 { "" } else { "," };
                write!(self.text, "{comma}{row}")?;
            }
            self.statement(after);
            for i in 0..padded {
                bind(&mut self.arguments, chunk.get(i))?;
            }
        }
        Ok(())
    }

    fn history(&mut self, rows: &[HistoryRow]) -> Result<(), BoxDynError> {
        const SQL: [&str; 3] = [
            "INSERT OR ROLLBACK INTO history \
             (revision, key, created, crc, bytes, value, old_created, old_modified, old_crc, old_value) \
             SELECT column1, column2, column3, column4, column5, column6, column7, column8, column9, \
             coalesce(column10, d.value) FROM (VALUES ",
            "(?,?,?,?,?,?,?,?,?,?,?)",
            ") LEFT JOIN documents AS d ON d.key = column11 WHERE column1 IS NOT NULL",
        ];
        self.rows(SQL, rows, |to, row| {
            let old = row.and_then(|r| r.old);
            let inline = row.and_then(|r| r.old_inline.clone());
            let look_up = row.filter(|r| r.old.is_some() && r.old_inline.is_none());
            to.add(row.map(|r| int(r.revision)))?;
            to.add(row.map(|r| Arc::clone(&r.key)))?;
            to.add(row.map(|r| int(r.created)))?;
            to.add(row.map(|r| i64::from(r.crc)))?;
            to.add(row.map(|r| int(r.bytes)))?;
            to.add(row.and_then(|r| r.value.clone()))?;
            to.add(old.map(|o| int(o.created)))?;
            to.add(old.map(|o| int(o.modified)))?;
            to.add(old.map(|o| i64::from(o.crc)))?;
            to.add(inline.flatten())?;
            to.add(look_up.map(|r| Arc::clone(&r.key)))
        })
    }

    fn documents(&mut self, documents: &Documents, state: &State) -> Result<(), BoxDynError> {
        const PUT: [&str; 3] = [
            "REPLACE INTO documents (key, created, modified, crc, value) SELECT * FROM (VALUES ",
            "(?,?,?,?,?)",
            ") WHERE column1 IS NOT NULL",
        ];
        const REMOVE: [&str; 3] = ["DELETE FROM documents WHERE key IN (", "?", ")"];
        let mut puts = Vec::with_capacity(documents.len());
        let mut removals = Vec::new();
        for (key, value) in documents {
            match (value, state.index.get(key)) {
                (Some(value), Some(entry)) => puts.push((key, entry, value)),
                _ => removals.push(key),
            }
        }
        self.rows(PUT, &puts, |to, row| {
            to.add(row.map(|(key, ..)| Arc::clone(key)))?;
            to.add(row.map(|(_, entry, _)| int(entry.created)))?;
            to.add(row.map(|(_, entry, _)| int(entry.modified)))?;
            to.add(row.map(|(_, entry, _)| i64::from(entry.crc)))?;
            to.add(row.map(|(.., value)| Arc::clone(value)))
        })?;
        self.rows(REMOVE, &removals, |to, key| {
            to.add(key.map(|key| Arc::clone(key)))
        })
    }

    fn leases(&mut self, names: &BTreeSet<LeaseName>, state: &State) -> Result<(), BoxDynError> {
        const PUT: [&str; 3] = [
            "INSERT INTO leases (name, epoch, holder, expires_at, ttl_ms, crc) SELECT * FROM (VALUES ",
            "(?,?,?,?,?,?)",
            ") WHERE column1 IS NOT NULL ON CONFLICT (name) DO UPDATE SET epoch = excluded.epoch, \
             holder = excluded.holder, expires_at = excluded.expires_at, ttl_ms = excluded.ttl_ms, crc = excluded.crc",
        ];
        let rows: Vec<LeaseRow> = names
            .iter()
            .filter_map(|name| state.leases.get(name).map(|record| LeaseRow::new(name, record)))
            .collect();
        self.rows(PUT, &rows, |to, row| {
            to.add(row.map(|r| r.name.clone()))?;
            to.add(row.map(|r| int(r.epoch)))?;
            to.add(row.and_then(|r| r.holder.clone()))?;
            to.add(row.and_then(|r| r.expires_at.clone()))?;
            to.add(row.map(|r| int(r.ttl_ms)))?;
            to.add(row.map(|r| i64::from(r.crc())))
        })
    }
}

/// A lease as it stands in its table.
#[derive(Debug)]
pub(super) struct LeaseRow {
    pub(super) name: String,
    pub(super) epoch: u64,
    pub(super) holder: Option<String>,
    pub(super) expires_at: Option<String>,
    pub(super) ttl_ms: u64,
}

impl LeaseRow {
    fn new(name: &LeaseName, record: &Record) -> Self {
        let held = record.held.as_ref();
        Self {
            name: name.to_string(),
            epoch: record.epoch,
            holder: held.map(|h| h.holder.clone()),
            expires_at: held.map(|h| h.expires_at.to_string()),
            ttl_ms: held.map_or(0, |h| {
                u64::try_from(h.ttl.as_millis())
                    .unwrap_or(u64::MAX)
                    .min(i64::MAX as u64)
            }),
        }
    }

    pub(super) fn crc(&self) -> u32 {
        let crc = Crc::new()
            .text(Some(&self.name))
            .int(self.epoch)
            .text(self.holder.as_deref());
        crc.text(self.expires_at.as_deref()).int(self.ttl_ms).finish()
    }
}
