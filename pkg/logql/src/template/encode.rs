//! Escaping and encoding: HTML, JavaScript, URL queries and base64, as Go's standard library does them.

use crate::go::quote::quote;
use crate::go::unicode::{decode, is_print};

/// `template.HTMLEscapeString`
pub(super) fn html(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len() + 16);
    for &b in text {
        match b {
            0 => out.extend_from_slice("\u{fffd}".as_bytes()),
            b'"' => out.extend_from_slice(b"&#34;"),
            b'\'' => out.extend_from_slice(b"&#39;"),
            b'&' => out.extend_from_slice(b"&amp;"),
            b'<' => out.extend_from_slice(b"&lt;"),
            b'>' => out.extend_from_slice(b"&gt;"),
            _ => out.push(b),
        }
    }
    out
}

/// `template.JSEscapeString`
pub(super) fn js(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len() + 16);
    let mut rest = text;
    while let Some((c, len)) = decode(rest) {
        match c {
            '\\' | '\'' | '"' => {
                out.push(b'\\');
                out.push(rest[0]);
            }
            '<' | '>' | '&' | '=' => out.extend_from_slice(format!("\\u{:04X}", u32::from(c)).as_bytes()),
            '\0'..' ' => out.extend_from_slice(format!("\\u{:04X}", u32::from(c)).as_bytes()),
            _ if c.is_ascii() || is_print(c) => out.extend_from_slice(&rest[..len]),
            _ => out.extend_from_slice(format!("\\u{:04X}", u32::from(c)).as_bytes()),
        }
        rest = &rest[len..];
    }
    out
}

/// `url.QueryEscape`
pub(super) fn query_escape(text: &[u8]) -> Vec<u8> {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    let mut out = Vec::with_capacity(text.len() + 16);
    for &b in text {
        match b {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => out.push(b),
            b' ' => out.push(b'+'),
            _ => out.extend_from_slice(&[b'%', HEX[usize::from(b >> 4)], HEX[usize::from(b & 15)]]),
        }
    }
    out
}

/// `url.QueryUnescape`
pub(super) fn query_unescape(text: &[u8]) -> Result<Vec<u8>, String> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&b, after)) = rest.split_first() {
        rest = after;
        match b {
            b'%' => {
                let digit = |i: usize| after.get(i).and_then(|&b| char::from(b).to_digit(16));
                let (Some(high), Some(low)) = (digit(0), digit(1)) else {
                    let bad = &text[text.len() - after.len() - 1..];
                    return Err(format!("invalid URL escape {}", quote(&bad[..bad.len().min(3)])));
                };
                out.push((high * 16 + low) as u8);
                rest = &after[2..];
            }
            b'+' => out.push(b' '),
            _ => out.push(b),
        }
    }
    Ok(out)
}

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// `base64.StdEncoding.EncodeToString`
pub(super) fn base64_encode(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let group = chunk.iter().fold(0u32, |n, &b| n << 8 | u32::from(b)) << (8 * (3 - chunk.len()));
        for i in 0..4 {
            let sextet = (group >> (18 - 6 * i) & 63) as usize;
            out.push(if i <= chunk.len() { ALPHABET[sextet] } else { b'=' });
        }
    }
    out
}

/// `base64.StdEncoding.DecodeString`; the error is the offset Go blames.
pub(super) fn base64_decode(text: &[u8]) -> Result<Vec<u8>, usize> {
    let mut out = Vec::with_capacity(text.len() / 4 * 3);
    let (mut group, mut count) = (0u32, 0);
    let mut at = 0;
    while at < text.len() {
        let b = text[at];
        at += 1;
        if b == b'\n' || b == b'\r' {
            continue;
        }
        if let Some(value) = ALPHABET.iter().position(|&a| a == b) {
            group = group << 6 | value as u32;
            count += 1;
            if count == 4 {
                out.extend_from_slice(&group.to_be_bytes()[1..]);
                (group, count) = (0, 0);
            }
            continue;
        }
        if b != b'=' || count < 2 {
            return Err(at - 1);
        }
        return finish(text, at, group, count, out);
    }
    if count > 0 { Err(text.len() - count) } else { Ok(out) }
}

/// The last group, after its first `=`, which ends at `at`.
fn finish(text: &[u8], mut at: usize, group: u32, count: usize, mut out: Vec<u8>) -> Result<Vec<u8>, usize> {
    let skip_newlines = |mut at: usize| {
        while matches!(text.get(at), Some(b'\n' | b'\r')) {
            at += 1;
        }
        at
    };
    if count == 2 {
        at = skip_newlines(at);
        match text.get(at) {
            None => return Err(text.len()),
            Some(b'=') => at += 1,
            Some(_) => return Err(at - 1),
        }
    }
    at = skip_newlines(at);
    if at < text.len() {
        return Err(at);
    }
    let bytes = (group << (6 * (4 - count))).to_be_bytes();
    out.extend_from_slice(&bytes[1..count]);
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_blames_the_byte_that_go_blames() {
        for (text, expected) in [
            (&b"aGk="[..], Ok(&b"hi"[..])),
            (b"aG\nk=\r\n", Ok(b"hi")),
            (b"", Ok(b"")),
            (b"!aaa", Err(0)),
            (b"aGk", Err(0)),
            (b"aaaaaG", Err(4)),
            (b"a===", Err(1)),
            (b"aa=a", Err(2)),
            (b"aa=", Err(3)),
            (b"aGk=x", Err(4)),
        ] {
            assert_eq!(base64_decode(text).as_deref().map_err(|at| *at), expected, "{text:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn what_is_encoded_decodes(bytes: Vec<u8>) {
            proptest::prop_assert_eq!(base64_decode(&base64_encode(&bytes)), Ok(bytes.clone()));
            proptest::prop_assert_eq!(query_unescape(&query_escape(&bytes)), Ok(bytes));
        }

        #[test]
        fn anything_is_answered(bytes: Vec<u8>) {
            let _ = (base64_decode(&bytes), query_unescape(&bytes), html(&bytes), js(&bytes));
        }
    }
}
