//! One batch as rows, and the rows as SQL with its arguments.
//!
//! A batch is one command to the connection's thread, mostly a single `INSERT INTO history …` with all values bound.
//! What goes into `documents` now and then goes in by multi-row statements whose row counts are rounded up to powers of two
//! (spare rows are NULL and filtered out), so that few texts exist and their prepared statements are reused.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::Write as _;
use std::sync::Arc;

use skyloom_store::feed::Commit;
use skyloom_store::{Key, LeaseName};
use sqlx::Arguments as _;
use sqlx::error::BoxDynError;
use sqlx::sqlite::SqliteArguments;

use super::crc::{self, Crc};
use super::history::{Doc, HistoryRow, Lines};
use super::leases::{LeaseTable, Record};
use super::present::Dirty;

/// Room that is kept from one batch to the next.
const SPARE_KEYS: usize = 4096;
const SPARE_BYTES: usize = 1 << 20;
/// Most rows of one statement.
const CHUNK: usize = 128;

/// What a batch of calls changes. Nothing of it is in [`Present`] before it is durable.
#[derive(Debug, Default)]
pub(super) struct Batch {
    pub(super) commits: Vec<Arc<Commit>>,
    /// The keys that it changes, as they are after it.
    pub(super) staged: HashMap<Key, Dirty>,
    /// The commits as the history has them.
    pub(super) lines: Lines,
    /// Bytes of that, and of what each commit costs.
    pub(super) bytes: u64,
    /// Bytes of the largest of its commits.
    pub(super) largest: u64,
    /// Documents more, and fewer.
    pub(super) documents: (u64, u64),
    /// Puts: what may need room.
    pub(super) puts: usize,
    pub(super) leases: BTreeSet<LeaseName>,
    /// Leases as they were.
    pub(super) undo: Vec<(LeaseName, Option<Record>)>,
    /// The floor that somebody asks for.
    pub(super) floor: u64,
}

impl Batch {
    /// Whether there is nothing to write.
    pub(super) fn is_empty(&self, floor: u64) -> bool {
        self.commits.is_empty() && self.leases.is_empty() && self.floor <= floor
    }

    /// An empty one with the room of this one.
    pub(super) fn cleared(self) -> Self {
        let Self {
            mut staged,
            mut lines,
            ..
        } = self;
        staged.clear();
        staged.shrink_to(SPARE_KEYS);
        lines.0.clear();
        lines.0.shrink_to(SPARE_BYTES);
        Self {
            staged,
            lines,
            ..Self::default()
        }
    }

    /// The row of its commits.
    pub(super) fn row(&self) -> Option<HistoryRow> {
        let (first, last) = (self.commits.first()?, self.commits.last()?);
        Some(HistoryRow {
            first: first.revision.0,
            last: last.revision.0,
            bytes: self.bytes,
            commits: self.lines.0.as_str().into(),
        })
    }
}

/// What goes from memory into `documents`, and what goes with it.
#[derive(Debug)]
pub(super) struct Flush {
    /// The keys in order, as they are at `applied`.
    pub(super) rows: BTreeMap<Key, Dirty>,
    pub(super) applied: u64,
    pub(super) floor: u64,
    /// History up to here is deleted.
    pub(super) sweep: u64,
}

/// SQL with its arguments, in one piece.
#[derive(Debug, Default)]
pub(super) struct Part {
    pub(super) text: String,
    pub(super) arguments: SqliteArguments,
    pub(super) statements: usize,
}

/// A transaction, in parts that are sent one after the other. The last statement of the last part is what commits.
#[derive(Debug, Default)]
pub(super) struct Script {
    pub(super) done: Vec<Part>,
    part: Part,
}

