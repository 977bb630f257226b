//! Modes, owners, sweeping, damage.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::sync::Arc;

use futures::StreamExt;
use skyloom_hypervisor::{ErrorKind, HostStorage, OverlaySpec};
use skyloom_image::Limits;
use skyloom_model::DiskFormat;
use skyloom_pool::{DirPool, Owner, PoolConfig};

use crate::disks::{cache, image, open, server};

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[tokio::test]
async fn images_are_read_only_and_disks_private() {
    let temp = tempfile::tempdir().unwrap();
    let pool = open(temp.path()).await;
    let base = image(DiskFormat::Raw, vec![0; 4096]);
    cache(&pool, &base).await.unwrap();
    let seed = pool.create_seed(server(1), "seed", b"secret").await.unwrap();
    let overlay = OverlaySpec {
        server: server(1),
        disk: "root".into(),
        base: base.0.clone(),
        size_bytes: 4096,
    };
    let root = pool.create_overlay(&overlay).await.unwrap();
    assert_eq!(
        mode(&pool.cached_image(&base.0).await.unwrap().unwrap().path),
        0o400
    );
    assert_eq!((mode(&seed.path), mode(&root.path)), (0o600, 0o600));
    assert_eq!(mode(seed.path.parent().unwrap()), 0o700);
}

#[tokio::test]
async fn disks_belong_to_the_owner_and_images_only_to_his_group() {
    let (me, mine) = (rustix::process::getuid(), rustix::process::getgid());
    // Only root can give files away.
    let owner = if me.is_root() {
        Owner {
            uid: 65534,
            gid: 65534,
        }
    } else {
        Owner {
            uid: me.as_raw(),
            gid: mine.as_raw(),
        }
    };
    let temp = tempfile::tempdir().unwrap();
    let limits = Limits {
        allow_any_raw: true,
        ..Limits::default()
    };
    let config = PoolConfig::new(temp.path())
        .with_owner(Some(owner))
        .with_limits(limits);
    let pool = DirPool::open(config).await.unwrap();
    let base = image(DiskFormat::Raw, vec![0; 4096]);
    cache(&pool, &base).await.unwrap();
    let seed = pool.create_seed(server(1), "seed", b"secret").await.unwrap();
    let seen = fs::metadata(&seed.path).unwrap();
    assert_eq!(
        (seen.uid(), seen.gid(), mode(&seed.path)),
        (owner.uid, owner.gid, 0o600)
    );
    let cached = pool.cached_image(&base.0).await.unwrap().unwrap().path;
    let seen = fs::metadata(&cached).unwrap();
    assert_eq!(
        (seen.uid(), seen.gid(), mode(&cached)),
        (me.as_raw(), owner.gid, 0o440)
    );
    assert_eq!(mode(seed.path.parent().unwrap()), 0o711, "he may pass, not list");
}

#[tokio::test]
async fn leftovers_of_earlier_lives_are_swept_and_the_rest_stays() {
    let temp = tempfile::tempdir().unwrap();
    let pool = open(temp.path()).await;
    let seed = pool.create_seed(server(1), "seed", b"stays").await.unwrap();
    drop(pool);
    let root = temp.path().join("pool");
    let servers = root.join("servers");
    let leftovers = [
        root.join("images/.tmp-7"),
        servers.join(server(1).to_string()).join(".tmp-0"),
        servers.join(format!(".gone-{}", server(2))).join("root.qcow2"),
    ];
    fs::create_dir(leftovers[2].parent().unwrap()).unwrap();
    let foreign = root.join("images/README");
    for file in leftovers.iter().chain([&foreign]) {
        fs::write(file, b"x").unwrap();
    }
    let pool = open(temp.path()).await;
    assert!(leftovers.iter().all(|f| !f.exists()));
    assert!(!leftovers[2].parent().unwrap().exists());
    assert!(foreign.exists());
    assert_eq!(pool.disks(server(1)).await.unwrap(), [seed]);
}

#[tokio::test]
async fn what_is_half_removed_is_still_listed_and_can_be_removed() {
    let temp = tempfile::tempdir().unwrap();
    let pool = open(temp.path()).await;
    let servers = temp.path().join("pool/servers");
    for name in [format!(".gone-{}", server(2)), "lost+found".into()] {
        fs::create_dir(servers.join(&name)).unwrap();
        fs::write(servers.join(name).join("file"), b"x").unwrap();
    }
    assert_eq!(pool.servers().await.unwrap(), [server(2)]);
    pool.delete_server(server(2)).await.unwrap();
    assert_eq!(pool.servers().await.unwrap(), []);
    assert!(servers.join("lost+found").exists(), "it is not ours");
}

#[tokio::test]
async fn a_directory_is_used_by_one_pool() {
    let temp = tempfile::tempdir().unwrap();
    let pool = open(temp.path()).await;
    let second = DirPool::open(PoolConfig::new(temp.path().join("pool"))).await;
    assert_eq!(second.unwrap_err().kind(), ErrorKind::Conflict);
    drop(pool);
    open(temp.path()).await;
}

#[tokio::test]
async fn an_image_of_another_length_in_the_cache_is_no_image_and_is_replaced() {
    let temp = tempfile::tempdir().unwrap();
    let pool = open(temp.path()).await;
    let base = image(DiskFormat::Raw, vec![0; 4096]);
    cache(&pool, &base).await.unwrap();
    let path = pool.cached_image(&base.0).await.unwrap().unwrap().path;
    fs::remove_file(&path).unwrap();
    fs::write(&path, b"short").unwrap();
    assert_eq!(pool.cached_image(&base.0).await.unwrap(), None);
    cache(&pool, &base).await.unwrap();
    assert_eq!(fs::read(&path).unwrap().len(), 4096);
}

#[tokio::test]
async fn links_lead_nowhere() {
    let temp = tempfile::tempdir().unwrap();
    let pool = open(temp.path()).await;
    let outside = temp.path().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("root.qcow2"), b"mine").unwrap();
    symlink(
        &outside,
        temp.path().join("pool/servers").join(server(1).to_string()),
    )
    .unwrap();
    assert!(pool.delete_disk(server(1), "root").await.is_err());
    assert!(pool.delete_server(server(1)).await.is_err());
    assert!(pool.create_seed(server(1), "seed", b"x").await.is_err());
    assert!(pool.disks(server(1)).await.is_err());
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 1);
}

#[tokio::test]
async fn a_source_that_breaks_can_be_tried_again() {
    let temp = tempfile::tempdir().unwrap();
    let pool = open(temp.path()).await;
    let (spec, _) = image(DiskFormat::Raw, vec![0; 4096]);
    let broken =
        futures::stream::iter([Err(std::io::Error::from(std::io::ErrorKind::ConnectionReset))]).boxed();
    let error = pool
        .cache_image(&spec, broken, Arc::new(|_, _| {}))
        .await
        .unwrap_err();
    assert_eq!(
        (error.kind(), error.reason().retryable),
        (ErrorKind::Unavailable, true)
    );
    assert_eq!(fs::read_dir(temp.path().join("pool/images")).unwrap().count(), 0);
}
