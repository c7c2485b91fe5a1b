//! Where the fields are that `| json` finds: the keys on the way to each, as the line spells them.
//!
//! Invariants: fields come in the order of the line, those that `| json` names alike all of them; a field that stands in what is
//! broken, too deep or has too long a name is left out. Nothing recurses.

use super::json::{MAX_DEPTH, push_part};
use super::json_scan::{self as scan, Kind, Member};

/// Longest name that is told, in bytes.
const MAX_NAME_BYTES: usize = 4096;

/// An object that is being read: where its text ends, how long the name is and how many keys there are before its fields' own.
#[derive(Clone, Copy, Debug)]
struct Open {
    end: usize,
    prefix: usize,
    keys: usize,
}

/// Calls `tell` with name and keys of every field.
pub(crate) fn for_each(line: &[u8], tell: &mut impl FnMut(&str, &[String])) {
    // What cannot be read is left out.
    let _broken = walk(line, tell);
}

fn walk(line: &[u8], tell: &mut impl FnMut(&str, &[String])) -> Result<(), &'static str> {
    let start = scan::skip_space(line, 0).filter(|at| line[*at] == b'{').ok_or(scan::NO_OBJECT)?;
    let (mut name, mut unescaped) = (String::new(), Vec::new());
    let mut keys: Vec<String> = Vec::new();
    let mut outer: Vec<Open> = Vec::new();
    let mut object = Open { end: line.len(), prefix: 0, keys: 0 };
    let mut at = start + 1;
    let mut first = true;
    loop {
        let text = &line[..object.end];
        let mut next = match scan::member(text, at, first)? {
            Member::End => None,
            Member::Key(raw, value_at) => {
                let key = scan::unescape(raw, &mut unescaped).ok_or(scan::BAD_ESCAPE)?;
                let value = scan::value(text, value_at)?;
                if !matches!(value.kind, Kind::Null | Kind::Array) {
                    let prefix = push_part(&mut name, object.prefix, key);
                    if prefix > MAX_NAME_BYTES || outer.len() + 1 >= MAX_DEPTH {
                        return Err(scan::TOO_DEEP);
                    }
                    keys.truncate(object.keys);
                    keys.push(String::from_utf8_lossy(key).into_owned());
                    if value.kind == Kind::Object {
                        outer.push(object);
                        object = Open { end: value.end, prefix, keys: keys.len() };
                        at = value_at + 1;
                        first = true;
                        continue;
                    }
                    tell(&name, &keys);
                }
                scan::after_value(text, value.end)?
            }
        };
        first = false;
        while next.is_none() {
            let Some(of) = outer.pop() else { return Ok(()) };
            next = scan::after_value(&line[..of.end], object.end)?;
            object = of;
        }
        at = next.unwrap_or(object.end);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(line: &str) -> Vec<String> {
        let mut all = Vec::new();
        for_each(line.as_bytes(), &mut |name, keys| all.push(format!("{name}: {}", keys.join("/"))));
        all
    }

    #[test]
    fn keys_are_told_as_they_are() {
        assert_eq!(
            paths(r#"{"a b":1,"o":{"p.q":{"r":"x"},"s":true},"n":null,"l":[1],"e":"\u0041","\u0042":2}"#),
            ["a_b: a b", "o_p_q_r: o/p.q/r", "o_s: o/s", "e: e", "B: B"]
        );
        assert_eq!(paths(r#"{"a":1,"b":{"c":2"#), ["a: a"]);
        assert_eq!(paths("plain"), Vec::<String>::new());
        assert_eq!(paths(&(r#"{"a":"#.repeat(500) + "1" + &"}".repeat(500))), Vec::<String>::new());
        let long = "k".repeat(MAX_NAME_BYTES);
        assert_eq!(paths(&format!(r#"{{"a":1,"{long}":{{"x":1}}}}"#)), ["a: a"]);
    }
}
