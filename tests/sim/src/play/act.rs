//! What a script does to the world at its moments.

use std::sync::Arc;
use std::time::Duration;

use super::hand::{self, Deed};
use super::pattern::Glob;
use super::stage::some;
use crate::faults::{Kind, Planned};
use crate::rng::Rng;
use crate::world::World;

/// Something that a script does at a moment. Events have numbers, from 0 on.
#[derive(Debug, Clone)]
pub(crate) enum Act {
    /// An event begins.
    Begins(usize, String),
    /// An event is over.
    Over(usize, String),
    /// Users ask for something.
    Deed(Arc<Deed>),
    /// A process dies and stays dead for a while; with the host's power its guests die too.
    Down {
        process: usize,
        power_of: Option<usize>,
        lasts: Duration,
    },
    Fault(Planned),
    /// The store answers so many milliseconds later than before.
    Slow(i64),
    /// A kind of fault bites that much more often than before.
    Weather(Kind, i32),
    /// Guests die.
    GuestCrash {
        event: usize,
        servers: Glob,
        count: Option<usize>,
    },
}

impl World {
    pub(crate) async fn play(&mut self, act: Act) {
        let bed = self.ground.bed.clone();
        match act {
            Act::Begins(event, text) => {
                bed.note("script", "begins", || text.clone());
                bed.diary(|diary, now| diary.begins(now, event, text));
            }
            Act::Over(event, text) => {
                bed.diary(|diary, now| diary.over(now, event, text));
            }
            Act::Deed(deed) => {
                let hosts = self.ground.hosts.iter().map(|h| (h.name.clone(), h.id)).collect();
                let (terms, seed) = (self.terms.clone(), self.scenario.seed);
                self.clients.spawn(hand::perform(deed, terms, hosts, seed));
            }
            Act::Down {
                process,
                power_of,
                lasts,
            } => {
                bed.bit(&self.processes[process].name, Kind::Crash, || {
                    format!("for {lasts:?}")
                });
                self.keep_down(process, lasts);
                if let Some(host) = power_of {
                    self.ground.hosts[host].lose_power();
                }
            }
            Act::Fault(fault) => self.fault(fault).await,
            Act::Slow(by_ms) => bed.slower(by_ms),
            Act::Weather(kind, by) => bed.weather.change(kind, by),
            Act::GuestCrash {
                event,
                servers,
                count,
            } => self.guests_crash(event, &servers, count),
        }
    }

    fn guests_crash(&mut self, event: usize, servers: &Glob, count: Option<usize>) {
        let bed = self.ground.bed.clone();
        let mut there = Vec::new();
        for host in &self.ground.hosts {
            there.extend(host.running().into_iter().map(|server| (host, server)));
        }
        let named = there.into_iter().filter_map(|(host, server)| {
            let name = bed.diary(|diary, _| diary.server_name(server))??;
            servers.matches(&name).then_some((name, host, server))
        });
        let mut fits: Vec<_> = named.collect();
        fits.sort_by(|a, b| (&a.0, a.2).cmp(&(&b.0, b.2)));
        let mut rng = Rng::of(self.scenario.seed, &format!("event-{event}"));
        let picked = some(fits, count, &mut rng);
        let names: Vec<String> = picked.iter().map(|(name, ..)| name.clone()).collect();
        bed.diary(|diary, now| diary.guests_crash(now, event, &names));
        for (name, host, server) in picked {
            bed.bit(&host.name, Kind::GuestEnds, || name);
            host.crash_guest(server);
        }
    }
}
