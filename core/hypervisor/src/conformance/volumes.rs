//! Volumes: whole or not there, in the format that was named, with snapshots that give back what was.

use futures::StreamExt as _;
use skyloom_model::{DiskFormat, Name, Pool, SnapshotId};

use super::domains::must_refuse;
use super::harness::{PoolDesk, StorageCase, pool_case};
use super::pool::{id, server, spec};
use crate::{DiskAt, ErrorKind, VolumeAt, VolumeContent, VolumeInfo, VolumeOrder};

const MIB: u64 = 1 << 20;

pub(super) fn cases() -> Vec<StorageCase> {
    vec![
        pool_case!(volume_is_what_was_ordered),
        pool_case!(volume_twice_is_one_volume),
        pool_case!(volume_is_read_to_its_end),
        pool_case!(volume_of_another_making_is_a_conflict),
        pool_case!(volume_of_an_image_holds_it),
        pool_case!(volume_of_what_is_not_there_is_not_found),
        pool_case!(volume_in_an_unknown_pool_is_not_found),
        pool_case!(volume_of_part_of_a_sector_is_refused),
        pool_case!(copy_of_a_volume_is_its_own),
        pool_case!(copy_of_a_snapshot_is_what_was),
        pool_case!(copy_of_a_servers_disk_holds_it),
        pool_case!(copy_smaller_than_its_source_is_refused),
        pool_case!(volume_grows_and_never_shrinks),
        pool_case!(volume_grows_with_snapshots),
        pool_case!(deleted_volume_leaves_nothing),
        pool_case!(snapshot_gives_back_what_was),
        pool_case!(snapshot_twice_is_one),
        pool_case!(snapshots_are_in_order_and_independent),
        pool_case!(snapshot_of_a_raw_volume_is_unsupported),
        pool_case!(forgotten_snapshot_is_gone),
        pool_case!(volumes_are_listed_and_are_no_servers),
        pool_case!(reopened_pool_holds_the_same_volumes),
    ]
}

fn at(seed: u64) -> VolumeAt {
    VolumeAt {
        volume: id(seed),
        pool: Pool::Local,
    }
}
fn moment(seed: u64) -> SnapshotId {
    id(1000 + seed)
}
fn order(seed: u64, format: DiskFormat, content: VolumeContent) -> VolumeOrder {
    VolumeOrder {
        at: at(seed),
        format,
        size_bytes: 8 * MIB,
        content,
    }
}
fn copy_of(seed: u64, snapshot: Option<SnapshotId>) -> VolumeContent {
    VolumeContent::Disk {
        disk: DiskAt::Volume(at(seed)),
        snapshot,
    }
}

const FORMATS: [DiskFormat; 2] = [DiskFormat::Qcow2, DiskFormat::Raw];

impl PoolDesk {
    async fn blank(&self, seed: u64, format: DiskFormat) -> VolumeInfo {
        let order = order(seed, format, VolumeContent::Zeroes);
        let made = self.storage().create_volume(&order).await;
        made.expect("create volume")
    }
    /// A blank qcow2 volume that holds `byte` all over its beginning.
    async fn written(&self, seed: u64, byte: u8) -> VolumeInfo {
        let made = self.blank(seed, DiskFormat::Qcow2).await;
        self.pool.fill(&made, byte).await;
        made
    }
    async fn size_of(&self, seed: u64) -> u64 {
        let there = self.storage().volume(&at(seed)).await.expect("look up");
        there.expect("the volume is there").size_bytes
    }
    async fn kept(&self, seed: u64) -> Vec<SnapshotId> {
        let kept = self.storage().volume_snapshots(&at(seed)).await;
        let kept = kept.expect("snapshots").into_iter();
        kept.map(|s| s.snapshot).collect()
    }
}

