//! The pool: images come whole or not at all, disks are made once, nothing stays behind.

use std::collections::BTreeSet;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use futures::FutureExt;
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use parking_lot::Mutex;
use sha2::{Digest, Sha256};
use skyloom_model::{DiskFormat, Id, Ids, ImageId, ManualClock, SeededIds, ServerId};

use super::ExamImage;
use super::domains::must_refuse;
use super::harness::{PoolDesk, StorageCase};
use crate::{CachedImage, ErrorKind, HostStorage, ImageSpec, OverlaySpec, ProgressFn, Result};

/// All cases of the pool's exam.
#[must_use]
pub fn cases() -> Vec<StorageCase> {
    // The pool's cases need nothing beyond the verbs, so they carry no list of needs.
    macro_rules! all {
        ($($function:ident),+ $(,)?) => {
            vec![$(StorageCase { name: stringify!($function), run: |desk| Box::pin($function(desk)) }),+]
        };
    }
    all![
        empty_pool_has_nothing,
        cached_image_is_found,
        cached_image_is_not_read_again,
        concurrent_caching_is_one_image,
        wrong_digest_is_refused,
        short_content_is_refused,
        long_content_is_refused,
        endless_content_is_refused,
        broken_content_leaves_nothing,
        dropped_caching_can_be_repeated,
        refused_by_the_inspector,
        hostile_digest_is_refused,
        progress_is_told,
        overlay_is_listed,
        overlay_twice_is_one_disk,
        overlay_over_another_image_is_a_conflict,
        overlay_over_an_uncached_image_is_not_found,
        overlay_of_a_hostile_name_is_refused,
        overlay_can_be_made_anew,
        seed_holds_exactly_its_content,
        seed_is_replaced,
        delete_disk_is_idempotent,
        delete_of_a_hostile_name_removes_nothing,
        delete_server_leaves_nothing,
        servers_are_independent,
        disks_are_in_name_order,
        reopened_pool_holds_the_same,
    ]
}

fn id<K: ?Sized>(seed: u64) -> Id<K> {
    Id::from_uuid(SeededIds::new(ManualClock::new(), seed).uuid())
}
fn server(seed: u64) -> ServerId {
    id(seed)
}

fn spec(image: &ExamImage) -> ImageSpec {
    let sha256: String = Sha256::digest(&image.content)
        .iter()
        .map(|b| format!("{b:02x}"))
        .collect();
    let id: ImageId = id(image.content.len() as u64);
    ImageSpec {
        id,
        sha256,
        format: image.format,
        size_bytes: image.content.len() as u64,
    }
}

fn quietly() -> ProgressFn {
    Arc::new(|_, _| {})
}

/// The bytes in pieces that fit no block.
fn pieces(content: Bytes) -> BoxStream<'static, io::Result<Bytes>> {
    const PIECE: usize = 61_001;
    let starts = (0..content.len()).step_by(PIECE);
    stream::iter(starts.map(move |at| Ok(content.slice(at..content.len().min(at + PIECE))))).boxed()
}

