//! From a script to a schedule: who the hosts are, and what happens at which moment.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use skyloom_cloud::{CreateFlavor, CreateHost, CreateServer};
use skyloom_model::Resources;

use super::act::Act;
use super::describe::{ends, says};
use super::diary::Diary;
use super::error::ScriptError;
use super::hand::{Deed, Verb, Wish};
use super::pattern::{Glob, Numbered};
use super::script::{Create, Direction, Event, HostGroup, Script, Weather, What};
use super::units::Moment;
use super::{Options, check};
use crate::faults::{self, Kind, Planned};
use crate::rng::Rng;
use crate::swarm::{MOST_STEPS, REST, Scenario};

/// How long a day goes on after its last event.
const AFTERWARDS: Duration = Duration::from_secs(300);
/// Commits that the store remembers.
const HISTORY: usize = 10_000;
/// More steps than a process makes in a second when nothing happens.
const IDLE_STEPS: u64 = 10;
/// More steps than any request needs, with all that follows from it.
const STEPS_OF_REQUEST: u64 = 5_000;

/// A host with a name and a size of its own.
#[derive(Debug, Clone)]
pub(crate) struct HostPlan {
    pub(crate) request: CreateHost,
    pub(crate) capacity: Resources,
}

/// The parts of a stage that events speak of.
struct Stage<'a> {
    seed: u64,
    hosts: Vec<String>,
    engines: usize,
    until: Duration,
    acts: Vec<(Duration, Act)>,
    planned: Vec<(Duration, usize, Planned)>,
    /// How many names each pattern makes in all, and has made.
    names: BTreeMap<&'a str, (usize, usize)>,
    requests: u64,
}

/// Makes a script ready.
pub(super) fn set(script: &Script, options: &Options) -> Result<(Scenario, Diary), ScriptError> {
    let start = match script.start {
        Moment::Clock(time) => time,
        Moment::After(span) => span.get(),
    };
    let engines = options.engines.unwrap_or(script.engines);
    let named = inventory(script, options.hosts)?;
    check::host_names(named.iter().map(|h| h.request.name.as_str()))?;
    if engines == 0 {
        return Err(ScriptError::new("engines", "there is no engine"));
    }
    let since = |moment: Moment, field: &str| match moment {
        Moment::After(span) => Ok(span.get()),
        Moment::Clock(time) => time.checked_sub(start).ok_or_else(|| {
            ScriptError::new(field, format!("{moment} is before the day begins"))
                .hint(format!("it begins at {}", script.start))
        }),
    };
    let mut moments = Vec::new();
    for (i, event) in script.events.iter().enumerate() {
        moments.push(since(event.at, &format!("events[{}].at", i + 1))?);
    }
    let last = script
        .events
        .iter()
        .zip(&moments)
        .map(|(e, at)| *at + e.what.lasts().get());
    let until = match options.until.or(script.until) {
        Some(until) => since(until, "until")?,
        None => last.max().unwrap_or_default() + AFTERWARDS,
    };
    if until.is_zero() {
        return Err(ScriptError::new("until", "the day ends when it begins"));
    }
    let mut stage = Stage {
        seed: options.seed,
        hosts: named.iter().map(|h| h.request.name.clone()).collect(),
        engines,
        until,
        acts: Vec::new(),
        planned: Vec::new(),
        names: names(&script.events),
        requests: 0,
    };
    let mut texts = Vec::new();
    for (i, (event, at)) in script.events.iter().zip(&moments).enumerate() {
        // What comes after the end is left out; where the names go on is not changed by that.
        texts.push(event.what.name());
        stage.event(i, *at, event)?;
    }
    let (processes, seconds) = (named.len() + engines + 2, until.as_secs() + REST.as_secs());
    let scenario = Scenario {
        seed: options.seed,
        hosts: named.len(),
        shared: false,
        engines,
        capacity: Resources::default(),
        clients: Vec::new(),
        faults_until: until,
        restart_all: false,
        rates: BTreeMap::new(),
        planned: stage.planned,
        history: HISTORY,
        watcher: true,
        lease_ttl: script.lease_ttl.get(),
        drift: 0,
        rest: REST + Duration::from_millis(200 * named.len() as u64 + 500 * stage.requests),
        most_steps: MOST_STEPS + processes as u64 * seconds * IDLE_STEPS + stage.requests * STEPS_OF_REQUEST,
        flavors: flavors(script),
        acts: stage.acts,
        named,
    };
    let mut processes: Vec<String> = (0..engines).map(|i| format!("engine-{i}")).collect();
    processes.extend(stage.hosts);
    processes.push("api".to_owned());
    Ok((scenario, Diary::new(start, processes, engines, texts)))
}

