//! The logs of which a feed gets nothing for now, and what is said of that to clients that asked for it.

use std::collections::BTreeMap;
use std::sync::Arc;

use tailwater_model::LogId;
use tailwater_wire::frame::Notice;

/// At some moment, the logs that were away, and why. Cheap to clone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Away(Arc<BTreeMap<LogId, Arc<str>>>);

impl Away {
    /// A log is away. The reason of one that was away already stays.
    pub(crate) fn went(&mut self, log: LogId, reason: &Arc<str>) {
        if !self.0.contains_key(&log) {
            Arc::make_mut(&mut self.0).insert(log, Arc::clone(reason));
        }
    }

    /// A log is not away, or no more.
    pub(crate) fn came(&mut self, log: LogId) {
        if self.0.contains_key(&log) {
            Arc::make_mut(&mut self.0).remove(&log);
        }
    }

    pub(crate) fn why(&self, log: LogId) -> Option<&Arc<str>> {
        self.0.get(&log)
    }

    pub(crate) fn logs(&self) -> impl Iterator<Item = LogId> {
        self.0.keys().copied()
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// What somebody is told who knows how it was before: nothing if it is the same.
    pub(crate) fn since(&self, before: &Self) -> Vec<Notice> {
        if Arc::ptr_eq(&self.0, &before.0) {
            return Vec::new();
        }
        let back = before.0.keys().filter(|log| !self.0.contains_key(log)).map(|log| back(*log));
        let away = self.0.iter().filter(|(log, _)| !before.0.contains_key(log));
        back.chain(away.map(|(log, reason)| went(*log, reason))).collect()
    }
}

pub(crate) fn went(log: LogId, reason: &str) -> Notice {
    Notice::Away { what: log.to_string(), reason: reason.to_owned() }
}

pub(crate) fn back(log: LogId) -> Notice {
    Notice::Back { what: log.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_changed_is_told_and_nothing_else() {
        let [a, b] = [1, 2].map(LogId::from_u128);
        let mut away = Away::default();
        away.went(a, &"one".into());
        let before = away.clone();
        away.went(a, &"two".into());
        assert_eq!(away.since(&before), []);
        away.went(b, &"three".into());
        away.came(a);
        assert_eq!(away.since(&before), [back(a), went(b, "three")]);
        assert_eq!(away.since(&Away::default()), [went(b, "three")]);
        assert_eq!((away.len(), away.why(a)), (1, None));
    }
}
