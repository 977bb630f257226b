//! `skyloom server start-rescue`, `stop-rescue` and `rescue-report`

use std::time::Duration;

use serde_json::{Value, json};
use skyloom_model::{Image, Resource as _, Server};

use super::read_secret;
use super::server::Outcome;
use crate::app::App;
use crate::args::WaitArgs;
use crate::client::types::ServerAccepted;
use crate::client::{Client, one};
use crate::error::{CliError, Result};
use crate::exit::Exit;
use crate::out::{self, Format};
use crate::resolve;
use crate::text::{clean_lines, parse_duration};

/// What is booted instead of the server's own disks.
#[derive(Debug, clap::Args)]
pub(crate) struct StartArgs {
    /// Name, id or beginning of an id
    server: String,
    /// Image that is booted from a disk of its own; without it the public one named `rescue`
    #[arg(long, conflicts_with = "kernel")]
    image: Option<String>,
    /// Image of format kernel that is booted instead of a disk
    #[arg(long)]
    kernel: Option<String>,
    /// Image of format initrd, with the kernel
    #[arg(long, requires = "kernel")]
    initrd: Option<String>,
    /// The kernel's command line
    #[arg(long, value_name = "TEXT", requires = "kernel")]
    command_line: Option<String>,
    /// Root's password in the rescue system from a file, or from stdin with `-`; without it one is made and shown once
    #[arg(long, value_name = "FILE")]
    password_file: Option<String>,
    /// Pull the plug: do not ask the guest
    #[arg(long)]
    force: bool,
    /// How long the guest has before the plug is pulled
    #[arg(long, value_name = "DURATION", value_parser = parse_duration, conflicts_with = "force")]
    guest_time: Option<Duration>,
    /// End the rescue by itself after so long
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    leave_after: Option<Duration>,
    #[command(flatten)]
    wait: WaitArgs,
}

pub(super) async fn start(app: &App, args: StartArgs) -> Result<()> {
    let password = args.password_file.as_deref();
    let password = password.map(|path| read_secret(path, "password")).transpose()?;
    let client = app.client()?;
    let server: Server = resolve::one(&client, &args.server).await?;
    let body = json!({
        "image": id_of(&client, args.image.as_deref()).await?,
        "kernel": id_of(&client, args.kernel.as_deref()).await?,
        "initrd": id_of(&client, args.initrd.as_deref()).await?,
        "command_line": args.command_line,
        "password": password,
        "force": args.force,
        "timeout_seconds": args.guest_time.map(|time| time.as_secs()),
        "leave_after_seconds": args.leave_after.map(|time| time.as_secs()),
    });
    let target = one(Server::KIND, server.meta.id)
        .then("actions")
        .then("start-rescue");
    let accepted: ServerAccepted = client.post(target, &body).await?;
    if accepted.password.is_some()
        && matches!(app.globals.output, Format::Table | Format::Wide | Format::Name)
    {
        // Before the wait: whatever becomes of that, the password is not lost.
        out::shown_once(
            "root's password in the rescue system",
            accepted.password.as_deref(),
        );
    }
    Outcome::of(app, &client, accepted, &args.wait).await?.print(app)
}

async fn id_of(client: &Client, image: Option<&str>) -> Result<Option<String>> {
    match image {
        Some(name) => Ok(Some(
            resolve::one::<Image>(client, name).await?.meta.id.to_string(),
        )),
        None => Ok(None),
    }
}

/// Prints what the rescue system has found, with what to do about it.
pub(super) async fn report(app: &App, name: &str) -> Result<()> {
    let client = app.client()?;
    let server: Server = resolve::one(&client, name).await?;
    let report: Value = client
        .get(one(Server::KIND, server.meta.id).then("rescue-report"))
        .await?;
    if !matches!(app.globals.output, Format::Table | Format::Wide) {
        return app.print().document(&report, &server.meta.name.to_string());
    }
    out::raw(&text(&report))?;
    if report["complete"] == true {
        return Ok(());
    }
    let hint = "it boots, or is no rescue system that reports; ask again, or see the console";
    Err(CliError::new(Exit::TimedOut, "the report is not complete").hint(hint))
}

fn text(report: &Value) -> String {
    let all = |name: &str| report[name].as_array().cloned().unwrap_or_default();
    let mut text = String::new();
    for finding in all("findings") {
        let of = |name: &str| match &finding[name] {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        let line = match finding["kind"].as_str() {
            Some("disk") => format!("{} ({}): {} bytes", of("device"), of("disk"), of("size_bytes")),
            Some("filesystem") => format!(
                "  {}: {} {}, {}",
                of("device"),
                of("type"),
                of("label"),
                of("state")
            ),
            Some("usage") => format!("  {}: {} % used", of("device"), of("used_percent")),
            Some("inodes") => format!("  {}: {} % of the inodes used", of("device"), of("used_percent")),
            Some("system") => format!("  {}: {}, {} kernels", of("device"), of("name"), of("kernels")),
            Some("fstab") => format!(
                "  {}: fstab names {} for {}",
                of("device"),
                of("source"),
                of("place")
            ),
            _ => continue,
        };
        text.push_str(&line);
        text.push('\n');
    }
    for advice in all("advice") {
        text.push_str(&format!("! {}\n", advice["en"].as_str().unwrap_or_default()));
    }
    let last = all("last_console_lines");
    if !last.is_empty() {
        text.push_str("last lines on the console before:\n");
    }
    for line in last {
        text.push_str(&format!("| {}\n", line.as_str().unwrap_or_default()));
    }
    clean_lines(&text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_told_in_lines() {
        let report = json!({
            "complete": true,
            "findings": [
                { "kind": "disk", "disk": "root", "device": "vdb", "size_bytes": 7 },
                { "kind": "usage", "disk": "root", "device": "vdb1", "used_percent": 99, "size_kib": 4 },
                { "kind": "of tomorrow" },
            ],
            "advice": [{ "code": "rescue.disk_full", "en": "vdb1 is full\u{1b}[2J", "zh": "" }],
            "last_console_lines": ["panic"],
        });
        let told = text(&report);
        assert!(
            told.starts_with("vdb (root): 7 bytes\n  vdb1: 99 % used\n! vdb1 is full"),
            "{told}"
        );
        assert!(
            told.ends_with("| panic\n") && !told.contains('\u{1b}'),
            "{told:?}"
        );
    }
}
