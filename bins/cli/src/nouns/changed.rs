//! Changes that a task carries out: asked for, waited for where that is wanted, and printed as the record is then.

use reqwest::Method;
use serde_json::{Map, Value, json};
use skyloom_model::{Resource, Task};

use crate::app::App;
use crate::args::WaitArgs;
use crate::client::{Client, Target, one};
use crate::error::{CliError, Result};
use crate::out::{self, Format, Row};
use crate::{resolve, wait};

/// One part of an answer.
fn part<T: serde::de::DeserializeOwned>(answer: &mut Map<String, Value>, name: &str) -> Result<T> {
    let value = answer.remove(name).unwrap_or_default();
    serde_json::from_value(value).map_err(|e| CliError::unexpected(format!("the answer has no {name}: {e}")))
}

/// The action `verb` of the record that `named` names.
pub(super) async fn act<R: Resource + Row>(
    app: &App,
    verb: &str,
    named: &str,
    body: Option<&Value>,
    waiting: &WaitArgs,
) -> Result<()> {
    let client = app.client()?;
    let found: R = resolve::one(&client, named).await?;
    let target = one(R::KIND, found.meta().id).then("actions").then(verb);
    ask::<R>(app, &client, target, body, waiting).await
}

/// A change whose answer is a record and its task.
pub(super) async fn ask<R: Resource + Row>(
    app: &App,
    client: &Client,
    target: Target,
    body: Option<&Value>,
    waiting: &WaitArgs,
) -> Result<()> {
    let noun = R::KIND.trim_end_matches('s');
    let mut answer: Map<String, Value> = client.change(Method::POST, target, body).await?;
    let (mut record, mut task): (R, Task) = (part(&mut answer, noun)?, part(&mut answer, "task")?);
    let waited = app.waits(waiting);
    if waited {
        task = wait::done(app, client, &task, waiting.timeout).await?.task;
        record = client.record(record.meta().id).await?;
    }
    match app.globals.output {
        Format::Table | Format::Wide | Format::Name => {
            app.print().list(std::slice::from_ref(&record))?;
        }
        Format::Json | Format::Jsonl | Format::Yaml => {
            let name = record.meta().name.to_string();
            app.print()
                .document(&json!({ noun: record, "task": task }), &name)?;
        }
    }
    if !waited {
        let task = task.id;
        out::message(&format!(
            "task {task} is under way; wait with: skyloom task wait {task}"
        ));
    }
    Ok(())
}
