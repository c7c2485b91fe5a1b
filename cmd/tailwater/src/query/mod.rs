//! `tailwater query`: lines of the past, or the value of a metric query.

mod batches;
mod metrics;

use std::io::{self, BufWriter, Write};
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use tailwater_model::Timestamp;

use self::batches::{Batches, Direction, Request};
use crate::client::answer::{QueryAnswer, decode_query};
use crate::client::{ClientError, Http, ServerArgs};
use crate::error::Error;
use crate::moment::{parse_duration, parse_instant};
use crate::terminal::render::{Clock, Renderer, common_labels};
use crate::terminal::{OutputArgs, Screen, counted, escape, tell};

const EXAMPLES: &str = "\
Examples:
  tailwater query '{app=\"web\"} |= \"error\"'                  the newest lines of the last hour
  tailwater query --since 24h --limit 0 -o raw '{app=\"web\"}'  every line of a day
  tailwater query --from 2026-11-20T10:00:00Z --to 2026-11-20T11:00:00Z --forward '{app=\"web\"}'
  tailwater query -o jsonl '{app=\"web\"} | json' | jq .
  tailwater query 'sum by (app) (rate({app=~\".+\"}[5m]))'     the value of a metric query now
  tailwater query --step 1m 'sum(rate({app=\"web\"}[5m]))'     and over time

Lines come newest first unless --forward is given. Labels that all lines share are written once,
to standard error.";

const RANGE_PATH: &str = "/loki/api/v1/query_range";
const INSTANT_PATH: &str = "/loki/api/v1/query";

/// Print lines of the past, or the value of a metric query
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct QueryArgs {
    /// Log query or metric query
    #[arg(value_name = "QUERY")]
    query: String,
    /// How far back from the end
    #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = parse_duration)]
    since: Duration,
    /// Begin of the range, inclusive: RFC 3339, -30m, Unix seconds …
    #[arg(long, value_name = "TIME", conflicts_with = "since")]
    from: Option<String>,
    /// End of the range, exclusive (default: now)
    #[arg(long, value_name = "TIME")]
    to: Option<String>,
    /// Most lines to print; 0 = all
    #[arg(long, value_name = "N", default_value_t = 30)]
    limit: u64,
    /// Most lines per request
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u64).range(1..))]
    batch: u64,
    /// Oldest line first
    #[arg(long)]
    forward: bool,
    /// Evaluate a metric query over the range, a value each so often
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    step: Option<Duration>,
    /// Nothing on standard error but errors
    #[arg(short, long)]
    quiet: bool,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    server: ServerArgs,
}

/// Runs the command.
///
/// # Errors
/// Bad usage, a server that refuses (its text is shown), an output that cannot be written.
pub(crate) async fn run(args: QueryArgs) -> Result<(), Error> {
    let http = Http::new(Arc::new(args.server.endpoint()?));
    let zone = args.output.zone();
    let now = Timestamp::now();
    let at = |flag: &str, text: &str| parse_instant(text, now, &zone).map_err(|e| Error::Usage(format!("{flag}: {e}")));
    let end = args.to.as_deref().map_or(Ok(now), |text| at("--to", text))?;
    let start = args.from.as_deref().map_or(Ok(end.saturating_sub(args.since)), |text| at("--from", text))?;
    if end < start {
        return Err(Error::Usage("the range ends before it begins: --to is earlier than --from".to_owned()));
    }
    let screen = Screen::of_process(args.output.no_color);
    let mut out = BufWriter::with_capacity(64 << 10, io::stdout().lock());
    if is_log_query(&args.query) {
        let mut query = LogQuery { http, screen, out: &mut out, args: &args };
        query.run(start, end).await?;
    } else {
        let answer = metric(http, &args, start, end).await?;
        let series = metrics::write(&answer, args.output.output, screen.out, &zone, &mut out)?;
        if series == 0 && !args.quiet {
            tell(&screen.err.dim("no series").to_string());
        }
    }
    out.flush()?;
    Ok(())
}

