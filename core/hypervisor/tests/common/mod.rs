//! The fake sits the exam: on a directory, or in memory.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use sha2::{Digest, Sha256};
use skyloom_hypervisor::conformance::{
    Exam, ExamImage, Guest, HostUnderExam, NetworkExam, NetworkUnderExam, Offers, PoolUnderExam, StorageExam,
};
use skyloom_hypervisor::{
    Boot, Capability, DiskInfo, DiskSpec, FakeOptions, FakeWorld, HostNetwork, HostStorage, Hypervisor,
    NicSpec, VmSpec, VolumeInfo,
};
use skyloom_model::{DiskFormat, Id, Ids, MacAddr, ManualClock, Name, NicKind, SeededIds, ServerId};
use tempfile::TempDir;

/// Lets a test put something between the exam and the fake.
pub(crate) type Wrap = fn(FakeWorld) -> Arc<dyn Hypervisor>;
/// The same for pools.
pub(crate) type WrapPool = fn(FakeWorld) -> Arc<dyn HostStorage>;

#[derive(Debug, Clone, Copy)]
pub(crate) struct FakeExam {
    pub(crate) durable: bool,
    pub(crate) wrap: Wrap,
    pub(crate) wrap_pool: WrapPool,
}

impl FakeExam {
    pub(crate) fn new(durable: bool) -> Self {
        Self {
            durable,
            wrap: |world| Arc::new(world.hypervisor()),
            wrap_pool: |world| Arc::new(world.storage()),
        }
    }
    fn host(self) -> FakeHost {
        let directory = self.durable.then(|| tempfile::tempdir().unwrap());
        let world = FakeHost::world(directory.as_ref(), None);
        FakeHost {
            hypervisor: (self.wrap)(world.clone()),
            storage: (self.wrap_pool)(world.clone()),
            ids: Mutex::new(SeededIds::new(ManualClock::new(), 1)),
            exam: self,
            directory,
            world,
        }
    }
}

const EVENTS: usize = 16;

struct FakeHost {
    exam: FakeExam,
    directory: Option<TempDir>,
    world: FakeWorld,
    hypervisor: Arc<dyn Hypervisor>,
    storage: Arc<dyn HostStorage>,
    ids: Mutex<SeededIds<ManualClock>>,
}

impl FakeHost {
    /// A directory is opened anew, as another process would; memory stays the same world.
    fn world(directory: Option<&TempDir>, now: Option<&FakeWorld>) -> FakeWorld {
        match (directory, now) {
            (Some(directory), _) => {
                FakeWorld::open(FakeOptions::directory(directory.path()).event_capacity(EVENTS)).unwrap()
            }
            (None, Some(now)) => now.clone(),
            (None, None) => FakeWorld::open(FakeOptions::in_memory().event_capacity(EVENTS)).unwrap(),
        }
    }
    fn open_again(&mut self) {
        self.world = Self::world(self.directory.as_ref(), Some(&self.world));
        self.hypervisor = (self.exam.wrap)(self.world.clone());
        self.storage = (self.exam.wrap_pool)(self.world.clone());
    }
}

#[async_trait]
impl Exam for FakeExam {
    fn offers(&self) -> Offers {
        Offers {
            capability: Capability::full(),
            live_guest: true,
            lets_go: true,
            agent: true,
            guest_power_off: true,
            crash: true,
            event_bound: Some(EVENTS),
            patience: Duration::from_secs(10),
        }
    }
    async fn sit(&self) -> Box<dyn HostUnderExam> {
        let host = self.host();
        host.hypervisor.recover().await.unwrap();
        Box::new(host)
    }
}

