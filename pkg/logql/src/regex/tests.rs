use proptest::prelude::*;

use super::*;

fn error(pattern: &str) -> String {
    validate(pattern).expect_err(pattern)
}

#[test]
fn refuses_what_go_refuses_in_its_words() {
    for (pattern, code, fragment) in [
        ("[", "missing closing ]", "["),
        ("a[b", "missing closing ]", "[b"),
        ("[a-", "missing closing ]", "[a-"),
        ("[]", "missing closing ]", "[]"),
        ("[^]", "missing closing ]", "[^]"),
        ("[[:alpha:", "missing closing ]", "[[:alpha:"),
        ("(a", "missing closing )", "(a"),
        ("a(b(c)", "missing closing )", "a(b(c)"),
        ("a)b", "unexpected )", "a)b"),
        ("a|b)", "unexpected )", "a|b)"),
        ("*a", "missing argument to repetition operator", "*"),
        ("a|*", "missing argument to repetition operator", "*"),
        ("(+?)", "missing argument to repetition operator", "+?"),
        ("(?i)*", "missing argument to repetition operator", "*"),
        ("{1,2}a", "missing argument to repetition operator", "{1,2}"),
        ("a**", "invalid nested repetition operator", "**"),
        ("a*+", "invalid nested repetition operator", "*+"),
        ("a+??", "invalid nested repetition operator", "+??"),
        ("a{2}{3}", "invalid nested repetition operator", "{2}{3}"),
        ("a{1001}", "invalid repeat count", "{1001}"),
        ("a{2,1}", "invalid repeat count", "{2,1}"),
        ("a{99999999999999999999,}", "invalid repeat count", "{99999999999999999999,}"),
        ("(a{100}){11}", "invalid repeat count", "{11}"),
        ("((a{10}){10}){11}", "invalid repeat count", "{11}"),
        (r"\q", "invalid escape sequence", r"\q"),
        (r"a\1", "invalid escape sequence", r"\1"),
        (r"\8", "invalid escape sequence", r"\8"),
        (r"\xg1", "invalid escape sequence", r"\xg1"),
        (r"\x4", "invalid escape sequence", r"\x4"),
        (r"\x", "invalid escape sequence", r"\x"),
        (r"\x{}", "invalid escape sequence", r"\x{}"),
        (r"\x{110000}", "invalid escape sequence", r"\x{110000"),
        (r"\x{12", "invalid escape sequence", r"\x{12"),
        (r"\Z", "invalid escape sequence", r"\Z"),
        (r"\C", "invalid escape sequence", r"\C"),
        (r"[\C]", "invalid escape sequence", r"\C"),
        (r"[\Qa\E]", "invalid escape sequence", r"\Q"),
        (r"\é", "invalid escape sequence", r"\é"),
        ("[z-a]", "invalid character class range", "z-a"),
        (r"[\x62-\x61]", "invalid character class range", r"\x62-\x61"),
        ("[[:foo:]]", "invalid character class range", "[:foo:]"),
        (r"\p{Foo}", "invalid character class range", r"\p{Foo}"),
        (r"\p{Alphabetic}", "invalid character class range", r"\p{Alphabetic}"),
        (r"\pX", "invalid character class range", r"\pX"),
        (r"\p{L", "invalid character class range", r"\p{L"),
        (r"\p", "invalid character class range", r"\p"),
        (r"[\pQ]", "invalid character class range", r"\pQ"),
        ("(?P<n", "invalid named capture", "(?P<n"),
        ("(?P<>a)", "invalid named capture", "(?P<>"),
        ("(?<n m>a)", "invalid named capture", "(?<n m>"),
        ("(?P<é>a)", "invalid named capture", "(?P<é>"),
        ("(?<=a)", "invalid named capture", "(?<=a)"),
        ("(?=a)", "invalid or unsupported Perl syntax", "(?="),
        ("(?!a)", "invalid or unsupported Perl syntax", "(?!"),
        ("(?", "invalid or unsupported Perl syntax", "(?"),
        ("(?i", "invalid or unsupported Perl syntax", "(?i"),
        ("(?-)", "invalid or unsupported Perl syntax", "(?-)"),
        ("(?i--s)", "invalid or unsupported Perl syntax", "(?i--"),
        ("(?x)a", "invalid or unsupported Perl syntax", "(?x"),
        ("(?P=n)", "invalid or unsupported Perl syntax", "(?P"),
        ("a\\", "trailing backslash at end of expression", ""),
        ("[\\", "trailing backslash at end of expression", ""),
    ] {
        assert_eq!(error(pattern), format!("error parsing regexp: {code}: `{fragment}`"), "{pattern}");
    }
    assert_eq!(validate(b"a\xffb"), Err("error parsing regexp: invalid UTF-8: `\u{fffd}b`".to_owned()));
}

