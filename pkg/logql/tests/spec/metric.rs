//! Metric queries over lines: when they are evaluated, what should come of it, and how that is compared.

use std::collections::HashMap;
use std::iter::Peekable;
use std::sync::Arc;

use tailwater_logql::ast::{Expr, MetricExpr};
use tailwater_logql::metric::{
    Column, Evaluated, EvaluationLimits, Leaf, Place, SampleQuery, Series, Steps, answered, leaves, series,
};
use tailwater_logql::{go, metric, parse};
use tailwater_model::{Labels, Timestamp};

use crate::Differences;
use crate::cases::{Case, Line, labels};

/// What a case says should come of a query at some times.
struct Wanted {
    /// Every time, if the case lists them.
    times: Option<Vec<i64>>,
    /// What is wrong with the query, if something is.
    error: Option<String>,
    series: Vec<(Labels, Vec<Value>)>,
}

/// What a series should have at a step.
#[derive(Debug)]
enum Value {
    Absent,
    Exactly(f64),
    /// Rounded to as many decimals as are written.
    About(String),
}

impl Value {
    fn read(text: &str) -> Self {
        match text.strip_prefix('~') {
            _ if text == "_" => Self::Absent,
            Some(rounded) => Self::About(rounded.to_owned()),
            None => Self::Exactly(go::number::parse_float(text).unwrap_or_else(|e| panic!("{text}: {e}"))),
        }
    }

    fn is(&self, got: Option<f64>) -> bool {
        match (self, got) {
            (Self::Absent, got) => got.is_none(),
            (Self::Exactly(want), Some(got)) => *want == got || (want.is_nan() && got.is_nan()),
            (Self::About(want), Some(got)) => {
                let decimals = want.split_once('.').map_or(0, |(_, decimals)| decimals.len());
                format!("{got:.decimals$}") == *want
            }
            (_, None) => false,
        }
    }
}

/// Reads what follows `??` and compares it with what comes of the query.
pub(crate) fn ask<'a>(
    case: &Case,
    when: &str,
    results: &mut Peekable<impl Iterator<Item = &'a (String, String)>>,
    differences: &mut Differences,
) {
    let query = match parse(&case.query) {
        Ok(Expr::Metric(query)) => query,
        Ok(Expr::Log(_)) => return differences.compare("is asked", "a metric query", "a log query"),
        Err(e) => return differences.compare("is asked", "a metric query", &e.to_string()),
    };
    let steps = steps(when);
    let wanted = wanted(results);
    wanted.check(when, steps, differences);
    wanted.compare(when, evaluate(&case.lines, &query, steps), ordered(&query), differences);
}

/// The answer of a query about some lines; a number is a series without labels.
fn evaluate(lines: &[Line], query: &MetricExpr, steps: Steps) -> Result<Vec<Series>, String> {
    let found = leaves(query).iter().map(|leaf| collect(lines, leaf, steps)).collect::<Result<_, _>>()?;
    let limits = EvaluationLimits { max_query_series: 500 };
    match metric::evaluate(query, steps, found, limits).map_err(|e| e.to_string())? {
        Evaluated::Scalar(value) => Ok(vec![Series::constant(Labels::from_pairs(Vec::new()), steps.count, value)]),
        // At one time all are listed, even those that are equal.
        Evaluated::Series(series) if steps.step == 0 => Ok(series),
        Evaluated::Series(series) => {
            let joined = answered(&series).map(|(labels, points)| {
                let mut all = Series::empty(labels.clone(), steps.count);
                points.for_each(|(step, value)| all.set(step, value));
                all
            });
            Ok(joined.collect())
        }
    }
}

/// The series of a range aggregation.
fn collect(lines: &[Line], leaf: &Leaf<'_>, steps: Steps) -> Result<Vec<Series>, String> {
    let query = SampleQuery::compile(leaf.aggregation, leaf.pushed.as_ref()).map_err(|e| e.to_string())?;
    let query = Arc::new(query);
    let grid = query.grid(steps);
    let mut runner = query.runner(false);
    let mut columns: HashMap<Labels, Column> = HashMap::new();
    let mut room = usize::MAX;
    for (line, index) in lines.iter().zip(0..) {
        let Some(pane) = grid.pane(line.at.nanos()).filter(|_| query.matchers().matches(&line.stream)) else {
            continue;
        };
        runner.enter(&line.stream);
        let metadata: Vec<_> = line.metadata.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let Some((number, value)) = runner.run(line.at, line.text.as_bytes(), &metadata) else { continue };
        let labels = runner.labels(number).expect("a series that was met").clone();
        let place = Place { timestamp: line.at.nanos(), stream_hash: line.stream.loki_hash(), seq: 1, index };
        let column = columns.entry(labels).or_insert_with(|| query.column());
        column.add(pane.number, value, place, &mut room).expect("there is room");
    }
    series(&query, &grid, columns).map_err(|e| e.to_string())
}

