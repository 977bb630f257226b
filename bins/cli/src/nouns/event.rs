//! `skyloom event …`

use std::time::Duration;

use clap::Subcommand;
use serde::Serialize;
use serde_json::Value;
use skyloom_model::{Event, EventKind, Timestamp};

use crate::app::App;
use crate::client::kind;
use crate::client::types::Change;
use crate::error::{CliError, Result};
use crate::out::{self, Row};
use crate::text::word;

/// Verbs.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// List what happened in the project: within the last week, or what is archived
    #[command(
        visible_alias = "ls",
        after_help = "Examples:
  skyloom event list
  skyloom event list --kind task_ended --limit 20
  skyloom event list --archived --task 0198c0de-0000-7000-8000-000000000001
  skyloom event list --task 0198c0de-0000-7000-8000-000000000001 -o wide"
    )]
    List {
        /// Only of this kind, such as task_accepted, task_stuck or host_unreachable
        #[arg(long, value_parser = parse_kind)]
        kind: Option<EventKind>,
        /// Only those of the task of this id
        #[arg(long, value_name = "ID")]
        task: Option<uuid::Uuid>,
        /// Only those that happened to the resource of this id
        #[arg(long, value_name = "ID")]
        subject: Option<uuid::Uuid>,
        /// Those in the archive, which are older than a week, and no others
        #[arg(long)]
        archived: bool,
        /// At most so many, oldest first
        #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..))]
        limit: u32,
    },
    /// Print each change of the project's resources as it happens
    #[command(after_help = "Examples:
  skyloom event tail
  skyloom event tail --kind servers --kind tasks -o jsonl
  skyloom event tail --count 1 -o json")]
    Tail {
        /// Only this kind, such as servers, tasks, events or images; may be given several times
        #[arg(long = "kind", value_name = "KIND")]
        kinds: Vec<String>,
        /// End after so many changes
        #[arg(long, value_name = "N")]
        count: Option<u64>,
    },
}

/// One change as it is printed.
#[derive(Debug, Serialize)]
struct ChangeRow {
    event: String,
    revision: Option<String>,
    #[serde(flatten)]
    change: Change,
    #[serde(skip)]
    at: Timestamp,
}

impl ChangeRow {
    /// Text below the record, by a JSON pointer.
    fn at(&self, pointer: &str) -> Option<&str> {
        self.change
            .record
            .as_ref()
            .and_then(|record| record.pointer(pointer))
            .and_then(Value::as_str)
    }
}

impl Row for ChangeRow {
    const HEAD: &'static [&'static str] = &["TIME", "EVENT", "KIND", "NAME", "STATE"];
    const WIDE: &'static [&'static str] = &["ID", "REVISION"];
    fn cells(&self, _: Timestamp) -> Vec<String> {
        let states = ["/state", "/status/state", "/status/lifecycle", "/status/power"];
        let state: Vec<&str> = states.iter().filter_map(|pointer| self.at(pointer)).collect();
        vec![
            self.at.strftime("%H:%M:%SZ").to_string(),
            format!("{:6}", self.event),
            format!("{:8}", self.change.kind),
            self.name(),
            state.join("/"),
            self.change.id.to_string(),
            self.revision.clone().unwrap_or_default(),
        ]
    }
    fn name(&self) -> String {
        ["/meta/name", "/subject/name"]
            .iter()
            .find_map(|pointer| self.at(pointer))
            .map_or_else(|| self.change.id.to_string(), str::to_owned)
    }
}

fn parse_kind(text: &str) -> std::result::Result<EventKind, String> {
    serde_json::from_value(Value::from(text)).map_err(|_| {
        "is no kind of event; such are task_accepted, task_planned, task_unwinding, task_stuck, task_ordered, \
         task_ended, server_power, host_reachable and host_unreachable"
            .to_owned()
    })
}

pub(super) async fn run(app: &App, verb: Verb) -> Result<()> {
    match verb {
        Verb::List {
            kind,
            task,
            subject,
            archived,
            limit,
        } => {
            let kind = kind.map(|kind| ("kind", word(&kind)));
            let task = task.map(|id| ("task", id.to_string()));
            let subject = subject.map(|id| ("subject", id.to_string()));
            let archived = archived.then(|| ("archived", "true".to_owned()));
            let query: Vec<_> = [kind, task, subject, archived].into_iter().flatten().collect();
            let limit = usize::try_from(limit).unwrap_or(usize::MAX);
            let mut events: Vec<Event> = app.client()?.list("events", &query, limit).await?;
            // For administrators the cloud's own come behind the project's.
            events.sort_by_key(|event| event.at);
            app.print().list(&events)
        }
        Verb::Tail { kinds, count } => tail(app, kinds, count).await,
    }
}

async fn tail(app: &App, kinds: Vec<String>, count: Option<u64>) -> Result<()> {
    let client = app.client()?;
    let mut target = kind("watch");
    if !kinds.is_empty() {
        target = target.query("kinds", kinds.join(","));
    }
    let mut last: Option<String> = None;
    let mut left = count;
    while left != Some(0) {
        let mut events = client.events(target.clone(), last.as_deref()).await?;
        let mut gap = false;
        while let Some(event) = events.next().await? {
            if event.name == "gap" {
                out::message("some changes were missed; going on from now");
                gap = true;
                break;
            }
            if event.name != "put" && event.name != "delete" {
                continue;
            }
            let change: Change = serde_json::from_str(&event.data)
                .map_err(|error| CliError::unexpected(format!("an event is not understood: {error}")))?;
            app.print().item(&ChangeRow {
                event: event.name,
                revision: event.id,
                change,
                at: app.clock.now(),
            })?;
            if let Some(left) = &mut left {
                *left -= 1;
                if *left == 0 {
                    return Ok(());
                }
            }
        }
        last = if gap { None } else { events.last_id().or(last) };
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    Ok(())
}
