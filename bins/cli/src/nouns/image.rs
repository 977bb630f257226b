//! `skyloom image …`

use std::path::{Path, PathBuf};

use clap::{Subcommand, ValueEnum};
use futures::StreamExt as _;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use sha2::{Digest as _, Sha256};
use skyloom_model::{DiskFormat, Image, Resource as _};

use super::{list, removal, show};
use crate::app::App;
use crate::args::{ListArgs, WaitArgs, YesArg};
use crate::client::types::{CreateImage, ImageAccepted};
use crate::client::{Client, kind, one};
use crate::error::{CliError, Result};
use crate::out::{self, Format};
use crate::text::bytes;

/// Verbs.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Bring a disk image into the cloud
    #[command(after_help = "Examples:
  skyloom image import --file debian.qcow2 --wait
  skyloom image import --file disk.raw --format raw --name appliance --public
  skyloom image import --url https://example.org/debian.qcow2 --sha256 9f86d081884c7d65…")]
    Import(ImportArgs),
    /// List images
    #[command(
        visible_alias = "ls",
        after_help = "Examples:
  skyloom image list
  skyloom image list -o wide"
    )]
    List(ListArgs),
    /// Show one image
    #[command(after_help = "Examples:
  skyloom image show debian
  skyloom image show debian -o json")]
    Show {
        /// Name, id or beginning of an id
        image: String,
    },
    /// Remove images
    #[command(
        visible_alias = "rm",
        after_help = "Examples:
  skyloom image delete debian
  skyloom image delete debian old --yes"
    )]
    Delete {
        /// Names, ids or beginnings of ids
        #[arg(required = true)]
        images: Vec<String>,
        #[command(flatten)]
        yes: YesArg,
        #[command(flatten)]
        wait: WaitArgs,
    },
}

/// What is imported.
#[derive(Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("source").required(true))]
pub(crate) struct ImportArgs {
    /// Send this file
    #[arg(long, group = "source", value_name = "FILE")]
    file: Option<PathBuf>,
    /// Let the cloud fetch it from here
    #[arg(long, group = "source", value_name = "URL")]
    url: Option<String>,
    /// What the content is; never guessed
    #[arg(long, value_enum, default_value_t = FormatArg::Qcow2)]
    format: FormatArg,
    /// Display name; without it the file's name without its ending
    #[arg(long)]
    name: Option<String>,
    /// The SHA-256 that the content must have; for a file it is computed anyway
    #[arg(long, value_name = "HEX", value_parser = parse_sha256)]
    sha256: Option<String>,
    /// CPU architecture of its system
    #[arg(long, value_name = "NAME")]
    architecture: Option<String>,
    /// Smallest root disk, such as 10G
    #[arg(long, value_name = "SIZE", value_parser = crate::text::parse_gib)]
    min_disk: Option<u64>,
    /// Smallest memory, such as 512M
    #[arg(long, value_name = "SIZE", value_parser = crate::text::parse_mib)]
    min_memory: Option<u64>,
    /// Let every project use it; admins only
    #[arg(long)]
    public: bool,
    #[command(flatten)]
    wait: WaitArgs,
}

/// The formats that are taken.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum FormatArg {
    /// QEMU copy-on-write
    Qcow2,
    /// Plain bytes
    Raw,
    /// A kernel, to start servers with in rescue
    Kernel,
    /// A kernel's first file system
    Initrd,
}

fn parse_sha256(text: &str) -> std::result::Result<String, String> {
    if text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit()) {
        Ok(text.to_ascii_lowercase())
    } else {
        Err("is no SHA-256: 64 hexadecimal digits".to_owned())
    }
}

pub(super) async fn run(app: &App, verb: Verb) -> Result<()> {
    match verb {
        Verb::Import(args) => import(app, args).await,
        Verb::List(args) => list::<Image>(app, &args).await,
        Verb::Show { image } => show::<Image>(app, &image).await,
        Verb::Delete { images, yes, wait } => removal::run::<Image>(app, &images, "delete", yes, &wait).await,
    }
}

fn default_name(args: &ImportArgs) -> Result<String> {
    let path = match (&args.file, &args.url) {
        (Some(file), _) => Some(file.clone()),
        (None, Some(url)) => url
            .parse::<reqwest::Url>()
            .ok()
            .map(|url| PathBuf::from(url.path())),
        (None, None) => None,
    };
    path.as_deref()
        .and_then(Path::file_stem)
        .map(|stem| stem.to_string_lossy().into_owned())
        .ok_or_else(|| CliError::usage("the image has no name").hint("give it one with --name"))
}

