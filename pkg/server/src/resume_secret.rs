//! What resume tokens are signed with: the same on every member, and after every restart.
//!
//! In this order: what is configured; what follows from the secret of the cluster; what lies in the object store, put there by the first
//! process that looked. Whoever can read that can read the lines, too. If there is no store, or it does not answer in time, it is something
//! of this process alone, and tokens are good for as long as that lives.

use std::time::Duration;

use bytes::Bytes;
use ring::rand::{SecureRandom as _, SystemRandom};
use tailwater_store::objects::Objects;

use crate::Config;

/// Its object.
const PATH: &str = ".resume-secret";

/// Its size in bytes.
const BYTES: usize = 32;

/// How long the store may take: the process does not start later than that because of it.
const PATIENCE: Duration = Duration::from_secs(3);

/// See the module; none: something of this process alone. `secret`: the cluster's.
pub(crate) async fn find(config: &Config, secret: Option<&str>, objects: Option<&Objects>) -> Option<Vec<u8>> {
    let configured = config.querier.resume_secret.reveal();
    if !configured.is_empty() {
        return Some(configured.as_bytes().to_vec());
    }
    if let Some(secret) = secret {
        return Some([b"tailwater resume tokens\n", secret.as_bytes()].concat());
    }
    let found = tokio::time::timeout(PATIENCE, in_store(objects?)).await;
    match found {
        Ok(Ok(secret)) => Some(secret),
        Ok(Err(error)) => {
            tracing::warn!(
                error,
                "resume tokens are good for this process alone; querier.resume_secret would change that"
            );
            None
        }
        Err(_elapsed) => {
            tracing::warn!(
                "the store does not answer, so resume tokens are good for this process alone; querier.resume_secret would change that"
            );
            None
        }
    }
}

async fn in_store(objects: &Objects) -> Result<Vec<u8>, String> {
    let told = |error: tailwater_store::Error| error.to_string();
    if let Some((secret, _)) = objects.get(PATH).await.map_err(told)? {
        return whole(&secret);
    }
    let mut fresh = [0; BYTES];
    SystemRandom::new().fill(&mut fresh).map_err(|error| error.to_string())?;
    // Another process may be quicker: what lies there in the end holds for all.
    objects.put_if(PATH, Bytes::copy_from_slice(&fresh), None).await.map_err(told)?;
    match objects.get(PATH).await.map_err(told)? {
        Some((secret, _)) => whole(&secret),
        None => Err(format!("{PATH} has gone from the store")),
    }
}

fn whole(secret: &[u8]) -> Result<Vec<u8>, String> {
    if secret.len() >= BYTES { Ok(secret.to_vec()) } else { Err(format!("{PATH} in the store is damaged")) }
}

#[cfg(test)]
mod tests {
    use tailwater_store::objects::Options;

    use super::*;

    #[tokio::test]
    async fn it_is_the_same_for_all_and_for_ever() {
        let folder = tempfile::tempdir().unwrap();
        let objects = Objects::open(&format!("file://{}", folder.path().display()), &Options::default()).unwrap();
        let config = Config::default();
        let first = find(&config, None, Some(&objects)).await.unwrap();
        assert_eq!(find(&config, None, Some(&objects)).await.unwrap(), first);
        assert_ne!(find(&config, Some("sesame"), Some(&objects)).await.unwrap(), first);
        assert_eq!(find(&config, None, None).await, None);
        let config = Config::parse("querier: {resume_secret: hush}", "test").unwrap().config;
        assert_eq!(find(&config, Some("sesame"), Some(&objects)).await.unwrap(), b"hush");
    }
}
