//! Answers as records, and back; the events of follows as messages, and back.
//!
//! Invariant: an answer is whole: it ends with an [`proto::End`], or it is an error.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use tailwater_logql::metric::Column;
use tailwater_logql::patterns::Pattern;
use tailwater_model::{Labels, Timestamp};
use tailwater_wire::node::{
    BlocksScanned, FollowEvent, Gap, Late, MatchedBatch, MatchedLine, Partial, ReadChunk, Sampled, Scanned, Selected,
    Stats, StreamVolume,
};

use super::lines::{LineReader, LineWriter, lengths, texts};
use super::pieces::Records;
use super::proto::record::What;
use super::{Garbled, proto};

/// Most lines of a record.
const RECORD_LINES: usize = 1024;

/// Text after which a record has enough lines, in bytes.
const RECORD_TEXT_BYTES: usize = 1 << 20;

/// Most names of a record.
const RECORD_NAMES: usize = 1024;

fn put_gap(gap: Gap) -> proto::Gap {
    let Gap { after, through, lines } = gap;
    proto::Gap { after, through, lines }
}

fn gap(gap: proto::Gap) -> Gap {
    let proto::Gap { after, through, lines } = gap;
    Gap { after, through, lines }
}

fn put_pairs(labels: &Labels) -> Vec<proto::LabelPair> {
    labels.iter().map(|(name, value)| proto::LabelPair { name: name.into(), value: value.into() }).collect()
}

fn labels(pairs: Vec<proto::LabelPair>) -> Labels {
    Labels::keeping_empty(pairs.into_iter().map(|pair| (pair.name.into(), pair.value.into())).collect())
}

fn put_lines(batch: &MatchedBatch, writer: &mut LineWriter) -> proto::MatchedLines {
    proto::MatchedLines {
        through: batch.through,
        watermark: batch.watermark.0,
        text: batch.text.clone(),
        lines: writer.write(batch.lines.iter()).into(),
    }
}

fn lines(batch: proto::MatchedLines, reader: &mut LineReader) -> Result<MatchedBatch, Garbled> {
    Ok(MatchedBatch {
        through: batch.through,
        watermark: Timestamp(batch.watermark),
        lines: reader.read(&batch.lines, Some(batch.text.len()))?,
        text: batch.text,
    })
}

/// An event of a follow as a message.
pub(super) fn put_event(event: &FollowEvent, writer: &mut LineWriter) -> proto::FollowEvent {
    use proto::follow_event::What;
    let what = match event {
        FollowEvent::Lines(batch) => What::Lines(put_lines(batch, writer)),
        FollowEvent::Idle { through, watermark } => {
            What::Idle(proto::Idle { through: *through, watermark: watermark.0 })
        }
        FollowEvent::Gap(gap) => What::Gap(put_gap(*gap)),
        FollowEvent::Away { reason } => What::Away(reason.as_ref().to_owned()),
    };
    proto::FollowEvent { what: Some(what) }
}

/// What a message says, if it is not a part of one.
pub(super) fn event(event: proto::FollowEvent, reader: &mut LineReader) -> Result<FollowEvent, Garbled> {
    use proto::follow_event::What;
    Ok(match event.what {
        Some(What::Lines(batch)) => {
            let batch = lines(batch, reader)?;
            if batch.lines.is_empty() {
                return Err(Garbled("lines without lines"));
            }
            FollowEvent::Lines(Arc::new(batch))
        }
        Some(What::Idle(idle)) => FollowEvent::Idle { through: idle.through, watermark: Timestamp(idle.watermark) },
        Some(What::Gap(one)) => FollowEvent::Gap(gap(one)),
        Some(What::Away(reason)) => FollowEvent::Away { reason: reason.into() },
        Some(What::Part(_)) | None => return Err(Garbled("an unknown event")),
    })
}

