//! A server that speaks S3, inside the test process, and a layer of faults before it.
//!
//! What s3s-fs does otherwise than S3 is mended in [`Mended`]: conditions of writes are compared, but not in one step with the write; content
//! and ETag are not read in one step; `If-None-Match` of reads is not looked at; the end of an object shorter than the end asked for is an
//! error, and so is the removal of what is not there.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::http::{Request, Response};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use s3s::auth::SimpleAuth;
use s3s::dto::*;
use s3s::service::{S3Service, S3ServiceBuilder};
use s3s::{Body, S3, S3ErrorCode, S3Request, S3Response, S3Result};
use tempfile::TempDir;
use tokio::net::{TcpListener, TcpStream};

use super::{Objects, Options, Secret, Timing};

type AnyBody = UnsyncBoxBody<Bytes, Box<dyn std::error::Error + Send + Sync>>;

/// What happens to one request.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Fault {
    /// Nothing.
    None,
    /// It waits first.
    Slow(Duration),
    /// It is answered so, and not done.
    Status(u16),
    /// The bucket is said to be missing.
    NoBucket,
    /// The connection ends, and nothing is done.
    Broken,
    /// It is done, and answered with 500.
    DoneStatus,
    /// It is done, and the connection ends.
    DoneBroken,
    /// It is done, and the connection ends halfway through the answer's body.
    DoneShort,
}

/// A server with one bucket, `logs`. It ends with the runtime of the test.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    state: Arc<State>,
}

struct State {
    _root: TempDir,
    service: S3Service,
    next: Mutex<VecDeque<Fault>>,
    always: Mutex<Fault>,
    requests: AtomicU32,
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State").field("next", &self.next).finish_non_exhaustive()
    }
}

impl Server {
    pub(crate) async fn start() -> Self {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("logs")).unwrap();
        let files = s3s_fs::FileSystem::new(root.path()).unwrap();
        let mut builder = S3ServiceBuilder::new(Mended { files, turn: tokio::sync::RwLock::default() });
        builder.set_auth(SimpleAuth::from_single("key", "secret"));
        let state = Arc::new(State {
            _root: root,
            service: builder.build(),
            next: Mutex::default(),
            always: Mutex::new(Fault::None),
            requests: AtomicU32::new(0),
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let serving = Arc::clone(&state);
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                tokio::spawn(serve(Arc::clone(&serving), socket));
            }
        });
        Self { address, state }
    }

    /// What happens to the next requests, one by one.
    pub(crate) fn next(&self, faults: impl IntoIterator<Item = Fault>) {
        self.state.next.lock().extend(faults);
    }

    /// What happens to all others.
    pub(crate) fn always(&self, fault: Fault) {
        *self.state.always.lock() = fault;
    }

    /// Requests so far.
    pub(crate) fn requests(&self) -> u32 {
        self.state.requests.load(Ordering::SeqCst)
    }

    /// How to reach it.
    pub(crate) fn options(&self) -> Options {
        Options {
            endpoint: Some(format!("http://{}", self.address)),
            region: Some("us-east-1".to_owned()),
            access_key_id: Some("key".to_owned()),
            secret_access_key: Some(Secret("secret".to_owned())),
            allow_http: Some(true),
            timing: Timing {
                attempt: Duration::from_secs(1),
                connect: Duration::from_secs(1),
                reads: Duration::from_secs(3),
                writes: Duration::from_secs(3),
            },
            ..Options::default()
        }
    }

    pub(crate) fn objects(&self, url: &str) -> Objects {
        Objects::open(url, &self.options()).unwrap()
    }
}

async fn serve(state: Arc<State>, socket: TcpStream) {
    let service = service_fn(move |request: Request<Incoming>| {
        let state = Arc::clone(&state);
        async move { state.answer(request).await }
    });
    let _ended = http1::Builder::new().serve_connection(TokioIo::new(socket), service).await;
}

