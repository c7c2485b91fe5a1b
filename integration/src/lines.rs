//! Lines that real logs hold and that careless code mangles. Generated from a seed, so a failure can be repeated.

/// A small generator of numbers (splitmix64): repeatable, good enough to make test data.
#[derive(Clone, Debug)]
pub struct Numbers(u64);

impl Numbers {
    /// The sequence that belongs to `seed`.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number.
    pub const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`, which must not be 0.
    pub const fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

/// Pieces that are hard to keep: quotes, escapes, control characters, markup, template and format syntax, other scripts,
/// combining marks, characters outside the first plane, the byte-order mark, line separators that are not line feeds.
const PIECES: [&str; 40] = [
    " ",
    "  ",
    "\t",
    "\"",
    "\\",
    "\\n",
    "\\\"",
    "'",
    "`",
    "{",
    "}",
    "{{.x}}",
    "%s",
    "%",
    "$1",
    "<b>",
    "&amp;",
    "</script>",
    "\u{0}",
    "\u{1}",
    "\u{1b}[31m",
    "\u{7f}",
    "\u{85}",
    "\u{2028}",
    "\u{2029}",
    "\u{feff}",
    "\u{fffd}",
    "ü",
    "e\u{301}",
    "日本語",
    "👩‍👩‍👧",
    "\u{10ffff}",
    "a=b",
    "level=error",
    "{\"a\":1}",
    "null",
    "[]",
    "#",
    "//",
    "\r",
];

/// `count` awkward lines without a line feed, each unlike the others. Every piece occurs; lengths go from empty to 4 KiB.
#[must_use]
pub fn awkward(seed: u64, count: usize) -> Vec<String> {
    let mut numbers = Numbers::new(seed);
    let mut lines: Vec<String> = PIECES.iter().map(|piece| format!("{piece}|{piece}")).collect();
    lines.push(String::new());
    lines.push("x".repeat(4096));
    while lines.len() < count {
        let mut line = format!("{} ", lines.len());
        for _ in 0..numbers.below(30) {
            line.push_str(PIECES[numbers.below(PIECES.len() as u64) as usize]);
            line.push_str(&"w".repeat(numbers.below(4) as usize));
        }
        lines.push(line);
    }
    lines.truncate(count);
    lines
}
