use proptest::prelude::*;

use super::*;
use crate::feed::FeedTenant;

fn key(tenants: &[&str], query: &str) -> FeedKey {
    let tenant = |id: &&str| FeedTenant { id: TenantId::parse(id).unwrap(), detect_level: true };
    FeedKey {
        tenants: tenants.iter().map(tenant).collect(),
        names_tenants: tenants.len() > 1,
        query: query.to_owned(),
        encoding: TailEncoding::Legacy,
        delay: Duration::from_secs(2),
        notices: false,
        resume: true,
    }
}

fn seal() -> Seal {
    Secret::new(Some(b"secret")).seal_of(&key(&["a", "b"], "{}"))
}

fn name(log: u128, tenant: &str) -> Name {
    Name { log: LogId::from_u128(log), tenant: TenantId::parse(tenant).unwrap() }
}

fn any_key() -> impl Strategy<Value = Key> {
    prop_oneof![
        any::<i64>().prop_map(|at| Key::end_of(Timestamp(at))),
        (any::<i64>(), any::<i64>(), 0usize..9, any::<u64>(), any::<u32>()).prop_map(|(a, b, source, seq, i)| {
            Key::from_parts((Timestamp(a), Timestamp(b), SourceId::new(source), seq, i))
        }),
    ]
}

fn placed() -> impl Strategy<Value = Placed> {
    let names = prop::collection::hash_set((0u128..5, prop_oneof![Just("a"), Just("b")]), 0..6);
    (names, prop::collection::vec(any::<[u64; 4]>(), 6), any_key(), any_key(), any::<bool>()).prop_map(
        |(names, seqs, base, round, same)| {
            let names: Arc<[Name]> = names.into_iter().map(|(log, tenant)| name(log, tenant)).collect();
            let of = |at: usize| -> Arc<Positions> { Arc::new(seqs[..names.len()].iter().map(|s| s[at]).collect()) };
            let base = Extent { consumed: of(1), until: base };
            let round = if same { base.clone() } else { Extent { consumed: of(2), until: round } };
            Placed::new(Arc::clone(&names), Mark { floor: of(0), base, round, complete: of(3) })
        },
    )
}

fn at() -> impl Strategy<Value = At> {
    let catch_up = (prop::collection::vec(placed(), 0..3), placed(), any::<Option<u64>>(), any_key(), any::<bool>());
    prop_oneof![
        prop::collection::vec(placed(), 0..5).prop_map(At::Marks),
        catch_up.prop_map(|(marks, to, after, last, sending)| {
            let unfinished: Vec<_> = to.names().iter().map(|name| (name.clone(), after)).collect();
            let part = to.names().first().filter(|_| sending).map(|name| Part { name: name.clone(), through: 7, last });
            At::CatchUp { marks, to, unfinished, part }
        }),
        (placed(), any::<i64>(), any::<u32>(), any::<Option<(i64, u64, u64)>>()).prop_map(
            |(mark, start, limit, sent)| {
                let sent = sent.map(|(at, stream_hash, lines)| Sent { timestamp: Timestamp(at), stream_hash, lines });
                At::History(HistoryAt { mark, start: Timestamp(start), limit: limit as usize, waiting: 3, sent })
            }
        ),
    ]
}

proptest! {
    #[test]
    fn what_is_written_is_read(origin in any::<i64>(), at in at()) {
        let text = seal().token(Timestamp(origin), &at);
        let too_many = matches!(&at, At::Marks(marks) if marks.len() > MAX_MARKS);
        prop_assert_eq!(text.is_none(), too_many);
        if let Some(text) = text {
            let token = seal().read(&text).unwrap();
            prop_assert_eq!((token.origin, token.delay), (Timestamp(origin), Duration::from_secs(2)));
            prop_assert_eq!(format!("{:?}", token.at), format!("{at:?}"));
        }
    }

    #[test]
    fn whatever_is_brought_is_refused(bytes in prop::collection::vec(any::<u8>(), 0..300), text in "\\PC{0,80}") {
        prop_assert_eq!(seal().read(&BASE64_URL_SAFE_NO_PAD.encode(&bytes)).err(), Some(Refused::Invalid));
        prop_assert_eq!(seal().read(&text).err(), Some(Refused::Invalid));
        // Nor is what has our signature believed to be whole.
        let mut signed = seal().head(Timestamp(0));
        signed.raw(&bytes);
        let _refused = seal().read(&seal().sign(signed).unwrap());
    }

    #[test]
    fn any_flipped_bit_is_refused(at in at(), bit in any::<prop::sample::Index>()) {
        let Some(text) = seal().token(Timestamp(1), &at) else { return Ok(()) };
        let mut bytes = BASE64_URL_SAFE_NO_PAD.decode(&text).unwrap();
        let bit = bit.index(bytes.len() * 8);
        bytes[bit / 8] ^= 1 << (bit % 8);
        prop_assert_eq!(seal().read(&BASE64_URL_SAFE_NO_PAD.encode(&bytes)).err(), Some(Refused::Invalid));
        let cut = text.len() - 1 - bit % text.len().min(60);
        prop_assert_eq!(seal().read(&text[..cut]).err(), Some(Refused::Invalid));
    }
}

