//! What is wrong with a text that is not LogQL, in the words of Loki's parser.
//!
//! Invariants:
//! * a token's complaint (an unreadable literal) counts when the parser first looks at the token, and the first complaint is
//!   the one told, syntax error or not;
//! * except that a production whose [`Check`] fails ends the parse with its own error, whatever was noted before;
//! * what was expected is listed when that is at most [`MOST_EXPECTED`] tokens.
//!
//! The tables are made when the first text is refused, and then kept.

use std::sync::OnceLock;

use super::checks;
use super::lalr::{Action, Check, Tables};
use super::token::{Fault, Kind, Token};
use crate::error::Error;

/// Longer lists of what was expected help nobody.
const MOST_EXPECTED: usize = 4;

fn tables() -> &'static Tables {
    static TABLES: OnceLock<Tables> = OnceLock::new();
    TABLES.get_or_init(|| Tables::build(include_str!("logql.grammar")))
}

/// Reads the tokens of a text, which end with [`Kind::End`].
///
/// # Errors
/// Whatever is wrong with it, if something is.
pub(crate) fn explain(tokens: &[Token<'_>]) -> Result<(), Error> {
    let tables = tables();
    let mut states = vec![0];
    let mut taken = 0;
    let mut noted: Option<&Fault> = None;
    loop {
        let state = *states.last().expect("the first state is never replaced");
        let action = match tables.certain(state) {
            Some(production) => Some(Action::Reduce(production)),
            None => {
                noted = noted.or(tokens[taken].fault.as_ref());
                tables.action(state, tokens[taken].kind)
            }
        };
        match action {
            Some(Action::Shift(next)) => {
                states.push(next);
                taken += 1;
            }
            Some(Action::Reduce(production)) => {
                let (symbols, check) = tables.production(production);
                if let Some(check) = check {
                    run(check, &tokens[taken - 1])?;
                }
                states.truncate(states.len() - symbols);
                let below = *states.last().expect("a production replaces no more than was read");
                states.push(tables.after(below, production).expect("every production leads somewhere"));
            }
            Some(Action::Accept) => return noted.map_or(Ok(()), |fault| Err(told(fault))),
            None => return Err(noted.map_or_else(|| unexpected(tables, state, &tokens[taken]), told)),
        }
    }
}

fn run(check: Check, token: &Token<'_>) -> Result<(), Error> {
    match check {
        Check::Regex => checks::regex(token.bytes()),
        Check::Regexp => checks::regexp_parser(token.bytes()),
        Check::Pattern => checks::pattern_parser(token.bytes()),
        Check::Number => checks::literal(token.text).map(|_| ()),
    }
    .map_err(Error::Invalid)
}

fn told(fault: &Fault) -> Error {
    Error::Parse { line: fault.line, col: fault.col, msg: fault.msg.clone() }
}

fn unexpected(tables: &Tables, state: u16, token: &Token<'_>) -> Error {
    let mut msg = format!("syntax error: unexpected {}", token.kind.name());
    let expected: Vec<_> = tables.expected(state).take(MOST_EXPECTED + 1).map(Kind::name).collect();
    if (1..=MOST_EXPECTED).contains(&expected.len()) {
        msg.push_str(", expecting ");
        msg.push_str(&expected.join(" or "));
    }
    Error::Parse { line: token.line, col: token.col, msg }
}

/// A sentence that follows the grammar, for tests: each choice picks one of the tokens that can come next. Ends when the choices
/// do, as soon as it can, and after a bounded number of tokens in any case.
#[cfg(test)]
pub(crate) fn walk(choices: &[u8]) -> Vec<Kind> {
    const MOST: usize = 150;
    const CLOSING: [Kind; 9] = [
        Kind::CloseParen,
        Kind::CloseBrace,
        Kind::Range,
        Kind::Number,
        Kind::Identifier,
        Kind::String,
        Kind::OpenParen,
        Kind::Comma,
        Kind::Eq,
    ];
    let tables = tables();
    let mut states = vec![0];
    let mut kinds = Vec::new();
    let mut choices = choices.iter();
    while kinds.len() < MOST {
        let next = |kind: Kind| take(tables, &states, kind).map(|states| (kind, states));
        let viable: Vec<_> = Kind::ALL[1..].iter().copied().filter_map(next).collect();
        let step = match choices.next() {
            Some(choice) if !viable.is_empty() => Some(viable[usize::from(*choice) % viable.len()].clone()),
            _ if take(tables, &states, Kind::End).is_some() => None,
            _ => CLOSING.iter().copied().find_map(next).or_else(|| viable.first().cloned()),
        };
        let Some((kind, after)) = step else { break };
        kinds.push(kind);
        states = after;
    }
    kinds
}

/// The states after `kind`; `None` if it is unexpected.
#[cfg(test)]
fn take(tables: &Tables, states: &[u16], kind: Kind) -> Option<Vec<u16>> {
    let mut states = states.to_vec();
    loop {
        match tables.action(*states.last()?, kind)? {
            Action::Shift(next) => {
                states.push(next);
                return Some(states);
            }
            Action::Accept => return Some(states),
            Action::Reduce(production) => {
                states.truncate(states.len() - tables.production(production).0);
                states.push(tables.after(*states.last()?, production)?);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::syntax::lexer;

    fn explained(query: &str) -> String {
        explain(&lexer::tokens(query)).map_or_else(|e| e.to_string(), |()| "fine".to_owned())
    }

    #[test]
    fn accepts_the_language() {
        for query in [
            r#"{a="b"}"#,
            r#"{a="b", c!~"d"} |= "x" or ip("1.1.1.1") | json x, y="z" | label_format a=b, c="d" | drop x, y!="z""#,
            r#"{a="b"} | a="1" or b > 5 c < 5s , (d=ip("x") and e >= 5KB)"#,
            r#"sum by (a, b) (rate({a="b"}[5m] offset 1h | json | unwrap duration(x) | y="z"))"#,
            r#"quantile_over_time(0.9, (({a="b"} | json | unwrap x [5m]))) without () > bool on () group_left 1"#,
            r#"label_replace(vector(1) + -2 ^ 3, "a", "b", "c", "d")"#,
        ] {
            assert_eq!(explained(query), "fine", "{query}");
        }
    }

    #[test]
    fn says_what_was_expected_when_that_is_short() {
        assert_eq!(
            explained("{a"),
            "parse error at line 1, col 3: syntax error: unexpected $end, expecting = or =~ or !~ or !="
        );
        assert_eq!(
            explained("rate("),
            "parse error at line 1, col 6: syntax error: unexpected $end, expecting NUMBER or { or ("
        );
        assert_eq!(explained("1 +"), "parse error at line 1, col 4: syntax error: unexpected $end");
    }

    #[test]
    fn the_first_complaint_is_told_but_a_failed_check_wins() {
        assert_eq!(explained("1__0 )"), "parse error at line 1, col 1: '_' must separate successive digits");
        assert_eq!(explained(") 1__0"), "parse error at line 1, col 1: syntax error: unexpected )");
        assert_eq!(
            explained(r#"{a="b"} | x < 10EB | y =~ "(" )"#),
            "parse error : error parsing regexp: missing closing ): `(`"
        );
    }

    #[test]
    fn deep_texts_are_read_without_recursion() {
        let deep = "(".repeat(100_000);
        assert_eq!(explained(&deep), "parse error at line 1, col 100001: syntax error: unexpected $end");
        assert_eq!(explained(&format!("{deep}1{}", ")".repeat(100_000))), "fine");
    }
}
