//! The labels of one line while it runs through a pipeline.
//!
//! Invariants:
//! * A label belongs to one of three categories: *stream* (fixed while the stream is entered), *metadata* and *parsed*. Setting a
//!   parsed label takes the name away from the metadata and shadows the stream's label.
//! * `__error__` and `__error_details__` stand outside of all categories until the line is finished.
//! * A name that a parser finds and the stream has, even if it was dropped since, or the metadata have, becomes
//!   `name_extracted`.
//! * Names are numbers while a line runs. The names of the query are numbered first and never forgotten; the others are
//!   forgotten all at once when there are too many, and with them every memo that knows numbers.
//! * Everything a line adds lives in one text buffer; a line in the steady state allocates only if its labels are new.

mod finish;
mod wanted;

use std::sync::Arc;

use hashbrown::HashMap;
use tailwater_model::{LabelSet, Labels};

pub(crate) use self::wanted::Wanted;
use self::wanted::Wanting;
use super::memo::Sets;
use super::names::{DETECTED_LEVEL, ERROR, ERROR_DETAILS, NameId, Names, push_replacing, sanitize};
use crate::level::{self, Level};

/// Most streams that are remembered.
const MAX_STREAMS: usize = 8_192;
/// Most text that the labels of one line may hold in bytes; what comes after is empty.
const MAX_TEXT: usize = 256 << 20;
/// The text buffer is given back when a line has made it larger than this.
const MAX_KEPT_TEXT: usize = 1 << 20;
/// A stretch of the text buffer.
#[derive(Clone, Copy, Debug, Default)]
struct Span {
    start: u32,
    end: u32,
}

const METADATA: u8 = 1;
const PARSED: u8 = 2;
const DELETED: u8 = 4;
const EXTRACTED: u8 = 8;
const PRESENT: u8 = METADATA | PARSED;
const SHADOWS: u8 = METADATA | PARSED | DELETED;

/// What the current line did to a name.
#[derive(Clone, Copy, Debug, Default)]
struct Slot {
    /// The line this is about; of another line it means nothing.
    line: u32,
    flags: u8,
    value: Span,
}

/// What is remembered of a stream.
#[derive(Debug)]
struct Stream {
    labels: Labels,
    base: Box<[(NameId, Box<str>)]>,
    set: LabelSet,
    /// The level that the stream's own labels name.
    level: Option<Arc<str>>,
    /// The stream's labels and nothing but a detected level.
    with_level: [Option<LabelSet>; Level::COUNT],
}

/// The labels of the current line.
#[derive(Debug)]
pub(crate) struct LineLabels {
    names: Names,
    fixed: Box<[Box<str>]>,
    slots: Vec<Slot>,
    /// The number of the current line.
    line: u32,
    /// The names that the current line did something to, in that order.
    touched: Vec<NameId>,
    /// The values of the current line.
    text: String,
    error: Span,
    details: Span,
    /// Set while a detected level is all that was added.
    only_level: Option<Level>,

    streams: Vec<Stream>,
    by_address: HashMap<usize, u32>,
    current: usize,

    /// Boxed: log queries have none, and idle tails are small.
    wanted: Option<Box<Wanting>>,
    /// Counts how often everything was forgotten.
    epoch: u64,

    sets: Sets,
    key: Vec<u8>,
}

impl LineLabels {
    /// `fixed` are the names that the query uses, in the order in which [`Names::intern`] gave them numbers.
    pub(crate) fn new(fixed: &[Box<str>], wanted: Option<&Wanted>) -> Self {
        let mut labels = Self {
            names: Names::new(),
            fixed: fixed.into(),
            slots: Vec::new(),
            line: 0,
            touched: Vec::new(),
            text: String::new(),
            error: Span::default(),
            details: Span::default(),
            only_level: None,
            streams: Vec::new(),
            by_address: HashMap::new(),
            current: 0,
            wanted: None,
            epoch: 0,
            sets: Sets::default(),
            key: Vec::new(),
        };
        labels.forget();
        labels.wanted = wanted.map(|wanted| Box::new(Wanting::new(wanted, &labels.names)));
        labels
    }

