//! One entry as a text: aligned columns for people, raw lines or JSON for programs.

use std::fmt::Write as _;
use std::io::{self, Write};

use jiff::tz::TimeZone;
use serde::Serialize;
use tailwater_model::{Category, LabelSet, Timestamp};
use unicode_width::{UnicodeWidthChar as _, UnicodeWidthStr as _};

use super::escape;
use super::level::Level;
use super::style::{Palette, SourceColours};
use super::{Output, OutputArgs, Screen};
use crate::client::answer::Entry;

/// The column of sources grows with the longest name seen, up to this many cells.
const MAX_SOURCE_CELLS: usize = 24;
const MIN_SOURCE_CELLS: usize = 10;
const LEVEL_CELLS: usize = 5;
/// Labels that name a source, the most telling first.
const SOURCE_LABELS: [&str; 9] =
    ["service_name", "service", "app", "container", "component", "job", "pod", "filename", "host"];
/// What Loki calls a service it knows nothing of.
const NO_SERVICE: &str = "unknown_service";
/// Where several tenants are asked together, the one that a line is of. Shown behind the name of the source.
const TENANT_LABEL: &str = "__tenant_id__";
/// Labels that the column of levels shows already.
const LEVEL_LABELS: [&str; 2] = ["level", "detected_level"];

/// How much of the time is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Clock {
    /// Hours to milliseconds: the line is of now.
    Time,
    /// With the date: the line may be of any day.
    DateAndTime,
}

/// Which labels are shown beside the line.
#[derive(Clone, Debug)]
enum Shown {
    None,
    /// The name of the source.
    Source,
    /// The name of the source, and every pair that is not among these.
    SourceAndVarying(LabelSet),
    /// The whole set.
    All,
}

/// Writes entries. Keeps the widths of columns and scratch space between them.
pub(crate) struct Renderer {
    output: Output,
    shown: Shown,
    labels_in_json: bool,
    palette: Palette,
    to_terminal: bool,
    times: Times,
    source_cells: usize,
    source_colours: SourceColours,
    text: String,
    scratch: String,
}

impl Renderer {
    /// A renderer for standard output.
    pub(crate) fn new(args: &OutputArgs, screen: Screen, clock: Clock) -> Self {
        let shown = match (args.no_labels, args.include_common_labels) {
            (true, _) => Shown::None,
            (_, true) => Shown::All,
            _ => Shown::Source,
        };
        Self {
            output: args.output,
            shown,
            labels_in_json: !args.no_labels,
            palette: screen.out,
            to_terminal: screen.out_is_terminal,
            times: Times::new(args.zone(), clock),
            source_cells: MIN_SOURCE_CELLS,
            source_colours: SourceColours::default(),
            text: String::new(),
            scratch: String::new(),
        }
    }

    /// From now on shows, beside the source, the labels that are not among `common`.
    pub(crate) fn hide_common(&mut self, common: LabelSet) {
        if !matches!(self.shown, Shown::None | Shown::All) {
            self.shown = Shown::SourceAndVarying(common);
        }
    }

    /// Makes the column of sources wide enough for these entries, so that it need not grow among them.
    pub(crate) fn fit(&mut self, entries: &[Entry]) {
        for entry in entries {
            self.widen(&source_of(&entry.labels));
        }
    }

    /// Writes one entry.
    ///
    /// # Errors
    /// Those of `out`.
    pub(crate) fn write(&mut self, out: &mut impl Write, entry: &Entry) -> io::Result<()> {
        self.text.clear();
        match self.output {
            Output::Default => self.columns(entry),
            Output::Raw if !self.to_terminal => {
                // No detour: the bytes of the line are what was asked for.
                out.write_all(entry.line.strip_suffix('\n').unwrap_or(&entry.line).as_bytes())?;
                return out.write_all(b"\n");
            }
            Output::Raw => escape::display(entry.line.trim_end_matches('\n'), 0, &mut self.text),
            Output::Jsonl => self.json(entry)?,
        }
        self.text.push('\n');
        out.write_all(self.text.as_bytes())
    }

