//! The querier: what it needs from outside, the feeds and tails that are open, and who may open another.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use prometheus_client::registry::Registry;
use tailwater_logql::LogQuery;
use tailwater_logql::ast::{LogExpr, MatchOp, Matcher};
use tailwater_model::{Clock, Limits, TenantId, TenantIds, TenantLimits, Timestamp};
use tailwater_wire::frame::TailEncoding;
use tailwater_wire::node::{Blocks, Node};
use tokio::sync::watch;

use crate::Error;
use crate::busy::busy;
use crate::feed::{Feed, FeedKey, FeedParts, FeedTenant, Feeds};
use crate::follows::Listed;
use crate::logs::{TENANT_LABEL, tenants_of};
use crate::metric_tail::MetricTails;
use crate::metrics::Metrics;
use crate::range::{check_range, past_lookback};
use crate::resume::{Refused, Secret, Token};
use crate::session::{Account, Session, SessionParts, TailInfo};
use crate::view::Boundaries;

/// Most tenants of a tail. Each is followed on every ingester.
pub(crate) const MAX_TAIL_TENANTS: usize = 256;

/// How long a tail waits for the first log there is.
const NO_INGESTER: Duration = Duration::from_secs(1);

/// The logs there are: one [`Node`] each, whoever answers for it.
pub trait Nodes: Send + Sync + 'static {
    /// Those of now, and word of changes. A log that is there once stays the same object; it is left out when it has ended for good.
    /// If the sender is gone they never change again, and a tail ends when everything that it follows has ended.
    fn nodes(&self) -> watch::Receiver<Arc<[Arc<dyn Node>]>>;

    /// Blocks, if it is the querier that reads them. Otherwise each node answers from its blocks, too.
    fn blocks(&self) -> Option<Arc<dyn Blocks>> {
        None
    }

    /// For how long the object store has answered nothing of what this process has asked it to read. 0 while nothing is asked, and where that
    /// is not known.
    fn unanswered(&self) -> Duration {
        Duration::ZERO
    }
}

/// Just these, for ever.
pub struct Fixed(watch::Receiver<Arc<[Arc<dyn Node>]>>);

impl Fixed {
    /// These nodes, in this order.
    #[must_use]
    pub fn new(nodes: Vec<Arc<dyn Node>>) -> Arc<Self> {
        Arc::new(Self(watch::channel(nodes.into()).1))
    }
}

impl Nodes for Fixed {
    fn nodes(&self) -> watch::Receiver<Arc<[Arc<dyn Node>]>> {
        self.0.clone()
    }
}

/// What an operator chooses.
#[derive(Clone, PartialEq, Eq)]
pub struct Config {
    /// A tail ends after this (`querier.tail_max_duration`).
    pub tail_max_duration: Duration,
    /// Most bytes of encoded frames that a feed keeps for sessions that lag (`querier.feed_ring_mb`).
    pub feed_ring_bytes: usize,
    /// Most bytes of lines that a feed holds back for `delay_for` (`querier.feed_merge_mb`).
    pub feed_merge_bytes: usize,
    /// Most bytes of the partial aggregates of a range aggregation, and of all series of a metric query (`querier.query_memory_mb`).
    pub query_memory_bytes: usize,
    /// Whether a query is answered without an ingester that cannot be reached, with a warning, or fails (`querier.allow_partial`).
    pub allow_partial: bool,
    /// What resume tokens are signed with: the same on every querier of a cluster (`querier.resume_secret`). None: something of this
    /// process alone, so a token is good for as long as that lives.
    pub resume_secret: Option<Vec<u8>>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            tail_max_duration: Duration::from_secs(3600),
            feed_ring_bytes: 8 << 20,
            feed_merge_bytes: 64 << 20,
            query_memory_bytes: 256 << 20,
            allow_partial: true,
            resume_secret: None,
        }
    }
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            tail_max_duration,
            feed_ring_bytes,
            feed_merge_bytes,
            query_memory_bytes,
            allow_partial,
            resume_secret,
        } = self;
        f.debug_struct("Config")
            .field("tail_max_duration", tail_max_duration)
            .field("feed_ring_bytes", feed_ring_bytes)
            .field("feed_merge_bytes", feed_merge_bytes)
            .field("query_memory_bytes", query_memory_bytes)
            .field("allow_partial", allow_partial)
            .field("resume_secret", &resume_secret.as_ref().map(|_| "…"))
            .finish()
    }
}

