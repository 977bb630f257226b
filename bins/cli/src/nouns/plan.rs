//! `skyloom plan …`

use clap::Subcommand;
use serde_json::Value;
use skyloom::cloud::ShownPlan;

use super::task;
use crate::app::App;
use crate::args::WaitArgs;
use crate::client::kind;
use crate::client::types::PlanApplied;
use crate::error::Result;
use crate::out::{self, Format, Row as _};
use crate::{preview, resolve, wait};

/// Verbs.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// List the plans that --dry-run has shown within the last day
    #[command(
        visible_alias = "ls",
        after_help = "Examples:
  skyloom plan list
  skyloom plan list -o wide"
    )]
    List {
        /// At most so many
        #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..))]
        limit: u32,
    },
    /// Show a plan again
    #[command(after_help = "Examples:
  skyloom plan show 0198c0de
  skyloom plan show 0198c0de -o json")]
    Show {
        /// Id or beginning of an id
        plan: String,
    },
    /// Do exactly what a plan shows; refused when the world has moved
    #[command(after_help = "Examples:
  skyloom plan apply 0198c0de --wait
  skyloom plan apply 0198c0de --no-wait -o name")]
    Apply {
        /// Id or beginning of an id
        plan: String,
        #[command(flatten)]
        wait: WaitArgs,
    },
}

pub(super) async fn run(app: &App, verb: Verb) -> Result<()> {
    let client = app.client()?;
    match verb {
        Verb::List { limit } => {
            let limit = usize::try_from(limit).unwrap_or(usize::MAX);
            let plans: Vec<ShownPlan> = client.list("plans", &[], limit).await?;
            app.print().list(&plans)
        }
        Verb::Show { plan } => {
            let plan = resolve::plan(&client, &plan).await?;
            match app.globals.output {
                Format::Table | Format::Wide => {
                    let mut text = out::details(&plan.details(app.clock.now()));
                    text.push_str(&format!("\n{}", preview::text(&plan.preview)));
                    out::raw(&text)
                }
                _ => app.print().one(&plan),
            }
        }
        Verb::Apply { plan, wait } => {
            let plan = resolve::plan(&client, &plan).await?;
            let target = kind("plans").then(plan.id).then("actions").then("apply");
            let applied: PlanApplied = client
                .change(reqwest::Method::POST, target, None::<&Value>)
                .await?;
            if applied.password.is_some() {
                // Before the wait: whatever becomes of that, the password is not lost.
                out::shown_once("the password", applied.password.as_deref());
            }
            if !app.waits(&wait) {
                return task::under_way(app, &applied.task);
            }
            let document = wait::done(app, &client, &applied.task, wait.timeout).await?;
            task::show(app, &document)
        }
    }
}
