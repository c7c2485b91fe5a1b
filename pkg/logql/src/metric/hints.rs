//! What the rest of a metric query can see of a line (contract, LogQL §8): parsers extract nothing else.
//!
//! Invariants:
//! * Under `by (…)` and where there are no labels at all, parsers set the *required* labels only, and stop when they have them: so what
//!   is broken further on in a line is no error. Where nothing is required parsers do not run.
//! * Otherwise they set everything, since every label is part of a series' identity.
//! * Label filters act where they are written, as in log queries.

use crate::ast::{Grouping, LabelFilter, LabelFormatValue, MatchOp, RangeAggregation, RangeOp, Stage, Unwrap};
use crate::pipeline::names::{EXTRACTED_SUFFIX, WELL_KNOWN};
use crate::template::Template;

/// `__error__`
const ERROR: &str = WELL_KNOWN[0];

/// How the labels of a line become the labels of its series.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Labelling {
    /// All of them but these.
    Without(Vec<String>),
    /// Just these, sorted; possibly none.
    By(Vec<String>),
}

/// What is known of a range aggregation before it runs.
#[derive(Debug)]
pub(crate) struct Hints {
    pub(crate) labelling: Labelling,
    /// The labels that parsers set; everything if none.
    pub(crate) required: Option<Vec<String>>,
    /// Whether lines with a parser's error count.
    pub(crate) preserve_error: bool,
    /// The stages that have an effect.
    pub(crate) stages: Vec<Stage>,
    /// Whether the level of an entry that brings none can be seen.
    pub(crate) sees_level: bool,
}

/// Looks at an aggregation and the grouping that is handed down to it.
pub(crate) fn hints(aggregation: &RangeAggregation, pushed: Option<&Grouping>) -> Hints {
    let RangeAggregation { op, log, unwrap, .. } = aggregation;
    let labelling = labelling(aggregation, pushed);
    let mut stages = log.stages.clone();
    if !matches!(op, RangeOp::BytesOverTime | RangeOp::BytesRate) {
        stages = without_idle_formats(stages);
    }
    let Labelling::By(grouped) = &labelling else {
        return Hints { labelling, required: None, preserve_error: false, stages, sees_level: true };
    };
    let required = required(&stages, unwrap.as_ref(), grouped);
    if grouped.is_empty() && required.is_empty() {
        stages.retain(|stage| !is_skipped(stage));
    }
    let sees_level = required.iter().any(|name| name == crate::level::NAME) || stages.iter().any(sees_every_label);
    let preserve_error = required.iter().any(|name| name == ERROR);
    Hints { labelling, required: Some(required), preserve_error, stages, sees_level }
}

fn labelling(aggregation: &RangeAggregation, pushed: Option<&Grouping>) -> Labelling {
    let unwrapped = aggregation.unwrap.as_ref().map(|unwrap| unwrap.label.clone());
    if aggregation.op == RangeOp::AbsentOverTime {
        return Labelling::By(Vec::new());
    }
    match aggregation.grouping.as_ref().or(pushed) {
        Some(Grouping { without: false, labels }) => {
            let mut labels = labels.clone();
            labels.sort_unstable();
            labels.dedup();
            Labelling::By(labels)
        }
        Some(Grouping { without: true, labels }) => {
            Labelling::Without(labels.iter().cloned().chain(unwrapped).collect())
        }
        None => Labelling::Without(unwrapped.into_iter().collect()),
    }
}

/// The labels that filters, formats, the unwrap and the grouping name.
fn required(stages: &[Stage], unwrap: Option<&Unwrap>, grouped: &[String]) -> Vec<String> {
    let mut names: Vec<String> = grouped.to_vec();
    for stage in stages {
        match stage {
            Stage::Label(filter) => names_of_filter(filter, &mut names),
            Stage::LineFormat(text) => names.extend(fields("line", text.as_bytes())),
            Stage::LabelFormat(items) => {
                for item in items {
                    match &item.value {
                        LabelFormatValue::Rename(from) => names.push(from.clone()),
                        LabelFormatValue::Template(text) => names.extend(fields("label", text.as_bytes())),
                    }
                }
            }
            _ => {}
        }
    }
    if let Some(unwrap) = unwrap {
        unwrap.filters.iter().for_each(|filter| names_of_filter(filter, &mut names));
        names.push(unwrap.label.clone());
    }
    let originals: Vec<_> = names.iter().filter_map(|n| n.strip_suffix(EXTRACTED_SUFFIX)).map(str::to_owned).collect();
    names.extend(originals);
    names.sort_unstable();
    names.dedup();
    names
}

