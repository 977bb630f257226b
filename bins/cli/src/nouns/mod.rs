//! The verbs of each noun.

pub(crate) mod audit;
mod changed;
pub(crate) mod context;
mod create;
pub(crate) mod credential;
mod directory;
pub(crate) mod domain;
pub(crate) mod event;
pub(crate) mod flavor;
pub(crate) mod grant;
pub(crate) mod group;
mod help;
pub(crate) mod hold;
pub(crate) mod host;
mod host_drain;
mod host_fence;
pub(crate) mod image;
mod image_save;
pub(crate) mod keypair;
pub(crate) mod kind;
pub(crate) mod login;
mod logs;
pub(crate) mod network;
pub(crate) mod placement;
pub(crate) mod plan;
pub(crate) mod policy;
pub(crate) mod port;
pub(crate) mod project;
pub(crate) mod quota;
mod removal;
pub(crate) mod role;
pub(crate) mod security_group;
pub(crate) mod server;
mod server_access;
mod server_changes;
mod server_clone;
mod server_more;
mod server_rescue;
mod server_seen;
mod server_volumes;
mod server_wait;
#[cfg(feature = "sim")]
pub(crate) mod sim;
pub(crate) mod snapshot;
pub(crate) mod store;
pub(crate) mod task;
pub(crate) mod token;
pub(crate) mod user;
pub(crate) mod volume;

use std::io::Read as _;

use serde_json::Value;
use skyloom_model::{Resource, Timestamp};

use crate::app::App;
use crate::args::{Command, ListArgs};
use crate::client::Client;
use crate::error::{CliError, Result};
use crate::out::loose::Columns;
use crate::out::{self, Format, Row};
use crate::text::parse_duration;

/// Runs one command.
pub(crate) async fn run(app: &App, command: Command) -> Result<()> {
    match command {
        Command::Server(verb) => server::run(app, verb).await,
        Command::Image(verb) => image::run(app, verb).await,
        Command::Flavor(verb) => flavor::run(app, verb).await,
        Command::Placement(verb) => placement::run(app, verb).await,
        Command::Keypair(verb) => keypair::run(app, verb).await,
        Command::Host(verb) => host::run(app, verb).await,
        Command::Port(verb) => port::run(app, verb).await,
        Command::Volume(verb) => volume::run(app, verb).await,
        Command::Network(verb) => network::run(app, verb).await,
        Command::Subnet(verb) => network::run_subnet(app, verb).await,
        Command::SecurityGroup(verb) => security_group::run(app, verb).await,
        Command::Snapshot(verb) => snapshot::run(app, verb).await,
        Command::Task(verb) => task::run(app, verb).await,
        Command::Plan(verb) => plan::run(app, verb).await,
        Command::Login(args) => login::login(app, args).await,
        Command::Logout => login::logout(app).await,
        Command::Whoami => login::whoami(app).await,
        Command::Token(verb) => token::run(app, verb).await,
        Command::Domain(verb) => domain::run(app, verb).await,
        Command::Project(verb) => project::run(app, verb).await,
        Command::User(verb) => user::run(app, verb).await,
        Command::Credential(verb) => credential::run(app, verb).await,
        Command::Group(verb) => group::run(app, verb).await,
        Command::Role(verb) => role::run(app, verb).await,
        Command::Grant(verb) => grant::run(app, verb).await,
        Command::Quota(verb) => quota::run(app, verb).await,
        Command::Audit(verb) => audit::run(app, verb).await,
        Command::Policy(verb) => policy::run(app, verb).await,
        Command::Event(verb) => event::run(app, verb).await,
        Command::Kind(verb) => kind::run(app, verb).await,
        Command::Context(verb) => context::run(app, verb).await,
        Command::Store(verb) => store::run(app, verb).await,
        Command::Hold(verb) => hold::run(app, verb).await,
        #[cfg(feature = "sim")]
        Command::Sim(verb) => sim::run(app, verb).await,
        Command::Completion { shell } => help::completion(shell),
        Command::Version => help::version(app).await,
        Command::Help { topic } => help::topic(&topic),
        // Runs before there is an App: it brings its own runtime.
        Command::Dev(_) => Err(CliError::unexpected("dev does not run inside another command")),
    }
}

