//! Long expressions over several lines, as `/format_query` answers them.
//!
//! Invariants: whatever fits into [`WIDTH`] bytes stays on one line, in the spelling of `Display`; what does not is split where
//! it nests, two blanks per level. As in Loki, the parentheses of split binary operations are left to the indentation.

use std::fmt::{self, Display, Write};

use crate::ast::{
    Expr, Grouping, LogExpr, MetricExpr, RangeAggregation, Stage, Unwrap, VectorAggregation, VectorMatching,
};
use crate::go::{duration, number};

/// The longest line, in bytes without indentation, of what could be split.
const WIDTH: usize = 100;

/// The expression, over several lines if it is long.
#[must_use]
pub fn pretty(expr: &Expr) -> String {
    let mut out = Lines(String::new());
    match expr {
        Expr::Log(expr) => out.log(expr, 0),
        Expr::Metric(expr) => out.metric(expr, 0),
    }
    out.0
}

/// Whether `text` is at most [`WIDTH`] bytes long; writes no more than that.
fn fits(text: &dyn Display) -> bool {
    struct Room(usize);
    impl Write for Room {
        fn write_str(&mut self, s: &str) -> fmt::Result {
            self.0 = self.0.checked_sub(s.len()).ok_or(fmt::Error)?;
            Ok(())
        }
    }
    write!(Room(WIDTH), "{text}").is_ok()
}

struct Lines(String);

impl Lines {
    fn add(&mut self, text: impl Display) {
        // Writing to a `String` does not fail.
        let _ = write!(self.0, "{text}");
    }

    fn indent(&mut self, level: usize) {
        self.0.extend(std::iter::repeat_n("  ", level));
    }

    fn line(&mut self, level: usize, text: impl Display) {
        self.indent(level);
        self.add(text);
    }

    fn next_line(&mut self, level: usize, text: impl Display) {
        self.0.push('\n');
        self.line(level, text);
    }

    fn log(&mut self, expr: &LogExpr, level: usize) {
        if expr.stages.is_empty() || fits(expr) {
            return self.line(level, expr);
        }
        self.line(level, LogExpr { selector: expr.selector.clone(), stages: Vec::new() });
        let mut stages = expr.stages.as_slice();
        while let Some(stage) = stages.first() {
            let filters = stages.iter().take_while(|stage| matches!(stage, Stage::Line(_))).count();
            let (group, rest) = stages.split_at(filters.max(1));
            let group = Group(group);
            match stage {
                Stage::Line(_) if !fits(&group) => {
                    group.0.iter().for_each(|filter| self.next_line(level + 1, filter));
                }
                Stage::Decolorize => self.next_line(0, group),
                _ => self.next_line(level + 1, group),
            }
            stages = rest;
        }
    }

    fn metric(&mut self, expr: &MetricExpr, level: usize) {
        if fits(expr) {
            return self.line(level, expr);
        }
        match expr {
            MetricExpr::Range(range) => self.range(range, level),
            MetricExpr::Vector(vector) => self.vector(vector, level),
            MetricExpr::Binary(binary) => {
                self.metric(&binary.left, level + 1);
                self.next_line(level, binary.op);
                if binary.return_bool {
                    self.add(" bool");
                }
                if let Some(matching) = &binary.matching {
                    self.matching(matching);
                    if binary.needs_empty_include() && !matching.labels.is_empty() {
                        self.add(" ()");
                    }
                }
                self.0.push('\n');
                self.metric(&binary.right, level + 1);
            }
            MetricExpr::Literal(_) | MetricExpr::VectorLiteral(_) => self.line(level, expr),
            MetricExpr::LabelReplace(replace) => {
                self.line(level, "label_replace(\n");
                self.metric(&replace.inner, level + 1);
                for text in [&replace.dst, &replace.replacement, &replace.src, &replace.regex] {
                    self.add(",");
                    self.next_line(level + 1, text);
                }
                self.next_line(level, ")");
            }
        }
    }

    fn range(&mut self, range: &RangeAggregation, level: usize) {
        self.line(level, format_args!("{}(\n", range.op));
        if let Some(param) = range.param {
            self.line(level + 1, format_args!("{},\n", number::format_v(param)));
        }
        self.log(&range.log, level + 1);
        if let Some(unwrap) = &range.unwrap {
            self.unwrap(unwrap, level + 2);
        }
        self.add(format_args!(" [{}]", duration::format_prometheus(range.range)));
        if range.offset_nanos != 0 {
            let size = duration::format_prometheus(std::time::Duration::from_nanos(range.offset_nanos.unsigned_abs()));
            self.add(format_args!(" offset {}{size}", if range.offset_nanos < 0 { "-" } else { "" }));
        }
        self.next_line(level, ")");
        self.grouping(range.grouping.as_ref());
    }

    fn unwrap(&mut self, unwrap: &Unwrap, level: usize) {
        self.next_line(level, Unwrap { filters: Vec::new(), ..unwrap.clone() });
        unwrap.filters.iter().for_each(|filter| self.next_line(level, format_args!("| {filter}")));
    }

    fn vector(&mut self, vector: &VectorAggregation, level: usize) {
        self.line(level, vector.op);
        self.grouping(vector.grouping.as_ref());
        self.add("(\n");
        if let Some(param) = vector.param {
            self.line(level + 1, format_args!("{param},\n"));
        }
        self.metric(&vector.inner, level + 1);
        self.next_line(level, ")");
    }

    fn grouping(&mut self, grouping: Option<&Grouping>) {
        match grouping {
            Some(grouping) if !grouping.labels.is_empty() => {
                self.add(format_args!(" {} ({})", keyword(grouping.without), grouping.labels.join(", ")));
            }
            Some(Grouping { without: true, .. }) => self.add(" without"),
            _ => {}
        }
    }

    fn matching(&mut self, matching: &VectorMatching) {
        if matching.labels.is_empty() {
            return;
        }
        let keyword = if matching.on { "on" } else { "ignoring" };
        self.add(format_args!(" {keyword} ({})", matching.labels.join(", ")));
        if let Some(group) = matching.group {
            self.add(format_args!(" {group}"));
            if !matching.include.is_empty() {
                self.add(format_args!(" ({})", matching.include.join(", ")));
            }
        }
    }
}

fn keyword(without: bool) -> &'static str {
    if without { "without" } else { "by" }
}

/// Stages in a row.
struct Group<'a>(&'a [Stage]);

impl Display for Group<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, stage) in self.0.iter().enumerate() {
            write!(f, "{}{stage}", if i > 0 { " " } else { "" })?;
        }
        Ok(())
    }
}
