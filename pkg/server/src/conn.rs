//! A client's connection as the HTTP library sees it: a stream with deadlines, and with room for long queries.
//!
//! Invariants:
//! * Between requests a connection may be silent for the idle timeout; once a request has begun its head must be complete within
//!   the read timeout, however it dribbles. (The body has the same time; its reader watches that.)
//! * A client that takes no byte of an answer for the write timeout is cut off.
//! * The HTTP library reads request targets of at most 64 KiB, Loki's queries may be 128 KiB long. The query string of a longer `GET`
//!   reaches it as the header [`LONG_QUERY`]. At most [`MAX_HEAD_BYTES`] are held for that, and only at the beginning of a request.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

use crate::stream::{Bare, Stream};

/// The header that carries the query string of a request whose target is too long for the HTTP library.
pub(crate) const LONG_QUERY: &str = "x-tailwater-long-query";

/// Longest request head, in bytes (as Go's servers).
pub(crate) const MAX_HEAD_BYTES: usize = (1 << 20) + 4096;

/// Longest request target that goes through as it is.
const MAX_TARGET_BYTES: usize = 60_000;

/// How much is read at a time while a long request line is held.
const HELD_CHUNK_BYTES: usize = 32 << 10;

/// How long a client may take.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Timeouts {
    pub(crate) read: Duration,
    pub(crate) write: Duration,
    pub(crate) idle: Duration,
}

/// Whether a request of this connection is being answered; shared with what answers.
#[derive(Debug, Default)]
pub(crate) struct Answering(AtomicBool);

impl Answering {
    /// The head of a request is complete.
    pub(crate) fn begin(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: Stream,
    timeouts: Timeouts,
    answering: Arc<Answering>,
    /// Nothing of the next request has arrived.
    fresh: bool,
    /// The beginning of a request whose first line is not complete.
    held: Option<Vec<u8>>,
    /// Bytes that are read before those of the stream, and how many of them are gone.
    ready: (Vec<u8>, usize),
    read_deadline: Option<Pin<Box<Sleep>>>,
    write_deadline: Option<Pin<Box<Sleep>>>,
}

impl Connection {
    pub(crate) fn new(stream: impl Into<Stream>, timeouts: Timeouts, answering: Arc<Answering>) -> Self {
        Self {
            stream: stream.into(),
            timeouts,
            answering,
            fresh: true,
            held: None,
            ready: (Vec::new(), 0),
            read_deadline: None,
            write_deadline: None,
        }
    }

    /// The bare stream, for those who speak another protocol on it.
    pub(crate) fn into_bare(self) -> Bare {
        self.stream.into_bare()
    }

    fn begin_next_request(&mut self) {
        self.answering.0.store(false, Ordering::Relaxed);
        self.fresh = true;
        self.read_deadline = None;
    }

    fn poll_read_deadline(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.answering.0.load(Ordering::Relaxed) {
            self.read_deadline = None;
            return Poll::Pending;
        }
        let allowed = if self.fresh { self.timeouts.idle } else { self.timeouts.read };
        let deadline = self.read_deadline.get_or_insert_with(|| Box::pin(tokio::time::sleep(allowed)));
        ready!(deadline.as_mut().poll(cx));
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "no complete request in time")))
    }

    fn poll_write_deadline(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let allowed = self.timeouts.write;
        let deadline = self.write_deadline.get_or_insert_with(|| Box::pin(tokio::time::sleep(allowed)));
        ready!(deadline.as_mut().poll(cx));
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client takes nothing")))
    }

    /// The first bytes of a request have arrived.
    fn request_begins(&mut self) {
        self.fresh = false;
        if let Some(deadline) = &mut self.read_deadline {
            deadline.as_mut().reset(Instant::now() + self.timeouts.read);
        }
    }

    /// Reads on until the held request line is complete, then hands it over.
    fn poll_held(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Some(mut held) = self.held.take() else { return Poll::Ready(Ok(())) };
        loop {
            let before = held.len();
            held.resize(before + HELD_CHUNK_BYTES, 0);
            let mut chunk = ReadBuf::new(&mut held[before..]);
            let polled = Pin::new(&mut self.stream).poll_read(cx, &mut chunk);
            let n = chunk.filled().len();
            held.truncate(before + n);
            match polled {
                Poll::Pending => {
                    self.held = Some(held);
                    return self.poll_read_deadline(cx);
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Ready(Ok(())) => {}
            }
            if n == 0 || held.len() > MAX_HEAD_BYTES {
                break;
            }
            if let Some(end) = held[before..].iter().position(|&b| b == b'\n') {
                if let Some(rewritten) = with_long_query(&held, before + end + 1) {
                    held = rewritten;
                }
                break;
            }
        }
        self.ready = (held, 0);
        Poll::Ready(Ok(()))
    }
}