/// Whether a tail gets resume tokens, and where it begins.
#[derive(Clone, Debug, Default)]
pub enum Resume {
    /// It gets none.
    #[default]
    No,
    /// It begins as any other, and its frames have tokens.
    Give,
    /// It goes on where a token says, and its frames have tokens.
    From(Resumption),
}

/// A token that has been checked.
#[derive(Clone, Debug)]
pub struct Resumption(Box<Token>);

impl Resumption {
    /// How long the tail held lines back. It must go on so.
    #[must_use]
    pub fn delay_for(&self) -> Duration {
        self.0.delay
    }
}

/// What happens when a client reads slower than lines come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnSlow {
    /// It gets them later.
    #[default]
    Wait,
    /// It loses the oldest and is told so.
    Drop,
}

/// A tail that a client asks for.
#[derive(Clone)]
pub struct TailRequest {
    /// Whose lines. Of several tenants each line has its tenant as the label [`TENANT_LABEL`](crate::TENANT_LABEL), and matchers on
    /// that label say which of the tenants are followed.
    pub tenants: TenantIds,
    /// Which lines.
    pub expr: LogExpr,
    /// `expr`, compiled.
    pub query: Arc<LogQuery>,
    /// Most historic lines.
    pub limit: usize,
    /// Where history begins.
    pub start: Timestamp,
    /// How long lines are held back to be put in order.
    pub delay_for: Duration,
    /// The form of the frames.
    pub encoding: TailEncoding,
    /// What happens when the client is slow.
    pub on_slow: OnSlow,
    /// Whether its frames have resume tokens, and whether it goes on where one says: then `limit` and `start` mean nothing.
    pub resume: Resume,
    /// Whether its frames say which logs are away and which are back ([`tailwater_wire::frame::Notice`]).
    pub notices: bool,
}

/// See the crate.
pub struct Querier {
    config: Config,
    nodes: Arc<dyn Nodes>,
    limits: Arc<dyn TenantLimits>,
    clock: Arc<dyn Clock>,
    metrics: Metrics,
    feeds: Arc<Feeds>,
    tails: Arc<Tails>,
    metric_tails: MetricTails,
    boundaries: Boundaries,
    /// True when tails are to end.
    closing: watch::Sender<bool>,
    secret: Secret,
}

/// The open tails, under each of their tenants.
#[derive(Debug, Default)]
struct Tails {
    next_id: AtomicU64,
    open: Mutex<HashMap<TenantId, HashMap<u64, Arc<Account>>>>,
}

/// The right to be one of the tails of each of its tenants; given back when dropped.
#[derive(Debug)]
pub(crate) struct Admission {
    tails: Arc<Tails>,
    account: Arc<Account>,
}

impl Drop for Admission {
    fn drop(&mut self) {
        let mut open = self.tails.open.lock();
        for tenant in self.account.tenants.as_slice() {
            if let Some(of_tenant) = open.get_mut(tenant) {
                of_tenant.remove(&self.account.id);
                if of_tenant.is_empty() {
                    open.remove(tenant);
                }
            }
        }
    }
}

impl Querier {
    /// A querier over these ingesters.
    #[must_use]
    pub fn new(
        config: Config,
        nodes: Arc<dyn Nodes>,
        limits: Arc<dyn TenantLimits>,
        clock: Arc<dyn Clock>,
    ) -> Arc<Self> {
        Arc::new(Self {
            secret: Secret::new(config.resume_secret.as_deref()),
            config,
            nodes,
            limits,
            clock,
            metrics: Metrics::default(),
            feeds: Arc::default(),
            tails: Arc::default(),
            metric_tails: MetricTails::default(),
            boundaries: Boundaries::default(),
            closing: watch::Sender::new(false),
        })
    }

    /// Adds the querier's metrics to a registry.
    pub fn register_metrics(&self, registry: &mut Registry) {
        self.metrics.register(registry);
    }

    /// Ends all tails: those of metric queries at once, others when their follows have ended or, if they follow logs of other processes,
    /// soon.
    pub fn close(&self) {
        self.closing.send_replace(true);
        self.metric_tails.close();
    }

