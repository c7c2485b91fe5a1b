//! Writing JSON text: strings escaped at the speed of copying where there is nothing to escape.
//!
//! Invariants: what is written is valid UTF-8 whatever goes in; every byte that is no part of a valid UTF-8 sequence becomes one U+FFFD,
//! as Go's encoder does it. Only what JSON demands is escaped.

use tailwater_model::Timestamp;

/// How many bytes are looked at together.
const CHUNK: usize = 32;

/// Appends a JSON string, quotes included.
pub(crate) fn string(out: &mut Vec<u8>, text: &[u8]) {
    out.reserve(text.len() + 2);
    out.push(b'"');
    if std::str::from_utf8(text).is_ok() {
        escape(out, text);
    } else {
        for chunk in text.utf8_chunks() {
            escape(out, chunk.valid().as_bytes());
            for _ in chunk.invalid() {
                out.extend_from_slice("\u{fffd}".as_bytes());
            }
        }
    }
    out.push(b'"');
}

fn escape(out: &mut Vec<u8>, text: &[u8]) {
    let (mut from, mut at) = (0, 0);
    loop {
        while let Some(chunk) = text.get(at..at + CHUNK) {
            // A fold, so that it becomes vector code.
            if chunk.iter().fold(false, |found, b| found | (*b < 0x20) | (*b == b'"') | (*b == b'\\')) {
                break;
            }
            at += CHUNK;
        }
        while text.get(at).is_some_and(|b| !SPECIAL[*b as usize]) {
            at += 1;
        }
        let Some(&byte) = text.get(at) else { break };
        out.extend_from_slice(&text[from..at]);
        match byte {
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            _ => {
                out.extend_from_slice(b"\\u00");
                out.extend([byte >> 4, byte & 15].map(|n| b"0123456789abcdef"[n as usize]));
            }
        }
        at += 1;
        from = at;
    }
    out.extend_from_slice(&text[from..]);
}

const SPECIAL: [bool; 256] = {
    let mut table = [false; 256];
    let mut b = 0;
    while b < 0x20 {
        table[b] = true;
        b += 1;
    }
    table[b'"' as usize] = true;
    table[b'\\' as usize] = true;
    table
};

/// Appends an object of strings.
pub(crate) fn object<'a>(out: &mut Vec<u8>, members: impl IntoIterator<Item = (&'a str, &'a str)>) {
    out.push(b'{');
    for (i, (name, value)) in members.into_iter().enumerate() {
        if i > 0 {
            out.push(b',');
        }
        string(out, name.as_bytes());
        out.push(b':');
        string(out, value.as_bytes());
    }
    out.push(b'}');
}

/// Appends an array of strings.
pub(crate) fn strings<S: AsRef<str>>(out: &mut Vec<u8>, all: impl IntoIterator<Item = S>) {
    out.push(b'[');
    for (i, text) in all.into_iter().enumerate() {
        if i > 0 {
            out.push(b',');
        }
        string(out, text.as_ref().as_bytes());
    }
    out.push(b']');
}

/// Appends a number.
pub(crate) fn integer(out: &mut Vec<u8>, value: impl itoa::Integer) {
    out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}

/// Appends nanoseconds as a string, the v1 form of a time.
pub(crate) fn nanoseconds(out: &mut Vec<u8>, time: Timestamp) {
    out.push(b'"');
    integer(out, time.nanos());
    out.push(b'"');
}

/// Appends RFC 3339 with as many digits as needed, the legacy form of a time.
pub(crate) fn rfc3339(out: &mut Vec<u8>, time: Timestamp) {
    // Every i64 of nanoseconds lies within jiff's years.
    let time = jiff::Timestamp::from_nanosecond(i128::from(time.nanos())).unwrap_or_default();
    string(out, time.to_string().as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(text: &[u8]) -> String {
        let mut out = Vec::new();
        string(&mut out, text);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn every_string_reads_back() {
        let all: String = (0..0x300).filter_map(char::from_u32).chain(['\u{2028}', '\u{10ffff}']).collect();
        for from in (0..all.len()).filter(|i| all.is_char_boundary(*i)) {
            let text = &all[from..];
            assert_eq!(serde_json::from_str::<String>(&json(text.as_bytes())).unwrap(), text);
        }
    }

    #[test]
    fn each_byte_that_is_no_utf8_becomes_one_replacement() {
        assert_eq!(json(b"a\xff\"\xe2\x82 \xf0\x9f\x98"), "\"a\u{fffd}\\\"\u{fffd}\u{fffd} \u{fffd}\u{fffd}\u{fffd}\"");
    }

    #[test]
    fn special_bytes_are_found_wherever_they_are() {
        for at in 0..100 {
            let mut text = vec![b'x'; 100];
            text[at] = b'\n';
            assert_eq!(serde_json::from_str::<String>(&json(&text)).unwrap().as_bytes(), text);
        }
    }

    #[test]
    fn legacy_times_have_no_trailing_zeros() {
        let text = |ns| {
            let mut out = Vec::new();
            rfc3339(&mut out, Timestamp(ns));
            String::from_utf8(out).unwrap()
        };
        assert_eq!(text(1_793_535_750_370_383_810), r#""2026-11-01T12:22:30.37038381Z""#);
        assert_eq!(text(1_793_534_400_000_000_000), r#""2026-11-01T12:00:00Z""#);
        assert!(text(i64::MIN).starts_with("\"1677-09-21T") && text(i64::MAX).starts_with("\"2262-04-11T"));
    }
}
