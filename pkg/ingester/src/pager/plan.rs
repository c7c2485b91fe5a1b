//! Which entries of a stretch of the log go into which block.
//!
//! A [`Plan`] holds the batches and, per tenant and UTC day, references to their runs: memory grows with runs, not with lines, and no line
//! is copied. Within a day streams are sorted by their labels; equal labels are one stream, whatever the ids of the streams are.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use tailwater_model::{Labels, TenantId};
use tailwater_store::ByStream;
use tailwater_store::catalog::Day;
use tailwater_store::entries::Run;

use crate::batch::Batch;

/// A stretch of the log, sorted out.
pub(super) struct Plan {
    /// In the order of the log.
    pub(super) batches: Arc<[Arc<Batch>]>,
    /// The stretch reaches up to this batch.
    pub(super) through: u64,
    /// One per tenant and day, sorted.
    pub(super) groups: Vec<Group>,
}

/// What a tenant's blocks of one day will hold.
pub(super) struct Group {
    pub(super) tenant: TenantId,
    pub(super) day: Day,
    /// Sorted by stream, those of a stream in the order of the log.
    pub(super) refs: Vec<Ref>,
    /// The last batch with entries of the group.
    pub(super) last: u64,
}

/// A run of a batch that has entries of the day, perhaps others too.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ref {
    /// The rank of its stream among those of its tenant, by labels.
    pub(super) rank: u32,
    /// Number of the batch in [`Plan::batches`].
    pub(super) batch: u32,
    /// Number of the run in the batch.
    pub(super) run: u32,
}

/// What is known of a tenant on the way.
#[derive(Default)]
struct OfTenant {
    by_id: ByStream<u32>,
    by_labels: HashMap<Labels, u32>,
    days: BTreeMap<Day, Vec<Ref>>,
}

impl Plan {
    /// Sorts out a stretch. Batches that are alike in number and size to what a push may hold: their number, and that of their runs, fit
    /// into 32 bits.
    pub(super) fn new(batches: Vec<Arc<Batch>>, through: u64) -> Self {
        let mut tenants: BTreeMap<TenantId, OfTenant> = BTreeMap::new();
        for (number, batch) in batches.iter().enumerate() {
            let tenant = &batch.account.tenant;
            // Most batches in a row are of the same few tenants; a look-up per batch costs nothing per line.
            if !tenants.contains_key(tenant) {
                tenants.insert(tenant.clone(), OfTenant::default());
            }
            let Some(of) = tenants.get_mut(tenant) else { continue };
            for (index, run) in batch.runs.iter().enumerate() {
                of.add(batch, run, number as u32, index as u32);
            }
        }
        let groups = tenants.into_iter().flat_map(|(tenant, of)| of.groups(&tenant, &batches)).collect();
        Self { batches: batches.into(), through, groups }
    }
}

impl OfTenant {
    fn add(&mut self, batch: &Batch, run: &Run, number: u32, index: u32) {
        if run.len == 0 {
            return;
        }
        let rank = match self.by_id.get(&run.stream.id) {
            Some(known) => *known,
            None => {
                let next = self.by_labels.len() as u32;
                let known = *self.by_labels.entry(run.stream.labels.clone()).or_insert(next);
                self.by_id.insert(run.stream.id, known);
                known
            }
        };
        let found = Ref { rank, batch: number, run: index };
        let (first, last) = (Day::of(run.min), Day::of(run.max));
        if first == last {
            self.days.entry(first).or_default().push(found);
            return;
        }
        let days: BTreeSet<Day> = batch.entries(run).iter().map(|entry| Day::of(entry.timestamp)).collect();
        for day in days {
            self.days.entry(day).or_default().push(found);
        }
    }

    fn groups(self, tenant: &TenantId, batches: &[Arc<Batch>]) -> Vec<Group> {
        // Numbers were given out as streams were met; a rank is the number in the order of labels.
        let mut sorted: Vec<(&Labels, u32)> = self.by_labels.iter().map(|(labels, met)| (labels, *met)).collect();
        sorted.sort_unstable();
        let mut ranks = vec![0; sorted.len()];
        for (rank, (_, met)) in sorted.iter().enumerate() {
            ranks[*met as usize] = rank as u32;
        }
        let groups = self.days.into_iter().map(|(day, mut refs)| {
            let last = refs.last().and_then(|r| batches.get(r.batch as usize)).map_or(0, |batch| batch.seq);
            for found in &mut refs {
                found.rank = ranks[found.rank as usize];
            }
            // Stable: those of a stream stay in the order of the log.
            refs.sort_by_key(|found| found.rank);
            Group { tenant: tenant.clone(), day, refs, last }
        });
        groups.collect()
    }
}
