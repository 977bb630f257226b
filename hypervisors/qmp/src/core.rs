//! What all domains of a hypervisor share, and the verbs of the contract on them.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::FlockOperation;
use skyloom_hypervisor::{
    Error, ErrorKind, Half, Inspection, Recovered, Result, Step, StopMode, Stopped, Stream, VmSpec,
};
use skyloom_model::{PowerState, ServerId};

use crate::abilities::migration;
use crate::argv;
use crate::command::power_of;
use crate::dir::{self, VmDir};
use crate::errors::{self, blocking};
use crate::lifecycle::{self, Now};
use crate::record::Live;
use crate::tasks::Tasks;
use crate::vm::{Env, Glance, Record, Vm};

/// Directories of domains that are being removed.
const GONE: &str = ".gone-";

/// What a hypervisor and its verbs share.
#[derive(Debug)]
pub(crate) struct Core {
    pub(crate) env: Arc<Env>,
    pub(crate) qemu_version: String,
    pub(crate) vms: parking_lot::Mutex<BTreeMap<ServerId, Arc<Vm>>>,
    /// Held while a directory is made.
    pub(crate) creating: tokio::sync::Mutex<()>,
    pub(crate) tasks: Arc<Tasks>,
    pub(crate) removed: AtomicU64,
}

/// Takes the lock, sweeps what was being removed, and reads all records.
pub(crate) fn load(env: &Arc<Env>) -> std::io::Result<(File, BTreeMap<ServerId, Arc<Vm>>)> {
    let root = &env.config.dir;
    std::fs::create_dir_all(root)?;
    dir::make_dir(root, if env.config.run_as.is_some() { 0o711 } else { 0o700 })?;
    let lock = File::open(root)?;
    rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive)?;
    let mut vms = BTreeMap::new();
    for entry in std::fs::read_dir(root)? {
        let entry = entry?;
        let name = entry.file_name();
        let Some(name) = name.to_str() else { continue };
        if name.starts_with(GONE) {
            std::fs::remove_dir_all(entry.path())?;
        } else if let Some(id) = name.parse::<ServerId>().ok().filter(|id| id.to_string() == name) {
            let dir = VmDir::open(entry.path())?;
            let record = Record::load(&dir);
            vms.insert(id, Arc::new(Vm::new(id, dir, record, Arc::clone(env))));
        }
    }
    Ok((lock, vms))
}

impl Core {
    pub(crate) fn get(&self, id: ServerId) -> Option<Arc<Vm>> {
        self.vms.lock().get(&id).cloned()
    }

    fn path(&self, id: ServerId) -> PathBuf {
        self.env.config.dir.join(id.to_string())
    }

    pub(crate) async fn get_or_create(&self, id: ServerId) -> Result<Arc<Vm>> {
        let _creating = self.creating.lock().await;
        if let Some(vm) = self.get(id) {
            return Ok(vm);
        }
        let (path, run_as) = (self.path(id), self.env.config.run_as);
        let made = blocking(move || VmDir::create(path, run_as)).await;
        let dir = made.map_err(|e| errors::file("define", id, e))?;
        let record = Record {
            desc: None,
            live: Live::Off,
            damaged: None,
            gone: false,
        };
        let vm = Arc::new(Vm::new(id, dir, record, Arc::clone(&self.env)));
        self.vms.lock().insert(id, Arc::clone(&vm));
        Ok(vm)
    }

    pub(crate) async fn define(&self, spec: &VmSpec) -> Result<()> {
        argv::check(spec)?;
        loop {
            let vm = self.get_or_create(spec.id).await?;
            let mut record = vm.record.lock().await;
            if record.gone {
                continue;
            }
            if let Some(desc) = record.usable("define", spec.id)? {
                let there = desc.spec.generation;
                if there > spec.generation {
                    return Err(stale("define", spec.id, spec.generation, there));
                }
                if there == spec.generation {
                    return Ok(());
                }
                let conflict = |why| vm.error(ErrorKind::Conflict, "define").with("because", why);
                by(Step::Other)(record.live.half()).map_err(conflict)?;
            }
            return vm.set_desc(&mut record, "define", spec.clone()).await;
        }
    }

