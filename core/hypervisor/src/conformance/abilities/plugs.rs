//! Disks and NICs that come and go.

use skyloom_model::{DiskFormat, IoLimits, PowerState};

use crate::conformance::Guest;
use crate::conformance::domains::{at, must_refuse, name};
use crate::conformance::harness::{Case, Desk, Need, case};
use crate::conformance::hypervisor::nobody;
use crate::conformance::watching::until_booted;
use crate::{Class, DiskSpec, ErrorKind, Hotplug, Hypervisor, Result, VmSpec};

pub(super) fn cases() -> Vec<Case> {
    vec![
        case!(disk_of_a_domain_that_is_off_is_there_at_its_start, Hotplug),
        case!(disk_comes_to_a_running_guest, Hotplug),
        case!(disk_that_is_defined_already_comes_to_the_guest, Hotplug),
        case!(attach_of_another_file_is_a_conflict, Hotplug),
        case!(attached_disk_survives_reopening, Hotplug, Outlive),
        case!(disk_goes_from_a_domain_that_is_off, Hotplug),
        case!(detach_of_an_unknown_disk_is_done, Hotplug),
        case!(guest_that_holds_on_keeps_its_disk_until_its_next_start, Hotplug),
        case!(disk_goes_from_a_running_guest, LetsGo),
        case!(nic_goes_from_a_running_guest, LetsGo),
        case!(disk_grows_while_it_is_off, Hotplug),
        case!(disk_grows_while_the_guest_runs, Hotplug),
        case!(limits_come_and_go, Hotplug),
        case!(nics_come_and_go, Hotplug),
        case!(plugging_of_an_older_generation_is_stale, Hotplug),
        case!(plugging_into_an_absent_domain_is_not_found, Hotplug),
        case!(plugging_into_a_suspended_domain_is_a_conflict, Hotplug, Suspend),
    ]
}

fn plugs(hypervisor: &dyn Hypervisor) -> &dyn Hotplug {
    hypervisor.as_hotplug().expect("hot-plugging is promised")
}

impl Desk {
    async fn more(&self, spec: &VmSpec) -> DiskSpec {
        self.host.disk(spec.id, "more", DiskFormat::Qcow2).await
    }
    async fn attach(&self, spec: &VmSpec, generation: u64, disk: &DiskSpec) -> Result<()> {
        plugs(&*self.hypervisor())
            .attach_disk(spec.id, generation, disk)
            .await
    }
    async fn detach(&self, spec: &VmSpec, generation: u64, disk: &str) -> Result<()> {
        plugs(&*self.hypervisor())
            .detach_disk(spec.id, generation, disk)
            .await
    }
    async fn grow(&self, spec: &VmSpec, generation: u64, disk: &str, bytes: u64) -> Result<()> {
        plugs(&*self.hypervisor())
            .grow_disk(spec.id, generation, disk, bytes)
            .await
    }
    async fn must_hold(&self, spec: &VmSpec, disk: &DiskSpec, holds: bool) {
        assert_eq!(
            self.host.holds(spec.id, disk).await,
            holds,
            "whether the guest holds {}",
            disk.name
        );
    }
}

async fn disk_of_a_domain_that_is_off_is_there_at_its_start(desk: &mut Desk) {
    let spec = desk.defined().await;
    let more = desk.more(&spec).await;
    for _ in 0..2 {
        desk.attach(&spec, 1, &more).await.expect("attach");
        desk.must_be(&spec, 1, PowerState::Stopped).await;
    }
    desk.hypervisor().start(spec.id, 1).await.expect("start");
    desk.must_hold(&spec, &more, true).await;
}

