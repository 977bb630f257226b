//! `skyloom server …`

use std::time::Duration;

use clap::Subcommand;
use reqwest::Method;
use skyloom_model::{Lifecycle, PowerState, Resource as _, Server};
use skyloom_scheduler::Explanation;

use super::create::{self, CreateArgs};
use super::{list, logs, removal, show};
use crate::app::{self, App};
use crate::args::{ListArgs, WaitArgs, YesArg};
use crate::client::types::{Change, PlacementAnswer, PowerOff, ServerAccepted};
use crate::client::{Client, Target, kind, one};
use crate::error::{CliError, Result};
use crate::exit::Exit;
use crate::out::{self, Format, Row, server_state};
use crate::text::{clean_lines, parse_duration, word};
use crate::{resolve, wait};

/// Verbs.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Make a server
    #[command(after_help = create::EXAMPLES)]
    Create(Box<CreateArgs>),
    /// List servers
    #[command(
        visible_alias = "ls",
        after_help = "Examples:
  skyloom server list
  skyloom server list --label env=test -o wide
  skyloom server list --name web-1 -o json"
    )]
    List(ListArgs),
    /// Show one server with all that is known of it
    #[command(after_help = "Examples:
  skyloom server show web-1
  skyloom server show web-1 -o json")]
    Show {
        /// Name, id or beginning of an id
        server: String,
    },
    /// Turn servers on
    #[command(after_help = "Examples:
  skyloom server start web-1
  skyloom server start web-1 web-2 --no-wait")]
    Start {
        /// Names, ids or beginnings of ids
        #[arg(required = true)]
        servers: Vec<String>,
        #[command(flatten)]
        wait: WaitArgs,
    },
    /// Turn servers off: the guest is asked first
    #[command(after_help = "Examples:
  skyloom server stop web-1
  skyloom server stop web-1 --guest-time 5m
  skyloom server stop web-1 --force")]
    Stop(PowerArgs),
    /// Turn servers off and on again
    #[command(after_help = "Examples:
  skyloom server reboot web-1
  skyloom server reboot web-1 --force")]
    Reboot(PowerArgs),
    /// Remove servers with their disks
    #[command(
        visible_alias = "rm",
        after_help = "Examples:
  skyloom server delete web-1
  skyloom server delete web-1 web-2 --yes --wait"
    )]
    Delete {
        /// Names, ids or beginnings of ids
        #[arg(required = true)]
        servers: Vec<String>,
        #[command(flatten)]
        yes: YesArg,
        #[command(flatten)]
        wait: WaitArgs,
    },
    /// Print what a server wrote to its serial console
    #[command(after_help = "Examples:
  skyloom server console web-1
  skyloom server console web-1 --bytes 1000")]
    Console {
        /// Name, id or beginning of an id
        server: String,
        /// How much of the end
        #[arg(long, value_name = "N", default_value_t = 65_536)]
        bytes: u32,
    },
    /// Explain why a server is on its host, or on none
    #[command(after_help = "Examples:
  skyloom server why web-1
  skyloom server why web-1 -o json")]
    Why {
        /// Name, id or beginning of an id
        server: String,
    },
    /// Wait until a server is in a state
    #[command(after_help = "Examples:
  skyloom server wait web-1 --for running
  skyloom server wait web-1 --for deleted --timeout 5m")]
    Wait {
        /// Name, id or beginning of an id
        server: String,
        /// Which state
        #[arg(long = "for", value_enum)]
        state: Wanted,
        /// Wait at most this long
        #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
        timeout: Option<Duration>,
    },
}

/// How servers are turned off.
#[derive(Debug, clap::Args)]
pub(crate) struct PowerArgs {
    /// Names, ids or beginnings of ids
    #[arg(required = true)]
    servers: Vec<String>,
    /// Pull the plug: do not ask the guest
    #[arg(long)]
    force: bool,
    /// How long the guest has before the plug is pulled
    #[arg(long, value_name = "DURATION", value_parser = parse_duration, conflicts_with = "force")]
    guest_time: Option<Duration>,
    #[command(flatten)]
    wait: WaitArgs,
}

/// What `server wait` waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Wanted {
    /// Active and executing
    Running,
    /// Active and off
    Stopped,
    /// Usable, on or off
    Active,
    /// Gone
    Deleted,
}

