//! Disks are made once, and nothing of them stays behind.

use std::slice::from_ref;

use skyloom_model::DiskFormat;

use super::domains::must_refuse;
use super::harness::{PoolDesk, StorageCase, pool_case};
use super::pool::{server, spec};
use crate::{ErrorKind, OverlaySpec};

pub(super) fn cases() -> Vec<StorageCase> {
    vec![
        pool_case!(overlay_is_listed),
        pool_case!(overlay_twice_is_one_disk),
        pool_case!(overlay_over_another_image_is_a_conflict),
        pool_case!(overlay_over_an_uncached_image_is_not_found),
        pool_case!(overlay_of_a_hostile_name_is_refused),
        pool_case!(overlay_can_be_made_anew),
        pool_case!(seed_holds_exactly_its_content),
        pool_case!(seed_is_replaced),
        pool_case!(delete_disk_is_idempotent),
        pool_case!(delete_of_a_hostile_name_removes_nothing),
        pool_case!(delete_server_leaves_nothing),
        pool_case!(servers_are_independent),
        pool_case!(disks_are_in_name_order),
        pool_case!(servers_with_anything_are_listed),
        pool_case!(reopened_pool_holds_the_same),
    ]
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
            from_ref(&made)
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
            .create_seed(server(1), "seed", &content)
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
        .create_seed(server(1), "seed", &[1; 4096])
        .await
        .expect("create seed");
    desk.storage()
        .create_seed(server(1), "seed", &[1; 4096])
        .await
        .expect("create the same");
    assert!(desk.pool.holds(server(1), &seed, &[1; 4096]).await);
    let shorter = desk
        .storage()
        .create_seed(server(1), "seed", &[2; 2048])
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
        .create_seed(server(1), "seed", b"seed")
        .await
        .expect("create seed");
    for _ in 0..2 {
        desk.storage()
            .delete_disk(server(1), "root")
            .await
            .expect("delete disk");
        assert_eq!(desk.names(server(1)).await, from_ref(&seed.name));
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
        .create_seed(server(2), "seed", b"seed")
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
        .create_seed(server(1), "seed", b"seed")
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
        from_ref(&second)
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
        .create_seed(server(1), "seed", b"seed")
        .await
        .expect("create seed");
    let names = desk.names(server(1)).await;
    assert_eq!(names.len(), 4);
    assert!(names.is_sorted(), "{names:?}");
}

async fn servers_with_anything_are_listed(desk: &mut PoolDesk) {
    let mut some = [server(1), server(2), server(3)];
    some.sort();
    let [one, other, third] = some;
    let overlay = desk.overlay(other, "root", 0).await;
    assert_eq!(
        desk.storage().servers().await.expect("servers"),
        [],
        "an image is nobody's"
    );
    for (n, id) in [third, one].into_iter().enumerate() {
        let seed = desk.storage().create_seed(id, "seed", &[n as u8]).await;
        seed.expect("create seed");
    }
    desk.storage()
        .create_overlay(&overlay)
        .await
        .expect("create overlay");
    assert_eq!(
        desk.storage().servers().await.expect("servers"),
        [one, other, third],
        "in id order"
    );
    desk.storage().delete_server(one).await.expect("delete server");
    assert_eq!(desk.storage().servers().await.expect("servers"), [other, third]);
    desk.pool.reopen().await;
    assert_eq!(desk.storage().servers().await.expect("servers"), [other, third]);
}

async fn reopened_pool_holds_the_same(desk: &mut PoolDesk) {
    let overlay = desk.overlay(server(1), "root", 0).await;
    desk.storage()
        .create_overlay(&overlay)
        .await
        .expect("create overlay");
    let seed = desk
        .storage()
        .create_seed(server(1), "seed", b"seed")
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
