//! Bytes into lines. A line is what lies between newlines, byte for byte: a carriage return belongs to it, UTF-8 is not asked
//! for, and the end of the input ends the last line.

use bytes::{Bytes, BytesMut};
use memchr::memchr;

/// Longest line that is taken, in bytes. Servers take far less (256 KiB by default); this bounds our own memory.
pub(crate) const MAX_LINE_BYTES: usize = 64 << 20;

/// What the splitter found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Piece {
    /// A line without its newline.
    Line(Bytes),
    /// A line longer than [`MAX_LINE_BYTES`]: its bytes are gone.
    TooLong,
}

/// Cuts a stream of bytes into lines.
#[derive(Default)]
pub(crate) struct Splitter {
    pending: BytesMut,
    /// Bytes of `pending` that hold no newline.
    searched: usize,
    /// In the middle of a line that is too long.
    skipping: bool,
}

impl Splitter {
    /// More bytes.
    pub(crate) fn feed(&mut self, bytes: &[u8]) {
        self.pending.extend_from_slice(bytes);
    }

    /// The next whole line.
    pub(crate) fn next_line(&mut self) -> Option<Piece> {
        let Some(found) = memchr(b'\n', &self.pending[self.searched..]) else {
            self.searched = self.pending.len();
            if self.pending.len() > MAX_LINE_BYTES {
                self.pending.clear();
                self.searched = 0;
                self.skipping = true;
            }
            return None;
        };
        let mut line = self.pending.split_to(self.searched + found + 1);
        self.searched = 0;
        if std::mem::take(&mut self.skipping) || line.len() > MAX_LINE_BYTES + 1 {
            return Some(Piece::TooLong);
        }
        line.truncate(line.len() - 1);
        Some(Piece::Line(line.freeze()))
    }

    /// The end of the input: what follows the last newline is a line too, unless it is nothing.
    pub(crate) fn finish(&mut self) -> Option<Piece> {
        let rest = std::mem::take(&mut self.pending);
        self.searched = 0;
        if std::mem::take(&mut self.skipping) {
            return Some(Piece::TooLong);
        }
        (!rest.is_empty()).then(|| Piece::Line(rest.freeze()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(chunks: &[&[u8]]) -> Vec<Vec<u8>> {
        let mut splitter = Splitter::default();
        let mut lines = Vec::new();
        let mut take = |piece: Option<Piece>| match piece {
            Some(Piece::Line(line)) => {
                lines.push(line.to_vec());
                true
            }
            Some(Piece::TooLong) => panic!("too long"),
            None => false,
        };
        for chunk in chunks {
            splitter.feed(chunk);
            while take(splitter.next_line()) {}
        }
        take(splitter.finish());
        lines
    }

    #[test]
    fn only_the_newline_separates_wherever_the_chunks_end() {
        let input = b"a\r\n\n\xff\xfe b\n \x00last";
        let expected: Vec<Vec<u8>> = vec![b"a\r".to_vec(), b"".to_vec(), b"\xff\xfe b".to_vec(), b" \x00last".to_vec()];
        for cut in 0..input.len() {
            assert_eq!(split(&[&input[..cut], &input[cut..]]), expected, "{cut}");
        }
        assert_eq!(split(&[b"x\n"]), [b"x".to_vec()]);
        assert!(split(&[b""]).is_empty());
    }

    #[test]
    fn an_endless_line_costs_bounded_memory_and_the_next_one_is_fine() {
        let mut splitter = Splitter::default();
        let chunk = vec![b'x'; 8 << 20];
        for _ in 0..12 {
            splitter.feed(&chunk);
            assert_eq!(splitter.next_line(), None);
            assert!(splitter.pending.len() <= MAX_LINE_BYTES);
        }
        splitter.feed(b"\nnext\n");
        assert_eq!(splitter.next_line(), Some(Piece::TooLong));
        assert_eq!(splitter.next_line(), Some(Piece::Line(Bytes::from_static(b"next"))));
    }
}
