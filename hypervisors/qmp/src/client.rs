//! A QMP client: one connection to one QEMU.
//!
//! ```text
//!  connect ──> Client (clones; execute)  ── line ──> Connection::run ──> socket
//!                      <── reply by id, events (broadcast) ──┘ (the only reader and writer)
//! ```
//!
//! QEMU serves one client at a time: a second one connects but gets no greeting ([`ClientError::Timeout`]). Replies
//! are matched by id; late ones, repeated ones and those with foreign ids change nothing. Whatever cannot be understood ends the connection
//! with an error, and with it every command that waits.

use std::collections::HashMap;
use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::UnixStream;
use tokio::net::unix::WriteHalf;
use tokio::sync::{broadcast, mpsc, oneshot};
use tokio::time::timeout;

use crate::wire::{self, Event, LineBuffer, MAX_LINE, Message, Refusal, WireError};

/// Commands that may wait to be written.
const QUEUE: usize = 64;
/// Events that a slow listener may be behind.
const EVENTS: usize = 256;

/// Why a connection or a command failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// The socket cannot be connected or broke.
    #[error("the monitor socket failed")]
    Io(#[from] std::io::Error),
    /// No answer in time. Whether a command was carried out is not known.
    #[error("no answer to {what} within {after:?}")]
    Timeout {
        /// What was asked: a command, or `greeting`.
        what: &'static str,
        /// How long we waited.
        after: Duration,
    },
    /// The other side does not speak QMP.
    #[error("the monitor's answer makes no sense")]
    Wire(#[from] WireError),
    /// Something else came where this was due.
    #[error("expected {0} from the monitor")]
    Unexpected(&'static str),
    /// The connection has ended. Whether a command was carried out is not known.
    #[error("the monitor connection has ended")]
    Closed,
    /// QEMU refused the command.
    #[error(transparent)]
    Refused(#[from] Refusal),
}

type Waiting = HashMap<u64, oneshot::Sender<Result<Value, Refusal>>>;

#[derive(Debug)]
struct Shared {
    /// `None` when the connection has ended.
    waiting: Mutex<Option<Waiting>>,
    next_id: AtomicU64,
    events: broadcast::Sender<Event>,
}

/// A line to write, and a file that goes with its first byte.
#[derive(Debug)]
struct Line {
    bytes: Vec<u8>,
    file: Option<OwnedFd>,
}

/// A handle for commands and events. Clones share the connection.
#[derive(Debug, Clone)]
pub struct Client {
    shared: Arc<Shared>,
    lines: mpsc::Sender<Line>,
    version: Arc<str>,
    peer: Option<u32>,
}

/// The connection itself: nothing happens unless [`Connection::run`] is polled.
#[derive(Debug)]
pub struct Connection {
    stream: UnixStream,
    buffer: LineBuffer,
    shared: Arc<Shared>,
    lines: mpsc::Receiver<Line>,
}

/// Connects to the monitor at `path`, waits for its greeting and leaves negotiation mode, all within `limit`.
///
/// # Errors
/// [`ClientError::Timeout`] also when another client is connected.
pub async fn connect(path: &Path, limit: Duration) -> Result<(Client, Connection), ClientError> {
    timeout(limit, handshake(path))
        .await
        .map_err(|_| ClientError::Timeout {
            what: "greeting",
            after: limit,
        })?
}

async fn handshake(path: &Path) -> Result<(Client, Connection), ClientError> {
    let stream = UnixStream::connect(path).await?;
    let peer = stream.peer_cred()?.pid().and_then(|p| u32::try_from(p).ok());
    let (sender, lines) = mpsc::channel(QUEUE);
    let shared = Arc::new(Shared {
        waiting: Mutex::new(Some(HashMap::new())),
        next_id: AtomicU64::new(1),
        events: broadcast::Sender::new(EVENTS),
    });
    let mut connection = Connection {
        stream,
        buffer: LineBuffer::new(MAX_LINE),
        shared: Arc::clone(&shared),
        lines,
    };
    let Message::Greeting { version } = connection.read().await? else {
        return Err(ClientError::Unexpected("a greeting"));
    };
    connection
        .stream
        .write_all(&wire::command_line(0, "qmp_capabilities", &Value::Null))
        .await?;
    loop {
        match connection.read().await? {
            Message::Reply { id: Some(0), result } => {
                result?;
                break;
            }
            Message::Event(_) => {}
            Message::Greeting { .. } | Message::Reply { .. } => {
                return Err(ClientError::Unexpected("the answer to qmp_capabilities"));
            }
        }
    }
    Ok((
        Client {
            shared,
            lines: sender,
            version: version.into(),
            peer,
        },
        connection,
    ))
}

impl Client {
    /// The version of QEMU that greeted.
    #[must_use]
    pub fn version(&self) -> &str {
        &self.version
    }

    /// The process that listens on the socket, as the kernel tells it.
    #[must_use]
    pub const fn peer_pid(&self) -> Option<u32> {
        self.peer
    }

    /// Whether the connection has ended.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.shared.waiting.lock().is_none()
    }

    /// Events from now on.
    #[must_use]
    pub fn events(&self) -> broadcast::Receiver<Event> {
        self.shared.events.subscribe()
    }

    /// Sends a command and waits for its answer.
    ///
    /// # Errors
    /// After [`ClientError::Timeout`] and [`ClientError::Closed`] nobody knows whether it was carried out.
    pub async fn execute(
        &self,
        command: &'static str,
        arguments: Value,
        limit: Duration,
    ) -> Result<Value, ClientError> {
        self.send(command, arguments, None, limit).await
    }

    /// As [`Client::execute`]; the file goes along (`getfd` takes it).
    ///
    /// # Errors
    /// As [`Client::execute`].
    pub async fn execute_with(
        &self,
        command: &'static str,
        arguments: Value,
        file: OwnedFd,
        limit: Duration,
    ) -> Result<Value, ClientError> {
        self.send(command, arguments, Some(file), limit).await
    }

    async fn send(
        &self,
        command: &'static str,
        arguments: Value,
        file: Option<OwnedFd>,
        limit: Duration,
    ) -> Result<Value, ClientError> {
        let id = self.shared.next_id.fetch_add(1, Ordering::Relaxed);
        let (sender, answer) = oneshot::channel();
        match &mut *self.shared.waiting.lock() {
            Some(waiting) => waiting.insert(id, sender),
            None => return Err(ClientError::Closed),
        };
        let _forget = Forget {
            shared: &self.shared,
            id,
        };
        let bytes = wire::command_line(id, command, &arguments);
        let line = Line { bytes, file };
        let exchange = async {
            self.lines.send(line).await.map_err(|_| ClientError::Closed)?;
            answer
                .await
                .map_err(|_| ClientError::Closed)?
                .map_err(ClientError::Refused)
        };
        let result = timeout(limit, exchange).await;
        let result = result.map_err(|_| ClientError::Timeout {
            what: command,
            after: limit,
        })?;
        tracing::debug!(command, id, ok = result.is_ok(), "QMP command");
        result
    }
}

/// Takes a command that is no longer waited for out of the table.
struct Forget<'a> {
    shared: &'a Shared,
    id: u64,
}

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        if let Some(waiting) = &mut *self.shared.waiting.lock() {
            waiting.remove(&self.id);
        }
    }
}