    /// The description that an order of `generation` is for, after the domain has taken that on if it is newer; `None`
    /// when there is no such domain. A domain on its way to or from another host may refuse the verb, and takes nothing on
    /// then.
    pub(crate) async fn ordered(
        &self,
        vm: &Vm,
        operation: &'static str,
        generation: u64,
        may: impl FnOnce(Half) -> std::result::Result<Half, &'static str>,
    ) -> Result<Option<VmSpec>> {
        let mut record = vm.record.lock().await;
        if record.gone {
            return Ok(None);
        }
        let Some(desc) = record.usable(operation, vm.id)? else {
            return Ok(None);
        };
        let mut spec = desc.spec.clone();
        if spec.generation > generation {
            return Err(stale(operation, vm.id, generation, spec.generation));
        }
        let conflict = |why| vm.error(ErrorKind::Conflict, operation).with("because", why);
        may(record.live.half()).map_err(conflict)?;
        if spec.generation < generation {
            spec.generation = generation;
            vm.set_desc(&mut record, operation, spec.clone()).await?;
        }
        Ok(Some(spec))
    }

    /// A domain that an ability works on.
    pub(crate) fn there(&self, operation: &'static str, id: ServerId) -> Result<Arc<Vm>> {
        self.get(id)
            .ok_or_else(|| Error::new(ErrorKind::NotFound, operation).with("server", id))
    }

    /// Whether no newer order has come.
    pub(crate) async fn is_newest(&self, vm: &Vm, generation: u64) -> bool {
        let record = vm.record.lock().await;
        record
            .desc
            .as_ref()
            .is_some_and(|d| d.spec.generation <= generation)
    }

    /// As [`Core::ordered`] of a domain that must be there.
    pub(crate) async fn obeyed(&self, vm: &Vm, operation: &'static str, generation: u64) -> Result<VmSpec> {
        self.obeyed_if(vm, operation, generation, by(Step::Other)).await
    }

    /// As [`Core::obeyed`] of a verb that is not like the others to a migration.
    pub(crate) async fn obeyed_if(
        &self,
        vm: &Vm,
        operation: &'static str,
        generation: u64,
        may: impl FnOnce(Half) -> std::result::Result<Half, &'static str>,
    ) -> Result<VmSpec> {
        let spec = self.ordered(vm, operation, generation, may).await?;
        spec.ok_or_else(|| vm.error(ErrorKind::NotFound, operation))
    }

    pub(crate) async fn start(&self, id: ServerId, generation: u64) -> Result<()> {
        let missing = || Error::new(ErrorKind::NotFound, "start").with("server", id);
        let vm = self.get(id).ok_or_else(missing)?;
        let _op = vm.op.lock().await;
        let spec = self.ordered(&vm, "start", generation, by(Step::Other)).await?;
        lifecycle::start(&self.tasks, &vm, &spec.ok_or_else(missing)?).await
    }

    pub(crate) async fn stop(&self, id: ServerId, generation: u64, mode: StopMode) -> Result<Stopped> {
        let Some(vm) = self.get(id) else {
            return Ok(Stopped::AlreadyOff);
        };
        let _op = vm.op.lock().await;
        match self.ordered(&vm, "stop", generation, by(Step::Stop)).await? {
            Some(_) if migration::before_stop(self, &vm).await? => Ok(Stopped::AlreadyOff),
            Some(_) => lifecycle::stop(&self.tasks, &vm, mode).await,
            None => Ok(Stopped::AlreadyOff),
        }
    }

    pub(crate) async fn undefine(&self, id: ServerId, generation: u64) -> Result<()> {
        let Some(vm) = self.get(id) else { return Ok(()) };
        let _op = vm.op.lock().await;
        // Cut short, it must not be followed by an older start.
        self.ordered(&vm, "undefine", generation, Ok).await?;
        if let Now::Up(process) | Now::Halted(process) = lifecycle::settle(&self.tasks, &vm).await? {
            lifecycle::force_off(&vm, &process, "undefine").await?;
        }
        let mut record = vm.record.lock().await;
        // A newer `define` may have come in the meantime.
        let there = record.desc.as_ref().map(|d| d.spec.generation);
        if let Some(there) = there.filter(|g| *g > generation) {
            return Err(stale("undefine", id, generation, there));
        }
        if !record.gone {
            self.remove(&vm).await?;
            record.gone = true;
            record.desc = None;
        }
        Ok(())
    }

