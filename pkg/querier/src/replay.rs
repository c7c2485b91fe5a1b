//! Lines read from the logs for one session alone: its history ([`crate::history`]), and what it has not had ([`crate::catch_up`]).

use std::collections::VecDeque;
use std::pin::Pin;

use bytes::Bytes;
use tailwater_wire::node::MatchedLine;

use crate::source::SourceId;
use crate::tenant_labels::TenantLabels;

/// Lines on their way to a frame of a session alone.
pub(crate) type Own = VecDeque<(MatchedLine, Bytes)>;

/// A read that is under way.
pub(crate) type Reading<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// The line with the labels under which it leaves.
pub(crate) fn named(tenant_labels: &mut Option<TenantLabels>, source: SourceId, mut line: MatchedLine) -> MatchedLine {
    if let Some(known) = tenant_labels {
        line.labels = known.add(source, &line.labels);
    }
    line
}