struct LogQuery<'a, W> {
    http: Http,
    screen: Screen,
    out: &'a mut W,
    args: &'a QueryArgs,
}

impl<W: Write> LogQuery<'_, W> {
    async fn run(&mut self, start: Timestamp, end: Timestamp) -> Result<(), Error> {
        let args = self.args;
        let direction = if args.forward { Direction::Forward } else { Direction::Backward };
        let mut batches = Batches::new(start, end, args.limit, args.batch, direction);
        let mut renderer = Renderer::new(&args.output, self.screen, Clock::DateAndTime);
        let mut printed = 0_u64;
        while let Some(request) = batches.next_request() {
            let entries = batches.take(self.ask(request, direction).await?);
            if printed == 0 && !entries.is_empty() {
                let common = common_labels(&entries);
                if !args.quiet
                    && !args.output.no_labels
                    && !args.output.include_common_labels
                    && !common.pairs().is_empty()
                {
                    let text = escape::message(&format!("common labels: {common}"));
                    tell(&self.screen.err.dim(text).to_string());
                }
                renderer.hide_common(common);
            }
            renderer.fit(&entries);
            for entry in &entries {
                renderer.write(self.out, entry)?;
            }
            printed += entries.len() as u64;
        }
        self.out.flush()?;
        if !args.quiet {
            let more = if args.limit > 0 && printed == args.limit { " (--limit reached; 0 prints all)" } else { "" };
            tell(&self.screen.err.dim(format!("{}{more}", counted(printed, "line"))).to_string());
        }
        Ok(())
    }

    async fn ask(
        &mut self,
        request: Request,
        direction: Direction,
    ) -> Result<Vec<crate::client::answer::Entry>, Error> {
        let parameters = [
            ("query", self.args.query.as_str()),
            ("start", &request.start.nanos().to_string()),
            ("end", &request.end.nanos().to_string()),
            ("limit", &request.limit.to_string()),
            ("direction", direction.name()),
        ];
        let body = self.http.get(RANGE_PATH, &parameters).await?;
        match decode(&self.http, &body)? {
            QueryAnswer::Streams(entries) => Ok(entries),
            _ => Err(Error::Failed("the server answered a log query with something that is no lines".to_owned())),
        }
    }
}

async fn metric(mut http: Http, args: &QueryArgs, start: Timestamp, end: Timestamp) -> Result<QueryAnswer, Error> {
    let (start, end) = (start.nanos().to_string(), end.nanos().to_string());
    let body = if let Some(step) = args.step {
        let step = step.as_secs_f64().to_string();
        http.get(RANGE_PATH, &[("query", &args.query), ("start", &start), ("end", &end), ("step", &step)]).await?
    } else {
        http.get(INSTANT_PATH, &[("query", &args.query), ("time", &end)]).await?
    };
    decode(&http, &body)
}

fn decode(http: &Http, body: &[u8]) -> Result<QueryAnswer, Error> {
    decode_query(body).map_err(|reason| ClientError::Answer { address: http.endpoint().address(), reason }.into())
}

/// Whether a query asks for lines. Only log queries begin with a selector, parentheses and comments aside: metric queries begin
/// with a function, an operator or a number. What is neither is the server's to refuse.
fn is_log_query(query: &str) -> bool {
    let mut rest = query;
    loop {
        rest = rest.trim_start_matches(|c: char| c.is_whitespace() || c == '(');
        match rest.strip_prefix('#') {
            Some(comment) => rest = comment.split_once('\n').map_or("", |(_, after)| after),
            None => return rest.starts_with('{') || rest.is_empty(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn log_queries_begin_with_a_selector() {
        for log in ["{a=\"b\"}", " ( {a=\"b\"} |= \"x\" )", "# rate(\n{a=\"b\"}", ""] {
            assert!(is_log_query(log), "{log}");
        }
        for metric in ["rate({a=\"b\"}[1m])", "(sum(rate({a=\"b\"}[1m])))", "1 + 1", "vector(1)", "# {a}\n1"] {
            assert!(!is_log_query(metric), "{metric}");
        }
    }
}
