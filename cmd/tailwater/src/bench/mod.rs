//! `tailwater bench`: how fast a server is, and whether every line arrives.

mod account;
mod line;
mod load;
mod process;
mod reader;
mod report;

use std::collections::BTreeMap;
use std::io::{self, Write as _};
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Args;
use hyper::StatusCode;
use tokio::sync::watch;
use tokio::time::sleep;

use self::account::{Sent, latencies};
use self::line::{MAX_STREAMS, MIN_LINE_BYTES};
use self::load::{Format, LoadPlan, Pushed};
use self::process::Usage;
use self::reader::{Ended, Pace, Phase, Tail, TailPlan, open_idle};
use self::report::{Idle, Latency, Load, Push, Report, Server, Tails};
use crate::client::{ClientError, Endpoint, ServerArgs, hint};
use crate::error::Error;
use crate::moment::parse_duration;
use crate::signals::Stop;
use crate::terminal::{Screen, counted, escape, tell};

const EXAMPLES: &str = "\
Examples:
  tailwater bench --rate 100 --batch 1                        latency under light load
  tailwater bench --rate 50000 --streams 100 --duration 20s   one tail of a busy server
  tailwater bench --rate 500 --tails 100                      many equal tails
  tailwater bench --rate max --streams 100 --batch 1000 --tails 0 --pid $(pidof tailwater)
  tailwater bench --idle-tails 1000 --duration 0s --pid $(pidof tailwater)
  tailwater bench --addr http://querier:3100 --push-addr http://ingester-1:3100 \\
                  --push-addr http://ingester-2:3100 --connections 4      a cluster

Lines are numbered per stream and bear the time at which they were due. A tail reports what it did
not receive (lost), received again (duplicated) or after a later line of the same stream (out of
order). Latency is from when a line was due to when its frame was read, on this machine's clock:
waiting behind a slow push counts. The exit code is 1 if anything was not as it should be.

A server's default limits stop a benchmark soon: 4 MB/s per tenant, 3 MB/s per stream, 10 tails.
In its configuration:
  limits_config:
    ingestion_rate_mb: 10000
    ingestion_burst_size_mb: 10000
    per_stream_rate_limit: 10GB
    per_stream_rate_limit_burst: 10GB
    max_concurrent_tail_requests: 0
    max_global_streams_per_user: 0";

/// Pushes per second that a batch size is chosen for.
const PUSHES_PER_SECOND: u32 = 100;
const MAX_BATCH: u32 = 100_000;
const DEFAULT_FLAT_OUT_BATCH: u32 = 1000;
/// How long idle tails sit before their memory is read.
const IDLE_REST: Duration = Duration::from_secs(3);
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Measure a server: speed, latency, and whether every line arrives
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct BenchArgs {
    /// Lines per second over all connections, or max
    #[arg(long, value_name = "N|max", default_value = "1000", value_parser = parse_rate)]
    rate: Rate,
    /// How long to push
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = parse_duration)]
    duration: Duration,
    /// Streams to spread the lines over
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=i64::from(MAX_STREAMS)))]
    streams: u32,
    /// Connections to push over, at most one per stream
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1000))]
    connections: u32,
    /// Lines of a push (default: what makes 100 pushes per second, at most 1000)
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=i64::from(MAX_BATCH)))]
    batch: Option<u32>,
    /// Bytes of a line
    #[arg(long, value_name = "BYTES", default_value_t = 180, value_parser = parse_size)]
    size: usize,
    /// Form of the pushes
    #[arg(long, value_enum, default_value_t = Format::Protobuf)]
    format: Format,
    /// Tails that read as fast as they can
    #[arg(long, value_name = "N", default_value_t = 1)]
    tails: u32,
    /// Further tails that pause after every frame while lines are pushed
    #[arg(long, value_name = "N", default_value_t = 0)]
    slow_tails: u32,
    /// Further tails to which nothing comes
    #[arg(long, value_name = "N", default_value_t = 0)]
    idle_tails: u32,
    /// Seconds (0 to 5) that the tails wait for late lines
    #[arg(long, value_name = "SECONDS", default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=5))]
    delay_for: u8,
    /// How long to wait between opening the tails and the first push
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = parse_duration)]
    warmup: Duration,
    /// How long after the last line to wait for more before they are lost
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = parse_duration)]
    settle: Duration,
    /// The server's process on this machine: reports its CPU time and memory (repeatable: their sum)
    #[arg(long, value_name = "PID")]
    pid: Vec<u32>,
    /// A node to push to instead of --addr (repeatable: connections are spread over them)
    #[arg(long, value_name = "URL")]
    push_addr: Vec<String>,
    /// Write the report as JSON to standard output
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: ServerArgs,
}

