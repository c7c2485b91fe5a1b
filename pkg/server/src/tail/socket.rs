//! A tail's socket: what the session has goes out as text frames, pings go out every second, what the client sends is read and
//! answered as the protocol wants (contract, Loki API §3.3-3.5).
//!
//! Invariants:
//! * Frames are never mixed: a frame that has begun is finished before anything else is written, control frames included.
//! * The next frame is asked for only when the last one is with the kernel, so a slow client holds one frame here; where it is
//!   late, it is late in the session.
//! * A client that takes no byte for [`STALL`] while there is something to write is closed, with a reason that it finds behind
//!   what it has not read; a browser tab that was frozen so long comes back when it wakes.
//! * The end of a tail is visible: a close frame with code 1011 and the reason, or, for clients that reconnect only after an
//!   abnormal end, the end of the stream without one. Either is followed by a half-close, so that what was written arrives.

use std::future::Future;
use std::io::{self, IoSlice};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use socket2::SockRef;
use tailwater_wire::frame::HEARTBEAT_JSON;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};

use super::End;
use super::codec::{self, Incoming, Reader};
use crate::metrics::Metrics;
use crate::stream::Bare;

/// Time between pings, and before the first.
const PING: Duration = Duration::from_secs(1);

/// How long after a data frame a heartbeat shows it to clients that want one: Explore hides for 500 ms what follows something it
/// has shown, and timers and networks are not exact.
const HEARTBEAT_QUIET: Duration = Duration::from_millis(600);

/// How long a client may take nothing.
const STALL: Duration = Duration::from_secs(15);

/// What the client is told then.
const STALL_REASON: &str = "the client has taken nothing for 15s";

/// How long the last words to a client may take, and how long its own are waited for.
const LINGER: Duration = Duration::from_secs(1);

/// Bytes that the kernel holds unsent: little, so that being slow shows where the session can do something about it.
const UNSENT_BYTES: u32 = 128 << 10;

/// The same while a stalled client is told so: the rest of a frame must fit.
const LAST_UNSENT_BYTES: u32 = 16 << 20;

/// After how long without an acknowledgement the kernel gives a client up.
const VANISHED: Duration = Duration::from_secs(30);

/// Bytes read from a client at a time.
const READ_BYTES: usize = 1024;

/// Close code of every end that the server decides on.
const INTERNAL_ERROR: u16 = 1011;

/// Where frames come from.
pub(super) trait Frames: Send {
    /// The next frame or the end. Must be safe to cancel.
    fn next(&mut self) -> impl Future<Output = Next> + Send;
}

/// What a source of frames has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// A whole JSON text.
    Frame(Bytes),
    /// Nothing more.
    End(End),
}

/// How a client wants to be treated.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Manners {
    /// JSON heartbeats when there are no lines: soon after the last ones, then with the pings.
    pub(super) heartbeat: bool,
    /// A resumable end, and that of a client that stalls, is a dropped connection: this client reconnects only then.
    pub(super) drop_to_resume: bool,
}

/// A connection that has been upgraded.
pub(super) struct Socket {
    tcp: Bare,
    reader: Reader,
    out: Out,
    metrics: Metrics,
}

/// What is being written.
#[derive(Debug, Default)]
struct Out {
    /// Control frames and the head of `body`.
    head: Vec<u8>,
    body: Bytes,
    /// Bytes of both that are with the kernel.
    written: usize,
    /// The answer to a ping that came meanwhile.
    pong: Vec<u8>,
}

impl Out {
    fn is_empty(&self) -> bool {
        self.head.is_empty()
    }

    /// Begins with a text frame.
    fn text(&mut self, body: Bytes) {
        codec::header(OpCode::Data(Data::Text), body.len(), &mut self.head);
        self.body = body;
    }

    /// What is left to write, as two slices.
    fn rest(&self) -> [&[u8]; 2] {
        let in_head = self.written.min(self.head.len());
        let in_body = (self.written - in_head).min(self.body.len());
        [&self.head[in_head..], &self.body[in_body..]]
    }

