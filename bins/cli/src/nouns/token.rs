//! `skyloom token …`: long secrets for programs and for the cloud's own machines.

use clap::{Subcommand, ValueEnum};
use serde_json::{Value, json};
use skyloom_model::{Host, Resource as _};

use super::directory::{Kind, fields, id, named};
use super::{domain, moment, project, user};
use crate::app::App;
use crate::args::YesArg;
use crate::client::{Client, kind};
use crate::error::{CliError, Result};
use crate::out::Format;
use crate::out::loose::Columns;
use crate::resolve;

const KIND: Kind = Kind {
    path: "tokens",
    noun: "token",
    columns: Columns {
        head: &[
            ("NAME", "/name"),
            ("HOLDER", "/type"),
            ("USER", "/user"),
            ("SCOPE", "/scope"),
            ("SECRET", "/hint"),
            ("EXPIRES", "/expires_at"),
            ("LAST USED", "/last_used"),
        ],
        wide: &[
            ("PERMISSIONS", "/permissions"),
            ("HOST", "/host"),
            ("AGE", "/created_at"),
            ("ID", "/id"),
        ],
    },
};

/// Verbs.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Make a token: of your own here, or of one of the cloud's machines; it is shown once
    #[command(after_help = "Examples:
  skyloom token create ci --project shop --permission server:* --expires 30d
  skyloom token create report --permission *:read -o json | jq -r .secret
  skyloom token create engine-1 --role engine
  skyloom token create spare-agent --role agent --host rack1-n3")]
    Create(Create),
    /// List tokens, without their secrets
    #[command(
        visible_alias = "ls",
        after_help = "Examples:
  skyloom token list
  skyloom token list --prefix sky_Vm9k
  skyloom token list --user alice -o wide"
    )]
    List {
        /// Only those of exactly this name
        #[arg(long)]
        name: Option<String>,
        /// Only the one whose secret begins so: to find out whose a found secret is
        #[arg(long, value_name = "SECRET")]
        prefix: Option<String>,
        /// Only those of this user (name or id)
        #[arg(long)]
        user: Option<String>,
        /// At most so many
        #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..))]
        limit: u32,
    },
    /// Show one token, without its secret
    #[command(after_help = "Examples:
  skyloom token show ci
  skyloom token show ci -o yaml")]
    Show {
        /// Name, id or beginning of an id
        name: String,
    },
    /// Make tokens useless
    #[command(
        visible_aliases = ["delete", "rm"],
        after_help = "Examples:
  skyloom token revoke ci
  skyloom token revoke ci --yes"
    )]
    Revoke {
        /// Names, ids or beginnings of ids
        #[arg(required = true)]
        tokens: Vec<String>,
        #[command(flatten)]
        yes: YesArg,
    },
}

/// Which token.
#[derive(Debug, clap::Args)]
pub(crate) struct Create {
    /// Its name
    name: String,
    /// A machine of the cloud that acts with it, instead of a user
    #[arg(long, value_enum)]
    role: Option<RoleArg>,
    /// The host of an agent's token
    #[arg(long, value_name = "HOST", required_if_eq("role", "agent"))]
    host: Option<String>,
    /// The user who acts with it (name or id), if not you
    #[arg(long, conflicts_with = "role")]
    user: Option<String>,
    /// To what it reaches at most: a permission such as server:start, or a pattern such as *:read; may be given several times
    #[arg(long = "permission", value_name = "PATTERN", conflicts_with = "role")]
    permissions: Vec<String>,
    /// It works in the cloud itself, not in --project or where you are
    #[arg(long, conflicts_with_all = ["role", "in_domain"])]
    system: bool,
    /// It works in this domain (name or id)
    #[arg(long, value_name = "DOMAIN", conflicts_with = "role")]
    in_domain: Option<String>,
    /// When it stops working: 12h, 30d or 2027-01-01T00:00:00Z
    #[arg(long, value_name = "WHEN")]
    expires: Option<String>,
}

