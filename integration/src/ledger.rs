//! Who was promised what: every line that was pushed, whether it was acknowledged, and a judgement of what came back. Knows nothing
//! of the server.
//!
//! A line is (tenant, part, number); a part is a stream `{app="load", part="…"}` of one pusher, its lines are numbered from 0 and
//! their timestamps never fall. The text of a line follows from its name and the seed, so what comes back is compared byte for byte
//! although no text is kept. What must hold:
//! * every acknowledged line comes back once, under its labels, with its timestamp and its structured metadata;
//! * a line that was sent but not acknowledged (the server died, or refused it) comes back at most once;
//! * nothing else comes back;
//! * lines under the same labels come in the order of their numbers, or in the reverse if asked so, also where timestamps are equal.
//!
//! In a cluster a push may go to any node and be sent again elsewhere. Then a line comes back at most as often as it may have been
//! stored (in the answer to a query at most once all the same), and numbers are ordered among the lines of one [`Route`]. Answers
//! to queries are ordered by timestamp across routes.

use std::collections::BTreeMap;
use std::ops::Range;

use crate::checker::Verdict;
use crate::client::Line;
use crate::lines::Numbers;
use crate::push::{Batch, Entry};
use crate::tail::Delivered;

/// Most lines of a part that bear one timestamp; pages of a query must be larger than all parts together may need.
const EQUAL_MAX: usize = 20;

/// One line in so many has structured metadata.
const METADATA_EVERY: usize = 16;

/// What keeps the order of the lines of a part: pushes that one node has stored, one after the other.
pub type Route = u32;

/// The route of pushes to the only server.
const ONLY: Route = 0;

/// No order is known: each push is a route of its own, and if it was sent again it has no order at all.
const UNKNOWN: Route = Route::MAX;

/// Routes from here on are single pushes.
const SINGLE: Route = 1 << 16;

#[derive(Clone, Copy, Debug)]
struct Sent {
    timestamp: i64,
    acknowledged: bool,
    /// How often it may have been stored.
    times: u16,
    route: Route,
}

/// Everything that was pushed.
#[derive(Clone, Debug)]
pub struct Ledger {
    seed: u64,
    parts: BTreeMap<(String, String), Vec<Sent>>,
    singles: Route,
}

/// The lines of one push.
#[derive(Clone, Debug)]
pub struct Receipt(Vec<((String, String), Range<usize>)>);

/// A line as something delivered it.
pub trait Seen {
    /// Labels, timestamp, text.
    fn seen(&self) -> (&str, i64, &str);
}

impl Seen for Line {
    fn seen(&self) -> (&str, i64, &str) {
        (&self.labels, self.timestamp, &self.line)
    }
}

impl Seen for Delivered {
    fn seen(&self) -> (&str, i64, &str) {
        (&self.labels, self.timestamp, &self.line)
    }
}

/// What of a delivery is judged.
#[derive(Clone, Debug)]
pub struct Scope<'a> {
    /// The timestamps that the reader asked for.
    pub time: Range<i64>,
    /// The parts that the reader selects: those whose name begins so.
    pub part: &'a str,
    /// Newest first.
    pub backward: bool,
    /// It is the answer to a query: lines that were stored twice are in it once, and timestamps do not fall (or rise, if backward).
    pub answer: bool,
}

impl Scope<'_> {
    /// Everything, oldest first.
    pub const ALL: Self = Self { time: i64::MIN..i64::MAX, part: "", backward: false, answer: false };

    /// Everything, as a query of it is answered.
    pub const ANSWER: Self = Self { answer: true, ..Self::ALL };
}

