//! `skyloom host …`

use std::path::{Path, PathBuf};

use clap::Subcommand;
use reqwest::Method;
use serde_json::{Value, json};
use skyloom_bin::store::write_token;
use skyloom_model::{Host, Resource as _};

use super::{host_drain, host_fence, list, removal, show, task};
use crate::app::App;
use crate::args::{ListArgs, WaitArgs, YesArg};
use crate::client::types::{CreateHost, HostAdded, JoinTokenMade, Page, TaskAccepted};
use crate::client::{kind, one};
use crate::error::{CliError, Result};
use crate::out::loose::Columns;
use crate::out::{self, Format};
use crate::text::{clean, parse_pair};
use crate::{resolve, wait};

const CORRECTIONS: Columns = Columns {
    head: &[
        ("HOST", "/name"),
        ("RESOURCE", "/resource"),
        ("WAS", "/was"),
        ("IS", "/is"),
    ],
    wide: &[("ID", "/host")],
};

/// Verbs.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Register a host; its agent's token is shown once
    #[command(after_help = "Examples:
  skyloom host add rack1-n3 --label rack=1
  skyloom host add rack1-n3 --cpu-ratio 2 -o json")]
    Add {
        /// Its name
        name: String,
        /// Label of the host; may be given several times
        #[arg(long = "label", value_name = "KEY=VALUE", value_parser = parse_pair)]
        labels: Vec<(String, String)>,
        /// Virtual CPUs per real one
        #[arg(long, value_name = "RATIO")]
        cpu_ratio: Option<f64>,
        /// Virtual memory per real memory
        #[arg(long, value_name = "RATIO")]
        memory_ratio: Option<f64>,
        /// Virtual disk per real disk
        #[arg(long, value_name = "RATIO")]
        disk_ratio: Option<f64>,
    },
    /// List hosts
    #[command(
        visible_alias = "ls",
        after_help = "Examples:
  skyloom host list
  skyloom host list --label rack=1 -o wide"
    )]
    List(ListArgs),
    /// Show one host
    #[command(after_help = "Examples:
  skyloom host show rack1-n3
  skyloom host show rack1-n3 -o json")]
    Show {
        /// Name, id or beginning of an id
        host: String,
    },
    /// Let new servers be placed on a host
    #[command(after_help = "Examples:
  skyloom host enable rack1-n3
  skyloom host enable rack1-n3 -o json")]
    Enable {
        /// Name, id or beginning of an id
        host: String,
    },
    /// Place no new servers on a host; those on it stay
    #[command(after_help = "Examples:
  skyloom host disable rack1-n3
  skyloom host disable rack1-n3 --why firmware")]
    Disable {
        /// Name, id or beginning of an id
        host: String,
        /// Why, for those who ask later
        #[arg(long, value_name = "TEXT")]
        why: Option<String>,
    },
    /// Place no new servers on a host, and send those on it to others; `enable` ends it
    #[command(after_help = "Examples:
  skyloom host drain rack1-n3 --dry-run
  skyloom host drain rack1-n3 --why firmware --at-once 4 --wait
  skyloom host drain rack1-n3 --show")]
    Drain(host_drain::DrainArgs),
    /// Say that a host is off and stays off, so that its servers may be evacuated or purged without it
    #[command(after_help = "Examples:
  skyloom host fence rack1-n3 --why burnt
  skyloom host fence rack1-n3 --why burnt --yes")]
    Fence {
        /// Name, id or beginning of an id
        host: String,
        /// Why, and how you know that it is off
        #[arg(long, value_name = "TEXT")]
        why: String,
        #[command(flatten)]
        yes: YesArg,
    },
    /// Take a fenced host back: disabled, and swept of what lives elsewhere by now as soon as it reports
    #[command(after_help = "Examples:
  skyloom host unfence rack1-n3 --wait
  skyloom host unfence rack1-n3 --no-wait")]
    Unfence {
        /// Name, id or beginning of an id
        host: String,
        #[command(flatten)]
        wait: WaitArgs,
    },
    /// Start the servers of a fenced host on other hosts that see their disks
    #[command(after_help = "Examples:
  skyloom host evacuate rack1-n3
  skyloom host evacuate rack1-n3 --yes -o json")]
    Evacuate {
        /// Name, id or beginning of an id
        host: String,
        #[command(flatten)]
        yes: YesArg,
    },
    /// Count anew what servers and volumes take of all hosts and put right what is written otherwise
    #[command(after_help = "Examples:
  skyloom host recount
  skyloom host recount -o json")]
    Recount,
    /// Look for what lies on a host and belongs to no server
    #[command(after_help = "Examples:
  skyloom host sweep rack1-n3 --wait
  skyloom host sweep rack1-n3 --remove")]
    Sweep {
        /// Name, id or beginning of an id
        host: String,
        /// Take it away; without this it is only named
        #[arg(long)]
        remove: bool,
        #[command(flatten)]
        wait: WaitArgs,
    },
    /// Make a join token: with it a machine becomes this host, once
    #[command(after_help = "Examples:
  skyloom host join-token rack1-n3
  skyloom host join-token rack1-n3 --token-file join-token --roots-file roots.pem")]
    JoinToken {
        /// Name, id or beginning of an id
        host: String,
        /// Write the token here, readable by you alone, instead of showing it
        #[arg(long, value_name = "FILE")]
        token_file: Option<PathBuf>,
        /// Write the cloud's roots here; the machine needs them beside the token
        #[arg(long, value_name = "FILE")]
        roots_file: Option<PathBuf>,
    },
    /// Take back all certificates that a host has; it may join again
    #[command(after_help = "Examples:
  skyloom host revoke-certificates rack1-n3
  skyloom host revoke-certificates rack1-n3 --why stolen --yes")]
    RevokeCertificates {
        /// Name, id or beginning of an id
        host: String,
        /// Why, for those who ask later
        #[arg(long, value_name = "TEXT", default_value = "")]
        why: String,
        #[command(flatten)]
        yes: YesArg,
    },
    /// Forget hosts; refused while servers are on them
    #[command(
        visible_alias = "rm",
        after_help = "Examples:
  skyloom host remove rack1-n3
  skyloom host remove rack1-n3 --yes"
    )]
    Remove {
        /// Names, ids or beginnings of ids
        #[arg(required = true)]
        hosts: Vec<String>,
        #[command(flatten)]
        yes: YesArg,
    },
}

