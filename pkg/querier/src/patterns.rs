//! Patterns of lines over every ingester and tenant.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use tailwater_logql::patterns::Pattern;
use tailwater_wire::node::{Part, Partial, PatternsRequest, SeriesRequest, warn};

use crate::{Error, MetaRequest, Querier};

/// Most patterns of an answer.
pub const MAX_PATTERNS: usize = 300;

/// Most patterns that an ingester is asked for: what is rare there may be frequent elsewhere.
const MAX_NODE_PATTERNS: usize = 4 * MAX_PATTERNS;

impl Querier {
    /// The patterns of the lines, at most [`MAX_PATTERNS`], those with the most lines first; `step`, in nanoseconds and positive,
    /// is what lines are counted by.
    ///
    /// # Errors
    /// As [`Querier::labels`].
    pub async fn patterns(&self, request: &MetaRequest, step: i64) -> Result<Partial<Vec<Pattern>>, Error> {
        let mut warnings = Vec::new();
        let mut found: BTreeMap<(String, String), BTreeMap<i64, u64>> = BTreeMap::new();
        for (tenant, matchers) in self.per_tenant(request)? {
            let limits = self.limits().limits(&tenant);
            let asked = PatternsRequest {
                series: SeriesRequest { tenant, part: Part::Whole, matchers, start: request.start, end: request.end },
                step,
                detect_level: limits.discover_log_levels && limits.allow_structured_metadata,
                limit: MAX_NODE_PATTERNS,
            };
            let request_of =
                |part| PatternsRequest { series: SeriesRequest { part, ..asked.series.clone() }, ..asked.clone() };
            let asked = self.ask(|node, part| node.patterns(request_of(part))).await?;
            warn(&mut warnings, asked.warnings);
            for part in asked.parts {
                for pattern in part.take(&mut warnings) {
                    let samples = found.entry((pattern.text, pattern.level)).or_default();
                    for (step, count) in pattern.samples {
                        *samples.entry(step).or_default() += count;
                    }
                }
            }
        }
        let pattern = |((text, level), samples): ((String, String), BTreeMap<_, _>)| Pattern {
            text,
            level,
            samples: samples.into_iter().collect(),
        };
        let mut patterns: Vec<_> = found.into_iter().map(pattern).collect();
        patterns.sort_by_cached_key(|pattern| Reverse(pattern.count()));
        patterns.truncate(MAX_PATTERNS);
        Ok(Partial { value: patterns, warnings })
    }
}
