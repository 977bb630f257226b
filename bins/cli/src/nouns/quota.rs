//! `skyloom quota …`

use clap::Subcommand;
use reqwest::Method;
use serde_json::{Map, Value, json};

use super::directory::id;
use super::{domain, project, the_project};
use crate::app::App;
use crate::client::{Client, Target, kind};
use crate::error::Result;
use crate::out::Format;
use crate::out::loose::Columns;

const COLUMNS: Columns = Columns {
    head: &[("RESOURCE", "/resource"), ("USED", "/used"), ("LIMIT", "/limit")],
    wide: &[],
};

const CORRECTIONS: Columns = Columns {
    head: &[
        ("KIND", "/kind"),
        ("OWNER", "/owner"),
        ("RESOURCE", "/resource"),
        ("WAS", "/was"),
        ("IS", "/is"),
    ],
    wide: &[],
};

/// Whose.
#[derive(Debug, clap::Args)]
pub(crate) struct Owner {
    /// The project (name or id); without it the one that you work in
    #[arg(long = "of", value_name = "PROJECT")]
    project_name: Option<String>,
    /// A domain instead (name or id)
    #[arg(long, conflicts_with = "project_name")]
    domain: Option<String>,
}

/// Verbs.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Show what a project or domain may have and what it uses
    #[command(after_help = "Examples:
  skyloom quota show
  skyloom quota show --of shop -o json
  skyloom quota show --domain acme")]
    Show {
        #[command(flatten)]
        owner: Owner,
    },
    /// Change limits; what is used beyond a new one stays
    #[command(after_help = "Examples:
  skyloom quota set servers=20 vcpus=80 --of shop
  skyloom quota set servers=unlimited --domain acme")]
    Set {
        /// Resources and how many at most: a number, or `unlimited`
        #[arg(required = true, value_name = "RESOURCE=LIMIT", value_parser = limit)]
        limits: Vec<(String, Value)>,
        #[command(flatten)]
        owner: Owner,
    },
    /// Count anew what all projects use and put right what is written otherwise; for who runs the cloud
    #[command(after_help = "Examples:
  skyloom quota recount
  skyloom quota recount -o json")]
    Recount,
}

fn limit(text: &str) -> std::result::Result<(String, Value), String> {
    let wrong = || "is not of the form RESOURCE=NUMBER or RESOURCE=unlimited".to_owned();
    let (resource, limit) = text.split_once('=').ok_or_else(wrong)?;
    let limit = match limit {
        "unlimited" => Value::Null,
        number => Value::from(number.parse::<u64>().map_err(|_| wrong())?),
    };
    if resource.is_empty() {
        return Err(wrong());
    }
    Ok((resource.to_owned(), limit))
}

/// Whose quota: a project's, or with --domain a domain's.
async fn target(app: &App, client: &Client, owner: &Owner) -> Result<Target> {
    let id = match (&owner.domain, &owner.project_name) {
        (Some(name), _) => id(&domain::KIND.find(client, name).await?)?,
        (None, Some(name)) => id(&project::KIND.find(client, name).await?)?,
        (None, None) => the_project(app, client).await?.meta.id,
    };
    Ok(kind("quotas").then(id))
}

fn show(app: &App, quota: &Value) -> Result<()> {
    match (app.globals.output, quota["resources"].as_object()) {
        (Format::Table | Format::Wide, Some(resources)) => {
            let rows: Vec<Value> = resources
                .iter()
                .map(|(name, usage)| json!({ "resource": name, "used": usage["used"], "limit": limit_text(&usage["limit"]) }))
                .collect();
            app.print().records(COLUMNS, &rows)
        }
        _ => app
            .print()
            .document(quota, quota["owner"].as_str().unwrap_or_default()),
    }
}

fn limit_text(limit: &Value) -> Value {
    if limit.is_null() {
        "unlimited".into()
    } else {
        limit.clone()
    }
}

pub(super) async fn run(app: &App, verb: Verb) -> Result<()> {
    let client = app.client()?;
    match verb {
        Verb::Show { owner } => {
            let quota: Value = client.get(target(app, &client, &owner).await?).await?;
            show(app, &quota)
        }
        Verb::Set { limits, owner } => {
            let target = target(app, &client, &owner).await?;
            // What is not named stays: the cloud takes all limits at once.
            let now: Value = client.get(target.clone()).await?;
            let mut all: Map<String, Value> = Map::new();
            for (name, usage) in now["resources"].as_object().into_iter().flatten() {
                if !usage["limit"].is_null() {
                    all.insert(name.clone(), usage["limit"].clone());
                }
            }
            all.extend(limits);
            let each = now["each_project"].as_object().cloned().unwrap_or_default();
            let body = json!({ "limits": all, "each_project": each });
            let quota: Value = client.change(Method::PUT, target, Some(&body)).await?;
            show(app, &quota)
        }
        Verb::Recount => {
            let target = kind("quotas").then("actions").then("recount");
            let found: Value = client.change(Method::POST, target, None::<&Value>).await?;
            let corrections = found["corrections"].as_array().cloned().unwrap_or_default();
            app.print().records(CORRECTIONS, &corrections)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_numbers_or_none() {
        assert_eq!(limit("servers=20").unwrap(), ("servers".into(), 20.into()));
        assert_eq!(limit("servers=unlimited").unwrap().1, Value::Null);
        for bad in [
            "",
            "servers",
            "=3",
            "servers=",
            "servers=-1",
            "servers=many",
            "servers=1.5",
        ] {
            assert!(limit(bad).is_err(), "{bad}");
        }
    }
}