async fn disk_comes_to_a_running_guest(desk: &mut Desk) {
    let spec = desk.running().await;
    let more = desk.more(&spec).await;
    for _ in 0..2 {
        desk.attach(&spec, 1, &more).await.expect("attach");
        desk.must_hold(&spec, &more, true).await;
    }
    desk.must_be(&spec, 1, PowerState::Running).await;
    desk.force_off(&spec).await;
    desk.must_hold(&spec, &more, false).await;
    desk.hypervisor().start(spec.id, 1).await.expect("start");
    desk.must_hold(&spec, &more, true).await;
}

async fn disk_that_is_defined_already_comes_to_the_guest(desk: &mut Desk) {
    let spec = desk.running().await;
    let more = desk.more(&spec).await;
    let mut newer = at(&spec, 2);
    newer.disks.push(more.clone());
    desk.hypervisor().define(&newer).await.expect("define newer");
    desk.must_hold(&spec, &more, false).await;
    desk.attach(&spec, 2, &more).await.expect("attach");
    desk.must_hold(&spec, &more, true).await;
    desk.must_be(&spec, 2, PowerState::Running).await;
}

async fn attach_of_another_file_is_a_conflict(desk: &mut Desk) {
    let spec = desk.running().await;
    let (more, other) = (desk.more(&spec).await, desk.more(&spec).await);
    desk.attach(&spec, 1, &more).await.expect("attach");
    must_refuse(desk.attach(&spec, 1, &other).await, ErrorKind::Conflict);
    desk.must_hold(&spec, &other, false).await;
    desk.must_hold(&spec, &more, true).await;
    desk.force_off(&spec).await;
    must_refuse(desk.attach(&spec, 1, &other).await, ErrorKind::Conflict);
}

async fn attached_disk_survives_reopening(desk: &mut Desk) {
    let spec = desk.running().await;
    let more = desk.more(&spec).await;
    desk.attach(&spec, 1, &more).await.expect("attach");
    desk.host.reopen().await;
    desk.hypervisor().recover().await.expect("recover");
    desk.must_hold(&spec, &more, true).await;
    desk.attach(&spec, 1, &more).await.expect("attach again");
    let third = desk.host.disk(spec.id, "third", DiskFormat::Raw).await;
    desk.attach(&spec, 1, &third).await.expect("attach another");
    desk.must_hold(&spec, &third, true).await;
    desk.must_be(&spec, 1, PowerState::Running).await;
}

async fn disk_goes_from_a_domain_that_is_off(desk: &mut Desk) {
    let spec = desk.defined().await;
    let more = desk.more(&spec).await;
    desk.attach(&spec, 1, &more).await.expect("attach");
    for _ in 0..2 {
        desk.detach(&spec, 1, "more").await.expect("detach");
    }
    desk.hypervisor().start(spec.id, 1).await.expect("start");
    desk.must_hold(&spec, &more, false).await;
}

async fn detach_of_an_unknown_disk_is_done(desk: &mut Desk) {
    let spec = desk.running().await;
    desk.detach(&spec, 1, "never")
        .await
        .expect("detach what never was");
    desk.must_be(&spec, 1, PowerState::Running).await;
}

async fn guest_that_holds_on_keeps_its_disk_until_its_next_start(desk: &mut Desk) {
    let spec = desk.running().await;
    let more = desk.more(&spec).await;
    desk.attach(&spec, 1, &more).await.expect("attach");
    let refused = desk
        .detach(&spec, 1, "more")
        .await
        .expect_err("the guest holds on");
    assert_eq!(
        (refused.kind(), refused.class()),
        (ErrorKind::Refused, Class::Transient)
    );
    desk.must_hold(&spec, &more, true).await;
    desk.must_be(&spec, 1, PowerState::Running).await;
    desk.force_off(&spec).await;
    desk.detach(&spec, 1, "more")
        .await
        .expect("detach from what is off");
    desk.hypervisor().start(spec.id, 1).await.expect("start");
    desk.must_hold(&spec, &more, false).await;
}

