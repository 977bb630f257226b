//! What is seen of a guest becomes its server's state: of the order that it is under, or of one that never reached it.

use std::time::Duration;

use skyloom_model::{
    Activity, Flavor, FlavorRef, FlavorSpec, Host, HostId, HostSpec, HostStatus, Hostname, Id, ImageRef,
    Lifecycle, Meta, Name, OnCrash, Placement, PowerState, Resource as _, Resources, Scope, Server, ServerId,
    ServerSpec, ServerStatus, Timer, VmObservation, paths,
};

use crate::site::Site;

struct Seen {
    site: Site,
    path: String,
    host: HostId,
    id: ServerId,
    project: skyloom_model::ProjectId,
}

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

/// A running server of generation 5.
async fn seen(busy: bool) -> Seen {
    let site = Site::new();
    let (host, id, project) = (
        Id::fresh(&*site.ids),
        Id::fresh(&*site.ids),
        Id::fresh(&*site.ids),
    );
    let now = site.clock.now();
    let record = Host {
        meta: Meta::new(host.uuid(), name("h1"), Scope::System, now),
        spec: HostSpec::default(),
        status: HostStatus::default(),
    };
    site.put(&paths::resource(Host::KIND, Scope::System, host.uuid()), &record)
        .await;
    let mut meta = Meta::new(id.uuid(), name("s"), Scope::Project(project), now);
    meta.generation = 5;
    let server = Server {
        meta,
        spec: ServerSpec {
            boot_volume: None,
            flavor: FlavorRef {
                id: Id::<Flavor>::fresh(&*site.ids),
                name: name("f"),
                spec: FlavorSpec {
                    resources: Resources::default(),
                    host_labels: Default::default(),
                },
            },
            image: ImageRef {
                id: Id::fresh(&*site.ids),
                name: name("i"),
            },
            hostname: Hostname::new("s").unwrap(),
            config_drive: false,
            ssh_keys: Vec::new(),
            metadata: Default::default(),
            ports: Vec::new(),
            host_labels: Default::default(),
            anti_affinity_group: None,
            running: true,
            on_crash: OnCrash::Leave,
            rescue: None,
        },
        status: ServerStatus {
            activity: busy.then(|| Activity {
                task: Id::fresh(&*site.ids),
                flow: "server.start".to_owned(),
            }),
            placement: Some(Placement {
                host,
                host_name: name("h1"),
                by: None,
            }),
            ..ServerStatus::new(Lifecycle::Active, PowerState::Running)
        },
    };
    let path = paths::resource(Server::KIND, Scope::Project(project), id.uuid());
    site.put(&path, &server).await;
    Seen {
        site,
        path,
        host,
        id,
        project,
    }
}

impl Seen {
    async fn see(&self, generation: u64, power: PowerState) {
        let observation = VmObservation {
            server: self.id,
            project: self.project,
            generation,
            power,
            cause: None,
            accelerator: None,
            observed_at: self.site.clock.now(),
        };
        self.site
            .put(&paths::host_vm(self.host, self.id), &observation)
            .await;
        tokio::time::sleep(Duration::from_secs(30)).await;
    }

    async fn server(&self) -> Server {
        self.site.get(&self.path).await.unwrap()
    }
}

#[tokio::test(start_paused = true)]
async fn a_guest_that_a_given_up_order_never_reached_is_still_seen() {
    let seen = seen(false).await;
    let _running = seen.site.begin(None);
    // Generation 5 was planned and cancelled: the domain is still of 4.
    seen.see(4, PowerState::Crashed).await;
    assert_eq!(seen.server().await.status.power, PowerState::Crashed);
    seen.see(5, PowerState::Running).await;
    assert_eq!(seen.server().await.status.power, PowerState::Running);
}

#[tokio::test(start_paused = true)]
async fn while_an_order_is_under_way_only_what_is_seen_under_it_counts() {
    let seen = seen(true).await;
    let _running = seen.site.begin(None);
    seen.see(4, PowerState::Stopped).await;
    assert_eq!(seen.server().await.status.power, PowerState::Running);
    // It was given up: now the last look counts, although nothing new is seen.
    let mut server = seen.server().await;
    server.status.activity = None;
    seen.site.put(&seen.path, &server).await;
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert_eq!(seen.server().await.status.power, PowerState::Stopped);
}

#[tokio::test(start_paused = true)]
async fn what_another_host_sees_or_a_newer_order_left_is_not_taken_over() {
    let seen = seen(false).await;
    let _running = seen.site.begin(None);
    seen.see(6, PowerState::Crashed).await;
    assert_eq!(seen.server().await.status.power, PowerState::Running);
    let other: HostId = Id::fresh(&*seen.site.ids);
    let elsewhere = Seen { host: other, ..seen };
    elsewhere.see(5, PowerState::Crashed).await;
    assert_eq!(elsewhere.server().await.status.power, PowerState::Running);
}

#[tokio::test(start_paused = true)]
async fn a_crash_is_counted_and_leaves_a_mark_only_where_a_restart_is_wanted() {
    for on_crash in [OnCrash::Leave, OnCrash::Restart] {
        let seen = seen(false).await;
        let mut server = seen.server().await;
        server.spec.on_crash = on_crash;
        seen.site.put(&seen.path, &server).await;
        let _running = seen.site.begin(None);
        seen.see(5, PowerState::Crashed).await;
        let crashes = seen.server().await.status.crashes.unwrap();
        assert_eq!(crashes.count, 1);
        assert_eq!(crashes.restart_at.is_some(), on_crash == OnCrash::Restart);
        if let Some(at) = crashes.restart_at {
            let scope = Scope::Project(seen.project);
            let mark: Timer = seen.site.get(&paths::timer(at, scope, seen.id)).await.unwrap();
            assert_eq!((mark.at, mark.server), (at, seen.id));
        }
        // Off by its own will is no crash.
        seen.see(5, PowerState::Running).await;
        seen.see(5, PowerState::Stopped).await;
        assert_eq!(seen.server().await.status.crashes, Some(crashes));
    }
}
