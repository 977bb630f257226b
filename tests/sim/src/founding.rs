//! The cloud as it is before anything goes wrong: project, flavors, an image that is there, hosts.

use std::sync::Arc;

use skyloom_cloud::{Caller, Cloud, CloudParts, CreateHost};
use skyloom_hypervisor::{FakeOptions, FakeWire};
use skyloom_identity::{Amounts, DEFAULT_DOMAIN, Limits, Quotas, ResourceName, Rights};
use skyloom_model::{
    DiskFormat, HostId, Image, ImageId, ImageSource, ImageSpec, ImageState, ImageStatus, Meta, Name,
    ProjectId, Resource as _, Scope, SeededIds, paths,
};
use skyloom_store::{DynBackend, Key, Txn, Value};

use crate::bed::{Bed, Part, Who};
use crate::direct::Direct;
use crate::host::HostBed;
use crate::images::{self, MemoryImages};
use crate::rng::Rng;
use crate::swarm::Scenario;

/// The tag of the folder that hosts share; theirs are their places.
const POOL: u32 = 1_000;

/// What the schedule is about.
#[derive(Debug)]
pub(crate) struct Founded {
    pub(crate) project: ProjectId,
    pub(crate) hosts: Vec<Arc<HostBed>>,
    /// Where the disks of all hosts are, if they share them.
    pub(crate) pool: Option<Arc<HostBed>>,
}

/// Makes the cloud: project, flavors, an image, hosts. Nothing goes wrong here.
pub(crate) async fn found(
    scenario: &Scenario,
    bed: &Arc<Bed>,
    images: Arc<MemoryImages>,
    image: ImageId,
    rng: &mut Rng,
) -> Result<Founded, String> {
    let who = Who {
        name: "founder".into(),
        part: Part::Watcher,
        life: 1,
    };
    let calm = Direct {
        bed: bed.clone(),
        who: who.clone(),
    };
    let clock = Arc::new(bed.clock);
    let cloud = Cloud::new(CloudParts {
        backend: Arc::new(calm),
        clock: clock.clone(),
        ids: Arc::new(SeededIds::new(clock, rng.next())),
        images,
    });
    let text = |e: skyloom_cloud::CloudError| e.to_string();
    let project = cloud.bootstrap().await.map_err(text)?.project.id();
    let rights = Rights::of_the_cloud().map_err(|e| e.to_string())?;
    let caller = Caller::internal("founder", rights, project);
    let record = image_record(image, bed)?;
    let key = Key::parse(&paths::resource(
        Image::KIND,
        Scope::Project(project),
        image.uuid(),
    ));
    let key = key.map_err(|e| e.to_string())?;
    let record = Image {
        meta: Meta {
            scope: Scope::Project(project),
            ..record.meta
        },
        ..record
    };
    let value = Value::json(&record).map_err(|e| e.to_string())?;
    let backend: DynBackend = Arc::new(Direct {
        bed: bed.clone(),
        who: who.clone(),
    });
    let quotas = Quotas::load(&backend, Limits::new(), DEFAULT_DOMAIN, project).await;
    let images = ResourceName::new("images").map_err(|e| e.to_string())?;
    let charged = quotas
        .map_err(|e| e.to_string())?
        .charge(&Amounts::new().and(images, 1))
        .map_err(|e| e.to_string())?;
    bed.commit(&who, Txn::new().create(key, value).and(charged))
        .map_err(|e| e.to_string())?;
    let mut hosts = Vec::new();
    let mut facts = FakeOptions::in_memory().sequence(Arc::default()).naive_start();
    let mut pool = None;
    if scenario.shared {
        let (nowhere, name) = (HostId::from_uuid(uuid::Uuid::nil()), "pool".to_owned());
        let made = HostBed::new(bed.clone(), nowhere, name, facts.clone().tag(POOL));
        pool = Some(Arc::new(made.map_err(|e| e.to_string())?));
        facts = facts.wire(&FakeWire::default());
    }
    let world = skyloom_hypervisor::FakeWorld::in_memory();
    let mut said = skyloom_hypervisor::facts_of(&world.hypervisor())
        .await
        .map_err(|e| e.to_string())?;
    if scenario.shared {
        let can = ["migration", "storage:one"];
        said.traits.extend(can.map(str::to_owned));
    }
    for flavor in &scenario.flavors {
        cloud.create_flavor(&caller, flavor.clone()).await.map_err(text)?;
    }
    for i in 0..scenario.hosts {
        let named = scenario.named.get(i);
        let request = named.map_or_else(
            || CreateHost {
                name: format!("agent-{i}"),
                ..CreateHost::default()
            },
            |plan| plan.request.clone(),
        );
        said.capacity = named.map_or(scenario.capacity, |plan| plan.capacity);
        let facts = facts.clone().facts(said.clone());
        let host = cloud.create_host(&caller, request).await.map_err(text)?.host;
        let name = host.meta.name.to_string();
        let made = HostBed::new(bed.clone(), host.id(), name, facts.tag(i as u32));
        hosts.push(Arc::new(made.map_err(|e| e.to_string())?));
    }
    Ok(Founded { project, hosts, pool })
}

fn image_record(id: ImageId, bed: &Bed) -> Result<Image, String> {
    use skyloom_model::Clock as _;
    let name = Name::new("image").map_err(|e| e.to_string())?;
    let size = images::CONTENT.len() as u64;
    Ok(Image {
        meta: Meta::new(id.uuid(), name, Scope::System, bed.clock.now()),
        spec: ImageSpec {
            format: DiskFormat::Raw,
            source: ImageSource::Upload,
            sha256: None,
            architecture: "x86_64".to_owned(),
            min_disk_gib: 0,
            min_memory_mib: 0,
            public: false,
        },
        status: ImageStatus {
            state: ImageState::Active,
            size_bytes: size,
            virtual_size_bytes: size,
            sha256: Some(images::sha256(images::CONTENT)),
            fault: None,
        },
    })
}
