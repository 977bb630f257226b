//! Single steps of a guest that goes to another host, over a connection. All of this blocks.
//!
//! The memory goes from QEMU to QEMU, asked for at their monitors: libvirt's own migration lets the destination have all
//! of it before the source could record that it is handed over. QEMU alone ends the passes when little is left, and a guest
//! that ran then executes again when the last pass fails; so there is a gate: a dirty bitmap of a disk of nothing, which
//! is sent in the last pass only and counts as still to be sent. With it and the shortest downtime no pass is the last;
//! when the guest is held, the downtime is raised above it.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};
use skyloom_hypervisor::{Half, Migrating, Progress, Step, Stream, VmSpec};
use skyloom_model::ServerId;
use virt::connect::Connect;
use virt::domain::Domain;
use virt_sys as sys;

use crate::chain;
use crate::domain::{self, Ours, Surroundings, find, keep, must_find, not_older};
use crate::errors::Fault;
use crate::kept::{Kept, Way};
use crate::monitor::execute;
use crate::state::Seen;

type Done<T> = Result<T, Fault>;

const GATE: &str = "skyloom-gate";
/// Size of the disk of nothing. Its bitmap has 2 MiB: more than a thousandth of what is sent in a second.
const GATE_BYTES: u64 = 1 << 33;
/// The longest that QEMU takes, in milliseconds.
const OPEN: u64 = 2_000_000;
/// Bytes a second, while a guest is being held.
const SLOW: u64 = 1 << 20;
const PAGE: u64 = 4096;