/// Lines per second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rate {
    /// So many.
    Lines(u32),
    /// As many as are taken.
    Max,
}

/// Runs the benchmark and prints the report.
///
/// # Errors
/// Bad usage, a server that is not there or refuses tails, lines that did not arrive as they should.
pub(crate) async fn run(args: BenchArgs) -> Result<(), Error> {
    let endpoint = Arc::new(args.server.endpoint()?);
    let stop = Stop::listen()?;
    let screen = Screen::of_process(false);
    let to = |addr: &String| ServerArgs { addr: addr.clone(), ..args.server.clone() }.endpoint().map(Arc::new);
    let mut nodes = args.push_addr.iter().map(to).collect::<Result<Vec<_>, _>>()?;
    if nodes.is_empty() {
        nodes.push(Arc::clone(&endpoint));
    }
    let pids: Vec<String> = args.pid.iter().map(ToString::to_string).collect();
    let server_usage = || process::usage_of(&pids).map_err(Error::Usage);
    let own_usage = || process::usage("self").map_err(Error::Failed);
    server_usage()?;
    let tag = format!("{:08x}", fastrand::u32(..));
    let say = |text: &str| {
        if screen.err_is_terminal {
            tell(&screen.err.dim(text).to_string());
        }
    };
    let (phase, phases) = watch::channel(Phase::Pushing);

    let idle_tails = if args.idle_tails > 0 {
        say(&format!("opening {}", counted(args.idle_tails.into(), "idle tail")));
        Some(idle(&endpoint, &args, &tag, &phases, &server_usage).await?)
    } else {
        None
    };

    let query = format!("{{app=\"tailwater-bench\", bench=\"{tag}\"}}");
    let plan = TailPlan { query: &query, tag: &tag, streams: args.streams, delay_for: args.delay_for };
    let tails = open(&endpoint, &plan, args.tails, Pace::Full, &phases).await?;
    let slow = open(&endpoint, &plan, args.slow_tails, Pace::Slow, &phases).await?;
    sleep(args.warmup).await;
    if tails.iter().chain(&slow).any(Tail::has_ended) {
        phase.send_replace(Phase::Over);
        return Err(refused_tails(tails.into_iter().chain(slow), &args).await);
    }

    let load = args.load(&tag);
    let (server_before, own_before) = (server_usage()?, own_usage()?);
    say(&format!("pushing for {}", crate::moment::human_duration(args.duration)));
    let pushed =
        if args.duration.is_zero() { Pushed::nothing(args.streams) } else { load::run(&nodes, &load, &stop).await? };
    phase.send_replace(Phase::Settling);
    say("waiting for the last lines");
    settle(&tails, &slow, pushed.accepted, args.settle, stop.clone()).await;
    let (server_after, own_after) = (server_usage()?, own_usage()?);
    phase.send_replace(Phase::Over);

    let report = Report {
        addr: args.server.addr.clone(),
        load: args.load_report(&load),
        push: push_report(&pushed, args.size),
        tails: tails_report(tails, &pushed.sent).await,
        slow_tails: tails_report(slow, &pushed.sent).await,
        idle_tails,
        server: None,
        own_cpu_seconds: own_after.cpu.saturating_sub(own_before.cpu).as_secs_f64(),
        tag,
    };
    let report = Report { server: server_report(server_before, server_after, &report), ..report };
    print(&report, args.json, screen)?;
    if report.is_clean() { Ok(()) } else { Err(Error::Told) }
}

