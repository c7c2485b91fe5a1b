//! Calls between nodes: [`tailwater_wire::node::Node`] and [`tailwater_wire::host::Host`] over gRPC.
//!
//! Invariants:
//! * A node that is called answers what it would answer in one process, exactly, or the call fails with a [`NodeError`] that names the peer.
//! * One HTTP/2 connection per peer, made when it is needed. Who asks while it is being made waits for that attempt, not for one of its
//!   own; when it fails all of them hear it at once.
//! * A peer that is silent for [`KEEPALIVE`] and does not answer within as long again is gone, and every call to it fails.
//! * A call that is dropped here is dropped there: its work ends.
//! * Everything that comes from a peer is bounded before memory is taken for it, and no bytes make anything panic.
//!
//! [`NodeError`]: tailwater_wire::node::NodeError

mod answers;
mod copy;
mod counted;
mod errors;
mod far;
mod lines;
mod metrics;
mod peer;
mod pieces;
mod queries;
mod requests;
mod serve;
mod service;
#[cfg(test)]
mod tests;

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};

pub use copy::CopyStream;
pub use metrics::{RpcMetrics, ServeMetrics};
pub use peer::{HostInfo, Peer, Peers};
pub use serve::serve;

/// What protobuf makes of `proto/`.
#[expect(unreachable_pub, clippy::allow_attributes, clippy::allow_attributes_without_reason, reason = "generated")]
mod proto {
    tonic::include_proto!("tailwater.v1");
}

/// How long a connection may be silent before the peer is asked whether it is there, and how long it may take to say so.
const KEEPALIVE: Duration = Duration::from_secs(2);

/// How long it may take to connect.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// How long an attempt to connect that has failed answers for the next ones.
const RETRY_AFTER: Duration = Duration::from_millis(250);

/// The metadata with which every call says which cluster it is meant for.
const CLUSTER: &str = "tailwater-cluster";

/// The metadata that names a log whose owner the node is taken for. One that has become a copy's keeper refuses.
const OWNER: &str = "tailwater-owner";

/// Most bytes of a stream that are under way and have not been taken.
const STREAM_WINDOW: u32 = 1 << 20;

/// As [`STREAM_WINDOW`], of all streams of a connection to who asked: all that HTTP/2 can say, so that follows that nobody takes from hold
/// up nothing but themselves; see [`MAX_FOLLOWS`].
const CONNECTION_WINDOW: u32 = (1 << 31) - 1;

/// The same of what a peer sends to who answers.
const SERVER_CONNECTION_WINDOW: u32 = 256 << 20;

/// Most follows of a peer: with [`STREAM_WINDOW`] bytes each they leave room in [`CONNECTION_WINDOW`] for other calls.
const MAX_FOLLOWS: usize = 1792;

/// Most streams of a connection.
const MAX_STREAMS: u32 = 4096;

/// Most streams that were dropped at a time and of which something may still be under way.
const MAX_DROPPED_STREAMS: usize = 2 * MAX_STREAMS as usize;

/// Most bytes of a frame of HTTP/2 that is sent to us.
const FRAME_BYTES: u32 = 64 << 10;

/// Most bytes that wait to be sent, per stream.
const SEND_BUFFER_BYTES: usize = 256 << 10;

/// Size of the pieces that large answers are cut into, in bytes.
const PIECE_BYTES: usize = 1 << 20;

/// Most bytes of a message, except for pushes.
const MAX_MESSAGE_BYTES: usize = 8 << 20;

/// Most bytes of the body of a push that is forwarded.
pub const MAX_PUSH_BYTES: usize = 64 << 20;

/// Most bytes of an answer.
const MAX_ANSWER_BYTES: usize = 1 << 30;

/// Most bytes of an event of a follow: a reader's lines of one batch are at most 1 GiB of text.
const MAX_EVENT_BYTES: usize = (1 << 30) + (512 << 20);

/// A connection.
pub trait AsyncReadWrite: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> AsyncReadWrite for T {}

/// A connection, over whatever.
pub type Io = Box<dyn AsyncReadWrite>;

/// How peers are reached.
pub trait Connect: Send + Sync + 'static {
    /// Connects.
    fn connect(&self, to: SocketAddr) -> Pin<Box<dyn Future<Output = io::Result<Io>> + Send>>;
}

/// Peers are reached over TCP, unencrypted.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tcp;

impl Connect for Tcp {
    fn connect(&self, to: SocketAddr) -> Pin<Box<dyn Future<Output = io::Result<Io>> + Send>> {
        Box::pin(async move {
            let stream = tokio::net::TcpStream::connect(to).await?;
            stream.set_nodelay(true)?;
            Ok(Box::new(stream) as Io)
        })
    }
}

/// What a peer said cannot be understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it cannot be understood: {0}")]
struct Garbled(&'static str);

/// The value of [`CLUSTER`]. Any text can be a cluster's id, not any can be metadata.
fn cluster_header(id: &str) -> http::HeaderValue {
    let hex = || id.bytes().map(|byte| format!("{byte:02x}")).collect::<String>();
    let text = http::HeaderValue::from_str(id).or_else(|_| http::HeaderValue::from_str(&hex()));
    text.unwrap_or_else(|_| http::HeaderValue::from_static(""))
}
