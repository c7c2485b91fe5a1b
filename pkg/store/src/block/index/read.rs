//! Asking the index of a block.

use std::sync::Arc;

use tailwater_logql::matchers::Matchers;
use tantivy::directory::error::OpenReadError;
use tantivy::postings::SegmentPostings;
use tantivy::schema::{Field, IndexRecordOption};
use tantivy::{DocSet, InvertedIndexReader, SegmentReader, TERMINATED, TantivyError, Term};

use super::directory::Directory;
use super::{Fields, STREAMS_MIN, WHAT, WORD_MAX, schema, term};
use crate::Error;
use crate::block::footer::{Footer, Indexed};
use crate::block::frame;

/// The opened index of a block.
pub struct Index {
    segment: SegmentReader,
    fields: Fields,
    indexed: Indexed,
    pages: u32,
    memory: usize,
}

impl std::fmt::Debug for Index {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Index").field("indexed", &self.indexed).field("memory", &self.memory).finish_non_exhaustive()
    }
}

/// Pages that may have what was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PageSet {
    /// Nothing is known: all of them.
    All,
    /// No others than these, sorted.
    Only(Vec<u32>),
}

impl PageSet {
    /// Whether a page may have it.
    #[must_use]
    pub fn contains(&self, page: u32) -> bool {
        match self {
            Self::All => true,
            Self::Only(pages) => pages.binary_search(&page).is_ok(),
        }
    }

    fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::All, set) | (set, Self::All) => set,
            (Self::Only(mut a), Self::Only(b)) => {
                a.retain(|page| b.binary_search(page).is_ok());
                Self::Only(a)
            }
        }
    }
}

impl Footer {
    /// Whether the index is of use to select streams: where there are few, testing the labels of all is as fast, and needs no fetch.
    #[must_use]
    pub fn index_selects(&self, matchers: &Matchers) -> bool {
        self.indexed.streams
            && self.streams.len() >= STREAMS_MIN
            && matchers.equality().any(|(name, value)| term(name, value).is_some())
    }

    /// The numbers of the streams that matchers select, in order, by testing the labels of each.
    #[must_use]
    pub fn select(&self, matchers: &Matchers) -> Vec<u32> {
        let streams = self.streams.iter().zip(0..);
        streams.filter(|(entry, _)| matchers.matches(&entry.stream.labels)).map(|(_, number)| number).collect()
    }

    /// Whether the index can say something of these pairs: else [`Footer::pages_without_index`] is all that there is to know.
    #[must_use]
    pub fn index_prunes(&self, pairs: &[(&str, &str)]) -> bool {
        self.pages_without_index(pairs) == PageSet::All
            && self.indexed.metadata
            && pairs.iter().any(|(name, value)| self.name(name) == Some(true) && term(name, value).is_some())
    }

    /// As [`Index::pages_with`], as far as the footer alone tells: no page has metadata of a name that is not in the block.
    #[must_use]
    pub fn pages_without_index(&self, pairs: &[(&str, &str)]) -> PageSet {
        let missing = |(name, _): &(&str, &str)| self.names_complete && self.name(name).is_none();
        if pairs.iter().any(missing) { PageSet::Only(Vec::new()) } else { PageSet::All }
    }

    /// Whether a name of structured metadata is indexed, if it is known.
    fn name(&self, name: &str) -> Option<bool> {
        let at = self.names.binary_search_by(|(known, _)| (**known).cmp(name)).ok()?;
        self.names.get(at).map(|(_, indexed)| *indexed)
    }
}

impl Index {
    /// Opens the index that [`Footer::index`] names; `section` are its bytes.
    ///
    /// # Errors
    /// [`Error::Corrupt`], also if there is no index.
    pub fn open(section: &[u8], footer: &Footer) -> Result<Self, Error> {
        if section.len() as u64 != footer.index.range.end.saturating_sub(footer.index.range.start) {
            return Err(Error::corrupt(WHAT, "it has another length than the footer says"));
        }
        let files = frame::open(section, footer.index.raw_len, 0, WHAT)?;
        let memory = files.len() + size_of::<Self>() + OPEN_BYTES;
        let directory = Directory::unpack(files).map_err(|b| b.of(WHAT))?;
        let index = tantivy::Index::open(directory).map_err(|e| broken(&e))?;
        let (expected, fields) = schema();
        if index.schema() != expected {
            return Err(Error::corrupt(WHAT, "its schema is another"));
        }
        let segments = index.searchable_segments().map_err(|e| broken(&e))?;
        let [segment] = segments.as_slice() else {
            return Err(Error::corrupt(WHAT, "it does not have one segment"));
        };
        let segment = SegmentReader::open(segment).map_err(|e| broken(&e))?;
        let (pages, streams) = (footer.pages.len() as u64, footer.streams.len() as u64);
        let Indexed { words, metadata, streams: labels } = footer.indexed;
        let documents = pages * (u64::from(words) + u64::from(metadata)) + streams * u64::from(labels);
        if u64::from(segment.max_doc()) != documents {
            return Err(Error::corrupt(WHAT, "it is the index of another block"));
        }
        Ok(Self { segment, fields, indexed: footer.indexed, pages: pages as u32, memory })
    }

