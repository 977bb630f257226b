//! `server.live-migrate`, in stages: to another host, running on.
//!
//! ```text
//!  receive ──> send ──> pass ... ──> switch ──> arrive ──> done
//!     └─────────┴─────────┴─ failed,    │ failed   │ failed
//!               cancelled: all back     └──> look <┘ at both sides: the truth decides
//!                                              │ the source's   all back
//!                                              │ the destination's   arrive
//!                                              │ nobody's            boot: the memory is lost
//!                                              └ not settled         look again, then stuck: who knows fences or waits
//! ```
//!
//! From the switch on there is no way back: `task cancel` is refused, and undos ensure what the truth says. The server never boots from
//! its disks unless both sides have said that its memory is nobody's.

use serde::{Deserialize, Serialize};
use serde_json::json;
use skyloom_flow::{PlanContext, Planned, Records, Refusal, SettleContext, Settled, StageEnd, TaskFlow};
use skyloom_hypervisor::{Half, Incoming, Seen, Stream, Truth, truth};
use skyloom_model::{
    HostId, JobId, JobSpec, Place, Plan, PowerState, Reason, Resource as _, Server, StageOutcome, Task,
    TaskEnd, VmObservation,
};
use skyloom_store::{Key, Txn};

use super::definition::definition;
use super::moving::{begin, end, moving_reads, ports_of};
use super::records::{order, seen_key, subject_key};
use super::server_power::{start, started};
use super::{Outputs, Step, last_output, output, params};
use crate::jobs::{DepartInput, HalfSeen, HandedOver, LeaveInput, Passed, ServerInput, UndefineInput};

/// Moves a server that runs.
#[derive(Debug, Clone, Copy, Default)]
pub struct ServerLiveMigrate;

/// Parameters of `server.live-migrate`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LiveParams {
    /// The only host that is wanted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) host: Option<HostId>,
}

const RECEIVE: &str = "receive";
const SEND: &str = "send";
const PASS: &str = "pass";
const SWITCH: &str = "switch";
const ARRIVE: &str = "arrive";
const LOOK: &str = "look";
const BOOT: &str = "boot";

/// Stages of passes before a migration is given up: each of them lasts ten seconds at most.
const PASSES: usize = 360;
/// Looks at both sides before the task is left to operators.
const LOOKS: usize = 30;

/// Whether the guest may be its destination's by now: such a migration is not cancelled any more.
pub(crate) fn past_return(plan: &Plan) -> bool {
    let mut stages = plan.stages.iter();
    stages.any(|stage| stage.name == SWITCH)
}

/// A migration under way, for its next stage.
struct Way<'a> {
    task: &'a Task,
    end: &'a StageEnd<'a>,
    server: Server,
    from: Place,
    to: Place,
}

impl<'a> Way<'a> {
    fn of(task: &'a Task, end: &'a StageEnd<'a>, cx: &PlanContext<'_>) -> Result<Self, Reason> {
        let server: Server = cx.records.need(&subject_key(task)?)?;
        let hosts = server
            .status
            .placement
            .as_ref()
            .zip(server.status.migration.as_ref());
        let (from, to) = hosts
            .map(|(from, moving)| (Place::Host(from.host), Place::Host(moving.to.host)))
            .ok_or_else(|| Reason::new("server.not_migrating", "the server is not on its way"))?;
        Ok(Self {
            task,
            end,
            server,
            from,
            to,
        })
    }

    fn input(&self) -> ServerInput {
        ServerInput {
            server: self.server.id(),
        }
    }

    /// A job's name that no stage before has given.
    fn named(&self, kind: &str) -> JobId {
        let before = self.end.plan.jobs.iter().filter(|job| job.kind == kind).count();
        match before {
            0 => JobId::new(kind),
            n => JobId::new(format!("{kind}.{}", n + 1)),
        }
    }

    fn step<T: Serialize>(&self, kind: &str, title: &str, place: Place, input: &T) -> Result<Step, Reason> {
        let step = Step::new(kind, title, place, input)?.id(self.named(kind));
        Ok(step.attempts(5, 1000).within(300))
    }

    /// The jobs of the stage that has ended: who follows them is undone before them.
    fn before(&self) -> Vec<JobId> {
        let last = self.end.plan.last_stage();
        last.map(|stage| stage.jobs.clone()).unwrap_or_default()
    }

    fn stages(&self, name: &str) -> usize {
        let stages = self.end.plan.stages.iter();
        stages.filter(|stage| stage.name == name).count()
    }

    fn staged(&self, stage: &str, jobs: Vec<JobSpec>) -> Planned {
        Planned {
            stage: stage.to_owned(),
            jobs,
            generation: self.server.meta.generation,
            ..Planned::default()
        }
    }

    fn pass(&self, after: Vec<JobId>) -> Result<JobSpec, Reason> {
        let pass = self.step("vm.pass", "send what the guest writes", self.from, &self.input())?;
        Ok(pass.after(after).weight(5).done())
    }

