use tailwater_model::Timestamp;

use super::*;

struct Labels<'a>(&'a [(&'a str, &'a [u8])]);

impl Lookup for Labels<'_> {
    fn get(&self, name: &str) -> Option<&[u8]> {
        self.0.iter().find(|(n, _)| *n == name).map(|(_, text)| *text)
    }
    fn each(&self, visit: &mut dyn FnMut(&[u8], &[u8])) {
        self.0.iter().rev().for_each(|(name, text)| visit(name.as_bytes(), text));
    }
}

const LABELS: &[(&str, &[u8])] =
    &[("app", b"shop"), ("bad", b"a\xffb"), ("n", b"42"), ("text", "Grüße, Welt".as_bytes())];

fn run(template: &str) -> Result<String, String> {
    let parsed = Template::parse("line", template)?;
    let labels = Labels(LABELS);
    let data = Data {
        labels: &labels,
        line: b"the line",
        timestamp: Timestamp(1_770_012_245_067_800_000),
        now: Timestamp(1_770_012_246_000_000_000),
    };
    let mut out = b"kept".to_vec();
    let result = parsed.execute(&data, &mut out);
    assert!(out.starts_with(b"kept"));
    if result.is_err() {
        assert_eq!(out, b"kept", "an error leaves the output alone");
    }
    result.map(|()| String::from_utf8_lossy(&out[4..]).into_owned())
}

fn prints(cases: &[(&str, &str)]) {
    for (template, expected) in cases {
        assert_eq!(run(template).as_deref(), Ok(*expected), "{template}");
    }
}

/// Execution errors, without what stands in front of all of them.
fn fails(cases: &[(&str, &str)]) {
    for (template, expected) in cases {
        let error = run(template).expect_err(template);
        assert_eq!(error, format!("template: line:{expected}"), "{template}");
    }
}