    /// Opens a tail: history from `start`, then live.
    ///
    /// # Errors
    /// The tenants' limits, or no ingester.
    pub async fn tail(&self, request: TailRequest) -> Result<Session, Error> {
        let named = request.tenants.as_slice();
        if named.len() > MAX_TAIL_TENANTS {
            return Err(Error::TooManyTenants { count: named.len(), limit: MAX_TAIL_TENANTS });
        }
        let limits = Limits::strictest(named.iter().map(|tenant| self.limits.limits(tenant)));
        let now = self.clock.now();
        // One that goes on has been checked when it began.
        let asked = if matches!(request.resume, Resume::From(_)) { now } else { request.start };
        if asked > now {
            return Err(past_lookback(limits.max_query_lookback));
        }
        let Some((start, _)) = check_range(&limits, asked, now, now)? else {
            return Err(past_lookback(limits.max_query_lookback));
        };
        let matchers = request.query.matchers().iter().len();
        if matchers > limits.max_streams_matchers_per_query {
            return Err(Error::TooManyMatchers { count: matchers, limit: limits.max_streams_matchers_per_query });
        }
        let (account, admission) = self.admit(&request.tenants, request.query.canonical().to_owned(), now)?;
        let (key, query) = self.key_of(&request)?;
        let feed = self.feed(key, query).await?;
        Ok(Session::join(
            feed,
            SessionParts {
                on_slow: request.on_slow,
                start,
                limit: request.limit,
                max_duration: self.config.tail_max_duration,
                account,
                clock: Arc::clone(&self.clock),
                metrics: self.metrics.clone(),
                admission,
                nodes: Arc::clone(&self.nodes),
                resume: match request.resume {
                    Resume::From(Resumption(token)) => Some(*token),
                    Resume::No | Resume::Give => None,
                },
            },
        ))
    }

    /// What a resume token says, if it is one for such a tail. What `request` says of where the tail begins does not matter.
    ///
    /// # Errors
    /// The token is none, or of another query.
    pub fn resumption(&self, request: &TailRequest, token: &str) -> Result<Resumption, Error> {
        let (key, _) = self.key_of(request)?;
        match self.secret.seal_of(&key).read(token) {
            Ok(token) => Ok(Resumption(Box::new(token))),
            Err(Refused::Invalid) => Err(Error::BadToken),
            Err(Refused::OfAnother) => Err(Error::TokenOfAnother),
        }
    }

    /// The feed that a tail shares, and its query.
    fn key_of(&self, request: &TailRequest) -> Result<(FeedKey, Arc<LogQuery>), Error> {
        let (query, followed) = followed(request)?;
        let tenant = |id: TenantId| {
            let limits = self.limits.limits(&id);
            FeedTenant { id, detect_level: limits.discover_log_levels && limits.allow_structured_metadata }
        };
        let key = FeedKey {
            tenants: followed.into_iter().map(tenant).collect(),
            names_tenants: request.tenants.as_slice().len() > 1,
            query: query.canonical().to_owned(),
            encoding: request.encoding.clone(),
            delay: request.delay_for,
            notices: request.notices,
            resume: !matches!(request.resume, Resume::No),
        };
        Ok((key, query))
    }

    /// Every open tail with its account.
    #[must_use]
    pub fn tails(&self) -> Vec<TailInfo> {
        let open = self.tails.open.lock();
        let mut all: Vec<TailInfo> = open
            .values()
            .flat_map(HashMap::values)
            .map(|account| TailInfo {
                id: account.id,
                tenants: account.tenants.clone(),
                query: account.query.clone(),
                opened_at: account.opened_at,
                ledger: account.ledger(),
            })
            .collect();
        all.sort_by_key(|tail| tail.id);
        // A tail of several tenants is there once for each.
        all.dedup_by_key(|tail| tail.id);
        all
    }

    /// The logs there are, possibly none.
    pub(crate) fn nodes_now(&self) -> Vec<Arc<dyn Node>> {
        self.nodes.nodes().borrow().to_vec()
    }

    /// Blocks, if they are read here.
    pub(crate) fn blocks(&self) -> Option<Arc<dyn Blocks>> {
        self.nodes.blocks()
    }

    pub(crate) fn boundaries(&self) -> &Boundaries {
        &self.boundaries
    }

    /// The logs there are and will be, if there is one within [`NO_INGESTER`].
    pub(crate) async fn listed(&self) -> Result<Listed, Error> {
        let mut listed = self.nodes.nodes();
        let some = listed.wait_for(|nodes| !nodes.is_empty());
        let some = matches!(tokio::time::timeout(NO_INGESTER, some).await, Ok(Ok(_)));
        if some { Ok(self.nodes.nodes()) } else { Err(Error::NoIngester) }
    }

