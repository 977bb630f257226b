//! Memory over very many finished workflows: it must not grow with what is done and over.

use std::path::Path;
use std::sync::Arc;

use skyloom::model::SystemClock;
use skyloom::sql::{SqliteConfig, SqliteStore};
use skyloom::store::{DynBackend, MemoryConfig, MemoryStore};

use crate::meter::{Anyhow, progress, rss};
use crate::rig::{Rig, Until};
use crate::table::{Short, Thousands};
use crate::ten::STEPS;
use crate::write;

/// Callers.
const IN_FLIGHT: usize = 64;
/// Rows of the table.
const ROWS: usize = 20;
/// Of so many workflows one is looked at afterwards.
const LOOKED_AT: usize = 1000;

/// `workflows` on the store of that name, with the figures of each twentieth.
pub(crate) async fn run(store: &str, workflows: usize, dir: &Path, clock: SystemClock) -> Result<(), Anyhow> {
    let sqlite = match store {
        "memory" => None,
        "sqlite" => {
            let config = SqliteConfig::new(dir.join("million.db"));
            Some(Arc::new(
                SqliteStore::open_or_create(config, Arc::new(clock)).await?,
            ))
        }
        _ => return Err(format!("there is no store {store}: memory, sqlite").into()),
    };
    let backend: DynBackend = match &sqlite {
        Some(sqlite) => sqlite.clone(),
        None => Arc::new(MemoryStore::new(Arc::new(clock), MemoryConfig::default())),
    };
    let rig = Rig::open(backend, clock).await?;
    write(format_args!(
        "\n| {store}: finished workflows | per second | p50 | p99 | CPU per step | resident memory | since the row before, each |"
    ))?;
    write("| ---: | ---: | ---: | ---: | ---: | ---: | ---: |")?;
    let each = workflows.div_ceil(ROWS);
    let mut before = rss()?;
    for row in 1..=ROWS {
        let (samples, tasks) = rig.closed_loop(IN_FLIGHT, Until::Count(each)).await?;
        rig.check(tasks.iter().step_by(LOOKED_AT)).await?;
        let now = rss()?;
        write(format_args!(
            "| {} | {} | {} | {} | {} | {:.1} MiB | {:.0} B |",
            Thousands((row * each) as f64),
            Thousands(samples.rate()),
            Short(samples.p50()),
            Short(samples.quantile(0.99)),
            Short(samples.cpu_each() / STEPS as u32),
            now as f64 / 1024.0,
            (now as f64 - before as f64) * 1024.0 / each as f64,
        ))?;
        progress(&format!("{} of {workflows} workflows", row * each));
        before = now;
    }
    rig.close().await?;
    if let Some(sqlite) = sqlite {
        sqlite.close().await?;
    }
    Ok(())
}
