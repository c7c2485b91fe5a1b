//! Pushes that are stored elsewhere.
//!
//! Invariants:
//! * A push is tried on another node only if nothing of it is where it was sent first: no connection, or a refusal that says so. Once it may
//!   have been taken in it is answered 503, so that nobody but its sender, who knows what to do about it, sends it twice.
//! * The client gets status and text as they would be without the detour.

use std::time::Duration;

use axum::http::StatusCode;
use tailwater_wire::host::{ForwardedPush, PushAnswer};

use super::Later;
use crate::answer::Failure;
use crate::intake::NOT_HERE;
use crate::metrics::Metrics;
use crate::quiet::Quiet;

/// Most nodes that a push is tried on.
const MAX_ATTEMPTS: usize = 3;

/// How often a node is asked for: the one that is named may have been tried.
const MAX_PICKS: usize = 12;

/// How long a node may take to answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// When the sender may try again, in seconds.
const RETRY: u32 = 1;

/// Nodes that cannot be reached are logged, but not for each push of a flood.
static UNREACHABLE: Quiet = Quiet::new();

/// Names a node that takes pushes, and how one gets there. It may name the same one again.
pub(crate) type Pick = Box<dyn Fn() -> Option<Taker> + Send + Sync>;

/// A node that takes pushes.
pub(crate) struct Taker {
    /// Its name.
    pub(crate) name: String,
    pub(crate) send: Box<dyn FnOnce(ForwardedPush) -> Later<Result<PushAnswer, Lost>> + Send>,
}

/// What became of a push that was not answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Lost {
    /// Nothing of it left this process, or what did was refused unread.
    Before(String),
    /// It may have been taken in.
    After(String),
}

/// See the module.
pub(crate) struct Forward {
    pick: Pick,
    metrics: Metrics,
}

impl Forward {
    pub(crate) fn new(pick: Pick, metrics: Metrics) -> Self {
        Self { pick, metrics }
    }

    /// Has the push stored by another node.
    ///
    /// # Errors
    /// What the client is told: what that node says, or 503.
    pub(crate) async fn send(&self, push: ForwardedPush) -> Result<(), Failure> {
        let mut tried: Vec<String> = Vec::new();
        let mut why = "there is none that takes pushes now".to_owned();
        for _ in 0..MAX_PICKS {
            let Some(Taker { name, send }) = (self.pick)().filter(|_| tried.len() < MAX_ATTEMPTS) else { break };
            if tried.contains(&name) {
                continue;
            }
            let answer = tokio::time::timeout(PATIENCE, send(push.clone())).await;
            match answer.unwrap_or_else(|_elapsed| Err(Lost::After(format!("no answer within {PATIENCE:?}")))) {
                Ok(PushAnswer { status, message }) if status == NOT_HERE.as_u16() => {
                    self.metrics.forwarded("elsewhere");
                    why = format!("ingester {name}: {message}");
                }
                Ok(PushAnswer { status, message }) => return self.answered(status, message),
                Err(Lost::Before(reason)) => {
                    self.metrics.forwarded("unreachable");
                    if let Some(unheard) = UNREACHABLE.speak() {
                        tracing::warn!(node = name, reason, unheard, "a push cannot be sent to a node");
                    }
                    why = format!("ingester {name}: {reason}");
                }
                Err(Lost::After(reason)) => {
                    self.metrics.forwarded("unknown");
                    let text = format!("the push may have been stored or not: ingester {name}: {reason}");
                    return Err(unavailable(text));
                }
            }
            tried.push(name);
        }
        Err(unavailable(format!("no ingester can be reached: {why}")))
    }

    fn answered(&self, status: u16, message: String) -> Result<(), Failure> {
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::SERVICE_UNAVAILABLE);
        if status.is_success() {
            self.metrics.forwarded("stored");
            return Ok(());
        }
        self.metrics.forwarded("refused");
        let failure = Failure::new(status, message);
        Err(if status == StatusCode::SERVICE_UNAVAILABLE { failure.retry_after(RETRY) } else { failure })
    }
}

fn unavailable(text: String) -> Failure {
    Failure::new(StatusCode::SERVICE_UNAVAILABLE, text).retry_after(RETRY)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;
    use parking_lot::Mutex;
    use prometheus_client::registry::Registry;
    use tailwater_model::TenantId;

    use super::*;

    type Script = Vec<(&'static str, Result<PushAnswer, Lost>)>;

    fn answer(status: u16, message: &str) -> Result<PushAnswer, Lost> {
        Ok(PushAnswer { status, message: message.to_owned() })
    }

    /// Forwards along a script; answers what the client is told, and who was sent the push.
    async fn run(script: Script) -> (Result<(), (u16, String)>, Vec<&'static str>) {
        let script = Arc::new(Mutex::new(script.into_iter()));
        let sent = Arc::new(Mutex::new(Vec::new()));
        let own = Arc::clone(&sent);
        let pick: Pick = Box::new(move || {
            let (name, answer) = script.lock().next()?;
            let sent = Arc::clone(&own);
            let send = Box::new(move |_push: ForwardedPush| {
                sent.lock().push(name);
                Box::pin(async move { answer }) as Later<_>
            });
            Some(Taker { name: name.to_owned(), send })
        });
        let forward = Forward::new(pick, Metrics::register(&mut Registry::default()));
        let push = ForwardedPush { tenant: TenantId::parse("t").unwrap(), body: Bytes::from_static(b"x") };
        let told = forward.send(push).await.map_err(|failure| (failure.status.as_u16(), failure.text));
        let sent = sent.lock().clone();
        (told, sent)
    }

    #[tokio::test]
    async fn what_never_arrived_goes_elsewhere_and_nothing_else_does() {
        let before = || Err(Lost::Before("refused".to_owned()));
        let (told, sent) =
            run(vec![("a", before()), ("a", before()), ("b", answer(421, "no")), ("c", answer(204, ""))]).await;
        assert_eq!((told, sent), (Ok(()), vec!["a", "b", "c"]));

        let (told, sent) = run(vec![("a", Err(Lost::After("reset".to_owned()))), ("b", answer(204, ""))]).await;
        let text = "the push may have been stored or not: ingester a: reset".to_owned();
        assert_eq!((told, sent), (Err((503, text)), vec!["a"]));

        for status in [400, 429, 503, 500] {
            let (told, sent) = run(vec![("a", answer(status, "Loki's words")), ("b", answer(204, ""))]).await;
            assert_eq!((told, sent), (Err((status, "Loki's words".to_owned())), vec!["a"]));
        }
    }

    #[tokio::test]
    async fn attempts_have_an_end() {
        let before = || Err(Lost::Before("refused".to_owned()));
        let (told, sent) = run(["a", "b", "c", "d"].map(|name| (name, before())).to_vec()).await;
        assert_eq!(told, Err((503, "no ingester can be reached: ingester c: refused".to_owned())));
        assert_eq!(sent, ["a", "b", "c"]);
        let (told, sent) = run(vec![("a", before()); 50]).await;
        assert_eq!((told.unwrap_err().0, sent.len()), (503, 1));
        let (told, _) = run(Vec::new()).await;
        assert_eq!(told, Err((503, "no ingester can be reached: there is none that takes pushes now".to_owned())));
    }
}
