//! The pool's exam.
#![allow(clippy::unwrap_used, reason = "a test program")]

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use skyloom_hypervisor::conformance::{self, ExamImage, PoolUnderExam, StorageExam};
use skyloom_hypervisor::{DiskInfo, HostStorage, VolumeInfo};
use skyloom_model::{DiskFormat, ServerId};
use skyloom_pool::{DirPool, PoolConfig};
use tempfile::TempDir;

#[derive(Debug)]
struct Exam;

struct Pool {
    temp: TempDir,
    pool: Option<Arc<DirPool>>,
}

/// A raw disk with a boot signature.
fn raw(fill: u8, len: usize) -> ExamImage {
    let mut content = vec![fill; len];
    content[..512].fill(0);
    content[510..512].copy_from_slice(&[0x55, 0xaa]);
    // One partition, so that the boot sector is one.
    content[446..462].copy_from_slice(&[0x80, 0, 2, 0, 0x0c, 0, 8, 0, 1, 0, 0, 0, 100, 0, 0, 0]);
    ExamImage {
        format: DiskFormat::Raw,
        virtual_size: len as u64,
        content: content.into(),
    }
}

/// What `qemu-img` makes of these arguments.
fn qcow2(args: &[&str]) -> Bytes {
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().join("image");
    let mut command = std::process::Command::new("qemu-img");
    let made = command
        .args(["create", "-q", "-f", "qcow2"])
        .args(args)
        .arg(&path)
        .arg("8M")
        .status()
        .unwrap();
    assert!(made.success());
    std::fs::read(path).unwrap().into()
}

#[async_trait]
impl StorageExam for Exam {
    async fn sit(&self) -> Box<dyn PoolUnderExam> {
        let temp = tempfile::tempdir().unwrap();
        let pool = DirPool::open(PoolConfig::new(temp.path().join("pool")))
            .await
            .unwrap();
        Box::new(Pool {
            temp,
            pool: Some(Arc::new(pool)),
        })
    }
    fn images(&self) -> Vec<ExamImage> {
        // The third one is larger than what is written at a time.
        let empty = ExamImage {
            format: DiskFormat::Qcow2,
            content: qcow2(&[]),
            virtual_size: 8 << 20,
        };
        vec![raw(1, 1 << 20), empty, raw(3, (3 << 20) + 512)]
    }
    fn refused_images(&self) -> Vec<ExamImage> {
        let bad = |format, content: Bytes| ExamImage {
            format,
            virtual_size: 8 << 20,
            content,
        };
        vec![
            bad(
                DiskFormat::Qcow2,
                qcow2(&["-u", "-F", "raw", "-b", "/etc/passwd"]),
            ),
            bad(DiskFormat::Raw, qcow2(&[])),
            bad(DiskFormat::Qcow2, raw(1, 1 << 20).content),
            bad(DiskFormat::Qcow2, qcow2(&[]).slice(..70_000)),
            bad(DiskFormat::Raw, Bytes::from_static(&[0; 100])),
        ]
    }
}

fn files_below(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).unwrap().map(Result::unwrap) {
        if entry.file_type().unwrap().is_dir() {
            files_below(&entry.path(), found);
        } else {
            found.push(entry.path());
        }
    }
}

/// Whether the tool is content with the volume.
fn tool(program: &str, args: &[&str], volume: &VolumeInfo) -> bool {
    let said = std::process::Command::new(program)
        .args(args)
        .arg(&volume.path)
        .output()
        .unwrap();
    said.status.success() && !String::from_utf8_lossy(&said.stdout).contains("failed")
}

#[async_trait]
impl PoolUnderExam for Pool {
    fn storage(&self) -> Arc<dyn HostStorage> {
        self.pool.clone().unwrap()
    }
    async fn reopen(&mut self) {
        self.pool = None;
        self.pool = Some(Arc::new(
            DirPool::open(PoolConfig::new(self.temp.path().join("pool")))
                .await
                .unwrap(),
        ));
    }
    async fn files(&self) -> Vec<PathBuf> {
        let mut found = Vec::new();
        files_below(&self.temp.path().join("pool"), &mut found);
        found
    }
    async fn holds(&self, _server: ServerId, disk: &DiskInfo, content: &[u8]) -> bool {
        std::fs::read(&disk.path).unwrap() == content
    }
    async fn fill(&self, volume: &VolumeInfo, byte: u8) {
        assert!(tool(
            "qemu-io",
            &[
                "-f",
                volume.format.as_str(),
                "-c",
                &format!("write -P {byte} 0 1M")
            ],
            volume
        ));
    }
    async fn filled(&self, volume: &VolumeInfo, byte: u8) -> bool {
        tool(
            "qemu-io",
            &[
                "-f",
                volume.format.as_str(),
                "-c",
                &format!("read -P {byte} 0 1M"),
            ],
            volume,
        )
    }
    async fn holds_image(&self, volume: &VolumeInfo, image: &ExamImage) -> bool {
        let path = self.temp.path().join("image");
        std::fs::write(&path, &image.content).unwrap();
        let args = [
            "compare",
            "-q",
            "-f",
            image.format.as_str(),
            "-F",
            volume.format.as_str(),
            path.to_str().unwrap(),
        ];
        tool("qemu-img", &args, volume)
    }
}

fn main() -> ExitCode {
    conformance::main(conformance::storage_trials(Arc::new(Exam)))
}
