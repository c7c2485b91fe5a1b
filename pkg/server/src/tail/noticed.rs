//! A tail whose client is told, once, that the process is going down and where it may go on.

use std::sync::Arc;

use tailwater_wire::frame::{Extras, FrameEncoder, Notice, TailEncoding};
use tokio::sync::watch;

use super::socket::{Frames, Next};

/// Where clients may go on, once the process is going down.
type Draining = watch::Receiver<Option<Arc<[String]>>>;

/// See the module.
pub(super) struct Noticed<'a, F> {
    frames: &'a mut F,
    /// None: the client does not want to know, or knows.
    draining: Option<(Draining, TailEncoding)>,
}

impl<'a, F: Frames> Noticed<'a, F> {
    /// `draining`: none for a client that did not ask for notices; otherwise also the form of its frames.
    pub(super) fn new(frames: &'a mut F, draining: Option<(Draining, TailEncoding)>) -> Self {
        Self { frames, draining }
    }
}

impl<F: Frames> Frames for Noticed<'_, F> {
    async fn next(&mut self) -> Next {
        let Some((draining, encoding)) = &mut self.draining else { return self.frames.next().await };
        let nodes = tokio::select! {
            biased;
            said = draining.wait_for(Option::is_some) => said.ok().and_then(|nodes| nodes.clone()),
            next = self.frames.next() => return next,
        };
        let notice = nodes.map(|nodes| {
            let notices = [Notice::Draining { nodes: nodes.to_vec() }];
            FrameEncoder::new(encoding.clone()).finish(&[], &Extras { notices: &notices, ..Extras::default() })
        });
        self.draining = None;
        match notice {
            Some(frame) => Next::Frame(frame),
            None => self.frames.next().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Silent;

    impl Frames for Silent {
        async fn next(&mut self) -> Next {
            std::future::pending().await
        }
    }

    #[tokio::test]
    async fn who_asked_is_told_once_where_to_go() {
        let (said, draining) = watch::channel(None);
        let mut silent = Silent;
        let encoding = TailEncoding::V1 { categorize: false, flags: Vec::new() };
        let mut frames = Noticed::new(&mut silent, Some((draining, encoding)));
        let quiet = std::time::Duration::from_millis(20);
        assert!(tokio::time::timeout(quiet, frames.next()).await.is_err());
        said.send_replace(Some(["http://b:3100".to_owned()].into()));
        let text = r#"{"streams":[],"notices":[{"type":"draining","nodes":["http://b:3100"]}]}"#;
        assert_eq!(frames.next().await, Next::Frame(text.into()));
        assert!(tokio::time::timeout(quiet, frames.next()).await.is_err());
    }
}
