//! Which troubles there are for a case, and whether a run came out as it must.

use std::collections::BTreeSet;
use std::sync::Arc;

use skyloom_model::{Clock, JobId, JobState, TaskState};

use super::run::{Ran, carry, run};
use super::script::{How, Target, Trouble, When, Who};
use super::{Arena, Back, Case, Digest, TokioClock, World};

/// What all runs of a case are compared with.
struct Plain {
    before: Digest,
    ran: Ran,
    /// Commits of a run that goes all the way back.
    back_commits: usize,
}

/// Runs `case` through every trouble that there is for it, each in a fresh world, and says how many runs that were. To be
/// called in a runtime of its own with paused time.
///
/// # Errors
/// Every run that did not come out as it must, one line each.
pub async fn torture(arena: &dyn Arena, case: &Case) -> Result<usize, Vec<String>> {
    let plain = match plain(arena, case).await {
        Ok(plain) => plain,
        Err(why) => return Err(vec![format!("{case}, plain: {why}")]),
    };
    let troubles = troubles(&plain);
    let mut wrong = Vec::new();
    for trouble in &troubles {
        if let Err(why) = one(arena, case, &plain, trouble).await {
            wrong.push(format!("{case}, {trouble:?}: {why}"));
        }
    }
    if wrong.is_empty() {
        Ok(troubles.len() + 1)
    } else {
        Err(wrong)
    }
}

async fn fresh(arena: &dyn Arena, case: &Case) -> (Arc<dyn World>, Arc<dyn Clock>) {
    let clock: Arc<dyn Clock> = Arc::new(TokioClock::new());
    (arena.world(case, clock.clone()).await, clock)
}

/// The run with nothing in its way, twice: it must come out the same; and one that goes all the way back, to be measured.
async fn plain(arena: &dyn Arena, case: &Case) -> Result<Plain, String> {
    let (world, clock) = fresh(arena, case).await;
    let before = world.digest().await;
    let ran = run(&world, &clock, Trouble::None, None).await?;
    if ran.task.flow != case.flow {
        return Err(format!("the world asks for {}", ran.task.flow));
    }
    if ran.task.state != TaskState::Done {
        return Err(format!("ended as {:?}: {:?}", ran.task.state, ran.task.reason));
    }
    clean(&ran)?;
    let mut plain = Plain {
        before,
        ran,
        back_commits: 0,
    };
    if let Some(turn) = plain.turn() {
        let (world, clock) = fresh(arena, case).await;
        let trouble = Trouble::Fail(Target::Kind(turn.clone()), When::After, How::ForGood);
        let back = run(&world, &clock, trouble, Some(turn)).await?;
        plain.back_commits = back.commits;
    }
    Ok(plain)
}

impl Plain {
    fn turn(&self) -> Option<String> {
        self.ran.jobs.last().map(|job| job.spec.kind.clone())
    }
}

/// All that can go wrong.
fn troubles(plain: &Plain) -> Vec<Trouble> {
    let mut all = vec![Trouble::Twice];
    let whens = [When::Before, When::After];
    let ids: Vec<&JobId> = plain.ran.jobs.iter().map(|job| &job.spec.id).collect();
    let kinds: BTreeSet<&String> = plain.ran.jobs.iter().map(|job| &job.spec.kind).collect();
    let targets = ids.into_iter().cloned().map(Target::Job);
    for target in targets.chain(kinds.iter().map(|kind| Target::Kind((*kind).clone()))) {
        for when in whens {
            for how in [How::ForGood, How::EachTime] {
                all.push(Trouble::Fail(target.clone(), when, how));
            }
        }
    }
    for kind in kinds {
        all.extend(whens.map(|when| Trouble::UndoFails(kind.clone(), when)));
        all.push(Trouble::Stuck(kind.clone()));
    }
    all.extend((1..=plain.ran.commits).map(Trouble::Cancel));
    for (back, commits) in [(false, plain.ran.commits), (true, plain.back_commits)] {
        for at in 1..=commits {
            for applied in [false, true] {
                for who in [Who::One, Who::All] {
                    all.push(Trouble::Crash {
                        at,
                        applied,
                        who,
                        back,
                    });
                }
            }
        }
    }
    all
}

