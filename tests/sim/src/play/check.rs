//! Whether a script makes sense: what the parser cannot know.

use std::collections::BTreeSet;
use std::time::Duration;

use skyloom_model::Name;

use super::error::ScriptError;
use super::script::{Event, HostGroup, Script, What};
use super::units::Moment;
use crate::faults::Kind;

/// More hosts than anybody has time to play with.
const MOST_HOSTS: usize = 20_000;
/// More servers than one event makes.
const MOST_SERVERS: usize = 100_000;
/// More engines than make sense.
const MOST_ENGINES: usize = 64;
/// Flavors that every new cloud has.
const FLAVORS: [&str; 4] = ["m1.tiny", "m1.small", "m1.medium", "m1.large"];
/// Names of the simulator's own processes.
const RESERVED: [&str; 6] = ["api", "watcher", "founder", "world", "store", "rogue"];

type Checked<T = ()> = Result<T, ScriptError>;

/// Refuses `field` unless it is within bounds.
fn within<T: PartialOrd + std::fmt::Display>(field: &str, value: T, low: T, high: T) -> Checked {
    if value < low || value > high {
        return Err(
            ScriptError::new(field, format!("{value} is not possible")).hint(format!("from {low} to {high}"))
        );
    }
    Ok(())
}

/// What must be so of the script by itself.
pub(super) fn script(script: &Script) -> Checked {
    if !matches!(script.start, Moment::Clock(_)) {
        let message = format!("\"{}\" is no time of the day", script.start);
        return Err(ScriptError::new("start", message).hint("write \"08:00\""));
    }
    within("engines", script.engines, 1, MOST_ENGINES)?;
    let ttl = script.lease_ttl.get();
    if ttl < Duration::from_secs(1) || ttl > Duration::from_secs(3600) {
        let message = format!("{} is not possible", script.lease_ttl);
        return Err(ScriptError::new("lease_ttl", message).hint("from 1s to 1h"));
    }
    for (i, group) in script.hosts.iter().enumerate() {
        host_group(group, &format!("hosts[{}]", i + 1))?;
    }
    let mut flavors: BTreeSet<&str> = FLAVORS.into();
    for (i, flavor) in script.flavors.iter().enumerate() {
        let at = |field: &str| format!("flavors[{}].{field}", i + 1);
        name(&at("name"), &flavor.name)?;
        if !flavors.insert(&flavor.name) {
            let message = format!("there is a flavor \"{}\" already", flavor.name);
            return Err(ScriptError::new(at("name"), message).hint("every cloud has m1.tiny to m1.large"));
        }
        within(&at("vcpus"), flavor.vcpus, 1, 256)?;
        within(&at("memory"), flavor.memory.0, 32, 16_777_216)?;
        within(&at("disk"), flavor.disk.0, 1, 65_536)?;
    }
    for (i, one) in script.events.iter().enumerate() {
        event(one, &flavors, &format!("events[{}]", i + 1))?;
    }
    Ok(())
}

fn name(field: &str, text: &str) -> Checked {
    Name::new(text)
        .map(drop)
        .map_err(|e| ScriptError::new(field, format!("the name \"{text}\" {e}")))
}

fn host_group(group: &HostGroup, path: &str) -> Checked {
    let at = |field: &str| format!("{path}.{field}");
    within(&at("count"), group.count, 1, MOST_HOSTS)?;
    if group.count > 1 && !group.name.varies() {
        let message = format!("\"{}\" names {} hosts alike", group.name.as_str(), group.count);
        return Err(ScriptError::new(at("name"), message).hint("write {n} where the number goes"));
    }
    within(&at("vcpus"), group.vcpus, 1, 100_000)?;
    within(&at("memory"), group.memory.0, 1, 1 << 40)?;
    within(&at("disk"), group.disk.0, 1, 1 << 40)?;
    if let Some(ratio) = group.cpu_ratio {
        within(&at("cpu_ratio"), ratio, 0.1, 100.0)?;
        if ratio.is_nan() {
            return Err(ScriptError::new(at("cpu_ratio"), "is no number"));
        }
    }
    Ok(())
}

