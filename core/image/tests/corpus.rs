//! Images that must pass and images that must not, each with the reason that it must have.
#![allow(clippy::unwrap_used, reason = "test helpers")]

mod common;

use std::fs::File;
use std::io::{self, Cursor, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::Command;

use common::{CLUSTER, Put, fat_disk, gpt_disk, mbr_disk, qcow2, run, with};
use skyloom_image::{ImageFacts, Limits, Refusal, inspect};
use skyloom_model::DiskFormat::{self, Qcow2, Raw};

const C: u64 = CLUSTER as u64;
/// Good images that are built here; QEMU makes more.
const BUILT: usize = 9;

/// A header extension as the first of the list.
fn extension(version: u32, kind: u32, data: &[u8]) -> Vec<u8> {
    let at = if version == 3 { 112 } else { 72 };
    with(qcow2(version), |i| {
        i.put32(at, kind);
        i.put32(at + 4, u32::try_from(data.len()).unwrap());
        i.put(at + 8, data);
    })
}

fn text(start: &str) -> Vec<u8> {
    with(mbr_disk(), |i| i.put(0, start.as_bytes()))
}

fn at_end(mut image: Vec<u8>, trailer: &[u8]) -> Vec<u8> {
    let at = image.len() - 512;
    image.put(at, trailer);
    image
}

#[test]
fn bad_images_are_refused_for_their_reason() {
    let q2 = || qcow2(2);
    let q3 = || qcow2(3);
    #[rustfmt::skip]
    let corpus: Vec<(&str, DiskFormat, Vec<u8>, &str)> = vec![
        // Other files.
        ("backing file", Qcow2, with(q3(), |i| { i.put64(8, 200); i.put32(16, 11); i.put(200, b"/etc/passwd"); }), "image.has_backing_file"),
        ("backing file, v2", Qcow2, with(q2(), |i| { i.put64(8, 200); i.put32(16, 5); i.put(200, b"/etc/"); }), "image.has_backing_file"),
        ("json: backing file", Qcow2, with(q3(), |i| { i.put64(8, 200); i.put32(16, 16); i.put(200, b"json:{\"driver\":1}"); }), "image.has_backing_file"),
        ("nbd: backing file", Qcow2, with(q3(), |i| { i.put64(8, 200); i.put32(16, 21); i.put(200, b"nbd://127.0.0.1:1/abc"); }), "image.has_backing_file"),
        ("backing offset past the end", Qcow2, with(q3(), |i| i.put64(8, u64::MAX)), "image.has_backing_file"),
        ("backing length alone", Qcow2, with(q3(), |i| i.put32(16, 5)), "image.has_backing_file"),
        ("backing format alone", Qcow2, extension(3, 0xe279_2aca, b"raw"), "image.has_backing_file"),
        ("backing format, v2", Qcow2, extension(2, 0xe279_2aca, b"raw"), "image.has_backing_file"),
        ("data file bit", Qcow2, with(q3(), |i| i.put64(72, 1 << 2)), "image.has_data_file"),
        ("data file name", Qcow2, extension(3, 0x4441_5441, b"/etc/passwd"), "image.has_data_file"),
        // Features.
        ("version 1", Qcow2, with(q2(), |i| i.put32(4, 1)), "image.version"),
        ("version 4", Qcow2, with(q3(), |i| i.put32(4, 4)), "image.version"),
        ("version 0", Qcow2, with(q3(), |i| i.put32(4, 0)), "image.version"),
        ("unknown incompatible bit", Qcow2, with(q3(), |i| i.put64(72, 1 << 5)), "image.unknown_feature"),
        ("last incompatible bit", Qcow2, with(q3(), |i| i.put64(72, 1 << 63)), "image.unknown_feature"),
        ("corrupt bit", Qcow2, with(q3(), |i| i.put64(72, 1 << 1)), "image.corrupt"),
        ("unmarked compression type", Qcow2, with(q3(), |i| i.put(104, &[1])), "image.unknown_feature"),
        ("unknown compression type", Qcow2, with(q3(), |i| { i.put64(72, 1 << 3); i.put(104, &[9]); }), "image.unknown_feature"),
        ("bitmaps", Qcow2, extension(3, 0x2385_2875, &[0; 24]), "image.unknown_feature"),
        ("unknown extension", Qcow2, extension(3, 0x1234_5678, b"x"), "image.unknown_feature"),
        ("AES", Qcow2, with(q2(), |i| i.put32(32, 1)), "image.encrypted"),
        ("LUKS inside", Qcow2, with(q3(), |i| i.put32(32, 2)), "image.encrypted"),
        ("LUKS header extension", Qcow2, extension(3, 0x0537_be77, &[0; 16]), "image.encrypted"),
        ("snapshots", Qcow2, with(q3(), |i| i.put32(60, 1)), "image.has_snapshots"),
        ("65535 snapshots", Qcow2, with(q3(), |i| i.put32(60, 65535)), "image.has_snapshots"),
        // Numbers.
        ("8 EiB", Qcow2, with(q3(), |i| i.put64(24, 1 << 62)), "image.too_large"),
        ("2^64 - 512", Qcow2, with(q3(), |i| i.put64(24, 511_u64.wrapping_neg() - 1)), "image.too_large"),
        ("no bytes", Qcow2, with(q3(), |i| i.put64(24, 0)), "image.corrupt"),
        ("half a sector", Qcow2, with(q3(), |i| i.put64(24, 100)), "image.corrupt"),
        ("cluster_bits 63", Qcow2, with(q3(), |i| i.put32(20, 63)), "image.corrupt"),
        ("cluster_bits 8", Qcow2, with(q3(), |i| i.put32(20, 8)), "image.corrupt"),
        ("cluster_bits 22", Qcow2, with(q3(), |i| i.put32(20, 22)), "image.corrupt"),
        ("extended L2 with small clusters", Qcow2, with(q3(), |i| { i.put64(72, 1 << 4); i.put32(20, 13); }), "image.corrupt"),
        ("header of 2^32 bytes", Qcow2, with(q3(), |i| i.put32(100, u32::MAX)), "image.corrupt"),
        ("header of 72 bytes in v3", Qcow2, with(q3(), |i| i.put32(100, 72)), "image.corrupt"),
        ("refcount order 7", Qcow2, with(q3(), |i| i.put32(96, 7)), "image.corrupt"),
        ("extension past the cluster", Qcow2, with(q3(), |i| { i.put32(112, 0x6803_f857); i.put32(116, u32::MAX); }), "image.corrupt"),
        ("L1 of 2^32 entries", Qcow2, with(q3(), |i| i.put32(36, u32::MAX)), "image.corrupt"),
        ("L1 too small", Qcow2, with(q3(), |i| i.put64(24, 1 << 40)), "image.corrupt"),
        ("L1 without entries", Qcow2, with(q3(), |i| i.put32(36, 0)), "image.corrupt"),
        ("L1 past the end", Qcow2, with(q3(), |i| i.put64(40, 1 << 40)), "image.truncated"),
        ("L1 at the end of numbers", Qcow2, with(q3(), |i| i.put64(40, !(C - 1))), "image.truncated"),
        ("L1 in the header", Qcow2, with(q3(), |i| i.put64(40, 0)), "image.corrupt"),
        ("L1 not aligned", Qcow2, with(q3(), |i| i.put64(40, 3 * C + 512)), "image.corrupt"),
        ("L1 on the refcount table", Qcow2, with(q3(), |i| i.put64(40, C)), "image.corrupt"),
        ("refcount table of 2^32 clusters", Qcow2, with(q3(), |i| i.put32(56, u32::MAX)), "image.corrupt"),
        ("no refcount table", Qcow2, with(q3(), |i| i.put32(56, 0)), "image.corrupt"),
        ("refcount table past the end", Qcow2, with(q3(), |i| i.put64(48, 1 << 40)), "image.truncated"),
        ("refcount block past the end", Qcow2, with(q3(), |i| i.put64(CLUSTER, 1 << 40)), "image.truncated"),
        ("refcount block with odd bits", Qcow2, with(q3(), |i| i.put64(CLUSTER, 2 * C + 1)), "image.corrupt"),
        ("L2 past the end", Qcow2, with(q3(), |i| i.put64(3 * CLUSTER, 1 << 40)), "image.truncated"),
        ("L2 with reserved bits", Qcow2, with(q3(), |i| i.put64(3 * CLUSTER, (4 * C) | (1 << 60))), "image.corrupt"),
        ("L2 is the L1 (cycle)", Qcow2, with(q3(), |i| i.put64(3 * CLUSTER, (3 * C) | (1 << 63))), "image.corrupt"),
        ("L2 is the refcount table", Qcow2, with(q3(), |i| i.put64(3 * CLUSTER, C)), "image.corrupt"),
        ("one L2 twice", Qcow2, with(q3(), |i| { i.put32(36, 2); i.put64(3 * CLUSTER + 8, 4 * C); }), "image.corrupt"),
        ("data past the end", Qcow2, with(q3(), |i| i.put64(4 * CLUSTER, 6 * C)), "image.truncated"),
        ("data not aligned", Qcow2, with(q3(), |i| i.put64(4 * CLUSTER, 5 * C + 512)), "image.corrupt"),
        ("L2 entry with reserved bits", Qcow2, with(q3(), |i| i.put64(4 * CLUSTER, (5 * C) | (1 << 58))), "image.corrupt"),
        ("zero flag in v2", Qcow2, with(q2(), |i| i.put64(4 * CLUSTER, 1)), "image.corrupt"),
        ("compressed data past the end", Qcow2, with(q3(), |i| i.put64(4 * CLUSTER, (1 << 62) | (1 << 30))), "image.truncated"),
        // Cut off.
        ("empty", Qcow2, Vec::new(), "image.truncated"),
        ("only the magic", Qcow2, b"QFI\xfb".to_vec(), "image.truncated"),
        ("40 bytes", Qcow2, q3()[..40].to_vec(), "image.truncated"),
        ("one sector", Qcow2, with(q3(), |i| i.truncate(512)), "image.truncated"),
        ("cut before the data", Qcow2, with(q3(), |i| i.truncate(5 * CLUSTER)), "image.truncated"),
        ("cut in the L2", Qcow2, with(q3(), |i| i.truncate(5 * CLUSTER - 1)), "image.truncated"),
        // Another format than claimed.
        ("qcow2 as raw", Raw, q3(), "image.format_mismatch"),
        ("raw as qcow2", Qcow2, mbr_disk(), "image.format_mismatch"),
        ("only the qcow2 magic, as raw", Raw, with(mbr_disk(), |i| i.put(0, b"QFI\xfb")), "image.format_mismatch"),
        ("QED", Raw, text("QED\0"), "image.format_mismatch"),
        ("VMDK sparse", Raw, text("KDMV"), "image.format_mismatch"),
        ("VMDK sparse as qcow2", Qcow2, text("KDMV"), "image.format_mismatch"),
        ("VMDK of ESX", Raw, text("COWD"), "image.format_mismatch"),
        ("VMDK descriptor", Raw, text("# Disk DescriptorFile\nversion=1\ncreateType=\"monolithicFlat\"\nRW 1 FLAT \"/etc/passwd\" 0\n"), "image.format_mismatch"),
        ("VMDK descriptor after comments", Raw, text("# hello\n\n  # world\nversion=1\n"), "image.format_mismatch"),
        ("VHD", Raw, text("conectix"), "image.format_mismatch"),
        ("VHD footer", Raw, at_end(mbr_disk(), b"conectix"), "image.format_mismatch"),
        ("VHDX", Raw, text("vhdxfile"), "image.format_mismatch"),
        ("VDI", Raw, with(mbr_disk(), |i| i.put(0x40, &0xbeda_107f_u32.to_le_bytes())), "image.format_mismatch"),
        ("LUKS", Raw, with(mbr_disk(), |i| i.put(0, b"LUKS\xba\xbe")), "image.format_mismatch"),
        ("ISO with an MBR", Raw, with(mbr_disk(), |i| i.put(16 * 2048, b"\x01CD001\x01")), "image.format_mismatch"),
        ("UDF", Raw, with(mbr_disk(), |i| i.put(17 * 2048, b"\0BEA01\x01")), "image.format_mismatch"),
        ("Parallels", Raw, text("WithoutFreeSpace"), "image.format_mismatch"),
        ("COW", Raw, text("OOOM"), "image.format_mismatch"),
        ("Bochs", Raw, text("Bochs Virtual HD Image"), "image.format_mismatch"),
        ("DMG", Raw, at_end(mbr_disk(), b"koly"), "image.format_mismatch"),
        ("cloop", Raw, text("#!/bin/sh\n#V2.0 Format\nmodprobe cloop"), "image.format_mismatch"),
        ("gzip", Raw, with(mbr_disk(), |i| i.put(0, &[0x1f, 0x8b, 8])), "image.format_mismatch"),
        ("xz", Raw, with(mbr_disk(), |i| i.put(0, b"\xfd7zXZ\0")), "image.format_mismatch"),
        ("tar", Raw, with(mbr_disk(), |i| i.put(257, b"ustar\0")), "image.format_mismatch"),
        // Several at once.
        ("qcow2 and VHD", Qcow2, at_end(q3(), b"conectix"), "image.polyglot"),
        ("qcow2 and ISO", Qcow2, with(q3(), |i| i.put(16 * 2048, b"\x01CD001\x01")), "image.polyglot"),
        ("VDI and VMDK as raw", Raw, with(text("KDMV"), |i| i.put(0x40, &0xbeda_107f_u32.to_le_bytes())), "image.polyglot"),
        ("qcow2 and MBR", Qcow2, with(q3(), |i| i.put(510, &[0x55, 0xaa])), "image.polyglot"),
        ("qcow2 and GPT", Qcow2, with(q3(), |i| i.put(512, b"EFI PART")), "image.polyglot"),
        // Raw that is no disk.
        ("blank", Raw, vec![0; 1 << 20], "image.raw_not_a_disk"),
        ("text", Raw, vec![b'x'; 1 << 20], "image.raw_not_a_disk"),
        ("odd length", Raw, with(mbr_disk(), |i| i.push(0)), "image.truncated"),
        ("no partitions", Raw, with(mbr_disk(), |i| i.put(450, &[0])), "image.raw_not_a_disk"),
        ("odd boot flag", Raw, with(mbr_disk(), |i| i.put(446, &[0x7f])), "image.raw_not_a_disk"),
        ("partition at sector 0", Raw, with(mbr_disk(), |i| i.put(454, &[0; 4])), "image.raw_not_a_disk"),
        ("partition past the end", Raw, with(mbr_disk(), |i| i.put(458, &[0xff; 4])), "image.truncated"),
        ("MBR cut off", Raw, with(mbr_disk(), |i| i.truncate(4096)), "image.truncated"),
        ("protective MBR without GPT", Raw, with(gpt_disk(), |i| i.put(512, b"xxxxxxxx")), "image.raw_not_a_disk"),
        ("GPT without protective MBR", Raw, with(mbr_disk(), |i| i.put(512, b"EFI PART")), "image.raw_not_a_disk"),
        ("GPT with 2^32 entries", Raw, with(gpt_disk(), |i| i.put(592, &[0xff; 4])), "image.raw_not_a_disk"),
        ("GPT past the end", Raw, with(gpt_disk(), |i| i.truncate(4096)), "image.truncated"),
    ];
    assert!(corpus.len() >= 40, "a corpus of bad images");
    for (name, claimed, image, code) in &corpus {
        match run(image, *claimed) {
            Ok(facts) => panic!("{name}: accepted as {facts:?}"),
            Err(refusal) => assert_eq!(refusal.code(), *code, "{name}: {refusal}"),
        }
    }
}

#[test]
fn good_built_images_pass() {
    let facts = run(&qcow2(3), Qcow2).unwrap();
    assert_eq!(
        facts,
        ImageFacts {
            format: Qcow2,
            virtual_size: 64 << 20,
            file_size: 6 * C,
            cluster_size: Some(C),
            version: Some(3),
        }
    );
    #[rustfmt::skip]
    let corpus: [_; BUILT] = [
        ("v2", Qcow2, qcow2(2)),
        ("v3 without compression field", Qcow2, with(qcow2(3), |i| i.put32(100, 104))),
        ("dirty bit", Qcow2, with(qcow2(3), |i| i.put64(72, 1))),
        ("feature names", Qcow2, extension(3, 0x6803_f857, &[0; 48])),
        ("zero cluster", Qcow2, with(qcow2(3), |i| i.put64(4 * CLUSTER, 1))),
        ("short last cluster", Qcow2, with(qcow2(3), |i| i.truncate(5 * CLUSTER + 4))),
        ("MBR", Raw, mbr_disk()),
        ("GPT", Raw, gpt_disk()),
        ("FAT", Raw, fat_disk()),
    ];
    for (name, claimed, image) in &corpus {
        let facts = run(image, *claimed).unwrap_or_else(|refusal| panic!("{name}: {refusal}"));
        assert_eq!(facts.format, *claimed, "{name}");
    }
    assert_eq!(run(&mbr_disk(), Raw).unwrap().virtual_size, 1 << 20);
}

#[test]
fn limits_are_inclusive() {
    let image = qcow2(3);
    let len = image.len() as u64;
    let check = |max_file, max_virtual| {
        let limits = Limits {
            max_file,
            max_virtual,
            allow_any_raw: false,
        };
        inspect(&mut Cursor::new(&image), len, Qcow2, &limits).map_err(|r| r.code().to_owned())
    };
    assert!(check(len, 64 << 20).is_ok());
    assert_eq!(check(len - 1, 64 << 20).unwrap_err(), "image.too_large");
    assert_eq!(check(len, (64 << 20) - 1).unwrap_err(), "image.too_large");
    let any = Limits {
        allow_any_raw: true,
        ..Limits::default()
    };
    assert!(inspect(&mut Cursor::new(vec![0; 1024]), 1024, Raw, &any).is_ok());
    assert_eq!(
        inspect(&mut Cursor::new(&image), len, Raw, &any)
            .unwrap_err()
            .code(),
        "image.format_mismatch"
    );
}

#[test]
fn a_file_shorter_than_its_length_is_truncated() {
    let image = qcow2(3);
    let refusal = inspect(
        &mut Cursor::new(&image[..1000]),
        image.len() as u64,
        Qcow2,
        &Limits::default(),
    );
    assert_eq!(refusal.unwrap_err().code(), "image.truncated");
}

#[test]
fn a_reader_that_fails_is_no_verdict_on_the_image() {
    struct Broken;
    impl Read for Broken {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::Error::other("bad sector"))
        }
    }
    impl Seek for Broken {
        fn seek(&mut self, _: SeekFrom) -> io::Result<u64> {
            Ok(0)
        }
    }
    let refusal = inspect(&mut Broken, 4096, Raw, &Limits::default()).unwrap_err();
    assert!(matches!(refusal, Refusal::Read(_)));
    let reason = refusal.reason();
    assert!(
        reason.retryable && reason.message.contains("bad sector"),
        "{reason:?}"
    );
}

