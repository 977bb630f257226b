//! `skyloom task …`

use std::time::Duration;

use clap::Subcommand;
use serde_json::{Value, json};
use skyloom_bin::nearest::nearest;
use skyloom_model::{Clock as _, Task, TaskState, Timestamp};

use crate::app::{self, App};
use crate::args::WaitArgs;
use crate::client::Client;
use crate::client::types::{TaskAccepted, TaskDocument};
use crate::error::{CliError, Result};
use crate::exit::Exit;
use crate::out::{self, Format, Row as _};
use crate::text::{clean, parse_duration, parse_pair, word};
use crate::{resolve, steps, wait};

/// Verbs.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// List tasks
    #[command(
        visible_alias = "ls",
        after_help = "Examples:
  skyloom task list
  skyloom task list --state failed --flow server.create
  skyloom task list --archived --filter name=web-1 --filter ended-after=2026-11-01
  skyloom task list --archived --filter code=image --filter ended-after=72h -o jsonl"
    )]
    List {
        /// Only those in this state, such as running, failed or stuck
        #[arg(long, value_parser = parse_state)]
        state: Option<TaskState>,
        /// Only those of this flow, such as server.create
        #[arg(long)]
        flow: Option<String>,
        /// Only those that change the resource of this id
        #[arg(long, value_name = "ID")]
        subject: Option<uuid::Uuid>,
        /// Those that have moved to the archive, by their ends, and no others
        #[arg(long)]
        archived: bool,
        /// Only those that fit; may be given several times. Keys: state, flow, subject (an id), kind (such as servers),
        /// name, actor (id or name), code (of the reason, or its first words), started-after, started-before,
        /// ended-after, ended-before (a date, a moment, or how long ago)
        #[arg(long = "filter", value_name = "KEY=VALUE", value_parser = parse_pair)]
        filters: Vec<(String, String)>,
        /// At most so many
        #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..))]
        limit: u32,
    },
    /// Show one task with its steps
    #[command(after_help = "Examples:
  skyloom task show 0198c0de
  skyloom task show 0198c0de -o json")]
    Show {
        /// Id or beginning of an id
        task: String,
    },
    /// Wait until tasks are done
    #[command(after_help = "Examples:
  skyloom task wait 0198c0de --timeout 5m
  skyloom task wait $(skyloom server create web-1 --image debian --flavor small --no-wait -o name)")]
    Wait {
        /// Ids or beginnings of ids
        #[arg(required = true)]
        tasks: Vec<String>,
        /// Wait at most this long for each
        #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
        timeout: Option<Duration>,
    },
    /// Let a stuck task try again: the cause is repaired. Admins only
    #[command(after_help = "Examples:
  skyloom task retry 0198c0de --why repaired
  skyloom task retry 0198c0de --why repaired --no-wait")]
    Retry(OrderArgs),
    /// Take what a stuck task cannot undo as undone: it was dealt with by hand. Admins only
    #[command(after_help = "Examples:
  skyloom task skip 0198c0de --why removed
  skyloom task skip 0198c0de --why removed -o json")]
    Skip(OrderArgs),
    /// End a stuck task as failed and leave what is left. Admins only
    #[command(after_help = "Examples:
  skyloom task abandon 0198c0de --why scrapped
  skyloom task abandon 0198c0de --why scrapped --no-wait")]
    Abandon(OrderArgs),
    /// Ask for a task's end: what it did is undone
    #[command(after_help = "Examples:
  skyloom task cancel 0198c0de
  skyloom task cancel 0198c0de -o json")]
    Cancel {
        /// Id or beginning of an id
        task: String,
    },
}

/// An operator's order.
#[derive(Debug, clap::Args)]
pub(crate) struct OrderArgs {
    /// Id or beginning of an id
    task: String,
    /// Why, for the record
    #[arg(long, value_name = "TEXT")]
    why: String,
    #[command(flatten)]
    wait: WaitArgs,
}

