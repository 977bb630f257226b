//! Single steps on one domain, over a connection. All of this blocks: it runs on the threads of a lane.

use std::path::PathBuf;

use skyloom_hypervisor::{Half, Inspection, Recovered, Step, Stream, VmSpec};
use skyloom_model::{PowerState, ServerId};
use virt::connect::Connect;
use virt::domain::Domain;
use virt::error::ErrorNumber;
use virt_sys as sys;

use crate::chain;
use crate::errors::Fault;
use crate::kept::{Crash, Kept, NAMESPACE, PREFIX, Way};
use crate::state::{self, Seen};
use crate::xml::{self, Around};

type Done<T> = Result<T, Fault>;

/// A domain with what it carries of us.
#[derive(Debug)]
pub(crate) struct Ours {
    pub(crate) domain: Domain,
    pub(crate) kept: Kept,
}

/// The domain of this id; an error when it is there but not ours.
pub(crate) fn find(conn: &Connect, id: ServerId) -> Done<Option<Ours>> {
    let found = Domain::lookup_by_uuid_string(conn, &id.to_string());
    let Some(domain) = there(found)? else {
        return Ok(None);
    };
    let Some(kept) = there(kept(&domain, id))? else {
        return Ok(None);
    };
    Ok(Some(Ours { domain, kept }))
}

/// `None` instead of the error that says that there is no such domain (any more).
fn there<T, E: Into<Fault>>(found: Result<T, E>) -> Done<Option<T>> {
    match found.map_err(Into::into) {
        Ok(found) => Ok(Some(found)),
        Err(Fault::Libvirt(e)) if e.code() == ErrorNumber::NoDomain => Ok(None),
        Err(e) => Err(e),
    }
}

fn kept(domain: &Domain, id: ServerId) -> Done<Kept> {
    let element = domain.get_metadata(
        sys::VIR_DOMAIN_METADATA_ELEMENT as i32,
        Some(NAMESPACE),
        sys::VIR_DOMAIN_AFFECT_CONFIG,
    );
    let element = element.map_err(|e| match e.code() {
        ErrorNumber::NoDomainMetadata => Fault::Foreign,
        _ => e.into(),
    })?;
    Kept::read(id, &element).map_err(Fault::Damaged)
}

/// Writes what is kept, nothing else.
pub(crate) fn keep(domain: &Domain, kept: &Kept) -> Done<()> {
    let element = kept.alone().map_err(Fault::Unwritable)?;
    domain.set_metadata(
        sys::VIR_DOMAIN_METADATA_ELEMENT as i32,
        Some(&element),
        Some(PREFIX),
        Some(NAMESPACE),
        sys::VIR_DOMAIN_AFFECT_CONFIG,
    )?;
    Ok(())
}

/// How it stands.
pub(crate) fn see(domain: &Domain) -> Done<Seen> {
    let (state, reason) = domain.get_state()?;
    let seen = state::of(state, u32::try_from(reason).unwrap_or_default());
    // Its memory may be kept by libvirt, whatever the reason of its end was.
    if matches!(seen, Seen::Off(_)) && domain.has_managed_save(0)? {
        return Ok(Seen::Off(PowerState::Suspended));
    }
    Ok(seen)
}

/// The state of a domain that may not be there (any more).
pub(crate) fn see_by_id(conn: &Connect, id: ServerId) -> Done<Option<(Kept, Seen)>> {
    let Some(Ours { domain, kept }) = find(conn, id)? else {
        return Ok(None);
    };
    Ok(there(see(&domain))?.map(|seen| (kept, seen)))
}

/// What to say of a domain; `None` while it is on its way to be off.
pub(crate) fn inspection(kept: &Kept, seen: Seen) -> Option<Inspection> {
    let found = |power| Inspection::Found {
        generation: kept.spec.generation,
        power,
    };
    let cannot = |reason: &str| Inspection::CannotTell {
        reason: reason.to_owned(),
    };
    Some(match seen {
        Seen::Up => found(PowerState::Running),
        Seen::Held => found(PowerState::Paused),
        Seen::Dead => found(PowerState::Crashed),
        Seen::Off(power) => found(off(kept, power)),
        Seen::Starting => cannot("a start is under way"),
        Seen::Ending => return None,
        Seen::Unknown(state) => cannot(&format!("its state has the unknown number {state}")),
    })
}

/// What a domain that is off is: libvirt's daemon may have forgotten why, and does not know what was seen.
fn off(kept: &Kept, power: PowerState) -> PowerState {
    match (power, kept.crash) {
        (PowerState::Crashed, Some(Crash::Seen)) => PowerState::Stopped,
        (PowerState::Unknown, Some(Crash::Noted)) => PowerState::Crashed,
        (PowerState::Unknown, _) => PowerState::Stopped,
        (power, _) => power,
    }
}

