//! What the nouns of identity have in common: records that the cloud tells as JSON, found by name, id or beginning of an id.

use std::collections::BTreeMap;

use reqwest::Method;
use serde_json::{Map, Value, json};
use skyloom_bin::nearest::nearest;
use uuid::Uuid;

use crate::app::{self, App};
use crate::args::YesArg;
use crate::client::{Client, Target, kind};
use crate::error::{CliError, Result};
use crate::exit::Exit;
use crate::out::loose::{Columns, name};
use crate::out::{self, Format};
use crate::text::clean;

/// How many records are looked through for an id prefix or a similar name.
const SEARCHED: usize = 10_000;
/// Shortest prefix of an id.
const MIN_PREFIX: usize = 4;

/// A kind of record.
#[derive(Debug, Clone, Copy)]
pub(super) struct Kind {
    /// `v1/<path>`.
    pub(super) path: &'static str,
    pub(super) noun: &'static str,
    pub(super) columns: Columns,
}

/// Flags of lists.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct DirectoryList {
    /// Only those of exactly this name
    #[arg(long)]
    pub(super) name: Option<String>,
    /// Only those of this domain (name or id)
    #[arg(long)]
    pub(super) domain: Option<String>,
    /// At most so many
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..))]
    pub(super) limit: u32,
}

/// The id of a record.
pub(super) fn id(record: &Value) -> Result<Uuid> {
    let text = ["/id", "/meta/id"]
        .into_iter()
        .find_map(|place| record.pointer(place)?.as_str());
    text.and_then(|text| text.parse().ok())
        .ok_or_else(|| CliError::unexpected("the server's answer has no id"))
}

/// An object of what is there: fields that nobody gave are left out.
pub(super) fn fields<const N: usize>(pairs: [(&str, Option<Value>); N]) -> Value {
    let given = pairs
        .into_iter()
        .filter_map(|(name, value)| Some((name.to_owned(), value?)));
    Value::Object(given.collect::<Map<_, _>>())
}

impl Kind {
    fn target(&self) -> Target {
        kind(self.path)
    }

    /// The record that `text` names.
    pub(super) async fn find(&self, client: &Client, text: &str) -> Result<Value> {
        if text.is_empty() {
            return Err(CliError::usage(format!("the {}'s name is empty", self.noun)));
        }
        // A token is not told by its id alone; what follows finds it in the list.
        if let Ok(id) = text.parse::<Uuid>()
            && self.path != "tokens"
        {
            match client.get(self.target().then(id)).await {
                Err(error) if error.exit == Exit::NotFound => {}
                other => return other,
            }
        }
        let query = [("name", text.to_owned())];
        let named: Vec<Value> = client.list(self.path, &query, SEARCHED).await?;
        if let Some(found) = self.single(text, named)? {
            return Ok(found);
        }
        let all: Vec<Value> = client.list(self.path, &[], SEARCHED).await?;
        let prefix = text.to_ascii_lowercase();
        let long = prefix.len() >= MIN_PREFIX && prefix.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-');
        let begins = |record: &&Value| id(record).is_ok_and(|id| id.to_string().starts_with(&prefix));
        let matching = all.iter().filter(begins).filter(|_| long).cloned().collect();
        if let Some(found) = self.single(text, matching)? {
            return Ok(found);
        }
        let names: Vec<String> = all.iter().map(name).collect();
        let near = nearest(text, names.iter().map(String::as_str), 3);
        let error = CliError::new(
            Exit::NotFound,
            format!("there is no {} \"{text}\" here", self.noun),
        );
        Err(if near.is_empty() {
            error.hint(format!("see `skyloom {} list`", self.noun))
        } else {
            error.hint(format!("did you mean {}?", near.join(", ")))
        })
    }

    fn single(&self, text: &str, mut found: Vec<Value>) -> Result<Option<Value>> {
        if found.len() <= 1 {
            return Ok(found.pop());
        }
        let message = format!("{} {}s are called \"{text}\"", found.len(), self.noun);
        let mut error = CliError::usage(message).hint("name it by its id, or by more of it");
        for record in found.iter().take(5) {
            error = error.detail(id(record)?.to_string());
        }
        Err(error)
    }

    /// `list`.
    pub(super) async fn list(&self, app: &App, args: &DirectoryList) -> Result<()> {
        let client = app.client()?;
        let query: Vec<_> = args.name.iter().map(|name| ("name", name.clone())).collect();
        let limit = usize::try_from(args.limit).unwrap_or(usize::MAX);
        let Some(domain) = domain(&client, args.domain.as_deref()).await? else {
            return self.list_by(app, &client, &query, limit).await;
        };
        let domain = domain.to_string();
        let mut records: Vec<Value> = client.list(self.path, &query, SEARCHED).await?;
        records.retain(|record| record["domain"] == domain.as_str());
        records.truncate(limit);
        let records = named(app, &client, records).await;
        app.print().records(self.columns, &records)
    }

