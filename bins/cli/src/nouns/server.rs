//! `skyloom server …`

use std::path::PathBuf;
use std::time::Duration;

use clap::Subcommand;
use reqwest::Method;
use skyloom_model::{Resource as _, Server};
use skyloom_scheduler::fleet::Report;

use super::create::{self, CreateArgs};
use super::server_changes;
use super::server_more::{self, Many};
use super::server_wait::{Wanted, wait_for};
use super::{image_save, removal, server_rescue, server_seen, server_volumes, show};
use crate::app::{self, App};
use crate::args::{ListArgs, WaitArgs, YesArg};
use crate::client::types::{PlacementAnswer, PowerOff, ServerAccepted};
use crate::client::{Client, one};
use crate::error::{CliError, Result};
use crate::exit::Exit;
use crate::out::{self, Format, Row};
use crate::text::{clean_lines, parse_duration, parse_pair};
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
  skyloom server list --label env=test -o wide
  skyloom server list --power stopped --flavor m1.small --sort -created
  skyloom server list --host rack1-07
  skyloom server list --name web-1 -o json"
    )]
    List {
        #[command(flatten)]
        list: ListArgs,
        #[command(flatten)]
        filters: server_more::Filters,
    },
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
    /// Pull the plug and turn servers on again, whatever state they are in
    #[command(after_help = "Examples:
  skyloom server hard-reboot web-1
  skyloom server hard-reboot web-1 web-2 --no-wait")]
    HardReboot(Many),
    /// Hold servers' CPUs; their memory stays in place
    #[command(after_help = "Examples:
  skyloom server pause web-1
  skyloom server pause web-1 web-2 --no-wait")]
    Pause(Many),
    /// Let paused servers go on
    #[command(after_help = "Examples:
  skyloom server unpause web-1
  skyloom server unpause web-1 web-2")]
    Unpause(Many),
    /// Write servers' memory to disk and turn them off
    #[command(after_help = "Examples:
  skyloom server suspend web-1
  skyloom server suspend web-1 web-2 --no-wait")]
    Suspend(Many),
    /// Turn suspended servers on where they were
    #[command(after_help = "Examples:
  skyloom server resume web-1
  skyloom server resume web-1 web-2")]
    Resume(Many),
    /// Make an image of a server's root disk, running or not
    #[command(after_help = "Examples:
  skyloom server create-image web-1 golden
  skyloom server create-image web-1 golden --format raw --no-wait")]
    CreateImage(image_save::SaveArgs),
    /// Give a volume to a server, running or not
    #[command(after_help = "Examples:
  skyloom server attach-volume web-1 data
  skyloom server attach-volume web-1 scratch --delete-with-server")]
    AttachVolume(server_volumes::AttachArgs),
    /// Take a volume from its server
    #[command(after_help = "Examples:
  skyloom server detach-volume web-1 data
  skyloom server detach-volume web-1 data --no-wait")]
    DetachVolume(server_volumes::DetachArgs),
    /// Change name, labels or metadata
    #[command(after_help = "Examples:
  skyloom server update web-1 --name web-2
  skyloom server update web-1 --label env=test --label tier=web
  skyloom server update web-1 --on-crash restart
  skyloom server update web-1 --no-labels")]
    Update(server_more::UpdateArgs),
    /// Refuse changes of servers until they are unlocked
    #[command(after_help = "Examples:
  skyloom server lock web-1 --why \"month end: no restarts\"
  skyloom server lock web-1 web-2")]
    Lock {
        /// Names, ids or beginnings of ids
        #[arg(required = true)]
        servers: Vec<String>,
        /// Why, for those who are refused
        #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
        why: String,
    },
    /// End locks
    #[command(after_help = "Examples:
  skyloom server unlock web-1
  skyloom server unlock web-1 web-2")]
    Unlock(server_more::Names),
    /// Refuse the deletion of servers
    #[command(after_help = "Examples:
  skyloom server protect web-1
  skyloom server protect web-1 web-2")]
    Protect(server_more::Names),
    /// Allow the deletion of servers again
    #[command(after_help = "Examples:
  skyloom server unprotect web-1
  skyloom server unprotect web-1 web-2")]
    Unprotect(server_more::Names),
    /// Take servers out of the recycle bin
    #[command(after_help = "Examples:
  skyloom server restore web-1
  skyloom server restore web-1 web-2")]
    Restore(server_more::Names),
    /// Remove servers with their disks at once, in the recycle bin or not
    #[command(after_help = "Examples:
  skyloom server purge web-1 --yes
  skyloom server purge web-1 web-2 --yes --no-wait")]
    Purge {
        #[command(flatten)]
        many: Many,
        #[command(flatten)]
        yes: YesArg,
    },
    /// Ask the host what servers are, and have their records say that (operators)
    #[command(after_help = "Examples:
  skyloom server reset-state web-1
  skyloom server reset-state web-1 web-2")]
    ResetState(Many),
    /// Act on several servers by labels, with an answer for each
    #[command(after_help = "Examples:
  skyloom server batch stop --label env=test
  skyloom server batch delete --label env=test --dry-run")]
    Batch {
        /// Which action, as this command calls it
        action: String,
        /// Label that they all have; may be given several times
        #[arg(long = "label", value_name = "KEY=VALUE", value_parser = parse_pair, required = true)]
        labels: Vec<(String, String)>,
    },
    /// Show every task, step and event of a server
    #[command(after_help = "Examples:
  skyloom server timeline web-1
  skyloom server timeline web-1 -o json")]
    Timeline {
        /// Name, id or beginning of an id
        server: String,
    },
    /// Make a server's root disk anew from an image; id, addresses and volumes stay
    #[command(after_help = "Examples:
  skyloom server rebuild web-1 --image debian-13
  skyloom server rebuild web-1 --yes --wait")]
    Rebuild(server_more::RebuildArgs),
    #[command(flatten)]
    Changes(server_changes::Verb),
    /// Boot a rescue system, with the server's own disks as data
    #[command(after_help = "Examples:
  skyloom server start-rescue web-1 --wait
  skyloom server start-rescue web-1 --image my-tools --leave-after 2h
  skyloom server start-rescue web-1 --kernel rescue-kernel --initrd rescue-initrd")]
    StartRescue(Box<server_rescue::StartArgs>),
    /// Leave the rescue system: the server is what it was before
    #[command(after_help = "Examples:
  skyloom server stop-rescue web-1 --wait
  skyloom server stop-rescue web-1 --force")]
    StopRescue(PowerArgs),
    /// Show what the rescue system has found on a server's disks
    #[command(after_help = "Examples:
  skyloom server rescue-report web-1
  skyloom server rescue-report web-1 -o json")]
    RescueReport {
        /// Name, id or beginning of an id
        server: String,
    },
    /// Remove servers with their disks, or put them into the recycle bin
    #[command(
        visible_alias = "rm",
        after_help = "Examples:
  skyloom server delete web-1
  skyloom server delete web-1 web-2 --yes --wait
  skyloom server delete web-1 --keep-hours 72"
    )]
    Delete {
        /// Names, ids or beginnings of ids
        #[arg(required = true)]
        servers: Vec<String>,
        /// Keep them in the recycle bin for so many hours, 0: not at all; without it as the cloud is configured
        #[arg(long, value_name = "HOURS")]
        keep_hours: Option<u32>,
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
    /// Write a picture of what a server shows, a PNG
    #[command(after_help = "Examples:
  skyloom server screenshot web-1 --file web-1.png
  skyloom server screenshot web-1 --file - > web-1.png")]
    Screenshot {
        /// Name, id or beginning of an id
        server: String,
        /// Where to; `-` is stdout
        #[arg(long, value_name = "FILE")]
        file: PathBuf,
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

pub(super) async fn run(app: &App, verb: Verb) -> Result<()> {
    match verb {
        Verb::Create(args) => create::run(app, *args).await,
        Verb::List { list, filters } => server_more::list(app, &list, &filters).await,
        Verb::Show { server } => show::<Server>(app, &server).await,
        Verb::Start { servers, wait } => act(app, "start", &servers, None, &wait).await,
        Verb::Stop(args) => power(app, "stop", args).await,
        Verb::Reboot(args) => power(app, "reboot", args).await,
        Verb::Delete {
            servers,
            keep_hours,
            yes,
            wait,
        } => {
            let query: Vec<_> = keep_hours
                .map(|h| ("keep_hours", h.to_string()))
                .into_iter()
                .collect();
            removal::run_with::<Server>(app, &servers, ("delete", &query), yes, &wait).await
        }
        Verb::HardReboot(many) => act(app, "hard-reboot", &many.servers, None, &many.wait).await,
        Verb::Pause(many) => act(app, "pause", &many.servers, None, &many.wait).await,
        Verb::Unpause(many) => act(app, "unpause", &many.servers, None, &many.wait).await,
        Verb::Suspend(many) => act(app, "suspend", &many.servers, None, &many.wait).await,
        Verb::Resume(many) => act(app, "resume", &many.servers, None, &many.wait).await,
        Verb::ResetState(many) => act(app, "reset-state", &many.servers, None, &many.wait).await,
        Verb::Purge { many, yes } => server_more::purge(app, &many, yes).await,
        Verb::CreateImage(args) => image_save::run::<Server>(app, "server", args, None).await,
        Verb::AttachVolume(args) => server_volumes::attach(app, args).await,
        Verb::DetachVolume(args) => server_volumes::detach(app, args).await,
        Verb::Update(args) => server_more::update(app, args).await,
        Verb::Lock { servers, why } => {
            let body = serde_json::json!({ "why": why });
            server_more::at_once(app, "lock", &servers, Some(&body)).await
        }
        Verb::Unlock(names) => server_more::at_once(app, "unlock", &names.servers, None).await,
        Verb::Protect(names) => server_more::at_once(app, "protect", &names.servers, None).await,
        Verb::Unprotect(names) => server_more::at_once(app, "unprotect", &names.servers, None).await,
        Verb::Restore(names) => server_more::at_once(app, "restore", &names.servers, None).await,
        Verb::Batch { action, labels } => server_more::batch(app, &action, labels).await,
        Verb::Rebuild(args) => server_more::rebuild(app, args).await,
        Verb::Changes(verb) => server_changes::run(app, verb).await,
        Verb::StartRescue(args) => server_rescue::start(app, *args).await,
        Verb::StopRescue(args) => power(app, "stop-rescue", args).await,
        Verb::RescueReport { server } => server_rescue::report(app, &server).await,
        Verb::Timeline { server } => server_more::timeline(app, &server).await,
        Verb::Console { server, bytes } => server_seen::console(app, &server, bytes).await,
        Verb::Screenshot { server, file } => server_seen::screenshot(app, &server, &file).await,
        Verb::Why { server } => why(app, &server).await,
        Verb::Wait {
            server,
            state,
            timeout,
        } => wait_for(app, &server, state, timeout).await,
    }
}

pub(super) async fn power(app: &App, verb: &str, args: PowerArgs) -> Result<()> {
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
pub(super) async fn act(
    app: &App,
    verb: &str,
    names: &[String],
    body: Option<PowerOff>,
    wait: &WaitArgs,
) -> Result<()> {
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
            Some(fault) => {
                text.push_str(&format!("{}\n", clean_lines(&fault.to_string())));
                if let Some(hint) = &fault.hint {
                    text.push_str(&format!("hint: {}\n", clean_lines(hint)));
                }
            }
            None => text.push_str("nothing is recorded of how its host was chosen\n"),
        },
        Some(placement) => match serde_json::from_value::<Report>(placement.clone()) {
            Ok(report) => {
                text.push_str(&clean_lines(&report.text()));
                text.push('\n');
            }
            Err(_) => text.push_str(&out::to_yaml(placement)),
        },
    }
    out::raw(&text)
}
