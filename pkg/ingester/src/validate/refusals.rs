//! What a push was refused for, gathered so that every refusal is told once and the answer stays small.
//!
//! Equal texts are counted (`2 errors like: …; 1 errors like: …`), a single one stands bare. Texts beyond [`MAX_TEXTS`] are counted
//! without being told, each is cut at [`MAX_TEXT_BYTES`].

use crate::error::{PushError, PushErrorKind};
use crate::metrics::TenantMetrics;

/// Most different texts in an answer.
const MAX_TEXTS: usize = 32;

/// Longest text of one refusal, in bytes.
const MAX_TEXT_BYTES: usize = 32 << 10;

/// Why lines are refused; the labels are Loki's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Reason {
    InvalidLabels,
    MissingLabels,
    ReservedLabels,
    LabelNames,
    LabelNameTooLong,
    LabelValueTooLong,
    DuplicateLabelNames,
    TooOld,
    TooNew,
    LineTooLong,
    MetadataDisallowed,
    MetadataTooLarge,
    MetadataTooMany,
    MetadataInvalid,
    RateLimited,
    StreamLimit,
    StreamRateLimit,
    TooFarBehind,
}

impl Reason {
    pub(crate) const ALL: [Self; 18] = [
        Self::InvalidLabels,
        Self::MissingLabels,
        Self::ReservedLabels,
        Self::LabelNames,
        Self::LabelNameTooLong,
        Self::LabelValueTooLong,
        Self::DuplicateLabelNames,
        Self::TooOld,
        Self::TooNew,
        Self::LineTooLong,
        Self::MetadataDisallowed,
        Self::MetadataTooLarge,
        Self::MetadataTooMany,
        Self::MetadataInvalid,
        Self::RateLimited,
        Self::StreamLimit,
        Self::StreamRateLimit,
        Self::TooFarBehind,
    ];

    /// The value of the label `reason`.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::InvalidLabels => "invalid_labels",
            Self::MissingLabels => "missing_labels",
            Self::ReservedLabels => "reserved_labels",
            Self::LabelNames => "max_label_names_per_series",
            Self::LabelNameTooLong => "label_name_too_long",
            Self::LabelValueTooLong => "label_value_too_long",
            Self::DuplicateLabelNames => "duplicate_label_names",
            Self::TooOld => "greater_than_max_sample_age",
            Self::TooNew => "too_far_in_future",
            Self::LineTooLong => "line_too_long",
            Self::MetadataDisallowed => "disallowed_structured_metadata",
            Self::MetadataTooLarge => "structured_metadata_too_large",
            Self::MetadataTooMany => "structured_metadata_too_many",
            Self::MetadataInvalid => "invalid_structured_metadata",
            Self::RateLimited => "rate_limited",
            Self::StreamLimit => "stream_limit",
            Self::StreamRateLimit => "per_stream_rate_limit",
            Self::TooFarBehind => "too_far_behind",
        }
    }

    fn kind(self) -> PushErrorKind {
        match self {
            Self::RateLimited | Self::StreamLimit | Self::StreamRateLimit => PushErrorKind::RateLimited,
            _ => PushErrorKind::BadRequest,
        }
    }
}

/// The refusals of a push.
#[derive(Debug, Default)]
pub(crate) struct Refusals {
    texts: Vec<Told>,
    /// Refusals whose text found no place.
    untold: u64,
    rate_limited: bool,
    /// Lines and bytes by reason.
    lost: Vec<(Reason, u64, u64)>,
}

#[derive(Debug)]
struct Told {
    key: Key,
    text: String,
    count: u64,
}

/// Equal keys have equal texts, so that the texts of a million refusals need not be written to be counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Key {
    reason: Reason,
    stream: usize,
    detail: i64,
}

impl Refusals {
    pub(crate) fn is_empty(&self) -> bool {
        self.lost.is_empty()
    }

