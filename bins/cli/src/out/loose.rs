//! Records that are shown as the cloud tells them: columns are places in a JSON document.

use serde_json::Value;
use skyloom_model::Timestamp;

use super::{Format, Printer, details, json, line, plain, pretty, raw, to_yaml};
use crate::error::Result;
use crate::text::{age, clean};

/// What a kind of record shows: titles, and where in the record the cells are (RFC 6901). A column `AGE` is a time ago.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Columns {
    /// Of `-o table`.
    pub(crate) head: &'static [(&'static str, &'static str)],
    /// What `-o wide` adds.
    pub(crate) wide: &'static [(&'static str, &'static str)],
}

impl Printer {
    /// Many records.
    pub(crate) fn records(&self, columns: Columns, rows: &[Value]) -> Result<()> {
        match self.format {
            Format::Table | Format::Wide => {
                let wide = if self.format == Format::Wide {
                    columns.wide
                } else {
                    &[]
                };
                let all = || columns.head.iter().chain(wide);
                let row = |record: &Value| all().map(|column| self.cell(record, *column)).collect();
                raw(&plain(
                    all().map(|(title, _)| (*title).to_owned()),
                    rows.iter().map(row),
                ))
            }
            Format::Json => pretty(&json(&rows)?),
            Format::Yaml => raw(&to_yaml(&json(&rows)?)),
            Format::Jsonl => rows.iter().try_for_each(|row| line(&row.to_string())),
            Format::Name => rows.iter().try_for_each(|row| line(&clean(&name(row)))),
        }
    }

    /// One record.
    pub(crate) fn record(&self, columns: Columns, row: &Value) -> Result<()> {
        match self.format {
            Format::Table | Format::Wide => {
                let all = columns.head.iter().chain(columns.wide);
                let pairs: Vec<_> = all.map(|column| (column.0, self.cell(row, *column))).collect();
                raw(&details(&pairs))
            }
            _ => self.document(row, &name(row)),
        }
    }

    fn cell(&self, record: &Value, (title, place): (&str, &str)) -> String {
        let value = record.pointer(place).unwrap_or(&Value::Null);
        match (
            title,
            value.as_str().and_then(|text| text.parse::<Timestamp>().ok()),
        ) {
            ("AGE" | "LAST USED", Some(then)) => age(self.now, then),
            _ => text(value),
        }
    }
}

/// What a record is called, or its id.
pub(crate) fn name(record: &Value) -> String {
    let named = ["/name", "/meta/name", "/kind/name", "/id", "/meta/id"];
    let found = named
        .into_iter()
        .find_map(|place| record.pointer(place)?.as_str());
    found.unwrap_or_default().to_owned()
}

/// A value as one cell.
pub(crate) fn text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::Bool(true) => "yes".to_owned(),
        Value::Bool(false) => "no".to_owned(),
        Value::String(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        Value::Array(items) => items.iter().map(text).collect::<Vec<_>>().join(","),
        Value::Object(fields) => {
            // Such as {"type": "project", "id": …}: its kind first, without saying that it is one.
            let kind = fields.get("type").map(text);
            let rest = fields.iter().filter(|(name, _)| *name != "type");
            let rest = rest.map(|(name, value)| match (&kind, name.as_str()) {
                (Some(_), "id") => text(value),
                _ => format!("{name}={}", text(value)),
            });
            kind.clone().into_iter().chain(rest).collect::<Vec<_>>().join(" ")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn values_become_cells() {
        for (value, cell) in [
            (json!(null), ""),
            (json!(true), "yes"),
            (json!(["a", 1]), "a,1"),
            (json!({"type": "project", "id": "x"}), "project x"),
            (json!({"type": "system"}), "system"),
            (json!({"a": 1, "b": "c"}), "a=1 b=c"),
        ] {
            assert_eq!(text(&value), cell, "{value}");
        }
    }

    #[test]
    fn a_record_is_called_by_its_name_or_id() {
        assert_eq!(name(&json!({"id": "1", "name": "x"})), "x");
        assert_eq!(name(&json!({"meta": {"id": "1", "name": "x"}})), "x");
        assert_eq!(name(&json!({"id": "1"})), "1");
        assert_eq!(name(&json!([])), "");
    }
}
