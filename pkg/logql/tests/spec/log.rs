//! Lines on their way through the pipeline of a log query.

use std::sync::Arc;

use tailwater_logql::{LogQuery, Runner, ast::MatchOp};
use tailwater_model::{Labels, Timestamp};

use crate::Differences;
use crate::cases::labels;

/// Lines on their way through a pipeline.
pub(crate) struct Feed {
    runner: Runner,
    metadata: Vec<(String, String)>,
    /// What came out for the last line, until the case says what should have.
    pending: Option<Option<(String, String)>>,
    labels: Option<String>,
    clock: i64,
}

impl Feed {
    pub(crate) fn new(query: &str) -> Self {
        let query = Arc::new(LogQuery::parse(query).unwrap_or_else(|e| panic!("{query}: {e}")));
        let mut runner = query.runner(false);
        runner.enter(&own_labels(&query));
        Self { runner, metadata: Vec::new(), pending: None, labels: None, clock: 0 }
    }

    pub(crate) fn step(&mut self, marker: &str, text: &str, differences: &mut Differences) {
        match marker {
            "::" => {
                let pairs = labels(text).into_iter().map(|(name, value)| (name.into(), value.into())).collect();
                self.runner.enter(&Labels::from_pairs(pairs));
            }
            "@@" => self.metadata = labels(text),
            "<<" => {
                self.settle(differences);
                self.clock += 1;
                let metadata: Vec<_> = self.metadata.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
                let matched = self.runner.run(Timestamp(self.clock), text.as_bytes(), &metadata);
                self.pending =
                    Some(matched.map(|m| (String::from_utf8_lossy(m.line).into_owned(), m.labels.to_string())));
            }
            ">>" => {
                let (line, labels) =
                    self.pending.take().flatten().unwrap_or_else(|| ("(dropped)".into(), String::new()));
                differences.compare("comes out as", text, &line);
                self.labels = Some(labels);
            }
            "--" => {
                let got = self.pending.take().flatten().map_or_else(|| "(dropped)".to_owned(), |(line, _)| line);
                differences.compare("is dropped", "(dropped)", &got);
            }
            _ => {
                let got = self.labels.take().unwrap_or_else(|| "(no line before these labels)".into());
                differences.compare("has the labels", text, &got);
            }
        }
    }

    /// Every line that goes in must be accounted for.
    fn settle(&mut self, differences: &mut Differences) {
        if let Some(got) = self.pending.take() {
            let got = got.map_or_else(|| "(dropped)".to_owned(), |(line, _)| line);
            differences.compare("goes in", "(a `>>` or `--`)", &got);
        }
    }

    pub(crate) fn finish(mut self, differences: &mut Differences) {
        self.settle(differences);
    }
}

/// The labels that a query asks for by name.
fn own_labels(query: &LogQuery) -> Labels {
    let wanted = query.matchers().iter().filter(|matcher| matcher.op == MatchOp::Eq);
    Labels::from_pairs(wanted.map(|m| (m.name.as_str().into(), m.value.to_str_lossy().into_owned().into())).collect())
}
