//! A line between a store and its server that can be cut: how a sitting disturbs without touching either.
//!
//! ```text
//! store ── near ──> Line ── far ──> server
//!                    └ cut(): every connection ends; new ones are made at once
//! ```

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU16, Ordering};

use tokio::io::{AsyncRead, AsyncWrite, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// A free port of the loopback for a server of the tests' own that has to be told its port, or comes back to it after its death. It
/// lies below those that outgoing connections take for themselves (Linux: 32768 and above), so no client's connection takes it
/// while the server is away, and no client meets itself there. No port is given twice within a process.
///
/// # Errors
/// When none is free.
pub fn private_port() -> std::io::Result<u16> {
    /// Processes that run at the same time mostly begin elsewhere.
    static NEXT: OnceLock<AtomicU16> = OnceLock::new();
    let next = NEXT.get_or_init(|| AtomicU16::new((std::process::id() % 997) as u16 * 20));
    let mut last = std::io::Error::from(std::io::ErrorKind::AddrInUse);
    for _ in 0..PRIVATE_PORTS {
        let port = FIRST_PRIVATE_PORT + next.fetch_add(1, Ordering::Relaxed) % PRIVATE_PORTS;
        match std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
            Ok(_) => return Ok(port),
            Err(error) => last = error,
        }
    }
    Err(last)
}

const FIRST_PRIVATE_PORT: u16 = 12_000;
const PRIVATE_PORTS: u16 = 20_000;

/// See above. Dropping it ends everything.
#[derive(Debug)]
pub struct Line {
    cuts: watch::Sender<u64>,
    _tasks: JoinSet<()>,
}

impl Line {
    /// A line from a port of the loopback, which is also given, to a server's address. Needs a tokio runtime.
    ///
    /// # Errors
    /// When there is no port.
    pub async fn tcp(far: SocketAddr) -> std::io::Result<(Self, SocketAddr)> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let near = listener.local_addr()?;
        let (cuts, cut) = watch::channel(0);
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((near, _)) = listener.accept().await {
                while connections.try_join_next().is_some() {}
                connections.spawn(carry(near, TcpStream::connect(far), cut.clone()));
            }
        });
        Ok((Self { cuts, _tasks: tasks }, near))
    }

    /// A line from a unix socket that it makes to a server's unix socket. Needs a tokio runtime.
    ///
    /// # Errors
    /// When the socket cannot be made.
    pub fn unix(near: &Path, far: PathBuf) -> std::io::Result<Self> {
        let listener = UnixListener::bind(near)?;
        let (cuts, cut) = watch::channel(0);
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((near, _)) = listener.accept().await {
                while connections.try_join_next().is_some() {}
                let far = far.clone();
                let connect = async move { UnixStream::connect(far).await };
                connections.spawn(carry(near, connect, cut.clone()));
            }
        });
        Ok(Self { cuts, _tasks: tasks })
    }

    /// Ends all connections.
    pub fn cut(&self) {
        self.cuts.send_modify(|cuts| *cuts += 1);
    }
}

async fn carry<N, F>(
    mut near: N,
    far: impl Future<Output = std::io::Result<F>>,
    mut cut: watch::Receiver<u64>,
) where
    N: AsyncRead + AsyncWrite + Unpin,
    F: AsyncRead + AsyncWrite + Unpin,
{
    cut.mark_unchanged();
    let Ok(mut far) = far.await else { return };
    tokio::select! {
        biased;
        _ = cut.changed() => {}
        _ = copy_bidirectional(&mut near, &mut far) => {}
    }
}
