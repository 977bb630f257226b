//! A wire that can be cut: TCP between the store and the server.

use std::sync::Arc;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// What the wire does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wire {
    /// Carries everything.
    Whole,
    /// Ends connections, and all new ones at once.
    Cut,
    /// Carries requests, and loses the answers. Connections that have lost any end when this ends.
    Deaf,
}

/// A proxy on a port of its own. Dropping it ends everything.
#[derive(Debug)]
pub(crate) struct Proxy {
    pub(crate) port: u16,
    wire: Arc<watch::Sender<Wire>>,
    _tasks: JoinSet<()>,
}

impl Proxy {
    pub(crate) async fn to(server: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let wire = Arc::new(watch::Sender::new(Wire::Whole));
        let mut tasks = JoinSet::new();
        let state = Arc::clone(&wire);
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (near, _) = listener.accept().await.unwrap();
                let state = state.subscribe();
                connections.spawn(carry(near, server, state));
            }
        });
        Self {
            port,
            wire,
            _tasks: tasks,
        }
    }

    pub(crate) fn set(&self, wire: Wire) {
        self.wire.send_replace(wire);
    }
}

async fn carry(mut near: TcpStream, server: u16, mut wire: watch::Receiver<Wire>) {
    if *wire.borrow_and_update() == Wire::Cut {
        return;
    }
    let Ok(mut far) = TcpStream::connect(("127.0.0.1", server)).await else {
        return;
    };
    let (mut asked, mut answered) = (vec![0; 1 << 16], vec![0; 1 << 16]);
    let mut lost = false;
    loop {
        tokio::select! {
            biased;
            _ = wire.changed() => match *wire.borrow_and_update() {
                Wire::Cut => return,
                Wire::Whole if lost => return,
                Wire::Whole | Wire::Deaf => {}
            },
            read = far.read(&mut answered) => match read {
                Ok(0) | Err(_) => return,
                Ok(_) if *wire.borrow() == Wire::Deaf => lost = true,
                Ok(n) => if near.write_all(&answered[..n]).await.is_err() { return },
            },
            read = near.read(&mut asked) => match read {
                Ok(0) | Err(_) => return,
                Ok(n) => if far.write_all(&asked[..n]).await.is_err() { return },
            },
        }
    }
}
