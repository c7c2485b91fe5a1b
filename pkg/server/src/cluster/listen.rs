//! Connections between members: those that come in, and those that go out, each with TLS or without.
//!
//! Invariants: a connection whose handshake is slow or fails holds up nobody else; at most [`MAX_HANDSHAKES`] are under way.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_core::Stream as Items;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ServerConfig};
use tailwater_cluster::rpc::Io;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::quiet::Quiet;
use crate::stream::Stream;
use crate::tls::{Renewed, Unusable};

/// How long a handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(5);

/// Most handshakes at a time.
const MAX_HANDSHAKES: usize = 64;

/// Connections that wait for whoever answers them.
const WAITING: usize = 16;

/// How long to wait when the system has no more sockets to give.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Failures are logged, but not each of a flood.
static FAILED: Quiet = Quiet::new();

/// Connections that come in, ready to be spoken on. Dropping it closes the listener.
pub(crate) struct Incoming(mpsc::Receiver<io::Result<Stream>>);

impl Incoming {
    pub(crate) fn new(listener: TcpListener, tls: Option<Arc<Renewed<ServerConfig>>>) -> Self {
        let (sender, receiver) = mpsc::channel(WAITING);
        tokio::spawn(accept(listener, tls, sender));
        Self(receiver)
    }
}

impl Items for Incoming {
    type Item = io::Result<Stream>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Stream>>> {
        self.get_mut().0.poll_recv(cx)
    }
}

async fn accept(listener: TcpListener, tls: Option<Arc<Renewed<ServerConfig>>>, to: mpsc::Sender<io::Result<Stream>>) {
    let handshakes = Arc::new(Semaphore::new(MAX_HANDSHAKES));
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = to.closed() => return,
        };
        let tcp = match accepted {
            Ok((tcp, _)) => tcp,
            Err(error) => {
                failed(&error);
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let _supported = tcp.set_nodelay(true);
        let Some(tls) = &tls else {
            if to.send(Ok(tcp.into())).await.is_err() {
                return;
            }
            continue;
        };
        // The semaphore is never closed.
        let Ok(slot) = Arc::clone(&handshakes).acquire_owned().await else { return };
        let (acceptor, to) = (TlsAcceptor::from(tls.now()), to.clone());
        tokio::spawn(async move {
            let shaken = within(acceptor.accept(tcp)).await;
            drop(slot);
            match shaken {
                Ok(stream) => drop(to.send(Ok(stream.into())).await),
                Err(error) => failed(&error),
            }
        });
    }
}

fn failed(error: &io::Error) {
    if let Some(unheard) = FAILED.speak() {
        tracing::warn!(%error, unheard, "a connection of another member failed");
    }
}

async fn within<T>(handshake: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    let late = |_elapsed| Err(io::Error::new(io::ErrorKind::TimedOut, format!("no handshake within {HANDSHAKE:?}")));
    tokio::time::timeout(HANDSHAKE, handshake).await.unwrap_or_else(late)
}

/// How other members are called. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Dial {
    tls: Option<Arc<Renewed<ClientConfig>>>,
    /// The name that their certificates bear; none: the address that is called.
    name: Option<ServerName<'static>>,
}

impl Dial {
    /// `name`: see [`crate::ClientTlsConfig::server_name`].
    ///
    /// # Errors
    /// It is no name.
    pub(crate) fn new(tls: Option<Arc<Renewed<ClientConfig>>>, name: &str) -> Result<Self, Unusable> {
        let name = match name {
            "" => None,
            name => Some(ServerName::try_from(name.to_owned()).map_err(|error| {
                Unusable::new(std::path::Path::new("cluster.tls.server_name"), format!("{name:?}: {error}"))
            })?),
        };
        Ok(Self { tls, name })
    }

    /// A connection, small writes sent at once.
    ///
    /// # Errors
    /// There is none to be had, or it is not who it should be.
    pub(crate) async fn connect(&self, to: SocketAddr) -> io::Result<Io> {
        let tcp = TcpStream::connect(to).await?;
        tcp.set_nodelay(true)?;
        let Some(tls) = &self.tls else { return Ok(Box::new(tcp)) };
        let name = self.name.clone().unwrap_or_else(|| ServerName::from(to.ip()));
        let stream = within(TlsConnector::from(tls.now()).connect(name, tcp)).await?;
        Ok(Box::new(stream))
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;
    use crate::config::{ClientAuth, ClientTlsConfig, ServerTlsConfig};
    use crate::tls::testing::Authority;
    use crate::tls::{GRPC, caller, listener};

    async fn incoming(files: Option<&ServerTlsConfig>) -> (Incoming, SocketAddr) {
        let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = tcp.local_addr().unwrap();
        let tls = files.and_then(|files| listener("test", files, GRPC).unwrap());
        (Incoming::new(tcp, tls), at)
    }

    async fn next(incoming: &mut Incoming) -> Stream {
        poll_fn(|cx| Pin::new(&mut *incoming).poll_next(cx)).await.unwrap().unwrap()
    }

    #[tokio::test]
    async fn members_meet_with_certificates_of_both_sides_and_strangers_do_not() {
        let dir = tempfile::tempdir().unwrap();
        let (cert_file, key_file, ca_file) = Authority::new().write(dir.path());
        let files = ServerTlsConfig {
            cert_file: cert_file.clone(),
            key_file: key_file.clone(),
            client_ca_file: ca_file.clone(),
            client_auth_type: ClientAuth::RequireAndVerifyClientCert,
        };
        let (mut incoming, at) = incoming(Some(&files)).await;
        let known = ClientTlsConfig { ca_file: ca_file.clone(), cert_file, key_file, server_name: String::new() };
        let dial = |files: &ClientTlsConfig, name: &str| Dial::new(caller("test", files, GRPC).unwrap(), name).unwrap();

        // Somebody who says nothing, and somebody without a certificate, are in nobody's way.
        let _silent = TcpStream::connect(at).await.unwrap();
        let nameless = ClientTlsConfig { ca_file, ..ClientTlsConfig::default() };
        if let Ok(mut refused) = dial(&nameless, "").connect(at).await {
            assert!(refused.read_u8().await.is_err(), "a certificate is required");
        }
        for name in ["", "localhost"] {
            let mut near = dial(&known, name).connect(at).await.unwrap();
            let mut far = next(&mut incoming).await;
            near.write_all(b"hello").await.unwrap();
            near.flush().await.unwrap();
            let mut got = [0; 5];
            far.read_exact(&mut got).await.unwrap();
            assert_eq!(&got, b"hello");
        }
        assert!(dial(&known, "elsewhere").connect(at).await.is_err());
        assert!(Dial::new(None, "not a name").is_err());
    }

    #[tokio::test]
    async fn without_tls_it_is_a_socket_and_a_dropped_listener_is_closed() {
        let (mut incoming, at) = incoming(None).await;
        let dial = Dial::new(None, "").unwrap();
        let mut near = dial.connect(at).await.unwrap();
        let mut far = next(&mut incoming).await;
        far.write_all(b"x").await.unwrap();
        assert_eq!(near.read_u8().await.unwrap(), b'x');
        drop(incoming);
        while dial.connect(at).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}
