//! `| decolorize`: removes the escape sequences of terminals.
//!
//! A sequence is what `[\x1B\x9B][[\]()#;?]*(…\x07|…[final])` finds, both introducers as code points: either a text of letters
//! and digits with semicolons that a bell ends, or numbers of at most four digits and a final byte.

use std::sync::LazyLock;

use regex::bytes::Regex;

static SEQUENCE: LazyLock<Regex> = LazyLock::new(|| {
    let bell = r"(?:[a-zA-Z0-9]*(?:;[a-zA-Z0-9]*)*)?\x07";
    let plain = r"(?:[0-9]{1,4}(?:;[0-9]{0,4})*)?[0-9A-PRZcf-ntqry=><~]";
    Regex::new(&format!(r"[\x{{1B}}\x{{9B}}][\[\]()#;?]*(?:(?:{bell})|(?:{plain}))"))
        .expect("the expression is a constant that the tests compile")
});

/// Puts the line without its sequences into `out`; false if it has none.
pub(crate) fn run(line: &[u8], out: &mut Vec<u8>) -> bool {
    // An escape, or the last byte of U+009B.
    if memchr::memchr2(0x1b, 0x9b, line).is_none() {
        return false;
    }
    out.clear();
    let mut kept = 0;
    for found in SEQUENCE.find_iter(line) {
        out.extend_from_slice(&line[kept..found.start()]);
        kept = found.end();
    }
    out.extend_from_slice(&line[kept..]);
    kept > 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(line: &str) -> Option<String> {
        let mut out = Vec::new();
        run(line.as_bytes(), &mut out).then(|| String::from_utf8(out).expect("whole characters are removed"))
    }

    #[test]
    fn sequences_are_removed() {
        assert_eq!(plain("\x1b[31mred\x1b[0m \x1b[1;32mgreen\x1b[m").as_deref(), Some("red green"));
        assert_eq!(plain("\u{9b}31mx").as_deref(), Some("x"));
        assert_eq!(plain("\x1b]0;title\x07x").as_deref(), Some("x"));
    }

    #[test]
    fn other_lines_are_left_alone() {
        assert_eq!(plain("plain [31m"), None);
        assert_eq!(plain("“\x1b "), None);
    }
}
