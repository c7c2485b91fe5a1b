//! An S3 server for tests: a folder, served on a free port of this machine, that fails on command.
//!
//! `s3-server FOLDER` prints `listening http://ADDR` and then obeys lines on its standard input; it ends when that ends, so it never
//! outlives the test that started it. With `S3_ACCESS_KEY` and `S3_SECRET_KEY` in the environment, requests must be signed; `S3_LISTEN_IP` is
//! another address of this machine.
//!
//! A command is `FAULT [NUMBER] [METHOD] [PATTERN]`, answered by `set COMMAND`; it holds until the next one, for requests of that
//! method whose path contains the pattern:
//! * `ok`: nothing fails.
//! * `slow MS`: the request waits before it is served, even if its client is gone by then.
//! * `errors PERCENT`: so many in a hundred are answered with 500 and not served.
//! * `reset`: the connection ends before the request is served.
//! * `lost-answers`: the request is served, and then the connection ends.
//! * `down`: the port refuses connections; those that were open end.
//!
//! Every request that a fault meets is told as `! METHOD PATH` when it arrives.
//!
//! Invariant: requests for one object are served one after the other where one of them writes, so a conditional write is atomic and
//! no reader sees the content of one version with the tag of another.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::io::{BufRead, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use parking_lot::Mutex;
use s3s::access::S3Access;
use s3s::auth::SimpleAuth;
use s3s::dto::{GetObjectInput, Range};
use s3s::service::{S3Service, S3ServiceBuilder};
use s3s::{S3Request, S3Result};
use tailwater_integration::lines::Numbers;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{RwLock, mpsc, watch};

/// Locks of objects; two objects that share one wait for each other needlessly, nothing more.
const LOCKS: usize = 256;

/// Commands that may wait to be obeyed.
const COMMANDS: usize = 16;

/// How often a port that another socket holds is tried again.
const REBIND: Duration = Duration::from_millis(20);

const INTERNAL_ERROR: &str = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>InternalError</Code>\
    <Message>We encountered an internal error. Please try again.</Message></Error>";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    Ok,
    Slow(u64),
    Errors(u64),
    Reset,
    LostAnswers,
    Down,
}

/// A fault and whom it meets.
#[derive(Clone, Debug)]
struct Command {
    fault: Fault,
    method: Option<Method>,
    pattern: String,
}

impl Command {
    fn parse(line: &str) -> Option<Self> {
        let mut words = line.split_whitespace().peekable();
        let name = words.next()?;
        let fault = match name {
            "ok" => Fault::Ok,
            "slow" => Fault::Slow(words.next()?.parse().ok()?),
            "errors" => Fault::Errors(words.next()?.parse().ok()?),
            "reset" => Fault::Reset,
            "lost-answers" => Fault::LostAnswers,
            "down" => Fault::Down,
            _ => return None,
        };
        let method = match words.peek() {
            Some(word) if word.bytes().all(|b| b.is_ascii_uppercase()) => words.next()?.parse().ok(),
            _ => None,
        };
        Some(Self { fault, method, pattern: words.next().unwrap_or_default().to_owned() })
    }

    fn meets(&self, request: &Request<Incoming>) -> bool {
        self.fault != Fault::Ok
            && self.method.as_ref().is_none_or(|method| method == request.method())
            && request.uri().path().contains(&self.pattern)
    }
}

/// The connection ends without an answer.
#[derive(Debug)]
struct HangUp;

impl std::fmt::Display for HangUp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("hung up on command")
    }
}

impl std::error::Error for HangUp {}

struct State {
    service: S3Service,
    command: watch::Receiver<Command>,
    numbers: Mutex<Numbers>,
    locks: Vec<RwLock<()>>,
}

impl State {
    async fn answer(&self, request: Request<Incoming>) -> Result<Response<s3s::Body>, HangUp> {
        let command = self.command.borrow().clone();
        let fault = if command.meets(&request) {
            say(&format!("! {} {}", request.method(), request.uri().path()));
            command.fault
        } else {
            Fault::Ok
        };
        match fault {
            Fault::Down | Fault::Reset => return Err(HangUp),
            Fault::Errors(percent) if self.numbers.lock().below(100) < percent => {
                let mut answer = Response::new(s3s::Body::from(Bytes::from_static(INTERNAL_ERROR.as_bytes())));
                *answer.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
                return Ok(answer);
            }
            Fault::Ok | Fault::Slow(_) | Fault::Errors(_) | Fault::LostAnswers => {}
        }
        // Whole before it waits: a request that was sent is served although its sender may be dead by then.
        let (parts, body) = request.into_parts();
        let body = body.collect().await.map_err(|_| HangUp)?.to_bytes();
        if let Fault::Slow(ms) = fault {
            tokio::time::sleep(Duration::from_millis(ms)).await;
        }
        let answer = self.serve(Request::from_parts(parts, s3s::Body::from(body))).await;
        if fault == Fault::LostAnswers { Err(HangUp) } else { answer }
    }

