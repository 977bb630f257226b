//! `skyloom grant …`: who has which role where.

use clap::Subcommand;
use reqwest::Method;
use serde_json::{Map, Value};

use super::directory::{Kind, id, named};
use super::{domain, group, project, role, user};
use crate::app::App;
use crate::client::{Client, kind};
use crate::error::{CliError, Result};
use crate::out::loose::Columns;

const KIND: Kind = Kind {
    path: "grants",
    noun: "grant",
    columns: Columns {
        head: &[
            ("ROLE", "/role_name"),
            ("USER", "/user"),
            ("GROUP", "/group"),
            ("PROJECT", "/project"),
            ("DOMAIN", "/domain"),
            ("SYSTEM", "/system"),
            ("INHERITED", "/inherited"),
        ],
        wide: &[("AGE", "/created_at"), ("ID", "/id")],
    },
};

/// To whom and where.
#[derive(Debug, clap::Args)]
pub(crate) struct Place {
    /// The user (name or id)
    #[arg(long)]
    user: Option<String>,
    /// The group (name or id)
    #[arg(long, conflicts_with = "user")]
    group: Option<String>,
    /// On the cloud itself, not on --project or --domain
    #[arg(long, conflicts_with = "domain")]
    system: bool,
    /// On this domain (name or id)
    #[arg(long)]
    domain: Option<String>,
}

/// Verbs.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Give a role
    #[command(after_help = "Examples:
  skyloom grant add member --user alice --project shop
  skyloom grant add reader --group developers --domain acme --inherited
  skyloom grant add auditor --user carol --system")]
    Add {
        /// The role (name or id)
        role: String,
        #[command(flatten)]
        place: Place,
        /// Not there itself, but in all that is below
        #[arg(long)]
        inherited: bool,
    },
    /// Take a role away; it is gone with the next call
    #[command(after_help = "Examples:
  skyloom grant remove member --user alice --project shop
  skyloom grant remove auditor --user carol --system")]
    Remove {
        /// The role (name or id)
        role: String,
        #[command(flatten)]
        place: Place,
        /// That for all that is below
        #[arg(long)]
        inherited: bool,
    },
    /// List who has which role where
    #[command(
        visible_alias = "ls",
        after_help = "Examples:
  skyloom grant list
  skyloom grant list --user alice
  skyloom grant list --project shop -o json"
    )]
    List {
        #[command(flatten)]
        place: Place,
        /// Only this role (name or id)
        #[arg(long)]
        role: Option<String>,
        /// At most so many
        #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..))]
        limit: u32,
    },
}

/// The fields of a grant that were named.
async fn find(app: &App, client: &Client, place: &Place) -> Result<Map<String, Value>> {
    let mut found = Map::new();
    for (kind, name) in [
        (user::KIND, &place.user),
        (group::KIND, &place.group),
        (domain::KIND, &place.domain),
    ] {
        if let Some(name) = name {
            let id = id(&kind.find(client, name).await?)?;
            found.insert(kind.noun.to_owned(), id.to_string().into());
        }
    }
    if place.system {
        found.insert("system".to_owned(), true.into());
    }
    let elsewhere = place.system || place.domain.is_some();
    let project = app
        .globals
        .project
        .as_deref()
        .filter(|name| !name.is_empty() && !elsewhere);
    if let Some(name) = project {
        let id = id(&project::KIND.find(client, name).await?)?;
        found.insert("project".to_owned(), id.to_string().into());
    }
    Ok(found)
}

/// All fields of a grant.
async fn whole(
    app: &App,
    client: &Client,
    role: &str,
    place: &Place,
    inherited: bool,
) -> Result<Map<String, Value>> {
    let mut grant = find(app, client, place).await?;
    let has = |names: &[&str]| names.iter().any(|name| grant.contains_key(*name));
    if !has(&["user", "group"]) {
        return Err(CliError::usage("a grant needs --user or --group"));
    }
    if !has(&["system", "domain", "project"]) {
        return Err(CliError::usage("a grant needs --project, --domain or --system"));
    }
    let role = id(&role::KIND.find(client, role).await?)?;
    grant.insert("role".to_owned(), role.to_string().into());
    if inherited {
        grant.insert("inherited".to_owned(), true.into());
    }
    Ok(grant)
}

/// As query parameters.
fn query(fields: &Map<String, Value>) -> Vec<(&'static str, String)> {
    let known = [
        "role",
        "user",
        "group",
        "domain",
        "project",
        "system",
        "inherited",
    ];
    let given = known.into_iter().filter_map(|name| {
        let value = fields.get(name)?;
        let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        Some((name, text))
    });
    given.collect()
}

pub(super) async fn run(app: &App, verb: Verb) -> Result<()> {
    let client = app.client()?;
    match verb {
        Verb::Add {
            role,
            place,
            inherited,
        } => {
            let grant = whole(app, &client, &role, &place, inherited).await?;
            let made: Value = client.change(Method::PUT, kind(KIND.path), Some(&grant)).await?;
            app.print()
                .records(KIND.columns, &named(app, &client, vec![made]).await)
        }
        Verb::Remove {
            role,
            place,
            inherited,
        } => {
            let grant = whole(app, &client, &role, &place, inherited).await?;
            let target = kind(KIND.path).queries(&query(&grant));
            client.command(Method::DELETE, target, None).await
        }
        Verb::List { place, role, limit } => {
            let mut fields = find(app, &client, &place).await?;
            if let Some(role) = role {
                let id = id(&role::KIND.find(&client, &role).await?)?;
                fields.insert("role".to_owned(), id.to_string().into());
            }
            let limit = usize::try_from(limit).unwrap_or(usize::MAX);
            if fields.remove("system").is_none() {
                return KIND.list_by(app, &client, &query(&fields), limit).await;
            }
            let mut all: Vec<Value> = client.list(KIND.path, &query(&fields), usize::MAX).await?;
            all.retain(|grant| grant["system"] == true);
            all.truncate(limit);
            app.print().records(KIND.columns, &named(app, &client, all).await)
        }
    }
}
