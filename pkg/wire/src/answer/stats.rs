//! The statistics of a query as Loki shows them (contract, Loki API §4.4).
//!
//! The shape is whole, because clients decode it whole. A page of a block is what Loki calls a chunk. What this service does not have (a
//! cache of results, a scheduler) counts zero, which is the truth. What Loki has no word for is in an object of its own, `tailwater`.

use std::time::Duration;

use serde_json::{Value, json};

use crate::node::BlocksScanned;

/// What a query cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Bytes of lines looked at.
    pub bytes: u64,
    /// Lines looked at.
    pub lines: u64,
    /// Lines that passed the pipeline, before the limit.
    pub matched: u64,
    /// Entries, or samples, in the answer.
    pub returned: u64,
    /// From the request to the answer.
    pub took: Duration,
    /// Of that, before the first node was asked.
    pub queued: Duration,
    /// Nodes that answered.
    pub nodes: u64,
    /// Batches of their logs that were looked at.
    pub batches: u64,
    /// What was looked at in blocks.
    pub blocks: BlocksScanned,
}

impl Stats {
    /// Appends the `stats` object.
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        let took = self.took.as_secs_f64();
        let per_second = |n: u64| if took > 0.0 { (n as f64 / took) as u64 } else { 0 };
        let none = Self::default();
        let cache = json!({
            "entriesFound": 0, "entriesRequested": 0, "entriesStored": 0, "bytesReceived": 0, "bytesSent": 0,
            "requests": 0, "downloadTime": 0, "queryLengthServed": 0,
        });
        let caches = [
            "chunk",
            "index",
            "result",
            "statsResult",
            "volumeResult",
            "seriesResult",
            "labelResult",
            "instantMetricResult",
            "logResult",
            "taskResult",
        ];
        let BlocksScanned { blocks, pages, pruned_by_streams, pruned_by_fields, pruned_by_grams, .. } = self.blocks;
        let BlocksScanned { fetched_bytes, fetch_nanos, cache_hits, .. } = self.blocks;
        let all_pages = pages + pruned_by_streams + pruned_by_fields + pruned_by_grams;
        let mut parts: Value = caches.iter().map(|name| ((*name).to_owned(), cache.clone())).collect();
        parts["chunk"]["entriesFound"] = cache_hits.into();
        let stats = json!({
            "summary": {
                "bytesProcessedPerSecond": per_second(self.bytes),
                "linesProcessedPerSecond": per_second(self.lines),
                "totalBytesProcessed": self.bytes,
                "totalLinesProcessed": self.lines,
                "execTime": took,
                "queueTime": self.queued.as_secs_f64(),
                "subqueries": 0,
                "totalEntriesReturned": self.returned,
                "splits": 0,
                "shards": 0,
                "totalPostFilterLines": self.matched,
                "totalStructuredMetadataBytesProcessed": 0,
            },
            "querier": { "store": none.store(), "querierExecTime": took },
            "ingester": {
                "totalReached": self.nodes,
                "totalChunksMatched": self.batches,
                "totalBatches": self.batches,
                "totalLinesSent": self.returned,
                "store": self.store(),
            },
            "cache": parts,
            "index": {
                "totalChunks": all_pages, "postFilterChunks": all_pages - pruned_by_streams, "shardsDuration": 0,
                "usedBloomFilters": false, "totalStreams": 0, "chunkRefsLookupTime": 0, "bloomFilterTime": 0,
            },
            "tailwater": {
                "blocks": blocks,
                "pages": pages,
                "pagesPrunedByStreams": pruned_by_streams,
                "pagesPrunedByFields": pruned_by_fields,
                "pagesPrunedByGrams": pruned_by_grams,
                "fetchedBytes": fetched_bytes,
                "fetchTime": Duration::from_nanos(fetch_nanos).as_secs_f64(),
                "cacheHits": cache_hits,
            },
        });
        out.extend_from_slice(stats.to_string().as_bytes());
    }

    /// What was looked at in memory (the head chunks) and in blocks.
    fn store(&self) -> Value {
        let blocks = &self.blocks;
        json!({
            "totalChunksRef": blocks.pages + blocks.pruned_by_fields + blocks.pruned_by_grams,
            "totalChunksDownloaded": blocks.pages,
            "chunksDownloadTime": blocks.fetch_nanos,
            "queryReferencedStructuredMetadata": false,
            "queryUsedV2Engine": false,
            "chunk": {
                "headChunkBytes": self.bytes.saturating_sub(blocks.decompressed_bytes),
                "headChunkLines": self.lines.saturating_sub(blocks.lines),
                "decompressedBytes": blocks.decompressed_bytes,
                "decompressedLines": blocks.lines,
                "compressedBytes": blocks.compressed_bytes,
                "totalDuplicates": 0,
                "postFilterLines": self.matched,
                "headChunkStructuredMetadataBytes": 0,
                "decompressedStructuredMetadataBytes": 0,
            },
            "chunkRefsFetchTime": 0,
            "congestionControlLatency": 0,
            "pipelineWrapperFilteredLines": 0,
            "dataobj": {},
        })
    }
}
