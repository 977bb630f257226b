//! `skyloom port …`

use clap::Subcommand;
use reqwest::Method;
use serde_json::json;
use skyloom_model::{MacAddr, Network, Port, Resource as _, Server};

use super::network::said;
use super::{changed, list, removal, show};
use crate::app::App;
use crate::args::{ListArgs, WaitArgs, YesArg};
use crate::client::{kind, one};
use crate::error::Result;
use crate::resolve;

/// Verbs.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Reserve an address in a network, for a server that is made later
    #[command(after_help = "Examples:
  skyloom port create --network backend
  skyloom port create --network backend --fixed-address 192.168.10.20 --security-group web")]
    Create {
        /// Name, id or beginning of the network's id
        #[arg(long)]
        network: String,
        /// Its name; without it one is made
        #[arg(long)]
        name: Option<String>,
        /// Its address; without it a free one is chosen
        #[arg(long, value_name = "ADDRESS")]
        fixed_address: Option<std::net::IpAddr>,
        /// Its MAC address; without it one is made
        #[arg(long)]
        mac: Option<MacAddr>,
        /// Ids or names of its security groups; without it `default`
        #[arg(long = "security-group", value_name = "GROUP")]
        security_groups: Vec<String>,
    },
    /// List ports
    #[command(
        visible_alias = "ls",
        after_help = "Examples:
  skyloom port list
  skyloom port list -o wide"
    )]
    List(ListArgs),
    /// Show one port
    #[command(after_help = "Examples:
  skyloom port show 0198c0de
  skyloom port show 0198c0de -o json")]
    Show {
        /// Name, id or beginning of an id
        port: String,
    },
    /// Change name or security groups of a port
    #[command(after_help = "Examples:
  skyloom port update web-vip --name web-address
  skyloom port update web-vip --security-group web --security-group default")]
    Update {
        /// Name, id or beginning of an id
        port: String,
        /// New name
        #[arg(long)]
        name: Option<String>,
        /// Ids or names of all its security groups, instead of before
        #[arg(long = "security-group", value_name = "GROUP")]
        security_groups: Vec<String>,
    },
    /// Give a port to a server, running or not, as its last NIC
    #[command(after_help = "Examples:
  skyloom port attach web-vip web-1
  skyloom port attach web-vip web-1 --no-wait")]
    Attach {
        /// Name, id or beginning of the port's id
        port: String,
        /// Name, id or beginning of the server's id
        server: String,
        #[command(flatten)]
        wait: WaitArgs,
    },
    /// Take a port from its server; it stays, with its addresses
    #[command(after_help = "Examples:
  skyloom port detach web-vip
  skyloom port detach 0198c0de --no-wait")]
    Detach {
        /// Name, id or beginning of the port's id
        port: String,
        #[command(flatten)]
        wait: WaitArgs,
    },
    /// Remove ports that no server has
    #[command(
        visible_alias = "rm",
        after_help = "Examples:
  skyloom port delete web-vip
  skyloom port delete web-vip 0198c0de --yes"
    )]
    Delete {
        /// Names, ids or beginnings of ids
        #[arg(required = true)]
        ports: Vec<String>,
        #[command(flatten)]
        yes: YesArg,
    },
}

pub(super) async fn run(app: &App, verb: Verb) -> Result<()> {
    match verb {
        Verb::Create {
            network,
            name,
            fixed_address,
            mac,
            security_groups,
        } => {
            let client = app.client()?;
            let network: Network = resolve::one(&client, &network).await?;
            let body = said([
                ("network", Some(json!(network.meta.id))),
                ("name", name.map(|name| json!(name))),
                ("fixed_address", fixed_address.map(|address| json!(address))),
                ("mac", mac.map(|mac| json!(mac))),
                (
                    "security_groups",
                    (!security_groups.is_empty()).then(|| json!(security_groups)),
                ),
            ]);
            let made: Port = client.post(kind(Port::KIND), &body).await?;
            app.print().one(&made)
        }
        Verb::List(args) => list::<Port>(app, &args).await,
        Verb::Show { port } => show::<Port>(app, &port).await,
        Verb::Update {
            port,
            name,
            security_groups,
        } => {
            let client = app.client()?;
            let found: Port = resolve::one(&client, &port).await?;
            let body = said([
                ("name", name.map(|name| json!(name))),
                (
                    "security_groups",
                    (!security_groups.is_empty()).then(|| json!(security_groups)),
                ),
            ]);
            let target = one(Port::KIND, found.meta.id);
            let changed: Port = client.change(Method::PATCH, target, Some(&body)).await?;
            app.print().one(&changed)
        }
        Verb::Attach { port, server, wait } => {
            let server: Server = resolve::one(&app.client()?, &server).await?;
            changed::act::<Port>(
                app,
                "attach",
                &port,
                Some(&json!({ "server": server.meta.id })),
                &wait,
            )
            .await
        }
        Verb::Detach { port, wait } => changed::act::<Port>(app, "detach", &port, None, &wait).await,
        Verb::Delete { ports, yes } => {
            removal::run::<Port>(app, &ports, "delete", yes, &WaitArgs::default()).await
        }
    }
}
