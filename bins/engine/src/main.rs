//! `skyloom-engine`: plans tasks and carries them forward. Reads its configuration, opens the parts, works until a signal.

mod config;
mod work;

use std::process::ExitCode;

use clap::Parser;
use skyloom_bin::config::ConfigArgs;
use skyloom_bin::exit::main_result;
use skyloom_bin::process;

use crate::config::EngineConfig;

/// Tasks are many small allocations, of which the system's allocator makes the most expensive part of a step.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The engine of a Skyloom cloud: plans tasks and carries them forward
#[derive(Debug, Parser)]
#[command(
    version,
    after_help = "Examples:
  skyloom-engine --config /etc/skyloom/engine.toml
  skyloom-engine --set store.uri=https://cloud.example:8780 --set store.token_file=/etc/skyloom/token --set engine.name=e1"
)]
struct Args {
    #[command(flatten)]
    config: ConfigArgs,
}

fn main() -> ExitCode {
    let args = Args::parse();
    main_result(process::configured(
        &args.config,
        |c: &EngineConfig| &c.log,
        work::run,
    ))
}
