//! `skyloom domain …`

use clap::Subcommand;

use super::directory::{DirectoryList, Kind, Switch, fields};
use crate::app::App;
use crate::args::YesArg;
use crate::error::Result;
use crate::out::loose::Columns;

pub(super) const KIND: Kind = Kind {
    path: "domains",
    noun: "domain",
    columns: Columns {
        head: &[("NAME", "/name"), ("ENABLED", "/enabled"), ("AGE", "/created_at")],
        wide: &[("DESCRIPTION", "/description"), ("ID", "/id")],
    },
};

/// Verbs.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Make a domain: an organisation with its own users, groups and projects
    #[command(after_help = "Examples:
  skyloom domain create acme
  skyloom domain create acme --description Anvils -o json")]
    Create {
        /// Its name
        name: String,
        /// Free text
        #[arg(long)]
        description: Option<String>,
    },
    /// List domains
    #[command(
        visible_alias = "ls",
        after_help = "Examples:
  skyloom domain list
  skyloom domain list -o json"
    )]
    List {
        /// Only those of exactly this name
        #[arg(long)]
        name: Option<String>,
        /// At most so many
        #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..))]
        limit: u32,
    },
    /// Show one domain
    #[command(after_help = "Examples:
  skyloom domain show acme
  skyloom domain show acme -o yaml")]
    Show {
        /// Name, id or beginning of an id
        domain: String,
    },
    /// Rename, describe, enable or disable a domain
    #[command(after_help = "Examples:
  skyloom domain update acme --disable
  skyloom domain update acme --name acme-corp --description Anvils")]
    Update {
        /// Name, id or beginning of an id
        domain: String,
        /// Another name
        #[arg(long)]
        name: Option<String>,
        /// Other text
        #[arg(long)]
        description: Option<String>,
        #[command(flatten)]
        switch: Switch,
    },
    /// Remove domains with all that is in them; each must be disabled before
    #[command(
        visible_alias = "rm",
        after_help = "Examples:
  skyloom domain delete acme
  skyloom domain delete acme old --yes"
    )]
    Delete {
        /// Names, ids or beginnings of ids
        #[arg(required = true)]
        domains: Vec<String>,
        #[command(flatten)]
        yes: YesArg,
    },
}

pub(super) async fn run(app: &App, verb: Verb) -> Result<()> {
    match verb {
        Verb::Create { name, description } => {
            let body = fields([
                ("name", Some(name.into())),
                ("description", description.map(Into::into)),
            ]);
            KIND.create(app, &app.client()?, &body).await
        }
        Verb::List { name, limit } => {
            let args = DirectoryList {
                name,
                domain: None,
                limit,
            };
            KIND.list(app, &args).await
        }
        Verb::Show { domain } => KIND.show(app, &domain).await,
        Verb::Update {
            domain,
            name,
            description,
            switch,
        } => {
            let body = fields([
                ("name", name.map(Into::into)),
                ("description", description.map(Into::into)),
                ("enabled", switch.value()),
            ]);
            KIND.update(app, &domain, &body).await
        }
        Verb::Delete { domains, yes } => KIND.delete(app, &domains, "delete", yes).await,
    }
}