    /// Changes whenever numbers of names, other than those of the query, and of streams have lost their meaning.
    pub(crate) fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Forgets every memo. The streams have to be entered anew.
    fn forget(&mut self) {
        self.names = Names::new();
        for name in &self.fixed {
            self.names.intern(name);
        }
        self.slots.clear();
        self.streams.clear();
        self.by_address.clear();
        self.sets.clear();
        self.epoch += 1;
    }

    /// The lines that follow are of this stream.
    pub(crate) fn enter(&mut self, stream: &Labels) {
        if self.streams.get(self.current).is_some_and(|s| s.labels.ptr_eq(stream)) {
            return;
        }
        if let Some(index) = self.by_address.get(&stream.address()) {
            self.current = *index as usize;
            return;
        }
        if self.streams.len() >= MAX_STREAMS {
            self.forget();
        }
        let level = level::of_pairs(stream.iter()).map(Into::into);
        let base = stream.iter().map(|(n, v)| (self.names.intern(n), v.into())).collect();
        self.current = self.streams.len();
        self.by_address.insert(stream.address(), self.current as u32);
        self.streams.push(Stream {
            labels: stream.clone(),
            base,
            set: LabelSet::from(stream),
            level,
            with_level: [const { None }; Level::COUNT],
        });
    }

    /// Begins a line: nothing but the stream's labels and the line's metadata, and if asked for a level.
    pub(crate) fn begin(&mut self, metadata: &[(&str, &str)], detect_level_of: Option<&[u8]>) {
        if self.names.is_full() {
            let stream = self.streams.get(self.current).map(|s| s.labels.clone());
            self.forget();
            if let Some(stream) = stream {
                self.enter(&stream);
            }
        }
        self.line = self.line.wrapping_add(1);
        if self.line == 0 {
            self.slots.clear();
            self.line = 1;
        }
        self.touched.clear();
        self.text.clear();
        if self.text.capacity() > MAX_KEPT_TEXT {
            self.text.shrink_to(MAX_KEPT_TEXT);
        }
        (self.error, self.details) = (Span::default(), Span::default());
        self.only_level = None;
        self.begin_wanting();
        let Some(line) = detect_level_of else {
            for (name, value) in metadata {
                self.load(name, value);
            }
            return;
        };
        let mut given = false;
        for (name, value) in metadata {
            if *name == level::NAME {
                given = true;
                self.load(name, level::normalize(value));
            } else {
                self.load(name, value);
            }
        }
        if given {
            return;
        }
        if let Some(stream) = self.streams.get(self.current).and_then(|s| s.level.clone()) {
            self.load_id(DETECTED_LEVEL, &stream);
        } else if let Some(level) = level::of_metadata(metadata) {
            self.load_id(DETECTED_LEVEL, level);
        } else {
            let level = level::of_line(line);
            self.load_id(DETECTED_LEVEL, level.as_str());
            self.only_level = metadata.is_empty().then_some(level);
        }
    }

    /// The labels of a line that no stage looks at, as [`LineLabels::begin`] and [`LineLabels::finish`] make them.
    pub(crate) fn of_line(&mut self, metadata: &[(&str, &str)], detect_level_of: Option<&[u8]>) -> LabelSet {
        if metadata.is_empty()
            && let Some(stream) = self.streams.get_mut(self.current)
        {
            match detect_level_of {
                None => return stream.set.clone(),
                Some(line) if stream.level.is_none() => {
                    if let Some(set) = &stream.with_level[level::of_line(line) as usize] {
                        return set.clone();
                    }
                }
                Some(_) => {}
            }
        }
        self.begin(metadata, detect_level_of);
        self.finish()
    }

    /// Takes over a pair of structured metadata.
    fn load(&mut self, name: &str, value: &str) {
        let id = self.names.intern(name);
        self.load_id(id, value);
    }

