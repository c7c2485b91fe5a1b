//! `tailwater storage check`

use std::collections::HashSet;
use std::io::{self, Write};
use std::time::Instant;

use clap::Args;
use futures_util::TryStreamExt as _;
use tailwater_model::TenantId;
use tailwater_store::catalog::Catalog;
use tailwater_store::catalog::names::{BlockName, tenant_folder};
use tailwater_store::inspect;

use super::StoreArgs;
use crate::error::Error;
use crate::terminal::{Screen, counted, escape, grouped, human_bytes, tell};

#[derive(Args, Debug)]
pub(super) struct CheckArgs {
    /// The tenant whose blocks are verified; without it: all tenants
    #[arg(value_name = "TENANT", value_parser = super::tenant)]
    tenant: Option<TenantId>,
    /// Nothing on standard error but errors
    #[arg(short, long)]
    quiet: bool,
    #[command(flatten)]
    store: StoreArgs,
}

/// What was looked at so far.
#[derive(Default)]
struct Progress {
    blocks: u64,
    lines: u64,
    bytes: u64,
    problems: u64,
    /// Objects that no manifest names, and their bytes.
    orphans: (u64, u64),
}

pub(super) async fn run(args: CheckArgs) -> Result<(), Error> {
    let catalog = args.store.open()?;
    let tenants = match &args.tenant {
        Some(tenant) => vec![tenant.clone()],
        None => catalog.tenants().await?,
    };
    let screen = Screen::of_process(false);
    let shows = screen.err_is_terminal && !args.quiet;
    let mut progress = Progress::default();
    let began = Instant::now();
    for tenant in &tenants {
        check_tenant(&catalog, tenant, &mut progress, shows).await?;
    }
    if shows {
        eprint_progress("");
    }
    if !args.quiet {
        let seconds = began.elapsed().as_secs_f64().max(1e-3);
        #[expect(clippy::cast_precision_loss, reason = "a rate for reading")]
        let rate = progress.bytes as f64 / 1e6 / seconds;
        let (orphans, orphan_bytes) = progress.orphans;
        tell(&format!(
            "{}, {} and {} verified in {seconds:.1} s ({rate:.0} MB/s)",
            counted(progress.blocks, "block"),
            counted(progress.lines, "line"),
            human_bytes(progress.bytes),
        ));
        if orphans > 0 {
            tell(&format!(
                "{} of {} that no manifest names: being uploaded or replaced now, or left by a crash; the server \
                 removes them after a day",
                counted(orphans, "object"),
                human_bytes(orphan_bytes),
            ));
        }
    }
    if progress.problems > 0 {
        tell(&screen.err.failure(counted(progress.problems, "problem")).to_string());
        return Err(Error::Told);
    }
    Ok(())
}

async fn check_tenant(catalog: &Catalog, tenant: &TenantId, progress: &mut Progress, shows: bool) -> Result<(), Error> {
    let mut named = HashSet::new();
    for day in &catalog.days(tenant).await?.0 {
        let manifest = match catalog.manifest(tenant, *day).await {
            Ok(manifest) => manifest,
            Err(error) => {
                progress.problem(&error.to_string())?;
                continue;
            }
        };
        for block in &manifest.blocks {
            named.insert(block.id);
            let checked = inspect::check(catalog.objects(), tenant, block).await?;
            progress.blocks += 1;
            progress.lines += checked.lines;
            progress.bytes += checked.bytes;
            for problem in &checked.problems {
                progress.problem(&format!("{}: {problem}", block.path(tenant)))?;
            }
            if shows {
                eprint_progress(&format!(
                    "{tenant} {day}: {} blocks, {}",
                    grouped(progress.blocks),
                    human_bytes(progress.bytes)
                ));
            }
        }
    }
    let mut objects = catalog.objects().list(&tenant_folder(tenant));
    while let Some(object) = objects.try_next().await? {
        let orphan = BlockName::parse(&object.path).is_some_and(|name| !named.contains(&name.id));
        if orphan {
            progress.orphans.0 += 1;
            progress.orphans.1 += object.size;
        }
    }
    Ok(())
}

impl Progress {
    fn problem(&mut self, text: &str) -> Result<(), Error> {
        self.problems += 1;
        writeln!(io::stdout().lock(), "{}", escape::message(text))?;
        Ok(())
    }
}

/// Writes over the line of progress of a terminal.
fn eprint_progress(text: &str) {
    // A terminal that is gone does not stop the check.
    let _written = write!(io::stderr().lock(), "\r\x1b[K{text}");
}
