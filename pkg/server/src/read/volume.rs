//! How much there is: `index/volume` and `index/volume_range` (contract, Loki API §1.3).

use std::sync::Arc;

use axum::http::StatusCode;
use tailwater_logql::parse_match;
use tailwater_model::Timestamp;
use tailwater_querier::{MetaRequest, Volume, VolumeBy, VolumeRequest, busy};
use tailwater_wire::answer::{self, Sample, Stats};
use tailwater_wire::node::Partial;

use super::Asked;
use super::logs::allowed_range;
use crate::answer::Failure;
use crate::app::App;
use crate::params::VolumeParams;

/// `/loki/api/v1/index/volume`
pub(crate) async fn index_volume(app: Arc<App>, asked: Asked) -> Result<Vec<u8>, Failure> {
    let Partial { value: found, warnings } = volumes(&app, &asked, false).await?;
    let end = |volume: &Volume| volume.steps.last().map_or(Timestamp::MIN, |(end, _)| *end);
    let samples: Vec<_> = found.iter().map(|v| (v.labels.clone(), sample(end(v), v.total))).collect();
    Ok(answer::vector(&samples, &warnings, &stats(&asked, samples.len())))
}

/// `/loki/api/v1/index/volume_range`
pub(crate) async fn index_volume_range(app: Arc<App>, asked: Asked) -> Result<Vec<u8>, Failure> {
    let Partial { value: found, warnings } = volumes(&app, &asked, true).await?;
    let stats = stats(&asked, found.iter().map(|volume| volume.steps.len()).sum());
    // As Loki: a series of one sample is none.
    if found.iter().all(|volume| volume.steps.len() <= 1) {
        let first = |v: &Volume| v.steps.first().map(|(at, bytes)| (v.labels.clone(), sample(*at, *bytes)));
        return Ok(answer::vector(&found.iter().filter_map(first).collect::<Vec<_>>(), &warnings, &stats));
    }
    let steps = |v: Volume| (v.labels, v.steps.into_iter().map(|(at, bytes)| sample(at, bytes)).collect());
    Ok(answer::matrix(&found.into_iter().map(steps).collect::<Vec<_>>(), &warnings, &stats))
}

async fn volumes(app: &App, asked: &Asked, in_steps: bool) -> Result<Partial<Vec<Volume>>, Failure> {
    if !asked.limits.volume_enabled {
        return Err(Failure::new(StatusCode::NOT_FOUND, "not found"));
    }
    let params = VolumeParams::parse(&asked.form, asked.now, in_steps).map_err(Failure::bad_request)?;
    let selector = busy(|| parse_match(asked.form.get("query")))?;
    let Some((start, end)) = allowed_range(asked, params.start, params.end)? else { return Ok(Partial::default()) };
    let request = VolumeRequest {
        meta: MetaRequest { tenants: asked.tenants.clone(), selectors: vec![selector], start, end },
        step: params.step,
        by: if params.by_labels { VolumeBy::Labels } else { VolumeBy::Series },
        target_labels: params.target_labels,
        limit: params.limit as usize,
        max_series: asked.limits.volume_max_series,
    };
    Ok(app.querier.volume(&request).await?)
}

#[expect(clippy::cast_precision_loss, reason = "memory has less than 2^53 bytes")]
fn sample(timestamp: Timestamp, bytes: u64) -> Sample {
    Sample { timestamp, value: bytes as f64 }
}

fn stats(asked: &Asked, returned: usize) -> Stats {
    Stats { returned: returned as u64, took: asked.since.elapsed(), ..Stats::default() }
}
