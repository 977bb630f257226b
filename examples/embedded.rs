//! A whole cloud inside your process: memory store, one simulated host, an image, a server. No sockets; no files but a
//! temporary folder for images.

#![allow(
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "a program of its own, not a library"
)]

use std::{io, sync::Arc};

use skyloom::cloud::{CreateImage, CreateServer, DirImageRepo, NoFetch};
use skyloom::model::{DiskFormat, OsIds, Resource as _, SystemClock};
use skyloom::store::{MemoryConfig, MemoryStore};
use skyloom::{LocalCloud, LocalHost, LocalParts, hypervisor::FakeWorld, image::Limits};

#[tokio::main]
pub(crate) async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let (clock, folder, world) = (
        Arc::new(SystemClock::new()),
        tempfile::tempdir()?,
        FakeWorld::in_memory(),
    );
    let local = LocalCloud::open(LocalParts {
        backend: Arc::new(MemoryStore::new(clock.clone(), MemoryConfig::default())),
        images: Arc::new(DirImageRepo::open(folder.path(), 1 << 30)?),
        hosts: vec![LocalHost::new(
            "h1",
            Arc::new(world.hypervisor()),
            Arc::new(world.storage()),
        )],
        fetch: Arc::new(NoFetch),
        limits: Limits {
            allow_any_raw: true,
            ..Limits::default()
        },
        ids: Arc::new(OsIds::new(clock.clone())),
        clock,
    })
    .await?;
    let (cloud, me) = (local.cloud(), local.admin());
    let stop = tokio_util::sync::CancellationToken::new();
    let work = tokio::spawn(local.run(stop.clone()));

    let image = cloud
        .create_image(&me, CreateImage::new("blank", DiskFormat::Raw))
        .await?
        .image;
    let content = futures::stream::iter([io::Result::Ok(vec![0; 1 << 20].into())]);
    let task = cloud
        .upload_image(&me, image.id(), Box::pin(content), None)
        .await?
        .task
        .expect("an import");
    cloud.wait_for_task(&me, task.id).await?;
    let made = cloud
        .create_server(&me, CreateServer::new("web-1", "blank", "m1.tiny"))
        .await?;
    let task = cloud.wait_for_task(&me, made.task.id).await?;
    let server = cloud.get_server(&me, made.server.id()).await?.value;
    println!(
        "task {:?}: {} is {:?}",
        task.state, server.meta.name, server.status.power
    );

    stop.cancel();
    Ok(work.await??)
}
