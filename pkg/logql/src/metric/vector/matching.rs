//! Which series of two operands belong together, and what comes of them (contract, LogQL §13.2).
//!
//! Series match if their *signatures* are equal: the labels named by `on`, or all but those named by `ignoring`, without those
//! that have no value. Signatures are made once per series. Whether there is a match, and whether there are too many, is asked
//! per step: two series of one signature that never have a value at the same step are no duplicates.

use hashbrown::HashMap;
use tailwater_model::Labels;

use super::binary::Operator;
use super::error::EvaluationError;
use super::rows::{Row, map, restricted};
use crate::ast::{GroupSide, VectorMatching};
use crate::metric::{Series, Steps};

/// Most values, with those that are absent, of the result of a match that has more series than its operands: included labels
/// may change from step to step, and each time it is another series.
pub(super) const MAX_PAIRED_VALUES: usize = 1 << 24;

fn signature(labels: &Labels, matching: &VectorMatching) -> Labels {
    restricted(labels, |name, value| !value.is_empty() && named(&matching.labels, name) == matching.on)
}

fn named(names: &[String], name: &str) -> bool {
    names.iter().any(|n| n == name)
}

/// For each signature, whether a series has a value, step by step.
fn presence(series: &[Series], matching: &VectorMatching, steps: Steps) -> HashMap<Labels, Vec<bool>> {
    let mut present: HashMap<Labels, Vec<bool>> = HashMap::new();
    for one in series {
        let at = present.entry(signature(&one.labels, matching)).or_insert_with(|| vec![false; steps.count as usize]);
        for (step, _) in one.iter() {
            if let Some(at) = at.get_mut(step as usize) {
                *at = true;
            }
        }
    }
    present
}

/// `and` (`wanted`) and `unless`: the left series, where there is a match on the right or none.
pub(super) fn with_match(
    left: Vec<Series>,
    right: &[Series],
    matching: &VectorMatching,
    steps: Steps,
    wanted: bool,
) -> Vec<Series> {
    let present = presence(right, matching, steps);
    let one = |series: Series| {
        let matched = present.get(&signature(&series.labels, matching));
        let is = |step: u32| matched.and_then(|at| at.get(step as usize)).copied().unwrap_or(false);
        map(vec![series], steps, |step, value| (is(step) == wanted).then_some(value))
    };
    left.into_iter().flat_map(one).collect()
}

/// `or`: the left series, then the right ones where there is no match on the left.
pub(super) fn either(
    mut left: Vec<Series>,
    right: Vec<Series>,
    matching: &VectorMatching,
    steps: Steps,
) -> Vec<Series> {
    let more = with_match(right, &left, matching, steps, false);
    left.extend(more);
    left
}

/// Arithmetic and comparisons: pairs of one series on the one side and one or, with `group_left` or `group_right`, many on the
/// other.
///
/// # Errors
/// A match that has more series than it may. If there are several such, at whatever steps, it is unspecified which is told.
pub(super) fn paired(
    operator: Operator,
    left: &[Series],
    right: &[Series],
    matching: &VectorMatching,
    steps: Steps,
) -> Result<Vec<Series>, EvaluationError> {
    let swapped = matching.group == Some(GroupSide::Right);
    let (many, one) = if swapped { (right, left) } else { (left, right) };
    let side = if swapped { "left" } else { "right" };
    let ones = single(one, matching, steps).ok_or(EvaluationError::ManyToMany { side })?;
    let signatures: Vec<Labels> = many.iter().map(|series| signature(&series.labels, matching)).collect();
    let takes_labels = matching.group.is_some() && !matching.include.is_empty();
    let mut results = Results::new(matching, &signatures, many.len() + one.len(), steps);
    for (series, signature) in many.iter().zip(&signatures) {
        let Some(one_side) = ones.get(signature) else { continue };
        // Where results go, by the series of the other side if their labels depend on it.
        let mut places: HashMap<usize, usize> = HashMap::new();
        let mut last: Option<(usize, usize)> = None;
        for (step, value) in series.iter() {
            let Some((with, other)) = one_side.at(step, one) else { continue };
            let key = if takes_labels { with } else { 0 };
            let place = match last {
                Some((known, place)) if known == key => place,
                _ => {
                    let place = match places.get(&key) {
                        Some(place) => *place,
                        None => results.place(series, signature, one.get(with))?,
                    };
                    places.insert(key, place);
                    last = Some((key, place));
                    place
                }
            };
            let (l, r) = if swapped { (other, value) } else { (value, other) };
            // A comparison keeps the left value, even of the side that has one series for many.
            results.set(place, step, operator.apply(l, r, l))?;
        }
    }
    Ok(results.into_series())
}

