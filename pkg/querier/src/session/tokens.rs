//! The tokens of a session's frames, and word of it when there can be none.
//!
//! Invariant: whoever asked for tokens is told no later than with the first frame that should have one and has not, and again only after a
//! frame with one. Frames that tell which lines a client did not wait for never have one: it has not had them.

use std::sync::Arc;

use tailwater_wire::frame::Notice;

use super::Session;
use crate::resume::At;

impl Session {
    /// What has been had.
    pub(super) fn standing(&self) -> At {
        let mut marks = self.foreign.as_ref().map_or_else(Vec::new, |foreign| foreign.had.marks.clone());
        marks.push(self.feed.placed(self.mark.clone()));
        At::Marks(marks)
    }

    /// The token of a frame of this session's own. That there is none is told with the frame.
    pub(super) fn token(&mut self, at: &At) -> Option<Arc<str>> {
        let token = self.sealed(at);
        self.tokens_end(token.is_some());
        token
    }

    pub(super) fn sealed(&self, at: &At) -> Option<Arc<str>> {
        self.feed.seal.as_ref()?.token(self.origin, at).map(Arc::from)
    }

    /// Takes note whether a frame that should have a token has one. True: the client is to be told that there are none.
    pub(super) fn tokens_end(&mut self, has_token: bool) -> bool {
        let Some(seal) = &self.feed.seal else { return false };
        if std::mem::replace(&mut self.told_no_token, !has_token) || has_token {
            return false;
        }
        self.metrics.untokened.inc();
        self.notices.push(Notice::NoToken { reason: seal.lacks().to_owned() });
        true
    }
}
