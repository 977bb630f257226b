//! The fake host itself, and the hand of the test.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use parking_lot::Mutex;
use skyloom_model::{HostFacts, PowerState, ServerId};
use tokio::sync::{Semaphore, broadcast, watch};

use super::book::{Book, FakeDomain};
use super::history::{Effect, EffectKind};
use super::ledger::Ledger;
use super::script::{Fault, FaultPoint, Planned};
use super::storage::FakeImage;
use super::{FakeHypervisor, FakeOptions, FakeStorage};
use crate::{Capability, ErrorKind, Result, VmEvent};

/// A fake host. Clones are the same host.
#[derive(Debug, Clone)]
pub struct FakeWorld(pub(super) Arc<Host>);

#[derive(Debug)]
pub(super) struct Host {
    pub(super) ledger: Ledger,
    pub(super) root: PathBuf,
    pub(super) durable: bool,
    pub(super) capability: Capability,
    pub(super) facts: Mutex<HostFacts>,
    pub(super) events: broadcast::Sender<VmEvent>,
    pub(super) delayed: Mutex<VecDeque<VmEvent>>,
    pub(super) step: bool,
    pub(super) steps: Semaphore,
    pub(super) waiting: watch::Sender<usize>,
    pub(super) sequence: Arc<AtomicU64>,
}
impl FakeWorld {
    /// Opens the host. A directory shows what it held before.
    ///
    /// # Errors
    /// When the directory cannot be made.
    pub fn open(options: FakeOptions) -> Result<Self> {
        let (ledger, root) = match &options.directory {
            Some(root) => (Ledger::directory(root.clone())?, root.clone()),
            None => (Ledger::memory(), PathBuf::from("/fake")),
        };
        Ok(Self::over(ledger, root, options))
    }

    /// A host in memory with default facts.
    #[must_use]
    pub fn in_memory() -> Self {
        Self::over(Ledger::memory(), PathBuf::from("/fake"), FakeOptions::in_memory())
    }

    fn over(ledger: Ledger, root: PathBuf, options: FakeOptions) -> Self {
        let durable = options.directory.is_some();
        Self(Arc::new(Host {
            ledger,
            root,
            durable,
            capability: options.capability,
            facts: Mutex::new(options.facts),
            events: broadcast::Sender::new(options.event_capacity),
            delayed: Mutex::default(),
            step: options.step,
            steps: Semaphore::new(0),
            waiting: watch::Sender::new(0),
            sequence: options.sequence,
        }))
    }

    /// A hypervisor on this host, as an agent opens it. Any number may be opened, also after each other.
    #[must_use]
    pub fn hypervisor(&self) -> FakeHypervisor {
        FakeHypervisor::new(self.clone())
    }
    /// The pool of this host.
    #[must_use]
    pub fn storage(&self) -> FakeStorage {
        FakeStorage::new(self.clone())
    }

    // What goes wrong.

    /// The next use of `point` fails with `kind` and does nothing.
    ///
    /// # Errors
    /// When the ledger cannot be used.
    pub fn fail_next(&self, point: FaultPoint, kind: ErrorKind) -> Result<()> {
        self.fault_next(point, Fault::Fail(kind))
    }
    /// The next use of `point` meets `fault`. Several are met one after the other.
    ///
    /// # Errors
    /// When the ledger cannot be used.
    pub fn fault_next(&self, point: FaultPoint, fault: Fault) -> Result<()> {
        self.script(|s| {
            s.planned.push(Planned {
                point,
                server: None,
                fault,
            })
        })
    }
    /// The next use of `point` for `server` meets `fault`.
    ///
    /// # Errors
    /// When the ledger cannot be used.
    pub fn fault_for(&self, server: ServerId, point: FaultPoint, fault: Fault) -> Result<()> {
        self.script(|s| {
            s.planned.push(Planned {
                point,
                server: Some(server),
                fault,
            })
        })
    }
    /// Forgets all faults that were not met yet, and says how many.
    ///
    /// # Errors
    /// When the ledger cannot be used.
    pub fn heal(&self) -> Result<usize> {
        self.script(|s| std::mem::take(&mut s.planned).len())
    }
    /// Whether the guest ignores being asked to shut down.
    ///
    /// # Errors
    /// When the ledger cannot be used.
    pub fn ignore_graceful(&self, server: ServerId, ignores: bool) -> Result<()> {
        self.script(|s| {
            if ignores {
                s.ignores_graceful.insert(server)
            } else {
                s.ignores_graceful.remove(&server)
            }
        })
        .map(|_| ())
    }
    /// Whether nobody can tell what the domain does, until further notice.
    ///
    /// # Errors
    /// When the ledger cannot be used.
    pub fn cannot_tell(&self, server: ServerId, cannot: bool) -> Result<()> {
        self.script(|s| {
            if cannot {
                s.cannot_tell.insert(server)
            } else {
                s.cannot_tell.remove(&server)
            }
        })
        .map(|_| ())
    }
    /// What guests write to their console when they boot, instead of `fake-guest ready hostname=<name>`.
    ///
    /// # Errors
    /// When the ledger cannot be used.
    pub fn ready_line(&self, line: impl Into<String>) -> Result<()> {
        let line = line.into();
        self.script(|s| s.ready_line = Some(line))
    }
    /// Changes what the host says of itself.
    pub fn set_facts(&self, facts: HostFacts) {
        *self.0.facts.lock() = facts;
    }

