//! From the body of a push request to a [`Push`] (contract, Loki API §2.2).
//!
//! Invariants: protobuf is always in a snappy block, whatever `Content-Encoding` says; gzip and deflate come around that.
//! JSON is never in snappy.

use std::borrow::Cow;

use super::{Push, decode, json, legacy};
use crate::compress::{self, Caps};
use crate::{Error, media};

/// Which of Loki's push endpoints a body came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// `/loki/api/v1/push`
    V1,
    /// `/api/prom/push`
    Legacy,
}

/// Reads the body of a push request.
///
/// # Errors
/// [`Error::Malformed`] for a missing or broken content type, an unknown coding, or a body that is not what they say;
/// [`Error::TooLarge`] over the caps.
pub fn read(
    kind: Kind,
    content_type: Option<&str>,
    content_encoding: Option<&str>,
    body: &[u8],
    caps: &Caps,
) -> Result<Push, Error> {
    caps.check_body(body.len())?;
    let media_type = media::parse(content_type.unwrap_or_default())?;
    let body = match content_encoding.unwrap_or_default() {
        "" | "snappy" => Cow::Borrowed(body),
        "gzip" => Cow::Owned(compress::gzip(body, caps)?),
        "deflate" => Cow::Owned(compress::deflate(body, caps)?),
        other => return Err(Error::malformed(format!("Content-Encoding {other:?} not supported"))),
    };
    if u32::try_from(body.len()).is_err() {
        let text = format!("message size too large than max ({} vs {})", body.len(), u32::MAX);
        return Err(Error::TooLarge(text.into()));
    }
    match (media_type.as_str(), kind) {
        ("application/json", Kind::V1) => json::read(&body),
        ("application/json", Kind::Legacy) => legacy::read(&body),
        _ => unpack(&body, caps),
    }
}

/// Whether a body of these headers that [`read`] accepts is what [`super::pack`] makes: protobuf in snappy and nothing around it.
#[must_use]
pub fn is_packed(content_type: Option<&str>, content_encoding: Option<&str>) -> bool {
    matches!(content_encoding.unwrap_or_default(), "" | "snappy")
        && media::parse(content_type.unwrap_or_default()).is_ok_and(|media_type| media_type != "application/json")
}

/// Reads what [`super::pack`] has made, or a body that [`is_packed`].
///
/// # Errors
/// [`Error::Malformed`] and [`Error::TooLarge`], as [`read`].
pub fn unpack(packed: &[u8], caps: &Caps) -> Result<Push, Error> {
    decode(compress::snappy(packed, caps)?)
}
