//! `skyloom server …`: what changes a server's record at once, several servers by labels, lists and the timeline.

use reqwest::Method;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use skyloom_model::{Image, OnCrash, Resource as _, Server, Timestamp};

use super::create::CrashArg;
use super::server::{Outcome, act};
use crate::app::{self, App};
use crate::args::{ListArgs, WaitArgs, YesArg};
use crate::client::types::ServerAccepted;
use crate::client::{Target, kind, one};
use crate::error::{CliError, Result};
use crate::exit::Exit;
use crate::out::{self, Format, Row};
use crate::resolve;
use crate::text::{clean, parse_pair};

/// Servers of an action whose task can be waited for.
#[derive(Debug, clap::Args)]
pub(crate) struct Many {
    /// Names, ids or beginnings of ids
    #[arg(required = true)]
    pub(super) servers: Vec<String>,
    #[command(flatten)]
    pub(super) wait: WaitArgs,
}

/// Servers of an action that is done at once.
#[derive(Debug, clap::Args)]
pub(crate) struct Names {
    /// Names, ids or beginnings of ids
    #[arg(required = true)]
    pub(super) servers: Vec<String>,
}

/// Which servers are listed.
#[derive(Debug, clap::Args)]
pub(crate) struct Filters {
    /// Only those in this lifecycle, such as active or recycled
    #[arg(long, value_name = "STATE")]
    lifecycle: Option<String>,
    /// Only those in this power state, such as running or stopped
    #[arg(long, value_name = "STATE")]
    power: Option<String>,
    /// Only those on this host (operators)
    #[arg(long, value_name = "HOST")]
    host: Option<String>,
    /// Only those made from this image
    #[arg(long, value_name = "IMAGE")]
    image: Option<String>,
    /// Only those of this flavor
    #[arg(long, value_name = "FLAVOR")]
    flavor: Option<String>,
    /// In which order: name, created or state; with - before it the other way round
    #[arg(long, value_name = "ORDER", allow_hyphen_values = true,
        value_parser = ["name", "-name", "created", "-created", "state", "-state"])]
    sort: Option<String>,
}

/// What is changed of a server.
#[derive(Debug, clap::Args)]
pub(crate) struct UpdateArgs {
    /// Name, id or beginning of an id
    server: String,
    /// Another display name
    #[arg(long)]
    name: Option<String>,
    /// All labels anew; may be given several times
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = parse_pair, conflicts_with = "no_labels")]
    labels: Vec<(String, String)>,
    /// Take all labels away
    #[arg(long)]
    no_labels: bool,
    /// All metadata anew; may be given several times
    #[arg(long, value_name = "KEY=VALUE", value_parser = parse_pair)]
    metadata: Vec<(String, String)>,
    /// What is done when its process ends by itself
    #[arg(long, value_enum)]
    on_crash: Option<CrashArg>,
}

/// How a server is rebuilt.
#[derive(Debug, clap::Args)]
pub(crate) struct RebuildArgs {
    /// Name, id or beginning of an id
    server: String,
    /// Image of the new root disk; without it the one that the server was made from
    #[arg(long)]
    image: Option<String>,
    /// Pull the plug: do not ask the guest
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    yes: YesArg,
    #[command(flatten)]
    wait: WaitArgs,
}

pub(super) async fn rebuild(app: &App, args: RebuildArgs) -> Result<()> {
    let client = app.client()?;
    let server: Server = resolve::one(&client, &args.server).await?;
    let image = match &args.image {
        Some(image) => Some(resolve::one::<Image>(&client, image).await?.meta.id),
        None => None,
    };
    let question = format!(
        "rebuild server {}: what is on its root disk is lost",
        clean(server.meta.name.as_str())
    );
    app.confirm(args.yes.yes, &question).await?;
    let body = json!({ "image": image, "force": args.force });
    let target = one(Server::KIND, server.meta.id).then("actions").then("rebuild");
    let accepted: ServerAccepted = client.change(Method::POST, target, Some(&body)).await?;
    Outcome::of(app, &client, accepted, &args.wait).await?.print(app)
}

pub(super) async fn list(app: &App, list: &ListArgs, filters: &Filters) -> Result<()> {
    let given = [
        ("lifecycle", &filters.lifecycle),
        ("power", &filters.power),
        ("host", &filters.host),
        ("image", &filters.image),
        ("flavor", &filters.flavor),
        ("sort", &filters.sort),
    ];
    let mut query = list.query();
    query.extend(
        given
            .into_iter()
            .filter_map(|(name, value)| Some((name, value.clone()?))),
    );
    let client = app.client()?;
    let servers: Vec<Server> = client.list(Server::KIND, &query, list.limit()).await?;
    app.print().list(&servers)
}

/// One change at once of several servers. The first that goes wrong gives the exit code; the others are done all the same.
pub(super) async fn at_once(app: &App, verb: &str, names: &[String], body: Option<&Value>) -> Result<()> {
    let client = app.client()?;
    let servers: Vec<Server> = resolve::many(&client, names).await?;
    let (mut changed, mut exit) = (Vec::<Server>::new(), Exit::Done);
    for server in &servers {
        let target = one(Server::KIND, server.meta.id).then("actions").then(verb);
        match client.change(Method::POST, target, body).await {
            Ok(server) => changed.push(server),
            Err(error) => {
                app::report(&error);
                if exit == Exit::Done {
                    exit = error.exit;
                }
            }
        }
    }
    if !changed.is_empty() {
        app.print().list(&changed)?;
    }
    match exit {
        Exit::Done => Ok(()),
        exit => Err(CliError::quiet(exit)),
    }
}