pub(super) async fn run(app: &App, verb: Verb) -> Result<()> {
    match verb {
        Verb::Create(args) => create::run(app, *args).await,
        Verb::List(args) => list::<Server>(app, &args).await,
        Verb::Show { server } => show::<Server>(app, &server).await,
        Verb::Start { servers, wait } => act(app, "start", &servers, None, &wait).await,
        Verb::Stop(args) => power(app, "stop", args).await,
        Verb::Reboot(args) => power(app, "reboot", args).await,
        Verb::Delete { servers, yes, wait } => {
            removal::run::<Server>(app, &servers, "delete", yes, &wait).await
        }
        Verb::Console { server, bytes } => console(app, &server, bytes).await,
        Verb::Why { server } => why(app, &server).await,
        Verb::Wait {
            server,
            state,
            timeout,
        } => wait_for(app, &server, state, timeout).await,
    }
}

async fn power(app: &App, verb: &str, args: PowerArgs) -> Result<()> {
    let seconds = args.guest_time.map(|time| u32::try_from(time.as_secs()));
    let body = PowerOff {
        force: args.force,
        timeout_seconds: seconds
            .transpose()
            .map_err(|_| CliError::usage("--guest-time is too long"))?,
    };
    act(app, verb, &args.servers, Some(body), &args.wait).await
}

/// One action on several servers. The first that goes wrong gives the exit code; the others are done all the same.
async fn act(app: &App, verb: &str, names: &[String], body: Option<PowerOff>, wait: &WaitArgs) -> Result<()> {
    let client = app.client()?;
    let servers: Vec<Server> = resolve::many(&client, names).await?;
    let mut results = Vec::new();
    let mut exit = Exit::Done;
    for server in &servers {
        let target = one(Server::KIND, server.meta.id).then("actions").then(verb);
        let result = async {
            let accepted = client.change(Method::POST, target, body.as_ref()).await?;
            Outcome::of(app, &client, accepted, wait).await
        };
        match result.await {
            Ok(outcome) => results.push(outcome),
            Err(error) => {
                app::report(&error);
                if exit == Exit::Done {
                    exit = error.exit;
                }
            }
        }
    }
    match results.as_slice() {
        [] => {}
        [only] if names.len() == 1 => only.print(app)?,
        all => app.print().list(all)?,
    }
    match exit {
        Exit::Done => Ok(()),
        exit => Err(CliError::quiet(exit)),
    }
}

/// What became of one request.
#[derive(Debug, serde::Serialize)]
pub(super) struct Outcome {
    #[serde(flatten)]
    accepted: ServerAccepted,
    #[serde(skip)]
    waited: bool,
}

impl Outcome {
    /// Waits where that is wanted, then looks at the server again.
    pub(super) async fn of(
        app: &App,
        client: &Client,
        mut accepted: ServerAccepted,
        wait: &WaitArgs,
    ) -> Result<Self> {
        let waited = app.waits(wait);
        if waited {
            let document = wait::done(app, client, &accepted.task, wait.timeout).await?;
            accepted.task = document.task;
            accepted.server = client.record(accepted.server.meta.id).await?;
        }
        Ok(Self { accepted, waited })
    }

    /// Prints one: tables say on stderr what goes on.
    pub(super) fn print(&self, app: &App) -> Result<()> {
        match app.globals.output {
            Format::Table | Format::Wide => {
                app.print().list(std::slice::from_ref(self))?;
                if !self.waited {
                    let task = self.accepted.task.id;
                    out::message(&format!(
                        "task {task} is under way; wait with: skyloom task wait {task}"
                    ));
                }
                Ok(())
            }
            _ => app.print().one(self),
        }
    }
}

impl Row for Outcome {
    const HEAD: &'static [&'static str] = Server::HEAD;
    const WIDE: &'static [&'static str] = Server::WIDE;
    fn cells(&self, now: skyloom_model::Timestamp) -> Vec<String> {
        self.accepted.server.cells(now)
    }
    fn name(&self) -> String {
        if self.waited {
            self.accepted.server.name()
        } else {
            self.accepted.task.id.to_string()
        }
    }
}

async fn console(app: &App, name: &str, bytes: u32) -> Result<()> {
    let client = app.client()?;
    let server: Server = resolve::one(&client, name).await?;
    let target = one(Server::KIND, server.meta.id)
        .then("console")
        .query("bytes", bytes);
    let text = client.text(target).await?;
    match app.globals.output {
        Format::Table | Format::Wide | Format::Name => logs::print(&text),
        _ => app.print().document(
            &serde_json::json!({ "server": server.meta.id, "console": text }),
            "",
        ),
    }
}

