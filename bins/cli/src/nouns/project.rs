//! `skyloom project …`

use clap::Subcommand;
use serde_json::json;
use skyloom_model::{Project, Resource as _};

use super::{list, show};
use crate::app::App;
use crate::args::ListArgs;
use crate::client::kind;
use crate::error::Result;

/// Verbs.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Make a project; admins only
    #[command(after_help = "Examples:
  skyloom project create shop
  skyloom project create shop --description \"The web shop\"")]
    Create {
        /// Its name
        name: String,
        /// Free text
        #[arg(long)]
        description: Option<String>,
    },
    /// List projects
    #[command(
        visible_alias = "ls",
        after_help = "Examples:
  skyloom project list
  skyloom project list -o json"
    )]
    List(ListArgs),
    /// Show one project
    #[command(after_help = "Examples:
  skyloom project show shop
  skyloom project show shop -o yaml")]
    Show {
        /// Name, id or beginning of an id
        name: String,
    },
}

pub(super) async fn run(app: &App, verb: Verb) -> Result<()> {
    match verb {
        Verb::Create { name, description } => {
            let mut request = json!({ "name": name });
            if let Some(description) = description {
                request["description"] = description.into();
            }
            let project: Project = app.client()?.post(kind(Project::KIND), &request).await?;
            app.print().one(&project)
        }
        Verb::List(args) => list::<Project>(app, &args).await,
        Verb::Show { name } => show::<Project>(app, &name).await,
    }
}
