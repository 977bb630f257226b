//! The limit of the image cache: who goes, who stays, and what does not fit.

use std::fs::{File, FileTimes};
use std::path::Path;
use std::time::{Duration, SystemTime};

use skyloom_hypervisor::{ErrorKind, HostStorage, ImageSpec, OverlaySpec};
use skyloom_image::Limits;
use skyloom_model::DiskFormat;
use skyloom_pool::{CacheLimit, DirPool, PoolConfig};

use crate::disks::{cache, image, server};

const SIZE: usize = 4096;

async fn pool(temp: &Path, images: u64) -> DirPool {
    let limits = Limits {
        allow_any_raw: true,
        ..Limits::default()
    };
    let limit = CacheLimit {
        bytes: images * SIZE as u64,
        rest: Duration::from_secs(3600),
    };
    let config = PoolConfig::new(temp.join("pool"));
    DirPool::open(config.with_limits(limits).with_cache(Some(limit)))
        .await
        .unwrap()
}

fn nth(n: u8) -> (ImageSpec, bytes::Bytes) {
    image(DiskFormat::Raw, vec![n; SIZE])
}

async fn is_there(pool: &DirPool, n: u8) -> bool {
    pool.cached_image(&nth(n).0).await.unwrap().is_some()
}

/// Nobody has asked for it for so many hours.
async fn unasked(pool: &DirPool, image: &ImageSpec, hours: u64) {
    let path = pool.cached_image(image).await.unwrap().unwrap().path;
    let file = File::open(path).unwrap();
    let asked = file.metadata().unwrap().modified().unwrap() - Duration::from_secs(hours * 3600);
    file.set_times(FileTimes::new().set_modified(asked)).unwrap();
}

async fn kept(pool: &DirPool, n: u8, hours: u64) {
    cache(pool, &nth(n)).await.unwrap();
    unasked(pool, &nth(n).0, hours).await;
}

#[tokio::test]
async fn the_longest_unasked_for_goes_first_and_no_more_than_needed() {
    let temp = tempfile::tempdir().unwrap();
    let pool = pool(temp.path(), 3).await;
    for (n, hours) in [(1, 5), (2, 9), (3, 7)] {
        kept(&pool, n, hours).await;
    }
    cache(&pool, &nth(4)).await.unwrap();
    // Looking counts as asking: the next to go is looked at last.
    assert!(!is_there(&pool, 2).await);
    assert!(is_there(&pool, 4).await && is_there(&pool, 1).await && is_there(&pool, 3).await);
}

#[tokio::test]
async fn asking_for_an_image_makes_it_young_again() {
    let temp = tempfile::tempdir().unwrap();
    let pool = pool(temp.path(), 2).await;
    kept(&pool, 1, 9).await;
    kept(&pool, 2, 5).await;
    assert!(is_there(&pool, 1).await);
    cache(&pool, &nth(3)).await.unwrap();
    assert!(is_there(&pool, 1).await && !is_there(&pool, 2).await);
}

#[tokio::test]
async fn what_a_disk_lies_on_stays_and_goes_when_the_disk_has_gone() {
    let temp = tempfile::tempdir().unwrap();
    let pool = pool(temp.path(), 1).await;
    cache(&pool, &nth(1)).await.unwrap();
    let overlay = OverlaySpec {
        server: server(1),
        disk: "root".into(),
        base: nth(1).0,
        size_bytes: SIZE as u64,
    };
    pool.create_overlay(&overlay).await.unwrap();
    unasked(&pool, &nth(1).0, 99).await;
    let full = cache(&pool, &nth(2)).await.unwrap_err();
    assert_eq!(full.kind(), ErrorKind::Full);
    pool.delete_server(server(1)).await.unwrap();
    cache(&pool, &nth(2)).await.unwrap();
    assert!(!is_there(&pool, 1).await && is_there(&pool, 2).await);
}

#[tokio::test]
async fn what_was_just_asked_for_and_kernels_stay() {
    let temp = tempfile::tempdir().unwrap();
    let pool = pool(temp.path(), 2).await;
    let mut bytes = vec![0; SIZE];
    bytes[..4].copy_from_slice(&[0x1f, 0x8b, 8, 0]);
    let initrd = image(DiskFormat::Initrd, bytes);
    cache(&pool, &initrd).await.unwrap();
    unasked(&pool, &initrd.0, 99).await;
    cache(&pool, &nth(1)).await.unwrap();
    let full = cache(&pool, &nth(2)).await.unwrap_err();
    assert_eq!(
        full.kind(),
        ErrorKind::Full,
        "one is young, the other somebody may boot"
    );
    unasked(&pool, &nth(1).0, 2).await;
    cache(&pool, &nth(2)).await.unwrap();
    assert!(!is_there(&pool, 1).await);
    assert!(pool.cached_image(&initrd.0).await.unwrap().is_some());
}

#[tokio::test]
async fn nothing_goes_for_what_does_not_fit_anyway() {
    let temp = tempfile::tempdir().unwrap();
    let pool = pool(temp.path(), 2).await;
    kept(&pool, 1, 9).await;
    let large = image(DiskFormat::Raw, vec![7; 3 * SIZE]);
    assert_eq!(cache(&pool, &large).await.unwrap_err().kind(), ErrorKind::Full);
    assert!(is_there(&pool, 1).await);
    // What was promised to it is given back.
    cache(&pool, &nth(2)).await.unwrap();
    assert!(is_there(&pool, 1).await && is_there(&pool, 2).await);
}

#[tokio::test]
async fn a_clock_that_went_back_lets_nothing_go() {
    let temp = tempfile::tempdir().unwrap();
    let pool = pool(temp.path(), 1).await;
    cache(&pool, &nth(1)).await.unwrap();
    let path = pool.cached_image(&nth(1).0).await.unwrap().unwrap().path;
    let file = File::open(path).unwrap();
    let ahead: SystemTime = file.metadata().unwrap().modified().unwrap() + Duration::from_secs(86_400);
    file.set_times(FileTimes::new().set_modified(ahead)).unwrap();
    assert_eq!(cache(&pool, &nth(2)).await.unwrap_err().kind(), ErrorKind::Full);
}
