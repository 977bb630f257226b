//! Our overlays before `qemu-img`.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt;
use sha2::{Digest, Sha256};
use skyloom_hypervisor::{
    DiskAt, DiskInfo, ErrorKind, HostStorage, HostVolumes as _, ImageSpec, OverlaySpec, VolumeAt,
    VolumeContent, VolumeOrder,
};
use skyloom_image::Limits;
use skyloom_model::{DiskFormat, ImageId, Pool, ServerId, VolumeId};
use skyloom_pool::{DirPool, PoolConfig};

pub(crate) fn server(n: u128) -> ServerId {
    ServerId::from_uuid(uuid::Uuid::from_u128(n))
}

/// An image's spec and its content.
pub(crate) fn image(format: DiskFormat, content: Vec<u8>) -> (ImageSpec, Bytes) {
    let sha256 = Sha256::digest(&content)
        .iter()
        .map(|b| format!("{b:02x}"))
        .collect();
    let id = ImageId::from_uuid(uuid::Uuid::from_u128(1));
    (
        ImageSpec {
            id,
            sha256,
            format,
            size_bytes: content.len() as u64,
        },
        content.into(),
    )
}

pub(crate) async fn open(temp: &Path) -> DirPool {
    let limits = Limits {
        allow_any_raw: true,
        ..Limits::default()
    };
    DirPool::open(PoolConfig::new(temp.join("pool")).with_limits(limits))
        .await
        .unwrap()
}

pub(crate) async fn cache(
    pool: &DirPool,
    (spec, content): &(ImageSpec, Bytes),
) -> skyloom_hypervisor::Result<()> {
    let stream = futures::stream::iter([Ok(content.clone())]).boxed();
    pool.cache_image(spec, stream, Arc::new(|_, _| {}))
        .await
        .map(drop)
}

pub(crate) async fn overlay(
    pool: &DirPool,
    base: &ImageSpec,
    n: u128,
    size_bytes: u64,
) -> skyloom_hypervisor::Result<DiskInfo> {
    pool.create_overlay(&OverlaySpec {
        server: server(n),
        disk: "root".into(),
        base: base.clone(),
        size_bytes,
    })
    .await
}

