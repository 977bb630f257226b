//! A directory that two hosts see.

use std::path::Path;

use skyloom_hypervisor::{ErrorKind, HostStorage, HostVolumes, VolumeAt, VolumeContent, VolumeOrder};
use skyloom_image::Limits;
use skyloom_model::{DiskFormat, Name, Pool, SnapshotId, VolumeId};
use skyloom_pool::{DirPool, PoolConfig, SharedDisks};

fn fast() -> Name {
    Name::new("fast").unwrap()
}

fn config(temp: &Path, host: &str) -> PoolConfig {
    PoolConfig::new(temp.join(host)).with_shared(host, fast(), temp.join("shared"))
}

fn order(n: u128) -> VolumeOrder {
    VolumeOrder {
        at: VolumeAt {
            volume: VolumeId::from_uuid(uuid::Uuid::from_u128(n)),
            pool: Pool::Shared { name: fast() },
        },
        format: DiskFormat::Qcow2,
        size_bytes: 1 << 20,
        content: VolumeContent::Zeroes,
    }
}

async fn two_hosts(temp: &Path) -> (DirPool, DirPool) {
    std::fs::create_dir(temp.join("shared")).unwrap();
    std::fs::write(temp.join("shared/skyloom-pool"), "fast\n").unwrap();
    let a = DirPool::open(config(temp, "a")).await.unwrap();
    let b = DirPool::open(config(temp, "b")).await.unwrap();
    (a, b)
}

#[tokio::test]
async fn what_one_host_makes_the_other_sees() {
    let temp = tempfile::tempdir().unwrap();
    let (a, b) = two_hosts(temp.path()).await;
    let made = a.create_volume(&order(1)).await.unwrap();
    assert_eq!(
        b.create_volume(&order(1)).await.unwrap(),
        made,
        "it is there already"
    );
    let snapshot = SnapshotId::from_uuid(uuid::Uuid::from_u128(7));
    b.snapshot_volume(&made.at, snapshot).await.unwrap();
    assert_eq!(a.volume_snapshots(&made.at).await.unwrap()[0].snapshot, snapshot);
    assert_eq!(
        a.grow_volume(&made.at, 2 << 20).await.unwrap().size_bytes,
        2 << 20
    );
    let local = VolumeAt {
        pool: Pool::Local,
        ..made.at.clone()
    };
    assert_eq!(a.volume(&local).await.unwrap(), None, "pools are apart");
    assert_eq!(b.volumes().await.unwrap().len(), 1);
    b.delete_volume(&made.at).await.unwrap();
    assert_eq!(a.volumes().await.unwrap(), []);
}

#[tokio::test]
async fn a_file_that_another_host_works_on_is_left_alone() {
    let temp = tempfile::tempdir().unwrap();
    let (a, _b) = two_hosts(temp.path()).await;
    let made = a.create_volume(&order(1)).await.unwrap();
    let elsewhere = std::fs::File::open(&made.path).unwrap();
    elsewhere.lock().unwrap();
    let refused = a.grow_volume(&made.at, 2 << 20).await.unwrap_err();
    assert_eq!(
        (refused.kind(), refused.reason().retryable),
        (ErrorKind::Unavailable, true)
    );
    elsewhere.unlock().unwrap();
    a.grow_volume(&made.at, 2 << 20).await.unwrap();
}

#[tokio::test]
async fn a_host_sweeps_its_own_temporary_files_and_no_others() {
    let temp = tempfile::tempdir().unwrap();
    drop(two_hosts(temp.path()).await);
    let volumes = temp.path().join("shared/volumes");
    for name in [".tmp-a-1", ".tmp-b-1", ".tmp-a-b-1"] {
        std::fs::write(volumes.join(name), b"half").unwrap();
    }
    let _a = DirPool::open(config(temp.path(), "a")).await.unwrap();
    assert!(!volumes.join(".tmp-a-1").exists());
    assert!(volumes.join(".tmp-b-1").exists());
    assert!(volumes.join(".tmp-a-b-1").exists(), "that is the host a-b's");
}

