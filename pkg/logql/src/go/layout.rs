//! Go's time layouts: an example of the reference time, `Mon Jan 2 15:04:05 MST 2006`.

use super::time::{MONTHS, Time, WEEKDAYS, Zone, days_in};

/// An element of a layout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    LongMonth,
    Month,
    NumMonth,
    ZeroMonth,
    LongWeekday,
    Weekday,
    Day,
    UnderDay,
    ZeroDay,
    UnderYearDay,
    ZeroYearDay,
    Hour,
    Hour12,
    ZeroHour12,
    Minute,
    ZeroMinute,
    Second,
    ZeroSecond,
    LongYear,
    Year,
    UpperPm,
    LowerPm,
    ZoneName,
    /// An offset: whether `Z` stands for zero, whether there are colons, and how many of hours, minutes and seconds.
    Offset {
        z: bool,
        colons: bool,
        fields: u8,
    },
    /// Fractional seconds: digits, whether zeros at the end are left out, and the separator.
    Fraction {
        digits: usize,
        trims: bool,
        separator: u8,
    },
}

/// The first element of a layout: where it starts, what it is, and where what follows starts.
fn next_part(layout: &[u8]) -> Option<(usize, Part, usize)> {
    const OFFSETS: [(&[u8], bool, u8); 5] =
        [(b"070000", false, 3), (b"07:00:00", true, 3), (b"0700", false, 2), (b"07:00", true, 2), (b"07", false, 1)];
    for at in 0..layout.len() {
        let rest = &layout[at..];
        let lower = |from: usize| rest.get(from).is_some_and(u8::is_ascii_lowercase);
        let found = match rest {
            [b'J', b'a', b'n', ..] if rest.starts_with(b"January") => Some((Part::LongMonth, 7)),
            [b'J', b'a', b'n', ..] if !lower(3) => Some((Part::Month, 3)),
            [b'M', b'o', b'n', ..] if rest.starts_with(b"Monday") => Some((Part::LongWeekday, 6)),
            [b'M', b'o', b'n', ..] if !lower(3) => Some((Part::Weekday, 3)),
            [b'M', b'S', b'T', ..] => Some((Part::ZoneName, 3)),
            [b'0', b'1', ..] => Some((Part::ZeroMonth, 2)),
            [b'0', b'2', ..] => Some((Part::ZeroDay, 2)),
            [b'0', b'3', ..] => Some((Part::ZeroHour12, 2)),
            [b'0', b'4', ..] => Some((Part::ZeroMinute, 2)),
            [b'0', b'5', ..] => Some((Part::ZeroSecond, 2)),
            [b'0', b'6', ..] => Some((Part::Year, 2)),
            [b'0', b'0', b'2', ..] => Some((Part::ZeroYearDay, 3)),
            [b'1', b'5', ..] => Some((Part::Hour, 2)),
            [b'1', ..] => Some((Part::NumMonth, 1)),
            [b'2', ..] if rest.starts_with(b"2006") => Some((Part::LongYear, 4)),
            [b'2', ..] => Some((Part::Day, 1)),
            [b'_', b'2', ..] if rest.starts_with(b"_2006") => return Some((at + 1, Part::LongYear, at + 5)),
            [b'_', b'2', ..] => Some((Part::UnderDay, 2)),
            [b'_', b'_', b'2', ..] => Some((Part::UnderYearDay, 3)),
            [b'3', ..] => Some((Part::Hour12, 1)),
            [b'4', ..] => Some((Part::Minute, 1)),
            [b'5', ..] => Some((Part::Second, 1)),
            [b'P', b'M', ..] => Some((Part::UpperPm, 2)),
            [b'p', b'm', ..] => Some((Part::LowerPm, 2)),
            [sign @ (b'-' | b'Z'), after @ ..] => OFFSETS
                .iter()
                .find(|(text, ..)| after.starts_with(text))
                .map(|&(text, colons, fields)| (Part::Offset { z: *sign == b'Z', colons, fields }, 1 + text.len())),
            [separator @ (b'.' | b','), digit @ (b'0' | b'9'), ..] => {
                let digits = rest[1..].iter().take_while(|b| *b == digit).count();
                let part = Part::Fraction { digits, trims: *digit == b'9', separator: *separator };
                (!rest.get(1 + digits).is_some_and(u8::is_ascii_digit)).then_some((part, 1 + digits))
            }
            _ => None,
        };
        if let Some((part, len)) = found {
            return Some((at, part, at + len));
        }
    }
    None
}

