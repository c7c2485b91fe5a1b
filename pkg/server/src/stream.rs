//! The bytes of a client, with TLS around them or without: as a stream for the HTTP library, and bare for tails, which write when the kernel
//! takes something and want to know how much it took.
//!
//! Invariants of [`Bare`] with TLS:
//! * What is said to be written is with the kernel, as without TLS, but for at most one byte less: of what has been sealed and is not with the
//!   kernel yet one byte counts as not written, so the caller comes again, and its frame stays one that has begun.
//! * At most [`SEALED_BYTES`] wait sealed, and what was opened and not read yet is one record.
//! * The caller comes again with the same bytes, until they are written.

use std::io::{self, IoSlice, Read, Write};
use std::pin::Pin;
use std::task::{Context, Poll};

use rustls::ServerConnection;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

/// Most bytes that are sealed and not with the kernel yet: a record of TLS.
const SEALED_BYTES: usize = 16 << 10;

/// A client's connection.
#[derive(Debug)]
pub(crate) enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl From<TcpStream> for Stream {
    fn from(tcp: TcpStream) -> Self {
        Self::Plain(tcp)
    }
}

impl From<TlsStream<TcpStream>> for Stream {
    fn from(tls: TlsStream<TcpStream>) -> Self {
        Self::Tls(Box::new(tls))
    }
}

impl Stream {
    /// The same without the library's way of waiting.
    pub(crate) fn into_bare(self) -> Bare {
        match self {
            Self::Plain(tcp) => Bare::Plain(tcp),
            Self::Tls(tls) => {
                let (tcp, session) = tls.into_inner();
                Bare::Tls(Box::new(Sealed::new(tcp, session)))
            }
        }
    }
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
        bufs: &[IoSlice<'_>],
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

/// A client's connection for those who speak another protocol on it. See the module.
pub(crate) enum Bare {
    Plain(TcpStream),
    Tls(Box<Sealed>),
}

impl From<TcpStream> for Bare {
    fn from(tcp: TcpStream) -> Self {
        Self::Plain(tcp)
    }
}

impl Bare {
    /// The socket, for its options.
    pub(crate) fn tcp(&self) -> &TcpStream {
        match self {
            Self::Plain(tcp) => tcp,
            Self::Tls(sealed) => &sealed.tcp,
        }
    }

    /// Waits until there may be something to read. Safe to cancel.
    pub(crate) async fn readable(&self) -> io::Result<()> {
        match self {
            Self::Tls(sealed) if sealed.opened > 0 => Ok(()),
            _ => self.tcp().readable().await,
        }
    }

    /// Waits until the kernel may take something. Safe to cancel.
    pub(crate) async fn writable(&self) -> io::Result<()> {
        self.tcp().writable().await
    }

    /// Reads what is there; 0 at the end.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`]: nothing is there now.
    pub(crate) fn try_read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(tcp) => tcp.try_read(buf),
            Self::Tls(sealed) => sealed.try_read(buf),
        }
    }

    /// Hands the kernel what it takes of `bufs`.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`]: it takes nothing now.
    pub(crate) fn try_write_vectored(&mut self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        match self {
            Self::Plain(tcp) => tcp.try_write_vectored(bufs),
            Self::Tls(sealed) => sealed.try_write_vectored(bufs),
        }
    }

    /// Says that nothing more will be written, once everything is.
    ///
    /// # Errors
    /// The connection is no more.
    pub(crate) async fn shutdown(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(tcp) => tcp.shutdown().await,
            Self::Tls(sealed) => sealed.shutdown().await,
        }
    }
}

/// A socket and the TLS session on it.
pub(crate) struct Sealed {
    tcp: TcpStream,
    session: ServerConnection,
    /// Bytes that were opened and not read yet.
    opened: usize,
    /// Whether a byte that was taken has not been said to be written.
    owes: bool,
}

impl Sealed {
    fn new(tcp: TcpStream, mut session: ServerConnection) -> Self {
        session.set_buffer_limit(Some(SEALED_BYTES));
        // What cannot be opened shows with the next read.
        let opened = session.process_new_packets().map_or(0, |state| state.plaintext_bytes_to_read());
        Self { tcp, session, opened, owes: false }
    }

