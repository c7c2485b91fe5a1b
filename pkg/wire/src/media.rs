//! Media types as Go's `mime.ParseMediaType` reads them: the texts of its refusals are answers of the push endpoints.

use crate::Error;

/// The lower-case media type of a `Content-Type`; its parameters are checked for form and dropped.
pub(crate) fn parse(text: &str) -> Result<String, Error> {
    let (kind, parameters) = text.split_once(';').map_or((text, None), |(kind, rest)| (kind, Some(rest)));
    let kind = kind.trim().to_ascii_lowercase();
    let bad = |why: &str| Err(Error::malformed(format!("mime: {why}")));
    let end = kind.find(|c| !is_token(c)).unwrap_or(kind.len());
    match (&kind[..end], &kind[end..]) {
        ("", _) => return bad("no media type"),
        (_, "") => {}
        (_, rest) => {
            let Some(subtype) = rest.strip_prefix('/') else { return bad("expected slash after first token") };
            match subtype.find(|c| !is_token(c)) {
                _ if subtype.is_empty() => return bad("expected token after slash"),
                Some(0) => return bad("expected token after slash"),
                Some(_) => return bad("unexpected content after media subtype"),
                None => {}
            }
        }
    }
    if parameters.is_some_and(|rest| !are_parameters(rest)) {
        return bad("invalid media parameter");
    }
    Ok(kind)
}

fn are_parameters(mut rest: &str) -> bool {
    loop {
        rest = rest.trim_start();
        if rest.is_empty() {
            return true;
        }
        let name = rest.find(|c| !is_token(c)).unwrap_or(rest.len());
        let Some(value) = rest[name..].trim_start().strip_prefix('=').filter(|_| name > 0) else { return false };
        let value = value.trim_start();
        rest = match value.strip_prefix('"') {
            Some(quoted) => match quoted_end(quoted) {
                Some(end) => &quoted[end..],
                None => return false,
            },
            None => match value.find(|c| !is_token(c)).unwrap_or(value.len()) {
                0 => return false,
                end => &value[end..],
            },
        };
        rest = rest.trim_start();
        match rest.strip_prefix(';') {
            Some(next) => rest = next,
            None => return rest.is_empty(),
        }
    }
}

/// Where the rest after a quoted string begins, whose opening quote has been taken.
fn quoted_end(text: &str) -> Option<usize> {
    let mut escaped = false;
    text.char_indices().find_map(|(i, c)| {
        let end = c == '"' && !escaped;
        escaped = c == '\\' && !escaped;
        end.then_some(i + 1)
    })
}

fn is_token(c: char) -> bool {
    c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c)
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn the_type_is_folded_and_its_parameters_are_dropped() {
        for (text, kind) in [
            ("application/json", "application/json"),
            (" Application/JSON ; charset=utf-8", "application/json"),
            ("text/plain;", "text/plain"),
            ("a/b; x=\"q\\\"; y\" ; z=1", "a/b"),
            ("json", "json"),
        ] {
            assert_eq!(parse(text).as_deref(), Ok(kind), "{text}");
        }
    }

    #[test]
    fn what_is_no_media_type_is_refused_in_gos_words() {
        for (text, why) in [
            ("", "mime: no media type"),
            ("; a=b", "mime: no media type"),
            ("a b", "mime: expected slash after first token"),
            ("a/", "mime: expected token after slash"),
            ("a/b c", "mime: unexpected content after media subtype"),
            ("a/b; charset", "mime: invalid media parameter"),
            ("a/b; x=\"open", "mime: invalid media parameter"),
        ] {
            assert_eq!(parse(text).unwrap_err().to_string(), why, "{text}");
        }
    }
}
