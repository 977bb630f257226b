//! One schedule from its seed to its report: builds the world, lets things happen, heals it, and waits for rest.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use skyloom_identity::Rights;
use skyloom_model::{HostId, ImageId};
use tokio::task::JoinSet;

use crate::bed::{Bed, Part, Violation};
use crate::checker::Checker;
use crate::client::{Client, Door, Terms};
use crate::clock::SimClock;
use crate::faults::{Kind, Planned, Weather};
use crate::founding::found;
use crate::gate::Gate;
use crate::images::MemoryImages;
use crate::play::Act;
use crate::process::{Ended, Ground, Process};
use crate::rng::Rng;
use crate::swarm::Scenario;
use crate::work::Marks;

mod faults;
mod rest;

/// How often it is looked whether all is quiet.
const LOOK: Duration = Duration::from_millis(700);

/// What came of a schedule.
#[derive(Debug, Clone)]
pub struct Report {
    /// Its seed.
    pub seed: u64,
    /// The hash of its trace.
    pub hash: u64,
    /// Steps of its trace.
    pub steps: u64,
    /// Virtual time that it took.
    pub took: Duration,
    /// What was broken, if anything.
    pub violation: Option<Violation>,
    /// How often each kind of fault has bitten.
    pub bites: BTreeMap<Kind, u64>,
    /// Tasks by flow, last state and reason.
    pub ends: BTreeMap<(String, String, String), u64>,
    /// The last lines of the trace, if they were kept.
    pub lines: Vec<String>,
}

/// Something that happens at a moment.
#[derive(Debug)]
enum Action {
    Fault(Planned),
    /// A process that is down comes up.
    Start(usize),
    /// A process that stands still goes on.
    Resume(usize),
    /// A zombie goes on, and ends a while later.
    Wake(usize),
    Bury(usize),
    /// A process is no longer cut off.
    Mend(usize),
    NoLag(usize),
    NotFull,
    /// A host's disk has room again.
    DiskRoom(usize),
    /// Something of a script.
    Act(Act),
    Heal,
    Look,
}

pub(crate) struct World {
    pub(crate) scenario: Scenario,
    pub(crate) ground: Ground,
    pub(crate) processes: Vec<Process>,
    set: JoinSet<Ended>,
    pub(crate) clients: JoinSet<()>,
    late: JoinSet<()>,
    /// What hosts do by themselves.
    _background: JoinSet<()>,
    timeline: BTreeMap<(Duration, u64), Action>,
    planned: u64,
    /// Rounds of orders that the operator has given.
    orders: usize,
    pub(crate) terms: Terms,
    /// Until when a process's machine is off.
    pub(crate) off: BTreeMap<usize, Duration>,
    /// Since when there is nothing to do any more.
    quiet: Option<Duration>,
}

/// Runs the schedule; keeps the last `lines` lines of its trace.
pub(crate) async fn run(scenario: Scenario, lines: usize) -> Report {
    let weather = Weather::new(&scenario.rates);
    let bed = Arc::new(Bed::new(weather, scenario.history, Checker::default(), lines));
    run_on(scenario, bed).await
}

/// Runs the schedule on a bed that was made for it.
pub(crate) async fn run_on(scenario: Scenario, bed: Arc<Bed>) -> Report {
    let seed = scenario.seed;
    match World::build(scenario, bed.clone()).await {
        Ok(mut world) => world.go_on().await,
        Err(error) => bed.violated("the simulator", error),
    }
    let (hash, steps, lines, bites) = bed.results();
    let mut ends = BTreeMap::new();
    bed.checker(|c| {
        for (flow, state, reason) in c.ends() {
            let end = (
                flow.to_owned(),
                format!("{state:?}"),
                reason.unwrap_or_default().to_owned(),
            );
            *ends.entry(end).or_default() += 1;
        }
    });
    Report {
        seed,
        hash,
        steps,
        took: bed.clock.elapsed(),
        violation: bed.violation(),
        bites,
        ends,
        lines,
    }
}

