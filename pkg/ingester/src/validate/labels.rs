//! The labels of a stream: from the text as sent to the canonical set.

use tailwater_model::{Labels, Limits, selector_text};

use super::Reason;

/// The label that Loki adds to every stream.
pub(crate) const SERVICE_NAME: &str = "service_name";

/// Its value if no other label tells.
const UNKNOWN_SERVICE: &str = "unknown_service";

/// Streams of Loki's own making, which get no [`SERVICE_NAME`].
const AGGREGATED: [&str; 2] = ["__aggregated_metric__", "__pattern__"];

/// Labels that senders may not use.
const RESERVED: [&str; 2] = ["__backfill__", "__backfill_shard__"];

/// The canonical labels of a stream.
///
/// # Errors
/// Why the stream is refused, and what to say.
pub(crate) fn stream_labels(text: &[u8], limits: &Limits) -> Result<Labels, (Reason, String)> {
    let mut pairs = tailwater_wire::labels::parse(text).map_err(|e| (Reason::InvalidLabels, e.to_string()))?;
    pairs.retain(|(_, value)| !value.is_empty());
    if pairs.iter().any(|(name, _)| RESERVED.contains(&name.as_ref())) {
        let text = "streams must not contain the reserved labels __backfill__ or __backfill_shard__; \
                    set the X-Loki-Backfill-Shard header to mark a push as backfill data";
        return Err((Reason::ReservedLabels, text.into()));
    }
    discover_service_name(&mut pairs, limits);
    pairs.sort_by(|a, b| a.0.cmp(&b.0));
    check(&pairs, limits)?;
    Ok(Labels::from_pairs(pairs))
}

/// The labels of a stream as [`stream_labels`] once made them, whatever the limits were: what the text says, and that service name.
///
/// # Errors
/// The text is not one that was accepted.
pub(crate) fn accepted_labels(text: &[u8], service_name: Option<&str>) -> Result<Labels, tailwater_wire::Error> {
    let mut pairs = tailwater_wire::labels::parse(text)?;
    if let Some(service_name) = service_name {
        pairs.retain(|(name, _)| name.as_ref() != SERVICE_NAME);
        pairs.push((SERVICE_NAME.into(), service_name.into()));
    }
    Ok(Labels::from_pairs(pairs))
}

fn discover_service_name(pairs: &mut Vec<(Box<str>, Box<str>)>, limits: &Limits) {
    let has = |wanted: &str| pairs.iter().any(|(name, _)| name.as_ref() == wanted);
    if limits.discover_service_name.is_empty() || has(SERVICE_NAME) || AGGREGATED.iter().any(|name| has(name)) {
        return;
    }
    let of = |wanted: &String| pairs.iter().find(|(name, _)| **name == **wanted).map(|(_, value)| value.clone());
    let name = limits.discover_service_name.iter().find_map(of).unwrap_or_else(|| UNKNOWN_SERVICE.into());
    pairs.push((SERVICE_NAME.into(), name));
}

