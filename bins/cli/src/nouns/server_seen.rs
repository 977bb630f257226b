//! `skyloom server console` and `screenshot`: what is seen of a guest.

use std::path::Path;

use skyloom_model::{Resource as _, Server};

use super::logs;
use crate::app::App;
use crate::client::one;
use crate::error::{CliError, Result};
use crate::out::{self, Format};
use crate::resolve;

pub(super) async fn console(app: &App, name: &str, bytes: u32) -> Result<()> {
    let client = app.client()?;
    let server: Server = resolve::one(&client, name).await?;
    let target = one(Server::KIND, server.meta.id)
        .then("console")
        .query("bytes", bytes);
    let text = client.text(target).await?;
    match app.globals.output {
        Format::Table | Format::Wide | Format::Name => logs::print(&text),
        _ => app.print().document(
            &serde_json::json!({ "server": server.meta.id, "console": text }),
            "",
        ),
    }
}

/// Writes the picture into a file, or to stdout where that is no terminal.
pub(super) async fn screenshot(app: &App, name: &str, file: &Path) -> Result<()> {
    let to_stdout = file == Path::new("-");
    if to_stdout && out::stdout_is_terminal() {
        return Err(CliError::usage("a picture is not written to a terminal").hint("give --file FILE.png"));
    }
    let client = app.client()?;
    let server: Server = resolve::one(&client, name).await?;
    let picture = client
        .bytes(one(Server::KIND, server.meta.id).then("screenshot"))
        .await?;
    if to_stdout {
        return out::bytes(&picture);
    }
    std::fs::write(file, &picture)
        .map_err(|e| CliError::usage(format!("cannot write {}: {e}", file.display())))?;
    out::message(&format!("{}: {} bytes of PNG", file.display(), picture.len()));
    Ok(())
}
