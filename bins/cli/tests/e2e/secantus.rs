//! SecantusDB, a server of MongoDB's wire protocol, killed when it is dropped.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// Names the program; without it the one of `make secantus` is taken.
const VARIABLE: &str = "SKYLOOM_SECANTUS";

pub(crate) struct Secantus {
    child: Child,
}

impl Secantus {
    /// Starts it over the data in `folder`.
    pub(crate) fn start(folder: &Path, port: u16) -> Self {
        let default =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/venv-secantus/bin/secantusd-py");
        let program = std::env::var_os(VARIABLE).map_or(default, PathBuf::from);
        assert!(
            program.is_file(),
            "there is no MongoDB server at {}: run `make secantus`, or set {VARIABLE} to secantusd-py",
            program.display()
        );
        let mut child = Command::new(program)
            .args([
                "--host",
                "127.0.0.1",
                "--port",
                &port.to_string(),
                "--storage-path",
            ])
            .arg(folder.join("secantus"))
            // What it acknowledged survives kill -9, as with MongoDB's majority.
            .arg("--sync-on-commit")
            .current_dir(folder)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap());
        let server = Self { child };
        let mut said = String::new();
        loop {
            let mut line = String::new();
            let read = lines.read_line(&mut line).unwrap_or(0);
            assert_ne!(read, 0, "the server ended at its start: {said}");
            if line.contains("listening on 127.0.0.1:") {
                // It must never wait for us.
                std::thread::spawn(move || std::io::copy(&mut lines, &mut std::io::sink()));
                return server;
            }
            said.push_str(&line);
        }
    }
}

impl Drop for Secantus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
