//! A cloud on the store in `custom_store.rs`: bootstrapped, closed, opened again, and what stands in the file.

use std::error::Error;
use std::sync::Arc;

use skyloom::cloud::{Cloud, CloudParts, DirImageRepo};
use skyloom::model::{OsIds, SystemClock};
use skyloom::store::{ListOptions, Prefix, Store as _};

use crate::LogStore;

#[tokio::main]
pub(crate) async fn main() -> Result<(), Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("store.log");
    let clock = Arc::new(SystemClock::new());
    for start in ["first", "second"] {
        let cloud = Cloud::new(CloudParts {
            backend: Arc::new(LogStore::open(&file, clock.clone()).await?),
            clock: clock.clone(),
            ids: Arc::new(OsIds::new(clock.clone())),
            images: Arc::new(DirImageRepo::open(folder.path(), 1 << 20)?),
        });
        let made = cloud.bootstrap().await?;
        println!("{start} start: the default project is {}", made.project.meta.id);
    }
    let store = LogStore::open(&file, clock).await?;
    let page = store.list(&Prefix::all(), ListOptions::default()).await?;
    println!(
        "{} documents at revision {}; the file begins:",
        page.items.len(),
        page.revision
    );
    for line in std::fs::read_to_string(&file)?.lines().take(3) {
        println!("  {:.100} …", line);
    }
    Ok(())
}
