//! The ten steps on steno: a chain of actions, each the output of the one before plus one.
//!
//! In doubt steno is favoured: the DAG is built once and shared by all sagas, the actions are registered once, nothing is
//! logged. Its coordinator has no call that forgets a finished saga, so it keeps them all.

use std::sync::Arc;

use anyhow::{Context as _, bail};
use async_trait::async_trait;
use steno::{
    ActionContext, ActionError, ActionFunc, ActionRegistry, DagBuilder, Node, SagaCachedState,
    SagaCreateParams, SagaDag, SagaId, SagaName, SagaNodeEvent, SagaType, SecClient, SecStore,
};

use crate::STEPS;
use crate::wal::Wal;

#[derive(Debug)]
struct Adding;

impl SagaType for Adding {
    type ExecContextType = ();
}

/// The node's label names the step before it; the first has none.
async fn add(cx: ActionContext<Adding>) -> Result<u64, ActionError> {
    let before = cx.node_label();
    let x = if before.is_empty() {
        0
    } else {
        cx.lookup::<u64>(&before)?
    };
    Ok(x + 1)
}

async fn take_back(_: ActionContext<Adding>) -> anyhow::Result<()> {
    Ok(())
}

/// A coordinator with all that its sagas share.
#[derive(Debug)]
pub struct Sagas {
    sec: SecClient,
    dag: Arc<SagaDag>,
    registry: Arc<ActionRegistry<Adding>>,
}

impl Sagas {
    /// A coordinator over `store`.
    pub fn new(store: Arc<dyn SecStore>) -> anyhow::Result<Self> {
        let action = ActionFunc::new_action("add", add, take_back);
        let mut registry = ActionRegistry::new();
        registry.register(Arc::clone(&action));
        let mut builder = DagBuilder::new(SagaName::new("ten"));
        for n in 0..STEPS {
            let before = n.checked_sub(1).map_or(String::new(), step);
            builder.append(Node::action(step(n), before, &*action));
        }
        let dag = SagaDag::new(builder.build()?, serde_json::Value::Null);
        Ok(Self {
            sec: steno::sec(slog::Logger::root(slog::Discard, slog::o!()), store),
            dag: Arc::new(dag),
            registry: Arc::new(registry),
        })
    }

    /// One workflow, from its creation to its end.
    pub async fn one(&self) -> anyhow::Result<()> {
        let id = SagaId::new_v4();
        let end = self
            .sec
            .saga_create(
                id,
                Arc::new(()),
                Arc::clone(&self.dag),
                Arc::clone(&self.registry),
            )
            .await?;
        self.sec.saga_start(id).await?;
        let done = match end.await.kind {
            Ok(done) => done,
            Err(failed) => bail!("the saga failed: {failed:?}"),
        };
        let x: u64 = done
            .lookup_node_output(&step(STEPS - 1))
            .context("the last output")?;
        if x != STEPS as u64 {
            bail!("ten times plus one gave {x}");
        }
        Ok(())
    }
}

fn step(n: usize) -> String {
    format!("s{n}")
}

/// Every record of a saga in a write-ahead log, on disk before steno goes on.
#[derive(Debug)]
pub struct WalStore(pub Arc<Wal>);

#[async_trait]
impl SecStore for WalStore {
    async fn saga_create(&self, create: SagaCreateParams) -> anyhow::Result<()> {
        self.0.append(serde_json::to_vec(&create)?).await
    }

    async fn record_event(&self, event: SagaNodeEvent) {
        let record = serde_json::to_vec(&event).expect("an event is a document");
        self.0.append(record).await.expect("the log took the event");
    }

    async fn saga_update(&self, id: SagaId, update: SagaCachedState) {
        let record = serde_json::to_vec(&(id, update)).expect("a state is a document");
        self.0.append(record).await.expect("the log took the state");
    }
}