/// `t.Format(layout)`.
#[must_use]
pub fn format(time: &Time, layout: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(layout.len() + 8);
    let civil = time.civil();
    let mut layout = layout;
    while let Some((start, part, end)) = next_part(layout) {
        out.extend_from_slice(&layout[..start]);
        layout = &layout[end..];
        let hour12 = match civil.hour % 12 {
            0 => 12,
            hour => hour,
        };
        let text = match part {
            Part::LongMonth => MONTHS[usize::from(civil.month - 1)].to_owned(),
            Part::Month => MONTHS[usize::from(civil.month - 1)][..3].to_owned(),
            Part::NumMonth => civil.month.to_string(),
            Part::ZeroMonth => format!("{:02}", civil.month),
            Part::LongWeekday => WEEKDAYS[usize::from(civil.weekday)].to_owned(),
            Part::Weekday => WEEKDAYS[usize::from(civil.weekday)][..3].to_owned(),
            Part::Day => civil.day.to_string(),
            Part::UnderDay => format!("{:2}", civil.day),
            Part::ZeroDay => format!("{:02}", civil.day),
            Part::UnderYearDay => format!("{:3}", civil.year_day),
            Part::ZeroYearDay => format!("{:03}", civil.year_day),
            Part::Hour => format!("{:02}", civil.hour),
            Part::Hour12 => hour12.to_string(),
            Part::ZeroHour12 => format!("{hour12:02}"),
            Part::Minute => civil.minute.to_string(),
            Part::ZeroMinute => format!("{:02}", civil.minute),
            Part::Second => civil.second.to_string(),
            Part::ZeroSecond => format!("{:02}", civil.second),
            Part::LongYear if civil.year < 0 => format!("-{:04}", civil.year.unsigned_abs()),
            Part::LongYear => format!("{:04}", civil.year),
            Part::Year => format!("{:02}", civil.year.max(0) % 100),
            Part::UpperPm => if civil.hour >= 12 { "PM" } else { "AM" }.to_owned(),
            Part::LowerPm => if civil.hour >= 12 { "pm" } else { "am" }.to_owned(),
            Part::ZoneName if civil.zone.is_empty() => offset_text(civil.offset, false, 2),
            Part::ZoneName => civil.zone.clone(),
            Part::Offset { z: true, .. } if civil.offset == 0 => "Z".to_owned(),
            Part::Offset { colons, fields, .. } => offset_text(civil.offset, colons, fields),
            Part::Fraction { digits, trims, separator } => fraction_text(civil.nanos, digits, trims, separator),
        };
        out.extend_from_slice(text.as_bytes());
    }
    out.extend_from_slice(layout);
    out
}

fn offset_text(offset: i32, colons: bool, fields: u8) -> String {
    let seconds = offset.unsigned_abs();
    let colon = if colons { ":" } else { "" };
    let mut text = format!("{}{:02}", if offset < 0 { '-' } else { '+' }, seconds / 3600);
    if fields > 1 {
        text += &format!("{colon}{:02}", seconds / 60 % 60);
    }
    if fields > 2 {
        text += &format!("{colon}{:02}", seconds % 60);
    }
    text
}

fn fraction_text(nanos: u32, digits: usize, trims: bool, separator: u8) -> String {
    let all = format!("{nanos:09}");
    // Beyond nanoseconds Go repeats zeros up to what the layout asks for only when it asks for zeros.
    let mut text = all[..digits.min(9)].to_owned();
    if trims {
        text.truncate(text.trim_end_matches('0').len());
        if text.is_empty() {
            return text;
        }
    }
    text.insert(0, char::from(separator));
    text
}

