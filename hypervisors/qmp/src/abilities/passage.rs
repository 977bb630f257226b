//! What two drivers say to each other about a guest that goes from one to the other.
//!
//! ```text
//!  source's driver ── Send ──────────> destination's: starts a QEMU, gives it the socket
//!                  <───────── Go ──
//!  source's QEMU   ══ memory ════════> destination's QEMU       (the same connection)
//!
//!  source's driver ── Arrived? ──────> All | Part | Lost        (a connection per question)
//!  source's driver ── HandedOver ────> recorded: All
//! ```
//!
//! One JSON object per line, one line each way. What comes in is bounded, and believed no further than what is on record
//! here: devices, files and sizes are this host's own; of the source's word the slots of devices are taken, and which
//! snapshots the disks hold.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use skyloom_hypervisor::{Error, ErrorKind, Result};
use skyloom_model::ServerId;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use super::arrival;
use super::snapshots::kept::Kept;
use crate::accel::AcceleratorKind;
use crate::core::Core;
use crate::process::ProcessId;

/// Longest line.
const MAX_LINE: usize = 1024 * 1024;
/// Connections that are served at a time.
const SERVED: usize = 32;
/// How often it is tried again to listen.
const LISTEN_AGAIN: Duration = Duration::from_millis(20);
/// Time to say one line.
const SPEAK: Duration = Duration::from_secs(10);

/// What the source's driver says.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "say")]
pub(crate) enum Say {
    /// This guest's memory is about to come along this connection.
    Send(Sent),
    /// How far is it?
    Arrived { server: ServerId, ticket: ProcessId },
    /// It executes here no more.
    HandedOver { server: ServerId, ticket: ProcessId },
}

/// A guest that is about to come.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Sent {
    pub(crate) server: ServerId,
    pub(crate) generation: u64,
    pub(crate) vcpus: u32,
    pub(crate) memory_mib: u64,
    /// Number of the root port by device id.
    pub(crate) ports: BTreeMap<String, u8>,
    pub(crate) accelerator: AcceleratorKind,
    pub(crate) qemu_version: String,
    pub(crate) snapshots: Vec<Kept>,
}

/// What the destination's driver answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "answer")]
pub(crate) enum Answer {
    /// The memory may come.
    Go { ticket: ProcessId },
    /// It may not.
    Refused { because: String },
    /// All of it is here.
    All,
    /// Not all of it yet.
    Part,
    /// It is not here, and will not be.
    Lost,
}

/// Says one line on a new connection and reads the answer.
pub(crate) async fn ask(
    address: &str,
    say: &Say,
    connect: Duration,
    patience: Duration,
) -> std::io::Result<(Answer, TcpStream)> {
    let address: SocketAddr = address.parse().map_err(invalid)?;
    let mut socket = tokio::time::timeout(connect, TcpStream::connect(address)).await??;
    socket.set_nodelay(true)?;
    socket.write_all(&line_of(say)?).await?;
    let answer = tokio::time::timeout(patience, read_line(&mut socket)).await??;
    Ok((answer, socket))
}

fn invalid(e: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> std::io::Error {
    std::io::Error::new(std::io::ErrorKind::InvalidData, e)
}

pub(crate) fn line_of<T: Serialize>(message: &T) -> std::io::Result<Vec<u8>> {
    let mut line = serde_json::to_vec(message)?;
    line.push(b'\n');
    Ok(line)
}

/// One line, and nothing behind it: who speaks next is agreed.
async fn read_line<T: DeserializeOwned>(socket: &mut TcpStream) -> std::io::Result<T> {
    let mut bytes = Vec::new();
    let mut chunk = [0; 4096];
    loop {
        let n = socket.read(&mut chunk).await?;
        if n == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        bytes.extend_from_slice(&chunk[..n]);
        match bytes.iter().position(|b| *b == b'\n') {
            Some(end) if end + 1 == bytes.len() => return serde_json::from_slice(&bytes).map_err(invalid),
            Some(_) => return Err(invalid("more than one line")),
            None if bytes.len() > MAX_LINE => return Err(invalid("the line is too long")),
            None => {}
        }
    }
}

/// Listens for other hosts' drivers. An agent that has just died may hold the port for a moment.
pub(crate) async fn listen(at: SocketAddr, limit: Duration) -> Result<TcpListener> {
    let error = |kind| Error::new(kind, "listen for guests").with("address", at);
    if at.ip().is_unspecified() || at.port() == 0 {
        return Err(error(ErrorKind::Invalid).with("because", "other hosts cannot be told of it"));
    }
    let bound = async {
        loop {
            match TcpListener::bind(at).await {
                Err(e) if e.kind() == std::io::ErrorKind::AddrInUse => tokio::time::sleep(LISTEN_AGAIN).await,
                bound => return bound,
            }
        }
    };
    let in_use = |_| error(ErrorKind::Conflict).with("because", "it is in use");
    let bound = tokio::time::timeout(limit, bound).await.map_err(in_use)?;
    bound.map_err(|e| error(ErrorKind::Unavailable).because(e))
}

/// Serves other hosts' drivers; ends with the hypervisor.
pub(crate) async fn serve(core: Arc<Core>, listener: TcpListener) {
    let room = Arc::new(Semaphore::new(SERVED));
    loop {
        let Ok(place) = Arc::clone(&room).acquire_owned().await else {
            return;
        };
        match listener.accept().await {
            Ok((socket, from)) => {
                let (tasks, core) = (Arc::clone(&core.tasks), Arc::clone(&core));
                tasks.spawn(async move {
                    if let Err(e) = answer(&core, socket).await {
                        tracing::debug!(%from, error = %skyloom_model::report(&e), "a driver's question");
                    }
                    drop(place);
                });
            }
            Err(e) => {
                tracing::warn!(error = %e, "cannot take a connection of another host");
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
    }
}

async fn answer(core: &Arc<Core>, mut socket: TcpStream) -> std::io::Result<()> {
    socket.set_nodelay(true)?;
    let said: Say = tokio::time::timeout(SPEAK, read_line(&mut socket)).await??;
    let answer = match said {
        Say::Send(sent) => return arrival::take_in(core, sent, socket).await,
        Say::Arrived { server, ticket } => arrival::arrived(core, server, &ticket, false).await,
        Say::HandedOver { server, ticket } => arrival::arrived(core, server, &ticket, true).await,
    };
    let answer = answer.map_err(std::io::Error::other)?;
    tokio::time::timeout(SPEAK, socket.write_all(&line_of(&answer)?)).await?
}