/// `60s`, or `0s to 60s step 15s`.
fn steps(when: &str) -> Steps {
    let nanos = |text: &str| go::duration::parse_go(text).unwrap_or_else(|e| panic!("{when}: {e}"));
    match when.split_whitespace().collect::<Vec<_>>()[..] {
        [time] => Steps::instant(Timestamp(nanos(time))),
        [start, "to", end, "step", step] => aligned(nanos(start), nanos(end), nanos(step)),
        _ => panic!("{when}: neither `TIME` nor `START to END step STEP`"),
    }
}

/// Range queries begin and end at multiples of their step.
fn aligned(start: i64, end: i64, step: i64) -> Steps {
    let first = start.div_euclid(step) * step;
    let last = -(-end).div_euclid(step) * step;
    Steps::range(Timestamp(first), Timestamp(last), step)
}

fn wanted<'a>(results: &mut Peekable<impl Iterator<Item = &'a (String, String)>>) -> Wanted {
    let mut wanted = Wanted { times: None, error: None, series: Vec::new() };
    let mut said = false;
    while let Some((marker, text)) = results.next_if(|(marker, _)| ["..", "==", "!!"].contains(&marker.as_str())) {
        said = true;
        match marker.as_str() {
            ".." => {
                let times = text.split_whitespace().map(|time| go::duration::parse_go(time).expect("a time"));
                wanted.times = Some(times.collect());
            }
            "!!" => wanted.error = Some(text.clone()),
            _ if text == "nothing" => {}
            _ => {
                let (named, values) = text.split_at(text.rfind('}').expect("labels and values") + 1);
                let pairs = labels(named).into_iter().map(|(name, value)| (name.into(), value.into())).collect();
                let values = values.split_whitespace().map(Value::read).collect();
                wanted.series.push((Labels::keeping_empty(pairs), values));
            }
        }
    }
    assert!(said, "nothing is said about the answer");
    wanted
}

/// Whether the order of the answer is the query's doing.
fn ordered(query: &MetricExpr) -> bool {
    query.to_string().contains("sort")
}

impl Wanted {
    /// Whether what is wanted fits the times of the question.
    fn check(&self, when: &str, steps: Steps, differences: &mut Differences) {
        if let Some(want) = &self.times {
            let got: Vec<_> = (0..steps.count).map(|step| steps.time(step).nanos()).collect();
            differences.compare(when, &format!("times {want:?}"), &format!("times {got:?}"));
        }
        for (labels, values) in &self.series {
            let count = values.len();
            differences.compare(
                when,
                &format!("{labels}: {count} values"),
                &format!("{labels}: {} values", steps.count),
            );
        }
    }

    fn compare(
        mut self,
        when: &str,
        answer: Result<Vec<Series>, String>,
        ordered: bool,
        differences: &mut Differences,
    ) {
        let mut series = match (&self.error, answer) {
            (None, Ok(series)) => series,
            (None, Err(e)) => return differences.compare(when, &self.to_string(), &format!("error: {e}")),
            (Some(want), Ok(_)) => return differences.compare(when, &format!("error: {want}"), "an answer"),
            (Some(want), Err(got)) => {
                let cut = want.strip_suffix('…').filter(|start| got.starts_with(start)).map(|_| want.as_str());
                return differences.compare(when, want, cut.unwrap_or(&got));
            }
        };
        if !ordered {
            series.sort_by(|a, b| a.labels.cmp(&b.labels));
            self.series.sort_by(|a, b| a.0.cmp(&b.0));
        }
        let same = series.len() == self.series.len()
            && series.iter().zip(&self.series).all(|(got, (labels, values))| {
                got.labels == *labels && values.iter().zip(0..).all(|(value, step)| value.is(got.get(step)))
            });
        if !same {
            differences.compare(when, &self.to_string(), &written(&series));
        }
    }
}