    fn load_id(&mut self, id: NameId, value: &str) {
        let id = if self.in_stream(id) { self.names.suffix(id) } else { id };
        match id {
            ERROR => self.error = self.push_text(value),
            ERROR_DETAILS => self.details = self.push_text(value),
            id => {
                let value = self.push_text(value);
                let slot = self.touch(id);
                slot.flags |= METADATA;
                slot.value = value;
            }
        }
    }

    fn push_text(&mut self, value: &str) -> Span {
        self.push_with(value.len(), |text| text.push_str(value))
    }

    /// Appends at most about `len` bytes of text, or nothing if the line has too much text already.
    fn push_with(&mut self, len: usize, push: impl FnOnce(&mut String)) -> Span {
        let start = self.text.len() as u32;
        if self.text.len() + len <= MAX_TEXT {
            push(&mut self.text);
        }
        Span { start, end: self.text.len() as u32 }
    }

    fn span(&self, span: Span) -> &str {
        &self.text[span.start as usize..span.end as usize]
    }

    fn touch(&mut self, id: NameId) -> &mut Slot {
        self.only_level = None;
        let index = id as usize;
        if index >= self.slots.len() {
            self.slots.resize(index + 1, Slot::default());
        }
        let slot = &mut self.slots[index];
        if slot.line != self.line {
            *slot = Slot { line: self.line, ..Slot::default() };
            self.touched.push(id);
        }
        slot
    }

    fn flags(&self, id: NameId) -> u8 {
        self.slots.get(id as usize).filter(|s| s.line == self.line).map_or(0, |s| s.flags)
    }

    fn base(&self) -> &[(NameId, Box<str>)] {
        self.streams.get(self.current).map_or(&[], |s| &s.base)
    }

    fn in_stream(&self, id: NameId) -> bool {
        self.base().iter().any(|(n, _)| *n == id)
    }

    /// The names.
    pub(crate) fn names(&mut self) -> &mut Names {
        &mut self.names
    }

    /// The value of a label; an empty one counts unless it is the stream's. The error labels have none here.
    pub(crate) fn get(&self, id: NameId) -> Option<&str> {
        if let Some(slot) = self.slots.get(id as usize).filter(|s| s.line == self.line) {
            if slot.flags & PRESENT != 0 {
                return Some(self.span(slot.value));
            }
            if slot.flags & DELETED != 0 {
                return None;
            }
        }
        self.base().iter().find(|(n, _)| *n == id).map(|(_, v)| v.as_ref())
    }

    /// The value of a label that may never have been seen, with the error labels that are set.
    pub(crate) fn get_by_name(&self, name: &str) -> Option<&str> {
        match self.names.find(name)? {
            ERROR if !self.error().is_empty() => Some(self.error()),
            ERROR_DETAILS if !self.error_details().is_empty() => Some(self.error_details()),
            id => self.get(id),
        }
    }

    /// The text of `__error__`, empty if there is none.
    pub(crate) fn error(&self) -> &str {
        self.span(self.error)
    }

    /// The text of `__error_details__`, empty if there is none.
    pub(crate) fn error_details(&self) -> &str {
        self.span(self.details)
    }

    /// Sets both error labels.
    pub(crate) fn set_error(&mut self, error: &str, details: &str) {
        self.error = self.push_text(error);
        self.details = self.push_text(details);
    }

    /// Removes the text of `__error__`.
    pub(crate) fn clear_error(&mut self) {
        self.error = Span::default();
    }

    /// Removes the text of `__error_details__`.
    pub(crate) fn clear_error_details(&mut self) {
        self.details = Span::default();
    }

    /// Whether the stream or the metadata have the name, so that a parser has to use another.
    pub(crate) fn is_taken(&self, id: NameId) -> bool {
        self.flags(id) & METADATA != 0 || self.in_stream(id)
    }

    /// The name under which a parser stores what it calls `id`.
    pub(crate) fn target(&mut self, id: NameId) -> NameId {
        if self.is_taken(id) { self.names.suffix(id) } else { id }
    }