/// The fields of a template. One that does not parse has none: the query is refused when it is compiled.
fn fields(name: &str, text: &[u8]) -> Vec<String> {
    Template::parse(name, text).map(|template| template.fields()).unwrap_or_default()
}

fn names_of_filter(filter: &LabelFilter, names: &mut Vec<String>) {
    let mut open = vec![filter];
    while let Some(next) = open.pop() {
        match next {
            LabelFilter::And(left, right) | LabelFilter::Or(left, right) => open.extend([&**left, &**right]),
            // What holds for every value asks for none.
            LabelFilter::Text(m) if m.op == MatchOp::Re && m.value.as_bytes() == b".*" => {}
            LabelFilter::Text(m) => names.push(m.name.clone()),
            LabelFilter::Number { name, .. }
            | LabelFilter::Duration { name, .. }
            | LabelFilter::Bytes { name, .. }
            | LabelFilter::Ip { name, .. } => names.push(name.clone()),
        }
    }
}

/// The stages without each `line_format` whose line nobody looks at.
fn without_idle_formats(stages: Vec<Stage>) -> Vec<Stage> {
    let reads_line = |stage: &Stage| {
        matches!(
            stage,
            Stage::Line(_)
                | Stage::Json(_)
                | Stage::Logfmt { .. }
                | Stage::Regexp(_)
                | Stage::Pattern(_)
                | Stage::Unpack
        )
    };
    let last_reader = stages.iter().rposition(reads_line).unwrap_or(0);
    let idle = |index: usize, stage: &Stage| index >= last_reader && matches!(stage, Stage::LineFormat(_));
    stages.into_iter().enumerate().filter(|(index, stage)| !idle(*index, stage)).map(|(_, stage)| stage).collect()
}

/// Whether a stage does nothing where there are no labels to be seen.
fn is_skipped(stage: &Stage) -> bool {
    matches!(stage, Stage::Json(_) | Stage::Logfmt { .. } | Stage::Pattern(_) | Stage::Unpack)
}

