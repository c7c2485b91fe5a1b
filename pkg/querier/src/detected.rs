//! What can be told of lines without knowing them: labels worth a filter, and the fields of the newest lines (contract, Loki API
//! §1.3).

use std::collections::{BTreeMap, BTreeSet};

use tailwater_logql::fields::{Field, FieldValues, Fields};
use tailwater_logql::go::number;
use tailwater_wire::node::SeriesRequest;

use crate::{Error, LogsRequest, MetaRequest, Querier, busy};

/// Labels that are told whatever their values are.
const ALWAYS: [&str; 4] = ["cluster", "namespace", "instance", "pod"];

/// Lines that are read for their fields before others get the thread.
const LINES_PER_SLICE: usize = 64;

/// A label and how many values it has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DetectedLabel {
    /// Its name.
    pub name: String,
    /// Its number of values.
    pub cardinality: u64,
}

impl Querier {
    /// The labels of the streams that are worth a filter, sorted by name: not those whose values are all numbers or UUIDs.
    ///
    /// # Errors
    /// As [`Querier::labels`].
    pub async fn detected_labels(&self, request: &MetaRequest) -> Result<Vec<DetectedLabel>, Error> {
        let mut labels: BTreeMap<String, BTreeSet<Box<str>>> = BTreeMap::new();
        for (tenant, matchers) in self.per_tenant(request)? {
            let asked = SeriesRequest {
                tenant,
                part: tailwater_wire::node::Part::Whole,
                matchers,
                start: request.start,
                end: request.end,
            };
            // The answer has no place for warnings, as in Loki.
            for (name, value) in self.streams(&asked, &mut Vec::new()).await?.iter().flat_map(|stream| stream.iter()) {
                match labels.get_mut(name) {
                    Some(values) => drop(values.insert(value.into())),
                    None => drop(labels.insert(name.to_owned(), BTreeSet::from([value.into()]))),
                }
            }
        }
        labels.retain(|name, values| is_telling(name, values));
        let label = |(name, values): (String, BTreeSet<_>)| DetectedLabel { name, cardinality: values.len() as u64 };
        Ok(labels.into_iter().map(label).collect())
    }

    /// The fields of the lines of a query, at most `limit`; sorted by name.
    ///
    /// # Errors
    /// As [`Querier::select_logs`].
    pub async fn detected_fields(&self, request: LogsRequest, limit: usize) -> Result<Vec<Field>, Error> {
        let lines = self.select_logs(request).await?.lines;
        let mut fields = Fields::new(limit);
        for slice in lines.chunks(LINES_PER_SLICE) {
            busy(|| slice.iter().for_each(|(line, text)| fields.add(&line.labels, text)));
            tokio::task::yield_now().await;
        }
        Ok(fields.finish())
    }

    /// The values of a field of the lines of a query, at most `limit`; sorted.
    ///
    /// # Errors
    /// As [`Querier::select_logs`].
    pub async fn field_values(&self, request: LogsRequest, name: &str, limit: usize) -> Result<Vec<String>, Error> {
        let lines = self.select_logs(request).await?.lines;
        let mut values = FieldValues::new(name, limit);
        for slice in lines.chunks(LINES_PER_SLICE) {
            if !busy(|| slice.iter().all(|(line, text)| values.add(&line.labels, text))) {
                break;
            }
            tokio::task::yield_now().await;
        }
        Ok(values.finish())
    }
}

/// Whether a label is worth a filter: not if all it has are numbers and UUIDs, unless it is a switch.
fn is_telling(name: &str, values: &BTreeSet<Box<str>>) -> bool {
    let is_switch = || values.iter().all(|value| matches!(value.as_ref(), "0" | "1"));
    let is_id = |value: &str| number::parse_float(value).is_ok() || is_uuid(value);
    ALWAYS.contains(&name) || is_switch() || !values.iter().all(|value| is_id(value))
}

/// Whether it is a UUID, as `urn:uuid:…`, in braces, plain, or without hyphens.
fn is_uuid(text: &str) -> bool {
    let plain = |text: &str| {
        let hyphen = |at: usize| matches!(at, 8 | 13 | 18 | 23);
        text.len() == 36
            && text.bytes().enumerate().all(|(at, b)| if hyphen(at) { b == b'-' } else { b.is_ascii_hexdigit() })
    };
    match text.len() {
        32 => text.bytes().all(|b| b.is_ascii_hexdigit()),
        38 => text.strip_prefix('{').and_then(|text| text.strip_suffix('}')).is_some_and(plain),
        45 => {
            text.get(..9).is_some_and(|urn| urn.eq_ignore_ascii_case("urn:uuid:")) && text.get(9..).is_some_and(plain)
        }
        _ => plain(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_uuids_tell_nothing() {
        let telling = |name: &str, values: &[&str]| is_telling(name, &values.iter().map(|v| (*v).into()).collect());
        let uuid = "751e8ee6-b377-4b2e-b7b5-5508fbe980ef";
        assert!(!telling("code", &["200", "404"]));
        assert!(!telling(
            "id",
            &[uuid, "1e3", &uuid.replace('-', ""), &format!("urn:uuid:{uuid}"), &format!("{{{uuid}}}")]
        ));
        assert!(telling("id", &[uuid, "x"]));
        assert!(
            telling("id", &["751e8ee6-b377-4b2e-b7b5-5508fbe980eg"])
                && telling("id", &["751e8ee6_b377-4b2e-b7b5-5508fbe980ef"])
        );
        assert!(telling("pod", &["1", "2"]) && telling("cluster", &["7"]));
        assert!(telling("switch", &["0", "1"]) && telling("switch", &["1"]) && !telling("switch", &["0", "2"]));
        assert!(telling("ä", &["ääääääääääääääääääääääääääääääääääääää"]));
    }
}
