//! Reads everything that a query selects, page by page, as an exporter does.
//!
//! Invariant: a page that is full is cut before its last timestamp and the next one begins there, so a line is in exactly one page and a
//! line that the server gives twice is seen twice. A page must hold more lines than have one timestamp.

use serde_json::Value;

use crate::client::{self, Client, Line, Reply};

/// What a query answers.
#[derive(Clone, Debug, Default)]
pub struct Answer {
    /// The lines; those under the same labels in the order of the answer.
    pub lines: Vec<Line>,
    /// What the server says about the answer.
    pub warnings: Vec<String>,
    /// How many requests it took.
    pub pages: usize,
}

/// What to read.
#[derive(Clone, Copy, Debug)]
pub struct Query<'a> {
    /// The query.
    pub query: &'a str,
    /// First timestamp, nanoseconds since 1970.
    pub start: i64,
    /// The timestamp after the last.
    pub end: i64,
    /// Lines of a page.
    pub limit: usize,
    /// Oldest first.
    pub forward: bool,
}

impl<'a> Query<'a> {
    /// Everything that `query` selects of the last two days, oldest first.
    #[must_use]
    pub fn all(query: &'a str) -> Self {
        const DAY: i64 = 86_400_000_000_000;
        let now = crate::now_ns();
        Self { query, start: now - 2 * DAY, end: now + DAY / 24, limit: 5_000, forward: true }
    }

    /// One page.
    ///
    /// # Errors
    /// The answer, if it is not 200.
    ///
    /// # Panics
    /// If an answer of 200 has another shape.
    pub async fn page(&self, client: &Client) -> Result<Answer, Reply> {
        let (start, end, limit) = (self.start.to_string(), self.end.to_string(), self.limit.to_string());
        let direction = if self.forward { "forward" } else { "backward" };
        let params =
            [("query", self.query), ("start", &start), ("end", &end), ("limit", &limit), ("direction", direction)];
        let reply = client.get_with("/loki/api/v1/query_range", &params).await;
        if reply.status != 200 {
            return Err(reply);
        }
        let answer = reply.json();
        assert_eq!(answer["data"]["resultType"], "streams", "{answer}");
        Ok(Answer { lines: unsorted(&answer), warnings: warnings(&answer), pages: 1 })
    }

    /// All pages.
    ///
    /// # Errors
    /// The first answer that is not 200.
    ///
    /// # Panics
    /// If an answer of 200 has another shape, or if a page holds one timestamp only.
    pub async fn read(&self, client: &Client) -> Result<Answer, Reply> {
        let mut all = Answer::default();
        let mut rest = *self;
        loop {
            let mut page = rest.page(client).await?;
            all.pages += 1;
            all.warnings.append(&mut page.warnings);
            assert!(page.lines.len() <= rest.limit, "{} lines, asked for {}", page.lines.len(), rest.limit);
            if page.lines.len() < rest.limit {
                all.lines.append(&mut page.lines);
                return Ok(all);
            }
            let times = page.lines.iter().map(|line| line.timestamp);
            let (first, last) = (times.clone().min().unwrap_or(0), times.max().unwrap_or(0));
            assert_ne!(first, last, "a page of {} holds one timestamp only", rest.limit);
            let cut = if rest.forward { last } else { first };
            all.lines.extend(page.lines.into_iter().filter(|line| line.timestamp != cut));
            if rest.forward {
                rest.start = cut;
            } else {
                rest.end = cut + 1;
            }
        }
    }
}

/// The lines of a `streams` answer in the order of the answer.
fn unsorted(answer: &Value) -> Vec<Line> {
    let mut all = Vec::new();
    for stream in answer["data"]["result"].as_array().expect("result is a list") {
        let labels = client::labels(&stream["stream"]);
        for value in stream["values"].as_array().expect("values is a list") {
            let (timestamp, line) = (client::nanoseconds(&value[0]), client::text(&value[1]));
            all.push(Line { labels: labels.clone(), timestamp, line });
        }
    }
    all
}

/// The warnings of an answer.
#[must_use]
pub fn warnings(answer: &Value) -> Vec<String> {
    answer["warnings"].as_array().into_iter().flatten().map(client::text).collect()
}

/// The value of a metric at `/metrics`, the sum of its series; `None` if there is none.
pub async fn metric(client: &Client, name: &str) -> Option<f64> {
    let text = client.try_send("GET", "/metrics", &[], bytes::Bytes::new()).await.ok()?.text();
    let of_name = |line: &str| {
        let rest = line.strip_prefix(name)?;
        let value = rest.strip_prefix(' ').or_else(|| rest.strip_prefix('{')?.split_once("} ").map(|(_, v)| v))?;
        value.split(' ').next()?.parse::<f64>().ok()
    };
    let values: Vec<_> = text.lines().filter_map(of_name).collect();
    (!values.is_empty()).then(|| values.iter().sum())
}
