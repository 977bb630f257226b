//! `skyloom-agent`: runs one host. Reads its configuration, opens the parts, works until a signal.

mod certificate;
mod config;
mod work;

use std::process::ExitCode;

use clap::Parser;
use skyloom_bin::config::ConfigArgs;
use skyloom_bin::exit::main_result;
use skyloom_bin::process;

use crate::config::AgentConfig;

/// Tasks are many small allocations, of which the system's allocator makes the most expensive part of a step.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The agent of one host of a Skyloom cloud: runs its jobs and reports its guests
#[derive(Debug, Parser)]
#[command(
    version,
    after_help = "Examples:
  skyloom-agent --config /etc/skyloom/agent.toml
  skyloom-agent --set store.uri=https://cloud.example:8780 --set store.ca_file=/etc/skyloom/roots.pem \\
    --set agent.name=rack1-n3 --set agent.join_token_file=/etc/skyloom/join-token
  skyloom-agent --set store.uri=http://127.0.0.1:8780 --set store.token_file=/etc/skyloom/token --set agent.host=ID"
)]
struct Args {
    #[command(flatten)]
    config: ConfigArgs,
}

fn main() -> ExitCode {
    let args = Args::parse();
    main_result(process::configured(
        &args.config,
        |c: &AgentConfig| &c.log,
        work::run,
    ))
}
