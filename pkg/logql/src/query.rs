//! A log query, compiled once and run over many lines.

use std::sync::Arc;

use crate::matchers::Matchers;
use crate::pipeline::{Pipeline, Runner};
use crate::portable::Portable as _;
use crate::requirements::Requirements;
use crate::{Error, ast};

/// A selector and a pipeline. Immutable; every reader of lines has its own [`Runner`].
#[derive(Debug)]
pub struct LogQuery {
    canonical: String,
    source: ast::LogExpr,
    matchers: Matchers,
    pipeline: Pipeline,
}

impl LogQuery {
    /// Parses and compiles a query that answers log lines.
    ///
    /// # Errors
    /// Whatever is wrong with the text, in Loki's words; [`Error::NotLog`] for a metric query.
    pub fn parse(text: &str) -> Result<Self, Error> {
        Self::compile(&crate::parse_log(text)?)
    }

    /// Compiles a parsed query.
    ///
    /// # Errors
    /// [`Error::Stage`] for what Loki too finds out only when it builds the pipeline: bad regular expressions of line filters,
    /// patterns, `ip()`s, templates and expressions.
    pub fn compile(expr: &ast::LogExpr) -> Result<Self, Error> {
        let canonical = expr.to_string();
        let (matchers, pipeline) = (Matchers::new(&expr.selector)?, Pipeline::new(&expr.stages)?);
        Ok(Self { canonical, source: expr.clone(), matchers, pipeline })
    }

    /// Compiles what [`LogQuery::to_bytes`] made, possibly in another process.
    ///
    /// # Errors
    /// The bytes are not such; otherwise as [`LogQuery::compile`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, Error> {
        Self::compile(&ast::LogExpr::from_bytes(bytes)?)
    }

    /// The query as bytes, exactly: what is compiled of them answers the same lines.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        self.source.to_bytes()
    }

    /// The query as LogQL prints it: equal texts mean equal answers.
    #[must_use]
    pub fn canonical(&self) -> &str {
        &self.canonical
    }

    /// Which streams.
    #[must_use]
    pub fn matchers(&self) -> &Matchers {
        &self.matchers
    }

    /// Whether there is more than a selector.
    #[must_use]
    pub fn has_pipeline(&self) -> bool {
        !self.pipeline.is_empty()
    }

    /// False only if no line that lies wholly inside `region` can pass. A region holds many lines with other bytes between them.
    #[must_use]
    pub fn may_match(&self, region: &[u8]) -> bool {
        self.pipeline.may_match(region)
    }

    /// What every line that passes has.
    #[must_use]
    pub fn requirements(&self) -> &Requirements {
        &self.pipeline.requirements
    }

    /// What runs this query over lines. With `detect_level` entries that bring no `detected_level` get one.
    #[must_use]
    pub fn runner(self: &Arc<Self>, detect_level: bool) -> Runner {
        Runner::new(Arc::clone(self), detect_level)
    }

    pub(crate) fn pipeline(&self) -> &Pipeline {
        &self.pipeline
    }
}
