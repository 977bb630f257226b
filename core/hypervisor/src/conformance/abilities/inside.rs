//! What is seen of the guest, who answers in it, and what it boots.

use skyloom_model::{PowerState, Secret};

use crate::conformance::domains::must_refuse;
use crate::conformance::harness::{Case, Desk, Need, case};
use crate::conformance::hypervisor::nobody;
use crate::conformance::watching::until_booted;
use crate::{ErrorKind, Result, VmSpec};

pub(super) fn cases() -> Vec<Case> {
    vec![
        case!(screenshot_is_a_picture, Screenshot),
        case!(screenshot_of_a_domain_that_is_off_is_a_conflict, Screenshot),
        case!(guest_without_an_agent_is_silent, GuestAgent),
        case!(agent_of_a_domain_that_is_off_is_silent, GuestAgent),
        case!(agent_of_an_absent_domain_is_not_found, GuestAgent),
        case!(agent_sets_a_password, AgentInGuest),
        case!(kernel_gets_its_command_line, KernelBoot),
    ]
}

impl Desk {
    async fn screenshot(&self, spec: &VmSpec) -> Result<Vec<u8>> {
        let hypervisor = self.hypervisor();
        let screen = hypervisor.as_screen().expect("a screen is promised");
        screen.screenshot(spec.id).await
    }
    async fn answers(&self, spec: &VmSpec) -> Result<bool> {
        let hypervisor = self.hypervisor();
        let agent = hypervisor.as_guest_agent().expect("a guest agent is promised");
        agent.answers(spec.id).await
    }
    async fn set_password(&self, spec: &VmSpec, user: &str) -> Result<()> {
        let hypervisor = self.hypervisor();
        let agent = hypervisor.as_guest_agent().expect("a guest agent is promised");
        // openssl passwd -6 -salt saltstring 'Hello world!'
        let hash = "$6$saltstring$svn8UoSVapNtMuq1ukKS4tPQd8iKwSMHWjl/O817G3uBnIFNjnQJuesI68u4OTLiBFdcbYEdFCoEOfaS35inz1";
        agent
            .set_password(spec.id, user, &Secret::new(hash.to_owned()))
            .await
    }
}

async fn screenshot_is_a_picture(desk: &mut Desk) {
    let spec = desk.running().await;
    let picture = desk.screenshot(&spec).await.expect("screenshot");
    assert!(picture.starts_with(b"\x89PNG\r\n\x1a\n"), "it is a PNG");
    assert!(picture.len() <= 8 << 20, "{} bytes", picture.len());
    let end = picture.len().saturating_sub(12);
    assert_eq!(&picture[end + 4..end + 8], b"IEND", "it is whole");
    desk.must_be(&spec, 1, PowerState::Running).await;
}

async fn screenshot_of_a_domain_that_is_off_is_a_conflict(desk: &mut Desk) {
    let spec = desk.defined().await;
    must_refuse(desk.screenshot(&spec).await, ErrorKind::Conflict);
    let absent = VmSpec { id: nobody(), ..spec };
    must_refuse(desk.screenshot(&absent).await, ErrorKind::NotFound);
}

async fn guest_without_an_agent_is_silent(desk: &mut Desk) {
    let spec = desk.running().await;
    assert!(!desk.answers(&spec).await.expect("ask"));
    must_refuse(desk.set_password(&spec, "root").await, ErrorKind::Unavailable);
    desk.must_be(&spec, 1, PowerState::Running).await;
}

async fn agent_of_a_domain_that_is_off_is_silent(desk: &mut Desk) {
    let spec = desk.defined().await;
    assert!(!desk.answers(&spec).await.expect("ask"));
    must_refuse(desk.set_password(&spec, "root").await, ErrorKind::Conflict);
}

async fn agent_of_an_absent_domain_is_not_found(desk: &mut Desk) {
    let spec = VmSpec {
        id: nobody(),
        ..desk.idle().await
    };
    must_refuse(desk.answers(&spec).await, ErrorKind::NotFound);
    must_refuse(desk.set_password(&spec, "root").await, ErrorKind::NotFound);
}

async fn agent_sets_a_password(desk: &mut Desk) {
    let spec = desk.live().await;
    until_booted(desk, &spec).await;
    assert!(desk.answers(&spec).await.expect("ask"));
    desk.set_password(&spec, "root").await.expect("set password");
    must_refuse(
        desk.set_password(&spec, "nobody-at-all").await,
        ErrorKind::Refused,
    );
    assert!(desk.answers(&spec).await.expect("it answers as before"));
}

async fn kernel_gets_its_command_line(desk: &mut Desk) {
    let line = "skyloom.exam=1 a,b=\"c d\" -S $(reboot) {\"x\":1}";
    let mut spec = desk.idle().await;
    spec.boot = desk.host.kernel(line).await;
    desk.hypervisor().define(&spec).await.expect("define");
    desk.hypervisor().start(spec.id, 1).await.expect("start");
    let hypervisor = desk.hypervisor();
    let console = hypervisor.as_console().expect("a console is promised");
    let deadline = tokio::time::Instant::now() + desk.offers.patience;
    let mut pause = tokio::time::interval(std::time::Duration::from_millis(50));
    loop {
        let tail = console.console_tail(spec.id, 1 << 20).await.expect("console");
        if String::from_utf8_lossy(&tail).contains(line) {
            break;
        }
        assert!(
            tokio::time::Instant::now() < deadline,
            "the kernel never shows {line}"
        );
        pause.tick().await;
    }
    desk.must_be(&spec, 1, PowerState::Running).await;
}