fn int(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

/// The text of a value that [`super::queue::Prepared`] has checked.
fn text(doc: &Doc) -> Result<Arc<str>, BoxDynError> {
    Ok(std::str::from_utf8(doc.value.bytes())?.into())
}

impl Script {
    /// A batch, and what is flushed with it.
    pub(super) fn new(
        row: Option<&HistoryRow>,
        leases: &BTreeSet<LeaseName>,
        table: &LeaseTable,
        flush: Option<&Flush>,
    ) -> Result<Self, BoxDynError> {
        let mut script = Self::default();
        // One statement is a transaction by itself.
        let alone = row.is_some() && leases.is_empty() && flush.is_none();
        if !alone {
            script.statement("BEGIN IMMEDIATE");
        }
        if let Some(flush) = flush {
            script.flush(flush)?;
        }
        if let Some(row) = row {
            script.statement("INSERT INTO history (last, first, bytes, crc, commits) VALUES (?,?,?,?,?)");
            let crc = i64::from(row.crc());
            let to = &mut script.part.arguments;
            to.add(int(row.last))?;
            to.add(int(row.first))?;
            to.add(int(row.bytes))?;
            to.add(crc)?;
            to.add(Arc::clone(&row.commits))?;
        }
        script.leases(leases, table)?;
        if !alone {
            script.statement("COMMIT");
        }
        script.cut();
        Ok(script)
    }

    fn statement(&mut self, sql: &str) {
        self.part.text.push_str(sql);
        self.part.text.push_str(";\n");
        self.part.statements += 1;
    }

    /// What follows is sent apart, so that texts repeat and their prepared statements are reused.
    fn cut(&mut self) {
        if self.part.statements > 0 {
            self.done.push(std::mem::take(&mut self.part));
        }
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
            self.part.text.push_str(before);
            for i in 0..padded {
                let comma = if i == 0 { "" } else { "," };
                write!(self.part.text, "{comma}{row}")?;
            }
            self.statement(after);
            for i in 0..padded {
                bind(&mut self.part.arguments, chunk.get(i))?;
            }
            if rows.len() > 1 {
                self.cut();
            }
        }
        Ok(())
    }

    /// What is removed first, for it makes room.
    fn flush(&mut self, flush: &Flush) -> Result<(), BoxDynError> {
        const PUT: [&str; 3] = [
            "REPLACE INTO documents (key, created, modified, crc, value) SELECT * FROM (VALUES ",
            "(?,?,?,?,?)",
            ") WHERE column1 IS NOT NULL",
        ];
        const REMOVE: [&str; 3] = ["DELETE FROM documents WHERE key IN (", "?", ")"];
        let (mut puts, mut removals) = (Vec::with_capacity(flush.rows.len()), Vec::new());
        for (key, dirty) in &flush.rows {
            match &dirty.doc {
                Some(doc) => puts.push((key, doc, text(doc)?)),
                None if dirty.stored => removals.push(key),
                None => {}
            }
        }
        self.cut();
        self.rows(REMOVE, &removals, |to, key| {
            to.add(key.map(|key| key.as_str().to_owned()))
        })?;
        self.statement("DELETE FROM history WHERE last <= ?");
        self.part.arguments.add(int(flush.sweep))?;
        self.cut();
        self.rows(PUT, &puts, |to, row| {
            let crc = |(key, doc, text): &(&Key, &Doc, Arc<str>)| {
                i64::from(crc::of_document(
                    key.as_str(),
                    Some(text),
                    doc.created,
                    doc.modified,
                ))
            };
            to.add(row.map(|(key, ..)| key.as_str().to_owned()))?;
            to.add(row.map(|(_, doc, _)| int(doc.created)))?;
            to.add(row.map(|(_, doc, _)| int(doc.modified)))?;
            to.add(row.map(crc))?;
            to.add(row.map(|(.., text)| Arc::clone(text)))
        })?;
        self.statement("UPDATE state SET revision = ?, floor = ?, crc = ?");
        let to = &mut self.part.arguments;
        to.add(int(flush.applied))?;
        to.add(int(flush.floor))?;
        to.add(i64::from(crc::of_state(flush.applied, flush.floor)))?;
        Ok(())
    }

    fn leases(&mut self, names: &BTreeSet<LeaseName>, table: &LeaseTable) -> Result<(), BoxDynError> {
        const PUT: [&str; 3] = [
            "INSERT INTO leases (name, epoch, holder, expires_at, ttl_ms, crc) SELECT * FROM (VALUES ",
            "(?,?,?,?,?,?)",
            ") WHERE column1 IS NOT NULL ON CONFLICT (name) DO UPDATE SET epoch = excluded.epoch, \
             holder = excluded.holder, expires_at = excluded.expires_at, ttl_ms = excluded.ttl_ms, crc = excluded.crc",
        ];
        let rows: Vec<LeaseRow> = names
            .iter()
            .filter_map(|name| table.get(name).map(|record| LeaseRow::new(name, record)))
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