impl BenchArgs {
    fn load(&self, tag: &str) -> LoadPlan {
        let rate = match self.rate {
            Rate::Lines(lines) => Some(lines),
            Rate::Max => None,
        };
        let chosen = rate.map_or(DEFAULT_FLAT_OUT_BATCH, |r| (r / PUSHES_PER_SECOND).clamp(1, DEFAULT_FLAT_OUT_BATCH));
        LoadPlan {
            tag: tag.to_owned(),
            streams: self.streams,
            connections: self.connections.min(self.streams),
            batch: self.batch.unwrap_or(chosen),
            size: self.size,
            rate,
            duration: self.duration,
            format: self.format,
        }
    }

    fn load_report(&self, plan: &LoadPlan) -> Load {
        Load {
            streams: plan.streams,
            connections: plan.connections,
            batch: plan.batch,
            size: plan.size,
            rate: plan.rate,
            duration_seconds: plan.duration.as_secs_f64(),
            format: if plan.format == Format::Json { "json" } else { "protobuf" },
            delay_for: self.delay_for,
        }
    }
}

impl Pushed {
    /// Of a run without pushes.
    fn nothing(streams: u32) -> Self {
        Self {
            sent: vec![Sent::default(); streams as usize],
            accepted: 0,
            refused: 0,
            late: 0,
            reasons: BTreeMap::new(),
            latency: latencies(),
            elapsed: Duration::ZERO,
        }
    }
}

async fn idle(
    endpoint: &Arc<Endpoint>,
    args: &BenchArgs,
    tag: &str,
    phases: &watch::Receiver<Phase>,
    usage: &impl Fn() -> Result<Option<Usage>, Error>,
) -> Result<Idle, Error> {
    let query = format!("{{app=\"tailwater-bench\", bench=\"{tag}-idle\"}}");
    let before = usage()?;
    let tasks = open_idle(endpoint, &query, args.idle_tails, phases).await.map_err(too_many_files)?;
    sleep(IDLE_REST).await;
    let after = usage()?;
    let ended = tasks.iter().filter(|t| t.is_finished()).count();
    if ended > 0 {
        let advice = hint(StatusCode::BAD_REQUEST, "max concurrent tail requests limit exceeded");
        return Err(Error::Failed(format!(
            "the server closed {} of {}{advice}",
            counted(ended as u64, "idle tail"),
            args.idle_tails
        )));
    }
    let grown = before.zip(after).map(|(b, a)| a.resident.saturating_sub(b.resident));
    Ok(Idle { count: args.idle_tails, resident_bytes_each: grown.map(|bytes| bytes / u64::from(args.idle_tails)) })
}

async fn open(
    endpoint: &Endpoint,
    plan: &TailPlan<'_>,
    count: u32,
    pace: Pace,
    phases: &watch::Receiver<Phase>,
) -> Result<Vec<Tail>, Error> {
    let mut tails = Vec::with_capacity(count as usize);
    for _ in 0..count {
        tails.push(Tail::open(endpoint, plan, pace, phases.clone()).await.map_err(too_many_files)?);
    }
    Ok(tails)
}

fn too_many_files(error: ClientError) -> Error {
    match error {
        ClientError::Connect { address, reason } if reason.contains("os error 24") => Error::Failed(format!(
            "cannot connect to {address}: {reason}\n  this shell allows no more open files; raise that with `ulimit -n 65536`"
        )),
        other => other.into(),
    }
}

/// The error for tails that the server closed before anything was pushed.
async fn refused_tails(tails: impl Iterator<Item = Tail>, args: &BenchArgs) -> Error {
    let (mut ended, mut why) = (0_u32, String::new());
    for tail in tails {
        if let Some(reason) = tail.end(0).await.closed {
            ended += 1;
            why = reason;
        }
    }
    let advice = hint(StatusCode::BAD_REQUEST, &why);
    let all = args.tails.saturating_add(args.slow_tails);
    Error::Failed(format!("the server closed {ended} of {all} tails at once: {}{advice}", escape::message(&why)))
}

/// Waits until every tail has every line, or nothing has come for `patience`.
async fn settle(tails: &[Tail], slow: &[Tail], accepted: u64, patience: Duration, mut stop: Stop) {
    let expected = accepted.saturating_mul((tails.len() + slow.len()) as u64);
    let (mut seen, mut last) = (0, Instant::now());
    loop {
        let now: u64 = tails.iter().chain(slow).map(Tail::lines).sum();
        if now >= expected || tails.iter().chain(slow).all(Tail::has_ended) {
            return;
        }
        if now > seen {
            (seen, last) = (now, Instant::now());
        } else if last.elapsed() >= patience {
            return;
        }
        tokio::select! {
            () = stop.wait() => return,
            () = sleep(LOOK_EVERY) => {}
        }
    }
}