#[test]
fn takes_what_go_takes() {
    for pattern in [
        "",
        "a|",
        "|",
        "()",
        "()*",
        "(|a)*",
        "a{,2}",
        "a{",
        "a{1",
        "a{01}",
        "a{1,x}",
        "x{0}",
        "x{0,0}",
        "a{1000}",
        "(a{10}){100}",
        "(a{0}){1000}",
        "^*",
        "$+",
        r"\b?",
        "a(?i)*",
        "a*(?i)*",
        "(?:a*)*",
        r"\Q[*\E",
        r"\Qab",
        r"a\Q\E*",
        "(?P<n>a)(?P<n>b)",
        "(?<n>a)",
        "(?P<1>a)",
        "(?i-s:a)",
        "(?)",
        "(?:)",
        "(?U)a+?",
        "]",
        "[]a]",
        "[^]a]",
        "[a-]",
        "[-a]",
        "[a-c-e]",
        "[[:^alpha:]x]",
        r"[\d\pL\-]",
        r"\p{^Greek}",
        r"\P{^L}",
        r"\07",
        r"\123",
        r"\x{D800}",
        r"[\x{D800}-\x{DFFF}]",
        r"[^\x{0}-\x{10FFFF}]",
        r"\_\-\!",
        "}",
        "a**".trim_end_matches('*'),
        "é+",
        "(?s).",
        "(?m)^a$",
    ] {
        assert_eq!(validate(pattern), Ok(()), "{pattern}");
        let translated = translate(pattern).expect(pattern);
        assert!(regex::bytes::Regex::new(&translated).is_ok(), "{pattern} -> {translated}");
    }
}

#[test]
fn bounds_depth_size_and_work() {
    let nested = |n: usize| format!("{}a{}", "(".repeat(n), ")".repeat(n));
    assert_eq!(validate(&nested(450)), Ok(()));
    assert!(error(&nested(2000)).starts_with("error parsing regexp: expression nests too deeply: `((("));
    assert_eq!(validate(&format!("{}a{}", "(?:".repeat(5000), ")".repeat(5000))), Ok(()), "plain groups cost nothing");
    assert!(error(&"x{1000}".repeat(4000)).starts_with("error parsing regexp: expression too large: `x{1000}"));
    assert!(error(&r"\pL".repeat(40_000)).starts_with("error parsing regexp: expression too large"));
    assert!(error(&r"(?i)[\x00-\x{10FFFF}]".repeat(100)).starts_with("error parsing regexp: expression too large"));
    let large = unanchored(&r"\pL{1000}".repeat(30)).expect_err("too large to compile");
    assert!(large.starts_with("error parsing regexp: expression too large"), "{large}");
}

#[test]
fn what_people_write_is_not_too_large() {
    for pattern in [
        ".{1000}",
        "[^\"]{0,1000}",
        r"\w{1,1000}",
        r"(?i)(error|warn|fatal|panic|exception){1,50}",
        r"\pL{1,20}",
        r"[\pL\pN_-]{1,10}",
    ] {
        assert!(unanchored(pattern).is_ok() && captures(pattern).is_ok(), "{pattern}");
    }
}