fn put_scanned(scanned: Scanned) -> proto::Scanned {
    let Scanned { lines, bytes, matched, batches, blocks } = scanned;
    proto::Scanned {
        lines,
        bytes,
        matched,
        batches,
        blocks: blocks.blocks,
        pages: blocks.pages,
        pruned_by_streams: blocks.pruned_by_streams,
        pruned_by_fields: blocks.pruned_by_fields,
        pruned_by_grams: blocks.pruned_by_grams,
        fetched_bytes: blocks.fetched_bytes,
        fetch_nanos: blocks.fetch_nanos,
        cache_hits: blocks.cache_hits,
        compressed_bytes: blocks.compressed_bytes,
        decompressed_bytes: blocks.decompressed_bytes,
        block_lines: blocks.lines,
    }
}

fn scanned(scanned: Option<proto::Scanned>) -> Scanned {
    // Sums of many must not overflow, whatever a peer says.
    let sane = |number: u64| number.min(1 << 56);
    let scanned = scanned.unwrap_or_default();
    Scanned {
        lines: sane(scanned.lines),
        bytes: sane(scanned.bytes),
        matched: sane(scanned.matched),
        batches: sane(scanned.batches),
        blocks: BlocksScanned {
            blocks: sane(scanned.blocks),
            pages: sane(scanned.pages),
            pruned_by_streams: sane(scanned.pruned_by_streams),
            pruned_by_fields: sane(scanned.pruned_by_fields),
            pruned_by_grams: sane(scanned.pruned_by_grams),
            fetched_bytes: sane(scanned.fetched_bytes),
            fetch_nanos: sane(scanned.fetch_nanos),
            cache_hits: sane(scanned.cache_hits),
            compressed_bytes: sane(scanned.compressed_bytes),
            decompressed_bytes: sane(scanned.decompressed_bytes),
            lines: sane(scanned.block_lines),
        },
    }
}

fn end(warnings: Vec<String>) -> What {
    What::End(proto::End { warnings, ..Default::default() })
}

fn before_end(records: impl Iterator<Item = What> + Send + 'static, end: What) -> Records {
    Box::new(records.chain(std::iter::once(end)))
}

pub(super) fn put_chunk(chunk: &ReadChunk) -> Records {
    let record = proto::ChunkRecord {
        through: chunk.through,
        gap: chunk.gap.map(put_gap),
        batch: Some(put_lines(&chunk.batch, &mut LineWriter::default())),
    };
    before_end(std::iter::once(What::Chunk(record)), end(Vec::new()))
}

pub(super) fn put_selected(selected: Selected) -> Records {
    let Selected { lines, warnings, scanned } = selected;
    let end = What::End(proto::End { warnings, scanned: Some(put_scanned(scanned)), ..Default::default() });
    let (mut rest, mut writer) = (lines.into_iter(), LineWriter::default());
    let records = std::iter::from_fn(move || {
        let (mut some, mut bytes) = (Vec::new(), 0);
        while some.len() < RECORD_LINES
            && bytes < RECORD_TEXT_BYTES
            && let Some(line) = rest.next()
        {
            bytes += line.1.len();
            some.push(line);
        }
        if some.is_empty() {
            return None;
        }
        let mut text = BytesMut::with_capacity(bytes);
        some.iter().for_each(|(_, line)| text.extend_from_slice(line));
        Some(What::Lines(proto::LinesRecord {
            lines: writer.write(some.iter().map(|(line, _)| line)).into(),
            lengths: lengths(some.iter().map(|(_, text)| text.len())).into(),
            text: text.freeze(),
        }))
    });
    before_end(records, end)
}

pub(super) fn put_sampled(sampled: Sampled) -> Records {
    let Sampled { series, through, watermark, gap, late, warnings, scanned } = sampled;
    let end = What::End(proto::End {
        warnings,
        scanned: Some(put_scanned(scanned)),
        through,
        watermark: watermark.0,
        gap: gap.map(put_gap),
        late_lines: late.lines,
        late_oldest: late.oldest.0,
    });
    let records = series.into_iter().map(|(labels, column)| {
        let mut bytes = Vec::new();
        column.put(&mut bytes);
        What::Column(proto::ColumnRecord { labels: put_pairs(&labels), column: bytes.into() })
    });
    before_end(records, end)
}