/// The request with the query string as a header, if its first line (up to `line_end`) is too long.
fn with_long_query(request: &[u8], line_end: usize) -> Option<Vec<u8>> {
    let (line, rest) = request.split_at_checked(line_end)?;
    if line.len() <= MAX_TARGET_BYTES {
        return None;
    }
    let version = line.iter().rposition(|&b| b == b' ')?;
    let question = line.iter().position(|&b| b == b'?')?;
    let query = line.get(question + 1..version)?;
    let mut out = Vec::with_capacity(request.len() + LONG_QUERY.len() + 8);
    out.extend_from_slice(&line[..question]);
    out.extend_from_slice(&line[version..]);
    out.extend_from_slice(LONG_QUERY.as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(query);
    out.extend_from_slice(b"\r\n");
    out.extend_from_slice(rest);
    Some(out)
}

impl AsyncRead for Connection {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            let (bytes, gone) = &mut this.ready;
            if *gone < bytes.len() {
                let n = buf.remaining().min(bytes.len() - *gone);
                buf.put_slice(&bytes[*gone..*gone + n]);
                *gone += n;
                if *gone == bytes.len() {
                    this.ready = (Vec::new(), 0);
                }
                return Poll::Ready(Ok(()));
            }
            if this.held.is_some() {
                ready!(this.poll_held(cx))?;
                if this.ready.0.is_empty() {
                    return Poll::Ready(Ok(()));
                }
                continue;
            }
            let before = buf.filled().len();
            match Pin::new(&mut this.stream).poll_read(cx, buf) {
                Poll::Pending => return this.poll_read_deadline(cx),
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Ready(Ok(())) => {}
            }
            let arrived = &buf.filled()[before..];
            if !this.fresh || arrived.is_empty() {
                return Poll::Ready(Ok(()));
            }
            if arrived.starts_with(b"GET ") && !arrived.contains(&b'\n') {
                this.held = Some(arrived.to_vec());
                buf.set_filled(before);
            }
            this.request_begins();
            if this.held.is_none() {
                return Poll::Ready(Ok(()));
            }
        }
    }
}

impl AsyncWrite for Connection {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[io::IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        match Pin::new(&mut this.stream).poll_write_vectored(cx, bufs) {
            Poll::Pending => this.poll_write_deadline(cx),
            Poll::Ready(result) => {
                this.write_deadline = None;
                // "Go on with the body" is not yet the answer.
                if !this.fresh && !bufs.first().is_some_and(|b| b.starts_with(b"HTTP/1.1 100")) {
                    this.begin_next_request();
                }
                Poll::Ready(result)
            }
        }
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};

    const LONG: Duration = Duration::from_secs(3600);

    async fn pair(timeouts: Timeouts) -> (TcpStream, Connection, Arc<Answering>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (tcp, _) = listener.accept().await.unwrap();
        let answering = Arc::<Answering>::default();
        (client, Connection::new(tcp, timeouts, Arc::clone(&answering)), answering)
    }

    async fn read(connection: &mut Connection, n: usize) -> Vec<u8> {
        let mut all = vec![0; n];
        connection.read_exact(&mut all).await.unwrap();
        all
    }

    #[tokio::test]
    async fn a_long_query_becomes_a_header_and_everything_else_stays() {
        let (mut client, mut connection, _) = pair(Timeouts { read: LONG, write: LONG, idle: LONG }).await;
        let query = "q=".to_owned() + &"x".repeat(140_000);
        let request = format!("GET /p?{query} HTTP/1.1\r\nHost: a\r\n\r\n");
        let short = "GET /p?q=1 HTTP/1.1\r\nHost: a\r\n\r\n";
        let writer = tokio::spawn(async move {
            client.write_all(request.as_bytes()).await.unwrap();
            let mut answer = [0; 2];
            client.read_exact(&mut answer).await.unwrap();
            // In pieces: the beginning alone must not be mistaken for a long line.
            client.write_all(&short.as_bytes()[..9]).await.unwrap();
            client.flush().await.unwrap();
            tokio::task::yield_now().await;
            client.write_all(&short.as_bytes()[9..]).await.unwrap();
            client
        });
        let wanted = format!("GET /p HTTP/1.1\r\n{LONG_QUERY}: {query}\r\nHost: a\r\n\r\n");
        assert!(read(&mut connection, wanted.len()).await == wanted.as_bytes());
        connection.write_all(b"ok").await.unwrap();
        assert_eq!(read(&mut connection, short.len()).await, short.as_bytes());
        writer.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn deadlines_hold_for_silence_and_for_dribbling() {
        let seconds = Duration::from_secs;
        let timeouts = Timeouts { read: seconds(30), write: seconds(30), idle: seconds(120) };
        let (_client, mut connection, _) = pair(timeouts).await;
        let begin = Instant::now();
        assert_eq!(connection.read_u8().await.unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert_eq!(begin.elapsed().as_secs(), 120);

        let (mut client, mut connection, _) = pair(timeouts).await;
        client.write_all(b"G").await.unwrap();
        client.flush().await.unwrap();
        let begin = Instant::now();
        let dribble = tokio::spawn(async move {
            for _ in 0..100 {
                tokio::time::sleep(seconds(1)).await;
                if client.write_all(b"x").await.is_err() {
                    break;
                }
            }
            client
        });
        let error = loop {
            if let Err(error) = connection.read_u8().await {
                break error;
            }
        };
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!((29..=31).contains(&begin.elapsed().as_secs()), "{:?}", begin.elapsed());
        dribble.abort();

        // While an answer is computed nothing is expected of the client.
        let (_client, mut connection, answering) = pair(timeouts).await;
        answering.begin();
        assert!(tokio::time::timeout(seconds(500), connection.read_u8()).await.is_err());
    }
}
