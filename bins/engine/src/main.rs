//! `skyloom-engine`: plans tasks and carries them forward. Reads its configuration, opens the parts, works until a signal.

mod config;
mod work;

use std::process::ExitCode;

use clap::Parser;
use skyloom_bin::config::{ConfigArgs, Layers};
use skyloom_bin::exit::{MainError, main_result};
use skyloom_bin::{signals, telemetry, tls};
use tokio_util::sync::CancellationToken;

use crate::config::EngineConfig;

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
    main_result(start(&Args::parse()))
}

fn start(args: &Args) -> Result<(), MainError> {
    let config: EngineConfig = Layers::of_process(&args.config)
        .and_then(Layers::load)
        .map_err(|e| MainError::usage("the configuration is refused", e))?;
    telemetry::init_logs(&config.log).map_err(|e| MainError::usage("logs cannot be set up", e))?;
    let metrics =
        telemetry::install_metrics().map_err(|e| MainError::failed("metrics cannot be set up", e))?;
    tls::install_default_provider();
    let runtime = tokio::runtime::Runtime::new().map_err(|e| MainError::failed("no runtime", e))?;
    runtime.block_on(async {
        let shutdown = CancellationToken::new();
        let work = work::run(config, metrics, shutdown.clone());
        match signals::run(shutdown, work)
            .await
            .map_err(|e| MainError::failed("signals cannot be handled", e))?
        {
            signals::Ended::Finished(result) => result,
            signals::Ended::Abandoned => Err(MainError::abandoned()),
        }
    })
}