#[test]
fn deep_patterns_compile_on_a_small_stack() {
    let nested = format!("{}a|b{}", "(x?".repeat(160), ")+".repeat(160));
    let run = move || {
        (
            validate(&nested),
            anchored(&nested, true).map(|m| m.is_match(b"a")),
            captures(&nested).is_ok(),
            translate(&nested).is_ok(),
        )
    };
    let thread = std::thread::Builder::new().stack_size(1 << 20).spawn(run).expect("a thread");
    assert_eq!(thread.join().expect("no overflow"), (Ok(()), Ok(true), true, true));
}

/// Whether `pattern` is found in `text`, with the answer of the compiled form checked against that of the plain engine.
fn found(pattern: &str, text: &[u8]) -> bool {
    unanchored(pattern).expect(pattern).is_match(text)
}

#[test]
fn unanchored_matching_is_that_of_go() {
    for (pattern, text, expected) in [
        ("", &b""[..], true),
        (".*", b"", true),
        ("x|", b"abc", true),
        ("x|.*", b"abc", true),
        ("error.*(timeout|refused)", b"error timeout", true),
        ("a(bb|cc)(dd|ee)", b"abb", false),
        ("a(bb|cc)(dd|ee)", b"xaccddx", true),
        ("foo.*(bar|uzz)", b"foo\nbar", false),
        ("(?s)foo.*(bar|uzz)", b"foo\nbar", true),
        (".+", b"\n", false),
        ("^$", b"", true),
        ("^$", b"a\n", false),
        ("a$", b"a\n", false),
        ("(?m)a$", b"a\n", true),
        ("(?m)^b", b"a\nb", true),
        (r"\bb\b", b"a b c", true),
        (r"\bé", "aé".as_bytes(), true),
        (r"\w", "é".as_bytes(), false),
        (r"\d", "٣".as_bytes(), false),
        (r"\s", b"\x0b", false),
        ("[[:space:]]", b"\x0b", true),
        (r"\pL", "é".as_bytes(), true),
        ("(?i)рус", "РУС".as_bytes(), true),
        ("(?i)k", "\u{212a}".as_bytes(), true),
        (r"(?i)\w", "\u{212a}".as_bytes(), true),
        ("(?i)[^k]", "\u{212a}".as_bytes(), false),
        ("(?i)STRASSE", "straße".as_bytes(), false),
        ("^.$", "日".as_bytes(), true),
        ("^.$", b"\xff", true),
        ("^..$", b"\xe6\x97", true),
        ("^[^a]$", b"\xff", true),
        ("^.$", b"\xe6\x97", false),
        ("^..$", "é".as_bytes(), false),
        ("\u{fffd}", b"x\xffy", true),
        (r"\x{FFFD}", b"x\xffy", true),
        (r"\xff", b"\xff", false),
        (r"\xe9", "é".as_bytes(), true),
        (r"\Qa.b\E", b"a.b", true),
        (r"\Qa.b\E", b"axb", false),
        (r"a\z", b"ba", true),
        ("x*foo.*", b"-foo-", true),
        ("x*foo.*", b"-fo-", false),
        ("(?U)a+$", b"aaa", true),
        (r"[^\x{0}-\x{10FFFF}]", b"a", false),
        (r"\x{D800}", b"\xed\xa0\x80", false),
        ("^", b"\x93i", true),
        (r"\B", "aéa".as_bytes(), false),
    ] {
        assert_eq!(found(pattern, text), expected, "{pattern:?} in {text:?}");
    }
}