fn tool(program: &str, args: &[&str], dir: &Path) {
    let out = Command::new(program)
        .args(args)
        .current_dir(dir)
        .output()
        .unwrap();
    assert!(
        out.status.success(),
        "{program} {args:?}: {}",
        String::from_utf8_lossy(&out.stderr)
    );
}

fn inspect_file(path: &PathBuf, claimed: DiskFormat) -> Result<ImageFacts, Refusal> {
    let mut file = File::open(path).unwrap();
    let len = file.metadata().unwrap().len();
    inspect(&mut file, len, claimed, &Limits::default())
}

#[test]
fn images_that_qemu_makes_pass() {
    let dir = tempfile::tempdir().unwrap();
    let mut content = mbr_disk();
    content.resize(4 << 20, 0);
    for (n, byte) in content.iter_mut().enumerate().skip(1 << 20).step_by(7) {
        *byte = (n % 251) as u8;
    }
    std::fs::write(dir.path().join("in.raw"), &content).unwrap();
    let create: &[&[&str]] = &[
        &["-o", "compat=0.10"],
        &["-o", "compat=1.1"],
        &["-o", "cluster_size=512"],
        &["-o", "cluster_size=2M"],
        &["-o", "refcount_bits=1"],
        &["-o", "refcount_bits=64"],
        &["-o", "lazy_refcounts=on"],
        &["-o", "preallocation=metadata"],
        &["-o", "preallocation=falloc"],
        &["-o", "extended_l2=on,cluster_size=128k"],
        &["-o", "cluster_size=1k"],
        &["-o", "cluster_size=1M"],
        &["-o", "refcount_bits=8"],
        &["-o", "refcount_bits=32"],
        &["-o", "preallocation=full"],
    ];
    for options in create {
        let mut args = vec!["create", "-q", "-f", "qcow2"];
        args.extend(*options);
        args.extend(["new.qcow2", "64M"]);
        tool("qemu-img", &args, dir.path());
        let facts =
            inspect_file(&dir.path().join("new.qcow2"), Qcow2).unwrap_or_else(|r| panic!("{options:?}: {r}"));
        assert_eq!(facts.virtual_size, 64 << 20, "{options:?}");
    }
    let convert: &[&[&str]] = &[
        &[],
        &["-c"],
        &["-c", "-o", "compression_type=zstd"],
        &["-c", "-o", "cluster_size=4k"],
        &["-c", "-o", "cluster_size=2M"],
        &["-o", "compat=0.10"],
        &["-o", "extended_l2=on"],
    ];
    assert!(
        BUILT + create.len() + convert.len() >= 30,
        "a corpus of good images"
    );
    for options in convert {
        let mut args = vec!["convert", "-f", "raw", "-O", "qcow2"];
        args.extend(*options);
        args.extend(["in.raw", "out.qcow2"]);
        tool("qemu-img", &args, dir.path());
        let path = dir.path().join("out.qcow2");
        let facts = inspect_file(&path, Qcow2).unwrap_or_else(|r| panic!("{options:?}: {r}"));
        assert_eq!(facts.virtual_size, 4 << 20, "{options:?}");
        assert_eq!(
            inspect_file(&path, Raw).unwrap_err().code(),
            "image.format_mismatch"
        );
    }
    assert!(inspect_file(&dir.path().join("in.raw"), Raw).is_ok());
}

