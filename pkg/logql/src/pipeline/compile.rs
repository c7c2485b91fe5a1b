//! Stages as they run.
//!
//! Invariants:
//! * `head` is what a line must pass as it came: every line filter before the first stage that can change the line. Filters
//!   behind such a stage stand directly after it. Nothing else changes its place, and since a line passes only if all filters
//!   hold, no answer changes.
//! * Errors are those that Loki finds first: it looks at the line filters of a segment before its other stages, and names them
//!   all together.

use super::drop_keep;
use super::format::{self, LineFormat};
use super::json_expr;
use super::label_filter::Filter;
use super::labels::Wanted;
use super::line_filter::{self, LineTest};
use super::logfmt;
use super::names::{NameId, Names};
use super::pattern::Pattern;
use super::regexp::Regexp;
use crate::Error;
use crate::ast;
use crate::requirements::Requirements;

/// One step of a pipeline.
#[derive(Debug)]
pub(crate) enum Stage {
    Lines(Vec<LineTest>),
    Json,
    JsonExpressions(Box<[json_expr::Extraction]>),
    Logfmt(logfmt::Flags),
    LogfmtExpressions(logfmt::Flags, Box<[logfmt::Extraction]>),
    /// With its number among the stages of this kind.
    Regexp(Box<Regexp>, usize),
    Pattern(Pattern),
    Unpack,
    Decolorize,
    LineFormat(LineFormat),
    LabelFormat(Box<[format::Item]>),
    Label(Filter),
    Drop(Box<[drop_keep::Item]>),
    Keep(Box<[drop_keep::Item]>),
}

/// The stages of a query.
#[derive(Debug)]
pub(crate) struct Pipeline {
    /// The names that the stages use, by number.
    pub(crate) names: Box<[Box<str>]>,
    pub(crate) head: Vec<LineTest>,
    pub(crate) stages: Vec<Stage>,
    /// What parsers extract; everything if none.
    pub(crate) wanted: Option<Wanted>,
    /// What every line that passes has.
    pub(crate) requirements: Requirements,
    written: usize,
}

impl Pipeline {
    /// Compiles stages.
    pub(crate) fn new(stages: &[ast::Stage]) -> Result<Self, Error> {
        Self::with(stages, |_| Ok(())).map(|(pipeline, ())| pipeline)
    }

    /// Compiles stages, and in `more` what else needs the numbers of names.
    pub(crate) fn with<T>(
        stages: &[ast::Stage],
        more: impl FnOnce(&mut Names) -> Result<T, Error>,
    ) -> Result<(Self, T), Error> {
        let mut names = Names::new();
        let mut pipeline = Self {
            names: Box::default(),
            head: Vec::new(),
            stages: Vec::new(),
            wanted: None,
            requirements: Requirements::default(),
            written: stages.len(),
        };
        let mut refused = Vec::new();
        // Behind the last stage that can change the line: where line filters go.
        let mut barrier = None;
        let mut regexps = 0;
        for (index, stage) in stages.iter().enumerate() {
            if let ast::Stage::Line(filter) = stage {
                let tests = match barrier {
                    None => &mut pipeline.head,
                    Some(at) => {
                        if !matches!(pipeline.stages.get(at), Some(Stage::Lines(_))) {
                            pipeline.stages.insert(at, Stage::Lines(Vec::new()));
                        }
                        match &mut pipeline.stages[at] {
                            Stage::Lines(tests) => tests,
                            _ => &mut pipeline.head,
                        }
                    }
                };
                if let Err(msg) = line_filter::compile(filter, tests) {
                    refused.push((index, msg));
                }
                continue;
            }
            match compile(stage, &mut names, &mut regexps) {
                Ok(compiled) => {
                    let changes_line = matches!(compiled, Stage::Unpack | Stage::Decolorize | Stage::LineFormat(_));
                    pipeline.stages.push(compiled);
                    if changes_line {
                        barrier = Some(pipeline.stages.len());
                    }
                }
                Err(msg) => refused.push((index, msg)),
            }
        }
        if !refused.is_empty() {
            return Err(first_error(stages, refused));
        }
        pipeline.head.sort_by_key(LineTest::cost);
        for stage in &mut pipeline.stages {
            if let Stage::Lines(tests) = stage {
                tests.sort_by_key(LineTest::cost);
            }
        }
        pipeline.requirements = Requirements::new(&pipeline.head, stages);
        let more = more(&mut names)?;
        pipeline.names = names.into_added();
        Ok((pipeline, more))
    }