    pub(crate) fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    pub(crate) fn config(&self) -> &Config {
        &self.config
    }

    pub(crate) fn limits(&self) -> &dyn TenantLimits {
        self.limits.as_ref()
    }

    pub(crate) fn shared_limits(&self) -> Arc<dyn TenantLimits> {
        Arc::clone(&self.limits)
    }

    pub(crate) fn clock(&self) -> Arc<dyn Clock> {
        Arc::clone(&self.clock)
    }

    pub(crate) fn metric_tails(&self) -> &MetricTails {
        &self.metric_tails
    }

    pub(crate) fn strictest_timeout(&self, tenants: &TenantIds) -> Duration {
        let timeouts = tenants.as_slice().iter().map(|t| self.limits.limits(t).query_timeout);
        timeouts.filter(|t| !t.is_zero()).min().unwrap_or(Duration::from_secs(365 * 24 * 3600))
    }

    pub(crate) fn admit(
        &self,
        tenants: &TenantIds,
        query: String,
        now: Timestamp,
    ) -> Result<(Arc<Account>, Admission), Error> {
        let id = self.tails.next_id.fetch_add(1, Ordering::Relaxed) + 1;
        let account = Arc::new(Account::new(id, tenants.clone(), query, now));
        let named = tenants.as_slice();
        let mut open = self.tails.open.lock();
        for tenant in named {
            let limit = self.limits.limits(tenant).max_concurrent_tail_requests;
            let count = open.get(tenant).map_or(0, HashMap::len) as u32 + 1;
            if limit > 0 && count > limit {
                return Err(Error::TooManyTails { count, limit });
            }
        }
        for tenant in named {
            open.entry(tenant.clone()).or_default().insert(id, Arc::clone(&account));
        }
        drop(open);
        Ok((Arc::clone(&account), Admission { tails: Arc::clone(&self.tails), account }))
    }

    /// The feed of this key, opened if there is none.
    async fn feed(&self, key: FeedKey, query: Arc<LogQuery>) -> Result<Arc<Feed>, Error> {
        let open = |feed: &Weak<Feed>| feed.upgrade().filter(|feed| !feed.ring.lock().ended());
        if let Some(feed) = self.feeds.lock().get(&key).and_then(open) {
            return Ok(feed);
        }
        let parts = FeedParts {
            nodes: self.listed().await?,
            closing: self.closing.subscribe(),
            query,
            clock: Arc::clone(&self.clock),
            metrics: self.metrics.clone(),
            seal: key.resume.then(|| self.secret.seal_of(&key)),
            ring_bytes: self.config.feed_ring_bytes,
            merge_bytes: self.config.feed_merge_bytes,
        };
        let opened = Feed::open(key.clone(), parts, Arc::downgrade(&self.feeds)).await?;
        let mut feeds = self.feeds.lock();
        // Another tail may have been quicker; the one that is there is shared, ours is dropped (outside the lock, see its Drop).
        if let Some(feed) = feeds.get(&key).and_then(open) {
            drop(feeds);
            return Ok(feed);
        }
        feeds.insert(key, Arc::downgrade(&opened));
        drop(feeds);
        Ok(opened)
    }
}

/// Which tenants a tail follows, and with which query.
fn followed(request: &TailRequest) -> Result<(Arc<LogQuery>, Vec<TenantId>), Error> {
    let named = request.tenants.as_slice();
    let on_tenant = |matcher: &Matcher| matcher.name == TENANT_LABEL;
    if named.len() == 1 || !request.expr.selector.iter().any(on_tenant) {
        return Ok((Arc::clone(&request.query), named.to_vec()));
    }
    let (mut selector, mut followed) = tenants_of(&request.expr.selector, &request.tenants)?;
    if followed.is_empty() {
        // A tail of nothing lives and ends as any other: it follows what no stream can match.
        let equal = |value: &str| Matcher { name: TENANT_LABEL.to_owned(), op: MatchOp::Eq, value: value.into() };
        selector = vec![equal("a"), equal("b")];
        followed.extend(named.first().cloned());
    }
    let expr = LogExpr { selector, stages: request.expr.stages.clone() };
    Ok((Arc::new(busy(|| LogQuery::compile(&expr))?), followed))
}
