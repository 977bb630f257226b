//! The exam of [`MemoryStore`], alone or under layers.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use skyloom_model::ManualClock;

use super::{Abilities, Exam, Failure, Sitting, Verdict};
use crate::{DynBackend, MemoryConfig, MemoryStore, Revision};

type Wrap = dyn Fn(DynBackend, ManualClock) -> DynBackend + Send + Sync;

/// A memory store with a manual clock, wrapped in whatever is to be examined.
pub struct MemoryExam {
    name: &'static str,
    wrap: Box<Wrap>,
}

impl fmt::Debug for MemoryExam {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryExam")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl MemoryExam {
    /// The memory store itself.
    #[must_use]
    pub fn new() -> Self {
        Self::wrapped("memory", |store, _| store)
    }

    /// The memory store inside what `wrap` puts around it; the clock is the one that leases run by.
    #[must_use]
    pub fn wrapped(
        name: &'static str,
        wrap: impl Fn(DynBackend, ManualClock) -> DynBackend + Send + Sync + 'static,
    ) -> Self {
        Self {
            name,
            wrap: Box::new(wrap),
        }
    }
}

impl Default for MemoryExam {
    fn default() -> Self {
        Self::new()
    }
}

#[async_trait]
impl Exam for MemoryExam {
    fn name(&self) -> String {
        self.name.to_owned()
    }

    fn abilities(&self) -> Abilities {
        Abilities {
            compact: true,
            reopen: false,
        }
    }

    async fn fresh(&self) -> Result<Box<dyn Sitting>, Failure> {
        let clock = ManualClock::new();
        let memory = Arc::new(MemoryStore::new(Arc::new(clock.clone()), MemoryConfig::default()));
        let store = (self.wrap)(memory.clone(), clock.clone());
        Ok(Box::new(MemorySitting { clock, memory, store }))
    }
}

struct MemorySitting {
    clock: ManualClock,
    memory: Arc<MemoryStore>,
    store: DynBackend,
}

#[async_trait]
impl Sitting for MemorySitting {
    fn store(&self) -> DynBackend {
        self.store.clone()
    }

    async fn pass_time(&self, by: Duration) {
        self.clock.advance(by);
    }

    async fn compact(&self, revision: Revision) -> Verdict {
        self.memory.compact(revision);
        Ok(())
    }
}
