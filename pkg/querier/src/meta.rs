//! What is there: labels, label values, series, statistics.

use std::collections::BTreeSet;
use std::sync::Arc;

use tailwater_logql::ast::Matcher;
use tailwater_logql::matchers::Matchers;
use tailwater_model::{Labels, TenantId, TenantIds, Timestamp};
use tailwater_wire::node::{LabelsRequest, Part, Partial, SeriesRequest, Stats, warn};

use crate::logs::{TENANT_LABEL, stream_with_tenant, tenants_of};
use crate::{Error, Querier};

/// Which streams, and when.
#[derive(Clone, Debug)]
pub struct MetaRequest {
    /// Whose.
    pub tenants: TenantIds,
    /// Streams that any of these selectors picks; none = all.
    pub selectors: Vec<Vec<Matcher>>,
    /// The earliest timestamp, inclusive.
    pub start: Timestamp,
    /// The latest timestamp, inclusive.
    pub end: Timestamp,
}

/// A tenant and the selectors that concern it; none = all streams.
type TenantSelectors = (TenantId, Vec<Arc<Matchers>>);

impl Querier {
    /// Names of labels (`name` none) or the values of one; sorted, unique.
    ///
    /// # Errors
    /// A selector that does not compile, or an ingester that does not answer.
    pub async fn labels(&self, request: &MetaRequest, name: Option<&str>) -> Result<Partial<Vec<String>>, Error> {
        let several = request.tenants.as_slice().len() > 1;
        let (mut found, mut warnings) = (BTreeSet::new(), Vec::new());
        for (tenant, selectors) in self.per_tenant(request)? {
            if several && name.is_none() {
                found.insert(TENANT_LABEL.to_owned());
            }
            if several && name == Some(TENANT_LABEL) {
                found.insert(tenant.as_str().to_owned());
                continue;
            }
            let name = match name {
                Some(n) if several && n == "original___tenant_id__" => Some(TENANT_LABEL),
                other => other,
            };
            let selectors = if selectors.is_empty() { vec![None] } else { selectors.into_iter().map(Some).collect() };
            for matchers in selectors {
                let asked = LabelsRequest {
                    tenant: tenant.clone(),
                    part: Part::Whole,
                    matchers,
                    start: request.start,
                    end: request.end,
                    name: name.map(ToOwned::to_owned),
                };
                let asked = self.ask(|node, part| node.labels(LabelsRequest { part, ..asked.clone() })).await?;
                warn(&mut warnings, asked.warnings);
                for part in asked.parts {
                    found.extend(part.take(&mut warnings));
                }
            }
        }
        Ok(Partial { value: found.into_iter().collect(), warnings })
    }

    /// The streams, without repeats.
    ///
    /// # Errors
    /// As [`Querier::labels`].
    pub async fn series(&self, request: &MetaRequest) -> Result<Partial<Vec<Labels>>, Error> {
        let several = request.tenants.as_slice().len() > 1;
        let (mut found, mut warnings) = (BTreeSet::new(), Vec::new());
        for (tenant, matchers) in self.per_tenant(request)? {
            let asked = SeriesRequest {
                tenant: tenant.clone(),
                part: Part::Whole,
                matchers,
                start: request.start,
                end: request.end,
            };
            let streams = self.streams(&asked, &mut warnings).await?;
            found.extend(streams.into_iter().map(|s| if several { stream_with_tenant(&s, &tenant) } else { s }));
        }
        Ok(Partial { value: found.into_iter().collect(), warnings })
    }

    /// How much the streams hold.
    ///
    /// # Errors
    /// As [`Querier::labels`].
    pub async fn stats(&self, request: &MetaRequest) -> Result<Partial<Stats>, Error> {
        let (mut sum, mut warnings) = (Stats::default(), Vec::new());
        for (tenant, matchers) in self.per_tenant(request)? {
            let asked = SeriesRequest { tenant, part: Part::Whole, matchers, start: request.start, end: request.end };
            let stats = self.ask(|node, part| node.stats(SeriesRequest { part, ..asked.clone() })).await?;
            warn(&mut warnings, stats.warnings);
            let several = stats.parts.len() > 1;
            for part in stats.parts {
                let stats = part.take(&mut warnings);
                sum.streams += if several { 0 } else { stats.streams };
                sum.chunks += stats.chunks;
                sum.bytes += stats.bytes;
                sum.entries += stats.entries;
            }
            if several {
                // A stream is in several logs, and in blocks.
                sum.streams += self.streams(&asked, &mut warnings).await?.len() as u64;
            }
        }
        Ok(Partial { value: sum, warnings })
    }

    /// The streams of a tenant, each once.
    pub(crate) async fn streams(
        &self,
        request: &SeriesRequest,
        warnings: &mut Vec<String>,
    ) -> Result<BTreeSet<Labels>, Error> {
        let asked = self.ask(|node, part| node.series(SeriesRequest { part, ..request.clone() })).await?;
        warn(warnings, asked.warnings);
        Ok(asked.parts.into_iter().flat_map(|part| part.take(warnings)).collect())
    }

    /// The compiled selectors for each tenant they concern. A tenant that none of several selectors concerns is left out.
    pub(crate) fn per_tenant(&self, request: &MetaRequest) -> Result<Vec<TenantSelectors>, Error> {
        let tenants = request.tenants.as_slice();
        if tenants.len() == 1 || request.selectors.is_empty() {
            let compiled = request.selectors.iter().map(|s| Matchers::new(s).map(Arc::new));
            let compiled = compiled.collect::<Result<Vec<_>, _>>()?;
            return Ok(tenants.iter().map(|t| (t.clone(), compiled.clone())).collect());
        }
        let mut all: Vec<TenantSelectors> = Vec::new();
        for selector in &request.selectors {
            let (rest, concerned) = tenants_of(selector, &request.tenants)?;
            let matchers = Arc::new(Matchers::new(&rest)?);
            for tenant in concerned {
                match all.iter_mut().find(|(t, _)| *t == tenant) {
                    Some((_, compiled)) => compiled.push(Arc::clone(&matchers)),
                    None => all.push((tenant, vec![Arc::clone(&matchers)])),
                }
            }
        }
        Ok(all)
    }
}
