//! [`DirPool`]: the verbs of [`HostStorage`] on a directory.

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use parking_lot::Mutex;
use rustix::fs::FlockOperation;
use skyloom_hypervisor::{
    CachedImage, DiskInfo, Error, ErrorKind, HostStorage, ImageSpec, OverlaySpec, ProgressFn, Result, is_seed,
};
use skyloom_image::Limits;
use skyloom_model::{DiskFormat, Name, ServerId};

use crate::beneath::{Dir, Temp};
use crate::cache::CacheLimit;
use crate::folder::{Folder, GONE, Held, SharedDisks};
use crate::locks::Locks;
use crate::volumes::{LOCK_PAUSE, LOCK_TRIES, Shelf};
use crate::{overlay, writing};

const SEED_SUFFIX: &str = ".iso";
pub(crate) const OVERLAY_SUFFIX: &str = ".qcow2";
const MAX_DISK_NAME: usize = 63;

/// Configuration of a pool.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct PoolConfig {
    /// The directory; made when it is not there.
    pub root: PathBuf,
    /// Whom disks belong to; `None` is this process' user. Needs root.
    pub owner: Option<Owner>,
    /// What an image may be at most.
    pub limits: Limits,
    /// Directories that several hosts see, by the name of their pool.
    pub shared: Vec<(Name, PathBuf)>,
    /// Where images and servers' disks are, if not beneath `root`: a directory that several hosts see.
    pub disks: Option<SharedDisks>,
    /// What tells this host from the others that see them: part of a file's name.
    pub host: String,
    /// What cached images may take; `None` is whatever there is.
    pub cache: Option<CacheLimit>,
}

/// The user that QEMU runs as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner {
    /// User id.
    pub uid: u32,
    /// Group id: may read cached images.
    pub gid: u32,
}

impl PoolConfig {
    /// A pool at `root`, for this process' user, with the inspector's default limits.
    #[must_use]
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self {
            root: root.into(),
            owner: None,
            limits: Limits::default(),
            shared: Vec::new(),
            disks: None,
            host: "host".to_owned(),
            cache: None,
        }
    }
    /// Disks of another user.
    #[must_use]
    pub const fn with_owner(mut self, owner: Option<Owner>) -> Self {
        self.owner = owner;
        self
    }
    /// Also the volumes of a directory that several hosts see. It must hold a file `skyloom-pool` with the pool's name. `host` tells
    /// this host from the others, in letters, digits and `-`.
    #[must_use]
    pub fn with_shared(mut self, host: impl Into<String>, name: Name, path: impl Into<PathBuf>) -> Self {
        self.host = host.into();
        self.shared.push((name, path.into()));
        self
    }
    /// With images and servers' disks in a directory that several hosts see; `host` as in [`PoolConfig::with_shared`].
    #[must_use]
    pub fn with_disks(mut self, host: impl Into<String>, disks: Option<SharedDisks>) -> Self {
        self.host = host.into();
        self.disks = disks;
        self
    }
    /// With a limit of the image cache.
    #[must_use]
    pub const fn with_cache(mut self, limit: Option<CacheLimit>) -> Self {
        self.cache = limit;
        self
    }
    /// Other limits.
    #[must_use]
    pub const fn with_limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }
}

/// The disks of one host, in a directory. See the crate's documentation.
#[derive(Debug)]
pub struct DirPool {
    pub(crate) core: Arc<Core>,
    pub(crate) locks: Locks,
}

#[derive(Debug)]
pub(crate) struct Core {
    /// Also holds the lock on the directory.
    _root: Dir,
    pub(crate) folder: Folder,
    /// The host's own volumes, then those of shared pools.
    pub(crate) shelves: Vec<Shelf>,
    pub(crate) owner: Option<Owner>,
    limits: Limits,
    pub(crate) limit: Option<CacheLimit>,
    /// Bytes of images that are being fetched.
    pub(crate) promised: Mutex<u64>,
    pub(crate) temps: AtomicU64,
}

/// Runs file work off the runtime's threads.
pub(crate) async fn blocking<T, E, F>(work: F) -> Result<T, E>
where
    T: Send + 'static,
    E: From<io::Error> + Send + 'static,
    F: FnOnce() -> Result<T, E> + Send + 'static,
{
    tokio::task::spawn_blocking(work)
        .await
        .map_err(io::Error::other)?
}