pub(super) fn put_names(names: Partial<Vec<String>>) -> Records {
    let mut rest = names.value.into_iter();
    let records = std::iter::from_fn(move || {
        let names: Vec<_> = rest.by_ref().take(RECORD_NAMES).collect();
        (!names.is_empty()).then_some(What::Names(proto::NamesRecord { names }))
    });
    before_end(records, end(names.warnings))
}

pub(super) fn put_streams(streams: Partial<Vec<Labels>>) -> Records {
    let records = streams
        .value
        .into_iter()
        .map(|labels| What::Stream(proto::StreamRecord { labels: put_pairs(&labels), amounts: Vec::new() }));
    before_end(records, end(streams.warnings))
}

pub(super) fn put_stats(stats: Partial<Stats>) -> Records {
    let Stats { streams, chunks, bytes, entries } = stats.value;
    let record = What::Stats(proto::StatsRecord { streams, chunks, bytes, entries });
    before_end(std::iter::once(record), end(stats.warnings))
}

pub(super) fn put_volumes(volumes: Partial<Vec<StreamVolume>>) -> Records {
    let amount = |(time, amount): (Timestamp, u64)| proto::Amount { time: time.0, amount };
    let records = volumes.value.into_iter().map(move |volume| {
        let amounts = volume.bytes.into_iter().map(amount).collect();
        What::Stream(proto::StreamRecord { labels: put_pairs(&volume.labels), amounts })
    });
    before_end(records, end(volumes.warnings))
}

pub(super) fn put_patterns(patterns: Partial<Vec<Pattern>>) -> Records {
    let records = patterns.value.into_iter().map(|pattern| {
        let samples = pattern.samples.into_iter().map(|(time, amount)| proto::Amount { time, amount }).collect();
        What::Pattern(proto::PatternRecord { text: pattern.text, level: pattern.level, samples })
    });
    before_end(records, end(patterns.warnings))
}

/// Makes an answer of its records.
pub(super) trait Collect: Default + Send {
    type Answer;

    /// Takes a record in.
    fn take(&mut self, record: What) -> Result<(), Garbled>;

    /// The answer, when all records were taken in.
    fn finish(self, end: proto::End) -> Result<Self::Answer, Garbled>;

    /// How much memory it takes, in bytes, where that may be much more than its records.
    fn memory(&self) -> usize {
        0
    }
}

/// A record that has no place in an answer.
const MISPLACED: Garbled = Garbled("a record of another answer");

#[derive(Default)]
pub(super) struct Chunk(Option<ReadChunk>);

impl Collect for Chunk {
    type Answer = ReadChunk;

    fn take(&mut self, record: What) -> Result<(), Garbled> {
        let (What::Chunk(chunk), None) = (record, &self.0) else { return Err(MISPLACED) };
        let batch = lines(chunk.batch.unwrap_or_default(), &mut LineReader::default())?;
        self.0 = Some(ReadChunk { through: chunk.through, gap: chunk.gap.map(gap), batch });
        Ok(())
    }

    fn finish(self, _: proto::End) -> Result<ReadChunk, Garbled> {
        self.0.ok_or(Garbled("nothing"))
    }
}

#[derive(Default)]
pub(super) struct Lines {
    lines: Vec<(MatchedLine, Bytes)>,
    reader: LineReader,
}

impl Collect for Lines {
    type Answer = Selected;

    fn take(&mut self, record: What) -> Result<(), Garbled> {
        let What::Lines(record) = record else { return Err(MISPLACED) };
        let lines = self.reader.read(&record.lines, None)?;
        let texts = texts(&record.lengths, &record.text, lines.len())?;
        self.lines.extend(lines.into_iter().zip(texts));
        Ok(())
    }

    fn finish(self, end: proto::End) -> Result<Selected, Garbled> {
        Ok(Selected { lines: self.lines, warnings: end.warnings, scanned: scanned(end.scanned) })
    }
}

#[derive(Default)]
pub(super) struct Columns {
    series: Vec<(Labels, Column)>,
    memory: usize,
}

