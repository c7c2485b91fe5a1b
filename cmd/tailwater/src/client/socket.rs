//! A WebSocket to a server. The handshake goes through the HTTP client, so that a refusal brings the server's whole text.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::client::conn::http1;
use hyper::header::{
    CONNECTION, HOST, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION, UPGRADE, USER_AGENT,
};
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::client::generate_key;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};

use super::http::{AGENT, reason};
use super::tls::Stream;
use super::{ClientError, Endpoint};

/// How long the handshake may take: a tail reads its history only after it.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(30);
/// Largest message that is read.
const MAX_MESSAGE_BYTES: usize = 64 << 20;
/// Largest text of a refusal that is read.
const MAX_REFUSAL_BYTES: usize = 64 << 10;

/// An open WebSocket.
pub(crate) type Socket = WebSocketStream<Stream>;

/// Opens a WebSocket on a target (path and query).
///
/// `read_buffer` is the read buffer in bytes: what an idle socket costs, and what one read of a busy one can bring.
///
/// # Errors
/// [`ClientError::Refused`] with the server's text if it answers anything but 101.
pub(crate) async fn open(endpoint: &Endpoint, target: &str, read_buffer: usize) -> Result<Socket, ClientError> {
    let address = endpoint.address();
    let stream = endpoint.connect().await?;
    timeout(HANDSHAKE_TIMEOUT, handshake(endpoint, stream, target, read_buffer)).await.map_err(|_| {
        let reason = format!("no answer to the WebSocket handshake within {} s", HANDSHAKE_TIMEOUT.as_secs());
        ClientError::Transport { address, reason }
    })?
}

async fn handshake(
    endpoint: &Endpoint,
    stream: Stream,
    target: &str,
    read_buffer: usize,
) -> Result<Socket, ClientError> {
    let broken = |reason: String| ClientError::Transport { address: endpoint.address(), reason };
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(|e| broken(reason(&e)))?;
    let driver = tokio::spawn(async move {
        // What goes wrong here also fails the handshake that waits for it.
        let _ended = connection.with_upgrades().await;
    });
    let key = generate_key();
    let mut request = Request::builder()
        .uri(target)
        .header(HOST, endpoint.address())
        .header(USER_AGENT, AGENT)
        .header(CONNECTION, "Upgrade")
        .header(UPGRADE, "websocket")
        .header(SEC_WEBSOCKET_VERSION, "13")
        .header(SEC_WEBSOCKET_KEY, &key)
        .header("x-loki-response-encoding-flags", "categorize-labels")
        .body(Empty::<Bytes>::new())
        .map_err(|e| broken(e.to_string()))?;
    for (name, value) in endpoint.headers() {
        request.headers_mut().append(name.clone(), value.clone());
    }
    let response = sender.send_request(request).await.map_err(|e| broken(reason(&e)))?;
    let status = response.status();
    if status != StatusCode::SWITCHING_PROTOCOLS {
        let body = Limited::new(response.into_body(), MAX_REFUSAL_BYTES).collect().await;
        driver.abort();
        let text = body.map(|b| String::from_utf8_lossy(&b.to_bytes()).trim_end().to_owned()).unwrap_or_default();
        return Err(ClientError::Refused { status, text });
    }
    if response.headers().get(SEC_WEBSOCKET_ACCEPT).map(|v| v.as_bytes())
        != Some(derive_accept_key(key.as_bytes()).as_bytes())
    {
        return Err(ClientError::Answer {
            address: endpoint.address(),
            reason: "the WebSocket handshake has a wrong Sec-WebSocket-Accept".to_owned(),
        });
    }
    let upgraded = hyper::upgrade::on(response).await.map_err(|e| broken(reason(&e)))?;
    let parts = upgraded
        .downcast::<TokioIo<Stream>>()
        .map_err(|_| broken("the upgraded connection is not the one that was opened".to_owned()))?;
    let config = WebSocketConfig::default()
        .read_buffer_size(read_buffer)
        .max_message_size(Some(MAX_MESSAGE_BYTES))
        .max_frame_size(Some(MAX_MESSAGE_BYTES));
    let stream = parts.io.into_inner();
    let already_read = parts.read_buf.to_vec();
    Ok(WebSocketStream::from_partially_read(stream, already_read, Role::Client, Some(config)).await)
}
