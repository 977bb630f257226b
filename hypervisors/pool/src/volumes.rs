//! Volumes in directories: the host's own, and those that several hosts see.
//!
//! ```text
//!  <root>/volumes/<id>.<format>       the host's own
//!  <shared>/skyloom-pool              says the pool's name: without it the directory is not the pool (not mounted, say)
//!  <shared>/volumes/<id>.<format>
//! ```
//!
//! Within a process a volume is worked on by one verb at a time; between hosts its file is locked meanwhile. What is copied goes into
//! a temporary file, named by the host, and is renamed when it is whole.

use std::fs::File;
use std::io::{self, Read, Seek as _};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::{self, StreamExt as _};
use rustix::fs::FlockOperation;
use skyloom_hypervisor::{
    DiskAt, Error, ErrorKind, HostVolumes, Result, VolumeAt, VolumeContent, VolumeFile, VolumeInfo,
    VolumeOrder, VolumeSnapshot,
};
use skyloom_model::{DiskFormat, Name, Pool, SnapshotId, VolumeId};

use crate::beneath::{Dir, Temp};
use crate::pool::{Core, DirPool, Failure, OVERLAY_SUFFIX, blocking, file_error, image_file};
use crate::tool::{Source, Tool};
use crate::{overlay, qcow2};

/// The file that says a shared pool's name.
const MARK: &str = "skyloom-pool";
const VOLUMES: &str = "volumes";
const FORMATS: [DiskFormat; 2] = [DiskFormat::Qcow2, DiskFormat::Raw];
const SECTOR: u64 = 512;
/// Bytes that are read at once.
const PIECE: u64 = 256 << 10;
/// How often a lock that another one holds is tried again, and how soon.
pub(crate) const LOCK_TRIES: usize = 20;
pub(crate) const LOCK_PAUSE: Duration = Duration::from_millis(50);

/// A directory of volumes.
#[derive(Debug)]
pub(crate) struct Shelf {
    pub(crate) pool: Pool,
    dir: Dir,
}

/// A volume's open file, locked against other hosts.
struct Held {
    info: VolumeInfo,
    _file: File,
}

/// What is to be copied.
struct Copy {
    source: Source,
    snapshot: Option<String>,
    size: u64,
}

fn file_name(volume: VolumeId, format: DiskFormat) -> String {
    format!("{volume}.{}", format.as_str())
}

/// Which volume this is, and in which format.
fn parse_name(name: &str) -> Option<(VolumeId, DiskFormat)> {
    let (id, format) = name.split_once('.')?;
    let format = FORMATS.into_iter().find(|f| f.as_str() == format)?;
    let volume: VolumeId = id.parse().ok()?;
    (volume.to_string() == id).then_some((volume, format))
}

fn missing(operation: &'static str, at: &VolumeAt) -> Error {
    Error::new(ErrorKind::NotFound, operation).with("volume", at.volume)
}

impl Shelf {
    /// The host's own.
    pub(crate) fn own(root: &Dir, mode: u32) -> io::Result<Self> {
        let dir = root.make_sub(VOLUMES, mode)?;
        dir.sweep()?;
        Ok(Self {
            pool: Pool::Local,
            dir,
        })
    }

    /// A shared one; `host` tells this host's temporary files from those of others.
    pub(crate) fn shared(name: &Name, path: &Path, host: &str, mode: u32) -> io::Result<Self> {
        let wrong = |what: String| io::Error::new(io::ErrorKind::InvalidData, what);
        let root = Dir::open(&path.canonicalize()?)?;
        let mut said = String::new();
        match root.file(MARK)? {
            Some(file) => file.take(1024).read_to_string(&mut said)?,
            None => {
                return Err(wrong(format!(
                    "{} has no file {MARK}: it is no pool",
                    path.display()
                )));
            }
        };
        if said.trim() != name.as_str() {
            return Err(wrong(format!(
                "{} is the pool {:?}, not {name}",
                path.display(),
                said.trim()
            )));
        }
        let dir = root.make_sub(VOLUMES, mode)?.tagged(host);
        dir.sweep()?;
        let pool = Pool::Shared { name: name.clone() };
        Ok(Self { pool, dir })
    }