/// Whether a command changes the cloud, so that --dry-run can show what it would do.
pub(crate) fn can_be_shown(command: &Command) -> bool {
    match command {
        Command::Server(verb) => !matches!(
            verb,
            server::Verb::List { .. }
                | server::Verb::Show { .. }
                | server::Verb::Console { .. }
                | server::Verb::Screenshot { .. }
                | server::Verb::Why { .. }
                | server::Verb::Timeline { .. }
                | server::Verb::Wait { .. }
        ),
        Command::Image(verb) => matches!(verb, image::Verb::Import(_) | image::Verb::Delete { .. }),
        Command::Flavor(verb) => matches!(verb, flavor::Verb::Create { .. } | flavor::Verb::Delete { .. }),
        Command::Keypair(verb) => matches!(verb, keypair::Verb::Create { .. } | keypair::Verb::Delete { .. }),
        Command::Volume(verb) => !matches!(verb, volume::Verb::List(_) | volume::Verb::Show { .. }),
        Command::Snapshot(verb) => !matches!(verb, snapshot::Verb::List(_) | snapshot::Verb::Show { .. }),
        Command::Host(verb) => !matches!(verb, host::Verb::List(_) | host::Verb::Show { .. }),
        Command::Task(verb) => !matches!(
            verb,
            task::Verb::List { .. } | task::Verb::Show { .. } | task::Verb::Wait { .. }
        ),
        Command::Plan(verb) => matches!(verb, plan::Verb::Apply { .. }),
        Command::Hold(verb) => !matches!(verb, hold::Verb::Show),
        #[cfg(feature = "sim")]
        Command::Sim(_) => false,
        Command::Project(verb) => matches!(verb, project::Verb::Create { .. }),
        // What identity holds changes at once: there is no plan of it.
        Command::Login(_)
        | Command::Logout
        | Command::Whoami
        | Command::Token(_)
        | Command::Domain(_)
        | Command::User(_)
        | Command::Credential(_)
        | Command::Group(_)
        | Command::Role(_)
        | Command::Grant(_)
        | Command::Quota(_)
        | Command::Audit(_)
        | Command::Policy(_) => false,
        Command::Network(verb) => !matches!(verb, network::Verb::List(_) | network::Verb::Show { .. }),
        Command::Subnet(verb) => !matches!(
            verb,
            network::SubnetVerb::List(_) | network::SubnetVerb::Show { .. }
        ),
        Command::Port(verb) => !matches!(verb, port::Verb::List(_) | port::Verb::Show { .. }),
        Command::SecurityGroup(verb) => !matches!(
            verb,
            security_group::Verb::List(_) | security_group::Verb::Show { .. }
        ),
        Command::Event(_)
        | Command::Placement(_)
        | Command::Kind(_)
        | Command::Context(_)
        | Command::Store(_)
        | Command::Dev(_)
        | Command::Completion { .. }
        | Command::Version
        | Command::Help { .. } => false,
    }
}

/// `list` of any kind.
async fn list<R: Resource + Row>(app: &App, args: &ListArgs) -> Result<()> {
    let client = app.client()?;
    let records: Vec<R> = client.list(R::KIND, &args.query(), args.limit()).await?;
    app.print().list(&records)
}

/// `show` of any kind.
async fn show<R: Resource + Row>(app: &App, name: &str) -> Result<()> {
    let client = app.client()?;
    let record: R = crate::resolve::one(&client, name).await?;
    app.print().one(&record)
}

/// The project that a request works in: the one named, else the only one there is.
async fn the_project(app: &App, client: &Client) -> Result<skyloom_model::Project> {
    if let Some(name) = app.globals.project.as_deref().filter(|name| !name.is_empty()) {
        return crate::resolve::one(client, name).await;
    }
    let mut all: Vec<skyloom_model::Project> = client.list("projects", &[], 2).await?;
    match (all.pop(), all.is_empty()) {
        (Some(only), true) => Ok(only),
        (None, _) => {
            Err(CliError::usage("there is no project").hint("make one with `skyloom project create`"))
        }
        (Some(_), false) => {
            Err(CliError::usage("there are several projects").hint("name one with --project"))
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

/// A record that was made with a secret: for people the secret apart, for programs all in one document.
fn show_secret(app: &App, columns: Columns, made: &Value, noun: &str, what: &str) -> Result<()> {
    match app.globals.output {
        Format::Table | Format::Wide => {
            app.print().records(columns, std::slice::from_ref(&made[noun]))?;
            out::shown_once(what, made["secret"].as_str());
            Ok(())
        }
        _ => app.print().document(made, &out::loose::name(&made[noun])),
    }
}

/// The text of a file that the user named; `-` is stdin.
fn read_text(path: &str, what: &str, limit: u64) -> Result<String> {
    let read = || -> std::io::Result<String> {
        let mut text = String::new();
        if path == "-" {
            std::io::stdin().take(limit + 1).read_to_string(&mut text)?;
        } else {
            std::fs::File::open(path)?
                .take(limit + 1)
                .read_to_string(&mut text)?;
        }
        Ok(text)
    };
    let text = read().map_err(|e| CliError::usage(format!("cannot read the {what} from {path}: {e}")))?;
    if u64::try_from(text.len()).unwrap_or(u64::MAX) > limit {
        return Err(CliError::usage(format!(
            "the {what} in {path} is longer than {limit} bytes"
        )));
    }
    Ok(text)
}

/// A secret of one line.
pub(crate) fn read_secret(path: &str, what: &str) -> Result<String> {
    let text = read_text(path, what, 4096)?;
    let secret = text.strip_suffix('\n').unwrap_or(&text);
    let secret = secret.strip_suffix('\r').unwrap_or(secret);
    if secret.is_empty() || secret.contains('\n') {
        return Err(CliError::usage(format!(
            "the {what} in {path} is not one line of text"
        )));
    }
    Ok(secret.to_owned())
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
