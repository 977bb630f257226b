//! A wire between two drivers that breaks when it is told to.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// Where the wire breaks. The first connection carries the memory, the others are the drivers' questions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cut {
    /// Nowhere.
    Never,
    /// The memory, after so many bytes towards the destination; both ends find it broken.
    After(u64),
    /// The memory: what comes after so many bytes is taken and lost. The source believes that all has arrived.
    Swallow(u64),
    /// The question of this number, from 1, that has this text: it is lost.
    Question(&'static str, usize),
    /// This question arrives, the answer is lost.
    Answer(&'static str, usize),
}

/// Dropped, it ends.
#[derive(Debug)]
pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    wire: Arc<Wire>,
    _tasks: JoinSet<()>,
}

#[derive(Debug)]
struct Wire {
    to: SocketAddr,
    cut: Cut,
    /// Connections, and those whose question has the text.
    count: [AtomicUsize; 2],
    /// Bytes of memory that have gone by.
    passed: AtomicU64,
    /// It is broken: nothing comes through any more until it is mended.
    broken: watch::Sender<bool>,
}

impl Proxy {
    pub(crate) async fn new(to: SocketAddr, cut: Cut) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let wire = Arc::new(Wire {
            to,
            cut,
            count: Default::default(),
            passed: AtomicU64::new(0),
            broken: watch::Sender::new(false),
        });
        let serving = Arc::clone(&wire);
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((socket, _)) = listener.accept().await {
                connections.spawn(carry(Arc::clone(&serving), socket));
            }
        });
        Self {
            address,
            wire,
            _tasks: tasks,
        }
    }
    /// Connections go through again.
    pub(crate) fn mend(&self) {
        self.wire.broken.send_replace(false);
    }
    pub(crate) fn is_broken(&self) -> bool {
        *self.wire.broken.borrow()
    }
    pub(crate) fn passed(&self) -> u64 {
        self.wire.passed.load(Ordering::SeqCst)
    }
}

async fn carry(wire: Arc<Wire>, mut from: TcpStream) {
    if *wire.broken.borrow() {
        return;
    }
    let mut question = vec![0; 64 * 1024];
    let Ok(length) = from.read(&mut question).await else {
        return;
    };
    question.truncate(length);
    let said = String::from_utf8_lossy(&question).into_owned();
    let memory = wire.count[0].fetch_add(1, Ordering::SeqCst) == 0;
    let (text, nth) = match wire.cut {
        Cut::Question(text, nth) | Cut::Answer(text, nth) => (text, nth),
        _ => ("", 0),
    };
    let meant = said.contains(text) && wire.count[1].fetch_add(1, Ordering::SeqCst) + 1 == nth;
    if meant && matches!(wire.cut, Cut::Question(..)) {
        wire.broken.send_replace(true);
        return;
    }
    let Ok(mut to) = TcpStream::connect(wire.to).await else {
        return;
    };
    let mut broken = wire.broken.subscribe();
    if to.write_all(&question).await.is_err() {
        return;
    }
    let (mut from_read, mut from_write) = from.split();
    let (mut to_read, mut to_write) = to.split();
    let there = async {
        let mut chunk = vec![0; 64 * 1024];
        let mut passed = 0;
        loop {
            let n = match from_read.read(&mut chunk).await {
                Ok(0) | Err(_) => break,
                Ok(n) => n,
            };
            let limit = match wire.cut {
                Cut::After(limit) | Cut::Swallow(limit) if memory => limit,
                _ => u64::MAX,
            };
            let room = usize::try_from(limit - passed).unwrap_or(usize::MAX).min(n);
            if to_write.write_all(&chunk[..room]).await.is_err() {
                return;
            }
            passed += room as u64;
            if memory {
                wire.passed.store(passed, Ordering::SeqCst);
            }
            if room < n && matches!(wire.cut, Cut::After(_)) {
                wire.broken.send_replace(true);
                return;
            }
        }
        if let Cut::Swallow(_) = wire.cut
            && memory
        {
            wire.broken.send_replace(true);
            return;
        }
        // Its end goes on, too.
        let _ = to_write.shutdown().await;
        std::future::pending::<()>().await;
    };
    let back = async {
        let mut chunk = vec![0; 4096];
        loop {
            let n = match to_read.read(&mut chunk).await {
                Ok(0) | Err(_) => return,
                Ok(n) => n,
            };
            if meant {
                wire.broken.send_replace(true);
                return;
            }
            if from_write.write_all(&chunk[..n]).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        biased;
        () = there => {}
        () = back => {}
        _ = broken.wait_for(|b| *b) => {}
    }
}
