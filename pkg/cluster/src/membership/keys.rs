//! A member as the few texts that are gossiped about it, and back.
//!
//! Invariants:
//! * `state` is written last: who has it has all others, since texts arrive in the order in which they were written.
//! * What others say is checked: a member is there with all its texts in order, or not at all. Nothing here panics.

use std::net::SocketAddr;

use tailwater_model::LogId;

use crate::member::{Member, Role, State};

/// Most bytes of a name.
pub(super) const MAX_NAME: usize = 253;

/// Most bytes of any other text but `logs`.
const MAX_TEXT: usize = 1024;

/// Most logs that a node says it has. Everybody keeps the logs of everybody: this many are 26 KiB for each.
pub(super) const MAX_LOGS: usize = 1024;

pub(super) const STATE: &str = "state";
pub(super) const LOGS: &str = "logs";

/// The texts of a member, in the order in which they are to be written.
pub(super) fn write(member: &Member) -> Vec<(String, String)> {
    [
        ("role", member.role.to_string()),
        ("zone", member.zone.clone().unwrap_or_default()),
        ("version", member.version.clone()),
        ("http", member.http.clone()),
        ("grpc", member.grpc.to_string()),
        (LOGS, logs(&member.logs)),
        (STATE, member.state.to_string()),
    ]
    .map(|(key, value)| (key.to_owned(), value))
    .into()
}

pub(super) fn logs(logs: &[LogId]) -> String {
    logs.iter().take(MAX_LOGS).map(LogId::to_string).collect::<Vec<_>>().join(",")
}

/// The member that these texts are about; none if any is missing or makes no sense.
pub(super) fn read<'a>(
    (name, generation, gossip): (&str, u64, SocketAddr),
    get: impl Fn(&str) -> Option<&'a str>,
) -> Option<Member> {
    let text = |key: &str| get(key).filter(|value| value.len() <= MAX_TEXT && !value.contains(char::is_control));
    if !is_name(name) {
        return None;
    }
    let logs = get(LOGS).filter(|value| value.len() <= MAX_LOGS * 27)?;
    Some(Member {
        name: name.to_owned(),
        generation,
        role: match text("role")? {
            "all" => Role::All,
            "ingester" => Role::Ingester,
            "querier" => Role::Querier,
            _ => return None,
        },
        state: match text(STATE)? {
            "joining" => State::Joining,
            "active" => State::Active,
            "leaving" => State::Leaving,
            _ => return None,
        },
        zone: Some(text("zone")?).filter(|zone| !zone.is_empty()).map(str::to_owned),
        version: text("version")?.to_owned(),
        http: text("http").filter(|url| url.starts_with("http://") || url.starts_with("https://"))?.to_owned(),
        grpc: text("grpc")?.parse().ok()?,
        gossip,
        logs: logs.split(',').filter(|log| !log.is_empty()).map(|log| log.parse().ok()).collect::<Option<_>>()?,
        alive: false,
    })
}

/// Whether a node may bear it.
pub(super) fn is_name(name: &str) -> bool {
    (1..=MAX_NAME).contains(&name.len()) && !name.contains(|c: char| c.is_control() || c.is_whitespace())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::testing::member;

    const GOSSIP: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 7946);

    fn back(name: &str, texts: &BTreeMap<String, String>) -> Option<Member> {
        read((name, 7, GOSSIP), |key| texts.get(key).map(String::as_str))
    }

    #[test]
    fn a_member_survives_its_texts() {
        let mut given = member("a", Role::All, Some("z1"), &[1, 2]);
        for (state, zone) in [(State::Joining, None), (State::Active, Some("z1")), (State::Leaving, Some("z2"))] {
            given.state = state;
            given.zone = zone.map(str::to_owned);
            let texts = write(&given);
            assert_eq!(texts.last().map(|(key, _)| key.as_str()), Some(STATE));
            let read = back("a", &texts.into_iter().collect()).unwrap();
            let (generation, gossip) = (7, GOSSIP);
            assert_eq!(read, Member { generation, gossip, alive: false, ..given.clone() });
        }
    }

    #[test]
    fn a_member_is_there_with_all_its_texts_or_not_at_all() {
        let texts: BTreeMap<_, _> = write(&member("a", Role::All, None, &[1])).into_iter().collect();
        assert!(back("a", &texts).is_some());
        for key in texts.keys() {
            let mut fewer = texts.clone();
            fewer.remove(key);
            assert_eq!(back("a", &fewer), None, "without {key}");
        }
        for (key, bad) in
            [("role", "boss"), ("state", ""), ("grpc", "host:1"), ("http", "ftp://x"), (LOGS, "x"), (LOGS, "a,,b")]
        {
            let mut other = texts.clone();
            other.insert(key.to_owned(), bad.to_owned());
            assert_eq!(back("a", &other), None, "{key}={bad}");
        }
        for name in ["", "a b", "a\n", &"x".repeat(254)] {
            assert_eq!(back(name, &texts), None, "{name:?}");
        }
    }

    proptest! {
        #[test]
        fn no_text_of_others_panics(
            name in ".*",
            texts in proptest::collection::btree_map("role|state|zone|version|http|grpc|logs", ".*|all|active|http://x|1.1.1.1:1", 0..8),
        ) {
            let _ = back(&name, &texts);
        }
    }
}
