//! How the value of a setting is written, read and shown again. Units are Loki's: sizes in powers of 1024 (`4MB` is 4 MiB),
//! durations as Go and Prometheus write them (`1m30s`, `7d`), rates in MiB as decimal numbers.

use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;
use tailwater_logql::go::duration;

use super::tree::Node;

/// A way to write values of a type.
pub(super) trait Unit {
    /// What the setting holds.
    type Value;

    /// Reads a value; the error says what was wrong and what is allowed.
    fn read(node: &Node) -> Result<Self::Value, String>;

    /// The value as the configuration file would have it.
    fn show(value: &Self::Value) -> Value;
}

pub(super) fn scalar<'n>(node: &'n Node, allowed: &str) -> Result<&'n str, String> {
    node.text().ok_or_else(|| format!("found {}; allowed: {allowed}", node.kind()))
}

/// `true` or `false`.
pub(super) struct Flag;

impl Unit for Flag {
    type Value = bool;

    fn read(node: &Node) -> Result<bool, String> {
        const ALLOWED: &str = "true or false";
        match scalar(node, ALLOWED)? {
            "true" | "yes" | "on" => Ok(true),
            "false" | "no" | "off" => Ok(false),
            other => Err(format!("{other:?} is not a yes or no; allowed: {ALLOWED}")),
        }
    }

    fn show(value: &bool) -> Value {
        Value::Bool(*value)
    }
}

/// `true`, `false` or nothing.
pub(super) struct OptionalFlag;

impl Unit for OptionalFlag {
    type Value = Option<bool>;

    fn read(node: &Node) -> Result<Option<bool>, String> {
        if *node == Node::Null { Ok(None) } else { Flag::read(node).map(Some) }
    }

    fn show(value: &Option<bool>) -> Value {
        value.map_or(Value::Null, Value::Bool)
    }
}

/// Any text.
pub(super) struct Text;

impl Unit for Text {
    type Value = String;

    fn read(node: &Node) -> Result<String, String> {
        if *node == Node::Null { Ok(String::new()) } else { scalar(node, "a text").map(str::to_owned) }
    }

    fn show(value: &String) -> Value {
        Value::String(value.clone())
    }
}

/// A folder; empty if it is not set.
pub(super) struct Folder;

impl Unit for Folder {
    type Value = PathBuf;

    fn read(node: &Node) -> Result<PathBuf, String> {
        if *node == Node::Null { Ok(PathBuf::new()) } else { scalar(node, "a folder").map(PathBuf::from) }
    }

    fn show(value: &PathBuf) -> Value {
        // It came from a text.
        Value::String(value.to_string_lossy().into_owned())
    }
}

/// Values that have names.
pub(super) trait Named: Copy + PartialEq + 'static {
    /// The names, and what they mean.
    const ALL: &[(&str, Self)];
}

/// One of a few names.
pub(super) struct Choice<T>(std::marker::PhantomData<T>);

impl<T: Named> Unit for Choice<T> {
    type Value = T;

    fn read(node: &Node) -> Result<T, String> {
        let allowed = T::ALL.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
        let text = scalar(node, &allowed)?;
        let found = T::ALL.iter().find(|(name, _)| *name == text);
        found.map(|(_, value)| *value).ok_or_else(|| format!("{text:?} is not known; allowed: {allowed}"))
    }

    fn show(value: &T) -> Value {
        T::ALL.iter().find(|(_, named)| named == value).map_or(Value::Null, |(name, _)| Value::from(*name))
    }
}

/// A list of texts, or one text with commas.
pub(super) struct Texts;

impl Unit for Texts {
    type Value = Vec<String>;

    fn read(node: &Node) -> Result<Vec<String>, String> {
        match node {
            Node::Null => Ok(Vec::new()),
            Node::Scalar(text) => {
                Ok(text.split(',').map(str::trim).filter(|t| !t.is_empty()).map(str::to_owned).collect())
            }
            Node::List(items) => items.iter().map(|item| Text::read(&item.value)).collect(),
            Node::Map(_) => Err("found a map of keys; allowed: a list of texts".to_owned()),
        }
    }

    fn show(value: &Vec<String>) -> Value {
        value.clone().into()
    }
}

/// A whole number.
pub(super) struct Whole<T>(std::marker::PhantomData<T>);

impl<T> Unit for Whole<T>
where
    T: TryFrom<u64> + Copy + Into<Number>,
{
    type Value = T;

    fn read(node: &Node) -> Result<T, String> {
        let allowed = || format!("a whole number from 0 to {}", largest::<T>());
        let text = scalar(node, &allowed())?;
        text.parse::<u64>()
            .ok()
            .and_then(|n| T::try_from(n).ok())
            .ok_or_else(|| format!("{text:?} is out of range or not a number; allowed: {}", allowed()))
    }

    fn show(value: &T) -> Value {
        let Number(n) = (*value).into();
        n.into()
    }
}

/// The common form of the whole numbers that settings hold.
pub(super) struct Number(u64);

impl From<u16> for Number {
    fn from(n: u16) -> Self {
        Self(n.into())
    }
}

impl From<u32> for Number {
    fn from(n: u32) -> Self {
        Self(n.into())
    }
}

impl From<usize> for Number {
    fn from(n: usize) -> Self {
        Self(n as u64)
    }
}

fn largest<T: TryFrom<u64>>() -> u64 {
    [u64::from(u16::MAX), u64::from(u32::MAX), u64::MAX].into_iter().rfind(|&n| T::try_from(n).is_ok()).unwrap_or(0)
}

/// A decimal number of MiB, not negative.
pub(super) struct Mebibytes;

impl Unit for Mebibytes {
    type Value = f64;

