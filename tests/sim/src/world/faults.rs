//! What a planned fault does to the world.

use std::sync::Arc;
use std::time::Duration;

use skyloom_cloud::AgentScoped;
use skyloom_model::paths;
use skyloom_store::{LeaseName, Store as _, Txn};

use super::{Action, World};
use crate::bed::{Part, Who};
use crate::direct::Direct;
use crate::faults::{Kind, Planned};
use crate::old;

impl World {
    pub(crate) async fn fault(&mut self, fault: Planned) {
        let bed = self.ground.bed.clone();
        let kind = fault.kind();
        let bit = |who: &str| bed.bit(who, kind, || format!("{fault:?}"));
        match fault {
            Planned::Crash { process, down_ms } => {
                bit(&self.processes[process].name);
                self.down(process, Duration::from_millis(down_ms));
            }
            Planned::Restart { process } => {
                if let Some(life) = &self.processes[process].life {
                    bit(&self.processes[process].name);
                    if self.processes[process].part == Part::Api {
                        self.ground.door.close();
                    }
                    life.stop.cancel();
                }
            }
            Planned::CrashAtCall { process, calls } => {
                if let Some(life) = &self.processes[process].life {
                    life.link.burn(calls);
                }
            }
            Planned::Pause { process, ms } => {
                bit(&self.processes[process].name);
                self.each_life(process, |gate| gate.pause(true));
                self.after(Duration::from_millis(ms), Action::Resume(process));
            }
            Planned::Zombie { process, ms } => {
                let old = &mut self.processes[process];
                if old.part == Part::Api || old.zombie.is_some() {
                    return;
                }
                bit(&old.name);
                if let Some(life) = old.life.take() {
                    life.gate.pause(true);
                    old.zombie = Some(life);
                }
                self.after(Duration::from_millis(200), Action::Start(process));
                self.after(Duration::from_millis(ms), Action::Wake(process));
            }
            Planned::Cut { process, kind, ms } => {
                bit(&self.processes[process].name);
                let (out, inwards) = (kind != Kind::CutIn, kind != Kind::CutOut);
                self.each_life(process, |gate| gate.cut(out, inwards));
                self.after(Duration::from_millis(ms), Action::Mend(process));
            }
            Planned::Lag { process, late_ms, ms } => {
                bit(&self.processes[process].name);
                self.each_life(process, |gate| gate.lag(late_ms));
                self.after(Duration::from_millis(ms), Action::NoLag(process));
            }
            Planned::Expire { process } => {
                let path = match self.processes[process].part {
                    Part::Agent(host) => paths::host_lease(host),
                    _ => paths::engine_lease(&self.processes[process].name),
                };
                bit(&path);
                if let Ok(name) = LeaseName::parse(&path) {
                    let _ = bed.expire(&name);
                }
            }
            Planned::WallStep { process, by_ms } => {
                bit(&self.processes[process].name);
                self.processes[process].step_clock(by_ms);
            }
            Planned::Compact => {
                bit("store");
                bed.compact();
            }
            Planned::Full { ms } => {
                bit("store");
                bed.set_full(true);
                self.after(Duration::from_millis(ms), Action::NotFull);
            }
            Planned::Host {
                host,
                point,
                fault: ref what,
            } => {
                let host = &self.ground.hosts[host];
                bit(&host.name);
                // One of both is asked for it.
                for fake in [&host.fake]
                    .into_iter()
                    .chain(self.ground.pool.as_ref().map(|pool| &pool.fake))
                {
                    let _ = fake.fault_next(point, *what);
                }
            }
            Planned::DiskFull { host, ms } => {
                bit(&self.ground.hosts[host].name);
                self.disk_full(host, true);
                self.after(Duration::from_millis(ms), Action::DiskRoom(host));
            }
            Planned::GuestEnds { host, pick, crash } => {
                let host = &self.ground.hosts[host];
                if host.end_guest(pick, crash).is_some() {
                    bit(&host.name);
                }
            }
            Planned::OldOrder { host, pick } => {
                let host = &self.ground.hosts[host];
                if host.replay_old_order(pick) {
                    bit(&host.name);
                }
            }
            Planned::OldFormat { apart_ms } => {
                bit("engines");
                self.old_engines_go(Duration::from_millis(apart_ms)).await;
            }
            Planned::Rogue { host, pick } => {
                bit("rogue");
                self.rogue(host, pick).await;
            }
        }
    }

    /// The engines until now were of an older version: what they leave is of the first format. The new ones come one after the
    /// other, so far apart.
    async fn old_engines_go(&mut self, apart: Duration) {
        let mut later = Duration::ZERO;
        for process in 0..self.processes.len() {
            if self.processes[process].part == Part::Engine {
                later += apart;
                self.down(process, later);
                self.processes[process].bury();
            }
        }
        let who = Who {
            name: "old engines".into(),
            part: Part::Engine,
            life: 1,
        };
        let bed = self.ground.bed.clone();
        let all = Direct {
            bed: bed.clone(),
            who,
        }
        .everything("")
        .await;
        for txn in old::of_format_1(&all) {
            bed.rewrite(txn);
        }
    }

    /// Somebody with the token of a host's agent reaches for what is not its own.
    async fn rogue(&mut self, host: usize, pick: u64) {
        let bed = self.ground.bed.clone();
        let own = self.ground.hosts[host].id;
        let who = Who {
            name: "rogue".into(),
            part: Part::Rogue(own),
            life: 1,
        };
        let direct = Direct {
            bed: bed.clone(),
            who,
        };
        let all = direct.everything("").await;
        let foreign: Vec<_> = all
            .iter()
            .filter(|kv| !kv.key.as_str().contains(&own.to_string()))
            .collect();
        let Some(found) = foreign.get((pick % foreign.len().max(1) as u64) as usize) else {
            return;
        };
        let txn = Txn::new().replace(found.key.clone(), found.modified, found.value.clone());
        let _ = AgentScoped::new(Arc::new(direct), own).commit(txn).await;
    }
}