fn flavors(script: &Script) -> Vec<CreateFlavor> {
    let flavor = |f: &super::FlavorSize| CreateFlavor {
        name: f.name.clone(),
        vcpus: f.vcpus,
        memory_mib: f.memory.0,
        disk_gib: f.disk.0,
        host_labels: f.host_labels.clone(),
    };
    script.flavors.iter().map(flavor).collect()
}

/// The hosts one by one; with another number of them, each group has its share.
fn inventory(script: &Script, hosts: Option<usize>) -> Result<Vec<HostPlan>, ScriptError> {
    let mut groups = script.hosts.clone();
    if let Some(wanted) = hosts {
        if groups.is_empty() {
            groups.push(HostGroup::default());
        }
        share(&mut groups, wanted)?;
    }
    let hosts = groups.iter().flat_map(|group| {
        (1..=group.count).map(|n| HostPlan {
            request: CreateHost {
                name: group.name.name(n, group.count),
                labels: group.labels.clone(),
                cpu_ratio: group.cpu_ratio,
                ..CreateHost::default()
            },
            capacity: Resources {
                vcpus: group.vcpus,
                memory_mib: group.memory.0,
                disk_gib: group.disk.0,
            },
        })
    });
    Ok(hosts.collect())
}

/// Gives each group its share of `wanted` hosts, at least one.
fn share(groups: &mut [HostGroup], wanted: usize) -> Result<(), ScriptError> {
    if wanted < groups.len() {
        let message = format!("{wanted} hosts are too few for {} groups", groups.len());
        return Err(ScriptError::new("hosts", message).hint("each group has at least one host"));
    }
    let all: usize = groups.iter().map(|g| g.count).sum();
    let (mut left, mut given, mut before) = (groups.len(), 0, 0);
    for group in groups {
        left -= 1;
        before += group.count;
        // What all groups up to this one have of it, rounded; each of those behind it keeps one.
        let up_to = (before as u128 * wanted as u128 + all as u128 / 2) / all.max(1) as u128;
        let up_to = (up_to as usize).clamp(given + 1, wanted - left);
        group.count = up_to - given;
        given = up_to;
        if group.count > 1 && !group.name.varies() {
            group.name = Numbered::new(format!("{}-{{n}}", group.name.as_str()));
        }
    }
    Ok(())
}

/// How many names each pattern makes.
fn names(events: &[Event]) -> BTreeMap<&str, (usize, usize)> {
    let mut names = BTreeMap::new();
    for event in events {
        if let What::Create(create) = &event.what {
            let all: &mut (usize, usize) = names.entry(create.name.as_str()).or_default();
            all.0 += create.count;
        }
    }
    names
}

