//! `tailwater demo`: a server, something that writes logs, and a tail of it, in one terminal.

mod source;

use std::collections::BTreeMap;
use std::io::{self, BufWriter};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use clap::Args;
use tailwater_model::{Labels, Timestamp};
use tailwater_server::{Config, Server};
use tailwater_wire::push::{Outgoing, encode};
use tokio::time::sleep_until;

use self::source::{Line, Source};
use crate::client::{Endpoint, Http, ServerArgs};
use crate::error::Error;
use crate::moment::parse_duration;
use crate::push::sender::{Backoff, Outcome, Sender};
use crate::serve::{Listen, parse_listen};
use crate::signals::Stop;
use crate::tail::follow::{Follow, Plan};
use crate::terminal::render::{Clock, Renderer};
use crate::terminal::style::Palette;
use crate::terminal::{OutputArgs, Screen, tell};

const EXAMPLES: &str = "\
Examples:
  tailwater demo                              everything that the services of a small shop write
  tailwater demo '{env=\"demo\"} |= \"error\"'    only some of it
  tailwater demo --rate 2000 --seed 7         much more, and the same lines every time

The server listens on 127.0.0.1:3100, or on a free port if that is taken, and forgets everything
at the end. While it runs, any client of Loki's API can push to it, tail it and query it.";

const DEFAULT_PORT: u16 = 3100;
/// Largest rate: a terminal shows no more, and the server's default limits allow about that.
const MAX_RATE: f64 = 20_000.0;
/// Lines of history that the tail begins with.
const LIMIT: u32 = 100;
/// How long the server may take to go down: there is nothing to keep.
const DRAIN: Duration = Duration::from_secs(2);
/// Most lines of one push.
const MAX_LINES: usize = 1000;
const BACKOFF: Backoff = Backoff { first: Duration::from_millis(50), longest: Duration::from_secs(1), retries: 5 };

/// Try it: a server, a lively source, and a tail of it
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct DemoArgs {
    /// What to tail
    #[arg(value_name = "QUERY", default_value = "{env=\"demo\"}")]
    query: String,
    /// Address to listen on [default: 127.0.0.1:3100, or a free port if that is taken]
    #[arg(long, value_name = "ADDR", value_parser = parse_listen)]
    http_listen: Option<Listen>,
    /// About how many lines per second
    #[arg(long, value_name = "LINES", default_value = "20", value_parser = parse_rate)]
    rate: f64,
    /// The same seed gives the same lines
    #[arg(long, value_name = "NUMBER")]
    seed: Option<u64>,
    /// End by itself after this long
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    duration: Option<Duration>,
    #[command(flatten)]
    output: OutputArgs,
}

/// Runs the demo until the user ends it.
///
/// # Errors
/// No address to listen on, a query that is refused, an output that cannot be written.
pub(crate) async fn run(args: DemoArgs) -> Result<(), Error> {
    let stop = ending_after(Stop::listen()?, args.duration);
    let screen = Screen::of_process(args.output.no_color);
    let (server, taken) = start(args.http_listen.as_ref()).await?;
    let address = server.addrs().http;
    let (down, mut goes_down) = Stop::manual();
    let serving = tokio::spawn(server.run_until(async move { goes_down.wait().await }));

    let endpoint = Arc::new(ServerArgs::local(address).endpoint()?);
    let seed = args.seed.unwrap_or_else(|| fastrand::u64(..1_000_000));
    tell(&welcome(screen.err, address, taken, seed, &args));
    let feeding = tokio::spawn(feed(Arc::clone(&endpoint), Source::new(seed, args.rate), stop.clone()));

    let plan = Plan {
        query: args.query,
        start: Timestamp::now(),
        limit: LIMIT,
        delay_for: 0,
        reconnect: true,
        resume_file: None,
    };
    let renderer = Renderer::new(&args.output, screen, Clock::Time);
    let mut follow = Follow::new(endpoint, plan, stop, renderer);
    let mut out = BufWriter::with_capacity(64 << 10, io::stdout().lock());
    let mut notice = |notice: crate::tail::follow::Notice| {
        if notice.is_loss() {
            tell(&notice.text(screen.err));
        }
    };
    let ended = follow.run(&mut out, &mut notice).await;
    feeding.abort();
    if ended.is_ok() {
        tell(&format!("\n{}\n{}", follow.ledger().summary(screen.err), farewell(screen.err)));
    }
    down.send_replace(true);
    // Nothing is lost by not waiting longer.
    let _ended = tokio::time::timeout(DRAIN, serving).await;
    ended
}

/// A stop that also comes by itself.
fn ending_after(mut stop: Stop, duration: Option<Duration>) -> Stop {
    let Some(duration) = duration else { return stop };
    let (ask, combined) = Stop::manual();
    tokio::spawn(async move {
        tokio::select! {
            () = stop.wait() => {}
            () = tokio::time::sleep(duration) => {}
        }
        ask.send_replace(true);
    });
    combined
}

/// The server, and whether its usual port was taken.
async fn start(listen: Option<&Listen>) -> Result<(Server, bool), Error> {
    let mut config = Config::default();
    // It forgets everything at the end.
    config.ingester.wal.enabled = false;
    config.server.http_listen_address = listen.map_or_else(|| "127.0.0.1".to_owned(), |l| l.host.clone());
    config.server.http_listen_port = listen.map_or(DEFAULT_PORT, |l| l.port);
    match Server::start(config.clone()).await {
        Err(tailwater_server::Error::Bind { source, .. })
            if listen.is_none() && source.kind() == io::ErrorKind::AddrInUse =>
        {
            config.server.http_listen_port = 0;
            Ok((Server::start(config).await?, true))
        }
        outcome => Ok((outcome?, false)),
    }
}