impl PoolDesk {
    fn storage(&self) -> Arc<dyn HostStorage> {
        self.pool.storage()
    }
    async fn files(&self) -> BTreeSet<PathBuf> {
        self.pool.files().await.into_iter().collect()
    }
    async fn cache(&self, image: &ExamImage) -> Result<CachedImage> {
        self.storage()
            .cache_image(&spec(image), pieces(image.content.clone()), quietly())
            .await
    }
    /// Caches image number `number` of the exam.
    async fn cached(&self, number: usize) -> ImageSpec {
        let image = &self.images[number];
        self.cache(image).await.expect("cache image");
        spec(image)
    }
    async fn overlay(&self, server: ServerId, disk: &str, number: usize) -> OverlaySpec {
        let base = self.cached(number).await;
        OverlaySpec {
            server,
            disk: disk.to_owned(),
            base,
            size_bytes: self.size(),
        }
    }
    /// A size that is enough for every image.
    fn size(&self) -> u64 {
        self.images
            .iter()
            .map(|i| i.virtual_size)
            .max()
            .unwrap_or_default()
            .next_multiple_of(1 << 20)
    }
    async fn names(&self, server: ServerId) -> Vec<String> {
        self.storage()
            .disks(server)
            .await
            .expect("disks")
            .into_iter()
            .map(|d| d.name)
            .collect()
    }
    /// Caching `image` from `content` fails with `kind` and leaves no trace; afterwards the true content is accepted.
    async fn must_not_cache(
        &self,
        image: &ImageSpec,
        content: BoxStream<'static, io::Result<Bytes>>,
        kind: Option<ErrorKind>,
    ) {
        let before = self.files().await;
        let done = self.storage().cache_image(image, content, quietly()).await;
        match kind {
            Some(kind) => must_refuse(done, kind),
            None => assert!(done.is_err(), "must fail, but says {done:?}"),
        }
        assert_eq!(self.storage().cached_image(image).await.expect("look up"), None);
        assert_eq!(self.files().await, before, "nothing is left behind");
    }
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
    for digest in [
        "",
        ".",
        "../../x",
        "/etc/passwd",
        &good.sha256[1..],
        &good.sha256.to_uppercase().replace('A', "B"),
    ] {
        if digest == good.sha256 {
            continue;
        }
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

async fn overlay_is_listed(desk: &mut PoolDesk) {
    for number in 0..desk.images.len() {
        let overlay = desk.overlay(server(number as u64), "root", number).await;
        let made = desk
            .storage()
            .create_overlay(&overlay)
            .await
            .expect("create overlay");
        assert_eq!((made.name.as_str(), made.format), ("root", DiskFormat::Qcow2));
        assert_eq!(
            made.backing_format,
            Some(desk.images[number].format),
            "the format below is named"
        );
        assert_eq!(
            desk.storage().disks(overlay.server).await.expect("disks"),
            [made.clone()]
        );
        assert!(desk.files().await.contains(&made.path), "{:?}", made.path);
    }
}

async fn overlay_twice_is_one_disk(desk: &mut PoolDesk) {
    let overlay = desk.overlay(server(1), "root", 0).await;
    let once = desk
        .storage()
        .create_overlay(&overlay)
        .await
        .expect("create overlay");
    let files = desk.files().await;
    assert_eq!(
        desk.storage()
            .create_overlay(&overlay)
            .await
            .expect("create again"),
        once
    );
    assert_eq!(desk.files().await, files);
}

async fn overlay_over_another_image_is_a_conflict(desk: &mut PoolDesk) {
    let overlay = desk.overlay(server(1), "root", 0).await;
    let made = desk
        .storage()
        .create_overlay(&overlay)
        .await
        .expect("create overlay");
    let other = desk.overlay(server(1), "root", 1).await;
    must_refuse(desk.storage().create_overlay(&other).await, ErrorKind::Conflict);
    assert_eq!(desk.storage().disks(server(1)).await.expect("disks"), [made]);
    desk.storage()
        .create_overlay(&overlay)
        .await
        .expect("the first one is still as it was");
}

async fn overlay_over_an_uncached_image_is_not_found(desk: &mut PoolDesk) {
    let base = spec(&desk.images[0]);
    let overlay = OverlaySpec {
        server: server(1),
        disk: "root".into(),
        base,
        size_bytes: desk.size(),
    };
    must_refuse(desk.storage().create_overlay(&overlay).await, ErrorKind::NotFound);
    assert!(desk.files().await.is_empty(), "nothing is left behind");
}

const HOSTILE: [&str; 8] = [
    "",
    ".",
    "..",
    "../root",
    "/etc/passwd",
    "a/b",
    "root,format=raw",
    "a\0b",
];

async fn overlay_of_a_hostile_name_is_refused(desk: &mut PoolDesk) {
    let good = desk.overlay(server(1), "root", 0).await;
    let before = desk.files().await;
    for disk in HOSTILE {
        let overlay = OverlaySpec {
            disk: disk.to_owned(),
            ..good.clone()
        };
        must_refuse(desk.storage().create_overlay(&overlay).await, ErrorKind::Invalid);
        assert_eq!(desk.files().await, before, "nothing is left behind by {disk:?}");
    }
}

async fn overlay_can_be_made_anew(desk: &mut PoolDesk) {
    let overlay = desk.overlay(server(1), "root", 0).await;
    desk.storage()
        .create_overlay(&overlay)
        .await
        .expect("create overlay");
    desk.storage()
        .delete_disk(server(1), "root")
        .await
        .expect("delete disk");
    let other = desk.overlay(server(1), "root", 1).await;
    desk.storage()
        .create_overlay(&other)
        .await
        .expect("create over another image");
    assert_eq!(desk.names(server(1)).await, ["root"]);
}

async fn seed_holds_exactly_its_content(desk: &mut PoolDesk) {
    for content in [
        vec![],
        vec![7],
        vec![0; 2048],
        (0..=255).cycle().take(375_001).collect::<Vec<u8>>(),
    ] {
        let seed = desk
            .storage()
            .create_seed(server(1), &content)
            .await
            .expect("create seed");
        assert_eq!((seed.format, seed.backing_format), (DiskFormat::Raw, None));
        assert!(
            desk.pool.holds(server(1), &seed, &content).await,
            "{} bytes",
            content.len()
        );
        assert_eq!(desk.storage().disks(server(1)).await.expect("disks"), [seed]);
    }
}

async fn seed_is_replaced(desk: &mut PoolDesk) {
    let seed = desk
        .storage()
        .create_seed(server(1), &[1; 4096])
        .await
        .expect("create seed");
    desk.storage()
        .create_seed(server(1), &[1; 4096])
        .await
        .expect("create the same");
    assert!(desk.pool.holds(server(1), &seed, &[1; 4096]).await);
    let shorter = desk
        .storage()
        .create_seed(server(1), &[2; 2048])
        .await
        .expect("replace seed");
    assert_eq!(shorter.path, seed.path);
    assert!(
        desk.pool.holds(server(1), &shorter, &[2; 2048]).await,
        "no rest of the longer content"
    );
    assert_eq!(desk.files().await.len(), 1);
}

async fn delete_disk_is_idempotent(desk: &mut PoolDesk) {
    let overlay = desk.overlay(server(1), "root", 0).await;
    desk.storage()
        .create_overlay(&overlay)
        .await
        .expect("create overlay");
    let seed = desk
        .storage()
        .create_seed(server(1), b"seed")
        .await
        .expect("create seed");
    for _ in 0..2 {
        desk.storage()
            .delete_disk(server(1), "root")
            .await
            .expect("delete disk");
        assert_eq!(desk.names(server(1)).await, [seed.name.clone()]);
    }
    desk.storage()
        .delete_disk(server(2), "root")
        .await
        .expect("delete what never was");
    assert!(
        desk.storage()
            .cached_image(&overlay.base)
            .await
            .expect("look up")
            .is_some(),
        "the image stays"
    );
}

async fn delete_of_a_hostile_name_removes_nothing(desk: &mut PoolDesk) {
    let overlay = desk.overlay(server(1), "root", 0).await;
    desk.storage()
        .create_overlay(&overlay)
        .await
        .expect("create overlay");
    desk.storage()
        .create_seed(server(2), b"seed")
        .await
        .expect("create seed");
    let before = desk.files().await;
    for disk in HOSTILE {
        must_refuse(
            desk.storage().delete_disk(server(1), disk).await,
            ErrorKind::Invalid,
        );
        assert_eq!(desk.files().await, before, "{disk:?}");
    }
}

async fn delete_server_leaves_nothing(desk: &mut PoolDesk) {
    desk.cached(0).await;
    let before = desk.files().await;
    let overlay = desk.overlay(server(1), "root", 0).await;
    desk.storage()
        .create_overlay(&overlay)
        .await
        .expect("create overlay");
    desk.storage()
        .create_seed(server(1), b"seed")
        .await
        .expect("create seed");
    for _ in 0..2 {
        desk.storage()
            .delete_server(server(1))
            .await
            .expect("delete server");
        assert_eq!(desk.names(server(1)).await, [""; 0]);
        assert_eq!(desk.files().await, before, "the image stays and nothing else");
    }
}

async fn servers_are_independent(desk: &mut PoolDesk) {
    let one = desk.overlay(server(1), "root", 0).await;
    let other = OverlaySpec {
        server: server(2),
        ..one.clone()
    };
    let first = desk.storage().create_overlay(&one).await.expect("create overlay");
    let second = desk
        .storage()
        .create_overlay(&other)
        .await
        .expect("create overlay");
    assert_ne!(first.path, second.path);
    desk.storage()
        .delete_server(server(1))
        .await
        .expect("delete server");
    assert_eq!(
        desk.storage().disks(server(2)).await.expect("disks"),
        [second.clone()]
    );
    assert!(desk.files().await.contains(&second.path));
}

async fn disks_are_in_name_order(desk: &mut PoolDesk) {
    for disk in ["root", "data", "a-1"] {
        let overlay = desk.overlay(server(1), disk, 0).await;
        desk.storage()
            .create_overlay(&overlay)
            .await
            .expect("create overlay");
    }
    desk.storage()
        .create_seed(server(1), b"seed")
        .await
        .expect("create seed");
    let names = desk.names(server(1)).await;
    assert_eq!(names.len(), 4);
    assert!(names.is_sorted(), "{names:?}");
}

async fn reopened_pool_holds_the_same(desk: &mut PoolDesk) {
    let overlay = desk.overlay(server(1), "root", 0).await;
    desk.storage()
        .create_overlay(&overlay)
        .await
        .expect("create overlay");
    let seed = desk
        .storage()
        .create_seed(server(1), b"seed")
        .await
        .expect("create seed");
    let (disks, files) = (
        desk.storage().disks(server(1)).await.expect("disks"),
        desk.files().await,
    );
    desk.pool.reopen().await;
    assert_eq!(desk.storage().disks(server(1)).await.expect("disks"), disks);
    assert_eq!(desk.files().await, files);
    assert!(desk.pool.holds(server(1), &seed, b"seed").await);
    assert!(
        desk.storage()
            .cached_image(&overlay.base)
            .await
            .expect("look up")
            .is_some()
    );
    desk.storage()
        .create_overlay(&overlay)
        .await
        .expect("create again");
    let other = desk.overlay(server(1), "root", 1).await;
    must_refuse(desk.storage().create_overlay(&other).await, ErrorKind::Conflict);
}