async fn why(app: &App, name: &str) -> Result<()> {
    let client = app.client()?;
    let server: Server = resolve::one(&client, name).await?;
    let answer: PlacementAnswer = client
        .get(one(Server::KIND, server.meta.id).then("placement"))
        .await?;
    let placed = server.status.placement.as_ref();
    let host = placed.map_or_else(String::new, |placement| placement.host_name.to_string());
    if !matches!(app.globals.output, Format::Table | Format::Wide) {
        return app.print().document(&out::json(&answer)?, &host);
    }
    let mut text = match placed {
        Some(_) => format!("{} is on {host}\n", server.meta.name),
        None => format!("{} is on no host\n", server.meta.name),
    };
    match &answer.placement {
        None => match &server.status.fault {
            Some(fault) => text.push_str(&format!("{}\n", clean_lines(&fault.to_string()))),
            None => text.push_str("nothing is recorded of how its host was chosen\n"),
        },
        Some(placement) => match serde_json::from_value::<Explanation>(placement.clone()) {
            Ok(explanation) => {
                text.push_str(&clean_lines(&explanation.operator_text()));
                text.push('\n');
            }
            Err(_) => text.push_str(&out::to_yaml(placement)),
        },
    }
    out::raw(&text)
}

/// Follows a server's changes until it fits. A watch is opened before each look, so that no change is missed.
async fn wait_for(app: &App, name: &str, wanted: Wanted, timeout: Option<Duration>) -> Result<()> {
    let client = app.client()?;
    let server: Server = match resolve::one(&client, name).await {
        Err(error) if error.exit == Exit::NotFound && wanted == Wanted::Deleted => return Ok(()),
        other => other?,
    };
    let follow = until(&client, &server, wanted);
    let found = match timeout {
        Some(limit) => tokio::time::timeout(limit, follow).await.map_err(|_| {
            CliError::new(
                Exit::TimedOut,
                format!(
                    "{} is not {} after {}s",
                    server.meta.name,
                    wanted_word(wanted),
                    limit.as_secs_f64()
                ),
            )
            .hint(format!("see `skyloom server show {}`", server.meta.name))
        })??,
        None => follow.await?,
    };
    match found {
        Some(server) => app.print().list(&[server]),
        None => {
            out::message(&format!("{} is deleted", server.meta.name));
            Ok(())
        }
    }
}

fn wanted_word(wanted: Wanted) -> String {
    use clap::ValueEnum as _;
    wanted
        .to_possible_value()
        .map_or_else(String::new, |value| value.get_name().to_owned())
}

async fn until(client: &Client, server: &Server, wanted: Wanted) -> Result<Option<Server>> {
    let watch: Target = kind("watch").query("kinds", Server::KIND);
    loop {
        let mut events = client.events(watch.clone(), None).await?;
        match client.record::<Server>(server.meta.id).await {
            Ok(now) if fits(&now, wanted)? => return Ok(Some(now)),
            Ok(_) => {}
            Err(error) if error.exit == Exit::NotFound => return gone(server, wanted),
            Err(error) => return Err(error),
        }
        while let Some(event) = events.next().await? {
            let Ok(change) = serde_json::from_str::<Change>(&event.data) else {
                continue;
            };
            if change.id != server.meta.id {
                continue;
            }
            if event.name == "delete" {
                return gone(server, wanted);
            }
            let now = change
                .record
                .and_then(|record| serde_json::from_value(record).ok());
            if let Some(now) = now
                && fits(&now, wanted)?
            {
                return Ok(Some(now));
            }
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

fn gone(server: &Server, wanted: Wanted) -> Result<Option<Server>> {
    if wanted == Wanted::Deleted {
        Ok(None)
    } else {
        Err(CliError::new(
            Exit::NotFound,
            format!("{} was deleted", server.meta.name),
        ))
    }
}

/// Whether it fits; a server in error never will without help.
fn fits(server: &Server, wanted: Wanted) -> Result<bool> {
    let status = &server.status;
    if status.lifecycle == Lifecycle::Error && wanted != Wanted::Deleted {
        let error = CliError::new(
            Exit::TaskFailed,
            format!("{} is {}", server.meta.name, server_state(server)),
        );
        return Err(match &status.fault {
            Some(fault) => error.detail(fault.message.clone()).note("code", &fault.code),
            None => error.detail(format!("power: {}", word(&status.power))),
        });
    }
    let active = status.lifecycle == Lifecycle::Active;
    Ok(match wanted {
        Wanted::Active => active,
        Wanted::Running => active && status.power == PowerState::Running,
        Wanted::Stopped => active && status.power == PowerState::Stopped,
        Wanted::Deleted => false,
    })
}
