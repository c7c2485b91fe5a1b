//! What a tail has printed of late, so that it can go on after a broken connection without loss or repeats.
//!
//! Invariants:
//! * every entry that has been printed and is not older than [`Resume::start`] is remembered, so asking the server for
//!   everything since then and leaving out what is remembered prints each entry once;
//! * an entry is left out at most as often as it has been printed;
//! * at most [`MAX_REMEMBERED`] entries are remembered: more move the start forward, to no earlier than just after the last
//!   entry that was forgotten.
//! * what has been printed and the last token does not say is remembered besides, as many entries again: a server that is brought the token
//!   sends just that once more, whatever the times of the lines are.
//!
//! Servers may show the same line with fewer labels live than in history (Loki does: structured metadata), so two label sets
//! name the same entry if one holds the other.

use std::collections::BTreeMap;
use std::time::Duration;

use tailwater_model::{LabelSet, Timestamp};
use xxhash_rust::xxh3::xxh3_64;

use crate::client::answer::Entry;

/// How far behind the newest line an entry may come late and still survive a broken connection.
const OVERLAP: Duration = Duration::from_secs(5);
/// Most entries that are remembered.
const MAX_REMEMBERED: usize = 20_000;

/// The memory of one tail.
#[derive(Default)]
pub(crate) struct Resume {
    printed: BTreeMap<Timestamp, Vec<Printed>>,
    remembered: usize,
    /// Nothing at or before this is remembered completely.
    forgotten: Option<Timestamp>,
    newest: Option<Timestamp>,
    /// What a resumed connection may still repeat; empty before the first reconnect.
    repeats: BTreeMap<Timestamp, Vec<Printed>>,
    proof: Option<Proof>,
    /// There is a token.
    has_token: bool,
    /// What has come since the last token, repeats included; and how much more is not remembered.
    since_token: Vec<(Timestamp, Printed)>,
    not_remembered: u64,
}

#[derive(Clone)]
struct Printed {
    line_hash: u64,
    labels: LabelSet,
}

/// Whether the first line of a resumed connection shows that nothing is missing in between.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Proof {
    Awaited,
    Given,
}

/// What to do with an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It is new.
    Print,
    /// It is new, and it is the first of a resumed connection although something that was printed should have come first:
    /// what lies between may be missing.
    PrintAfterGap,
    /// It has been printed before the connection broke.
    Skip,
}

impl Resume {
    /// Where to ask the server to start again, if anything has been printed. Inclusive.
    pub(crate) fn start(&self) -> Option<Timestamp> {
        let overlap = self.newest?.saturating_sub(OVERLAP);
        Some(match self.forgotten {
            Some(forgotten) => overlap.max(Timestamp(forgotten.nanos().saturating_add(1))),
            None => overlap,
        })
    }

    /// The connection is new: what has been printed since [`Resume::start`] may come again.
    pub(crate) fn reconnected(&mut self) {
        let Some(start) = self.start() else { return };
        self.repeats = self.printed.range(start..).map(|(at, printed)| (*at, printed.clone())).collect();
        self.proof = (!self.repeats.is_empty()).then_some(Proof::Awaited);
        (self.has_token, self.since_token, self.not_remembered) = (false, Vec::new(), 0);
    }

    /// A token has come that says everything that this connection has brought so far.
    pub(crate) fn token(&mut self) {
        self.has_token = true;
        self.since_token.clear();
        self.not_remembered = 0;
    }

    /// How many entries have been printed, or left out, that the last token does not say, and how many of them would not be known again.
    pub(crate) fn behind(&self) -> (u64, u64) {
        (self.since_token.len() as u64 + self.not_remembered, self.not_remembered)
    }

    /// The connection is new, and has been brought the last token: what it does not say comes again.
    pub(crate) fn brought(&mut self) {
        self.proof = None;
        for (at, seen) in self.since_token.drain(..) {
            self.repeats.entry(at).or_default().push(seen);
        }
        self.not_remembered = 0;
    }

