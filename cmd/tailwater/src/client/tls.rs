//! TLS of a client: whom it trusts, and what it shows.

use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::{fmt, io};

use clap::Args;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::error::Error;

/// The environment variables are logcli's.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Server")]
pub(crate) struct TlsArgs {
    /// File with the certificates of those who sign the server's (PEM) [default: those that this machine trusts]
    #[arg(long, value_name = "FILE", env = "LOKI_CA_CERT_PATH")]
    pub(crate) tls_ca: Option<PathBuf>,
    /// File with the certificate to show to the server (PEM)
    #[arg(long, value_name = "FILE", env = "LOKI_CLIENT_CERT_PATH")]
    pub(crate) tls_cert: Option<PathBuf>,
    /// File with its key (PEM)
    #[arg(long, value_name = "FILE", env = "LOKI_CLIENT_KEY_PATH")]
    pub(crate) tls_key: Option<PathBuf>,
}

/// How connections become safe.
#[derive(Clone)]
pub(crate) struct Tls {
    connector: TlsConnector,
    name: ServerName<'static>,
}

impl TlsArgs {
    /// TLS to a host.
    ///
    /// # Errors
    /// [`Error::Usage`]: a file cannot be used, or nobody is trusted.
    pub(crate) fn to(&self, host: &str) -> Result<Tls, Error> {
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let name = ServerName::try_from(host.to_owned());
        let name =
            name.map_err(|_| Error::Usage(format!("--addr: {host:?} is no name that a certificate could have")))?;
        let given = |file: &Option<PathBuf>| file.clone().filter(|file| !file.as_os_str().is_empty());
        let mut roots = RootCertStore::empty();
        match given(&self.tls_ca) {
            Some(file) => {
                for certificate in certificates("--tls-ca", &file)? {
                    roots.add(certificate).map_err(|e| unusable("--tls-ca", &file, e))?;
                }
            }
            None => {
                // What of the machine's cannot be read is not trusted; whether that matters shows when a server is called.
                roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
                if roots.is_empty() {
                    let text = "this machine trusts nobody: no certificates are installed; name those to trust with --tls-ca FILE";
                    return Err(Error::Usage(text.to_owned()));
                }
            }
        }
        let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|e| Error::Failed(format!("TLS: {e}")))?
            .with_root_certificates(roots);
        let config = match (given(&self.tls_cert), given(&self.tls_key)) {
            (None, None) => builder.with_no_client_auth(),
            (Some(cert), Some(key)) => {
                let chain = certificates("--tls-cert", &cert)?;
                let key = PrivateKeyDer::from_pem_file(&key).map_err(|e| unusable("--tls-key", &key, e))?;
                builder.with_client_auth_cert(chain, key).map_err(|e| unusable("--tls-cert", &cert, e))?
            }
            (Some(_), None) => return Err(Error::Usage("--tls-cert needs --tls-key too".to_owned())),
            (None, Some(_)) => return Err(Error::Usage("--tls-key needs --tls-cert too".to_owned())),
        };
        Ok(Tls { connector: TlsConnector::from(Arc::new(config)), name })
    }
}

impl Tls {
    /// Makes a connection safe.
    ///
    /// # Errors
    /// The server is not who it should be, or does not speak TLS.
    pub(crate) async fn over(&self, tcp: TcpStream) -> io::Result<Stream> {
        let stream = self.connector.connect(self.name.clone(), tcp).await?;
        Ok(Stream::Tls(Box::new(stream)))
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").field("name", &self.name).finish_non_exhaustive()
    }
}

fn certificates(flag: &str, file: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let all = CertificateDer::pem_file_iter(file).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let all = all.map_err(|e| unusable(flag, file, e))?;
    if all.is_empty() { Err(unusable(flag, file, "there is no certificate in it")) } else { Ok(all) }
}

fn unusable(flag: &str, file: &Path, why: impl fmt::Display) -> Error {
    Error::Usage(format!("{flag} {}: {why}", file.display()))
}

