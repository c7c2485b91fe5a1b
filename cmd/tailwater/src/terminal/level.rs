//! The level of a line: from its labels, else from its text.

use tailwater_model::LabelSet;

/// Labels that hold a level, the most telling first.
const LEVEL_LABELS: [&str; 6] = ["level", "detected_level", "severity", "lvl", "severity_text", "loglevel"];
/// How far into a line a level is looked for, in bytes.
const LOOK_BYTES: usize = 200;

/// How serious a line is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Level {
    /// Nothing says.
    Unknown,
    /// Finer than debug.
    Trace,
    /// For developers.
    Debug,
    /// As expected.
    Info,
    /// Worth a look.
    Warn,
    /// Something failed.
    Error,
    /// The program cannot go on.
    Fatal,
}

impl Level {
    /// The level of a line.
    pub(crate) fn of(labels: &LabelSet, line: &str) -> Self {
        let from_labels = LEVEL_LABELS.iter().filter_map(|name| labels.get(name)).map(Self::from_name);
        let known = from_labels.into_iter().find(|level| *level != Self::Unknown);
        known.unwrap_or_else(|| Self::from_line(line))
    }

    /// The name in a column of five.
    pub(crate) fn tag(self) -> &'static str {
        match self {
            Self::Unknown => "",
            Self::Trace => "TRACE",
            Self::Debug => "DEBUG",
            Self::Info => "INFO",
            Self::Warn => "WARN",
            Self::Error => "ERROR",
            Self::Fatal => "FATAL",
        }
    }

    fn from_name(name: &str) -> Self {
        let is = |names: &[&str]| names.iter().any(|n| name.eq_ignore_ascii_case(n));
        if is(&["trace", "trc"]) {
            Self::Trace
        } else if is(&["debug", "dbg"]) {
            Self::Debug
        } else if is(&["info", "inf", "information", "notice"]) {
            Self::Info
        } else if is(&["warn", "warning", "wrn"]) {
            Self::Warn
        } else if is(&["error", "err", "eror"]) {
            Self::Error
        } else if is(&["fatal", "critical", "crit", "panic", "emergency", "emerg", "alert"]) {
            Self::Fatal
        } else {
            Self::Unknown
        }
    }

    /// The first word near the start of the line that names a level.
    fn from_line(line: &str) -> Self {
        let end = line.floor_char_boundary(LOOK_BYTES);
        line[..end]
            .split(|c: char| !c.is_ascii_alphanumeric())
            .map(Self::from_name)
            .find(|level| *level != Self::Unknown)
            .unwrap_or(Self::Unknown)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tailwater_model::{Category, LabelPair};

    fn level(labels: &[(&str, &str)], line: &str) -> Level {
        let pair =
            |(n, v): &(&str, &str)| LabelPair { name: (*n).into(), value: (*v).into(), category: Category::Stream };
        Level::of(&LabelSet::from_pairs(labels.iter().map(pair).collect()), line)
    }

    #[test]
    fn labels_come_before_the_text() {
        assert_eq!(level(&[("level", "WARN")], "error"), Level::Warn);
        assert_eq!(level(&[("detected_level", "unknown")], "2026 [ERROR] x"), Level::Error);
        assert_eq!(level(&[("detected_level", "critical")], ""), Level::Fatal);
    }

    #[test]
    fn the_text_is_looked_at_by_whole_words() {
        assert_eq!(level(&[], r#"{"level":"debug"}"#), Level::Debug);
        assert_eq!(level(&[], "lvl=info msg=x"), Level::Info);
        assert_eq!(level(&[], "information desk terror"), Level::Info);
        assert_eq!(level(&[], "terrors inform debugger"), Level::Unknown);
        assert_eq!(level(&[], &"ä".repeat(500)), Level::Unknown);
    }
}
