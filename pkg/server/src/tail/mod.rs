//! Live tails: `/loki/api/v1/tail` and `/api/prom/tail` (contract, Loki API §3). A request is checked completely, then answered with 101;
//! what goes wrong later is a close frame.

mod codec;
mod handshake;
mod metric;
mod noticed;
mod resume;
mod socket;

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::header::USER_AGENT;
use axum::http::{HeaderMap, HeaderValue};
use axum::response::{IntoResponse, Response};
use hyper::upgrade::Parts;
use hyper_util::rt::TokioIo;
use serde_json::json;
use tailwater_logql::LogQuery;
use tailwater_logql::ast::Expr;
use tailwater_logql::syntax;
use tailwater_model::TenantId;
use tailwater_querier::{
    EndReason, Error, Ledger, MetricSession, MetricTailRequest, OnSlow, Resume, Session, SessionEvent, TailRequest,
    busy,
};
use tailwater_wire::frame::TailEncoding;

use self::socket::{Frames, Manners, Next, Socket};
use crate::answer::{self, Failure};
use crate::app::App;
use crate::conn::Connection;
use crate::drain;
use crate::form::Form;
use crate::params::TailParams;
use crate::read::{encoding, is_legacy, query_string};
use crate::server::Seat;
use crate::tenancy::Claim;

/// Why a tail ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct End {
    /// For the metric.
    pub(crate) label: &'static str,
    /// For the client.
    pub(crate) reason: String,
    /// Clients that can should open the tail again, here or elsewhere.
    pub(crate) resumable: bool,
}

/// What Explore and its proxy call themselves. Explore reconnects only when the connection just ends, and shows the last lines only
/// when something follows them.
const GRAFANA: &str = "Grafana/";

/// What a tail of a metric query is told.
const NOT_LOG: &str = "only log selector is supported";

/// What tails are told when the process goes down.
pub(crate) const GOING_DOWN: &str = "all ingesters closed the connection";

/// What a tail asks the querier for.
enum Wanted {
    Lines(TailRequest),
    Steps(MetricTailRequest),
}

/// A tail that the querier has opened.
enum Tail {
    Lines(Box<Session>),
    Steps(MetricSession),
}

/// A request that passed every check.
struct Accepted {
    /// What to tail; none for a metric query whose client does not ask for steps.
    request: Option<Wanted>,
    manners: Manners,
}

/// Answers a request for a tail.
pub(crate) async fn tail(State(app): State<Arc<App>>, mut request: Request) -> Response {
    if let Some(refusal) = drain::refusal(&app, &request) {
        return refusal;
    }
    let accepted = match check(&app, &request) {
        Ok(accepted) => accepted,
        Err(failure) => return failure.into_response(),
    };
    let response = match handshake::accept(request.method(), request.headers()) {
        Ok(response) => response,
        Err(refused) => return *refused,
    };
    let upgrade = hyper::upgrade::on(&mut request);
    let place = (app.tails.open(), request.extensions_mut().remove::<Arc<Seat>>());
    drop(request);
    tokio::spawn(async move {
        let _place = place;
        let Ok(upgraded) = upgrade.await else { return };
        // Every connection of this server is one of these.
        let Ok(Parts { io, read_buf, .. }) = upgraded.downcast::<TokioIo<Connection>>() else { return };
        let socket = Socket::new(io.into_inner().into_bare(), app.metrics.clone());
        // A copy of usually nothing: what hyper read ahead sits in its buffer of 8 KiB, which an idle tail must not keep.
        let early = read_buf.to_vec();
        drop(read_buf);
        run(&app, socket, &early, accepted).await;
    });
    response
}

async fn run(app: &App, mut socket: Socket, early: &[u8], accepted: Accepted) {
    let Accepted { request, manners } = accepted;
    app.metrics.tail_sockets.inc();
    let wants_notices = match &request {
        Some(Wanted::Lines(lines)) if lines.notices => Some(lines.encoding.clone()),
        _ => None,
    };
    let session = match request {
        None => Err(End { label: "refused", reason: NOT_LOG.to_owned(), resumable: false }),
        Some(wanted) => Box::pin(open(app, wanted)).await.map_err(|error| {
            let Failure { status, text, .. } = error.into();
            let reason = format!("rpc error: code = Code({}) desc = {text}", status.as_u16());
            End { label: "refused", reason, resumable: false }
        }),
    };
    let label = match session {
        Err(end) => Box::pin(socket.refuse(end, manners)).await,
        Ok(mut session) => {
            let draining = wants_notices.map(|encoding| (app.tails.draining(), encoding));
            let mut frames = noticed::Noticed::new(&mut session, draining);
            let ended = Box::pin(socket.run(early, &mut frames, manners, app.tails.cut())).await;
            let (id, ledger) = (session.id(), session.ledger());
            // The tenant may open another tail while this one's client is still being told goodbye.
            drop(session);
            let label = Box::pin(socket.end(ended, manners)).await;
            tracing::debug!(
                tail = id,
                reason = label,
                matched = ledger.matched,
                delivered = ledger.delivered,
                dropped = ledger.dropped,
                trimmed = ledger.trimmed,
                "tail ended"
            );
            label
        }
    };
    app.metrics.tail_closed(label);
    app.metrics.tail_sockets.dec();
}

async fn open(app: &App, wanted: Wanted) -> Result<Tail, Error> {
    Ok(match wanted {
        Wanted::Lines(request) => Tail::Lines(Box::new(app.querier.tail(request).await?)),
        Wanted::Steps(request) => Tail::Steps(app.querier.tail_metric(request).await?),
    })
}

impl Tail {
    fn id(&self) -> u64 {
        match self {
            Self::Lines(session) => session.id(),
            Self::Steps(session) => session.id(),
        }
    }

