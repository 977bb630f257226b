//! `skyloom volume …`

use clap::Subcommand;
use serde_json::json;
use skyloom_model::{Image, IoLimits, Resource as _, Server, Snapshot, Volume};

use super::{changed, image_save, list, removal, show};
use crate::app::App;
use crate::args::{ListArgs, WaitArgs, YesArg};
use crate::client::kind;
use crate::error::Result;
use crate::resolve;

/// Verbs.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Make a volume: of zeroes, or as a copy of an image, a volume or a snapshot
    #[command(after_help = "Examples:
  skyloom volume create data --size 10 --server web-1
  skyloom volume create root --image debian-13 --size 20
  skyloom volume create copy --snapshot before-upgrade --disk root")]
    Create(CreateArgs),
    /// List volumes
    #[command(
        visible_alias = "ls",
        after_help = "Examples:
  skyloom volume list
  skyloom volume list -o wide"
    )]
    List(ListArgs),
    /// Show one volume
    #[command(after_help = "Examples:
  skyloom volume show data
  skyloom volume show data -o json")]
    Show {
        /// Name, id or beginning of an id
        volume: String,
    },
    /// Give a volume to a server, running or not
    #[command(after_help = "Examples:
  skyloom volume attach data web-1
  skyloom volume attach scratch web-1 --delete-with-server")]
    Attach(AttachArgs),
    /// Take a volume from its server
    #[command(after_help = "Examples:
  skyloom volume detach data
  skyloom volume detach data --no-wait")]
    Detach {
        /// Name, id or beginning of an id
        volume: String,
        #[command(flatten)]
        wait: WaitArgs,
    },
    /// Make an image of a volume that no server has
    #[command(after_help = "Examples:
  skyloom volume create-image data golden
  skyloom volume create-image data golden --format raw --no-wait")]
    CreateImage(image_save::SaveArgs),
    /// Make a volume larger, also while a guest uses it
    #[command(after_help = "Examples:
  skyloom volume grow data --size 20
  skyloom volume grow data --size 20 --no-wait")]
    Grow {
        /// Name, id or beginning of an id
        volume: String,
        /// New size in GiB
        #[arg(long, value_name = "GIB")]
        size: u64,
        #[command(flatten)]
        wait: WaitArgs,
    },
    /// Limit what a volume may do each second; without limits it may do what it can
    #[command(after_help = "Examples:
  skyloom volume limit data --operations 500 --bytes 52428800
  skyloom volume limit data")]
    Limit {
        /// Name, id or beginning of an id
        volume: String,
        /// Reads and writes together
        #[arg(long, value_name = "NUMBER")]
        operations: Option<u64>,
        /// Bytes read and written together
        #[arg(long, value_name = "NUMBER")]
        bytes: Option<u64>,
        #[command(flatten)]
        wait: WaitArgs,
    },
    /// Remove volumes with everything on them
    #[command(
        visible_alias = "rm",
        after_help = "Examples:
  skyloom volume delete data
  skyloom volume delete data old --yes"
    )]
    Delete {
        /// Names, ids or beginnings of ids
        #[arg(required = true)]
        volumes: Vec<String>,
        #[command(flatten)]
        yes: YesArg,
        #[command(flatten)]
        wait: WaitArgs,
    },
}

/// A new volume.
#[derive(Debug, clap::Args)]
pub(crate) struct CreateArgs {
    /// Its name
    name: String,
    /// Size in GiB; without it as large as what it is a copy of
    #[arg(long, value_name = "GIB")]
    size: Option<u64>,
    /// Format of its file: qcow2, or raw, which takes no snapshots
    #[arg(long, value_parser = ["qcow2", "raw"], value_name = "FORMAT")]
    format: Option<String>,
    /// Image that it is a copy of
    #[arg(long, conflicts_with_all = ["volume", "snapshot"])]
    image: Option<String>,
    /// Volume that it is a copy of
    #[arg(long, conflicts_with = "snapshot")]
    volume: Option<String>,
    /// Snapshot that it is a copy of
    #[arg(long)]
    snapshot: Option<String>,
    /// Which disk of the snapshot
    #[arg(long, requires = "snapshot")]
    disk: Option<String>,
    /// Shared pool that it lives in; without it it lives on one host
    #[arg(long)]
    pool: Option<String>,
    /// Server beside which it is made
    #[arg(long)]
    server: Option<String>,
    #[command(flatten)]
    wait: WaitArgs,
}