fn qemu_img(args: &[&str], disk: &Path) -> String {
    let output = Command::new("qemu-img").args(args).arg(disk).output().unwrap();
    assert!(
        output.status.success(),
        "{args:?} {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

fn qcow2_of(temp: &Path, raw: &[u8]) -> Vec<u8> {
    let (from, to) = (temp.join("from.raw"), temp.join("to.qcow2"));
    std::fs::write(&from, raw).unwrap();
    let mut command = Command::new("qemu-img");
    assert!(
        command
            .args(["convert", "-f", "raw", "-O", "qcow2"])
            .args([&from, &to])
            .status()
            .unwrap()
            .success()
    );
    std::fs::read(to).unwrap()
}

fn pattern() -> Vec<u8> {
    // No signature of any format: starts with zeros.
    let mut bytes: Vec<u8> = (0..3 << 20).map(|n: usize| (n / 512) as u8).collect();
    bytes[..4096].fill(0);
    bytes
}

#[tokio::test]
async fn overlays_are_clean_have_their_size_and_show_the_image_below() {
    let temp = tempfile::tempdir().unwrap();
    let pool = open(temp.path()).await;
    let raw = image(DiskFormat::Raw, pattern());
    let qcow2 = image(DiskFormat::Qcow2, qcow2_of(temp.path(), &pattern()));
    let mut n = 0;
    for base in [&raw, &qcow2] {
        cache(&pool, base).await.unwrap();
        for size in [3 << 20, (3 << 20) + 512, 1 << 30, 10 << 40, 64 << 40] {
            n += 1;
            let disk = overlay(&pool, &base.0, n, size).await.unwrap();
            let check: serde_json::Value =
                serde_json::from_str(&qemu_img(&["check", "-f", "qcow2", "--output=json"], &disk.path))
                    .unwrap();
            for count in ["leaks", "corruptions", "check-errors"] {
                assert!(matches!(check[count].as_u64(), None | Some(0)), "{size}: {check}");
            }
            let info: serde_json::Value =
                serde_json::from_str(&qemu_img(&["info", "-f", "qcow2", "--output=json"], &disk.path))
                    .unwrap();
            assert_eq!(info["virtual-size"], size);
            assert_eq!(info["backing-filename-format"], base.0.format.as_str());
            assert_eq!(
                info["backing-filename"].as_str(),
                pool.cached_image(&base.0).await.unwrap().unwrap().path.to_str()
            );
            assert!(
                info["actual-size"].as_u64().unwrap() < 2 << 20,
                "takes no room: {info}"
            );
        }
    }
    // Read through both overlays of the image's own size.
    for n in [1, 6] {
        let disk = pool.disks(server(n)).await.unwrap().remove(0);
        let out = temp.path().join(format!("out{n}"));
        let mut command = Command::new("qemu-img");
        assert!(
            command
                .args(["convert", "-f", "qcow2", "-O", "raw"])
                .args([&disk.path, &out])
                .status()
                .unwrap()
                .success()
        );
        assert!(std::fs::read(out).unwrap() == pattern());
    }
}

#[tokio::test]
async fn sizes_that_make_no_sense_are_refused() {
    let temp = tempfile::tempdir().unwrap();
    let pool = open(temp.path()).await;
    let base = image(DiskFormat::Raw, pattern());
    cache(&pool, &base).await.unwrap();
    for size in [0, (3 << 20) - 512, (3 << 20) + 1, (64 << 40) + 512, u64::MAX] {
        assert_eq!(
            overlay(&pool, &base.0, 1, size).await.unwrap_err().kind(),
            ErrorKind::Invalid,
            "{size}"
        );
    }
    assert!(pool.disks(server(1)).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_grown_disk_is_still_the_same_disk_and_a_smaller_one_is_a_conflict() {
    let temp = tempfile::tempdir().unwrap();
    let pool = open(temp.path()).await;
    let base = image(DiskFormat::Raw, pattern());
    cache(&pool, &base).await.unwrap();
    let disk = overlay(&pool, &base.0, 1, 1 << 30).await.unwrap();
    assert_eq!(overlay(&pool, &base.0, 1, 1 << 29).await.unwrap(), disk);
    assert_eq!(
        overlay(&pool, &base.0, 1, 1 << 31).await.unwrap_err().kind(),
        ErrorKind::Conflict
    );
}

#[tokio::test]
async fn a_disk_that_is_damaged_is_told_and_kept() {
    let temp = tempfile::tempdir().unwrap();
    let pool = open(temp.path()).await;
    let base = image(DiskFormat::Raw, pattern());
    cache(&pool, &base).await.unwrap();
    let disk = overlay(&pool, &base.0, 1, 1 << 30).await.unwrap();
    std::fs::write(&disk.path, b"not a disk").unwrap();
    assert_eq!(
        overlay(&pool, &base.0, 1, 1 << 30).await.unwrap_err().kind(),
        ErrorKind::Corrupt
    );
    assert_eq!(std::fs::read(&disk.path).unwrap(), b"not a disk");
    pool.delete_disk(server(1), "root").await.unwrap();
    overlay(&pool, &base.0, 1, 1 << 30).await.unwrap();
}

#[tokio::test]
async fn refusals_keep_their_codes() {
    let temp = tempfile::tempdir().unwrap();
    let pool = open(temp.path()).await;
    let good = image(DiskFormat::Raw, pattern());
    let wrong_sum = (
        ImageSpec {
            sha256: "0".repeat(64),
            ..good.0.clone()
        },
        good.1.clone(),
    );
    let wrong_size = (
        ImageSpec {
            size_bytes: 99,
            ..good.0.clone()
        },
        good.1.clone(),
    );
    let wrong_format = image(DiskFormat::Raw, qcow2_of(temp.path(), &pattern()));
    for (bad, code) in [
        (wrong_sum, "image.checksum_mismatch"),
        (wrong_size, "image.size_mismatch"),
        (wrong_format, "image.format_mismatch"),
    ] {
        let reason = cache(&pool, &bad).await.unwrap_err().reason();
        assert_eq!((reason.code.as_str(), reason.retryable), (code, false));
    }
}

#[tokio::test]
async fn a_copied_disk_is_read_as_an_image_that_passes() {
    let temp = tempfile::tempdir().unwrap();
    let pool = open(temp.path()).await;
    let mut boots = vec![7; 1 << 20];
    boots[446..510].fill(0);
    // One bootable Linux partition, from the second sector on.
    (boots[446], boots[450], boots[454], boots[459]) = (0x80, 0x83, 1, 4);
    boots[510..512].copy_from_slice(&[0x55, 0xaa]);
    let base = image(DiskFormat::Raw, boots);
    cache(&pool, &base).await.unwrap();
    overlay(&pool, &base.0, 1, 4 << 20).await.unwrap();
    for (n, format) in [(5, DiskFormat::Qcow2), (6, DiskFormat::Raw)] {
        let at = VolumeAt {
            volume: VolumeId::from_uuid(uuid::Uuid::from_u128(n)),
            pool: Pool::Local,
        };
        let disk = DiskAt::Server {
            server: server(1),
            disk: "root".to_owned(),
        };
        let order = VolumeOrder {
            at: at.clone(),
            format,
            size_bytes: 4 << 20,
            content: VolumeContent::Disk { disk, snapshot: None },
        };
        pool.create_volume(&order).await.unwrap();
        let file = pool.read_volume(&at).await.unwrap();
        let size = file.size_bytes;
        let pieces: Vec<Bytes> = file.content.map(Result::unwrap).collect().await;
        let read = pieces.concat();
        assert_eq!(read.len() as u64, size);
        let facts =
            skyloom_image::inspect(&mut std::io::Cursor::new(&read), size, format, &Limits::default());
        assert_eq!(facts.unwrap().virtual_size, 4 << 20, "{format:?}");
        let sent = temp.path().join("sent");
        std::fs::write(&sent, &read).unwrap();
        let original = temp
            .path()
            .join("pool/servers")
            .join(server(1).to_string())
            .join("root.qcow2");
        let same = Command::new("qemu-img")
            .args(["compare", "-f", format.as_str(), "-F", "qcow2"])
            .args([&sent, &original])
            .status();
        assert!(same.unwrap().success(), "{format:?}");
    }
}