/// Whether a stage may look at labels that it does not name.
fn sees_every_label(stage: &Stage) -> bool {
    match stage {
        Stage::LineFormat(_) => true,
        Stage::LabelFormat(items) => items.iter().any(|item| matches!(item.value, LabelFormatValue::Template(_))),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ast::Expr;
    use crate::metric::leaves;

    fn hints_of(query: &str) -> Hints {
        let Ok(Expr::Metric(expr)) = crate::parse(query) else { panic!("{query}") };
        let leaf = &leaves(&expr)[0];
        hints(leaf.aggregation, leaf.pushed.as_ref())
    }

    fn labelling_of(query: &str) -> String {
        match hints_of(query).labelling {
            Labelling::By(labels) => format!("by {}", labels.join(" ")),
            Labelling::Without(labels) => format!("without {}", labels.join(" ")),
        }
    }

    /// What parsers set; `everything` if they do not know.
    fn required_of(query: &str) -> String {
        hints_of(query).required.map_or("everything".into(), |names| names.join(" "))
    }

    fn stages_of(query: &str) -> String {
        hints_of(query).stages.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn the_grouping_is_that_of_the_range_aggregation_or_of_the_sum_around_it() {
        for (query, want) in [
            (r#"count_over_time({a="1"}[1m])"#, "without "),
            (r#"sum by (y, x, y) (count_over_time({a="1"}[1m]))"#, "by x y"),
            (r#"sum(count_over_time({a="1"}[1m]))"#, "by "),
            (r#"sum without (x) (rate({a="1"}[1m]))"#, "without x"),
            (r#"max by (x) (rate({a="1"}[1m]))"#, "without "),
            (r#"sum by (x) (avg_over_time({a="1"} | unwrap v [1m]) by (z, y))"#, "by y z"),
            (r#"avg_over_time({a="1"} | unwrap v [1m]) without (x)"#, "without x v"),
            (r#"rate({a="1"} | unwrap v [1m])"#, "without v"),
            (r#"sum by (v) (rate({a="1"} | unwrap v [1m]))"#, "by v"),
            (r#"absent_over_time({a="1"}[1m])"#, "by "),
        ] {
            assert_eq!(labelling_of(query), want, "{query}");
        }
    }

    #[test]
    fn required_is_what_the_rest_of_the_query_names() {
        let required = |stages: &str| required_of(&format!(r#"sum by (g) (count_over_time({{a="1"}} {stages} [1m]))"#));
        assert_eq!(required(""), "g");
        assert_eq!(required(r#"| json | x="1" and (y > 2 or z=ip("1.1.1.1")) | d > 1s | b < 1KB"#), "b d g x y z");
        assert_eq!(required(r#"| json | x=~".*""#), "g", "what holds for all values needs none");
        assert_eq!(required(r#"| json | label_format a=x, b="{{.y.z}} {{$.w}}""#), "g x y z");
        assert_eq!(required(r#"| line_format "{{.x}}" | json"#), "g x");
        assert_eq!(required(r#"| json v="w" | logfmt q | drop x, y="1" | keep z"#), "g");
        assert_eq!(required(r#"| x_extracted="1""#), "g x x_extracted");
        assert_eq!(required_of(r#"sum(rate({a="1"} | json | unwrap v | x="1" [1m]))"#), "v x");
        assert_eq!(required_of(r#"rate({a="1"} | json | x="1" [1m])"#), "everything");
        assert_eq!(required_of(r#"sum without (x) (rate({a="1"} | json [1m]))"#), "everything");
    }

    #[test]
    fn parsers_do_nothing_where_nothing_is_required() {
        let all = r#"| json | logfmt | unpack | pattern "<x>" | regexp "(?P<y>.)" |= "z""#;
        assert_eq!(stages_of(&format!(r#"sum(rate({{a="1"}} {all} [1m]))"#)), r#"| regexp "(?P<y>.)" |= "z""#);
        assert_eq!(stages_of(&format!(r#"absent_over_time({{a="1"}} {all} [1m])"#)), r#"| regexp "(?P<y>.)" |= "z""#);
        let seen = format!(r#"{all} | x="1""#);
        assert_eq!(stages_of(&format!(r#"sum(rate({{a="1"}} {seen} [1m]))"#)), seen);
        assert_eq!(stages_of(&format!(r#"sum by (x) (rate({{a="1"}} {all} [1m]))"#)), all);
    }

    #[test]
    fn a_line_that_nobody_looks_at_is_not_formatted() {
        let stages = |op: &str, stages: &str| stages_of(&format!(r#"{op}({{a="1"}} {stages} [1m])"#));
        assert_eq!(stages("rate", r#"| line_format "x" | label_format y=z"#), "| label_format y=z");
        assert_eq!(stages("rate", r#"| line_format "x" |= "y" | line_format "z""#), r#"| line_format "x" |= "y""#);
        assert_eq!(stages("bytes_rate", r#"| line_format "x""#), r#"| line_format "x""#);
    }

    #[test]
    fn levels_and_errors_are_kept_where_they_are_asked_for() {
        let hints = |query: &str| (hints_of(query).sees_level, hints_of(query).preserve_error);
        assert_eq!(hints(r#"sum by (x) (rate({a="1"} | json [1m]))"#), (false, false));
        assert_eq!(hints(r#"sum by (detected_level) (rate({a="1"}[1m]))"#), (true, false));
        assert_eq!(hints(r#"sum(rate({a="1"} | detected_level="warn" [1m]))"#), (true, false));
        assert_eq!(hints(r#"sum(rate({a="1"} | label_format x="{{.}}" [1m]))"#), (true, false));
        assert_eq!(hints(r#"rate({a="1"} | __error__="" [1m])"#), (true, false));
        assert_eq!(hints(r#"sum(rate({a="1"} | json | __error__="" [1m]))"#), (false, true));
    }
}