    fn wrote(&mut self, n: usize) {
        self.written += n;
        if self.written == self.head.len() + self.body.len() {
            self.head.clear();
            self.body = Bytes::new();
            self.written = 0;
            self.head.append(&mut self.pong);
        }
    }
}

impl Socket {
    pub(super) fn new(stream: impl Into<Bare>, metrics: Metrics) -> Self {
        let tcp = stream.into();
        let options = SockRef::from(tcp.tcp());
        // Where the platform has no such option the tail works all the same.
        let _supported = options.set_tcp_notsent_lowat(UNSENT_BYTES);
        let _supported = options.set_tcp_user_timeout(Some(VANISHED));
        Self { tcp, reader: Reader::default(), out: Out::default(), metrics }
    }

    /// Runs the tail until something ends it; [`Socket::end`] says goodbye. `early` is what the client sent right behind the
    /// handshake.
    pub(super) async fn run(
        &mut self,
        early: &[u8],
        frames: &mut impl Frames,
        manners: Manners,
        mut cut: watch::Receiver<Option<Arc<End>>>,
    ) -> Ended {
        let mut tick = tokio::time::interval_at(Instant::now() + PING, PING);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut progress = Instant::now();
        let mut last_frame = Instant::now();
        let mut needs_heartbeat = false;
        if let Err(end) = self.incoming(early) {
            return end;
        }
        loop {
            let end = tokio::select! {
                biased;
                readable = self.tcp.readable() => match readable.and_then(|()| self.read()) {
                    Ok(end) => end,
                    Err(_gone) => Some(Ended::Gone),
                },
                writable = self.tcp.writable(), if !self.out.is_empty() => {
                    match writable.and_then(|()| self.write()) {
                        Ok(0) => None,
                        Ok(_) => {
                            progress = Instant::now();
                            None
                        }
                        Err(_gone) => Some(Ended::Gone),
                    }
                }
                next = frames.next(), if self.out.is_empty() => match next {
                    Next::Frame(frame) => {
                        self.metrics.tail_frames.inc();
                        self.out.text(frame);
                        last_frame = Instant::now();
                        progress = last_frame;
                        needs_heartbeat = manners.heartbeat;
                        self.write().err().map(|_gone| Ended::Gone)
                    }
                    Next::End(end) => Some(Ended::Server(end)),
                },
                _ = tick.tick() => {
                    if self.out.is_empty() {
                        codec::ping(&mut self.out.head);
                        if manners.heartbeat && last_frame.elapsed() >= HEARTBEAT_QUIET {
                            self.out.text(Bytes::from_static(HEARTBEAT_JSON.as_bytes()));
                            needs_heartbeat = false;
                        }
                        progress = Instant::now();
                        self.write().err().map(|_gone| Ended::Gone)
                    } else {
                        (progress.elapsed() >= STALL).then_some(Ended::Stalled)
                    }
                }
                () = tokio::time::sleep_until(last_frame + HEARTBEAT_QUIET), if needs_heartbeat && self.out.is_empty() => {
                    self.out.text(Bytes::from_static(HEARTBEAT_JSON.as_bytes()));
                    needs_heartbeat = false;
                    progress = Instant::now();
                    self.write().err().map(|_gone| Ended::Gone)
                }
                cut = cut.wait_for(Option::is_some) => {
                    cut.ok().and_then(|cut| cut.clone()).map(|end| Ended::Server(End::clone(&end)))
                }
            };
            if let Some(end) = end {
                return end;
            }
        }
    }

