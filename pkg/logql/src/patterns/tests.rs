use proptest::prelude::*;

use super::*;
use crate::pipeline::pattern_filter::PatternFilter;

fn mine(lines: &[&str]) -> Vec<(String, u64)> {
    let mut miner = Miner::default();
    lines.iter().for_each(|line| miner.add("", 0, line.as_bytes()));
    miner.finish().into_iter().map(|pattern| (pattern.count(), pattern.text)).map(|(n, text)| (text, n)).collect()
}

fn found(patterns: &[(&str, u64)]) -> Vec<(String, u64)> {
    patterns.iter().map(|(text, count)| ((*text).to_owned(), *count)).collect()
}

#[test]
fn lines_that_differ_in_variables_have_one_pattern() {
    assert_eq!(
        mine(&[
            "user bob logged in from 10.0.0.1",
            "cache miss for key a7",
            "user eve logged in from 10.0.0.2",
            "user ann logged in from 10.0.0.1",
            "cache miss for key b1",
            "done",
        ]),
        found(&[("user <_> logged in from <_>", 3), ("cache miss for key <_>", 2), ("done", 1)])
    );
    let access = |ip: u32, verb: &str, path: &str, status: u32| {
        format!(r#"10.0.0.{ip} - - [10/Oct/2026:13:55:{ip}] "{verb} {path} HTTP/1.1" {status} 2326"#)
    };
    let lines = [access(1, "GET", "/a", 200), access(2, "GET", "/b", 200), access(3, "GET", "/c", 404)];
    assert_eq!(
        mine(&lines.iter().map(String::as_str).collect::<Vec<_>>()),
        found(&[(r#"<_> - - [<_>] "GET <_> HTTP/1.1" <_> 2326"#, 3)])
    );
}

#[test]
fn keys_stay_and_different_messages_stay_apart() {
    assert_eq!(
        mine(&[
            r#"ts=2026-11-01T12:00:00Z level=info msg="user logged in" n=1"#,
            r#"ts=2026-11-01T12:00:01Z level=info msg="cache got evicted" n=2"#,
            r#"ts=2026-11-01T12:00:02Z level=info msg="user logged in" n=3"#,
        ]),
        found(&[
            (r#"ts=<_> level=info msg="user logged in" n=<_>"#, 2),
            (r#"ts=2026-11-01T12:00:01Z level=info msg="cache got evicted" n=2"#, 1),
        ])
    );
    assert_eq!(
        mine(&[r#"{"a":1,"b":"x"}"#, r#"{"a":2,"b":"x"}"#, r#"{"a":3,"c":"x"}"#]),
        found(&[(r#"{"a":<_>,"b":"x"}"#, 2), (r#"{"a":3,"c":"x"}"#, 1)])
    );
}

#[test]
fn dates_and_leading_words_of_many_values_are_variables() {
    assert_eq!(
        mine(&["Dec 10 06:55:46 host sshd[1]: closed", "Jan 11 07:55:46 host sshd[2]: closed"]),
        found(&[("<_> <_> <_> host <_>[<_>]: closed".replace("host <_>[", "host sshd[").as_str(), 2)])
    );
    let names = ["ann", "bob", "cat", "dan", "eve", "fay", "gus", "hal", "ida", "jon"];
    let mut lines: Vec<_> = names.iter().map(|name| format!("{name} says hello to all")).collect();
    lines.extend(["open", "close", "open"].iter().map(|verb| format!("will {verb} the door")));
    assert_eq!(
        mine(&lines.iter().map(String::as_str).collect::<Vec<_>>()),
        found(&[("<_> says hello to all", 10), ("will <_> the door", 3)])
    );
}

#[test]
fn what_cannot_stand_in_a_pattern_is_captured() {
    assert_eq!(mine(&["a <name> b", "a <_>x b"]), found(&[("a <_> b", 2)]));
    let mut miner = Miner::default();
    miner.add("", 0, b"a \xff b");
    miner.add("", 0, b"");
    assert_eq!(miner.finish().iter().map(|p| p.text.as_str()).collect::<Vec<_>>(), ["a <_> b"]);
    let long = "many words ".repeat(tokens::MAX_TOKENS);
    assert_eq!(mine(&[&long]), [("many words ".repeat(tokens::MAX_TOKENS / 2) + "<_>", 1)]);
}

#[test]
fn levels_are_told_apart_and_steps_are_counted() {
    let mut miner = Miner::default();
    let long = "x".repeat(MAX_LEVEL_BYTES + 1);
    for (level, step) in [("info", 20), ("error", 10), (&long, 5), ("info", 10), ("info", 20), ("error", 30)] {
        miner.add(level, step, b"same");
    }
    let pattern = |level: &str, samples: &[(i64, u64)]| Pattern {
        text: "same".to_owned(),
        level: level.to_owned(),
        samples: samples.to_vec(),
    };
    assert_eq!(
        miner.finish(),
        [pattern("info", &[(10, 1), (20, 2)]), pattern("error", &[(10, 1), (30, 1)]), pattern("", &[(5, 1)])]
    );
}

#[test]
fn frequent_patterns_survive_a_flood_of_rare_ones() {
    let mut miner = Miner::default();
    for i in 0..20_000_u32 {
        // Words without digits, of many shapes.
        let word: String = i.to_string().bytes().map(|b| char::from(b - b'0' + b'a')).collect();
        miner.add("", 0, format!("{word}={word}").as_bytes());
        miner.add("", i64::from(i) % 1000, b"frequent line");
        assert!(
            miner.clusters <= MAX_CLUSTERS && miner.cells <= MAX_CELLS + 1000,
            "{} {}",
            miner.clusters,
            miner.cells
        );
    }
    let patterns = miner.finish();
    assert_eq!((patterns[0].text.as_str(), patterns[0].count()), ("frequent line", 20_000));
    assert!(patterns.len() <= MAX_CLUSTERS);
}

/// Words, numbers and separators in every mixture.
fn a_line() -> impl Strategy<Value = Vec<u8>> {
    let part = prop_oneof![
        4 => prop::sample::select(vec!["a", "b", "user", "1", "22", "x1", "Mon", "key", "é"]).prop_map(|s| s.as_bytes().to_vec()),
        4 => prop::sample::select(vec![" ", "  ", "\t", "=", "\"", "\":\"", ": ", ":", ",", ", ", ";", "(", "]", "{", "}", "|", "::", ":,", "\n"])
            .prop_map(|s| s.as_bytes().to_vec()),
        1 => prop::sample::select(vec!["<", ">", "<_>", "<a>", "<1>", "_", "\\", "\0", "'"]).prop_map(|s| s.as_bytes().to_vec()),
        1 => prop::sample::select(vec![vec![0xff], vec![0xc3], vec![0]]),
    ];
    prop::collection::vec(part, 0..14).prop_map(|parts| parts.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// What is mined can be filtered by: every line passes a pattern, and no pattern passes fewer lines than were counted for it.
    #[test]
    fn patterns_pass_the_lines_that_they_were_mined_from(lines in prop::collection::vec(a_line(), 1..40)) {
        let mut miner = Miner::default();
        lines.iter().for_each(|line| miner.add("x", 7, line));
        let patterns = miner.finish();
        let counted: u64 = patterns.iter().map(Pattern::count).sum();
        prop_assert_eq!(counted, lines.iter().filter(|line| !line.is_empty()).count() as u64);
        let mut passed_by_some = vec![false; lines.len()];
        for pattern in &patterns {
            let filter = PatternFilter::new(pattern.text.as_bytes()).map_err(TestCaseError::fail)?;
            let mut passed = 0;
            for (line, by_some) in lines.iter().zip(&mut passed_by_some) {
                if filter.fits(line) {
                    passed += 1;
                    *by_some = true;
                }
            }
            prop_assert!(passed >= pattern.count(), "{:?} passes {} of {}", pattern.text, passed, pattern.count());
        }
        for (line, by_some) in lines.iter().zip(passed_by_some) {
            prop_assert!(by_some || line.is_empty(), "{}", line.escape_ascii());
        }
    }

    /// The same of each line alone, where the cluster is known.
    #[test]
    fn a_cluster_passes_its_lines(first in a_line(), changes in prop::collection::vec((0..14_usize, "[a-z0-9:,;<>_.]{1,4}"), 1..8)) {
        // Lines of one shape: tokens of the first are replaced by others.
        let mut tokens = Tokens::default();
        tokens.split(&first);
        let spans: Vec<_> = tokens.of(&first).map(|token| token.text.to_vec()).collect();
        let mut miner = Miner::default();
        let mut lines = vec![first.clone()];
        for (place, token) in changes {
            let Some(old) = spans.get(place % spans.len().max(1)) else { continue };
            let at = first.windows(old.len()).position(|window| window == *old).unwrap_or(0);
            lines.push([&first[..at], token.as_bytes(), &first[at + old.len()..]].concat());
        }
        lines.iter().for_each(|line| miner.add("", 0, line));
        let patterns = miner.finish();
        for line in lines.iter().filter(|line| !line.is_empty()) {
            let passes = |p: &Pattern| PatternFilter::new(p.text.as_bytes()).is_ok_and(|filter| filter.fits(line));
            prop_assert!(patterns.iter().any(passes), "{} {:?}", line.escape_ascii(), patterns);
        }
    }
}