/// What was read so far; what is not there is `None`.
#[derive(Default)]
struct Read {
    year: i64,
    month: Option<i64>,
    day: Option<i64>,
    year_day: Option<i64>,
    hour: i64,
    minute: i64,
    second: i64,
    nanos: u32,
    /// After noon.
    pm: Option<bool>,
    utc: bool,
    offset: Option<i32>,
    zone_name: Vec<u8>,
}

/// `time.ParseInLocation(layout, value, zone)`; `None` for any error.
#[must_use]
pub fn parse(layout: &[u8], value: &[u8], zone: Zone) -> Option<Time> {
    let mut read = Read::default();
    let (mut layout, mut value) = (layout, value);
    while let Some((start, part, end)) = next_part(layout) {
        value = skip(value, &layout[..start])?;
        layout = &layout[end..];
        value = read.part(part, layout, value)?;
    }
    if !skip(value, layout)?.is_empty() {
        return None;
    }
    read.finish(zone)
}

/// The value behind a literal prefix; runs of spaces match runs of spaces.
fn skip<'v>(mut value: &'v [u8], mut prefix: &[u8]) -> Option<&'v [u8]> {
    let spaces = |text: &[u8]| text.iter().take_while(|&&b| b == b' ').count();
    while let Some((&first, rest)) = prefix.split_first() {
        if first == b' ' {
            if value.first().is_some_and(|&b| b != b' ') {
                return None;
            }
            prefix = &prefix[spaces(prefix)..];
            value = &value[spaces(value)..];
        } else {
            value = value.strip_prefix(&[first])?;
            prefix = rest;
        }
    }
    Some(value)
}

/// A number of one or two digits, of two if `fixed`.
fn number(value: &[u8], fixed: bool) -> Option<(i64, &[u8])> {
    match value {
        [a @ b'0'..=b'9', b @ b'0'..=b'9', rest @ ..] => Some((i64::from((a - b'0') * 10 + (b - b'0')), rest)),
        [a @ b'0'..=b'9', rest @ ..] if !fixed => Some((i64::from(a - b'0'), rest)),
        _ => None,
    }
}

/// The index of the name that the value starts with, without regard to case.
fn lookup<'v>(names: &[&str], short: bool, value: &'v [u8]) -> Option<(usize, &'v [u8])> {
    names.iter().enumerate().find_map(|(i, name)| {
        let name = if short { &name[..3] } else { name };
        let start = value.get(..name.len())?;
        start.eq_ignore_ascii_case(name.as_bytes()).then(|| (i, &value[name.len()..]))
    })
}

/// Nanoseconds of `.123`; digits beyond the ninth are ignored.
fn nanos(value: &[u8]) -> Option<u32> {
    if !matches!(value.first(), Some(b'.' | b',')) {
        return None;
    }
    let mut nanos = 0;
    for i in 1..10 {
        let digit = match value.get(i) {
            Some(&b @ b'0'..=b'9') => u32::from(b - b'0'),
            Some(_) => return None,
            None => 0,
        };
        nanos = nanos * 10 + digit;
    }
    Some(nanos)
}