/// The series of one signature on the side that has one per step.
enum OneSide {
    /// There is one series, at this place.
    Same(usize),
    /// There are several: the place of the one with a value, step by step.
    Changing(Vec<Option<usize>>),
}

impl OneSide {
    /// The series at a step, and its value.
    fn at(&self, step: u32, series: &[Series]) -> Option<(usize, f64)> {
        let at = match self {
            Self::Same(at) => *at,
            Self::Changing(places) => places.get(step as usize).copied().flatten()?,
        };
        Some((at, series.get(at)?.get(step)?))
    }
}

/// The series by signature; `None` if at some step two have the same.
fn single(series: &[Series], matching: &VectorMatching, steps: Steps) -> Option<HashMap<Labels, OneSide>> {
    let mut members: HashMap<Labels, Vec<usize>> = HashMap::new();
    for (at, one) in series.iter().enumerate() {
        members.entry(signature(&one.labels, matching)).or_default().push(at);
    }
    let mut sides = HashMap::with_capacity(members.len());
    for (signature, members) in members {
        if let [at] = *members {
            sides.insert(signature, OneSide::Same(at));
            continue;
        }
        let mut places: Vec<Option<usize>> = vec![None; steps.count as usize];
        for at in members {
            for (step, _) in series.get(at)?.iter() {
                let Some(place) = places.get_mut(step as usize) else { continue };
                if place.replace(at).is_some() {
                    return None;
                }
            }
        }
        sides.insert(signature, OneSide::Changing(places));
    }
    Some(sides)
}

/// The results of a match, by labels.
struct Results<'a> {
    matching: &'a VectorMatching,
    steps: Steps,
    /// How many there may be.
    most: usize,
    /// How many series of the side with many there are per signature.
    many: HashMap<&'a Labels, usize>,
    places: HashMap<Labels, usize>,
    rows: Vec<ResultRow>,
}

struct ResultRow {
    labels: Labels,
    row: Row,
    /// At which steps there was a match, also where a comparison left no value; empty if nothing else can have these labels.
    matched: Vec<bool>,
}

impl<'a> Results<'a> {
    fn new(matching: &'a VectorMatching, signatures: &'a [Labels], operands: usize, steps: Steps) -> Self {
        let mut many: HashMap<&Labels, usize> = HashMap::new();
        for signature in signatures {
            *many.entry(signature).or_default() += 1;
        }
        let most = operands.max(MAX_PAIRED_VALUES / (steps.count as usize).max(1));
        Self { matching, steps, most, many, places: HashMap::new(), rows: Vec::new() }
    }

    /// Where results of a pair go.
    fn place(&mut self, many: &Series, signature: &Labels, one: Option<&Series>) -> Result<usize, EvaluationError> {
        // Only series of the same signature can have the same result labels: what makes up the signature is equal on both
        // sides, so that including it changes nothing.
        let labels = match (self.matching.group, one) {
            (Some(_), Some(one)) => grouped_labels(&many.labels, &one.labels, self.matching),
            _ => signature.clone(),
        };
        if let Some(place) = self.places.get(&labels) {
            return Ok(*place);
        }
        if self.rows.len() >= self.most {
            return Err(EvaluationError::TooManyPairs);
        }
        let alone = self.many.get(signature).is_none_or(|&many| many == 1);
        let matched = if alone { Vec::new() } else { vec![false; self.steps.count as usize] };
        self.places.insert(labels.clone(), self.rows.len());
        self.rows.push(ResultRow { labels, row: Row::default(), matched });
        Ok(self.rows.len() - 1)
    }

    /// Sets what a pair gives at a step, `None` if nothing.
    fn set(&mut self, place: usize, step: u32, value: Option<f64>) -> Result<(), EvaluationError> {
        let Some(result) = self.rows.get_mut(place) else { return Ok(()) };
        if let Some(matched) = result.matched.get_mut(step as usize)
            && std::mem::replace(matched, true)
        {
            return Err(match self.matching.group {
                None => EvaluationError::ManyToOne,
                Some(_) => EvaluationError::NotUnique,
            });
        }
        if let Some(value) = value {
            result.row.set(&result.labels, self.steps, step, value);
        }
        Ok(())
    }

    fn into_series(self) -> Vec<Series> {
        self.rows.into_iter().filter_map(|result| result.row.into_series()).collect()
    }
}

/// The labels of the side that has many series, with the included ones of the side that has one.
fn grouped_labels(many: &Labels, one: &Labels, matching: &VectorMatching) -> Labels {
    let own = many.iter().filter(|(name, _)| !named(&matching.include, name));
    let included = one.iter().filter(|(name, _)| named(&matching.include, name));
    Labels::from_pairs(own.chain(included).map(|(n, v)| (n.into(), v.into())).collect())
}
