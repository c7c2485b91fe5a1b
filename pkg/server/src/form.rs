//! The parameters of a read request: the form body, if there is one, before the query string, as Go merges them.

/// Parameters in the order in which they count: the first of a name wins.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Form(Vec<(String, String)>);

impl Form {
    /// Reads the parameters of a query string and of a form body.
    ///
    /// # Errors
    /// Go's text for what it does not accept.
    pub(crate) fn parse(body: &[u8], query: &str) -> Result<Self, String> {
        let mut form = Self::default();
        form.add(body)?;
        form.add(query.as_bytes())?;
        Ok(form)
    }

    fn add(&mut self, text: &[u8]) -> Result<(), String> {
        for pair in text.split(|&b| b == b'&').filter(|pair| !pair.is_empty()) {
            if pair.contains(&b';') {
                return Err("invalid semicolon separator in query".to_owned());
            }
            let mut halves = pair.splitn(2, |&b| b == b'=');
            let name = unescape(halves.next().unwrap_or_default(), true)?;
            let value = unescape(halves.next().unwrap_or_default(), true)?;
            self.0.push((name, value));
        }
        Ok(())
    }

    /// With one more parameter.
    #[cfg(test)]
    pub(crate) fn with(mut self, name: &str, value: &str) -> Self {
        self.0.push((name.to_owned(), value.to_owned()));
        self
    }

    /// The first value of a name; empty if there is none.
    pub(crate) fn get(&self, name: &str) -> &str {
        self.0.iter().find(|(n, _)| n == name).map_or("", |(_, value)| value)
    }

    /// Every value of a name.
    pub(crate) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> + 'a {
        self.0.iter().filter(move |(n, _)| n == name).map(|(_, value)| value.as_str())
    }
}

/// Undoes percent-encoding; `plus` stands for a space in forms, not in paths. Bytes that are not UTF-8 become U+FFFD.
///
/// # Errors
/// `invalid URL escape "%zz"`.
pub(crate) fn unescape(text: &[u8], plus: bool) -> Result<String, String> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        match byte {
            b'%' => match tail {
                [high, low, tail @ ..] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => {
                    out.push(hex(*high) << 4 | hex(*low));
                    rest = tail;
                }
                _ => {
                    let shown = &tail[..tail.len().min(2)];
                    return Err(format!("invalid URL escape \"%{}\"", String::from_utf8_lossy(shown)));
                }
            },
            b'+' if plus => out.push(b' '),
            other => out.push(other),
        }
    }
    Ok(String::from_utf8(out).unwrap_or_else(|bad| String::from_utf8_lossy(bad.as_bytes()).into_owned()))
}

fn hex(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        b'a'..=b'f' => digit - b'a' + 10,
        _ => digit.wrapping_sub(b'A').wrapping_add(10),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_body_counts_before_the_query_string_and_the_first_value_wins() {
        let form = Form::parse(b"a=1&b=x+y", "a=2&a=3&c=%7Bx%3D%22y%22%7D&&d&e=").unwrap();
        assert_eq!(form.get("a"), "1");
        assert_eq!(form.all("a").collect::<Vec<_>>(), ["1", "2", "3"]);
        assert_eq!(form.get("b"), "x y");
        assert_eq!(form.get("c"), r#"{x="y"}"#);
        assert_eq!((form.get("d"), form.get("e"), form.get("f")), ("", "", ""));
        assert_eq!(form.all("f").count(), 0);
    }

    #[test]
    fn bad_escapes_are_named() {
        assert_eq!(Form::parse(b"", "a=%zz").unwrap_err(), "invalid URL escape \"%zz\"");
        assert_eq!(Form::parse(b"", "a=%4").unwrap_err(), "invalid URL escape \"%4\"");
        assert_eq!(Form::parse(b"", "a=%").unwrap_err(), "invalid URL escape \"%\"");
        assert_eq!(Form::parse(b"", "a=1;b=2").unwrap_err(), "invalid semicolon separator in query");
        assert_eq!(Form::parse(b"", "a=%ff").unwrap().get("a"), "\u{fffd}");
        assert_eq!(unescape(b"a+b%2Fc", false).unwrap(), "a+b/c");
    }
}
