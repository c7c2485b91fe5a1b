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
