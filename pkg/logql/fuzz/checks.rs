//! What must hold for every input, said once: the fuzz targets run these checks, and the tests replay the corpus through them.

use std::sync::Arc;

use tailwater_logql::LogQuery;
use tailwater_model::{LabelSet, Labels, Timestamp};

/// A query. It is read or refused with a reason, and what is printed and can be read again is the same query: only odd names
/// have no spelling.
pub fn parse(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    match tailwater_logql::parse(&text) {
        Ok(expr) => {
            let printed = expr.to_string();
            assert!(!tailwater_logql::pretty(&expr).is_empty());
            if let Ok(again) = tailwater_logql::parse(&printed) {
                assert_eq!(again.to_string(), printed, "{text:?}");
            }
        }
        // Without more words the two grammars disagree: one refuses, the other finds nothing wrong.
        Err(e) => assert_ne!(e.to_string(), "parse error : syntax error", "{text:?}"),
    }
}

/// A query, a zero byte, and lines with zero bytes between them. What a runner answers depends on the line alone, the labels
/// are sorted, a line that passes may match, and the query's normal form means the same.
pub fn pipeline(data: &[u8]) {
    let mut parts = data.split(|b| *b == 0);
    let Some(query) = parts.next().and_then(|query| std::str::from_utf8(query).ok()) else { return };
    let Ok(query) = LogQuery::parse(query) else { return };
    let query = Arc::new(query);
    let again = LogQuery::parse(query.canonical()).ok().map(Arc::new);
    let pair = |(n, v): (&str, &str)| (n.into(), v.into());
    let stream = Labels::from_pairs([("app", "a"), ("level", "info"), ("x", "stream")].map(pair).into());
    let metadata = [("m", "1"), ("x", "metadata")];
    let mut runner = query.runner(true);
    for line in parts {
        runner.enter(&stream);
        let got = runner.run(Timestamp(1), line, &metadata).map(|m| (m.line.to_vec(), m.labels));
        assert_eq!(got, fresh(&query, &stream, line, &metadata), "what came before must not count");
        if let Some(again) = &again {
            assert_eq!(got, fresh(again, &stream, line, &metadata), "{} means something else", query.canonical());
        }
        if let Some((_, labels)) = got {
            assert!(labels.pairs().windows(2).all(|w| w[0].name < w[1].name), "{labels}");
            assert!(query.may_match(line));
        }
    }
}

fn fresh(
    query: &Arc<LogQuery>,
    stream: &Labels,
    line: &[u8],
    metadata: &[(&str, &str)],
) -> Option<(Vec<u8>, LabelSet)> {
    let mut runner = query.runner(true);
    runner.enter(stream);
    runner.run(Timestamp(1), line, metadata).map(|m| (m.line.to_vec(), m.labels))
}