impl Read {
    /// Reads one element; `layout` is what follows it in the layout.
    fn part<'v>(&mut self, part: Part, layout: &[u8], value: &'v [u8]) -> Option<&'v [u8]> {
        let below = |limit: i64, (n, rest): (i64, &'v [u8])| (n < limit).then_some((n, rest));
        let rest = match part {
            Part::Year => {
                let (year, rest) = number(value, true)?;
                self.year = year + if year >= 69 { 1900 } else { 2000 };
                rest
            }
            Part::LongYear => {
                let (digits, rest) = value.split_at_checked(4)?;
                self.year =
                    digits.iter().try_fold(0, |n, b| b.is_ascii_digit().then(|| n * 10 + i64::from(b - b'0')))?;
                rest
            }
            Part::Month | Part::LongMonth => {
                let (month, rest) = lookup(&MONTHS, part == Part::Month, value)?;
                self.month = Some(month as i64 + 1);
                rest
            }
            Part::NumMonth | Part::ZeroMonth => {
                let (month, rest) = number(value, part == Part::ZeroMonth)?;
                self.month = (1..=12).contains(&month).then_some(month);
                self.month?;
                rest
            }
            Part::Weekday | Part::LongWeekday => lookup(&WEEKDAYS, part == Part::Weekday, value)?.1,
            Part::Day | Part::UnderDay | Part::ZeroDay => {
                let value = if part == Part::UnderDay { value.strip_prefix(b" ").unwrap_or(value) } else { value };
                let (day, rest) = number(value, part == Part::ZeroDay)?;
                self.day = Some(day);
                rest
            }
            Part::UnderYearDay | Part::ZeroYearDay => {
                let mut value = value;
                if part == Part::UnderYearDay {
                    value = value.strip_prefix(b" ").unwrap_or(value);
                    value = value.strip_prefix(b" ").unwrap_or(value);
                }
                let len = value.iter().take(3).take_while(|b| b.is_ascii_digit()).count();
                if len == 0 || (part == Part::ZeroYearDay && len != 3) {
                    return None;
                }
                self.year_day = Some(value[..len].iter().fold(0, |n, b| n * 10 + i64::from(b - b'0')));
                &value[len..]
            }
            Part::Hour => {
                let (hour, rest) = below(24, number(value, false)?)?;
                self.hour = hour;
                rest
            }
            Part::Hour12 | Part::ZeroHour12 => {
                let (hour, rest) = below(13, number(value, part == Part::ZeroHour12)?)?;
                self.hour = hour;
                rest
            }
            Part::Minute | Part::ZeroMinute => {
                let (minute, rest) = below(60, number(value, part == Part::ZeroMinute)?)?;
                self.minute = minute;
                rest
            }
            Part::Second | Part::ZeroSecond => {
                let (second, rest) = below(60, number(value, part == Part::ZeroSecond)?)?;
                self.second = second;
                // A fraction may follow although the layout has none.
                let has_fraction = matches!(rest, [b'.' | b',', digit, ..] if digit.is_ascii_digit());
                if has_fraction && !matches!(next_part(layout), Some((_, Part::Fraction { .. }, _))) {
                    self.fraction(rest)?
                } else {
                    rest
                }
            }
            Part::UpperPm | Part::LowerPm => {
                let (pm, am): (&[u8], &[u8]) = if part == Part::UpperPm { (b"PM", b"AM") } else { (b"pm", b"am") };
                let (text, rest) = value.split_at_checked(2)?;
                self.pm = Some(text == pm);
                (text == pm || text == am).then_some(rest)?
            }
            Part::Offset { z: true, .. } if value.first() == Some(&b'Z') => {
                self.utc = true;
                &value[1..]
            }
            Part::Offset { colons, fields, .. } => self.offset(value, colons, fields)?,
            Part::ZoneName => {
                if let Some(rest) = value.strip_prefix(b"UTC") {
                    self.utc = true;
                    rest
                } else {
                    let (name, rest) = value.split_at(zone_name_len(value)?);
                    self.zone_name = name.to_vec();
                    rest
                }
            }
            Part::Fraction { digits, trims: false, .. } => {
                let (fraction, rest) = value.split_at_checked(1 + digits)?;
                if !fraction[1..].iter().all(u8::is_ascii_digit) {
                    return None;
                }
                self.nanos = nanos(fraction)?;
                rest
            }
            Part::Fraction { .. } => match value {
                [b'.' | b',', digit, ..] if digit.is_ascii_digit() => self.fraction(value)?,
                _ => value,
            },
        };
        Some(rest)
    }

    fn fraction<'v>(&mut self, value: &'v [u8]) -> Option<&'v [u8]> {
        let len = 1 + value[1..].iter().take_while(|b| b.is_ascii_digit()).count();
        self.nanos = nanos(&value[..len])?;
        Some(&value[len..])
    }

    fn offset<'v>(&mut self, value: &'v [u8], colons: bool, fields: u8) -> Option<&'v [u8]> {
        let (sign, mut rest) = value.split_first()?;
        let negative = match sign {
            b'+' => false,
            b'-' => true,
            _ => return None,
        };
        let mut numbers = [0; 3];
        for (i, n) in numbers.iter_mut().enumerate().take(usize::from(fields)) {
            if i > 0 && colons {
                rest = rest.strip_prefix(b":")?;
            }
            (*n, rest) = number(rest, true)?;
        }
        let [hours, minutes, seconds] = numbers;
        if hours > 24 || minutes > 60 || seconds > 60 {
            return None;
        }
        let offset = (hours * 60 + minutes) * 60 + seconds;
        self.offset = Some(i32::try_from(if negative { -offset } else { offset }).ok()?);
        Some(rest)
    }

    fn finish(mut self, zone: Zone) -> Option<Time> {
        match self.pm {
            Some(true) if self.hour < 12 => self.hour += 12,
            Some(false) if self.hour == 12 => self.hour = 0,
            _ => {}
        }
        if let Some(mut left) = self.year_day {
            let mut month = 1;
            while month < 12 && left > days_in(month, self.year) {
                left -= days_in(month, self.year);
                month += 1;
            }
            if left < 1 || self.month.is_some_and(|m| m != month) || self.day.is_some_and(|d| d != left) {
                return None;
            }
            (self.month, self.day) = (Some(month), Some(left));
        }
        let (month, day) = (self.month.unwrap_or(1), self.day.unwrap_or(1));
        if day < 1 || day > days_in(month, self.year) {
            return None;
        }
        let second = self.hour * 3600 + self.minute * 60 + self.second;
        let date = |zone| Time::from_civil(self.year, month, day, second, self.nanos, zone);
        if self.utc {
            return Some(date(Zone::Utc));
        }
        if let Some(offset) = self.offset {
            let time = date(Zone::Utc).add_nanos(-i64::from(offset) * 1_000_000_000);
            let there = time.clone().in_zone(zone).civil();
            let named = self.zone_name.is_empty() || there.zone.as_bytes() == self.zone_name;
            if there.offset == offset && named {
                let zone = if offset == 0 { Zone::Utc } else { Zone::Fixed(offset, there.zone.into()) };
                return Some(time.in_zone(zone));
            }
            let name = String::from_utf8_lossy(&self.zone_name).into();
            return Some(time.in_zone(Zone::Fixed(offset, name)));
        }
        if !self.zone_name.is_empty() {
            let time = date(zone);
            if time.civil().zone.as_bytes() == self.zone_name {
                return Some(time);
            }
            // The name of a zone says nothing about its offset, but for `GMT+3`.
            let hours = self.zone_name.strip_prefix(b"GMT").and_then(|n| super::number::atoi(n).ok()).unwrap_or(0);
            let offset = i32::try_from(hours.clamp(-24, 24) * 3600).unwrap_or(0);
            let name: std::sync::Arc<str> = String::from_utf8_lossy(&self.zone_name).into();
            return Some(date(Zone::Utc).in_zone(Zone::Fixed(offset, name)));
        }
        Some(date(zone))
    }
}

