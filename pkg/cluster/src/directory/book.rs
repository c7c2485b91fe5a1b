//! Which nodes can answer for which log, and when a log has ended for good. Sans-I/O.
//!
//! Invariants:
//! * A log is known from when a node that is not joining says that it has it.
//! * A node counts as one that can answer for it until it says otherwise while it is up, has left in an orderly way, or was silent for
//!   [`GONE_AFTER`]; also when gossip has long forgotten it. The log is known for as long as there is one.
//! * A node owns the log that it names first, and no other: one that names a new log has given up its old one, also while it is joining.

use std::collections::BTreeMap;
use std::time::Duration;

use tailwater_model::LogId;
use tokio::time::Instant;

use crate::member::{Member, Members, State};

/// A node that was silent for so long does not come back.
pub(super) const GONE_AFTER: Duration = Duration::from_secs(3600);

/// A node that is leaving and silent for so long has left.
pub(super) const LEFT_AFTER: Duration = Duration::from_secs(2);

/// How long a log is known that nodes which are up have said they have no more: they may be just about to find it again.
pub(super) const DISOWNED_FOR: Duration = Duration::from_secs(10);

/// Most logs that are known.
const MAX_LOGS: usize = 10_000;

/// A node that can answer for a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) member: Member,
    /// It is its own log.
    pub(super) owner: bool,
    silent_since: Option<Instant>,
}

impl Seen {
    /// Whether it is worth asking first.
    pub(super) fn is_usable(&self) -> bool {
        self.member.alive && self.member.state != State::Joining
    }

    fn has_gone(&self, now: Instant) -> bool {
        let after = if self.member.state == State::Leaving { LEFT_AFTER } else { GONE_AFTER };
        self.silent_since.is_some_and(|since| now.duration_since(since) >= after)
    }
}

#[derive(Default)]
struct Log {
    seen: BTreeMap<String, Seen>,
    /// When the last one that had it said that it has it no more.
    disowned: Option<Instant>,
}

/// See the module.
#[derive(Default)]
pub(super) struct Book(BTreeMap<LogId, Log>);

impl Book {
    /// Takes in who is there now. `own` are the logs of the node `me`.
    pub(super) fn update(&mut self, now: Instant, members: &Members, me: &str, own: &[LogId]) {
        for member in &members.members {
            let logs = if member.name == me { own } else { &member.logs };
            let own_log = logs.first().filter(|_| member.role.ingests());
            for log in logs {
                let known = self.0.get(log);
                if known.is_none() && (member.state == State::Joining || self.0.len() >= MAX_LOGS) {
                    continue;
                }
                // Gossip remembers who has left for a while.
                let has_left = !member.alive && member.state == State::Leaving;
                if has_left && known.is_none_or(|known| !known.seen.contains_key(&member.name)) {
                    continue;
                }
                let of_log = self.0.entry(*log).or_default();
                of_log.disowned = None;
                let owner = own_log == Some(log);
                let new = || Seen { member: member.clone(), owner, silent_since: None };
                of_log.seen.entry(member.name.clone()).or_insert_with(new).owner = owner;
            }
            let speaks = member.alive && member.state != State::Joining;
            for (log, of_log) in &mut self.0 {
                if speaks && !logs.contains(log) && of_log.seen.remove(&member.name).is_some() {
                    of_log.disowned = Some(now);
                }
                if own_log.is_some_and(|own| own != log)
                    && let Some(seen) = of_log.seen.get_mut(&member.name)
                {
                    seen.owner = false;
                }
            }
        }
        self.0.retain(|_, log| {
            for (name, seen) in &mut log.seen {
                match members.get(name) {
                    Some(member) => seen.member = member.clone(),
                    None => seen.member.alive = false,
                }
                seen.silent_since = if seen.member.alive { None } else { seen.silent_since.or(Some(now)) };
            }
            log.seen.retain(|_, seen| !seen.has_gone(now));
            !log.seen.is_empty() || log.disowned.is_some_and(|since| now.duration_since(since) < DISOWNED_FOR)
        });
    }

