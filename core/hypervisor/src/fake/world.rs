//! The fake host itself: its records, its faults, its events, and the hand of the test.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use skyloom_model::{HostFacts, PowerState, Resources, ServerId};
use tokio::sync::{Semaphore, broadcast, watch};

use super::history::{Effect, EffectKind};
use super::ledger::{Ledger, Records};
use super::script::{Fault, FaultPoint, Planned};
use super::storage::{FakeDisk, FakeImage};
use super::{FakeHypervisor, FakeStorage};
use crate::{Capability, Error, ErrorKind, Result, VmEvent, VmEventKind, VmSpec};

/// How a fake host is made.
#[derive(Debug, Clone)]
pub struct FakeOptions {
    directory: Option<PathBuf>,
    facts: HostFacts,
    capability: Capability,
    step: bool,
    event_capacity: usize,
    sequence: Arc<AtomicU64>,
}

impl FakeOptions {
    /// A host in this process's memory: it lives as long as a clone of its [`FakeWorld`].
    #[must_use]
    pub fn in_memory() -> Self {
        Self {
            directory: None,
            facts: HostFacts {
                capacity: Resources {
                    vcpus: 16,
                    memory_mib: 65_536,
                    disk_gib: 1_000,
                },
                architecture: "x86_64".into(),
                hypervisor: "fake".into(),
                hypervisor_version: "1".into(),
                accelerator: "fake".into(),
                accelerator_reason: "guests are records: nothing is executed".into(),
                traits: Vec::new(),
            },
            capability: Capability::full(),
            step: false,
            event_capacity: 64,
            sequence: Arc::default(),
        }
    }
    /// A host in a directory, which is made if need be: it outlives the process.
    #[must_use]
    pub fn directory(root: impl Into<PathBuf>) -> Self {
        Self {
            directory: Some(root.into()),
            ..Self::in_memory()
        }
    }
    /// What it says of itself.
    #[must_use]
    pub fn facts(mut self, facts: HostFacts) -> Self {
        self.facts = facts;
        self
    }
    /// What its hypervisor can do.
    #[must_use]
    pub fn capability(mut self, capability: Capability) -> Self {
        self.capability = capability;
        self
    }
    /// Step mode: each verb that changes the host waits for one [`FakeWorld::step`].
    #[must_use]
    pub fn stepwise(mut self) -> Self {
        self.step = true;
        self
    }
    /// Events that wait for a slow consumer before it is told `Lost`. At least 1.
    #[must_use]
    pub fn event_capacity(mut self, events: usize) -> Self {
        self.event_capacity = events.max(1);
        self
    }
    /// Numbers the effects of several in-memory hosts in one order. A host in a directory keeps its own numbers.
    #[must_use]
    pub fn sequence(mut self, sequence: Arc<AtomicU64>) -> Self {
        self.sequence = sequence;
        self
    }
}

/// A fake host. Clones are the same host.
#[derive(Debug, Clone)]
pub struct FakeWorld(Arc<Host>);

#[derive(Debug)]
struct Host {
    ledger: Ledger,
    root: PathBuf,
    durable: bool,
    capability: Capability,
    facts: Mutex<HostFacts>,
    events: broadcast::Sender<VmEvent>,
    delayed: Mutex<VecDeque<VmEvent>>,
    step: bool,
    steps: Semaphore,
    waiting: watch::Sender<usize>,
    sequence: Arc<AtomicU64>,
}

/// A fake domain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FakeDomain {
    /// As it was last defined; its generation is the domain's.
    pub spec: VmSpec,
    /// Its power state.
    pub power: PowerState,
    /// How often it has been started.
    pub boots: u64,
    /// Its console log.
    pub console: String,
}

/// All that is known of one server: written as a whole, so that state and history never differ.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Book {
    pub(super) domain: Option<FakeDomain>,
    pub(super) disks: BTreeMap<String, FakeDisk>,
    pub(super) history: Vec<Effect>,
}