#[async_trait]
impl HostUnderExam for FakeHost {
    fn hypervisor(&self) -> Arc<dyn Hypervisor> {
        self.hypervisor.clone()
    }
    async fn spec(&self, name: Name, guest: Guest) -> VmSpec {
        let id: ServerId = Id::from_uuid(self.ids.lock().uuid());
        let idle = guest == Guest::Idle;
        self.world.ignore_graceful(id, idle).unwrap();
        self.world.no_agent(id, idle).unwrap();
        self.world.holds_on(id, idle).unwrap();
        let disk = DiskSpec {
            limits: None,
            name: "root".into(),
            path: PathBuf::from("/nowhere/root"),
            format: DiskFormat::Qcow2,
            backing_format: Some(DiskFormat::Raw),
            read_only: false,
        };
        VmSpec {
            boot: skyloom_hypervisor::Boot::FirstDisk,
            id,
            project: Id::from_uuid(self.ids.lock().uuid()),
            generation: 1,
            name,
            vcpus: 1,
            memory_mib: 128,
            disks: vec![disk],
            nics: vec![NicSpec {
                device: None,
                kind: NicKind::User,
                mac: MacAddr::qemu([0, 0, 1]),
            }],
        }
    }
    async fn reopen(&mut self) {
        self.open_again();
    }
    async fn processes(&self, id: ServerId) -> usize {
        let domain = self.world.domain(id).unwrap();
        usize::from(domain.is_some_and(|d| d.power.may_execute()))
    }
    async fn power_off_guest(&self, id: ServerId) {
        assert!(self.world.power_off_guest(id).unwrap(), "the guest ran");
    }
    async fn crash_guest(&self, id: ServerId) {
        assert!(self.world.crash_guest(id).unwrap(), "the guest ran");
    }
    fn live_text(&self) -> &str {
        "fake-guest ready hostname=live"
    }
    async fn disk(&self, id: ServerId, name: &str, format: DiskFormat) -> DiskSpec {
        DiskSpec {
            limits: None,
            name: name.to_owned(),
            path: PathBuf::from(format!("/nowhere/{id}/{}", self.ids.lock().uuid())),
            format,
            backing_format: None,
            read_only: false,
        }
    }
    async fn nic(&self, number: u8) -> NicSpec {
        NicSpec {
            device: None,
            kind: NicKind::User,
            mac: MacAddr::qemu([0, 1, number]),
        }
    }
    async fn kernel(&self, command_line: &str) -> Boot {
        Boot::Kernel {
            kernel: "/nowhere/kernel".into(),
            initrd: None,
            command_line: command_line.to_owned(),
        }
    }
    async fn write(&self, id: ServerId, disk: &DiskSpec, number: u64) {
        self.world.write_disk(id, &disk.path, number).unwrap();
    }
    async fn read(&self, id: ServerId, disk: &DiskSpec) -> u64 {
        self.world.read_disk(id, &disk.path).unwrap().content
    }
    async fn bytes(&self, id: ServerId, disk: &DiskSpec) -> u64 {
        self.world.read_disk(id, &disk.path).unwrap().bytes
    }
    async fn holds(&self, id: ServerId, disk: &DiskSpec) -> bool {
        let domain = self.world.domain(id).unwrap().expect("a domain");
        let guest = domain.guest.filter(|_| domain.power.may_execute());
        guest.is_some_and(|g| g.disks.iter().any(|d| d.path == disk.path))
    }
}

#[async_trait]
impl StorageExam for FakeExam {
    async fn sit(&self) -> Box<dyn PoolUnderExam> {
        Box::new(self.host())
    }
    fn images(&self) -> Vec<ExamImage> {
        let image = |format, byte: u8, length: usize| ExamImage {
            format,
            content: Bytes::from(vec![byte; length]),
            virtual_size: length as u64,
        };
        vec![
            image(DiskFormat::Raw, 1, 300_000),
            image(DiskFormat::Qcow2, 2, 70_000),
            image(DiskFormat::Raw, 3, 1),
        ]
    }
    fn refused_images(&self) -> Vec<ExamImage> {
        // A fake inspects nothing.
        Vec::new()
    }
}

#[async_trait]
impl PoolUnderExam for FakeHost {
    fn storage(&self) -> Arc<dyn HostStorage> {
        self.storage.clone()
    }
    async fn reopen(&mut self) {
        self.open_again();
    }
    async fn files(&self) -> Vec<PathBuf> {
        self.world.storage().contents().unwrap()
    }
    async fn holds(&self, server: ServerId, disk: &DiskInfo, content: &[u8]) -> bool {
        assert_eq!(disk.name, "seed");
        let digest: String = Sha256::digest(content)
            .iter()
            .map(|b| format!("{b:02x}"))
            .collect();
        self.world.storage().seed_sha256(server).unwrap() == Some(digest)
    }
    async fn fill(&self, volume: &VolumeInfo, byte: u8) {
        self.world.write_volume(&volume.at, &byte.to_string()).unwrap();
    }
    async fn filled(&self, volume: &VolumeInfo, byte: u8) -> bool {
        let held = self.world.fake_volume(&volume.at).unwrap().unwrap().content;
        held == byte.to_string() || byte == 0 && held == "zeroes"
    }
    async fn holds_image(&self, volume: &VolumeInfo, image: &ExamImage) -> bool {
        let digest: String = Sha256::digest(&image.content)
            .iter()
            .map(|b| format!("{b:02x}"))
            .collect();
        self.world.fake_volume(&volume.at).unwrap().unwrap().content == format!("image {digest}")
    }
}

#[async_trait]
impl NetworkExam for FakeExam {
    async fn sit(&self) -> Box<dyn NetworkUnderExam> {
        Box::new(self.host())
    }
}

#[async_trait]
impl NetworkUnderExam for FakeHost {
    fn network(&self) -> Arc<dyn HostNetwork> {
        Arc::new(self.world.network())
    }
    async fn reopen(&mut self) {
        self.open_again();
    }
    async fn things(&self) -> BTreeSet<String> {
        let ports = self.world.network().ports().await.unwrap();
        ports.iter().map(|p| p.port.to_string()).collect()
    }
}
