//! Numbers in templates: conversions that never fail, integer arithmetic that wraps, and exact decimal arithmetic.

use num_bigint::{BigInt, Sign};

use super::value::{IntKind, Value};
use crate::go::number::{int_of_base, parse_float};

/// Digits behind the point of a quotient.
const DIVISION_DIGITS: i32 = 16;
/// Bits of a decimal's coefficient beyond which arithmetic gives up.
const MAX_BITS: u64 = 1 << 16;
/// Decimal exponents beyond which arithmetic gives up.
const MAX_EXPONENT: i32 = 10_000;

/// `cast.ToInt64`: 0 for what is no number.
pub(super) fn to_int(value: &Value<'_>) -> i64 {
    match value {
        Value::Bool(b) => i64::from(*b),
        Value::Int(_, n) => *n,
        // Out of range, the hardware Go runs on answers the smallest number.
        Value::Float(f) if *f >= -9_223_372_036_854_775_808.0 && *f < 9_223_372_036_854_775_808.0 => *f as i64,
        Value::Float(_) => i64::MIN,
        Value::Text(text) => int_of_base(without_fraction(text), 0).unwrap_or(0),
        _ => 0,
    }
}

/// The integer part of a plain decimal; other text as it is.
fn without_fraction(text: &[u8]) -> &[u8] {
    let sign = usize::from(matches!(text.first(), Some(b'+' | b'-')));
    let digits = |text: &[u8]| text.iter().take_while(|b| b.is_ascii_digit()).count();
    let whole = sign + digits(&text[sign..]);
    match &text[whole..] {
        [b'.', fraction @ ..] if digits(fraction) == fraction.len() => {
            if whole == sign {
                b"0"
            } else {
                &text[..whole]
            }
        }
        _ => text,
    }
}

/// `cast.ToFloat64`: 0 for what is no number.
pub(super) fn to_float(value: &Value<'_>) -> f64 {
    match value {
        Value::Bool(b) => f64::from(u8::from(*b)),
        Value::Int(IntKind::Month | IntKind::Weekday | IntKind::Duration, _) => 0.0,
        Value::Int(_, n) => *n as f64,
        Value::Float(f) => *f,
        Value::Text(text) => parse_float(&**text).unwrap_or(0.0),
        _ => 0.0,
    }
}

/// `coefficient * 10^exponent`
#[derive(Clone, Debug)]
pub(super) struct Decimal {
    coefficient: BigInt,
    exponent: i32,
}

impl Decimal {
    /// The shortest decimal that reads back as `value`.
    pub(super) fn new(value: f64) -> Result<Self, String> {
        if !value.is_finite() {
            return Err(format!("Cannot create a Decimal from {}", crate::go::number::format_v(value)));
        }
        let text = format!("{value:e}");
        let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let coefficient = format!("{whole}{fraction}").parse().unwrap_or_default();
        let exponent: i32 = exponent.parse().unwrap_or(0);
        Ok(Self { coefficient, exponent: exponent - fraction.len() as i32 })
    }

    fn bounded(self) -> Result<Self, String> {
        if self.coefficient.bits() > MAX_BITS || self.exponent.abs() > MAX_EXPONENT {
            return Err("decimal too large".to_owned());
        }
        Ok(self)
    }

    /// The coefficient at a smaller exponent.
    fn at(&self, exponent: i32) -> BigInt {
        &self.coefficient * power_of_ten(self.exponent - exponent)
    }

    pub(super) fn add(&self, other: &Self) -> Result<Self, String> {
        let exponent = self.exponent.min(other.exponent);
        Self { coefficient: self.at(exponent) + other.at(exponent), exponent }.bounded()
    }

    pub(super) fn sub(&self, other: &Self) -> Result<Self, String> {
        let exponent = self.exponent.min(other.exponent);
        Self { coefficient: self.at(exponent) - other.at(exponent), exponent }.bounded()
    }

    pub(super) fn mul(&self, other: &Self) -> Result<Self, String> {
        let coefficient = &self.coefficient * &other.coefficient;
        Self { coefficient, exponent: self.exponent.saturating_add(other.exponent) }.bounded()
    }

    /// The quotient to [`DIVISION_DIGITS`] digits, halves away from zero.
    pub(super) fn div(&self, other: &Self) -> Result<Self, String> {
        if other.coefficient.sign() == Sign::NoSign {
            return Err("decimal division by 0".to_owned());
        }
        // self / other = (a / b) * 10^(x - y); scaled so that the integer quotient counts units of 10^-16.
        let shift = self.exponent.saturating_sub(other.exponent).saturating_add(DIVISION_DIGITS);
        let (mut a, mut b) = (self.coefficient.clone(), other.coefficient.clone());
        if shift >= 0 {
            a *= power_of_ten(shift);
        } else {
            b *= power_of_ten(-shift);
        }
        let negative = (a.sign() == Sign::Minus) != (b.sign() == Sign::Minus);
        let (a, b) = (a.magnitude(), b.magnitude());
        let mut quotient = a / b;
        if (a % b) * 2u32 >= *b {
            quotient += 1u32;
        }
        let sign = if negative { Sign::Minus } else { Sign::Plus };
        Self { coefficient: BigInt::from_biguint(sign, quotient), exponent: -DIVISION_DIGITS }.bounded()
    }

    /// The nearest float64.
    pub(super) fn to_float(&self) -> f64 {
        format!("{}e{}", self.coefficient, self.exponent).parse().unwrap_or(0.0)
    }
}

/// 10^n; differences of bounded exponents are not negative where this is called.
fn power_of_ten(n: i32) -> BigInt {
    BigInt::from(10).pow(n.clamp(0, 3 * MAX_EXPONENT) as u32)
}

/// sprig's `round`.
pub(super) fn round(value: f64, places: i64, on: f64) -> f64 {
    let power = 10f64.powf(places as f64);
    let digit = power * value;
    let fraction = digit - digit.trunc();
    let rounded = if fraction >= on { digit.ceil() } else { digit.floor() };
    rounded / power
}
