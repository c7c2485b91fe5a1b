//! Which regular expressions Loki replaces by plain comparisons: these it prints in quotes, others in back quotes. Nothing
//! else depends on it; Tailwater compiles both alike.
//!
//! The rules look at the tree that Go's parser makes: it takes what the arms of an alternation have in common out of it
//! (`warn|warning` is `warn(?:|ing)`) and makes classes of alternative characters (`a|b` is `[ab]`).

/// A part of a pattern, as far as it can be simple.
#[derive(Clone, Debug, PartialEq)]
enum Part {
    Empty,
    Literal(String),
    /// `.*`
    Anything,
    /// `.+`
    Something,
    Concat(Vec<Part>),
    Alternation(Vec<Part>),
    /// Never simple.
    Complex,
}

/// More of them between the parts of a sequence, and Loki does not try.
const MOST_PARTS: usize = 3;

/// Deeper groups are not looked at.
const MOST_GROUPS: usize = 50;

/// Whether Loki runs the pattern of a label filter without a regular expression.
pub(crate) fn is_simple(pattern: &str) -> bool {
    let pattern = pattern.strip_prefix("(?i)").unwrap_or(pattern);
    let mut reader = Reader { rest: pattern };
    let part = reader.alternation(MOST_GROUPS);
    reader.rest.is_empty() && simple(&part)
}

fn simple(part: &Part) -> bool {
    match part {
        Part::Empty | Part::Literal(_) | Part::Anything | Part::Something => true,
        Part::Alternation(arms) => arms.iter().all(simple),
        Part::Concat(parts) => simple_sequence(parts, false),
        Part::Complex => false,
    }
}

fn simple_sequence(parts: &[Part], mut after_literal: bool) -> bool {
    let parts: Vec<_> = parts.iter().filter(|part| **part != Part::Empty).collect();
    let mut literal = false;
    parts.len() <= MOST_PARTS
        && parts.iter().all(|part| match part {
            Part::Anything => true,
            Part::Literal(_) => {
                !std::mem::replace(&mut literal, true) && {
                    after_literal = true;
                    true
                }
            }
            Part::Alternation(arms) => after_literal && arms.iter().all(simple_arm),
            _ => false,
        })
        && after_literal
}

fn simple_arm(arm: &Part) -> bool {
    match arm {
        Part::Empty | Part::Literal(_) | Part::Anything => true,
        Part::Concat(parts) => simple_sequence(parts, true),
        _ => false,
    }
}

struct Reader<'p> {
    rest: &'p str,
}

impl Reader<'_> {
    fn take(&mut self, prefix: &str) -> bool {
        self.rest.strip_prefix(prefix).map(|rest| self.rest = rest).is_some()
    }

    fn alternation(&mut self, groups: usize) -> Part {
        let mut arms = vec![self.sequence(groups)];
        while self.take("|") {
            arms.push(self.sequence(groups));
        }
        factor(arms)
    }

    fn sequence(&mut self, groups: usize) -> Part {
        let mut parts: Vec<Part> = Vec::new();
        while let Some(c) = self.rest.chars().next() {
            if matches!(c, '|' | ')') {
                break;
            }
            if self.take("(?:") || (!self.rest.starts_with("(?") && self.take("(")) {
                if groups == 0 {
                    return Part::Complex;
                }
                parts.push(self.alternation(groups - 1));
                if !self.take(")") {
                    return Part::Complex;
                }
            } else if self.take(".*?") || self.take(".*") {
                parts.push(Part::Anything);
            } else if self.take(".+?") || self.take(".+") {
                parts.push(Part::Something);
            } else {
                let Some(c) = self.character(c) else { return Part::Complex };
                match parts.last_mut() {
                    Some(Part::Literal(text)) => text.push(c),
                    _ => parts.push(Part::Literal(c.to_string())),
                }
            }
            if self.rest.starts_with(['*', '+', '?', '{']) {
                return Part::Complex;
            }
        }
        match parts.len() {
            0 => Part::Empty,
            1 => parts.remove(0),
            _ => Part::Concat(parts),
        }
    }

    /// A character that stands for itself.
    fn character(&mut self, c: char) -> Option<char> {
        let escaped = self.take("\\");
        let c = if escaped { self.rest.chars().next()? } else { c };
        let itself = if escaped { c.is_ascii_punctuation() } else { !"\\.[]^$*+?{}()|".contains(c) };
        itself.then(|| {
            self.rest = &self.rest[c.len_utf8()..];
            c
        })
    }
}

/// An alternation as Go's parser leaves it.
fn factor(arms: Vec<Part>) -> Part {
    let mut factored: Vec<Part> = Vec::new();
    let mut arms = arms.into_iter().peekable();
    while let Some(first) = arms.next() {
        let mut common = leading(&first).to_owned();
        let mut run = vec![first];
        while let Some(next) = arms.peek() {
            let shared = shared_prefix(&common, leading(next));
            if shared == 0 {
                break;
            }
            common.truncate(shared);
            run.extend(arms.next());
        }
        if run.len() == 1 {
            factored.append(&mut run);
        } else {
            let rests = run.iter().map(|arm| without_leading(arm, common.len())).collect();
            factored.push(Part::Concat(vec![Part::Literal(common), factor(rests)]));
        }
    }
    // Characters side by side become a class.
    let single = |part: &Part| matches!(part, Part::Literal(text) if text.chars().count() == 1);
    if factored.windows(2).any(|pair| pair.iter().all(single)) {
        return Part::Complex;
    }
    factored.dedup_by(|a, b| *a == Part::Empty && *b == Part::Empty);
    if factored.len() == 1 { factored.remove(0) } else { Part::Alternation(factored) }
}

fn leading(part: &Part) -> &str {
    match part {
        Part::Literal(text) => text,
        Part::Concat(parts) => parts.first().map_or("", leading),
        _ => "",
    }
}

fn shared_prefix(a: &str, b: &str) -> usize {
    a.chars().zip(b.chars()).take_while(|(a, b)| a == b).map(|(c, _)| c.len_utf8()).sum()
}

fn without_leading(part: &Part, len: usize) -> Part {
    match part {
        Part::Literal(text) if text.len() > len => Part::Literal(text[len..].to_owned()),
        Part::Concat(parts) => {
            let mut parts = parts.clone();
            if let Some(first) = parts.first_mut() {
                *first = without_leading(first, len);
            }
            parts.retain(|part| *part != Part::Empty);
            match parts.len() {
                1 => parts.remove(0),
                _ => Part::Concat(parts),
            }
        }
        _ => Part::Empty,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_loki_compares_without_a_regex() {
        for simple in [
            "",
            "abc",
            ".*",
            ".+",
            "a.*",
            ".*a",
            "foo|bar",
            "(foo|bar)",
            "warn|warning",
            "prod|preprod",
            "bar|buzz",
            "foo(ab|cd)",
            "foo.*(ab|cd)",
            "(?i)error",
            r"a\.b",
            "foo|",
            "error|err",
        ] {
            assert!(is_simple(simple), "{simple}");
        }
        for complex in [
            "^a.+[b]$",
            "5..",
            "b.+",
            "a|b",
            "400|404",
            "[a-z]",
            "a?",
            "(a|b)c",
            "foo.*(bar|baz)",
            ".*foo.*bar",
            "a{2}",
            r"\d+",
            "foo|bar|baz",
            "(?s)a",
            "foo(a|b)",
            "a)b",
        ] {
            assert!(!is_simple(complex), "{complex}");
        }
    }
}
