//! `skyloom audit …`

use clap::Subcommand;
use serde_json::Value;
use skyloom_model::Timestamp;

use super::directory::{Kind, id};
use super::user;
use crate::app::App;
use crate::client::kind;
use crate::error::{CliError, Result};
use crate::exit::Exit;
use crate::out;
use crate::out::loose::Columns;
use crate::text::parse_duration;

const KIND: Kind = Kind {
    path: "audit",
    noun: "entry",
    columns: Columns {
        head: &[
            ("AT", "/at"),
            ("USER", "/user"),
            ("FROM", "/source"),
            ("ACTION", "/action"),
            ("OBJECT", "/name"),
            ("OUTCOME", "/outcome"),
        ],
        wide: &[
            ("CODE", "/code"),
            ("KIND", "/kind"),
            ("OBJECT ID", "/object"),
            ("PROJECT", "/project"),
            ("TIMES", "/times"),
            ("REQUEST", "/request_id"),
            ("TASK", "/task"),
            ("ID", "/id"),
        ],
    },
};

/// Verbs.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Search the audit, oldest first; auditors only
    #[command(after_help = "Examples:
  skyloom audit search --since 1h
  skyloom audit search --user alice --action server:delete -o json
  skyloom audit search --outcome denied --since 2027-01-01T00:00:00Z")]
    Search(Search),
    /// Check that nothing of the audit was changed or removed after it was sealed
    #[command(after_help = "Examples:
  skyloom audit verify
  skyloom audit verify -o json")]
    Verify,
}

/// What to look for: all that is named must fit.
#[derive(Debug, clap::Args)]
pub(crate) struct Search {
    /// Done by this user (name or id)
    #[arg(long)]
    user: Option<String>,
    /// The permission that was used, such as server:start
    #[arg(long)]
    action: Option<String>,
    /// Done to this object (id)
    #[arg(long, value_name = "ID")]
    object: Option<uuid::Uuid>,
    /// Done to objects of this kind, such as server
    #[arg(long)]
    kind: Option<String>,
    /// done, denied or failed, or the code of it
    #[arg(long)]
    outcome: Option<String>,
    /// Of this request
    #[arg(long, value_name = "ID")]
    request: Option<String>,
    /// Not before: 1h ago, or 2027-01-01T00:00:00Z
    #[arg(long, value_name = "WHEN")]
    since: Option<String>,
    /// Before: 1h ago, or 2027-01-01T00:00:00Z
    #[arg(long, value_name = "WHEN")]
    until: Option<String>,
    /// At most so many
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..))]
    limit: u32,
}

/// A moment as people write it: so long ago, or in full.
fn ago(text: &str, now: Timestamp) -> Result<Timestamp> {
    let before = parse_duration(text)
        .ok()
        .and_then(|ago| now.checked_sub(ago).ok());
    before.or_else(|| text.parse().ok()).ok_or_else(|| {
        CliError::usage(format!("\"{text}\" is no time")).hint("write 1h or 2027-01-01T00:00:00Z")
    })
}

pub(super) async fn run(app: &App, verb: Verb) -> Result<()> {
    let client = app.client()?;
    match verb {
        Verb::Search(search) => {
            let moment = |text: Option<String>| -> Result<Option<String>> {
                let at = text.map(|text| ago(&text, app.clock.now())).transpose()?;
                Ok(at.map(|at| at.to_string()))
            };
            let actor = match &search.user {
                Some(name) => Some(id(&user::KIND.find(&client, name).await?)?.to_string()),
                None => None,
            };
            let wanted = [
                ("user", actor),
                ("action", search.action),
                ("object", search.object.map(|id| id.to_string())),
                ("kind", search.kind),
                ("outcome", search.outcome),
                ("request_id", search.request),
                ("from", moment(search.since)?),
                ("until", moment(search.until)?),
            ];
            let query: Vec<_> = wanted
                .into_iter()
                .filter_map(|(name, value)| Some((name, value?)))
                .collect();
            let limit = usize::try_from(search.limit).unwrap_or(usize::MAX);
            KIND.list_by(app, &client, &query, limit).await
        }
        Verb::Verify => {
            let target = kind(KIND.path).then("actions").then("verify");
            let report: Value = client.post(target, &serde_json::json!({})).await?;
            app.print().document(&report, "")?;
            if report["whole"] == Value::Bool(true) {
                return Ok(());
            }
            out::message("the audit is not whole");
            Err(CliError::quiet(Exit::Conflict))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_ago_or_in_full() {
        let now = Timestamp::from_second(7200).unwrap();
        assert_eq!(ago("1h", now).unwrap().as_second(), 3600);
        assert_eq!(ago("1970-01-01T00:01:00Z", now).unwrap().as_second(), 60);
        assert!(ago("yesterday", now).is_err());
    }
}
