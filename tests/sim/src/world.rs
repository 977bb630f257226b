//! One schedule from its seed to its report: builds the world, lets things happen, heals it, and waits for rest.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use skyloom_cloud::{AgentScoped, Cloud, CloudParts, Reconciled, Suspects};
use skyloom_model::{HostId, ImageId, OrderVerb, SeededIds, TaskState, paths};
use skyloom_store::{LeaseName, Store as _, Txn};
use tokio::task::JoinSet;

use crate::bed::{Bed, Part, Violation, Who};
use crate::checker::{Checker, Leftover};
use crate::client::{Client, Door, Terms};
use crate::clock::SimClock;
use crate::direct::Direct;
use crate::faults::{Kind, Planned, Weather};
use crate::founding::found;
use crate::gate::Gate;
use crate::images::MemoryImages;
use crate::process::{Ended, Ground, Process};
use crate::rng::Rng;
use crate::swarm::Scenario;
use crate::watcher;
use crate::work::Marks;

/// How long after the faults everything must have come to rest.
const REST: Duration = Duration::from_secs(600);
/// How long a wrong record may stay wrong at rest.
const SETTLE: Duration = Duration::from_secs(90);
/// More steps than any schedule needs.
const MOST_STEPS: u64 = 400_000;
/// What the operator orders for stuck tasks, one after the other.
const ORDERS: [OrderVerb; 3] = [OrderVerb::Retry, OrderVerb::Skip, OrderVerb::Abandon];
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
    Heal,
    Look,
}

struct World {
    scenario: Scenario,
    ground: Ground,
    processes: Vec<Process>,
    set: JoinSet<Ended>,
    clients: JoinSet<()>,
    late: JoinSet<()>,
    /// What hosts do by themselves.
    _background: JoinSet<()>,
    timeline: BTreeMap<(Duration, u64), Action>,
    planned: u64,
    /// Rounds of orders that the operator has given.
    orders: usize,
    terms: Terms,
    /// Since when there is nothing to do any more.
    quiet: Option<Duration>,
}

