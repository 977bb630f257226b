//! `skyloom server wait …`

use std::time::Duration;

use skyloom_model::{Lifecycle, PowerState, Resource as _, Server};

use crate::app::App;
use crate::client::types::Change;
use crate::client::{Client, Target, kind};
use crate::error::{CliError, Result};
use crate::exit::Exit;
use crate::out::{self, server_state};
use crate::resolve;
use crate::text::word;

/// What `server wait` waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Wanted {
    /// Active and executing
    Running,
    /// Active and off
    Stopped,
    /// Usable, on or off
    Active,
    /// Gone
    Deleted,
}

/// Follows a server's changes until it fits. A watch is opened before each look, so that no change is missed.
pub(super) async fn wait_for(app: &App, name: &str, wanted: Wanted, timeout: Option<Duration>) -> Result<()> {
    let client = app.client()?;
    let server: Server = match resolve::one(&client, name).await {
        Err(error) if error.exit == Exit::NotFound && wanted == Wanted::Deleted => return Ok(()),
        other => other?,
    };
    let follow = until(&client, &server, wanted);
    let found = match timeout {
        Some(limit) => tokio::time::timeout(limit, follow).await.map_err(|_| {
            CliError::new(
                Exit::TimedOut,
                format!(
                    "{} is not {} after {}s",
                    server.meta.name,
                    wanted_word(wanted),
                    limit.as_secs_f64()
                ),
            )
            .hint(format!("see `skyloom server show {}`", server.meta.name))
        })??,
        None => follow.await?,
    };
    match found {
        Some(server) => app.print().list(&[server]),
        None => {
            out::message(&format!("{} is deleted", server.meta.name));
            Ok(())
        }
    }
}

fn wanted_word(wanted: Wanted) -> String {
    use clap::ValueEnum as _;
    wanted
        .to_possible_value()
        .map_or_else(String::new, |value| value.get_name().to_owned())
}

async fn until(client: &Client, server: &Server, wanted: Wanted) -> Result<Option<Server>> {
    let watch: Target = kind("watch").query("kinds", Server::KIND);
    loop {
        let mut events = client.events(watch.clone(), None).await?;
        match client.record::<Server>(server.meta.id).await {
            Ok(now) if fits(&now, wanted)? => return Ok(Some(now)),
            Ok(_) => {}
            Err(error) if error.exit == Exit::NotFound => return gone(server, wanted),
            Err(error) => return Err(error),
        }
        while let Some(event) = events.next().await? {
            let Ok(change) = serde_json::from_str::<Change>(&event.data) else {
                continue;
            };
            if change.id != server.meta.id {
                continue;
            }
            if event.name == "delete" {
                return gone(server, wanted);
            }
            let now = change
                .record
                .and_then(|record| serde_json::from_value(record).ok());
            if let Some(now) = now
                && fits(&now, wanted)?
            {
                return Ok(Some(now));
            }
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

fn gone(server: &Server, wanted: Wanted) -> Result<Option<Server>> {
    if wanted == Wanted::Deleted {
        Ok(None)
    } else {
        Err(CliError::new(
            Exit::NotFound,
            format!("{} was deleted", server.meta.name),
        ))
    }
}

/// Whether it fits; a server in error never will without help.
fn fits(server: &Server, wanted: Wanted) -> Result<bool> {
    let status = &server.status;
    if status.lifecycle == Lifecycle::Error && wanted != Wanted::Deleted {
        let error = CliError::new(
            Exit::TaskFailed,
            format!("{} is {}", server.meta.name, server_state(server)),
        );
        return Err(match &status.fault {
            Some(fault) => error
                .detail(fault.message.clone())
                .details(fault.detail.clone())
                .note("code", &fault.code),
            None => error.detail(format!("power: {}", word(&status.power))),
        });
    }
    let active = status.lifecycle == Lifecycle::Active;
    Ok(match wanted {
        Wanted::Active => active,
        Wanted::Running => active && status.power == PowerState::Running,
        Wanted::Stopped => active && status.power == PowerState::Stopped,
        Wanted::Deleted => false,
    })
}