impl World {
    async fn build(scenario: Scenario, bed: Arc<Bed>) -> Result<Self, String> {
        let mut rng = Rng::of(scenario.seed, "world");
        let image = ImageId::from_uuid(uuid::Uuid::from_u128(0x0190_0000_0000_7000_8000_0000_0000_0001));
        let images = Arc::new(MemoryImages::with(image));
        let founded = found(&scenario, &bed, images.clone(), image, &mut rng).await?;
        let ids: Arc<[HostId]> = founded.hosts.iter().map(|h| h.id).collect();
        let door = Arc::new(Door::new(bed.clone()));
        let ground = Ground {
            seed: scenario.seed,
            bed: bed.clone(),
            door: door.clone(),
            images,
            marks: Arc::new(Marks::default()),
            hosts: founded.hosts,
            pool: founded.pool,
            lease_ttl: scenario.lease_ttl,
            shown: Arc::default(),
        };
        if scenario.drift > 0 {
            bed.bit("clocks", Kind::Drift, String::new);
        }
        let mut processes = Vec::new();
        let clock = |index: usize| {
            let mut rng = Rng::of(scenario.seed, &format!("clock-{index}"));
            let ppm = rng.within(0, 2 * scenario.drift) as i64 - scenario.drift as i64;
            SimClock::new(bed.clock, ppm, rng.within(0, 2_000) as i64 - 1_000)
        };
        for i in 0..scenario.engines {
            processes.push(Process::new(i, &format!("engine-{i}"), Part::Engine, clock(i)));
        }
        for host in &ground.hosts {
            let index = processes.len();
            processes.push(Process::new(
                index,
                &host.name,
                Part::Agent(host.id),
                clock(index),
            ));
        }
        let index = processes.len();
        processes.push(Process::new(index, "api", Part::Api, clock(index)));
        if scenario.watcher {
            let index = processes.len();
            processes.push(Process::new(index, "watcher", Part::Watcher, clock(index)));
        }
        let rights = Rights::of_the_cloud().map_err(|e| e.to_string())?;
        let terms = Terms {
            rights,
            door,
            project: founded.project,
            image,
            hosts: ids,
            waits: !scenario
                .planned
                .iter()
                .any(|(_, _, planned)| matches!(planned, Planned::WallStep { .. })),
        };
        let mut background = JoinSet::new();
        for host in ground.hosts.iter().chain(&ground.pool) {
            let host = host.clone();
            background.spawn(async move { host.run_late().await });
        }
        let mut world = Self {
            ground,
            processes,
            set: JoinSet::new(),
            clients: JoinSet::new(),
            late: JoinSet::new(),
            _background: background,
            timeline: BTreeMap::new(),
            planned: 0,
            quiet: None,
            orders: 0,
            off: BTreeMap::new(),
            terms: terms.clone(),
            scenario,
        };
        for process in 0..world.processes.len() {
            world.after(Duration::from_millis(rng.below(500)), Action::Start(process));
        }
        for (at, act) in std::mem::take(&mut world.scenario.acts) {
            world.after(at, Action::Act(act));
        }
        for (at, _, fault) in world.scenario.planned.clone() {
            world.after(at, Action::Fault(fault));
        }
        world.after(world.scenario.faults_until, Action::Heal);
        for (number, steps) in world.scenario.clients.clone().into_iter().enumerate() {
            let client = Client::new(number, terms.clone(), world.scenario.seed);
            world.clients.spawn(client.run(steps));
        }
        Ok(world)
    }

    pub(crate) fn now(&self) -> Duration {
        self.ground.bed.clock.elapsed()
    }

    fn after(&mut self, time: Duration, action: Action) {
        self.planned += 1;
        let at = self.now() + time;
        self.timeline.insert((at, self.planned), action);
    }

    async fn go_on(&mut self) {
        let bed = self.ground.bed.clone();
        loop {
            let Some((next, _)) = self.timeline.keys().next().copied() else {
                return;
            };
            tokio::select! {
                biased;
                () = bed.wake.notified() => {
                    if bed.violation().is_some() {
                        return;
                    }
                    self.look_after_stray();
                }
                Some(ended) = self.set.join_next() => match ended {
                    Ok((process, life)) => {
                        if self.processes[process].ended(life) {
                            self.after(Duration::from_secs(1), Action::Start(process));
                        }
                    }
                    Err(error) if error.is_panic() => {
                        bed.violated("I8", format!("a process panicked: {error}"));
                        return;
                    }
                    Err(_) => {}
                },
                Some(_) = self.late.join_next() => {}
                () = tokio::time::sleep_until(bed.clock.instant(next)) => {
                    while let Some(entry) = self.timeline.first_entry()
                        && entry.key().0 <= bed.clock.elapsed()
                    {
                        let action = entry.remove();
                        if self.act(action).await {
                            return;
                        }
                    }
                }
            }
        }
    }