async fn volume_is_what_was_ordered(desk: &mut PoolDesk) {
    for (seed, format) in (1..).zip(FORMATS) {
        assert_eq!(desk.storage().volume(&at(seed)).await.expect("look up"), None);
        let made = desk.blank(seed, format).await;
        assert_eq!(
            (&made.at, made.format, made.size_bytes),
            (&at(seed), format, 8 * MIB)
        );
        assert!(made.allocated_bytes < 8 * MIB, "zeroes take no room: {made:?}");
        assert_eq!(
            desk.storage().volume(&at(seed)).await.expect("look up"),
            Some(made.clone())
        );
        assert!(desk.files().await.contains(&made.path), "{:?}", made.path);
        assert!(desk.pool.filled(&made, 0).await);
    }
}

async fn volume_twice_is_one_volume(desk: &mut PoolDesk) {
    for (seed, format) in (1..).zip(FORMATS) {
        let made = desk.blank(seed, format).await;
        desk.pool.fill(&made, 7).await;
        let files = desk.files().await;
        let again = desk.blank(seed, format).await;
        assert_eq!(
            (again.path, again.size_bytes),
            (made.path.clone(), made.size_bytes)
        );
        assert_eq!(desk.files().await, files);
        assert!(
            desk.pool.filled(&made, 7).await,
            "what the guest wrote is still there"
        );
    }
}

async fn volume_is_read_to_its_end(desk: &mut PoolDesk) {
    must_refuse(desk.storage().read_volume(&at(1)).await, ErrorKind::NotFound);
    for (seed, format) in (1..).zip(FORMATS) {
        let made = desk.blank(seed, format).await;
        desk.pool.fill(&made, 7).await;
        let file = desk.storage().read_volume(&at(seed)).await.expect("read");
        let (size, mut read) = (file.size_bytes, 0);
        let mut content = file.content;
        while let Some(piece) = content.next().await {
            read += piece.expect("a piece").len() as u64;
        }
        assert_eq!(read, size);
        assert!(size > 0 && size.is_multiple_of(512), "{size}");
    }
}

async fn volume_of_another_making_is_a_conflict(desk: &mut PoolDesk) {
    let made = desk.blank(1, DiskFormat::Qcow2).await;
    let raw = order(1, DiskFormat::Raw, VolumeContent::Zeroes);
    must_refuse(desk.storage().create_volume(&raw).await, ErrorKind::Conflict);
    let larger = VolumeOrder {
        size_bytes: 16 * MIB,
        ..order(1, DiskFormat::Qcow2, VolumeContent::Zeroes)
    };
    must_refuse(desk.storage().create_volume(&larger).await, ErrorKind::Conflict);
    let there = desk.storage().volume(&at(1)).await.expect("look up");
    assert_eq!(there, Some(made), "it is as it was");
}

async fn volume_of_an_image_holds_it(desk: &mut PoolDesk) {
    let mut seed = 0;
    for number in 0..desk.images.len() {
        let image = desk.cached(number).await;
        for format in FORMATS {
            seed += 1;
            let content = VolumeContent::Image { image: image.clone() };
            let made = desk.storage().create_volume(&order(seed, format, content)).await;
            let made = made.expect("create volume");
            assert_eq!((made.format, made.size_bytes), (format, 8 * MIB));
            assert!(
                desk.pool.holds_image(&made, &desk.images[number]).await,
                "image {number}"
            );
        }
    }
}

async fn volume_of_what_is_not_there_is_not_found(desk: &mut PoolDesk) {
    let image = spec(&desk.images[0]);
    let disk = DiskAt::Server {
        server: server(1),
        disk: "root".into(),
    };
    desk.blank(9, DiskFormat::Qcow2).await;
    let before = desk.files().await;
    let contents = [
        VolumeContent::Image { image },
        copy_of(5, None),
        copy_of(9, Some(moment(1))),
        VolumeContent::Disk { disk, snapshot: None },
    ];
    for content in contents {
        let order = order(1, DiskFormat::Qcow2, content);
        must_refuse(desk.storage().create_volume(&order).await, ErrorKind::NotFound);
        assert_eq!(desk.files().await, before, "nothing is left behind by {order:?}");
    }
}

