//! `skyloom server …`: changes of what a server is.

use std::time::Duration;

use clap::Subcommand;
use serde_json::json;
use skyloom_model::{Resource as _, Server};

use super::server::{Outcome, PowerArgs, act, power};
use super::server_more::{Many, Names, at_once};
use super::{server_access, server_clone};
use crate::app::App;
use crate::args::{WaitArgs, YesArg};
use crate::client::one;
use crate::client::types::ServerAccepted;
use crate::error::{CliError, Result};
use crate::resolve;
use crate::text::parse_duration;

/// Verbs.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Give a server another size; until that is confirmed it can be taken back
    #[command(after_help = "Examples:
  skyloom server resize web-1 --flavor m1.large
  skyloom server resize web-1 --flavor m1.large --confirm-after 2h --wait
  skyloom server resize web-1 --flavor m1.large --never-confirm")]
    Resize(ResizeArgs),
    /// Keep the new size of servers
    #[command(after_help = "Examples:
  skyloom server confirm-resize web-1
  skyloom server confirm-resize web-1 web-2 --no-wait")]
    ConfirmResize(Many),
    /// Go back to the size that servers had before
    #[command(after_help = "Examples:
  skyloom server revert-resize web-1
  skyloom server revert-resize web-1 --force")]
    RevertResize(PowerArgs),
    /// Move a server to another host that sees its disks; with --dry-run: which could take it, and why not (operators)
    #[command(after_help = "Examples:
  skyloom server migrate web-1 --wait
  skyloom server migrate web-1 --live --host rack1-08
  skyloom server migrate web-1 --live --dry-run")]
    Migrate(MigrateArgs),
    /// Move a server to another host while it runs, as `migrate --live` (operators)
    #[command(after_help = "Examples:
  skyloom server live-migrate web-1 --wait
  skyloom server live-migrate web-1 --host rack1-08 --dry-run")]
    LiveMigrate(LiveArgs),
    /// Start a server on another host because its own is fenced (operators)
    #[command(after_help = "Examples:
  skyloom server evacuate web-1
  skyloom server evacuate web-1 --host rack1-08 --yes")]
    Evacuate(EvacuateArgs),
    /// Turn servers off and keep them as images, on no host: their hosts have room for others
    #[command(after_help = "Examples:
  skyloom server shelve web-1 --wait
  skyloom server shelve web-1 web-2 --guest-time 30s")]
    Shelve(PowerArgs),
    /// Make shelved servers again, each on the host that is best for it now, and turn them on
    #[command(after_help = "Examples:
  skyloom server unshelve web-1 --wait
  skyloom server unshelve web-1 web-2 --no-wait")]
    Unshelve(Many),
    /// Have the hosts of shelved servers forget them now; the cloud asks for it by itself
    #[command(after_help = "Examples:
  skyloom server offload web-1
  skyloom server offload web-1 web-2 --no-wait")]
    Offload(Many),
    /// Make a server with a copy of another's root disk, which goes on meanwhile
    #[command(after_help = "Examples:
  skyloom server clone web-1 web-2 --wait
  skyloom server clone web-1 test --flavor m1.large --no-start")]
    Clone(server_clone::CloneArgs),
    /// Let live migrations complete, though their guests must be held for longer (operators)
    #[command(after_help = "Examples:
  skyloom server force-complete-migration web-1
  skyloom server force-complete-migration web-1 web-2")]
    ForceCompleteMigration(Names),
    /// Give a server's first user another password, at once or from its next boot on
    #[command(after_help = "Examples:
  skyloom server set-password web-1 --wait
  skyloom server set-password web-1 --password-file -")]
    SetPassword(server_access::PasswordArgs),
    /// Give a server's first user other SSH keys, from its next boot on
    #[command(after_help = "Examples:
  skyloom server set-keys web-1 --key laptop --key ci
  skyloom server set-keys web-1 --no-keys")]
    SetKeys(server_access::KeysArgs),
}

/// Where a server goes.
#[derive(Debug, clap::Args)]
pub(crate) struct LiveArgs {
    /// Name, id or beginning of an id
    server: String,
    /// Name or id of the only host that is wanted; without it the best one
    #[arg(long)]
    host: Option<String>,
    #[command(flatten)]
    wait: WaitArgs,
}

/// Where a server goes whose host is off.
#[derive(Debug, clap::Args)]
pub(crate) struct EvacuateArgs {
    #[command(flatten)]
    to: LiveArgs,
    #[command(flatten)]
    yes: YesArg,
}