    // What guests and bystanders do.

    /// The domain disappears without a word.
    ///
    /// # Errors
    /// When the ledger cannot be used.
    pub fn vanish(&self, server: ServerId) -> Result<()> {
        self.book(server, |book, note| {
            if let Some(domain) = book.domain.take() {
                note.effect(domain.spec.generation, EffectKind::Vanished);
            }
        })
    }
    /// The guest shuts itself down. Says whether it ran.
    ///
    /// # Errors
    /// When the ledger cannot be used.
    pub fn power_off_guest(&self, server: ServerId) -> Result<bool> {
        self.end_guest(
            server,
            PowerState::Stopped,
            EffectKind::PoweredOff,
            "guest-shutdown",
        )
    }
    /// The guest's process dies. Says whether it ran.
    ///
    /// # Errors
    /// When the ledger cannot be used.
    pub fn crash_guest(&self, server: ServerId) -> Result<bool> {
        self.end_guest(server, PowerState::Crashed, EffectKind::Crashed, "killed")
    }
    /// The guest writes to its console.
    ///
    /// # Errors
    /// When the ledger cannot be used.
    pub fn print(&self, server: ServerId, text: &str) -> Result<()> {
        self.book(server, |book, note| {
            if let Some(domain) = &mut book.domain {
                domain.print(text);
                note.changed = true;
            }
        })
    }

    fn end_guest(&self, server: ServerId, to: PowerState, kind: EffectKind, cause: &str) -> Result<bool> {
        let ran = self.book(server, |book, note| match &mut book.domain {
            Some(domain) if domain.power == PowerState::Running => {
                domain.power = to;
                let generation = domain.spec.generation;
                note.effect(generation, kind);
                true
            }
            _ => false,
        })?;
        if ran {
            self.tell(server, to, cause)?;
        }
        Ok(ran)
    }

    // Step mode.

    /// Lets one waiting (or coming) verb go on.
    pub fn step(&self) {
        self.0.steps.add_permits(1);
    }
    /// Waits until `verbs` verbs wait for a step.
    pub async fn until_waiting(&self, verbs: usize) {
        // The sender lives in `self`, so the channel cannot be closed.
        let _ = self.0.waiting.subscribe().wait_for(|n| *n >= verbs).await;
    }

    // What is.

    /// Everything that happened on this host, in order.
    ///
    /// # Errors
    /// When the ledger cannot be used.
    pub fn history(&self) -> Result<Vec<Effect>> {
        let mut all = self.0.ledger.with(|records| {
            let mut all = Vec::new();
            for key in records.keys("servers")? {
                all.extend(records.get::<Book>(&key)?.unwrap_or_default().history);
            }
            for key in records.keys("images")? {
                all.extend(records.get::<FakeImage>(&key)?.map(|image| image.effect));
            }
            Ok(all)
        })?;
        all.sort_by_key(|e: &Effect| e.at);
        Ok(all)
    }
    /// What happened to one server.
    ///
    /// # Errors
    /// When the ledger cannot be used.
    pub fn effects_of(&self, server: ServerId) -> Result<Vec<EffectKind>> {
        Ok(self.read(server)?.history.into_iter().map(|e| e.kind).collect())
    }
    /// The domain, if there is one.
    ///
    /// # Errors
    /// When the ledger cannot be used.
    pub fn domain(&self, server: ServerId) -> Result<Option<FakeDomain>> {
        Ok(self.read(server)?.domain)
    }
    /// All domains.
    ///
    /// # Errors
    /// When the ledger cannot be used.
    pub fn domains(&self) -> Result<Vec<FakeDomain>> {
        self.0.ledger.with(|records| {
            let mut all = Vec::new();
            for key in records.keys("servers")? {
                all.extend(records.get::<Book>(&key)?.and_then(|book| book.domain));
            }
            Ok(all)
        })
    }
    // For the two fakes.

    pub(super) fn capability_now(&self) -> Capability {
        self.0.capability
    }
    pub(super) fn facts_now(&self) -> HostFacts {
        self.0.facts.lock().clone()
    }
    pub(super) fn root(&self) -> &std::path::Path {
        &self.0.root
    }
    pub(super) fn subscribe(&self) -> broadcast::Receiver<VmEvent> {
        self.0.events.subscribe()
    }
    pub(super) fn ignores_graceful(&self, server: ServerId) -> Result<bool> {
        Ok(self.script_now()?.ignores_graceful.contains(&server))
    }
    pub(super) fn nobody_can_tell(&self, server: ServerId) -> Result<bool> {
        Ok(self.script_now()?.cannot_tell.contains(&server))
    }
    pub(super) fn ready_line_now(&self) -> Result<Option<String>> {
        Ok(self.script_now()?.ready_line)
    }
}
