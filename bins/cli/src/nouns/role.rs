//! `skyloom role …`

use clap::Subcommand;
use reqwest::Method;

use super::directory::{DirectoryList, Kind, domain, fields, id};
use crate::app::App;
use crate::args::YesArg;
use crate::client::kind;
use crate::error::Result;
use crate::out::loose::Columns;

pub(super) const KIND: Kind = Kind {
    path: "roles",
    noun: "role",
    columns: Columns {
        head: &[
            ("NAME", "/name"),
            ("DOMAIN", "/domain"),
            ("PERMISSIONS", "/permissions"),
        ],
        wide: &[
            ("BUILT IN", "/built_in"),
            ("IMPLIES", "/implies"),
            ("DESCRIPTION", "/description"),
            ("AGE", "/created_at"),
            ("ID", "/id"),
        ],
    },
};

/// Verbs.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Make a role of permissions; see `skyloom policy permissions` for what there is
    #[command(after_help = "Examples:
  skyloom role create rescuer --permission server:read --permission server:start-rescue
  skyloom role create looker --permission *:read --domain acme")]
    Create {
        /// Its name
        name: String,
        /// What it allows: a permission such as server:start, or a pattern such as server:* or *:read; may be given several times
        #[arg(long = "permission", value_name = "PATTERN", required = true)]
        permissions: Vec<String>,
        /// The only domain where it can be given
        #[arg(long)]
        domain: Option<String>,
        /// Free text
        #[arg(long)]
        description: Option<String>,
    },
    /// List roles
    #[command(
        visible_alias = "ls",
        after_help = "Examples:
  skyloom role list
  skyloom role list -o wide"
    )]
    List(DirectoryList),
    /// Show one role
    #[command(after_help = "Examples:
  skyloom role show member
  skyloom role show member -o yaml")]
    Show {
        /// Name, id or beginning of an id
        role: String,
    },
    /// Rename or describe a role, or change what it allows
    #[command(after_help = "Examples:
  skyloom role update rescuer --permission server:read --permission server:*-rescue
  skyloom role update rescuer --name medic")]
    Update {
        /// Name, id or beginning of an id
        role: String,
        /// Another name
        #[arg(long)]
        name: Option<String>,
        /// Other text
        #[arg(long)]
        description: Option<String>,
        /// All that it allows from now on; may be given several times
        #[arg(long = "permission", value_name = "PATTERN")]
        permissions: Vec<String>,
    },
    /// Have a role come with another: who has the first has the second too
    #[command(after_help = "Examples:
  skyloom role imply rescuer reader
  skyloom role imply chief admin --allow-admin")]
    Imply {
        /// Who has this one (name or id)
        role: String,
        /// Has this one too (name or id)
        implied: String,
        /// Say that what leads to `admin` is meant
        #[arg(long)]
        allow_admin: bool,
    },
    /// Have a role come with another no more
    #[command(after_help = "Examples:
  skyloom role unimply rescuer reader
  skyloom role unimply member reader")]
    Unimply {
        /// Who has this one (name or id)
        role: String,
        /// Has this one no more by it (name or id)
        implied: String,
    },
    /// Remove roles; who had them has them no more
    #[command(
        visible_alias = "rm",
        after_help = "Examples:
  skyloom role delete rescuer
  skyloom role delete rescuer looker --yes"
    )]
    Delete {
        /// Names, ids or beginnings of ids
        #[arg(required = true)]
        roles: Vec<String>,
        #[command(flatten)]
        yes: YesArg,
    },
}

pub(super) async fn run(app: &App, verb: Verb) -> Result<()> {
    match verb {
        Verb::Create {
            name,
            permissions,
            domain,
            description,
        } => {
            let client = app.client()?;
            let domain = self::domain(&client, domain.as_deref()).await?;
            let body = fields([
                ("name", Some(name.into())),
                ("permissions", Some(permissions.into())),
                ("domain", domain.map(|id| id.to_string().into())),
                ("description", description.map(Into::into)),
            ]);
            KIND.create(app, &client, &body).await
        }
        Verb::List(args) => KIND.list(app, &args).await,
        Verb::Show { role } => KIND.show(app, &role).await,
        Verb::Update {
            role,
            name,
            description,
            permissions,
        } => {
            let body = fields([
                ("name", name.map(Into::into)),
                ("description", description.map(Into::into)),
                (
                    "permissions",
                    (!permissions.is_empty()).then(|| permissions.into()),
                ),
            ]);
            KIND.update(app, &role, &body).await
        }
        Verb::Imply {
            role,
            implied,
            allow_admin,
        } => imply(app, &role, &implied, Method::PUT, allow_admin).await,
        Verb::Unimply { role, implied } => imply(app, &role, &implied, Method::DELETE, false).await,
        Verb::Delete { roles, yes } => KIND.delete(app, &roles, "delete", yes).await,
    }
}

async fn imply(app: &App, role: &str, implied: &str, method: Method, allow_admin: bool) -> Result<()> {
    let client = app.client()?;
    let (role, implied) = (
        KIND.find(&client, role).await?,
        KIND.find(&client, implied).await?,
    );
    let mut target = kind(KIND.path)
        .then(id(&role)?)
        .then("implies")
        .then(id(&implied)?);
    if allow_admin {
        target = target.query("allow_admin", true);
    }
    client.command(method, target, None).await?;
    KIND.say(app, &role, "change")
}