    fn columns(&mut self, entry: &Entry) {
        let palette = self.palette;
        let level = Level::of(&entry.labels, &entry.line);
        let time = self.times.short(entry.timestamp);
        let tag = level.tag();
        let mut indent = time.len() + 1 + LEVEL_CELLS + 1;
        let text = &mut self.text;
        let _infallible = write!(
            text,
            "{} {}{:pad$} ",
            palette.dim(time),
            palette.level(level, tag),
            "",
            pad = LEVEL_CELLS - tag.len()
        );
        if matches!(self.shown, Shown::Source | Shown::SourceAndVarying(_)) {
            let name = source_of(&entry.labels);
            self.widen(&name);
            let cut = cut_to_cells(&name, self.source_cells);
            let pad = self.source_cells.saturating_sub(cut.width());
            let _infallible =
                write!(self.text, "{}{:pad$} ", self.palette.source(self.source_colours.of(&name), &cut), "");
            indent += self.source_cells + 1;
        }
        let labels = match &self.shown {
            Shown::SourceAndVarying(common) => varying(&entry.labels, common),
            Shown::All => entry.labels.to_string(),
            _ => String::new(),
        };
        if !labels.is_empty() {
            self.scratch.clear();
            escape::strict(&labels, &mut self.scratch);
            let _infallible = write!(self.text, "{} ", self.palette.dim(&self.scratch));
        }
        self.scratch.clear();
        escape::display(entry.line.trim_end(), indent, &mut self.scratch);
        let _infallible = write!(self.text, "{}", self.palette.line(level, &self.scratch));
    }

    fn json(&mut self, entry: &Entry) -> io::Result<()> {
        let labels = self.labels_in_json.then_some(Pairs(&entry.labels));
        let line = JsonLine { labels, line: &entry.line, timestamp: self.times.rfc3339_nano(entry.timestamp) };
        escape::json(&serde_json::to_string(&line)?, &mut self.text);
        Ok(())
    }

    fn widen(&mut self, name: &str) {
        self.source_cells = self.source_cells.max(name.width()).min(MAX_SOURCE_CELLS);
    }
}

#[derive(Serialize)]
struct JsonLine<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    labels: Option<Pairs<'a>>,
    line: &'a str,
    timestamp: String,
}

/// A label set as a JSON object.
pub(crate) struct Pairs<'a>(pub(crate) &'a LabelSet);

impl Serialize for Pairs<'_> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.pairs().iter().map(|p| (&p.name, &p.value)))
    }
}

/// The name of a line's source, ready for display.
fn source_of(labels: &LabelSet) -> String {
    let named = SOURCE_LABELS.iter().filter_map(|name| labels.get(name)).find(|v| !v.is_empty() && *v != NO_SERVICE);
    let first = || {
        labels
            .of(Category::Stream)
            .find(|p| !LEVEL_LABELS.contains(&&*p.name) && &*p.name != TENANT_LABEL && &*p.value != NO_SERVICE)
            .map(|p| &*p.value)
    };
    let mut name = String::new();
    escape::strict(named.or_else(first).unwrap_or("-"), &mut name);
    if let Some(tenant) = labels.get(TENANT_LABEL) {
        name.push('@');
        escape::strict(tenant, &mut name);
    }
    name
}

/// The pairs that are neither common nor shown in a column of their own, as a selector; empty if there are none.
fn varying(labels: &LabelSet, common: &LabelSet) -> String {
    let source = SOURCE_LABELS.iter().find(|name| labels.get(name).is_some());
    let pairs = labels.pairs().iter().filter(|p| {
        common.get(&p.name) != Some(&*p.value)
            && !LEVEL_LABELS.contains(&&*p.name)
            && &*p.name != TENANT_LABEL
            && Some(&&*p.name) != source
    });
    let rest = LabelSet::from_pairs(pairs.cloned().collect());
    if rest.pairs().is_empty() { String::new() } else { rest.to_string() }
}

