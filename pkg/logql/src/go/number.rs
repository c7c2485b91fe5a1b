//! `strconv`: numbers from and to text.

use super::quote::quote;

/// Exponents beyond this over- or underflow whatever the mantissa; larger ones are not told apart.
const MAX_EXPONENT: i64 = 100_000;
/// `%v` writes an exponent from this decimal exponent on.
const G_EXPONENT: i32 = 6;

/// Why a number could not be read; [`NumError::text`] is Go's wording.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NumError {
    /// Not a number.
    Syntax,
    /// Too large for the type.
    Range,
}

impl NumError {
    /// `strconv.FUNCTION: parsing "INPUT": invalid syntax`.
    #[must_use]
    pub fn text(self, function: &str, input: &[u8]) -> String {
        let what = match self {
            Self::Syntax => "invalid syntax",
            Self::Range => "value out of range",
        };
        format!("strconv.{function}: parsing {}: {what}", quote(input))
    }
}

/// `strconv.ParseFloat(text, 64)`: decimals, hexadecimal floats with a `p` exponent, `_` between digits, `inf`, `infinity` and
/// `nan` in any case. No surrounding space. Overflow is an error.
pub fn parse_float(text: &(impl AsRef<[u8]> + ?Sized)) -> Result<f64, String> {
    let text = text.as_ref();
    float(text).map_err(|e| e.text("ParseFloat", text))
}

fn float(text: &[u8]) -> Result<f64, NumError> {
    let (negative, signed, digits) = match text {
        [b'-', rest @ ..] => (true, true, rest),
        [b'+', rest @ ..] => (false, true, rest),
        _ => (false, false, text),
    };
    let value = if digits.eq_ignore_ascii_case(b"inf") || digits.eq_ignore_ascii_case(b"infinity") {
        f64::INFINITY
    } else if digits.eq_ignore_ascii_case(b"nan") && !signed {
        f64::NAN
    } else {
        let value = match digits {
            [b'0', b'x' | b'X', rest @ ..] => hex_float(digits, rest)?,
            _ => decimal(digits)?,
        };
        if value.is_infinite() {
            return Err(NumError::Range);
        }
        value
    };
    Ok(if negative { -value } else { value })
}

fn decimal(digits: &[u8]) -> Result<f64, NumError> {
    let plain = digits.iter().all(|b| matches!(b, b'0'..=b'9' | b'.' | b'e' | b'E' | b'+' | b'-'));
    if plain {
        // Rust's grammar without letters other than `e` is Go's, except that Rust takes a second sign.
        return match digits.first() {
            Some(b'0'..=b'9' | b'.') => {
                let text = std::str::from_utf8(digits).map_err(|_| NumError::Syntax)?;
                text.parse().map_err(|_| NumError::Syntax)
            }
            _ => Err(NumError::Syntax),
        };
    }
    if !digits.contains(&b'_') || !underscores_separate_digits(digits) {
        return Err(NumError::Syntax);
    }
    let without: Vec<u8> = digits.iter().copied().filter(|&b| b != b'_').collect();
    if without.iter().all(|b| matches!(b, b'0'..=b'9' | b'.' | b'e' | b'E' | b'+' | b'-')) {
        decimal(&without)
    } else {
        Err(NumError::Syntax)
    }
}

/// Go's rule for `_`: between digits, or between a base prefix and a digit. `digits` has no sign.
fn underscores_separate_digits(digits: &[u8]) -> bool {
    let (mut last, rest, hex) = match digits {
        [b'0', p @ (b'b' | b'B' | b'o' | b'O' | b'x' | b'X'), rest @ ..] => (b'0', rest, p.eq_ignore_ascii_case(&b'x')),
        _ => (b'^', digits, false),
    };
    for &b in rest {
        let digit = b.is_ascii_digit() || (hex && b.is_ascii_hexdigit());
        if (b == b'_' && last != b'0') || (b != b'_' && !digit && last == b'_') {
            return false;
        }
        last = if digit { b'0' } else { b };
    }
    last != b'_'
}