    fn read(node: &Node) -> Result<f64, String> {
        const ALLOWED: &str = "a number of megabytes, such as 4 or 0.5";
        let text = scalar(node, ALLOWED)?;
        match text.parse::<f64>() {
            Ok(n) if n.is_finite() && n >= 0.0 => Ok(n),
            _ => Err(format!("{text:?} is not an amount; allowed: {ALLOWED}")),
        }
    }

    fn show(value: &f64) -> Value {
        if value.fract() == 0.0 && *value < 1e15 { Value::from(*value as u64) } else { Value::from(*value) }
    }
}

/// A duration.
pub(super) struct Time;

impl Unit for Time {
    type Value = Duration;

    fn read(node: &Node) -> Result<Duration, String> {
        const ALLOWED: &str = "a duration such as 500ms, 30s, 1m30s, 721h or 7d";
        let text = scalar(node, ALLOWED)?;
        let bad = || format!("{text:?} is not a duration; allowed: {ALLOWED}");
        if let Ok(nanos) = duration::parse_go(text) {
            return u64::try_from(nanos).map(Duration::from_nanos).map_err(|_| bad());
        }
        duration::parse_prometheus(text).map_err(|_| bad())
    }

    fn show(value: &Duration) -> Value {
        Value::String(duration::format_prometheus(*value))
    }
}

/// A size in bytes, `T` being `u64` or `usize`.
pub(super) struct Size<T>(std::marker::PhantomData<T>);

impl<T> Unit for Size<T>
where
    T: TryFrom<u64> + TryInto<u64> + Copy,
{
    type Value = T;

    fn read(node: &Node) -> Result<T, String> {
        const ALLOWED: &str = "a size such as 65536, 256KB, 4MB or 1.5GB";
        let text = scalar(node, ALLOWED)?;
        parse_size(text)
            .and_then(|n| T::try_from(n).ok())
            .ok_or_else(|| format!("{text:?} is not a size; allowed: {ALLOWED}"))
    }

    fn show(value: &T) -> Value {
        (*value).try_into().map_or(Value::Null, |n| Value::String(format_size(n)))
    }
}

const SIZE_UNITS: [(&str, u64); 6] =
    [("PB", 1 << 50), ("TB", 1 << 40), ("GB", 1 << 30), ("MB", 1 << 20), ("KB", 1 << 10), ("B", 1)];

fn parse_size(text: &str) -> Option<u64> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let unit = unit.trim().to_ascii_uppercase().replace("IB", "B");
    let unit = if unit.len() == 1 && unit != "B" { unit + "B" } else { unit };
    let factor = if unit.is_empty() { 1 } else { SIZE_UNITS.iter().find(|(name, _)| *name == unit)?.1 };
    match number.parse::<u64>() {
        Ok(n) => n.checked_mul(factor),
        Err(_) => {
            let n = number.parse::<f64>().ok()? * factor as f64;
            (n.is_finite() && n >= 0.0 && n < u64::MAX as f64).then_some(n as u64)
        }
    }
}

fn format_size(bytes: u64) -> String {
    let fits = SIZE_UNITS.iter().find(|(_, factor)| bytes > 0 && bytes.is_multiple_of(*factor));
    let (unit, factor) = fits.copied().unwrap_or(("B", 1));
    format!("{}{unit}", bytes / factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(t: &str) -> Node {
        Node::Scalar(t.to_owned())
    }

    #[test]
    fn sizes_are_binary_and_survive_a_round_trip() {
        for (written, bytes) in [
            ("0", 0),
            ("17", 17),
            ("17B", 17),
            ("256KB", 256 << 10),
            ("4MB", 4 << 20),
            ("4mb", 4 << 20),
            ("4M", 4 << 20),
            ("4MiB", 4 << 20),
            ("1.5GB", 3 << 29),
        ] {
            assert_eq!(Size::<u64>::read(&text(written)), Ok(bytes), "{written}");
            let Value::String(shown) = Size::<u64>::show(&bytes) else { panic!() };
            assert_eq!(Size::<u64>::read(&text(&shown)), Ok(bytes), "{shown}");
        }
        for bad in ["", "MB", "-1", "4XB", "1e3", "99999999PB", "1..5KB"] {
            let error = Size::<u64>::read(&text(bad)).unwrap_err();
            assert!(error.contains("256KB"), "{bad}: {error}");
        }
    }

    #[test]
    fn durations_are_gos_or_prometheuss() {
        for (written, millis) in
            [("0", 0), ("1.5s", 1500), ("1m30s", 90_000), ("7d", 604_800_000), ("721h", 2_595_600_000)]
        {
            assert_eq!(Time::read(&text(written)), Ok(Duration::from_millis(millis)), "{written}");
        }
        for bad in ["", "-5s", "x", "5", "1y1"] {
            assert!(Time::read(&text(bad)).unwrap_err().contains("allowed: a duration"), "{bad}");
        }
        assert!(Time::read(&Node::List(Vec::new())).unwrap_err().starts_with("found a list"));
    }

    #[test]
    fn numbers_know_their_range() {
        assert_eq!(Whole::<u16>::read(&text("3100")), Ok(3100));
        assert!(Whole::<u16>::read(&text("70000")).unwrap_err().contains("0 to 65535"));
        assert!(Whole::<u32>::read(&text("-1")).unwrap_err().contains("0 to 4294967295"));
        assert_eq!(Mebibytes::read(&text("0.5")), Ok(0.5));
        assert_eq!(Mebibytes::show(&6.0), Value::from(6));
        assert!(Mebibytes::read(&text("NaN")).is_err());
        assert_eq!(Flag::read(&text("true")), Ok(true));
        assert!(Flag::read(&text("maybe")).unwrap_err().contains("true or false"));
        assert_eq!(Texts::read(&text("a, b")), Ok(vec!["a".to_owned(), "b".to_owned()]));
    }
}
