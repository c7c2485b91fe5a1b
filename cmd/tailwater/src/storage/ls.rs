//! `tailwater storage ls`

use std::io::{self, BufWriter, Write};
use std::sync::Arc;

use clap::Args;
use jiff::tz::TimeZone;
use tailwater_model::TenantId;
use tailwater_store::catalog::{BlockMeta, Catalog};

use super::StoreArgs;
use super::table::{Align, Table};
use crate::error::Error;
use crate::terminal::{Screen, grouped, human_bytes, tell};

#[derive(Args, Debug)]
pub(super) struct LsArgs {
    /// The tenant whose days are listed; without it: all tenants
    #[arg(value_name = "TENANT", value_parser = super::tenant)]
    tenant: Option<TenantId>,
    /// List single blocks
    #[arg(long, requires = "tenant")]
    blocks: bool,
    #[command(flatten)]
    store: StoreArgs,
}

/// What some blocks hold together.
#[derive(Default)]
struct Sum {
    blocks: u64,
    lines: u64,
    raw: u64,
    stored: u64,
    span: Option<(i64, i64)>,
}

pub(super) async fn run(args: LsArgs) -> Result<(), Error> {
    let catalog = args.store.open()?;
    let screen = Screen::of_process(false);
    let mut out = BufWriter::new(io::stdout().lock());
    let pretty = screen.out_is_terminal;
    match &args.tenant {
        None => tenants(&catalog).await?.write(&mut out, pretty)?,
        Some(tenant) if args.blocks => blocks(&catalog, tenant).await?.write(&mut out, pretty)?,
        Some(tenant) => days(&catalog, tenant).await?.write(&mut out, pretty)?,
    }
    out.flush()?;
    Ok(())
}

const SUMS: [&str; 6] = ["blocks", "lines", "raw", "stored", "ratio", "span"];

async fn tenants(catalog: &Catalog) -> Result<Table, Error> {
    const HEAD: &[(&str, Align)] = &[
        ("tenant", Align::Left),
        ("days", Align::Right),
        (SUMS[0], Align::Right),
        (SUMS[1], Align::Right),
        (SUMS[2], Align::Right),
        (SUMS[3], Align::Right),
        (SUMS[4], Align::Right),
        (SUMS[5], Align::Left),
    ];
    let mut table = Table::new(HEAD);
    for tenant in catalog.tenants().await? {
        let mut sum = Sum::default();
        let days = catalog.days(&tenant).await?;
        for day in &days.0 {
            match catalog.manifest(&tenant, *day).await {
                Ok(manifest) => manifest.blocks.iter().for_each(|block| sum.add(block)),
                Err(error) => tell(&format!("{tenant} {day}: {error}")),
            }
        }
        let mut row = vec![tenant.to_string(), grouped(days.0.len() as u64)];
        row.extend(sum.cells());
        table.row(row);
    }
    Ok(table)
}

async fn days(catalog: &Catalog, tenant: &TenantId) -> Result<Table, Error> {
    const HEAD: &[(&str, Align)] = &[
        ("day", Align::Left),
        (SUMS[0], Align::Right),
        (SUMS[1], Align::Right),
        (SUMS[2], Align::Right),
        (SUMS[3], Align::Right),
        (SUMS[4], Align::Right),
        (SUMS[5], Align::Left),
    ];
    let mut table = Table::new(HEAD);
    for day in &catalog.days(tenant).await?.0 {
        match catalog.manifest(tenant, *day).await {
            Ok(manifest) => {
                let mut sum = Sum::default();
                manifest.blocks.iter().for_each(|block| sum.add(block));
                let mut row = vec![day.to_string()];
                row.extend(sum.cells());
                table.row(row);
            }
            Err(error) => tell(&format!("{day}: {error}")),
        }
    }
    Ok(table)
}

async fn blocks(catalog: &Catalog, tenant: &TenantId) -> Result<Table, Error> {
    const HEAD: &[(&str, Align)] = &[
        ("block", Align::Left),
        ("level", Align::Right),
        ("streams", Align::Right),
        (SUMS[1], Align::Right),
        (SUMS[2], Align::Right),
        (SUMS[3], Align::Right),
        (SUMS[4], Align::Right),
        (SUMS[5], Align::Left),
    ];
    let mut table = Table::new(HEAD);
    for day in &catalog.days(tenant).await?.0 {
        match catalog.manifest(tenant, *day).await {
            Ok(manifest) => {
                let mut blocks: Vec<_> = manifest.blocks.iter().map(Arc::clone).collect();
                blocks.sort_by_key(|block| (block.min, block.id));
                for block in blocks {
                    let mut sum = Sum::default();
                    sum.add(&block);
                    let mut row = vec![block.path(tenant), block.level.to_string(), grouped(block.streams)];
                    row.extend(sum.cells().into_iter().skip(1));
                    table.row(row);
                }
            }
            Err(error) => tell(&format!("{day}: {error}")),
        }
    }
    Ok(table)
}

impl Sum {
    fn add(&mut self, block: &BlockMeta) {
        self.blocks += 1;
        self.lines += block.lines;
        self.raw += block.raw_bytes;
        self.stored += block.bytes;
        let (min, max) = self.span.unwrap_or((block.min, block.max));
        self.span = Some((min.min(block.min), max.max(block.max)));
    }

    /// As [`SUMS`] names them.
    fn cells(&self) -> Vec<String> {
        #[expect(clippy::cast_precision_loss, reason = "a percentage for reading")]
        let ratio = if self.raw == 0 { 0.0 } else { self.stored as f64 * 100.0 / self.raw as f64 };
        vec![
            grouped(self.blocks),
            grouped(self.lines),
            human_bytes(self.raw),
            human_bytes(self.stored),
            format!("{ratio:.1}%"),
            self.span.map_or(String::new(), |(min, max)| format!("{} … {}", instant(min), instant(max))),
        ]
    }
}

/// A time in UTC, to the second.
fn instant(nanos: i64) -> String {
    let time = jiff::Timestamp::from_nanosecond(nanos.into()).unwrap_or(jiff::Timestamp::MIN);
    time.to_zoned(TimeZone::UTC).strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}