/// `text` is the whole number, `rest` what follows `0x`.
fn hex_float(text: &[u8], rest: &[u8]) -> Result<f64, NumError> {
    if rest.contains(&b'_') && !underscores_separate_digits(text) {
        return Err(NumError::Syntax);
    }
    // 60 bits of the mantissa, and one at the bottom that says whether anything was cut off.
    let (mut mantissa, mut exponent, mut sticky) = (0u64, 0i64, false);
    let (mut seen_digit, mut seen_dot, mut at) = (false, false, 0);
    while let Some(&b) = rest.get(at) {
        match (char::from(b).to_digit(16), b) {
            (Some(digit), _) => {
                seen_digit = true;
                if mantissa >> 56 == 0 {
                    mantissa = mantissa << 4 | u64::from(digit);
                    exponent -= if seen_dot { 4 } else { 0 };
                } else {
                    sticky |= digit != 0;
                    exponent += if seen_dot { 0 } else { 4 };
                }
            }
            (None, b'_') => {}
            (None, b'.') if !seen_dot => seen_dot = true,
            _ => break,
        }
        at += 1;
    }
    let Some((b'p' | b'P', power)) = rest.get(at..).and_then(|r| r.split_first()) else { return Err(NumError::Syntax) };
    let (negative, power) = match power {
        [b'-', power @ ..] => (true, power),
        [b'+', power @ ..] => (false, power),
        _ => (false, power),
    };
    if !seen_digit || !power.first().is_some_and(u8::is_ascii_digit) {
        return Err(NumError::Syntax);
    }
    let mut by = 0i64;
    for &b in power {
        match b {
            b'0'..=b'9' => by = (by * 10 + i64::from(b - b'0')).min(MAX_EXPONENT),
            b'_' => {}
            _ => return Err(NumError::Syntax),
        }
    }
    exponent = exponent.saturating_add(if negative { -by } else { by });
    if mantissa == 0 {
        return Ok(0.0);
    }
    Ok(scale(mantissa, exponent, sticky))
}

/// `mantissa` (below 2^60) times 2^`exponent`, rounded once, to nearest even.
fn scale(mantissa: u64, exponent: i64, sticky: bool) -> f64 {
    let mut bits = mantissa << 3 | u64::from(sticky);
    let mut exponent = exponent - 3;
    // The lowest bit a double can have is 2^-1074; what is below becomes sticky so that there is one rounding only.
    let keep = (exponent + 64 - i64::from(bits.leading_zeros()) - 53).max(-1074);
    let drop = keep - exponent;
    if drop >= 64 {
        return 0.0;
    }
    if drop > 0 {
        let half = 1u64 << (drop - 1);
        let below = bits & ((half << 1).wrapping_sub(1));
        bits = if drop == 64 { 0 } else { bits >> drop };
        if below > half || (below == half && bits & 1 == 1) {
            bits += 1;
        }
        exponent = keep;
    }
    if exponent > 1023 {
        return f64::INFINITY;
    }
    // `bits` now has at most 54 bits with the low ones zero where needed: the products below are exact or overflow.
    let mut value = bits as f64;
    while exponent > 0 {
        let step = exponent.min(1000);
        value *= 2f64.powi(step as i32);
        exponent -= step;
    }
    while exponent < 0 {
        let step = (-exponent).min(500);
        value /= 2f64.powi(step as i32);
        exponent += step;
    }
    value
}

/// `strconv.ParseInt(text, 10, 64)`.
pub fn parse_int(text: &(impl AsRef<[u8]> + ?Sized)) -> Result<i64, String> {
    let text = text.as_ref();
    int_of_base(text, 10).map_err(|e| e.text("ParseInt", text))
}

/// `strconv.Atoi`.
pub fn atoi(text: &(impl AsRef<[u8]> + ?Sized)) -> Result<i64, String> {
    let text = text.as_ref();
    int_of_base(text, 10).map_err(|e| e.text("Atoi", text))
}

/// `strconv.ParseInt(text, base, 64)` without the wording of the error; base 0 reads Go's prefixes (`0x`, `0o`, `0b`, leading
/// `0` for octal) and `_` separators.
pub fn int_of_base(text: &[u8], base: u32) -> Result<i64, NumError> {
    let (negative, digits) = match text {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        _ => (false, text),
    };
    let magnitude = uint_of_base(digits, base)?;
    if negative {
        if magnitude > 1 << 63 {
            return Err(NumError::Range);
        }
        return Ok(0_i64.wrapping_sub_unsigned(magnitude));
    }
    i64::try_from(magnitude).map_err(|_| NumError::Range)
}