/// The pairs that every entry has.
pub(crate) fn common_labels(entries: &[Entry]) -> LabelSet {
    let Some((first, rest)) = entries.split_first() else { return LabelSet::from_pairs(Vec::new()) };
    let mut common = first.labels.pairs().to_vec();
    let mut last = &first.labels;
    for entry in rest {
        if !entry.labels.ptr_eq(last) {
            last = &entry.labels;
            common.retain(|p| last.get(&p.name) == Some(&*p.value));
        }
    }
    LabelSet::from_pairs(common)
}

/// At most `cells` cells of `text`, the last one an ellipsis if something is cut off.
fn cut_to_cells(text: &str, cells: usize) -> String {
    if text.width() <= cells {
        return text.to_owned();
    }
    let mut cut = String::new();
    let mut used = 0;
    for c in text.chars() {
        used += c.width().unwrap_or(0);
        if used + 1 > cells {
            break;
        }
        cut.push(c);
    }
    cut.push('…');
    cut
}

/// Times as text. Lines come in the order of time mostly, so the text of the second is kept.
struct Times {
    zone: TimeZone,
    clock: Clock,
    second: Option<i64>,
    second_text: String,
}

impl Times {
    fn new(zone: TimeZone, clock: Clock) -> Self {
        Self { zone, clock, second: None, second_text: String::new() }
    }

    /// `12:34:56.789`, with the date in front if so wanted.
    fn short(&mut self, at: Timestamp) -> String {
        let second = at.nanos().div_euclid(1_000_000_000);
        if self.second != Some(second) {
            let format = match self.clock {
                Clock::Time => "%H:%M:%S",
                Clock::DateAndTime => "%Y-%m-%d %H:%M:%S",
            };
            self.second_text = self.zoned(at).strftime(format).to_string();
            self.second = Some(second);
        }
        format!("{}.{:03}", self.second_text, at.nanos().rem_euclid(1_000_000_000) / 1_000_000)
    }

    /// RFC 3339 with as many digits of the second as there are, as Go's RFC3339Nano.
    fn rfc3339_nano(&self, at: Timestamp) -> String {
        let zoned = self.zoned(at);
        if zoned.offset().is_zero() {
            zoned.timestamp().to_string()
        } else {
            zoned.strftime("%Y-%m-%dT%H:%M:%S%.f%:z").to_string()
        }
    }

