//! The patterns of the lines of a time range.

use tailwater_logql::level;
use tailwater_logql::patterns::{Miner, Pattern};
use tailwater_wire::node::{NodeError, Partial, PatternsRequest};

use super::streams::{Held, for_each_run};
use super::wanted::Told;
use super::{Cancel, Source};

/// Lines between looks at the cancel.
const LINES_PER_LOOK: u32 = 1024;

/// See [`tailwater_wire::node::Node::patterns`].
///
/// # Errors
/// [`NodeError::Unavailable`] if something cannot be reached.
pub fn patterns(
    source: &dyn Source,
    request: &PatternsRequest,
    cancel: &Cancel,
) -> Result<Partial<Vec<Pattern>>, NodeError> {
    let series = &request.series;
    let (start, end, step) = (series.start.nanos(), series.end.nanos(), request.step.max(1));
    let mut miner = Miner::default();
    let mut looks = 0;
    let asked = (Told::Lines, source.deletions()?, request.detect_level);
    let range = (series.start, series.end);
    let warnings = for_each_run(source, &series.matchers, range, asked, cancel, |held| {
        let Held::Run(batch, run) = held else { return };
        for entry in batch.entries(run) {
            if !(start..=end).contains(&entry.timestamp) {
                continue;
            }
            looks += 1;
            if looks % LINES_PER_LOOK == 0 && cancel.is_set() {
                return;
            }
            let (line, metadata) = (batch.line(entry), batch.metadata(entry));
            let level = if request.detect_level {
                level::detect(&run.stream.labels, &metadata, line)
            } else {
                metadata.iter().find(|(name, _)| *name == level::NAME).map_or("", |(_, value)| *value)
            };
            miner.add(level, entry.timestamp.div_euclid(step).saturating_mul(step), line);
        }
    })?;
    if cancel.is_set() {
        return Ok(Partial::default());
    }
    let mut patterns = miner.finish();
    patterns.truncate(request.limit);
    Ok(Partial { value: patterns, warnings })
}
