//! The metadata service: what a guest is told about itself over HTTP at 169.254.169.254.
//!
//! Who asks is known by the source address on this network's own listener, which the bridge has checked against the port
//! that the packets came in by. Nothing that a request says of itself counts. A request is read to the end of its head,
//! answered, and the connection closed: all within one deadline.

mod http;
mod tree;

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use skyloom_model::NetworkId;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use crate::directory::Directory;
use http::{Head, Status};

/// Most connections of a network at a time.
const MOST: usize = 256;
/// Most connections of one guest at a time.
const MOST_OF_ONE: usize = 16;

/// Answers what comes in on a network's listener, for ever.
pub(crate) async fn serve(
    listener: TcpListener,
    network: NetworkId,
    directory: Arc<Directory>,
    patience: Duration,
) {
    let mut open = JoinSet::new();
    let of_one: Arc<Mutex<HashMap<IpAddr, usize>>> = Arc::default();
    loop {
        let (stream, from) = tokio::select! { biased;
            Some(_) = open.join_next() => continue,
            accepted = listener.accept() => match accepted {
                Ok((stream, from)) => (stream, from.ip()),
                Err(error) => {
                    tracing::warn!(%network, %error, "the listener for metadata fails");
                    tokio::time::sleep(Duration::from_millis(200)).await;
                    continue;
                }
            },
        };
        let Some(turn) = Turn::take(&of_one, from).filter(|_| open.len() < MOST) else {
            continue;
        };
        let directory = directory.clone();
        open.spawn(async move {
            let _turn = turn;
            // A guest that goes away, or is cut for being slow, needs no answer.
            let _ = tokio::time::timeout(patience, answer(stream, from, network, &directory)).await;
        });
    }
}

/// One of a guest's connections.
struct Turn(Arc<Mutex<HashMap<IpAddr, usize>>>, IpAddr);

impl Turn {
    fn take(of_one: &Arc<Mutex<HashMap<IpAddr, usize>>>, from: IpAddr) -> Option<Self> {
        let mut all = of_one.lock();
        let count = all.entry(from).or_default();
        (*count < MOST_OF_ONE).then(|| {
            *count += 1;
            Self(of_one.clone(), from)
        })
    }
}
impl Drop for Turn {
    fn drop(&mut self) {
        let mut all = self.0.lock();
        if let Some(count) = all.get_mut(&self.1) {
            *count -= 1;
            if *count == 0 {
                all.remove(&self.1);
            }
        }
    }
}

async fn answer(
    mut stream: TcpStream,
    from: IpAddr,
    network: NetworkId,
    directory: &Directory,
) -> std::io::Result<()> {
    let mut buffer = Vec::with_capacity(1024);
    let head = loop {
        let mut more = [0; 1024];
        let length = stream.read(&mut more).await?;
        if length == 0 {
            return Ok(());
        }
        buffer.extend(&more[..length]);
        match http::parse(&buffer) {
            Ok(Some(head)) => break Ok(head),
            Ok(None) => {}
            Err(status) => break Err(status),
        }
    };
    let reply = match head {
        Ok(head) => respond(&head, from, network, directory),
        Err(status) => http::refusal(status),
    };
    stream.write_all(&reply).await?;
    stream.shutdown().await?;
    // What is still unread would make the kernel reset the connection, and the answer be lost.
    let mut rest = [0; 1024];
    while stream.read(&mut rest).await? > 0 {}
    Ok(())
}

fn respond(head: &Head<'_>, from: IpAddr, network: NetworkId, directory: &Directory) -> Vec<u8> {
    if head.forwarded {
        return http::refusal(Status::Forbidden);
    }
    if !matches!(head.method, "GET" | "HEAD") {
        return http::refusal(Status::NotAllowed);
    }
    let Some(own) = directory.by_address(network, from) else {
        return http::refusal(Status::NotFound);
    };
    let found = tree::find(head.path, &own, &directory.of_server(own.server));
    match found {
        Some(found) => http::response(found.kind, &found.content, head.method == "GET"),
        None => http::refusal(Status::NotFound),
    }
}
