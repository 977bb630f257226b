//! `skyloom user …`

use clap::Subcommand;
use reqwest::Method;
use serde_json::{Value, json};
use skyloom_model::Project;

use super::directory::{DirectoryList, Kind, Switch, domain, fields, id};
use crate::app::App;
use crate::args::YesArg;
use crate::client::{Client, kind};
use crate::error::Result;
use crate::out::loose::Columns;
use crate::{resolve, secret};

pub(super) const KIND: Kind = Kind {
    path: "users",
    noun: "user",
    columns: Columns {
        head: &[
            ("NAME", "/name"),
            ("KIND", "/kind"),
            ("ENABLED", "/enabled"),
            ("DOMAIN", "/domain"),
            ("AGE", "/created_at"),
        ],
        wide: &[
            ("EMAIL", "/email"),
            ("SECOND FACTOR", "/second_factor"),
            ("DEFAULT PROJECT", "/default_project"),
            ("DESCRIPTION", "/description"),
            ("ID", "/id"),
        ],
    },
};

/// What can be said of a user.
#[derive(Debug, clap::Args)]
pub(crate) struct About {
    /// Where to write to
    #[arg(long)]
    email: Option<String>,
    /// Free text
    #[arg(long)]
    description: Option<String>,
    /// The project of logins that name none (name or id)
    #[arg(long, value_name = "PROJECT")]
    default_project: Option<String>,
}

/// Verbs.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Make a user; without a password nobody can log in as it
    #[command(after_help = "Examples:
  skyloom user create alice --email alice@example.org --password-file -
  skyloom user create backup --service --description Robot
  skyloom user create alice --domain acme --password-file secret")]
    Create {
        /// The name to log in with
        name: String,
        /// Of which domain (name or id); without it your own
        #[arg(long)]
        domain: Option<String>,
        /// A program, which has credentials and no second factor
        #[arg(long)]
        service: bool,
        /// First password from a file, or from stdin with `-`
        #[arg(long, value_name = "FILE")]
        password_file: Option<String>,
        #[command(flatten)]
        about: About,
    },
    /// List users
    #[command(
        visible_alias = "ls",
        after_help = "Examples:
  skyloom user list
  skyloom user list --domain acme -o wide"
    )]
    List(DirectoryList),
    /// Show one user
    #[command(after_help = "Examples:
  skyloom user show alice
  skyloom user show alice -o yaml")]
    Show {
        /// Name, id or beginning of an id
        user: String,
    },
    /// Rename, describe, enable or disable a user
    #[command(after_help = "Examples:
  skyloom user update alice --disable
  skyloom user update alice --name alicia --email alicia@example.org")]
    Update {
        /// Name, id or beginning of an id
        user: String,
        /// Another name
        #[arg(long)]
        name: Option<String>,
        #[command(flatten)]
        about: About,
        #[command(flatten)]
        switch: Switch,
    },
    /// Remove users with their credentials and grants
    #[command(
        visible_alias = "rm",
        after_help = "Examples:
  skyloom user delete alice
  skyloom user delete alice bob --yes"
    )]
    Delete {
        /// Names, ids or beginnings of ids
        #[arg(required = true)]
        users: Vec<String>,
        #[command(flatten)]
        yes: YesArg,
    },
    /// Give somebody else a new password; all their tokens end
    #[command(after_help = "Examples:
  skyloom user set-password alice
  skyloom user set-password alice --password-file -")]
    SetPassword {
        /// Name, id or beginning of an id
        user: String,
        /// The new password from a file, or from stdin with `-`; without it you are asked
        #[arg(long, value_name = "FILE")]
        password_file: Option<String>,
    },
    /// Change your own password; all your tokens end
    #[command(after_help = "Examples:
  skyloom user change-password
  skyloom user change-password --old-password-file old --password-file new")]
    ChangePassword {
        /// The password until now from a file, or from stdin with `-`; without it you are asked
        #[arg(long, value_name = "FILE")]
        old_password_file: Option<String>,
        /// The new one from a file, or from stdin with `-`; without it you are asked
        #[arg(long, value_name = "FILE")]
        password_file: Option<String>,
    },
}

async fn about(client: &Client, about: About) -> Result<Value> {
    let project = match about.default_project {
        Some(name) => {
            let project: Project = resolve::one(client, &name).await?;
            Some(project.meta.id.to_string().into())
        }
        None => None,
    };
    Ok(fields([
        ("email", about.email.map(Into::into)),
        ("description", about.description.map(Into::into)),
        ("default_project", project),
    ]))
}

pub(super) async fn run(app: &App, verb: Verb) -> Result<()> {
    match verb {
        Verb::Create {
            name,
            domain,
            service,
            password_file,
            about,
        } => {
            let password = match password_file.as_deref() {
                Some(path) => Some(super::read_secret(path, "password")?),
                None => None,
            };
            let client = app.client()?;
            let mut body = self::about(&client, about).await?;
            body["name"] = name.into();
            if let Some(id) = self::domain(&client, domain.as_deref()).await? {
                body["domain"] = id.to_string().into();
            }
            if service {
                body["kind"] = "service".into();
            }
            if let Some(password) = password {
                body["password"] = password.into();
            }
            KIND.create(app, &client, &body).await
        }
        Verb::List(args) => KIND.list(app, &args).await,
        Verb::Show { user } => KIND.show(app, &user).await,
        Verb::Update {
            user,
            name,
            about,
            switch,
        } => {
            let mut body = self::about(&app.client()?, about).await?;
            if let Some(name) = name {
                body["name"] = name.into();
            }
            if let Some(enabled) = switch.value() {
                body["enabled"] = enabled;
            }
            KIND.update(app, &user, &body).await
        }
        Verb::Delete { users, yes } => KIND.delete(app, &users, "delete", yes).await,
        Verb::SetPassword { user, password_file } => {
            let client = app.client()?;
            let user = KIND.find(&client, &user).await?;
            let password = secret::new_password(app, password_file.as_deref()).await?;
            let target = kind(KIND.path)
                .then(id(&user)?)
                .then("actions")
                .then("set-password");
            let body = json!({ "password": password.expose() });
            client.command(Method::POST, target, Some(&body)).await?;
            KIND.say(app, &user, "change")
        }
        Verb::ChangePassword {
            old_password_file,
            password_file,
        } => {
            let client = app.client()?;
            let old = secret::password(app, old_password_file.as_deref(), "Password until now").await?;
            let new = secret::new_password(app, password_file.as_deref()).await?;
            let target = kind(KIND.path).then("me").then("actions").then("change-password");
            let body = json!({ "old": old.expose(), "new": new.expose() });
            client.command(Method::POST, target, Some(&body)).await?;
            crate::out::message("changed; log in again with `skyloom login`");
            Ok(())
        }
    }
}