/// A connection to a server.
#[derive(Debug)]
pub(crate) enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_read(cx, buf),
            Self::Tls(tls) => Pin::new(tls).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_write(cx, buf),
            Self::Tls(tls) => Pin::new(tls).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_write_vectored(cx, bufs),
            Self::Tls(tls) => Pin::new(tls).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_flush(cx),
            Self::Tls(tls) => Pin::new(tls).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_shutdown(cx),
            Self::Tls(tls) => Pin::new(tls).poll_shutdown(cx),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_that_cannot_be_used_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("ca.pem");
        let args = TlsArgs { tls_ca: Some(file.clone()), ..TlsArgs::default() };
        let text = args.to("localhost").unwrap_err().to_string();
        assert!(text.starts_with(&format!("--tls-ca {}", file.display())), "{text}");
        std::fs::write(&file, "nothing").unwrap();
        assert!(args.to("localhost").unwrap_err().to_string().ends_with("there is no certificate in it"));
        let key = rcgen::KeyPair::generate().unwrap();
        let cert = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap().self_signed(&key).unwrap();
        std::fs::write(&file, cert.pem()).unwrap();
        assert!(args.to("localhost").is_ok() && args.to("[::1]").is_ok());
        assert!(args.to("not a name").is_err());
        let half = TlsArgs { tls_cert: Some(file), ..args };
        assert!(half.to("localhost").unwrap_err().to_string().contains("--tls-key too"));
        std::fs::write(dir.path().join("key.pem"), key.serialize_pem()).unwrap();
        let whole = TlsArgs { tls_key: Some(dir.path().join("key.pem")), ..half };
        assert!(whole.to("localhost").is_ok());
    }

    #[tokio::test]
    async fn requests_and_sockets_go_through_tls_to_whom_is_trusted() {
        let dir = tempfile::tempdir().unwrap();
        let (cert, key) = (dir.path().join("cert.pem"), dir.path().join("key.pem"));
        let own = rcgen::KeyPair::generate().unwrap();
        let made = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap().self_signed(&own).unwrap();
        std::fs::write(&cert, made.pem()).unwrap();
        std::fs::write(&key, own.serialize_pem()).unwrap();
        let mut config = tailwater_server::Config::default();
        config.server.http_listen_port = 0;
        (config.server.http_tls.cert_file, config.server.http_tls.key_file) = (cert.clone(), key);
        config.ingester.wal.enabled = false;
        let server = Box::pin(tailwater_server::Server::start(config)).await.unwrap();
        let at = server.addrs().http;
        let (_stop, mut stopped) = crate::signals::Stop::manual();
        tokio::spawn(server.run_until(async move { stopped.wait().await }));

        let endpoint = |addr: String, tls_ca: Option<PathBuf>| {
            let tls = TlsArgs { tls_ca, ..TlsArgs::default() };
            crate::client::ServerArgs { addr, tls, ..crate::client::ServerArgs::local(at) }.endpoint().map(Arc::new)
        };
        let named = format!("https://localhost:{}", at.port());
        let trusting = endpoint(named, Some(cert.clone())).unwrap();
        let mut http = crate::client::Http::new(Arc::clone(&trusting));
        assert_eq!(&http.get("/ready", &[]).await.unwrap()[..], b"ready\n");
        let target = trusting.target("/loki/api/v1/tail", &[("query", "{a=\"b\"}")]);
        let socket = crate::client::socket::open(&trusting, &target, 1024).await;
        assert!(socket.is_ok(), "{:?}", socket.err());
        // The address is not what the certificate is for.
        let other = endpoint(format!("https://{at}"), Some(cert)).unwrap();
        let refused = crate::client::Http::new(other).get("/ready", &[]).await.unwrap_err().to_string();
        assert!(refused.starts_with("cannot connect to"), "{refused}");
    }
}
