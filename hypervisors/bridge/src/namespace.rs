//! Sockets in another network namespace: a thread of its own goes there, opens them and ends. A socket stays where it was
//! opened.

use std::fs::File;
use std::io;
use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::os::fd::AsFd;
use std::path::PathBuf;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use skyloom_hypervisor::{Error, ErrorKind, Result};
use tokio::sync::oneshot;

use crate::rules::METADATA;

/// Where `ip netns` keeps its namespaces.
const NAMESPACES: &str = "/run/netns";

/// The file that is a namespace.
pub(crate) fn path(name: &str) -> PathBuf {
    PathBuf::from(NAMESPACES).join(name)
}

/// The sockets of a network's services.
#[derive(Debug)]
pub(crate) struct Sockets {
    pub(crate) dhcp: tokio::net::UdpSocket,
    pub(crate) metadata: tokio::net::TcpListener,
}

/// Opens the sockets of the services in a namespace.
pub(crate) async fn open(name: &str) -> Result<Sockets> {
    let failed = |e: io::Error| {
        Error::new(ErrorKind::Unavailable, "open services")
            .with("namespace", name)
            .because(e)
    };
    let (tell, told) = oneshot::channel();
    let place = path(name);
    let thread = std::thread::Builder::new().name("skyloom-netns".to_owned());
    let spawned = thread.spawn(move || {
        // Nobody waits any more: the sockets are closed.
        let _ = tell.send(open_here(&place));
    });
    spawned.map_err(failed)?;
    let opened = told
        .await
        .unwrap_or_else(|_| Err(io::Error::other("the thread has ended")));
    let (dhcp, metadata) = opened.map_err(failed)?;
    Ok(Sockets {
        dhcp: tokio::net::UdpSocket::from_std(dhcp).map_err(failed)?,
        metadata: tokio::net::TcpListener::from_std(metadata).map_err(failed)?,
    })
}

fn open_here(place: &PathBuf) -> io::Result<(UdpSocket, TcpListener)> {
    let namespace = File::open(place)?;
    move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?;
    let dhcp = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 67))?;
    dhcp.set_broadcast(true)?;
    dhcp.set_nonblocking(true)?;
    let metadata = TcpListener::bind((METADATA, 80))?;
    metadata.set_nonblocking(true)?;
    Ok((dhcp, metadata))
}