/// Where a server goes, and how.
#[derive(Debug, clap::Args)]
pub(crate) struct MigrateArgs {
    #[command(flatten)]
    to: LiveArgs,
    /// While it runs: its guest is held only for a moment
    #[arg(long)]
    live: bool,
    /// Pull the plug: do not ask the guest
    #[arg(long, conflicts_with = "live")]
    force: bool,
    /// How long the guest has before the plug is pulled
    #[arg(long, value_name = "DURATION", value_parser = parse_duration, conflicts_with_all = ["force", "live"])]
    guest_time: Option<Duration>,
}

/// Which size a server gets.
#[derive(Debug, clap::Args)]
pub(crate) struct ResizeArgs {
    /// Name, id or beginning of an id
    server: String,
    /// The new flavor
    #[arg(long)]
    flavor: String,
    /// Keep the new size without being asked after so long; without it after a day
    #[arg(long, value_name = "DURATION", value_parser = parse_duration, conflicts_with = "never_confirm")]
    confirm_after: Option<Duration>,
    /// Wait to be confirmed for ever
    #[arg(long)]
    never_confirm: bool,
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
        Verb::Resize(args) => resize(app, args).await,
        Verb::ConfirmResize(many) => act(app, "confirm-resize", &many.servers, None, &many.wait).await,
        Verb::RevertResize(args) => power(app, "revert-resize", args).await,
        Verb::Migrate(args) if args.live => live_migrate(app, args.to).await,
        Verb::Migrate(args) => migrate(app, args).await,
        Verb::LiveMigrate(args) => live_migrate(app, args).await,
        Verb::Evacuate(args) => evacuate(app, args).await,
        Verb::Shelve(args) => power(app, "shelve", args).await,
        Verb::Unshelve(many) => act(app, "unshelve", &many.servers, None, &many.wait).await,
        Verb::Offload(many) => act(app, "offload", &many.servers, None, &many.wait).await,
        Verb::Clone(args) => server_clone::run(app, args).await,
        Verb::ForceCompleteMigration(names) => {
            at_once(app, "force-complete-migration", &names.servers, None).await
        }
        Verb::SetPassword(args) => server_access::password(app, args).await,
        Verb::SetKeys(args) => server_access::keys(app, args).await,
    }
}

async fn resize(app: &App, args: ResizeArgs) -> Result<()> {
    let seconds = |time: Option<Duration>, name: &str| {
        time.map(|time| u32::try_from(time.as_secs()))
            .transpose()
            .map_err(|_| CliError::usage(format!("{name} is too long")))
    };
    let confirm_after = if args.never_confirm {
        Some(0)
    } else {
        seconds(args.confirm_after, "--confirm-after")?
    };
    let client = app.client()?;
    let server: Server = resolve::one(&client, &args.server).await?;
    let body = json!({
        "flavor": args.flavor,
        "confirm_after_seconds": confirm_after,
        "force": args.force,
        "timeout_seconds": seconds(args.guest_time, "--guest-time")?,
    });
    let target = one(Server::KIND, server.meta.id).then("actions").then("resize");
    let accepted: ServerAccepted = client.post(target, &body).await?;
    Outcome::of(app, &client, accepted, &args.wait).await?.print(app)
}

async fn migrate(app: &App, args: MigrateArgs) -> Result<()> {
    let seconds = args.guest_time.map(|time| u32::try_from(time.as_secs()));
    let seconds = seconds
        .transpose()
        .map_err(|_| CliError::usage("--guest-time is too long"))?;
    let body = json!({ "host": args.to.host, "force": args.force, "timeout_seconds": seconds });
    moved(app, "migrate", args.to, body).await
}

async fn live_migrate(app: &App, args: LiveArgs) -> Result<()> {
    let body = json!({ "host": args.host });
    moved(app, "live-migrate", args, body).await
}

async fn evacuate(app: &App, args: EvacuateArgs) -> Result<()> {
    let what = format!(
        "start {} on another host; what its memory held is lost",
        args.to.server
    );
    app.confirm(args.yes.yes, &what).await?;
    let body = json!({ "host": args.to.host });
    moved(app, "evacuate", args.to, body).await
}

async fn moved(app: &App, verb: &str, args: LiveArgs, body: serde_json::Value) -> Result<()> {
    let client = app.client()?;
    let server: Server = resolve::one(&client, &args.server).await?;
    let target = one(Server::KIND, server.meta.id).then("actions").then(verb);
    let accepted: ServerAccepted = client.post(target, &body).await?;
    Outcome::of(app, &client, accepted, &args.wait).await?.print(app)
}
