//! `skyloom network …` and `skyloom subnet …`

use clap::Subcommand;
use reqwest::Method;
use serde_json::{Value, json};
use skyloom_model::{Network, Resource as _, Subnet};

use super::{list, removal, show};
use crate::app::App;
use crate::args::{ListArgs, WaitArgs, YesArg};
use crate::client::{kind, one};
use crate::error::Result;
use crate::resolve;

/// Verbs of networks.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Make a network; it takes a subnet before ports can be plugged into it
    #[command(after_help = "Examples:
  skyloom network create backend
  skyloom network create lab --mtu 9000 --no-port-security")]
    Create {
        /// Its name
        name: String,
        /// Largest packet in bytes
        #[arg(long, value_name = "BYTES")]
        mtu: Option<u16>,
        /// Let everything pass: no security groups, no checks of addresses
        #[arg(long)]
        no_port_security: bool,
        /// Free text
        #[arg(long, value_name = "TEXT")]
        description: Option<String>,
    },
    /// List networks
    #[command(
        visible_alias = "ls",
        after_help = "Examples:
  skyloom network list
  skyloom network list -o wide"
    )]
    List(ListArgs),
    /// Show one network
    #[command(after_help = "Examples:
  skyloom network show backend
  skyloom network show backend -o json")]
    Show {
        /// Name, id or beginning of an id
        network: String,
    },
    /// Rename a network, or describe it
    #[command(after_help = "Examples:
  skyloom network update backend --name backend-old
  skyloom network update backend --description \"behind the web servers\"")]
    Update {
        /// Name, id or beginning of an id
        network: String,
        /// New name
        #[arg(long)]
        name: Option<String>,
        /// Free text
        #[arg(long, value_name = "TEXT")]
        description: Option<String>,
    },
    /// Remove networks that have no subnets
    #[command(
        visible_alias = "rm",
        after_help = "Examples:
  skyloom network delete backend
  skyloom network delete backend lab --yes"
    )]
    Delete {
        /// Names, ids or beginnings of ids
        #[arg(required = true)]
        networks: Vec<String>,
        #[command(flatten)]
        yes: YesArg,
    },
}

/// Verbs of subnets.
#[derive(Debug, Subcommand)]
pub(crate) enum SubnetVerb {
    /// Give a network a range of addresses
    #[command(after_help = "Examples:
  skyloom subnet create backend-v4 --network backend --cidr 192.168.10.0/24 --gateway 192.168.10.1
  skyloom subnet create small --network lab --cidr 10.0.0.0/24 --pool 10.0.0.10-10.0.0.20 --no-dhcp")]
    Create(SubnetArgs),
    /// List subnets
    #[command(
        visible_alias = "ls",
        after_help = "Examples:
  skyloom subnet list
  skyloom subnet list -o wide"
    )]
    List(ListArgs),
    /// Show one subnet
    #[command(after_help = "Examples:
  skyloom subnet show backend-v4
  skyloom subnet show backend-v4 -o json")]
    Show {
        /// Name, id or beginning of an id
        subnet: String,
    },
    /// Change name, pools or name servers of a subnet
    #[command(after_help = "Examples:
  skyloom subnet update backend-v4 --pool 192.168.10.10-192.168.10.99
  skyloom subnet update backend-v4 --dns 192.168.10.2 --dns 192.168.10.3")]
    Update {
        /// Name, id or beginning of an id
        subnet: String,
        /// New name
        #[arg(long)]
        name: Option<String>,
        /// What addresses are given from, instead of before
        #[arg(long = "pool", value_name = "FIRST-LAST", value_parser = pool)]
        pools: Vec<Value>,
        /// Name servers, instead of before
        #[arg(long = "dns", value_name = "ADDRESS")]
        dns: Vec<std::net::IpAddr>,
    },
    /// Remove subnets of which no port has an address
    #[command(
        visible_alias = "rm",
        after_help = "Examples:
  skyloom subnet delete backend-v4
  skyloom subnet delete backend-v4 small --yes"
    )]
    Delete {
        /// Names, ids or beginnings of ids
        #[arg(required = true)]
        subnets: Vec<String>,
        #[command(flatten)]
        yes: YesArg,
    },
}

/// A new subnet.
#[derive(Debug, clap::Args)]
pub(crate) struct SubnetArgs {
    /// Its name
    name: String,
    /// Name, id or beginning of the network's id
    #[arg(long)]
    network: String,
    /// Its addresses, such as 192.168.10.0/24
    #[arg(long)]
    cidr: String,
    /// The way out
    #[arg(long, value_name = "ADDRESS")]
    gateway: Option<std::net::IpAddr>,
    /// What addresses are given from; without it all but the ends and the gateway
    #[arg(long = "pool", value_name = "FIRST-LAST", value_parser = pool)]
    pools: Vec<Value>,
    /// Name servers that guests are told
    #[arg(long = "dns", value_name = "ADDRESS")]
    dns: Vec<std::net::IpAddr>,
    /// Tell guests nothing by DHCP
    #[arg(long)]
    no_dhcp: bool,
}

