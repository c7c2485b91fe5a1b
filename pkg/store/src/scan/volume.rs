//! How many bytes streams hold, step by step: counted from batches and pages, so that the answer is exact.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use tailwater_model::{Labels, Timestamp};
use tailwater_wire::node::{NodeError, Partial, StreamVolume, VolumeRequest};

use super::streams::{Held, for_each_run};
use super::wanted::Told;
use super::{Cancel, Source};

/// When the step of a time within the range ends.
pub(super) fn end_of_step(time: i64, end: i64, step: Option<i64>) -> i64 {
    match step {
        // The end of the range belongs to the last step, also where it would begin another.
        Some(step) if time < end => {
            let next = time.div_euclid(step.max(1)).saturating_add(1).saturating_mul(step.max(1));
            next.min(end)
        }
        _ => end,
    }
}

/// See [`tailwater_wire::node::Node::volume`].
///
/// # Errors
/// [`NodeError::Unavailable`] if something cannot be reached.
pub fn volume(
    source: &dyn Source,
    request: &VolumeRequest,
    cancel: &Cancel,
) -> Result<Partial<Vec<StreamVolume>>, NodeError> {
    let series = &request.series;
    let (start, end) = (series.start.nanos(), series.end.nanos());
    let mut streams: HashMap<u64, (Labels, BTreeMap<i64, u64>)> = HashMap::new();
    let asked = (Told::Volume(request.step), Arc::default(), false);
    let warnings = for_each_run(source, &series.matchers, (series.start, series.end), asked, cancel, |held| {
        // Consecutive entries are mostly of one step.
        let mut current: Option<(i64, u64)> = None;
        let stream = held.stream();
        let mut add = |step: i64, bytes: u64| {
            let (_, steps) = streams.entry(stream.id).or_insert_with(|| (stream.labels.clone(), BTreeMap::new()));
            *steps.entry(step).or_default() += bytes;
        };
        let mut count = |timestamp: i64, bytes: u64| {
            if !(start..=end).contains(&timestamp) {
                return;
            }
            let step = end_of_step(timestamp, end, request.step);
            match &mut current {
                Some((of, sum)) if *of == step => *sum += bytes,
                _ => {
                    if let Some((of, sum)) = current.replace((step, bytes)) {
                        add(of, sum);
                    }
                }
            }
        };
        match &held {
            Held::Run(batch, run) => batch.entries(run).iter().for_each(|e| count(e.timestamp, batch.bytes(e))),
            Held::Page(page) => match &page.columns {
                // All of it is of one step.
                None => count(page.info.min, page.info.bytes),
                Some(columns) => {
                    columns.times.iter().zip(&columns.lengths).for_each(|(time, len)| count(*time, (*len).into()));
                }
            },
        }
        if let Some((of, sum)) = current {
            add(of, sum);
        }
    })?;
    // A stream that was forgotten and came back has two ids.
    let mut merged: BTreeMap<Labels, BTreeMap<i64, u64>> = BTreeMap::new();
    for (labels, steps) in streams.into_values() {
        let of_stream = merged.entry(labels).or_default();
        for (step, bytes) in steps {
            *of_stream.entry(step).or_default() += bytes;
        }
    }
    let volume = |(labels, steps): (Labels, BTreeMap<i64, u64>)| StreamVolume {
        labels,
        bytes: steps.into_iter().map(|(step, bytes)| (Timestamp(step), bytes)).collect(),
    };
    Ok(Partial { value: merged.into_iter().map(volume).collect(), warnings })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_end_at_multiples_and_with_the_range() {
        for (time, end) in [(-11, -10), (-10, 0), (0, 10), (9, 10), (10, 20), (29, 30), (30, 31), (31, 31)] {
            assert_eq!(end_of_step(time, 31, Some(10)), end, "{time}");
        }
        assert_eq!(end_of_step(30, 30, Some(10)), 30, "no step of its own for the end");
        assert_eq!(end_of_step(5, 31, None), 31);
        assert_eq!(end_of_step(i64::MAX - 1, i64::MAX, Some(i64::MAX)), i64::MAX);
        assert_eq!(end_of_step(i64::MIN, i64::MAX, Some(3)) % 3, 0);
    }
}