#[tokio::test]
async fn a_directory_without_the_pools_name_is_not_the_pool() {
    let temp = tempfile::tempdir().unwrap();
    std::fs::create_dir(temp.path().join("shared")).unwrap();
    let open = || DirPool::open(config(temp.path(), "a"));
    assert_eq!(open().await.unwrap_err().kind(), ErrorKind::Corrupt);
    std::fs::write(temp.path().join("shared/skyloom-pool"), "slow").unwrap();
    assert_eq!(open().await.unwrap_err().kind(), ErrorKind::Corrupt);
    assert!(
        !temp.path().join("shared/volumes").exists(),
        "nothing is made in it"
    );
}

#[tokio::test]
async fn a_disk_whose_chain_leads_elsewhere_is_not_copied() {
    let temp = tempfile::tempdir().unwrap();
    let pool = DirPool::open(PoolConfig::new(temp.path().join("pool")))
        .await
        .unwrap();
    let server = crate::disks::server(1);
    let dir = temp.path().join("pool/servers").join(server.to_string());
    std::fs::create_dir(&dir).unwrap();
    let made = std::process::Command::new("qemu-img")
        .args([
            "create",
            "-q",
            "-u",
            "-f",
            "qcow2",
            "-F",
            "raw",
            "-b",
            "/etc/passwd",
        ])
        .arg(dir.join("root.qcow2"))
        .arg("1M")
        .status();
    assert!(made.unwrap().success());
    let disk = skyloom_hypervisor::DiskAt::Server {
        server,
        disk: "root".into(),
    };
    let copy = VolumeOrder {
        at: VolumeAt {
            pool: Pool::Local,
            ..order(1).at
        },
        content: VolumeContent::Disk { disk, snapshot: None },
        ..order(1)
    };
    assert_eq!(
        pool.create_volume(&copy).await.unwrap_err().kind(),
        ErrorKind::Corrupt
    );
    assert_eq!(pool.volumes().await.unwrap(), []);
}

#[tokio::test]
async fn a_servers_disk_in_a_shared_folder_is_the_same_file_for_both_hosts() {
    let temp = tempfile::tempdir().unwrap();
    let folder = temp.path().join("disks");
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(folder.join("skyloom-disks"), "one\n").unwrap();
    let open = |host: &str| {
        let disks = SharedDisks::new(Name::new("one").unwrap(), &folder);
        let config = PoolConfig::new(temp.path().join(host)).with_disks(host, Some(disks));
        DirPool::open(config.with_limits(Limits {
            allow_any_raw: true,
            ..Limits::default()
        }))
    };
    let (a, b) = (open("a").await.unwrap(), open("b").await.unwrap());
    let base = crate::disks::image(DiskFormat::Raw, vec![7; 1 << 20]);
    crate::disks::cache(&a, &base).await.unwrap();
    let made = crate::disks::overlay(&a, &base.0, 1, 2 << 20).await.unwrap();
    std::fs::File::options()
        .append(true)
        .open(&made.path)
        .unwrap()
        .set_len(1 << 20)
        .unwrap();
    let again = crate::disks::overlay(&b, &base.0, 1, 2 << 20).await.unwrap();
    assert_eq!(again, made, "what the guest has written stays");
    let server = crate::disks::server(1);
    assert_eq!(b.disks(server).await.unwrap(), std::slice::from_ref(&made));
    assert_eq!(std::fs::metadata(&made.path).unwrap().len(), 1 << 20);
    drop(a);
    let a = open("a").await.unwrap();
    b.delete_server(server).await.unwrap();
    assert_eq!(a.disks(server).await.unwrap(), []);
    assert!(
        a.cached_image(&base.0).await.unwrap().is_some(),
        "images are shared, too"
    );
    let own = DirPool::open(PoolConfig::new(temp.path().join("a"))).await;
    assert_eq!(
        own.unwrap_err().kind(),
        ErrorKind::Conflict,
        "its own volumes are one process'"
    );
}
