//! Where the calls themselves are the contract.

use async_trait::async_trait;
use mockall::automock;
use serde_json::{Value, json};
use skyloom_flow::{Job, JobContext, JobError, JobRegistry, Undo};
use skyloom_model::TaskState;

use crate::world::{Step1, World};

/// The calls of a job, without their context.
#[automock]
trait Calls: Send + Sync {
    fn run(&self) -> Result<Value, JobError>;
    fn undo(&self) -> Result<Undo, JobError>;
}

struct Effect(MockCalls);

impl std::fmt::Debug for Effect {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Effect")
    }
}

#[async_trait]
impl Job for Effect {
    fn kind(&self) -> &'static str {
        "test.step"
    }
    async fn run(&self, _: &JobContext<'_>) -> Result<Value, JobError> {
        self.0.run()
    }
    async fn undo(&self, _: &JobContext<'_>) -> Result<Undo, JobError> {
        self.0.undo()
    }
}

#[tokio::test]
async fn of_two_engines_that_see_a_job_one_calls_it_once() {
    for _ in 0..20 {
        let world = World::new();
        let mut effect = MockCalls::new();
        effect.expect_run().times(1).returning(|| Ok(json!({})));
        effect.expect_undo().never();
        let jobs = JobRegistry::new().with(Effect(effect));
        let (first, _second) = (
            world.life_with("e1", jobs.clone()).await,
            world.life_with("e2", jobs).await,
        );
        let mark = world.submit(&[Step1::new("a", &[])]).await;
        assert_eq!(first.carry(&world, &mark).await.state, TaskState::Done);
    }
}

#[tokio::test]
async fn a_job_that_failed_for_good_is_undone_once_and_not_run_again() {
    let world = World::new();
    let mut effect = MockCalls::new();
    effect
        .expect_run()
        .times(1)
        .returning(|| Err(JobError::permanent("test.no", "no")));
    effect.expect_undo().times(1).returning(|| Ok(Undo::Undone));
    let life = world
        .life_with("e1", JobRegistry::new().with(Effect(effect)))
        .await;
    let mark = world.submit(&[Step1::new("a", &[])]).await;
    assert_eq!(life.carry(&world, &mark).await.state, TaskState::Failed);
}
