//! The gossip socket of a cluster with a shared secret.
//!
//! The gossip library gives no access to the bytes of its messages; only its own UDP socket turns the one into the other. That socket is
//! bound to the loopback here, and all it ever speaks with is a second one of ours, the tap: what it writes is read from the tap, sealed
//! and sent; what was received and opened is written to the tap and read as a message from the other side.

use std::io::ErrorKind;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use anyhow::Context as _;
use async_trait::async_trait;
use chitchat::ChitchatEnvelope;
use chitchat::transport::{RecvOutcome, SendOutcome, Socket, Transport, UdpSocket as Codec};
use tokio::net::UdpSocket;
use tokio::time::timeout;

use super::metrics::{Dropped, MembershipMetrics};
use super::seal::{HEADER, MAX_DATAGRAM, Part, Refused, Seal, Secret};

/// How long a datagram may take over the loopback.
const LOOPBACK: Duration = Duration::from_millis(100);

pub(super) struct SealedUdp {
    pub(super) secret: Secret,
    pub(super) cluster: String,
    pub(super) metrics: MembershipMetrics,
}

#[async_trait]
impl Transport for SealedUdp {
    async fn open(&self, listen: SocketAddr) -> anyhow::Result<Box<dyn Socket>> {
        let socket = UdpSocket::bind(listen).await.with_context(|| format!("cannot listen on {listen}/udp"))?;
        let (codec, tap) = match pair((Ipv4Addr::LOCALHOST, 0).into()).await {
            Ok(pair) => pair,
            Err(_) => pair((Ipv6Addr::LOCALHOST, 0).into()).await?,
        };
        let tap_addr = tap.local_addr()?;
        Ok(Box::new(SealedSocket {
            seal: Seal::new(&self.secret, &self.cluster),
            socket,
            codec,
            tap,
            tap_addr,
            buffer: vec![0; MAX_DATAGRAM],
            half: None,
            opened: None,
            metrics: self.metrics.clone(),
        }))
    }
}

async fn pair(loopback: SocketAddr) -> anyhow::Result<(Codec, UdpSocket)> {
    let codec = Codec::open(loopback).await?;
    let tap = UdpSocket::bind(loopback).await?;
    // From now on it hears nobody else.
    tap.connect(codec.local_addr()?).await?;
    Ok((codec, tap))
}

struct SealedSocket {
    seal: Seal,
    socket: UdpSocket,
    codec: Codec,
    tap: UdpSocket,
    tap_addr: SocketAddr,
    buffer: Vec<u8>,
    /// The first half of a message whose second one has not come: from whom, which, its bytes.
    half: Option<(SocketAddr, u64, Vec<u8>)>,
    /// From whom the message is that lies between the tap and the codec.
    opened: Option<SocketAddr>,
    metrics: MembershipMetrics,
}

impl SealedSocket {
    /// Takes in `len` bytes of the buffer. Answers a message when it is complete.
    fn take_in(&mut self, len: usize, from: SocketAddr) -> Option<Vec<u8>> {
        let (part, id, payload) = match self.seal.open(self.buffer.get(..len)?) {
            Ok(opened) => opened,
            Err(Refused::Malformed) => {
                self.metrics.drop(Dropped::Malformed);
                return None;
            }
            Err(Refused::Forged) => {
                self.metrics.drop(Dropped::Forged);
                return None;
            }
        };
        match part {
            Part::Whole => Some(payload.to_vec()),
            Part::First => {
                self.half = Some((from, id, payload.to_vec()));
                None
            }
            Part::Second => {
                let (.., mut whole) = self.half.take().filter(|(whose, which, _)| (*whose, *which) == (from, id))?;
                whole.extend_from_slice(payload);
                (whole.len() <= MAX_DATAGRAM).then_some(whole)
            }
        }
    }
}

#[async_trait]
impl Socket for SealedSocket {
    fn local_addr(&self) -> anyhow::Result<SocketAddr> {
        Ok(self.socket.local_addr()?)
    }

    async fn send(&mut self, to: SocketAddr, envelope: ChitchatEnvelope) -> anyhow::Result<SendOutcome> {
        // Something that came later than LOOPBACK is not this message.
        let mut message = vec![0; MAX_DATAGRAM];
        while self.tap.try_recv(&mut message).is_ok() {}
        self.codec.send(self.tap_addr, envelope).await?;
        let len = timeout(LOOPBACK, self.tap.recv(&mut message)).await.context("the loopback is silent")??;
        message.truncate(len);
        let datagrams = self.seal.seal(&message, fastrand::u64(..));
        if datagrams.is_empty() {
            self.metrics.drop(Dropped::TooLong);
        }
        let mut num_bytes_sent = 0;
        for datagram in datagrams {
            num_bytes_sent += self.socket.send_to(&datagram, to).await?;
        }
        Ok(SendOutcome { num_bytes_sent })
    }

    // It may be dropped at any await: `opened` says what was under way.
    async fn recv(&mut self) -> anyhow::Result<RecvOutcome> {
        loop {
            if let Some(from_addr) = self.opened {
                let outcome = timeout(LOOPBACK, self.codec.recv()).await;
                self.opened = None;
                match outcome {
                    Ok(Ok(outcome)) if outcome.from_addr == self.tap_addr => {
                        let num_bytes_received = outcome.num_bytes_received + HEADER;
                        return Ok(RecvOutcome { from_addr, num_bytes_received, ..outcome });
                    }
                    Ok(Err(error)) => return Err(error),
                    // Another program wrote to the codec, or it was no message.
                    Ok(Ok(_)) | Err(_) => self.metrics.drop(Dropped::Malformed),
                }
                continue;
            }
            let (len, from) = match self.socket.recv_from(&mut self.buffer).await {
                Ok(received) => received,
                Err(error)
                    if matches!(
                        error.kind(),
                        ErrorKind::OutOfMemory | ErrorKind::ConnectionReset | ErrorKind::ConnectionRefused
                    ) =>
                {
                    continue;
                }
                Err(error) => return Err(error).context("the gossip socket is broken"),
            };
            let Some(message) = self.take_in(len, from) else { continue };
            if self.tap.send(&message).await.is_ok() {
                self.opened = Some(from);
            }
        }
    }
}