#[test]
fn a_token_is_of_its_query_its_tenants_and_its_secret() {
    let secret = Secret::new(Some(b"secret"));
    let token = seal().token(Timestamp(1), &At::Marks(Vec::new())).unwrap();
    assert!(token.len() < 100, "{}", token.len());
    for other in [key(&["a"], "{}"), key(&["a", "c"], "{}"), key(&["a", "b"], "{x}")] {
        assert_eq!(secret.seal_of(&other).read(&token).err(), Some(Refused::OfAnother));
    }
    let flags = TailEncoding::V1 { categorize: false, flags: Vec::new() };
    let other = FeedKey { encoding: flags, ..key(&["a", "b"], "{}") };
    assert_eq!(secret.seal_of(&other).read(&token).err(), Some(Refused::OfAnother));
    // The delay is the caller's business: it is in the token.
    let slower = FeedKey { delay: Duration::ZERO, ..key(&["a", "b"], "{}") };
    assert_eq!(secret.seal_of(&slower).read(&token).unwrap().delay, Duration::from_secs(2));
    for other in [None, Some(&b"other"[..])] {
        assert_eq!(Secret::new(other).seal_of(&key(&["a", "b"], "{}")).read(&token).err(), Some(Refused::Invalid));
    }
}

/// Characters of a token for each of some logs that have been running for long, at rest and in the middle of a catch-up.
fn per_log(logs: u64) -> (usize, usize) {
    let names: Arc<[Name]> = (0..logs).map(|log| name(u128::from(log) << 64 | 7, "a")).collect();
    let ahead =
        |by: u64| -> Arc<Positions> { Arc::new((0..logs).map(|log| 3_000_000_000 + log * 1000 + by).collect()) };
    let placed = |by: u64| {
        let extent = |more| Extent { consumed: ahead(by + more), until: Key::end_of(Timestamp(1 << 60)) };
        let mark = Mark { floor: ahead(0), base: extent(50), round: extent(90), complete: ahead(by) };
        Placed::new(Arc::clone(&names), mark)
    };
    let at_rest = At::Marks(vec![placed(10_000_000)]);
    let unfinished = names.iter().map(|name| (name.clone(), Some(3_000_000_000))).collect();
    let catch_up = At::CatchUp { marks: vec![placed(10_000_000)], to: placed(20_000_000), unfinished, part: None };
    let len = |at: &At| seal().token(Timestamp(1 << 60), at).map_or(usize::MAX, |token| token.len());
    ((len(&at_rest) - 100) / logs as usize, (len(&catch_up) - 150) / logs as usize)
}

#[test]
fn a_token_holds_well_over_a_hundred_logs() {
    let (at_rest, catching_up) = per_log(80);
    println!("characters per log: {at_rest} at rest, {catching_up} in a catch-up");
    assert!(at_rest <= 45 && catching_up <= 80, "{at_rest} {catching_up}");
    const { assert!(MAX_TOKEN_BYTES / 45 > 180 && MAX_TOKEN_BYTES / 80 > 100) };
}

#[test]
fn what_does_not_fit_has_no_token() {
    let token = |sources: u64| {
        let names: Arc<[Name]> = (0..sources).map(|log| name(log.into(), "a")).collect();
        let heads = (0..sources).map(|seq| 1_000_000 + seq).collect();
        seal().token(Timestamp(1), &At::Marks(vec![Placed::new(names, Mark::beginning(heads))]))
    };
    assert!(token(200).is_some_and(|token| token.len() <= MAX_TOKEN_BYTES));
    assert_eq!(token(1000), None);
    assert_eq!(seal().lacks(), TOO_LONG);
    assert_eq!(Seal { key: None, ..seal() }.lacks(), NO_SECRET);
}