fn pool(text: &str) -> std::result::Result<Value, String> {
    let ends = text.split_once('-').and_then(|(first, last)| {
        let (first, last): (std::net::IpAddr, std::net::IpAddr) = (first.parse().ok()?, last.parse().ok()?);
        Some(json!({ "first": first, "last": last }))
    });
    ends.ok_or_else(|| "is not of the form FIRST-LAST, such as 192.168.10.10-192.168.10.99".to_owned())
}

/// Only what was said.
pub(super) fn said<const N: usize>(fields: [(&str, Option<Value>); N]) -> Value {
    let given = fields
        .into_iter()
        .filter_map(|(field, value)| Some((field.to_owned(), value?)));
    Value::Object(given.collect())
}

/// A list, if there is anything in it.
fn some<T: serde::Serialize>(list: &[T]) -> Option<Value> {
    (!list.is_empty()).then(|| json!(list))
}

pub(super) async fn run(app: &App, verb: Verb) -> Result<()> {
    match verb {
        Verb::Create {
            name,
            mtu,
            no_port_security,
            description,
        } => {
            let body = said([
                ("name", Some(json!(name))),
                ("mtu", mtu.map(|mtu| json!(mtu))),
                ("port_security", no_port_security.then_some(json!(false))),
                ("description", description.map(|text| json!(text))),
            ]);
            let made: Network = app.client()?.post(kind(Network::KIND), &body).await?;
            app.print().one(&made)
        }
        Verb::List(args) => list::<Network>(app, &args).await,
        Verb::Show { network } => show::<Network>(app, &network).await,
        Verb::Update {
            network,
            name,
            description,
        } => {
            let client = app.client()?;
            let found: Network = resolve::one(&client, &network).await?;
            let body = said([
                ("name", name.map(|name| json!(name))),
                ("description", description.map(|text| json!(text))),
            ]);
            let target = one(Network::KIND, found.meta.id);
            let changed: Network = client.change(Method::PATCH, target, Some(&body)).await?;
            app.print().one(&changed)
        }
        Verb::Delete { networks, yes } => {
            removal::run::<Network>(app, &networks, "delete", yes, &WaitArgs::default()).await
        }
    }
}

pub(super) async fn run_subnet(app: &App, verb: SubnetVerb) -> Result<()> {
    match verb {
        SubnetVerb::Create(args) => {
            let client = app.client()?;
            let network: Network = resolve::one(&client, &args.network).await?;
            let body = said([
                ("name", Some(json!(args.name))),
                ("network", Some(json!(network.meta.id))),
                ("cidr", Some(json!(args.cidr))),
                ("gateway", args.gateway.map(|gateway| json!(gateway))),
                ("pools", some(&args.pools)),
                ("dns", some(&args.dns)),
                ("dhcp", args.no_dhcp.then_some(json!(false))),
            ]);
            let made: Subnet = client.post(kind(Subnet::KIND), &body).await?;
            app.print().one(&made)
        }
        SubnetVerb::List(args) => list::<Subnet>(app, &args).await,
        SubnetVerb::Show { subnet } => show::<Subnet>(app, &subnet).await,
        SubnetVerb::Update {
            subnet,
            name,
            pools,
            dns,
        } => {
            let client = app.client()?;
            let found: Subnet = resolve::one(&client, &subnet).await?;
            let body = said([
                ("name", name.map(|name| json!(name))),
                ("pools", some(&pools)),
                ("dns", some(&dns)),
            ]);
            let target = one(Subnet::KIND, found.meta.id);
            let changed: Subnet = client.change(Method::PATCH, target, Some(&body)).await?;
            app.print().one(&changed)
        }
        SubnetVerb::Delete { subnets, yes } => {
            removal::run::<Subnet>(app, &subnets, "delete", yes, &WaitArgs::default()).await
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pools_have_two_ends() {
        assert_eq!(
            pool("10.0.0.1-10.0.0.9").unwrap(),
            json!({"first": "10.0.0.1", "last": "10.0.0.9"})
        );
        for bad in ["", "10.0.0.1", "10.0.0.1-", "a-b"] {
            assert!(pool(bad).is_err(), "{bad}");
        }
        assert_eq!(said([("a", None), ("b", Some(json!(1)))]), json!({"b": 1}));
    }
}