/// Runs the schedule; keeps the last `lines` lines of its trace.
pub(crate) async fn run(scenario: Scenario, lines: usize) -> Report {
    let seed = scenario.seed;
    let weather = Weather::new(scenario.rates.clone());
    let bed = Arc::new(Bed::new(weather, scenario.history, Checker::default(), lines));
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
        let (project, hosts) = found(&scenario, &bed, images.clone(), image, &mut rng).await?;
        let ids: Arc<[HostId]> = hosts.iter().map(|h| h.id).collect();
        let door = Arc::new(Door::new(bed.clone()));
        let ground = Ground {
            seed: scenario.seed,
            bed: bed.clone(),
            door: door.clone(),
            images,
            marks: Arc::new(Marks::default()),
            hosts,
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
        let terms = Terms {
            door,
            project,
            image,
            hosts: ids,
        };
        let mut background = JoinSet::new();
        for host in &ground.hosts {
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
            terms: terms.clone(),
            scenario,
        };
        for process in 0..world.processes.len() {
            world.after(Duration::from_millis(rng.below(500)), Action::Start(process));
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

    fn after(&mut self, time: Duration, action: Action) {
        self.planned += 1;
        let at = self.ground.bed.clock.elapsed() + time;
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

    /// Something happens. `true`: the schedule is over.
    async fn act(&mut self, action: Action) -> bool {
        match action {
            Action::Fault(fault) => self.fault(fault).await,
            Action::Start(process) => {
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
            Action::Heal => self.heal(),
            Action::Look => return self.look().await,
        }
        false
    }

    fn disk_full(&self, host: usize, full: bool) {
        let host = &self.ground.hosts[host];
        host.disk.set_full(full);
        let _ = host.fake.pool_full(full);
    }

    fn each_life(&self, process: usize, change: impl Fn(&Gate)) {
        let process = &self.processes[process];
        for life in process.life.iter().chain(&process.zombie) {
            change(&life.gate);
        }
    }

    async fn fault(&mut self, fault: Planned) {
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
                let _ = host.fake.fault_next(point, *what);
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
            Planned::Rogue { host, pick } => {
                bit("rogue");
                self.rogue(host, pick).await;
            }
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

    /// The faults end: whoever was down, still or cut off goes on.
    fn heal(&mut self) {
        let bed = self.ground.bed.clone();
        bed.note("world", "heals", String::new);
        bed.weather.calm();
        bed.set_full(false);
        self.timeline
            .retain(|_, action| !matches!(action, Action::Fault(_)));
        for (i, host) in self.ground.hosts.iter().enumerate() {
            let _ = host.fake.heal();
            host.fake.release_events();
            self.disk_full(i, false);
        }
        for i in 0..self.processes.len() {
            self.each_life(i, |gate| {
                gate.cut(false, false);
                gate.lag(0);
                gate.pause(false);
            });
            let agent = matches!(self.processes[i].part, Part::Agent(_));
            if self.scenario.restart_all || (agent && self.scenario.rates.contains_key(&Kind::Host)) {
                self.processes[i].kill(&self.ground);
            }
            self.processes[i].bury();
            if self.processes[i].life.is_none() {
                self.after(Duration::from_millis(100 * (i as u64 + 1)), Action::Start(i));
            }
        }
        self.after(LOOK, Action::Look);
    }

    /// Whether everything has come to rest as it should. `true`: the schedule is over.
    async fn look(&mut self) -> bool {
        let bed = self.ground.bed.clone();
        let now = bed.clock.elapsed();
        while self.clients.try_join_next().is_some() {}
        let open: Vec<_> = bed.checker(|c| c.open_tasks().collect());
        if self.clients.is_empty() && open.is_empty() && self.late.is_empty() {
            let since = *self.quiet.get_or_insert(now);
            let stuck = bed.checker(|c| c.stuck_tasks());
            let wrong = if stuck.is_empty() {
                self.at_rest().await
            } else if let Some(verb) = ORDERS.get(self.orders) {
                self.orders += 1;
                let operator = Client::new(100 + self.orders, self.terms.clone(), self.scenario.seed);
                self.clients.spawn(operator.order(stuck, *verb));
                vec![("I8", format!("{verb:?} is ordered"))]
            } else {
                vec![("I8", format!("tasks are stuck after all orders: {stuck:?}"))]
            };
            let Some((invariant, what)) = wrong.first() else {
                return true;
            };
            if now - since > SETTLE {
                bed.violated(invariant, format!("{what}; in all {} such things", wrong.len()));
                return true;
            }
        } else {
            self.quiet = None;
        }
        if bed.steps() > MOST_STEPS {
            bed.violated("I8", format!("{MOST_STEPS} steps and no end; open: {open:?}"));
            return true;
        }
        if now > self.scenario.faults_until + REST {
            let open: Vec<String> = bed.checker(|c| open.iter().map(|(id, _)| c.task(*id)).collect());
            let clients = self.clients.len();
            bed.violated(
                "I8",
                format!("no rest after {REST:?}; {clients} clients wait; open: {open:#?}"),
            );
            return true;
        }
        self.after(LOOK, Action::Look);
        false
    }

    async fn at_rest(&self) -> Vec<Leftover> {
        let bed = &self.ground.bed;
        let seen: Vec<_> = self.ground.hosts.iter().map(|h| h.seen()).collect();
        let mut wrong = bed.checker(|c| c.at_rest(&seen));
        for (task, job) in self.ground.marks.there() {
            if matches!(
                bed.checker(|c| c.state(task)),
                Some(TaskState::Failed | TaskState::Cancelled)
            ) && !bed.checker(|c| c.abandoned(task))
            {
                wrong.push((
                    "I10",
                    format!("task {task} was undone and the mark of {job} is there"),
                ));
            }
        }
        if self.scenario.watcher {
            let truth = self.looker("looker").everything(watcher::WATCHED).await;
            let truth = truth.into_iter().map(|kv| (kv.key, kv.modified)).collect();
            wrong.extend(watcher::compare(&self.ground.shown, &truth).map(|what| ("I9", what)));
        }
        if wrong.is_empty() && self.orders == 0 {
            wrong.extend(self.reconciled().await.map(|what| ("I12", what)));
        }
        wrong
    }

    /// What the product's own reconciler finds to do: there should be nothing.
    async fn reconciled(&self) -> Option<String> {
        let clock = Arc::new(self.ground.bed.clock);
        let cloud = Cloud::new(CloudParts {
            backend: Arc::new(self.looker("reconciler")),
            clock: clock.clone(),
            ids: Arc::new(SeededIds::new(clock, self.scenario.seed)),
            images: self.ground.images.clone(),
        });
        match cloud.reconcile(&mut Suspects::default()).await {
            Ok(found) if found == Reconciled::default() => None,
            found => Some(format!("the reconciler finds {found:?}")),
        }
    }

    fn looker(&self, name: &str) -> Direct {
        Direct {
            bed: self.ground.bed.clone(),
            who: Who {
                name: name.into(),
                part: Part::Watcher,
                life: 1,
            },
        }
    }
}