    /// Every log that is known, with those who can answer for it: its owner first, then those that are worth asking.
    pub(super) fn logs(&self) -> impl Iterator<Item = (LogId, Vec<&Seen>)> {
        self.0.iter().map(|(log, of_log)| {
            let mut seen: Vec<_> = of_log.seen.values().collect();
            seen.sort_by_key(|seen| (!seen.owner, !seen.is_usable()));
            (*log, seen)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::member::Role;
    use crate::testing::{member, members};

    fn with(member: &Member, change: impl FnOnce(&mut Member)) -> Member {
        let mut member = member.clone();
        change(&mut member);
        member
    }

    fn names(book: &Book, log: u128) -> Option<Vec<String>> {
        let mut logs = book.logs();
        let (_, seen) = logs.find(|(id, _)| *id == LogId::from_u128(log))?;
        Some(seen.iter().map(|seen| seen.member.name.clone()).collect())
    }

    #[tokio::test(start_paused = true)]
    async fn owners_come_first_and_logs_end_when_everybody_has_left() {
        let mut book = Book::default();
        let start = Instant::now();
        let a = member("a", Role::All, None, &[2, 1]);
        let b = member("b", Role::All, None, &[1]);
        let joining = with(&b, |m| m.state = State::Joining);
        book.update(start, &members(&[joining]), "me", &[]);
        assert_eq!(names(&book, 1), None);
        book.update(start, &members(&[a.clone(), b.clone()]), "me", &[]);
        assert_eq!(names(&book, 1), Some(vec!["b".to_owned(), "a".to_owned()]));
        // The owner leaves: the copy remains.
        let leaving = with(&b, |m| m.state = State::Leaving);
        let left = with(&leaving, |m| m.alive = false);
        book.update(start, &members(&[a.clone(), leaving]), "me", &[]);
        book.update(start, &members(&[a.clone(), left.clone()]), "me", &[]);
        assert_eq!(names(&book, 1).unwrap().len(), 2);
        book.update(start + LEFT_AFTER, &members(&[a.clone(), left.clone()]), "me", &[]);
        assert_eq!(names(&book, 1), Some(vec!["a".to_owned()]));
        // The copy is no longer needed.
        let without = with(&a, |m| m.logs.truncate(1));
        book.update(start + LEFT_AFTER, &members(&[without.clone(), left.clone()]), "me", &[]);
        assert_eq!(names(&book, 1), Some(Vec::new()));
        book.update(start + LEFT_AFTER + DISOWNED_FOR, &members(&[without, left]), "me", &[]);
        assert_eq!(names(&book, 1), None);
        assert_eq!(names(&book, 2), Some(vec!["a".to_owned()]));
        // It starts again.
        book.update(start + LEFT_AFTER + DISOWNED_FOR, &members(&[a, b]), "me", &[]);
        assert_eq!(names(&book, 1), Some(vec!["b".to_owned(), "a".to_owned()]));
    }

    #[tokio::test(start_paused = true)]
    async fn an_owner_that_names_a_new_log_is_the_old_ones_no_more() {
        let mut book = Book::default();
        let start = Instant::now();
        let a = member("a", Role::All, None, &[1]);
        let b = member("b", Role::All, None, &[2, 1]);
        let owner = |book: &Book, log: u128| {
            let mut logs = book.logs();
            let (_, seen) = logs.find(|(id, _)| *id == LogId::from_u128(log))?;
            seen.iter().find(|seen| seen.owner).map(|seen| seen.member.name.clone())
        };
        book.update(start, &members(&[a.clone(), b.clone()]), "me", &[]);
        assert_eq!(owner(&book, 1), Some("a".to_owned()));
        // It has lost power, and does not know of its copy yet.
        let joining = with(&a, |m| (m.state, m.generation, m.logs) = (State::Joining, 2, vec![LogId::from_u128(3)]));
        book.update(start, &members(&[joining.clone(), b.clone()]), "me", &[]);
        assert_eq!(owner(&book, 1), None);
        assert_eq!(names(&book, 1), Some(vec!["b".to_owned(), "a".to_owned()]), "it may still have it");
        assert_eq!(names(&book, 3), None);
        let active =
            with(&joining, |m| (m.state, m.logs) = (State::Active, vec![LogId::from_u128(3), LogId::from_u128(1)]));
        book.update(start, &members(&[active.clone(), b.clone()]), "me", &[]);
        assert_eq!((owner(&book, 1), owner(&book, 3)), (None, Some("a".to_owned())));
        assert_eq!(names(&book, 1), Some(vec!["a".to_owned(), "b".to_owned()]));
        // The same seen by the node itself.
        let mut book = Book::default();
        book.update(start, &members(&[a, b.clone()]), "me", &[]);
        book.update(start, &members(&[active, b]), "a", &[LogId::from_u128(3), LogId::from_u128(1)]);
        assert_eq!((owner(&book, 1), owner(&book, 3)), (None, Some("a".to_owned())));
    }

    #[tokio::test(start_paused = true)]
    async fn a_crashed_owner_is_waited_for_an_hour_also_when_gossip_has_forgotten_it() {
        let mut book = Book::default();
        let start = Instant::now();
        let a = member("a", Role::All, None, &[1]);
        book.update(start, &members(std::slice::from_ref(&a)), "me", &[]);
        book.update(start, &members(&[with(&a, |m| m.alive = false)]), "me", &[]);
        book.update(start + GONE_AFTER / 2, &members(&[]), "me", &[]);
        assert_eq!(names(&book, 1), Some(vec!["a".to_owned()]));
        // It restarts and is not yet sure of what it has.
        let back = with(&a, |m| (m.state, m.generation, m.logs) = (State::Joining, 2, Vec::new()));
        book.update(start + GONE_AFTER / 2, &members(&[back]), "me", &[]);
        assert_eq!(names(&book, 1), Some(vec!["a".to_owned()]));
        book.update(start + GONE_AFTER, &members(&[]), "me", &[]);
        assert_eq!(names(&book, 1), Some(vec!["a".to_owned()]));
        book.update(start + GONE_AFTER * 2, &members(&[]), "me", &[]);
        assert_eq!(names(&book, 1), None);
    }
}
