//! The disk of the data folder is full: pushes are refused with a reason to come back, everything else goes on, and when there is room
//! again, pushes are taken. Nothing that was acknowledged is lost.
//!
//! The disk is a small tmpfs in a mount namespace of its own, which ends with the process that holds it; where that is not permitted,
//! the test says so and is skipped.

use std::path::PathBuf;
use std::process::Stdio;

use tailwater_integration::ledger::Scope;
use tailwater_integration::load::{Load, Shape};
use tailwater_integration::{Home, eventually};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

use crate::{acknowledged_more, assert_all_there, config, note, read_to_mark, shared, wal};

const DISK_MB: u64 = 48;

/// A small disk.
struct Disk {
    // Ends the holder of the namespace, and with it the disk.
    _holder: Child,
    pid: u32,
    /// Where the disk is, within the namespace.
    inside: PathBuf,
    enter: Vec<String>,
}

impl Disk {
    /// Mounts it on `at`; why not, otherwise.
    async fn mount(at: PathBuf) -> Result<Self, String> {
        std::fs::create_dir_all(&at).map_err(|e| e.to_string())?;
        let script = format!("mount -t tmpfs -o size={DISK_MB}m tmpfs \"$0\" && echo mounted && exec sleep 3600");
        let mut why = String::new();
        for (flags, enter) in [("-m", "-m"), ("-rm", "-mU --preserve-credentials")] {
            let mut command = Command::new("unshare");
            command.args([flags, "sh", "-c", &script]).arg(&at).kill_on_drop(true);
            let spawned = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
            let mut holder = spawned.map_err(|e| format!("unshare: {e}"))?;
            let pid = holder.id().ok_or("unshare ended")?;
            let mut lines = BufReader::new(holder.stdout.take().ok_or("no stdout")?).lines();
            if lines.next_line().await.ok().flatten().as_deref() == Some("mounted") {
                let flags = enter.split(' ').map(str::to_owned);
                let enter = ["nsenter".to_owned(), format!("--target={pid}")].into_iter().chain(flags).collect();
                return Ok(Self { _holder: holder, pid, inside: at, enter });
            }
            let output = holder.wait_with_output().await.map_err(|e| e.to_string())?;
            why = String::from_utf8_lossy(&output.stderr).into_owned();
        }
        Err(why)
    }

    /// A file of the disk, seen from here.
    fn file(&self, name: &str) -> PathBuf {
        let inside = self.inside.strip_prefix("/").unwrap();
        PathBuf::from(format!("/proc/{}/root", self.pid)).join(inside).join(name)
    }

    /// Takes all the room but so many bytes.
    fn fill(&self, leave: u64) {
        use std::io::Write as _;
        let mut ballast = std::fs::File::create(self.file("ballast")).unwrap();
        let mut size = 0;
        while ballast.write_all(&[7; 65_536]).is_ok() {
            size += 65_536;
        }
        ballast.set_len(size - leave).unwrap();
    }

    fn free(&self) {
        std::fs::remove_file(self.file("ballast")).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_refuses_pushes_and_nothing_else() {
    let yaml = config(&["target_block_mb: 4", "log_memory_mb: 16", &wal("always", 1, 0)]);
    let home = Home::new(&yaml);
    let disk = match Disk::mount(home.folder().join("disk")).await {
        Ok(disk) => disk,
        Err(why) => {
            use std::io::Write as _;
            // Not captured: whoever reads the results should know.
            let _ = writeln!(std::io::stderr(), "disk_full is skipped: a small disk cannot be mounted here: {why}");
            return;
        }
    };
    let home = home.data_in(disk.inside.join("data")).run_by(disk.enter.clone());
    let ledger = shared(4);
    for round in 0..2 {
        let mut server = home.start().await;
        assert_all_there(&format!("round {round}"), &server, &ledger).await;
        let client = server.client();
        let shape = Shape { tenants: vec!["a".to_owned()], prefix: format!("r{round}"), ..Shape::default() };
        let begin = tailwater_integration::now_ns();
        let load = Load::start(&client, &ledger, &shape, round);
        acknowledged_more(&ledger, 200).await;
        disk.fill(512 << 10);
        // A push that meets the full disk is told to come back later.
        let mut numbers = tailwater_integration::lines::Numbers::new(round);
        eventually("a push to be refused", async || {
            let now = tailwater_integration::now_ns();
            let (batch, receipt) = ledger.lock().push("a", &[(&format!("probe{round}"), now)], 20, &mut numbers);
            let reply = server.tenant("a").push(&batch).await;
            match reply.status {
                204 => ledger.lock().acknowledge(&receipt),
                503 => assert!(!reply.header("retry-after").is_empty(), "{:?} {}", reply.headers, reply.text()),
                _ => panic!("{} {}", reply.status, reply.text()),
            }
            reply.status == 503
        })
        .await;
        server.assert_well();
        assert_all_there(&format!("round {round}, full"), &server, &ledger).await;
        // A tail opens on a full disk, and goes on when there is room again.
        let start = begin.to_string();
        let params = [("query", crate::LOAD), ("start", start.as_str()), ("limit", "10000000")];
        let mut tail = server.tenant("a").tail(&params).await;
        let head = tail.lines(1).await;
        disk.free();
        let refused_until = ledger.lock().counts().1;
        acknowledged_more(&ledger, 500).await;
        let statuses = load.stop().await;
        assert!(statuses.keys().all(|status| [204, 503].contains(status)), "{statuses:?}");
        assert!(statuses.contains_key(&503), "the pushers were never refused: {statuses:?}");
        note(&format!("round {round}: {refused_until} lines before, answers {statuses:?}"));
        let mut lines = head;
        lines.extend(read_to_mark(&mut tail, &server, &ledger, "a", &format!("z{round}")).await);
        // Lines of the day before that came after the tail began are live lines, those before it are none of its history's.
        lines.retain(|line| line.timestamp >= begin);
        let scope = Scope { time: begin..i64::MAX, ..Scope::ALL };
        ledger.lock().assert_exact(&format!("round {round}, tail"), "a", &lines, &scope);
        assert_all_there(&format!("round {round}, free again"), &server, &ledger).await;
        if round == 0 {
            server.kill().await;
        } else {
            server.assert_well();
        }
    }
    let server = home.start().await;
    assert_all_there("started again", &server, &ledger).await;
}
