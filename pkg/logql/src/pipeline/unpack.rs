//! `| unpack`: takes a line apart that an agent has packed into a JSON object together with labels.
//!
//! Invariants: only strings count; `_entry` becomes the line, and only if it is there the others become labels.

use super::json;
use super::json_scan::{self as scan, Kind, Member};
use super::labels::LineLabels;
use super::{Flow, Work};

/// The key of what becomes the line.
const ENTRY: &[u8] = b"_entry";
/// What is said of a line that begins like no object.
const NO_JSON: &str = "expecting json object(6), but it is not";

/// A label that waits for `_entry`: its number, and where its value stands in the work text.
pub(crate) type Pending = (super::names::NameId, usize, usize);

/// Unpacks a line into labels and `next`.
pub(crate) fn run(line: &[u8], labels: &mut LineLabels, next: &mut Vec<u8>, work: &mut Work) -> Flow {
    if line.is_empty() {
        return Flow::Pass;
    }
    let result = if line[0] == b'{' { walk(line, labels, next, work) } else { Err(NO_JSON) };
    match result {
        Err(details) => {
            labels.set_parser_error(json::ERROR, details);
            Flow::Pass
        }
        Ok(false) => Flow::Pass,
        Ok(true) => {
            for (name, from, to) in &work.pending {
                labels.set_spaced(*name, &work.text[*from..*to]);
            }
            Flow::Rewritten
        }
    }
}

/// Whether there is an entry.
fn walk(line: &[u8], labels: &mut LineLabels, next: &mut Vec<u8>, work: &mut Work) -> Result<bool, &'static str> {
    work.pending.clear();
    work.text.clear();
    let mut found = false;
    let mut at = 1;
    let mut first = true;
    while let Member::Key(raw, value_at) = scan::member(line, at, first)? {
        first = false;
        let key = scan::unescape(raw, &mut work.key).ok_or(scan::BAD_ESCAPE)?;
        let value = scan::value(line, value_at)?;
        if value.kind == Kind::String {
            if key == ENTRY {
                let entry = scan::unescape(value.raw, &mut work.value).ok_or(scan::BAD_ESCAPE)?;
                next.clear();
                next.extend_from_slice(entry);
                found = true;
            } else if let Some(name) = labels.unpacked_name(key).filter(|name| labels.wants(*name)) {
                let from = work.text.len();
                work.text.extend_from_slice(scan::unescape(value.raw, &mut work.value).unwrap_or_default());
                work.pending.push((name, from, work.text.len()));
            }
        }
        match scan::after_value(line, value.end)? {
            Some(comma) => at = comma,
            None => break,
        }
    }
    Ok(found)
}