fn push_report(pushed: &Pushed, size: usize) -> Push {
    let seconds = pushed.elapsed.as_secs_f64();
    let lines_per_second = if seconds > 0.0 { pushed.accepted as f64 / seconds } else { 0.0 };
    Push {
        accepted: pushed.accepted,
        refused: pushed.refused,
        late: pushed.late,
        lines_per_second,
        bytes_per_second: lines_per_second * size as f64,
        seconds,
        latency: Latency::from(&pushed.latency),
        reasons: pushed.reasons.clone(),
    }
}

async fn tails_report(tails: Vec<Tail>, sent: &[Sent]) -> Option<Tails> {
    if tails.is_empty() {
        return None;
    }
    let mut sum = Tails { count: tails.len() as u32, ..Tails::default() };
    let mut latency = latencies();
    for tail in tails {
        let Ended { account, closed } = tail.end(sent.len() as u32).await;
        let verdict = account.verdict(sent);
        sum.delivered += account.lines;
        sum.frames += account.frames;
        sum.bytes += account.bytes;
        // A server that counts what it drops has told of it, whatever it names.
        sum.lost += verdict.lost.saturating_sub(account.told_dropped);
        sum.dropped_and_told += account.told_dropped;
        sum.duplicates += verdict.duplicates;
        sum.out_of_order += verdict.reordered;
        sum.unacknowledged += verdict.unacknowledged;
        sum.broken += account.broken;
        sum.longest_silence_ms = sum.longest_silence_ms.max(account.silence.as_secs_f64() * 1000.0);
        if let Some(reason) = closed {
            *sum.closed.entry(reason).or_default() += 1;
        }
        // Histograms of the same bounds always add up.
        let _infallible = latency.add(&account.latency);
    }
    sum.latency = Latency::from(&latency);
    Some(sum)
}

fn server_report(before: Option<Usage>, after: Option<Usage>, report: &Report) -> Option<Server> {
    let (before, after) = before.zip(after)?;
    let cpu_seconds = after.cpu.saturating_sub(before.cpu).as_secs_f64();
    let delivered = [&report.tails, &report.slow_tails].into_iter().flatten().map(|t| t.delivered).sum::<u64>();
    let per = |lines: u64| (lines > 0).then(|| cpu_seconds * 1e6 / lines as f64);
    Some(Server {
        cpu_seconds,
        cpu_us_per_pushed_line: per(report.push.accepted),
        cpu_us_per_delivered_line: per(delivered),
        resident_bytes: after.resident,
        peak_bytes: after.peak,
    })
}

fn print(report: &Report, json: bool, screen: Screen) -> Result<(), Error> {
    let mut out = io::stdout().lock();
    if json {
        let text = serde_json::to_string_pretty(report).map_err(io::Error::from)?;
        writeln!(out, "{text}")?;
    } else {
        write!(out, "{}", report.table(screen.out))?;
    }
    out.flush()?;
    Ok(())
}

fn parse_rate(text: &str) -> Result<Rate, String> {
    match text {
        "max" => Ok(Rate::Max),
        _ => match text.parse() {
            Ok(lines) if lines > 0 => Ok(Rate::Lines(lines)),
            _ => Err(format!("{text:?} is no rate; write a number of lines per second, or max")),
        },
    }
}

fn parse_size(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(size) if (MIN_LINE_BYTES..=1 << 20).contains(&size) => Ok(size),
        _ => {
            Err(format!("{text:?} is no size of a line; it holds at least {MIN_LINE_BYTES} bytes and at most 1048576"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_and_sizes_are_checked() {
        assert_eq!(parse_rate("max"), Ok(Rate::Max));
        assert_eq!(parse_rate("5"), Ok(Rate::Lines(5)));
        assert!(parse_rate("0").is_err() && parse_rate("fast").is_err());
        assert_eq!(parse_size("180"), Ok(180));
        assert!(parse_size("10").is_err() && parse_size("2000000").is_err());
    }
}
