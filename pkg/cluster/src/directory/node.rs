//! One log, whoever answers for it.
//!
//! Invariants:
//! * The owner is asked if it can be reached. Otherwise the copy that is furthest without a loss of its own is.
//! * A copy answers only for what it has: who asks up to a position is not answered by a copy that ends before it.
//! * Of several copies any may be the one that has everything that was acknowledged: the owner changes its followers, and one that it left
//!   keeps what it had. So all that gossip takes for being there are waited for, and an answer of a copy is whole if all others that have
//!   one said how far they are; otherwise it says that it may lack something.

use std::sync::Arc;

use futures_util::stream::unfold;
use tailwater_logql::patterns::Pattern;
use tailwater_model::{Labels, LogId};
use tailwater_wire::node::{
    Answer, Follow, FollowRequest, LabelsRequest, LogState, Node, NodeError, Partial, PatternsRequest, ReadChunk,
    ReadRequest, Sampled, SamplesRequest, SelectRequest, Selected, SeriesRequest, StateRequest, Stats, StreamVolume,
    VolumeRequest,
};

use super::follow::Following;
use super::lacking::Lacking;
use super::places::{Heads, Known, Place};

/// See the module.
pub(super) struct LogNode(pub(super) Arc<Known>);

impl LogNode {
    /// Asks one after the other. Whoever answers has to have everything up to `needs`.
    fn ask<R, T>(&self, request: R, needs: u64, call: fn(&dyn Node, R) -> Answer<T>) -> Answer<T>
    where
        R: Clone + Send + Sync + 'static,
        T: Lacking + Send + 'static,
    {
        let known = Arc::clone(&self.0);
        Box::pin(async move { ask(&known, request, needs, call).await })
    }
}

async fn ask<R, T>(known: &Known, request: R, needs: u64, call: fn(&dyn Node, R) -> Answer<T>) -> Result<T, NodeError>
where
    R: Clone + Send + Sync + 'static,
    T: Lacking + Send + 'static,
{
    let places = known.places();
    let mut reasons = Vec::new();
    let owner = places.owner();
    let has_copies = places.list.iter().any(|place| !place.owner && place.usable);
    let first = owner.filter(|owner| owner.is_well());
    if let Some(owner) = first {
        match at(known, owner, request.clone(), call, has_copies).await {
            Ok(answer) => return answer,
            Err(reason) => reasons.push(reason),
        }
    }
    // As of a position that a copy has it lacks nothing.
    let tells = T::TELLS && needs == 0;
    // Gossip may be late: an owner that has come back answers before it is known to be there, and may have more than any copy.
    let Heads { list, mut silent } = known.heads(places.list.iter(), needs == 0).await;
    for (head, place) in list {
        if place.owner {
            match at(known, &place, request.clone(), call, false).await {
                Ok(answer) => return answer,
                Err(reason) => reasons.push(reason),
            }
            continue;
        }
        if head < needs {
            reasons.push(format!("the copy on {} ends at {head}, before {needs}", place.name));
            continue;
        }
        if tells && known.certain && !silent.is_empty() {
            reasons.push(format!(
                "the copy on {} may lack what {} had, which did not answer",
                place.name,
                silent.join(", ")
            ));
            break;
        }
        match at(known, &place, request.clone(), call, false).await {
            Ok(answer) => {
                known.metrics.failovers.inc();
                let lacks = tells && !silent.is_empty();
                return answer.map(|answer| if lacks { uncertain(known, answer, &place, &silent) } else { answer });
            }
            Err(reason) => {
                reasons.push(reason);
                // It said how far it is, which may be further than the next one.
                silent.push(place.name.clone());
            }
        }
    }
    // Gossip may be wrong, and what failed a moment ago may work again.
    if let (Some(owner), None) = (owner, first) {
        match at(known, owner, request, call, false).await {
            Ok(answer) => return answer,
            Err(reason) => reasons.push(reason),
        }
    }
    known.metrics.unavailable.inc();
    if reasons.is_empty() {
        reasons.push("no node that has it is known".to_owned());
    }
    Err(NodeError::Unavailable { log: known.log, reason: reasons.join("; ") })
}