/// `strconv.ParseUint(text, base, 64)` without the wording of the error; see [`int_of_base`].
pub fn uint_of_base(text: &[u8], base: u32) -> Result<u64, NumError> {
    let (radix, digits) = match (base, text) {
        (0, [b'0', p, rest @ ..]) if !rest.is_empty() && matches!(p, b'x' | b'X') => (16, rest),
        (0, [b'0', p, rest @ ..]) if !rest.is_empty() && matches!(p, b'o' | b'O') => (8, rest),
        (0, [b'0', p, rest @ ..]) if !rest.is_empty() && matches!(p, b'b' | b'B') => (2, rest),
        (0, [b'0', rest @ ..]) if !rest.is_empty() => (8, rest),
        (0, _) => (10, text),
        _ => (base.clamp(2, 36), text),
    };
    if digits.is_empty() {
        return Err(NumError::Syntax);
    }
    let mut value: u64 = 0;
    let mut underscores = false;
    let mut overflow = false;
    for &b in digits {
        if b == b'_' && base == 0 {
            underscores = true;
            continue;
        }
        let digit = char::from(b).to_digit(radix).ok_or(NumError::Syntax)?;
        match value.checked_mul(u64::from(radix)).and_then(|n| n.checked_add(u64::from(digit))) {
            Some(next) => value = next,
            // Go stops here: what follows is not looked at.
            None => {
                overflow = true;
                break;
            }
        }
    }
    if overflow {
        return Err(NumError::Range);
    }
    if underscores && !underscores_separate_digits(text) {
        return Err(NumError::Syntax);
    }
    Ok(value)
}

/// `%v` of a float64, which is `strconv.FormatFloat(value, 'g', -1, 64)`: the shortest digits that read back the same; with an
/// exponent iff the decimal exponent is below -4 or at least 6 (`123456789` is `1.23456789e+08`).
#[must_use]
pub fn format_v(value: f64) -> String {
    if let Some(special) = special(value) {
        return special.to_owned();
    }
    let scientific = format!("{value:e}");
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if (-4..G_EXPONENT).contains(&exponent) { format_f(value) } else { with_exponent(mantissa, exponent) }
}

/// `strconv.FormatFloat(value, 'f', -1, 64)`: shortest digits, never an exponent; `NaN`, `+Inf`, `-Inf`.
#[must_use]
pub fn format_f(value: f64) -> String {
    special(value).map_or_else(|| format!("{value}"), str::to_owned)
}

/// `1.5e+06`: a mantissa and at least two digits of exponent.
#[must_use]
pub fn with_exponent(mantissa: &str, exponent: i32) -> String {
    format!("{mantissa}e{}{:02}", if exponent < 0 { '-' } else { '+' }, exponent.unsigned_abs())
}

