//! `skyloom login`, `logout` and `whoami`: a password becomes a token of an hour, kept in a context.

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use skyloom_model::Secret;

use super::directory::fields;
use super::read_secret;
use crate::app::App;
use crate::client::{Client, Target};
use crate::context::{Context, Files, parse_endpoint};
use crate::error::{CliError, Result};
use crate::exit::Exit;
use crate::out;
use crate::out::loose::Columns;
use crate::secret;
use crate::text::parse_duration;

pub(crate) const EXAMPLES: &str = "Examples:
  skyloom login alice --endpoint https://cloud.example.org --project shop
  skyloom login alice --password-file - --no-code
  skyloom login admin --system --context home";

pub(crate) const LOGOUT: &str = "Examples:
  skyloom logout
  skyloom logout --context home";

pub(crate) const WHOAMI: &str = "Examples:
  skyloom whoami
  skyloom whoami -o json";

/// The context of those who name none.
const DEFAULT_CONTEXT: &str = "default";

const COLUMNS: Columns = Columns {
    head: &[
        ("NAME", "/name"),
        ("USER", "/user"),
        ("DOMAIN", "/domain"),
        ("SCOPE", "/scope"),
        ("ROLES", "/roles"),
        ("EXPIRES", "/expires_at"),
    ],
    wide: &[
        ("METHODS", "/methods"),
        ("VIA", "/via"),
        ("OTHER SCOPES", "/scopes"),
    ],
};

/// Who, and where the roles shall count: in --project, or as said here; without either in the user's default project.
#[derive(Debug, clap::Args)]
pub(crate) struct Login {
    /// The user's name or id; without it you are asked
    user: Option<String>,
    /// The user's domain (name or id), if not the default one
    #[arg(long)]
    domain: Option<String>,
    /// The password from a file, or from stdin with `-`; without it you are asked
    #[arg(long, value_name = "FILE")]
    password_file: Option<String>,
    /// A code of the second factor from a file, or from stdin with `-`
    #[arg(long, value_name = "FILE")]
    code_file: Option<String>,
    /// Do not ask for a code of a second factor when the password alone does not do
    #[arg(long, conflicts_with = "code_file")]
    no_code: bool,
    /// Have the roles count in the cloud itself
    #[arg(long, conflicts_with_all = ["in_domain", "unscoped"])]
    system: bool,
    /// Have the roles count in a domain (name or id)
    #[arg(long, value_name = "DOMAIN", conflicts_with = "unscoped")]
    in_domain: Option<String>,
    /// Have no roles count: only to see which scopes there are
    #[arg(long)]
    unscoped: bool,
    /// How long the token shall live; the cloud may make it shorter
    #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = parse_duration)]
    life: Duration,
}

fn files() -> Result<Files> {
    Files::of_user().ok_or_else(|| {
        CliError::usage("there is no place for contexts")
            .hint("set HOME or XDG_CONFIG_HOME to an absolute path")
    })
}

impl Login {
    fn scope(&self, app: &App) -> Option<Value> {
        let project = app.globals.project.clone().filter(|name| !name.is_empty());
        match (&self.in_domain, project) {
            _ if self.system => Some("system".into()),
            _ if self.unscoped => Some("none".into()),
            (Some(domain), _) => Some(json!({ "domain": domain })),
            (None, Some(project)) => Some(json!({ "project": project })),
            (None, None) => None,
        }
    }
}

