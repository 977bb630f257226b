//! A real etcd on a private port of the loopback; killed when it is dropped.

use std::path::Path;
use std::process::{Child, Command, Stdio};

use skyloom_store::conformance::soak::private_port;

use crate::support::until;

pub(crate) struct Etcd {
    child: Child,
    port: u16,
    _data: tempfile::TempDir,
}

impl Etcd {
    /// Starts it with its log in `folder` and its data in memory, if there is a folder for that: it is not what is killed here. Waits
    /// until it takes connections.
    pub(crate) fn start(folder: &Path) -> Self {
        let port = private_port().unwrap();
        let (url, peer) = (
            format!("http://127.0.0.1:{port}"),
            format!("http://127.0.0.1:{}", private_port().unwrap()),
        );
        let log = std::fs::File::create(folder.join("etcd.log")).unwrap();
        let memory = Path::new("/dev/shm");
        let data = tempfile::tempdir_in(if memory.is_dir() { memory } else { folder }).unwrap();
        let child = Command::new("etcd")
            .args(["--name", "n1", "--log-level", "error", "--data-dir"])
            .arg(data.path())
            .args(["--listen-client-urls", &url, "--advertise-client-urls", &url])
            .args([
                "--listen-peer-urls",
                &peer,
                "--initial-advertise-peer-urls",
                &peer,
            ])
            .args(["--initial-cluster", &format!("n1={peer}")])
            .env_clear()
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("etcd must be installed to test the cloud on it");
        let server = Self {
            child,
            port,
            _data: data,
        };
        until("etcd takes connections", || {
            std::net::TcpStream::connect(("127.0.0.1", port)).ok()
        });
        server
    }

    /// The address of a store in it.
    pub(crate) fn uri(&self, prefix: &str) -> String {
        format!("etcd://127.0.0.1:{}/{prefix}", self.port)
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
