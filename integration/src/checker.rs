//! Judges what a tail or a query delivered by what was pushed. Knows nothing of the server.
//!
//! A line's identity is (tenant, pushed labels, timestamp, text, occurrence). For one tenant's reader and the pushes it should
//! see, the checker holds:
//! * no phantom: every delivered line was pushed by that tenant, under these labels, with this timestamp;
//! * no duplicate: no identity is delivered more often than it was pushed;
//! * no loss: every acknowledged line that the reader should see is delivered;
//! * order: lines of a stream come in the order in which they were pushed (pushes give each stream ascending timestamps).
//!
//! Pushes that were not acknowledged may or may not have been stored: they are neither phantoms nor losses.

use std::collections::HashMap;
use std::fmt;

use serde_json::Value;

use crate::push::{Batch, plain_labels};
use crate::tail::Delivered;

/// What is wrong with the accounts of open tails, an answer of `/api/v1/tails`: a tail whose matched lines are neither delivered nor
/// dropped. Empty: nothing.
///
/// # Panics
/// If the answer has another shape.
#[must_use]
pub fn unbalanced(tails: &Value) -> Vec<String> {
    let tails = tails["tails"].as_array().expect("tails is a list");
    let wrong = |tail: &&Value| {
        let number = |name: &str| tail["ledger"][name].as_u64();
        let matched = number("matched").unwrap_or_else(|| panic!("no account: {tail}"));
        let delivered = number("delivered").unwrap_or_else(|| panic!("no account: {tail}"));
        matched != delivered + number("dropped").unwrap_or(0) + number("sampled_out").unwrap_or(0)
    };
    tails.iter().filter(wrong).map(ToString::to_string).collect()
}

/// A pushed line.
#[derive(Clone, Debug)]
struct Pushed {
    tenant: String,
    stream: String,
    labels: Vec<(String, String)>,
    timestamp: i64,
    line: String,
    acknowledged: bool,
}

/// Everything that was pushed.
#[derive(Clone, Debug, Default)]
pub struct Checker {
    pushed: Vec<Pushed>,
}

/// What was wrong with a delivery; each list shows the first few.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Lines that should have been delivered and were.
    pub delivered: usize,
    /// Acknowledged lines that were not delivered.
    pub lost: Vec<String>,
    /// Lines delivered more often than pushed.
    pub duplicated: Vec<String>,
    /// Lines delivered that the reader should not see, or that nobody pushed.
    pub phantom: Vec<String>,
    /// Lines delivered before an earlier line of their stream.
    pub disordered: Vec<String>,
}

impl Checker {
    /// Nothing pushed yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Records a push. Label texts must be plain `{a="b"}`.
    pub fn pushed(&mut self, tenant: &str, batch: &Batch, acknowledged: bool) {
        for (stream, entries) in &batch.streams {
            let labels = plain_labels(stream);
            for entry in entries {
                self.pushed.push(Pushed {
                    tenant: tenant.to_owned(),
                    stream: stream.clone(),
                    labels: labels.clone(),
                    timestamp: entry.timestamp,
                    line: String::from_utf8_lossy(&entry.line).into_owned(),
                    acknowledged,
                });
            }
        }
    }

