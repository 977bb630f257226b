//! Guests for tests.
//!
//! * [`tiny_disk`]: a boot sector that greets on its serial port within a second, and, as its mode says, answers the
//!   power button, stays deaf, or floods the port. Writing `OF` to its second sector makes it power off.
//! * [`counting_disk`]: a boot sector that counts on its serial port and keeps a number in its memory.
//! * [`linux_image`]: the demo's Linux image, built once per target directory.

use std::fs::{self, File};
use std::io::{self, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

/// What a tiny guest does after its greeting.
#[allow(dead_code, reason = "not every test program uses it")]
#[derive(Debug, Clone, Copy)]
pub(crate) enum Mode {
    /// Writes a dot now and then; deaf to the power button.
    Idle = b'I' as isize,
    /// As `Idle`, but answers the power button.
    Live = b'L' as isize,
    /// Writes lines of a counter, four letters `a` to `p` each, as fast as it can.
    Flood = b'F' as isize,
}

/// What a tiny guest writes first.
pub(crate) const GREETING: &str = "skyloom-tiny ready";

/// The code, for 0x7c00. In outline:
///
/// ```text
///        registers and stack; mask IRQ 9 (the power button must not interrupt the BIOS)
///        out 0x602, 0x0100                     PM1 enable: power button
///        print the text at 0x7d00
/// poll:  mode 'F' (at 0x7df0) -> flood
///        sti; hlt                              the BIOS timer wakes us 18 times a second
///        mode 'L' and in 0x600 has bit 8 -> off
///        int 13h: read sector 2 to 0x8000; starts with "OF" -> off
///        every 8th time print '.'; -> poll
/// off:   out 0x604, 0x2000                     PM1 control: S5
/// flood: print the counter at 0x7df2 and a line feed; increment; -> poll
/// ```
const CODE: [u8; 155] = [
    0xfa, 0x31, 0xc0, 0x8e, 0xd8, 0x8e, 0xc0, 0x8e, 0xd0, 0xbc, 0x00, 0x7c, 0x88, 0x16, 0xf1, 0x7d, 0xe4,
    0xa1, 0x0c, 0x02, 0xe6, 0xa1, 0xba, 0x02, 0x06, 0xb8, 0x00, 0x01, 0xef, 0xbe, 0x00, 0x7d, 0xac, 0x84,
    0xc0, 0x74, 0x06, 0xba, 0xf8, 0x03, 0xee, 0xeb, 0xf5, 0x80, 0x3e, 0xf0, 0x7d, 0x46, 0x74, 0x4a, 0xfb,
    0xf4, 0x80, 0x3e, 0xf0, 0x7d, 0x4c, 0x75, 0x09, 0xba, 0x00, 0x06, 0xed, 0xf6, 0xc4, 0x01, 0x75, 0x2e,
    0xb8, 0x01, 0x02, 0xb9, 0x02, 0x00, 0x30, 0xf6, 0x8a, 0x16, 0xf1, 0x7d, 0xbb, 0x00, 0x80, 0xcd, 0x13,
    0x72, 0xd4, 0x81, 0x3e, 0x00, 0x80, 0x4f, 0x46, 0x74, 0x13, 0xff, 0x06, 0xf2, 0x7d, 0xf6, 0x06, 0xf2,
    0x7d, 0x07, 0x75, 0xc1, 0xb0, 0x2e, 0xba, 0xf8, 0x03, 0xee, 0xeb, 0xb9, 0xba, 0x04, 0x06, 0xb8, 0x00,
    0x20, 0xef, 0xf4, 0xeb, 0xfd, 0xba, 0xf8, 0x03, 0xb9, 0x04, 0x00, 0x8b, 0x1e, 0xf2, 0x7d, 0xc1, 0xc3,
    0x04, 0x88, 0xd8, 0x24, 0x0f, 0x04, 0x61, 0xee, 0xe2, 0xf4, 0xb0, 0x0a, 0xee, 0xff, 0x06, 0xf2, 0x7d,
    0xeb, 0x90,
];

/// The bytes of a tiny guest's raw disk.
pub(crate) fn tiny_disk(mode: Mode) -> Vec<u8> {
    let mut disk = vec![0; 1 << 20];
    disk[..CODE.len()].copy_from_slice(&CODE);
    let text = format!("{GREETING}\r\n");
    disk[0x100..0x100 + text.len()].copy_from_slice(text.as_bytes());
    disk[0x1f0] = mode as u8;
    disk[510..512].copy_from_slice(&[0x55, 0xaa]);
    disk
}

/// The code of [`counting_disk`], for 0x7c00. In outline:
///
/// ```text
///        registers and stack
/// poll:  mode 'B' (at 0x7df0) -> write to each page of 64 KiB to 576 KiB until the BIOS timer ticks; else sti; hlt
///        int 13h: read sector 2 to 0x8000; starts with "RM" -> the byte after it to 0x7df4
///        print the counter at 0x7df2 (four letters), the byte at 0x7df4 (two) and a line feed; increment; -> poll
/// ```
#[allow(dead_code, reason = "not every test program uses it")]
const COUNTING: [u8; 137] = [
    0xfa, 0x31, 0xc0, 0x8e, 0xd8, 0x8e, 0xc0, 0x8e, 0xd0, 0xbc, 0x00, 0x7c, 0x88, 0x16, 0xf1, 0x7d, 0xfb,
    0x80, 0x3e, 0xf0, 0x7d, 0x42, 0x75, 0x1d, 0x8b, 0x1e, 0x6c, 0x04, 0xb8, 0x00, 0x10, 0x8e, 0xc0, 0x26,
    0xa3, 0x00, 0x00, 0x05, 0x00, 0x01, 0x3d, 0x00, 0x90, 0x72, 0xf2, 0x3b, 0x1e, 0x6c, 0x04, 0x74, 0xe9,
    0xeb, 0x02, 0xfb, 0xf4, 0x31, 0xc0, 0x8e, 0xc0, 0xb8, 0x01, 0x02, 0xb9, 0x02, 0x00, 0x30, 0xf6, 0x8a,
    0x16, 0xf1, 0x7d, 0xbb, 0x00, 0x80, 0xcd, 0x13, 0x72, 0x0e, 0x81, 0x3e, 0x00, 0x80, 0x52, 0x4d, 0x75,
    0x06, 0xa0, 0x02, 0x80, 0xa2, 0xf4, 0x7d, 0xba, 0xf8, 0x03, 0x8b, 0x1e, 0xf2, 0x7d, 0xb9, 0x04, 0x00,
    0xe8, 0x13, 0x00, 0x8a, 0x3e, 0xf4, 0x7d, 0xb9, 0x02, 0x00, 0xe8, 0x09, 0x00, 0xb0, 0x0a, 0xee, 0xff,
    0x06, 0xf2, 0x7d, 0xeb, 0x95, 0xc1, 0xc3, 0x04, 0x88, 0xd8, 0x24, 0x0f, 0x04, 0x61, 0xee, 0xe2, 0xf4,
    0xc3,
];

/// The bytes of a raw disk whose guest writes a line at each tick of its timer: its counter and the number in its memory,
/// as letters `a` to `p`. A busy one writes to 128 pages all the time.
#[allow(dead_code, reason = "not every test program uses it")]
pub(crate) fn counting_disk(busy: bool) -> Vec<u8> {
    let mut disk = vec![0; 1 << 20];
    disk[..COUNTING.len()].copy_from_slice(&COUNTING);
    disk[0x1f0] = if busy { b'B' } else { b'I' };
    disk[510..512].copy_from_slice(&[0x55, 0xaa]);
    disk
}

/// Writes to the sector that a guest reads at each tick.
#[allow(dead_code, reason = "not every test program uses it")]
pub(crate) fn tell(disk: &Path, bytes: &[u8]) {
    let mut file = File::options().write(true).open(disk).unwrap();
    file.seek(SeekFrom::Start(512)).unwrap();
    file.write_all(bytes).unwrap();
}

/// The setup code of [`tiny_kernel`], in outline: its command line, whose address QEMU puts into the header, goes to the
/// serial port, then a line feed; it halts for ever.
const KERNEL_CODE: [u8; 36] = [
    0x66, 0xa1, 0x28, 0x02, 0x89, 0xc6, 0x83, 0xe6, 0x0f, 0x66, 0xc1, 0xe8, 0x04, 0x8e, 0xc0, 0xba, 0xf8,
    0x03, 0x26, 0x8a, 0x04, 0x84, 0xc0, 0x74, 0x04, 0xee, 0x46, 0xeb, 0xf5, 0xb0, 0x0a, 0xee, 0xfb, 0xf4,
    0xeb, 0xfc,
];

/// A kernel by Linux's boot protocol 2.02 that writes its command line to its serial port.
#[allow(dead_code, reason = "not every test program uses it")]
pub(crate) fn tiny_kernel() -> Vec<u8> {
    let mut kernel = vec![0; 1536];
    kernel[0x1f1] = 1; // one sector of setup code
    kernel[0x1fe..0x200].copy_from_slice(&[0x55, 0xaa]);
    kernel[0x200..0x202].copy_from_slice(&[0xeb, 0x3e]); // to 0x240
    kernel[0x202..0x206].copy_from_slice(b"HdrS");
    kernel[0x206..0x208].copy_from_slice(&[0x02, 0x02]);
    kernel[0x211] = 1; // loaded high
    kernel[0x240..0x240 + KERNEL_CODE.len()].copy_from_slice(&KERNEL_CODE);
    kernel
}

/// Lets a tiny guest power off.
#[allow(dead_code, reason = "not every test program uses it")]
pub(crate) fn power_off(disk: &Path) {
    let mut file = File::options().write(true).open(disk).unwrap();
    file.seek(SeekFrom::Start(512)).unwrap();
    file.write_all(b"OF").unwrap();
    file.sync_all().unwrap();
}

/// The Linux image; made by `tools/guest/make-image.sh` when it is not there or older than its sources.
#[allow(dead_code, reason = "not every test program uses it")]
pub(crate) fn linux_image() -> PathBuf {
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tools/guest");
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("guest");
    fs::create_dir_all(&dir).unwrap();
    let lock = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(dir.join("lock"))
        .unwrap();
    lock.lock().unwrap();
    let image = dir.join("guest.qcow2");
    let newest = fs::read_dir(&sources)
        .unwrap()
        .map(|e| changed(&e.unwrap().path()).unwrap())
        .max()
        .unwrap();
    if changed(&image).is_ok_and(|made| made > newest) {
        return image;
    }
    let part = dir.join("new.qcow2");
    let made = Command::new(sources.join("make-image.sh"))
        .arg(&part)
        .output()
        .unwrap();
    assert!(
        made.status.success(),
        "make-image.sh: {}",
        String::from_utf8_lossy(&made.stderr)
    );
    fs::rename(part, &image).unwrap();
    image
}

fn changed(path: &Path) -> io::Result<std::time::SystemTime> {
    fs::metadata(path)?.modified()
}