    /// Requests that outlived their senders, and processes that ended themselves.
    fn look_after_stray(&mut self) {
        for late in self.ground.bed.take_late() {
            self.late.spawn(async move {
                tokio::time::sleep_until(late.due).await;
                // Its sender will never know.
                let _ = late.request.apply(&late.store);
            });
        }
        while let Some(name) = self.ground.bed.take_fallen() {
            if let Some(process) = self.processes.iter().position(|p| p.name == name) {
                self.down(process, Duration::from_secs(2));
            }
        }
    }

    fn down(&mut self, process: usize, time: Duration) {
        if self.processes[process].kill(&self.ground) {
            self.after(time, Action::Start(process));
        }
    }

    /// A process dies, with whoever stands still under its name, and none is started for a while.
    pub(crate) fn keep_down(&mut self, process: usize, time: Duration) {
        let until = self.now() + time;
        let off = self.off.entry(process).or_default();
        *off = until.max(*off);
        self.processes[process].kill(&self.ground);
        self.processes[process].bury();
        self.after(time, Action::Start(process));
    }

    /// Something happens. `true`: the schedule is over.
    async fn act(&mut self, action: Action) -> bool {
        match action {
            Action::Fault(fault) => {
                self.ground.bed.diary(|diary, now| diary.drawn(now, &fault));
                self.fault(fault).await;
            }
            Action::Start(process) => {
                if let Some(off) = self.off.get(&process).copied().filter(|off| *off > self.now()) {
                    self.after(off - self.now(), Action::Start(process));
                    return false;
                }
                let process_is_up = self.processes[process].life.is_some()
                    || self.processes[process].start(&self.ground, &mut self.set);
                if !process_is_up {
                    self.after(Duration::from_secs(1), Action::Start(process));
                }
            }
            Action::Resume(process) => self.each_life(process, |gate| gate.pause(false)),
            Action::Wake(process) => {
                if let Some(zombie) = &self.processes[process].zombie {
                    zombie.gate.pause(false);
                }
                self.after(Duration::from_secs(20), Action::Bury(process));
            }
            Action::Bury(process) => self.processes[process].bury(),
            Action::Mend(process) => self.each_life(process, |gate| gate.cut(false, false)),
            Action::NoLag(process) => self.each_life(process, |gate| gate.lag(0)),
            Action::NotFull => self.ground.bed.set_full(false),
            Action::DiskRoom(host) => self.disk_full(host, false),
            Action::Act(act) => self.play(act).await,
            Action::Heal => self.heal(),
            Action::Look => return self.look().await,
        }
        false
    }

    fn disk_full(&self, host: usize, full: bool) {
        let host = &self.ground.hosts[host];
        host.disk.set_full(full);
        let disks = self.ground.pool.as_ref().unwrap_or(host);
        let _ = disks.fake.pool_full(full);
    }

    fn each_life(&self, process: usize, change: impl Fn(&Gate)) {
        let process = &self.processes[process];
        for life in process.life.iter().chain(&process.zombie) {
            change(&life.gate);
        }
    }

    /// The faults end: whoever was down, still or cut off goes on.
    fn heal(&mut self) {
        let bed = self.ground.bed.clone();
        bed.note("world", "heals", String::new);
        bed.diary(|diary, now| diary.healed(now));
        bed.weather.calm();
        bed.set_full(false);
        bed.not_slow();
        self.off.clear();
        self.timeline
            .retain(|_, action| !matches!(action, Action::Fault(_) | Action::Act(_)));
        for (i, host) in self.ground.hosts.iter().enumerate() {
            let _ = host.fake.heal();
            host.fake.release_events();
            self.disk_full(i, false);
        }
        if let Some(pool) = &self.ground.pool {
            let _ = pool.fake.heal();
        }
        let hosts_suffered = self.scenario.kinds().contains(&Kind::Host);
        for i in 0..self.processes.len() {
            self.each_life(i, |gate| {
                gate.cut(false, false);
                gate.lag(0);
                gate.pause(false);
            });
            let agent = matches!(self.processes[i].part, Part::Agent(_));
            if self.scenario.restart_all || (agent && hosts_suffered) {
                self.processes[i].kill(&self.ground);
            }
            self.processes[i].bury();
            if self.processes[i].life.is_none() {
                self.after(Duration::from_millis(100 * (i as u64 + 1)), Action::Start(i));
            }
        }
        self.after(LOOK, Action::Look);
    }
}
