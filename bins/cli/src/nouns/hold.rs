//! `skyloom hold …`

use clap::Subcommand;
use serde_json::{Value, json};

use crate::app::App;
use crate::args::YesArg;
use crate::client::kind;
use crate::error::Result;

/// Verbs.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Show whether the fleet is held, which hosts are silent, and which guests are not as recorded
    #[command(after_help = "Examples:
  skyloom hold show
  skyloom hold show -o json")]
    Show,
    /// Begin nothing more on any host; guests run on. Admins only
    #[command(after_help = "Examples:
  skyloom hold set --reason maintenance
  skyloom hold set --reason \"the storage network is being rebuilt\"")]
    Set {
        /// Why
        #[arg(long, value_name = "TEXT")]
        reason: String,
    },
    /// Record what hosts report: servers whose guests run, are off or are newer become as these are. Admins only
    #[command(after_help = "Examples:
  skyloom hold adopt
  skyloom hold adopt --yes -o json")]
    Adopt {
        #[command(flatten)]
        yes: YesArg,
    },
    /// Let work go on. Admins only
    #[command(after_help = "Examples:
  skyloom hold release
  skyloom hold release --anyway --yes")]
    Release {
        /// Also when hosts have not reported or guests are not as recorded
        #[arg(long)]
        anyway: bool,
        #[command(flatten)]
        yes: YesArg,
    },
}

pub(super) async fn run(app: &App, verb: Verb) -> Result<()> {
    match verb {
        Verb::Show => show(app, &app.client()?.get(kind("hold")).await?),
        Verb::Set { reason } => {
            let status: Value = app
                .client()?
                .post(kind("hold"), &json!({ "reason": reason }))
                .await?;
            show(app, &status)
        }
        Verb::Adopt { yes } => adopt(app, &yes).await,
        Verb::Release { anyway, yes } => {
            app.confirm(yes.yes, "let work go on on all hosts").await?;
            let target = kind("hold").then("actions").then("release");
            let status: Value = app.client()?.post(target, &json!({ "anyway": anyway })).await?;
            show(app, &status)
        }
    }
}

async fn adopt(app: &App, yes: &YesArg) -> Result<()> {
    let question = "record what the hosts report of servers that are not as recorded";
    app.confirm(yes.yes, question).await?;
    let mut servers = Vec::new();
    loop {
        let target = kind("hold").then("actions").then("adopt");
        let mut answer: Value = app.client()?.post(target, &json!({})).await?;
        if let Some(page) = answer["servers"].as_array_mut() {
            servers.append(page);
        }
        if answer["more"] != true {
            break;
        }
    }
    let name = format!("{} servers", servers.len());
    app.print().document(&json!({ "servers": servers }), &name)
}

fn show(app: &App, status: &Value) -> Result<()> {
    let name = if status["hold"].is_null() {
        "released"
    } else {
        "held"
    };
    app.print().document(status, name)
}
