//! Events of a script in words.

use skyloom_model::PowerState;

use super::pattern::Glob;
use super::script::{Direction, Weather, What};
use crate::faults::{Kind, Planned};

/// Names of many: the first few, and how many more.
pub(super) fn listed<T: AsRef<str>>(names: &[T]) -> String {
    const SHOWN: usize = 4;
    let shown: Vec<&str> = names.iter().take(SHOWN).map(AsRef::as_ref).collect();
    let more = names.len().saturating_sub(SHOWN);
    match more {
        0 => shown.join(", "),
        1 => names.iter().map(AsRef::as_ref).collect::<Vec<_>>().join(", "),
        _ => format!("{} and {more} more", shown.join(", ")),
    }
}

/// `1 host`, `3 hosts`.
pub(super) fn counted(count: usize, noun: &str) -> String {
    if count == 1 {
        format!("1 {noun}")
    } else {
        format!("{count} {noun}s")
    }
}

fn of(count: Option<usize>) -> String {
    count.map_or_else(String::new, |count| format!("{count} of "))
}

/// `3 of the crashed web-*`.
fn servers(servers: &Glob, power: Option<PowerState>, count: Option<usize>) -> String {
    let power = power.map_or_else(String::new, |p| {
        format!("the {} ", format!("{p:?}").to_lowercase())
    });
    format!("{}{power}{}", of(count), servers.as_str())
}

/// What an event is, as it begins; `hosts` are those that it means.
pub(super) fn says(what: &What, hosts: &[String]) -> String {
    let over = |text: String| match what.lasts() {
        lasts if lasts.get().is_zero() => text,
        lasts => format!("{text} over {lasts}"),
    };
    let lasts = |text: String| format!("{text} for {}", what.lasts());
    let hosts = || {
        let many = if hosts.len() > 1 {
            format!("{} hosts: ", hosts.len())
        } else {
            String::new()
        };
        format!("{many}{}", listed(hosts))
    };
    match what {
        What::Create(w) => {
            let group = w
                .group
                .as_ref()
                .map(|g| format!(", each on a host of its own ({g})"));
            let text = format!("create {} × {} as {}", w.count, w.flavor, w.name.as_str());
            over(text) + &group.unwrap_or_default()
        }
        What::Start(w) => over(format!("start {}", servers(&w.servers, w.power, w.count))),
        What::Stop(w) => over(format!("stop {}", servers(&w.servers, w.power, w.count))),
        What::Reboot(w) => over(format!("reboot {}", servers(&w.servers, w.power, w.count))),
        What::Delete(w) => over(format!("delete {}", servers(&w.servers, w.power, w.count))),
        What::Disable(_) => format!("disable {}", hosts()),
        What::Enable(_) => format!("enable {}", hosts()),
        What::PowerLoss(_) => lasts(format!("power loss of {}", hosts())),
        What::AgentCrash(_) => lasts(format!("crash of the agents of {}", hosts())),
        What::EngineCrash(w) => lasts(format!("crash of {}", w.engines.as_str())),
        What::ApiCrash(_) => lasts("crash of the API".to_owned()),
        What::Cut(w) => {
            let way = match w.direction {
                Direction::Out => "requests do not arrive",
                Direction::In => "answers do not come back",
                Direction::Both => "nothing gets through",
            };
            lasts(format!("network of {} cut, {way},", w.of.as_str()))
        }
        What::SlowStore(w) => lasts(format!("the store answers {} later", w.by)),
        What::StoreFull(_) => lasts("the store is full".to_owned()),
        What::DiskFull(_) => lasts(format!("full disks on {}", hosts())),
        What::GuestCrash(w) => format!("crash of guests: {}{}", of(w.count), w.servers.as_str()),
        What::Weather(w) => lasts(format!("weather: {}", rates(w))),
    }
}

fn rates(weather: &Weather) -> String {
    let rate = |(kind, rate): (&crate::Kind, &u32)| match kind.by_call() {
        true => format!("{kind} at {rate} of 1000 calls"),
        false => format!("{kind} {rate} times an hour"),
    };
    weather.faults.iter().map(rate).collect::<Vec<_>>().join(", ")
}