async fn volume_in_an_unknown_pool_is_not_found(desk: &mut PoolDesk) {
    let name = Name::new("elsewhere").expect("a name");
    let at = VolumeAt {
        volume: at(1).volume,
        pool: Pool::Shared { name },
    };
    let order = VolumeOrder {
        at: at.clone(),
        ..order(1, DiskFormat::Raw, VolumeContent::Zeroes)
    };
    must_refuse(desk.storage().create_volume(&order).await, ErrorKind::NotFound);
    must_refuse(desk.storage().delete_volume(&at).await, ErrorKind::NotFound);
}

async fn volume_of_part_of_a_sector_is_refused(desk: &mut PoolDesk) {
    for format in FORMATS {
        let order = VolumeOrder {
            size_bytes: MIB + 1,
            ..order(1, format, VolumeContent::Zeroes)
        };
        must_refuse(desk.storage().create_volume(&order).await, ErrorKind::Invalid);
    }
    assert!(desk.files().await.is_empty());
}

async fn copy_of_a_volume_is_its_own(desk: &mut PoolDesk) {
    let source = desk.written(1, 5).await;
    for (seed, format) in (2..).zip(FORMATS) {
        let made = desk
            .storage()
            .create_volume(&order(seed, format, copy_of(1, None)))
            .await;
        let made = made.expect("copy");
        assert!(desk.pool.filled(&made, 5).await);
        desk.pool.fill(&made, 6).await;
        assert!(desk.pool.filled(&source, 5).await, "the source stays as it is");
        assert_eq!(desk.kept(seed).await, [], "a copy has no snapshots");
    }
    desk.storage().delete_volume(&at(1)).await.expect("delete");
    let left = desk.storage().volume(&at(2)).await.expect("look up");
    assert!(
        desk.pool.filled(&left.expect("it is there"), 6).await,
        "it needs nothing of its source"
    );
}

async fn copy_of_a_snapshot_is_what_was(desk: &mut PoolDesk) {
    let source = desk.written(1, 5).await;
    let storage = desk.storage();
    storage
        .snapshot_volume(&at(1), moment(1))
        .await
        .expect("snapshot");
    desk.pool.fill(&source, 6).await;
    for (seed, format) in (2..).zip(FORMATS) {
        let order = order(seed, format, copy_of(1, Some(moment(1))));
        let made = storage.create_volume(&order).await.expect("copy");
        assert!(desk.pool.filled(&made, 5).await, "what was then");
        assert_eq!(desk.kept(seed).await, []);
    }
    assert!(desk.pool.filled(&source, 6).await);
}

async fn copy_of_a_servers_disk_holds_it(desk: &mut PoolDesk) {
    let overlay = desk.overlay(server(1), "root", 0).await;
    desk.storage()
        .create_overlay(&overlay)
        .await
        .expect("create overlay");
    let content = VolumeContent::Disk {
        disk: DiskAt::Server {
            server: server(1),
            disk: "root".into(),
        },
        snapshot: None,
    };
    let made = desk
        .storage()
        .create_volume(&order(1, DiskFormat::Qcow2, content))
        .await;
    assert_eq!(made.expect("copy").size_bytes, 8 * MIB);
    desk.storage()
        .delete_server(server(1))
        .await
        .expect("delete server");
    assert_eq!(desk.size_of(1).await, 8 * MIB, "it is no part of the server");
}

async fn copy_smaller_than_its_source_is_refused(desk: &mut PoolDesk) {
    desk.blank(1, DiskFormat::Qcow2).await;
    let before = desk.files().await;
    let small = VolumeOrder {
        size_bytes: 4 * MIB,
        ..order(2, DiskFormat::Qcow2, copy_of(1, None))
    };
    must_refuse(desk.storage().create_volume(&small).await, ErrorKind::Invalid);
    assert_eq!(desk.files().await, before);
}