#[test]
fn dangerous_images_that_qemu_makes_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("base.raw"), mbr_disk()).unwrap();
    let cases: &[(&[&str], DiskFormat, &str)] = &[
        (
            &["-f", "qcow2", "-b", "base.raw", "-F", "raw"],
            Qcow2,
            "image.has_backing_file",
        ),
        (
            &["-f", "qcow2", "-b", "base.raw", "-F", "raw", "-o", "compat=0.10"],
            Qcow2,
            "image.has_backing_file",
        ),
        (
            &["-f", "qcow2", "-b", "base.raw", "-F", "raw"],
            Raw,
            "image.format_mismatch",
        ),
        (
            &["-f", "qcow2", "-o", "data_file=data.raw"],
            Qcow2,
            "image.has_data_file",
        ),
        (
            &["-f", "vmdk", "-o", "subformat=monolithicFlat"],
            Raw,
            "image.format_mismatch",
        ),
        (
            &["-f", "vmdk", "-o", "subformat=monolithicSparse"],
            Raw,
            "image.format_mismatch",
        ),
        (
            &["-f", "vmdk", "-o", "subformat=twoGbMaxExtentFlat"],
            Qcow2,
            "image.format_mismatch",
        ),
        (&["-f", "vdi"], Raw, "image.format_mismatch"),
        (&["-f", "vpc"], Raw, "image.format_mismatch"),
        (
            &["-f", "vpc", "-o", "subformat=fixed"],
            Raw,
            "image.format_mismatch",
        ),
        (&["-f", "vhdx"], Raw, "image.format_mismatch"),
        (&["-f", "qed"], Raw, "image.format_mismatch"),
        (&["-f", "parallels"], Raw, "image.format_mismatch"),
        (&["-f", "qcow"], Qcow2, "image.version"),
    ];
    for (options, claimed, code) in cases {
        let mut args = vec!["create", "-q"];
        args.extend(*options);
        args.extend(["bad", "4M"]);
        tool("qemu-img", &args, dir.path());
        let refusal = inspect_file(&dir.path().join("bad"), *claimed).expect_err(options.join(" ").as_str());
        assert_eq!(refusal.code(), *code, "{options:?}: {refusal}");
    }
    tool(
        "qemu-img",
        &["create", "-q", "-f", "qcow2", "snap", "4M"],
        dir.path(),
    );
    tool("qemu-img", &["snapshot", "-c", "one", "snap"], dir.path());
    assert_eq!(
        inspect_file(&dir.path().join("snap"), Qcow2).unwrap_err().code(),
        "image.has_snapshots"
    );
}
