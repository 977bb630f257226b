//! Two ends in memory that shake hands and say one word.

use std::sync::Arc;

use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ServerConfig};
use skyloom_model::Clock;
use skyloom_pki::testing::TestPki;
use skyloom_pki::{
    IdentityMaterial, Judge, Oldest, Peer, ReloadingClient, ReloadingServer, client_config, server_config,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use tokio_rustls::{TlsAcceptor, TlsConnector, client, server};

/// What both ends make of it: the chain that the client has presented, and whether the client got the server's word.
pub(crate) struct Met {
    pub(crate) server: Result<Option<Vec<CertificateDer<'static>>>, String>,
    pub(crate) client: Result<(), String>,
}

impl Met {
    pub(crate) fn refused(&self, word: &str) {
        let server = self.server.as_ref().unwrap_err();
        assert!(server.contains(word), "the server says: {server}");
        assert!(self.client.is_err(), "the client got its word");
    }
    pub(crate) fn peer(self, judge: &Judge, pki: &TestPki) -> Peer {
        self.client.unwrap();
        let chain = self.server.unwrap().expect("a client certificate");
        judge.identify(&chain, pki.now()).unwrap()
    }
}

pub(crate) type Ends = (server::TlsStream<DuplexStream>, client::TlsStream<DuplexStream>);

pub(crate) fn server(
    pki: &TestPki,
    server: Arc<ReloadingServer>,
    judge: Option<Arc<Judge>>,
) -> Arc<ServerConfig> {
    let clock: Arc<dyn Clock> = pki.clock.clone();
    Arc::new(server_config(server, judge, clock, Oldest::Tls13).unwrap())
}

pub(crate) fn client(pki: &TestPki, client: Arc<ReloadingClient>) -> Arc<ClientConfig> {
    let clock: Arc<dyn Clock> = pki.clock.clone();
    Arc::new(client_config(client, clock, Oldest::Tls13).unwrap())
}

/// A client with this identity comes to the PKI's server, which asks that judge.
pub(crate) async fn meet(pki: &TestPki, judge: &Arc<Judge>, identity: Option<&IdentityMaterial>) -> Met {
    let server = server(pki, pki.reloading_server(), Some(judge.clone()));
    let client = client(pki, pki.reloading_client(identity));
    shake(server, client, "localhost").await
}

pub(crate) async fn shake(server: Arc<ServerConfig>, client: Arc<ClientConfig>, name: &str) -> Met {
    let (near, far) = tokio::io::duplex(64 * 1024);
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let serve = async {
        let mut stream = TlsAcceptor::from(server)
            .accept(far)
            .await
            .map_err(|e| e.to_string())?;
        let chain = stream.get_ref().1.peer_certificates().map(<[_]>::to_vec);
        stream.write_all(b"hi").await.map_err(|e| e.to_string())?;
        stream.shutdown().await.map_err(|e| e.to_string())?;
        Ok(chain)
    };
    let call = async {
        let mut stream = TlsConnector::from(client)
            .connect(name, near)
            .await
            .map_err(|e| e.to_string())?;
        let mut word = [0; 2];
        stream.read_exact(&mut word).await.map_err(|e| e.to_string())?;
        assert_eq!(&word, b"hi");
        Ok(())
    };
    let (server, client) = tokio::join!(serve, call);
    Met { server, client }
}

/// A connection that stays.
pub(crate) async fn connect(server: Arc<ServerConfig>, client: Arc<ClientConfig>) -> Ends {
    let (near, far) = tokio::io::duplex(64 * 1024);
    let name = ServerName::try_from("localhost").unwrap();
    let (server, client) = tokio::join!(
        TlsAcceptor::from(server).accept(far),
        TlsConnector::from(client).connect(name, near)
    );
    (server.unwrap(), client.unwrap())
}

pub(crate) async fn talk((server, client): &mut Ends) {
    client.write_all(b"ping").await.unwrap();
    client.flush().await.unwrap();
    let mut word = [0; 4];
    server.read_exact(&mut word).await.unwrap();
    server.write_all(&word).await.unwrap();
    server.flush().await.unwrap();
    client.read_exact(&mut word).await.unwrap();
    assert_eq!(&word, b"ping");
}
