//! The reading side: live feeds and the sessions on them, and historic queries, over every ingester there is.
//!
//! The way of a line: a node's follow stream → [`merge`] (time order within `delay_for`) → a *feed* encodes it once into a
//! frame of its ring → every *session* on the feed hands the same bytes to its socket. [`mark`] says how history joins live and how a
//! session that fell behind catches up, exactly; [`had`] and [`resume`] how one goes on elsewhere. What a feed follows comes and goes:
//! [`follows`]. Metric queries are tailed, too: [`metric_tail`].

mod away;
#[cfg(test)]
mod away_tests;
mod busy;
mod catch_up;
mod detected;
mod error;
mod feed;
mod follows;
mod had;
mod history;
mod logs;
mod mark;
mod merge;
mod meta;
mod metric;
mod metric_tail;
mod metrics;
mod outside;
mod patterns;
mod place;
mod querier;
mod range;
mod replay;
mod resume;
#[cfg(test)]
mod resume_tests;
mod ring;
mod session;
#[cfg(test)]
mod session_tests;
mod source;
mod tenant_labels;
#[cfg(test)]
mod tenant_tests;
#[cfg(test)]
mod testing;
mod view;
#[cfg(test)]
mod view_tests;
mod volume;

pub use busy::busy;
pub use detected::DetectedLabel;
pub use error::{Error, Kind};
pub use logs::{LogsAnswer, LogsRequest, TENANT_LABEL};
pub use meta::MetaRequest;
pub use metric::{MetricAnswer, MetricRequest, check_metric};
pub use metric_tail::{MetricSession, MetricTailRequest};
pub use patterns::MAX_PATTERNS;
pub use querier::{Config, Fixed, Nodes, OnSlow, Querier, Resume, Resumption, TailRequest};
pub use range::check_range;
pub use session::{EndReason, Ledger, Session, SessionEvent, TailInfo};
pub use volume::{Volume, VolumeBy, VolumeRequest};