    /// Whether the line, as it came, passes what it must pass first.
    pub(crate) fn passes_head(&self, line: &[u8]) -> bool {
        self.head.iter().all(|test| test.passes(line))
    }

    /// Whether no stage was written.
    pub(crate) fn is_empty(&self) -> bool {
        self.written == 0
    }

    /// See [`crate::LogQuery::may_match`].
    pub(crate) fn may_match(&self, region: &[u8]) -> bool {
        self.head.iter().all(|test| test.may_match(region))
    }
}

fn compile(stage: &ast::Stage, names: &mut Names, regexps: &mut usize) -> Result<Stage, String> {
    let mut intern = |name: &str| names.intern(name);
    Ok(match stage {
        ast::Stage::Line(_) => Stage::Lines(Vec::new()),
        ast::Stage::Json(extractions) if extractions.is_empty() => Stage::Json,
        ast::Stage::Json(extractions) => {
            let compile = |e: &ast::Extraction| {
                let path = json_expr::parse(e.expression.as_bytes())?;
                Ok(json_expr::Extraction { label: label_name(&e.label, &mut intern)?, path })
            };
            Stage::JsonExpressions(extractions.iter().map(compile).collect::<Result<_, String>>()?)
        }
        ast::Stage::Logfmt { strict, keep_empty, extractions } => {
            let flags = logfmt::Flags { strict: *strict, keep_empty: *keep_empty };
            if extractions.is_empty() {
                return Ok(Stage::Logfmt(flags));
            }
            let compile = |e: &ast::Extraction| {
                let source = logfmt::parse(e.expression.as_bytes())?;
                let label = label_name(&e.label, &mut intern)?;
                // Compared with sanitized keys, so a source that is no name never equals one.
                Ok(logfmt::Extraction { label, source: intern(&String::from_utf8_lossy(&source)) })
            };
            Stage::LogfmtExpressions(flags, extractions.iter().map(compile).collect::<Result<_, String>>()?)
        }
        ast::Stage::Regexp(expression) => {
            *regexps += 1;
            Stage::Regexp(Box::new(Regexp::new(expression.as_bytes(), intern)?), *regexps - 1)
        }
        ast::Stage::Pattern(pattern) => Stage::Pattern(Pattern::new(pattern.as_bytes(), intern)?),
        ast::Stage::Unpack => Stage::Unpack,
        ast::Stage::Decolorize => Stage::Decolorize,
        ast::Stage::Drop(items) => Stage::Drop(drop_keep::compile(items, intern)?),
        ast::Stage::Keep(items) => Stage::Keep(drop_keep::compile(items, intern)?),
        ast::Stage::Label(filter) => Stage::Label(Filter::new(filter, &mut intern)?),
        ast::Stage::LineFormat(text) => Stage::LineFormat(LineFormat::new(text.as_bytes(), intern)?),
        ast::Stage::LabelFormat(items) => Stage::LabelFormat(format::compile(items, intern)?),
    })
}

fn label_name(name: &str, intern: impl FnOnce(&str) -> NameId) -> Result<NameId, String> {
    let valid =
        name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') && !name.starts_with(|c: char| c.is_ascii_digit());
    if valid && !name.is_empty() { Ok(intern(name)) } else { Err(format!("invalid extracted label name '{name}'")) }
}

/// The error that Loki would have found first, and the text of the stage that it would have named.
fn first_error(stages: &[ast::Stage], refused: Vec<(usize, String)>) -> Error {
    let mut position = vec![0; stages.len()];
    let mut segment_of = vec![0; stages.len()];
    let mut segment = 0;
    for (index, stage) in stages.iter().enumerate() {
        segment_of[index] = segment;
        // Within a segment the line filters come first, and a label filter comes after everything.
        position[index] = match stage {
            ast::Stage::Line(_) => 0,
            ast::Stage::Label(_) => 2,
            _ => 1,
        };
        if matches!(stage, ast::Stage::Label(_) | ast::Stage::LineFormat(_) | ast::Stage::Unpack) {
            segment += 1;
        }
    }
    let first = refused.into_iter().min_by_key(|(index, _)| (segment_of[*index], position[*index], *index));
    let Some((index, msg)) = first else { return Error::Invalid(String::new()) };
    let stage = if matches!(stages[index], ast::Stage::Line(_)) {
        let together = stages
            .iter()
            .zip(&segment_of)
            .filter(|(stage, segment)| matches!(stage, ast::Stage::Line(_)) && **segment == segment_of[index]);
        together.map(|(stage, _)| stage.to_string()).collect::<Vec<_>>().join(" ")
    } else {
        stages[index].to_string()
    };
    Error::Stage { stage, msg }
}
