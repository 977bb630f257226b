//! `skyloom group …`

use clap::Subcommand;
use reqwest::Method;
use serde_json::Value;

use super::directory::{DirectoryList, Kind, domain, fields, id};
use super::user;
use crate::app::App;
use crate::args::YesArg;
use crate::client::kind;
use crate::error::Result;
use crate::out::loose::Columns;

pub(super) const KIND: Kind = Kind {
    path: "groups",
    noun: "group",
    columns: Columns {
        head: &[("NAME", "/name"), ("DOMAIN", "/domain"), ("AGE", "/created_at")],
        wide: &[("DESCRIPTION", "/description"), ("ID", "/id")],
    },
};

const MEMBERS: Columns = Columns {
    head: &[("NAME", "/name"), ("DOMAIN", "/domain")],
    wide: &[("ID", "/user")],
};

/// Verbs.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Make a group
    #[command(after_help = "Examples:
  skyloom group create developers
  skyloom group create developers --domain acme")]
    Create {
        /// Its name
        name: String,
        /// Of which domain (name or id); without it your own
        #[arg(long)]
        domain: Option<String>,
        /// Free text
        #[arg(long)]
        description: Option<String>,
    },
    /// List groups
    #[command(
        visible_alias = "ls",
        after_help = "Examples:
  skyloom group list
  skyloom group list --domain acme -o wide"
    )]
    List(DirectoryList),
    /// Show one group
    #[command(after_help = "Examples:
  skyloom group show developers
  skyloom group show developers -o yaml")]
    Show {
        /// Name, id or beginning of an id
        group: String,
    },
    /// Rename or describe a group
    #[command(after_help = "Examples:
  skyloom group update developers --name engineers
  skyloom group update developers --description Writers")]
    Update {
        /// Name, id or beginning of an id
        group: String,
        /// Another name
        #[arg(long)]
        name: Option<String>,
        /// Other text
        #[arg(long)]
        description: Option<String>,
    },
    /// Remove groups; what their members had by them ends
    #[command(
        visible_alias = "rm",
        after_help = "Examples:
  skyloom group delete developers
  skyloom group delete developers old --yes"
    )]
    Delete {
        /// Names, ids or beginnings of ids
        #[arg(required = true)]
        groups: Vec<String>,
        #[command(flatten)]
        yes: YesArg,
    },
    /// Put users into a group
    #[command(after_help = "Examples:
  skyloom group add developers alice
  skyloom group add developers alice bob")]
    Add(Members),
    /// Take users out of a group
    #[command(after_help = "Examples:
  skyloom group remove developers alice
  skyloom group remove developers alice bob")]
    Remove(Members),
    /// List who is in a group
    #[command(after_help = "Examples:
  skyloom group members developers
  skyloom group members developers -o name")]
    Members {
        /// Name, id or beginning of an id
        group: String,
    },
}

/// A group and users.
#[derive(Debug, clap::Args)]
pub(crate) struct Members {
    /// Name, id or beginning of an id of the group
    group: String,
    /// Names, ids or beginnings of ids of users
    #[arg(required = true)]
    users: Vec<String>,
}

pub(super) async fn run(app: &App, verb: Verb) -> Result<()> {
    match verb {
        Verb::Create {
            name,
            domain,
            description,
        } => {
            let client = app.client()?;
            let domain = self::domain(&client, domain.as_deref()).await?;
            let body = fields([
                ("name", Some(name.into())),
                ("domain", domain.map(|id| id.to_string().into())),
                ("description", description.map(Into::into)),
            ]);
            KIND.create(app, &client, &body).await
        }
        Verb::List(args) => KIND.list(app, &args).await,
        Verb::Show { group } => KIND.show(app, &group).await,
        Verb::Update {
            group,
            name,
            description,
        } => {
            let body = fields([
                ("name", name.map(Into::into)),
                ("description", description.map(Into::into)),
            ]);
            KIND.update(app, &group, &body).await
        }
        Verb::Delete { groups, yes } => KIND.delete(app, &groups, "delete", yes).await,
        Verb::Add(members) => change(app, &members, Method::PUT, "add").await,
        Verb::Remove(members) => change(app, &members, Method::DELETE, "remove").await,
        Verb::Members { group } => {
            let client = app.client()?;
            let id = id(&KIND.find(&client, &group).await?)?;
            let target = kind(KIND.path).then(id).then("members");
            let members: Vec<Value> = client.pages(target, usize::MAX).await?;
            app.print().records(MEMBERS, &members)
        }
    }
}

/// All are found before the first is changed.
async fn change(app: &App, members: &Members, method: Method, verb: &str) -> Result<()> {
    let client = app.client()?;
    let group = id(&KIND.find(&client, &members.group).await?)?;
    let mut users = Vec::new();
    for name in &members.users {
        users.push(user::KIND.find(&client, name).await?);
    }
    for user in &users {
        let target = kind(KIND.path).then(group).then("members").then(id(user)?);
        client.command(method.clone(), target, None).await?;
        user::KIND.say(app, user, verb)?;
    }
    Ok(())
}