/// How long the abbreviation of a time zone is that the value starts with.
fn zone_name_len(value: &[u8]) -> Option<usize> {
    let signed = |text: &[u8]| {
        let digits = text.iter().skip(1).take_while(|b| b.is_ascii_digit()).count();
        let hours = super::number::atoi(text.get(1..=digits).unwrap_or_default()).ok()?;
        (matches!(text.first(), Some(b'+' | b'-')) && hours <= 23).then_some(1 + digits)
    };
    if value.len() < 3 {
        return None;
    }
    if value.starts_with(b"ChST") || value.starts_with(b"MeST") {
        return Some(4);
    }
    if let Some(after) = value.strip_prefix(b"GMT") {
        return Some(3 + signed(after).unwrap_or(0));
    }
    if matches!(value[0], b'+' | b'-') {
        return signed(value);
    }
    match value.iter().take(6).take_while(|b| b.is_ascii_uppercase()).count() {
        5 if value[4] == b'T' => Some(5),
        4 if value[3] == b'T' || value.starts_with(b"WITA") => Some(4),
        3 => Some(3),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(layout: &str, nanos: i64) -> String {
        String::from_utf8(format(&Time::from_nanos(nanos), layout.as_bytes())).expect("ASCII")
    }

    #[test]
    fn formats_by_layout() {
        const T: i64 = 1_770_012_245_067_800_000; // Mon 2026-02-02 06:04:05.0678 UTC
        for (layout, expected) in [
            ("Mon Jan _2 15:04:05 2006", "Mon Feb  2 06:04:05 2026"),
            ("Monday, January 2, 2006", "Monday, February 2, 2026"),
            ("06-1-02 3:4:5 PM pm 03", "26-2-02 6:4:5 AM am 06"),
            ("2006-01-02T15:04:05Z07:00", "2026-02-02T06:04:05Z"),
            ("-0700 -07 -07:00 -070000 -07:00:00 MST", "+0000 +00 +00:00 +000000 +00:00:00 UTC"),
            ("05.000 05.999 05,00 .000000000", "05.067 05.067 05,06 .067800000"),
            ("002 __2", "033  33"),
            ("_2006 Janet Mont", "_2026 Janet Mont"),
            ("text", "text"),
        ] {
            assert_eq!(shown(layout, T), expected, "{layout}");
        }
        assert_eq!(shown("3 PM", 0), "12 AM");
        assert_eq!(shown(".999", 1_000_000_000), "");
    }

    #[test]
    fn parses_by_layout() {
        for (layout, value, expected) in [
            ("2006-01-02", "2026-11-01", "2026-11-01 00:00:00 +0000 UTC"),
            ("2006-01-02 15:04:05", "2026-11-01 01:02:03.25", "2026-11-01 01:02:03.25 +0000 UTC"),
            ("Jan _2, 2006 at 3:04pm", "feb  3, 2026 at 12:05am", "2026-02-03 00:05:00 +0000 UTC"),
            ("2006-01-02T15:04:05Z07:00", "2026-11-01T01:02:03+02:00", "2026-11-01 01:02:03 +0200 +0200"),
            ("2006-01-02T15:04:05Z07:00", "2026-11-01T01:02:03Z", "2026-11-01 01:02:03 +0000 UTC"),
            ("02 Jan 06 15:04 MST", "01 Nov 26 12:00 CEST", "2026-11-01 12:00:00 +0000 CEST"),
            ("2006 002", "2024 366", "2024-12-31 00:00:00 +0000 UTC"),
            ("15:04", "23:59", "0000-01-01 23:59:00 +0000 UTC"),
            ("05.000", "07.125", "0000-01-01 00:00:07.125 +0000 UTC"),
            ("05.999", "07", "0000-01-01 00:00:07 +0000 UTC"),
        ] {
            let time = parse(layout.as_bytes(), value.as_bytes(), Zone::Utc).unwrap_or_else(|| panic!("{value}"));
            assert_eq!(time.text(), expected, "{layout} {value}");
        }
        for (layout, value) in [
            ("2006-01-02", "2026-02-30"),
            ("2006-01-02", "2026-1-02"),
            ("2006-01-02", "2026-11-01x"),
            ("2006-01-02", ""),
            ("15:04", "24:00"),
            ("3:04PM", "13:00PM"),
            ("05.000", "07.12"),
            ("-0700", "+2500"),
            ("MST", "abc"),
            ("2006 002", "2023 366"),
        ] {
            assert!(parse(layout.as_bytes(), value.as_bytes(), Zone::Utc).is_none(), "{layout} {value}");
        }
    }

    proptest::proptest! {
        #[test]
        fn what_a_full_layout_shows_reads_back(nanos: i64) {
            let layout = b"2006-01-02 15:04:05.999999999 -0700 MST";
            let shown = format(&Time::from_nanos(nanos), layout);
            proptest::prop_assert_eq!(parse(layout, &shown, Zone::Utc).map(|t| t.unix_nanos()), Some(nanos));
        }

        #[test]
        fn any_layout_and_value_are_answered(layout: Vec<u8>, value: Vec<u8>, hint in "[0-9JMaonpPZ_.:, +-]{0,30}") {
            let _ = parse(&layout, &value, Zone::Utc);
            let _ = parse(hint.as_bytes(), &value, Zone::Utc);
            let _ = parse(hint.as_bytes(), hint.as_bytes(), Zone::Utc);
            let _ = (format(&Time::zero(), &layout), format(&Time::zero(), hint.as_bytes()));
        }
    }
}