/// The answer as cases write it.
fn written(series: &[Series]) -> String {
    let value = |got: Option<f64>| got.map_or_else(|| "_".to_owned(), go::number::format_f);
    let values =
        |series: &Series| (0..series.steps()).map(|step| value(series.get(step))).collect::<Vec<_>>().join(" ");
    let lines: Vec<_> = series.iter().map(|series| format!("\n== {} {}", series.labels, values(series))).collect();
    if lines.is_empty() { "\n== nothing".to_owned() } else { lines.concat() }
}

impl std::fmt::Display for Wanted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.series.is_empty() {
            f.write_str("\n== nothing")?;
        }
        for (labels, values) in &self.series {
            write!(f, "\n== {labels}")?;
            for value in values {
                match value {
                    Value::Absent => f.write_str(" _")?,
                    Value::Exactly(value) => write!(f, " {}", go::number::format_f(*value))?,
                    Value::About(text) => write!(f, " ~{text}")?,
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn series(labels: &str, values: &[Option<f64>]) -> Series {
        let pairs = crate::cases::labels(labels).into_iter().map(|(name, value)| (name.into(), value.into())).collect();
        let mut series = Series::empty(Labels::keeping_empty(pairs), values.len() as u32);
        values.iter().zip(0..).for_each(|(value, step)| value.iter().for_each(|value| series.set(step, *value)));
        series
    }

    /// What is told when a case wants `want` and gets `got`.
    fn told(want: &[(&str, &str)], got: Result<Vec<Series>, String>, ordered: bool) -> String {
        let want: Vec<_> = want.iter().map(|(marker, text)| ((*marker).to_owned(), (*text).to_owned())).collect();
        let mut differences = Differences { place: String::new(), query: String::new(), found: String::new() };
        wanted(&mut want.iter().peekable()).compare("??", got, ordered, &mut differences);
        differences.found
    }

    #[test]
    fn a_wrong_answer_is_told() {
        let a = || series(r#"{x="a"}"#, &[None, Some(1.0), Some(2.0 / 3.0)]);
        let b = || series(r#"{x=""}"#, &[Some(f64::NAN), None, None]);
        let both = [("==", r#"{x="a"} _ 1 ~0.667"#), ("==", r#"{x=""} NaN _ _"#)];
        assert_eq!(told(&both, Ok(vec![a(), b()]), false), "");
        assert_eq!(told(&both, Ok(vec![b(), a()]), false), "");
        assert_eq!(told(&both, Ok(vec![a(), b()]), true), "");
        assert_eq!(told(&[("==", "nothing")], Ok(Vec::new()), false), "");
        assert_eq!(told(&[("!!", "too m…")], Err("too many".into()), false), "");

        for (want, got, ordered) in [
            (both.as_slice(), vec![b(), a()], true),
            (&both, vec![a()], false),
            (&both, vec![a(), b(), a()], false),
            (&[("==", r#"{x="a"} _ 1 0.667"#)], vec![a()], false),
            (&[("==", r#"{x="a"} _ 1 ~0.666"#)], vec![a()], false),
            (&[("==", r#"{x="a"} 0 1 ~0.667"#)], vec![a()], false),
            (&[("==", r#"{x="a"} NaN 1 ~0.667"#)], vec![a()], false),
            (&[("==", "{} NaN _ _")], vec![b()], false),
            (&[("==", r#"{x=""} _ _ _"#)], vec![b()], false),
            (&[("==", "nothing")], vec![b()], false),
            (&[("!!", "too many")], vec![b()], false),
        ] {
            assert_ne!(told(want, Ok(got), ordered), "", "{want:?}");
        }
        assert_ne!(told(&both, Err("too many".into()), false), "");
        assert_ne!(told(&[("!!", "too many")], Err("too few".into()), false), "");
    }

    #[test]
    fn ranges_begin_and_end_at_multiples_of_the_step() {
        let times = |start, end, step| {
            let steps = aligned(start, end, step);
            (0..steps.count).map(|i| steps.time(i).nanos()).collect::<Vec<_>>()
        };
        assert_eq!(times(7, 12, 5), [5, 10, 15]);
        assert_eq!(times(5, 10, 5), [5, 10]);
        assert_eq!(times(-3, -1, 5), [-5, 0]);
    }
}
