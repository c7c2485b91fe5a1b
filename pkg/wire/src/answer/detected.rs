//! Answers about labels, fields and patterns: what Grafana's Logs Drilldown asks for (contract, Loki API §1.3; Grafana §8). They have
//! no envelope; what is empty is left out.

use tailwater_logql::fields::Field;
use tailwater_logql::patterns::Pattern;

use crate::text;

/// Labels and how many values each has, as given (`detected_labels`).
#[must_use]
pub fn detected_labels<'a>(labels: impl IntoIterator<Item = (&'a str, u64)>) -> Vec<u8> {
    let mut out = b"{".to_vec();
    for (i, (name, cardinality)) in labels.into_iter().enumerate() {
        out.extend_from_slice(if i == 0 { br#""detectedLabels":[{"label":"# } else { br#",{"label":"# });
        text::string(&mut out, name.as_bytes());
        out.extend_from_slice(br#","cardinality":"#);
        text::integer(&mut out, cardinality);
        out.push(b'}');
    }
    if out.len() > 1 {
        out.push(b']');
    }
    out.push(b'}');
    out
}

/// Fields, as given (`detected_fields`); `limit` is how many there may be.
#[must_use]
pub fn detected_fields(fields: &[Field], limit: u32) -> Vec<u8> {
    if fields.is_empty() {
        return b"{}".to_vec();
    }
    let mut out = br#"{"fields":["#.to_vec();
    for (i, field) in fields.iter().enumerate() {
        if i > 0 {
            out.push(b',');
        }
        out.extend_from_slice(br#"{"label":"#);
        text::string(&mut out, field.name.as_bytes());
        out.extend_from_slice(br#","type":"#);
        text::string(&mut out, field.kind.as_str().as_bytes());
        out.extend_from_slice(br#","cardinality":"#);
        text::integer(&mut out, field.cardinality);
        out.extend_from_slice(br#","parsers":"#);
        if field.parsers.is_empty() {
            out.extend_from_slice(b"null");
        } else {
            text::strings(&mut out, field.parsers.iter().map(|parser| parser.as_str()));
        }
        if !field.path.is_empty() {
            out.extend_from_slice(br#","jsonPath":"#);
            text::strings(&mut out, &field.path);
        }
        out.push(b'}');
    }
    limited(&mut out, limit);
    out
}

/// Values of a field, as given (`detected_field/{name}/values`); `limit` is how many there may be.
#[must_use]
pub fn field_values(values: &[String], limit: u32) -> Vec<u8> {
    if values.is_empty() {
        return b"{}".to_vec();
    }
    let mut out = br#"{"values":"#.to_vec();
    text::strings(&mut out, values);
    out.pop();
    limited(&mut out, limit);
    out
}

/// Closes a list and tells its limit.
fn limited(out: &mut Vec<u8>, limit: u32) {
    out.extend_from_slice(br#"],"limit":"#);
    text::integer(out, limit);
    out.push(b'}');
}

/// Patterns, as given; their steps are in nanoseconds and answered in seconds.
#[must_use]
pub fn patterns(patterns: &[Pattern], warnings: &[String]) -> Vec<u8> {
    let mut out = br#"{"status":"success","data":["#.to_vec();
    for (i, pattern) in patterns.iter().enumerate() {
        if i > 0 {
            out.push(b',');
        }
        out.extend_from_slice(br#"{"pattern":"#);
        text::string(&mut out, pattern.text.as_bytes());
        if !pattern.level.is_empty() {
            out.extend_from_slice(br#","level":"#);
            text::string(&mut out, pattern.level.as_bytes());
        }
        out.extend_from_slice(br#","samples":["#);
        for (i, (step, count)) in pattern.samples.iter().enumerate() {
            out.extend_from_slice(if i > 0 { b",[" } else { b"[" });
            text::integer(&mut out, step.div_euclid(1_000_000_000));
            out.push(b',');
            text::integer(&mut out, *count);
            out.push(b']');
        }
        out.extend_from_slice(b"]}");
    }
    out.push(b']');
    super::warn(&mut out, warnings);
    out.push(b'}');
    out
}

#[cfg(test)]
mod tests {
    use tailwater_logql::fields::{FieldKind, Parser};

    use super::*;

    fn text(body: Vec<u8>) -> String {
        String::from_utf8(body).unwrap()
    }

    #[test]
    fn empty_answers_are_empty_objects() {
        assert_eq!(text(detected_labels([])), "{}");
        assert_eq!(text(detected_fields(&[], 7)), "{}");
        assert_eq!(text(field_values(&[], 7)), "{}");
        assert_eq!(text(patterns(&[], &[])), r#"{"status":"success","data":[]}"#);
    }

    #[test]
    fn shapes_are_lokis() {
        assert_eq!(
            text(detected_labels([("a", 1), ("b\"", 2)])),
            r#"{"detectedLabels":[{"label":"a","cardinality":1},{"label":"b\"","cardinality":2}]}"#
        );
        let field = Field { name: "a".into(), kind: FieldKind::Int, cardinality: 3, parsers: vec![], path: vec![] };
        let parsed = Field { parsers: vec![Parser::Json, Parser::Logfmt], path: vec!["x y".into()], ..field.clone() };
        assert_eq!(
            text(detected_fields(&[field, parsed], 1000)),
            concat!(
                r#"{"fields":[{"label":"a","type":"int","cardinality":3,"parsers":null},"#,
                r#"{"label":"a","type":"int","cardinality":3,"parsers":["json","logfmt"],"jsonPath":["x y"]}],"limit":1000}"#,
            )
        );
        assert_eq!(text(field_values(&["x".into(), "y".into()], 2)), r#"{"values":["x","y"],"limit":2}"#);
        let pattern = |level: &str, samples: &[(i64, u64)]| Pattern {
            text: "a <_>".into(),
            level: level.into(),
            samples: samples.to_vec(),
        };
        assert_eq!(
            text(patterns(&[pattern("info", &[(-1, 1), (2_500_000_000, 3)]), pattern("", &[])], &[])),
            concat!(
                r#"{"status":"success","data":[{"pattern":"a <_>","level":"info","samples":[[-1,1],[2,3]]},"#,
                r#"{"pattern":"a <_>","samples":[]}]}"#,
            )
        );
    }
}