    /// How many lines were pushed.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.pushed.len()
    }

    /// Whether nothing was pushed.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.pushed.is_empty()
    }

    /// Judges what a reader of `tenant` got that should see the lines for which `sees(stream, line)` holds.
    pub fn judge(&self, tenant: &str, delivered: &[Delivered], sees: impl Fn(&str, &str) -> bool) -> Verdict {
        let mut verdict = Verdict::default();
        let mut waiting: HashMap<(&str, i64), Vec<usize>> = HashMap::new();
        for (i, pushed) in self.pushed.iter().enumerate().rev() {
            if pushed.tenant == tenant && sees(&pushed.stream, &pushed.line) {
                waiting.entry((&pushed.line, pushed.timestamp)).or_default().push(i);
            }
        }
        let mut seen: HashMap<(&str, i64), Vec<usize>> = HashMap::new();
        let mut newest: HashMap<&str, usize> = HashMap::new();
        for line in delivered {
            let key = (line.line.as_str(), line.timestamp);
            let bears = |&i: &usize| {
                let borne = |(name, value): &(String, String)| line.labels.contains(&format!("{name}={value:?}"));
                self.pushed[i].labels.iter().all(borne)
            };
            let here = waiting.get_mut(&key).and_then(|all| {
                let place = all.iter().rposition(bears)?;
                Some(all.remove(place))
            });
            let Some(i) = here else {
                let again = seen.get(&key).is_some_and(|all| all.iter().any(bears));
                if again { &mut verdict.duplicated } else { &mut verdict.phantom }.push(format!("{line:?}"));
                continue;
            };
            seen.entry(key).or_default().push(i);
            verdict.delivered += 1;
            let newest = newest.entry(&self.pushed[i].stream).or_insert(i);
            if i < *newest {
                verdict.disordered.push(format!("{line:?} after {:?}", self.pushed[*newest].line));
            }
            *newest = i.max(*newest);
        }
        let mut lost: Vec<_> = waiting.into_values().flatten().filter(|&i| self.pushed[i].acknowledged).collect();
        lost.sort_unstable();
        verdict.lost = lost.iter().map(|&i| format!("{:?}", self.pushed[i])).collect();
        verdict
    }

    /// Fails unless `delivered` is exactly what a reader of `tenant` should see.
    ///
    /// # Panics
    /// Then, with the verdict.
    pub fn assert_exact(&self, tenant: &str, delivered: &[Delivered], sees: impl Fn(&str, &str) -> bool) {
        let verdict = self.judge(tenant, delivered, sees);
        assert!(verdict.is_clean(), "{verdict}");
    }
}

impl Verdict {
    /// Whether nothing was wrong.
    #[must_use]
    pub const fn is_clean(&self) -> bool {
        self.lost.is_empty() && self.duplicated.is_empty() && self.phantom.is_empty() && self.disordered.is_empty()
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 5;
        writeln!(f, "{} delivered as they should be", self.delivered)?;
        let kinds = [
            ("lost", &self.lost),
            ("duplicated", &self.duplicated),
            ("phantom", &self.phantom),
            ("disordered", &self.disordered),
        ];
        for (kind, lines) in kinds {
            writeln!(f, "{} {kind}", lines.len())?;
            for line in lines.iter().take(SHOWN) {
                writeln!(f, "  {}", line.chars().take(300).collect::<String>())?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = r#"{app="a"}"#;
    const B: &str = r#"{app="b"}"#;

    fn line(app: &str, timestamp: i64, line: &str) -> Delivered {
        Delivered { labels: format!("{{app={app:?}, service_name={app:?}}}"), timestamp, line: line.to_owned() }
    }

    fn checker() -> Checker {
        let mut checker = Checker::new();
        checker.pushed("t", &Batch::new().line(A, 1, "one").line(A, 2, "two").line(B, 2, "two"), true);
        checker.pushed("other", &Batch::new().line(A, 3, "secret"), true);
        checker.pushed("t", &Batch::new().line(A, 4, "refused"), false);
        checker
    }

    #[test]
    fn a_complete_delivery_is_clean() {
        checker().assert_exact("t", &[line("a", 1, "one"), line("b", 2, "two"), line("a", 2, "two")], |_, _| true);
    }

    #[test]
    fn an_unacknowledged_line_may_be_delivered() {
        checker()
            .assert_exact("t", &[line("a", 1, "one"), line("a", 2, "two"), line("a", 4, "refused")], |s, _| s == A);
    }

    #[test]
    fn each_defect_is_named() {
        let all = [line("a", 2, "two"), line("a", 1, "one"), line("a", 2, "two"), line("a", 3, "secret")];
        let verdict = checker().judge("t", &all, |_, _| true);
        let counts = [&verdict.lost, &verdict.duplicated, &verdict.phantom, &verdict.disordered].map(Vec::len);
        assert_eq!((verdict.delivered, counts), (2, [1, 1, 1, 1]), "{verdict}");
        assert!(verdict.lost[0].contains("\"b\""), "{verdict}");
        assert!(verdict.phantom[0].contains("secret"), "{verdict}");
    }

    #[test]
    fn accounts_balance_or_not() {
        let tails = |delivered: u64| serde_json::json!({"tails": [{"ledger": {"matched": 5, "delivered": delivered, "dropped": 1, "trimmed": 7}}]});
        assert_eq!((unbalanced(&tails(4)).len(), unbalanced(&tails(3)).len()), (0, 1));
    }

    #[test]
    fn a_line_under_foreign_labels_is_a_phantom() {
        let verdict = checker().judge("t", &[line("c", 1, "one")], |s, _| s == A);
        assert_eq!((verdict.phantom.len(), verdict.lost.len()), (1, 2), "{verdict}");
    }
}