    /// Bytes in memory, about.
    #[must_use]
    pub fn memory(&self) -> usize {
        self.memory
    }

    /// The numbers of the streams that matchers select, in order. The footer is that of the block.
    ///
    /// # Errors
    /// [`Error::Corrupt`].
    pub fn select(&self, footer: &Footer, matchers: &Matchers) -> Result<Vec<u32>, Error> {
        if !footer.index_selects(matchers) {
            return Ok(footer.select(matchers));
        }
        let labels = self.inverted(self.fields.label)?;
        let terms = matchers.equality().filter_map(|(name, value)| term(name, value));
        // The rarest label leaves the fewest to test.
        let mut best: Option<(u32, Term)> = None;
        for text in terms {
            let term = Term::from_field_text(self.fields.label, &text);
            let frequency = labels.doc_freq(&term).map_err(|e| broken(&e.into()))?;
            if best.as_ref().is_none_or(|(least, _)| frequency < *least) {
                best = Some((frequency, term));
            }
        }
        let Some((_, term)) = best else { return Ok(footer.select(matchers)) };
        let first = self.pages * (u32::from(self.indexed.words) + u32::from(self.indexed.metadata));
        let mut selected = documents(&labels, &term, first)?;
        let matches = |number: &u32| {
            footer.streams.get(*number as usize).is_some_and(|entry| matchers.matches(&entry.stream.labels))
        };
        selected.retain(matches);
        Ok(selected)
    }

    /// The pages on which, for each of the pairs, there is an entry with this structured metadata. The footer is that of the block.
    ///
    /// # Errors
    /// [`Error::Corrupt`].
    pub fn pages_with(&self, footer: &Footer, pairs: &[(&str, &str)]) -> Result<PageSet, Error> {
        let mut set = footer.pages_without_index(pairs);
        if !self.indexed.metadata {
            return Ok(set);
        }
        let metadata = self.inverted(self.fields.metadata)?;
        let first = self.pages * u32::from(self.indexed.words);
        for (name, value) in pairs.iter().filter(|(name, _)| footer.name(name) == Some(true)) {
            // A value that is too long for a term would have had its name given up.
            let Some(text) = term(name, value) else { return Ok(PageSet::Only(Vec::new())) };
            let term = Term::from_field_text(self.fields.metadata, &text);
            set = set.and(PageSet::Only(documents(&metadata, &term, first)?));
        }
        Ok(set)
    }

    /// The pages that have each of the words: runs of ASCII letters and digits that neither begin nor end within another run. Words that
    /// are something else are passed over. [`PageSet::All`] if words are not indexed.
    ///
    /// # Errors
    /// [`Error::Corrupt`].
    pub fn pages_with_words(&self, words: &[&str]) -> Result<PageSet, Error> {
        let mut set = PageSet::All;
        if !self.indexed.words {
            return Ok(set);
        }
        let inverted = self.inverted(self.fields.word)?;
        let is_word =
            |word: &str| (1..=WORD_MAX).contains(&word.len()) && word.bytes().all(|b| b.is_ascii_alphanumeric());
        for word in words.iter().filter(|word| is_word(word)) {
            let term = Term::from_field_text(self.fields.word, &word.to_ascii_lowercase());
            set = set.and(PageSet::Only(documents(&inverted, &term, 0)?));
        }
        Ok(set)
    }

    fn inverted(&self, field: Field) -> Result<Arc<InvertedIndexReader>, Error> {
        self.segment.inverted_index(field).map_err(|e| broken(&e))
    }
}

/// What tantivy holds besides the files, about.
const OPEN_BYTES: usize = 16 << 10;

/// The documents with a term, counted from `first`.
fn documents(index: &InvertedIndexReader, term: &Term, first: u32) -> Result<Vec<u32>, Error> {
    let postings: Option<SegmentPostings> =
        index.read_postings(term, IndexRecordOption::Basic).map_err(|e| broken(&e.into()))?;
    let Some(mut postings) = postings else { return Ok(Vec::new()) };
    let mut documents = Vec::new();
    let mut document = postings.doc();
    while document != TERMINATED {
        let number = document.checked_sub(first);
        documents.push(number.ok_or_else(|| Error::corrupt(WHAT, "a document has terms of another kind"))?);
        document = postings.advance();
    }
    Ok(documents)
}

fn broken(error: &TantivyError) -> Error {
    let reason = match error {
        TantivyError::OpenReadError(OpenReadError::FileDoesNotExist(path)) => format!("{} is missing", path.display()),
        _ => error.to_string(),
    };
    Error::corrupt(WHAT, reason)
}
