//! An etcd server of the tests' own: on a private port of the loopback, with its data in memory, gone with the value.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use skyloom_model::SystemClock;
use skyloom_store::Error;
use skyloom_store_etcd::{EtcdConfig, EtcdStore};
use tempfile::TempDir;

/// Longest wait for a server to answer.
const START_LIMIT: Duration = Duration::from_secs(120);

/// A port that nothing else takes.
pub(crate) fn free_port() -> u16 {
    skyloom_store::conformance::soak::private_port().unwrap()
}

/// A folder in memory where there is such a thing.
pub(crate) fn folder() -> TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() {
        tempfile::tempdir_in(memory).unwrap()
    } else {
        tempfile::tempdir().unwrap()
    }
}

/// A running server. Dropping it kills it.
#[derive(Debug)]
pub(crate) struct Etcd {
    pub(crate) dir: TempDir,
    pub(crate) port: u16,
    pub(crate) args: Vec<String>,
    pub(crate) child: Option<Child>,
}

impl Etcd {
    /// One member, alone, answering plain HTTP.
    pub(crate) async fn start(extra: &[&str]) -> Self {
        let port = free_port();
        let url = format!("http://127.0.0.1:{port}");
        let mut server = Self::prepare(port, &url, extra);
        server.run();
        server.wait().await;
        server
    }

    /// The arguments of a member that is alone.
    pub(crate) fn prepare(port: u16, url: &str, extra: &[&str]) -> Self {
        let dir = folder();
        let peer = format!("http://127.0.0.1:{}", free_port());
        let data = dir.path().join("data").display().to_string();
        let mut args: Vec<String> = [
            "--name",
            "n1",
            "--data-dir",
            &data,
            "--listen-client-urls",
            url,
            "--advertise-client-urls",
            url,
            "--listen-peer-urls",
            &peer,
            "--initial-advertise-peer-urls",
            &peer,
            "--initial-cluster",
            &format!("n1={peer}"),
            // So that the shortest lease is one second.
            "--heartbeat-interval",
            "10",
            "--election-timeout",
            "100",
            "--log-level",
            "error",
        ]
        .map(str::to_owned)
        .to_vec();
        args.extend(extra.iter().map(|a| (*a).to_owned()));
        Self {
            dir,
            port,
            args,
            child: None,
        }
    }

    /// Starts the process.
    pub(crate) fn run(&mut self) {
        let log = std::fs::File::create(self.dir.path().join("log")).unwrap();
        let child = Command::new("etcd")
            .args(&self.args)
            .env_clear()
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .expect("etcd must be installed to test the store on it");
        self.child = Some(child);
    }

    /// Until it serves.
    pub(crate) async fn wait(&self) {
        self.wait_with(self.config("wait")).await;
    }

    /// Until it serves those who come with `config`.
    pub(crate) async fn wait_with(&self, config: EtcdConfig) {
        let tries = async {
            loop {
                match open(config.clone()).await {
                    Ok(store) => return store.close().await.unwrap(),
                    Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
                }
            }
        };
        if tokio::time::timeout(START_LIMIT, tries).await.is_err() {
            let log = std::fs::read_to_string(self.dir.path().join("log"));
            panic!("etcd does not answer: {log:?}");
        }
    }

    pub(crate) fn endpoint(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    pub(crate) fn config(&self, prefix: &str) -> EtcdConfig {
        EtcdConfig::new([self.endpoint()]).with_prefix(prefix)
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

pub(crate) async fn open(config: EtcdConfig) -> Result<EtcdStore, Error> {
    EtcdStore::open(config, Arc::new(SystemClock::new())).await
}