/// Pushes what happens, when it happens.
async fn feed(endpoint: Arc<Endpoint>, mut source: Source, mut stop: Stop) {
    let mut sender = Sender::new(Http::new(endpoint), BACKOFF, stop.clone());
    let mut due = Instant::now();
    let mut last = Timestamp::MIN;
    loop {
        let mut lines = Vec::new();
        // At high rates several things happen before the timer's next millisecond.
        while due <= Instant::now() && lines.len() < MAX_LINES {
            let happening = source.next();
            lines.extend(happening.lines);
            due += happening.pause;
        }
        if let Ok(body) = body(&lines, &mut last)
            && !lines.is_empty()
        {
            let mut notice = |why: String| tell(&why);
            match sender.send(body, &mut notice).await {
                Outcome::Accepted => {}
                Outcome::Refused(why) | Outcome::GivenUp(why) => tell(&why),
            }
        }
        tokio::select! {
            () = stop.wait() => return,
            () = sleep_until(due.into()) => {}
        }
    }
}

/// A push body with the lines by stream. Times rise from line to line.
fn body(lines: &[Line], last: &mut Timestamp) -> Result<Bytes, tailwater_wire::Error> {
    let mut streams: BTreeMap<String, Vec<Outgoing<'_>>> = BTreeMap::new();
    for line in lines {
        let at = Timestamp::now().max(Timestamp(last.nanos().saturating_add(1)));
        *last = at;
        let pairs = [("app", line.app), ("env", "demo"), ("pod", &line.pod)];
        let labels = Labels::from_pairs(pairs.iter().map(|(n, v)| ((*n).into(), (*v).into())).collect());
        let entry = Outgoing { timestamp: at, line: line.text.as_bytes(), metadata: &[] };
        streams.entry(labels.to_string()).or_default().push(entry);
    }
    encode(streams.iter().map(|(labels, entries)| (labels.as_str(), entries.iter().copied()))).map(Bytes::from)
}

fn welcome(palette: Palette, address: SocketAddr, taken: bool, seed: u64, args: &DemoArgs) -> String {
    let why = if taken { format!("  (port {DEFAULT_PORT} is taken)") } else { String::new() };
    format!(
        "{title}\n  \
         server  {url}{why}\n  \
         source  7 services of a small shop, about {rate} lines/s, --seed {seed}\n  \
         tail    {query}\n\n\
         {while_it_runs}\n{hints}\n\n\
         {end}",
        title = palette.bold("tailwater demo"),
        url = palette.good(format!("http://{address}")),
        rate = args.rate,
        query = args.query,
        while_it_runs = palette.dim("While it runs, in another terminal:"),
        hints = hints(address),
        end = palette.dim("Ctrl-C ends.\n"),
    )
}

fn farewell(palette: Palette) -> String {
    let address = SocketAddr::from(([127, 0, 0, 1], DEFAULT_PORT));
    format!(
        "\n{}\n  tailwater serve\n  some-program 2>&1 | tailwater push --label app=some-program\n{}",
        palette.bold("What to try next: a server of your own, and everything that speaks Loki's API"),
        hints(address)
    )
}

/// Things to try with a server.
fn hints(address: SocketAddr) -> String {
    let url = format!("http://{address}");
    // Our own commands know the usual place.
    let flag = if address.port() == DEFAULT_PORT { String::new() } else { format!(" --addr {url}") };
    format!(
        "  tailwater tail{flag} '{{app=\"api\"}} | json | status >= 400'\n  \
         tailwater query{flag} --since 5m '{{env=\"demo\"}} |= \"failed\"'\n  \
         curl -G {url}/loki/api/v1/query_range --data-urlencode 'query={{app=\"checkout\"}}'\n  \
         logcli --addr={url} query --tail '{{env=\"demo\"}}'\n  \
         Grafana: add a Loki data source with the URL {url}, then Explore, Live"
    )
}

fn parse_rate(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(rate) if rate > 0.0 && rate <= MAX_RATE => Ok(rate),
        _ => Err(format!("{text:?} is no rate; write a number of lines per second, at most {MAX_RATE}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::lines_of_body;

    #[test]
    fn lines_go_to_their_streams_with_rising_times() {
        let line = |app, text: &str| Line { app, pod: format!("{app}-1"), text: text.to_owned() };
        let mut last = Timestamp::MIN;
        let body = body(&[line("b", "1"), line("a", "2"), line("b", "3")], &mut last).unwrap();
        let got = lines_of_body(&body);
        let text: Vec<_> = got.iter().map(|(l, _, t)| (l.as_str(), t.as_slice())).collect();
        let (a, b) = ("{app=\"a\", env=\"demo\", pod=\"a-1\"}", "{app=\"b\", env=\"demo\", pod=\"b-1\"}");
        assert_eq!(text, [(a, &b"2"[..]), (b, b"1"), (b, b"3")]);
        assert!(got[1].1 < got[0].1 && got[0].1 < got[2].1);
    }

    #[test]
    fn hints_name_the_server_that_runs() {
        assert!(hints("127.0.0.1:4000".parse().unwrap()).contains("tail --addr http://127.0.0.1:4000"));
        assert!(!hints("127.0.0.1:3100".parse().unwrap()).contains("--addr http"));
        assert!(parse_rate("0").is_err() && parse_rate("x").is_err() && parse_rate("5").is_ok());
    }
}