    /// Ends a tail that never began.
    pub(super) async fn refuse(self, end: End, manners: Manners) -> &'static str {
        self.end(Ended::Server(end), manners).await
    }

    /// Reads what is there; answers how the client ended the tail, if it did.
    fn read(&mut self) -> io::Result<Option<Ended>> {
        let mut buffer = [0; READ_BYTES];
        match self.tcp.try_read(&mut buffer) {
            Ok(0) => Ok(Some(Ended::Gone)),
            Ok(n) => Ok(self.incoming(&buffer[..n]).err()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn incoming(&mut self, mut bytes: &[u8]) -> Result<(), Ended> {
        while let Some(incoming) = self.reader.next(&mut bytes) {
            match incoming {
                Incoming::Ping(payload) => {
                    // Only the last ping needs an answer: a client cannot make this grow.
                    self.out.pong.clear();
                    codec::pong(&payload, &mut self.out.pong);
                    if self.out.is_empty() {
                        self.out.head.append(&mut self.out.pong);
                    }
                }
                Incoming::Close(code) => return Err(Ended::Client(code)),
                Incoming::Violation(code, why) => return Err(Ended::Violation(code.into(), why)),
            }
        }
        Ok(())
    }

    /// Hands the kernel what it takes; answers how much that was.
    fn write(&mut self) -> io::Result<usize> {
        let mut total = 0;
        while !self.out.is_empty() {
            let [head, body] = self.out.rest();
            match self.tcp.try_write_vectored(&[IoSlice::new(head), IoSlice::new(body)]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(n) => {
                    self.out.wrote(n);
                    self.metrics.tail_bytes.inc_by(n as u64);
                    total += n;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        Ok(total)
    }

    /// Tells the client why the tail ends, within [`LINGER`]; answers the same in a word.
    pub(super) async fn end(mut self, ended: Ended, manners: Manners) -> &'static str {
        let mut last = Vec::new();
        let label = match &ended {
            Ended::Gone => return "gone",
            Ended::Client(Some(code)) => {
                last = code_only(*code);
                "client"
            }
            Ended::Client(None) => {
                codec::close_empty(&mut last);
                "client"
            }
            Ended::Violation(code, why) => {
                codec::close(*code, why, &mut last);
                "protocol"
            }
            Ended::Stalled => {
                if !manners.drop_to_resume {
                    codec::close(INTERNAL_ERROR, STALL_REASON, &mut last);
                }
                let _supported = SockRef::from(self.tcp.tcp()).set_tcp_notsent_lowat(LAST_UNSENT_BYTES);
                "stalled"
            }
            Ended::Server(end) => {
                if !(end.resumable && manners.drop_to_resume) {
                    codec::close(INTERNAL_ERROR, &end.reason, &mut last);
                }
                end.label
            }
        };
        // A client that does not even take its goodbye has been waited for long enough.
        let _in_time = tokio::time::timeout(LINGER, self.goodbye(last)).await;
        // What was never read would turn the close into a reset, which takes what was written with it.
        let mut ignored = [0; READ_BYTES];
        for _ in 0..64 {
            if !matches!(self.tcp.try_read(&mut ignored), Ok(1..)) {
                break;
            }
        }
        label
    }

    /// Finishes the frame that has begun, says the last words, and waits for the client to go.
    async fn goodbye(&mut self, mut last: Vec<u8>) -> io::Result<()> {
        if self.out.written == 0 {
            // Nothing has begun; what was waiting is not needed any more.
            self.out = Out::default();
        }
        self.out.pong.clear();
        self.out.pong.append(&mut last);
        if self.out.is_empty() {
            self.out.head.append(&mut self.out.pong);
        }
        self.write()?;
        while !self.out.is_empty() {
            self.tcp.writable().await?;
            self.write()?;
        }
        self.tcp.shutdown().await?;
        loop {
            self.tcp.readable().await?;
            let mut ignored = [0; READ_BYTES];
            match self.tcp.try_read(&mut ignored) {
                Ok(0) => return Ok(()),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
    }
}

/// A close frame with a code and no reason.
fn code_only(code: u16) -> Vec<u8> {
    let mut out = Vec::new();
    codec::close(code, "", &mut out);
    out
}

/// How a tail ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// The connection is no more.
    Gone,
    /// The client said goodbye.
    Client(Option<u16>),
    /// The client did what the protocol does not allow.
    Violation(u16, &'static str),
    /// The client takes nothing.
    Stalled,
    /// This side ends it.
    Server(End),
}

#[cfg(test)]
mod tests;
