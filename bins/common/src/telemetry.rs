//! Logs to stderr and metrics for `/metrics`.

use std::fmt;
use std::io::IsTerminal;
use std::sync::Arc;

use metrics_exporter_prometheus::PrometheusBuilder;
use serde::{Deserialize, Serialize};
use tracing_subscriber::EnvFilter;

/// What is logged and how.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LogConfig {
    /// Levels per target, such as `info,skyloom_flow=debug`.
    pub filter: String,
    /// How a line looks.
    pub format: LogFormat,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self {
            filter: "info".into(),
            format: LogFormat::Text,
        }
    }
}

/// How a log line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line, for collectors.
    Json,
}

/// Why logs or metrics could not be set up.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TelemetryError {
    /// The filter does not parse.
    #[error("log filter {filter:?} is not understood")]
    Filter {
        /// The text given.
        filter: String,
        /// What is wrong with it.
        source: tracing_subscriber::filter::ParseError,
    },
    /// Somebody was here before.
    #[error("logs are already set up")]
    LogsTaken(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// Somebody was here before.
    #[error("metrics are already set up")]
    MetricsTaken(#[source] metrics_exporter_prometheus::BuildError),
}

/// Sends the process's traces to stderr. Colour only on a terminal and without `NO_COLOR`.
///
/// # Errors
/// When the filter does not parse or logs are set up already.
pub fn init_logs(config: &LogConfig) -> Result<(), TelemetryError> {
    let filter = EnvFilter::try_new(&config.filter).map_err(|source| TelemetryError::Filter {
        filter: config.filter.clone(),
        source,
    })?;
    let colour = std::io::stderr().is_terminal() && crate::environment::text("NO_COLOR").is_none();
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(colour);
    match config.format {
        LogFormat::Text => lines.try_init(),
        LogFormat::Json => lines.json().flatten_event(true).try_init(),
    }
    .map_err(TelemetryError::LogsTaken)
}

/// Gives the metrics in Prometheus' text format whenever it is called.
#[derive(Clone)]
pub struct RenderMetrics(Arc<dyn Fn() -> String + Send + Sync>);

impl RenderMetrics {
    /// The metrics as they are now.
    #[must_use]
    pub fn render(&self) -> String {
        (self.0)()
    }
    /// The same as a bare closure.
    #[must_use]
    pub fn into_fn(self) -> Arc<dyn Fn() -> String + Send + Sync> {
        self.0
    }
}

impl fmt::Debug for RenderMetrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RenderMetrics(…)")
    }
}

/// Upper bounds of all histogram buckets, in seconds: from a memory store's commit to a slow boot.
const BUCKETS: [f64; 14] = [
    0.000_05, 0.000_25, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 30.0, 120.0,
];

/// Collects the process's metrics from now on. Fixed buckets, so that nothing has to be swept in the background.
///
/// # Errors
/// When a recorder is installed already.
pub fn install_metrics() -> Result<RenderMetrics, TelemetryError> {
    let handle = PrometheusBuilder::new()
        .set_buckets(&BUCKETS)
        .and_then(PrometheusBuilder::install_recorder)
        .map_err(TelemetryError::MetricsTaken)?;
    Ok(RenderMetrics(Arc::new(move || {
        handle.run_upkeep();
        handle.render()
    })))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_filter_is_named_and_good_logs_are_set_up_once() {
        let bad = LogConfig {
            filter: "info,=[".into(),
            ..LogConfig::default()
        };
        let error = init_logs(&bad).unwrap_err();
        assert!(error.to_string().contains("info,=["), "{error}");
        init_logs(&LogConfig::default()).unwrap();
        assert!(matches!(
            init_logs(&LogConfig::default()),
            Err(TelemetryError::LogsTaken(_))
        ));
    }

    #[test]
    fn counted_things_show_up_and_one_recorder_is_enough() {
        let metrics = install_metrics().unwrap();
        metrics::counter!("skyloom_test_total", "kind" => "unit").increment(3);
        metrics::histogram!("skyloom_test_seconds").record(0.002);
        let text = metrics.render();
        assert!(text.contains("skyloom_test_total{kind=\"unit\"} 3"), "{text}");
        assert!(
            text.contains("skyloom_test_seconds_bucket{le=\"0.0025\"} 1"),
            "{text}"
        );
        assert!(install_metrics().is_err());
    }
}
