//! Making the index of a block.
//!
//! Structured metadata is held until the block ends, since only then it is known which names have too many values to be worth it. What is
//! held is bounded by [`VALUES_MAX`], [`NAMES_MAX`] and [`HELD_MAX`]; a name that goes beyond is given up, and the footer says so.

use std::collections::{BTreeMap, HashMap};
use std::io;

use tantivy::directory::RamDirectory;
use tantivy::tokenizer::{RemoveLongFilter, SimpleTokenizer, TextAnalyzer, TokenizerManager};
use tantivy::{Directory, SingleSegmentIndexWriter, TantivyDocument, TantivyError};

use super::{Fields, STREAMS_MIN, WORD_MAX, WORDS, directory, schema, term};
use crate::Error;
use crate::block::footer::Indexed;
use crate::block::{PageInfo, StreamEntry};

/// Most distinct values in a block of a name of structured metadata that is indexed. What has more, such as identifiers of requests, is
/// found by the values' grams in neither case, but an index of it would be as large as the lines.
const VALUES_MAX: usize = 16_384;

/// Most names of structured metadata that are told apart.
const NAMES_MAX: usize = 1024;

/// About how many bytes of structured metadata are held at most.
const HELD_MAX: usize = 32 << 20;

/// What a value takes while it is held, besides its text.
const VALUE_BYTES: usize = 64;

/// What tantivy sizes its first tables by. They grow with what comes; most blocks have few terms.
const WRITER_BYTES: usize = 1 << 20;

/// Collects what is to be indexed.
#[derive(Default)]
pub(in crate::block) struct Builder {
    metadata: Metadata,
    words: Option<Writer>,
    text: String,
}

impl std::fmt::Debug for Builder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Builder").field("metadata", &self.metadata).finish_non_exhaustive()
    }
}

/// An index with the names of structured metadata, and whether these are in it.
#[derive(Debug, Default)]
pub(in crate::block) struct Made {
    /// The section, before compression; empty if there is nothing to index.
    pub(in crate::block) section: Vec<u8>,
    pub(in crate::block) indexed: Indexed,
    pub(in crate::block) names: Vec<(Box<str>, bool)>,
    pub(in crate::block) names_complete: bool,
}

impl Builder {
    /// Adds a page, in order. `lines`: only needed if words are indexed.
    pub(in crate::block) fn page<'a>(
        &mut self,
        full_text: bool,
        lines: &[u8],
        pairs: impl Iterator<Item = (&'a str, &'a str)>,
    ) -> Result<(), Error> {
        self.metadata.page(pairs);
        if full_text {
            if self.words.is_none() {
                self.words = Some(Writer::new()?);
            }
            self.text.clear();
            let letter = |b: &u8| if b.is_ascii_alphanumeric() { b.to_ascii_lowercase() as char } else { ' ' };
            self.text.extend(lines.iter().map(letter));
            if let Some(writer) = &mut self.words {
                let word = writer.fields.word;
                writer.add(|document| document.add_text(word, &self.text))?;
            }
        }
        Ok(())
    }

    /// Ends the index of a block with these streams and pages.
    pub(in crate::block) fn finish(self, streams: &[StreamEntry], pages: &[PageInfo]) -> Result<Made, Error> {
        let texts = self.metadata.texts();
        let indexed = Indexed {
            words: self.words.is_some(),
            metadata: texts.iter().any(Option::is_some),
            streams: streams.len() >= STREAMS_MIN,
        };
        let names = self.metadata.names.into_iter().map(|(name, known)| (name, known.indexed)).collect();
        let mut made = Made { section: Vec::new(), indexed, names, names_complete: !self.metadata.more_names };
        if indexed == Indexed::default() {
            return Ok(made);
        }
        let mut writer = if let Some(writer) = self.words { writer } else { Writer::new()? };
        let Fields { label, metadata, .. } = writer.fields;
        if indexed.metadata {
            debug_assert_eq!(self.metadata.pages.len(), pages.len());
            for terms in &self.metadata.pages {
                let texts = terms.iter().filter_map(|id| texts.get(*id as usize)?.as_ref());
                writer.add(|document| texts.for_each(|text| document.add_text(metadata, text)))?;
            }
        }
        if indexed.streams {
            for entry in streams {
                let labels = entry.stream.labels.iter().filter_map(|(name, value)| term(name, value));
                writer.add(|document| labels.for_each(|text| document.add_text(label, text)))?;
            }
        }
        made.section = writer.finish()?;
        Ok(made)
    }
}