    fn ledger(&self) -> Ledger {
        match self {
            Self::Lines(session) => session.ledger(),
            Self::Steps(session) => session.ledger(),
        }
    }
}

impl Frames for Tail {
    async fn next(&mut self) -> Next {
        let event = match self {
            Self::Lines(session) => session.next().await,
            Self::Steps(session) => session.next().await,
        };
        match event {
            SessionEvent::Frame(frame) => Next::Frame(frame),
            SessionEvent::End(reason) => Next::End(match reason {
                // The canary compares this text exactly.
                EndReason::MaxDuration => {
                    End { label: "max_duration", reason: "reached tail max duration limit".to_owned(), resumable: true }
                }
                EndReason::IngestersGone => {
                    End { label: "ingesters_gone", reason: GOING_DOWN.to_owned(), resumable: true }
                }
                EndReason::Failed(reason) => End { label: "failed", reason, resumable: false },
            }),
        }
    }
}

/// Everything but the handshake, in Loki's order: parameters, then the tenant.
fn check(app: &App, request: &Request) -> Result<Accepted, Failure> {
    let headers = request.headers();
    let claim = app.tenancy.claim(headers)?;
    let form = Form::parse(b"", &query_string(request.uri(), headers)).map_err(Failure::bad_request)?;
    let (query, metric) = match busy(|| syntax::parse(form.get("query")))? {
        Expr::Log(expr) => {
            let compiled = busy(|| LogQuery::compile(&expr))?;
            (Some((expr, Arc::new(compiled))), None)
        }
        Expr::Metric(expr) => (None, Some(expr)),
    };
    check_regexp(form.get("regexp"))?;
    let params = TailParams::parse(&form, app.clock.now()).map_err(Failure::bad_request)?;
    let on_slow = match form.get("on_slow") {
        "" | "wait" => OnSlow::Wait,
        "drop" => OnSlow::Drop,
        other => return Err(Failure::bad_request(format!("invalid on_slow '{other}', expected wait or drop"))),
    };
    let is_grafana = headers.get(USER_AGENT).is_some_and(|agent| agent.as_bytes().starts_with(GRAFANA.as_bytes()));
    let heartbeat = match form.get("heartbeat") {
        "" => is_grafana,
        "1" | "true" => true,
        "0" | "false" => false,
        other => return Err(Failure::bad_request(format!("invalid heartbeat '{other}', expected 0 or 1"))),
    };
    let notices = flag(&form, "notices")?;
    let resume = resume::asked(&form, headers);
    if metric::asked(&form)? {
        resume.check_steps()?;
        let request = metric::request(app, request.uri(), &form, &params, on_slow, metric, claim)?;
        // Every step is a sign of life.
        let manners = Manners { heartbeat: false, drop_to_resume: is_grafana };
        return Ok(Accepted { request: Some(Wanted::Steps(request)), manners });
    }
    let tenants = app.tenancy.tailed(claim)?;
    let encoding = if is_legacy(request.uri()) { TailEncoding::Legacy } else { encoding(headers) };
    let request = query.map(|(expr, query)| {
        let request = TailRequest {
            tenants,
            expr,
            query,
            limit: params.limit as usize,
            start: params.start,
            delay_for: params.delay_for,
            encoding,
            on_slow,
            resume: Resume::No,
            notices,
        };
        resume.of(app, &form, request).map(Wanted::Lines)
    });
    let request = request.transpose()?;
    Ok(Accepted { request, manners: Manners { heartbeat, drop_to_resume: is_grafana } })
}

/// A parameter that is on or off; off if it is not there.
fn flag(form: &Form, name: &str) -> Result<bool, Failure> {
    match form.get(name) {
        "" | "0" | "false" => Ok(false),
        "1" | "true" => Ok(true),
        other => Err(Failure::bad_request(format!("invalid {name} '{other}', expected true or false"))),
    }
}

/// As in Loki the parameter filters nothing, but it has to be a regular expression.
fn check_regexp(pattern: &str) -> Result<(), Failure> {
    tailwater_logql::regex::validate(pattern).map_err(Failure::bad_request)
}

/// `/api/v1/tails`: the open tails with their accounts; with tenants, those of the asking ones. A tail of several tenants is shown to
/// those who may see all of them.
pub(crate) async fn list(State(app): State<Arc<App>>, headers: HeaderMap) -> Response {
    let mine: Option<Vec<TenantId>> = match app.tenancy.claim(&headers) {
        Err(failure) => return failure.into_response(),
        Ok(Claim::Nobody(_)) => None,
        Ok(claim) => match app.tenancy.several(claim) {
            Ok(tenants) => Some(tenants.as_slice().to_vec()),
            Err(failure) => return failure.into_response(),
        },
    };
    let tails: Vec<_> = app
        .querier
        .tails()
        .into_iter()
        .filter(|tail| {
            mine.as_ref().is_none_or(|mine| tail.tenants.as_slice().iter().all(|tenant| mine.contains(tenant)))
        })
        .map(|tail| {
            json!({
                "id": tail.id,
                "tenant": tail.tenants.to_string(),
                "query": tail.query,
                "opened_at": tail.opened_at.nanos().to_string(),
                "ledger": {
                    "matched": tail.ledger.matched,
                    "delivered": tail.ledger.delivered,
                    "dropped": tail.ledger.dropped,
                    "trimmed": tail.ledger.trimmed,
                },
            })
        })
        .collect();
    let mut response = answer::ok(answer::JSON_UTF8, json!({ "tails": tails }).to_string());
    response.headers_mut().insert("cache-control", HeaderValue::from_static("no-store"));
    response
}
