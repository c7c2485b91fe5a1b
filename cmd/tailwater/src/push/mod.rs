//! `tailwater push`: lines of files or standard input to a server.

pub(crate) mod batch;
pub(crate) mod lines;
pub(crate) mod sender;

use std::fs::File;
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use clap::Args;
use tailwater_model::{Labels, Timestamp};
use tokio::sync::mpsc;

use self::batch::{Batch, Bounds};
use self::lines::{Piece, Splitter};
use self::sender::{Backoff, Outcome, Sender};
use crate::client::{Http, ServerArgs};
use crate::error::Error;
use crate::moment::{human_duration, parse_duration};
use crate::signals::Stop;
use crate::terminal::{Screen, counted, grouped, human_bytes, tell};

const EXAMPLES: &str = "\
Examples:
  tailwater push --label app=web access.log             the lines of a file
  tailwater push --label app=web --label env=dev *.log  of several, in this order
  my-program 2>&1 | tailwater push --label app=my-program
  tail -F app.log | tailwater push --label app=web --batch-wait 100ms

Every line becomes an entry of one stream, with the time at which it is read; times rise, so order
is kept and equal lines stay two. Only the newline separates: every other byte is kept, also a
carriage return. 429, 5xx and broken connections are tried again; what the server refuses (400) is
said, counted, and makes the exit code 1.

A server's default limits are 4 MB/s per tenant, 3 MB/s per stream and 256 KiB per line;
limits_config.ingestion_rate_mb, per_stream_rate_limit and max_line_size in its configuration
raise them.";

/// Most lines of a batch.
const BATCH_LINES: usize = 10_000;
const READ_BYTES: usize = 64 << 10;
/// Chunks of input that may wait: the reader is at most this far ahead.
const WAITING_CHUNKS: usize = 16;
const PROGRESS_EVERY: Duration = Duration::from_millis(200);
/// Refusals that are printed; more are only counted.
const TOLD_REFUSALS: u64 = 5;
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
const FIRST_PAUSE: Duration = Duration::from_millis(250);

/// Push lines of files or standard input
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct PushArgs {
    /// Files to read; none or - = standard input
    #[arg(value_name = "FILE")]
    files: Vec<PathBuf>,
    /// A label of the stream (repeatable)
    #[arg(short, long = "label", value_name = "NAME=VALUE", required = true, value_parser = parse_label)]
    labels: Vec<(String, String)>,
    /// Send a batch when it has so many KiB
    #[arg(long, value_name = "KIB", default_value_t = 512, value_parser = clap::value_parser!(u32).range(1..=65_536))]
    batch_kib: u32,
    /// Send a batch so long after its first line, full or not
    #[arg(long, value_name = "DURATION", default_value = "250ms", value_parser = parse_duration)]
    batch_wait: Duration,
    /// How often a batch is tried again
    #[arg(long, value_name = "N", default_value_t = 20)]
    retries: u32,
    /// Nothing on standard error but errors
    #[arg(short, long)]
    quiet: bool,
    #[command(flatten)]
    server: ServerArgs,
}

/// The account of a push.
#[derive(Default)]
struct Account {
    lines: u64,
    bytes: u64,
    batches: u64,
    refused_batches: u64,
    refused_lines: u64,
    too_long: u64,
}

impl Account {
    fn is_clean(&self) -> bool {
        self.refused_lines == 0 && self.too_long == 0
    }
}

/// Runs the command to the end of the input, or until the user ends it.
///
/// # Errors
/// Bad usage, an input that cannot be read, lines that were refused or could not be delivered.
pub(crate) async fn run(args: PushArgs) -> Result<(), Error> {
    let labels = stream_labels(&args.labels)?;
    let endpoint = Arc::new(args.server.endpoint()?);
    let stop = Stop::listen()?;
    let screen = Screen::of_process(false);
    let backoff = Backoff { first: FIRST_PAUSE, longest: LONGEST_PAUSE, retries: args.retries };
    let bounds = Bounds { lines: BATCH_LINES, bytes: args.batch_kib as usize * 1024, age: args.batch_wait };
    let (chunks, input) = mpsc::channel(WAITING_CHUNKS);
    // A thread of its own: reading standard input cannot be cancelled, and must not keep the process from ending.
    std::thread::Builder::new()
        .name("input".to_owned())
        .spawn(move || read_all(&args.files, &chunks))
        .map_err(|e| Error::Failed(format!("cannot start a thread: {e}")))?;
    let mut push = Push {
        sender: Sender::new(Http::new(endpoint), backoff, stop.clone()),
        labels,
        screen,
        progress: screen.err_is_terminal && !args.quiet,
        account: Account::default(),
        began: Instant::now(),
        shown: None,
    };
    let ended = push.run(input, stop, bounds).await;
    if !args.quiet || !push.account.is_clean() {
        push.clear_progress();
        tell(&push.summary());
    }
    ended?;
    if push.account.is_clean() { Ok(()) } else { Err(Error::Told) }
}

