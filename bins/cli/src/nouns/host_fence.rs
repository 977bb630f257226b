//! `skyloom host fence|unfence|evacuate`: hosts that are off for good or for long.

use reqwest::Method;
use serde_json::{Value, json};
use skyloom_model::{Host, Resource as _};

use super::server_more::answered;
use super::task;
use crate::app::App;
use crate::args::{WaitArgs, YesArg};
use crate::client::one;
use crate::client::types::TaskAccepted;
use crate::error::Result;
use crate::{resolve, wait};

pub(super) async fn fence(app: &App, name: &str, why: &str, yes: YesArg) -> Result<()> {
    let client = app.client()?;
    let host: Host = resolve::one(&client, name).await?;
    let what = format!(
        "say that {} is off and stays off: its servers may then be started elsewhere, and two guests over one disk destroy it",
        host.meta.name
    );
    app.confirm(yes.yes, &what).await?;
    let target = one(Host::KIND, host.meta.id).then("actions").then("fence");
    let body = json!({ "why": why, "is_off": true });
    let host: Host = client.change(Method::POST, target, Some(&body)).await?;
    app.print().list(&[host])
}

pub(super) async fn unfence(app: &App, name: &str, waits: &WaitArgs) -> Result<()> {
    let client = app.client()?;
    let host: Host = resolve::one(&client, name).await?;
    let target = one(Host::KIND, host.meta.id).then("actions").then("unfence");
    let accepted: TaskAccepted = client.change(Method::POST, target, None::<&Value>).await?;
    if !app.waits(waits) {
        return task::under_way(app, &accepted.task);
    }
    let document = wait::done(app, &client, &accepted.task, waits.timeout).await?;
    task::show(app, &document)
}

pub(super) async fn evacuate(app: &App, name: &str, yes: YesArg) -> Result<()> {
    let client = app.client()?;
    let host: Host = resolve::one(&client, name).await?;
    let what = format!("start the servers of {} on other hosts", host.meta.name);
    app.confirm(yes.yes, &what).await?;
    let target = one(Host::KIND, host.meta.id).then("actions").then("evacuate");
    answered(app, target, &json!({})).await
}