    fn try_read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.session.reader().read(buf) {
                Ok(n) => {
                    self.opened = self.opened.saturating_sub(n);
                    return Ok(n);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                // An end without the goodbye of TLS: the protocol within has its own.
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(0),
                Err(error) => return Err(error),
            }
            self.opened = 0;
            self.session.read_tls(&mut Socket(&self.tcp))?;
            let state = self.session.process_new_packets();
            let state = state.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
            self.opened = state.plaintext_bytes_to_read();
            // Answers of TLS itself go when they can, at the latest with what is written next.
            match self.flush() {
                Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Err(error),
                _ => {}
            }
        }
    }

    fn try_write_vectored(&mut self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        self.flush()?;
        if std::mem::take(&mut self.owes) {
            return Ok(1);
        }
        let taken = self.session.writer().write_vectored(bufs)?;
        match self.flush() {
            Ok(()) => Ok(taken),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && taken > 0 => {
                self.owes = true;
                if taken > 1 { Ok(taken - 1) } else { Err(error) }
            }
            Err(error) => Err(error),
        }
    }

    /// Hands the kernel everything that is sealed.
    fn flush(&mut self) -> io::Result<()> {
        while self.session.wants_write() {
            if self.session.write_tls(&mut Socket(&self.tcp))? == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
        }
        Ok(())
    }

    async fn shutdown(&mut self) -> io::Result<()> {
        self.session.send_close_notify();
        loop {
            match self.flush() {
                Ok(()) => return self.tcp.shutdown().await,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.tcp.writable().await?,
                Err(error) => return Err(error),
            }
        }
    }
}

/// A socket for a library that wants to be told when it would have to wait.
struct Socket<'s>(&'s TcpStream);

impl Read for Socket<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.0.try_read(buf)
    }
}

impl Write for Socket<'_> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.0.try_write(buf)
    }

    fn write_vectored(&mut self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        self.0.try_write_vectored(bufs)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use rustls::pki_types::ServerName;
    use tokio::io::AsyncReadExt;
    use tokio::net::TcpListener;
    use tokio_rustls::{TlsAcceptor, TlsConnector};

    use super::*;
    use crate::tls::testing::Authority;

    async fn pair() -> (tokio_rustls::client::TlsStream<TcpStream>, Bare) {
        let authority = Authority::new();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let tcp = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (server, _) = listener.accept().await.unwrap();
        socket2::SockRef::from(&server).set_send_buffer_size(4096).unwrap();
        let acceptor = TlsAcceptor::from(authority.server());
        let connector = TlsConnector::from(authority.client());
        let name = ServerName::try_from("localhost").unwrap();
        let (client, server) = tokio::join!(connector.connect(name, tcp), acceptor.accept(server));
        (client.unwrap(), Stream::from(server.unwrap()).into_bare())
    }

    #[tokio::test]
    async fn a_slow_reader_gets_every_byte_once_and_what_is_written_is_never_more_than_was_given() {
        let (mut client, mut bare) = pair().await;
        let sent: Vec<u8> = (0..3_000_000_u32).map(|i| (i % 251) as u8).collect();
        let wanted = Arc::new(sent.clone());
        let reader = tokio::spawn(async move {
            let mut got = vec![0; wanted.len()];
            for piece in got.chunks_mut(100_000) {
                tokio::time::sleep(Duration::from_millis(1)).await;
                client.read_exact(piece).await.unwrap();
            }
            assert!(got == *wanted);
            let mut rest = Vec::new();
            assert_eq!(client.read_to_end(&mut rest).await.unwrap(), 0);
        });
        let (mut written, mut waits) = (0, 0);
        while written < sent.len() {
            let (head, body) = sent[written..].split_at((sent.len() - written).min(7));
            match bare.try_write_vectored(&[IoSlice::new(head), IoSlice::new(body)]) {
                Ok(n) => {
                    assert!(n > 0 && n <= SEALED_BYTES);
                    written += n;
                }
                Err(error) => {
                    assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
                    waits += 1;
                    bare.writable().await.unwrap();
                }
            }
        }
        assert!(waits > 0, "the kernel took everything at once: nothing was tested");
        bare.shutdown().await.unwrap();
        reader.await.unwrap();
    }

    #[tokio::test]
    async fn what_was_opened_is_read_without_waiting_for_the_kernel() {
        let (mut client, mut bare) = pair().await;
        client.write_all(&[7; 3000]).await.unwrap();
        client.flush().await.unwrap();
        let mut got = 0;
        let mut piece = [0; 1000];
        while got < 3000 {
            tokio::time::timeout(Duration::from_secs(20), bare.readable()).await.unwrap().unwrap();
            match bare.try_read(&mut piece) {
                Ok(n) => got += n,
                Err(error) => assert_eq!(error.kind(), io::ErrorKind::WouldBlock),
            }
        }
        client.shutdown().await.unwrap();
        let end = loop {
            bare.readable().await.unwrap();
            match bare.try_read(&mut piece) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                other => break other.unwrap(),
            }
        };
        assert_eq!(end, 0);
    }
}
