//! A wire between client and server that can be cut, that can go dead, and that counts its connections.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// What the wire does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    /// Carries everything.
    Whole,
    /// Carries what the client says, and nothing back.
    Deaf,
    /// Carries nothing, and ends nothing: a cable pulled.
    Dead,
    /// Ends connections, and all new ones at once.
    Cut,
}

/// Dropping it ends everything.
pub(crate) struct Wire {
    pub(crate) address: SocketAddr,
    state: Arc<watch::Sender<State>>,
    connections: Arc<AtomicUsize>,
    _tasks: JoinSet<()>,
}

impl Wire {
    pub(crate) async fn to(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(watch::Sender::new(State::Whole));
        let connections = Arc::new(AtomicUsize::new(0));
        let mut tasks = JoinSet::new();
        let (states, count) = (Arc::clone(&state), Arc::clone(&connections));
        tasks.spawn(async move {
            let mut carried = JoinSet::new();
            loop {
                let (near, _) = listener.accept().await.unwrap();
                count.fetch_add(1, Ordering::SeqCst);
                carried.spawn(carry(near, server, states.subscribe()));
            }
        });
        Self {
            address,
            state,
            connections,
            _tasks: tasks,
        }
    }

    pub(crate) fn set(&self, state: State) {
        self.state.send_replace(state);
    }

    /// Connections that were made so far.
    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

async fn carry(mut near: TcpStream, server: SocketAddr, mut wire: watch::Receiver<State>) {
    if *wire.borrow_and_update() == State::Cut {
        return;
    }
    let Ok(mut far) = TcpStream::connect(server).await else {
        return;
    };
    let (mut asked, mut answered) = (vec![0; 1 << 16], vec![0; 1 << 16]);
    loop {
        let state = *wire.borrow_and_update();
        tokio::select! {
            biased;
            changed = wire.changed() => if changed.is_err() || *wire.borrow() == State::Cut { return },
            read = far.read(&mut answered), if state == State::Whole => match read {
                Ok(0) | Err(_) => return,
                Ok(n) => if near.write_all(&answered[..n]).await.is_err() { return },
            },
            read = near.read(&mut asked), if state != State::Dead => match read {
                Ok(0) | Err(_) => return,
                Ok(n) => if far.write_all(&asked[..n]).await.is_err() { return },
            },
        }
    }
}