struct Push {
    sender: Sender,
    labels: String,
    screen: Screen,
    progress: bool,
    account: Account,
    began: Instant,
    shown: Option<Instant>,
}

impl Push {
    async fn run(
        &mut self,
        mut input: mpsc::Receiver<io::Result<Bytes>>,
        mut stop: Stop,
        bounds: Bounds,
    ) -> Result<(), Error> {
        let mut splitter = Splitter::default();
        let mut batch = Batch::new();
        loop {
            let due = batch.due(bounds);
            let chunk = tokio::select! {
                biased;
                () = stop.wait() => break,
                () = at(due) => {
                    self.send(&mut batch).await?;
                    continue;
                }
                chunk = input.recv() => chunk,
            };
            match chunk {
                None => break,
                Some(Ok(bytes)) if bytes.is_empty() => self.take(splitter.finish(), &mut batch),
                Some(Ok(bytes)) => {
                    splitter.feed(&bytes);
                    while let Some(piece) = splitter.next_line() {
                        self.take(Some(piece), &mut batch);
                        if batch.is_full(bounds) {
                            self.send(&mut batch).await?;
                        }
                    }
                }
                Some(Err(e)) => {
                    self.send(&mut batch).await?;
                    return Err(Error::Failed(e.to_string()));
                }
            }
        }
        self.take(splitter.finish(), &mut batch);
        self.send(&mut batch).await
    }

    fn take(&mut self, piece: Option<Piece>, batch: &mut Batch) {
        match piece {
            Some(Piece::Line(line)) => batch.add(line, Timestamp::now()),
            Some(Piece::TooLong) => {
                self.account.too_long += 1;
                self.say(&format!("a line is longer than {} MiB and was left out", lines::MAX_LINE_BYTES >> 20));
            }
            None => {}
        }
    }

    async fn send(&mut self, batch: &mut Batch) -> Result<(), Error> {
        if batch.is_empty() {
            return Ok(());
        }
        let (lines, bytes) = (batch.lines(), batch.bytes());
        let body = batch.take_body(&self.labels).map_err(Error::Failed)?;
        let (screen, progress) = (self.screen, self.progress);
        let mut notice = |text: String| {
            clear(progress);
            tell(&screen.err.warning(text).to_string());
        };
        let outcome = self.sender.send(body, &mut notice).await;
        self.account.batches += 1;
        match outcome {
            Outcome::Accepted => {
                self.account.lines += lines;
                self.account.bytes += bytes;
            }
            Outcome::Refused(why) => {
                self.refused(lines, &format!("{why}\n  of {}, some or all are not stored", counted(lines, "line")));
            }
            Outcome::GivenUp(why) => {
                self.refused(
                    lines,
                    &format!("{why}\n  given up; of {}, some or all are not stored", counted(lines, "line")),
                );
            }
        }
        self.show_progress();
        Ok(())
    }

    fn refused(&mut self, lines: u64, text: &str) {
        self.account.refused_batches += 1;
        self.account.refused_lines += lines;
        if self.account.refused_batches <= TOLD_REFUSALS {
            self.say(text);
        }
    }

    fn say(&self, text: &str) {
        self.clear_progress();
        tell(&self.screen.err.failure(text).to_string());
    }

    fn show_progress(&mut self) {
        if !self.progress || self.shown.is_some_and(|shown| shown.elapsed() < PROGRESS_EVERY) {
            return;
        }
        self.shown = Some(Instant::now());
        let account = &self.account;
        let rate = account.bytes as f64 / self.began.elapsed().as_secs_f64().max(0.001);
        let text = format!(
            "\r\u{1b}[2K{} · {} · {}/s",
            counted(account.lines, "line"),
            human_bytes(account.bytes),
            human_bytes(rate as u64)
        );
        let mut err = io::stderr().lock();
        let _closed = err.write_all(text.as_bytes()).and_then(|()| err.flush());
    }

    fn clear_progress(&self) {
        clear(self.progress);
    }