pub(super) async fn run(app: &App, verb: Verb) -> Result<()> {
    match verb {
        Verb::Add {
            name,
            labels,
            cpu_ratio,
            memory_ratio,
            disk_ratio,
        } => {
            let request = CreateHost {
                name,
                labels: labels.into_iter().collect(),
                cpu_ratio,
                memory_ratio,
                disk_ratio,
            };
            let added: HostAdded = app.client()?.post(kind(Host::KIND), &request).await?;
            added_host(app, &added)
        }
        Verb::List(args) => list::<Host>(app, &args).await,
        Verb::Show { host } => show::<Host>(app, &host).await,
        Verb::Enable { host } => host_drain::enable(app, &host, true, None).await,
        Verb::Disable { host, why } => host_drain::enable(app, &host, false, why.as_deref()).await,
        Verb::Drain(args) => host_drain::drain(app, args).await,
        Verb::Sweep { host, remove, wait } => sweep(app, &host, remove, &wait).await,
        Verb::Recount => recount(app).await,
        Verb::Fence { host, why, yes } => host_fence::fence(app, &host, &why, yes).await,
        Verb::Unfence { host, wait } => host_fence::unfence(app, &host, &wait).await,
        Verb::Evacuate { host, yes } => host_fence::evacuate(app, &host, yes).await,
        Verb::JoinToken {
            host,
            token_file,
            roots_file,
        } => join_token(app, &host, token_file.as_deref(), roots_file.as_deref()).await,
        Verb::RevokeCertificates { host, why, yes } => revoke(app, &host, &why, yes).await,
        Verb::Remove { hosts, yes } => {
            removal::run::<Host>(app, &hosts, "remove", yes, &WaitArgs::default()).await
        }
    }
}

async fn recount(app: &App) -> Result<()> {
    let target = kind("hosts").then("actions").then("recount");
    let found: Page<Value> = app.client()?.change(Method::POST, target, None::<&Value>).await?;
    app.print().records(CORRECTIONS, &found.items)
}

fn added_host(app: &App, added: &HostAdded) -> Result<()> {
    match app.globals.output {
        Format::Table | Format::Wide => {
            app.print().list(std::slice::from_ref(&added.host))?;
            out::shown_once("the agent's token", added.token.as_deref());
            Ok(())
        }
        _ => {
            let value = out::json(added)?;
            app.print().document(&value, added.host.meta.name.as_str())
        }
    }
}

async fn join_token(app: &App, name: &str, token: Option<&Path>, roots: Option<&Path>) -> Result<()> {
    let client = app.client()?;
    let host: Host = resolve::one(&client, name).await?;
    let target = one(Host::KIND, host.meta.id).then("actions").then("join-token");
    let mut made: JoinTokenMade = client.post(target, &json!({})).await?;
    let unwritten =
        |path: &Path, e: std::io::Error| CliError::usage(format!("cannot write {}: {e}", path.display()));
    if let Some(path) = roots {
        std::fs::write(path, &made.roots).map_err(|e| unwritten(path, e))?;
    }
    if let (Some(path), Some(secret)) = (token, &made.token) {
        write_token(path, secret).map_err(|e| unwritten(path, e))?;
        // It is where it was wanted; nobody else is to see it.
        made.token = None;
    }
    match app.globals.output {
        Format::Table | Format::Wide => {
            out::message(&format!(
                "agent.name of that machine must be {}; the token ends at {}",
                clean(&made.name),
                made.until
            ));
            if token.is_none() {
                out::shown_once("the join token", made.token.as_deref());
            }
            Ok(())
        }
        _ => app.print().document(&out::json(&made)?, host.meta.name.as_str()),
    }
}

async fn revoke(app: &App, name: &str, why: &str, yes: YesArg) -> Result<()> {
    let client = app.client()?;
    let host: Host = resolve::one(&client, name).await?;
    app.confirm(
        yes.yes,
        &format!("take back all certificates of {}", host.meta.name),
    )
    .await?;
    let target = one(Host::KIND, host.meta.id)
        .then("actions")
        .then("revoke-certificates");
    let done: serde_json::Value = client.post(target, &json!({ "why": why })).await?;
    match app.globals.output {
        Format::Table | Format::Wide => {
            out::message(&format!(
                "{} has to join again, with a new join token",
                host.meta.name
            ));
            Ok(())
        }
        _ => app.print().document(&done, host.meta.name.as_str()),
    }
}

async fn sweep(app: &App, name: &str, remove: bool, wait: &WaitArgs) -> Result<()> {
    let client = app.client()?;
    let host: Host = resolve::one(&client, name).await?;
    let target = one(Host::KIND, host.meta.id).then("actions").then("sweep");
    let accepted: TaskAccepted = client.post(target, &json!({ "remove": remove })).await?;
    if !app.waits(wait) {
        return task::under_way(app, &accepted.task);
    }
    let document = wait::done(app, &client, &accepted.task, wait.timeout).await?;
    task::show(app, &document)
}
