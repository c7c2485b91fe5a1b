//! Structured metadata: canonical names, valid values.
//!
//! A name becomes `[a-zA-Z0-9_]`: each run of other characters (and of underscores) turns into one underscore, a leading digit gets
//! `key_` before it, the underscores around `__x__` stay. A name of nothing but underscores, and none at all, are refused. In a value
//! each byte that is not UTF-8 turns into a space. A pair without a value is dropped.

use std::borrow::Cow;

/// What has to be done with a pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PairCheck {
    /// Nothing.
    Canonical,
    /// It must be written anew.
    Rewrite,
    /// It cannot be kept.
    Bad,
}

/// Looks at a pair.
pub(crate) fn check(name: &[u8], value: &[u8]) -> PairCheck {
    if is_canonical(name) {
        if value.is_empty() || std::str::from_utf8(value).is_err() { PairCheck::Rewrite } else { PairCheck::Canonical }
    } else if canonical_name(name).is_ok() {
        PairCheck::Rewrite
    } else {
        PairCheck::Bad
    }
}

/// Whether the name would not be changed.
fn is_canonical(name: &[u8]) -> bool {
    let plain = |inner: &[u8]| {
        let mut last = 0;
        inner.iter().all(|b| {
            let ok = b.is_ascii_alphanumeric() || (*b == b'_' && last != b'_');
            last = *b;
            ok
        })
    };
    let inner = reserved(name).unwrap_or(name);
    name.first().is_some_and(|b| !b.is_ascii_digit()) && plain(inner) && inner.iter().any(|b| *b != b'_')
}

/// What stands between the underscores of `__x__`.
fn reserved(name: &[u8]) -> Option<&[u8]> {
    name.strip_prefix(b"__")?.strip_suffix(b"__")
}

/// The canonical name.
///
/// # Errors
/// What to say of a name that has none.
pub(crate) fn canonical_name(name: &[u8]) -> Result<String, String> {
    if name.is_empty() {
        return Err("label name is empty".into());
    }
    let (inner, around) = reserved(name).map_or((name, ""), |inner| (inner, "__"));
    let mut out = String::with_capacity(name.len() + 4);
    out.push_str(around);
    let mut after_other = false;
    for c in String::from_utf8_lossy(inner).chars() {
        if c.is_ascii_alphanumeric() {
            out.push(c);
        } else if !after_other {
            out.push('_');
        }
        after_other = !c.is_ascii_alphanumeric();
    }
    out.push_str(around);
    if out.starts_with(|c: char| c.is_ascii_digit()) {
        out.insert_str(0, "key_");
    }
    if out.bytes().all(|b| b == b'_') {
        let name = tailwater_logql::go::quote::quote(name);
        return Err(format!("normalization for label name {name} resulted in invalid name \"{out}\""));
    }
    Ok(out)
}

/// The value with a space for each byte that is not UTF-8.
pub(crate) fn valid_value(value: &[u8]) -> Cow<'_, str> {
    match std::str::from_utf8(value) {
        Ok(text) => Cow::Borrowed(text),
        Err(_) => {
            let mut out = String::with_capacity(value.len());
            for chunk in value.utf8_chunks() {
                out.push_str(chunk.valid());
                out.extend(std::iter::repeat_n(' ', chunk.invalid().len()));
            }
            Cow::Owned(out)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_canonical() {
        for (name, canonical) in [
            ("trace_id", "trace_id"),
            ("trace-id", "trace_id"),
            ("a--b", "a_b"),
            ("a__b", "a_b"),
            ("a_-_b", "a_b"),
            ("http.status code", "http_status_code"),
            ("1abc", "key_1abc"),
            ("_x", "_x"),
            ("__y__", "__y__"),
            ("__a.b__", "__a_b__"),
            ("__y", "_y"),
            ("naïve", "na_ve"),
            ("ключ1", "_1"),
            ("a.", "a_"),
        ] {
            assert_eq!(canonical_name(name.as_bytes()).as_deref(), Ok(canonical), "{name}");
            assert_eq!(is_canonical(name.as_bytes()), name == canonical, "{name}");
            assert!(is_canonical(canonical.as_bytes()), "{canonical}");
        }
    }

    #[test]
    fn names_without_a_letter_are_refused() {
        for (name, text) in [
            ("", "label name is empty"),
            ("__", r#"normalization for label name "__" resulted in invalid name "_""#),
            ("-", r#"normalization for label name "-" resulted in invalid name "_""#),
            ("____", r#"normalization for label name "____" resulted in invalid name "____""#),
        ] {
            assert_eq!(canonical_name(name.as_bytes()), Err(text.to_owned()));
            assert_eq!(check(name.as_bytes(), b"v"), PairCheck::Bad, "{name}");
        }
    }

    #[test]
    fn values_are_utf8_and_not_empty() {
        assert_eq!(check(b"k", b"v"), PairCheck::Canonical);
        assert_eq!(check(b"k", b""), PairCheck::Rewrite);
        assert_eq!(check(b"k", b"a\xffb"), PairCheck::Rewrite);
        assert_eq!(check(b"k-", b"v"), PairCheck::Rewrite);
        assert_eq!(valid_value(b"a\xff\xfeb\xc3"), "a  b ");
        assert_eq!(valid_value("ä\u{fffd}".as_bytes()), "ä\u{fffd}");
    }
}
