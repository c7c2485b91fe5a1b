//! The fields of log lines: what structured metadata, the query's own parsers, and JSON or logfmt in the line name.
//!
//! Invariants:
//! * A line is read as JSON and, if that fails, as logfmt; what a parser found before it failed does not count. A field that
//!   bears the name of a label of the stream is `name_extracted`.
//! * A field is of the type of the value that was added last, its JSON path is the first that was seen.
//! * Memory: at most `limit` fields, and their values, which are parts of the lines that were added.

mod kind;

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use tailwater_model::{Category, LabelSet, Labels, Timestamp};

pub use self::kind::FieldKind;
use crate::ast::{LogExpr, Stage};
use crate::pipeline::json_paths;
use crate::pipeline::names::EXTRACTED_SUFFIX;
use crate::{LogQuery, Runner};

/// Labels that say how a query went and are no fields.
const NO_FIELDS: [&str; 3] = ["__error__", "__error_details__", "__preserve_error__"];

/// What can read a field from a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Parser {
    /// `| json`
    Json,
    /// `| logfmt`
    Logfmt,
}

impl Parser {
    /// What answers call it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Json => "json",
            Self::Logfmt => "logfmt",
        }
    }
}

/// A field and what is known of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Field {
    /// Its name in LogQL.
    pub name: String,
    /// Its type.
    pub kind: FieldKind,
    /// How many different values it has.
    pub cardinality: u64,
    /// What reads it from lines; empty for structured metadata.
    pub parsers: Vec<Parser>,
    /// The keys that lead to it in JSON.
    pub path: Vec<String>,
}

/// Reads the fields of lines.
#[derive(Debug)]
struct Reader {
    json: Runner,
    logfmt: Runner,
    /// Of each stream one set of labels, which its lines share.
    streams: HashSet<Labels>,
}

impl Reader {
    fn new() -> Self {
        let runner = |stage| {
            let expr = LogExpr { selector: Vec::new(), stages: vec![stage] };
            Arc::new(LogQuery::compile(&expr).expect("a parser without expressions compiles")).runner(false)
        };
        Self {
            json: runner(Stage::Json(Vec::new())),
            logfmt: runner(Stage::Logfmt { strict: false, keep_empty: false, extractions: Vec::new() }),
            streams: HashSet::new(),
        }
    }

    /// Calls `tell` with the name and the value of every field. `labels` are those of the line after the query, `line` is what the
    /// query left of it.
    fn read(&mut self, labels: &LabelSet, line: &[u8], tell: &mut impl FnMut(&str, &str, Option<Parser>)) {
        for pair in labels.of(Category::Metadata) {
            tell(&pair.name, &pair.value, None);
        }
        let of_stream = labels.of(Category::Stream).map(|pair| (pair.name.clone(), pair.value.clone())).collect();
        let stream = self.stream(Labels::from_pairs(of_stream));
        let read = [(&mut self.json, Parser::Json), (&mut self.logfmt, Parser::Logfmt)].into_iter().find_map(
            |(runner, parser)| {
                runner.enter(&stream);
                let labels = runner.run(Timestamp::MIN, line, &[])?.labels;
                labels.get(NO_FIELDS[0]).is_none().then_some((labels, parser))
            },
        );
        let parser = read.as_ref().map(|(_, parser)| *parser);
        let found = read.as_ref().map(|(labels, _)| labels.of(Category::Parsed)).into_iter().flatten();
        let by_query = labels.of(Category::Parsed).filter(|pair| !NO_FIELDS.contains(&pair.name.as_ref()));
        for pair in by_query.chain(found) {
            tell(&pair.name, &pair.value, parser);
        }
    }

    fn stream(&mut self, labels: Labels) -> Labels {
        if let Some(known) = self.streams.get(&labels) {
            return known.clone();
        }
        self.streams.insert(labels.clone());
        labels
    }
}

/// What is known of a field so far.
#[derive(Debug)]
struct Known {
    kind: FieldKind,
    values: HashSet<Box<str>>,
    json: bool,
    logfmt: bool,
    path: Vec<String>,
}

/// Gathers the fields of lines.
#[derive(Debug)]
pub struct Fields {
    reader: Reader,
    limit: usize,
    known: BTreeMap<Box<str>, Known>,
}

impl Fields {
    /// None yet, and never more than `limit`.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self { reader: Reader::new(), limit, known: BTreeMap::new() }
    }

    /// Adds a line: its labels after the query, and what the query left of it.
    pub fn add(&mut self, labels: &LabelSet, line: &[u8]) {
        let Self { reader, limit, known } = self;
        let mut without_path = false;
        reader.read(labels, line, &mut |name, value, parser| {
            if !known.contains_key(name) {
                if known.len() >= *limit {
                    return;
                }
                let (kind, values, path) = (FieldKind::String, HashSet::new(), Vec::new());
                known.insert(name.into(), Known { kind, values, json: false, logfmt: false, path });
            }
            let Some(field) = known.get_mut(name) else { return };
            field.kind = FieldKind::of(value);
            if !field.values.contains(value) {
                field.values.insert(value.into());
            }
            field.json |= parser == Some(Parser::Json);
            field.logfmt |= parser == Some(Parser::Logfmt);
            without_path |= parser == Some(Parser::Json) && field.path.is_empty();
        });
        if without_path {
            json_paths::for_each(line, &mut |name, keys| self.set_path(name, keys));
        }
    }

    fn set_path(&mut self, name: &str, keys: &[String]) {
        let renamed = format!("{name}{EXTRACTED_SUFFIX}");
        for name in [name, &renamed] {
            if let Some(field) = self.known.get_mut(name)
                && field.json
            {
                if field.path.is_empty() {
                    field.path = keys.to_vec();
                }
                return;
            }
        }
    }

    /// The fields, sorted by name.
    #[must_use]
    pub fn finish(self) -> Vec<Field> {
        let field = |(name, known): (Box<str>, Known)| {
            let parsers = [(known.json, Parser::Json), (known.logfmt, Parser::Logfmt)];
            Field {
                name: name.into(),
                kind: known.kind,
                cardinality: known.values.len() as u64,
                parsers: parsers.into_iter().filter_map(|(is, parser)| is.then_some(parser)).collect(),
                path: known.path,
            }
        };
        self.known.into_iter().map(field).collect()
    }
}