pub(crate) fn file_error(operation: &'static str, error: io::Error) -> Error {
    let kind = match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => ErrorKind::Full,
        io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof => ErrorKind::Corrupt,
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => ErrorKind::Refused,
        io::ErrorKind::WouldBlock => ErrorKind::Conflict,
        _ => ErrorKind::Unavailable,
    };
    Error::new(kind, operation).because(error)
}

/// An error of file work before its operation is known.
pub(crate) enum Failure {
    Native(io::Error),
    Told(Error),
}
impl From<io::Error> for Failure {
    fn from(e: io::Error) -> Self {
        Self::Native(e)
    }
}
impl From<Error> for Failure {
    fn from(e: Error) -> Self {
        Self::Told(e)
    }
}
impl Failure {
    pub(crate) fn during(self, operation: &'static str) -> Error {
        match self {
            Self::Native(e) => file_error(operation, e),
            Self::Told(e) => e,
        }
    }
}

pub(crate) fn image_file(operation: &'static str, image: &ImageSpec) -> Result<String> {
    let hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
    if image.sha256.len() != 64 || !image.sha256.bytes().all(hex) {
        let what = "a SHA-256 has 64 digits of lower-case hex";
        return Err(Error::new(ErrorKind::Invalid, operation)
            .with("image", image.id)
            .with("because", what));
    }
    Ok(format!("{}.{}", image.sha256, image.format.as_str()))
}

pub(crate) fn check_disk(operation: &'static str, disk: &str) -> Result<()> {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    if disk.is_empty() || disk.len() > MAX_DISK_NAME || !disk.bytes().all(plain) {
        let what = "a disk's name has 1 to 63 of a-z, 0-9 and -";
        return Err(Error::new(ErrorKind::Invalid, operation).with("because", what));
    }
    Ok(())
}

