//! What stands between gossip and its socket: messages are counted, those of other clusters dropped unread and unanswered.

use std::net::SocketAddr;

use async_trait::async_trait;
use chitchat::transport::{RecvOutcome, SendOutcome, Socket, Transport};
use chitchat::{ChitchatEnvelope, ChitchatMessage};
use parking_lot::Mutex;

use super::metrics::{Dropped, MembershipMetrics};

/// A transport of just this one socket, that has been opened already: its address is known before gossip begins.
pub(super) struct Opened(Mutex<Option<Box<dyn Socket>>>);

impl Opened {
    pub(super) fn new(socket: Box<dyn Socket>, cluster: String, metrics: MembershipMetrics) -> Self {
        Self(Mutex::new(Some(Box::new(Guarded { socket, cluster, metrics }))))
    }
}

#[async_trait]
impl Transport for Opened {
    async fn open(&self, listen: SocketAddr) -> anyhow::Result<Box<dyn Socket>> {
        self.0.lock().take().ok_or_else(|| anyhow::anyhow!("the socket for {listen} is in use"))
    }
}

struct Guarded {
    socket: Box<dyn Socket>,
    cluster: String,
    metrics: MembershipMetrics,
}

#[async_trait]
impl Socket for Guarded {
    fn local_addr(&self) -> anyhow::Result<SocketAddr> {
        self.socket.local_addr()
    }

    async fn send(&mut self, to: SocketAddr, envelope: ChitchatEnvelope) -> anyhow::Result<SendOutcome> {
        self.metrics.sent.inc();
        self.socket.send(to, envelope).await
    }

    async fn recv(&mut self) -> anyhow::Result<RecvOutcome> {
        loop {
            let outcome = self.socket.recv().await?;
            match &outcome.envelope.message {
                ChitchatMessage::Syn { cluster_id, .. } if *cluster_id != self.cluster => {
                    self.metrics.drop(Dropped::OtherCluster);
                }
                ChitchatMessage::BadCluster => self.metrics.drop(Dropped::OtherCluster),
                _ => {
                    self.metrics.received.inc();
                    return Ok(outcome);
                }
            }
        }
    }
}
