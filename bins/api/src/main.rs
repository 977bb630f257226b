//! `skyloom-api`: the REST API over one store. Reads its configuration, opens the parts, serves until a signal.

mod config;
mod pki;
mod serve;

use std::process::ExitCode;

use clap::Parser;
use skyloom_bin::config::ConfigArgs;
use skyloom_bin::exit::main_result;
use skyloom_bin::process;

use crate::config::ApiConfig;

/// Tasks are many small allocations, of which the system's allocator makes the most expensive part of a step.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The REST API of a Skyloom cloud
#[derive(Debug, Parser)]
#[command(
    version,
    after_help = "Examples:
  skyloom-api --config /etc/skyloom/api.toml
  skyloom-api --set store.uri=sqlite:///var/lib/skyloom/skyloom.db --set api.listen=127.0.0.1:8780"
)]
struct Args {
    #[command(flatten)]
    config: ConfigArgs,
}

fn main() -> ExitCode {
    let args = Args::parse();
    main_result(process::configured(
        &args.config,
        |c: &ApiConfig| &c.log,
        serve::run,
    ))
}