/// What must be so of all hosts together.
pub(super) fn host_names<'a>(names: impl Iterator<Item = &'a str>) -> Checked {
    let mut seen = BTreeSet::new();
    for host in names {
        name("hosts", host)?;
        if !seen.insert(host) {
            return Err(ScriptError::new(
                "hosts",
                format!("there are two hosts named \"{host}\""),
            ));
        }
        if RESERVED.contains(&host) || host.starts_with("engine-") {
            let message = format!("a host cannot be named \"{host}\": the simulator has a part of that name");
            return Err(ScriptError::new("hosts", message));
        }
    }
    if seen.is_empty() {
        return Err(
            ScriptError::new("hosts", "there are no hosts").hint("add a table [[hosts]], or say --hosts N")
        );
    }
    within("hosts", seen.len(), 1, MOST_HOSTS)
}

fn event(event: &Event, flavors: &BTreeSet<&str>, path: &str) -> Checked {
    let what = event.what.name();
    let at = |field: &str| format!("{path}.{what}.{field}");
    let some = |count: Option<usize>| match count {
        Some(count) => within(&at("count"), count, 1, MOST_SERVERS),
        None => Ok(()),
    };
    match &event.what {
        What::Create(create) => {
            within(&at("count"), create.count, 1, MOST_SERVERS)?;
            name(&at("name"), create.name.as_str())?;
            if create.count > 1 && !create.name.varies() {
                let message = format!(
                    "\"{}\" names {} servers alike",
                    create.name.as_str(),
                    create.count
                );
                return Err(ScriptError::new(at("name"), message).hint("write {n} where the number goes"));
            }
            if !flavors.contains(create.flavor.as_str()) {
                let known: Vec<&str> = flavors.iter().copied().collect();
                let message = format!("there is no flavor \"{}\"", create.flavor);
                return Err(ScriptError::new(at("flavor"), message)
                    .hint(format!("one of {}, or a table [[flavors]]", known.join(", "))));
            }
        }
        What::Start(select) | What::Delete(select) => some(select.count)?,
        What::Stop(halt) | What::Reboot(halt) => some(halt.count)?,
        What::Disable(hosts) | What::Enable(hosts) => some(hosts.count)?,
        What::PowerLoss(hosts) | What::AgentCrash(hosts) | What::DiskFull(hosts) => {
            some(hosts.count)?;
            lasts(&at("for"), event)?;
        }
        What::GuestCrash(guests) => some(guests.count)?,
        What::SlowStore(slow) => {
            if slow.by.get().is_zero() || slow.by.get() > Duration::from_secs(60) {
                let message = format!("{} is not possible", slow.by);
                return Err(ScriptError::new(at("by"), message).hint("from 1ms to 1m"));
            }
            lasts(&at("for"), event)?;
        }
        What::Weather(weather) => {
            for (kind, rate) in &weather.faults {
                let at = at(&format!("faults.{kind}"));
                if *kind == Kind::Drift {
                    let message = "clocks drift from the first to the last moment or not at all";
                    return Err(ScriptError::new(at, message).hint("leave it out"));
                }
                let most = if kind.by_call() { 1000 } else { 3600 };
                within(&at, *rate, 1, most)?;
            }
            lasts(&at("for"), event)?;
        }
        What::EngineCrash(_) | What::ApiCrash(_) | What::Cut(_) | What::StoreFull(_) => {
            lasts(&at("for"), event)?;
        }
    }
    Ok(())
}

fn lasts(field: &str, event: &Event) -> Checked {
    if event.what.lasts().get().is_zero() {
        return Err(ScriptError::new(field, "it does not last").hint("write \"90s\" or \"10m\""));
    }
    Ok(())
}
