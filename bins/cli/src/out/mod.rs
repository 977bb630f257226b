//! Printing: data to stdout in the format that was asked for, messages to stderr.

pub(crate) mod loose;
mod networks;
mod rows;
mod storage;
mod yaml;

use std::io::{self, IsTerminal as _, Write as _};

use clap::ValueEnum;
use comfy_table::Table;
use comfy_table::presets::NOTHING;
use serde::Serialize;
use serde_json::Value;
use skyloom_model::Timestamp;

use crate::error::{CliError, Result};
use crate::text::clean;
pub(crate) use rows::{Row, server_state};
pub(crate) use yaml::to_yaml;

/// How results are printed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people
    #[default]
    Table,
    /// For people, with more columns
    Wide,
    /// One JSON document
    Json,
    /// One YAML document
    Yaml,
    /// One JSON document per line
    Jsonl,
    /// Names only; the task's id where work was started and not waited for
    Name,
}

/// A line to stderr.
pub(crate) fn message(text: &str) {
    // Nobody is left to tell when stderr is gone.
    let _ = writeln!(io::stderr(), "{text}");
}

/// A secret that the cloud gives only once.
pub(crate) fn shown_once(what: &str, secret: Option<&str>) {
    match secret {
        Some(secret) => message(&format!("{what} (shown this once): {}", clean(secret))),
        None => message(&format!(
            "{what} was in an answer that was lost on the way; remove this one and make another"
        )),
    }
}

/// A question to stderr; the answer is typed on the same line.
pub(crate) fn prompt(text: &str) {
    let mut err = io::stderr();
    let _ = err.write_all(text.as_bytes()).and_then(|()| err.flush());
}

/// Text to stdout as it is.
pub(crate) fn raw(text: &str) -> Result<()> {
    bytes(text.as_bytes())
}

/// Bytes to stdout as they are.
pub(crate) fn bytes(bytes: &[u8]) -> Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(bytes)?;
    Ok(out.flush()?)
}

/// A line to stdout.
pub(crate) fn line(text: &str) -> Result<()> {
    raw(&format!("{text}\n"))
}

/// Whether stdout is a terminal.
pub(crate) fn stdout_is_terminal() -> bool {
    io::stdout().is_terminal()
}

/// A result as JSON.
pub(crate) fn json(value: &impl Serialize) -> Result<Value> {
    serde_json::to_value(value).map_err(|e| CliError::unexpected(format!("cannot print the result: {e}")))
}

fn pretty(value: &Value) -> Result<()> {
    line(&format!("{value:#}"))
}

/// Prints in one format.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Printer {
    pub(crate) format: Format,
    /// Against which ages are reckoned.
    pub(crate) now: Timestamp,
}

impl Printer {
    /// Many records.
    pub(crate) fn list<R: Row>(&self, rows: &[R]) -> Result<()> {
        match self.format {
            Format::Table | Format::Wide => raw(&self.table(rows)),
            Format::Json => pretty(&json(&rows)?),
            Format::Yaml => raw(&to_yaml(&json(&rows)?)),
            Format::Jsonl | Format::Name => rows.iter().try_for_each(|row| self.line_of(row)),
        }
    }

    /// One record with all that is known of it.
    pub(crate) fn one<R: Row>(&self, row: &R) -> Result<()> {
        match self.format {
            Format::Table | Format::Wide => raw(&details(&row.details(self.now))),
            Format::Json => pretty(&json(row)?),
            Format::Yaml => raw(&to_yaml(&json(row)?)),
            Format::Jsonl | Format::Name => self.line_of(row),
        }
    }

    /// A document without a table of its own: tables show it as YAML, which people can read.
    pub(crate) fn document(&self, value: &Value, name: &str) -> Result<()> {
        match self.format {
            Format::Table | Format::Wide | Format::Yaml => raw(&to_yaml(value)),
            Format::Json => pretty(value),
            Format::Jsonl => line(&value.to_string()),
            Format::Name => line(&clean(name)),
        }
    }

    /// One record of a stream: never waits for the others.
    pub(crate) fn item<R: Row>(&self, row: &R) -> Result<()> {
        match self.format {
            Format::Table | Format::Wide => {
                let cells: Vec<String> = self.cells(row).iter().map(|cell| clean(cell)).collect();
                line(cells.join("  ").trim_end())
            }
            Format::Yaml => raw(&format!("---\n{}", to_yaml(&json(row)?))),
            Format::Json | Format::Jsonl | Format::Name => self.line_of(row),
        }
    }

    fn line_of<R: Row>(&self, row: &R) -> Result<()> {
        if self.format == Format::Name {
            line(&clean(&row.name()))
        } else {
            line(&json(row)?.to_string())
        }
    }

    fn cells<R: Row>(&self, row: &R) -> Vec<String> {
        let mut cells = row.cells(self.now);
        if self.format != Format::Wide {
            cells.truncate(R::HEAD.len());
        }
        cells
    }

    fn table<R: Row>(&self, rows: &[R]) -> String {
        let mut head = R::HEAD.to_vec();
        if self.format == Format::Wide {
            head.extend(R::WIDE);
        }
        plain(
            head.iter().map(|&cell| cell.to_owned()),
            rows.iter().map(|row| self.cells(row)),
        )
    }
}

/// Names and values below each other.
pub(crate) fn details(pairs: &[(&str, String)]) -> String {
    let width = pairs.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    let mut text = String::new();
    for (name, value) in pairs {
        // Heads of columns are in capitals; here they are words.
        let (first, rest) = name.split_at(name.len().min(1));
        let name = format!("{first}{}", rest.to_lowercase());
        let mut lines = value.lines();
        let first = clean(lines.next().unwrap_or("-"));
        text.push_str(&format!("{name:width$}  {first}\n"));
        for more in lines {
            text.push_str(&format!("{:width$}  {}\n", "", clean(more)));
        }
    }
    text
}

/// Columns two spaces apart, no lines.
fn plain(head: impl Iterator<Item = String>, rows: impl Iterator<Item = Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_style(NOTHING);
    table.set_header(head.collect::<Vec<_>>());
    for row in rows {
        let cells = row.iter().map(|cell| {
            let cell = clean(cell);
            if cell.is_empty() { "-".to_owned() } else { cell }
        });
        table.add_row(cells.collect::<Vec<_>>());
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    let mut text = table.trim_fmt();
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_plain_and_aligned() {
        let rows = [
            vec!["web-1".to_owned(), String::new()],
            vec!["云".to_owned(), "a\x1b[0m".to_owned()],
        ];
        let text = plain(["NAME", "STATE"].map(str::to_owned).into_iter(), rows.into_iter());
        assert_eq!(text, "NAME   STATE\nweb-1  -\n云     a\u{fffd}[0m\n");
    }

    #[test]
    fn details_keep_their_column() {
        let text = details(&[
            ("Name", "x".into()),
            ("Fault", "one\ntwo".into()),
            ("Empty", String::new()),
        ]);
        assert_eq!(text, "Name   x\nFault  one\n       two\nEmpty  -\n");
    }
}