    /// `list` by other things than name and domain.
    pub(super) async fn list_by(
        &self,
        app: &App,
        client: &Client,
        query: &[(&'static str, String)],
        limit: usize,
    ) -> Result<()> {
        let records: Vec<Value> = client.list(self.path, query, limit).await?;
        let records = named(app, client, records).await;
        app.print().records(self.columns, &records)
    }

    /// `show`.
    pub(super) async fn show(&self, app: &App, text: &str) -> Result<()> {
        let client = app.client()?;
        let record = self.find(&client, text).await?;
        for record in named(app, &client, vec![record]).await {
            app.print().record(self.columns, &record)?;
        }
        Ok(())
    }

    /// `create`.
    pub(super) async fn create(&self, app: &App, client: &Client, body: &Value) -> Result<()> {
        let made: Value = client.post(self.target(), body).await?;
        app.print().record(self.columns, &made)
    }

    /// `update`: only what was given.
    pub(super) async fn update(&self, app: &App, text: &str, body: &Value) -> Result<()> {
        if body.as_object().is_some_and(Map::is_empty) {
            return Err(CliError::usage("there is nothing to change").hint("see --help for what can be"));
        }
        let client = app.client()?;
        let id = id(&self.find(&client, text).await?)?;
        let made: Value = client
            .change(Method::PATCH, self.target().then(id), Some(body))
            .await?;
        app.print().record(self.columns, &made)
    }

    /// `delete`: name, ask, remove. Nothing is removed before every name is known.
    pub(super) async fn delete(&self, app: &App, texts: &[String], verb: &str, yes: YesArg) -> Result<()> {
        let client = app.client()?;
        let mut doomed: Vec<Value> = Vec::new();
        for text in texts {
            let record = self.find(&client, text).await?;
            if !doomed.contains(&record) {
                doomed.push(record);
            }
        }
        let names: Vec<String> = doomed.iter().map(name).collect();
        let question = format!("{verb} {} {}", self.noun, clean(&names.join(", ")));
        app.confirm(yes.yes, &question).await?;
        let mut exit = Exit::Done;
        for record in &doomed {
            let removed = async {
                client.delete(self.path, id(record)?, &[]).await?;
                self.say(app, record, verb)
            };
            if let Err(error) = removed.await {
                app::report(&error);
                if exit == Exit::Done {
                    exit = error.exit;
                }
            }
        }
        match exit {
            Exit::Done => Ok(()),
            exit => Err(CliError::quiet(exit)),
        }
    }

    /// What was done to a record, for people; the record, for programs.
    pub(super) fn say(&self, app: &App, record: &Value, verb: &str) -> Result<()> {
        let noun = self.noun;
        match app.globals.output {
            Format::Table | Format::Wide => {
                out::line(&format!("{noun} {}: {}", clean(&name(record)), past(verb)))
            }
            _ => app.print().document(&json!({ noun: record }), &name(record)),
        }
    }
}

/// The records with names in place of ids, where people read them and the names can be seen.
pub(super) async fn named(app: &App, client: &Client, mut records: Vec<Value>) -> Vec<Value> {
    if !matches!(app.globals.output, Format::Table | Format::Wide) {
        return records;
    }
    for (field, path) in [
        ("domain", "domains"),
        ("project", "projects"),
        ("default_project", "projects"),
        ("user", "users"),
        ("group", "groups"),
    ] {
        if records.iter().all(|record| record[field].is_null()) {
            continue;
        }
        // Who may not see what they are called sees the ids.
        let known: Vec<Value> = client.list(path, &[], SEARCHED).await.unwrap_or_default();
        let names: BTreeMap<String, String> = known
            .iter()
            .filter_map(|record| Some((id(record).ok()?.to_string(), name(record))))
            .collect();
        for record in &mut records {
            if let Some(name) = record[field].as_str().and_then(|id| names.get(id)) {
                record[field] = name.clone().into();
            }
        }
    }
    records
}

fn past(verb: &str) -> String {
    if verb.ends_with('e') {
        format!("{verb}d")
    } else {
        format!("{verb}ed")
    }
}

/// `--enable`, `--disable`.
#[derive(Debug, Clone, Copy, clap::Args)]
pub(crate) struct Switch {
    /// Let it be used again
    #[arg(long, conflicts_with = "disable")]
    enable: bool,
    /// Let nobody use it; its tokens end at once
    #[arg(long)]
    disable: bool,
}

impl Switch {
    pub(super) fn value(self) -> Option<Value> {
        (self.enable || self.disable).then_some(Value::Bool(self.enable))
    }
}

/// The id of the domain that was named, if any was.
pub(super) async fn domain(client: &Client, text: Option<&str>) -> Result<Option<Uuid>> {
    match text {
        Some(text) => id(&super::domain::KIND.find(client, text).await?).map(Some),
        None => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_given_is_sent() {
        let body = fields([("a", Some(json!(1))), ("b", None)]);
        assert_eq!(body, json!({"a": 1}));
    }

    #[test]
    fn verbs_have_a_past() {
        assert_eq!((past("delete"), past("add")), ("deleted".into(), "added".into()));
    }

    #[test]
    fn ids_are_found_in_both_forms() {
        let text = "01980c2e-7b7a-7000-8000-000000000001";
        assert!(id(&json!({"id": text})).is_ok() && id(&json!({"meta": {"id": text}})).is_ok());
        assert!(id(&json!({"id": "x"})).is_err());
    }
}