fn check(pairs: &[(Box<str>, Box<str>)], limits: &Limits) -> Result<(), (Reason, String)> {
    let stream = || selector_text(pairs.iter().map(|(name, value)| (name.as_ref(), value.as_ref())));
    if pairs.is_empty() {
        return Err((Reason::MissingLabels, "error at least one label pair is required per stream".into()));
    }
    let names = pairs.len() - usize::from(pairs.iter().any(|(name, _)| name.as_ref() == SERVICE_NAME));
    if names > limits.max_label_names_per_series {
        let text = format!(
            "entry for stream '{}' has {names} label names; limit {}",
            stream(),
            limits.max_label_names_per_series
        );
        return Err((Reason::LabelNames, text));
    }
    let mut last = "";
    for (name, value) in pairs {
        if name.len() > limits.max_label_name_length {
            return Err((Reason::LabelNameTooLong, format!("stream '{}' has label name too long: '{name}'", stream())));
        }
        if value.len() > limits.max_label_value_length {
            return Err((
                Reason::LabelValueTooLong,
                format!("stream '{}' has label value too long: '{value}'", stream()),
            ));
        }
        if name.as_ref() == last {
            let text = format!("stream '{}' has duplicate label name: '{name}'", stream());
            return Err((Reason::DuplicateLabelNames, text));
        }
        last = name;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(text: &str, change: impl FnOnce(&mut Limits)) -> Result<String, (Reason, String)> {
        let mut limits = Limits::default();
        change(&mut limits);
        stream_labels(text.as_bytes(), &limits).map(|labels| labels.to_string())
    }

    fn of(text: &str) -> Result<String, (Reason, String)> {
        with(text, |_| {})
    }

    #[test]
    fn labels_are_sorted_and_get_a_service_name() {
        for (text, canonical) in [
            (r#"{z="1",a="2"}"#, r#"{a="2", service_name="unknown_service", z="1"}"#),
            (r#"{job="j", container="c", app="x"}"#, r#"{app="x", container="c", job="j", service_name="x"}"#),
            (r#"{app="",job="j"}"#, r#"{job="j", service_name="j"}"#),
            (r#"{service_name="mine",app="x"}"#, r#"{app="x", service_name="mine"}"#),
            (r#"{service_name="",app="x"}"#, r#"{app="x", service_name="x"}"#),
            (r#"{__aggregated_metric__="m"}"#, r#"{__aggregated_metric__="m"}"#),
            ("{}", r#"{service_name="unknown_service"}"#),
            ("", r#"{service_name="unknown_service"}"#),
        ] {
            assert_eq!(of(text).as_deref(), Ok(canonical), "{text}");
        }
    }

    #[test]
    fn without_discovery_a_stream_needs_a_label() {
        let off = |l: &mut Limits| l.discover_service_name.clear();
        assert_eq!(with(r#"{app="x"}"#, off).as_deref(), Ok(r#"{app="x"}"#));
        let refused = (Reason::MissingLabels, "error at least one label pair is required per stream".to_owned());
        assert_eq!(with(r#"{app=""}"#, off), Err(refused));
    }

    #[test]
    fn limits_are_told_in_lokis_words() {
        let three = |l: &mut Limits| l.max_label_names_per_series = 3;
        assert!(with(r#"{a="1",b="2",c="3"}"#, three).is_ok(), "service_name is not counted");
        assert!(with(r#"{a="1",b="2",c="3",service_name="s"}"#, three).is_ok());
        let text = r#"entry for stream '{a="1", b="2", c="3", d="4", service_name="unknown_service"}' has 4 label names; limit 3"#;
        assert_eq!(with(r#"{a="1",b="2",c="3",d="4"}"#, three), Err((Reason::LabelNames, text.into())));

        let short = |l: &mut Limits| (l.max_label_name_length, l.max_label_value_length) = (12, 15);
        assert!(with(r#"{abcdefghijkl="v"}"#, short).is_ok());
        let text =
            r#"stream '{abcdefghijklm="v", service_name="unknown_service"}' has label name too long: 'abcdefghijklm'"#;
        assert_eq!(with(r#"{abcdefghijklm="v"}"#, short), Err((Reason::LabelNameTooLong, text.into())));
        let text = r#"stream '{a="0123456789abcdef", service_name="unknown_service"}' has label value too long: '0123456789abcdef'"#;
        assert_eq!(with(r#"{a="0123456789abcdef"}"#, short), Err((Reason::LabelValueTooLong, text.into())));
    }

    #[test]
    fn a_name_stands_once() {
        let text = r#"stream '{k="1", k="2", service_name="unknown_service"}' has duplicate label name: 'k'"#;
        assert_eq!(of(r#"{k="1",k="2"}"#), Err((Reason::DuplicateLabelNames, text.into())));
        let text = r#"stream '{name="1", name="2", service_name="1"}' has duplicate label name: 'name'"#;
        assert_eq!(of(r#"{name="1",name="2"}"#), Err((Reason::DuplicateLabelNames, text.into())));
    }

    #[test]
    fn some_labels_are_not_for_senders() {
        for text in [r#"{__backfill__="true"}"#, r#"{a="b",__backfill_shard__="1"}"#] {
            let (reason, text) = of(text).unwrap_err();
            assert_eq!(reason, Reason::ReservedLabels);
            assert!(text.starts_with("streams must not contain the reserved labels __backfill__ or"), "{text}");
        }
        let (reason, text) = of(r#"{a-b="x"}"#).unwrap_err();
        assert_eq!(reason, Reason::InvalidLabels);
        assert!(text.starts_with("couldn't parse labels: 1:3: parse error: "), "{text}");
        assert_eq!(of(r#"{"a.b"="x"}"#).unwrap_err().0, Reason::InvalidLabels);
    }
}