    /// Takes the directory away in one step, then what is in it.
    async fn remove(&self, vm: &Vm) -> Result<()> {
        let number = self.removed.fetch_add(1, Ordering::Relaxed);
        let gone = self.env.config.dir.join(format!("{GONE}{}-{number}", vm.id));
        let (from, to, root) = (
            vm.dir.path().to_owned(),
            gone.clone(),
            self.env.config.dir.clone(),
        );
        let renamed = blocking(move || {
            std::fs::rename(from, to)?;
            dir::sync_dir(&root)
        });
        renamed.await.map_err(|e| errors::file("undefine", vm.id, e))?;
        self.vms.lock().remove(&vm.id);
        if let Err(e) = blocking(move || std::fs::remove_dir_all(gone)).await {
            tracing::warn!(server = %vm.id, error = %e, "the next start of the agent sweeps a removed domain");
        }
        Ok(())
    }

    pub(crate) async fn inspect(&self, id: ServerId) -> Inspection {
        let Some(vm) = self.get(id) else {
            return Inspection::Absent;
        };
        let limit = self.env.config.timeouts.inspect;
        let late = || Inspection::CannotTell {
            reason: format!("no answer within {limit:?}"),
        };
        tokio::time::timeout(limit, self.look(&vm))
            .await
            .unwrap_or_else(|_| late())
    }

    async fn look(&self, vm: &Arc<Vm>) -> Inspection {
        loop {
            let record = vm.record.lock().await;
            if let Some(why) = &record.damaged {
                return Inspection::CannotTell { reason: why.clone() };
            }
            let Some(generation) = record.desc.as_ref().map(|d| d.spec.generation) else {
                return Inspection::Absent;
            };
            let live = record.live.clone();
            drop(record);
            let found = |power| Inspection::Found { generation, power };
            let process = match live {
                Live::Off | Live::Halted { .. } | Live::HandedOver { .. } | Live::Receiving { .. } => {
                    return found(PowerState::Stopped);
                }
                Live::Ended { power, .. } => return found(power),
                Live::Saved { .. } => return found(PowerState::Suspended),
                Live::Starting { .. } => {
                    return Inspection::CannotTell {
                        reason: "a start is under way or was cut short".into(),
                    };
                }
                Live::Running { run }
                | Live::Stopping { run }
                | Live::Saving { run }
                | Live::Sending { run, .. } => run.process,
            };
            if !process.alive() {
                if vm.monitored.lock().is_some() {
                    vm.wait_for(self.env.config.timeouts.inspect / 2, |g| *g == Glance::Off)
                        .await;
                }
                vm.note_end(Some(&process), None).await;
                continue;
            }
            lifecycle::look_after(&self.tasks, vm, &process, None);
            let limit = self.env.config.timeouts.inspect;
            let Some(client) = vm.wait_client(limit).await else {
                continue;
            };
            match client.query_status(limit).await {
                Ok(state) => match power_of(&state) {
                    Some(power) => return found(power),
                    None => {
                        return Inspection::CannotTell {
                            reason: format!("its run state is {state}"),
                        };
                    }
                },
                Err(_) if !process.alive() => {}
                Err(e) => {
                    return Inspection::CannotTell {
                        reason: skyloom_model::report(&e),
                    };
                }
            }
        }
    }

    /// What is there of one domain; `None` when it is nothing.
    pub(crate) async fn take_over(&self, vm: &Arc<Vm>) -> Option<Recovered> {
        let op = vm.op.lock().await;
        let mut record = vm.record.lock().await;
        let (described, damaged) = (record.desc.is_some(), record.damaged.is_some());
        if !described && !damaged {
            if lifecycle::find(vm).await.is_none() {
                // A define or an undefine was cut short.
                if let Err(e) = self.remove(vm).await {
                    tracing::warn!(server = %vm.id, error = %skyloom_model::report(&e), "cannot sweep a directory");
                }
                record.gone = true;
                return None;
            }
            record.damaged = Some("a QEMU runs here without a description".to_owned());
        }
        let usable = record.damaged.is_none();
        drop(record);
        if usable && let Err(e) = lifecycle::take_over(&self.tasks, vm).await {
            tracing::warn!(server = %vm.id, error = %skyloom_model::report(&e), "cannot take over a domain");
        }
        drop(op);
        Some(Recovered {
            id: vm.id,
            inspection: self.inspect(vm.id).await,
        })
    }
}

/// Whether a domain allows a verb that does not ask how far its memory is.
pub(crate) fn by(step: Step) -> impl FnOnce(Half) -> std::result::Result<Half, &'static str> {
    move |half| half.step(step, Stream::Waiting)
}

pub(crate) fn stale(operation: &'static str, id: ServerId, ordered: u64, there: u64) -> Error {
    Error::new(ErrorKind::Stale, operation)
        .with("server", id)
        .with("ordered", ordered)
        .with("there", there)
}
