//! The forms of answers (contract, Loki API §0.1): plain-text failures, with or without a line break, never compressed; JSON,
//! compressed for those who accept it.

use std::io::Write;

use axum::body::Body;
use axum::http::header::{ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_TYPE, RETRY_AFTER, VARY};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;

/// Content type of read endpoints.
pub(crate) const JSON_UTF8: &str = "application/json; charset=UTF-8";

/// Content type of plain text.
pub(crate) const TEXT: &str = "text/plain; charset=utf-8";

/// The status of a request whose client went away. It is not of HTTP; proxies and Loki use it.
pub(crate) const CLIENT_GONE: u16 = 499;

/// Answers up to this are compressed where they are made; longer ones on a thread that may block.
const INLINE_GZIP_BYTES: usize = 64 << 10;

/// A request that is not done, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) status: StatusCode,
    pub(crate) text: String,
    /// Whether the text ends with a line break: pushes and administration have it, reads do not.
    lined: bool,
    /// Seconds after which the same request may succeed, if that is known.
    pub(crate) retry_after: Option<u32>,
}

impl Failure {
    pub(crate) fn new(status: StatusCode, text: impl Into<String>) -> Self {
        Self { status, text: text.into(), lined: false, retry_after: None }
    }

    #[expect(clippy::needless_pass_by_value, reason = "used with map_err")]
    pub(crate) fn bad_request(why: impl ToString) -> Self {
        Self::new(StatusCode::BAD_REQUEST, why.to_string())
    }

    #[expect(clippy::needless_pass_by_value, reason = "used with map_err")]
    pub(crate) fn internal(why: impl ToString) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, why.to_string())
    }

    /// The tenant header is required and missing.
    pub(crate) fn no_tenant() -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "no org id").lined()
    }

    /// The client went away.
    pub(crate) fn cancelled() -> Self {
        let status = StatusCode::from_u16(CLIENT_GONE).unwrap_or(StatusCode::BAD_REQUEST);
        Self::new(status, "the request was cancelled by the client")
    }

    /// A path that does not exist.
    pub(crate) fn not_found() -> Self {
        Self::new(StatusCode::NOT_FOUND, "404 page not found").lined()
    }

    /// Says when to try again.
    pub(crate) fn retry_after(mut self, seconds: u32) -> Self {
        self.retry_after = Some(seconds);
        self
    }

    /// With a line break at the end.
    pub(crate) fn lined(mut self) -> Self {
        self.lined = true;
        self
    }
}

impl IntoResponse for Failure {
    fn into_response(mut self) -> Response {
        if self.lined {
            self.text.push('\n');
        }
        let mut response = (self.status, self.text).into_response();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(TEXT));
        headers.insert("x-content-type-options", HeaderValue::from_static("nosniff"));
        if let Some(seconds) = self.retry_after {
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

/// A successful answer with a body.
pub(crate) fn ok(content_type: &'static str, body: impl Into<Bytes>) -> Response {
    let mut response = Response::new(Body::from(body.into()));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

/// A successful answer, compressed if `accepted` says so.
pub(crate) async fn ok_compressed(content_type: &'static str, body: Bytes, accepted: bool) -> Response {
    let (body, compressed) = match accepted && !body.is_empty() {
        false => (body, false),
        true if body.len() <= INLINE_GZIP_BYTES => (gzip(&body), true),
        true => {
            let plain = body.clone();
            match tokio::task::spawn_blocking(move || gzip(&plain)).await {
                Ok(packed) => (packed, true),
                Err(_cancelled) => (body, false),
            }
        }
    };
    let mut response = ok(content_type, body);
    response.headers_mut().insert(VARY, HeaderValue::from_static("Accept-Encoding"));
    if compressed {
        response.headers_mut().insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    response
}

fn gzip(plain: &[u8]) -> Bytes {
    let mut encoder = GzEncoder::new(Vec::with_capacity(plain.len() / 4 + 64), Compression::fast());
    // Writing to memory does not fail.
    let _written = encoder.write_all(plain);
    encoder.finish().unwrap_or_default().into()
}

/// Whether a request accepts gzip: named, or anything, and not with a weight of zero.
pub(crate) fn accepts_gzip(headers: &HeaderMap) -> bool {
    let mut any = false;
    for value in headers.get_all(ACCEPT_ENCODING) {
        for item in value.to_str().unwrap_or_default().split(',') {
            let mut parts = item.split(';').map(str::trim);
            let coding = parts.next().unwrap_or_default();
            let refused = parts
                .filter_map(|p| p.strip_prefix("q=").or_else(|| p.strip_prefix("Q=")))
                .any(|q| q.parse::<f32>().is_ok_and(|q| q == 0.0));
            if coding.eq_ignore_ascii_case("gzip") {
                return !refused;
            }
            any |= coding == "*" && !refused;
        }
    }
    any
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gzip_is_used_only_when_asked_for() {
        let accepts = |value: &'static str| {
            accepts_gzip(&HeaderMap::from_iter([(ACCEPT_ENCODING, HeaderValue::from_static(value))]))
        };
        assert!(accepts("gzip"));
        assert!(accepts("br, GZIP;q=0.5, *;q=0"));
        assert!(accepts("*"));
        assert!(!accepts("br, deflate"));
        assert!(!accepts("gzip;q=0"));
        assert!(!accepts("gzip; q=0.0, *"));
        assert!(!accepts_gzip(&HeaderMap::new()));
    }

    #[tokio::test]
    async fn failures_are_plain_text_and_compressed_answers_unpack() {
        let response = Failure::bad_request("x < y").lined().into_response();
        assert_eq!(response.status(), 400);
        assert_eq!(response.headers()[CONTENT_TYPE], TEXT);
        assert_eq!(response.headers()["x-content-type-options"], "nosniff");
        let body = axum::body::to_bytes(response.into_body(), 100).await.unwrap();
        assert_eq!(&body[..], b"x < y\n");

        let long = Bytes::from(vec![b'a'; INLINE_GZIP_BYTES + 1]);
        for plain in [Bytes::from_static(b"{}"), long] {
            let response = ok_compressed(JSON_UTF8, plain.clone(), true).await;
            assert_eq!(response.headers()[CONTENT_ENCODING], "gzip");
            assert_eq!(response.headers()[VARY], "Accept-Encoding");
            let packed = axum::body::to_bytes(response.into_body(), 1 << 20).await.unwrap();
            let mut unpacked = Vec::new();
            std::io::Read::read_to_end(&mut flate2::read::GzDecoder::new(&packed[..]), &mut unpacked).unwrap();
            assert_eq!(unpacked, plain);
        }
    }
}
