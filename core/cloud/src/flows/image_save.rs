//! `image.save`: an image of a disk: of a server's root disk, of a volume, of a disk in a snapshot.
//!
//! ```text
//!  [server] freeze: snapshot.take ──> save: image.expect, volume.create (a copy on the host), snapshot.forget,
//!                                           image.send, volume.delete, image.inspect ──> publish: image.publish
//! ```
//!
//! The image's record is there from the commit on that makes the task. Copy, snapshot and staged content have one id, which the
//! task carries; whatever ends the task, none of them stays.

use serde::{Deserialize, Serialize};
use skyloom_flow::{PlanContext, Planned, Records, Refusal, SettleContext, Settled, StageEnd, TaskFlow};
use skyloom_hypervisor::{DiskAt, VolumeAt, VolumeContent, VolumeOrder};
use skyloom_model::{
    DiskFormat, HostId, Image, JobId, JobSpec, Place, Pool, Reason, Resource as _, Server, ServerId,
    Snapshot, SnapshotId, StageOutcome, Task, Volume, VolumeId,
};
use skyloom_store::{Key, Txn};
use uuid::Uuid;

use super::definition::root;
use super::image::{conclude, inspect, not_inspected, note, publish};
use super::records::subject_key;
use super::volume::COPY_SECONDS;
use super::volume_records::{
    at, bytes, free_server, free_snapshot, free_volume, ordered, server_key, snapshot_key, volume_key,
    with_server,
};
use super::{Outputs, Step, VolumeFrom, output, params};
use crate::Measured;
use crate::jobs::{ExpectInput, Inspected, SendInput, SnapshotInput, Taken, Target};

/// Makes an image of a disk.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct ImageSave;

/// Parameters of `image.save`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SaveParams {
    /// The id of copy, snapshot and staged content.
    pub(crate) upload: Uuid,
    /// The format that the image gets.
    pub(crate) format: DiskFormat,
    /// What it is made of.
    pub(crate) of: SaveOf,
}

/// What an image is made of; it is busy meanwhile.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "of")]
pub(crate) enum SaveOf {
    /// The root disk of a server, whether it runs or not.
    Server {
        /// Which.
        server: ServerId,
    },
    /// What a volume could be made of.
    Copy {
        /// What.
        from: VolumeFrom,
        /// Where that is.
        host: HostId,
        /// GiB that it takes.
        size_gib: u64,
    },
}

impl SaveParams {
    fn copy(&self) -> VolumeAt {
        VolumeAt {
            volume: VolumeId::from_uuid(self.upload),
            pool: Pool::Local,
        }
    }

    /// The short-lived snapshot of a server's root disk.
    pub(super) fn moment(&self, server: &Server) -> SnapshotInput {
        SnapshotInput {
            snapshot: SnapshotId::from_uuid(self.upload),
            target: Target::Domain {
                server: server.id(),
                disks: vec![root(server)],
                memory: false,
            },
            sizes: Vec::new(),
        }
    }

    /// Copy, send, look, and leave nothing behind.
    fn jobs(
        &self,
        image: &Image,
        place: Place,
        content: VolumeContent,
        size_bytes: u64,
        forget: Option<JobSpec>,
    ) -> Result<Vec<JobSpec>, Reason> {
        let upload = self.upload;
        let expect = Step::new(
            "image.expect",
            "make room for the content",
            Place::Engine,
            &ExpectInput { upload },
        )?;
        let order = VolumeOrder {
            at: self.copy(),
            format: self.format,
            size_bytes,
            content,
        };
        let copy =
            Step::new("volume.create", "copy the disk", place, &order)?.after([JobId::new("image.expect")]);
        let input = SendInput {
            image: image.id(),
            upload,
            at: self.copy(),
        };
        let send = Step::new(SendInput::KIND, "send the copy", place, &input)?
            .after([JobId::new("volume.create")])
            .after(forget.iter().map(|forget| forget.id.clone()));
        let drop = Step::new("volume.delete", "remove the copy", place, &self.copy())?;
        let mut jobs = vec![
            expect.attempts(3, 1000).within(60).done(),
            copy.attempts(3, 2000).weight(5).within(COPY_SECONDS).done(),
        ];
        jobs.extend(forget);
        jobs.extend([
            send.attempts(5, 2000).weight(10).within(COPY_SECONDS).done(),
            drop.after([JobId::new(SendInput::KIND)])
                .attempts(10, 1000)
                .within(600)
                .done(),
            inspect(upload, self.format, [JobId::new("volume.delete")])?,
        ]);
        Ok(jobs)
    }
}

pub(super) fn host(server: &Server) -> Result<Place, Reason> {
    let placement = server.status.placement.as_ref();
    let host = placement.ok_or_else(|| Reason::new("server.not_placed", "the server is on no host"))?;
    Ok(Place::Host(host.host))
}

/// The second stage of a server's: the disk as it was when it stood still.
pub(super) fn of_server(
    task: &Task,
    image: &Image,
    wanted: &SaveParams,
    server: &Server,
    end: &StageEnd<'_>,
    records: &Records,
) -> Result<Planned, Reason> {
    let disk = root(server);
    let taken: Option<Taken> = output(end.outputs, "snapshot.take");
    let size = taken.and_then(|taken| taken.disks.into_iter().find(|(name, _)| *name == disk));
    let (_, size) =
        size.ok_or_else(|| Reason::new("snapshot.not_taken", "the root disk was not measured"))?;
    let moment = wanted.moment(server);
    let source = match server.spec.boot_volume {
        Some(volume) => {
            let volume: Volume = records.need(&volume_key(task, volume)?)?;
            DiskAt::Volume(at(&volume))
        }
        None => DiskAt::Server {
            server: server.id(),
            disk,
        },
    };
    let content = VolumeContent::Disk {
        disk: source,
        snapshot: Some(moment.snapshot),
    };
    let place = host(server)?;
    let forget = Step::new("snapshot.forget", "let the disk go on alone", place, &moment)?
        .after([JobId::new("volume.create")])
        .attempts(3, 2000)
        .within(3600)
        .done();
    Ok(Planned {
        stage: "save".to_owned(),
        jobs: wanted.jobs(image, place, content, size.next_multiple_of(512), Some(forget))?,
        generation: server.meta.generation,
        ..Planned::default()
    })
}

