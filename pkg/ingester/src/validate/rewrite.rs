//! Writes the accepted entries of a push into a body of their own: when metadata has to be changed, and when most of the push was
//! refused, so that the log does not keep what nobody may read.

use tailwater_wire::push::{EntrySpan, PairSpan, Push};

use super::metadata;

/// `push` with just these entries and canonical metadata. The body cannot outgrow what spans address: a name grows by four bytes at
/// most (`1` becomes `key_1`), values do not grow, and the number of pairs and the size of a push are bounded well below that.
pub(crate) fn rewrite(push: &Push, entries: &[EntrySpan]) -> Push {
    let lines: usize = entries.iter().map(|e| e.line_len as usize).sum();
    let mut body = Vec::with_capacity(lines);
    let mut out = Push { entries: Vec::with_capacity(entries.len()), ..Push::default() };
    for entry in entries {
        let metadata_start = span(out.metadata.len());
        for (name, value) in push.metadata(entry) {
            // A name that has no canonical form has been refused before.
            let Ok(name) = metadata::canonical_name(name) else { continue };
            if value.is_empty() {
                continue;
            }
            let (name_offset, name_len) = add(&mut body, name.as_bytes());
            let (value_offset, value_len) = add(&mut body, metadata::valid_value(value).as_bytes());
            out.metadata.push(PairSpan { name_offset, name_len, value_offset, value_len });
        }
        let metadata_len = span(out.metadata.len()) - metadata_start;
        let (line_offset, line_len) = add(&mut body, push.line(entry));
        out.entries.push(EntrySpan { line_offset, line_len, metadata_start, metadata_len, ..*entry });
    }
    body.shrink_to_fit();
    out.body = body.into();
    out
}

fn add(body: &mut Vec<u8>, bytes: &[u8]) -> (u32, u32) {
    let offset = span(body.len());
    body.extend_from_slice(bytes);
    (offset, span(bytes.len()))
}

fn span(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_entries_given_are_kept_and_their_metadata_is_canonical() {
        let body = b"onetwothree-a.b1value\xff";
        let pair = |name_offset, name_len, value_offset, value_len| PairSpan {
            name_offset,
            name_len,
            value_offset,
            value_len,
        };
        let entry = |timestamp, line_offset, line_len, metadata_start, metadata_len| EntrySpan {
            timestamp,
            line_offset,
            line_len,
            metadata_start,
            metadata_len,
        };
        let push = Push {
            body: bytes::Bytes::from_static(body),
            streams: vec![],
            entries: vec![entry(1, 0, 3, 0, 1), entry(2, 3, 3, 0, 0), entry(3, 6, 5, 1, 2)],
            metadata: vec![pair(12, 3, 16, 5), pair(15, 1, 16, 6), pair(12, 1, 0, 0)],
        };
        let out = rewrite(&push, &[push.entries[0], push.entries[2]]);
        let read = |e: &EntrySpan| {
            let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
            let metadata = out.metadata(e).map(|(name, value)| format!("{}={}", text(name), text(value)));
            (e.timestamp, text(out.line(e)), metadata.collect::<Vec<_>>().join(","))
        };
        let read: Vec<_> = out.entries.iter().map(read).collect();
        assert_eq!(read, [(1, "one".into(), "a_b=value".into()), (3, "three".into(), "key_1=value ".into())]);
        assert!(!out.body.windows(3).any(|w| w == b"two"));
    }
}
