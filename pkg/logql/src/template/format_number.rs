//! How `printf` writes numbers.

use std::fmt::Write as _;

use super::format::{Flags, pad};
use crate::go::number::{format_v, special, with_exponent};
use crate::go::quote::quote_rune;
use crate::go::unicode::{self, push};

/// Writes an integer; `false` if the verb is none for integers.
pub(super) fn integer(n: i64, signed: bool, verb: char, flags: Flags, out: &mut Vec<u8>) -> bool {
    let magnitude = n.unsigned_abs();
    let rune = || u32::try_from(n).ok().and_then(char::from_u32).unwrap_or(char::REPLACEMENT_CHARACTER);
    let mut digits = match verb {
        'v' if flags.go_syntax && !signed => {
            return integer(n, signed, 'x', Flags { sharp: true, go_syntax: false, ..flags }, out);
        }
        'v' | 'd' => magnitude.to_string(),
        'b' => format!("{magnitude:b}"),
        'o' | 'O' => format!("{magnitude:o}"),
        'x' => format!("{magnitude:x}"),
        'X' => format!("{magnitude:X}"),
        'c' => {
            pad(rune().to_string().as_bytes(), flags, out);
            return true;
        }
        'q' => {
            pad(quote_rune(rune()).as_bytes(), flags, out);
            return true;
        }
        'U' => {
            let mut shown = format!("U+{magnitude:04X}");
            if flags.sharp && unicode::is_print(rune()) {
                let _ = write!(shown, " '{}'", rune());
            }
            pad(shown.as_bytes(), Flags { zero: false, ..flags }, out);
            return true;
        }
        _ => return false,
    };
    let signs = n < 0 || flags.plus || flags.space;
    let wanted = match (flags.precision, flags.width) {
        (Some(0), _) if n == 0 => {
            pad(b"", Flags { zero: false, ..flags }, out);
            return true;
        }
        (Some(precision), _) => precision,
        (None, Some(width)) if flags.zero && !flags.minus => width.saturating_sub(usize::from(signs)),
        _ => 0,
    };
    if digits.len() < wanted {
        digits.insert_str(0, &"0".repeat(wanted - digits.len()));
    }
    if flags.sharp {
        let prefix = match verb {
            'b' => "0b",
            'o' if !digits.starts_with('0') => "0",
            'x' => "0x",
            'X' => "0X",
            _ => "",
        };
        digits.insert_str(0, prefix);
    }
    if verb == 'O' {
        digits.insert_str(0, "0o");
    }
    if n < 0 {
        digits.insert(0, '-');
    } else if flags.plus {
        digits.insert(0, '+');
    } else if flags.space {
        digits.insert(0, ' ');
    }
    pad(digits.as_bytes(), Flags { zero: false, ..flags }, out);
    true
}

/// Writes a float; `false` if the verb is none for floats.
pub(super) fn float(value: f64, verb: char, flags: Flags, out: &mut Vec<u8>) -> bool {
    let magnitude = value.abs();
    let mut digits = match (special(magnitude), verb) {
        (Some(name), 'v' | 'e' | 'E' | 'f' | 'F' | 'g' | 'G') => name.trim_start_matches('+').to_owned(),
        (None, 'v' | 'g' | 'G') => match flags.precision {
            None => format_v(magnitude),
            Some(precision) => general(magnitude, precision.max(1)),
        },
        (None, 'f' | 'F') => format!("{magnitude:.*}", flags.precision.unwrap_or(6)),
        (None, 'e' | 'E') => scientific(magnitude, flags.precision.unwrap_or(6)),
        _ => return false,
    };
    if matches!(verb, 'E' | 'G') {
        digits = digits.replace('e', "E");
    }
    let finite = value.is_finite();
    let sign = if value.is_sign_negative() && !value.is_nan() {
        Some('-')
    } else if flags.plus {
        Some('+')
    } else if flags.space {
        Some(' ')
    } else if value.is_infinite() && !flags.space {
        Some('+')
    } else {
        None
    };
    let zero = flags.zero && finite && !flags.minus;
    match (sign, flags.width) {
        (Some(sign), Some(width)) if zero && width > digits.len() + 1 => {
            push(out, sign);
            out.resize(out.len() + width - digits.len() - 1, b'0');
            out.extend_from_slice(digits.as_bytes());
        }
        _ => {
            if let Some(sign) = sign {
                digits.insert(0, sign);
            }
            pad(digits.as_bytes(), Flags { zero, ..flags }, out);
        }
    }
    true
}

/// `%.Ne`
fn scientific(value: f64, precision: usize) -> String {
    let text = format!("{value:.precision$e}");
    let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    with_exponent(mantissa, exponent.parse().unwrap_or(0))
}

/// `%.Ng`
fn general(value: f64, precision: usize) -> String {
    let text = format!("{value:.*e}", precision - 1);
    let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let digits: String = mantissa.chars().filter(char::is_ascii_digit).collect();
    let digits = match digits.trim_end_matches('0') {
        "" => "0",
        trimmed => trimmed,
    };
    let count = i32::try_from(digits.len()).unwrap_or(i32::MAX);
    let mut limit = i32::try_from(precision).unwrap_or(i32::MAX);
    if limit > count && count > exponent {
        limit = count;
    }
    if exponent < -4 || exponent >= limit {
        let (first, rest) = digits.split_at(1);
        let mantissa = if rest.is_empty() { first.to_owned() } else { format!("{first}.{rest}") };
        return with_exponent(&mantissa, exponent);
    }
    format!("{value:.*}", usize::try_from(count - 1 - exponent).unwrap_or(0))
}