impl<'a> Stage<'a> {
    fn event(&mut self, number: usize, at: Duration, event: &'a Event) -> Result<(), ScriptError> {
        let what = &event.what;
        let hosts = self.hosts_of(number, what)?;
        let wishes = match what {
            What::Create(create) => self.wishes(at, create),
            _ => Vec::new(),
        };
        if at >= self.until {
            return Ok(());
        }
        let acts = match what {
            What::Create(_) => vec![self.deed(number, Verb::Create(wishes))],
            What::Start(s) => vec![self.deed(number, Verb::Start(s.clone()))],
            What::Stop(h) => vec![self.deed(number, Verb::Stop(h.clone()))],
            What::Reboot(h) => vec![self.deed(number, Verb::Reboot(h.clone()))],
            What::Delete(s) => vec![self.deed(number, Verb::Delete(s.clone()))],
            What::Enable(_) => vec![self.deed(number, Verb::Enable(self.named(&hosts), true))],
            What::Disable(_) => vec![self.deed(number, Verb::Enable(self.named(&hosts), false))],
            What::PowerLoss(w) => self.each(&hosts, |host, process| Act::Down {
                process,
                power_of: Some(host),
                lasts: w.lasts.get(),
            }),
            What::AgentCrash(w) => self.each(&hosts, |_, process| Act::Down {
                process,
                power_of: None,
                lasts: w.lasts.get(),
            }),
            What::EngineCrash(w) => {
                let engines = self.processes(&w.engines, "engine_crash.engines", number, 0..self.engines)?;
                let down = |process| Act::Down {
                    process,
                    power_of: None,
                    lasts: w.lasts.get(),
                };
                engines.into_iter().map(down).collect()
            }
            What::ApiCrash(w) => vec![Act::Down {
                process: self.engines + self.hosts.len(),
                power_of: None,
                lasts: w.lasts.get(),
            }],
            What::Cut(w) => {
                let all = 0..self.engines + self.hosts.len() + 1;
                let kind = match w.direction {
                    Direction::Out => Kind::CutOut,
                    Direction::In => Kind::CutIn,
                    Direction::Both => Kind::CutBoth,
                };
                let cut = |process| {
                    Act::Fault(Planned::Cut {
                        process,
                        kind,
                        ms: w.lasts.get().as_millis() as u64,
                    })
                };
                self.processes(&w.of, "cut.of", number, all)?
                    .into_iter()
                    .map(cut)
                    .collect()
            }
            What::SlowStore(w) => {
                let by = w.by.get().as_millis() as i64;
                self.acts.push((at + w.lasts.get(), Act::Slow(-by)));
                vec![Act::Slow(by)]
            }
            What::StoreFull(w) => vec![Act::Fault(Planned::Full {
                ms: w.lasts.get().as_millis() as u64,
            })],
            What::DiskFull(w) => self.each(&hosts, |host, _| {
                Act::Fault(Planned::DiskFull {
                    host,
                    ms: w.lasts.get().as_millis() as u64,
                })
            }),
            What::GuestCrash(w) => vec![Act::GuestCrash {
                event: number,
                servers: w.servers.clone(),
                count: w.count,
            }],
            What::Weather(w) => self.weather(number, at, w),
        };
        self.acts
            .push((at, Act::Begins(number, says(what, &self.named(&hosts)))));
        self.acts.extend(acts.into_iter().map(|act| (at, act)));
        let over = at + what.lasts().get();
        if let Some(text) = ends(what, hosts.len()).filter(|_| over < self.until) {
            self.acts.push((over, Act::Over(number, text)));
        }
        // Those at one moment keep their order.
        self.acts.sort_by_key(|(at, _)| *at);
        Ok(())
    }

    fn deed(&mut self, event: usize, verb: Verb) -> Act {
        // What is picked later is as much as there can be by then.
        self.requests += match &verb {
            Verb::Create(wishes) => wishes.len() as u64,
            Verb::Enable(hosts, _) => hosts.len() as u64,
            Verb::Start(_) | Verb::Stop(_) | Verb::Reboot(_) | Verb::Delete(_) => {
                self.names.values().map(|(_, made)| *made as u64).sum()
            }
        };
        Act::Deed(Arc::new(Deed {
            event,
            verb,
            until: self.until,
        }))
    }

    fn named(&self, hosts: &[usize]) -> Vec<String> {
        hosts.iter().filter_map(|h| self.hosts.get(*h).cloned()).collect()
    }

    /// For each host and its agent's process.
    fn each(&self, hosts: &[usize], act: impl Fn(usize, usize) -> Act) -> Vec<Act> {
        hosts.iter().map(|host| act(*host, self.engines + host)).collect()
    }

    /// Those of the hosts that are meant.
    fn hosts_of(&self, number: usize, what: &What) -> Result<Vec<usize>, ScriptError> {
        let (glob, count) = match what {
            What::Enable(w) | What::Disable(w) => (&w.hosts, w.count),
            What::PowerLoss(w) | What::AgentCrash(w) | What::DiskFull(w) => (&w.hosts, w.count),
            _ => return Ok(Vec::new()),
        };
        let names = self.hosts.iter().enumerate();
        let fits: Vec<usize> = names
            .filter(|(_, name)| glob.matches(name))
            .map(|(i, _)| i)
            .collect();
        if fits.is_empty() {
            let field = format!("events[{}].{}.hosts", number + 1, what.name());
            let message = format!("no host's name fits \"{}\"", glob.as_str());
            let first = self.hosts.first().cloned().unwrap_or_default();
            return Err(ScriptError::new(field, message).hint(format!("the first host is {first}")));
        }
        Ok(some(
            fits,
            count,
            &mut Rng::of(self.seed, &format!("event-{number}")),
        ))
    }

    /// Those of a range of processes whose names fit.
    fn processes(
        &self,
        glob: &Glob,
        field: &str,
        number: usize,
        range: std::ops::Range<usize>,
    ) -> Result<Vec<usize>, ScriptError> {
        let name = |process: usize| match process.checked_sub(self.engines) {
            None => format!("engine-{process}"),
            Some(host) => self.hosts.get(host).cloned().unwrap_or_else(|| "api".to_owned()),
        };
        let fits: Vec<usize> = range.filter(|p| glob.matches(&name(*p))).collect();
        if fits.is_empty() {
            let message = format!("nothing is named \"{}\"", glob.as_str());
            return Err(
                ScriptError::new(format!("events[{}].{field}", number + 1), message).hint(
                    "engines are engine-0, engine-1, …; the API is api; agents have their hosts' names",
                ),
            );
        }
        Ok(fits)
    }