    fn info(&self, volume: VolumeId, format: DiskFormat) -> io::Result<Option<(VolumeInfo, File)>> {
        let name = file_name(volume, format);
        let Some(mut file) = self.dir.file(&name)? else {
            return Ok(None);
        };
        let size_bytes = match format {
            DiskFormat::Raw | DiskFormat::Kernel | DiskFormat::Initrd => file.metadata()?.len(),
            DiskFormat::Qcow2 => overlay::read(&mut file)?.size,
        };
        let info = VolumeInfo {
            at: VolumeAt {
                volume,
                pool: self.pool.clone(),
            },
            path: self.dir.path(&name),
            format,
            size_bytes,
            allocated_bytes: file.metadata()?.blocks() * SECTOR,
        };
        Ok(Some((info, file)))
    }

    fn find(&self, volume: VolumeId) -> io::Result<Option<(VolumeInfo, File)>> {
        for format in FORMATS {
            if let Some(found) = self.info(volume, format)? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    /// The volume, which no other host works on while this is held.
    fn hold(&self, operation: &'static str, at: &VolumeAt) -> Result<Option<Held>, Failure> {
        let Some((info, file)) = self.find(at.volume)? else {
            return Ok(None);
        };
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(Held { info, _file: file })),
            Err(rustix::io::Errno::WOULDBLOCK) => Err(Error::new(ErrorKind::Unavailable, operation)
                .with("volume", at.volume)
                .with("because", "another host works on it")
                .into()),
            Err(e) => Err(io::Error::from(e).into()),
        }
    }

    fn all(&self) -> io::Result<Vec<VolumeInfo>> {
        let mut all = Vec::new();
        for name in self.dir.names()? {
            if let Some((volume, format)) = parse_name(&name)
                && let Some((info, _)) = self.info(volume, format)?
            {
                all.push(info);
            }
        }
        all.sort_unstable_by_key(|info| info.at.volume);
        Ok(all)
    }

    fn snapshots(&self, info: &VolumeInfo) -> io::Result<Vec<VolumeSnapshot>> {
        if info.format == DiskFormat::Raw {
            return Ok(Vec::new());
        }
        let Some(mut file) = self.dir.file(&file_name(info.at.volume, info.format))? else {
            return Ok(Vec::new());
        };
        let there = qcow2::snapshots(&mut file)?.into_iter();
        let ours = there.filter_map(|s| {
            let snapshot: SnapshotId = s.name.parse().ok()?;
            let size_bytes = s.disk_size;
            Some(VolumeSnapshot { snapshot, size_bytes })
        });
        Ok(ours.collect())
    }
}

impl Core {
    fn shelf(&self, operation: &'static str, pool: &Pool) -> Result<&Shelf> {
        let found = self.shelves.iter().find(|shelf| shelf.pool == *pool);
        found.ok_or_else(|| {
            let name = match pool {
                Pool::Local => "local",
                Pool::Shared { name } => name.as_str(),
            };
            Error::new(ErrorKind::NotFound, operation).with("pool", name)
        })
    }