/// `NaN`, `+Inf`, `-Inf`.
#[must_use]
pub fn special(value: f64) -> Option<&'static str> {
    if value.is_nan() {
        Some("NaN")
    } else if value == f64::INFINITY {
        Some("+Inf")
    } else if value == f64::NEG_INFINITY {
        Some("-Inf")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use proptest::strategy::Strategy as _;

    use super::*;

    #[test]
    fn reads_floats() {
        for (text, expected) in [
            ("0", 0.0),
            ("1.5", 1.5),
            (".5", 0.5),
            ("1.", 1.0),
            ("-1e3", -1000.0),
            ("1E+2", 100.0),
            ("1_0", 10.0),
            ("1_23.50_0_0e+1_2", 1.235e14),
            ("inf", f64::INFINITY),
            ("-Infinity", f64::NEG_INFINITY),
            ("+Inf", f64::INFINITY),
            ("0x1p4", 16.0),
            ("0x1.8p1", 3.0),
            ("0X.8P0", 0.5),
            ("0x_1_0p0", 16.0),
            ("-0x1p-1074", -5e-324),
            ("0x1p-1075", 0.0),
            ("0x1.8p-1075", 5e-324),
            ("0x1.fffffffffffffp1023", f64::MAX),
            ("0x1.00000000000008p0", 1.0),
            ("0x1.000000000000080000000001p0", 1.0 + f64::EPSILON),
            ("1e-400", 0.0),
        ] {
            assert_eq!(parse_float(text), Ok(expected), "{text}");
        }
        assert!(parse_float("NaN").is_ok_and(f64::is_nan));
        assert!(parse_float("-0").is_ok_and(|z| z == 0.0 && z.is_sign_negative()));
    }

    #[test]
    fn says_what_is_no_float() {
        for text in [
            "", "x", " 1", "1 ", "0x10", "0b1", "0o7", "1e", "1e+", ".", "+", "--1", "+-1", "1__0", "_1", "1_", "1_.5",
            "-nan", "infi", "0xp1", "0x1p", "1p3", "1e5x", "e5", "0x1_p1", "1.2.3",
        ] {
            let expected = format!("strconv.ParseFloat: parsing \"{text}\": invalid syntax");
            assert_eq!(parse_float(text), Err(expected));
        }
        for text in ["1e400", "-1e400", "0x1p1024", "0x1.fffffffffffff8p1023"] {
            let expected = format!("strconv.ParseFloat: parsing \"{text}\": value out of range");
            assert_eq!(parse_float(text), Err(expected));
        }
        assert_eq!(parse_float(b"\xff"), Err(r#"strconv.ParseFloat: parsing "\xff": invalid syntax"#.to_owned()));
    }

    #[test]
    fn reads_ints() {
        assert_eq!(parse_int("-9223372036854775808"), Ok(i64::MIN));
        assert_eq!(parse_int("+7"), Ok(7));
        assert_eq!(parse_int("abc"), Err(r#"strconv.ParseInt: parsing "abc": invalid syntax"#.to_owned()));
        assert_eq!(
            atoi("9223372036854775808"),
            Err(r#"strconv.Atoi: parsing "9223372036854775808": value out of range"#.to_owned())
        );
        for (text, expected) in
            [("0x1F", 31), ("010", 8), ("0b11", 3), ("0o7", 7), ("1_000", 1000), ("0_7", 7), ("0", 0)]
        {
            assert_eq!(int_of_base(text.as_bytes(), 0), Ok(expected), "{text}");
        }
        for text in ["08", "1__0", "0x", "", "-", "_1", "1_", "0b2"] {
            assert_eq!(int_of_base(text.as_bytes(), 0), Err(NumError::Syntax), "{text}");
        }
        assert_eq!(int_of_base(b"1_0", 10), Err(NumError::Syntax));
    }

    #[test]
    fn writes_floats() {
        for (value, expected) in [
            (0.0, "0"),
            (-0.0, "-0"),
            (123_456.5, "123456.5"),
            (3_000_000.0, "3e+06"),
            (999_999.0, "999999"),
            (123_456_789.0, "1.23456789e+08"),
            (0.0001, "0.0001"),
            (0.00001, "1e-05"),
            (1e100, "1e+100"),
            (0.1 + 0.2, "0.30000000000000004"),
            (f64::NAN, "NaN"),
            (f64::INFINITY, "+Inf"),
            (f64::NEG_INFINITY, "-Inf"),
        ] {
            assert_eq!(format_v(value), expected);
        }
        assert_eq!(format_f(1e21), "1000000000000000000000");
        assert_eq!(format_f(1.5e-7), "0.00000015");
    }

    proptest::proptest! {
        #[test]
        fn floats_round_trip(value in proptest::num::f64::ANY.prop_filter("NaN and Inf have texts of their own", |v| v.is_finite())) {
            proptest::prop_assert_eq!(parse_float(&format_v(value)), Ok(value));
            proptest::prop_assert_eq!(parse_float(&format_f(value)), Ok(value));
        }

        #[test]
        fn hex_floats_are_exact(mantissa in 1u64..1 << 53, exponent in -1000i32..900) {
            let text = format!("0x{mantissa:x}p{exponent}");
            proptest::prop_assert_eq!(parse_float(&text), Ok(mantissa as f64 * 2f64.powi(exponent)));
        }

        #[test]
        fn any_text_is_answered(text: Vec<u8>) {
            let _ = (parse_float(&text), parse_int(&text), int_of_base(&text, 0), super::super::bytes::parse_humanize(&text));
        }
    }
}
