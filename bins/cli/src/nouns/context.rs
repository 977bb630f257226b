//! `skyloom context …`: local files only, no cloud is asked.

use clap::Subcommand;
use serde::Serialize;
use skyloom_model::{Secret, Timestamp};

use super::read_secret;
use crate::app::App;
use crate::context::{Context, Files, connection, parse_endpoint};
use crate::error::{CliError, Result};
use crate::exit::Exit;
use crate::out::{self, Row};

/// Verbs.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// List the contexts
    #[command(
        visible_alias = "ls",
        after_help = "Examples:
  skyloom context list
  skyloom context list -o json"
    )]
    List,
    /// Use a context from now on
    #[command(after_help = "Examples:
  skyloom context use home
  skyloom context use work")]
    Use {
        /// Which one
        name: String,
    },
    /// Make or change a context
    #[command(after_help = "Examples:
  skyloom context set home --endpoint http://127.0.0.1:8780 --token-file token
  skyloom context set work --endpoint https://cloud.example.org --project shop
  skyloom context set lab --endpoint https://lab.example.org --ca-file roots.pem
  echo $SKYLOOM_TOKEN | skyloom context set home --endpoint $SKYLOOM_ENDPOINT --token-file -")]
    Set {
        /// Which one; the first that is made becomes the current one
        name: String,
        /// File with the token, or `-` for stdin
        #[arg(long, value_name = "FILE")]
        token_file: Option<String>,
    },
    /// Forget a context and its token
    #[command(
        visible_alias = "rm",
        after_help = "Examples:
  skyloom context remove home
  skyloom context remove work"
    )]
    Remove {
        /// Which one
        name: String,
    },
    /// Show what commands would use now
    #[command(after_help = "Examples:
  skyloom context show
  skyloom context show --context work -o json")]
    Show,
}

#[derive(Debug, Serialize)]
struct ContextRow {
    name: String,
    current: bool,
    endpoint: String,
    project: Option<String>,
    token: bool,
}

impl Row for ContextRow {
    const HEAD: &'static [&'static str] = &["NAME", "CURRENT", "ENDPOINT", "PROJECT", "TOKEN"];
    const WIDE: &'static [&'static str] = &[];
    fn cells(&self, _: Timestamp) -> Vec<String> {
        let yes = |on: bool| if on { "yes" } else { "no" }.to_owned();
        vec![
            self.name.clone(),
            yes(self.current),
            self.endpoint.clone(),
            self.project.clone().unwrap_or_default(),
            yes(self.token),
        ]
    }
    fn name(&self) -> String {
        self.name.clone()
    }
}

pub(super) async fn run(app: &App, verb: Verb) -> Result<()> {
    let files = Files::of_user().ok_or_else(|| {
        CliError::usage("there is no place for contexts")
            .hint("set HOME or XDG_CONFIG_HOME to an absolute path")
    })?;
    let mut config = files.config()?;
    let unknown = |name: &str| {
        CliError::new(Exit::NotFound, format!("there is no context \"{name}\""))
            .hint("see `skyloom context list`")
    };
    match verb {
        Verb::List => {
            let mut rows = Vec::new();
            for (name, context) in &config.contexts {
                rows.push(ContextRow {
                    name: name.clone(),
                    current: config.current.as_ref() == Some(name),
                    endpoint: context.endpoint.clone(),
                    project: context.project.clone(),
                    token: files.token(name)?.is_some(),
                });
            }
            app.print().list(&rows)
        }
        Verb::Use { name } => {
            if !config.contexts.contains_key(&name) {
                return Err(unknown(&name));
            }
            config.current = Some(name);
            files.save_config(&config)
        }
        Verb::Set { name, token_file } => {
            let old = config.contexts.get(&name);
            let endpoint = match (&app.globals.endpoint, old) {
                (Some(text), _) => parse_endpoint(text)?.to_string(),
                (None, Some(old)) => old.endpoint.clone(),
                (None, None) => return Err(CliError::usage("a new context needs --endpoint")),
            };
            let project = app
                .globals
                .project
                .clone()
                .or_else(|| old.and_then(|old| old.project.clone()));
            let ca_file =
                match &app.globals.ca_file {
                    Some(file) => Some(std::path::absolute(file).map_err(|e| {
                        CliError::usage(format!("cannot tell where {} is: {e}", file.display()))
                    })?),
                    None => old.and_then(|old| old.ca_file.clone()),
                };
            let token = token_file.map(|path| read_secret(&path, "token")).transpose()?;
            let moved = old.is_some_and(|old| old.endpoint != endpoint);
            config.current.get_or_insert_with(|| name.clone());
            config.contexts.insert(
                name.clone(),
                Context {
                    endpoint,
                    project,
                    ca_file,
                },
            );
            files.save_config(&config)?;
            match token {
                Some(token) => files.save_token(&name, Some(&Secret::new(token)))?,
                // A token belongs to the cloud that gave it.
                None if moved => files.save_token(&name, None)?,
                None => {}
            }
            out::message(&format!("written to {}", files.config_path().display()));
            Ok(())
        }
        Verb::Remove { name } => {
            if config.contexts.remove(&name).is_none() {
                return Err(unknown(&name));
            }
            if config.current.as_ref() == Some(&name) {
                config.current = None;
            }
            files.save_config(&config)?;
            files.save_token(&name, None)
        }
        Verb::Show => {
            let connection = connection(&app.globals, Some(&files))?;
            app.print().one(&ContextRow {
                name: app
                    .globals
                    .context
                    .clone()
                    .or(config.current)
                    .unwrap_or_else(|| "none".to_owned()),
                current: true,
                endpoint: connection.endpoint.to_string(),
                project: connection.project,
                token: connection.token.is_some(),
            })
        }
    }
}
