//! Blocks with a flipped byte, cut, emptied or removed: queries answer with the rest and say so, and no other block suffers.

use std::path::{Path, PathBuf};

use tailwater_integration::ledger::Scope;
use tailwater_integration::lines::Numbers;
use tailwater_integration::read::{Query, warnings};
use tailwater_integration::s3::files;
use tailwater_integration::{Home, now_ns, seeds};

use crate::{LOAD, config, flush, note, shared};

const DAY: i64 = 86_400_000_000_000;
const LINES: usize = 400;

fn home(store: &Path) -> Home {
    Home::new(&config(&["target_block_mb: 1024"])).arg("--storage-url").arg(format!("file://{}", store.display()))
}

fn damage(block: &Path, kind: u64, numbers: &mut Numbers) -> String {
    let mut bytes = std::fs::read(block).unwrap();
    let place = numbers.below(bytes.len() as u64) as usize;
    let what = match kind {
        0 => {
            std::fs::remove_file(block).unwrap();
            return "removed".to_owned();
        }
        1 => {
            bytes.clear();
            "emptied".to_owned()
        }
        2 => {
            bytes.truncate(place);
            format!("cut to {place}")
        }
        3 => {
            let end = bytes.len().min(place + 4096);
            bytes[place..end].fill(0);
            format!("zeros from {place} to {end}")
        }
        _ => {
            bytes[place] ^= 1 << numbers.below(8);
            format!("a bit of byte {place}")
        }
    };
    std::fs::write(block, &bytes).unwrap();
    what
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn queries_answer_the_rest_and_say_so() {
    for seed in seeds::of("damaged-blocks") {
        damage_at_random(seed, if seeds::long() { 200 } else { 32 }).await;
    }
}

async fn damage_at_random(seed: u64, tenants: u64) {
    let mut numbers = Numbers::new(seed);
    let store = tempfile::tempdir().unwrap();
    let ledger = shared(seed);
    let now = now_ns();
    let server = home(store.path()).start().await;
    let tenants: Vec<_> = (0..tenants).map(|i| format!("t{i}")).collect();
    for tenant in &tenants {
        // One block of yesterday, which will be damaged, and one of today, which will not.
        let parts = [("new", now), ("old0", now - DAY), ("old1", now - DAY)];
        let (batch, receipt) = ledger.lock().push(tenant, &parts, LINES, &mut numbers);
        server.tenant(tenant).push_ok(&batch).await;
        ledger.lock().acknowledge(&receipt);
    }
    flush(&server.client()).await;
    server.kill().await;
    // A new data folder: nothing is in its log, so everything comes from the blocks.
    let mut damages = Vec::new();
    for (i, tenant) in tenants.iter().enumerate() {
        let blocks: Vec<PathBuf> = files(&store.path().join(tenant), ".blk");
        assert!(blocks.len() >= 2, "{tenant} has {blocks:?}");
        damages.push(damage(&blocks[0], i as u64 % 12, &mut numbers));
    }
    let mut server = home(store.path()).start().await;
    let (mut complete, mut partial, mut failed) = (0, 0, 0);
    for (tenant, what) in tenants.iter().zip(&damages) {
        let when = format!("seed {seed}, {tenant}, {what}");
        let client = server.tenant(tenant);
        match Query::all(LOAD).read(&client).await {
            Ok(answer) => {
                let new: Vec<_> =
                    answer.lines.iter().filter(|line| line.labels.contains("part=\"new\"")).cloned().collect();
                let ledger = ledger.lock();
                ledger.assert_exact(&when, tenant, &new, &Scope { part: "new", ..Scope::ALL });
                let verdict = ledger.judge(tenant, &answer.lines, &Scope::ALL);
                assert!(verdict.phantom.is_empty() && verdict.duplicated.is_empty(), "{when}: {verdict}");
                assert!(verdict.disordered.is_empty(), "{when}: {verdict}");
                assert!(verdict.lost.is_empty() || !answer.warnings.is_empty(), "{when}: lost in silence: {verdict}");
                if verdict.lost.is_empty() { complete += 1 } else { partial += 1 }
            }
            Err(reply) => {
                assert!(reply.status >= 500 && !reply.text().is_empty(), "{when}: {} {}", reply.status, reply.text());
                failed += 1;
            }
        }
        // The block of today is whole, whatever the other one is.
        let today = Query { start: now - DAY / 2, ..Query::all(LOAD) };
        let answer = today.read(&client).await.unwrap_or_else(|e| panic!("{when}: today fails: {}", e.text()));
        let scope = Scope { time: today.start..today.end, ..Scope::ALL };
        ledger.lock().assert_exact(&format!("{when}, today"), tenant, &answer.lines, &scope);
        assert!(answer.warnings.is_empty(), "{when}, today: {:?}", answer.warnings);
        // A count is complete, or says that it is not, or fails.
        let params = [("query", r#"sum(count_over_time({app="load"}[36h]))"#)];
        let reply = client.get_with("/loki/api/v1/query", &params).await;
        if reply.status == 200 {
            let answer = reply.json();
            let value = answer["data"]["result"][0]["value"][1].as_str().map_or(0.0, |value| value.parse().unwrap());
            let told = !warnings(&answer).is_empty();
            let all = (3 * LINES) as f64;
            assert!(value == all || (value < all && told), "{when}: {value} of {all} lines counted: {answer}");
        } else {
            assert!(reply.status >= 500, "{when}: {} {}", reply.status, reply.text());
        }
        for path in ["/loki/api/v1/labels", "/loki/api/v1/series", "/loki/api/v1/index/stats"] {
            let start = (now - 2 * DAY).to_string();
            let params = [("query", LOAD), ("match[]", LOAD), ("start", start.as_str())];
            let reply = client.get_with(path, &params).await;
            assert!(reply.status == 200 || reply.status >= 500, "{when}, {path}: {} {}", reply.status, reply.text());
        }
    }
    server.assert_well();
    note(&format!("{complete} complete, {partial} partial, {failed} failed"));
    assert!(partial + failed > 0, "no damage was met: the blocks were not read");
    assert!(partial > 0, "nothing was answered in part");
}

/// A manifest that cannot be read is an error, not an empty day.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_manifest_is_not_an_empty_day() {
    let mut numbers = Numbers::new(3);
    let store = tempfile::tempdir().unwrap();
    let ledger = shared(3);
    let server = home(store.path()).start().await;
    let tenants: Vec<_> = (0..8).map(|i| format!("t{i}")).collect();
    for tenant in &tenants {
        let (batch, receipt) = ledger.lock().push(tenant, &[("new", now_ns())], LINES, &mut numbers);
        server.tenant(tenant).push_ok(&batch).await;
        ledger.lock().acknowledge(&receipt);
    }
    flush(&server.client()).await;
    server.kill().await;
    for (i, tenant) in tenants.iter().enumerate() {
        let manifests = files(&store.path().join(tenant), "manifest.json");
        assert_eq!(manifests.len(), 1, "{manifests:?}");
        damage(&manifests[0], 1 + i as u64 % 4, &mut numbers);
    }
    let mut server = home(store.path()).start().await;
    for tenant in &tenants {
        match Query::all(LOAD).read(&server.tenant(tenant)).await {
            Ok(answer) => {
                let verdict = ledger.lock().judge(tenant, &answer.lines, &Scope::ALL);
                let told = !answer.warnings.is_empty();
                assert!(verdict.lost.is_empty() || told, "{tenant}: lost in silence: {verdict}");
            }
            Err(reply) => assert!(reply.status >= 500, "{tenant}: {} {}", reply.status, reply.text()),
        }
    }
    server.assert_well();
}
