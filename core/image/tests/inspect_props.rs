//! No input makes the inspector panic, and no change of a header smuggles another file past it.
#![allow(clippy::unwrap_used, reason = "test helpers")]

mod common;

use common::{CLUSTER, Put, gpt_disk, mbr_disk, qcow2, run};
use proptest::prelude::*;
use skyloom_model::DiskFormat::{Qcow2, Raw};

/// What the header of an accepted qcow2 must say, read independently of the inspector.
fn names_no_other_file(image: &[u8]) -> bool {
    let word = |at: usize| u64::from_be_bytes(image[at..at + 8].try_into().unwrap());
    let half = |at: usize| u32::from_be_bytes(image[at..at + 4].try_into().unwrap());
    let version = half(4);
    word(8) == 0
        && half(16) == 0
        && half(32) == 0
        && half(60) == 0
        && matches!(version, 2 | 3)
        && (version == 2 || word(72) & !0b1_1001 == 0)
}

proptest! {
    #[test]
    fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..4096), as_raw: bool) {
        let _ = run(&bytes, if as_raw { Raw } else { Qcow2 });
    }

    #[test]
    fn random_bytes_after_the_magic_never_pass_with_another_file(bytes in proptest::collection::vec(any::<u8>(), 508..70000)) {
        let mut image = b"QFI\xfb\0\0\0\x03".to_vec();
        image.extend(bytes);
        if run(&image, Qcow2).is_ok() {
            prop_assert!(names_no_other_file(&image));
        }
    }

    #[test]
    fn mutated_headers_never_panic_and_never_name_another_file(
        version in 2_u32..=3,
        changes in proptest::collection::vec((0_usize..128, any::<u8>()), 0..6),
        tables in proptest::collection::vec((1_usize..5, 0_usize..16, any::<u64>()), 0..3),
        cut in proptest::option::of(0_usize..6 * CLUSTER),
    ) {
        let mut image = qcow2(version);
        for (at, byte) in changes {
            image[at] = byte;
        }
        for (cluster, entry, word) in tables {
            image.put64(cluster * CLUSTER + entry * 8, word);
        }
        if let Some(cut) = cut {
            image.truncate(cut);
        }
        if run(&image, Qcow2).is_ok() {
            prop_assert!(names_no_other_file(&image));
        }
        prop_assert!(run(&image, Raw).is_err());
    }

    #[test]
    fn a_backing_file_is_always_refused(offset in 1_u64.., length in any::<u32>(), version in 2_u32..=3) {
        let mut image = qcow2(version);
        image.put64(8, offset);
        image.put32(16, length);
        prop_assert_eq!(run(&image, Qcow2).unwrap_err().code().to_owned(), "image.has_backing_file");
    }

    #[test]
    fn mutated_partition_tables_never_panic(
        gpt: bool,
        changes in proptest::collection::vec((0_usize..1024, any::<u8>()), 0..8),
        cut in 0_usize..=1 << 20,
    ) {
        let mut disk = if gpt { gpt_disk() } else { mbr_disk() };
        for (at, byte) in changes {
            disk[at] = byte;
        }
        disk.truncate(cut);
        if let Ok(facts) = run(&disk, Raw) {
            prop_assert_eq!(facts.virtual_size, disk.len() as u64);
            prop_assert_eq!(&disk[510..512], &[0x55, 0xaa]);
        }
    }
}
