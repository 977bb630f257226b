//! What must be true of any cloud in which nothing is under way.

use std::collections::{BTreeMap, BTreeSet};

use skyloom_model::{
    Claim, HostLedger, Image, ImageState, Lifecycle, Port, Resource as _, Server, ServerId, Task, TaskState,
    VmObservation, Volume, paths,
};
use skyloom_scheduler::claim;

use super::CloudWorld;
use super::moving::fenced;

impl CloudWorld {
    pub(super) async fn check_servers(
        &self,
        servers: &BTreeMap<ServerId, Server>,
        ended: &Task,
        left: &mut Vec<String>,
    ) {
        let ports: Vec<Port> = self.all("r/ports").await.into_values().collect();
        for server in servers.values() {
            let (name, status) = (&server.meta.name, &server.status);
            let home = status.placement.as_ref().map(|p| &self.world.hosts[&p.host].fake);
            let domain = home.and_then(|fake| fake.domain(server.id()).unwrap());
            let steady = matches!(
                status.lifecycle,
                Lifecycle::Active | Lifecycle::Error | Lifecycle::Shelved | Lifecycle::Recycled
            );
            if !steady || status.activity.is_some() {
                left.push(format!(
                    "{name} is {:?} with {:?}",
                    status.lifecycle, status.activity
                ));
            }
            match (&domain, status.lifecycle) {
                (None, Lifecycle::Active) => left.push(format!("{name} is active and has no domain")),
                (Some(domain), _) if domain.power != status.power => {
                    left.push(format!(
                        "{name} is said to be {:?} and is {:?}",
                        status.power, domain.power
                    ));
                }
                (Some(domain), Lifecycle::Active) => {
                    let wanted = server.spec.running == domain.power.may_execute();
                    if !wanted && !fenced(&self.case) {
                        left.push(format!("{name} is {:?}, which nobody wants", domain.power));
                    }
                    let (has, ordered) = (domain.spec.generation, server.meta.generation);
                    let done = ended.state == TaskState::Done && ended.subject.id == server.meta.id;
                    if has > ordered || (done && has != ordered) {
                        left.push(format!("{name} is of generation {ordered}, its domain of {has}"));
                    }
                }
                _ => {}
            }
            for port in ports.iter().filter(|p| p.spec.server == Some(server.id())) {
                if port.status.bound != domain.is_some() {
                    left.push(format!("a port of {name} has bound {}", port.status.bound));
                }
            }
        }
        left.extend(
            ports
                .iter()
                .filter(|p| match p.spec.server {
                    Some(server) => !servers.contains_key(&server),
                    None => self.port != Some(p.id()),
                })
                .map(|p| format!("port {} of no server", p.meta.id)),
        );
        for key in self.world.documents("secrets").await.into_keys() {
            if !servers.keys().any(|id| key.ends_with(&id.to_string())) {
                left.push(key);
            }
        }
    }

    /// Claims, ledgers, domains and disks are those of the servers placed there.
    pub(super) async fn check_hosts(
        &self,
        servers: &BTreeMap<ServerId, Server>,
        ended: &Task,
        left: &mut Vec<String>,
    ) {
        let removes = self.case.flow == "claim.release" || self.case.name.contains("removes");
        for (host, fake) in self.hosts() {
            let lives = |s: &&Server| s.status.placement.as_ref().is_some_and(|p| p.host == host);
            let placed: BTreeSet<ServerId> = servers.values().filter(lives).map(|s| s.id()).collect();
            let mut known = placed.clone();
            if let Some((_, planted)) = self.planted.as_ref().filter(|(at, _)| *at == host)
                && !(removes && ended.state == TaskState::Done)
            {
                known.extend(planted);
            }
            let claims: BTreeMap<String, Claim> = self.all(&paths::claims(host)).await;
            let claimed: BTreeSet<ServerId> = claims.values().map(|c| c.server).collect();
            if !placed.is_subset(&claimed) || !claimed.is_subset(&known) {
                left.push(format!("claims {claimed:?} for servers {placed:?}"));
            }
            let ledgers: BTreeMap<String, HostLedger> = self.all(paths::LEDGERS).await;
            let ledger = &ledgers[&paths::ledger(host)];
            let sum = claims
                .values()
                .fold(HostLedger::default(), |sum, c| claim(&sum, c));
            let volumes: BTreeMap<String, Volume> = self.all("r/volumes").await;
            let of_host = volumes.values().filter(|v| v.status.host == Some(host));
            let sum = sum.with_volumes(of_host.map(|v| v.status.reserved_gib).sum());
            if *ledger != sum {
                left.push(format!("a ledger of {ledger:?} for claims of {sum:?}"));
            }
            let domains: BTreeSet<ServerId> = fake.domains().unwrap().iter().map(|d| d.spec.id).collect();
            let seen: BTreeMap<String, VmObservation> = self.all(&paths::host_vms(host)).await;
            let seen: BTreeSet<ServerId> = seen.values().map(|s| s.server).collect();
            if seen != domains {
                left.push(format!("domains {domains:?}, and {seen:?} are said to be there"));
            }
            let there: BTreeSet<ServerId> =
                domains.into_iter().chain(Self::disks(fake).into_keys()).collect();
            let nobodys = there.difference(&known);
            left.extend(nobodys.map(|id| format!("something of {id} on a host")));
        }
    }

    /// Content is that of images, and active images have theirs.
    pub(super) async fn check_images(&self, left: &mut Vec<String>) {
        let images: Vec<Image> = self.all("r/images").await.into_values().collect();
        let files = self.world.files();
        for image in &images {
            let content = files.contains(&format!("images/{}", image.id()));
            let active = image.status.state == ImageState::Active;
            let measured = image.status.sha256.is_some() && image.status.size_bytes > 0;
            if active != (content && measured) && !matches!(image.status.state, ImageState::Error) {
                left.push(format!(
                    "image {} is {:?}, content: {content}",
                    image.meta.name, image.status.state
                ));
            }
            if !matches!(image.status.state, ImageState::Active | ImageState::Error) {
                left.push(format!("image {} is {:?}", image.meta.name, image.status.state));
            }
        }
        let known = |file: &str| images.iter().any(|i| file == format!("images/{}", i.id()));
        left.extend(files.iter().filter(|f| !known(f)).cloned());
    }
}