    /// What a new volume is to be a copy of.
    fn to_copy(&self, operation: &'static str, content: &VolumeContent) -> Result<Option<Copy>, Failure> {
        let (mut copy, snapshot, missing) = match content {
            VolumeContent::Zeroes => return Ok(None),
            VolumeContent::Image { image } => {
                let file = image_file(operation, image)?;
                let missing = || Error::new(ErrorKind::NotFound, operation).with("image", image.id);
                let cached = self.cached(&file, image)?.ok_or_else(missing)?;
                let source = Source {
                    path: cached.path,
                    format: cached.format,
                    backing: None,
                };
                let size = self.virtual_size(&file, image)?;
                return Ok(Some(Copy {
                    source,
                    snapshot: None,
                    size,
                }));
            }
            VolumeContent::Disk {
                disk: DiskAt::Volume(at),
                snapshot,
            } => {
                let shelf = self.shelf(operation, &at.pool)?;
                let (info, _) = shelf.find(at.volume)?.ok_or_else(|| missing(operation, at))?;
                let source = Source {
                    path: info.path,
                    format: info.format,
                    backing: None,
                };
                let copy = Copy {
                    source,
                    snapshot: None,
                    size: info.size_bytes,
                };
                (copy, *snapshot, missing(operation, at))
            }
            VolumeContent::Disk {
                disk: DiskAt::Server { server, disk },
                snapshot,
            } => {
                let missing = || {
                    Error::new(ErrorKind::NotFound, operation)
                        .with("server", server)
                        .with("disk", disk)
                };
                crate::pool::check_disk(operation, disk)?;
                let dir = self
                    .folder
                    .servers
                    .sub(&server.to_string())?
                    .ok_or_else(missing)?;
                let name = format!("{disk}{OVERLAY_SUFFIX}");
                let mut file = dir.file(&name)?.ok_or_else(missing)?;
                let header = overlay::read(&mut file)?;
                let backing = self.below(header.backing.zip(header.backing_format))?;
                let source = Source {
                    path: dir.path(&name),
                    format: DiskFormat::Qcow2,
                    backing,
                };
                let copy = Copy {
                    source,
                    snapshot: None,
                    size: header.size,
                };
                (copy, *snapshot, missing())
            }
        };
        if let Some(snapshot) = snapshot {
            let missing = missing.with("snapshot", snapshot);
            let there = match copy.source.format {
                DiskFormat::Raw | DiskFormat::Kernel | DiskFormat::Initrd => Vec::new(),
                DiskFormat::Qcow2 => qcow2::snapshots(&mut File::open(&copy.source.path)?)?,
            };
            let name = snapshot.to_string();
            let found = there.into_iter().find(|s| s.name == name).ok_or(missing)?;
            copy.size = found.disk_size;
            copy.snapshot = Some(name);
        }
        Ok(Some(copy))
    }

    /// Below our disks lie our images, and nothing else.
    fn below(&self, backing: Option<(PathBuf, DiskFormat)>) -> io::Result<Option<(PathBuf, DiskFormat)>> {
        match backing {
            Some((path, _)) if !self.folder.images.is_parent_of(&path) => {
                let what = format!("the file below a disk is no cached image: {}", path.display());
                Err(io::Error::new(io::ErrorKind::InvalidData, what))
            }
            backing => Ok(backing),
        }
    }

    /// The empty file of a new volume, or the volume if it is there.
    fn begin(&self, order: &VolumeOrder) -> Result<Result<VolumeInfo, (Temp, Option<Copy>)>, Failure> {
        let operation = "create volume";
        let shelf = self.shelf(operation, &order.at.pool)?;
        let error = |kind| Error::new(kind, operation).with("volume", order.at.volume);
        if let Some((there, _)) = shelf.find(order.at.volume)? {
            if there.format != order.format || there.size_bytes < order.size_bytes {
                return Err(error(ErrorKind::Conflict)
                    .with("there", format!("{there:?}"))
                    .into());
            }
            return Ok(Ok(there));
        }
        let copy = self.to_copy(operation, &order.content)?;
        let least = copy.as_ref().map_or(0, |c| c.size.next_multiple_of(SECTOR));
        let size = order.size_bytes;
        if !size.is_multiple_of(SECTOR) || size < least || size > overlay::MAX_SIZE {
            return Err(error(ErrorKind::Invalid)
                .with("size", size)
                .with("at least", least)
                .into());
        }
        let mut temp = Temp::create(&shelf.dir, &self.temps)?;
        match order.format {
            DiskFormat::Raw | DiskFormat::Kernel | DiskFormat::Initrd => temp.file.set_len(size)?,
            DiskFormat::Qcow2 => overlay::write(&mut temp.file, None, size)?,
        }
        temp.give_to(self.owner)?;
        Ok(Err((temp, copy)))
    }

    fn finish(&self, order: &VolumeOrder, temp: Temp) -> Result<VolumeInfo, Failure> {
        let operation = "create volume";
        let shelf = self.shelf(operation, &order.at.pool)?;
        temp.publish(&file_name(order.at.volume, order.format))?;
        let made = shelf.info(order.at.volume, order.format)?;
        Ok(made
            .map(|(info, _)| info)
            .ok_or_else(|| missing(operation, &order.at))?)
    }
}