/// Gathers the values of one field.
#[derive(Debug)]
pub struct FieldValues {
    reader: Reader,
    name: String,
    limit: usize,
    values: BTreeSet<String>,
}

impl FieldValues {
    /// None yet, and never more than `limit`.
    #[must_use]
    pub fn new(name: &str, limit: usize) -> Self {
        Self { reader: Reader::new(), name: name.to_owned(), limit, values: BTreeSet::new() }
    }

    /// Adds a line, as [`Fields::add`] does. False when there are as many values as there may be.
    pub fn add(&mut self, labels: &LabelSet, line: &[u8]) -> bool {
        let Self { reader, name, limit, values } = self;
        reader.read(labels, line, &mut |field, value, _| {
            if field == name && values.len() < *limit && !values.contains(value) {
                values.insert(value.to_owned());
            }
        });
        values.len() < *limit
    }

    /// The values, sorted.
    #[must_use]
    pub fn finish(self) -> Vec<String> {
        self.values.into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use tailwater_model::LabelPair;

    use super::*;

    fn labels(pairs: &[(&str, &str, Category)]) -> LabelSet {
        let pair =
            |(n, v, c): &(&str, &str, Category)| LabelPair { name: (*n).into(), value: (*v).into(), category: *c };
        LabelSet::from_pairs(pairs.iter().map(pair).collect())
    }

    fn shown(fields: Fields) -> Vec<String> {
        let show = |field: Field| {
            let parsers: Vec<_> = field.parsers.iter().map(|p| p.as_str()).collect();
            let (name, kind, cardinality) = (field.name, field.kind.as_str(), field.cardinality);
            format!("{name} {kind} {cardinality} [{}] {}", parsers.join(" "), field.path.join("/"))
        };
        fields.finish().into_iter().map(show).collect()
    }

    const STREAM: (&str, &str, Category) = ("app", "a", Category::Stream);

    #[test]
    fn fields_come_from_metadata_json_and_logfmt() {
        let mut fields = Fields::new(100);
        let plain = labels(&[STREAM, ("detected_level", "info", Category::Metadata)]);
        fields.add(&plain, br#"{"a":1.5,"o":{"k.x":"v"},"app":"b"}"#);
        fields.add(&plain, br#"a="two" took=5ms"#);
        fields.add(&plain, b"just words");
        fields.add(&plain, br#"{"a":2}"#);
        assert_eq!(
            shown(fields),
            [
                "a int 3 [json logfmt] a",
                "app_extracted string 1 [json] app",
                "detected_level string 1 [] ",
                "o_k_x string 1 [json] o/k.x",
                "took duration 1 [logfmt] ",
            ]
        );
    }

    #[test]
    fn the_query_s_own_fields_count_and_its_errors_do_not() {
        let mut fields = Fields::new(100);
        let parsed = labels(&[
            STREAM,
            ("__error__", "JSONParserErr", Category::Parsed),
            ("__error_details__", "x", Category::Parsed),
            ("word", "just", Category::Parsed),
        ]);
        fields.add(&parsed, b"just words");
        fields.add(&parsed, br#"{"broken": 1, "x""#);
        assert_eq!(shown(fields), ["word string 1 [logfmt] "]);
    }

    #[test]
    fn there_are_never_more_fields_or_values_than_the_limit() {
        let mut fields = Fields::new(2);
        fields.add(&labels(&[STREAM]), b"a=1 b=2 c=3");
        fields.add(&labels(&[STREAM]), b"d=1 a=7");
        assert_eq!(shown(fields), ["a int 2 [logfmt] ", "b int 1 [logfmt] "]);
        let mut values = FieldValues::new("a", 2);
        assert!(values.add(&labels(&[STREAM]), b"a=2"));
        assert!(values.add(&labels(&[STREAM]), b"b=3 a=2"));
        assert!(!values.add(&labels(&[STREAM, ("a", "1", Category::Metadata)]), b"b=3"));
        assert!(!values.add(&labels(&[STREAM]), b"a=9"));
        assert_eq!(values.finish(), ["1", "2"]);
    }

    proptest::proptest! {
        /// Any line is answered, and its paths lead to what `| json` found.
        #[test]
        fn any_line_is_answered(line in r#"[{}\[\]:,"a-c=. \\0-9]{0,60}"#) {
            let mut fields = Fields::new(50);
            fields.add(&labels(&[STREAM]), line.as_bytes());
            for field in fields.finish() {
                proptest::prop_assert!(field.cardinality > 0);
                proptest::prop_assert!(field.path.is_empty() || field.parsers == [Parser::Json]);
            }
        }
    }
}
