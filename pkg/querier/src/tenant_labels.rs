//! The tenant of each line as a label, for what is read of several tenants together.
//!
//! Invariants:
//! * A label set is made once per set of a source, not per line.
//! * The known sets are bounded by [`MAX_SETS`] and [`MAX_BYTES`]. They are held, so an address never means another set than
//!   the known one; and each is known to one source alone, since tenants may share a set.

use std::collections::HashMap;

use tailwater_model::{LabelSet, TenantId};

use crate::logs::with_tenant;
use crate::source::{SourceId, Sources};

/// Most label sets that are known.
const MAX_SETS: usize = 4096;

/// Most bytes of label sets that are known, as they came and as they were made.
const MAX_BYTES: usize = 1 << 20;

/// Whose the lines of a source are.
enum Whose {
    /// As a feed numbers its sources.
    Feed(Sources),
    /// Of sources with numbers of their own.
    These(Vec<TenantId>),
}

/// See the module.
pub(crate) struct TenantLabels {
    whose: Whose,
    known: HashMap<(SourceId, usize), (LabelSet, LabelSet)>,
    known_bytes: usize,
}

impl TenantLabels {
    pub(crate) fn new(sources: Sources) -> Self {
        Self { whose: Whose::Feed(sources), known: HashMap::new(), known_bytes: 0 }
    }

    /// Of sources that are numbered in this order.
    pub(crate) fn of(tenants: Vec<TenantId>) -> Self {
        Self { whose: Whose::These(tenants), known: HashMap::new(), known_bytes: 0 }
    }

    /// The labels of a line of a source, with its tenant.
    pub(crate) fn add(&mut self, source: SourceId, labels: &LabelSet) -> LabelSet {
        let key = (source, labels.address());
        if let Some((_, made)) = self.known.get(&key) {
            return made.clone();
        }
        let made = match &self.whose {
            Whose::Feed(sources) => sources.get(source).map(|of| with_tenant(labels, &of.tenant)),
            Whose::These(tenants) => tenants.get(source.at()).map(|tenant| with_tenant(labels, tenant)),
        };
        let Some(made) = made else { return labels.clone() };
        let bytes = labels.heap_bytes() + made.heap_bytes();
        if bytes <= MAX_BYTES {
            if self.known_bytes + bytes > MAX_BYTES || self.known.len() >= MAX_SETS {
                self.known.clear();
                self.known_bytes = 0;
            }
            self.known_bytes += bytes;
            self.known.insert(key, (labels.clone(), made.clone()));
        }
        made
    }
}

#[cfg(test)]
mod tests {
    use tailwater_model::{Labels, TenantId};

    use super::*;
    use crate::source::Source;
    use crate::testing::TestNode;

    fn labels(tenants: &[&str]) -> TenantLabels {
        let source = |tenant: &&str| Source {
            node: TestNode::new(1),
            tenant: TenantId::parse(tenant).unwrap(),
            detect_level: false,
        };
        let sources = Sources::default();
        tenants.iter().for_each(|tenant| assert!(sources.add(source(tenant)).is_some()));
        TenantLabels::new(sources)
    }

    fn set(pairs: &[(&str, &str)]) -> LabelSet {
        LabelSet::from(&Labels::from_pairs(pairs.iter().map(|(n, v)| ((*n).into(), (*v).into())).collect()))
    }

    #[test]
    fn a_set_is_made_once_per_source() {
        let mut known = labels(&["one", "two"]);
        let (a, b) = (SourceId::new(0), SourceId::new(1));
        let shared = set(&[("app", "x")]);
        let of_a = known.add(a, &shared);
        assert_eq!(of_a.to_string(), r#"{__tenant_id__="one", app="x"}"#);
        assert!(known.add(a, &shared).ptr_eq(&of_a));
        assert_eq!(known.add(b, &shared).to_string(), r#"{__tenant_id__="two", app="x"}"#);
    }

    #[test]
    fn a_label_of_that_name_is_renamed() {
        let mut known = labels(&["one"]);
        let of =
            |known: &mut TenantLabels, pairs: &[(&str, &str)]| known.add(SourceId::new(0), &set(pairs)).to_string();
        let renamed = r#"{__tenant_id__="one", original___tenant_id__="forged"}"#;
        assert_eq!(of(&mut known, &[("__tenant_id__", "forged")]), renamed);
        assert_eq!(of(&mut known, &[("__tenant_id__", "forged"), ("original___tenant_id__", "x")]), renamed);
    }

    #[test]
    fn what_is_known_is_bounded() {
        let mut known = labels(&["one"]);
        for i in 0..3 * MAX_SETS {
            let made = known.add(SourceId::new(0), &set(&[("i", &i.to_string())]));
            assert_eq!(made.get("i"), Some(i.to_string().as_str()));
            assert!(known.known.len() <= MAX_SETS && known.known_bytes <= MAX_BYTES);
        }
        let huge = set(&[("i", &"x".repeat(MAX_BYTES))]);
        assert_eq!(known.add(SourceId::new(0), &huge).get("__tenant_id__"), Some("one"));
        assert!(known.known_bytes <= MAX_BYTES);
    }
}
