//! `tailwater tail`: prints lines as they arrive, and goes on where it was after a broken connection.

pub(crate) mod follow;
pub(crate) mod keep;
pub(crate) mod ledger;
pub(crate) mod resume;

use std::io::{self, BufWriter};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use tailwater_model::Timestamp;

use self::follow::{Follow, Plan};
use crate::client::ServerArgs;
use crate::error::Error;
use crate::moment::{parse_duration, parse_instant};
use crate::signals::Stop;
use crate::terminal::render::{Clock, Renderer};
use crate::terminal::{OutputArgs, Screen, tell};

const EXAMPLES: &str = "\
Examples:
  tailwater tail '{app=\"web\"}'                          every line of app web, as it arrives
  tailwater tail '{app=~\"web|api\"} |= \"timeout\"'        only lines with a word
  tailwater tail '{app=\"web\"} | json | status >= 500'   only lines with a status
  tailwater tail --since 10m --limit 1000 '{app=\"web\"}' the last ten minutes first
  tailwater tail --limit 0 -o raw '{app=\"web\"}' > file  only what is new, only the lines
  tailwater tail -o jsonl '{app=\"web\"}' | jq .labels    for programs
  tailwater tail --resume-file web.pos '{app=\"web\"}'    go on where the last run ended
  tailwater tail --org-id 'blue|red' '{app=\"web\"}'      two tenants together (if the server allows it)

Time, level, source and line are aligned; sources keep their colours. A broken connection is
opened again: what came in between is printed, nothing is printed twice, and what the server can
no longer give is said. With --resume-file that holds from one run to the next, if the server is
Tailwater. Ctrl-C prints the ledger.";

/// Most lines of history that can be asked for.
const MAX_LIMIT: u32 = 1_000_000;
/// Longest `--delay-for`, in seconds (the server's own limit).
const MAX_DELAY_FOR: i64 = 5;

/// Print lines as they arrive
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct TailArgs {
    /// Log query: a selector and stages, for example '{app="web"} |= "error"'
    #[arg(value_name = "QUERY")]
    query: String,
    /// Begin with the newest lines of this long ago until now
    #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = parse_duration)]
    since: Duration,
    /// Begin with the newest lines since this time: RFC 3339, -30m, Unix seconds …
    #[arg(long, value_name = "TIME", conflicts_with = "since")]
    from: Option<String>,
    /// How many lines of history to begin with; 0 = only what is new
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(0..=i64::from(MAX_LIMIT)))]
    limit: u32,
    /// Wait this many seconds (0 to 5) for late lines, and print all streams in the order of time
    #[arg(long, value_name = "SECONDS", default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=MAX_DELAY_FOR))]
    delay_for: u8,
    /// Keep in this file what has been printed, and go on there the next time
    #[arg(long, value_name = "FILE")]
    resume_file: Option<PathBuf>,
    /// End when the connection breaks
    #[arg(long)]
    no_reconnect: bool,
    /// Nothing on standard error but errors and losses
    #[arg(short, long)]
    quiet: bool,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    server: ServerArgs,
}

/// Runs the command until the user ends it.
///
/// # Errors
/// Bad usage, a server that refuses, a connection that breaks with `--no-reconnect`.
pub(crate) async fn run(args: TailArgs) -> Result<(), Error> {
    let endpoint = Arc::new(args.server.endpoint()?);
    let stop = Stop::listen()?;
    let now = Timestamp::now();
    let start = match &args.from {
        Some(text) => {
            parse_instant(text, now, &args.output.zone()).map_err(|e| Error::Usage(format!("--from: {e}")))?
        }
        None if args.limit == 0 => now,
        None => now.saturating_sub(args.since),
    };
    let screen = Screen::of_process(args.output.no_color);
    let plan = Plan {
        query: args.query,
        start,
        limit: args.limit.max(1),
        delay_for: args.delay_for,
        reconnect: !args.no_reconnect,
        resume_file: args.resume_file,
    };
    let quiet = args.quiet;
    let mut notice = |notice: follow::Notice| {
        let wanted = screen.err_is_terminal || !matches!(notice, follow::Notice::Told(_));
        if (!quiet && wanted) || notice.is_loss() {
            tell(&notice.text(screen.err));
        }
    };
    let mut out = BufWriter::with_capacity(64 << 10, io::stdout().lock());
    let mut follow = Follow::new(endpoint, plan, stop, Renderer::new(&args.output, screen, Clock::Time));
    let ended = follow.run(&mut out, &mut notice).await;
    let worth_telling = ended.is_ok() || follow.ledger().lines > 0 || follow.ledger().reconnects > 0;
    if !quiet && worth_telling && !matches!(ended, Err(Error::Output(_))) {
        // After the ^C that a terminal shows.
        let begin = if screen.err_is_terminal { "\n" } else { "" };
        tell(&format!("{begin}{}", follow.ledger().summary(screen.err)));
    }
    ended
}