/// What QEMU says.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
struct Query {
    status: Option<String>,
    expected_downtime: u64,
    socket_address: Vec<Listening>,
    ram: Ram,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
struct Ram {
    total: u64,
    transferred: u64,
    remaining: u64,
    dirty_sync_count: u64,
    dirty_pages_rate: u64,
    mbps: f64,
}

#[derive(Debug, Deserialize)]
struct Listening {
    host: IpAddr,
    port: String,
}

fn query(domain: &Domain) -> Done<Query> {
    let told = execute(domain, "query-migrate", &json!({}))?;
    serde_json::from_value(told).map_err(|_| Fault::Monitor("migration"))
}

fn has_guest(seen: Seen) -> bool {
    matches!(seen, Seen::Up | Seen::Held | Seen::Dead)
}

fn stream(way: &Way, seen: Seen, said: &Query) -> Stream {
    let status = said.status.as_deref();
    match way.half {
        Half::Whole => Stream::Waiting,
        _ if !has_guest(seen) => way.ended.unwrap_or(Stream::Broken),
        Half::Receiving => match status {
            None | Some("none" | "setup") => Stream::Waiting,
            Some("completed") => Stream::Complete,
            Some("failed" | "cancelled") => Stream::Broken,
            Some(_) => Stream::Flowing,
        },
        Half::Sending | Half::HandedOver => match status {
            Some("pre-switchover") => Stream::Ready,
            Some("completed") => Stream::Complete,
            // It is let go again first.
            None | Some("none" | "failed" | "cancelled") if way.half == Half::Sending && seen != Seen::Up => {
                Stream::Flowing
            }
            None | Some("none" | "failed" | "cancelled") => Stream::Broken,
            Some(_) => Stream::Flowing,
        },
    }
}

struct Sight {
    seen: Seen,
    said: Query,
    stream: Stream,
}

fn sight(domain: &Domain, kept: &Kept) -> Done<Sight> {
    let seen = domain::see(domain)?;
    let said = if kept.way.half != Half::Whole && has_guest(seen) {
        query(domain)?
    } else {
        Query::default()
    };
    let stream = stream(&kept.way, seen, &said);
    Ok(Sight { seen, said, stream })
}

/// What is.
pub(crate) fn look(conn: &Connect, id: ServerId) -> Done<Migrating> {
    let Ours { domain, kept } = must_find(conn, id)?;
    let Sight { said, stream, .. } = sight(&domain, &kept)?;
    let ram = said.ram;
    let progress = Progress {
        pass: ram.dirty_sync_count,
        total_bytes: ram.total,
        sent_bytes: ram.transferred,
        remaining_bytes: ram.remaining,
        dirtied_per_second: ram.dirty_pages_rate.saturating_mul(PAGE),
        sent_per_second: (ram.mbps * 125_000.0) as u64,
        downtime: Duration::from_millis(said.expected_downtime),
    };
    Ok(Migrating {
        half: kept.way.half,
        stream,
        progress,
    })
}

fn step(kept: &Kept, step: Step, stream: Stream) -> Done<Half> {
    kept.way.half.step(step, stream).map_err(Fault::Conflict)
}

/// Both sides agree on what goes along.
fn arrange(domain: &Domain) -> Done<()> {
    let on = |name| json!({ "capability": name, "state": true });
    let both = [on("pause-before-switchover"), on("dirty-bitmaps")];
    execute(
        domain,
        "migrate-set-capabilities",
        &json!({ "capabilities": both }),
    )?;
    let gate = json!({ "driver": "null-co", "size": GATE_BYTES, "node-name": GATE });
    once(execute(domain, "blockdev-add", &gate), "uplicate")
}

/// It may be there of an earlier migration.
fn once(done: Done<Value>, there: &str) -> Done<()> {
    match done {
        Err(Fault::Qemu(why)) if why.contains(there) => Ok(()),
        done => done.map(drop),
    }
}

/// A domain that waits for memory, and where.
pub(crate) fn receive(conn: &Connect, spec: &VmSpec, host: &Surroundings, listen: IpAddr) -> Done<String> {
    let domain = match find(conn, spec.id)? {
        Some(Ours { domain, mut kept }) => {
            not_older(&kept, spec.generation)?;
            step(&kept, Step::Receive, Stream::Waiting)?;
            if kept.spec.generation < spec.generation {
                kept.spec.generation = spec.generation;
                keep(&domain, &kept)?;
            }
            domain
        }
        None => {
            let below = chain::below(spec).map_err(Fault::Said)?;
            let mut kept = Kept::new(spec.clone());
            kept.way.half = Half::Receiving;
            domain::define(conn, &kept, host, Some(&below))?
        }
    };
    if matches!(domain::see(&domain)?, Seen::Off(_)) {
        domain.create_with_flags(sys::VIR_DOMAIN_START_PAUSED)?;
    }
    let mut said = query(&domain)?;
    if said.socket_address.is_empty() {
        arrange(&domain)?;
        let uri = format!("tcp:{}", SocketAddr::new(listen, 0));
        execute(&domain, "migrate-incoming", &json!({ "uri": uri }))?;
        said = query(&domain)?;
    }
    let at = said.socket_address.first().ok_or(Fault::Monitor("address"))?;
    let port = at.port.parse().map_err(|_| Fault::Monitor("port"))?;
    Ok(SocketAddr::new(at.host, port).to_string())
}

/// Lets the memory go, if it does not yet.
pub(crate) fn send(conn: &Connect, id: ServerId, generation: u64, address: &str, bytes: u64) -> Done<()> {
    let Ours { domain, mut kept } = must_find(conn, id)?;
    not_older(&kept, generation)?;
    step(&kept, Step::Send, Stream::Waiting)?;
    let there = sight(&domain, &kept)?;
    if kept.way.half == Half::Sending && there.stream != Stream::Broken {
        return if kept.way.to.as_deref() == Some(address) {
            Ok(())
        } else {
            Err(Fault::Conflict("it goes somewhere else"))
        };
    }
    if there.seen != Seen::Up {
        return Err(Fault::Conflict("it does not run"));
    }
    let to: SocketAddr = address
        .parse()
        .map_err(|_| Fault::Invalid("the address is none"))?;
    kept.spec.generation = generation;
    kept.way = Way {
        half: Half::Sending,
        to: Some(to.to_string()),
        ..Way::default()
    };
    keep(&domain, &kept)?;
    arrange(&domain)?;
    let gate = json!({ "node": GATE, "name": GATE, "granularity": 512 });
    once(
        execute(&domain, "block-dirty-bitmap-add", &gate),
        "already exists",
    )?;
    let closed = json!({ "max-bandwidth": bytes, "downtime-limit": 1 });
    execute(&domain, "migrate-set-parameters", &closed)?;
    execute(&domain, "migrate", &json!({ "uri": format!("tcp:{to}") })).map(drop)
}

/// Waits until it goes.
pub(crate) fn begun(conn: &Connect, id: ServerId) -> Done<Option<()>> {
    let Ours { domain, .. } = must_find(conn, id)?;
    match query(&domain)?.status.as_deref() {
        None | Some("none" | "setup") => Ok(None),
        Some("failed" | "cancelled") => Err(Fault::Nobody),
        Some(_) => Ok(Some(())),
    }
}

/// What a watcher has seen of the last passes.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Passes {
    looks: u32,
    first: u64,
    most: u64,
}

const LOOKS: u32 = 10;

impl Passes {
    /// The most that was left between two passes, once there were enough.
    fn most_left(&mut self, ram: &Ram) -> Option<u64> {
        if self.looks == 0 {
            self.first = ram.dirty_sync_count;
        }
        self.looks += 1;
        self.most = self.most.max(ram.remaining);
        if self.looks < LOOKS || ram.dirty_sync_count < self.first + 2 {
            return None;
        }
        let most = self.most;
        *self = Self::default();
        Some(most)
    }
}

