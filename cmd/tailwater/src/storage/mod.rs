//! `tailwater storage`: what is in a store, whether it is whole, and its lines, without a server and beside one.

mod cat;
mod check;
mod ls;
mod table;

use std::path::PathBuf;

use clap::{Args, Subcommand};
use tailwater_model::TenantId;
use tailwater_server::{Config, open_storage_read_only};
use tailwater_store::catalog::{Catalog, Day, Refresh};

use crate::error::Error;

const EXAMPLES: &str = "\
Examples:
  tailwater storage ls                                       the tenants in ./data/store
  tailwater storage ls --data-dir /var/lib/tailwater fake    the days of a tenant
  tailwater storage ls --blocks fake                         and the blocks of each
  tailwater storage check                                    reads everything and verifies every checksum
  tailwater storage check --storage-url s3://logs/prod fake
  tailwater storage cat fake '{app=\"web\"} |= \"error\"' | head
  tailwater storage cat --day 2026-11-20 -o jsonl fake '{app=\"web\"}'

Nothing is changed, so a server may be running on the same store. What the server has not written to
blocks yet is not seen. Settings come as for serve: the file, TAILWATER_* and AWS_* environment, flags.";

/// Look at a store: list it, verify it, print its lines
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct StorageArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// List tenants, the days of a tenant, or its blocks
    Ls(ls::LsArgs),
    /// Read every block and verify every checksum; exit code 1 if something is wrong
    Check(check::CheckArgs),
    /// Print the lines of a tenant that pass a query
    Cat(cat::CatArgs),
}

/// Which store.
#[derive(Args, Debug)]
struct StoreArgs {
    /// Configuration file (YAML), as for serve
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Folder of the server's data; the store is its folder `store` unless a URL is given [default: ./data]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Where the store is: a folder, file:///…, s3://bucket/prefix, gs://…, az://…
    #[arg(long, value_name = "URL")]
    storage_url: Option<String>,
}

/// Runs the command.
///
/// # Errors
/// A store that cannot be opened or read, and for `check` one that is not whole.
pub(crate) async fn run(args: StorageArgs) -> Result<(), Error> {
    match args.command {
        Command::Ls(args) => ls::run(args).await,
        Command::Check(args) => check::run(args).await,
        Command::Cat(args) => cat::run(args).await,
    }
}

impl StoreArgs {
    /// Opens the store for reading.
    fn open(&self) -> Result<Catalog, Error> {
        let environment =
            std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
        let mut settings = Vec::new();
        settings.extend(self.data_dir.as_ref().map(|dir| ("data_dir".to_owned(), dir.display().to_string())));
        settings.extend(self.storage_url.as_ref().map(|url| ("storage.url".to_owned(), url.clone())));
        let loaded = Config::load(self.config.as_deref(), environment, &settings)
            .map_err(|error| Error::Usage(error.to_string()))?;
        let objects = open_storage_read_only(&loaded.config)?;
        Ok(Catalog::new(objects, Refresh::Exclusive))
    }
}

fn tenant(text: &str) -> Result<TenantId, String> {
    TenantId::parse(text).map_err(|error| error.to_string())
}

fn day(text: &str) -> Result<Day, String> {
    text.parse().map_err(|_wrong| format!("{text:?} is no day; write YYYY-MM-DD"))
}

impl From<tailwater_store::Error> for Error {
    fn from(error: tailwater_store::Error) -> Self {
        match error.kind() {
            tailwater_store::Kind::Config => Self::Usage(error.to_string()),
            _ => Self::Failed(error.to_string()),
        }
    }
}