#[test]
fn anchored_matching_is_over_the_whole_text() {
    for (pattern, dot_all, text, expected) in [
        ("al.*", false, &b"alpha"[..], true),
        ("al.*", false, b"xalpha", false),
        ("al.*", false, b"al\n", false),
        ("al.*", true, b"al\n", true),
        (".*al", false, b"xal", true),
        (".*al", false, b"xalx", false),
        ("warn|warning", false, b"warning", true),
        ("warn|warning", false, b"warnings", false),
        ("prod|preprod", false, b"preprod", true),
        ("", false, b"", true),
        ("", false, b"a", false),
        (".*", false, b"a\nb", false),
        (".*", true, b"a\nb", true),
        (".+", false, b"\n", false),
        (".+", true, b"\n", true),
        (".+", true, b"", false),
        (".*x.*", false, b"axb", true),
        (".*x.*", false, b"a\nxb", false),
        ("a.*b", false, b"ab", true),
        ("ab.*bc", false, b"abc", false),
        ("a|b|", false, b"", true),
        ("a?b?", false, b"ab", true),
        ("a?b?", false, b"ba", false),
        ("(?i)Ab", false, b"aB", true),
        ("a|b$|c", false, b"b", true),
        ("4..", false, b"404", true),
        (".*", true, b"\xff", true),
        ("..", true, b"\xff\xfe", true),
        ("a\nb", false, b"a\nb", true),
        (".*\n.*", false, b"a\nb", true),
        ("(?s).*\n.*", false, b"a\n\nb", true),
        ("(?s).*", false, b"a\n", true),
    ] {
        assert_eq!(
            anchored(pattern, dot_all).expect(pattern).is_match(text),
            expected,
            "{pattern:?} {dot_all} {text:?}"
        );
    }
}

#[test]
fn required_literals_are_in_every_match() {
    for (pattern, expected) in [
        ("error", Some("error")),
        ("error.*(timeout|refused)", Some("error")),
        ("a(bcd)+e?", Some("bcd")),
        ("(?i)abc", None),
        ("a|b", None),
        ("(abc)?", None),
        ("x|", None),
        ("[0-9]+ms", Some("ms")),
        ("\u{fffd}abc", None),
    ] {
        let matcher = unanchored(pattern).expect(pattern);
        assert_eq!(matcher.required_literal().map(|l| String::from_utf8_lossy(l)).as_deref(), expected, "{pattern}");
    }
    let texts = anchored("warn|error|warning", true).expect("valid");
    let texts: Vec<_> = texts.only_texts().expect("few").collect();
    assert_eq!(texts, [&b"error"[..], b"warn", b"warning"]);
}

fn groups(pattern: &str, text: &[u8]) -> Option<Vec<Option<Vec<u8>>>> {
    let captures = captures(pattern).expect(pattern);
    let mut groups = captures.groups();
    captures
        .find(text, &mut groups)
        .then(|| captures.names().map(|(at, _)| groups.get(at).map(|range| text[range].to_vec())).collect())
}

#[test]
fn captures_are_leftmost_first_and_point_into_the_text() {
    let some = |texts: &[&[u8]]| Some(texts.iter().map(|t| Some(t.to_vec())).collect::<Vec<_>>());
    assert_eq!(groups(r"(?P<m>\w+) (x)(?<p>\S+)", b"GET x/a b"), some(&[b"GET", b"/a"]));
    assert_eq!(groups("(?P<a>a|ab)(?P<b>c|bcd)?", b"abcd"), some(&[b"a", b"bcd"]));
    assert_eq!(groups("(?P<a>a)|(?P<b>b)", b"b"), Some(vec![None, Some(b"b".to_vec())]));
    assert_eq!(groups("(?P<a>z)", b"b"), None);
    assert_eq!(groups("(?P<a>.)b(?P<b>.+)", b"x\xff\xfeb\xe6\x97c"), some(&[b"\xfe", b"\xe6\x97c"]));
    assert_eq!(groups("(?P<a>a){0}(?P<b>b)", b"b"), Some(vec![None, Some(b"b".to_vec())]));
    let twice = captures("(?P<a>.)(?P<b>.)(?P<a>.)").expect("valid");
    assert_eq!(twice.duplicate_name(), Some("a"));
    assert_eq!(twice.names().collect::<Vec<_>>(), [(1, "a"), (2, "b"), (3, "a")]);
}

#[test]
fn groups_and_replacements_take_bounded_memory() {
    let many: String = (0..3000).map(|i| format!("(?P<n{i}>.)")).collect();
    assert!(captures(&many).expect_err("too much").contains("expression too large"));
    let some: String = (0..40).map(|i| format!("(?P<n{i}>[a-z]*) ?")).collect();
    assert!(captures(&some).is_ok());
    // One match whose replacement alone would be a thousand times the limit.
    let mut out = Vec::new();
    let with = "${1}".repeat(10_000);
    assert!(!captures("(.*)").expect("valid").replace_all(&[b'a'; 1000], with.as_bytes(), 10_000, &mut out));
    assert!(out.len() <= 12_000, "{}", out.len());
}

