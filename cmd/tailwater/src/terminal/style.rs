//! Colours. A palette without colours writes nothing but the text.

use std::collections::HashMap;
use std::fmt;

use anstyle::{AnsiColor, Color, Style};
use xxhash_rust::xxh3::xxh3_64;

use super::level::Level;

/// The colours that sources are told apart by; none of them is a colour of a level at the same place of the line.
const SOURCE_COLOURS: [AnsiColor; 10] = [
    AnsiColor::Blue,
    AnsiColor::Magenta,
    AnsiColor::Cyan,
    AnsiColor::Green,
    AnsiColor::Yellow,
    AnsiColor::BrightBlue,
    AnsiColor::BrightMagenta,
    AnsiColor::BrightCyan,
    AnsiColor::BrightGreen,
    AnsiColor::BrightYellow,
];

/// Sources whose colours are remembered.
const MAX_SOURCES: usize = 1000;

/// Whether to colour, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Palette {
    coloured: bool,
}

/// The colour of one source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SourceColour(AnsiColor);

/// Gives sources their colours: the same name the same one, from run to run too as far as possible, and different names
/// different ones as long as there are any left.
#[derive(Debug, Default)]
pub(crate) struct SourceColours {
    given: HashMap<String, usize>,
}

impl SourceColours {
    /// The colour of the source `name`.
    pub(crate) fn of(&mut self, name: &str) -> SourceColour {
        let wished = (xxh3_64(name.as_bytes()) % SOURCE_COLOURS.len() as u64) as usize;
        if let Some(index) = self.given.get(name) {
            return SourceColour(SOURCE_COLOURS[*index]);
        }
        if self.given.len() >= MAX_SOURCES {
            return SourceColour(SOURCE_COLOURS[wished]);
        }
        let free = (0..SOURCE_COLOURS.len())
            .map(|step| (wished + step) % SOURCE_COLOURS.len())
            .find(|index| !self.given.values().any(|taken| taken == index));
        let index = free.unwrap_or(wished);
        self.given.insert(name.to_owned(), index);
        SourceColour(SOURCE_COLOURS[index])
    }
}

/// A text in a style; displays as the text between its codes.
pub(crate) struct Styled<T> {
    style: Style,
    text: T,
}

impl<T: fmt::Display> fmt::Display for Styled<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}{}", self.style.render(), self.text, self.style.render_reset())
    }
}

impl Palette {
    /// A palette with or without colours.
    pub(crate) const fn new(coloured: bool) -> Self {
        Self { coloured }
    }

    /// The colour of a level: debug cyan, info green, warn yellow, error bold red, fatal bold magenta, others dim.
    pub(crate) fn level<T: fmt::Display>(self, level: Level, text: T) -> Styled<T> {
        let style = match level {
            Level::Trace | Level::Unknown => Style::new().dimmed(),
            Level::Debug => colour(AnsiColor::Cyan),
            Level::Info => colour(AnsiColor::Green),
            Level::Warn => colour(AnsiColor::Yellow),
            Level::Error => colour(AnsiColor::Red).bold(),
            Level::Fatal => colour(AnsiColor::Magenta).bold(),
        };
        self.styled(style, text)
    }

    /// The line itself: errors stand out, everything else is the terminal's own colour.
    pub(crate) fn line<T: fmt::Display>(self, level: Level, text: T) -> Styled<T> {
        match level {
            Level::Error | Level::Fatal => self.level(level, text),
            Level::Trace => self.dim(text),
            _ => self.styled(Style::new(), text),
        }
    }

    /// The colour of a source.
    pub(crate) fn source<T: fmt::Display>(self, source: SourceColour, text: T) -> Styled<T> {
        self.styled(colour(source.0), text)
    }

    /// Less important than the rest.
    pub(crate) fn dim<T: fmt::Display>(self, text: T) -> Styled<T> {
        self.styled(Style::new().dimmed(), text)
    }

    /// More important than the rest.
    pub(crate) fn bold<T: fmt::Display>(self, text: T) -> Styled<T> {
        self.styled(Style::new().bold(), text)
    }

    /// Something went well.
    pub(crate) fn good<T: fmt::Display>(self, text: T) -> Styled<T> {
        self.styled(colour(AnsiColor::Green), text)
    }

    /// Something needs attention.
    pub(crate) fn warning<T: fmt::Display>(self, text: T) -> Styled<T> {
        self.styled(colour(AnsiColor::Yellow), text)
    }

    /// Something failed.
    pub(crate) fn failure<T: fmt::Display>(self, text: T) -> Styled<T> {
        self.styled(colour(AnsiColor::Red).bold(), text)
    }

    fn styled<T>(self, style: Style, text: T) -> Styled<T> {
        Styled { style: if self.coloured { style } else { Style::new() }, text }
    }
}

const fn colour(colour: AnsiColor) -> Style {
    Style::new().fg_color(Some(Color::Ansi(colour)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_have_their_colours() {
        let palette = Palette::new(true);
        let code = |level| palette.level(level, "x").to_string();
        assert_eq!(code(Level::Debug), "\u{1b}[36mx\u{1b}[0m");
        assert_eq!(code(Level::Info), "\u{1b}[32mx\u{1b}[0m");
        assert_eq!(code(Level::Warn), "\u{1b}[33mx\u{1b}[0m");
        assert_eq!(code(Level::Error), "\u{1b}[1m\u{1b}[31mx\u{1b}[0m");
        assert_eq!(code(Level::Fatal), "\u{1b}[1m\u{1b}[35mx\u{1b}[0m");
    }

    #[test]
    fn a_source_keeps_its_colour_and_plain_means_plain() {
        let mut colours = SourceColours::default();
        let names = ["api", "web", "db", "auth", "cache", "mail", "worker", "gateway", "queue", "search"];
        let first = names.map(|n| Palette::new(true).source(colours.of(n), "x").to_string());
        let again = names.map(|n| Palette::new(true).source(colours.of(n), "x").to_string());
        assert_eq!(first, again);
        assert_eq!(first.iter().collect::<std::collections::BTreeSet<_>>().len(), 10, "ten names, ten colours");
        assert_eq!(SourceColours::default().of("api"), colours.of("api"), "the first one has what it wishes");
        colours.of("one more");
        assert_eq!(Palette::new(false).failure("x").to_string(), "x");
    }
}