    /// The name under which `unpack` stores a key: the conflict is looked for under the key as it is, the name is sanitized. None
    /// if an earlier stage has set it or nothing is left of it.
    pub(crate) fn unpacked_name(&mut self, key: &[u8]) -> Option<NameId> {
        let raw = match std::str::from_utf8(key) {
            Ok(key) => self.names.intern(key),
            Err(_) => self.names.intern(&String::from_utf8_lossy(key)),
        };
        let target = self.target(raw);
        if self.is_extracted(target) {
            return None;
        }
        let text = self.names.text(target);
        let clean = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
        if text.bytes().all(clean) && text.bytes().next().is_some_and(|b| !b.is_ascii_digit()) {
            return Some(target);
        }
        let mut name = String::new();
        sanitize(text.as_bytes(), true, &mut name).then(|| self.names.intern(&name))
    }

    /// Whether a stage has set this label on this line, even if it was dropped since.
    pub(crate) fn is_extracted(&self, id: NameId) -> bool {
        self.flags(id) & EXTRACTED != 0
    }

    /// Sets a parsed label.
    pub(crate) fn set(&mut self, id: NameId, value: &str) {
        let value = self.push_text(value);
        self.set_span(id, value);
    }

    fn set_span(&mut self, id: NameId, value: Span) {
        let slot = self.touch(id);
        let first = slot.flags & EXTRACTED == 0;
        slot.flags = (slot.flags & !METADATA) | PARSED | EXTRACTED;
        slot.value = value;
        if first {
            self.found(id);
        }
    }

    /// Sets a parsed label to bytes, with a space for every U+FFFD and every byte that is not UTF-8.
    pub(crate) fn set_spaced(&mut self, id: NameId, value: &[u8]) {
        let value = self.push_with(value.len(), |text| push_replacing(value, " ", true, text));
        self.set_span(id, value);
    }

    /// Sets a parsed label to bytes, with U+FFFD for every byte that is not UTF-8.
    pub(crate) fn set_lossy(&mut self, id: NameId, value: &[u8]) {
        let value = self.push_with(value.len(), |text| push_replacing(value, "\u{fffd}", false, text));
        self.set_span(id, value);
    }

    /// Sets a parsed label to the value of another.
    pub(crate) fn copy(&mut self, from: NameId, to: NameId) {
        let slot = self.slots.get(from as usize).filter(|s| s.line == self.line && s.flags & PRESENT != 0);
        if let Some(span) = slot.map(|s| s.value) {
            return self.set_span(to, span);
        }
        let Some(stream) = self.streams.get(self.current) else { return };
        let Some((_, value)) = stream.base.iter().find(|(n, _)| *n == from) else { return };
        let start = self.text.len() as u32;
        if self.text.len() + value.len() <= MAX_TEXT {
            self.text.push_str(value);
        }
        let end = self.text.len() as u32;
        self.set_span(to, Span { start, end });
    }

    /// Removes a label.
    pub(crate) fn delete(&mut self, id: NameId) {
        let slot = self.touch(id);
        slot.flags = (slot.flags & !PRESENT) | DELETED;
    }

    /// The names of all labels but the error labels, in no order.
    pub(crate) fn present(&self, out: &mut Vec<NameId>) {
        out.clear();
        out.extend(self.base().iter().map(|(n, _)| *n).filter(|n| self.flags(*n) & SHADOWS == 0));
        out.extend(self.touched.iter().copied().filter(|n| self.flags(*n) & PRESENT != 0));
    }

    /// Calls `f` for every label, with the error labels that are set.
    pub(crate) fn for_each<'a>(&'a self, mut f: impl FnMut(&'a str, &'a str)) {
        let errors = [(ERROR, self.error), (ERROR_DETAILS, self.details)];
        for (id, value) in self.base() {
            if self.flags(*id) & SHADOWS == 0 {
                f(self.names.text(*id), value);
            }
        }
        for id in &self.touched {
            let slot = self.slots[*id as usize];
            let overruled = errors.iter().any(|(name, span)| name == id && span.start != span.end);
            if slot.flags & PRESENT != 0 && !overruled {
                f(self.names.text(*id), self.span(slot.value));
            }
        }
        for (id, span) in errors {
            if span.start != span.end {
                f(self.names.text(id), self.span(span));
            }
        }
    }
}