    fn summary(&self) -> String {
        let (account, palette) = (&self.account, self.screen.err);
        let mut text = format!(
            "{} {} ({}) in {}, {}, {}",
            palette.bold("pushed"),
            counted(account.lines, "line"),
            human_bytes(account.bytes),
            counted(account.batches, "batch"),
            if self.sender.retries() == 1 {
                "1 retry".to_owned()
            } else {
                format!("{} retries", grouped(self.sender.retries()))
            },
            human_duration(self.began.elapsed()),
        );
        if account.refused_lines > 0 {
            let refused = format!(
                "; refused at least in part: {} with {}",
                counted(account.refused_batches, "batch"),
                counted(account.refused_lines, "line")
            );
            text.push_str(&palette.failure(refused).to_string());
        }
        if account.too_long > 0 {
            text.push_str(&palette.failure(format!("; {} too long", counted(account.too_long, "line"))).to_string());
        }
        text
    }
}

fn clear(progress: bool) {
    if progress {
        let mut err = io::stderr().lock();
        let _closed = err.write_all(b"\r\x1b[2K").and_then(|()| err.flush());
    }
}

/// Returns at an instant; never, if there is none.
async fn at(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due.into()).await,
        None => std::future::pending().await,
    }
}

/// Reads the inputs in order. An empty chunk is the end of one of them.
fn read_all(files: &[PathBuf], chunks: &mpsc::Sender<io::Result<Bytes>>) {
    let standard_input = [PathBuf::from("-")];
    for path in if files.is_empty() { &standard_input[..] } else { files } {
        let outcome = if path.as_os_str() == "-" {
            read(io::stdin().lock(), chunks)
        } else {
            File::open(path).and_then(|file| read(file, chunks))
        };
        let failed = outcome.is_err();
        let end = outcome.map_err(|e| io::Error::new(e.kind(), format!("{}: {e}", path.display())));
        if chunks.blocking_send(end.map(|()| Bytes::new())).is_err() || failed {
            return;
        }
    }
}

fn read(mut input: impl io::Read, chunks: &mpsc::Sender<io::Result<Bytes>>) -> io::Result<()> {
    loop {
        let mut chunk = vec![0; READ_BYTES];
        match input.read(&mut chunk) {
            Ok(0) => return Ok(()),
            Ok(length) => {
                chunk.truncate(length);
                if chunks.blocking_send(Ok(Bytes::from(chunk))).is_err() {
                    return Ok(());
                }
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
}

/// `name=value`, the name one that Loki takes.
pub(crate) fn parse_label(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or_else(|| format!("{text:?} has no '='; write NAME=VALUE"))?;
    let legal = |i: usize, c: char| c.is_ascii_alphabetic() || c == '_' || c == ':' || (i > 0 && c.is_ascii_digit());
    if name.is_empty() || !name.chars().enumerate().all(|(i, c)| legal(i, c)) {
        return Err(format!(
            "{name:?} is no label name; letters, digits and _ make one, and it does not begin with a digit"
        ));
    }
    if value.is_empty() {
        return Err(format!("label {name} has no value; a label without a value is none"));
    }
    Ok((name.to_owned(), value.to_owned()))
}

/// The labels as a selector.
fn stream_labels(labels: &[(String, String)]) -> Result<String, Error> {
    let mut names: Vec<_> = labels.iter().map(|(name, _)| name).collect();
    names.sort();
    if let Some(twice) = names.windows(2).find(|pair| pair[0] == pair[1]) {
        return Err(Error::Usage(format!("--label {} is given twice", twice[0])));
    }
    let pairs = labels.iter().map(|(n, v)| (n.as_str().into(), v.as_str().into())).collect();
    Ok(Labels::from_pairs(pairs).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_checked_before_anything_is_sent() {
        assert_eq!(parse_label("app=a=b").unwrap(), ("app".to_owned(), "a=b".to_owned()));
        for bad in ["app", "=x", "1a=x", "a-b=x", "a="] {
            assert!(parse_label(bad).is_err(), "{bad}");
        }
        let twice = [("a".to_owned(), "1".to_owned()), ("a".to_owned(), "2".to_owned())];
        assert!(stream_labels(&twice).unwrap_err().to_string().contains("twice"));
        let labels = [("b".to_owned(), "x\"y".to_owned()), ("a".to_owned(), "1".to_owned())];
        assert_eq!(stream_labels(&labels).unwrap(), r#"{a="1", b="x\"y"}"#);
    }
}
