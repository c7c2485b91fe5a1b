//! `tailwater storage cat`

use std::io::{self, BufWriter, Write};
use std::ops::ControlFlow;
use std::sync::Arc;

use clap::Args;
use tailwater_model::TenantId;
use tailwater_store::catalog::Day;
use tailwater_store::inspect::{self, Line};

use super::StoreArgs;
use crate::client::answer::Entry;
use crate::error::Error;
use crate::terminal::render::{Clock, Renderer};
use crate::terminal::{OutputArgs, Screen, counted, escape, tell};

#[derive(Args, Debug)]
pub(super) struct CatArgs {
    /// The tenant
    #[arg(value_name = "TENANT", value_parser = super::tenant)]
    tenant: TenantId,
    /// Log query
    #[arg(value_name = "QUERY")]
    query: String,
    /// Only the lines of this day (UTC)
    #[arg(long, value_name = "YYYY-MM-DD", value_parser = super::day)]
    day: Option<Day>,
    /// Only this block, as ls names it
    #[arg(long, value_name = "PATH")]
    block: Option<String>,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    store: StoreArgs,
}

/// Prints block by block, each stream by stream: a store is read once, whatever its size, and nothing is sorted.
pub(super) async fn run(args: CatArgs) -> Result<(), Error> {
    let query = inspect::parse(&args.query).map_err(|error| Error::Usage(error.to_string()))?;
    let catalog = args.store.open()?;
    let screen = Screen::of_process(args.output.no_color);
    let mut out = BufWriter::with_capacity(64 << 10, io::stdout().lock());
    let mut renderer = Renderer::new(&args.output, screen, Clock::DateAndTime);
    let mut problems = 0;
    let mut blocks = 0_u64;
    for day in &catalog.days(&args.tenant).await?.0 {
        if args.day.is_some_and(|wanted| wanted != *day) {
            continue;
        }
        let manifest = catalog.manifest(&args.tenant, *day).await?;
        let mut metas: Vec<_> = manifest.blocks.iter().map(Arc::clone).collect();
        metas.sort_by_key(|block| (block.min, block.id));
        for meta in metas {
            let path = meta.path(&args.tenant);
            if args.block.as_ref().is_some_and(|wanted| *wanted != path) {
                continue;
            }
            blocks += 1;
            let mut failed = None;
            let printed = inspect::lines(catalog.objects(), &path, &query, |line| {
                print(&line, &mut renderer, &mut out, &mut failed)
            });
            if let Err(error) = printed.await {
                problems += 1;
                tell(&screen.err.failure(escape::message(&format!("{path}: {error}"))).to_string());
            }
            if let Some(error) = failed {
                return Err(error.into());
            }
        }
    }
    out.flush()?;
    if blocks == 0 {
        return Err(Error::Failed("there is no such block; `tailwater storage ls --blocks` lists them".to_owned()));
    }
    if problems > 0 {
        tell(&format!("{} could not be read whole", counted(problems, "block")));
        return Err(Error::Told);
    }
    Ok(())
}

fn print(
    line: &Line<'_>,
    renderer: &mut Renderer,
    out: &mut impl Write,
    failed: &mut Option<io::Error>,
) -> ControlFlow<()> {
    let entry = Entry {
        timestamp: line.timestamp,
        line: String::from_utf8_lossy(line.text).into_owned(),
        labels: line.labels.clone(),
    };
    match renderer.write(out, &entry) {
        Ok(()) => ControlFlow::Continue(()),
        Err(error) => {
            *failed = Some(error);
            ControlFlow::Break(())
        }
    }
}