    /// What users ask for, and when.
    fn wishes(&mut self, at: Duration, create: &'a Create) -> Vec<Wish> {
        let (all, made) = self.names.entry(create.name.as_str()).or_default();
        let first = *made + 1;
        *made += create.count;
        let all = *all;
        let wish = |i: usize| Wish {
            after: offset(create.over.get(), i, create.count),
            request: CreateServer {
                name: Some(create.name.name(first + i, all)),
                flavor: create.flavor.clone(),
                config_drive: Some(false),
                anti_affinity_group: create.group.clone(),
                host_labels: create.host_labels.clone(),
                start: Some(create.start),
                ..CreateServer::default()
            },
        };
        let wishes = (0..create.count).map(wish);
        wishes.filter(|w| at + w.after < self.until).collect()
    }

    /// Rates for kinds that bite call by call; moments for the others.
    fn weather(&mut self, number: usize, at: Duration, weather: &Weather) -> Vec<Act> {
        let lasts = weather.lasts.get();
        let mut begins = Vec::new();
        for (kind, rate) in &weather.faults {
            if kind.by_call() {
                let rate = i32::try_from(*rate).unwrap_or(i32::MAX);
                begins.push(Act::Weather(*kind, rate));
                self.acts.push((at + lasts, Act::Weather(*kind, -rate)));
                continue;
            }
            let mut rng = Rng::of(self.seed, &format!("weather-{number}-{kind}"));
            let thousandths = u64::from(*rate) * lasts.as_millis() as u64 / 3600;
            let often = thousandths / 1000 + u64::from(rng.below(1000) < thousandths % 1000);
            let processes = self.engines + self.hosts.len() + 1;
            for _ in 0..often {
                let when = at + Duration::from_millis(rng.below(lasts.as_millis() as u64));
                if let Some(fault) = faults::draw(&mut rng, *kind, processes, self.hosts.len()) {
                    self.planned.push((when, self.planned.len(), fault));
                }
            }
        }
        self.planned.sort_by_key(|(at, number, _)| (*at, *number));
        begins
    }
}

/// When number `i` of `count` comes, of those that are spread evenly over a time.
pub(super) fn offset(over: Duration, i: usize, count: usize) -> Duration {
    let ms = over.as_millis() * i as u128 / count.max(1) as u128;
    Duration::from_millis(ms as u64)
}

/// So many of `all`, drawn, in their order.
pub(super) fn some<T>(all: Vec<T>, count: Option<usize>, rng: &mut Rng) -> Vec<T> {
    let count = count.unwrap_or(all.len()).min(all.len());
    let mut left: Vec<usize> = (0..all.len()).collect();
    let mut picked = BTreeSet::new();
    for _ in 0..count {
        picked.insert(left.swap_remove(rng.index(left.len())));
    }
    let numbered = all.into_iter().enumerate();
    numbered
        .filter(|(i, _)| picked.contains(i))
        .map(|(_, one)| one)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_keep_their_shares() {
        let group = |count| HostGroup {
            count,
            ..HostGroup::default()
        };
        for (counts, wanted, shares) in [
            (vec![40, 10], 500, vec![400, 100]),
            (vec![40, 10], 5, vec![4, 1]),
            (vec![100, 1, 1], 3, vec![1, 1, 1]),
            (vec![1], 7, vec![7]),
            (vec![2, 2, 2], 8, vec![3, 2, 3]),
        ] {
            let mut groups: Vec<HostGroup> = counts.iter().map(|c| group(*c)).collect();
            share(&mut groups, wanted).unwrap();
            let counts: Vec<usize> = groups.iter().map(|g| g.count).collect();
            assert_eq!(counts, shares, "{wanted}");
        }
        assert!(share(&mut [group(1), group(1)], 1).is_err());
    }

    #[test]
    fn picks_are_of_the_seed_and_keep_the_order() {
        let pick = |seed| some((0..50).collect(), Some(7), &mut Rng::of(seed, "x"));
        assert_eq!(pick(1), pick(1));
        assert_ne!(pick(1), pick(2));
        assert!(pick(1).is_sorted() && pick(1).len() == 7);
        assert_eq!(some(vec![1, 2], None, &mut Rng::of(1, "x")), [1, 2]);
        assert_eq!(some(vec![1, 2], Some(9), &mut Rng::of(1, "x")), [1, 2]);
    }
}
