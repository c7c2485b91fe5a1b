//! The frames of the tail of a metric query: one JSON document per step.
//!
//! Invariants:
//! * A frame of a step that has an answer begins as the answer of an instant query at its time does; it has no statistics.
//! * Every frame ends with `time`, so that also an answer without series and a failure say which step they are of.

use tailwater_model::{Labels, Timestamp};

use super::{Sample, all_series, member, point, seconds, success, value, warn};
use crate::text;

/// A step whose answer is a vector, possibly an empty one.
#[must_use]
pub fn step_vector(time: Timestamp, samples: &[(Labels, Sample)], warnings: &[String]) -> Vec<u8> {
    let mut out = Vec::with_capacity(128 * (samples.len() + 1));
    success(&mut out, "vector", |out| all_series(out, samples, value));
    out.push(b'}');
    finish(out, time, warnings)
}

/// A step whose answer is a number.
#[must_use]
pub fn step_scalar(sample: Sample, warnings: &[String]) -> Vec<u8> {
    let mut out = Vec::new();
    success(&mut out, "scalar", |out| point(out, &sample));
    out.push(b'}');
    finish(out, sample.timestamp, warnings)
}

/// A step that has no answer: what kind of error, in a word of Prometheus's API, and its text.
#[must_use]
pub fn step_error(time: Timestamp, kind: &str, error: &str, warnings: &[String]) -> Vec<u8> {
    let mut out = br#"{"status":"error","#.to_vec();
    member(&mut out, "errorType", |out| text::string(out, kind.as_bytes()));
    out.extend_from_slice(br#""error":"#);
    text::string(&mut out, error.as_bytes());
    finish(out, time, warnings)
}

fn finish(mut out: Vec<u8>, time: Timestamp, warnings: &[String]) -> Vec<u8> {
    warn(&mut out, warnings);
    out.extend_from_slice(br#","time":"#);
    seconds(&mut out, time);
    out.push(b'}');
    out
}
