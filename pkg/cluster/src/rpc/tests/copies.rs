use super::*;

fn begin(owner: &str) -> CopyBegin {
    CopyBegin { log: LOG, owner: owner.into(), in_blocks: 3 }
}

fn record(seq: u64, bytes: usize) -> CopiedRecord {
    CopiedRecord::Batch {
        seq,
        accepted_at: Timestamp(-1),
        tenant: tenant(),
        tenant_lines: 5,
        min: i64::MIN,
        max: i64::MAX,
        lines: 4,
        payload: vec![seq as u8; bytes].into(),
    }
}

#[tokio::test]
async fn records_arrive_in_order_and_are_acknowledged() {
    let world = world();
    let stream = soon(world.peer.copy(begin("b"))).await.unwrap();
    assert_eq!(stream.head, 3);
    let mut records: Vec<_> = (4..2000).map(|seq| record(seq, 100)).collect();
    records.push(CopiedRecord::Missing { first: 2000, last: 2005, lost: true });
    records.push(record(2006, 5 << 20));
    records.push(record(2007, 0));
    records.push(record(2008, PIECE_BYTES));
    records.push(record(2009, PIECE_BYTES + 1));
    records.push(record(2010, 7));
    let acked = async {
        let mut last = 3;
        while last < 2010 {
            let acked = stream.acks().await.unwrap();
            assert!(acked > last);
            last = acked;
        }
    };
    let (sent, ()) = soon(async { tokio::join!(stream.send(records.clone()), acked) }).await;
    sent.unwrap();
    assert_eq!(*world.copied.records.lock(), records);
    stream.in_blocks(2000).await.unwrap();
    until(|| world.copied.in_blocks.load(Relaxed) == 2000).await;

    // The next stream goes on where the copy is.
    drop(stream);
    let stream = soon(world.peer.copy(begin("b"))).await.unwrap();
    assert_eq!(stream.head, 2010);
    stream.send(vec![record(666, 1)]).await.unwrap();
    let error = soon(stream.acks()).await.unwrap_err();
    assert!(error.to_string().contains("the disk is full"), "{error}");
    assert!(matches!(error, NodeError::Unavailable { log: LOG, .. }));
    soon(async { while stream.in_blocks(1).await.is_ok() {} }).await;
}

#[tokio::test]
async fn a_copy_that_cannot_begin_says_why() {
    let world = world();
    let error = soon(world.peer.copy(begin("nobody"))).await.err().expect("an error");
    assert!(error.to_string().contains("it keeps no copies"), "{error}");
}

#[tokio::test]
async fn a_copy_ends_when_the_node_goes_down() {
    let mut world = world();
    let stream = soon(world.peer.copy(begin("b"))).await.unwrap();
    world.stop.take().unwrap().send(()).unwrap();
    let error = soon(stream.acks()).await.unwrap_err();
    assert!(error.to_string().contains("going down"), "{error}");
    drop(stream);
    soon(world.served).await.unwrap();
}
