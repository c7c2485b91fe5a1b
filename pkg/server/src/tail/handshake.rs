//! The opening handshake of a tail (contract, Loki API §3.2), in the order in which Loki checks it. No subprotocol and no extension
//! is agreed on; the origin does not matter.

use axum::http::header::{
    CONNECTION, HeaderName, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION, UPGRADE,
};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use crate::answer::Failure;

/// The answer that opens the socket.
///
/// # Errors
/// The answer to a request that does not open one.
pub(super) fn accept(method: &Method, headers: &HeaderMap) -> Result<Response, Box<Response>> {
    if !has_token(headers, &CONNECTION, "upgrade") {
        return Err(refuse(StatusCode::BAD_REQUEST));
    }
    if !has_token(headers, &UPGRADE, "websocket") {
        let mut response = refuse(StatusCode::UPGRADE_REQUIRED);
        response.headers_mut().insert(UPGRADE, HeaderValue::from_static("websocket"));
        return Err(response);
    }
    if method != Method::GET {
        return Err(refuse(StatusCode::METHOD_NOT_ALLOWED));
    }
    if !has_token(headers, &SEC_WEBSOCKET_VERSION, "13") {
        return Err(refuse(StatusCode::BAD_REQUEST));
    }
    let key = headers.get(SEC_WEBSOCKET_KEY).map(|key| key.as_bytes().trim_ascii());
    let Some(key) = key.filter(|key| is_challenge(key)) else {
        return Err(refuse(StatusCode::BAD_REQUEST));
    };
    let Ok(accept) = HeaderValue::from_str(&derive_accept_key(key)) else {
        return Err(refuse(StatusCode::BAD_REQUEST));
    };
    let mut response = StatusCode::SWITCHING_PROTOCOLS.into_response();
    let headers = response.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
    Ok(response)
}

fn refuse(status: StatusCode) -> Box<Response> {
    let reason = status.canonical_reason().unwrap_or("Bad Request");
    let mut response = Failure::new(status, reason).lined().into_response();
    response.headers_mut().insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
    Box::new(response)
}

fn has_token(headers: &HeaderMap, name: &HeaderName, token: &str) -> bool {
    let values = headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|item| item.trim().eq_ignore_ascii_case(token))
}

/// Whether this is 16 bytes in base64, as far as the server has to care.
fn is_challenge(key: &[u8]) -> bool {
    matches!(key, [body @ .., b'=', b'='] if body.len() == 22
        && body.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/')))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: [(&str, &str); 4] = [
        ("connection", "keep-alive, Upgrade"),
        ("upgrade", "WebSocket"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ];

    fn with(method: &Method, name: &str, value: Option<&'static str>) -> Response {
        let mut headers = HeaderMap::new();
        for (n, v) in GOOD {
            let v = if n == name { value } else { Some(v) };
            if let Some(v) = v {
                headers.insert(n, HeaderValue::from_static(v));
            }
        }
        accept(method, &headers).unwrap_or_else(|refused| *refused)
    }

    #[test]
    fn a_good_handshake_is_accepted_with_the_key_of_the_rfc() {
        let response = with(&Method::GET, "", None);
        assert_eq!(response.status(), 101);
        assert_eq!(response.headers()[SEC_WEBSOCKET_ACCEPT], "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        assert_eq!(response.headers()[UPGRADE], "websocket");
    }

    #[test]
    fn what_is_missing_decides_the_answer() {
        for (method, name, value, status) in [
            (Method::GET, "connection", None, 400),
            (Method::GET, "connection", Some("close"), 400),
            (Method::GET, "upgrade", None, 426),
            (Method::GET, "upgrade", Some("h2c"), 426),
            (Method::GET, "sec-websocket-version", Some("8"), 400),
            (Method::GET, "sec-websocket-key", None, 400),
            (Method::GET, "sec-websocket-key", Some("short"), 400),
            (Method::POST, "", None, 405),
            (Method::POST, "connection", None, 400),
        ] {
            let response = with(&method, name, value);
            assert_eq!(response.status(), status, "{method} {name} {value:?}");
            assert_eq!(response.headers()[SEC_WEBSOCKET_VERSION], "13");
            assert_eq!(response.headers().contains_key(UPGRADE), status == 426);
        }
    }
}
