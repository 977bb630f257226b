//! Room for images: what nobody needs goes when the next one comes, the longest unasked for first.
//!
//! A cached file's time of change is when it was last asked for, by the file system's clock. Three kinds stay, however full it is: what a disk lies on,
//! what was asked for a moment ago (its disk may be on the way), and kernels, of which nobody can tell here who boots them.

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustix::fs::{Timespec, Timestamps, UTIME_NOW, UTIME_OMIT, futimens};
use skyloom_hypervisor::{CachedImage, Error, ErrorKind, ImageSpec};

use crate::overlay;
use crate::pool::{Core, Failure, OVERLAY_SUFFIX};

/// How much images may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CacheLimit {
    /// Bytes of all cached images.
    pub bytes: u64,
    /// For how long one that was asked for stays in any case.
    pub rest: Duration,
}

/// Room that an image has while it is being fetched.
pub(crate) struct Promise {
    core: Arc<Core>,
    bytes: u64,
}

impl Drop for Promise {
    fn drop(&mut self) {
        let mut promised = self.core.promised.lock();
        *promised = promised.saturating_sub(self.bytes);
    }
}

/// Notes that a cached file was asked for.
fn asked_for(file: &std::fs::File) -> io::Result<()> {
    let time = |tv_nsec| Timespec { tv_sec: 0, tv_nsec };
    let now = Timestamps {
        last_access: time(UTIME_OMIT),
        last_modification: time(UTIME_NOW),
    };
    Ok(futimens(file, &now)?)
}

/// The format of a whole image's file; what is half written is counted by its promise.
fn format_of(name: &str) -> Option<&str> {
    let (sha256, format) = name.split_once('.')?;
    (sha256.len() == 64).then_some(format)
}

fn evictable(name: &str) -> bool {
    matches!(format_of(name), Some("raw" | "qcow2"))
}

impl Core {
    /// The image, if all of it is there; asking is noted.
    pub(crate) fn cached(&self, file: &str, image: &ImageSpec) -> io::Result<Option<CachedImage>> {
        let whole = match self.folder.images.file(file)? {
            Some(there) if there.metadata()?.len() == image.size_bytes => {
                asked_for(&there)?;
                true
            }
            _ => false,
        };
        Ok(whole.then(|| CachedImage {
            path: self.folder.images.path(file),
            format: image.format,
        }))
    }

    /// Makes room for so many bytes, which are promised until the answer is dropped.
    pub(crate) fn make_room(self: &Arc<Self>, bytes: u64, now: SystemTime) -> Result<Promise, Failure> {
        // Held all the while: two that come at once do not count on the same room.
        let mut promised = self.promised.lock();
        if let Some(limit) = self.limit {
            let mut there = Vec::new();
            let mut taken = promised.saturating_add(bytes);
            let names = self.folder.images.names()?.into_iter();
            for name in names.filter(|name| format_of(name).is_some()) {
                if let Some(file) = self.folder.images.file(&name)? {
                    let meta = file.metadata()?;
                    taken = taken.saturating_add(meta.len());
                    there.push((meta.modified()?, name, meta.len()));
                }
            }
            if taken > limit.bytes {
                self.evict(there, limit, taken, now)?;
            }
        }
        *promised = promised.saturating_add(bytes);
        Ok(Promise {
            core: Arc::clone(self),
            bytes,
        })
    }

    fn evict(
        &self,
        mut there: Vec<(SystemTime, String, u64)>,
        limit: CacheLimit,
        mut taken: u64,
        now: SystemTime,
    ) -> Result<(), Failure> {
        let in_use = self.in_use()?;
        there.retain(|(asked, name, _)| {
            // A clock that went back says nothing of how long ago that was.
            let rested = now.duration_since(*asked).is_ok_and(|since| since >= limit.rest);
            rested && evictable(name) && !in_use.contains(name)
        });
        let free: u64 = there.iter().map(|(_, _, bytes)| bytes).sum();
        if taken.saturating_sub(free) > limit.bytes {
            // Nothing goes for what does not fit anyway.
            return Err(Error::new(ErrorKind::Full, "cache image")
                .with("limit of the image cache", limit.bytes)
                .with("taken then", taken)
                .with("could go", free)
                .into());
        }
        there.sort_unstable();
        for (_, name, bytes) in there {
            if taken <= limit.bytes {
                break;
            }
            self.folder.images.unlink(&name)?;
            taken = taken.saturating_sub(bytes);
        }
        Ok(())
    }

    /// Names of images that disks lie on, those of servers that are being removed among them.
    fn in_use(&self) -> io::Result<BTreeSet<String>> {
        let mut used = BTreeSet::new();
        for server in self.folder.servers.names()? {
            let Some(dir) = self.folder.servers.sub(&server)? else {
                continue;
            };
            for name in dir.names()? {
                if name.ends_with(OVERLAY_SUFFIX)
                    && let Some(mut file) = dir.file(&name)?
                {
                    let below = overlay::read(&mut file)?.backing;
                    let below = below.as_ref().and_then(|path| path.file_name());
                    used.extend(below.and_then(|name| name.to_str()).map(ToOwned::to_owned));
                }
            }
        }
        Ok(used)
    }
}
