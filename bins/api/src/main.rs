//! `skyloom-api`: the REST API over one store. Reads its configuration, opens the parts, serves until a signal.

mod config;
mod serve;

use std::process::ExitCode;

use clap::Parser;
use skyloom_bin::config::{ConfigArgs, Layers};
use skyloom_bin::exit::{MainError, main_result};
use skyloom_bin::{signals, telemetry, tls};
use tokio_util::sync::CancellationToken;

use crate::config::ApiConfig;

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
    main_result(start(&Args::parse()))
}

fn start(args: &Args) -> Result<(), MainError> {
    let config: ApiConfig = Layers::of_process(&args.config)
        .and_then(Layers::load)
        .map_err(|e| MainError::usage("the configuration is refused", e))?;
    telemetry::init_logs(&config.log).map_err(|e| MainError::usage("logs cannot be set up", e))?;
    let metrics =
        telemetry::install_metrics().map_err(|e| MainError::failed("metrics cannot be set up", e))?;
    tls::install_default_provider();
    let runtime = tokio::runtime::Runtime::new().map_err(|e| MainError::failed("no runtime", e))?;
    runtime.block_on(async {
        let shutdown = CancellationToken::new();
        let work = serve::run(config, metrics, shutdown.clone());
        match signals::run(shutdown, work)
            .await
            .map_err(|e| MainError::failed("signals cannot be handled", e))?
        {
            signals::Ended::Finished(result) => result,
            signals::Ended::Abandoned => Err(MainError::abandoned()),
        }
    })
}