impl DirPool {
    /// Opens the pool and sweeps what an earlier life left half done.
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`] when another pool uses the directory.
    pub async fn open(config: PoolConfig) -> Result<Self> {
        let root = config.root.clone();
        let core = blocking(move || Core::open(config)).await;
        let core = core.map_err(|e| file_error("open pool", e).with("directory", root.display()))?;
        Ok(Self {
            core: Arc::new(core),
            locks: Locks::default(),
        })
    }

    /// File work of a server under its lock, which is held to its end even when the caller goes away.
    async fn work<T: Send + 'static>(
        &self,
        operation: &'static str,
        server: ServerId,
        work: impl FnOnce(&Core) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T> {
        let guard = self.locks.lock(server.to_string()).await;
        let held = self.alone(operation, server).await?;
        let core = Arc::clone(&self.core);
        let done = move || {
            let done = work(&core);
            drop((held, guard));
            done
        };
        blocking(done).await.map_err(|e| e.during(operation))
    }

    /// Another host may have it for a moment.
    async fn alone(&self, operation: &'static str, server: ServerId) -> Result<Held> {
        let mut tries = 0;
        loop {
            let core = Arc::clone(&self.core);
            let hold = blocking(move || core.folder.hold(operation, server)).await;
            match hold.map_err(|e: Failure| e.during(operation)) {
                Err(e) if e.kind() == ErrorKind::Unavailable && tries < LOCK_TRIES => {
                    tries += 1;
                    tokio::time::sleep(LOCK_PAUSE).await;
                }
                done => return done,
            }
        }
    }
}

impl Core {
    fn open(config: PoolConfig) -> io::Result<Self> {
        let mode = Self::dir_mode(config.owner);
        std::fs::create_dir_all(&config.root)?;
        let root = Dir::open(&config.root.canonicalize()?)?;
        rustix::fs::flock(root.fd(), FlockOperation::NonBlockingLockExclusive)?;
        let folder = match &config.disks {
            None => Folder::own(&root, mode)?,
            Some(disks) => Folder::shared(disks, &config.host, mode)?,
        };
        let mut shelves = vec![Shelf::own(&root, mode)?];
        for (name, path) in &config.shared {
            shelves.push(Shelf::shared(name, path, &config.host, mode)?);
        }
        let PoolConfig {
            owner, limits, cache, ..
        } = config;
        Ok(Self {
            _root: root,
            folder,
            shelves,
            owner,
            limits,
            limit: cache,
            promised: Mutex::new(0),
            temps: AtomicU64::new(0),
        })
    }

    /// QEMU's user must be able to pass through to his own disks, not to list those of others.
    const fn dir_mode(owner: Option<Owner>) -> u32 {
        if owner.is_some() { 0o711 } else { 0o700 }
    }

    fn create_overlay(&self, wanted: &OverlaySpec, base_file: &str) -> Result<DiskInfo, Failure> {
        let error = |kind| {
            Error::new(kind, "create overlay")
                .with("server", wanted.server)
                .with("disk", &wanted.disk)
        };
        let Some(base) = self.cached(base_file, &wanted.base)? else {
            return Err(error(ErrorKind::NotFound).with("image", wanted.base.id).into());
        };
        let server = self
            .folder
            .servers
            .make_sub(&wanted.server.to_string(), Self::dir_mode(self.owner))?;
        let name = format!("{}{OVERLAY_SUFFIX}", wanted.disk);
        let info = DiskInfo {
            name: wanted.disk.clone(),
            path: server.path(&name),
            format: DiskFormat::Qcow2,
            backing_format: Some(base.format),
        };
        if let Some(mut there) = server.file(&name)? {
            let header = overlay::read(&mut there)?;
            let ours =
                header.backing.as_ref() == Some(&base.path) && header.backing_format == Some(base.format);
            // Larger is well: it may have been grown since.
            if ours && header.size >= wanted.size_bytes {
                return Ok(info);
            }
            return Err(error(ErrorKind::Conflict)
                .with("there", format!("{header:?}"))
                .into());
        }
        let below = self.virtual_size(base_file, &wanted.base)?;
        let size = wanted.size_bytes;
        if size < below || !size.is_multiple_of(512) || size > overlay::MAX_SIZE {
            return Err(error(ErrorKind::Invalid)
                .with("size", size)
                .with("size of the image", below)
                .into());
        }
        let mut temp = Temp::create(&server, &self.temps)?;
        overlay::write(&mut temp.file, Some((&base.path, base.format)), size)?;
        temp.give_to(self.owner)?;
        temp.publish(&name)?;
        Ok(info)
    }

    pub(crate) fn virtual_size(&self, file: &str, image: &ImageSpec) -> io::Result<u64> {
        match image.format {
            DiskFormat::Raw | DiskFormat::Kernel | DiskFormat::Initrd => Ok(image.size_bytes),
            DiskFormat::Qcow2 => {
                let mut file = self
                    .folder
                    .images
                    .file(file)?
                    .ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
                Ok(overlay::read(&mut file)?.size)
            }
        }
    }

    fn create_seed(&self, server: ServerId, disk: &str, iso: &[u8]) -> Result<DiskInfo, Failure> {
        let server = self
            .folder
            .servers
            .make_sub(&server.to_string(), Self::dir_mode(self.owner))?;
        let mut temp = Temp::create(&server, &self.temps)?;
        temp.file.write_all(iso)?;
        temp.give_to(self.owner)?;
        temp.publish(&format!("{disk}{SEED_SUFFIX}"))?;
        Ok(seed_info(&server, disk))
    }

    fn delete_server(&self, server: ServerId) -> io::Result<()> {
        let (name, gone) = (server.to_string(), format!("{GONE}{server}"));
        // What an earlier try left.
        self.folder.servers.remove_sub(&gone)?;
        if self.folder.servers.sub(&name)?.is_some() {
            self.folder.servers.rename(&name, &gone)?;
            self.folder.servers.remove_sub(&gone)?;
        }
        Ok(())
    }

    fn disks(&self, server: ServerId) -> io::Result<Vec<DiskInfo>> {
        let Some(server) = self.folder.servers.sub(&server.to_string())? else {
            return Ok(Vec::new());
        };
        let mut disks = Vec::new();
        for name in server.names()? {
            if let Some(disk) = name.strip_suffix(SEED_SUFFIX).filter(|disk| is_seed(disk)) {
                disks.push(seed_info(&server, disk));
            } else if let Some(disk) = name.strip_suffix(OVERLAY_SUFFIX)
                && let Some(mut file) = server.file(&name)?
            {
                let backing_format = overlay::read(&mut file)?.backing_format;
                let path = server.path(&name);
                disks.push(DiskInfo {
                    name: disk.to_owned(),
                    path,
                    format: DiskFormat::Qcow2,
                    backing_format,
                });
            }
        }
        disks.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        Ok(disks)
    }
}

/// Whose directory this is, also when it is being removed.
fn owner_of(name: &str) -> Option<ServerId> {
    let id = name.strip_prefix(GONE).unwrap_or(name);
    id.parse()
        .ok()
        .filter(|parsed: &ServerId| parsed.to_string() == id)
}

fn seed_info(server: &Dir, disk: &str) -> DiskInfo {
    DiskInfo {
        name: disk.to_owned(),
        path: server.path(&format!("{disk}{SEED_SUFFIX}")),
        format: DiskFormat::Raw,
        backing_format: None,
    }
}

#[async_trait]
impl HostStorage for DirPool {
    async fn cached_image(&self, image: &ImageSpec) -> Result<Option<CachedImage>> {
        let file = image_file("look up image", image)?;
        let (core, image) = (Arc::clone(&self.core), image.clone());
        blocking(move || core.cached(&file, &image))
            .await
            .map_err(|e| file_error("look up image", e))
    }

    async fn cache_image(
        &self,
        image: &ImageSpec,
        content: BoxStream<'static, io::Result<Bytes>>,
        progress: ProgressFn,
    ) -> Result<CachedImage> {
        let file = image_file("cache image", image)?;
        let guard = self.locks.lock(file.clone()).await;
        if let Some(cached) = self.cached_image(image).await? {
            progress(image.size_bytes, image.size_bytes);
            return Ok(cached);
        }
        let core = Arc::clone(&self.core);
        let bytes = image.size_bytes;
        let begin = move || {
            let temp = Temp::create(&core.folder.images, &core.temps)?;
            // It was made now.
            let now = temp.file.metadata()?.modified()?;
            let room = core.make_room(bytes, now)?;
            Ok::<_, Failure>((temp, room))
        };
        let (temp, room) = blocking(begin).await.map_err(|e| e.during("cache image"))?;
        let (mut temp, sha256) = writing::fill(temp, image, content, &progress).await?;
        let (core, image) = (Arc::clone(&self.core), image.clone());
        let finish = move || {
            writing::accept(&mut temp, &sha256, &image, &core.limits, core.owner)?;
            temp.publish(&file)?;
            drop(room);
            drop(guard);
            Ok::<_, Failure>(CachedImage {
                path: core.folder.images.path(&file),
                format: image.format,
            })
        };
        blocking(finish).await.map_err(|e| e.during("cache image"))
    }

    async fn create_overlay(&self, overlay: &OverlaySpec) -> Result<DiskInfo> {
        check_disk("create overlay", &overlay.disk)?;
        if is_seed(&overlay.disk) {
            let what = "that is the name of the config drive";
            return Err(Error::new(ErrorKind::Invalid, "create overlay")
                .with("disk", &overlay.disk)
                .with("because", what));
        }
        let base_file = image_file("create overlay", &overlay.base)?;
        let wanted = overlay.clone();
        let work = move |core: &Core| core.create_overlay(&wanted, &base_file);
        self.work("create overlay", overlay.server, work).await
    }

    async fn create_seed(&self, server: ServerId, disk: &str, iso: &[u8]) -> Result<DiskInfo> {
        check_disk("create config drive", disk)?;
        if !is_seed(disk) {
            return Err(Error::new(ErrorKind::Invalid, "create config drive").with("disk", disk));
        }
        let (disk, iso) = (disk.to_owned(), iso.to_vec());
        self.work("create config drive", server, move |core| {
            core.create_seed(server, &disk, &iso)
        })
        .await
    }

    async fn delete_disk(&self, server: ServerId, disk: &str) -> Result<()> {
        check_disk("delete disk", disk)?;
        let suffix = if is_seed(disk) {
            SEED_SUFFIX
        } else {
            OVERLAY_SUFFIX
        };
        let file = format!("{disk}{suffix}");
        let work = move |core: &Core| match core.folder.servers.sub(&server.to_string())? {
            Some(dir) => Ok(dir.unlink(&file)?),
            None => Ok(()),
        };
        self.work("delete disk", server, work).await
    }

    async fn delete_server(&self, server: ServerId) -> Result<()> {
        let work = move |core: &Core| Ok(core.delete_server(server)?);
        self.work("delete disks of server", server, work).await
    }

    async fn disks(&self, server: ServerId) -> Result<Vec<DiskInfo>> {
        self.work("list disks", server, move |core| Ok(core.disks(server)?))
            .await
    }

    async fn servers(&self) -> Result<Vec<ServerId>> {
        let core = Arc::clone(&self.core);
        let names = blocking(move || core.folder.servers.names()).await;
        let names = names.map_err(|e| file_error("list servers with disks", e))?;
        let servers: BTreeSet<ServerId> = names.iter().filter_map(|name| owner_of(name)).collect();
        Ok(servers.into_iter().collect())
    }
}