/// The answer of a copy, while others that have one did not say how far they are.
fn uncertain<T: Lacking>(known: &Known, mut answer: T, place: &Place, silent: &[String]) -> T {
    known.metrics.uncertain.inc();
    let (log, name, silent) = (known.log, &place.name, silent.join(", "));
    answer.lacks(format!(
        "the answer may be partial: of the log {log} only the copy on {name} could be asked; it may lack the newest lines, since {silent} \
         did not answer"
    ));
    answer
}

/// The answer of one node, or why it has none. `impatient`: do not wait for a node that gossip takes for dead.
async fn at<R, T>(
    known: &Known,
    place: &Place,
    request: R,
    call: fn(&dyn Node, R) -> Answer<T>,
    impatient: bool,
) -> Result<Result<T, NodeError>, String> {
    let Some(node) = place.node(known.log) else { return Err(format!("{} has it no more", place.name)) };
    let mut changes = known.places.subscribe();
    let dead = async {
        if !impatient {
            return std::future::pending().await;
        }
        let usable = |at: &&Arc<Place>| at.name == place.name && at.usable;
        // The sender outlives the call: `known` has it.
        let _ = changes.wait_for(|places| !places.list.iter().any(|at| usable(&at))).await;
    };
    let answer = tokio::select! {
        biased;
        answer = call(&*node, request) => answer,
        () = dead => Err(NodeError::Unavailable { log: known.log, reason: format!("{} is silent", place.name) }),
    };
    match answer {
        Err(NodeError::Unavailable { reason, .. }) => {
            place.failed();
            Err(reason)
        }
        answer => {
            place.answered();
            Ok(answer)
        }
    }
}

/// What has to be there to answer as of a position; some ask for whatever there is.
fn needs(as_of: u64) -> u64 {
    if as_of == u64::MAX { 0 } else { as_of }
}

impl Node for LogNode {
    fn log_id(&self) -> LogId {
        self.0.log
    }

    fn state(&self, request: StateRequest) -> Answer<LogState> {
        self.ask(request, 0, |node, request| node.state(request))
    }

    fn follow(&self, request: FollowRequest) -> Follow {
        let following = Following::new(Arc::clone(&self.0), request);
        Box::pin(unfold(following, |mut following| async move { Some((following.next().await?, following)) }))
    }

    fn read(&self, request: ReadRequest) -> Answer<ReadChunk> {
        let needs = needs(request.through).max(request.after);
        self.ask(request, needs, |node, request| node.read(request))
    }

    fn select(&self, request: SelectRequest) -> Answer<Selected> {
        let needs = needs(request.as_of);
        self.ask(request, needs, |node, request| node.select(request))
    }

    fn samples(&self, request: SamplesRequest) -> Answer<Sampled> {
        let needs = needs(request.as_of).max(request.after);
        self.ask(request, needs, |node, request| node.samples(request))
    }

    fn labels(&self, request: LabelsRequest) -> Answer<Partial<Vec<String>>> {
        self.ask(request, 0, |node, request| node.labels(request))
    }

    fn series(&self, request: SeriesRequest) -> Answer<Partial<Vec<Labels>>> {
        self.ask(request, 0, |node, request| node.series(request))
    }

    fn stats(&self, request: SeriesRequest) -> Answer<Partial<Stats>> {
        self.ask(request, 0, |node, request| node.stats(request))
    }

    fn volume(&self, request: VolumeRequest) -> Answer<Partial<Vec<StreamVolume>>> {
        self.ask(request, 0, |node, request| node.volume(request))
    }

    fn patterns(&self, request: PatternsRequest) -> Answer<Partial<Vec<Pattern>>> {
        self.ask(request, 0, |node, request| node.patterns(request))
    }
}