#[test]
fn replaces_and_counts_as_go_does() {
    let replaced = |pattern: &str, text: &[u8], with: &str| {
        let mut out = Vec::new();
        assert!(captures(pattern).expect(pattern).replace_all(text, with.as_bytes(), 1000, &mut out));
        out
    };
    assert_eq!(replaced("a(x*)b", b"-ab-axxb-", "${1}W"), b"-W-xxW-");
    assert_eq!(replaced("a(x*)b", b"-ab-axxb-", "$1W"), b"---", "the group named 1W does not exist");
    assert_eq!(replaced("(?P<n>x)", b"axb", "[$n$$${n}$]"), b"a[x$x$]b");
    assert_eq!(replaced("x*", "日本".as_bytes(), "-"), "-日-本-".as_bytes());
    assert_eq!(replaced("a*", b"baaac", "x"), b"xbxcx");
    assert_eq!(replaced(".", b"a\xff", "<$0>"), b"<a><\xff>");
    assert_eq!(replaced("^", b"ab", "x"), b"xab");
    let count = |pattern: &str, text: &str| captures(pattern).expect(pattern).count(text.as_bytes());
    assert_eq!(count("a", "banana"), 3);
    assert_eq!(count("a*", "baaac"), 3);
    assert_eq!(count("", "日本"), 3);
    assert_eq!(count("^a", "aaa"), 1);
    let mut out = Vec::new();
    assert!(!captures("a").expect("valid").replace_all(&[b'a'; 100], b"0123456789", 50, &mut out));
    assert!(out.len() < 100);
}

proptest! {
    #[test]
    fn any_pattern_is_answered(pattern: Vec<u8>, text: Vec<u8>) {
        if let Ok(matcher) = unanchored(&pattern) {
            let _ = matcher.is_match(&text);
        }
        prop_assert_eq!(validate(&pattern).is_ok(), translate(&pattern).is_ok());
    }

    #[test]
    fn what_is_valid_translates_and_means_the_same(
        pattern in r"(\(|\)|\(\?i\)|\[\^?|\]|[ab.*+?|^$]|\\[wdbB]|\{1,2\}|\.\*|x){0,12}",
        text in "[abxAk\n \u{212a}]{0,8}",
    ) {
        if validate(&pattern).is_ok() {
            let regex = regex::bytes::Regex::new(&translate(&pattern).expect("valid")).expect("translates");
            let matcher = unanchored(&pattern).expect("small");
            prop_assert_eq!(matcher.is_match(text.as_bytes()), regex.is_match(text.as_bytes()));
            if let Some(literal) = matcher.required_literal() && matcher.is_match(text.as_bytes()) {
                prop_assert!(memchr::memmem::find(text.as_bytes(), literal).is_some());
            }
            let whole = format!("^(?:{pattern})$");
            if validate(&whole).is_ok() && !pattern.starts_with(')') {
                let expected = unanchored(&whole).expect("small").is_match(text.as_bytes());
                prop_assert_eq!(anchored(&pattern, false).expect("small").is_match(text.as_bytes()), expected);
            }
        }
    }

    #[test]
    fn groups_stay_inside_the_text(pattern in "[ab.*()|\u{fffd}]{0,10}", text: Vec<u8>) {
        if let Ok(captures) = captures(&pattern) {
            let mut groups = captures.groups();
            if captures.find(&text, &mut groups) {
                let range = groups.get(0).expect("a match has bounds");
                prop_assert!(range.end <= text.len() && range.start <= range.end);
            }
            let mut out = Vec::new();
            prop_assert!(captures.replace_all(&text, b"$0", 1 << 20, &mut out));
            prop_assert_eq!(out, text);
        }
    }
}
