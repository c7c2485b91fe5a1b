//! What comes from elsewhere must not steer the terminal: a log line may hold anything.
//!
//! Invariant: no character of the C0 or C1 controls (but tab), no DEL and no bidirectional control leaves this module as it
//! is. They are written as `\x1b`, `\u{202e}`.

use std::fmt::Write as _;

/// Appends `text` for display; after a newline it goes on below column `indent`. Colour codes of the program that wrote the
/// line (`ESC [ … m`) are left out; they are paint, not text.
pub(crate) fn display(text: &str, indent: usize, out: &mut String) {
    let mut rest = text;
    while let Some(at) = rest.find(is_dangerous) {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        if let Some(after) = skip_paint(rest) {
            rest = after;
            continue;
        }
        let mut chars = rest.chars();
        match chars.next() {
            Some('\n') => {
                out.push('\n');
                out.extend(std::iter::repeat_n(' ', indent));
            }
            Some('\r') if chars.as_str().starts_with('\n') => {}
            Some(c) => escape(c, out),
            None => {}
        }
        rest = chars.as_str();
    }
    out.push_str(rest);
}

/// Appends a whole text with every control escaped, newlines and colour codes too.
pub(crate) fn strict(text: &str, out: &mut String) {
    for c in text.chars() {
        if is_dangerous(c) { escape(c, out) } else { out.push(c) }
    }
}

/// A message of the server for standard error: as it is, but for controls; newlines stay.
pub(crate) fn message(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if c != '\n' && is_dangerous(c) { escape(c, &mut out) } else { out.push(c) }
    }
    out
}

/// Appends JSON with the controls that JSON leaves as they are (DEL, C1, bidirectional ones) escaped: the same value for every reader.
pub(crate) fn json(text: &str, out: &mut String) {
    for c in text.chars() {
        if is_dangerous(c) {
            // All of them lie in the basic plane; JSON itself has escaped the C0 ones already.
            let _infallible = write!(out, "\\u{:04x}", u32::from(c));
        } else {
            out.push(c);
        }
    }
}

fn is_dangerous(c: char) -> bool {
    (c.is_control() && c != '\t')
        || matches!(c, '\u{200e}' | '\u{200f}' | '\u{061c}' | '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

fn escape(c: char, out: &mut String) {
    let code = u32::from(c);
    let _infallible = match c {
        '\n' => write!(out, "\\n"),
        '\r' => write!(out, "\\r"),
        _ if code < 0x100 => write!(out, "\\x{code:02x}"),
        _ => write!(out, "\\u{{{code:x}}}"),
    };
}

/// What follows a colour code at the start of `text`, if there is one.
fn skip_paint(text: &str) -> Option<&str> {
    let body = text.strip_prefix("\x1b[")?;
    let end = body.find(|c: char| !matches!(c, '0'..='9' | ';' | ':'))?;
    body[end..].strip_prefix('m')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> String {
        let mut out = String::new();
        display(text, 4, &mut out);
        out
    }

    #[test]
    fn nothing_that_steers_a_terminal_gets_through() {
        assert_eq!(shown("a\x1b]0;title\x07b"), "a\\x1b]0;title\\x07b");
        assert_eq!(shown("a\u{9b}31mb\x7f\x08"), "a\\x9b31mb\\x7f\\x08");
        assert_eq!(shown("a\x1b[2Jb"), "a\\x1b[2Jb");
        assert_eq!(shown("\u{202e}cod"), "\\u{202e}cod");
        assert_eq!(shown("a\tb ä 漢"), "a\tb ä 漢");
        for c in (0..0x3000).filter_map(char::from_u32) {
            assert!(!shown(&format!("x{c}y")).contains(|c: char| c.is_control() && !"\n\t".contains(c)), "{c:?}");
            let mut strictly = String::new();
            strict(&c.to_string(), &mut strictly);
            assert!(!strictly.contains(|c: char| c.is_control() && c != '\t'), "{c:?}");
        }
    }

    #[test]
    fn colours_of_the_program_are_left_out_and_further_lines_are_indented() {
        assert_eq!(shown("\x1b[1;31mERR\x1b[0m ok"), "ERR ok");
        assert_eq!(shown("\x1b[31"), "\\x1b[31");
        assert_eq!(shown("panic\r\n at x\n at y\rz"), "panic\n     at x\n     at y\\rz");
    }

    #[test]
    fn json_stays_the_same_value() {
        let text = "del\u{7f} c1\u{9b} bidi\u{202e} q\"\n";
        let mut safe = String::new();
        json(&serde_json::to_string(text).unwrap(), &mut safe);
        assert!(!safe.contains(is_dangerous), "{safe:?}");
        assert_eq!(serde_json::from_str::<String>(&safe).unwrap(), text);
    }
}