/// Machines of the cloud.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum RoleArg {
    /// An engine process
    Engine,
    /// One host's agent
    Agent,
}

impl Create {
    async fn holder(&self, app: &App, client: &Client) -> Result<Option<Value>> {
        match (self.role, &self.host) {
            (Some(RoleArg::Engine), None) => return Ok(Some(json!({ "type": "engine" }))),
            (Some(RoleArg::Agent), Some(host)) => {
                let host: Host = resolve::one(client, host).await?;
                return Ok(Some(json!({ "type": "agent", "host": host.id() })));
            }
            (Some(RoleArg::Agent), None) => return Err(CliError::usage("--role agent needs --host")),
            (_, Some(_)) => return Err(CliError::usage("--host only goes with --role agent")),
            (None, None) => {}
        }
        let user = match &self.user {
            Some(name) => Some(id(&user::KIND.find(client, name).await?)?.to_string().into()),
            None => None,
        };
        let here = app.globals.project.as_deref().filter(|name| !name.is_empty());
        let scope = match (&self.in_domain, here) {
            _ if self.system => Some(json!({ "type": "system" })),
            (Some(name), _) => {
                Some(json!({ "type": "domain", "id": id(&domain::KIND.find(client, name).await?)? }))
            }
            (None, Some(name)) => {
                Some(json!({ "type": "project", "id": id(&project::KIND.find(client, name).await?)? }))
            }
            (None, None) => None,
        };
        let permissions = (!self.permissions.is_empty()).then(|| self.permissions.clone().into());
        if user.is_none() && scope.is_none() && permissions.is_none() {
            return Ok(None);
        }
        let kind = Some("user".into());
        let holder = [
            ("type", kind),
            ("user", user),
            ("scope", scope),
            ("permissions", permissions),
        ];
        Ok(Some(fields(holder)))
    }
}

/// For people: what is inside of the holder stands beside the rest.
fn flat(app: &App, mut token: Value) -> Value {
    if matches!(app.globals.output, Format::Table | Format::Wide)
        && let (Some(Value::Object(holder)), Some(token)) =
            (token.get("holder").cloned(), token.as_object_mut())
    {
        token.extend(holder);
    }
    token
}

pub(super) async fn run(app: &App, verb: Verb) -> Result<()> {
    let client = app.client()?;
    match verb {
        Verb::Create(create) => {
            let expires = create
                .expires
                .as_deref()
                .map(|text| moment(text, app.clock.now()));
            let body = fields([
                ("name", Some(create.name.clone().into())),
                ("expires_at", expires.transpose()?.map(|at| at.to_string().into())),
                ("holder", create.holder(app, &client).await?),
            ]);
            let mut made: Value = client.post(kind(KIND.path), &body).await?;
            made["token"] = flat(app, made["token"].take());
            super::show_secret(app, KIND.columns, &made, KIND.noun, "the token")
        }
        Verb::List {
            name,
            prefix,
            user,
            limit,
        } => {
            let user = match user {
                Some(name) => Some(id(&user::KIND.find(&client, &name).await?)?.to_string()),
                None => None,
            };
            let wanted = [("name", name), ("prefix", prefix), ("user", user)];
            let query: Vec<_> = wanted
                .into_iter()
                .filter_map(|(name, value)| Some((name, value?)))
                .collect();
            let limit = usize::try_from(limit).unwrap_or(usize::MAX);
            let tokens: Vec<Value> = client.list(KIND.path, &query, limit).await?;
            let tokens = tokens.into_iter().map(|token| flat(app, token)).collect();
            app.print()
                .records(KIND.columns, &named(app, &client, tokens).await)
        }
        Verb::Show { name } => {
            let token = flat(app, KIND.find(&client, &name).await?);
            for token in named(app, &client, vec![token]).await {
                app.print().record(KIND.columns, &token)?;
            }
            Ok(())
        }
        Verb::Revoke { tokens, yes } => KIND.delete(app, &tokens, "revoke", yes).await,
    }
}
