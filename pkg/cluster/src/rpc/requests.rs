//! Requests as messages, and back. Queries are compiled again where they arrive ([`Queries`]).

use std::time::Duration;

use bytes::Bytes;
use tailwater_logql::metric::{Grid, MAX_STEPS, Steps};
use tailwater_model::{LogId, TenantId, Timestamp};
use tailwater_wire::node::{
    Direction, FollowRequest, LabelsRequest, LogState, Part, PatternsRequest, ReadRequest, SamplesRequest,
    SelectRequest, SeriesRequest, StateRequest, VolumeRequest,
};
use tonic::Status;

use super::proto;
use super::queries::Queries;

/// Most sets of matchers of a request.
const MAX_MATCHERS: usize = 1024;

pub(super) fn log_bytes(log: LogId) -> Bytes {
    Bytes::copy_from_slice(&log.as_u128().to_be_bytes())
}

pub(super) fn log_of(bytes: &[u8]) -> Option<LogId> {
    bytes.try_into().ok().map(|bytes| LogId::from_u128(u128::from_be_bytes(bytes)))
}

pub(super) fn tenant(text: &str) -> Result<TenantId, Status> {
    TenantId::parse(text).map_err(|error| Status::invalid_argument(error.to_string()))
}

fn log_after(part: Part) -> Option<u64> {
    match part {
        Part::Whole => None,
        Part::Log { after } => Some(after),
    }
}

fn part(log_after: Option<u64>) -> Part {
    log_after.map_or(Part::Whole, |after| Part::Log { after })
}

