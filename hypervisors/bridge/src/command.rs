//! Runs `ip`, `bridge` and `nft`: arguments as a list, answers bounded in size and time.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;
use skyloom_hypervisor::{Error, ErrorKind, Result};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::Command;

use crate::BridgeConfig;

/// Most bytes that are read of an answer.
const MOST: u64 = 64 * 1024 * 1024;
/// Most characters of a complaint that an error shows.
const SHOWN: usize = 600;

/// The tools of a host.
#[derive(Debug)]
pub(crate) struct Tools<'a>(pub(crate) &'a BridgeConfig);

impl Tools<'_> {
    /// `ip` in the host's namespace, or in another one.
    pub(crate) async fn ip(&self, namespace: Option<&str>, args: &[&str]) -> Result<()> {
        let mut all = Vec::with_capacity(args.len() + 2);
        if let Some(name) = namespace {
            all.extend(["-n", name]);
        }
        all.extend(args);
        run(&self.0.ip, &all, None, self.0.tool_timeout).await.map(|_| ())
    }
    /// What `ip -j` answers.
    pub(crate) async fn ip_json(&self, namespace: Option<&str>, args: &[&str]) -> Result<Vec<Value>> {
        let mut all = vec!["-j"];
        if let Some(name) = namespace {
            all.extend(["-n", name]);
        }
        all.extend(args);
        list(&run(&self.0.ip, &all, None, self.0.tool_timeout).await?)
    }
    /// `bridge`.
    pub(crate) async fn bridge(&self, args: &[&str]) -> Result<()> {
        run(&self.0.bridge, args, None, self.0.tool_timeout)
            .await
            .map(|_| ())
    }
    /// What `bridge -j` answers.
    pub(crate) async fn bridge_json(&self, args: &[&str]) -> Result<Vec<Value>> {
        let all = [&["-j"], args].concat();
        list(&run(&self.0.bridge, &all, None, self.0.tool_timeout).await?)
    }
    /// Carries out all of `commands`, or nothing.
    pub(crate) async fn nft(&self, commands: Vec<Value>) -> Result<()> {
        let whole = serde_json::json!({ "nftables": commands });
        let text = serde_json::to_vec(&whole)
            .map_err(|e| Error::new(ErrorKind::Internal, "write rules").because(e))?;
        run(&self.0.nft, &["-j", "-f", "-"], Some(text), self.0.tool_timeout)
            .await
            .map(|_| ())
    }
}

/// An answer in JSON; nothing is an empty list.
fn list(said: &[u8]) -> Result<Vec<Value>> {
    if said.trim_ascii().is_empty() {
        return Ok(Vec::new());
    }
    serde_json::from_slice(said)
        .map_err(|e| Error::new(ErrorKind::Internal, "read answer of tool").because(e))
}

async fn run(tool: &Path, args: &[&str], input: Option<Vec<u8>>, patience: Duration) -> Result<Vec<u8>> {
    let failed = |kind| {
        Error::new(kind, "run tool")
            .with("tool", tool.display())
            .with("arguments", format!("{args:?}"))
    };
    let mut command = Command::new(tool);
    command
        .args(args)
        .env_clear()
        .env("LC_ALL", "C")
        .stdin(if input.is_some() {
            Stdio::piped()
        } else {
            Stdio::null()
        })
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    let mut child = command
        .spawn()
        .map_err(|e| failed(ErrorKind::Unavailable).because(e))?;
    let (stdin, out, err) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let write = async {
        if let (Some(mut stdin), Some(input)) = (stdin, input) {
            // A tool that does not read to the end says why by its exit.
            let _ = stdin.write_all(&input).await;
        }
    };
    let work = async { tokio::join!(write, read(out), read(err), child.wait()) };
    let Ok(((), out, err, ended)) = tokio::time::timeout(patience, work).await else {
        return Err(failed(ErrorKind::Timeout));
    };
    match ended {
        Ok(status) if status.success() => Ok(out),
        Ok(status) => {
            let said: String = String::from_utf8_lossy(&err).chars().take(SHOWN).collect();
            Err(failed(ErrorKind::Refused)
                .with("ended", status)
                .with("says", said.trim()))
        }
        Err(e) => Err(failed(ErrorKind::Unavailable).because(e)),
    }
}

async fn read(from: Option<impl AsyncRead + Unpin>) -> Vec<u8> {
    let mut all = Vec::new();
    if let Some(from) = from {
        // What could not be read is missing, and noticed by whoever parses it.
        let _ = from.take(MOST).read_to_end(&mut all).await;
    }
    all
}
