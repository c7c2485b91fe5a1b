//! How much streams hold, summed up by labels (contract, Loki API §1.3).
//!
//! Invariants: a stream counts once for each of its groups; the sum over the steps of a group is what it holds in the range; of
//! more groups than the limit the largest stay.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use tailwater_model::{Labels, Timestamp};
use tailwater_wire::node::{Part, Partial, SeriesRequest, VolumeRequest as NodeRequest, warn};

use crate::logs::{TENANT_LABEL, stream_with_tenant};
use crate::{Error, MetaRequest, Querier};

/// What streams are summed up by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VolumeBy {
    /// Their values of the labels that are named: by the request, else by the matchers, else all.
    Series,
    /// Each label that they have, or each that the request names.
    Labels,
}

/// Which streams are summed up, and how.
#[derive(Clone, Debug)]
pub struct VolumeRequest {
    /// The streams and the range. One selector.
    pub meta: MetaRequest,
    /// The length of a step in nanoseconds, positive; none: the whole range is one.
    pub step: Option<i64>,
    /// What streams are summed up by.
    pub by: VolumeBy,
    /// The labels that are asked for; streams must have them. Empty: see [`VolumeBy`].
    pub target_labels: Vec<String>,
    /// Most groups to answer.
    pub limit: usize,
    /// Most groups that there may be (`volume_max_series`).
    pub max_series: usize,
}

/// How much a group of streams holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Volume {
    /// The labels of the group; when summed up by label just its name, with an empty value.
    pub labels: Labels,
    /// Bytes in all.
    pub total: u64,
    /// Bytes in each step that has any, by the time that the step ends. Sorted by time.
    pub steps: Vec<(Timestamp, u64)>,
}

/// How the labels of streams lead to groups.
struct Grouping {
    by: VolumeBy,
    /// The labels that count; none: all.
    names: Option<BTreeSet<String>>,
    /// Labels that a stream must have.
    required: Vec<String>,
}

impl Grouping {
    fn new(request: &VolumeRequest) -> Self {
        let matched: BTreeSet<_> = request.meta.selectors.iter().flatten().map(|m| m.name.clone()).collect();
        let targets: BTreeSet<_> = request.target_labels.iter().cloned().collect();
        let required = targets.difference(&matched).cloned().collect();
        let names = match (request.by, targets.is_empty()) {
            (_, false) => Some(targets),
            (VolumeBy::Series, true) => Some(matched).filter(|names| !names.is_empty()),
            (VolumeBy::Labels, true) => None,
        };
        Self { by: request.by, names, required }
    }

    fn names(&self, name: &str) -> bool {
        self.names.as_ref().is_some_and(|names| names.contains(name))
    }

    fn groups(&self, stream: &Labels) -> Vec<Labels> {
        if self.required.iter().any(|name| stream.get(name).is_none()) {
            return Vec::new();
        }
        let counted = stream.iter().filter(|(name, _)| self.names.is_none() || self.names(name));
        match self.by {
            VolumeBy::Series => vec![Labels::from_pairs(counted.map(|(n, v)| (n.into(), v.into())).collect())],
            VolumeBy::Labels => counted.map(|(n, _)| Labels::keeping_empty(vec![(n.into(), "".into())])).collect(),
        }
    }
}

impl Querier {
    /// How much the streams hold, group by group: the largest first, then by the text of their labels.
    ///
    /// # Errors
    /// [`Error::TooManyVolumes`], a selector that does not compile, or an ingester that does not answer.
    pub async fn volume(&self, request: &VolumeRequest) -> Result<Partial<Vec<Volume>>, Error> {
        let mut warnings = Vec::new();
        let grouping = Grouping::new(request);
        // Loki adds tenants up; whoever names the label gets them apart.
        let apart = request.meta.tenants.as_slice().len() > 1 && grouping.names(TENANT_LABEL);
        let mut groups: BTreeMap<Labels, BTreeMap<Timestamp, u64>> = BTreeMap::new();
        for (tenant, matchers) in self.per_tenant(&request.meta)? {
            let (start, end) = (request.meta.start, request.meta.end);
            let series = SeriesRequest { tenant: tenant.clone(), part: Part::Whole, matchers, start, end };
            let request_of =
                |part| NodeRequest { series: SeriesRequest { part, ..series.clone() }, step: request.step };
            let asked = self.ask(|node, part| node.volume(request_of(part))).await?;
            warn(&mut warnings, asked.warnings);
            for part in asked.parts {
                for stream in part.take(&mut warnings) {
                    let labels = if apart { stream_with_tenant(&stream.labels, &tenant) } else { stream.labels };
                    for group in grouping.groups(&labels) {
                        let steps = groups.entry(group).or_default();
                        for (step, bytes) in &stream.bytes {
                            *steps.entry(*step).or_default() += bytes;
                        }
                    }
                    if groups.len() > request.max_series {
                        return Err(Error::TooManyVolumes { limit: request.max_series });
                    }
                }
            }
        }
        let volume = |(labels, steps): (Labels, BTreeMap<_, u64>)| {
            let total = steps.values().sum();
            Volume { labels, total, steps: steps.into_iter().collect() }
        };
        let mut volumes: Vec<_> = groups.into_iter().map(volume).collect();
        volumes.sort_by_cached_key(|volume| (Reverse(volume.total), volume.labels.to_string()));
        volumes.truncate(request.limit);
        Ok(Partial { value: volumes, warnings })
    }
}

#[cfg(test)]
mod tests {
    use tailwater_logql::ast::{MatchOp, Matcher};
    use tailwater_model::{TenantId, TenantIds};

    use super::*;

    fn groups(by: VolumeBy, matched: &[&str], targets: &[&str]) -> Vec<String> {
        let matcher = |name: &&str| Matcher { name: (*name).to_owned(), op: MatchOp::Re, value: ".*".into() };
        let tenants = TenantIds::from(TenantId::parse("t").unwrap());
        let selectors = vec![matched.iter().map(matcher).collect()];
        let request = VolumeRequest {
            meta: MetaRequest { tenants, selectors, start: Timestamp(0), end: Timestamp(1) },
            step: None,
            by,
            target_labels: targets.iter().map(|name| (*name).to_owned()).collect(),
            limit: 10,
            max_series: 10,
        };
        let stream = [("app", "a"), ("env", "x"), ("pod", "1")].map(|(n, v)| (n.into(), v.into()));
        Grouping::new(&request).groups(&Labels::from_pairs(stream.to_vec())).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn streams_are_grouped_by_the_labels_that_are_named() {
        use VolumeBy::{Labels, Series};
        assert_eq!(groups(Series, &["app"], &[]), [r#"{app="a"}"#]);
        assert_eq!(groups(Series, &["pod", "app", "none"], &[]), [r#"{app="a", pod="1"}"#]);
        assert_eq!(groups(Series, &[], &[]), [r#"{app="a", env="x", pod="1"}"#]);
        assert_eq!(groups(Series, &["app"], &["env", "pod"]), [r#"{env="x", pod="1"}"#]);
        assert_eq!(
            groups(Series, &["app"], &["env", "none"]),
            Vec::<String>::new(),
            "it lacks a label that is asked for"
        );
        assert_eq!(groups(Series, &["none"], &["env", "none"]), [r#"{env="x"}"#], "the matcher allows that");
        assert_eq!(groups(Labels, &["app"], &[]), [r#"{app=""}"#, r#"{env=""}"#, r#"{pod=""}"#]);
        assert_eq!(groups(Labels, &["app"], &["pod"]), [r#"{pod=""}"#]);
    }
}
