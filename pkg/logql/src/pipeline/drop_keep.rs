//! `| drop a, b="c"` and `| keep a, b="c"`.
//!
//! Invariants: the items of a list are alternatives; values are matched as selectors match them; the error labels can be
//! dropped, one without the other, and are kept in any case.

use super::labels::LineLabels;
use super::names::{self, NameId};
use crate::ast::NameOrMatcher;
use crate::matchers::ValueTest;

/// A name and what its value must be; anything if there is no test.
#[derive(Debug)]
pub(crate) struct Item {
    name: NameId,
    test: Option<ValueTest>,
}

/// Compiles a list; `intern` numbers its names.
pub(crate) fn compile(items: &[NameOrMatcher], mut intern: impl FnMut(&str) -> NameId) -> Result<Box<[Item]>, String> {
    let item = |item: &NameOrMatcher| {
        Ok(match item {
            NameOrMatcher::Name(name) => Item { name: intern(name), test: None },
            NameOrMatcher::Matcher(m) => Item { name: intern(&m.name), test: Some(ValueTest::selector(m)?) },
        })
    };
    items.iter().map(item).collect()
}

/// Removes what the list names.
pub(crate) fn drop(items: &[Item], labels: &mut LineLabels) {
    for item in items {
        let value = match item.name {
            names::ERROR => Some(labels.error()),
            names::ERROR_DETAILS => Some(labels.error_details()),
            name => labels.get(name),
        };
        let (present, value) = (value.is_some(), value.unwrap_or_default());
        if item.test.as_ref().is_some_and(|test| !test.passes(value.as_bytes())) {
            continue;
        }
        match item.name {
            names::ERROR => labels.clear_error(),
            names::ERROR_DETAILS => labels.clear_error_details(),
            name if present => labels.delete(name),
            _ => {}
        }
    }
}

/// Removes what the list does not name. `names` is scratch.
pub(crate) fn keep(items: &[Item], labels: &mut LineLabels, names: &mut Vec<NameId>) {
    labels.present(names);
    for name in names.drain(..) {
        let kept = matches!(name, names::ERROR | names::ERROR_DETAILS | names::PRESERVE_ERROR)
            || items.iter().filter(|item| item.name == name).any(|item| {
                let value = labels.get(name).unwrap_or_default();
                item.test.as_ref().is_none_or(|test| test.passes(value.as_bytes()))
            });
        if !kept {
            labels.delete(name);
        }
    }
}