/// The first `size` bytes of a file, read off the runtime's threads.
fn pieces(mut file: File, size: u64) -> io::Result<stream::BoxStream<'static, io::Result<Bytes>>> {
    file.rewind()?;
    let next = |(mut file, left): (File, u64)| async move {
        let length = left.min(PIECE);
        if length == 0 {
            return Ok(None);
        }
        let read = move || {
            let mut piece = vec![0; usize::try_from(length).map_err(io::Error::other)?];
            file.read_exact(&mut piece)?;
            io::Result::Ok((piece, file))
        };
        let (piece, file) = blocking(read).await?;
        Ok(Some((Bytes::from(piece), (file, left - length))))
    };
    Ok(stream::try_unfold((file, size), next).boxed())
}

impl DirPool {
    fn tool(&self) -> Tool {
        Tool {
            owner: self.core.owner,
        }
    }

    /// Looks at a volume off the runtime's threads.
    async fn at<T: Send + 'static>(
        &self,
        operation: &'static str,
        at: &VolumeAt,
        look: impl FnOnce(&Core, &Shelf, &VolumeAt) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T> {
        let (core, at) = (Arc::clone(&self.core), at.clone());
        let work = move || {
            let shelf = core.shelf(operation, &at.pool)?;
            look(&core, shelf, &at)
        };
        blocking(work).await.map_err(|e: Failure| e.during(operation))
    }

    /// A lock may be seen for a moment longer than it is held: a process that is just being started has it, too.
    async fn held(&self, operation: &'static str, at: &VolumeAt) -> Result<Option<Held>> {
        let mut tries = 0;
        loop {
            let hold = move |_: &Core, shelf: &Shelf, at: &VolumeAt| shelf.hold(operation, at);
            match self.at(operation, at, hold).await {
                Err(e) if e.kind() == ErrorKind::Unavailable && tries < LOCK_TRIES => {
                    tries += 1;
                    tokio::time::sleep(LOCK_PAUSE).await;
                }
                done => return done,
            }
        }
    }

    async fn has(
        &self,
        operation: &'static str,
        held: &Held,
        snapshot: SnapshotId,
    ) -> Result<Option<VolumeSnapshot>> {
        let info = held.info.clone();
        let at = held.info.at.clone();
        let there = self
            .at(operation, &at, move |_, shelf, _| Ok(shelf.snapshots(&info)?))
            .await?;
        Ok(there.into_iter().find(|s| s.snapshot == snapshot))
    }
}

#[async_trait]
impl HostVolumes for DirPool {
    async fn create_volume(&self, order: &VolumeOrder) -> Result<VolumeInfo> {
        let operation = "create volume";
        let guard = self.locks.lock(order.at.volume.to_string()).await;
        let (core, wanted) = (Arc::clone(&self.core), order.clone());
        let begun = blocking(move || core.begin(&wanted)).await;
        let (temp, copy) = match begun.map_err(|e: Failure| e.during(operation))? {
            Ok(there) => return Ok(there),
            Err(begun) => begun,
        };
        if let Some(copy) = copy {
            let tool = self.tool();
            let snapshot = copy.snapshot.as_deref();
            tool.copy(&copy.source, snapshot, &temp.path(), order.format)
                .await?;
        }
        let (core, wanted) = (Arc::clone(&self.core), order.clone());
        let finish = move || {
            let made = core.finish(&wanted, temp);
            drop(guard);
            made
        };
        blocking(finish).await.map_err(|e: Failure| e.during(operation))
    }

    async fn volume(&self, at: &VolumeAt) -> Result<Option<VolumeInfo>> {
        let look = |_: &Core, shelf: &Shelf, at: &VolumeAt| Ok(shelf.find(at.volume)?.map(|(info, _)| info));
        self.at("look up volume", at, look).await
    }

    async fn read_volume(&self, at: &VolumeAt) -> Result<VolumeFile> {
        let operation = "read volume";
        let open = move |_: &Core, shelf: &Shelf, at: &VolumeAt| {
            let (_, file) = shelf.find(at.volume)?.ok_or_else(|| missing(operation, at))?;
            let size_bytes = file.metadata()?.len();
            let content = pieces(file, size_bytes)?;
            Ok(VolumeFile { content, size_bytes })
        };
        self.at(operation, at, open).await
    }

