//! The fake host itself, and the hand of the test.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;

use parking_lot::Mutex;
use skyloom_model::{HostFacts, PowerState, ServerId};
use tokio::sync::{Semaphore, broadcast, watch};

use super::book::FakeDomain;
use super::history::{Effect, EffectKind};
use super::late::Queue;
use super::ledger::Ledger;
use super::script::{Fault, FaultPoint, Planned, Script};
use super::volumes::Shared;
use super::{FakeHypervisor, FakeNetwork, FakeOptions, FakeStorage, FakeWire};
use crate::{Capability, ErrorKind, Result, VmEvent};

/// A fake host. Clones are the same host.
#[derive(Debug, Clone)]
pub struct FakeWorld(pub(super) Arc<Host>);

#[derive(Debug)]
pub(super) struct Host {
    pub(super) ledger: Ledger,
    pub(super) root: PathBuf,
    pub(super) shared: Shared,
    pub(super) queue: Queue,
    pub(super) naive_start: bool,
    pub(super) capability: Capability,
    pub(super) facts: Mutex<HostFacts>,
    pub(super) events: broadcast::Sender<VmEvent>,
    pub(super) delayed: Mutex<VecDeque<VmEvent>>,
    pub(super) step: bool,
    pub(super) steps: Semaphore,
    pub(super) waiting: watch::Sender<usize>,
    pub(super) wire: Option<FakeWire>,
}
impl FakeWorld {
    /// Opens the host. A directory shows what it held before.
    ///
    /// # Errors
    /// When the directory cannot be made.
    pub fn open(options: FakeOptions) -> Result<Self> {
        let (ledger, root) = match &options.directory {
            Some(root) => (Ledger::directory(options.tag, root.clone())?, root.clone()),
            None => return Ok(Self::memory(options)),
        };
        Ok(Self::over(ledger, root, options))
    }

    /// A host in memory with default facts.
    #[must_use]
    pub fn in_memory() -> Self {
        Self::memory(FakeOptions::in_memory())
    }

    fn memory(options: FakeOptions) -> Self {
        let ledger = Ledger::memory(options.tag, options.sequence.clone(), options.forgetful);
        Self::over(ledger, PathBuf::from("/fake"), options)
    }

    fn over(ledger: Ledger, root: PathBuf, options: FakeOptions) -> Self {
        let host = Arc::new(Host {
            ledger,
            root,
            shared: options.shared,
            queue: Queue::default(),
            naive_start: options.naive_start,
            capability: options.capability,
            facts: Mutex::new(options.facts),
            events: broadcast::Sender::new(options.event_capacity),
            delayed: Mutex::default(),
            step: options.step,
            steps: Semaphore::new(0),
            waiting: watch::Sender::new(0),
            wire: options.wire,
        });
        if let Some(wire) = &host.wire {
            wire.plug_in(&host);
        }
        Self(host)
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
    /// The network of this host.
    #[must_use]
    pub fn network(&self) -> FakeNetwork {
        FakeNetwork::new(self.clone())
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
        self.plan(point, None, fault)
    }
    /// The next use of `point` for `server` meets `fault`.
    ///
    /// # Errors
    /// When the ledger cannot be used.
    pub fn fault_for(&self, server: ServerId, point: FaultPoint, fault: Fault) -> Result<()> {
        self.plan(point, Some(server), fault)
    }

    fn plan(&self, point: FaultPoint, server: Option<ServerId>, fault: Fault) -> Result<()> {
        self.script(|s| {
            s.planned.push(Planned { point, server, fault });
        })
    }
    fn script<T>(&self, change: impl FnOnce(&mut Script) -> T) -> Result<T> {
        self.0.ledger.script(|script| (true, change(script)))
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
    /// Whether the pool has no room, until further notice: what would take some fails with [`ErrorKind::Full`].
    ///
    /// # Errors
    /// When the ledger cannot be used.
    pub fn pool_full(&self, full: bool) -> Result<()> {
        self.script(|s| s.pool_full = full)
    }
    /// Whether no agent answers in the guest.
    ///
    /// # Errors
    /// When the ledger cannot be used.
    pub fn no_agent(&self, server: ServerId, silent: bool) -> Result<()> {
        self.script(|s| {
            if silent {
                s.no_agent.insert(server)
            } else {
                s.no_agent.remove(&server)
            }
        })
        .map(|_| ())
    }
    /// Whether the guest lets go of no device.
    ///
    /// # Errors
    /// When the ledger cannot be used.
    pub fn holds_on(&self, server: ServerId, holds: bool) -> Result<()> {
        self.script(|s| {
            if holds {
                s.holds_on.insert(server)
            } else {
                s.holds_on.remove(&server)
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
        self.0.ledger.book(server, |book, note| {
            if let Some(domain) = book.domain.take() {
                note.effect(domain.spec.generation, EffectKind::Vanished);
            }
        })?;
        self.hasten(server);
        Ok(())
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
        self.0.ledger.book(server, |book, note| {
            if let Some(domain) = &mut book.domain {
                domain.print(text);
                note.changed = true;
            }
        })
    }

    fn end_guest(&self, server: ServerId, to: PowerState, kind: EffectKind, cause: &str) -> Result<bool> {
        // A held guest does nothing, but its process can die.
        let dies = to == PowerState::Crashed;
        let ran = self.0.ledger.book(server, |book, note| match &mut book.domain {
            Some(domain) if domain.power == PowerState::Running || dies && domain.power.may_execute() => {
                domain.off(to);
                let generation = domain.spec.generation;
                note.effect(generation, kind);
                true
            }
            _ => false,
        })?;
        if ran {
            self.hasten(server);
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
        self.0.ledger.effects(0, None)
    }
    /// What happened on this host from number `from` on, in order: begin with 0, go on with [`Self::position`] as it was
    /// before.
    ///
    /// # Errors
    /// When the ledger cannot be used.
    pub fn history_since(&self, from: u64) -> Result<Vec<Effect>> {
        self.0.ledger.effects(from, None)
    }
    /// The number that the next effect gets: one higher than all before, also on hosts that share the sequence.
    ///
    /// # Errors
    /// When the ledger cannot be used.
    pub fn position(&self) -> Result<u64> {
        self.0.ledger.position()
    }
    /// What happened to one server.
    ///
    /// # Errors
    /// When the ledger cannot be used.
    pub fn effects_of(&self, server: ServerId) -> Result<Vec<EffectKind>> {
        let effects = self.0.ledger.effects(0, Some(server))?;
        Ok(effects.into_iter().map(|e| e.kind).collect())
    }
    /// The domain, if there is one.
    ///
    /// # Errors
    /// When the ledger cannot be used.
    pub fn domain(&self, server: ServerId) -> Result<Option<FakeDomain>> {
        self.0.ledger.read(server, |book| book.domain.clone())
    }
    /// All domains.
    ///
    /// # Errors
    /// When the ledger cannot be used.
    pub fn domains(&self) -> Result<Vec<FakeDomain>> {
        let mut all = Vec::new();
        self.0.ledger.each(|_, book| all.extend(book.domain.clone()))?;
        Ok(all)
    }
}
