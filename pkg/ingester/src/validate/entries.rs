//! The checks of one entry that need no other.

use std::time::Duration;

use tailwater_model::{Limits, Timestamp};
use tailwater_wire::push::{EntrySpan, Push};

use super::metadata::{self, PairCheck};
use super::{Reason, rfc3339};

/// The limits as one push sees them.
#[derive(Debug)]
pub(crate) struct EntryRules<'a> {
    limits: &'a Limits,
    oldest: Timestamp,
    newest: Timestamp,
}

/// What becomes of an entry.
#[derive(Debug)]
pub(crate) enum Verdict {
    /// It is fine.
    Keep,
    /// It is fine once its metadata is written anew.
    Rewrite,
    /// It is refused. The number tells texts of the same reason apart.
    Refuse(Reason, i64),
}

impl<'a> EntryRules<'a> {
    pub(crate) fn new(limits: &'a Limits, now: Timestamp) -> Self {
        let oldest = if limits.reject_old_samples {
            now.saturating_sub(limits.reject_old_samples_max_age)
        } else {
            Timestamp::MIN
        };
        Self { limits, oldest, newest: now.saturating_add(limits.creation_grace_period) }
    }

    /// Cuts a line that is too long, if that is wanted. Whether it did.
    pub(crate) fn truncate(&self, push: &Push, entry: &mut EntrySpan) -> bool {
        let max = self.limits.max_line_size;
        if max == 0 || !self.limits.max_line_size_truncate || entry.line_len as usize <= max {
            return false;
        }
        let line = push.line(entry);
        let is_inside = |i: usize| line.get(i).is_some_and(|b| b & 0xc0 == 0x80);
        // Not amid a character; three steps back at most, should it be no text at all.
        let cut = (max.saturating_sub(3)..=max).rev().find(|i| !is_inside(*i)).unwrap_or(max);
        entry.line_len = u32::try_from(cut).unwrap_or(entry.line_len);
        true
    }

    /// Judges an entry, in Loki's order.
    pub(crate) fn judge(&self, push: &Push, entry: &EntrySpan) -> Verdict {
        let at = Timestamp(entry.timestamp);
        if at < self.oldest {
            return Verdict::Refuse(Reason::TooOld, at.nanos());
        }
        if at > self.newest {
            return Verdict::Refuse(Reason::TooNew, at.nanos());
        }
        if self.limits.max_line_size != 0 && entry.line_len as usize > self.limits.max_line_size {
            return Verdict::Refuse(Reason::LineTooLong, i64::from(entry.line_len));
        }
        if entry.metadata_len == 0 {
            return Verdict::Keep;
        }
        self.judge_metadata(push, entry)
    }

    fn judge_metadata(&self, push: &Push, entry: &EntrySpan) -> Verdict {
        if !self.limits.allow_structured_metadata {
            return Verdict::Refuse(Reason::MetadataDisallowed, 0);
        }
        let pairs = push.metadata(entry);
        let size = metadata_bytes(push, entry);
        if self.limits.max_structured_metadata_size != 0 && size > self.limits.max_structured_metadata_size as u64 {
            return Verdict::Refuse(Reason::MetadataTooLarge, i64::try_from(size).unwrap_or(i64::MAX));
        }
        let max = self.limits.max_structured_metadata_entries_count;
        if max != 0 && pairs.len() > max {
            return Verdict::Refuse(Reason::MetadataTooMany, i64::try_from(pairs.len()).unwrap_or(i64::MAX));
        }
        let mut verdict = Verdict::Keep;
        for (i, (name, value)) in pairs.enumerate() {
            match metadata::check(name, value) {
                PairCheck::Canonical => {}
                PairCheck::Rewrite => verdict = Verdict::Rewrite,
                PairCheck::Bad => {
                    let detail = i64::from(entry.metadata_start) + i64::try_from(i).unwrap_or(0);
                    return Verdict::Refuse(Reason::MetadataInvalid, detail);
                }
            }
        }
        verdict
    }

    /// What to say of a refused entry. `stream`: the text of its labels.
    pub(crate) fn text(&self, reason: Reason, detail: i64, stream: &str, push: &Push) -> String {
        let limits = self.limits;
        match reason {
            Reason::TooOld => format!(
                "entry for stream '{stream}' has timestamp too old: {}, oldest acceptable timestamp is: {}",
                rfc3339(Timestamp(detail)),
                rfc3339(self.oldest)
            ),
            Reason::TooNew => {
                format!("entry for stream '{stream}' has timestamp too new: {}", rfc3339(Timestamp(detail)))
            }
            Reason::LineTooLong => format!(
                "max entry size '{}' bytes exceeded for stream '{stream}' while adding an entry with length '{detail}' bytes",
                limits.max_line_size
            ),
            Reason::MetadataDisallowed => format!(
                "stream '{stream}' includes structured metadata, but this feature is disallowed. Please see \
                 `limits_config.allow_structured_metadata` or contact your Loki administrator to enable it"
            ),
            Reason::MetadataTooLarge => format!(
                "stream '{stream}' has structured metadata too large: '{detail}' bytes, limit: '{}' bytes. Please see \
                 `limits_config.max_structured_metadata_size` or contact your Loki administrator to increase it",
                limits.max_structured_metadata_size
            ),
            Reason::MetadataTooMany => format!(
                "stream '{stream}' has too many structured metadata labels: '{detail}', limit: '{}'. Please see \
                 `limits_config.max_structured_metadata_entries_count` or contact your Loki administrator to increase it",
                limits.max_structured_metadata_entries_count
            ),
            _ => {
                let pair = usize::try_from(detail).ok().and_then(|i| push.metadata.get(i));
                let name = pair.map_or(&[][..], |p| push.pair(p).0);
                metadata::canonical_name(name).err().unwrap_or_default()
            }
        }
    }
}

/// Bytes of names and values of the structured metadata of an entry.
pub(crate) fn metadata_bytes(push: &Push, entry: &EntrySpan) -> u64 {
    push.metadata(entry).map(|(name, value)| (name.len() + value.len()) as u64).sum()
}

/// What an entry costs of a rate, in bytes.
pub(crate) fn entry_bytes(push: &Push, entry: &EntrySpan) -> u64 {
    let metadata = if entry.metadata_len == 0 { 0 } else { metadata_bytes(push, entry) };
    u64::from(entry.line_len) + metadata
}

/// How far behind the newest entry of its stream an entry may lie.
pub(crate) fn cutoff(highest: Option<i64>, window: Duration) -> Option<Timestamp> {
    highest.map(|highest| Timestamp(highest).saturating_sub(window))
}
