//! A network that does as it is told with the messages that commit a transaction.

use std::net::Ipv4Addr;
use std::sync::Arc;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// What happens to the next messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    Pass,
    /// The next commit reaches the server, its answer does not come back, and the connection is cut. Then [`Mode::Pass`].
    CutAfterCommit,
    /// As before, and from then on nothing passes.
    CutAfterCommitForGood,
    /// The next commit does not reach the server, and the connection is cut. Then [`Mode::Pass`].
    CutBeforeCommit,
    /// Commits wait here, and then it is [`Mode::Holding`].
    HoldCommits,
    /// A commit waits here until the mode is another one.
    Holding,
    /// Nothing passes.
    Refuse,
}

/// Listens on a port of its own; ends with it all connections.
pub(crate) struct Proxy {
    pub(crate) port: u16,
    mode: Arc<watch::Sender<Mode>>,
    _tasks: JoinSet<()>,
}

impl Proxy {
    pub(crate) async fn to(server: u16) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let mode = Arc::new(watch::Sender::new(Mode::Pass));
        let mut tasks = JoinSet::new();
        let modes = Arc::clone(&mode);
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (client, _) = listener.accept().await.unwrap();
                if *modes.borrow() == Mode::Refuse {
                    continue;
                }
                let modes = Arc::clone(&modes);
                connections.spawn(async move {
                    if let Ok(server) = TcpStream::connect((Ipv4Addr::LOCALHOST, server)).await {
                        carry(client, server, modes).await;
                    }
                });
            }
        });
        Self {
            port,
            mode,
            _tasks: tasks,
        }
    }

    pub(crate) fn set(&self, mode: Mode) {
        self.mode.send_replace(mode);
    }

    /// Until the mode is `wanted`.
    pub(crate) async fn reached(&self, wanted: Mode) {
        let mut modes = self.mode.subscribe();
        modes.wait_for(|mode| *mode == wanted).await.unwrap();
    }
}

/// One message of the wire protocol: its first four bytes are its length.
async fn message(from: &mut OwnedReadHalf) -> std::io::Result<Vec<u8>> {
    let mut length = [0; 4];
    from.read_exact(&mut length).await?;
    let rest = usize::try_from(u32::from_le_bytes(length)).unwrap() - 4;
    let mut message = length.to_vec();
    message.resize(rest + 4, 0);
    from.read_exact(&mut message[4..]).await?;
    Ok(message)
}

fn commits(message: &[u8]) -> bool {
    let name = b"commitTransaction\0";
    message.windows(name.len()).any(|part| part == name)
}

/// Carries messages both ways until either side, or the mode, ends it.
async fn carry(client: TcpStream, server: TcpStream, modes: Arc<watch::Sender<Mode>>) {
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let mut refused = modes.subscribe();
    // What the mode becomes when the next answer has been swallowed.
    let (swallow, swallowed) = watch::channel(None);
    tokio::select! {
        biased;
        _ = refused.wait_for(|mode| *mode == Mode::Refuse) => {}
        _ = backward(from_server, to_client, &modes, swallowed) => {}
        _ = forward(from_client, to_server, &modes, swallow) => {}
    }
}

async fn backward(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    modes: &watch::Sender<Mode>,
    swallow: watch::Receiver<Option<Mode>>,
) -> std::io::Result<()> {
    loop {
        let answer = message(&mut from).await?;
        if let Some(next) = *swallow.borrow() {
            modes.send_replace(next);
            return Ok(());
        }
        to.write_all(&answer).await?;
    }
}

async fn forward(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    modes: &watch::Sender<Mode>,
    swallow: watch::Sender<Option<Mode>>,
) -> std::io::Result<()> {
    loop {
        let request = message(&mut from).await?;
        let mode = *modes.borrow();
        match mode {
            _ if !commits(&request) => {}
            Mode::Pass | Mode::Refuse => {}
            Mode::CutAfterCommit => drop(swallow.send_replace(Some(Mode::Pass))),
            Mode::CutAfterCommitForGood => drop(swallow.send_replace(Some(Mode::Refuse))),
            Mode::CutBeforeCommit => {
                modes.send_replace(Mode::Pass);
                return Ok(());
            }
            Mode::HoldCommits | Mode::Holding => {
                modes.send_replace(Mode::Holding);
                let mut released = modes.subscribe();
                let now = released.wait_for(|mode| *mode != Mode::Holding).await;
                if now.is_ok_and(|now| *now == Mode::Refuse) {
                    return Ok(());
                }
            }
        }
        to.write_all(&request).await?;
    }
}
