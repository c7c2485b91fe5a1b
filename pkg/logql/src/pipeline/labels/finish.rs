//! What the labels of a finished line are: all of them as one set, or the group that `by` puts the line in.
//!
//! Invariants: lines with equal labels of equal categories share one set; what a set or a group is remembered by tells apart whatever
//! differs, a missing label from an empty one too.

use tailwater_model::{Category, LabelPair, LabelSet, Labels};

use super::super::names::{DETECTED_LEVEL, ERROR, ERROR_DETAILS, NameId};
use super::{DELETED, LineLabels, PARSED, PRESENT, SHADOWS};
use crate::level;

impl LineLabels {
    /// Appends what `by` sees of these labels; different appendices mean different groups. A label that was ever deleted on this
    /// line is not seen, even if it was set again.
    pub(crate) fn write_group(&self, names: &[NameId], out: &mut Vec<u8>) {
        for id in names {
            let value = if self.flags(*id) & DELETED == 0 { self.get(*id) } else { None };
            out.extend_from_slice(&value.map_or(u32::MAX, |v| v.len() as u32).to_ne_bytes());
            out.extend_from_slice(value.unwrap_or_default().as_bytes());
        }
    }

    /// The group that [`LineLabels::write_group`] names.
    pub(crate) fn group(&self, names: &[NameId]) -> Labels {
        let value = |id: NameId| if self.flags(id) & DELETED == 0 { self.get(id) } else { None };
        let pairs = names.iter().filter_map(|id| Some((self.names.text(*id).into(), value(*id)?.into())));
        Labels::keeping_empty(pairs.collect())
    }

    /// Everything that [`LineLabels::finish`] depends on, until the [`LineLabels::epoch`] changes.
    pub(crate) fn key(&mut self) -> &[u8] {
        self.write_key();
        &self.key
    }

    /// All labels of the finished line.
    pub(crate) fn finish(&mut self) -> LabelSet {
        let no_error = self.error.start == self.error.end;
        let no_details = self.details.start == self.details.end;
        if no_error && (self.touched.is_empty() || (self.only_level.is_some() && no_details)) {
            let only_level = self.only_level;
            let in_stream = only_level.is_some() && self.in_stream(DETECTED_LEVEL);
            let Some(stream) = self.streams.get_mut(self.current) else { return LabelSet::default() };
            match only_level {
                None => return stream.set.clone(),
                Some(level) if !in_stream => {
                    let made = || {
                        let mut pairs = stream.set.pairs().to_vec();
                        let (name, value) = (level::NAME.into(), level.as_str().into());
                        pairs.push(LabelPair { name, value, category: Category::Metadata });
                        LabelSet::from_pairs(pairs)
                    };
                    return stream.with_level[level as usize].get_or_insert_with(made).clone();
                }
                Some(_) => {}
            }
        }
        self.write_key();
        if let Some(set) = self.sets.get(&self.key) {
            return set.clone();
        }
        let set = self.build();
        self.sets.insert(&self.key, &set);
        set
    }

    /// Everything that the finished labels depend on.
    fn write_key(&mut self) {
        self.key.clear();
        self.key.extend_from_slice(&(self.current as u32).to_ne_bytes());
        for id in &self.touched {
            let slot = self.slots[*id as usize];
            self.key.extend_from_slice(&id.to_ne_bytes());
            let len = if slot.flags & PRESENT == 0 { 0 } else { slot.value.end - slot.value.start };
            self.key.extend_from_slice(&(u64::from(len) << 8 | u64::from(slot.flags & SHADOWS)).to_ne_bytes());
            let value = slot.value.start as usize..(slot.value.start + len) as usize;
            self.key.extend_from_slice(&self.text.as_bytes()[value]);
        }
        for (id, span) in [(ERROR, self.error), (ERROR_DETAILS, self.details)] {
            if span.start != span.end {
                self.key.extend_from_slice(&(id | 1 << 31).to_ne_bytes());
                self.key.extend_from_slice(&(span.end - span.start).to_ne_bytes());
                self.key.extend_from_slice(&self.text.as_bytes()[span.start as usize..span.end as usize]);
            }
        }
    }

    fn build(&self) -> LabelSet {
        let mut pairs = Vec::with_capacity(self.base().len() + self.touched.len() + 2);
        for (id, value) in self.base() {
            if self.flags(*id) & SHADOWS == 0 {
                pairs.push(self.pair(*id, value, Category::Stream));
            }
        }
        let errors = [(ERROR, self.error), (ERROR_DETAILS, self.details)];
        for id in &self.touched {
            let slot = self.slots[*id as usize];
            let overruled = errors.iter().any(|(name, span)| name == id && span.start != span.end);
            if slot.flags & PRESENT != 0 && !overruled {
                let category = if slot.flags & PARSED != 0 { Category::Parsed } else { Category::Metadata };
                pairs.push(self.pair(*id, self.span(slot.value), category));
            }
        }
        for (id, span) in errors {
            if span.start != span.end {
                pairs.push(self.pair(id, self.span(span), Category::Parsed));
            }
        }
        LabelSet::from_pairs(pairs)
    }

    fn pair(&self, id: NameId, value: &str, category: Category) -> LabelPair {
        LabelPair { name: self.names.text(id).into(), value: value.into(), category }
    }
}
