//! `skyloom token …`

use clap::{Subcommand, ValueEnum};
use skyloom_model::{Host, ProjectId, Resource as _, Role, Timestamp, Token};

use super::{list, removal, the_project};
use crate::app::App;
use crate::args::{ListArgs, WaitArgs, YesArg};
use crate::client::types::{CreateToken, TokenMade};
use crate::client::{Client, kind};
use crate::error::{CliError, Result};
use crate::out::{self, Format};
use crate::resolve;
use crate::text::parse_duration;

/// Verbs.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Make a token; it is shown once. Admins only
    #[command(after_help = "Examples:
  skyloom token create ci --role member --project shop --expires 30d
  skyloom token create spare-agent --role agent --host rack1-n3
  skyloom token create ci --role reader -o json | jq -r .secret")]
    Create {
        /// Its name
        name: String,
        /// What its bearer may do; in --project, where that applies
        #[arg(long, value_enum)]
        role: RoleArg,
        /// The host of an agent's token
        #[arg(long, value_name = "HOST", required_if_eq("role", "agent"))]
        host: Option<String>,
        /// When it stops working: 12h, 30d or 2027-01-01T00:00:00Z
        #[arg(long, value_name = "WHEN")]
        expires: Option<String>,
    },
    /// List tokens, without their secrets
    #[command(
        visible_alias = "ls",
        after_help = "Examples:
  skyloom token list
  skyloom token list -o wide"
    )]
    List(ListArgs),
    /// Make tokens useless
    #[command(
        visible_alias = "rm",
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

/// What a token is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum RoleArg {
    /// Everything, in every project
    Admin,
    /// Everything in one project
    Member,
    /// Reading in one project
    Reader,
    /// An engine process
    Engine,
    /// One host's agent
    Agent,
}

pub(super) async fn run(app: &App, verb: Verb) -> Result<()> {
    match verb {
        Verb::Create {
            name,
            role,
            host,
            expires,
        } => {
            let expires_at = expires.map(|text| moment(&text, app.clock.now())).transpose()?;
            let client = app.client()?;
            let role = role_of(app, &client, role, host.as_deref()).await?;
            let request = CreateToken {
                name,
                role,
                expires_at,
            };
            let made: TokenMade = client.post(kind(Token::KIND), &request).await?;
            show(app, &made)
        }
        Verb::List(args) => list::<Token>(app, &args).await,
        Verb::Revoke { tokens, yes } => {
            removal::run::<Token>(app, &tokens, "revoke", yes, &WaitArgs::default()).await
        }
    }
}

/// A moment as people write it: after a duration (days too), or in full.
fn moment(text: &str, now: Timestamp) -> Result<Timestamp> {
    let days = text.strip_suffix('d').and_then(|days| days.parse::<u32>().ok());
    let after = match days {
        Some(days) => Some(std::time::Duration::from_secs(u64::from(days) * 86_400)),
        None => parse_duration(text).ok(),
    };
    after
        .and_then(|after| now.checked_add(after).ok())
        .or_else(|| text.parse().ok())
        .ok_or_else(|| {
            CliError::usage(format!("--expires \"{text}\" is no time"))
                .hint("write 12h, 30d or 2027-01-01T00:00:00Z")
        })
}

async fn role_of(app: &App, client: &Client, role: RoleArg, host: Option<&str>) -> Result<Role> {
    if host.is_some() && role != RoleArg::Agent {
        return Err(CliError::usage("--host only goes with --role agent"));
    }
    let project = async || -> Result<ProjectId> { Ok(the_project(app, client).await?.id()) };
    Ok(match (role, host) {
        (RoleArg::Admin, _) => Role::Admin {
            project: project().await?,
        },
        (RoleArg::Member, _) => Role::Member {
            project: project().await?,
        },
        (RoleArg::Reader, _) => Role::Reader {
            project: project().await?,
        },
        (RoleArg::Engine, _) => Role::Engine,
        (RoleArg::Agent, Some(host)) => Role::Agent {
            host: resolve::one::<Host>(client, host).await?.id(),
        },
        (RoleArg::Agent, None) => return Err(CliError::usage("--role agent needs --host")),
    })
}

fn show(app: &App, made: &TokenMade) -> Result<()> {
    match app.globals.output {
        Format::Table | Format::Wide => {
            app.print().list(std::slice::from_ref(&made.token))?;
            out::shown_once("the token", made.secret.as_deref());
            Ok(())
        }
        _ => {
            let value = out::json(made)?;
            app.print().document(&value, made.token.meta.name.as_str())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_after_now_or_in_full() {
        let now = Timestamp::from_second(0).unwrap();
        assert_eq!(moment("30d", now).unwrap().as_second(), 30 * 86_400);
        assert_eq!(moment("12h", now).unwrap().as_second(), 12 * 3600);
        assert_eq!(moment("1970-01-01T00:01:00Z", now).unwrap().as_second(), 60);
        for bad in ["", "soon", "99999999999999999d"] {
            assert!(moment(bad, now).is_err(), "{bad}");
        }
    }
}
