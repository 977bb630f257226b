//! `skyloom security-group …`

use clap::{Subcommand, ValueEnum as _};
use reqwest::Method;
use serde_json::{Value, json};
use skyloom_model::{Resource as _, SecurityGroup};

use super::network::said;
use super::{list, removal, show};
use crate::app::App;
use crate::args::{ListArgs, WaitArgs, YesArg};
use crate::client::{kind, one};
use crate::error::Result;
use crate::resolve;

/// Verbs.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Make a security group that lets everything out and nothing in
    #[command(after_help = "Examples:
  skyloom security-group create web
  skyloom security-group create web --description \"what the world may ask\"")]
    Create {
        /// Its name
        name: String,
        /// Free text
        #[arg(long, value_name = "TEXT")]
        description: Option<String>,
    },
    /// List security groups
    #[command(
        visible_alias = "ls",
        after_help = "Examples:
  skyloom security-group list
  skyloom security-group list -o wide"
    )]
    List(ListArgs),
    /// Show one security group with its rules
    #[command(after_help = "Examples:
  skyloom security-group show web -o yaml
  skyloom security-group show web -o json")]
    Show {
        /// Name, id or beginning of an id
        group: String,
    },
    /// Rename a security group, or describe it
    #[command(after_help = "Examples:
  skyloom security-group update web --name www
  skyloom security-group update web --description \"what everybody may ask\"")]
    Update {
        /// Name, id or beginning of an id
        group: String,
        /// New name
        #[arg(long)]
        name: Option<String>,
        /// Free text
        #[arg(long, value_name = "TEXT")]
        description: Option<String>,
    },
    /// Allow one thing more
    #[command(after_help = "Examples:
  skyloom security-group add-rule web ingress --protocol tcp --ports 443 --from 0.0.0.0/0
  skyloom security-group add-rule db ingress --protocol tcp --ports 5432 --from-group web
  skyloom security-group add-rule web ingress --protocol icmp")]
    AddRule(RuleArgs),
    /// Take one rule out
    #[command(after_help = "Examples:
  skyloom security-group remove-rule web 01980c2e-7b7a-7000-8000-000000000021
  skyloom security-group remove-rule db 01980c2e-7b7a-7000-8000-000000000022")]
    RemoveRule {
        /// Name, id or beginning of the group's id
        group: String,
        /// Id of the rule
        rule: uuid::Uuid,
    },
    /// Remove security groups that no port is in
    #[command(
        visible_alias = "rm",
        after_help = "Examples:
  skyloom security-group delete web
  skyloom security-group delete web db --yes"
    )]
    Delete {
        /// Names, ids or beginnings of ids
        #[arg(required = true)]
        groups: Vec<String>,
        #[command(flatten)]
        yes: YesArg,
    },
}

/// Which way packets go, as the guest sees it.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
pub(crate) enum Way {
    /// To the guest
    Ingress,
    /// From the guest
    Egress,
}

/// A rule.
#[derive(Debug, clap::Args)]
pub(crate) struct RuleArgs {
    /// Name, id or beginning of the group's id
    group: String,
    /// To the guest, or from it
    way: Way,
    /// tcp, udp, icmp, or a number; without it all
    #[arg(long, value_parser = protocol)]
    protocol: Option<Value>,
    /// Destination port or ports, such as 443 or 8000-8080; of ICMP the type, or type-code
    #[arg(long, value_parser = ports, requires = "protocol")]
    ports: Option<(u16, Option<u16>)>,
    /// The other side as a prefix, such as 10.0.0.0/8; without it everybody
    #[arg(long, value_name = "PREFIX", visible_alias = "to")]
    from: Option<String>,
    /// The other side as all ports of a security group
    #[arg(
        long,
        value_name = "GROUP",
        visible_alias = "to-group",
        conflicts_with = "from"
    )]
    from_group: Option<String>,
    /// Of IPv6; a prefix says it by itself
    #[arg(long, conflicts_with = "from")]
    ipv6: bool,
}

fn protocol(text: &str) -> std::result::Result<Value, String> {
    match text {
        "tcp" | "udp" | "icmp" => Ok(json!(text)),
        _ => match text.parse::<u8>() {
            Ok(number) => Ok(json!({ "number": number })),
            Err(_) => Err("is none of tcp, udp, icmp and 0 to 255".to_owned()),
        },
    }
}

