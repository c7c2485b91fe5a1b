//! Series on their way from operator to operator.
//!
//! Invariants of what an operator hands on in a range query ([`tidy`]): series are sorted by labels, so that no answer depends
//! on the order in which series were found; and of series with equal labels the first has a value at every step at which a
//! later one has. There are no more of them than have a value at one step: `a or a or a` is no bigger than `a`.
//!
//! In an instant query the order is what `sort` is for, and series stay as an operator made them.

use tailwater_model::Labels;

use crate::metric::{Series, Steps};

/// Whether it is an instant query.
pub(super) fn is_instant(steps: Steps) -> bool {
    steps.step == 0
}

pub(super) fn no_labels() -> Labels {
    Labels::from_pairs(Vec::new())
}

/// The labels that are kept, with those that have an empty value.
pub(super) fn restricted(labels: &Labels, keep: impl Fn(&str, &str) -> bool) -> Labels {
    Labels::keeping_empty(labels.iter().filter(|(n, v)| keep(n, v)).map(|(n, v)| (n.into(), v.into())).collect())
}

/// A series that is made when its first value is.
#[derive(Default)]
pub(super) struct Row(Option<Series>);

impl Row {
    pub(super) fn set(&mut self, labels: &Labels, steps: Steps, step: u32, value: f64) {
        self.0.get_or_insert_with(|| Series::empty(labels.clone(), steps.count)).set(step, value);
    }

    pub(super) fn into_series(self) -> Option<Series> {
        self.0
    }
}

/// The series with other values, without those that have none left.
pub(super) fn map(series: Vec<Series>, steps: Steps, value: impl Fn(u32, f64) -> Option<f64>) -> Vec<Series> {
    let mapped = |series: Series| {
        let mut row = Row::default();
        for (step, old) in series.iter() {
            if let Some(new) = value(step, old) {
                row.set(&series.labels, steps, step, new);
            }
        }
        row.into_series()
    };
    series.into_iter().filter_map(mapped).collect()
}

/// Series as operators of range queries hand them on.
pub(super) fn tidy(mut series: Vec<Series>, steps: Steps) -> Vec<Series> {
    if is_instant(steps) {
        return series;
    }
    if series.is_sorted_by(|a, b| a.labels < b.labels) {
        return series;
    }
    series.sort_by(|a, b| a.labels.cmp(&b.labels));
    let mut out: Vec<Series> = Vec::with_capacity(series.len());
    // The series in `out` with the labels of the last one, and how many of them have a value at each step.
    let (mut first, mut taken) = (0, Vec::new());
    for next in series {
        if out.last().is_none_or(|last| last.labels != next.labels) {
            (first, taken) = (out.len(), Vec::new());
            out.push(next);
            continue;
        }
        if let ([same], true) = (&out[first..], taken.is_empty()) {
            taken = vec![0_usize; steps.count as usize];
            same.iter().for_each(|(step, _)| add_one(&mut taken, step));
        }
        for (step, value) in next.iter() {
            let at = first + taken.get(step as usize).copied().unwrap_or(0);
            if at == out.len() {
                out.push(Series::empty(next.labels.clone(), steps.count));
            }
            out[at].set(step, value);
            add_one(&mut taken, step);
        }
    }
    out
}

fn add_one(taken: &mut [usize], step: u32) {
    if let Some(taken) = taken.get_mut(step as usize) {
        *taken += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tailwater_model::Timestamp;

    #[test]
    fn equal_series_fill_up_each_other_in_their_order() {
        let steps = Steps { start: Timestamp(0), step: 1, count: 4 };
        let series = |name: &str, values: &[(u32, f64)]| {
            let mut series = Series::empty(Labels::from_pairs(vec![("n".into(), name.into())]), 4);
            values.iter().for_each(|(step, value)| series.set(*step, *value));
            series
        };
        let rows = tidy(
            vec![
                series("b", &[(1, 1.0)]),
                series("a", &[(3, 9.0)]),
                series("b", &[(0, 2.0), (1, 3.0)]),
                series("b", &[(1, 4.0), (2, 5.0)]),
            ],
            steps,
        );
        let seen: Vec<(String, Vec<(u32, f64)>)> =
            rows.iter().map(|row| (row.labels.to_string(), row.iter().collect())).collect();
        let b = r#"{n="b"}"#.to_owned();
        assert_eq!(
            seen,
            [
                (r#"{n="a"}"#.to_owned(), vec![(3, 9.0)]),
                (b.clone(), vec![(0, 2.0), (1, 1.0), (2, 5.0)]),
                (b.clone(), vec![(1, 3.0)]),
                (b, vec![(1, 4.0)]),
            ]
        );
    }
}
