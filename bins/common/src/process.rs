//! One life of a process: configuration, logs, metrics, TLS, a runtime, the work, and an end by signal.

use std::future::Future;

use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio_util::sync::CancellationToken;

use crate::config::{ConfigArgs, Layers};
use crate::exit::MainError;
use crate::telemetry::{self, LogConfig, RenderMetrics};
use crate::{signals, tls};

/// Reads the configuration and [`live`]s. `log` finds its `[log]` section.
///
/// # Errors
/// When the configuration is refused, and those of [`live`].
pub fn configured<C, W>(
    args: &ConfigArgs,
    log: impl FnOnce(&C) -> &LogConfig,
    work: impl FnOnce(C, RenderMetrics, CancellationToken) -> W,
) -> Result<(), MainError>
where
    C: Default + Serialize + DeserializeOwned,
    W: Future<Output = Result<(), MainError>>,
{
    let config: C = Layers::of_process(args)
        .and_then(Layers::load)
        .map_err(|e| MainError::usage("the configuration is refused", e))?;
    let logs = log(&config).clone();
    live(&logs, |metrics, shutdown| work(config, metrics, shutdown))
}

/// Sets the process up and runs `work` until it ends. The first signal cancels its token, the second one drops it.
///
/// # Errors
/// When the process cannot be set up, and those of `work`.
pub fn live<W>(
    logs: &LogConfig,
    work: impl FnOnce(RenderMetrics, CancellationToken) -> W,
) -> Result<(), MainError>
where
    W: Future<Output = Result<(), MainError>>,
{
    let _armed = skyloom_model::crash::arm();
    telemetry::init_logs(logs).map_err(|e| MainError::usage("logs cannot be set up", e))?;
    let metrics =
        telemetry::install_metrics().map_err(|e| MainError::failed("metrics cannot be set up", e))?;
    tls::install_default_provider();
    let runtime = tokio::runtime::Runtime::new().map_err(|e| MainError::failed("no runtime", e))?;
    runtime.block_on(async {
        let shutdown = CancellationToken::new();
        let ended = signals::run(shutdown.clone(), work(metrics, shutdown)).await;
        match ended.map_err(|e| MainError::failed("signals cannot be handled", e))? {
            signals::Ended::Finished(result) => result,
            signals::Ended::Abandoned => Err(MainError::abandoned()),
        }
    })
}