async fn disk_goes_from_a_running_guest(desk: &mut Desk) {
    let mut spec = desk.host.spec(name("live"), Guest::Live).await;
    let first = desk.host.disk(spec.id, "first", DiskFormat::Qcow2).await;
    spec.disks.push(first.clone());
    desk.hypervisor().define(&spec).await.expect("define");
    desk.hypervisor().start(spec.id, 1).await.expect("start");
    until_booted(desk, &spec).await;
    let more = desk.more(&spec).await;
    desk.attach(&spec, 1, &more).await.expect("attach");
    for disk in [&more, &first] {
        for _ in 0..2 {
            desk.detach(&spec, 1, &disk.name).await.expect("detach");
            desk.must_hold(&spec, disk, false).await;
        }
    }
    desk.attach(&spec, 1, &more).await.expect("attach again");
    desk.must_hold(&spec, &more, true).await;
    desk.must_be(&spec, 1, PowerState::Running).await;
}

async fn nic_goes_from_a_running_guest(desk: &mut Desk) {
    let spec = desk.live().await;
    until_booted(desk, &spec).await;
    let nic = desk.host.nic(1).await;
    let hypervisor = desk.hypervisor();
    for _ in 0..2 {
        plugs(&*hypervisor)
            .attach_nic(spec.id, 1, &nic)
            .await
            .expect("attach");
        for _ in 0..2 {
            plugs(&*hypervisor)
                .detach_nic(spec.id, 1, nic.mac)
                .await
                .expect("detach");
        }
    }
    desk.must_be(&spec, 1, PowerState::Running).await;
}

const MORE: u64 = 8 << 30;

async fn disk_grows_while_it_is_off(desk: &mut Desk) {
    let spec = desk.with_two().await;
    for disk in &spec.disks[spec.disks.len() - 2..] {
        desk.grow(&spec, 1, &disk.name, MORE).await.expect("grow");
        assert_eq!(desk.host.bytes(spec.id, disk).await, MORE);
        desk.grow(&spec, 1, &disk.name, 512)
            .await
            .expect("it has as much already");
        assert_eq!(desk.host.bytes(spec.id, disk).await, MORE, "nothing shrinks");
    }
    must_refuse(desk.grow(&spec, 1, "never", MORE).await, ErrorKind::NotFound);
}

async fn disk_grows_while_the_guest_runs(desk: &mut Desk) {
    let spec = desk.with_two().await;
    desk.hypervisor().start(spec.id, 1).await.expect("start");
    for _ in 0..2 {
        desk.grow(&spec, 1, "one", MORE).await.expect("grow");
    }
    desk.must_be(&spec, 1, PowerState::Running).await;
    must_refuse(desk.grow(&spec, 1, "never", MORE).await, ErrorKind::NotFound);
    desk.force_off(&spec).await;
    let one = &spec.disks[spec.disks.len() - 2];
    assert_eq!(desk.host.bytes(spec.id, one).await, MORE);
}

async fn limits_come_and_go(desk: &mut Desk) {
    let spec = desk.with_two().await;
    let hypervisor = desk.hypervisor();
    let some = Some(IoLimits {
        operations: Some(500),
        bytes: Some(64 << 20),
    });
    for runs in [false, true] {
        if runs {
            hypervisor.start(spec.id, 1).await.expect("start");
        }
        for limits in [some, some, None, None, some] {
            let limited = plugs(&*hypervisor).limit_disk(spec.id, 1, "one", limits).await;
            limited.expect("limit");
        }
        let unknown = plugs(&*hypervisor).limit_disk(spec.id, 1, "never", some).await;
        must_refuse(unknown, ErrorKind::NotFound);
    }
    desk.must_be(&spec, 1, PowerState::Running).await;
}