/// Logs in, and keeps the token in the context.
pub(super) async fn login(app: &App, login: Login) -> Result<()> {
    if login.password_file.as_deref() == Some("-") && login.code_file.as_deref() == Some("-") {
        return Err(CliError::usage(
            "--password-file and --code-file cannot both be read from stdin",
        ));
    }
    let files = files()?;
    let mut config = files.config()?;
    let wanted = app.globals.context.clone().filter(|name| !name.is_empty());
    let context = wanted
        .or_else(|| config.current.clone())
        .unwrap_or_else(|| DEFAULT_CONTEXT.to_owned());
    let old = config.contexts.get(&context);
    let endpoint = match (
        app.globals.endpoint.as_deref().filter(|text| !text.is_empty()),
        old,
    ) {
        (Some(text), _) => parse_endpoint(text)?,
        (None, Some(old)) => parse_endpoint(&old.endpoint)?,
        (None, None) => return Err(CliError::usage("which cloud? a first login needs --endpoint")),
    };
    let user = match &login.user {
        Some(user) => user.clone(),
        None => secret::ask(app, "User", "name the user").await?,
    };
    let password = secret::password(app, login.password_file.as_deref(), "Password").await?;
    let mut body = fields([
        ("user", Some(user.into())),
        ("domain", login.domain.clone().map(Into::into)),
        ("password", Some(password.expose().clone().into())),
        ("scope", login.scope(app)),
        ("life_seconds", Some(login.life.as_secs().clamp(1, 86_400).into())),
    ]);
    if let Some(path) = &login.code_file {
        body["code"] = read_secret(path, "code")?.into();
    }
    let ca_file = app.globals.ca_file.clone().or_else(|| {
        let same = |old: &&Context| {
            parse_endpoint(&old.endpoint).is_ok_and(|known| known.origin() == endpoint.origin())
        };
        old.filter(same)?.ca_file.clone()
    });
    let ca_file = ca_file
        .map(std::path::absolute)
        .transpose()
        .map_err(|e| CliError::usage(format!("cannot tell where the file of roots is: {e}")))?;
    let (clock, ids) = (app.clock.clone(), app.ids.clone());
    let client = Client::anonymous(endpoint.clone(), ca_file.clone(), clock, ids)?;
    let target = || Target::new(["v1", "auth", "login"]);
    let mut answer = client.post::<Value>(target(), &body).await;
    if let Err(refused) = &answer
        && refused.exit == Exit::NotLoggedIn
        && app.interactive
        && !login.no_code
        && login.code_file.is_none()
    {
        // What was wrong is not said: it may be that a code is missing.
        let code = secret::ask_unseen(app, "Code of the second factor (empty: none)", "").await?;
        if !code.expose().is_empty() {
            body["code"] = code.expose().clone().into();
            answer = client.post(target(), &body).await;
        }
    }
    let answer = answer.map_err(|error| match error.exit {
        Exit::NotLoggedIn => {
            error.hint("user, domain, password or code are wrong, or there is no role in that scope")
        }
        _ => error,
    })?;
    let token = answer["token"]
        .as_str()
        .ok_or_else(|| CliError::unexpected("the server's answer has no token"))?;

    let project = app
        .globals
        .project
        .clone()
        .filter(|_| login.scope(app).is_some_and(|scope| scope.is_object()));
    config.current.get_or_insert_with(|| context.clone());
    // The scope of the token is the project: nothing else needs to name it.
    let kept = Context {
        endpoint: endpoint.to_string(),
        project: None,
        ca_file,
    };
    config.contexts.insert(context.clone(), kept);
    files.save_config(&config)?;
    files.save_token(&context, Some(&Secret::new(token.to_owned())))?;
    let until = answer["expires_at"].as_str().unwrap_or("soon");
    let place = project
        .map(|project| format!(" in {project}"))
        .unwrap_or_default();
    out::message(&format!(
        "logged in{place} until {until}; the token is in the context {context}"
    ));
    Ok(())
}

/// Takes the token back, and forgets it.
pub(super) async fn logout(app: &App) -> Result<()> {
    let files = files()?;
    let config = files.config()?;
    let client = app.client()?;
    let told = client
        .command(Method::POST, Target::new(["v1", "auth", "logout"]), None)
        .await;
    let name = app.globals.context.clone().or(config.current);
    if let Some(name) = name.filter(|_| app.globals.token.is_none()) {
        files.save_token(&name, None)?;
    }
    match told {
        // It works no more: that is what was wanted.
        Err(error) if error.exit == Exit::NotLoggedIn => Ok(()),
        told => told,
    }
}

/// Shows as whom commands work.
pub(super) async fn whoami(app: &App) -> Result<()> {
    let who: Value = app.client()?.get(Target::new(["v1", "auth", "whoami"])).await?;
    app.print().record(COLUMNS, &who)
}
