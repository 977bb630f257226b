//! Cases of volumes and snapshots, and what must be true of them when nothing is under way.

use std::collections::{BTreeMap, BTreeSet};

use skyloom_cloud::{
    AttachVolume, CreateServer, CreateSnapshot, CreateVolume, GrowVolume, LimitVolume, ServerVolume,
};
use skyloom_hypervisor::HostVolumes as _;
use skyloom_model::{
    IoLimits, Resource as _, Server, ServerId, Snapshot, SnapshotState, Task, TaskState, Volume, VolumeId,
    VolumeState, disk_of,
};

use super::CloudWorld;
use crate::engine::Engine;

const LIMITS: IoLimits = IoLimits {
    operations: Some(100),
    bytes: None,
};

fn boots(request: &mut CreateServer) -> ServerVolume {
    ServerVolume {
        image: Some(std::mem::take(&mut request.image)),
        boot: true,
        ..ServerVolume::default()
    }
}

impl CloudWorld {
    async fn carried(&self, task: &Task) {
        let ended = Engine::new(&self.world).await.carry(task).await;
        assert_eq!(ended.state, TaskState::Done, "{:?}", ended.reason);
    }

    pub(super) async fn volume_for(&self, name: &str, server: impl Into<Option<ServerId>>) -> VolumeId {
        let request = CreateVolume {
            name: name.to_owned(),
            size_gib: Some(1),
            server: server.into(),
            ..CreateVolume::default()
        };
        let made = self
            .world
            .cloud
            .create_volume(&self.caller, request)
            .await
            .unwrap();
        self.carried(&made.task).await;
        made.volume.id()
    }

    async fn attached(&self, volume: VolumeId, server: ServerId, delete_with_server: bool) {
        let request = AttachVolume {
            server,
            delete_with_server,
        };
        let asked = self
            .world
            .cloud
            .attach_volume(&self.caller, volume, request)
            .await;
        self.carried(&asked.unwrap().task).await;
    }

    /// A new server with volumes, where the case has some.
    pub(super) fn with_volumes(&self, request: &mut CreateServer) {
        let new = |delete_with_server| ServerVolume {
            size_gib: Some(1),
            delete_with_server,
            ..ServerVolume::default()
        };
        request.volumes = match self.case.name {
            "with new volumes, on two hosts" => vec![new(true), new(false)],
            name if name.contains("boots from a volume") => {
                vec![boots(request)]
            }
            "that boots from one of its volumes" => {
                let boots = boots(request);
                let old = ServerVolume {
                    volume: self.volume,
                    ..ServerVolume::default()
                };
                vec![old, boots]
            }
            _ => Vec::new(),
        };
    }

    pub(super) async fn prepare_volumes(&mut self, server: ServerId) {
        match (self.case.flow, self.case.name) {
            ("server.delete", "with volumes") => {
                let (kept, gone) = (
                    self.volume_for("kept", server).await,
                    self.volume_for("gone", server).await,
                );
                self.attached(kept, server, false).await;
                self.attached(gone, server, true).await;
            }
            ("volume.create", "as a copy of a volume") | ("volume.delete" | "volume.attach", _) => {
                self.volume = Some(self.volume_for("old", server).await);
            }
            ("volume.grow" | "volume.limit" | "volume.detach", _) => {
                let volume = self.volume_for("old", server).await;
                self.attached(volume, server, false).await;
                self.volume = Some(volume);
            }
            ("snapshot.create", _) => {
                let volume = self.volume_for("old", server).await;
                self.attached(volume, server, false).await;
            }
            ("snapshot.revert", _) => {
                let request = CreateSnapshot {
                    name: "old".to_owned(),
                    server: Some(server),
                    ..CreateSnapshot::default()
                };
                let asked = self
                    .world
                    .cloud
                    .create_snapshot(&self.caller, request)
                    .await
                    .unwrap();
                self.carried(&asked.task).await;
                self.snapshot = Some(asked.snapshot.id());
            }
            ("image.save", "of a volume") => self.volume = Some(self.volume_for("old", None).await),
            ("snapshot.delete", _) | ("image.save", "of a snapshot") => {
                let volume = self.volume_for("old", server).await;
                let request = CreateSnapshot {
                    name: "old".to_owned(),
                    volume: Some(volume),
                    ..CreateSnapshot::default()
                };
                let asked = self
                    .world
                    .cloud
                    .create_snapshot(&self.caller, request)
                    .await
                    .unwrap();
                self.carried(&asked.task).await;
                self.snapshot = Some(asked.snapshot.id());
            }
            _ => {}
        }
    }

    /// Whether the volume has the size that is asked for: its file grew before the task failed, and its record says so.
    pub(super) async fn has_grown(&self) -> bool {
        let found = self
            .world
            .cloud
            .get_volume(&self.caller, self.volume.unwrap())
            .await;
        found.unwrap().value.spec.size_gib == 2
    }

