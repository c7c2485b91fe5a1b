//! `retention_stream`: how long the lines of streams are kept that a selector selects.

use std::time::Duration;

use serde_json::{Value, json};
use tailwater_logql::matchers::Matchers;
use tailwater_logql::parse_selector;
use tailwater_model::{DeletionMode, StreamRetention};

use super::tree::Node;
use super::units::{Named, Time, Unit, scalar};

/// The shortest period of a rule, as in Loki.
const MIN_PERIOD: Duration = Duration::from_secs(24 * 3600);

/// A list of rules.
pub(super) struct Rules;

impl Unit for Rules {
    type Value = Vec<StreamRetention>;

    fn read(node: &Node) -> Result<Vec<StreamRetention>, String> {
        match node {
            Node::Null => Ok(Vec::new()),
            Node::List(items) => {
                let rule = |(index, item): (usize, &serde_saphyr::Spanned<Node>)| {
                    rule(&item.value).map_err(|what| format!("rule {}: {what}", index + 1))
                };
                items.iter().enumerate().map(rule).collect()
            }
            other => Err(format!("found {}; allowed: a list of {{selector, priority, period}}", other.kind())),
        }
    }

    fn show(value: &Vec<StreamRetention>) -> Value {
        let rule = |rule: &StreamRetention| json!({ "selector": rule.selector, "priority": rule.priority, "period": Time::show(&rule.period) });
        value.iter().map(rule).collect()
    }
}

fn rule(node: &Node) -> Result<StreamRetention, String> {
    let Node::Map(pairs) = node else {
        return Err(format!("found {}; allowed: {{selector, priority, period}}", node.kind()));
    };
    let (mut selector, mut priority, mut period) = (None, 0, None);
    for (key, value) in pairs {
        let value = &value.value;
        match key.value.text().unwrap_or("~") {
            "selector" => selector = Some(read_selector(value).map_err(|what| format!("selector: {what}"))?),
            "priority" => priority = read_priority(value).map_err(|what| format!("priority: {what}"))?,
            "period" => period = Some(read_period(value).map_err(|what| format!("period: {what}"))?),
            other => return Err(format!("unknown key {other:?}; allowed: selector, priority, period")),
        }
    }
    let selector = selector.ok_or("it has no selector; which streams is it about?")?;
    let period = period.ok_or("it has no period; how long are the lines kept?")?;
    Ok(StreamRetention { selector, priority, period })
}

fn read_selector(node: &Node) -> Result<String, String> {
    let text = scalar(node, "a stream selector such as '{app=\"x\"}'")?;
    parse_selector(text)
        .and_then(|matchers| Matchers::new(&matchers))
        .map_err(|e| format!("{text:?} is no stream selector such as '{{app=\"x\"}}': {e}"))?;
    Ok(text.to_owned())
}

fn read_priority(node: &Node) -> Result<i32, String> {
    let text = scalar(node, "a whole number")?;
    text.parse().map_err(|_| format!("{text:?} is not a whole number; the higher goes before"))
}

fn read_period(node: &Node) -> Result<Duration, String> {
    let period = Time::read(node)?;
    if period < MIN_PERIOD { Err("it is too short; allowed: 24h and more".to_owned()) } else { Ok(period) }
}

impl Named for DeletionMode {
    const ALL: &[(&str, Self)] = &[
        ("disabled", Self::Disabled),
        ("filter-only", Self::FilterOnly),
        ("filter-and-delete", Self::FilterAndDelete),
    ];
}