async fn import(app: &App, args: ImportArgs) -> Result<()> {
    let name = match &args.name {
        Some(name) => name.clone(),
        None => default_name(&args)?,
    };
    let client = app.client()?;
    let mut request = CreateImage {
        name,
        format: match args.format {
            FormatArg::Qcow2 => DiskFormat::Qcow2.as_str(),
            FormatArg::Raw => DiskFormat::Raw.as_str(),
            FormatArg::Kernel => DiskFormat::Kernel.as_str(),
            FormatArg::Initrd => DiskFormat::Initrd.as_str(),
        },
        url: args.url.clone(),
        sha256: args.sha256.clone(),
        architecture: args.architecture.clone(),
        min_disk_gib: args.min_disk,
        min_memory_mib: args.min_memory,
        public: args.public,
    };
    let accepted: ImageAccepted = match &args.file {
        Some(file) => send(app, &client, file, &mut request).await?,
        None => client.post(kind(Image::KIND), &request).await?,
    };
    finish(app, &client, accepted, &args.wait).await
}

/// Waits where that is wanted, and prints the image.
pub(super) async fn finish(
    app: &App,
    client: &Client,
    mut accepted: ImageAccepted,
    wait: &WaitArgs,
) -> Result<()> {
    let waited = app.waits(wait);
    if let (true, Some(task)) = (waited, &accepted.task) {
        let document = crate::wait::done(app, client, task, wait.timeout).await?;
        accepted.task = Some(document.task);
        accepted.image = client.record(accepted.image.meta.id).await?;
    }
    let name = match &accepted.task {
        Some(task) if !waited => task.id.to_string(),
        _ => accepted.image.meta.name.to_string(),
    };
    match app.globals.output {
        Format::Table | Format::Wide => {
            app.print().list(std::slice::from_ref(&accepted.image))?;
            if let (false, Some(task)) = (waited, &accepted.task) {
                out::message(&format!(
                    "task {0} is under way; wait with: skyloom task wait {0}",
                    task.id
                ));
            }
            Ok(())
        }
        _ => {
            let value = out::json(&accepted)?;
            app.print().document(&value, &name)
        }
    }
}

/// Checks the file, makes the record, sends the content.
async fn send(app: &App, client: &Client, file: &Path, request: &mut CreateImage) -> Result<ImageAccepted> {
    let length = std::fs::metadata(file)
        .map_err(|e| CliError::usage(format!("cannot read {}: {e}", file.display())))
        .and_then(|meta| {
            if meta.is_file() {
                Ok(meta.len())
            } else {
                Err(CliError::usage(format!("{} is not a file", file.display())))
            }
        })?;
    if length == 0 {
        return Err(CliError::usage(format!("{} is empty", file.display())));
    }
    let bar = bar(app, "checking", length);
    let sha256 = sha256_of(file, bar.clone()).await?;
    bar.finish_and_clear();
    if let Some(claimed) = &request.sha256
        && *claimed != sha256
    {
        return Err(CliError::usage(format!(
            "{} does not have the SHA-256 that was given",
            file.display()
        ))
        .detail(format!("given {claimed}"))
        .detail(format!("found {sha256}")));
    }
    request.sha256 = Some(sha256.clone());
    let made: ImageAccepted = client.post(kind(Image::KIND), request).await?;
    let id = made.image.meta.id;
    let size = bytes(length);
    if !app.interactive {
        out::message(&format!("sending {size} of {}", file.display()));
    }
    let bar = self::bar(app, "sending", length);
    let moving = bar.clone();
    let sent = client
        .upload(one(Image::KIND, id).then("data"), file, length, move |count| {
            moving.inc(u64::try_from(count).unwrap_or(0));
        })
        .await;
    bar.finish_and_clear();
    let accepted = sent.map_err(|error: CliError| {
        error.detail(format!(
            "the image's record stays; remove it with: skyloom image delete {id}"
        ))
    })?;
    out::message(&format!("sent {size}, sha256 {sha256}"));
    Ok(accepted)
}

/// A bar on a terminal, nothing elsewhere.
fn bar(app: &App, what: &'static str, length: u64) -> ProgressBar {
    if !app.interactive {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::with_draw_target(Some(length), ProgressDrawTarget::stderr());
    let template =
        "{msg} {wide_bar} {percent}%  {binary_bytes}/{binary_total_bytes}  {binary_bytes_per_sec}  eta {eta}";
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar.with_message(what)
}

async fn sha256_of(file: &Path, bar: ProgressBar) -> Result<String> {
    let parts =
        crate::client::contents(file, move |count| bar.inc(u64::try_from(count).unwrap_or(0))).await?;
    let mut parts = std::pin::pin!(parts);
    let mut hash = Sha256::new();
    while let Some(part) = parts.next().await {
        let part = part.map_err(|e| CliError::usage(format!("cannot read {}: {e}", file.display())))?;
        hash.update(&part);
    }
    Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}