/// The test's orders: in the ledger, so that they outlive the agent and reach another process.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Script {
    planned: Vec<Planned>,
    ignores_graceful: BTreeSet<ServerId>,
    cannot_tell: BTreeSet<ServerId>,
    /// Console line of the next boots; `None` says the default.
    ready_line: Option<String>,
}

const SCRIPT: &str = "script";

/// What is left to do of a fault when the verb is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum After {
    Return,
    Fail(ErrorKind),
    Hang,
    CannotTell,
}

struct Waiting<'a>(&'a watch::Sender<usize>);
impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.send_modify(|n| *n = n.saturating_sub(1));
    }
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
        self.script(|s| std::mem::take(s).planned.len())
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

    fn script<T>(&self, change: impl FnOnce(&mut Script) -> T) -> Result<T> {
        self.0.ledger.with(|records| {
            let mut script = records.get::<Script>(SCRIPT)?.unwrap_or_default();
            let done = change(&mut script);
            records.put(SCRIPT, &script)?;
            Ok(done)
        })
    }
    fn script_now(&self) -> Result<Script> {
        self.0
            .ledger
            .with(|records| Ok(records.get::<Script>(SCRIPT)?.unwrap_or_default()))
    }

    /// One server's book as it is.
    pub(super) fn read(&self, server: ServerId) -> Result<Book> {
        self.0
            .ledger
            .with(|records| Ok(records.get::<Book>(&book_key(server))?.unwrap_or_default()))
    }

    /// Changes one server's book; what `change` notes is numbered and written together with it.
    pub(super) fn book<T>(
        &self,
        server: ServerId,
        change: impl FnOnce(&mut Book, &mut Note) -> T,
    ) -> Result<T> {
        let key = book_key(server);
        self.0.ledger.with(|records| {
            let mut book = records.get::<Book>(&key)?.unwrap_or_default();
            let mut note = Note::default();
            let done = change(&mut book, &mut note);
            for (generation, kind) in note.effects {
                let at = self.next(records)?;
                book.history.push(Effect {
                    at,
                    server: Some(server),
                    generation,
                    kind,
                });
                note.changed = true;
            }
            if note.changed {
                records.put(&key, &book)?;
            }
            Ok(done)
        })
    }

    /// Looks at the records.
    pub(super) fn look<T>(&self, look: impl FnOnce(&Records<'_>) -> Result<T>) -> Result<T> {
        self.0.ledger.with(|records| look(records))
    }
    /// Writes one record that carries the next number.
    pub(super) fn put<T: Serialize>(&self, key: &str, make: impl FnOnce(u64) -> T) -> Result<()> {
        self.0.ledger.with(|records| {
            let record = make(self.next(records)?);
            records.put(key, &record)
        })
    }

    fn next(&self, records: &mut Records<'_>) -> Result<u64> {
        if !self.0.durable {
            return Ok(self.0.sequence.fetch_add(1, Ordering::Relaxed));
        }
        let at = records.get::<u64>("sequence")?.unwrap_or_default() + 1;
        records.put("sequence", &at)?;
        Ok(at)
    }

    /// Before a verb: waits for a step, meets a planned fault.
    pub(super) async fn enter(&self, point: FaultPoint, server: Option<ServerId>) -> Result<After> {
        if self.0.step && point.changes() {
            let _waiting = {
                self.0.waiting.send_modify(|n| *n += 1);
                Waiting(&self.0.waiting)
            };
            match self.0.steps.acquire().await {
                Ok(permit) => permit.forget(),
                Err(_) => return Err(Error::new(ErrorKind::Internal, "wait for a step")),
            }
        }
        let failed = |kind| {
            let error = Error::new(kind, point.operation()).with("fake", "planned fault");
            Err(match server {
                Some(server) => error.with("server", server),
                None => error,
            })
        };
        match self.planned(point, server)? {
            None | Some(Fault::Lose | Fault::Duplicate | Fault::Delay) => Ok(After::Return),
            Some(Fault::Fail(kind)) => failed(kind),
            Some(Fault::FailAfterEffect(kind)) => Ok(After::Fail(kind)),
            Some(Fault::Hang) => std::future::pending().await,
            Some(Fault::HangAfterEffect) => Ok(After::Hang),
            Some(Fault::Vanish) => {
                if let Some(server) = server {
                    self.vanish(server)?;
                }
                Ok(After::Return)
            }
            Some(Fault::CannotTell) if matches!(point, FaultPoint::Inspect | FaultPoint::Recover) => {
                Ok(After::CannotTell)
            }
            Some(Fault::CannotTell) => failed(ErrorKind::Unavailable),
        }
    }

    /// After a verb: what is left of the fault.
    pub(super) async fn leave<T>(&self, after: After, point: FaultPoint, done: T) -> Result<T> {
        match after {
            After::Return | After::CannotTell => Ok(done),
            After::Hang => std::future::pending().await,
            After::Fail(kind) => {
                Err(Error::new(kind, point.operation()).with("fake", "planned fault after the effect"))
            }
        }
    }

    fn planned(&self, point: FaultPoint, server: Option<ServerId>) -> Result<Option<Fault>> {
        self.0.ledger.with(|records| {
            let Some(mut script) = records.get::<Script>(SCRIPT)? else {
                return Ok(None);
            };
            let Some(place) = script.planned.iter().position(|p| p.fits(point, server)) else {
                return Ok(None);
            };
            let fault = script.planned.remove(place).fault;
            records.put(SCRIPT, &script)?;
            Ok(Some(fault))
        })
    }

    /// Sends an event, unless a fault says otherwise.
    pub(super) fn tell(&self, server: ServerId, power: PowerState, cause: &str) -> Result<()> {
        let event = VmEvent {
            id: Some(server),
            kind: VmEventKind::Power {
                power,
                cause: Some(cause.to_owned()),
            },
        };
        let times = match self.planned(FaultPoint::Event, Some(server))? {
            Some(Fault::Delay) => {
                self.0.delayed.lock().push_back(event);
                return Ok(());
            }
            Some(Fault::Lose) => 0,
            Some(Fault::Duplicate) => 2,
            _ => 1,
        };
        for _ in 0..times {
            self.send(event.clone());
        }
        Ok(())
    }

    /// Sends the delayed events now.
    pub fn release_events(&self) {
        let delayed = std::mem::take(&mut *self.0.delayed.lock());
        delayed.into_iter().for_each(|event| self.send(event));
    }
    /// Sends any event, true or not.
    pub fn send(&self, event: VmEvent) {
        // Without a listener nobody is told; that is no error.
        let _ = self.0.events.send(event);
    }
}

impl FakeDomain {
    /// Longest console log that is kept, in bytes.
    pub const CONSOLE_LIMIT: usize = 64 * 1024;

    fn print(&mut self, text: &str) {
        self.console.push_str(text);
        let mut cut = self.console.len().saturating_sub(Self::CONSOLE_LIMIT);
        while !self.console.is_char_boundary(cut) {
            cut += 1;
        }
        self.console.drain(..cut);
    }
    pub(super) fn boot(&mut self, ready_line: Option<String>) {
        self.power = PowerState::Running;
        self.boots += 1;
        let line = ready_line.unwrap_or_else(|| format!("fake-guest ready hostname={}", self.spec.name));
        self.print(&line);
        self.print("\n");
    }
}

/// What a change did.
#[derive(Debug, Default)]
pub(super) struct Note {
    effects: Vec<(u64, EffectKind)>,
    changed: bool,
}

impl Note {
    /// Something happened, for the history.
    pub(super) fn effect(&mut self, generation: u64, kind: EffectKind) {
        self.effects.push((generation, kind));
    }
}

fn book_key(server: ServerId) -> String {
    format!("servers/{server}")
}
