//! The result of a metric query as a table or as JSON.

use std::fmt::Write as _;
use std::io::{self, Write};

use serde_json::json;

use crate::client::answer::{QueryAnswer, Sample, Series};
use crate::terminal::render::Pairs;
use crate::terminal::style::Palette;
use crate::terminal::{Output, escape};

/// Writes a result that is no lines. Returns how many series it has.
///
/// # Errors
/// Those of `out`.
pub(crate) fn write(
    answer: &QueryAnswer,
    output: Output,
    palette: Palette,
    zone: &jiff::tz::TimeZone,
    out: &mut impl Write,
) -> io::Result<u64> {
    let scalar;
    let (series, matrix): (&[Series], bool) = match answer {
        QueryAnswer::Vector(series) => (series, false),
        QueryAnswer::Matrix(series) => (series, true),
        QueryAnswer::Scalar(sample) => {
            scalar =
                [Series { labels: tailwater_model::LabelSet::from_pairs(Vec::new()), samples: vec![sample.clone()] }];
            (&scalar, false)
        }
        QueryAnswer::Streams(_) => (&[], false),
    };
    match (output, matrix) {
        (Output::Jsonl, _) => {
            for one in series {
                let samples: Vec<_> = one.samples.iter().map(|s| json!([s.seconds, s.value])).collect();
                let labels = serde_json::to_value(Pairs(&one.labels))?;
                let line = if matrix {
                    json!({"metric": labels, "values": samples})
                } else {
                    json!({"metric": labels, "value": samples.first()})
                };
                let mut text = String::new();
                escape::json(&line.to_string(), &mut text);
                writeln!(out, "{text}")?;
            }
        }
        (Output::Raw, _) => {
            for sample in series.iter().flat_map(|s| &s.samples) {
                writeln!(out, "{}", plain(&sample.value))?;
            }
        }
        (Output::Default, false) => {
            let width = series.iter().flat_map(|s| &s.samples).map(|s| s.value.chars().count()).max().unwrap_or(0);
            for one in series {
                for sample in &one.samples {
                    let value = format!("{:>width$}", plain(&sample.value));
                    writeln!(out, "{}  {}", palette.bold(value), labels(one))?;
                }
            }
        }
        (Output::Default, true) => {
            for one in series {
                writeln!(out, "{}", palette.bold(labels(one)))?;
                let width = one.samples.iter().map(|s| s.value.chars().count()).max().unwrap_or(0);
                for sample in &one.samples {
                    writeln!(out, "  {}  {:>width$}", palette.dim(time(sample, zone)), plain(&sample.value))?;
                }
            }
        }
    }
    Ok(series.len() as u64)
}

fn labels(series: &Series) -> String {
    plain(&series.labels.to_string())
}

fn plain(text: &str) -> String {
    let mut safe = String::new();
    escape::strict(text, &mut safe);
    safe
}

fn time(sample: &Sample, zone: &jiff::tz::TimeZone) -> String {
    let mut text = String::new();
    match jiff::Timestamp::from_millisecond((sample.seconds * 1000.0) as i64) {
        Ok(at) => {
            let _infallible = write!(text, "{}", at.to_zoned(zone.clone()).strftime("%Y-%m-%d %H:%M:%S%.3f"));
        }
        Err(_) => text = sample.seconds.to_string(),
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::answer::decode_query;

    fn written(result: &str, kind: &str, output: Output) -> String {
        let body = format!(r#"{{"data":{{"resultType":"{kind}","result":{result}}}}}"#);
        let answer = decode_query(body.as_bytes()).unwrap();
        let mut out = Vec::new();
        write(&answer, output, Palette::new(false), &jiff::tz::TimeZone::UTC, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_vector_is_a_table_of_values_and_labels() {
        let result = r#"[{"metric":{"app":"a"},"value":[1,"12"]},{"metric":{},"value":[1,"3.5"]}]"#;
        assert_eq!(written(result, "vector", Output::Default), " 12  {app=\"a\"}\n3.5  {}\n");
        assert_eq!(written(result, "vector", Output::Raw), "12\n3.5\n");
        assert_eq!(
            written(result, "vector", Output::Jsonl),
            "{\"metric\":{\"app\":\"a\"},\"value\":[1.0,\"12\"]}\n{\"metric\":{},\"value\":[1.0,\"3.5\"]}\n"
        );
    }

    #[test]
    fn a_matrix_shows_each_series_over_time_and_a_scalar_its_value() {
        let result = r#"[{"metric":{"app":"a"},"values":[[0,"1"],[1.5,"20"]]}]"#;
        assert_eq!(
            written(result, "matrix", Output::Default),
            "{app=\"a\"}\n  1970-01-01 00:00:00.000   1\n  1970-01-01 00:00:01.500  20\n"
        );
        assert_eq!(written(r#"[1,"2"]"#, "scalar", Output::Default), "2  {}\n");
    }
}
