//! `delete` of any kind: name, ask, remove, wait.

use serde::Serialize;
use serde_json::json;
use skyloom_model::Resource;

use crate::app::{self, App};
use crate::args::{WaitArgs, YesArg};
use crate::error::{CliError, Result};
use crate::exit::Exit;
use crate::out::{self, Format};
use crate::text::clean;
use crate::{resolve, wait};

/// Removes all that are named. Nothing is removed before every name is known.
pub(super) async fn run<R: Resource>(
    app: &App,
    names: &[String],
    verb: &str,
    yes: YesArg,
    wait: &WaitArgs,
) -> Result<()> {
    run_with::<R>(app, names, (verb, &[]), yes, wait).await
}

/// The same, with what the requests say besides.
pub(super) async fn run_with<R: Resource>(
    app: &App,
    names: &[String],
    (verb, query): (&str, &[(&'static str, String)]),
    yes: YesArg,
    wait: &WaitArgs,
) -> Result<()> {
    let noun = R::KIND.trim_end_matches('s');
    let client = app.client()?;
    let records: Vec<R> = resolve::many(&client, names).await?;
    let list: Vec<String> = records.iter().map(|r| r.meta().name.to_string()).collect();
    app.confirm(yes.yes, &format!("{verb} {noun} {}", clean(&list.join(", "))))
        .await?;
    let mut exit = Exit::Done;
    for record in &records {
        let one = async {
            let meta = record.meta();
            let task = client.delete(R::KIND, meta.id, query).await?.task;
            let mut waited = true;
            let task = match task {
                Some(task) if app.waits(wait) => {
                    Some(wait::done(app, &client, &task, wait.timeout).await?.task)
                }
                Some(task) => {
                    waited = false;
                    Some(task)
                }
                None => None,
            };
            say(app, noun, record, verb, task.as_ref(), waited)
        };
        if let Err(error) = one.await {
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

fn say<R: Resource + Serialize>(
    app: &App,
    noun: &str,
    record: &R,
    verb: &str,
    task: Option<&skyloom_model::Task>,
    waited: bool,
) -> Result<()> {
    let name = &record.meta().name;
    match (app.globals.output, task) {
        (Format::Table | Format::Wide, Some(task)) if !waited => {
            out::line(&format!("{verb} {noun} {name}: task {}", task.id))
        }
        (Format::Table | Format::Wide, _) => out::line(&format!("{noun} {name}: {verb}d")),
        (Format::Name, Some(task)) if !waited => out::line(&task.id.to_string()),
        _ => app
            .print()
            .document(&json!({ noun: record, "task": task }), name.as_str()),
    }
}
