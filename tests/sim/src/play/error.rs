//! What is wrong with a script, and where.

use std::fmt;
use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// What is wrong with a script, where, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScriptError {
    /// Line and column, from 1 on, where the script was text.
    pub at: Option<(usize, usize)>,
    /// The field, such as `events[3].create.flavor`; empty where it is no field's fault.
    pub field: String,
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
}

impl fmt::Display for ScriptError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some((line, column)) = self.at {
            write!(f, "line {line}, column {column}: ")?;
        }
        if !self.field.is_empty() {
            write!(f, "{}: ", self.field)?;
        }
        f.write_str(&self.message)
    }
}

impl std::error::Error for ScriptError {}

impl ScriptError {
    /// What is wrong with a field.
    pub(super) fn new(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            at: None,
            field: field.into(),
            message: message.into(),
            hint: None,
        }
    }

    pub(super) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// What the parser says of `text`, with the field that it means.
    pub(super) fn parsing(error: &toml::de::Error, text: &str) -> Self {
        let span = error.span();
        let field = span.clone().and_then(|span| field_at(text, &span));
        // What is expected is a piece of advice.
        let (message, hint) = match error.message().split_once(", expected ") {
            Some((message, expected)) => (message, Some(format!("expected {}", expected.trim()))),
            None => (error.message(), None),
        };
        Self {
            at: span.map(|span| position(text, span.start)),
            field: field.unwrap_or_default(),
            message: message.trim().to_owned(),
            hint,
        }
    }

    /// With the place of its field in `text`.
    pub(super) fn located(mut self, text: &str) -> Self {
        if self.at.is_none()
            && let Ok(table) = DeTable::parse(text)
        {
            let offset = offset_of(table.get_ref(), &self.field);
            self.at = Some(position(text, offset.unwrap_or_default()));
        }
        self
    }
}

/// Line and column of a byte.
fn position(text: &str, offset: usize) -> (usize, usize) {
    let mut offset = offset.min(text.len());
    while !text.is_char_boundary(offset) {
        offset -= 1;
    }
    let before = &text[..offset];
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    (line, column)
}

/// Where the deepest part of `path` is that there is.
fn offset_of(table: &DeTable<'_>, path: &str) -> Option<usize> {
    let mut table = table;
    let mut found = None;
    for part in path.split('.') {
        let (name, number) = match part.split_once('[') {
            Some((name, rest)) => (name, rest.trim_end_matches(']').parse::<usize>().ok()),
            None => (part, None),
        };
        let Some((key, mut value)) = table.iter().find(|(key, _)| key.get_ref() == name) else {
            return found;
        };
        found = Some(key.span().start);
        if let (Some(array), Some(number)) = (value.get_ref().as_array(), number) {
            let Some(element) = number.checked_sub(1).and_then(|n| array.get(n)) else {
                return found;
            };
            found = Some(element.span().start);
            value = element;
        }
        match value.get_ref().as_table() {
            Some(inner) => table = inner,
            None => return found,
        }
    }
    found
}

/// The path of the smallest part that has the span in it.
fn field_at(text: &str, span: &Range<usize>) -> Option<String> {
    let table = DeTable::parse(text).ok()?;
    let mut best: Option<(usize, String)> = None;
    in_table(table.get_ref(), "", span, &mut best);
    best.map(|(_, path)| path)
}

type Best = Option<(usize, String)>;

fn offer(found: &Range<usize>, path: &str, span: &Range<usize>, best: &mut Best) {
    let inside = found.start <= span.start && span.end <= found.end;
    if inside && best.as_ref().is_none_or(|(size, _)| found.len() <= *size) {
        *best = Some((found.len(), path.to_owned()));
    }
}

fn in_table(table: &DeTable<'_>, path: &str, span: &Range<usize>, best: &mut Best) {
    for (key, value) in table {
        let dot = if path.is_empty() { "" } else { "." };
        let path = format!("{path}{dot}{}", key.get_ref());
        offer(&key.span(), &path, span, best);
        in_value(value, &path, span, best);
    }
}

fn in_value(value: &Spanned<DeValue<'_>>, path: &str, span: &Range<usize>, best: &mut Best) {
    offer(&value.span(), path, span, best);
    match value.get_ref() {
        DeValue::Table(table) => in_table(table, path, span, best),
        DeValue::Array(array) => {
            for (i, element) in array.iter().enumerate() {
                in_value(element, &format!("{path}[{}]", i + 1), span, best);
            }
        }
        _ => {}
    }
}
