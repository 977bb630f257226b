//! DHCP for IPv4: every port is told its own address, for which nothing is remembered but the wiring.
//!
//! A request is parsed ([`packet`]), answered by a pure function ([`answer()`]) and sent ([`serve`]). There are no leases:
//! who has which address is decided before the guest boots.

mod answer;
mod packet;

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use skyloom_model::NetworkId;
use tokio::net::UdpSocket;

use crate::directory::Directory;

pub(crate) use answer::answer;

const CLIENT: u16 = 68;

/// Answers what comes in on a network's socket, for ever.
pub(crate) async fn serve(socket: UdpSocket, network: NetworkId, directory: Arc<Directory>) {
    let mut buffer = vec![0; 1500];
    loop {
        match socket.recv_from(&mut buffer).await {
            Ok((length, _)) => {
                let Some((message, to)) = reply(&buffer[..length], network, &directory) else {
                    continue;
                };
                if let Err(error) = socket.send_to(&message, SocketAddr::from((to, CLIENT))).await {
                    tracing::warn!(%network, %to, %error, "an answer by DHCP could not be sent");
                }
            }
            Err(error) => rest(network, &error).await,
        }
    }
}

fn reply(message: &[u8], network: NetworkId, directory: &Directory) -> Option<(Vec<u8>, Ipv4Addr)> {
    let request = packet::Request::parse(message)?;
    let wiring = directory.by_mac(network, request.mac)?;
    answer(&request, &wiring)
}

/// A socket that fails is not asked at once again.
async fn rest(network: NetworkId, error: &io::Error) {
    tracing::warn!(%network, %error, "the socket for DHCP fails");
    tokio::time::sleep(std::time::Duration::from_millis(200)).await;
}