    async fn grow_volume(&self, at: &VolumeAt, bytes: u64) -> Result<VolumeInfo> {
        let operation = "grow volume";
        let _guard = self.locks.lock(at.volume.to_string()).await;
        let held = self
            .held(operation, at)
            .await?
            .ok_or_else(|| missing(operation, at))?;
        if held.info.size_bytes >= bytes {
            return Ok(held.info);
        }
        if !bytes.is_multiple_of(SECTOR) || bytes > overlay::MAX_SIZE {
            return Err(Error::new(ErrorKind::Invalid, operation).with("size", bytes));
        }
        self.tool()
            .resize(&held.info.path, held.info.format, bytes)
            .await?;
        let there = self.volume(at).await?;
        there.ok_or_else(|| missing(operation, at))
    }

    async fn delete_volume(&self, at: &VolumeAt) -> Result<()> {
        let operation = "delete volume";
        let _guard = self.locks.lock(at.volume.to_string()).await;
        let _held = self.held(operation, at).await?;
        let delete = move |_: &Core, shelf: &Shelf, at: &VolumeAt| {
            for format in FORMATS {
                shelf.dir.unlink(&file_name(at.volume, format))?;
            }
            Ok(())
        };
        self.at(operation, at, delete).await
    }

    async fn volumes(&self) -> Result<Vec<VolumeInfo>> {
        let core = Arc::clone(&self.core);
        let all = move || {
            let mut all = Vec::new();
            for shelf in &core.shelves {
                all.extend(shelf.all()?);
            }
            io::Result::Ok(all)
        };
        blocking(all).await.map_err(|e| file_error("list volumes", e))
    }

    async fn snapshot_volume(&self, at: &VolumeAt, snapshot: SnapshotId) -> Result<VolumeSnapshot> {
        let operation = "take snapshot of volume";
        let _guard = self.locks.lock(at.volume.to_string()).await;
        let held = self
            .held(operation, at)
            .await?
            .ok_or_else(|| missing(operation, at))?;
        if held.info.format == DiskFormat::Raw {
            return Err(Error::new(ErrorKind::Unsupported, operation)
                .with("volume", at.volume)
                .with("because", "a raw file keeps no snapshots"));
        }
        if let Some(there) = self.has(operation, &held, snapshot).await? {
            return Ok(there);
        }
        let name = snapshot.to_string();
        self.tool()
            .snapshot(operation, "-c", &name, &held.info.path)
            .await?;
        let taken = self.has(operation, &held, snapshot).await?;
        taken.ok_or_else(|| missing(operation, at).with("snapshot", snapshot))
    }

    async fn revert_volume(&self, at: &VolumeAt, snapshot: SnapshotId) -> Result<()> {
        let operation = "revert volume";
        let _guard = self.locks.lock(at.volume.to_string()).await;
        let held = self
            .held(operation, at)
            .await?
            .ok_or_else(|| missing(operation, at))?;
        if self.has(operation, &held, snapshot).await?.is_none() {
            return Err(missing(operation, at).with("snapshot", snapshot));
        }
        let name = snapshot.to_string();
        self.tool()
            .snapshot(operation, "-a", &name, &held.info.path)
            .await
    }

    async fn forget_volume_snapshot(&self, at: &VolumeAt, snapshot: SnapshotId) -> Result<()> {
        let operation = "delete snapshot of volume";
        let _guard = self.locks.lock(at.volume.to_string()).await;
        let Some(held) = self.held(operation, at).await? else {
            return Ok(());
        };
        if self.has(operation, &held, snapshot).await?.is_none() {
            return Ok(());
        }
        let name = snapshot.to_string();
        self.tool()
            .snapshot(operation, "-d", &name, &held.info.path)
            .await
    }

    async fn volume_snapshots(&self, at: &VolumeAt) -> Result<Vec<VolumeSnapshot>> {
        let operation = "list snapshots of volume";
        let look = move |_: &Core, shelf: &Shelf, at: &VolumeAt| {
            let (info, _) = shelf.find(at.volume)?.ok_or_else(|| missing(operation, at))?;
            Ok(shelf.snapshots(&info)?)
        };
        self.at(operation, at, look).await
    }
}