/// Holds a guest of which little is left, lets one go whose stream broke. `None`: nothing more is to be done.
pub(crate) fn watch(
    conn: &Connect,
    id: ServerId,
    mut passes: Passes,
    bytes: u64,
    downtime: Duration,
) -> Done<Option<Passes>> {
    let Some(Ours { domain, kept }) = find(conn, id)? else {
        return Ok(None);
    };
    if kept.way.half != Half::Sending {
        return Ok(None);
    }
    let Sight { seen, said, .. } = sight(&domain, &kept)?;
    match (said.status.as_deref(), seen) {
        _ if !has_guest(seen) => return Ok(None),
        (Some("active"), Seen::Up) => {
            let bearable = kept.way.downtime.map_or(downtime, Duration::from_millis);
            let most = passes.most_left(&said.ram);
            if most.is_some_and(|most| Duration::from_secs_f64(most as f64 / bytes.max(1) as f64) <= bearable)
            {
                // Passes without anything to send follow each other without a pause, and nobody else is heard.
                execute(
                    &domain,
                    "migrate-set-parameters",
                    &json!({ "max-bandwidth": SLOW }),
                )?;
                domain.suspend()?;
            }
        }
        // One that sleeps (S3) may wake up.
        (Some("active"), _) if domain.get_state()?.0 == sys::VIR_DOMAIN_PAUSED => {
            let open = json!({ "max-bandwidth": bytes, "downtime-limit": OPEN });
            execute(&domain, "migrate-set-parameters", &open)?;
        }
        (None | Some("none" | "failed" | "cancelled"), Seen::Held) => {
            domain.resume()?;
            return Ok(None);
        }
        (None | Some("none" | "failed" | "cancelled" | "pre-switchover" | "completed"), _) => {
            return Ok(None);
        }
        _ => {}
    }
    Ok(Some(passes))
}

/// Says whether it is this host's alone, and runs.
pub(crate) fn cancel(conn: &Connect, id: ServerId, generation: u64) -> Done<bool> {
    let Ours { domain, mut kept } = must_find(conn, id)?;
    not_older(&kept, generation)?;
    step(&kept, Step::Cancel, Stream::Waiting)?;
    let Sight { seen, said, .. } = sight(&domain, &kept)?;
    if !has_guest(seen) {
        return Err(Fault::Conflict("it is off"));
    }
    match said.status.as_deref() {
        None | Some("none" | "failed" | "cancelled") => {}
        Some("cancelling") => return Ok(false),
        Some(_) => {
            execute(&domain, "migrate_cancel", &json!({}))?;
            return Ok(false);
        }
    }
    if seen != Seen::Up {
        domain.resume()?;
    }
    kept.spec.generation = generation;
    kept.way = Way::default();
    keep(&domain, &kept)?;
    Ok(true)
}

/// Records for how long the guest may be held.
pub(crate) fn force(conn: &Connect, id: ServerId, generation: u64, downtime: Duration) -> Done<()> {
    let Ours { domain, mut kept } = must_find(conn, id)?;
    not_older(&kept, generation)?;
    step(&kept, Step::Force, Stream::Waiting)?;
    kept.spec.generation = generation;
    kept.way.downtime = Some(u64::try_from(downtime.as_millis()).unwrap_or(u64::MAX));
    keep(&domain, &kept)
}

/// Records that it is not ours any more, then lets the last pass go. Says what became of it, once its process has ended.
pub(crate) fn hand_over(conn: &Connect, id: ServerId, generation: u64) -> Done<Option<Stream>> {
    let Ours { domain, mut kept } = must_find(conn, id)?;
    not_older(&kept, generation)?;
    let there = sight(&domain, &kept)?;
    let next = step(&kept, Step::HandOver, there.stream)?;
    if next != kept.way.half || kept.spec.generation < generation {
        kept.spec.generation = generation;
        kept.way.half = next;
        keep(&domain, &kept)?;
    }
    if !has_guest(there.seen) {
        return Ok(Some(there.stream));
    }
    match there.stream {
        Stream::Ready => {
            execute(&domain, "migrate-continue", &json!({ "state": "pre-switchover" }))?;
            Ok(None)
        }
        ended @ (Stream::Complete | Stream::Broken) => {
            kept.way.ended = Some(ended);
            keep(&domain, &kept)?;
            domain::destroy(&domain)?;
            Ok(Some(ended))
        }
        _ => Ok(None),
    }
}

/// Records that it is ours, then lets it run.
pub(crate) fn take_over(conn: &Connect, id: ServerId, generation: u64, host: &Surroundings) -> Done<()> {
    let Ours { domain, mut kept } = must_find(conn, id)?;
    not_older(&kept, generation)?;
    let there = sight(&domain, &kept)?;
    step(&kept, Step::TakeOver, there.stream)?;
    if !has_guest(there.seen) {
        return Err(Fault::Conflict("it is off"));
    }
    if kept.way.half == Half::Receiving || kept.spec.generation < generation {
        kept.spec.generation = generation;
        kept.way = Way::default();
        let below = chain::below(&kept.spec).map_err(Fault::Said)?;
        domain::define(conn, &kept, host, Some(&below))?;
    }
    if there.seen != Seen::Up {
        domain.resume()?;
    }
    Ok(())
}