/// All domains of ours with their halves of migrations, in id order. One that is just ending cannot be told.
pub(crate) fn all(conn: &Connect) -> Done<Vec<(Recovered, Half)>> {
    let mut found = Vec::new();
    for domain in conn.list_all_domains(0)? {
        // The uuid is ours only together with the name.
        let Some(name) = there(domain.get_name())? else {
            continue;
        };
        let Some(id) = name.parse::<ServerId>().ok().filter(|id| id.to_string() == name) else {
            continue;
        };
        if domain.get_uuid_string()? != name {
            continue;
        }
        let seen = kept(&domain, id).and_then(|kept| Ok((see(&domain)?, kept)));
        let mut half = Half::Whole;
        let inspection = match there(seen) {
            Ok(None) | Err(Fault::Foreign) => continue,
            Ok(Some((seen, kept))) => {
                half = kept.way.half;
                inspection(&kept, seen).unwrap_or(Inspection::CannotTell {
                    reason: "its process is being ended".to_owned(),
                })
            }
            Err(Fault::Damaged(why)) => Inspection::CannotTell { reason: why },
            Err(other) => return Err(other),
        };
        found.push((Recovered { id, inspection }, half));
    }
    found.sort_unstable_by_key(|(r, _)| r.id);
    Ok(found)
}

/// Refuses an order that is older than the domain.
pub(crate) const fn not_older(kept: &Kept, ordered: u64) -> Done<()> {
    let there = kept.spec.generation;
    if there > ordered {
        return Err(Fault::Stale { ordered, there });
    }
    Ok(())
}

/// What [`definition`] takes from the host.
#[derive(Debug, Clone)]
pub(crate) struct Surroundings {
    pub(crate) kind: xml::Kind,
    pub(crate) emulator: Option<PathBuf>,
    pub(crate) confine: bool,
    pub(crate) console: Option<PathBuf>,
}

/// Writes the whole definition.
pub(crate) fn define(
    conn: &Connect,
    kept: &Kept,
    host: &Surroundings,
    below: Option<&[Option<PathBuf>]>,
) -> Done<Domain> {
    let around = Around {
        kind: host.kind,
        emulator: host.emulator.as_deref(),
        confine: host.confine,
        console: host.console.as_deref(),
        below,
    };
    let xml = xml::definition(kept, &around).map_err(Fault::Unwritable)?;
    Ok(Domain::define_xml(conn, &xml)?)
}

/// The order to define: nothing when the domain has the generation already.
pub(crate) fn ensure_defined(conn: &Connect, spec: &VmSpec, host: &Surroundings) -> Done<()> {
    let mut new = Kept::new(spec.clone());
    if let Some(Ours { kept, .. }) = find(conn, spec.id)? {
        not_older(&kept, spec.generation)?;
        if kept.spec.generation == spec.generation {
            return Ok(());
        }
        allowed(&kept, Step::Other)?;
        new.crash = kept.crash;
    }
    // Disks that are not there yet come at the start.
    let below = chain::below(spec).ok();
    define(conn, &new, host, below.as_deref()).map(drop)
}

/// What a verb that has nothing to do with a stream makes of a domain's half of a migration.
fn allowed(kept: &Kept, step: Step) -> Done<Half> {
    kept.way.half.step(step, Stream::Waiting).map_err(Fault::Conflict)
}

/// The domain after it has taken on the order's generation, durably; `None` when there is none. Without a step nobody is
/// asked whether it may be.
pub(crate) fn ordered(
    conn: &Connect,
    id: ServerId,
    generation: u64,
    step: Option<Step>,
) -> Done<Option<Kept>> {
    let Some(Ours { domain, mut kept }) = find(conn, id)? else {
        return Ok(None);
    };
    not_older(&kept, generation)?;
    let half = step.map_or(Ok(kept.way.half), |step| allowed(&kept, step))?;
    if kept.spec.generation < generation || kept.way.half != half {
        kept.spec.generation = generation;
        if half == Half::Whole {
            kept.way = Way::default();
        }
        keep(&domain, &kept)?;
    }
    Ok(Some(kept))
}

/// Brings the definition up to the spec, with disks as they are now, so that it can be started.
pub(crate) fn ready(conn: &Connect, id: ServerId, generation: u64, host: &Surroundings) -> Done<()> {
    let Ours { mut kept, .. } = must_find(conn, id)?;
    not_older(&kept, generation)?;
    let below = chain::below(&kept.spec).map_err(Fault::Said)?;
    kept.crash = None;
    define(conn, &kept, host, Some(&below)).map(drop)
}

/// Starts it. One that is up already is no error.
pub(crate) fn create(conn: &Connect, id: ServerId) -> Done<Seen> {
    let Ours { domain, .. } = must_find(conn, id)?;
    let created = domain.create();
    let seen = see(&domain)?;
    if created.is_ok() && seen == Seen::Held {
        // Its memory was kept while it was held.
        domain.resume()?;
        return see(&domain);
    }
    match created {
        Err(e) if seen != Seen::Up => Err(e.into()),
        _ => Ok(seen),
    }
}