async fn nics_come_and_go(desk: &mut Desk) {
    let spec = desk.defined().await;
    let hypervisor = desk.hypervisor();
    let (one, two) = (desk.host.nic(1).await, desk.host.nic(2).await);
    for _ in 0..2 {
        plugs(&*hypervisor)
            .attach_nic(spec.id, 1, &one)
            .await
            .expect("attach");
    }
    hypervisor.start(spec.id, 1).await.expect("start");
    for nic in [&one, &two, &two] {
        plugs(&*hypervisor)
            .attach_nic(spec.id, 1, nic)
            .await
            .expect("attach");
    }
    let held = plugs(&*hypervisor).detach_nic(spec.id, 1, two.mac).await;
    must_refuse(held, ErrorKind::Refused);
    desk.must_be(&spec, 1, PowerState::Running).await;
    desk.force_off(&spec).await;
    for _ in 0..2 {
        plugs(&*hypervisor)
            .detach_nic(spec.id, 1, two.mac)
            .await
            .expect("detach");
    }
    hypervisor.start(spec.id, 1).await.expect("start");
    let gone = plugs(&*hypervisor).detach_nic(spec.id, 1, two.mac).await;
    gone.expect("the guest has it no more");
    desk.must_be(&spec, 1, PowerState::Running).await;
}

async fn plugging_of_an_older_generation_is_stale(desk: &mut Desk) {
    let spec = desk.running().await;
    let (more, nic) = (desk.more(&spec).await, desk.host.nic(1).await);
    let hypervisor = desk.hypervisor();
    desk.attach(&spec, 5, &more).await.expect("attach newer");
    desk.must_be(&spec, 5, PowerState::Running).await;
    must_refuse(desk.attach(&spec, 4, &more).await, ErrorKind::Stale);
    must_refuse(desk.detach(&spec, 4, "more").await, ErrorKind::Stale);
    must_refuse(desk.grow(&spec, 4, "more", MORE).await, ErrorKind::Stale);
    let plugs = plugs(&*hypervisor);
    must_refuse(plugs.limit_disk(spec.id, 4, "more", None).await, ErrorKind::Stale);
    must_refuse(plugs.attach_nic(spec.id, 4, &nic).await, ErrorKind::Stale);
    must_refuse(plugs.detach_nic(spec.id, 4, nic.mac).await, ErrorKind::Stale);
    desk.must_hold(&spec, &more, true).await;
}

async fn plugging_into_an_absent_domain_is_not_found(desk: &mut Desk) {
    let spec = VmSpec {
        id: nobody(),
        ..desk.idle().await
    };
    let (more, nic) = (desk.more(&spec).await, desk.host.nic(1).await);
    let hypervisor = desk.hypervisor();
    let plugs = plugs(&*hypervisor);
    must_refuse(plugs.attach_disk(spec.id, 1, &more).await, ErrorKind::NotFound);
    must_refuse(plugs.detach_disk(spec.id, 1, "more").await, ErrorKind::NotFound);
    must_refuse(
        plugs.grow_disk(spec.id, 1, "more", MORE).await,
        ErrorKind::NotFound,
    );
    must_refuse(plugs.attach_nic(spec.id, 1, &nic).await, ErrorKind::NotFound);
    must_refuse(plugs.detach_nic(spec.id, 1, nic.mac).await, ErrorKind::NotFound);
    desk.must_be_absent(spec.id).await;
}

async fn plugging_into_a_suspended_domain_is_a_conflict(desk: &mut Desk) {
    let spec = desk.with_two().await;
    desk.hypervisor().start(spec.id, 1).await.expect("start");
    desk.suspend(&spec, 1).await.expect("suspend");
    let more = desk.more(&spec).await;
    must_refuse(desk.attach(&spec, 1, &more).await, ErrorKind::Conflict);
    must_refuse(desk.detach(&spec, 1, "one").await, ErrorKind::Conflict);
    must_refuse(desk.grow(&spec, 1, "one", MORE).await, ErrorKind::Conflict);
    desk.must_be(&spec, 1, PowerState::Suspended).await;
    desk.hypervisor().start(spec.id, 1).await.expect("go on");
    desk.must_hold(&spec, &spec.disks[spec.disks.len() - 2], true)
        .await;
}