    fn send(&self) -> Result<Planned, Reason> {
        let to = output::<Incoming>(self.end.outputs, "vm.receive");
        let to =
            to.ok_or_else(|| Reason::new("migration.no_address", "nobody has said where it is waited for"))?;
        let input = DepartInput {
            server: self.server.id(),
            to,
        };
        let send = self.step("vm.send", "send the guest's memory", self.from, &input)?;
        let send = send.after(self.before()).done();
        let pass = self.pass(vec![send.id.clone()])?;
        Ok(self.staged(SEND, vec![send, pass]))
    }

    /// The last look at the passes says what follows.
    fn passed(&self) -> Result<Planned, Refusal> {
        let passes = self
            .end
            .plan
            .jobs
            .iter()
            .rev()
            .filter(|job| job.kind == "vm.pass");
        let mut passed = passes.filter_map(|job| output::<Passed>(self.end.outputs, job.id.as_str()));
        if passed.next().is_some_and(|passed| passed.ready) {
            let over = self.step("vm.hand-over", "switch over", self.from, &self.input())?;
            return Ok(self.staged(SWITCH, vec![over.after(self.before()).done()]));
        }
        if self.stages(PASS) >= PASSES {
            let message = "the guest writes faster than its memory is sent";
            let reason = Reason::new("migration.too_slow", message);
            return Err(Refusal::Fail(
                reason.hint("force its completion, or migrate it when it does less"),
            ));
        }
        let forced = self
            .server
            .status
            .migration
            .as_ref()
            .is_some_and(|moving| moving.forced);
        let had = self.end.plan.jobs.iter().any(|job| job.kind == "vm.force");
        let mut jobs = Vec::new();
        let mut after = self.before();
        if forced && !had {
            let force = self.step("vm.force", "have the passes end", self.from, &self.input())?;
            let force = force.after(std::mem::take(&mut after)).done();
            after = vec![force.id.clone()];
            jobs.push(force);
        }
        jobs.push(self.pass(after)?);
        Ok(self.staged(PASS, jobs))
    }

    fn look(&self) -> Result<Planned, Refusal> {
        if self.stages(LOOK) >= LOOKS {
            let message = "nobody can tell on which host the guest is";
            let reason = Reason::new("migration.unknown", message);
            return Err(Refusal::Fail(reason.hint(
                "when its hosts answer again: task retry. A skip gives up what has not arrived",
            )));
        }
        let source = self.step("vm.half", "look at the source", self.from, &self.input())?;
        let (source, n) = (source.done(), self.stages(LOOK) + 1);
        let there = Step::new("vm.half", "look at the destination", self.to, &self.input())?;
        let there = there.id(JobId::new(format!("vm.half.there.{n}")));
        let source = JobSpec {
            id: JobId::new(format!("vm.half.here.{n}")),
            ..source
        };
        let there = there.attempts(5, 1000).within(300).done();
        Ok(self.staged(LOOK, vec![source, there]))
    }

    /// The guest is the destination's: what is left to do there, and at the source. Nothing, where a step that failed has done it, or its
    /// undo, which leads onward.
    fn arrive(&self, cx: &PlanContext<'_>, there: Seen, here: Seen) -> Result<Option<Planned>, Reason> {
        let mut jobs: Vec<JobSpec> = Vec::new();
        if !matches!(there, Seen::Here(Half::Whole, _)) {
            let over = self.step("vm.take-over", "let the guest go on", self.to, &self.input())?;
            jobs.push(over.done());
        }
        if here != Seen::Gone {
            let wirings = definition(self.task, &self.server, cx.records, true)?.wirings;
            let after = jobs.iter().map(|job| job.id.clone()).collect();
            jobs.push(self.leave(ports_of(&wirings), after)?);
        }
        Ok((!jobs.is_empty()).then(|| self.staged(ARRIVE, jobs)))
    }

    fn leave(&self, ports: Vec<crate::jobs::PortGone>, after: Vec<JobId>) -> Result<JobSpec, Reason> {
        let input = LeaveInput {
            server: self.server.id(),
            ports,
            back: None,
        };
        let title = "leave nothing of it on the host before";
        Ok(self
            .step("vm.leave", title, self.from, &input)?
            .after(after)
            .done())
    }

    /// The memory is lost: nothing of it may stay anywhere, then the guest boots at the destination under a newer order.
    fn boot(mut self, cx: &PlanContext<'_>) -> Result<Planned, Reason> {
        order(&mut self.server, cx);
        let changes = cx
            .records
            .put(Txn::new(), &subject_key(self.task)?, &self.server)?;
        let there = definition(self.task, &self.server, cx.records, false)?;
        let leave = self.leave(ports_of(&there.wirings), Vec::new())?;
        let lost = UndefineInput {
            server: self.server.id(),
            generation: None,
        };
        let lost = self.step("vm.undefine", "forget the memory that is lost", self.to, &lost)?;
        let lost = lost.after([leave.id.clone()]).done();
        let define = Step::new("vm.define", "make it on the other host", self.to, &there)?;
        let define = define.after([lost.id.clone()]).within(120).done();
        let mut on = start(self.server.id(), self.to)?;
        on.after = vec![define.id.clone()];
        Ok(Planned {
            changes,
            ..self.staged(BOOT, vec![leave, lost, define, on])
        })
    }

