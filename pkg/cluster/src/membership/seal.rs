//! Datagrams that bear a proof of the cluster's shared secret.
//!
//! `TWG1` part(1) id(8) HMAC-SHA256(32) payload; the proof is about the cluster's name and everything after it but itself. A message that
//! does not fit goes in two parts of one id. Who has not the secret can read, withhold and repeat messages, but neither make nor change them.

use ring::hmac;

/// What a sealed datagram begins with.
const MAGIC: [u8; 4] = *b"TWG1";

/// Bytes before the payload.
pub(super) const HEADER: usize = MAGIC.len() + 1 + 8 + 32;

/// Most bytes of a UDP datagram over IPv4.
pub(super) const MAX_DATAGRAM: usize = 65_507;

/// A secret that every node of a cluster knows.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Vec<u8>);

impl Secret {
    /// Fewest bytes.
    pub const MIN: usize = 8;

    /// Takes it; none if it has fewer than [`Secret::MIN`] bytes.
    #[must_use]
    pub fn new(secret: impl Into<Vec<u8>>) -> Option<Self> {
        Some(secret.into()).filter(|secret| secret.len() >= Self::MIN).map(Self)
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret")
    }
}

/// Whether a datagram holds a message, or which part of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    Whole = 0,
    First = 1,
    Second = 2,
}

/// Why a datagram was not opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    Malformed,
    Forged,
}

pub(super) struct Seal {
    key: hmac::Key,
    cluster: String,
}

impl Seal {
    pub(super) fn new(secret: &Secret, cluster: &str) -> Self {
        Self { key: hmac::Key::new(hmac::HMAC_SHA256, &secret.0), cluster: cluster.to_owned() }
    }

    fn context(&self, rest: [&[u8]; 2]) -> Vec<u8> {
        let mut text = Vec::with_capacity(32 + self.cluster.len() + rest[0].len() + rest[1].len());
        text.extend_from_slice(b"tailwater gossip 1");
        text.extend_from_slice(&(self.cluster.len() as u64).to_le_bytes());
        text.extend_from_slice(self.cluster.as_bytes());
        text.extend_from_slice(rest[0]);
        text.extend_from_slice(rest[1]);
        text
    }

    /// The datagrams that carry a message: one, or two if it is long; none if it is longer than that.
    pub(super) fn seal(&self, message: &[u8], id: u64) -> Vec<Vec<u8>> {
        const ROOM: usize = MAX_DATAGRAM - HEADER;
        if message.len() <= ROOM {
            return vec![self.datagram(Part::Whole, id, message)];
        }
        match message.split_at(ROOM) {
            (first, second) if second.len() <= ROOM => {
                vec![self.datagram(Part::First, id, first), self.datagram(Part::Second, id, second)]
            }
            _ => Vec::new(),
        }
    }

    fn datagram(&self, part: Part, id: u64, payload: &[u8]) -> Vec<u8> {
        let mut head = [0; 9];
        head[0] = part as u8;
        head[1..].copy_from_slice(&id.to_le_bytes());
        let proof = hmac::sign(&self.key, &self.context([&head, payload]));
        [&MAGIC, &head[..], proof.as_ref(), payload].concat()
    }

    /// What a datagram carries.
    pub(super) fn open<'a>(&self, datagram: &'a [u8]) -> Result<(Part, u64, &'a [u8]), Refused> {
        let (magic, rest) = datagram.split_first_chunk::<4>().ok_or(Refused::Malformed)?;
        let (head, rest) = rest.split_first_chunk::<9>().ok_or(Refused::Malformed)?;
        let (proof, payload) = rest.split_first_chunk::<32>().ok_or(Refused::Malformed)?;
        let part = match head[0] {
            _ if *magic != MAGIC => return Err(Refused::Malformed),
            0 => Part::Whole,
            1 => Part::First,
            2 => Part::Second,
            _ => return Err(Refused::Malformed),
        };
        hmac::verify(&self.key, &self.context([head, payload]), proof).map_err(|_| Refused::Forged)?;
        let [_, id @ ..] = *head;
        Ok((part, u64::from_le_bytes(id), payload))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn seal(secret: &str, cluster: &str) -> Seal {
        Seal::new(&Secret::new(secret).unwrap(), cluster)
    }

    #[test]
    fn only_the_secret_and_the_cluster_open_what_they_sealed() {
        let ours = seal("correct horse", "a");
        let datagram = ours.seal(b"hello", 7).remove(0);
        assert_eq!(ours.open(&datagram), Ok((Part::Whole, 7, &b"hello"[..])));
        assert_eq!(seal("correct house", "a").open(&datagram), Err(Refused::Forged));
        assert_eq!(seal("correct horse", "b").open(&datagram), Err(Refused::Forged));
        assert_eq!(ours.open(b"junk"), Err(Refused::Malformed));
        for end in 0..datagram.len() {
            assert!(ours.open(&datagram[..end]).is_err(), "cut at {end}");
        }
        for at in 0..datagram.len() {
            let mut changed = datagram.clone();
            changed[at] ^= 1;
            assert!(ours.open(&changed).is_err(), "changed at {at}");
        }
    }

    #[test]
    fn secrets_are_not_shown_and_not_short() {
        assert_eq!(Secret::new("short"), None);
        assert_eq!(format!("{:?}", Secret::new("long enough").unwrap()), "Secret");
    }

    proptest! {
        #[test]
        fn a_message_of_any_length_that_gossip_makes_arrives_whole(len in prop_oneof![0_usize..100, 65_000_usize..=MAX_DATAGRAM], id: u64) {
            let seal = seal("correct horse", "a");
            let message: Vec<u8> = (0..len).map(|i| (i * 31 % 251) as u8).collect();
            let mut whole = Vec::new();
            let datagrams = seal.seal(&message, id);
            prop_assert!((1..=2).contains(&datagrams.len()));
            for datagram in &datagrams {
                prop_assert!(datagram.len() <= MAX_DATAGRAM);
                let (_, its, payload) = seal.open(datagram).unwrap();
                prop_assert_eq!(its, id);
                whole.extend_from_slice(payload);
            }
            prop_assert_eq!(whole, message);
        }

        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = seal("correct horse", "a").open(&bytes);
        }
    }
}