/// The structured metadata of the pages so far.
#[derive(Debug, Default)]
struct Metadata {
    names: BTreeMap<Box<str>, Name>,
    /// Whether there are names that are not in `names`.
    more_names: bool,
    /// Number of terms; some of them are given up.
    terms: u32,
    /// The terms of each page.
    pages: Vec<Box<[u32]>>,
    held: usize,
    ids: Vec<u32>,
}

#[derive(Debug)]
struct Name {
    indexed: bool,
    /// The term of each value.
    values: HashMap<Box<str>, u32>,
}

impl Metadata {
    fn page<'a>(&mut self, pairs: impl Iterator<Item = (&'a str, &'a str)>) {
        self.ids.clear();
        for (name, value) in pairs {
            if !self.names.contains_key(name) {
                if self.names.len() >= NAMES_MAX || term(name, "").is_none() {
                    self.more_names = true;
                    continue;
                }
                self.names.insert(name.into(), Name { indexed: true, values: HashMap::new() });
            }
            let Some(known) = self.names.get_mut(name) else { continue };
            if !known.indexed {
                continue;
            }
            let id = known.values.get(value).copied().or_else(|| {
                let room = known.values.len() < VALUES_MAX && self.held < HELD_MAX && term(name, value).is_some();
                room.then(|| {
                    self.held += value.len() + VALUE_BYTES;
                    self.terms += 1;
                    known.values.insert(value.into(), self.terms - 1);
                    self.terms - 1
                })
            });
            match id {
                Some(id) => {
                    self.held += size_of::<u32>();
                    self.ids.push(id);
                }
                None => *known = Name { indexed: false, values: HashMap::new() },
            }
        }
        self.pages.push(self.ids.as_slice().into());
    }

    /// The text of each term, but for those that are given up.
    fn texts(&self) -> Vec<Option<String>> {
        let mut texts = vec![None; self.terms as usize];
        for (name, known) in &self.names {
            for (value, id) in &known.values {
                if let Some(text) = texts.get_mut(*id as usize) {
                    *text = term(name, value);
                }
            }
        }
        texts
    }
}

/// A tantivy index in the making.
struct Writer {
    files: RamDirectory,
    writer: SingleSegmentIndexWriter,
    fields: Fields,
}

impl Writer {
    fn new() -> Result<Self, Error> {
        let files = RamDirectory::create();
        let (schema, fields) = schema();
        let words =
            TextAnalyzer::builder(SimpleTokenizer::default()).filter(RemoveLongFilter::limit(WORD_MAX + 1)).build();
        let tokenizers = TokenizerManager::default();
        tokenizers.register(WORDS, words);
        let index = tantivy::Index::builder().schema(schema).tokenizers(tokenizers);
        let writer = index.single_segment_index_writer(files.clone(), WRITER_BYTES).map_err(refused)?;
        Ok(Self { files, writer, fields })
    }

    fn add(&mut self, fill: impl FnOnce(&mut TantivyDocument)) -> Result<(), Error> {
        let mut document = TantivyDocument::new();
        fill(&mut document);
        self.writer.add_document(document).map_err(refused)
    }

    fn finish(self) -> Result<Vec<u8>, Error> {
        let index = self.writer.finalize().map_err(refused)?;
        let mut files = Vec::new();
        for path in index.directory().list_managed_files() {
            // tantivy also lists what it only might have written.
            if let (Some(name), Ok(file)) = (path.to_str(), self.files.open_read(&path)) {
                files.push((name.to_owned(), file.read_bytes().map_err(|e| refused(e.into()))?));
            }
        }
        files.sort_by(|a, b| a.0.cmp(&b.0));
        Ok(directory::pack(&files))
    }
}

fn refused(error: TantivyError) -> Error {
    Error::Io { what: "making the index of a block".into(), source: io::Error::other(error) }
}
