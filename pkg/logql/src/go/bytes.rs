//! Sizes as the Go package go-humanize reads and writes them: decimal `k M G …` are powers of 1000, `Ki Mi …` of 1024.

use super::{number, unicode};

const SI: [&str; 7] = ["B", "kB", "MB", "GB", "TB", "PB", "EB"];

/// `humanize.ParseBytes`: digits, dots and commas (dropped), then a unit in any case after optional space; fractions of a byte
/// are cut off. The error is Go's text.
pub fn parse_humanize(text: &(impl AsRef<[u8]> + ?Sized)) -> Result<u64, String> {
    let text = text.as_ref();
    // Counted in runes and then used as a byte offset, as upstream does; the two differ only for digits outside ASCII, which
    // are an error either way.
    let end = unicode::runes(text).take_while(|&(_, c, _)| unicode::is_digit(c) || c == '.' || c == ',').count();
    let (number, unit) = text.split_at_checked(end).unwrap_or((text, b""));
    let value = if number.contains(&b',') {
        let plain: Vec<u8> = number.iter().copied().filter(|&b| b != b',').collect();
        number::parse_float(&plain)?
    } else {
        number::parse_float(number)?
    };
    let unit = unicode::map(unicode::trim_space(unit), unicode::to_lower);
    let scale: u64 = match &unit[..] {
        b"" | b"b" => 1,
        b"k" | b"kb" => 1000,
        b"m" | b"mb" => 1000_u64.pow(2),
        b"g" | b"gb" => 1000_u64.pow(3),
        b"t" | b"tb" => 1000_u64.pow(4),
        b"p" | b"pb" => 1000_u64.pow(5),
        b"e" | b"eb" => 1000_u64.pow(6),
        b"ki" | b"kib" => 1 << 10,
        b"mi" | b"mib" => 1 << 20,
        b"gi" | b"gib" => 1 << 30,
        b"ti" | b"tib" => 1 << 40,
        b"pi" | b"pib" => 1 << 50,
        b"ei" | b"eib" => 1 << 60,
        _ => return Err(format!("unhandled size name: {}", String::from_utf8_lossy(&unit))),
    };
    let bytes = value * scale as f64;
    if bytes >= u64::MAX as f64 {
        return Err(format!("too large: {}", String::from_utf8_lossy(text)));
    }
    Ok(bytes as u64)
}

/// `humanize.Bytes`: `5 B`, `1.6 MB`, `83 MB`; one decimal below ten, a space before the unit (which LogQL's normal form
/// leaves out).
#[must_use]
pub fn format_humanize(bytes: u64) -> String {
    if bytes < 10 {
        return format!("{bytes} B");
    }
    let value = bytes as f64;
    let exponent = (value.ln() / 1000_f64.ln()).floor().clamp(0.0, 6.0);
    let scaled = (value / 1000_f64.powi(exponent as i32) * 10.0 + 0.5).floor() / 10.0;
    let unit = SI[exponent as usize];
    if scaled < 10.0 { format!("{scaled:.1} {unit}") } else { format!("{scaled:.0} {unit}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_sizes() {
        for (text, expected) in [
            ("42", 42),
            ("1.5 KiB", 1536),
            ("1,005.03MB", 1_005_030_000),
            ("10kB", 10_000),
            ("2G", 2_000_000_000),
            ("1eib", 1 << 60),
            ("0.9", 0),
            ("1 \t b", 1),
        ] {
            assert_eq!(parse_humanize(text), Ok(expected), "{text}");
        }
    }

    #[test]
    fn says_what_is_wrong_as_go_does() {
        for (text, expected) in [
            ("", r#"strconv.ParseFloat: parsing "": invalid syntax"#),
            ("x", r#"strconv.ParseFloat: parsing "": invalid syntax"#),
            ("1.2.3", r#"strconv.ParseFloat: parsing "1.2.3": invalid syntax"#),
            ("5 QB", "unhandled size name: qb"),
            ("99999EB", "too large: 99999EB"),
            ("-5", r#"strconv.ParseFloat: parsing "": invalid syntax"#),
            ("\u{663}", r#"strconv.ParseFloat: parsing "\xd9": invalid syntax"#),
        ] {
            assert_eq!(parse_humanize(text), Err(expected.to_owned()), "{text}");
        }
    }

    #[test]
    fn formats_sizes() {
        for (bytes, expected) in [
            (0, "0 B"),
            (9, "9 B"),
            (10, "10 B"),
            (999, "999 B"),
            (1000, "1.0 kB"),
            (1_600_000, "1.6 MB"),
            (82_854_982, "83 MB"),
            (u64::MAX, "18 EB"),
        ] {
            assert_eq!(format_humanize(bytes), expected);
        }
    }
}