fn ports(text: &str) -> std::result::Result<(u16, Option<u16>), String> {
    let number = |text: &str| {
        text.parse::<u16>()
            .map_err(|_| "is not of the form 443 or 8000-8080".to_owned())
    };
    match text.split_once('-') {
        Some((first, last)) => Ok((number(first)?, Some(number(last)?))),
        None => Ok((number(text)?, None)),
    }
}

fn body(args: &RuleArgs) -> Value {
    let icmp = args.protocol == Some(json!("icmp"));
    let last = args
        .ports
        .map(|(first, last)| if icmp { last } else { last.or(Some(first)) });
    let way = args.way.to_possible_value().map(|way| json!(way.get_name()));
    said([
        ("direction", way),
        ("family", args.ipv6.then(|| json!("ipv6"))),
        ("protocol", args.protocol.clone()),
        ("port_min", args.ports.map(|(first, _)| json!(first))),
        ("port_max", last.flatten().map(|last| json!(last))),
        ("remote_prefix", args.from.as_ref().map(|prefix| json!(prefix))),
        ("remote_group", args.from_group.as_ref().map(|group| json!(group))),
    ])
}

pub(super) async fn run(app: &App, verb: Verb) -> Result<()> {
    match verb {
        Verb::Create { name, description } => {
            let body = said([
                ("name", Some(json!(name))),
                ("description", description.map(|text| json!(text))),
            ]);
            let made: SecurityGroup = app.client()?.post(kind(SecurityGroup::KIND), &body).await?;
            app.print().one(&made)
        }
        Verb::List(args) => list::<SecurityGroup>(app, &args).await,
        Verb::Show { group } => show::<SecurityGroup>(app, &group).await,
        Verb::Update {
            group,
            name,
            description,
        } => {
            let body = said([
                ("name", name.map(|name| json!(name))),
                ("description", description.map(|text| json!(text))),
            ]);
            change(app, &group, Method::PATCH, None, Some(&body)).await
        }
        Verb::AddRule(args) => {
            change(
                app,
                &args.group,
                Method::POST,
                Some("rules".to_owned()),
                Some(&body(&args)),
            )
            .await
        }
        Verb::RemoveRule { group, rule } => {
            change(app, &group, Method::DELETE, Some(format!("rules/{rule}")), None).await
        }
        Verb::Delete { groups, yes } => {
            removal::run::<SecurityGroup>(app, &groups, "delete", yes, &WaitArgs::default()).await
        }
    }
}

async fn change(
    app: &App,
    group: &str,
    method: Method,
    below: Option<String>,
    body: Option<&Value>,
) -> Result<()> {
    let client = app.client()?;
    let found: SecurityGroup = resolve::one(&client, group).await?;
    let target = one(SecurityGroup::KIND, found.meta.id);
    let target = below
        .iter()
        .flat_map(|below| below.split('/'))
        .fold(target, |target, part| target.then(part));
    let changed: SecurityGroup = client.change(method, target, body).await?;
    app.print().one(&changed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_read_as_people_write_them() {
        assert_eq!(ports("443").unwrap(), (443, None));
        assert_eq!(ports("80-90").unwrap(), (80, Some(90)));
        assert!(ports("http").is_err() && ports("80-").is_err() && ports("70000").is_err());
        assert_eq!(protocol("47").unwrap(), json!({"number": 47}));
        assert!(protocol("gre").is_err());
        let args = |protocol_text: &str| RuleArgs {
            group: "web".to_owned(),
            way: Way::Ingress,
            protocol: Some(protocol(protocol_text).unwrap()),
            ports: Some((8, None)),
            from: None,
            from_group: None,
            ipv6: false,
        };
        let tcp = json!({"direction": "ingress", "protocol": "tcp", "port_min": 8, "port_max": 8});
        assert_eq!(body(&args("tcp")), tcp);
        assert_eq!(
            body(&args("icmp")),
            json!({"direction": "ingress", "protocol": "icmp", "port_min": 8})
        );
    }
}
