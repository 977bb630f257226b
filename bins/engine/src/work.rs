//! Opens the parts and runs the engine.

use std::sync::Arc;

use skyloom::cloud::{DirImageRepo, EngineParts as EngineJobParts, cloud_flows, engine_jobs};
use skyloom::engine::{Engine, EngineConfig as Settings, EngineParts};
use skyloom::image::Limits;
use skyloom::image::fetch::{FetchPolicy, Fetcher};
use skyloom::model::{OsIds, Readiness, SystemClock};
use skyloom::scheduler::FleetScheduler;
use skyloom_bin::exit::MainError;
use skyloom_bin::health;
use skyloom_bin::telemetry::RenderMetrics;
use tokio_util::sync::CancellationToken;

use crate::config::EngineConfig;

pub(crate) async fn run(
    config: EngineConfig,
    metrics: RenderMetrics,
    shutdown: CancellationToken,
) -> Result<(), MainError> {
    let clock = Arc::new(SystemClock::new());
    let mut policy = FetchPolicy::default();
    for block in &config.fetch.allow {
        let block = block
            .parse()
            .map_err(|e| MainError::usage(format!("fetch.allow: {block:?} is no address block"), e))?;
        policy.allow.push(block);
    }
    let fetcher = Fetcher::new(policy).map_err(|e| MainError::failed("images cannot be fetched", e))?;
    let limits = Limits::default();
    let images = DirImageRepo::open(&config.images.dir, limits.max_file).map_err(|e| {
        MainError::failed(
            format!("the image folder {} does not open", config.images.dir.display()),
            e,
        )
    })?;
    let ids = Arc::new(OsIds::new(clock.clone()));
    let followed = config.store.tls(clock.clone()).await?;
    let tls = followed.as_ref().map(|f| f.live.clone());
    let store = config.store.open_with(clock.clone(), ids.clone(), tls).await?;
    let readiness = Readiness::new();
    let archive = match &config.archive {
        section if section.is_named() => {
            let opened = section.open(&store.backend, clock.clone(), ids.clone(), &readiness);
            Some(opened.await?.archive)
        }
        _ => None,
    };
    let engine = Engine::new(EngineParts {
        backend: store.backend,
        flows: cloud_flows(),
        jobs: engine_jobs(&EngineJobParts {
            images: Arc::new(images),
            fetch: Arc::new(fetcher),
            limits,
        }),
        scheduler: Arc::new(FleetScheduler::default()),
        ids,
        clock,
        readiness: readiness.clone(),
        config: Settings::new(config.engine.name),
    });
    let work = async {
        let archiving = async {
            if let Some(archive) = &archive {
                archive.run(shutdown.clone()).await;
            }
        };
        let roots = async {
            if let Some(followed) = followed {
                followed.follow(shutdown.clone()).await;
            }
        };
        tokio::join!(engine.run(shutdown.clone()), archiving, roots).0
    };
    tokio::select! {
        biased;
        ended = work => ended.map_err(|e| MainError::failed("the engine cannot work", e)),
        ended = health::serve_health(config.health.listen, readiness, metrics, shutdown.clone()) => ended,
    }
}
