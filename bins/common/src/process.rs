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

/// Keeps what is in memory (passwords of requests, opened keys) out of core files, of this process and of those that it starts. The limit
/// alone would not do: a `core_pattern` that is a program does not ask for it.
fn no_core_dumps() {
    use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};
    let none = Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    // Where the kernel has neither there is nothing to be done about it.
    let _ = setrlimit(Resource::Core, none);
    let _ = set_dumpable_behavior(DumpableBehavior::NotDumpable);
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
    no_core_dumps();
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

#[cfg(test)]
mod tests {
    #[test]
    fn a_process_leaves_no_core() {
        use rustix::process::{DumpableBehavior, Resource, dumpable_behavior, getrlimit};
        super::no_core_dumps();
        assert_eq!(dumpable_behavior().unwrap(), DumpableBehavior::NotDumpable);
        let limit = getrlimit(Resource::Core);
        assert_eq!((limit.current, limit.maximum), (Some(0), Some(0)));
    }
}