/// The domain of this id; an error when there is none.
pub(crate) fn must_find(conn: &Connect, id: ServerId) -> Done<Ours> {
    find(conn, id)?.ok_or(Fault::Absent)
}

/// Holds the CPUs of one that is up.
pub(crate) fn hold(conn: &Connect, id: ServerId) -> Done<()> {
    let Ours { domain, .. } = must_find(conn, id)?;
    match domain.suspend() {
        Err(e) if see(&domain)? != Seen::Held => Err(e.into()),
        _ => Ok(()),
    }
}

/// Off, with its memory on disk. Going on from there, its CPUs run.
pub(crate) fn save(conn: &Connect, id: ServerId) -> Done<()> {
    let Ours { domain, .. } = must_find(conn, id)?;
    match domain.managed_save(sys::VIR_DOMAIN_SAVE_RUNNING) {
        Err(e) if see(&domain)? != Seen::Off(PowerState::Suspended) => Err(e.into()),
        _ => Ok(()),
    }
}

/// Lets the CPUs of a held one run.
pub(crate) fn resume(conn: &Connect, id: ServerId) -> Done<()> {
    let Ours { domain, .. } = must_find(conn, id)?;
    match domain.resume() {
        Err(e) if see(&domain)? != Seen::Up => Err(e.into()),
        _ => Ok(()),
    }
}

/// Presses the power button. One that is off, or not there, is no error.
pub(crate) fn press(conn: &Connect, id: ServerId, acpi: bool) -> Done<()> {
    let Some(Ours { domain, .. }) = find(conn, id)? else {
        return Ok(());
    };
    let pressed = if acpi {
        domain.shutdown_flags(sys::VIR_DOMAIN_SHUTDOWN_ACPI_POWER_BTN)
    } else {
        domain.shutdown()
    };
    match pressed {
        Err(e) if !matches!(see(&domain)?, Seen::Off(_) | Seen::Ending) => Err(e.into()),
        _ => Ok(()),
    }
}

/// Forces it off, if it is there: says whether there was something to do.
pub(crate) fn force(conn: &Connect, id: ServerId) -> Done<bool> {
    match find(conn, id)? {
        Some(Ours { domain, .. }) => destroy(&domain),
        None => Ok(false),
    }
}

/// Makes a crashed or suspended domain that is off a stopped one: a crash is seen, kept memory is dropped. Says whether
/// there was something to do.
pub(crate) fn settle_off(conn: &Connect, id: ServerId) -> Done<bool> {
    let Some(Ours { domain, mut kept }) = find(conn, id)? else {
        return Ok(false);
    };
    match see(&domain)? {
        Seen::Off(PowerState::Suspended) => domain.managed_save_remove(0).map(drop)?,
        Seen::Off(power) if off(&kept, power) == PowerState::Crashed => {
            kept.crash = Some(Crash::Seen);
            keep(&domain, &kept)?;
        }
        _ => return Ok(false),
    }
    Ok(true)
}

/// Notes a crash that nobody knows of but libvirt's daemon.
pub(crate) fn note_crash(conn: &Connect, id: ServerId) -> Done<()> {
    let Some(Ours { domain, mut kept }) = find(conn, id)? else {
        return Ok(());
    };
    if see(&domain)? == Seen::Off(PowerState::Crashed) && kept.crash.is_none() {
        kept.crash = Some(Crash::Noted);
        keep(&domain, &kept)?;
    }
    Ok(())
}

/// Forces it off. One that is off already is no error: says whether there was something to do.
pub(crate) fn destroy(domain: &Domain) -> Done<bool> {
    match domain.destroy() {
        Ok(()) => Ok(true),
        Err(e) if e.code() == ErrorNumber::NoDomain => Ok(false),
        Err(e) => match there(see(domain))? {
            None | Some(Seen::Off(_)) => Ok(false),
            Some(_) => Err(e.into()),
        },
    }
}

/// Removes it, running or not, unless it has become newer.
pub(crate) fn remove(conn: &Connect, id: ServerId, generation: u64, nvram: bool) -> Done<()> {
    let Some(Ours { domain, kept }) = find(conn, id)? else {
        return Ok(());
    };
    not_older(&kept, generation)?;
    destroy(&domain)?;
    let mut flags = sys::VIR_DOMAIN_UNDEFINE_MANAGED_SAVE | sys::VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA;
    if nvram {
        flags |= sys::VIR_DOMAIN_UNDEFINE_NVRAM | sys::VIR_DOMAIN_UNDEFINE_CHECKPOINTS_METADATA;
    }
    there(domain.undefine_flags(flags)).map(drop)
}
