//! What is counted of reading history.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use tailwater_wire::node::BlocksScanned;

/// What is kept and fetched of blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Footer,
    Index,
    Grams,
    Columns,
    Page,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByPart {
    part: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByReason {
    reason: &'static str,
}

/// Counters; cheap to clone.
#[derive(Clone, Debug, Default)]
pub(super) struct Metrics {
    hits: Family<ByPart, Counter>,
    misses: Family<ByPart, Counter>,
    evictions: Counter,
    cached_bytes: Gauge,
    blocks: Counter,
    pages: Counter,
    pruned: Family<ByReason, Counter>,
    fetched_bytes: Counter,
    damaged: Family<ByReason, Counter>,
}

impl Kind {
    fn by(self) -> ByPart {
        let part = match self {
            Self::Footer => "footer",
            Self::Index => "index",
            Self::Grams => "grams",
            Self::Columns => "columns",
            Self::Page => "page",
        };
        ByPart { part }
    }
}

impl Metrics {
    pub(super) fn hit(&self, kind: Kind) {
        self.hits.get_or_create(&kind.by()).inc();
    }

    pub(super) fn miss(&self, kind: Kind) {
        self.misses.get_or_create(&kind.by()).inc();
    }

    pub(super) fn evicted(&self) {
        self.evictions.inc();
    }

    pub(super) fn kept(&self, bytes: usize) {
        self.cached_bytes.inc_by(i64::try_from(bytes).unwrap_or(i64::MAX));
    }

    pub(super) fn let_go(&self, bytes: usize) {
        self.cached_bytes.dec_by(i64::try_from(bytes).unwrap_or(i64::MAX));
    }

    /// A part that cannot be used: `reason` is `corrupt` or `missing`.
    pub(super) fn damaged(&self, reason: &'static str) {
        self.damaged.get_or_create(&ByReason { reason }).inc();
    }

    /// What a search has looked at.
    pub(super) fn searched(&self, scanned: &BlocksScanned) {
        self.blocks.inc_by(scanned.blocks);
        self.pages.inc_by(scanned.pages);
        self.fetched_bytes.inc_by(scanned.fetched_bytes);
        for (reason, pages) in [
            ("streams", scanned.pruned_by_streams),
            ("fields", scanned.pruned_by_fields),
            ("grams", scanned.pruned_by_grams),
        ] {
            if pages > 0 {
                self.pruned.get_or_create(&ByReason { reason }).inc_by(pages);
            }
        }
    }

    pub(super) fn register(&self, registry: &mut Registry) {
        let r = registry.sub_registry_with_prefix("tailwater_history");
        r.register("cache_hits", "Parts of blocks that were in the cache", self.hits.clone());
        r.register("cache_misses", "Parts of blocks that had to be fetched", self.misses.clone());
        r.register("cache_evictions", "Parts of blocks that left the cache for others", self.evictions.clone());
        r.register("cache_bytes", "Bytes in the cache", self.cached_bytes.clone());
        r.register("blocks_opened", "Blocks that queries opened", self.blocks.clone());
        r.register("pages_read", "Pages that queries read", self.pages.clone());
        r.register(
            "pages_pruned",
            "Pages that queries did not have to read, by what ruled them out",
            self.pruned.clone(),
        );
        r.register("fetched_bytes", "Bytes that queries fetched from the object store", self.fetched_bytes.clone());
        let damaged = "Parts of blocks that queries could not use: their checksum is wrong, or the object is gone";
        r.register("damaged_parts", damaged, self.damaged.clone());
    }
}
