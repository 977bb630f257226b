//! The API process as its parent sees it.

use std::path::PathBuf;
use std::process::Stdio;

use skyloom_model::Secret;
use skyloom_store_remote::{RemoteConfig, RemoteStore};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use crate::AnyError;

/// Dropping it ends the process.
pub(crate) struct Api {
    _process: Child,
    pid: u32,
    commands: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
    pub(crate) url: String,
    /// An engine's: it has the store.
    pub(crate) token: String,
    /// An administrator's: it makes hosts.
    pub(crate) admin: String,
}

impl Api {
    pub(crate) async fn start() -> Result<Self, AnyError> {
        let me: PathBuf = std::env::current_exe()?;
        let mut process = Command::new(me)
            .arg("serve")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let commands = process.stdin.take().ok_or("standard input")?;
        let mut answers = BufReader::new(process.stdout.take().ok_or("standard output")?).lines();
        let first = answers.next_line().await?.ok_or("the API did not start")?;
        let [address, token, admin] = first.split(' ').collect::<Vec<_>>()[..] else {
            return Err("address and tokens".into());
        };
        Ok(Self {
            pid: process.id().ok_or("a process")?,
            _process: process,
            commands,
            answers,
            url: format!("http://{address}"),
            token: token.to_owned(),
            admin: admin.to_owned(),
        })
    }

    pub(crate) async fn command(&mut self, line: &str) -> Result<(), AnyError> {
        self.commands.write_all(format!("{line}\n").as_bytes()).await?;
        Ok(())
    }

    /// How many requests came in each tenth of a second since the last time.
    pub(crate) async fn arrivals(&mut self) -> Result<Vec<u64>, AnyError> {
        self.command("arrivals").await?;
        let line = self.answers.next_line().await?.ok_or("the API ended")?;
        line.split_whitespace().map(|n| Ok(n.parse()?)).collect()
    }

    pub(crate) fn store(&self) -> Result<RemoteStore, AnyError> {
        let config = RemoteConfig::new(&self.url, Secret::new(self.token.clone()));
        Ok(RemoteStore::open(config)?)
    }

    /// Resident memory in bytes.
    pub(crate) fn memory(&self) -> Result<u64, AnyError> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid))?;
        let line = status
            .lines()
            .find_map(|l| l.strip_prefix("VmRSS:"))
            .ok_or("VmRSS")?;
        let kib: u64 = line.trim().trim_end_matches(" kB").parse()?;
        Ok(kib << 10)
    }

    /// Processor time so far in seconds, at 100 ticks a second.
    pub(crate) fn processor(&self) -> Result<f64, AnyError> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid))?;
        let after = stat.rsplit_once(')').ok_or("stat")?.1;
        let ticks = after.split_whitespace().skip(11).take(2);
        let ticks: u64 = ticks.map(|t| t.parse().unwrap_or(0_u64)).sum();
        Ok(ticks as f64 / 100.0)
    }
}
