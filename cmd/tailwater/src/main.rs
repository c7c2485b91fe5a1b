//! The binary `tailwater`: a server that speaks Loki's API, and clients for it and for any other that does.

mod bench;
mod client;
mod cluster;
mod demo;
mod error;
mod moment;
mod push;
mod query;
mod serve;
mod signals;
mod storage;
mod tail;
mod terminal;
#[cfg(test)]
mod testing;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::error::Error;
use crate::terminal::{Screen, tell};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const EXAMPLES: &str = "\
Examples:
  tailwater demo                                     see it work, without anything else
  tailwater serve                                    a server on 127.0.0.1:3100
  tailwater tail '{app=\"web\"} |= \"error\"'            lines with a word, as they arrive
  tailwater query --since 24h '{app=\"web\"}'          lines of the past
  some-program | tailwater push --label app=web      lines into a server
  tailwater cluster                                  who is in a cluster

Exit codes: 0 fine, 1 failed, 2 bad usage or configuration.";

/// Live tail for logs that speaks Loki's API and loses no line silently
#[derive(Parser)]
#[command(name = "tailwater", version, after_help = EXAMPLES, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Serve(serve::ServeArgs),
    Demo(demo::DemoArgs),
    Tail(tail::TailArgs),
    Query(query::QueryArgs),
    Push(push::PushArgs),
    Bench(bench::BenchArgs),
    Storage(storage::StorageArgs),
    Cluster(cluster::ClusterArgs),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(e) => {
            tell(&format!("error: cannot start the runtime: {e}"));
            return ExitCode::FAILURE;
        }
    };
    let ended = runtime.block_on(async {
        match cli.command {
            Command::Serve(args) => serve::run(args).await,
            Command::Demo(args) => demo::run(args).await,
            Command::Tail(args) => tail::run(args).await,
            Command::Query(args) => query::run(args).await,
            Command::Push(args) => push::run(args).await,
            Command::Bench(args) => bench::run(args).await,
            Command::Storage(args) => storage::run(args).await,
            Command::Cluster(args) => cluster::run(args).await,
        }
    });
    // What still runs in the background has nothing to say any more.
    runtime.shutdown_background();
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            tell_error(&e);
            e.exit_code()
        }
    }
}

fn tell_error(error: &Error) {
    if let Some(message) = error.message() {
        let screen = Screen::of_process(false);
        tell(&format!("{} {}", screen.err.failure("error:"), terminal::escape::message(&message)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
