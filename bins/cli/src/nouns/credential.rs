//! `skyloom credential …`: what programs act with in a user's name.

use clap::Subcommand;
use serde_json::{Value, json};

use super::directory::{fields, id};
use super::{role, user};
use crate::app::App;
use crate::args::YesArg;
use crate::client::{Client, Target, kind};
use crate::error::{CliError, Result};
use crate::exit::Exit;
use crate::out::loose::{Columns, name};
use crate::out::{self, Format};

const COLUMNS: Columns = Columns {
    head: &[
        ("NAME", "/name"),
        ("KIND", "/kind"),
        ("PROJECT", "/project"),
        ("EXPIRES", "/expires_at"),
        ("AGE", "/created_at"),
    ],
    wide: &[
        ("ROLES", "/roles"),
        ("PERMISSIONS", "/permissions"),
        ("DESCRIPTION", "/description"),
        ("ID", "/id"),
    ],
};

/// Whose.
#[derive(Debug, clap::Args)]
pub(crate) struct Owner {
    /// Whose (name or id); without it your own
    #[arg(long)]
    user: Option<String>,
}

/// Verbs.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Make an application credential: a secret, shown once, with some of your roles in this project
    #[command(after_help = "Examples:
  skyloom credential create ci --role member --expires 90d
  skyloom credential create watcher --permission *:read -o json")]
    Create {
        /// Its name
        name: String,
        /// One of your roles here (name or id); may be given several times; without it all of them
        #[arg(long = "role", value_name = "ROLE")]
        roles: Vec<String>,
        /// To what it reaches at most: a pattern of permissions such as server:*; may be given several times
        #[arg(long = "permission", value_name = "PATTERN")]
        permissions: Vec<String>,
        /// When it stops working: 12h, 30d or 2027-01-01T00:00:00Z
        #[arg(long, value_name = "WHEN")]
        expires: Option<String>,
        /// Free text
        #[arg(long)]
        description: Option<String>,
        /// Let it make and delete credentials itself
        #[arg(long)]
        unrestricted: bool,
    },
    /// List credentials, without their secrets
    #[command(
        visible_alias = "ls",
        after_help = "Examples:
  skyloom credential list
  skyloom credential list --user backup -o wide"
    )]
    List(Owner),
    /// Remove credentials; what was made with them ends too
    #[command(
        visible_alias = "rm",
        after_help = "Examples:
  skyloom credential delete ci
  skyloom credential delete ci --user backup --yes"
    )]
    Delete {
        /// Names, ids or beginnings of ids
        #[arg(required = true)]
        credentials: Vec<String>,
        #[command(flatten)]
        owner: Owner,
        #[command(flatten)]
        yes: YesArg,
    },
}

async fn target(client: &Client, owner: &Owner) -> Result<Target> {
    let whose = match &owner.user {
        Some(name) => id(&user::KIND.find(client, name).await?)?.to_string(),
        None => {
            let me: Value = client.get(Target::new(["v1", "auth", "whoami"])).await?;
            me["user"].as_str().unwrap_or_default().to_owned()
        }
    };
    Ok(kind(user::KIND.path).then(whose).then("credentials"))
}

async fn all(client: &Client, target: Target) -> Result<Vec<Value>> {
    client.pages(target, usize::MAX).await
}

/// The one that `text` names.
fn find<'a>(all: &'a [Value], text: &str) -> Result<&'a Value> {
    let fits = |record: &&Value| {
        name(record) == text
            || record["id"]
                .as_str()
                .is_some_and(|id| text.len() >= 4 && id.starts_with(text))
    };
    let mut found = all.iter().filter(fits);
    match (found.next(), found.next()) {
        (Some(only), None) => Ok(only),
        (Some(_), Some(_)) => Err(
            CliError::usage(format!("several credentials are called \"{text}\""))
                .hint("name it by its id, or by more of it"),
        ),
        (None, _) => Err(
            CliError::new(Exit::NotFound, format!("there is no credential \"{text}\" here"))
                .hint("see `skyloom credential list`"),
        ),
    }
}

pub(super) async fn run(app: &App, verb: Verb) -> Result<()> {
    let client = app.client()?;
    match verb {
        Verb::Create {
            name,
            roles,
            permissions,
            expires,
            description,
            unrestricted,
        } => {
            let expires = expires
                .map(|text| super::moment(&text, app.clock.now()))
                .transpose()?;
            let mut ids = Vec::new();
            for text in &roles {
                ids.push(id(&role::KIND.find(&client, text).await?)?.to_string());
            }
            let body = fields([
                ("name", Some(name.into())),
                ("roles", (!ids.is_empty()).then(|| ids.into())),
                (
                    "permissions",
                    (!permissions.is_empty()).then(|| permissions.into()),
                ),
                ("expires_at", expires.map(|at| at.to_string().into())),
                ("description", description.map(Into::into)),
                ("unrestricted", unrestricted.then_some(Value::Bool(true))),
            ]);
            let target = target(&client, &Owner { user: None }).await?;
            let made: Value = client.post(target, &body).await?;
            super::show_secret(app, COLUMNS, &made, "credential", "the secret")
        }
        Verb::List(owner) => {
            let target = target(&client, &owner).await?;
            app.print().records(COLUMNS, &all(&client, target).await?)
        }
        Verb::Delete {
            credentials,
            owner,
            yes,
        } => {
            let target = target(&client, &owner).await?;
            let all = all(&client, target.clone()).await?;
            let doomed = credentials
                .iter()
                .map(|text| find(&all, text))
                .collect::<Result<Vec<_>>>()?;
            app.confirm(yes.yes, &format!("delete credential {}", credentials.join(", ")))
                .await?;
            for record in doomed {
                client
                    .command(reqwest::Method::DELETE, target.clone().then(id(record)?), None)
                    .await?;
                match app.globals.output {
                    Format::Table | Format::Wide => {
                        out::line(&format!("credential {}: deleted", name(record)))?
                    }
                    _ => app
                        .print()
                        .document(&json!({ "credential": record }), &name(record))?,
                }
            }
            Ok(())
        }
    }
}