    async fn serve(&self, request: Request<s3s::Body>) -> Result<Response<s3s::Body>, HangUp> {
        let mut hasher = DefaultHasher::new();
        request.uri().path().hash(&mut hasher);
        let lock = &self.locks[(hasher.finish() % LOCKS as u64) as usize];
        let (_reads, _writes);
        if [Method::GET, Method::HEAD].contains(request.method()) {
            _reads = lock.read().await;
        } else {
            _writes = lock.write().await;
        }
        self.service.call(request).await.map_err(|_| HangUp)
    }
}

fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    // Nobody listens when the test is gone, and then this process is about to end.
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}

/// Serves a connection until it ends or a command breaks it.
async fn connection(state: Arc<State>, socket: TcpStream, mut command: watch::Receiver<Command>) {
    let serving = state.clone();
    let service = hyper::service::service_fn(move |request| {
        let state = serving.clone();
        async move { state.answer(request).await }
    });
    let serve = hyper::server::conn::http1::Builder::new()
        .half_close(true)
        .timer(TokioTimer::new())
        .serve_connection(TokioIo::new(socket), service);
    let mut serve = std::pin::pin!(serve);
    loop {
        tokio::select! {
            // An end that was commanded, or a client that went away.
            _ = &mut serve => return,
            changed = command.changed() => {
                let fault = command.borrow_and_update().fault;
                if changed.is_err() || fault == Fault::Down {
                    return;
                }
            }
        }
    }
}

async fn bind(addr: SocketAddr) -> TcpListener {
    loop {
        match TcpListener::bind(addr).await {
            Ok(listener) => return listener,
            // Another socket of this machine may have got the port while this one was down.
            Err(_) => tokio::time::sleep(REBIND).await,
        }
    }
}

async fn accept(state: Arc<State>, listener: TcpListener, addr: SocketAddr, acts: mpsc::Sender<()>) {
    let mut command = state.command.clone();
    let mut listener = Some(listener);
    loop {
        let down = command.borrow_and_update().fault == Fault::Down;
        if down {
            listener = None;
        } else if listener.is_none() {
            listener = Some(bind(addr).await);
        }
        // What was commanded last is in force from here on.
        if acts.send(()).await.is_err() {
            return;
        }
        loop {
            let socket = async {
                match &listener {
                    Some(listener) => listener.accept().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                changed = command.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    break;
                }
                accepted = socket => {
                    if let Ok((socket, _)) = accepted {
                        tokio::spawn(connection(state.clone(), socket, state.command.clone()));
                    }
                }
            }
        }
    }
}

/// What the folder's server gets wrong is put right here: a suffix that is longer than the object is the whole object.
struct Suffixes {
    folder: PathBuf,
}

impl S3Access for Suffixes {
    // As the trait's macro writes it.
    fn get_object<'a, 'b, 'f>(
        &'a self,
        request: &'b mut S3Request<GetObjectInput>,
    ) -> Pin<Box<dyn Future<Output = S3Result<()>> + Send + 'f>>
    where
        'a: 'f,
        'b: 'f,
        Self: 'f,
    {
        if let Some(Range::Suffix { length }) = &mut request.input.range {
            let path = self.folder.join(&request.input.bucket).join(&request.input.key);
            *length = path.metadata().map_or(*length, |meta| meta.len().min(*length));
        }
        Box::pin(std::future::ready(Ok(())))
    }
}

fn service(folder: &str) -> Result<S3Service, String> {
    let files = s3s_fs::FileSystem::new(folder).map_err(|e| format!("{folder}: {e:?}"))?;
    let mut builder = S3ServiceBuilder::new(files);
    if let (Ok(access), Ok(secret)) = (std::env::var("S3_ACCESS_KEY"), std::env::var("S3_SECRET_KEY")) {
        builder.set_auth(SimpleAuth::from_single(access, secret));
        builder.set_access(Suffixes { folder: folder.into() });
    }
    Ok(builder.build())
}

#[tokio::main]
async fn main() -> Result<(), String> {
    let folder = std::env::args().nth(1).ok_or("usage: s3-server FOLDER")?;
    let fine = Command { fault: Fault::Ok, method: None, pattern: String::new() };
    let (set, command) = watch::channel(fine);
    let state = Arc::new(State {
        service: service(&folder)?,
        command,
        numbers: Mutex::new(Numbers::new(u64::from(std::process::id()))),
        locks: (0..LOCKS).map(|_| RwLock::new(())).collect(),
    });
    let ip = std::env::var("S3_LISTEN_IP").unwrap_or_else(|_| "127.0.0.1".to_owned());
    let listener = TcpListener::bind((ip, 0)).await.map_err(|e| e.to_string())?;
    let addr = listener.local_addr().map_err(|e| e.to_string())?;
    let (acts, mut acting) = mpsc::channel(1);
    tokio::spawn(accept(state, listener, addr, acts));
    acting.recv().await.ok_or("nobody accepts")?;
    say(&format!("listening http://{addr}"));
    let (typed, mut lines) = mpsc::channel(COMMANDS);
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            if typed.blocking_send(line).is_err() {
                return;
            }
        }
    });
    while let Some(line) = lines.recv().await {
        let Some(command) = Command::parse(&line) else {
            return Err(format!("no such command: {line}"));
        };
        set.send(command).map_err(|e| e.to_string())?;
        acting.recv().await.ok_or("nobody accepts")?;
        say(&format!("set {line}"));
    }
    Ok(())
}
