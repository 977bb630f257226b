//! `skyloom policy …`

use clap::Subcommand;
use serde_json::{Map, Value, json};
use skyloom_model::{Scope, Server};

use super::directory::id;
use super::{domain, project, user};
use crate::app::App;
use crate::client::{Client, kind};
use crate::error::{CliError, Result};
use crate::out::loose::Columns;
use crate::out::{self, Format};
use crate::resolve;
use crate::text::clean_lines;

const PERMISSIONS: Columns = Columns {
    head: &[("NAME", "/name"), ("ACCESS", "/access"), ("WHAT", "/description")],
    wide: &[("BUILT-IN ROLES ONLY", "/reserved")],
};

/// Verbs.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// List the permissions that roles can allow
    #[command(after_help = "Examples:
  skyloom policy permissions
  skyloom policy permissions -o name")]
    Permissions,
    /// Say whether somebody may do something, and which rules were looked at
    #[command(after_help = "Examples:
  skyloom policy explain alice server:start server/web-1
  skyloom policy explain alice server:create project/shop
  skyloom policy explain alice host:read system --system -o json")]
    Explain {
        /// The user (name or id)
        user: String,
        /// The permission, such as server:start
        verb: String,
        /// On what: project/NAME, domain/NAME, user/NAME, server/NAME, or `system` for the cloud itself
        object: String,
        /// The user works in the cloud itself, not where the object is
        #[arg(long)]
        system: bool,
    },
}

/// Where an object lies, as the question says it; and in which scope somebody works there.
async fn place(client: &Client, object: &str) -> Result<(Map<String, Value>, Value)> {
    let wrong = || {
        CliError::usage(format!("\"{object}\" names no object"))
            .hint("write project/NAME, domain/NAME, user/NAME, server/NAME or system")
    };
    let mut place = Map::new();
    if object == "system" {
        return Ok((place, json!({ "type": "system" })));
    }
    let (kind, name) = object.split_once('/').ok_or_else(wrong)?;
    let (kind, id) = match kind {
        "project" => ("project", id(&project::KIND.find(client, name).await?)?),
        "domain" => ("domain", id(&domain::KIND.find(client, name).await?)?),
        "user" => {
            let user = user::KIND.find(client, name).await?;
            place.insert("owner".to_owned(), id(&user)?.to_string().into());
            let domain = user["domain"].as_str().and_then(|text| text.parse().ok());
            ("domain", domain.ok_or_else(wrong)?)
        }
        "server" => {
            let server: Server = resolve::one(client, name).await?;
            match server.meta.scope {
                Scope::Project(id) => ("project", id.uuid()),
                Scope::System => return Err(wrong()),
            }
        }
        _ => return Err(wrong()),
    };
    place.insert(kind.to_owned(), id.to_string().into());
    Ok((place, json!({ "type": kind, "id": id })))
}

pub(super) async fn run(app: &App, verb: Verb) -> Result<()> {
    let client = app.client()?;
    match verb {
        Verb::Permissions => {
            let all: Vec<Value> = client
                .pages(kind("policy").then("permissions"), usize::MAX)
                .await?;
            app.print().records(PERMISSIONS, &all)
        }
        Verb::Explain {
            user,
            verb,
            object,
            system,
        } => {
            let who = id(&user::KIND.find(&client, &user).await?)?;
            let (mut question, scope) = place(&client, &object).await?;
            let scope = if system {
                json!({ "type": "system" })
            } else {
                scope
            };
            question.insert("user".to_owned(), who.to_string().into());
            question.insert("permission".to_owned(), verb.into());
            question.insert("scope".to_owned(), scope);
            let target = kind("policy").then("actions").then("explain");
            let explained: Value = client.post(target, &question).await?;
            match (app.globals.output, explained["text"].as_str()) {
                (Format::Table | Format::Wide, Some(text)) => out::line(&clean_lines(text.trim_end())),
                _ => app
                    .print()
                    .document(&explained, explained["effect"].as_str().unwrap_or_default()),
            }
        }
    }
}
