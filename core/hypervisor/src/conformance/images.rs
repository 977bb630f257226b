//! Images come into the cache whole or not at all.

use std::collections::BTreeSet;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use futures::stream;
use futures::{FutureExt, StreamExt};
use parking_lot::Mutex;

use super::domains::must_refuse;
use super::harness::{PoolDesk, StorageCase, pool_case};
use super::pool::{pieces, quietly, server, spec};
use crate::{ErrorKind, ImageSpec, ProgressFn};

pub(super) fn cases() -> Vec<StorageCase> {
    vec![
        pool_case!(empty_pool_has_nothing),
        pool_case!(cached_image_is_found),
        pool_case!(cached_image_is_not_read_again),
        pool_case!(concurrent_caching_is_one_image),
        pool_case!(wrong_digest_is_refused),
        pool_case!(short_content_is_refused),
        pool_case!(long_content_is_refused),
        pool_case!(endless_content_is_refused),
        pool_case!(broken_content_leaves_nothing),
        pool_case!(dropped_caching_can_be_repeated),
        pool_case!(refused_by_the_inspector),
        pool_case!(hostile_digest_is_refused),
        pool_case!(progress_is_told),
    ]
}

async fn empty_pool_has_nothing(desk: &mut PoolDesk) {
    assert_eq!(
        desk.storage()
            .cached_image(&spec(&desk.images[0]))
            .await
            .expect("look up"),
        None
    );
    assert_eq!(desk.names(server(1)).await, [""; 0]);
    assert!(desk.files().await.is_empty());
}

async fn cached_image_is_found(desk: &mut PoolDesk) {
    for image in &desk.images {
        let cached = desk.cache(image).await.expect("cache image");
        assert_eq!(cached.format, image.format);
        assert_eq!(
            desk.storage().cached_image(&spec(image)).await.expect("look up"),
            Some(cached)
        );
    }
    assert_eq!(
        desk.files().await.len(),
        desk.images.len(),
        "one file for each image and no other"
    );
}

async fn cached_image_is_not_read_again(desk: &mut PoolDesk) {
    let image = desk.cached(0).await;
    let never = stream::pending().boxed();
    let cached = desk
        .storage()
        .cache_image(&image, never, quietly())
        .await
        .expect("cache again");
    assert_eq!(
        desk.storage().cached_image(&image).await.expect("look up"),
        Some(cached)
    );
}

async fn concurrent_caching_is_one_image(desk: &mut PoolDesk) {
    let image = &desk.images[0];
    let all = futures::future::join_all((0..4).map(|_| desk.cache(image))).await;
    let paths: BTreeSet<PathBuf> = all
        .into_iter()
        .map(|done| done.expect("cache image").path)
        .collect();
    assert_eq!(paths.len(), 1);
    assert_eq!(desk.files().await.len(), 1);
}

async fn wrong_digest_is_refused(desk: &mut PoolDesk) {
    let mut content = desk.images[0].content.to_vec();
    let last = content.len() - 1;
    content[last] ^= 1;
    desk.must_not_cache(
        &spec(&desk.images[0]),
        pieces(content.into()),
        Some(ErrorKind::Invalid),
    )
    .await;
    desk.cached(0).await;
}

async fn short_content_is_refused(desk: &mut PoolDesk) {
    let content = &desk.images[0].content;
    let short = pieces(content.slice(..content.len() - 1));
    desk.must_not_cache(&spec(&desk.images[0]), short, Some(ErrorKind::Invalid))
        .await;
    let nothing = stream::empty().boxed();
    desk.must_not_cache(&spec(&desk.images[0]), nothing, Some(ErrorKind::Invalid))
        .await;
    desk.cached(0).await;
}

async fn long_content_is_refused(desk: &mut PoolDesk) {
    let long = pieces(desk.images[0].content.clone())
        .chain(stream::iter([Ok(Bytes::from_static(b"x"))]))
        .boxed();
    desk.must_not_cache(&spec(&desk.images[0]), long, Some(ErrorKind::Invalid))
        .await;
    desk.cached(0).await;
}

async fn endless_content_is_refused(desk: &mut PoolDesk) {
    // Reading to its end would take for ever: the promised size is the bound.
    let endless = stream::repeat_with(|| Ok(Bytes::from_static(&[0; 4096]))).boxed();
    desk.must_not_cache(&spec(&desk.images[0]), endless, Some(ErrorKind::Invalid))
        .await;
}

async fn broken_content_leaves_nothing(desk: &mut PoolDesk) {
    let content = desk.images[0].content.clone();
    let half = pieces(content.slice(..content.len() / 2));
    let broken = half
        .chain(stream::iter([Err(io::Error::from(
            io::ErrorKind::ConnectionReset,
        ))]))
        .boxed();
    desk.must_not_cache(&spec(&desk.images[0]), broken, None).await;
    desk.cached(0).await;
}

async fn dropped_caching_can_be_repeated(desk: &mut PoolDesk) {
    let content = desk.images[0].content.clone();
    let stuck = pieces(content.slice(..content.len() / 2))
        .chain(stream::pending())
        .boxed();
    let image = spec(&desk.images[0]);
    let storage = desk.storage();
    let _ = storage.cache_image(&image, stuck, quietly()).now_or_never();
    assert_eq!(storage.cached_image(&image).await.expect("look up"), None);
    desk.cached(0).await;
    assert!(storage.cached_image(&image).await.expect("look up").is_some());
}

async fn refused_by_the_inspector(desk: &mut PoolDesk) {
    for image in &desk.refused {
        desk.must_not_cache(
            &spec(image),
            pieces(image.content.clone()),
            Some(ErrorKind::Invalid),
        )
        .await;
    }
}

async fn hostile_digest_is_refused(desk: &mut PoolDesk) {
    let good = spec(&desk.images[0]);
    let upper = "A".repeat(64);
    for digest in ["", ".", "../../x", "/etc/passwd", &good.sha256[1..], &upper] {
        let image = ImageSpec {
            sha256: digest.to_owned(),
            ..good.clone()
        };
        let before = desk.files().await;
        let content = pieces(desk.images[0].content.clone());
        must_refuse(
            desk.storage().cache_image(&image, content, quietly()).await,
            ErrorKind::Invalid,
        );
        assert_eq!(desk.files().await, before, "nothing is left behind by {digest:?}");
    }
}

async fn progress_is_told(desk: &mut PoolDesk) {
    let told: Arc<Mutex<Vec<(u64, u64)>>> = Arc::default();
    let image = spec(&desk.images[0]);
    let progress: ProgressFn = {
        let told = told.clone();
        Arc::new(move |done, all| told.lock().push((done, all)))
    };
    let content = pieces(desk.images[0].content.clone());
    desk.storage()
        .cache_image(&image, content, progress)
        .await
        .expect("cache image");
    let told = told.lock();
    assert_eq!(
        told.last(),
        Some(&(image.size_bytes, image.size_bytes)),
        "the end is told"
    );
    assert!(
        told.windows(2).all(|w| w[0].0 <= w[1].0),
        "never backwards: {told:?}"
    );
    assert!(
        told.iter().all(|(_, all)| *all == image.size_bytes || *all == 0),
        "{told:?}"
    );
}
