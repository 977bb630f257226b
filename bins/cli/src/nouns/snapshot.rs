//! `skyloom snapshot …`

use clap::Subcommand;
use serde_json::json;
use skyloom_model::{Resource as _, Server, Snapshot, Volume};

use super::{changed, image_save, list, removal, show};
use crate::app::App;
use crate::args::{ListArgs, WaitArgs, YesArg};
use crate::client::{kind, one};
use crate::error::Result;
use crate::resolve;

/// Verbs.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Keep what all disks of a server are now, or one volume is
    #[command(after_help = "Examples:
  skyloom snapshot create before-upgrade --server web-1
  skyloom snapshot create asleep --server web-1 --memory
  skyloom snapshot create nightly --volume data")]
    Create(CreateArgs),
    /// List snapshots
    #[command(
        visible_alias = "ls",
        after_help = "Examples:
  skyloom snapshot list
  skyloom snapshot list -o wide"
    )]
    List(ListArgs),
    /// Show one snapshot
    #[command(after_help = "Examples:
  skyloom snapshot show before-upgrade
  skyloom snapshot show before-upgrade -o json")]
    Show {
        /// Name, id or beginning of an id
        snapshot: String,
    },
    /// Make an image of one disk of a snapshot
    #[command(after_help = "Examples:
  skyloom snapshot create-image before-upgrade golden
  skyloom snapshot create-image before-upgrade golden --disk root")]
    CreateImage {
        #[command(flatten)]
        save: image_save::SaveArgs,
        /// Which disk; without it the first
        #[arg(long, value_name = "NAME")]
        disk: Option<String>,
    },
    /// Make the disks what they were; what was written since is lost
    #[command(after_help = "Examples:
  skyloom server stop web-1
  skyloom snapshot revert before-upgrade --yes")]
    Revert {
        /// Name, id or beginning of an id
        snapshot: String,
        #[command(flatten)]
        yes: YesArg,
        #[command(flatten)]
        wait: WaitArgs,
    },
    /// Remove snapshots; the disks stay as they are
    #[command(
        visible_alias = "rm",
        after_help = "Examples:
  skyloom snapshot delete before-upgrade
  skyloom snapshot delete old older --yes"
    )]
    Delete {
        /// Names, ids or beginnings of ids
        #[arg(required = true)]
        snapshots: Vec<String>,
        #[command(flatten)]
        yes: YesArg,
        #[command(flatten)]
        wait: WaitArgs,
    },
}

/// A new snapshot.
#[derive(Debug, clap::Args)]
pub(crate) struct CreateArgs {
    /// Its name
    name: String,
    /// Server whose disks it is of
    #[arg(long, required_unless_present = "volume", conflicts_with = "volume")]
    server: Option<String>,
    /// With the guest's memory
    #[arg(long, requires = "server")]
    memory: bool,
    /// Volume that it is of
    #[arg(long)]
    volume: Option<String>,
    #[command(flatten)]
    wait: WaitArgs,
}

pub(super) async fn run(app: &App, verb: Verb) -> Result<()> {
    match verb {
        Verb::Create(args) => {
            let client = app.client()?;
            let mut body = json!({ "name": args.name });
            if let Some(server) = &args.server {
                body["server"] = json!(resolve::one::<Server>(&client, server).await?.meta.id);
                body["memory"] = json!(args.memory);
            }
            if let Some(volume) = &args.volume {
                body["volume"] = json!(resolve::one::<Volume>(&client, volume).await?.meta.id);
            }
            changed::ask::<Snapshot>(app, &client, kind(Snapshot::KIND), Some(&body), &args.wait).await
        }
        Verb::CreateImage { save, disk } => {
            image_save::run::<Snapshot>(app, "snapshot", save, disk.as_deref()).await
        }
        Verb::List(args) => list::<Snapshot>(app, &args).await,
        Verb::Show { snapshot } => show::<Snapshot>(app, &snapshot).await,
        Verb::Revert { snapshot, yes, wait } => {
            let client = app.client()?;
            let snapshot: Snapshot = resolve::one(&client, &snapshot).await?;
            let what = format!("lose what was written since the snapshot {}", snapshot.meta.name);
            app.confirm(yes.yes, &what).await?;
            let target = one(Snapshot::KIND, snapshot.meta.id)
                .then("actions")
                .then("revert");
            changed::ask::<Snapshot>(app, &client, target, None, &wait).await
        }
        Verb::Delete { snapshots, yes, wait } => {
            removal::run::<Snapshot>(app, &snapshots, "delete", yes, &wait).await
        }
    }
}
