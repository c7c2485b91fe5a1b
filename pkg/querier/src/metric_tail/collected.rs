//! The partial aggregates that the windows of a feed need, and what a step makes of them.
//!
//! Invariants: of each range aggregation no more is held than [`Plan::memory`] allows; what no later window needs is forgotten.

use tailwater_logql::metric::{Column, Evaluated, EvaluationLimits, Steps, evaluate};
use tailwater_model::{Labels, TenantId};
use tailwater_wire::node::NodeError;

use super::Plan;
use crate::Error;
use crate::metric::{Merged, in_order};

/// What a node has found for a range aggregation and a tenant.
pub(super) struct Part {
    pub(super) leaf: usize,
    pub(super) tenant: TenantId,
    pub(super) series: Vec<(Labels, Column)>,
}

/// One per range aggregation. See the module.
pub(super) struct Collected(Vec<Merged>);

impl Collected {
    pub(super) fn new(plan: &Plan) -> Self {
        Self(plan.compiled.distinct.iter().map(|_| Merged::default()).collect())
    }

    /// How much may still be taken in, in bytes per range aggregation.
    pub(super) fn rooms(&self, plan: &Plan) -> Vec<usize> {
        self.0.iter().map(|merged| plan.memory.saturating_sub(merged.memory())).collect()
    }

    /// Takes parts in.
    ///
    /// # Errors
    /// There is no room. What was taken in is not known then: the caller begins anew.
    pub(super) fn take(&mut self, plan: &Plan, parts: Vec<Part>) -> Result<(), NodeError> {
        let limit = plan.memory;
        let mut rooms = self.rooms(plan);
        for Part { leaf, tenant, series } in parts {
            let (Some(merged), Some(room)) = (self.0.get_mut(leaf), rooms.get_mut(leaf)) else { continue };
            merged.take(series, plan.names_tenants().then_some(&tenant), room, limit)?;
        }
        // Series that are new are counted only now; nodes made none larger than there was room for.
        if self.0.iter().any(|merged| merged.memory() > limit) { Err(NodeError::TooLarge { limit }) } else { Ok(()) }
    }

    /// The value of the expression at a step whose windows have been read.
    pub(super) fn evaluate(&self, plan: &Plan, step: u32) -> Result<Evaluated, Error> {
        let mut found = Vec::with_capacity(self.0.len());
        for (leaf, (of, merged)) in plan.compiled.distinct.iter().zip(&self.0).enumerate() {
            found.push(merged.series_at(&of.query, &plan.grid(leaf, u32::MAX), step)?);
        }
        let limits = EvaluationLimits { max_query_series: u32::try_from(plan.key.max_series).unwrap_or(u32::MAX) };
        let steps = Steps::instant(plan.time(step));
        Ok(evaluate(&plan.expr, steps, in_order(found, &plan.compiled.order), limits)?)
    }

    /// Forgets what only windows before a step's hold.
    pub(super) fn forget_before(&mut self, plan: &Plan, step: u32) {
        for (leaf, merged) in self.0.iter_mut().enumerate() {
            merged.forget_before(plan.grid(leaf, u32::MAX).window(step).start);
        }
    }
}