/// What an event is when it is over, of those for a while.
pub(super) fn ends(what: &What, hosts: usize) -> Option<String> {
    let text = match what {
        What::PowerLoss(_) => format!("power is back on {}", counted(hosts, "host")),
        What::AgentCrash(_) => format!("the agents of {} are started again", counted(hosts, "host")),
        What::EngineCrash(w) => format!("{} is started again", w.engines.as_str()),
        What::ApiCrash(_) => "the API is started again".to_owned(),
        What::Cut(w) => format!("the network of {} is mended", w.of.as_str()),
        What::SlowStore(_) => "the store answers as fast as before".to_owned(),
        What::StoreFull(_) => "the store has room again".to_owned(),
        What::DiskFull(_) => format!("disks have room again on {}", counted(hosts, "host")),
        What::Weather(_) => "the weather is calm again".to_owned(),
        What::Create(_)
        | What::Start(_)
        | What::Stop(_)
        | What::Reboot(_)
        | What::Delete(_)
        | What::Disable(_)
        | What::Enable(_)
        | What::GuestCrash(_) => return None,
    };
    Some(text)
}

/// A fault of the weather: to whom, what, and what else there is to say of it.
pub(super) fn drawn(fault: &Planned, processes: &[String], engines: usize) -> (String, &'static str, String) {
    let process = |i: usize| processes.get(i).cloned().unwrap_or_default();
    let host = |i: usize| process(engines + i);
    let s = |ms: u64| format!("{}.{} s", ms / 1000, ms % 1000 / 100);
    let lasts = |ms: &u64| format!("for {}", s(*ms));
    match fault {
        Planned::Crash { process: p, down_ms } => (process(*p), "crashes", lasts(down_ms)),
        Planned::CrashAtCall { process: p, calls } => {
            (process(*p), "crashes at a call", format!("after {calls} others"))
        }
        Planned::Restart { process: p } => (process(*p), "is restarted in order", String::new()),
        Planned::Pause { process: p, ms } => (process(*p), "stands still", lasts(ms)),
        Planned::Zombie { process: p, ms } => (
            process(*p),
            "stands still while another takes its place",
            lasts(ms),
        ),
        Planned::Cut { process: p, kind, ms } => {
            let what = match kind {
                Kind::CutOut => "its requests do not arrive",
                Kind::CutIn => "gets no answers",
                _ => "is cut off",
            };
            (process(*p), what, lasts(ms))
        }
        Planned::Lag {
            process: p,
            late_ms,
            ms,
        } => (
            process(*p),
            "gets answers late",
            format!("by {} for {}", s(*late_ms), s(*ms)),
        ),
        Planned::Expire { process: p } => (process(*p), "its lease ends before its time", String::new()),
        Planned::WallStep { process: p, by_ms } => {
            (process(*p), "its clock is set", format!("by {by_ms} ms"))
        }
        Planned::Compact => ("store".to_owned(), "forgets its history", String::new()),
        Planned::Full { ms } => ("store".to_owned(), "is full", lasts(ms)),
        Planned::Host {
            host: h,
            point,
            fault,
        } => (
            host(*h),
            "its hypervisor or pool misbehaves",
            format!("at {point:?}: {fault:?}"),
        ),
        Planned::DiskFull { host: h, ms } => (host(*h), "has a full disk", lasts(ms)),
        Planned::GuestEnds { host: h, crash, .. } => match crash {
            true => (host(*h), "a guest crashes", String::new()),
            false => (host(*h), "a guest shuts itself down", String::new()),
        },
        Planned::OldOrder { host: h, .. } => {
            (host(*h), "an order that was held up comes late", String::new())
        }
        Planned::OldFormat { .. } => (
            "the engines".to_owned(),
            "are replaced; those before wrote the first format",
            String::new(),
        ),
        Planned::Rogue { host: h, .. } => (
            host(*h),
            "somebody with its agent's token writes what is not its own",
            String::new(),
        ),
    }
}