impl Ledger {
    /// Nothing pushed yet.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self { seed, parts: BTreeMap::new(), singles: SINGLE }
    }

    /// A push of `count` new lines to each of these parts, at `at` or as soon after as the order of a part allows; recorded as sent.
    pub fn push(
        &mut self,
        tenant: &str,
        parts: &[(&str, i64)],
        count: usize,
        numbers: &mut Numbers,
    ) -> (Batch, Receipt) {
        let mut batch = Batch::new();
        let mut receipt = Vec::new();
        for &(part, at) in parts {
            let name = (tenant.to_owned(), part.to_owned());
            let lines = self.parts.entry(name.clone()).or_default();
            let first = lines.len();
            let mut last = lines.last().map_or(i64::MIN, |line| line.timestamp);
            let labels = labels(part);
            for number in first..first + count {
                // Sometimes as the line before, but not in a run that is longer than allowed.
                let run = number % EQUAL_MAX != 0 && numbers.below(4) == 0;
                last = if run && last != i64::MIN { last } else { at.max(last.saturating_add(1)) };
                lines.push(Sent { timestamp: last, acknowledged: false, times: 1, route: ONLY });
                let metadata = if number % METADATA_EVERY == 0 {
                    vec![("number".to_owned(), number.to_string())]
                } else {
                    Vec::new()
                };
                let line = text(self.seed, tenant, part, number).into_bytes();
                batch = batch.entry(&labels, Entry { timestamp: last, line, metadata });
            }
            receipt.push((name, first..first + count));
        }
        (batch, Receipt(receipt))
    }

    /// Records that a push was acknowledged.
    ///
    /// # Panics
    /// If it is not a push of this ledger.
    pub fn acknowledge(&mut self, receipt: &Receipt) {
        self.each(receipt, |line| line.acknowledged = true);
    }

    /// Records that a push is sent once more: whatever came of it before, this may store it again.
    ///
    /// # Panics
    /// If it is not a push of this ledger.
    pub fn again(&mut self, receipt: &Receipt) {
        self.each(receipt, |line| (line.times, line.route) = (line.times + 1, UNKNOWN));
    }

    /// Records that a push was never sent at all.
    ///
    /// # Panics
    /// If it is not a push of this ledger.
    pub fn never_sent(&mut self, receipt: &Receipt) {
        self.each(receipt, |line| line.times = 0);
    }

    /// Records which node a push goes to, a number from 1 on. None: nobody knows.
    ///
    /// # Panics
    /// If it is not a push of this ledger, or if the number is too large.
    pub fn goes_by(&mut self, receipt: &Receipt, node: Option<Route>) {
        assert!(node.is_none_or(|node| (1..SINGLE).contains(&node)), "no number of a node: {node:?}");
        self.singles += u32::from(node.is_none());
        let route = node.unwrap_or(self.singles);
        self.each(receipt, |line| line.route = route);
    }

    fn each(&mut self, receipt: &Receipt, mut change: impl FnMut(&mut Sent)) {
        for (name, lines) in &receipt.0 {
            let part = self.parts.get_mut(name).expect("a receipt of this ledger");
            part[lines.clone()].iter_mut().for_each(&mut change);
        }
    }

    /// This ledger, with only that acknowledged which was when `earlier`, a copy of it, was made: what came since may be seen or not.
    ///
    /// # Panics
    /// If `earlier` is not of this ledger.
    #[must_use]
    pub fn as_of(&self, earlier: &Self) -> Self {
        self.beside(earlier, |_, then| then.is_some_and(|line| line.acknowledged))
    }

    /// This ledger, with only that acknowledged which had not been sent when `earlier`, a copy of it, was made: what a tail must deliver
    /// that began then.
    ///
    /// # Panics
    /// If `earlier` is not of this ledger.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        self.beside(earlier, |now, then| now.acknowledged && then.is_none())
    }

    fn beside(&self, earlier: &Self, acknowledged: impl Fn(&Sent, Option<&Sent>) -> bool) -> Self {
        let mut ledger = self.clone();
        for (name, lines) in &mut ledger.parts {
            let known = earlier.parts.get(name).map(Vec::as_slice).unwrap_or_default();
            for (number, line) in lines.iter_mut().enumerate() {
                line.acknowledged = acknowledged(line, known.get(number));
            }
        }
        ledger
    }

    /// The tenants that pushed.
    #[must_use]
    pub fn tenants(&self) -> Vec<&str> {
        let mut tenants: Vec<_> = self.parts.keys().map(|(tenant, _)| tenant.as_str()).collect();
        tenants.dedup();
        tenants
    }

    /// How many lines were sent, and how many of them were acknowledged.
    #[must_use]
    pub fn counts(&self) -> (usize, usize) {
        let lines = self.parts.values().flatten();
        (lines.clone().count(), lines.filter(|line| line.acknowledged).count())
    }

    /// The timestamps of a tenant's acknowledged lines, by part.
    pub fn acknowledged(&self, tenant: &str) -> impl Iterator<Item = (&str, i64)> {
        let parts = self.parts.iter().filter(move |((of, _), _)| of == tenant);
        parts.flat_map(|((_, part), lines)| {
            lines.iter().filter(|line| line.acknowledged).map(|line| (part.as_str(), line.timestamp))
        })
    }

    /// Judges what a reader of `tenant` got.
    ///
    /// # Panics
    /// Never on what a server sends.
    pub fn judge<S: Seen>(&self, tenant: &str, delivered: &[S], scope: &Scope<'_>) -> Verdict {
        let mut verdict = Verdict::default();
        let mut counts: BTreeMap<&str, Vec<u16>> = BTreeMap::new();
        let mut newest: BTreeMap<(&str, Route), usize> = BTreeMap::new();
        let mut latest: BTreeMap<&str, i64> = BTreeMap::new();
        let wanted = |part: &str, line: &Sent| part.starts_with(scope.part) && scope.time.contains(&line.timestamp);
        for ((of, part), lines) in &self.parts {
            if of == tenant {
                counts.insert(part, vec![0; lines.len()]);
            }
        }
        for line in delivered {
            let (labels, timestamp, text) = line.seen();
            let told = || format!("{labels} {timestamp} {}", text.chars().take(100).collect::<String>());
            let known = self.known(tenant, labels, timestamp, text);
            let Some((part, number)) = known.filter(|(part, _)| part.starts_with(scope.part)) else {
                verdict.phantom.push(told());
                continue;
            };
            if !scope.time.contains(&timestamp) {
                verdict.phantom.push(format!("outside of the time asked for: {}", told()));
                continue;
            }
            let sent = self.parts[&(tenant.to_owned(), part.to_owned())][number];
            let seen = &mut counts.get_mut(part).expect("a known line has a known part")[number];
            *seen += 1;
            if *seen > if scope.answer { sent.times.min(1) } else { sent.times } {
                verdict.duplicated.push(told());
                continue;
            }
            verdict.delivered += 1;
            if sent.route != UNKNOWN
                && let Some(before) = newest.insert((labels, sent.route), number)
                && (before < number) == scope.backward
            {
                verdict.disordered.push(format!("{} after number {before}", told()));
            }
            if scope.answer
                && let Some(before) = latest.insert(labels, timestamp)
                && before != timestamp
                && (before < timestamp) == scope.backward
            {
                verdict.disordered.push(format!("{} after timestamp {before}", told()));
            }
        }
        for (part, seen) in counts {
            let lines = &self.parts[&(tenant.to_owned(), part.to_owned())];
            for (number, line) in lines.iter().enumerate() {
                if line.acknowledged && wanted(part, line) && seen[number] == 0 {
                    let Sent { timestamp, route, .. } = line;
                    verdict.lost.push(format!("part={part} number={number} timestamp={timestamp} route={route}"));
                }
            }
        }
        verdict
    }

    /// Fails unless `delivered` is what a reader of `tenant` should get; `when` is part of the message.
    ///
    /// # Panics
    /// Then, with the verdict.
    pub fn assert_exact<S: Seen>(&self, when: &str, tenant: &str, delivered: &[S], scope: &Scope<'_>) {
        let verdict = self.judge(tenant, delivered, scope);
        assert!(verdict.is_clean(), "{when}, tenant {tenant}, {scope:?}: {verdict}");
    }

    /// The part and the number of a line, if it was pushed just so.
    fn known(&self, tenant: &str, labels: &str, timestamp: i64, text: &str) -> Option<(&str, usize)> {
        let (part, rest) = text.strip_prefix("part=")?.split_once(" n=")?;
        let number: usize = rest.split(' ').next()?.parse().ok()?;
        let ((_, part), lines) = self.parts.get_key_value(&(tenant.to_owned(), part.to_owned()))?;
        let bears = |name: &str, value: &str| labels.contains(&format!("{name}={value:?}"));
        let metadata = !number.is_multiple_of(METADATA_EVERY) || bears("number", &number.to_string());
        let same = lines.get(number)?.timestamp == timestamp && text == self::text(self.seed, tenant, part, number);
        (same && metadata && bears("app", "load") && bears("part", part)).then_some((part, number))
    }
}

