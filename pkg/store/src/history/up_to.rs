//! Blocks alone as a node that can be asked: of some logs up to a position each, of all others everything.
//!
//! Invariants:
//! * What is answered depends on the boundaries and on what is in blocks, not on when or how it came there, as long as the catalog that is
//!   read is not older than the boundaries.
//! * Lines of `own` bear their positions, all others are answered as from before the beginning.

use std::sync::Arc;
use std::time::Instant;

use futures_util::stream;
use tailwater_logql::patterns::Pattern;
use tailwater_model::{Labels, LogId, TenantId, Timestamp};
use tailwater_wire::node::{
    Answer, Blocks, Follow, FollowRequest, LabelsRequest, LogState, Node, NodeError, Part, Partial, PatternsRequest,
    ReadChunk, ReadRequest, Sampled, SamplesRequest, SelectRequest, Selected, SeriesRequest, StateRequest, Stats,
    StreamVolume, VolumeRequest,
};

use super::{BlockRef, Boundaries, History, Places, boundary_of};
use crate::deletes::Deletion;
use crate::scan::{self, Cancel, Source, Unit};

/// See the module's words.
#[derive(Clone)]
struct UpTo {
    history: History,
    boundaries: Boundaries,
    own: LogId,
    since: Instant,
}

/// The same for one tenant.
struct OfTenant {
    of: UpTo,
    tenant: TenantId,
    /// The own log only.
    alone: bool,
}

impl Blocks for History {
    fn up_to(&self, boundaries: Arc<[(LogId, u64)]>, own: LogId, fresh_since: Instant) -> Arc<dyn Node> {
        let mut sorted = boundaries.to_vec();
        // Of a log that is named twice the lower one holds.
        sorted.sort_unstable();
        sorted.dedup_by_key(|(log, _)| *log);
        Arc::new(UpTo { history: self.clone(), boundaries: sorted.into(), own, since: fresh_since })
    }
}

impl UpTo {
    /// Up to where the own log is read.
    fn boundary(&self) -> u64 {
        boundary_of(&self.boundaries, self.own)
    }

    /// The places after a position of the own log and up to another. `others`: and all those of other logs.
    fn places(&self, after: u64, upto: u64, others: bool) -> Places {
        let upto = upto.min(self.boundary());
        Places { own: self.own, after, upto, earlier: others, boundaries: Arc::clone(&self.boundaries) }
    }

    /// Runs a read where it may block.
    fn search<T: Send + 'static>(
        &self,
        tenant: &TenantId,
        part: Part,
        work: impl FnOnce(&OfTenant, &Cancel) -> Result<T, NodeError> + Send + 'static,
    ) -> Answer<T> {
        let source = OfTenant { of: self.clone(), tenant: tenant.clone(), alone: part != Part::Whole };
        scan::blocking(Arc::clone(&self.history.0.reads), self.own, move |cancel| work(&source, cancel))
    }
}

impl OfTenant {
    /// See [`Node::read`].
    fn read(&self, request: &ReadRequest, cancel: &Cancel) -> Result<ReadChunk, NodeError> {
        let Self { of: UpTo { history, own, since, .. }, tenant, .. } = self;
        let through = request.through.min(self.of.boundary()).max(request.after);
        let places = self.of.places(request.after, through, false);
        // In this order, as every search.
        let deletions = history.deletions(tenant, *own)?;
        let (listed, lost) = history.listed(tenant, (i64::MIN, i64::MAX), &places, Some(*since))?;
        if let Some(Unit::Lost(error)) = lost.first() {
            return Err(NodeError::Unavailable { log: *own, reason: error.to_string() });
        }
        let first = |meta: &crate::catalog::BlockMeta| {
            meta.logs.iter().filter(|covered| covered.log == *own).map(|covered| covered.first).min().unwrap_or(0)
        };
        let mut listed: Vec<_> = listed.iter().map(|meta| (first(meta), BlockRef::of(meta, tenant))).collect();
        listed.sort_by_key(|(first, _)| *first);
        let blocks = listed.into_iter().map(|(first, block)| {
            let unit = move |(after, upto)| history.unit(block.clone(), self.of.places(after, upto, false));
            (first, Box::new(unit) as scan::UnitOf<'_>)
        });
        let stretch = scan::Positions { log: *own, after: request.after, through, blocks: blocks.collect(), deletions };
        scan::read(stretch, request, cancel)
    }
}

impl Source for OfTenant {
    fn log(&self) -> LogId {
        self.of.own
    }

    fn collect(&self, (after, upto): (u64, u64), times: (i64, i64)) -> Result<Vec<Unit>, NodeError> {
        let places = self.of.places(after, upto, after == 0 && !self.alone);
        self.of.history.units_at(&self.tenant, times, &places, Some(self.of.since))
    }

    fn deletions(&self) -> Result<Arc<[Deletion]>, NodeError> {
        self.of.history.deletions(&self.tenant, self.of.own)
    }
}

impl Node for UpTo {
    fn log_id(&self) -> LogId {
        self.own
    }

    fn state(&self, _: StateRequest) -> Answer<LogState> {
        let head = self.boundary();
        let state = LogState { head, whole: head, before: head, in_blocks: head, watermark: Timestamp::MIN };
        Box::pin(std::future::ready(Ok(state)))
    }

    fn follow(&self, _: FollowRequest) -> Follow {
        Box::pin(stream::empty())
    }

    fn read(&self, request: ReadRequest) -> Answer<ReadChunk> {
        let tenant = request.tenant.clone();
        self.search(&tenant, Part::Whole, move |source, cancel| source.read(&request, cancel))
    }

    fn select(&self, request: SelectRequest) -> Answer<Selected> {
        let (tenant, seed) = (request.tenant.clone(), self.history.0.seed);
        self.search(&tenant, request.part, move |source, cancel| scan::select(source, &request, seed, cancel))
    }

    fn samples(&self, request: SamplesRequest) -> Answer<Sampled> {
        let (tenant, seed) = (request.tenant.clone(), self.history.0.seed);
        let through = request.as_of.min(self.boundary());
        let known = Sampled { through, watermark: Timestamp::MIN, ..Sampled::default() };
        self.search(&tenant, request.part, move |source, cancel| scan::samples(source, &request, known, seed, cancel))
    }

    fn labels(&self, request: LabelsRequest) -> Answer<Partial<Vec<String>>> {
        let tenant = request.tenant.clone();
        self.search(&tenant, request.part, move |source, cancel| scan::labels(source, &request, cancel))
    }

    fn series(&self, request: SeriesRequest) -> Answer<Partial<Vec<Labels>>> {
        let tenant = request.tenant.clone();
        self.search(&tenant, request.part, move |source, cancel| scan::series(source, &request, cancel))
    }

    fn stats(&self, request: SeriesRequest) -> Answer<Partial<Stats>> {
        let tenant = request.tenant.clone();
        self.search(&tenant, request.part, move |source, cancel| scan::stats(source, &request, cancel))
    }

    fn volume(&self, request: VolumeRequest) -> Answer<Partial<Vec<StreamVolume>>> {
        let tenant = request.series.tenant.clone();
        self.search(&tenant, request.series.part, move |source, cancel| scan::volume(source, &request, cancel))
    }

    fn patterns(&self, request: PatternsRequest) -> Answer<Partial<Vec<Pattern>>> {
        let tenant = request.series.tenant.clone();
        self.search(&tenant, request.series.part, move |source, cancel| scan::patterns(source, &request, cancel))
    }
}
