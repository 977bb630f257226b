//! An image repository in a directory: `staged/{upload}` and `images/{image}`, both named by UUIDs, mode 0600.
//!
//! Content is written beside its place and renamed into it after fsync, so that a path never shows half a file, not even
//! after a power cut.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt as _;
use skyloom_image::HashingWriter;
use skyloom_model::ImageId;
use tokio::sync::Mutex;
use tokio_util::io::ReaderStream;
use uuid::Uuid;

use super::{ByteStream, ImageRepo, Measured, PublishedContent, RepoError, StagedFile};

/// Bytes per chunk when content is read.
const CHUNK: usize = 256 << 10;

/// A repository below one directory.
#[derive(Debug, Clone)]
pub struct DirImageRepo {
    staged: PathBuf,
    images: PathBuf,
    max_bytes: u64,
    /// Held by whatever changes names, until it has: a call that is dropped goes on in its thread.
    turn: Arc<Mutex<()>>,
}

/// Removes a half-written file when its writer gives up or is dropped.
struct Part(Option<PathBuf>);

impl Drop for Part {
    fn drop(&mut self) {
        if let Some(path) = self.0.take()
            && let Err(error) = fs::remove_file(&path)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(path = %path.display(), %error, "a half-written file stays behind");
        }
    }
}

impl DirImageRepo {
    /// Opens or makes the repository below `root`; content of more than `max_bytes` is refused.
    ///
    /// # Errors
    /// When the directories cannot be made.
    pub fn open(root: &Path, max_bytes: u64) -> Result<Self, RepoError> {
        let make = |name: &str| {
            let path = root.join(name);
            fs::DirBuilder::new().recursive(true).mode(0o700).create(&path)?;
            io::Result::Ok(path)
        };
        let both = || io::Result::Ok((make("staged")?, make("images")?));
        let (staged, images) = both().map_err(|e| RepoError::Io("make directories", e))?;
        Ok(Self {
            staged,
            images,
            max_bytes,
            turn: Arc::default(),
        })
    }

    /// Runs work on names after all that was begun before.
    async fn in_turn<T: Send + 'static>(
        &self,
        what: &'static str,
        work: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> Result<T, RepoError> {
        let turn = self.turn.clone().lock_owned().await;
        blocking(what, move || {
            let done = work();
            drop(turn);
            done
        })
        .await
    }

    fn staged_path(&self, upload: Uuid) -> PathBuf {
        self.staged.join(upload.to_string())
    }

    fn image_path(&self, image: ImageId) -> PathBuf {
        self.images.join(image.to_string())
    }
}

/// Runs file work beside the runtime's threads.
async fn blocking<T: Send + 'static>(
    what: &'static str,
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T, RepoError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(e)) if e.kind() == io::ErrorKind::NotFound => Err(RepoError::NotFound),
        Ok(Err(e)) => Err(RepoError::Io(what, e)),
        Err(e) => Err(RepoError::Io(what, io::Error::other(e))),
    }
}

fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

#[async_trait]
impl ImageRepo for DirImageRepo {
    async fn stage(&self, upload: Uuid, mut content: ByteStream) -> Result<Measured, RepoError> {
        let path = self.staged_path(upload);
        let part_path = self.staged.join(format!("{upload}.part"));
        let mut part = Part(Some(part_path.clone()));
        let making = self.in_turn("make a file", {
            let part_path = part_path.clone();
            move || {
                remove(&part_path)?;
                let file = OpenOptions::new()
                    .write(true)
                    .create_new(true)
                    .mode(0o600)
                    .open(part_path)?;
                Ok(HashingWriter::new(file))
            }
        });
        let mut file = making.await?;
        while let Some(chunk) = content.next().await {
            let chunk: Bytes = chunk.map_err(RepoError::Source)?;
            let size = file
                .bytes()
                .saturating_add(u64::try_from(chunk.len()).unwrap_or(u64::MAX));
            if size > self.max_bytes {
                return Err(RepoError::TooLarge(self.max_bytes));
            }
            file = blocking("write", move || file.write_all(&chunk).map(|()| file)).await?;
        }
        let digest = blocking("sync", move || {
            let (file, digest) = file.finish();
            file.sync_all()?;
            Ok(digest)
        })
        .await?;
        let dir = self.staged.clone();
        let rename = move || {
            fs::rename(&part_path, path)?;
            sync_dir(&dir)
        };
        self.in_turn("rename", rename).await?;
        part.0 = None;
        Ok(Measured {
            sha256: digest.sha256,
            size: digest.bytes,
        })
    }

    async fn staged(&self, upload: Uuid) -> Result<StagedFile, RepoError> {
        let path = self.staged_path(upload);
        blocking("open", move || {
            let file = File::open(path)?;
            let size = file.metadata()?.len();
            Ok(StagedFile {
                content: Box::new(file),
                size,
                in_memory: false,
            })
        })
        .await
    }

    async fn discard(&self, upload: Uuid) -> Result<(), RepoError> {
        let (path, dir) = (self.staged_path(upload), self.staged.clone());
        let part = self.staged.join(format!("{upload}.part"));
        self.in_turn("discard", move || {
            remove(&part)?;
            remove(&path)?;
            sync_dir(&dir)
        })
        .await
    }

    async fn publish(&self, upload: Uuid, image: ImageId) -> Result<(), RepoError> {
        let (from, to) = (self.staged_path(upload), self.image_path(image));
        let (staged, images) = (self.staged.clone(), self.images.clone());
        self.in_turn("publish", move || {
            match fs::rename(&from, &to) {
                Err(e) if e.kind() == io::ErrorKind::NotFound && to.exists() => {}
                other => other?,
            }
            sync_dir(&images)?;
            sync_dir(&staged)
        })
        .await
    }