fn parse_state(text: &str) -> std::result::Result<TaskState, String> {
    serde_json::from_value(Value::from(text)).map_err(|_| {
        let all: Vec<String> = TaskState::ALL.iter().map(word).collect();
        format!("is none of {}", all.join(", "))
    })
}

/// What can be asked of tasks: the parameters of the list.
const FILTERS: [&str; 11] = [
    "state",
    "flow",
    "subject",
    "kind",
    "name",
    "actor",
    "code",
    "started_after",
    "started_before",
    "ended_after",
    "ended_before",
];

/// A `--filter` as a parameter of the list.
fn filter(key: &str, value: String, now: Timestamp) -> Result<(&'static str, String)> {
    let wanted = key.replace('-', "_");
    let Some(known) = FILTERS.into_iter().find(|known| *known == wanted) else {
        let error = CliError::usage(format!("tasks cannot be filtered by \"{key}\""));
        return Err(match nearest(&wanted, FILTERS, 1).first() {
            Some(near) => error.hint(format!("did you mean {}?", near.replace('_', "-"))),
            None => error.hint(format!("they can by {}", FILTERS.join(", ").replace('_', "-"))),
        });
    };
    if !known.ends_with("_after") && !known.ends_with("_before") {
        return Ok((known, value));
    }
    let at = moment(&value, now).ok_or_else(|| {
        CliError::usage(format!("{key}={value}: that is no time"))
            .hint("write 2026-11-22, 2026-11-22T10:30:00Z, or how long ago: 90m, 72h")
    })?;
    Ok((known, at.to_string()))
}

/// A moment, the beginning of a day (UTC), or how long ago.
fn moment(text: &str, now: Timestamp) -> Option<Timestamp> {
    if let Ok(at) = text.parse::<Timestamp>() {
        return Some(at);
    }
    if let Ok(day) = text.parse::<jiff::civil::Date>() {
        return Some(day.to_zoned(jiff::tz::TimeZone::UTC).ok()?.timestamp());
    }
    let ago = jiff::SignedDuration::try_from(parse_duration(text).ok()?).ok()?;
    now.checked_sub(ago).ok()
}

pub(super) async fn run(app: &App, verb: Verb) -> Result<()> {
    let client = app.client()?;
    match verb {
        Verb::List {
            state,
            flow,
            subject,
            archived,
            filters,
            limit,
        } => {
            let state = state.map(|state| ("state", word(&state)));
            let flow = flow.map(|flow| ("flow", flow));
            let subject = subject.map(|id| ("subject", id.to_string()));
            let archived = archived.then(|| ("archived", "true".to_owned()));
            let mut query: Vec<_> = [state, flow, subject, archived].into_iter().flatten().collect();
            for (key, value) in filters {
                let filter = filter(&key, value, app.clock.now())?;
                if query.iter().any(|(known, _)| *known == filter.0) {
                    return Err(CliError::usage(format!("{key} is asked for twice")));
                }
                query.push(filter);
            }
            let limit = usize::try_from(limit).unwrap_or(usize::MAX);
            let tasks: Vec<Task> = client.list("tasks", &query, limit).await?;
            app.print().list(&tasks)
        }
        Verb::Show { task } => {
            let task = resolve::task(&client, &task).await?;
            let document: TaskDocument = client.get(resolve::task_target(task.id.uuid())).await?;
            show(app, &document)
        }
        Verb::Wait { tasks, timeout } => {
            let mut exit = Exit::Done;
            for text in &tasks {
                let task = resolve::task(&client, text).await?;
                match wait::done(app, &client, &task, timeout).await {
                    Ok(document) if tasks.len() == 1 => show(app, &document)?,
                    Ok(document) => app.print().item(&document.task)?,
                    Err(error) => {
                        app::report(&error);
                        if exit == Exit::Done {
                            exit = error.exit;
                        }
                    }
                }
            }
            match exit {
                Exit::Done => Ok(()),
                exit => Err(CliError::quiet(exit)),
            }
        }
        Verb::Cancel { task } => {
            let task = resolve::task(&client, &task).await?;
            let target = resolve::task_target(task.id.uuid()).then("cancel");
            let accepted: TaskAccepted = client
                .change(reqwest::Method::POST, target, None::<&Value>)
                .await?;
            app.print().list(&[accepted.task])
        }
        Verb::Retry(args) => order(app, &client, "retry", args).await,
        Verb::Skip(args) => order(app, &client, "skip", args).await,
        Verb::Abandon(args) => order(app, &client, "abandon", args).await,
    }
}

