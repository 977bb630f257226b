//! `skyloom flavor …`

use clap::Subcommand;
use skyloom_model::{Flavor, Resource as _};

use super::{list, removal, show};
use crate::app::App;
use crate::args::{ListArgs, WaitArgs, YesArg};
use crate::client::kind;
use crate::client::types::CreateFlavor;
use crate::error::Result;
use crate::text::{parse_gib, parse_mib, parse_pair};

/// Verbs.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Make a flavor; admins only
    #[command(after_help = "Examples:
  skyloom flavor create small --vcpus 1 --memory 512M --disk 10G
  skyloom flavor create gpu --vcpus 8 --memory 32G --disk 100G --host-label gpu=yes")]
    Create {
        /// Its name
        name: String,
        /// Virtual CPUs
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
        vcpus: u32,
        /// Memory, in MiB or with a suffix
        #[arg(long, value_name = "SIZE", value_parser = parse_mib)]
        memory: u64,
        /// Root disk, in GiB or with a suffix
        #[arg(long, value_name = "SIZE", value_parser = parse_gib)]
        disk: u64,
        /// Label that the host must carry; may be given several times
        #[arg(long = "host-label", value_name = "KEY=VALUE", value_parser = parse_pair)]
        host_labels: Vec<(String, String)>,
    },
    /// List flavors
    #[command(
        visible_alias = "ls",
        after_help = "Examples:
  skyloom flavor list
  skyloom flavor list -o json"
    )]
    List(ListArgs),
    /// Show one flavor
    #[command(after_help = "Examples:
  skyloom flavor show small
  skyloom flavor show small -o yaml")]
    Show {
        /// Name, id or beginning of an id
        flavor: String,
    },
    /// Remove flavors; servers made with them keep their size
    #[command(
        visible_alias = "rm",
        after_help = "Examples:
  skyloom flavor delete small
  skyloom flavor delete small large --yes"
    )]
    Delete {
        /// Names, ids or beginnings of ids
        #[arg(required = true)]
        flavors: Vec<String>,
        #[command(flatten)]
        yes: YesArg,
    },
}

pub(super) async fn run(app: &App, verb: Verb) -> Result<()> {
    match verb {
        Verb::Create {
            name,
            vcpus,
            memory,
            disk,
            host_labels,
        } => {
            let request = CreateFlavor {
                name,
                vcpus,
                memory_mib: memory,
                disk_gib: disk,
                host_labels: host_labels.into_iter().collect(),
            };
            let flavor: Flavor = app.client()?.post(kind(Flavor::KIND), &request).await?;
            app.print().one(&flavor)
        }
        Verb::List(args) => list::<Flavor>(app, &args).await,
        Verb::Show { flavor } => show::<Flavor>(app, &flavor).await,
        Verb::Delete { flavors, yes } => {
            removal::run::<Flavor>(app, &flavors, "delete", yes, &WaitArgs::default()).await
        }
    }
}