/// The last stage's job: what the host has sent becomes the content of the image.
pub(super) fn published(
    image: &mut Image,
    wanted: &SaveParams,
    end: &StageEnd<'_>,
    cx: &PlanContext<'_>,
) -> Result<JobSpec, Reason> {
    let found = output::<Inspected>(end.outputs, "image.inspect").ok_or_else(not_inspected)?;
    let sent = output::<Measured>(end.outputs, SendInput::KIND);
    if sent.is_none_or(|sent| sent.sha256 != found.sha256) {
        let message = "what was staged is not what the host sent";
        return Err(Reason::new("image.checksum_mismatch", message));
    }
    note(image, found);
    image.meta.updated_at = cx.now;
    publish(image, wanted.upload)
}

impl TaskFlow for ImageSave {
    fn name(&self) -> &'static str {
        "image.save"
    }

    fn reads(&self, task: &Task, have: &Records, _outputs: &Outputs) -> Vec<Key> {
        let of = params::<SaveParams>(task).map(|wanted| match wanted.of {
            SaveOf::Server { server } => with_server(task, server, have).unwrap_or_default(),
            SaveOf::Copy { from, .. } => match from {
                VolumeFrom::Volume { volume } => volume_key(task, volume).into_iter().collect(),
                VolumeFrom::Snapshot { snapshot, .. } => snapshot_key(task, snapshot).into_iter().collect(),
                VolumeFrom::Zeroes | VolumeFrom::Image { .. } => Vec::new(),
            },
        });
        subject_key(task)
            .into_iter()
            .chain(of.unwrap_or_default())
            .collect()
    }

    fn plan(&self, task: &Task, cx: &mut PlanContext<'_>) -> Result<Planned, Refusal> {
        let image: Image = cx.records.need(&subject_key(task)?)?;
        let wanted: SaveParams = params(task)?;
        match &wanted.of {
            SaveOf::Server { server } => {
                let mut server: Server = cx.records.need(&server_key(task, *server)?)?;
                let take = Step::new(
                    "snapshot.take",
                    "hold the disk still",
                    host(&server)?,
                    &wanted.moment(&server),
                )?;
                let (changes, generation) = ordered(task, Txn::new(), Some(&mut server), cx)?;
                Ok(Planned {
                    stage: "freeze".to_owned(),
                    jobs: vec![take.attempts(3, 2000).weight(3).within(3600).done()],
                    generation,
                    changes,
                    ..Planned::default()
                })
            }
            SaveOf::Copy { from, host, size_gib } => {
                let content = from.disk(task, cx.records)?;
                let size = bytes(*size_gib);
                Ok(Planned {
                    stage: "save".to_owned(),
                    jobs: wanted.jobs(&image, Place::Host(*host), content, size, None)?,
                    ..Planned::default()
                })
            }
        }
    }

    fn next(
        &self,
        task: &Task,
        end: &StageEnd<'_>,
        cx: &mut PlanContext<'_>,
    ) -> Result<Option<Planned>, Refusal> {
        if *end.outcome != StageOutcome::Done || end.stage == "publish" {
            return Ok(None);
        }
        let key = subject_key(task)?;
        let mut image: Image = cx.records.need(&key)?;
        let wanted: SaveParams = params(task)?;
        if let ("freeze", SaveOf::Server { server }) = (end.stage, &wanted.of) {
            let server: Server = cx.records.need(&server_key(task, *server)?)?;
            return Ok(Some(of_server(task, &image, &wanted, &server, end, cx.records)?));
        }
        let publish = published(&mut image, &wanted, end, cx)?;
        Ok(Some(Planned {
            stage: "publish".to_owned(),
            jobs: vec![publish],
            generation: image.meta.generation,
            changes: cx.records.put(Txn::new(), &key, &image)?,
            ..Planned::default()
        }))
    }

    fn settle(&self, task: &Task, cx: &SettleContext<'_>) -> Result<Settled, Reason> {
        let wanted: SaveParams = params(task)?;
        let txn = match wanted.of {
            SaveOf::Server { server } => {
                let server: Option<Server> = cx.records.get(&server_key(task, server)?)?;
                free_server(task, Txn::new(), server, cx, |_| {})?
            }
            SaveOf::Copy { from, .. } => match from {
                VolumeFrom::Volume { volume } => {
                    let volume: Option<Volume> = cx.records.get(&volume_key(task, volume)?)?;
                    free_volume(task, Txn::new(), volume, cx, |_| {})?
                }
                VolumeFrom::Snapshot { snapshot, .. } => {
                    let snapshot: Option<Snapshot> = cx.records.get(&snapshot_key(task, snapshot)?)?;
                    free_snapshot(task, Txn::new(), snapshot, cx, |_| {})?
                }
                VolumeFrom::Zeroes | VolumeFrom::Image { .. } => Txn::new(),
            },
        };
        let at = subject_key(task)?;
        let changes = match cx.records.get::<Image>(&at)? {
            Some(mut image) => {
                conclude(&mut image, cx)?;
                cx.records.put(txn, &at, &image)?
            }
            None => txn,
        };
        Ok(Settled {
            changes,
            result: None,
        })
    }
}