    fn zoned(&self, at: Timestamp) -> jiff::Zoned {
        // Every i64 of nanoseconds lies in the years that jiff covers.
        jiff::Timestamp::from_nanosecond(at.nanos().into()).unwrap_or_default().to_zoned(self.zone.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::terminal::Zone;
    use tailwater_model::LabelPair;

    fn entry(labels: &[(&str, &str)], line: &str) -> Entry {
        let pair =
            |(n, v): &(&str, &str)| LabelPair { name: (*n).into(), value: (*v).into(), category: Category::Stream };
        Entry {
            timestamp: Timestamp(1_500_000_000),
            line: line.to_owned(),
            labels: LabelSet::from_pairs(labels.iter().map(pair).collect()),
        }
    }

    fn renderer(output: Output, terminal: bool) -> Renderer {
        let palette = Palette::new(terminal);
        let screen = Screen { out_is_terminal: terminal, out: palette, err: palette, err_is_terminal: terminal };
        let args = OutputArgs { output, timezone: Zone::Utc, ..OutputArgs::default() };
        Renderer::new(&args, screen, Clock::Time)
    }

    fn text(renderer: &mut Renderer, entry: &Entry) -> String {
        let mut out = Vec::new();
        renderer.write(&mut out, entry).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn columns_stay_aligned_and_further_lines_hang_below_the_first() {
        let mut plain = renderer(Output::Default, false);
        assert_eq!(
            text(&mut plain, &entry(&[("service_name", "web"), ("level", "info")], "started  \n")),
            "00:00:01.500 INFO  web        started\n"
        );
        assert_eq!(
            text(&mut plain, &entry(&[("app", "a-very-long-service-name-indeed"), ("level", "fatal")], "x\ny")),
            "00:00:01.500 FATAL a-very-long-service-nam… x\n                                            y\n"
        );
        assert_eq!(
            text(&mut plain, &entry(&[("service_name", "unknown_service"), ("a", "漢字")], "x")),
            "00:00:01.500       漢字                     x\n"
        );
    }

    #[test]
    fn a_terminal_gets_colours_and_no_foreign_codes_in_any_format() {
        let evil = entry(&[("app", "w\u{1b}eb"), ("level", "error")], "bo\u{1b}[2Jom");
        let coloured = text(&mut renderer(Output::Default, true), &evil);
        assert!(coloured.contains("\u{1b}[31mbo\\x1b[2Jom\u{1b}[0m"), "{coloured:?}");
        assert!(coloured.contains("w\\x1beb"), "{coloured:?}");
        assert_eq!(text(&mut renderer(Output::Raw, true), &evil), "bo\\x1b[2Jom\n");
        assert!(!text(&mut renderer(Output::Jsonl, true), &evil).contains('\u{1b}'));
    }

    #[test]
    fn raw_into_a_pipe_is_the_line_byte_for_byte() {
        assert_eq!(text(&mut renderer(Output::Raw, false), &entry(&[], "a\u{1b}[0m\r\n")), "a\u{1b}[0m\r\n");
        assert_eq!(text(&mut renderer(Output::Raw, false), &entry(&[], "  a\t ")), "  a\t \n");
    }

    #[test]
    fn json_lines_are_logclis() {
        assert_eq!(
            text(&mut renderer(Output::Jsonl, false), &entry(&[("b", "2"), ("a", "1")], "q\"")),
            "{\"labels\":{\"a\":\"1\",\"b\":\"2\"},\"line\":\"q\\\"\",\"timestamp\":\"1970-01-01T00:00:01.5Z\"}\n"
        );
    }

    #[test]
    fn labels_that_vary_are_shown_beside_the_source() {
        let entries = [
            entry(&[("app", "a"), ("env", "x"), ("pod", "1"), ("level", "info")], "m"),
            entry(&[("app", "a"), ("env", "x"), ("pod", "2"), ("level", "warn")], "n"),
        ];
        let common = common_labels(&entries);
        assert_eq!(common.to_string(), r#"{app="a", env="x"}"#);
        let mut plain = renderer(Output::Default, false);
        plain.hide_common(common);
        assert_eq!(text(&mut plain, &entries[1]), "00:00:01.500 WARN  a          {pod=\"2\"} n\n");
    }

    #[test]
    fn the_tenant_stands_behind_the_source() {
        let mut plain = renderer(Output::Default, false);
        plain.hide_common(LabelSet::default());
        let of_both = entry(&[("__tenant_id__", "blue"), ("app", "a")], "m");
        assert_eq!(text(&mut plain, &of_both), "00:00:01.500       a@blue     m\n");
        let nameless = entry(&[("__tenant_id__", "blue")], "m");
        assert_eq!(text(&mut plain, &nameless), "00:00:01.500       -@blue     m\n");
    }

    #[test]
    fn times_are_written_in_the_zone() {
        let zone = TimeZone::fixed(jiff::tz::offset(2));
        let mut times = Times::new(zone, Clock::DateAndTime);
        assert_eq!(times.short(Timestamp(0)), "1970-01-01 02:00:00.000");
        assert_eq!(times.short(Timestamp(-1)), "1970-01-01 01:59:59.999");
        assert_eq!(times.rfc3339_nano(Timestamp(1)), "1970-01-01T02:00:00.000000001+02:00");
        assert_eq!(times.rfc3339_nano(Timestamp(i64::MIN)).len(), "1677-09-21T02:12:43.145224192+02:00".len());
    }
}
