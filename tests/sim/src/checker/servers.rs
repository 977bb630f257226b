//! Servers, claims and ledgers: I2, I6.

use skyloom_model::{Claim, HostId, HostLedger, Resources, ServerId, TaskState};
use skyloom_store::{Key, Value};

use super::model::{SeenDoc, ServerDoc};
use super::{Changed, Checker, id};
use crate::bed::{Part, Who};

impl Checker {
    pub(super) fn take_server(&mut self, key: &Key, value: Option<&Value>, changed: &mut Vec<Changed>) {
        let Some(server) = id::<ServerId>(Some(key.last())) else {
            return;
        };
        let doc = self.parse::<ServerDoc>(key, value);
        let hosts = |doc: &Option<ServerDoc>| doc.as_ref().map(|d| d.status.hosts()).unwrap_or_default();
        let after = hosts(&doc);
        let before = match doc {
            Some(doc) => self.servers.insert(server, doc),
            None => self.servers.remove(&server),
        };
        let was = hosts(&before);
        for host in was.symmetric_difference(&after) {
            let model = self.hosts.entry(*host).or_default();
            if after.contains(host) {
                model.placed.insert(server);
            } else {
                model.placed.remove(&server);
            }
            changed.push(Changed::Host(*host));
        }
        changed.push(Changed::Server(server, before));
    }

    pub(super) fn check_server(&mut self, server: ServerId, before: Option<&ServerDoc>, changed: &[Changed]) {
        match (before, self.servers.get(&server)) {
            (Some(_), None) => {
                let deleted = changed.iter().any(|c| match c {
                    Changed::Task(task, _) => {
                        self.tasks
                            .get(task)
                            .and_then(|t| t.doc.as_ref())
                            .is_some_and(|d| {
                                d.flow == "server.delete"
                                    && d.subject.id == server.uuid()
                                    && d.state == TaskState::Done
                            })
                    }
                    _ => false,
                });
                if !deleted {
                    self.complain("I2", format!("server {server} disappears without a deletion"));
                }
            }
            (Some(before), Some(after)) if after.meta.generation < before.meta.generation => {
                let (old, new) = (before.meta.generation, after.meta.generation);
                self.complain(
                    "I5",
                    format!("server {server} goes from generation {old} back to {new}"),
                );
            }
            _ => {}
        }
    }

    /// I5: what an agent saw is taken over only from the host where the server lives, and of no other generation than the
    /// server's; of an older one only while no task works on it.
    pub(super) fn check_power(
        &mut self,
        who: &Who,
        id: ServerId,
        before: Option<&ServerDoc>,
        changed: &[Changed],
    ) {
        let by_task = changed.iter().any(|c| matches!(c, Changed::Task(..)));
        let (Some(before), Some(after)) = (before, self.servers.get(&id)) else {
            return;
        };
        if who.part != Part::Engine || by_task || before.status.power == after.status.power {
            return;
        }
        let host = after.status.placement.as_ref().map(|p| p.host);
        let seen = host
            .and_then(|h| self.hosts.get(&h))
            .and_then(|h| h.reported.get(&id));
        let fits = seen.is_some_and(|seen| {
            let older = seen.generation < after.meta.generation && before.status.activity.is_none();
            seen.power == after.status.power && (seen.generation == after.meta.generation || older)
        });
        if !fits {
            let (power, generation) = (after.status.power, after.meta.generation);
            self.complain(
                "I5",
                format!("server {id}, generation {generation}, on {host:?} is said to be {power:?}; seen was {seen:?}"),
            );
        }
    }

    pub(super) fn take_of_host(&mut self, key: &Key, value: Option<&Value>, changed: &mut Vec<Changed>) {
        let mut segments = key.segments();
        let area = segments.next();
        let Some(host) = id::<HostId>(segments.next()) else {
            return;
        };
        let server = id::<ServerId>(segments.next());
        match (area, server) {
            (Some("ledgers"), _) => {
                let ledger = self.parse::<HostLedger>(key, value);
                self.hosts.entry(host).or_default().ledger = ledger;
                changed.push(Changed::Host(host));
            }
            (Some("claims"), Some(server)) => {
                let claim = self.parse::<Claim>(key, value);
                let claims = &mut self.hosts.entry(host).or_default().claims;
                match claim {
                    Some(claim) => claims.insert(server, claim),
                    None => claims.remove(&server),
                };
                changed.push(Changed::Host(host));
            }
            (Some("lent"), Some(server)) => {
                let lent = &mut self.hosts.entry(host).or_default().lent;
                if value.is_some() {
                    lent.insert(server)
                } else {
                    lent.remove(&server)
                };
            }
            (Some("vms"), Some(server)) => {
                let seen = self.parse::<SeenDoc>(key, value);
                let reported = &mut self.hosts.entry(host).or_default().reported;
                match seen {
                    Some(seen) => reported.insert(server, seen),
                    None => reported.remove(&server),
                };
            }
            _ => {}
        }
    }

    pub(super) fn check_host(&mut self, host: HostId) {
        let Some(model) = self.hosts.get(&host) else {
            return;
        };
        let sum = model
            .claims
            .values()
            .fold(Resources::default(), |sum, c| sum.plus(c.resources));
        let ledger = model.ledger.clone().unwrap_or_default();
        let mut wrong = Vec::new();
        if ledger.used != sum || ledger.servers as usize != model.claims.len() {
            wrong.push(format!(
                "the ledger of {host} says {:?} for {} servers; its claims are {sum:?} for {}",
                ledger.used,
                ledger.servers,
                model.claims.len()
            ));
        }
        if !model.claims.keys().eq(&model.placed) {
            wrong.push(format!(
                "claims on {host} are of {:?}, placed there are {:?}",
                model.claims.keys(),
                model.placed
            ));
        }
        if let Some(doc) = &model.doc
            && let Some(facts) = &doc.status.facts
        {
            let (have, spec) = (facts.capacity, &doc.spec);
            let over = f64::from(sum.vcpus) > f64::from(have.vcpus) * spec.cpu_ratio
                || sum.memory_mib as f64 > have.memory_mib as f64 * spec.memory_ratio
                || sum.disk_gib as f64 > have.disk_gib as f64 * spec.disk_ratio;
            if over {
                wrong.push(format!("{sum:?} is claimed on {host}, which has {have:?}"));
            }
        }
        for what in wrong {
            self.complain("I6", what);
        }
    }
}
