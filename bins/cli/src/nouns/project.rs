//! `skyloom project …`

use std::collections::BTreeMap;

use clap::Subcommand;
use serde_json::Value;
use skyloom_model::Project;

use super::directory::{self, Kind, Switch, fields, id};
use super::{list, show};
use crate::app::App;
use crate::args::{ListArgs, YesArg};
use crate::client::kind;
use crate::error::Result;
use crate::out::loose::{Columns, name};
use crate::out::{self, Format};
use crate::text::clean;

pub(super) const KIND: Kind = Kind {
    path: "projects",
    noun: "project",
    columns: Columns {
        head: &[
            ("NAME", "/meta/name"),
            ("ENABLED", "/spec/enabled"),
            ("AGE", "/meta/created_at"),
        ],
        wide: &[
            ("DESCRIPTION", "/spec/description"),
            ("DOMAIN", "/spec/domain"),
            ("PARENT", "/spec/parent"),
            ("TAGS", "/spec/tags"),
            ("ID", "/meta/id"),
        ],
    },
};

/// Verbs.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Make a project, in your domain or where you may
    #[command(after_help = "Examples:
  skyloom project create shop
  skyloom project create shop --description \"The web shop\"
  skyloom project create web --parent shop
  skyloom project create shop --domain acme")]
    Create {
        /// Its name
        name: String,
        /// Free text
        #[arg(long)]
        description: Option<String>,
        /// The project that it stands below (name or id)
        #[arg(long, value_name = "PROJECT")]
        parent: Option<String>,
        /// The domain that it is for (name or id); by default its parent's, or yours
        #[arg(long)]
        domain: Option<String>,
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
    /// Show which projects are below which
    #[command(after_help = "Examples:
  skyloom project tree
  skyloom project tree -o json")]
    Tree,
    /// Rename, describe, tag, enable or disable a project
    #[command(after_help = "Examples:
  skyloom project update shop --disable
  skyloom project update shop --name store --tag web --tag paid")]
    Update {
        /// Name, id or beginning of an id
        project_name: String,
        /// Another name
        #[arg(long)]
        name: Option<String>,
        /// Other text
        #[arg(long)]
        description: Option<String>,
        /// All its marks from now on; may be given several times
        #[arg(long = "tag", value_name = "TAG")]
        tags: Vec<String>,
        #[command(flatten)]
        switch: Switch,
    },
    /// Remove projects; each must be empty
    #[command(
        visible_alias = "rm",
        after_help = "Examples:
  skyloom project delete shop
  skyloom project delete shop old --yes"
    )]
    Delete {
        /// Names, ids or beginnings of ids
        #[arg(required = true)]
        projects: Vec<String>,
        #[command(flatten)]
        yes: YesArg,
    },
}

pub(super) async fn run(app: &App, verb: Verb) -> Result<()> {
    match verb {
        Verb::Create {
            name,
            description,
            parent,
            domain,
        } => {
            let client = app.client()?;
            let parent = match parent {
                Some(parent) => Some(id(&KIND.find(&client, &parent).await?)?.to_string()),
                None => None,
            };
            let domain = directory::domain(&client, domain.as_deref()).await?;
            let request = fields([
                ("name", Some(name.into())),
                ("description", description.map(Into::into)),
                ("parent", parent.map(Into::into)),
                ("domain", domain.map(|domain| domain.to_string().into())),
            ]);
            let project: Project = client.post(kind(KIND.path), &request).await?;
            app.print().one(&project)
        }
        Verb::List(args) => list::<Project>(app, &args).await,
        Verb::Show { name } => show::<Project>(app, &name).await,
        Verb::Tree => {
            let all: Vec<Value> = app.client()?.list(KIND.path, &[], usize::MAX).await?;
            match app.globals.output {
                Format::Table | Format::Wide => out::raw(&tree(&all)?),
                _ => app.print().records(KIND.columns, &all),
            }
        }
        Verb::Update {
            project_name,
            name,
            description,
            tags,
            switch,
        } => {
            let body = fields([
                ("name", name.map(Into::into)),
                ("description", description.map(Into::into)),
                ("tags", (!tags.is_empty()).then(|| tags.into())),
                ("enabled", switch.value()),
            ]);
            KIND.update(app, &project_name, &body).await
        }
        Verb::Delete { projects, yes } => KIND.delete(app, &projects, "delete", yes).await,
    }
}

/// Each project below the one that it belongs to; those whose parent is not seen stand at the top.
fn tree(all: &[Value]) -> Result<String> {
    let mut below: BTreeMap<Option<String>, Vec<(String, String)>> = BTreeMap::new();
    let mut ids = Vec::new();
    for project in all {
        ids.push(id(project)?.to_string());
    }
    for (project, id) in all.iter().zip(&ids) {
        let parent = project["spec"]["parent"].as_str().map(str::to_owned);
        let parent = parent.filter(|parent| ids.contains(parent) && parent != id);
        below.entry(parent).or_default().push((name(project), id.clone()));
    }
    let mut text = String::new();
    let mut open: Vec<(usize, String, String)> = Vec::new();
    let mut push = |open: &mut Vec<_>, depth: usize, parent: Option<String>| {
        // Each is taken once: whatever the cloud says, this ends.
        let mut children = below.remove(&parent).unwrap_or_default();
        children.sort();
        open.extend(children.into_iter().rev().map(|(name, id)| (depth, name, id)));
    };
    push(&mut open, 0, None);
    while let Some((depth, name, id)) = open.pop() {
        text.push_str(&format!("{}{}\n", "  ".repeat(depth), clean(&name)));
        push(&mut open, depth + 1, Some(id));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn project(n: u128, name: &str, parent: Option<u128>) -> Value {
        let id = |n| uuid::Uuid::from_u128(n).to_string();
        json!({"meta": {"id": id(n), "name": name}, "spec": {"parent": parent.map(id)}})
    }

    #[test]
    fn projects_stand_below_their_parents() {
        let all = [
            project(1, "shop", None),
            project(2, "web", Some(1)),
            project(3, "api", Some(1)),
            project(4, "edge", Some(2)),
            project(5, "adrift", Some(99)),
        ];
        assert_eq!(tree(&all).unwrap(), "adrift\nshop\n  api\n  web\n    edge\n");
    }

    #[test]
    fn a_circle_is_no_endless_tree() {
        let all = [
            project(1, "a", Some(2)),
            project(2, "b", Some(1)),
            project(3, "c", None),
        ];
        assert_eq!(tree(&all).unwrap(), "c\n");
    }
}
