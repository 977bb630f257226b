//! `skyloom host enable|disable|drain`: hosts that take servers, take none, or are emptied.

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use skyloom_model::{Host, Resource as _};

use crate::app::App;
use crate::args::WaitArgs;
use crate::client::{Client, one};
use crate::error::{CliError, Result};
use crate::exit::Exit;
use crate::out::loose::Columns;
use crate::out::{self, Format};
use crate::resolve;

const STEPS: Columns = Columns {
    head: &[
        ("SERVER", "/name"),
        ("STATE", "/state"),
        ("HOW", "/way"),
        ("TO", "/to"),
        ("MEMORY", "/memory_mib"),
        ("WHY", "/why"),
    ],
    wide: &[("TASK", "/task"), ("ID", "/server")],
};

/// Time between two looks at a drain.
const LOOK: Duration = Duration::from_secs(1);

pub(super) async fn enable(app: &App, name: &str, enabled: bool, why: Option<&str>) -> Result<()> {
    let client = app.client()?;
    let host: Host = resolve::one(&client, name).await?;
    let target = one(Host::KIND, host.meta.id);
    let body = match why {
        Some(why) => json!({ "enabled": enabled, "why": why }),
        None => json!({ "enabled": enabled }),
    };
    let host: Host = client.change(Method::PATCH, target, Some(&body)).await?;
    app.print().list(&[host])
}

/// A host to empty.
#[derive(Debug, clap::Args)]
pub(crate) struct DrainArgs {
    /// Name, id or beginning of an id
    host: String,
    /// Why, for those who ask later
    #[arg(long, value_name = "TEXT", default_value = "")]
    why: String,
    /// How many servers are on their way at the same time
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=32))]
    at_once: Option<u32>,
    /// Only show how it stands, or what a drain would do
    #[arg(long)]
    show: bool,
    #[command(flatten)]
    wait: WaitArgs,
}

pub(super) async fn drain(app: &App, args: DrainArgs) -> Result<()> {
    let client = app.client()?;
    let host: Host = resolve::one(&client, &args.host).await?;
    if args.show || app.globals.dry_run {
        return shown(app, &plan(&client, &host).await?);
    }
    let target = one(Host::KIND, host.meta.id).then("actions").then("drain");
    let body = json!({ "why": args.why, "at_once": args.at_once });
    let _: Host = client.change(Method::POST, target, Some(&body)).await?;
    if !app.waits(&args.wait) {
        return shown(app, &plan(&client, &host).await?);
    }
    let ended = until_ended(&client, &host);
    let plan = match args.wait.timeout {
        Some(limit) => tokio::time::timeout(limit, ended).await.unwrap_or_else(|_| {
            let text = format!("{} is still being emptied", host.meta.name);
            let hint = format!("see `skyloom host drain {} --show`", host.meta.name);
            Err(CliError::new(Exit::TimedOut, text).hint(hint))
        }),
        None => ended.await,
    }?;
    shown(app, &plan)?;
    match plan["servers"].as_array().map_or(0, Vec::len) {
        0 => Ok(()),
        left => {
            out::message(&format!("{left} servers are still on {}", host.meta.name));
            Err(CliError::quiet(Exit::Conflict))
        }
    }
}

async fn plan(client: &Client, host: &Host) -> Result<Value> {
    client.get(one(Host::KIND, host.meta.id).then("drain")).await
}

async fn until_ended(client: &Client, host: &Host) -> Result<Value> {
    loop {
        let plan = plan(client, host).await?;
        if plan["under_way"] != json!(true) {
            return Ok(plan);
        }
        tokio::time::sleep(LOOK).await;
    }
}

fn shown(app: &App, plan: &Value) -> Result<()> {
    match (app.globals.output, plan["servers"].as_array()) {
        (Format::Table | Format::Wide, Some(steps)) => app.print().records(STEPS, steps),
        _ => app
            .print()
            .document(plan, plan["host"].as_str().unwrap_or_default()),
    }
}
