//! The lines that a benchmark pushes, and finding them again in whatever a tail sends.
//!
//! Format: `tw:TAG:STREAM:NUMBER:TIME padding`, with TAG 8 hexadecimal digits (one run), STREAM 5 digits, NUMBER 10 digits (from
//! 0, per stream), TIME 19 digits (Unix nanoseconds at which the line was to be sent). Fixed width, and nothing that JSON escapes:
//! so lines are patched in place, and found in a frame without parsing it.

use memchr::memmem::Finder;

const STREAM_DIGITS: usize = 5;
const NUMBER_DIGITS: usize = 10;
const TIME_DIGITS: usize = 19;
const TAG_LEN: usize = 8;
/// `tw:TAG:`
const PREFIX_LEN: usize = 3 + TAG_LEN + 1;
const NUMBER_AT: usize = PREFIX_LEN + STREAM_DIGITS + 1;
const TIME_AT: usize = NUMBER_AT + NUMBER_DIGITS + 1;
/// Shortest line, in bytes.
pub(crate) const MIN_LINE_BYTES: usize = TIME_AT + TIME_DIGITS + 1;
/// Most streams of a run.
pub(crate) const MAX_STREAMS: u32 = 99_999;
/// What real lines are made of, for compression and level detection to have their usual work.
const PADDING: &str = "level=info caller=handler.go:217 method=GET path=/api/v1/orders status=200 duration=12.7ms \
                       user=u48151623 msg=request_completed region=eu-west-1 ";

/// What a line says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mark {
    /// Its stream.
    pub(crate) stream: u32,
    /// Its number in the stream.
    pub(crate) number: u64,
    /// When it was to be sent, in Unix nanoseconds.
    pub(crate) time: i64,
}

/// Makes lines of one run.
#[derive(Clone)]
pub(crate) struct Template {
    line: Vec<u8>,
}

impl Template {
    /// Lines of `size` bytes, at least [`MIN_LINE_BYTES`].
    pub(crate) fn new(tag: &str, size: usize) -> Self {
        let mut line = format!("tw:{tag:.TAG_LEN$}:").into_bytes();
        line.resize(MIN_LINE_BYTES, b'0');
        line[PREFIX_LEN + STREAM_DIGITS] = b':';
        line[NUMBER_AT + NUMBER_DIGITS] = b':';
        line[TIME_AT + TIME_DIGITS] = b' ';
        line.extend(PADDING.bytes().cycle().take(size.saturating_sub(MIN_LINE_BYTES)));
        Self { line }
    }

    /// Appends the line of `mark`.
    pub(crate) fn write(&mut self, mark: Mark, out: &mut Vec<u8>) {
        digits(&mut self.line[PREFIX_LEN..][..STREAM_DIGITS], mark.stream.into());
        digits(&mut self.line[NUMBER_AT..][..NUMBER_DIGITS], mark.number);
        digits(&mut self.line[TIME_AT..][..TIME_DIGITS], u64::try_from(mark.time).unwrap_or(0));
        out.extend_from_slice(&self.line);
    }

    /// Bytes of a line.
    pub(crate) fn size(&self) -> usize {
        self.line.len()
    }
}

/// Finds lines of one run.
pub(crate) struct Scanner {
    prefix: Finder<'static>,
}

impl Scanner {
    /// A scanner for the lines of the run `tag`.
    pub(crate) fn new(tag: &str) -> Self {
        Self { prefix: Finder::new(&format!("tw:{tag}:")).into_owned() }
    }

    /// Calls `each` for every line in `bytes`. Returns how many beginnings of a line were followed by nonsense.
    pub(crate) fn scan(&self, bytes: &[u8], mut each: impl FnMut(Mark)) -> u64 {
        let mut broken = 0;
        for at in self.prefix.find_iter(bytes) {
            match mark(&bytes[at..]) {
                Some(mark) => each(mark),
                None => broken += 1,
            }
        }
        broken
    }
}

fn mark(line: &[u8]) -> Option<Mark> {
    let field = |at: usize, len: usize| number(line.get(at..at + len)?);
    let stream = u32::try_from(field(PREFIX_LEN, STREAM_DIGITS)?).ok()?;
    let time = i64::try_from(field(TIME_AT, TIME_DIGITS)?).ok()?;
    Some(Mark { stream, number: field(NUMBER_AT, NUMBER_DIGITS)?, time })
}

fn digits(field: &mut [u8], mut value: u64) {
    for digit in field.iter_mut().rev() {
        *digit = b'0' + (value % 10) as u8;
        value /= 10;
    }
}

/// At most 19 digits fit into 64 bits.
fn number(field: &[u8]) -> Option<u64> {
    field.iter().try_fold(0_u64, |sum, byte| byte.is_ascii_digit().then(|| sum * 10 + u64::from(byte - b'0')))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_found_again_inside_json() {
        let mut template = Template::new("0123abcd", 180);
        let marks = [(0, 0, 1), (99_999, 9_999_999_999, 1_793_534_400_123_456_789)]
            .map(|(stream, number, time)| Mark { stream, number, time });
        let mut frame = br#"{"streams":[{"stream":{"bench":"0123abcd"},"values":[["1",""#.to_vec();
        for mark in marks {
            let before = frame.len();
            template.write(mark, &mut frame);
            assert_eq!(frame.len() - before, 180);
            frame.extend_from_slice(br#""],["2",""#);
        }
        let mut found = Vec::new();
        assert_eq!(Scanner::new("0123abcd").scan(&frame, |m| found.push(m)), 0);
        assert_eq!(found, marks);
        assert_eq!(Scanner::new("ffffffff").scan(&frame, |_| panic!("another run's")), 0);
    }

    #[test]
    fn lines_that_were_damaged_are_counted() {
        let scanner = Scanner::new("0123abcd");
        assert_eq!(scanner.scan(b"tw:0123abcd:00", |_| panic!("cut off")), 1);
        assert_eq!(scanner.scan(b"tw:0123abcd:0000x:0000000000:0000000000000000000 ", |_| panic!("no digit")), 1);
    }

    #[test]
    fn json_need_not_escape_a_line() {
        let mut out = Vec::new();
        Template::new("0123abcd", 600).write(Mark { stream: 1, number: 2, time: 3 }, &mut out);
        let text = String::from_utf8(out).unwrap();
        assert_eq!(serde_json::to_string(&text).unwrap().len(), text.len() + 2);
        assert!(!text.contains(['<', '>', '&']));
    }
}