fn size(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

pub(super) fn put_state(log: LogId, request: StateRequest) -> proto::StateRequest {
    let nanos = |age: Duration| u64::try_from(age.as_nanos()).unwrap_or(u64::MAX);
    proto::StateRequest { log: log_bytes(log), age_nanos: request.age.map(nanos) }
}

pub(super) fn state(request: &proto::StateRequest) -> StateRequest {
    StateRequest { age: request.age_nanos.map(Duration::from_nanos) }
}

pub(super) fn put_log_state(state: LogState) -> proto::LogState {
    let LogState { head, whole, before, in_blocks, watermark } = state;
    proto::LogState { head, before, in_blocks, watermark: watermark.0, whole: Some(whole) }
}

pub(super) fn log_state(state: proto::LogState) -> LogState {
    let proto::LogState { head, before, in_blocks, watermark, whole } = state;
    LogState { head, whole: whole.unwrap_or(head).min(head), before, in_blocks, watermark: Timestamp(watermark) }
}

pub(super) fn put_follow(log: LogId, request: &FollowRequest) -> proto::FollowRequest {
    proto::FollowRequest {
        log: log_bytes(log),
        tenant: request.tenant.to_string(),
        query: request.query.to_bytes().into(),
        detect_level: request.detect_level,
        after: request.after,
    }
}

pub(super) async fn follow(request: proto::FollowRequest, queries: &Queries) -> Result<FollowRequest, Status> {
    Ok(FollowRequest {
        tenant: tenant(&request.tenant)?,
        query: queries.log(request.query).await?,
        detect_level: request.detect_level,
        after: request.after,
    })
}

pub(super) fn put_read(log: LogId, request: &ReadRequest) -> proto::ReadRequest {
    proto::ReadRequest {
        log: log_bytes(log),
        tenant: request.tenant.to_string(),
        query: request.query.to_bytes().into(),
        detect_level: request.detect_level,
        after: request.after,
        through: request.through,
        max_bytes: request.max_bytes as u64,
    }
}

pub(super) async fn read(request: proto::ReadRequest, queries: &Queries) -> Result<ReadRequest, Status> {
    Ok(ReadRequest {
        tenant: tenant(&request.tenant)?,
        query: queries.log(request.query).await?,
        detect_level: request.detect_level,
        after: request.after,
        through: request.through,
        max_bytes: size(request.max_bytes),
    })
}

pub(super) fn put_select(log: LogId, request: &SelectRequest) -> proto::SelectRequest {
    proto::SelectRequest {
        log: log_bytes(log),
        tenant: request.tenant.to_string(),
        log_after: log_after(request.part),
        query: request.query.to_bytes().into(),
        detect_level: request.detect_level,
        as_of: request.as_of,
        start: request.start.0,
        end: request.end.0,
        backward: request.direction == Direction::Backward,
        limit: request.limit as u64,
    }
}

pub(super) async fn select(request: proto::SelectRequest, queries: &Queries) -> Result<SelectRequest, Status> {
    Ok(SelectRequest {
        tenant: tenant(&request.tenant)?,
        part: part(request.log_after),
        query: queries.log(request.query).await?,
        detect_level: request.detect_level,
        as_of: request.as_of,
        start: Timestamp(request.start),
        end: Timestamp(request.end),
        direction: if request.backward { Direction::Backward } else { Direction::Forward },
        limit: size(request.limit),
    })
}

pub(super) fn put_grid(grid: &Grid) -> proto::Grid {
    let Steps { start, step, count } = grid.steps();
    proto::Grid { start: start.0, step, count, range: grid.range(), offset: grid.offset() }
}

pub(super) fn grid(grid: Option<proto::Grid>) -> Result<Grid, Status> {
    let grid = grid.ok_or_else(|| Status::invalid_argument("no grid"))?;
    if grid.count == 0 || grid.count > MAX_STEPS {
        return Err(Status::invalid_argument("too many steps, or none"));
    }
    let steps = Steps { start: Timestamp(grid.start), step: grid.step, count: grid.count };
    Ok(Grid::new(steps, grid.range, grid.offset))
}

pub(super) fn put_samples(log: LogId, request: &SamplesRequest) -> proto::SamplesRequest {
    proto::SamplesRequest {
        log: log_bytes(log),
        tenant: request.tenant.to_string(),
        log_after: log_after(request.part),
        query: request.query.to_bytes().into(),
        detect_level: request.detect_level,
        after: request.after,
        as_of: request.as_of,
        grid: Some(put_grid(&request.grid)),
        from: request.from.0,
        settled: request.settled.map(|settled| settled.0),
        max_bytes: request.max_bytes as u64,
    }
}

pub(super) async fn samples(request: proto::SamplesRequest, queries: &Queries) -> Result<SamplesRequest, Status> {
    Ok(SamplesRequest {
        tenant: tenant(&request.tenant)?,
        part: part(request.log_after),
        query: queries.sample(request.query).await?,
        detect_level: request.detect_level,
        after: request.after,
        as_of: request.as_of,
        grid: grid(request.grid)?,
        from: Timestamp(request.from),
        settled: request.settled.map(Timestamp),
        max_bytes: size(request.max_bytes),
    })
}

pub(super) fn put_labels(log: LogId, request: &LabelsRequest) -> proto::LabelsRequest {
    proto::LabelsRequest {
        log: log_bytes(log),
        tenant: request.tenant.to_string(),
        log_after: log_after(request.part),
        matchers: request.matchers.as_ref().map(|matchers| matchers.to_bytes().into()),
        start: request.start.0,
        end: request.end.0,
        name: request.name.clone(),
    }
}

pub(super) async fn labels(request: proto::LabelsRequest, queries: &Queries) -> Result<LabelsRequest, Status> {
    let matchers = match request.matchers {
        Some(matchers) => Some(queries.matchers(matchers).await?),
        None => None,
    };
    Ok(LabelsRequest {
        tenant: tenant(&request.tenant)?,
        part: part(request.log_after),
        matchers,
        start: Timestamp(request.start),
        end: Timestamp(request.end),
        name: request.name,
    })
}

pub(super) fn put_series(log: LogId, request: &SeriesRequest) -> proto::SeriesRequest {
    proto::SeriesRequest {
        log: log_bytes(log),
        tenant: request.tenant.to_string(),
        log_after: log_after(request.part),
        matchers: request.matchers.iter().map(|matchers| matchers.to_bytes().into()).collect(),
        start: request.start.0,
        end: request.end.0,
    }
}

pub(super) async fn series(request: proto::SeriesRequest, queries: &Queries) -> Result<SeriesRequest, Status> {
    if request.matchers.len() > MAX_MATCHERS {
        return Err(Status::invalid_argument("too many selectors"));
    }
    let mut matchers = Vec::with_capacity(request.matchers.len());
    for bytes in request.matchers {
        matchers.push(queries.matchers(bytes).await?);
    }
    Ok(SeriesRequest {
        tenant: tenant(&request.tenant)?,
        part: part(request.log_after),
        matchers,
        start: Timestamp(request.start),
        end: Timestamp(request.end),
    })
}

/// A step as the far side needs it.
fn step(step: i64) -> Result<i64, Status> {
    if step > 0 { Ok(step) } else { Err(Status::invalid_argument("a step of nothing")) }
}

/// The streams of a request that has more than them.
fn streams(series: Option<proto::SeriesRequest>) -> Result<proto::SeriesRequest, Status> {
    series.ok_or_else(|| Status::invalid_argument("no streams"))
}

pub(super) fn put_volume(log: LogId, request: &VolumeRequest) -> proto::VolumeRequest {
    proto::VolumeRequest { series: Some(put_series(log, &request.series)), step: request.step }
}

pub(super) async fn volume(request: proto::VolumeRequest, queries: &Queries) -> Result<VolumeRequest, Status> {
    let step = request.step.map(step).transpose()?;
    Ok(VolumeRequest { series: series(streams(request.series)?, queries).await?, step })
}

pub(super) fn put_patterns(log: LogId, request: &PatternsRequest) -> proto::PatternsRequest {
    let PatternsRequest { series, step, detect_level, limit } = request;
    let (series, limit) = (Some(put_series(log, series)), *limit as u64);
    proto::PatternsRequest { series, step: *step, detect_level: *detect_level, limit }
}

pub(super) async fn patterns(request: proto::PatternsRequest, queries: &Queries) -> Result<PatternsRequest, Status> {
    Ok(PatternsRequest {
        series: series(streams(request.series)?, queries).await?,
        step: step(request.step)?,
        detect_level: request.detect_level,
        limit: size(request.limit),
    })
}