async fn one(arena: &dyn Arena, case: &Case, plain: &Plain, trouble: &Trouble) -> Result<(), String> {
    let (world, clock) = fresh(arena, case).await;
    if world.digest().await != plain.before {
        return Err("the world is not the same each time".to_owned());
    }
    let ran = run(&world, &clock, trouble.clone(), plain.turn()).await?;
    let state = ran.task.state;
    let allowed: &[TaskState] = match trouble {
        Trouble::Fail(..)
        | Trouble::UndoFails(..)
        | Trouble::Stuck(_)
        | Trouble::Crash { back: true, .. }
            if case.back == Back::Onward =>
        {
            &[TaskState::Failed, TaskState::Done]
        }
        Trouble::None | Trouble::Twice | Trouble::Crash { back: false, .. } => &[TaskState::Done],
        Trouble::Fail(Target::Job(_), ..) => &[TaskState::Failed, TaskState::Done],
        Trouble::Fail(Target::Kind(_), ..)
        | Trouble::UndoFails(..)
        | Trouble::Stuck(_)
        | Trouble::Crash { back: true, .. } => &[TaskState::Failed],
        Trouble::Cancel(_) => &[TaskState::Cancelled, TaskState::Done],
    };
    if !allowed.contains(&state) {
        return Err(format!("ended as {state:?}: {:?}", ran.task.reason));
    }
    clean(&ran)?;
    if state == TaskState::Done {
        same(&ran.digest, &plain.ran.digest, "after the plain run")?;
        if !matches!(trouble, Trouble::Fail(..)) && ran.tally != plain.ran.tally {
            return Err(format!("done {:?} times, not {:?}", ran.tally, plain.ran.tally));
        }
        return Ok(());
    }
    match case.back {
        Back::Before | Back::Onward => same(&ran.digest, &plain.before, "before")?,
        Back::Between => between(&ran.digest, plain)?,
    }
    if let Some(again) = world.ask_again().await {
        let again = carry(&world, &clock, &again).await;
        let again = again.map_err(|e| format!("asked again: {e}"))?;
        if again.state != TaskState::Done {
            let why = again.reason;
            return Err(format!("asked again, ended as {:?}: {why:?}", again.state));
        }
    }
    same(
        &world.digest().await,
        &plain.ran.digest,
        "after the plain run, asked again",
    )
}

/// Nothing is left, and what the job records say fits how the task ended.
fn clean(ran: &Ran) -> Result<(), String> {
    if !ran.left.is_empty() {
        return Err(format!("left over: {}", ran.left.join(", ")));
    }
    let fits = |state| match ran.task.state {
        // Stages that were undone stay among the jobs.
        TaskState::Done => matches!(state, JobState::Succeeded | JobState::Undone),
        _ => state == JobState::Undone,
    };
    match ran.jobs.iter().find(|job| !fits(job.state)) {
        Some(job) => Err(format!("the job {} is {:?} at the end", job.spec.id, job.state)),
        None => Ok(()),
    }
}

/// Everything outside is as it is at some point of the plain run. Not all of it at the same point: jobs that do not wait for each
/// other come in any order.
fn between(have: &Digest, plain: &Plain) -> Result<(), String> {
    let passed: Vec<&Digest> = plain.ran.passed.iter().chain([&plain.before]).collect();
    let names: BTreeSet<&String> = passed.iter().flat_map(|d| d.keys()).chain(have.keys()).collect();
    for name in names {
        if !passed.iter().any(|d| d.get(name) == have.get(name)) {
            return Err(format!("the plain run never passes {name}: {:?}", have.get(name)));
        }
    }
    Ok(())
}

fn same(have: &Digest, want: &Digest, when: &str) -> Result<(), String> {
    if have == want {
        return Ok(());
    }
    Err(format!("the outside is not as {when}: {have:?}, not {want:?}"))
}