    /// Decides about an entry and remembers it.
    pub(crate) fn see(&mut self, entry: &Entry) -> Verdict {
        let seen = Printed { line_hash: xxh3_64(entry.line.as_bytes()), labels: entry.labels.clone() };
        if self.has_token && self.since_token.len() < MAX_REMEMBERED {
            self.since_token.push((entry.timestamp, seen.clone()));
        } else {
            self.not_remembered += u64::from(self.has_token);
        }
        if self.is_repeat(entry.timestamp, &seen) {
            self.proof = self.proof.map(|_| Proof::Given);
            return Verdict::Skip;
        }
        let gap = self.proof == Some(Proof::Awaited) && Some(entry.timestamp) > self.newest;
        if gap {
            self.proof = Some(Proof::Given);
        }
        self.remember(entry.timestamp, seen);
        if gap { Verdict::PrintAfterGap } else { Verdict::Print }
    }

    fn is_repeat(&mut self, at: Timestamp, seen: &Printed) -> bool {
        let Some(candidates) = self.repeats.get_mut(&at) else { return false };
        let Some(found) = candidates.iter().position(|p| p.is_same(seen)) else { return false };
        candidates.swap_remove(found);
        if candidates.is_empty() {
            self.repeats.remove(&at);
        }
        true
    }

    fn remember(&mut self, at: Timestamp, seen: Printed) {
        self.newest = self.newest.max(Some(at));
        if self.start().is_some_and(|start| at < start) {
            return;
        }
        self.printed.entry(at).or_default().push(seen);
        self.remembered += 1;
        // Forget what lies before the overlap, and the oldest if there is too much.
        while let Some(oldest) = self.printed.first_entry() {
            let too_old = self.newest.is_some_and(|newest| *oldest.key() < newest.saturating_sub(OVERLAP));
            if !too_old && self.remembered <= MAX_REMEMBERED {
                break;
            }
            let (at, gone) = oldest.remove_entry();
            self.remembered -= gone.len();
            if !too_old {
                self.forgotten = self.forgotten.max(Some(at));
            }
        }
    }
}

impl Printed {
    fn is_same(&self, other: &Self) -> bool {
        self.line_hash == other.line_hash
            && (self.labels == other.labels || holds(&self.labels, &other.labels) || holds(&other.labels, &self.labels))
    }
}

