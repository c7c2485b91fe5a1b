//! Sends batches one after the other, and tries again what may succeed later.
//!
//! What Loki's clients do: 429, 5xx and broken connections are tried again with the same body and growing pauses; any other
//! refusal is final (a 400 has stored the good lines: sending it again would double them).

use std::time::Duration;

use bytes::Bytes;
use tokio::time::sleep;

use crate::client::{Answer, Http, hint, is_temporary};
use crate::signals::Stop;
use crate::terminal::escape;

const PATH: &str = "/loki/api/v1/push";
/// Content type of a protobuf body.
pub(crate) const PROTOBUF: &str = "application/x-protobuf";

/// Pauses between tries.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Backoff {
    /// Before the second try.
    pub(crate) first: Duration,
    /// The longest.
    pub(crate) longest: Duration,
    /// How often a batch is tried again before it is given up.
    pub(crate) retries: u32,
}

/// What became of a batch.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Every line is stored.
    Accepted,
    /// The server refused some or all of it, and says why.
    Refused(String),
    /// It was tried as often as it may be; the last reason.
    GivenUp(String),
}

/// Sends batches over one connection.
pub(crate) struct Sender {
    http: Http,
    backoff: Backoff,
    stop: Stop,
    retries: u64,
}

impl Sender {
    /// A sender that gives up early once the user asks to stop.
    pub(crate) fn new(http: Http, backoff: Backoff, stop: Stop) -> Self {
        Self { http, backoff, stop, retries: 0 }
    }

    /// How many tries were not the first.
    pub(crate) fn retries(&self) -> u64 {
        self.retries
    }

    /// Sends a body; `notice` hears of the first failure that is tried again.
    pub(crate) async fn send(&mut self, body: Bytes, notice: &mut (dyn FnMut(String) + Send)) -> Outcome {
        let mut pause = self.backoff.first;
        let mut told = false;
        for tried in 0.. {
            let why = match self.http.post(PATH, PROTOBUF, body.clone()).await {
                Ok(answer) if answer.status.is_success() => return Outcome::Accepted,
                Ok(answer) if !is_temporary(answer.status) => return Outcome::Refused(told_by(&answer)),
                Ok(answer) => told_by(&answer),
                Err(e) => e.to_string(),
            };
            if tried >= self.backoff.retries || (self.stop.asked() && tried > 0) {
                return Outcome::GivenUp(why);
            }
            if !told {
                notice(format!("{why}\n  trying again"));
                told = true;
            }
            self.retries += 1;
            tokio::select! {
                () = self.stop.wait() => {}
                () = sleep(pause) => {}
            }
            pause = (pause * 2).min(self.backoff.longest);
        }
        Outcome::GivenUp("too many tries".to_owned())
    }
}

fn told_by(answer: &Answer) -> String {
    let text = answer.text();
    format!("the server answered {}: {}{}", answer.status, escape::message(&text), hint(answer.status, &text))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::push::batch::Batch;
    use crate::testing::FakeLoki;
    use tailwater_model::Timestamp;

    const QUICK: Backoff = Backoff { first: Duration::from_millis(1), longest: Duration::from_millis(2), retries: 3 };

    async fn send(pushes: Vec<(u16, &'static str)>) -> (Outcome, u64, usize, Vec<String>) {
        let loki = FakeLoki::start(vec![], pushes).await;
        let (_ask, stop) = Stop::manual();
        let mut sender = Sender::new(Http::new(loki.endpoint()), QUICK, stop);
        let mut batch = Batch::new();
        batch.add(Bytes::from_static(b"line"), Timestamp(7));
        let mut said = Vec::new();
        let body = batch.take_body("{app=\"a\"}").unwrap();
        let outcome = sender.send(body, &mut |text| said.push(text)).await;
        (outcome, sender.retries(), loki.stored().len(), said)
    }

    #[tokio::test]
    async fn what_may_pass_later_is_tried_again_and_told_once() {
        let (outcome, retries, stored, said) = send(vec![(429, "ingestion rate limit exceeded"), (503, "wait")]).await;
        assert_eq!((outcome, retries, stored, said.len()), (Outcome::Accepted, 2, 1, 1));
        assert!(said[0].contains("limits_config.ingestion_rate_mb"), "{}", said[0]);
    }

    #[tokio::test]
    async fn a_refusal_is_final_and_keeps_the_servers_text() {
        let (outcome, retries, stored, _) = send(vec![(400, "entry too old\n")]).await;
        assert_eq!(outcome, Outcome::Refused("the server answered 400 Bad Request: entry too old".to_owned()));
        assert_eq!((retries, stored), (0, 0));
    }

    #[tokio::test]
    async fn a_server_that_stays_in_trouble_is_given_up() {
        let (outcome, retries, _, _) = send(vec![(500, "x"), (500, "x"), (500, "x"), (500, "last"), (500, "x")]).await;
        assert!(matches!(outcome, Outcome::GivenUp(why) if why.contains("last")));
        assert_eq!(retries, 3);
    }
}