async fn volume_grows_and_never_shrinks(desk: &mut PoolDesk) {
    for (seed, format) in (1..).zip(FORMATS) {
        let made = desk.blank(seed, format).await;
        desk.pool.fill(&made, 5).await;
        for (bytes, then) in [(16, 16), (16, 16), (12, 16), (20, 20)] {
            let grown = desk.storage().grow_volume(&at(seed), bytes * MIB).await;
            assert_eq!(grown.expect("grow").size_bytes, then * MIB);
            assert_eq!(desk.size_of(seed).await, then * MIB);
        }
        assert!(
            desk.pool.filled(&made, 5).await,
            "what was written is still there"
        );
        desk.blank(seed, format).await;
        assert_eq!(
            desk.size_of(seed).await,
            20 * MIB,
            "the order of before finds it grown"
        );
    }
    must_refuse(desk.storage().grow_volume(&at(9), MIB).await, ErrorKind::NotFound);
}

async fn volume_grows_with_snapshots(desk: &mut PoolDesk) {
    let made = desk.written(1, 5).await;
    let storage = desk.storage();
    storage
        .snapshot_volume(&at(1), moment(1))
        .await
        .expect("snapshot");
    storage.grow_volume(&at(1), 16 * MIB).await.expect("grow");
    desk.pool.fill(&made, 6).await;
    storage.revert_volume(&at(1), moment(1)).await.expect("revert");
    assert_eq!(desk.size_of(1).await, 8 * MIB, "the size is reverted, too");
    assert!(desk.pool.filled(&made, 5).await);
    storage.grow_volume(&at(1), 16 * MIB).await.expect("grow again");
    assert_eq!(desk.size_of(1).await, 16 * MIB);
}

async fn deleted_volume_leaves_nothing(desk: &mut PoolDesk) {
    for (seed, format) in (1..).zip(FORMATS) {
        desk.blank(seed, format).await;
        for _ in 0..2 {
            desk.storage().delete_volume(&at(seed)).await.expect("delete");
            assert_eq!(desk.storage().volume(&at(seed)).await.expect("look up"), None);
            assert!(desk.files().await.is_empty());
        }
    }
}

async fn snapshot_gives_back_what_was(desk: &mut PoolDesk) {
    let made = desk.written(1, 5).await;
    let storage = desk.storage();
    let taken = storage
        .snapshot_volume(&at(1), moment(1))
        .await
        .expect("snapshot");
    assert_eq!((taken.snapshot, taken.size_bytes), (moment(1), 8 * MIB));
    desk.pool.fill(&made, 6).await;
    for _ in 0..2 {
        storage.revert_volume(&at(1), moment(1)).await.expect("revert");
        assert!(desk.pool.filled(&made, 5).await);
        assert_eq!(desk.kept(1).await, [moment(1)], "it can be reverted to again");
        desk.pool.fill(&made, 8).await;
    }
    must_refuse(
        storage.revert_volume(&at(1), moment(2)).await,
        ErrorKind::NotFound,
    );
    assert!(desk.pool.filled(&made, 8).await, "nothing happened");
}

async fn snapshot_twice_is_one(desk: &mut PoolDesk) {
    let made = desk.written(1, 5).await;
    let storage = desk.storage();
    let taken = storage
        .snapshot_volume(&at(1), moment(1))
        .await
        .expect("snapshot");
    desk.pool.fill(&made, 6).await;
    let again = storage.snapshot_volume(&at(1), moment(1)).await.expect("again");
    assert_eq!(again, taken);
    assert_eq!(desk.kept(1).await, [moment(1)]);
    storage.revert_volume(&at(1), moment(1)).await.expect("revert");
    assert!(desk.pool.filled(&made, 5).await, "it is of the first time");
}

