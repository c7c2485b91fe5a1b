//! How lines, labels and messages look: in colour on a terminal, plain in a pipe, never dangerous.

pub(crate) mod escape;
pub(crate) mod level;
pub(crate) mod render;
pub(crate) mod style;

use std::io::{self, IsTerminal as _, Write as _};

use clap::{Args, ValueEnum};
use jiff::tz::TimeZone;

use self::style::Palette;

/// How entries are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// Time, level, source and line in aligned columns
    #[default]
    Default,
    /// The line alone
    Raw,
    /// One JSON object per line: labels, line, timestamp
    Jsonl,
}

/// In which time zone times are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Zone {
    /// That of this machine
    #[default]
    #[value(alias = "Local")]
    Local,
    /// Coordinated universal time
    #[value(alias = "UTC")]
    Utc,
}

/// The flags of every command that writes entries.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Output")]
pub(crate) struct OutputArgs {
    /// How entries are written
    #[arg(short, long, value_enum, default_value_t, value_name = "FORMAT")]
    pub(crate) output: Output,
    /// No colours (also with NO_COLOR set, and when standard output is not a terminal)
    #[arg(long)]
    pub(crate) no_color: bool,
    /// Leave the labels out, also from JSON
    #[arg(long, conflicts_with = "include_common_labels")]
    pub(crate) no_labels: bool,
    /// Write every label of every line, also those that all lines share
    #[arg(long)]
    pub(crate) include_common_labels: bool,
    /// Time zone of the times that are written
    #[arg(short = 'z', long, value_enum, default_value_t, value_name = "ZONE")]
    pub(crate) timezone: Zone,
}

impl OutputArgs {
    /// The time zone to write times in.
    pub(crate) fn zone(&self) -> TimeZone {
        match self.timezone {
            Zone::Local => TimeZone::system(),
            Zone::Utc => TimeZone::UTC,
        }
    }
}

/// What standard output and standard error can show.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Screen {
    /// Standard output is a terminal.
    pub(crate) out_is_terminal: bool,
    /// Colours of standard output.
    pub(crate) out: Palette,
    /// Colours of standard error.
    pub(crate) err: Palette,
    /// Standard error is a terminal.
    pub(crate) err_is_terminal: bool,
}

impl Screen {
    /// Looks at the process's streams and `NO_COLOR`, `CLICOLOR_FORCE` and `TERM`.
    pub(crate) fn of_process(no_color: bool) -> Self {
        let set = |name: &str| std::env::var_os(name).is_some_and(|v| !v.is_empty());
        let forbidden = no_color || set("NO_COLOR") || std::env::var_os("TERM").is_some_and(|t| t == "dumb");
        let forced = set("CLICOLOR_FORCE") && std::env::var_os("CLICOLOR_FORCE").is_some_and(|v| v != "0");
        let (out, err) = (io::stdout().is_terminal(), io::stderr().is_terminal());
        let palette = |terminal: bool| Palette::new(!forbidden && (terminal || forced));
        Self { out_is_terminal: out, out: palette(out), err: palette(err), err_is_terminal: err }
    }
}

/// Writes a message of ours to standard error. Nobody may be listening: that is no failure.
pub(crate) fn tell(message: &str) {
    let _closed = writeln!(io::stderr().lock(), "{message}");
}

/// `1234567` as `1,234,567`; four digits are easy enough to read as they are.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    if number < 10_000 {
        return digits;
    }
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `1 line`, `12,345 lines`.
pub(crate) fn counted(number: u64, what: &str) -> String {
    let plural = if number == 1 {
        ""
    } else if what.ends_with("ch") {
        "es"
    } else {
        "s"
    };
    format!("{} {what}{plural}", grouped(number))
}

/// `512 B`, `1.5 MiB`.
pub(crate) fn human_bytes(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1024.0;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_for_people() {
        assert_eq!(grouped(0), "0");
        assert_eq!(grouped(999), "999");
        assert_eq!(grouped(9999), "9999");
        assert_eq!(grouped(10_000), "10,000");
        assert_eq!(grouped(1_234_567), "1,234,567");
        assert_eq!(counted(1, "line"), "1 line");
        assert_eq!(counted(2, "batch"), "2 batches");
        assert_eq!(human_bytes(1023), "1023 B");
        assert_eq!(human_bytes(1536), "1.5 KiB");
        assert_eq!(human_bytes(5 << 30), "5.0 GiB");
    }
}