    /// What the last look has found, here at the source and there at the destination.
    fn seen(&self) -> (Seen, Seen) {
        let n = self.stages(LOOK);
        let seen = |side: &str| match output::<HalfSeen>(self.end.outputs, &format!("vm.half.{side}.{n}")) {
            Some(HalfSeen {
                half: Some((half, stream)),
            }) => Seen::Here(half, stream),
            Some(HalfSeen { half: None }) => Seen::Gone,
            None => Seen::CannotTell,
        };
        (seen("here"), seen("there"))
    }

    /// Why the migration is given up.
    fn why(&self) -> Reason {
        let undone = self
            .end
            .plan
            .stages
            .iter()
            .rev()
            .find_map(|stage| match &stage.outcome {
                Some(StageOutcome::Undone(reason)) => Some(reason.clone()),
                _ => None,
            });
        undone.unwrap_or_else(|| Reason::new("migration.broken", "the guest runs on where it was"))
    }
}

impl TaskFlow for ServerLiveMigrate {
    fn name(&self) -> &'static str {
        "server.live-migrate"
    }

    fn reads(&self, task: &Task, have: &Records, _outputs: &Outputs) -> Vec<Key> {
        moving_reads(task, have).unwrap_or_default()
    }

    fn plan(&self, task: &Task, cx: &mut PlanContext<'_>) -> Result<Planned, Refusal> {
        let LiveParams { host } = params(task)?;
        let moving = begin(task, cx, true, host)?;
        let input = definition(task, &moving.server, cx.records, false)?;
        let title = "wait for the guest on the other host";
        let receive = Step::new("vm.receive", title, Place::Host(moving.to), &input)?;
        Ok(Planned {
            stage: RECEIVE.to_owned(),
            jobs: vec![receive.weight(2).within(120).done()],
            placement: Some(moving.explanation),
            changes: moving.changes,
            generation: moving.server.meta.generation,
            ..Planned::default()
        })
    }

    fn next(
        &self,
        task: &Task,
        end: &StageEnd<'_>,
        cx: &mut PlanContext<'_>,
    ) -> Result<Option<Planned>, Refusal> {
        let way = Way::of(task, end, cx)?;
        let done = *end.outcome == StageOutcome::Done;
        match (end.stage, done) {
            (RECEIVE, true) => Ok(Some(way.send()?)),
            (SEND | PASS, true) => way.passed().map(Some),
            (SWITCH, true) => {
                let over = output::<HandedOver>(end.outputs, "vm.hand-over").map(|over| over.stream);
                match over {
                    Some(Stream::Complete) => {
                        let (here, there) = (
                            Seen::Here(Half::HandedOver, Stream::Complete),
                            Seen::Here(Half::Receiving, Stream::Complete),
                        );
                        Ok(way.arrive(cx, there, here)?)
                    }
                    _ => way.look().map(Some),
                }
            }
            (LOOK, true) => {
                let (here, there) = way.seen();
                match truth(here, there) {
                    Truth::Source => Err(Refusal::Fail(way.why())),
                    Truth::Destination => Ok(way.arrive(cx, there, here)?),
                    Truth::Disks => Ok(Some(way.boot(cx)?)),
                    Truth::Unknown => way.look().map(Some),
                }
            }
            (SWITCH | ARRIVE | LOOK, false) => way.look().map(Some),
            // Arrived; or back as it was before, or off with both hosts rid of it.
            _ => Ok(None),
        }
    }

    fn settle(&self, task: &Task, cx: &SettleContext<'_>) -> Result<Settled, Reason> {
        let arrived = cx.end == TaskEnd::Done || arrived(task, cx)?;
        let booted = cx.outputs.contains_key(&JobId::new("vm.start"));
        let mut settled = end(task, cx, arrived, |server| {
            let lost = cx
                .plan
                .is_some_and(|plan| plan.stages.iter().any(|stage| stage.name == BOOT));
            if lost {
                server.status.power = PowerState::Stopped;
                started(server, cx);
            }
        })?;
        if cx.end == TaskEnd::Done {
            let passed = last_output::<Passed>(cx, "vm.pass");
            let progress = passed.map(|passed| passed.progress);
            settled.result = Some(json!({ "memory_lost": booted, "progress": progress }));
        }
        Ok(settled)
    }
}

/// Whether the guest runs at its destination by the order of the task, and nothing of it is at its source.
fn arrived(task: &Task, cx: &SettleContext<'_>) -> Result<bool, Reason> {
    let Some(server) = cx.records.get::<Server>(&subject_key(task)?)? else {
        return Ok(false);
    };
    let (Some(from), Some(moving)) = (&server.status.placement, &server.status.migration) else {
        return Ok(false);
    };
    let seen = |host| cx.records.get::<VmObservation>(&seen_key(host, server.id())?);
    let there = seen(moving.to.host)?
        .is_some_and(|there| there.generation == server.meta.generation && there.power.may_execute());
    Ok(there && seen(from.host)?.is_none())
}
