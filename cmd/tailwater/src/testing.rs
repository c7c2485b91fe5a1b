//! A small Loki for tests: takes pushes, serves tails and answers queries from a script, in this process.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::{SinkExt as _, StreamExt as _};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::header::{CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, UPGRADE};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tailwater_wire::compress::{self, Caps};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role};

use crate::client::{Endpoint, ServerArgs};

/// What happens to one tail.
pub(crate) enum TailScript {
    /// It is refused.
    Refuse(u16, &'static str),
    /// It gets these frames, and then its connection is cut without a word.
    ThenCut(Vec<String>),
    /// It gets these frames, and is then closed with a reason.
    ThenClose(Vec<String>, &'static str),
    /// It gets these frames, and stays open.
    ThenStay(Vec<String>),
}

#[derive(Default)]
struct State {
    tails: VecDeque<TailScript>,
    /// Statuses and texts of the next pushes; 204 when there are no more.
    pushes: VecDeque<(u16, &'static str)>,
    asked: Vec<String>,
    bodies: Vec<Bytes>,
}

/// The server. It ends with this value.
pub(crate) struct FakeLoki {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
    _tasks: JoinSet<()>,
}

impl FakeLoki {
    /// A server on a free port.
    pub(crate) async fn start(tails: Vec<TailScript>, pushes: Vec<(u16, &'static str)>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(Mutex::new(State { tails: tails.into(), pushes: pushes.into(), ..State::default() }));
        let mut tasks = JoinSet::new();
        let shared = Arc::clone(&state);
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let state = Arc::clone(&shared);
                connections.spawn(async move {
                    let service = service_fn(move |request| answer(request, Arc::clone(&state)));
                    let connection =
                        hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
                    let _ended = connection.with_upgrades().await;
                });
            }
        });
        Self { address, state, _tasks: tasks }
    }

    /// How clients reach it.
    pub(crate) fn endpoint(&self) -> Arc<Endpoint> {
        Arc::new(ServerArgs::local(self.address).endpoint().unwrap())
    }

    /// Path and query of every request so far.
    pub(crate) fn asked(&self) -> Vec<String> {
        self.state.lock().asked.clone()
    }

    /// The entries of every push that was answered 204.
    pub(crate) fn stored(&self) -> Vec<(String, i64, Vec<u8>)> {
        self.state.lock().bodies.iter().flat_map(|body| lines_of_body(body)).collect()
    }
}

async fn answer(request: Request<Incoming>, state: Arc<Mutex<State>>) -> Result<Response<Full<Bytes>>, Infallible> {
    state.lock().asked.push(request.uri().to_string());
    let text = |status: u16, text: &'static str| {
        Ok(Response::builder().status(status).body(Full::new(Bytes::from_static(text.as_bytes()))).unwrap())
    };
    if request.uri().path() == "/loki/api/v1/push" {
        let body = request.into_body().collect().await.unwrap().to_bytes();
        let mut state = state.lock();
        let (status, says) = state.pushes.pop_front().unwrap_or((204, ""));
        if status == 204 {
            state.bodies.push(body);
        }
        return text(status, says);
    }
    let Some(script) = state.lock().tails.pop_front() else { return text(503, "the script is over") };
    if let TailScript::Refuse(status, says) = script {
        return text(status, says);
    }
    let key = request.headers()[SEC_WEBSOCKET_KEY].clone();
    tokio::spawn(async move {
        let upgraded = hyper::upgrade::on(request).await.unwrap();
        play(script, WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Server, None).await).await;
    });
    let response = Response::builder()
        .status(StatusCode::SWITCHING_PROTOCOLS)
        .header(CONNECTION, "Upgrade")
        .header(UPGRADE, "websocket")
        .header(SEC_WEBSOCKET_ACCEPT, derive_accept_key(key.as_bytes()));
    Ok(response.body(Full::default()).unwrap())
}

async fn play<S>(script: TailScript, mut socket: WebSocketStream<S>)
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    let (frames, close, stay) = match script {
        TailScript::Refuse(..) => return,
        TailScript::ThenCut(frames) => (frames, None, false),
        TailScript::ThenClose(frames, reason) => (frames, Some(reason), false),
        TailScript::ThenStay(frames) => (frames, None, true),
    };
    for frame in frames {
        socket.send(Message::text(frame)).await.unwrap();
    }
    if let Some(reason) = close {
        let frame = CloseFrame { code: CloseCode::Error, reason: reason.into() };
        let _gone = socket.close(Some(frame)).await;
        while let Some(Ok(_)) = socket.next().await {}
    }
    while stay && let Some(Ok(_)) = socket.next().await {}
}

/// A frame with one entry of stream `{app="a"}` for each time and line.
pub(crate) fn frame(entries: &[(i64, &str)]) -> String {
    let streams: Vec<_> = entries
        .iter()
        .map(|(at, line)| serde_json::json!({"stream": {"app": "a"}, "values": [[at.to_string(), line]]}))
        .collect();
    serde_json::json!({ "streams": streams }).to_string()
}

/// Labels, timestamp and line of every entry of a push body.
pub(crate) fn lines_of_body(body: &[u8]) -> Vec<(String, i64, Vec<u8>)> {
    let raw = compress::snappy(body, &Caps::default()).unwrap();
    let push = tailwater_wire::push::decode(Bytes::from(raw)).unwrap();
    let mut lines = Vec::new();
    for stream in push.streams() {
        let labels = String::from_utf8(push.labels(stream).to_vec()).unwrap();
        for entry in push.entries(stream) {
            lines.push((labels.clone(), entry.timestamp, push.line(entry).to_vec()));
        }
    }
    lines
}