async fn snapshots_are_in_order_and_independent(desk: &mut PoolDesk) {
    let made = desk.written(1, 1).await;
    let storage = desk.storage();
    for n in [3, 1, 2] {
        desk.pool.fill(&made, n).await;
        let taken = storage.snapshot_volume(&at(1), moment(n.into())).await;
        taken.expect("snapshot");
    }
    assert_eq!(desk.kept(1).await, [moment(3), moment(1), moment(2)]);
    let gone = storage.forget_volume_snapshot(&at(1), moment(1)).await;
    gone.expect("forget");
    for n in [3, 2] {
        storage
            .revert_volume(&at(1), moment(n.into()))
            .await
            .expect("revert");
        assert!(desk.pool.filled(&made, n).await, "{n}");
    }
}

async fn snapshot_of_a_raw_volume_is_unsupported(desk: &mut PoolDesk) {
    desk.blank(1, DiskFormat::Raw).await;
    let taken = desk.storage().snapshot_volume(&at(1), moment(1)).await;
    must_refuse(taken, ErrorKind::Unsupported);
    must_refuse(
        desk.storage().snapshot_volume(&at(2), moment(1)).await,
        ErrorKind::NotFound,
    );
    let gone = desk.storage().forget_volume_snapshot(&at(1), moment(1)).await;
    gone.expect("there is none");
}

async fn forgotten_snapshot_is_gone(desk: &mut PoolDesk) {
    let made = desk.written(1, 5).await;
    let storage = desk.storage();
    storage
        .snapshot_volume(&at(1), moment(1))
        .await
        .expect("snapshot");
    desk.pool.fill(&made, 6).await;
    for _ in 0..2 {
        storage
            .forget_volume_snapshot(&at(1), moment(1))
            .await
            .expect("forget");
        assert_eq!(desk.kept(1).await, []);
        assert!(desk.pool.filled(&made, 6).await);
    }
    must_refuse(
        storage.revert_volume(&at(1), moment(1)).await,
        ErrorKind::NotFound,
    );
    let of_nothing = storage.forget_volume_snapshot(&at(2), moment(1)).await;
    of_nothing.expect("a volume that is gone has no snapshots");
}

async fn volumes_are_listed_and_are_no_servers(desk: &mut PoolDesk) {
    assert_eq!(desk.storage().volumes().await.expect("volumes"), []);
    let mut made = Vec::new();
    for (seed, format) in [(1, DiskFormat::Raw), (2, DiskFormat::Qcow2), (3, DiskFormat::Raw)] {
        made.push(desk.blank(seed, format).await);
    }
    made.sort_by_key(|v| v.at.volume);
    assert_eq!(
        desk.storage().volumes().await.expect("volumes"),
        made,
        "in id order"
    );
    assert_eq!(desk.storage().servers().await.expect("servers"), []);
    let overlay = desk.overlay(server(1), "root", 0).await;
    desk.storage()
        .create_overlay(&overlay)
        .await
        .expect("create overlay");
    assert_eq!(desk.storage().volumes().await.expect("volumes"), made);
    desk.storage().delete_volume(&made[0].at).await.expect("delete");
    assert_eq!(desk.storage().volumes().await.expect("volumes"), made[1..]);
}

async fn reopened_pool_holds_the_same_volumes(desk: &mut PoolDesk) {
    let made = desk.written(1, 5).await;
    desk.storage()
        .snapshot_volume(&at(1), moment(1))
        .await
        .expect("snapshot");
    let (volumes, files) = (
        desk.storage().volumes().await.expect("volumes"),
        desk.files().await,
    );
    desk.pool.reopen().await;
    assert_eq!(desk.storage().volumes().await.expect("volumes"), volumes);
    assert_eq!(desk.files().await, files);
    assert_eq!(desk.kept(1).await, [moment(1)]);
    assert!(desk.pool.filled(&made, 5).await);
}