#[test]
fn prints_fields_text_and_constants() {
    prints(&[
        ("", ""),
        ("plain } text {", "plain } text {"),
        ("[{{.app}}] {{ .nope }}|{{ $.n }}", "[shop] |42"),
        ("{{ . }}", "map[app:shop bad:a\u{fffd}b n:42 text:Grüße, Welt]"),
        (
            "{{ 1 }} {{ 0x1F }} {{ 0b11 }} {{ 0o17 }} {{ 1_000 }} {{ 'a' }} {{ -5 }} {{ 1.5 }} {{ 1e6 }} {{ true }}",
            "1 31 3 15 1000 97 -5 1.5 1e+06 true",
        ),
        (r#"{{ "a\tb\u00e9\x41" }} {{ `raw\n` }} {{ "}}" }}"#, "a\tbéA raw\\n }}"),
        ("{{/* note */}}a {{- /* x */ -}} b", "ab"),
        ("a  {{- .n -}}  b {{ .n }} c", "a42b 42 c"),
        ("{{ .n | }}", "42"),
        ("{{ print nil }} {{ print 1 2 \"a\" 3 4 }}{{ println 1 \"x\" }}", "<nil> 1 2a3 41 x\n"),
    ]);
    assert_eq!(run("{{ print .bad }}").as_deref(), Ok("a\u{fffd}b"));
}

#[test]
fn controls_and_variables() {
    prints(&[
        (r#"{{ if eq .app "x" }}1{{ else if .n }}2{{ else }}3{{ end }}"#, "2"),
        ("{{ with .nope }}a{{ else with .app }}b{{ . }}{{ end }}", "bshop"),
        ("{{ $x := 1 }}{{ if true }}{{ $x = 2 }}{{ $x := 3 }}{{ end }}{{ $x }}", "2"),
        ("{{ range 3 }}{{ . }}{{ end }}{{ range 0 }}x{{ else }}none{{ end }}", "012none"),
        (
            "{{ range $i := 5 }}{{ if eq $i 1 }}{{ continue }}{{ end }}{{ if eq $i 3 }}{{ break }}{{ end }}{{ $i }}{{ end }}",
            "02",
        ),
        (r#"{{ range $k, $v := fromJson `{"b":[1,null],"a":"x"}` }}{{ $k }}={{ $v }};{{ end }}"#, "a=x;b=[1 <nil>];"),
        (r#"{{ range $i, $e := fromJson "[7,8]" }}{{ $i }}{{ $e }}{{ end }}"#, "0718"),
        ("{{ range $k, $v := . }}{{ $k }} {{ end }}", "app bad n text "),
        (r#"{{ define "t" }}<{{ . }}>{{ end }}{{ template "t" .app }}{{ template "t" }}"#, "<shop><<no value>>"),
        (r#"{{ block "b" .n }}[{{ . }}{{ $ }}]{{ end }}"#, "[4242]"),
        (
            r#"{{ $j := fromJson `{"a":{"b":1.5}}` }}{{ $j.a.b }} {{ $j.x }} {{ (index $j "a").b }}"#,
            "1.5 <no value> 1.5",
        ),
        ("{{ and 1 0 2 }}{{ or 0 \"\" }}{{ not 1 }}|{{ or .nope .app }}", "0false|shop"),
        ("{{ (printf \"%s\" .app) | len }}", "4"),
    ]);
}

#[test]
fn functions_of_text() {
    prints(&[
        (
            "{{ .text | ToUpper }} {{ lower .text }} {{ title \"foo-bar baz_q é\" }}",
            "GRÜßE, WELT grüße, welt Foo-Bar Baz_q É",
        ),
        (r#"{{ Replace "aaa" "a" "b" 2 }}{{ Replace "é日" "" "-" -1 }}{{ replace "a" "" "banana" }}"#, "bba-é-日-bnn"),
        (
            r#"{{ Trim "xxaxx" "x" }}{{ TrimLeft "xax" "x" }}{{ TrimRight "xax" "x" }}{{ trimAll "x" "xax" }}[{{ trim " a " }}]"#,
            "aaxxaa[a]",
        ),
        (
            r#"{{ TrimPrefix "abc" "ab" }}{{ trimPrefix "ab" "abc" }}{{ TrimSuffix "abc" "c" }}{{ trimSuffix "x" "abc" }}"#,
            "ccababc",
        ),
        (r#"{{ trunc 2 "abc" }}{{ trunc -2 "abc" }}{{ trunc 9 "abc" }}{{ trunc 1 "é" }}"#, "abbcabc\u{fffd}"),
        (r#"{{ substr 1 2 "abc" }}{{ substr -1 2 "abc" }}{{ substr 1 -1 "abc" }}{{ substr 1 99 "abc" }}"#, "babbcbc"),
        (
            r#"[{{ alignLeft 4 "é" }}|{{ alignRight 4 "é" }}|{{ alignLeft 1 "日本" }}|{{ alignRight 1 "日本" }}|{{ alignLeft -1 "ab" }}]"#,
            "[é   |   é|日|本|ab]",
        ),
        (r#"{{ repeat 3 "ab" }}{{ indent 2 "a\nb" }}{{ nindent 1 "c" }}"#, "ababab  a\n  b\n c"),
        (r#"{{ contains "b" "abc" }}{{ hasPrefix "b" "abc" }}{{ hasSuffix "c" "abc" }}"#, "truefalsetrue"),
        (
            r#"{{ regexReplaceAll "(a+)b" "aab ab" "<${1}>" }} {{ regexReplaceAllLiteral "a" "aba" "$0" }} {{ count "a." "abacad" }}"#,
            "<aa> <a> $0b$0 3",
        ),
        (r#"{{ "ab" | count "[ab]" }}{{ $re := "b+" }}{{ regexReplaceAll $re "abb" "x" }}"#, "2ax"),
        (
            r#"{{ urlencode "a b&ü" }} {{ urldecode "a+b%26" }} {{ b64enc "hi?" }} {{ b64dec "aGk/" }} {{ b64dec "aGk" }} {{ b64dec "!" }}"#,
            "a+b%26%C3%BC a b& aGk/ hi? hi illegal base64 data at input byte 0",
        ),
        (
            r#"{{ html "<a href='x'>&" }} {{ js "it's <x>\n=" }} {{ urlquery "a b" 1 }}"#,
            r"&lt;a href=&#39;x&#39;&gt;&amp; it\'s \u003Cx\u003E\u000A\u003D a+b1",
        ),
        (
            "{{ __line__ }}|{{ default 5 0 }}|{{ default \"x\" .app }}|{{ len . }}|{{ len .text }}",
            "the line|5|shop|4|13",
        ),
        (
            r#"{{ index .app 0 }} {{ slice .app 1 3 }} {{ index . "n" }} {{ index (fromJson "[[1,2]]") 0 1 }}"#,
            "115 ho 42 2",
        ),
    ]);
}

#[test]
fn functions_of_numbers() {
    prints(&[
        (
            r#"{{ int "2.5" }} {{ int "0x1F" }} {{ int "010" }} {{ int "1_000" }} {{ int "1e3" }} {{ int "08" }} {{ int "" }} {{ int -3.9 }} {{ int true }} {{ int "-.5" }}"#,
            "2 31 8 1000 0 0 0 -3 1 0",
        ),
        (
            "{{ add }} {{ add .n 1 \"x\" }} {{ sub 1 3 }} {{ mul 2 3 4 }} {{ div -7 2 }} {{ mod -7 3 }} {{ max 1 9 3 }} {{ min 4 2 }}",
            "0 43 -2 24 -3 -1 9 2",
        ),
        (
            "{{ addf 0.1 0.2 }} {{ subf 1 0.9 }} {{ mulf 1.1 1.1 }} {{ divf 1 3 }} {{ divf -2 3 }}",
            "0.3 0.1 1.21 0.3333333333333333 -0.6666666666666667",
        ),
        (
            "{{ maxf 1.5 2 }} {{ minf 1.5 2 }} {{ ceil 1.2 }} {{ floor -1.2 }} {{ round 2.345 2 }} {{ round -2.5 0 }} {{ round 2.5 0 0.6 }}",
            "2 1.5 2 -2 2.35 -3 2",
        ),
        (
            r#"{{ bytes "1.5kB" }} {{ duration "1h30m" }} {{ duration_seconds "1500ms" }} {{ float64 "1e3" }}"#,
            "1500 5400 1.5 1000",
        ),
        (
            r#"{{ eq .app "a" "shop" }} {{ ne 1 2 }} {{ lt 1 2 }} {{ le "b" "a" }} {{ gt 1.5 0.5 }} {{ ge 2 2 }}"#,
            "true true true false true true",
        ),
        ("{{ div 9223372036854775807 -1 }} {{ mul 9223372036854775807 2 }}", "-9223372036854775807 -2"),
    ]);
}

#[test]
fn functions_of_time() {
    prints(&[
        ("{{ __timestamp__ }}", "2026-02-02 06:04:05.0678 +0000 UTC"),
        (
            r#"{{ date "2006-01-02 15:04" __timestamp__ }} {{ date "05" now }} {{ date "05" "x" }} {{ date "2006" 0 }}"#,
            "2026-02-02 06:04 06 06 1970",
        ),
        (
            "{{ __timestamp__.Year }} {{ __timestamp__.Month }} {{ __timestamp__.UTC.Weekday }} {{ __timestamp__.UnixMilli }}",
            "2026 February Monday 1770012245067",
        ),
        (
            "{{ (now.Sub __timestamp__).Seconds }} {{ now.Sub __timestamp__ }} {{ (__timestamp__.Truncate 1000000000).Nanosecond }}",
            "0.9322 932.2ms 0",
        ),
        (r#"{{ toDate "2006-01-02" "2026-02-30" }}"#, "0001-01-01 00:00:00 +0000 UTC"),
        (
            r#"{{ toDateInZone "2006-01-02 15:04" "Europe/Berlin" "2026-07-01 12:00" }}"#,
            "2026-07-01 12:00:00 +0200 CEST",
        ),
        (
            r#"{{ unixToTime "20393" }} {{ unixEpoch (unixToTime "1793534400") }} {{ unixToTime "1793534400123456" | unixEpochNanos }} {{ unixToTime "1793534400123" | unixEpochMillis }}"#,
            "2025-11-01 00:00:00 +0000 UTC 1793534400 1793534400123456000 1793534400123",
        ),
    ]);
}

#[test]
fn printf_speaks_go() {
    for (args, expected) in [
        (r#""%v %d %s %q" 1 2 "a" "b\n""#, r#"1 2 a "b\n""#),
        (r#""%5d|%-5d|%05d|%+d|% d" 42 42 42 42 42"#, "   42|42   |00042|+42| 42"),
        (r#""%x %X %#x %o %b %c %U %q" 255 255 255 8 5 233 233 65"#, "ff FF 0xff 10 101 é U+00E9 'A'"),
        (r#""%.3d|%8.3d|%x|% x|%#q" 5 5 "hi" "hi" "a""#, "005|     005|6869|68 69|`a`"),
        (
            r#""%f %.2f %8.3f|%-8.1f|%e %g %G %08.3f" 1.5 2.675 3.14159 2.5 123456.789 1e21 1e-7 -3.14159"#,
            "1.500000 2.67    3.142|2.5     |1.234568e+05 1e+21 1E-07 -003.142",
        ),
        (r#""%.3g %.3g %.10g %g" 1234.5678 0.00001234 100.0 100.0"#, "1.23e+03 1.23e-05 100 100"),
        (r#""%t %v %T %T %T" true nil 1 1.5 "x""#, "true <nil> int float64 string"),
        (r#""%[2]d %[1]d" 1 2"#, "2 1"),
        (r#""%*d|%-*d|%.*f" 5 1 3 2 1 2.55"#, "    1|2  |2.5"),
        (r#""%d" "x""#, "%!d(string=x)"),
        (r#""%s %d" "x""#, "x %!d(MISSING)"),
        (r#""%s" "x" 1"#, "x%!(EXTRA int=1)"),
        (r#""%z %!" 1"#, "%!z(int=1) %!!(MISSING)"),
        (r#""%""#, "%!(NOVERB)"),
        (r#""100%%""#, "100%"),
        (r#""%[3]d" 1"#, "%!d(BADINDEX)"),
        (r#""%*d" "x" 1"#, "%!(BADWIDTH)1"),
        (r#""%6.2s|%q" "日本語" "日""#, "    日本|\"日\""),
        (r#""%v %s" __timestamp__.Month __timestamp__.Weekday"#, "February Monday"),
        (r#""%#v %+v" "a" 1"#, "\"a\" 1"),
    ] {
        assert_eq!(run(&format!("{{{{ printf {args} }}}}")).as_deref(), Ok(expected), "{args}");
    }
}

#[test]
fn parse_errors_are_those_of_go() {
    for (template, expected) in [
        ("{{ foo }}", r#"1: function "foo" not defined"#),
        ("{{ quote .a }}", r#"1: function "quote" not defined"#),
        ("{{", "1: unclosed action"),
        ("{{ .a", "1: unclosed action"),
        ("a\n{{\n.a", "3: unclosed action started at line:2"),
        ("{{ if .a }}", "1: unexpected EOF"),
        ("{{ end }}", "1: unexpected {{end}}"),
        ("{{ else }}", "1: unexpected {{else}}"),
        ("{{ if }}x{{ end }}", "1: missing value for if"),
        ("{{ }}", "1: missing value for command"),
        ("{{ $y }}", r#"1: undefined variable "$y""#),
        ("{{ break }}", "1: {{break}} outside {{range}}"),
        ("{{ continue }}", "1: {{continue}} outside {{range}}"),
        ("{{ .a } }}", r#"1: unexpected "}" in operand"#),
        ("{{ .a# }}", "1: bad character U+0023 '#'"),
        ("{{ \"abc }}", "1: unterminated quoted string"),
        ("{{ `abc }}", "1: unterminated raw quoted string"),
        ("{{ 'abc }}", "1: unterminated character constant"),
        ("{{ 'ab' }}", "1: malformed character constant: 'ab'"),
        ("{{ 1a }}", r#"1: bad number syntax: "1a""#),
        ("{{ 08 }}", r#"1: integer overflow: "08""#),
        ("{{ 99999999999999999999 }}", r#"1: integer overflow: "99999999999999999999""#),
        ("{{ (.a }}", "1: unclosed left paren"),
        ("{{ .a) }}", "1: unexpected right paren"),
        ("{{ .a | 1 }}", "1: non executable command in pipeline stage 2"),
        ("{{ 1.a }}", r#"1: bad number syntax: "1.a""#),
        ("{{ nil.a }}", "1: unexpected . after term \"nil\""),
        ("{{/* a }}", "1: unclosed comment"),
        ("{{/* a */ x }}", "1: comment ends before closing delimiter"),
        ("{{ template .a }}", r#"1: unexpected ".a" in template clause"#),
        ("{{ define x }}{{ end }}", r#"1: unexpected "x" in define clause"#),
        ("{{ $a, $b := . }}", "1: too many declarations in command"),
        ("{{ range $a, 1 := . }}{{ end }}", "1: range can only initialize variables"),
        ("{{ if .a }}{{ else }}{{ else }}{{ end }}", "1: expected end; found {{else}}"),
        ("{{ . & . }}", r#"1: unexpected "&" in operand"#),
        ("{{ : }}", "1: expected :="),
        ("{{ \u{1} }}", "1: unrecognized character in action: U+0001"),
        (
            "{{ define \"a\" }}x{{ end }}{{ define \"a\" }}y{{ end }}",
            r#"1: template: multiple definition of template "a""#,
        ),
        ("\n\n{{ \"abcdefghijklm\" \"\" := }}", "3: unexpected \":=\" in operand"),
    ] {
        let error = Template::parse("line", template).expect_err(template);
        assert_eq!(error, format!("template: line:{expected}"), "{template}");
    }
}

#[test]
fn execution_errors_name_the_node_as_go_does() {
    fails(&[
        ("{{ upper }}", r#"1:3: executing "line" at <upper>: wrong number of args for upper: want 1 got 0"#),
        (
            "{{ printf }}",
            r#"1:3: executing "line" at <printf>: wrong number of args for printf: want at least 1 got 0"#,
        ),
        ("\n {{ .n.sub }}", r#"2:6: executing "line" at <.n.sub>: can't evaluate field sub in type string"#),
        ("{{ .n 1 }}", r#"1:3: executing "line" at <.n>: n is not a method but has arguments"#),
        ("{{ upper 1 }}", r#"1:9: executing "line" at <1>: expected string; found 1"#),
        ("{{ 1 | upper }}", r#"1:7: executing "line" at <upper>: wrong type for value; expected string; got int"#),
        (r#"{{ unixEpoch "x" }}"#, r#"1:13: executing "line" at <"x">: can't handle "x" for arg of type time.Time"#),
        ("{{ trunc (add 1 2) .n }}", r#"1:16: executing "line" at <2>: wrong type for value; expected int; got int64"#),
        ("{{ trunc .n .n }}", r#"1:9: executing "line" at <.n>: wrong type for value; expected int; got string"#),
        ("{{ trunc 1.5 .n }}", r#"1:9: executing "line" at <1.5>: expected integer; found 1.5"#),
        ("{{ range .app }}{{ end }}", r#"1:9: executing "line" at <.app>: range can't iterate over shop"#),
        ("{{ nil }}", r#"1:3: executing "line" at <nil>: nil is not a command"#),
        (r#"{{ template "x" }}"#, r#"1:12: executing "line" at <{{template "x"}}>: template "x" not defined"#),
        (
            "{{ index .app 9 }}",
            r#"1:3: executing "line" at <index .app 9>: error calling index: index out of range: 9"#,
        ),
        (
            "{{ call .app }}",
            r#"1:3: executing "line" at <call .app>: error calling call: non-function .app of type string"#,
        ),
        (
            "{{ gt .n 5 }}",
            r#"1:3: executing "line" at <gt .n 5>: error calling gt: incompatible types for comparison: string and int"#,
        ),
        (
            "{{ div 1 0 }}",
            r#"1:3: executing "line" at <div 1 0>: error calling div: runtime error: integer divide by zero"#,
        ),
        (
            r#"{{ duration "1d" }}"#,
            r#"1:3: executing "line" at <duration "1d">: error calling duration: time: unknown unit "d" in duration "1d""#,
        ),
        (
            r#"{{ unixToTime "abc" }}"#,
            r#"1:3: executing "line" at <unixToTime "abc">: error calling unixToTime: unable to parse time 'abc': strconv.ParseInt: parsing "abc": invalid syntax"#,
        ),
        (
            r#"{{ count "[" .n }}"#,
            r#"1:3: executing "line" at <count "[" .n>: error calling count: error parsing regexp: missing closing ]: `[`"#,
        ),
        (
            r#"{{ urldecode "%zz" }}"#,
            r#"1:3: executing "line" at <urldecode "%zz">: error calling urldecode: invalid URL escape "%zz""#,
        ),
        (
            r#"{{ substr 5 -1 "ab" }}"#,
            r#"1:3: executing "line" at <substr 5 -1 "ab">: error calling substr: runtime error: slice bounds out of range [5:2]"#,
        ),
        (
            r#"{{ substr -1 99 "abc" }}"#,
            r#"1:3: executing "line" at <substr -1 99 "abc">: error calling substr: runtime error: slice bounds out of range [:99] with length 3"#,
        ),
        (r#"{{ ("x" | upper).y }}"#, r#"1:10: executing "line" at <upper>: can't evaluate field y in type string"#),
        (r#"{{ (fromJson "{}").a.b }}"#, r#"1:13: executing "line" at <"{}">: nil pointer evaluating interface {}.b"#),
        (
            r#"{{ define "t" }}{{ .x }}{{ end }}{{ template "t" 1 }}"#,
            r#"1:19: executing "t" at <.x>: can't evaluate field x in type int"#,
        ),
        ("{{ divf 1 0 }}", r#"1:3: executing "line" at <divf 1 0>: error calling divf: decimal division by 0"#),
        (
            "{{ range $i, $e := 3 }}{{ end }}",
            r#"1:19: executing "line" at <3>: can't use 3 to iterate over more than one variable"#,
        ),
        (
            "{{ repeat -1 .n }}",
            r#"1:3: executing "line" at <repeat -1 .n>: error calling repeat: strings: negative Repeat count"#,
        ),
    ]);
}

#[test]
fn work_output_and_depth_are_bounded() {
    for (template, expected) in [
        ("{{ range 9223372036854775807 }}{{ end }}", "template does too much work"),
        ("{{ range 100000 }}{{ range 100000 }}{{ end }}{{ end }}", "template does too much work"),
        ("{{ repeat 99999999999 .n }}", "error calling repeat: text too long"),
        ("{{ indent 99999999999 .n }}", "error calling indent: text too long"),
        ("{{ alignLeft 99999999999 .n }}", "error calling alignLeft: text too long"),
        ("{{ range 1000000 }}{{ repeat 100000 \"a\" }}{{ end }}", "template output too large"),
        (
            "{{ $x := repeat 1000000 \"a\" }}{{ range 1000 }}{{ $y := upper $x }}{{ end }}",
            "template does too much work",
        ),
        (
            "{{ define \"t\" }}{{ template \"t\" . }}{{ end }}{{ template \"t\" . }}",
            "exceeded maximum template depth (250)",
        ),
        ("{{ printf \"%1000000d%1000000d%1000000d%1000000d%1000000d%1000000d\" 1 1 1 1 1 1 }}", "text too long"),
        ("{{ replace \"\" (repeat 10000 \"b\") (repeat 10000 \"a\") }}", "text too long"),
        ("{{ regexReplaceAll \"\" (repeat 10000 \"a\") (repeat 10000 \"b\") }}", "text too long"),
    ] {
        let error = run(template).expect_err(template);
        assert!(error.ends_with(expected), "{template}: {error}");
    }
    let deep = format!("{}.n{}", "{{ if ".to_owned() + &"(".repeat(500), ")".repeat(500) + " }}{{ end }}");
    assert_eq!(run(&deep), Err("template: line:1: template nests too deeply".to_owned()));
    let deep = "{{ if 1 }}".repeat(500) + &"{{ end }}".repeat(500);
    assert_eq!(run(&deep), Err("template: line:1: template nests too deeply".to_owned()));
}

#[test]
fn regular_expressions_are_kept_within_bounds() {
    let one = r#"{{ count "(\\pL{9}x)+" .app }}"#;
    let template = Template::parse("line", &one.repeat(60)).expect("valid");
    let labels = Labels(LABELS);
    let data = Data { labels: &labels, line: b"", timestamp: Timestamp(0), now: Timestamp(0) };
    for _ in 0..2 {
        let mut out = Vec::new();
        assert_eq!(template.execute(&data, &mut out), Ok(()));
        assert_eq!(out, [b'0'; 60]);
    }
    let kept = template.regex_bytes.load(std::sync::atomic::Ordering::Relaxed);
    assert!((100_000..=2 << 20).contains(&kept), "{kept}");
}

#[test]
fn deepest_templates_run_on_a_small_stack() {
    let parens = format!("{{{{ {}.n{} }}}}", "(".repeat(98), ")".repeat(98));
    let ifs = "{{ if 1 }}".repeat(98) + "x" + &"{{ end }}".repeat(98);
    let calls = format!(
        "{{{{ define \"t\" }}}}{}{{{{ template \"t\" . }}}}{}{{{{ end }}}}{{{{ template \"t\" . }}}}",
        "{{ if 1 }}".repeat(90),
        "{{ end }}".repeat(90)
    );
    let thread = std::thread::Builder::new().stack_size(1 << 20);
    let results =
        thread.spawn(move || (run(&parens), run(&ifs), run(&calls))).expect("a thread").join().expect("no overflow");
    assert_eq!((results.0.as_deref(), results.1.as_deref()), (Ok("42"), Ok("x")));
    assert!(results.2.is_err());
}

#[test]
fn knows_its_fields() {
    let parse = |text: &str| Template::parse("line", text).expect(text);
    for (text, single) in [
        ("{{.x}}", Some("x")),
        ("{{ $v := .x }}", Some("x")),
        ("{{.x.y}}", None),
        ("{{.x}} ", None),
        ("{{.x | upper}}", None),
        ("x", None),
    ] {
        assert_eq!(parse(text).single_field(), single, "{text}");
    }
    let template =
        parse("{{ .a.b }}{{ $.c }}{{ if .d }}{{ upper .e }}{{ else }}{{ (lower .f) }}{{ end }}{{ range .g }}{{ end }}");
    assert_eq!(template.fields(), ["a", "b", "d", "e", "f", "g"]);
}

proptest::proptest! {
    #[test]
    fn any_text_is_answered(text: Vec<u8>) {
        let _ = Template::parse("line", &text);
    }

    #[test]
    fn any_combination_runs(parts in proptest::collection::vec(proptest::sample::select(PARTS), 0..12)) {
        let _ = run(&format!("{{{{ {} }}}}", parts.join(" ")));
        let _ = run(&format!("{{{{ range $a, $b := {} }}}}{{{{ $b }}}}{{{{ end }}}}", parts.join(" ")));
    }
}

const PARTS: &[&str] = &[
    ".",
    ".n",
    ".text",
    ".bad",
    "$",
    "|",
    "(",
    ")",
    "1",
    "-1",
    "0",
    "2.5",
    "\"x\"",
    "\"[a\"",
    "nil",
    "true",
    "'a'",
    "printf",
    "\"%[1]*d%-08.3v%q\"",
    "index",
    "slice",
    "len",
    "fromJson",
    "`{\"a\":[1,{}]}`",
    "upper",
    "title",
    "trunc",
    "substr",
    "repeat",
    "alignLeft",
    "indent",
    "replace",
    "Replace",
    "regexReplaceAll",
    "count",
    "urldecode",
    "b64dec",
    "int",
    "add",
    "sub",
    "mul",
    "div",
    "mod",
    "addf",
    "mulf",
    "divf",
    "round",
    "eq",
    "lt",
    "and",
    "or",
    "default",
    "date",
    "toDate",
    "toDateInZone",
    "unixToTime",
    "unixEpochNanos",
    "__timestamp__",
    "now",
    ".Sub",
    ".AddDate",
    "9223372036854775807",
    "html",
    "js",
    "print",
    "print .",
    "call",
    "bytes",
    "duration",
    "\"2006-01-02\"",
    "\"Europe/Berlin\"",
    "1e300",
];
