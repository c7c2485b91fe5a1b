//! The index of a block: a tantivy segment of one schema, its files one after the other in one part.
//!
//! Three kinds of documents, each of which may be missing ([`super::Indexed`]), in this order: one per page with its words, one per page
//! with its structured metadata, one per stream with its labels. The number of a document tells what it stands for.
//!
//! Invariant: what the index says is a superset. A page or a stream that it leaves out has nothing of what was asked for; one that it
//! names may still have nothing.

mod directory;
mod read;
mod write;

use tantivy::schema::{Field, IndexRecordOption, Schema, TextFieldIndexing, TextOptions};

pub use self::read::{Index, PageSet};
pub(super) use self::write::Builder;

/// Longest term, in bytes. Labels that are longer are left out, a name of metadata with such a value is not indexed.
const TERM_MAX: usize = 4096;

/// Longest word, in bytes; longer ones are left out.
const WORD_MAX: usize = 64;

/// The name of the tokenizer of words in tantivy's table.
const WORDS: &str = "words";

/// From how many streams on their labels are indexed. To test the labels of all takes less time than to open the index below that.
pub(super) const STREAMS_MIN: usize = 4096;

/// What an index is called in errors.
const WHAT: &str = "index of a block";

/// The fields of a document.
#[derive(Clone, Copy, Debug)]
struct Fields {
    /// Labels of a stream: `name=value`.
    label: Field,
    /// Structured metadata of a page: `name=value`.
    metadata: Field,
    /// Words of a page: runs of ASCII letters and digits, in lower case.
    word: Field,
}

fn schema() -> (Schema, Fields) {
    let mut schema = Schema::builder();
    let mut field = |name: &str, tokenizer: &str| {
        let indexing = TextFieldIndexing::default()
            .set_tokenizer(tokenizer)
            .set_fieldnorms(false)
            .set_index_option(IndexRecordOption::Basic);
        schema.add_text_field(name, TextOptions::default().set_indexing_options(indexing))
    };
    let fields =
        Fields { label: field("label", "raw"), metadata: field("metadata", "raw"), word: field("word", WORDS) };
    (schema.build(), fields)
}

/// The term of a label or a pair of structured metadata. If the name has a `=` two pairs may have the same; that makes a superset.
fn term(name: &str, value: &str) -> Option<String> {
    let fits = name.len().saturating_add(value.len()) < TERM_MAX;
    fits.then(|| [name, "=", value].concat())
}
