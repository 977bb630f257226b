//! SecantusDB in a folder and on a port of its own; killed when it is dropped.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use skyloom_store::conformance::soak::private_port;
use skyloom_store_mongo::MongoConfig;
use tempfile::TempDir;

/// Names the program; without it the one of `make secantus` is taken.
const VARIABLE: &str = "SKYLOOM_SECANTUS";

fn program() -> PathBuf {
    let default = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/venv-secantus/bin/secantusd-py");
    let program = std::env::var_os(VARIABLE).map_or(default, PathBuf::from);
    assert!(
        program.is_file(),
        "there is no MongoDB server at {}: run `make secantus`, or set {VARIABLE} to secantusd-py",
        program.display()
    );
    program
}

/// A running server.
pub(crate) struct Server {
    options: Vec<&'static str>,
    running: Running,
    pub(crate) port: u16,
    folder: TempDir,
    databases: AtomicU32,
}

impl Server {
    pub(crate) fn start(options: &[&'static str]) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let port = private_port().unwrap();
        let running = launch(folder.path(), port, options);
        Self {
            options: options.to_vec(),
            running,
            port,
            folder,
            databases: AtomicU32::new(0),
        }
    }

    /// The address of the server, through whatever listens on `port`.
    pub(crate) fn uri_through(port: u16) -> String {
        format!("mongodb://127.0.0.1:{port}/?directConnection=true")
    }

    pub(crate) fn uri(&self) -> String {
        Self::uri_through(self.port)
    }

    /// Settings of a database that nobody has used.
    pub(crate) fn fresh(&self) -> MongoConfig {
        let number = self.databases.fetch_add(1, Ordering::Relaxed);
        MongoConfig::new(self.uri(), format!("case{number}"))
    }

    /// As at a power cut of the process.
    pub(crate) fn kill(&mut self) {
        self.running.0.kill().expect("the server was running");
        self.running.0.wait().expect("the server is our child");
    }

    /// Starts again on the same data and port.
    pub(crate) fn restart(&mut self) {
        self.running = launch(self.folder.path(), self.port, &self.options);
    }
}

/// The process; it ends with this.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts the server and waits until it says where it listens.
fn launch(folder: &Path, port: u16, options: &[&str]) -> Running {
    let child = Command::new(program())
        .args([
            "--host",
            "127.0.0.1",
            "--port",
            &port.to_string(),
            "--storage-path",
        ])
        .arg(folder.join("data"))
        .args(options)
        .current_dir(folder)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the server starts");
    let mut running = Running(child);
    let mut lines = BufReader::new(running.0.stderr.take().expect("it is piped"));
    let mut said = String::new();
    loop {
        let mut line = String::new();
        assert_ne!(
            lines.read_line(&mut line).unwrap_or(0),
            0,
            "the server ended at its start: {said}"
        );
        if line.contains("listening on 127.0.0.1:") {
            drain(lines);
            return running;
        }
        said.push_str(&line);
    }
}

/// Reads what it says later, so that it never waits for us.
fn drain(mut lines: BufReader<ChildStderr>) {
    std::thread::spawn(move || {
        let _ = std::io::copy(&mut lines, &mut std::io::sink());
    });
}
