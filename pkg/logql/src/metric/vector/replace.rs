//! `label_replace` (contract, LogQL §13.3). It looks at labels only, so once per series.

use std::borrow::Cow;

use tailwater_model::Labels;

use super::error::EvaluationError;
use crate::ast::LabelReplace;
use crate::metric::Series;
use crate::regex::{self, Captures, Groups};

/// Longest value that is made, in bytes: nested calls may double it each time.
pub(super) const MAX_REPLACED_BYTES: usize = 1 << 20;
/// Most bytes of all values that one call makes.
pub(super) const MAX_REPLACED_BYTES_OF_ALL: usize = 16 << 20;

pub(super) fn label_replace(of: &LabelReplace, mut series: Vec<Series>) -> Result<Vec<Series>, EvaluationError> {
    let mut replacer = Replacer::new(of)?;
    let mut bytes = 0;
    for one in &mut series {
        if let Some(replacement) = replacer.replacement(&one.labels)? {
            bytes += replacement.len();
            if bytes > MAX_REPLACED_BYTES_OF_ALL {
                return Err(EvaluationError::LongReplacements);
            }
            one.labels = with_label(&one.labels, &replacer.dst, &replacement);
        }
    }
    Ok(series)
}

struct Replacer<'a> {
    regex: Captures,
    groups: Groups,
    src: Cow<'a, str>,
    dst: Cow<'a, str>,
    template: &'a [u8],
}

impl<'a> Replacer<'a> {
    fn new(of: &'a LabelReplace) -> Result<Self, EvaluationError> {
        let pattern = [b"^(?:".as_slice(), of.regex.as_bytes(), b")$"].concat();
        let regex = regex::captures(&pattern).map_err(EvaluationError::Regex)?;
        let groups = regex.groups();
        let (src, dst) = (of.src.to_str_lossy(), of.dst.to_str_lossy());
        Ok(Self { regex, groups, src, dst, template: of.replacement.as_bytes() })
    }

    /// The new value of the label; `None` if the old labels do not match.
    fn replacement(&mut self, labels: &Labels) -> Result<Option<String>, EvaluationError> {
        let source = labels.get(&self.src).unwrap_or_default().as_bytes();
        if !self.regex.find(source, &mut self.groups) {
            return Ok(None);
        }
        let mut replacement = Vec::new();
        self.regex.expand(source, &self.groups, self.template, MAX_REPLACED_BYTES, &mut replacement);
        if replacement.len() > MAX_REPLACED_BYTES {
            return Err(EvaluationError::LongReplacement);
        }
        Ok(Some(String::from_utf8_lossy(&replacement).into_owned()))
    }
}

/// The labels with one of them set, or without it if its value is empty.
fn with_label(labels: &Labels, name: &str, value: &str) -> Labels {
    let kept = labels.iter().filter(|(n, _)| *n != name).chain([(name, value)]);
    Labels::from_pairs(kept.map(|(n, v)| (n.into(), v.into())).collect())
}
