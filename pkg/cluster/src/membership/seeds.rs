//! Whom a node asks first: addresses and names, which are looked up again and again, since who is behind a name changes.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use futures_util::future::join_all;
use tailwater_model::jittered;
use tokio::net::lookup_host;
use tokio::sync::{mpsc, watch};
use tokio::time::{sleep, timeout};

/// How often seeds are asked while nobody else is known.
const ALONE: Duration = Duration::from_secs(1);

/// How often they are asked otherwise: two halves of a cluster that have forgotten each other find each other by this.
const SETTLED: Duration = Duration::from_secs(15);

/// How long a name may take to look up.
const LOOK_UP: Duration = Duration::from_secs(5);

/// Most addresses that are asked at a time, by chance.
const MAX_ASKED: usize = 16;

/// Looks seeds up and says whom to ask, for as long as it is listened to. `alone`: whether nobody else is known.
pub(super) async fn run(seeds: Vec<String>, alone: watch::Receiver<bool>, ask: mpsc::Sender<Vec<SocketAddr>>) {
    let mut failing = BTreeSet::new();
    loop {
        let mut found = BTreeSet::new();
        for (seed, result) in join_all(seeds.iter().map(async |seed| (seed, look_up(seed).await))).await {
            match result {
                Ok(addresses) => {
                    found.extend(addresses);
                    if failing.remove(seed) {
                        tracing::info!(%seed, "the seed is found again");
                    }
                }
                // A headless service has no addresses until its first pod is ready: once is enough to say so.
                Err(reason) => {
                    if failing.insert(seed.clone()) {
                        tracing::warn!(%seed, %reason, "the seed is not found; trying again");
                    }
                }
            }
        }
        let mut found: Vec<_> = found.into_iter().collect();
        fastrand::shuffle(&mut found);
        found.truncate(MAX_ASKED);
        if ask.send(found).await.is_err() {
            return;
        }
        let pause = if *alone.borrow() { ALONE } else { SETTLED };
        sleep(jittered(pause)).await;
    }
}

async fn look_up(seed: &str) -> Result<Vec<SocketAddr>, String> {
    if let Ok(address) = seed.parse() {
        return Ok(vec![address]);
    }
    match timeout(LOOK_UP, lookup_host(seed)).await {
        Ok(Ok(addresses)) => Ok(addresses.collect()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("no answer within {LOOK_UP:?}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn names_and_addresses_are_found_and_others_told() {
        assert_eq!(look_up("10.0.0.1:7946").await, Ok(vec![([10, 0, 0, 1], 7946).into()]));
        assert!(look_up("localhost:7946").await.unwrap().iter().all(|a| a.ip().is_loopback() && a.port() == 7946));
        for bad in ["no-such-host.invalid:1", "nonsense", "host:port", ""] {
            assert!(look_up(bad).await.is_err(), "{bad}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn seeds_are_asked_often_while_alone_and_seldom_later() {
        let (alone, is_alone) = watch::channel(true);
        let (ask, mut asked) = mpsc::channel(1);
        tokio::spawn(run(vec!["10.0.0.1:1".to_owned()], is_alone, ask));
        let start = tokio::time::Instant::now();
        for _ in 0..5 {
            assert_eq!(asked.recv().await.unwrap().len(), 1);
        }
        assert!(start.elapsed() <= Duration::from_secs(5));
        alone.send_replace(false);
        asked.recv().await.unwrap();
        let settled = tokio::time::Instant::now();
        asked.recv().await.unwrap();
        asked.recv().await.unwrap();
        assert!(settled.elapsed() >= Duration::from_secs(7), "{:?}", settled.elapsed());
    }
}