impl Connection {
    /// Moves lines both ways until the connection ends; tells why.
    pub async fn run(mut self) -> ClientError {
        let mut chunk = vec![0; 16 * 1024];
        let (mut reader, mut writer) = self.stream.split();
        let reading = async {
            loop {
                while let Some(line) = self.buffer.next_line()? {
                    deliver(&self.shared, Message::parse(&line)?)?;
                }
                match reader.read(&mut chunk).await? {
                    0 => return Err(ClientError::Closed),
                    n => self.buffer.push(&chunk[..n]),
                }
            }
        };
        let writing = async {
            while let Some(line) = self.lines.recv().await {
                let sent = match line.file {
                    Some(file) => send_file(&writer, &line.bytes, file).await?,
                    None => 0,
                };
                writer.write_all(&line.bytes[sent..]).await?;
            }
            Err(ClientError::Closed)
        };
        // What is to be said is little; a guest that floods us with events must not keep it waiting.
        let ended: Result<(), ClientError> = tokio::select! { biased; r = writing => r, r = reading => r };
        ended.err().unwrap_or(ClientError::Closed)
    }

    /// The next message; only for the handshake.
    async fn read(&mut self) -> Result<Message, ClientError> {
        let mut chunk = [0; 4096];
        loop {
            if let Some(line) = self.buffer.next_line()? {
                return Ok(Message::parse(&line)?);
            }
            match self.stream.read(&mut chunk).await? {
                0 => return Err(ClientError::Closed),
                n => self.buffer.push(&chunk[..n]),
            }
        }
    }
}

/// Sends a file with the first bytes; says how many these were.
async fn send_file(writer: &WriteHalf<'_>, bytes: &[u8], file: OwnedFd) -> std::io::Result<usize> {
    let stream: &UnixStream = writer.as_ref();
    let send = || {
        let files = [file.as_fd()];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        if !ancillary.push(SendAncillaryMessage::ScmRights(&files)) {
            return Err(std::io::Error::from(std::io::ErrorKind::InvalidInput));
        }
        let parts = [IoSlice::new(bytes)];
        Ok(rustix::net::sendmsg(
            stream,
            &parts,
            &mut ancillary,
            SendFlags::NOSIGNAL,
        )?)
    };
    stream.async_io(Interest::WRITABLE, send).await
}

impl Drop for Connection {
    fn drop(&mut self) {
        *self.shared.waiting.lock() = None;
    }
}

fn deliver(shared: &Shared, message: Message) -> Result<(), ClientError> {
    match message {
        Message::Event(event) => {
            // No listener is no error.
            let _ = shared.events.send(event);
        }
        Message::Reply { id: Some(id), result } => {
            match shared.waiting.lock().as_mut().and_then(|w| w.remove(&id)) {
                Some(sender) => drop(sender.send(result)),
                None => tracing::debug!(id, "QMP reply that nobody waits for"),
            };
        }
        Message::Reply { id: None, .. } => return Err(ClientError::Unexpected("an id in each reply")),
        Message::Greeting { .. } => return Err(ClientError::Unexpected("one greeting only")),
    }
    Ok(())
}