    async fn open(&self, image: ImageId) -> Result<PublishedContent, RepoError> {
        let path = self.image_path(image);
        let opening = self.in_turn("open", move || {
            let file = File::open(path)?;
            let size = file.metadata()?.len();
            Ok((file, size))
        });
        let (file, size) = opening.await?;
        let content = ReaderStream::with_capacity(tokio::fs::File::from_std(file), CHUNK).boxed();
        Ok(PublishedContent { content, size })
    }

    async fn delete(&self, image: ImageId) -> Result<(), RepoError> {
        let (path, dir) = (self.image_path(image), self.images.clone());
        self.in_turn("delete", move || {
            remove(&path)?;
            sync_dir(&dir)
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::os::unix::fs::PermissionsExt as _;

    use futures::TryStreamExt as _;
    use futures::stream;

    use super::*;

    fn chunks(parts: &[&'static [u8]]) -> ByteStream {
        stream::iter(
            parts
                .iter()
                .map(|p| Ok(Bytes::from_static(p)))
                .collect::<Vec<_>>(),
        )
        .boxed()
    }

    fn repo(max: u64) -> (tempfile::TempDir, DirImageRepo) {
        let dir = tempfile::tempdir().unwrap();
        let repo = DirImageRepo::open(dir.path(), max).unwrap();
        (dir, repo)
    }

    fn files(dir: &tempfile::TempDir) -> Vec<String> {
        let mut all = Vec::new();
        for sub in ["staged", "images"] {
            for entry in fs::read_dir(dir.path().join(sub)).unwrap() {
                all.push(format!(
                    "{sub}/{}",
                    entry.unwrap().file_name().into_string().unwrap()
                ));
            }
        }
        all.sort();
        all
    }

    #[tokio::test]
    async fn content_goes_from_staged_to_published_and_away() {
        let (dir, repo) = repo(100);
        let (upload, image) = (Uuid::from_u128(1), ImageId::from_uuid(Uuid::from_u128(2)));
        let measured = repo.stage(upload, chunks(&[b"he", b"llo"])).await.unwrap();
        assert_eq!(measured.size, 5);
        assert_eq!(measured.sha256, crate::hash::sha256(b"hello"));
        let mut text = String::new();
        repo.staged(upload)
            .await
            .unwrap()
            .content
            .read_to_string(&mut text)
            .unwrap();
        assert_eq!(text, "hello");
        let mode = fs::metadata(dir.path().join(format!("staged/{upload}")))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
        for _ in 0..2 {
            repo.publish(upload, image).await.unwrap();
            assert_eq!(files(&dir), [format!("images/{image}")]);
        }
        assert!(matches!(repo.staged(upload).await, Err(RepoError::NotFound)));
        let published = repo.open(image).await.unwrap();
        assert_eq!(published.size, 5);
        let read: Vec<Bytes> = published.content.try_collect().await.unwrap();
        assert_eq!(read.concat(), b"hello");
        for _ in 0..2 {
            repo.delete(image).await.unwrap();
        }
        assert!(matches!(repo.open(image).await, Err(RepoError::NotFound)));
        assert!(matches!(
            repo.publish(upload, image).await,
            Err(RepoError::NotFound)
        ));
        assert!(files(&dir).is_empty());
    }

    #[tokio::test]
    async fn nothing_stays_of_what_is_too_large_or_breaks_off() {
        let (dir, repo) = repo(4);
        let upload = Uuid::from_u128(1);
        assert!(matches!(
            repo.stage(upload, chunks(&[b"abcd", b"e"])).await,
            Err(RepoError::TooLarge(4))
        ));
        let broken = stream::iter([Ok(Bytes::from_static(b"ab")), Err(io::Error::other("gone"))]).boxed();
        assert!(matches!(
            repo.stage(upload, broken).await,
            Err(RepoError::Source(_))
        ));
        assert!(files(&dir).is_empty());
        assert_eq!(repo.stage(upload, chunks(&[b"abcd"])).await.unwrap().size, 4);
        assert_eq!(
            repo.stage(upload, chunks(&[b"xy"])).await.unwrap().size,
            2,
            "a second attempt replaces the first"
        );
        for _ in 0..2 {
            repo.discard(upload).await.unwrap();
        }
        assert!(files(&dir).is_empty());
    }

    #[tokio::test]
    async fn what_was_dropped_under_way_is_over_before_the_next_call() {
        let (dir, repo) = repo(100);
        let image = ImageId::from_uuid(Uuid::from_u128(2));
        let path = repo.image_path(image);
        let (go, wait) = std::sync::mpsc::channel();
        // Begun and given up, as a job is when its task goes back; its thread is late.
        let mut late = Box::pin(repo.in_turn("publish late", move || {
            wait.recv().map_err(io::Error::other)?;
            fs::write(path, b"content")
        }));
        assert!(futures::poll!(&mut late).is_pending());
        drop(late);
        let mut delete = repo.delete(image);
        let early = tokio::time::timeout(std::time::Duration::from_millis(50), &mut delete);
        assert!(early.await.is_err(), "it waits");
        go.send(()).unwrap();
        delete.await.unwrap();
        assert!(files(&dir).is_empty());
    }

    #[tokio::test]
    async fn a_dropped_upload_leaves_nothing() {
        let (dir, repo) = repo(100);
        let endless = stream::once(async { Ok(Bytes::from_static(b"ab")) })
            .chain(stream::pending())
            .boxed();
        let stage = repo.stage(Uuid::from_u128(1), endless);
        assert!(
            tokio::time::timeout(std::time::Duration::from_millis(50), stage)
                .await
                .is_err()
        );
        assert!(files(&dir).is_empty());
    }
}