impl Collect for Columns {
    type Answer = Sampled;

    fn take(&mut self, record: What) -> Result<(), Garbled> {
        let What::Column(record) = record else { return Err(MISPLACED) };
        let column = Column::take(&record.column).map_err(|_| Garbled("a bad column"))?;
        self.memory = self.memory.saturating_add(column.memory());
        self.series.push((labels(record.labels), column));
        Ok(())
    }

    fn finish(self, end: proto::End) -> Result<Sampled, Garbled> {
        Ok(Sampled {
            series: self.series,
            through: end.through,
            watermark: Timestamp(end.watermark),
            gap: end.gap.map(gap),
            late: Late { lines: end.late_lines, oldest: Timestamp(end.late_oldest) },
            warnings: end.warnings,
            scanned: scanned(end.scanned),
        })
    }

    fn memory(&self) -> usize {
        self.memory
    }
}

#[derive(Default)]
pub(super) struct Names(Vec<String>);

impl Collect for Names {
    type Answer = Partial<Vec<String>>;

    fn take(&mut self, record: What) -> Result<(), Garbled> {
        let What::Names(record) = record else { return Err(MISPLACED) };
        self.0.extend(record.names);
        Ok(())
    }

    fn finish(self, end: proto::End) -> Result<Self::Answer, Garbled> {
        Ok(Partial { value: self.0, warnings: end.warnings })
    }
}

#[derive(Default)]
pub(super) struct Streams(Vec<Labels>);

impl Collect for Streams {
    type Answer = Partial<Vec<Labels>>;

    fn take(&mut self, record: What) -> Result<(), Garbled> {
        let What::Stream(record) = record else { return Err(MISPLACED) };
        self.0.push(labels(record.labels));
        Ok(())
    }

    fn finish(self, end: proto::End) -> Result<Self::Answer, Garbled> {
        Ok(Partial { value: self.0, warnings: end.warnings })
    }
}

#[derive(Default)]
pub(super) struct StatsOf(Option<Stats>);

impl Collect for StatsOf {
    type Answer = Partial<Stats>;

    fn take(&mut self, record: What) -> Result<(), Garbled> {
        let (What::Stats(stats), None) = (record, &self.0) else { return Err(MISPLACED) };
        let proto::StatsRecord { streams, chunks, bytes, entries } = stats;
        self.0 = Some(Stats { streams, chunks, bytes, entries });
        Ok(())
    }

    fn finish(self, end: proto::End) -> Result<Self::Answer, Garbled> {
        Ok(Partial { value: self.0.ok_or(Garbled("nothing"))?, warnings: end.warnings })
    }
}

#[derive(Default)]
pub(super) struct Volumes(Vec<StreamVolume>);

impl Collect for Volumes {
    type Answer = Partial<Vec<StreamVolume>>;

    fn take(&mut self, record: What) -> Result<(), Garbled> {
        let What::Stream(record) = record else { return Err(MISPLACED) };
        let bytes = record.amounts.into_iter().map(|amount| (Timestamp(amount.time), amount.amount)).collect();
        self.0.push(StreamVolume { labels: labels(record.labels), bytes });
        Ok(())
    }

    fn finish(self, end: proto::End) -> Result<Self::Answer, Garbled> {
        Ok(Partial { value: self.0, warnings: end.warnings })
    }
}

#[derive(Default)]
pub(super) struct Patterns(Vec<Pattern>);

impl Collect for Patterns {
    type Answer = Partial<Vec<Pattern>>;

    fn take(&mut self, record: What) -> Result<(), Garbled> {
        let What::Pattern(record) = record else { return Err(MISPLACED) };
        let samples = record.samples.into_iter().map(|sample| (sample.time, sample.amount)).collect();
        self.0.push(Pattern { text: record.text, level: record.level, samples });
        Ok(())
    }

    fn finish(self, end: proto::End) -> Result<Self::Answer, Garbled> {
        Ok(Partial { value: self.0, warnings: end.warnings })
    }
}