impl State {
    async fn answer(&self, request: Request<Incoming>) -> io::Result<Response<AnyBody>> {
        self.requests.fetch_add(1, Ordering::SeqCst);
        let fault = self.next.lock().pop_front().unwrap_or(*self.always.lock());
        match fault {
            Fault::None => self.done(request).await,
            Fault::Slow(time) => {
                tokio::time::sleep(time).await;
                self.done(request).await
            }
            Fault::Status(status) => Ok(failed(status, "InternalError")),
            Fault::NoBucket => Ok(failed(404, "NoSuchBucket")),
            Fault::Broken => Err(io::Error::other("fault")),
            Fault::DoneStatus => self.done(request).await.map(|_| failed(500, "InternalError")),
            Fault::DoneShort => {
                let (head, body) = self.done(request).await?.into_parts();
                let body = body.collect().await.map_err(io::Error::other)?.to_bytes();
                let half = Ok(Frame::data(body.slice(..body.len() / 2)));
                let body = StreamBody::new(futures_util::stream::iter([half, Err(io::Error::other("fault").into())]));
                Ok(Response::from_parts(head, body.boxed_unsync()))
            }
            Fault::DoneBroken => self.done(request).await.and(Err(io::Error::other("fault"))),
        }
    }

    async fn done(&self, request: Request<Incoming>) -> io::Result<Response<AnyBody>> {
        let answer = self.service.call(request.map(Body::from)).await;
        let answer = answer.map_err(|error| io::Error::other(format!("{error:?}")))?;
        Ok(answer.map(BodyExt::boxed_unsync))
    }
}

fn failed(status: u16, code: &str) -> Response<AnyBody> {
    let body = format!("<Error><Code>{code}</Code><Message>We made a mistake</Message></Error>");
    Response::builder().status(status).body(Body::from(body).boxed_unsync()).unwrap()
}

/// Files that keep to S3's rules.
#[derive(Debug)]
struct Mended {
    files: s3s_fs::FileSystem,
    turn: tokio::sync::RwLock<()>,
}

type Answer<'a, T> = Pin<Box<dyn Future<Output = S3Result<S3Response<T>>> + Send + 'a>>;

macro_rules! delegate {
    ($($turn:ident $method:ident($input:ident) -> $output:ident;)*) => {
        $(fn $method<'a, 'b>(&'a self, request: S3Request<$input>) -> Answer<'b, $output>
        where
            'a: 'b,
        {
            Box::pin(async move {
                let _turn = self.turn.$turn().await;
                self.files.$method(request).await
            })
        })*
    };
}

impl S3 for Mended {
    delegate! {
        read head_object(HeadObjectInput) -> HeadObjectOutput;
        read list_objects_v2(ListObjectsV2Input) -> ListObjectsV2Output;
        read create_multipart_upload(CreateMultipartUploadInput) -> CreateMultipartUploadOutput;
        read upload_part(UploadPartInput) -> UploadPartOutput;
        read abort_multipart_upload(AbortMultipartUploadInput) -> AbortMultipartUploadOutput;
        write complete_multipart_upload(CompleteMultipartUploadInput) -> CompleteMultipartUploadOutput;
        write put_object(PutObjectInput) -> PutObjectOutput;
    }

    fn get_object<'a, 'b>(&'a self, mut request: S3Request<GetObjectInput>) -> Answer<'b, GetObjectOutput>
    where
        'a: 'b,
    {
        Box::pin(async move {
            let _turn = self.turn.read().await;
            let GetObjectInput { bucket, key, .. } = request.input.clone();
            let head = HeadObjectInput { bucket, key, ..HeadObjectInput::default() };
            let head = self.files.head_object(request.clone().map_input(|_| head)).await?.output;
            let known = request.input.if_none_match.as_ref().and_then(|condition| condition.as_etag());
            if known.is_some() && known == head.e_tag.as_ref() {
                return Err(S3ErrorCode::NotModified.into());
            }
            let size = u64::try_from(head.content_length.unwrap_or_default()).unwrap_or_default();
            if let Some(Range::Suffix { length }) = &mut request.input.range {
                *length = size.min(*length);
            }
            self.files.get_object(request).await
        })
    }

    fn delete_object<'a, 'b>(&'a self, request: S3Request<DeleteObjectInput>) -> Answer<'b, DeleteObjectOutput>
    where
        'a: 'b,
    {
        Box::pin(async move {
            let _turn = self.turn.write().await;
            let DeleteObjectInput { bucket, key, .. } = request.input.clone();
            let head = HeadObjectInput { bucket, key, ..HeadObjectInput::default() };
            match self.files.head_object(request.clone().map_input(|_| head)).await {
                Ok(_) => self.files.delete_object(request).await,
                Err(_) => Ok(S3Response::new(DeleteObjectOutput::default())),
            }
        })
    }
}