/// Whether `larger` has every pair of `smaller`.
fn holds(larger: &LabelSet, smaller: &LabelSet) -> bool {
    smaller.pairs().iter().all(|p| larger.get(&p.name) == Some(&*p.value))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tailwater_model::{Category, LabelPair};

    fn entry(at: i64, line: &str, labels: &[(&str, &str)]) -> Entry {
        let pair =
            |(n, v): &(&str, &str)| LabelPair { name: (*n).into(), value: (*v).into(), category: Category::Stream };
        Entry {
            timestamp: Timestamp(at),
            line: line.to_owned(),
            labels: LabelSet::from_pairs(labels.iter().map(pair).collect()),
        }
    }

    const SECOND: i64 = 1_000_000_000;

    #[test]
    fn after_a_reconnect_each_entry_is_printed_once() {
        let mut resume = Resume::default();
        assert_eq!(resume.start(), None);
        let (a, b, c) = (entry(10 * SECOND, "a", &[]), entry(10 * SECOND, "b", &[]), entry(11 * SECOND, "c", &[]));
        for e in [&a, &b, &b] {
            assert_eq!(resume.see(e), Verdict::Print, "equal lines of a live tail are all printed");
        }
        assert_eq!(resume.start(), Some(Timestamp(5 * SECOND)));
        resume.reconnected();
        let verdicts: Vec<_> = [&a, &b, &b, &b, &c].map(|e| resume.see(e)).into();
        assert_eq!(verdicts, [Verdict::Skip, Verdict::Skip, Verdict::Skip, Verdict::Print, Verdict::Print]);
    }

    #[test]
    fn a_second_reconnect_right_after_the_first_repeats_nothing_either() {
        let mut resume = Resume::default();
        resume.see(&entry(1, "a", &[]));
        resume.reconnected();
        resume.reconnected();
        assert_eq!(resume.see(&entry(1, "a", &[])), Verdict::Skip);
        resume.reconnected();
        assert_eq!(resume.see(&entry(1, "a", &[])), Verdict::Skip);
        assert_eq!(resume.see(&entry(2, "b", &[])), Verdict::Print);
    }

    #[test]
    fn late_lines_that_came_while_away_are_printed() {
        let mut resume = Resume::default();
        resume.see(&entry(10 * SECOND, "new", &[]));
        resume.reconnected();
        assert_eq!(resume.see(&entry(8 * SECOND, "late", &[])), Verdict::Print);
        assert_eq!(resume.see(&entry(10 * SECOND, "new", &[])), Verdict::Skip);
    }

    #[test]
    fn history_may_show_more_labels_than_the_live_tail_did() {
        let mut resume = Resume::default();
        resume.see(&entry(1, "x", &[("app", "a")]));
        resume.see(&entry(1, "x", &[("app", "b")]));
        resume.reconnected();
        assert_eq!(resume.see(&entry(1, "x", &[("app", "a"), ("detected_level", "info")])), Verdict::Skip);
        assert_eq!(resume.see(&entry(1, "x", &[("app", "c")])), Verdict::Print);
        assert_eq!(resume.see(&entry(1, "x", &[("app", "b")])), Verdict::Skip);
    }

    #[test]
    fn a_server_that_has_forgotten_leaves_a_gap_that_is_told_once() {
        let mut resume = Resume::default();
        resume.see(&entry(10 * SECOND, "a", &[]));
        resume.reconnected();
        assert_eq!(resume.see(&entry(12 * SECOND, "c", &[])), Verdict::PrintAfterGap);
        assert_eq!(resume.see(&entry(13 * SECOND, "d", &[])), Verdict::Print);
    }

    #[test]
    fn memory_is_bounded_and_what_is_forgotten_is_not_asked_for_again() {
        let mut resume = Resume::default();
        let total = MAX_REMEMBERED as i64 + 500;
        for i in 0..total {
            resume.see(&entry(SECOND + i, &i.to_string(), &[]));
        }
        assert_eq!(resume.remembered, MAX_REMEMBERED);
        let start = resume.start().unwrap();
        assert_eq!(start, Timestamp(SECOND + 500));
        resume.reconnected();
        for i in 500..total {
            assert_eq!(resume.see(&entry(SECOND + i, &i.to_string(), &[])), Verdict::Skip, "{i}");
        }
        assert_eq!(resume.see(&entry(SECOND + total, "new", &[])), Verdict::Print);
    }

    #[test]
    fn what_a_token_does_not_say_comes_again_and_is_printed_once() {
        let mut resume = Resume::default();
        let [old, a, b, c] =
            [(20, "same"), (9, "a"), (20, "same"), (30, "c")].map(|(at, l)| entry(at * SECOND, l, &[]));
        resume.see(&old);
        resume.token();
        assert_eq!(resume.behind(), (0, 0));
        // The first of them is far too late to be remembered otherwise.
        for e in [&a, &b, &b] {
            assert_eq!(resume.see(e), Verdict::Print);
        }
        assert_eq!(resume.behind(), (3, 0));
        resume.brought();
        assert_eq!(resume.see(&b), Verdict::Skip);
        // It breaks again before there is another token: the same comes again.
        resume.brought();
        assert_eq!([&b, &a].map(|e| resume.see(e)), [Verdict::Skip, Verdict::Skip]);
        resume.token();
        // That token does not say the second of the equal ones, which has been printed.
        resume.brought();
        let verdicts = [&c, &b, &b].map(|e| resume.see(e));
        assert_eq!(verdicts, [Verdict::Print, Verdict::Skip, Verdict::Print], "without word of a gap");
    }

    #[test]
    fn what_is_printed_without_a_token_is_remembered_up_to_a_bound() {
        let mut resume = Resume::default();
        resume.see(&entry(1, "x", &[]));
        assert_eq!(resume.behind(), (0, 0), "there is no token that could be brought");
        resume.token();
        for i in 0..MAX_REMEMBERED as i64 + 7 {
            resume.see(&entry(i, "x", &[]));
        }
        assert_eq!(resume.behind(), (MAX_REMEMBERED as u64 + 7, 7));
        resume.token();
        assert_eq!(resume.behind(), (0, 0));
    }

    #[test]
    fn one_timestamp_with_more_lines_than_fit_is_forgotten_as_a_whole() {
        let mut resume = Resume::default();
        for i in 0..=MAX_REMEMBERED {
            resume.see(&entry(7, &i.to_string(), &[]));
        }
        assert_eq!(resume.start(), Some(Timestamp(8)));
    }
}
