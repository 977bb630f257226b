//! A byte builder for qcow2 and raw images, good and bad.
#![allow(dead_code, reason = "each test binary uses its part")]

use std::io::Cursor;

use skyloom_image::{ImageFacts, Limits, Refusal, inspect};
use skyloom_model::DiskFormat;

/// Cluster of the built images.
pub(crate) const CLUSTER: usize = 65536;

/// Writes big-endian fields at places.
pub(crate) trait Put {
    fn put(&mut self, at: usize, bytes: &[u8]);
    fn put32(&mut self, at: usize, n: u32) {
        self.put(at, &n.to_be_bytes());
    }
    fn put64(&mut self, at: usize, n: u64) {
        self.put(at, &n.to_be_bytes());
    }
}
impl Put for Vec<u8> {
    fn put(&mut self, at: usize, bytes: &[u8]) {
        if self.len() < at + bytes.len() {
            self.resize(at + bytes.len(), 0);
        }
        self[at..at + bytes.len()].copy_from_slice(bytes);
    }
}

/// A good qcow2 of 64 MiB: header, refcount table, refcount block, L1 table, one L2 table, one data cluster.
pub(crate) fn qcow2(version: u32) -> Vec<u8> {
    let mut image = vec![0; 6 * CLUSTER];
    image.put(0, b"QFI\xfb");
    image.put32(4, version);
    image.put32(20, 16);
    image.put64(24, 64 << 20);
    image.put32(36, 1);
    image.put64(40, 3 * CLUSTER as u64);
    image.put64(48, CLUSTER as u64);
    image.put32(56, 1);
    if version == 3 {
        image.put32(96, 4);
        image.put32(100, 112);
    }
    image.put64(CLUSTER, 2 * CLUSTER as u64);
    for n in 0..6 {
        image.put(2 * CLUSTER + 2 * n, &[0, 1]);
    }
    image.put64(3 * CLUSTER, (4 * CLUSTER as u64) | (1 << 63));
    image.put64(4 * CLUSTER, (5 * CLUSTER as u64) | (1 << 63));
    image.put(5 * CLUSTER, b"data");
    image
}

/// The image with changes.
pub(crate) fn with(mut image: Vec<u8>, change: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    change(&mut image);
    image
}

/// A raw disk of 1 MiB with one MBR partition.
pub(crate) fn mbr_disk() -> Vec<u8> {
    let mut disk = vec![0; 1 << 20];
    disk[446] = 0x80;
    disk[450] = 0x83;
    disk.put(454, &64_u32.to_le_bytes());
    disk.put(458, &1024_u32.to_le_bytes());
    disk.put(510, &[0x55, 0xaa]);
    disk
}

/// A raw disk of 1 MiB with a GPT.
pub(crate) fn gpt_disk() -> Vec<u8> {
    let mut disk = vec![0; 1 << 20];
    disk[450] = 0xee;
    disk.put(454, &1_u32.to_le_bytes());
    disk.put(458, &u32::MAX.to_le_bytes());
    disk.put(510, &[0x55, 0xaa]);
    disk.put(512, b"EFI PART");
    disk.put(520, &0x0001_0000_u32.to_le_bytes());
    disk.put(524, &92_u32.to_le_bytes());
    disk.put(536, &1_u64.to_le_bytes());
    disk.put(552, &34_u64.to_le_bytes());
    disk.put(560, &2014_u64.to_le_bytes());
    disk.put(592, &128_u32.to_le_bytes());
    disk.put(596, &128_u32.to_le_bytes());
    disk
}

/// A raw disk of 1 MiB that is one FAT file system.
pub(crate) fn fat_disk() -> Vec<u8> {
    let mut disk = vec![0; 1 << 20];
    disk.put(0, &[0xeb, 0x3c, 0x90]);
    disk.put(11, &512_u16.to_le_bytes());
    disk[13] = 4;
    disk.put(14, &1_u16.to_le_bytes());
    disk[16] = 2;
    disk.put(19, &2048_u16.to_le_bytes());
    // Boot code lies where an MBR has its partitions.
    disk.put(446, &[0xfa; 64]);
    disk.put(510, &[0x55, 0xaa]);
    disk
}

pub(crate) fn run(image: &[u8], claimed: DiskFormat) -> Result<ImageFacts, Refusal> {
    inspect(
        &mut Cursor::new(image),
        image.len() as u64,
        claimed,
        &Limits::default(),
    )
}