pub(super) async fn purge(app: &App, many: &Many, yes: YesArg) -> Result<()> {
    let names = clean(&many.servers.join(", "));
    app.confirm(yes.yes, &format!("purge server {names}")).await?;
    act(app, "purge", &many.servers, None, &many.wait).await
}

pub(super) async fn update(app: &App, args: UpdateArgs) -> Result<()> {
    let mut body = serde_json::Map::new();
    let pairs = |pairs: Vec<(String, String)>| -> Value {
        let pairs: std::collections::BTreeMap<String, String> = pairs.into_iter().collect();
        json!(pairs)
    };
    if let Some(name) = args.name {
        body.insert("name".to_owned(), json!(name));
    }
    if args.no_labels || !args.labels.is_empty() {
        body.insert("labels".to_owned(), pairs(args.labels));
    }
    if !args.metadata.is_empty() {
        body.insert("metadata".to_owned(), pairs(args.metadata));
    }
    if let Some(on_crash) = args.on_crash {
        body.insert("on_crash".to_owned(), json!(OnCrash::from(on_crash)));
    }
    if body.is_empty() {
        return Err(CliError::usage("nothing is to be changed")
            .hint("give --name, --label, --metadata or --on-crash"));
    }
    let client = app.client()?;
    let server: Server = resolve::one(&client, &args.server).await?;
    let target = one(Server::KIND, server.meta.id);
    let body = Value::Object(body);
    let server: Server = client.change(Method::PATCH, target, Some(&body)).await?;
    app.print().one(&server)
}

/// What became of each of several.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Batch {
    pub(super) items: Vec<Item>,
    #[serde(default)]
    refused: usize,
}

/// What became of one.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Item {
    #[serde(default)]
    id: Option<String>,
    #[serde(default)]
    pub(super) name: Option<String>,
    #[serde(default)]
    server: Option<Server>,
    #[serde(default)]
    pub(super) task: Option<skyloom_model::Task>,
    #[serde(default)]
    pub(super) password: Option<String>,
    #[serde(default)]
    refused: Option<skyloom_model::Reason>,
}

impl Row for Item {
    const HEAD: &'static [&'static str] = &["NAME", "STATE", "TASK", "REFUSED"];
    const WIDE: &'static [&'static str] = &["ID"];
    fn cells(&self, _now: Timestamp) -> Vec<String> {
        vec![
            self.name.clone().unwrap_or_default(),
            self.server.as_ref().map(out::server_state).unwrap_or_default(),
            self.task
                .as_ref()
                .map(|task| task.id.to_string())
                .unwrap_or_default(),
            self.refused.as_ref().map(ToString::to_string).unwrap_or_default(),
            self.id.clone().unwrap_or_default(),
        ]
    }
    fn name(&self) -> String {
        self.id.clone().or_else(|| self.name.clone()).unwrap_or_default()
    }
}

pub(super) async fn batch(app: &App, action: &str, labels: Vec<(String, String)>) -> Result<()> {
    let labels: std::collections::BTreeMap<String, String> = labels.into_iter().collect();
    let body = json!({ "action": action, "selector": { "labels": labels } });
    several(app, "batch", &body).await
}

/// A request with an answer for each of several servers; also as a dry run, which says for each whether it would be refused.
pub(super) async fn several(app: &App, what: &str, body: &Value) -> Result<()> {
    let mut target = kind(Server::KIND).then("actions").then(what);
    if app.globals.dry_run {
        target = target.query("dry_run", "plan");
    }
    answered(app, target, body).await
}

/// A request with an answer for each of several servers.
pub(super) async fn answered(app: &App, target: Target, body: &Value) -> Result<()> {
    let answer: Batch = app.client()?.whole().post(target, body).await?;
    for item in answer.items.iter().filter(|item| item.password.is_some()) {
        if matches!(app.globals.output, Format::Table | Format::Wide | Format::Name) {
            let of = format!("the password of {}", item.name.as_deref().unwrap_or_default());
            out::shown_once(&of, item.password.as_deref());
        }
    }
    app.print().list(&answer.items)?;
    if answer.refused > 0 {
        out::message(&format!(
            "{} of {} were refused",
            answer.refused,
            answer.items.len()
        ));
        return Err(CliError::quiet(Exit::Conflict));
    }
    Ok(())
}

/// Something that happened to a server.
#[derive(Debug, Serialize, Deserialize)]
struct Entry {
    at: Timestamp,
    #[serde(default)]
    until: Option<Timestamp>,
    what: String,
    name: String,
    text: String,
    #[serde(default)]
    task: Option<String>,
    #[serde(default)]
    state: Option<String>,
}

impl Row for Entry {
    const HEAD: &'static [&'static str] = &["AT", "TOOK", "WHAT", "NAME", "STATE", "TEXT"];
    const WIDE: &'static [&'static str] = &["TASK"];
    fn cells(&self, _now: Timestamp) -> Vec<String> {
        let took = self.until.map(|until| until.duration_since(self.at).as_millis());
        vec![
            self.at.to_string(),
            took.map(|ms| format!("{ms} ms")).unwrap_or_default(),
            self.what.clone(),
            self.name.clone(),
            self.state.clone().unwrap_or_default(),
            clean(&self.text),
            self.task.clone().unwrap_or_default(),
        ]
    }
    fn name(&self) -> String {
        self.name.clone()
    }
}

pub(super) async fn timeline(app: &App, name: &str) -> Result<()> {
    let client = app.client()?;
    let server: Server = resolve::one(&client, name).await?;
    let target = one(Server::KIND, server.meta.id).then("timeline");
    let entries: crate::client::types::Page<Entry> = client.get(target).await?;
    app.print().list(&entries.items)
}