    pub(super) async fn ask_of_volumes(&self, flow: &str, name: &str) -> Task {
        let (cloud, caller) = (&self.world.cloud, &self.caller);
        let of_volume = || self.volume.unwrap();
        let asked = match flow {
            "volume.create" => {
                let request = CreateVolume {
                    name: "new".to_owned(),
                    size_gib: Some(1),
                    volume: self.volume,
                    ..CreateVolume::default()
                };
                cloud.create_volume(caller, request).await
            }
            "volume.delete" => cloud.delete_volume(caller, of_volume()).await,
            "volume.grow" => {
                cloud
                    .grow_volume(caller, of_volume(), GrowVolume { size_gib: 2 })
                    .await
            }
            "volume.limit" => {
                let limits = Some(LIMITS);
                cloud
                    .limit_volume(caller, of_volume(), LimitVolume { limits })
                    .await
            }
            "volume.attach" => {
                let request = AttachVolume {
                    server: self.server.unwrap(),
                    delete_with_server: false,
                };
                cloud.attach_volume(caller, of_volume(), request).await
            }
            "volume.detach" => cloud.detach_volume(caller, of_volume()).await,
            _ => {
                let asked = match flow {
                    "snapshot.create" => {
                        let request = CreateSnapshot {
                            name: "new".to_owned(),
                            server: self.server,
                            ..CreateSnapshot::default()
                        };
                        cloud.create_snapshot(caller, request).await
                    }
                    "snapshot.revert" => cloud.revert_snapshot(caller, self.snapshot.unwrap()).await,
                    "snapshot.delete" => cloud.delete_snapshot(caller, self.snapshot.unwrap()).await,
                    _ => panic!("nobody asks for {flow} {name}"),
                };
                return asked.unwrap().task;
            }
        };
        asked.unwrap().task
    }

    /// What the hosts hold, for a comparison of before and after.
    pub(super) fn tell_volumes(&self, things: &mut BTreeMap<String, Vec<String>>) {
        for (_, fake) in self.hosts() {
            for domain in fake.domains().unwrap() {
                let whole = domain.snapshots.len();
                let limits: Vec<_> = domain.spec.disks.iter().map(|d| d.limits).collect();
                let what = format!(
                    "{} with {whole} snapshots and limits {limits:?}",
                    domain.spec.name
                );
                things
                    .entry("moments and limits".to_owned())
                    .or_default()
                    .push(what);
            }
            let volumes = futures::executor::block_on(fake.storage().volumes()).unwrap();
            for info in volumes {
                let held = fake.fake_volume(&info.at).unwrap().unwrap();
                let what = format!("{} bytes, {} snapshots", held.size_bytes, held.snapshots.len());
                things.entry("volumes".to_owned()).or_default().push(what);
            }
        }
    }

    /// Records and files are of each other; a volume is attached to at most one server, and both say so.
    pub(super) async fn check_volumes(&self, servers: &BTreeMap<ServerId, Server>, left: &mut Vec<String>) {
        let volumes: Vec<Volume> = self.all("r/volumes").await.into_values().collect();
        let mut files = BTreeSet::new();
        for (_, fake) in self.hosts() {
            files.extend(
                fake.storage()
                    .volumes()
                    .await
                    .unwrap()
                    .into_iter()
                    .map(|v| v.at.volume),
            );
        }
        for volume in &volumes {
            let (name, status) = (&volume.meta.name, &volume.status);
            if !status.state.steady() || status.activity.is_some() {
                left.push(format!(
                    "volume {name} is {:?} with {:?}",
                    status.state, status.activity
                ));
            }
            let there = files.remove(&volume.id());
            if !there && status.state != VolumeState::Error {
                left.push(format!("volume {name} is {:?} and not there", status.state));
            }
            let holders: Vec<ServerId> = servers
                .values()
                .filter(|s| s.status.volumes.contains(&volume.id()))
                .map(|s| s.id())
                .collect();
            let attached: Vec<ServerId> = status.attachment.iter().map(|a| a.server).collect();
            let fits = match status.state {
                VolumeState::Available => attached.is_empty(),
                VolumeState::InUse => !attached.is_empty(),
                _ => true,
            };
            if holders != attached || !fits {
                left.push(format!(
                    "volume {name} is {:?} at {attached:?}, and {holders:?} have it",
                    status.state
                ));
            }
            for (_, fake) in self.hosts() {
                for domain in fake.domains().unwrap() {
                    let has = domain.spec.disks.iter().any(|d| d.name == disk_of(volume.id()));
                    if has != attached.contains(&domain.spec.id) && status.state != VolumeState::Error {
                        left.push(format!(
                            "volume {name} is in a domain: {has}, attached to {attached:?}"
                        ));
                    }
                }
            }
        }
        left.extend(
            files
                .into_iter()
                .map(|id| format!("a file of volume {id}, which nobody has")),
        );
        for snapshot in self.all::<Snapshot>("r/snapshots").await.into_values() {
            let status = &snapshot.status;
            if !status.state.steady() || status.activity.is_some() {
                left.push(format!("snapshot {} is {:?}", snapshot.meta.name, status.state));
            }
            let measured = !status.disks.is_empty() && status.taken_at.is_some();
            if (status.state == SnapshotState::Available) && !measured {
                left.push(format!("snapshot {} has no sizes", snapshot.meta.name));
            }
        }
    }
}