/// The labels of a part.
#[must_use]
pub fn labels(part: &str) -> String {
    format!("{{app=\"load\", part={part:?}}}")
}

/// The text of a line: mostly short, a few of many kilobytes.
fn text(seed: u64, tenant: &str, part: &str, number: usize) -> String {
    const WORDS: [&str; 16] = [
        "level=info",
        "level=error",
        "GET",
        "POST",
        "/api/v1/items",
        "status=200",
        "status=503",
        "took=12ms",
        "\"quoted\"",
        "back\\slash",
        "ümläut",
        "日本語",
        "user=alice",
        "{\"a\":1}",
        "retry",
        "\t",
    ];
    let mut state = seed ^ number as u64;
    for byte in tenant.bytes().chain(part.bytes()) {
        state = Numbers::new(state ^ u64::from(byte)).next();
    }
    let mut numbers = Numbers::new(state);
    let words = match numbers.below(64) {
        0 => 500,
        1 => 0,
        _ => 4 + numbers.below(30),
    };
    let mut line = format!("part={part} n={number} of={tenant}");
    for _ in 0..words {
        line.push(' ');
        line.push_str(WORDS[numbers.below(WORDS.len() as u64) as usize]);
        if numbers.below(4) == 0 {
            line.push_str(&format!("{:x}", numbers.next()));
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Forty acknowledged lines of two parts and ten that were only sent, as a perfect server would give them.
    fn pushed() -> (Ledger, Vec<Line>) {
        let mut ledger = Ledger::new(7);
        let mut numbers = Numbers::new(7);
        let mut all = Vec::new();
        for (count, acknowledged) in [(20, true), (5, false)] {
            let (batch, receipt) = ledger.push("t", &[("a", 1_000), ("b", 1_000)], count, &mut numbers);
            if acknowledged {
                ledger.acknowledge(&receipt);
            }
            for (labels, entries) in batch.streams {
                for entry in entries {
                    let metadata: Vec<_> = entry.metadata.iter().map(|(n, v)| format!(", {n}={v:?}")).collect();
                    let labels = format!("{}{}}}", labels.trim_end_matches('}'), metadata.concat());
                    let line = String::from_utf8(entry.line).unwrap();
                    all.push(Line { labels, timestamp: entry.timestamp, line });
                }
            }
        }
        (ledger, all)
    }

    #[test]
    fn what_was_pushed_is_clean_with_and_without_what_was_not_acknowledged() {
        let (ledger, all) = pushed();
        assert_eq!((ledger.counts(), ledger.tenants()), ((50, 40), vec!["t"]));
        ledger.assert_exact("all", "t", &all, &Scope::ALL);
        ledger.assert_exact("acknowledged", "t", &all[..40], &Scope::ALL);
        let reverse: Vec<_> = all.iter().rev().cloned().collect();
        ledger.assert_exact("reverse", "t", &reverse, &Scope { backward: true, ..Scope::ALL });
        assert!(!ledger.judge("t", &reverse, &Scope::ALL).disordered.is_empty());
    }

    #[test]
    fn each_defect_is_named() {
        let (ledger, all) = pushed();
        let mut bad = all.clone();
        bad[3].timestamp += 1;
        bad[4].line.push('x');
        bad[16].labels = bad[15].labels.clone();
        bad.remove(7);
        bad.push(all[9].clone());
        let verdict = ledger.judge("t", &bad, &Scope::ALL);
        let counts = [&verdict.lost, &verdict.duplicated, &verdict.phantom].map(Vec::len);
        assert_eq!(counts, [4, 1, 3], "{verdict}");
        let verdict = ledger.judge("other", &all, &Scope::ALL);
        assert_eq!((verdict.phantom.len(), verdict.lost.len()), (50, 0), "lines of another tenant");
        bad = all;
        bad.swap(17, 18);
        assert_eq!(ledger.judge("t", &bad, &Scope::ALL).disordered.len(), 1);
    }

    #[test]
    fn what_came_since_may_be_seen_or_not() {
        let (mut ledger, all) = pushed();
        let earlier = ledger.clone();
        let (_, receipt) = ledger.push("t", &[("a", 1), ("c", 1)], 3, &mut Numbers::new(1));
        ledger.acknowledge(&receipt);
        assert_eq!(ledger.judge("t", &all, &Scope::ALL).lost.len(), 6);
        let as_of = ledger.as_of(&earlier);
        as_of.assert_exact("as of then", "t", &all, &Scope::ALL);
        assert_eq!(as_of.counts(), (56, 40));
    }

    #[test]
    fn what_was_sent_again_may_come_again_but_not_in_an_answer() {
        let (mut ledger, mut all) = pushed();
        let mut numbers = Numbers::new(9);
        let (batch, receipt) = ledger.push("t", &[("c", 2_000)], 3, &mut numbers);
        let entries = batch.streams[0].1.iter();
        let lines: Vec<_> = entries
            .map(|entry| {
                let labels = r#"{app="load", number="0", part="c"}"#.to_owned();
                Line { labels, timestamp: entry.timestamp, line: String::from_utf8(entry.line.clone()).unwrap() }
            })
            .collect();
        ledger.goes_by(&receipt, Some(1));
        all.extend(lines.clone());
        ledger.assert_exact("once", "t", &all, &Scope::ANSWER);
        all.extend(lines.clone());
        assert_eq!(ledger.judge("t", &all, &Scope::ALL).duplicated.len(), 3);
        ledger.again(&receipt);
        ledger.assert_exact("twice in a tail", "t", &all, &Scope::ALL);
        assert_eq!(ledger.judge("t", &all, &Scope::ANSWER).duplicated.len(), 3);
        all.extend(lines);
        assert_eq!(ledger.judge("t", &all, &Scope::ALL).duplicated.len(), 3, "thrice");
        let (_, receipt) = ledger.push("t", &[("d", 1)], 3, &mut numbers);
        ledger.never_sent(&receipt);
        assert_eq!(ledger.judge("t", &all[..40], &Scope::ALL).lost.len(), 0);
    }

    #[test]
    fn order_is_that_of_a_route_and_of_timestamps_in_answers() {
        let (mut ledger, _) = pushed();
        let mut numbers = Numbers::new(9);
        let mut lines = Vec::new();
        for (at, node) in [(1, Some(1)), (2, Some(2)), (3, Some(1)), (4, None), (5, None)] {
            let (batch, receipt) = ledger.push("t", &[("e", at * 1_000)], 1, &mut numbers);
            ledger.goes_by(&receipt, node);
            let entry = &batch.streams[0].1[0];
            let line = String::from_utf8(entry.line.clone()).unwrap();
            let labels = r#"{app="load", number="0", part="e"}"#.to_owned();
            lines.push(Line { labels, timestamp: entry.timestamp, line });
        }
        let disordered = |order: &[usize], scope: &Scope<'_>| {
            let lines: Vec<_> = order.iter().map(|&i| lines[i].clone()).collect();
            ledger.judge("t", &lines, scope).disordered.len()
        };
        assert_eq!(disordered(&[4, 1, 0, 3, 2], &Scope::ALL), 0, "each route is in order");
        assert_eq!(disordered(&[2, 1, 0, 3, 4], &Scope::ALL), 1, "a node's lines are not");
        assert_eq!(disordered(&[0, 1, 2, 3, 4], &Scope::ANSWER), 0);
        // Runs of equal timestamps are possible, so not every exchange is a fall.
        assert!(lines[4].timestamp == lines[0].timestamp || disordered(&[4, 0], &Scope::ANSWER) == 1);
    }

    #[test]
    fn a_late_tail_owes_what_was_sent_since() {
        let (mut ledger, all) = pushed();
        let earlier = ledger.clone();
        let (_, receipt) = ledger.push("t", &[("a", 1)], 3, &mut Numbers::new(1));
        ledger.acknowledge(&receipt);
        let since = ledger.since(&earlier);
        assert_eq!(since.counts(), (53, 3));
        assert_eq!(since.judge("t", &all, &Scope::ALL).lost.len(), 3);
    }

    #[test]
    fn a_scope_says_what_must_come() {
        let (ledger, all) = pushed();
        let of_b: Vec<_> = all.iter().filter(|line| line.labels.contains("part=\"b\"")).cloned().collect();
        ledger.assert_exact("one part", "t", &of_b, &Scope { part: "b", ..Scope::ALL });
        assert!(!ledger.judge("t", &all, &Scope { part: "b", ..Scope::ALL }).phantom.is_empty());
        let time = all[5].timestamp..all[15].timestamp;
        let some: Vec<_> = all.iter().filter(|line| time.contains(&line.timestamp)).cloned().collect();
        let scope = Scope { time, ..Scope::ALL };
        ledger.assert_exact("a time", "t", &some, &scope);
        assert!(!ledger.judge("t", &all, &scope).phantom.is_empty());
    }
}