/// Gives an order and waits for what becomes of the task: any end is what was wanted, stuck again is not.
async fn order(app: &App, client: &Client, verb: &str, args: OrderArgs) -> Result<()> {
    let task = resolve::task(client, &args.task).await?;
    let target = resolve::task_target(task.id.uuid()).then("actions").then(verb);
    let accepted: TaskAccepted = client.post(target, &json!({ "why": args.why })).await?;
    if !app.waits(&args.wait) {
        return under_way(app, &accepted.task);
    }
    let document = wait::ended(app, client, task.id, args.wait.timeout).await?;
    if document.task.state == TaskState::Stuck {
        return Err(wait::failure(&document));
    }
    show(app, &document)
}

/// A task that nobody waits for.
pub(super) fn under_way(app: &App, task: &Task) -> Result<()> {
    app.print().list(std::slice::from_ref(task))?;
    if matches!(app.globals.output, Format::Table | Format::Wide) {
        out::message(&format!(
            "task {0} is under way; wait with: skyloom task wait {0}",
            task.id
        ));
    }
    Ok(())
}

pub(super) fn show(app: &App, document: &TaskDocument) -> Result<()> {
    match app.globals.output {
        Format::Table | Format::Wide => {
            let mut details = document.task.details(app.clock.now());
            if document.archived {
                details.push(("Archived", "yes".to_owned()));
            }
            let mut text = out::details(&details);
            let tree = steps::tree(document);
            if !tree.is_empty() {
                text.push('\n');
                text.push_str(&tree);
            }
            if let Some(result) = &document.task.result {
                text.push_str("\nResult\n");
                text.push_str(&out::to_yaml(result));
            }
            if document.task.rests() && document.task.state == TaskState::Stuck {
                let at = steps::stuck_at(document);
                let orders = steps::orders(&document.task);
                for line in at.into_iter().chain(orders) {
                    text.push_str(&format!("\n{}", clean(&line)));
                }
                text.push('\n');
            }
            out::raw(&text)
        }
        _ => {
            let value = out::json(document)?;
            app.print().document(&value, &document.task.name())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_are_parameters_of_the_list_and_times_are_moments() {
        let now: Timestamp = "2026-11-22T12:00:00Z".parse().unwrap();
        let asked = |key: &str, value: &str| filter(key, value.to_owned(), now);
        for (key, value, wanted) in [
            ("name", "web-1", ("name", "web-1")),
            (
                "ended-after",
                "2026-11-01",
                ("ended_after", "2026-11-01T00:00:00Z"),
            ),
            ("ended_before", "24h", ("ended_before", "2026-11-21T12:00:00Z")),
            (
                "started-before",
                "2026-11-22T13:00:00+02:00",
                ("started_before", "2026-11-22T11:00:00Z"),
            ),
        ] {
            let (name, text) = asked(key, value).unwrap();
            assert_eq!((name, text.as_str()), wanted);
        }
        let error = asked("ended-afer", "24h").unwrap_err();
        assert!(
            error.render(false).contains("did you mean ended-after?"),
            "{error:?}"
        );
        let error = asked("ended-after", "lately").unwrap_err();
        assert!(error.render(false).contains("72h"), "{error:?}");
        for key in FILTERS {
            assert!(asked(key, "24h").is_ok(), "{key}");
        }
    }
}