/// A volume for a server.
#[derive(Debug, clap::Args)]
pub(crate) struct AttachArgs {
    /// Name, id or beginning of the volume's id
    volume: String,
    /// Name, id or beginning of the server's id
    server: String,
    /// Delete the volume with the server
    #[arg(long)]
    delete_with_server: bool,
    #[command(flatten)]
    wait: WaitArgs,
}

pub(super) async fn run(app: &App, verb: Verb) -> Result<()> {
    match verb {
        Verb::Create(args) => create(app, args).await,
        Verb::CreateImage(args) => image_save::run::<Volume>(app, "volume", args, None).await,
        Verb::List(args) => list::<Volume>(app, &args).await,
        Verb::Show { volume } => show::<Volume>(app, &volume).await,
        Verb::Attach(args) => {
            attach(
                app,
                &args.volume,
                &args.server,
                args.delete_with_server,
                &args.wait,
            )
            .await
        }
        Verb::Detach { volume, wait } => detach(app, &volume, &wait).await,
        Verb::Grow { volume, size, wait } => {
            changed::act::<Volume>(app, "grow", &volume, Some(&json!({ "size_gib": size })), &wait).await
        }
        Verb::Limit {
            volume,
            operations,
            bytes,
            wait,
        } => {
            let limits = IoLimits { operations, bytes };
            let none = limits == IoLimits::default();
            let body = json!({ "limits": (!none).then_some(limits) });
            changed::act::<Volume>(app, "limit", &volume, Some(&body), &wait).await
        }
        Verb::Delete { volumes, yes, wait } => {
            removal::run::<Volume>(app, &volumes, "delete", yes, &wait).await
        }
    }
}

/// Gives a volume to a server.
pub(super) async fn attach(
    app: &App,
    volume: &str,
    server: &str,
    delete_with_server: bool,
    wait: &WaitArgs,
) -> Result<()> {
    let client = app.client()?;
    let server: Server = resolve::one(&client, server).await?;
    let body = json!({ "server": server.meta.id, "delete_with_server": delete_with_server });
    changed::act::<Volume>(app, "attach", volume, Some(&body), wait).await
}

/// Takes a volume from its server.
pub(super) async fn detach(app: &App, volume: &str, wait: &WaitArgs) -> Result<()> {
    changed::act::<Volume>(app, "detach", volume, None, wait).await
}

async fn create(app: &App, args: CreateArgs) -> Result<()> {
    let client = app.client()?;
    let mut body = json!({ "name": args.name });
    if let Some(image) = &args.image {
        body["image"] = json!(resolve::one::<Image>(&client, image).await?.meta.id);
    }
    if let Some(volume) = &args.volume {
        body["volume"] = json!(resolve::one::<Volume>(&client, volume).await?.meta.id);
    }
    if let Some(snapshot) = &args.snapshot {
        body["snapshot"] = json!(resolve::one::<Snapshot>(&client, snapshot).await?.meta.id);
    }
    if let Some(server) = &args.server {
        body["server"] = json!(resolve::one::<Server>(&client, server).await?.meta.id);
    }
    let said = [
        ("size_gib", args.size.map(|size| json!(size))),
        ("format", args.format.map(|format| json!(format))),
        ("disk", args.disk.map(|disk| json!(disk))),
        ("pool", args.pool.map(|pool| json!(pool))),
    ];
    for (field, value) in said {
        if let Some(value) = value {
            body[field] = value;
        }
    }
    changed::ask::<Volume>(app, &client, kind(Volume::KIND), Some(&body), &args.wait).await
}
