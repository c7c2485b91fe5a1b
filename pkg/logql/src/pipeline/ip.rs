//! `ip("…")`: an address, a network or a range, and how addresses are found in a text.
//!
//! Invariants: v4 and v6 never equal each other, not even mapped addresses; a text is walked once, from left to right, and what
//! looked like an address is passed over together with the byte after it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The addresses that a pattern stands for, ends included.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum IpRange {
    V4(u32, u32),
    V6(u128, u128),
    /// An address with a zone: nothing in a text can equal it.
    Nothing,
}

impl IpRange {
    /// Reads a single address, `address/bits` or `lowest-highest`.
    pub(crate) fn parse(pattern: &[u8]) -> Result<Self, String> {
        std::str::from_utf8(pattern)
            .ok()
            .and_then(Self::of)
            .ok_or_else(|| format!("ip: invalid pattern: {}", crate::go::quote::quote(pattern)))
    }

    fn of(pattern: &str) -> Option<Self> {
        if let Some((low, high)) = pattern.split_once('-') {
            return match (low.parse().ok()?, high.parse().ok()?) {
                (IpAddr::V4(low), IpAddr::V4(high)) if low <= high => Some(Self::V4(low.into(), high.into())),
                (IpAddr::V6(low), IpAddr::V6(high)) if low <= high => Some(Self::V6(low.into(), high.into())),
                _ => None,
            };
        }
        if let Some((address, bits)) = pattern.rsplit_once('/') {
            let plain = bits == "0" || !bits.starts_with('0');
            if !plain || bits.len() > 3 || !bits.bytes().all(|b| b.is_ascii_digit()) {
                return None;
            }
            let bits: u32 = bits.parse().ok()?;
            return match address.parse().ok()? {
                IpAddr::V4(address) if bits <= u32::BITS => {
                    let mask = u32::MAX.checked_shl(u32::BITS - bits).unwrap_or(0);
                    let low = u32::from(address) & mask;
                    Some(Self::V4(low, low | !mask))
                }
                IpAddr::V6(address) if bits <= u128::BITS => {
                    let mask = u128::MAX.checked_shl(u128::BITS - bits).unwrap_or(0);
                    let low = u128::from(address) & mask;
                    Some(Self::V6(low, low | !mask))
                }
                _ => None,
            };
        }
        if let Some((address, zone)) = pattern.split_once('%') {
            let valid = !zone.is_empty() && address.parse::<Ipv6Addr>().is_ok();
            return valid.then_some(Self::Nothing);
        }
        match pattern.parse().ok()? {
            IpAddr::V4(address) => Some(Self::V4(address.into(), address.into())),
            IpAddr::V6(address) => Some(Self::V6(address.into(), address.into())),
        }
    }

    /// Whether the range has the address that `text` spells.
    fn contains(&self, text: &[u8]) -> bool {
        let Ok(text) = std::str::from_utf8(text) else { return false };
        match self {
            Self::V4(low, high) => text.parse::<Ipv4Addr>().is_ok_and(|a| (*low..=*high).contains(&a.into())),
            Self::V6(low, high) => text.parse::<Ipv6Addr>().is_ok_and(|a| (*low..=*high).contains(&a.into())),
            Self::Nothing => false,
        }
    }

    /// Whether an address of the range stands somewhere in a text.
    pub(crate) fn is_in(&self, text: &[u8]) -> bool {
        let mut at = 0;
        while at < text.len() {
            let rest = &text[at..];
            let len = if v4_begins(rest) {
                run(rest, |b| b.is_ascii_digit() || b == b'.')
            } else if v6_begins(rest) {
                run(rest, |b| b.is_ascii_hexdigit() || matches!(b, b':' | b'.'))
            } else {
                at += 1;
                continue;
            };
            if self.contains(&rest[..len]) {
                return true;
            }
            at += len + 1;
        }
        false
    }
}

fn run(text: &[u8], belongs: impl Fn(u8) -> bool) -> usize {
    text.iter().position(|b| !belongs(*b)).unwrap_or(text.len())
}

/// A digit, and a dot among the three bytes after it.
fn v4_begins(text: &[u8]) -> bool {
    text.len() >= 4 && text[0].is_ascii_digit() && text[1..4].contains(&b'.')
}

/// `::` and a hexadecimal digit, or one to four of them and a colon.
fn v6_begins(text: &[u8]) -> bool {
    let at = |i: usize| text.get(i).copied().unwrap_or(0);
    if at(0) == b':' {
        return at(1) == b':' && at(2).is_ascii_hexdigit();
    }
    let digits = text.iter().take(5).take_while(|b| b.is_ascii_hexdigit()).count();
    (1..=4).contains(&digits) && at(digits) == b':'
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(pattern: &str) -> IpRange {
        IpRange::parse(pattern.as_bytes()).expect(pattern)
    }

    #[test]
    fn what_is_no_pattern_is_refused_with_its_text() {
        for bad in [
            "",
            "1.1",
            "01.1.1.1",
            "1.1.1.1 - 2.2.2.2",
            "2.2.2.2-1.1.1.1",
            "1.1.1.1-::1",
            "10.0.0.0/33",
            "10.0.0.0/08",
            "::/129",
            "a",
            "1.1.1.1/",
            "::1%",
        ] {
            assert_eq!(IpRange::parse(bad.as_bytes()), Err(format!("ip: invalid pattern: \"{bad}\"")));
        }
    }

    #[test]
    fn addresses_are_found_in_text() {
        assert!(ip("10.0.0.0/8").is_in(b"from=10.1.2.3:80 ok"));
        assert!(!ip("10.0.0.0/8").is_in(b"from=11.1.2.3 to 9.9.9.9"));
        assert!(ip("10.0.0.2-10.0.0.4").is_in(b"10.0.0.3"));
        assert!(!ip("10.0.0.2-10.0.0.4").is_in(b"10.0.0.5"));
        assert!(ip("::1").is_in(b"[::1]"));
        assert!(ip("2001:db8::/32").is_in(b"x 2001:DB8:1::2, y"));
        assert!(ip("0.0.0.0/0").is_in(b"0.0.0.0") && ip("::/0").is_in(b"a::b"));
        assert!(!ip("::ffff:1.2.3.4").is_in(b"1.2.3.4"));
        assert!(!ip("1.2.3.4").is_in(b"") && !ip("fe80::1%eth0").is_in(b"fe80::1%eth0"));
    }

    #[test]
    fn longer_runs_of_digits_and_dots_are_no_address() {
        assert!(!ip("1.2.3.4").is_in(b"1.2.3.4.5") && !ip("1.2.3.4").is_in(b"1.2.3.4."));
        assert!(ip("1.2.3.4").is_in(b"1.2.3.4,1.2.3"));
        // The byte after a run is passed over, so an address directly behind it is missed by its first digit only.
        assert!(ip("5.6.7.8").is_in(b"1.2.3,5.6.7.8"));
    }
}