    /// Refuses lines. `stream` and `detail` tell texts of the same reason apart.
    pub(crate) fn add(
        &mut self,
        reason: Reason,
        stream: usize,
        detail: i64,
        (lines, bytes): (u64, u64),
        text: impl FnOnce() -> String,
    ) {
        self.rate_limited |= reason.kind() == PushErrorKind::RateLimited;
        match self.lost.iter_mut().find(|(r, ..)| *r == reason) {
            Some((_, l, b)) => (*l, *b) = (*l + lines, *b + bytes),
            None => self.lost.push((reason, lines, bytes)),
        }
        let key = Key { reason, stream, detail };
        if let Some(told) = self.texts.iter_mut().rev().find(|t| t.key == key) {
            told.count += 1;
        } else if self.texts.len() < MAX_TEXTS {
            let text = cut(text());
            match self.texts.iter_mut().find(|t| t.text == text) {
                Some(told) => told.count += 1,
                None => self.texts.push(Told { key, text, count: 1 }),
            }
        } else {
            self.untold += 1;
        }
    }

    /// Counts what was lost.
    pub(crate) fn count(&self, metrics: &TenantMetrics) {
        for (reason, lines, bytes) in &self.lost {
            metrics.discarded(*reason, *lines, *bytes);
        }
    }

    /// The answer, if anything was refused.
    pub(crate) fn into_error(self) -> Option<PushError> {
        if self.is_empty() {
            return None;
        }
        let kind = if self.rate_limited { PushErrorKind::RateLimited } else { PushErrorKind::BadRequest };
        if self.untold == 0 && self.texts.len() == 1 {
            return self.texts.into_iter().next().map(|told| PushError::new(kind, told.text));
        }
        let mut parts: Vec<_> = self.texts.iter().map(|t| format!("{} errors like: {}", t.count, t.text)).collect();
        if self.untold > 0 {
            parts.push(format!("{} other errors", self.untold));
        }
        Some(PushError::new(kind, parts.join("; ")))
    }
}

fn cut(mut text: String) -> String {
    if text.len() > MAX_TEXT_BYTES {
        text.truncate(text.floor_char_boundary(MAX_TEXT_BYTES));
        text.push('…');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_text_stands_bare_and_several_are_counted() {
        let mut refusals = Refusals::default();
        refusals.add(Reason::TooNew, 0, 7, (1, 10), || "a".into());
        refusals.add(Reason::TooNew, 0, 7, (1, 10), || unreachable!("the key says that the text is the same"));
        let one = Refusals { texts: vec![], ..Default::default() };
        assert_eq!(one.into_error(), None);
        refusals.add(Reason::TooOld, 1, 0, (1, 10), || "b".into());
        let error = refusals.into_error().unwrap();
        assert_eq!(error.text, "2 errors like: a; 1 errors like: b");
        assert_eq!(error.kind, PushErrorKind::BadRequest);

        let mut refusals = Refusals::default();
        refusals.add(Reason::TooNew, 0, 1, (1, 0), || "a".into());
        refusals.add(Reason::TooNew, 0, 2, (1, 0), || "a".into());
        assert_eq!(refusals.into_error().unwrap().text, "a");
    }

    #[test]
    fn a_limit_among_the_refusals_asks_for_a_retry() {
        let mut refusals = Refusals::default();
        refusals.add(Reason::StreamLimit, 0, 0, (1, 0), || "a".into());
        refusals.add(Reason::TooNew, 0, 0, (1, 0), || "b".into());
        assert_eq!(refusals.into_error().unwrap().kind, PushErrorKind::RateLimited);
    }

    #[test]
    fn an_answer_is_bounded() {
        let mut refusals = Refusals::default();
        for i in 0..1000 {
            refusals.add(Reason::TooNew, 0, i, (1, 0), || format!("{i} {}", "ä".repeat(MAX_TEXT_BYTES)));
        }
        let text = refusals.into_error().unwrap().text;
        assert!(text.len() < MAX_TEXTS * (MAX_TEXT_BYTES + 100), "{}", text.len());
        assert!(text.ends_with("; 968 other errors"));
    }
}
