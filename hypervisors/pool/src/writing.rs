//! A file of the cache while it is written: bytes in, hashed, then accepted or gone.

use std::io::{self, Seek, Write};

use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use futures::stream::BoxStream;
use skyloom_hypervisor::{Error, ErrorKind, ImageSpec, ProgressFn, Result};
use skyloom_image::{HashingWriter, Limits, Refusal};
use skyloom_model::Reason;

use crate::beneath::Temp;
use crate::pool::{Owner, blocking, file_error};

/// Bytes that are written at a time.
const PORTION: usize = 1024 * 1024;
const OPERATION: &str = "cache image";

/// Takes all of `content` into `temp`; gives it back with the digest. No byte beyond the promised size is written.
pub(crate) async fn fill(
    temp: Temp,
    image: &ImageSpec,
    mut content: BoxStream<'static, io::Result<Bytes>>,
    progress: &ProgressFn,
) -> Result<(Temp, String)> {
    let mut hashing = HashingWriter::new(temp);
    let mut waiting = BytesMut::new();
    progress(0, image.size_bytes);
    loop {
        let next = content.next().await;
        let more = next.is_some();
        if let Some(bytes) = next {
            let bytes = bytes.map_err(|e| {
                Error::new(ErrorKind::Unavailable, OPERATION)
                    .with("image", image.id)
                    .because(e)
            })?;
            let total = hashing.bytes() + waiting.len() as u64 + bytes.len() as u64;
            if total > image.size_bytes {
                return Err(wrong_size(image, "has more bytes than"));
            }
            waiting.extend_from_slice(&bytes);
        }
        if waiting.len() >= PORTION || (!more && !waiting.is_empty()) {
            let portion = waiting.split().freeze();
            let work = move || {
                hashing.write_all(&portion)?;
                Ok(hashing)
            };
            hashing = blocking(work)
                .await
                .map_err(|e| file_error(OPERATION, e).with("image", image.id))?;
            progress(hashing.bytes(), image.size_bytes);
        }
        if !more {
            break;
        }
    }
    let (temp, digest) = hashing.finish();
    if digest.bytes < image.size_bytes {
        return Err(wrong_size(image, "ends before"));
    }
    Ok((temp, digest.sha256))
}

fn wrong_size(image: &ImageSpec, how: &str) -> Error {
    let message = format!(
        "the content of the image {how} the {} that were promised",
        image.size_bytes
    );
    refused(
        image,
        Reason::new("image.size_mismatch", message).hint("import the image again"),
    )
}

fn refused(image: &ImageSpec, reason: Reason) -> Error {
    Error::new(ErrorKind::Invalid, OPERATION)
        .with("image", image.id)
        .because(reason)
}

/// Decides on a filled file and makes it read-only. File work.
pub(crate) fn accept(
    temp: &mut Temp,
    sha256: &str,
    image: &ImageSpec,
    limits: &Limits,
    owner: Option<Owner>,
) -> Result<()> {
    if sha256 != image.sha256 {
        let message = format!(
            "the content of the image has the SHA-256 {sha256}, not {}",
            image.sha256
        );
        return Err(refused(
            image,
            Reason::new("image.checksum_mismatch", message).hint("import the image again"),
        ));
    }
    let native = |e| file_error(OPERATION, e).with("image", image.id);
    temp.file.rewind().map_err(native)?;
    skyloom_image::inspect(&mut temp.file, image.size_bytes, image.format, limits).map_err(|e| match e {
        Refusal::Read(e) => native(e),
        refusal => refused(image, refusal.reason()),
    })?;
    // With an owner of disks his group may read it; nobody may write it.
    temp.give(None, owner.map(|o| o.gid)).map_err(native)?;
    temp.mode(if owner.is_some() { 0o440 } else { 0o400 })
        .map_err(native)
}

impl Write for Temp {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }
    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::beneath::Dir;
    use std::sync::Arc;
    use std::sync::atomic::AtomicU64;

    #[tokio::test]
    async fn a_full_disk_is_told_as_such_and_leaves_nothing() {
        let temp = tempfile::tempdir().unwrap();
        let dir = Dir::open(temp.path()).unwrap();
        let mut file = Temp::create(&dir, &AtomicU64::new(0)).unwrap();
        // Every write to this device fails with ENOSPC.
        file.file = std::fs::File::options().write(true).open("/dev/full").unwrap();
        let image = ImageSpec {
            id: skyloom_model::ImageId::from_uuid(uuid::Uuid::nil()),
            sha256: "0".repeat(64),
            format: skyloom_model::DiskFormat::Raw,
            size_bytes: 4096,
        };
        let content = futures::stream::iter([Ok(Bytes::from_static(&[0; 4096]))]).boxed();
        let progress: ProgressFn = Arc::new(|_, _| {});
        let error = fill(file, &image, content, &progress).await.unwrap_err();
        assert_eq!(
            (error.kind(), error.reason().retryable),
            (ErrorKind::Full, true),
            "{error:?}"
        );
        assert!(dir.names().unwrap().is_empty());
    }
}
