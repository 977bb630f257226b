//! API, engines and agent as processes of their own: stopped past their leases and woken, and killed at random under load.

use std::time::Duration;

use reqwest::Method;
use rustix::process::Signal;
use serde_json::Value;
use skyloom::hypervisor::{Fault, FaultPoint};
use skyloom::model::{Ids as _, ManualClock, PowerState, SeededIds};

use crate::http::{Http, import, server_of, small_server, task_of};
use crate::processes::Trio;
use crate::rest::{Rest, journal_has_forgotten};
use crate::support::{Process, until};

fn cloud(dir: &std::path::Path) -> (Trio, Process, Http) {
    let (trio, api) = Trio::first(dir);
    let http = Http::new(&trio.sky);
    (trio, api, http)
}

fn create(http: &Http, name: &str) -> Value {
    http.change(
        &Method::POST,
        "/v1/servers",
        &format!("create-{name}"),
        Some(&small_server(name)),
    )
}

fn done(http: &Http, answer: &Value) {
    let end = http.task_end(&task_of(answer));
    assert_eq!(end["state"], "done", "{end:#}");
}

#[test]
fn an_engine_that_slept_past_its_lease_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (trio, api, http) = cloud(dir.path());
    let (first, agent) = (trio.engine("e1"), trio.agent());
    import(&trio.sky, dir.path());
    http.host_ready();

    // Planned by the first engine, whose sleep begins before any job's result is there.
    agent.signal(Signal::STOP);
    let made = create(&http, "s1");
    let task = task_of(&made);
    let path = format!("/v1/tasks/{task}");
    until("the plan", || (!http.get(&path)?["plan"].is_null()).then_some(()));
    first.signal(Signal::STOP);
    let second = trio.engine("e2");
    agent.signal(Signal::CONT);
    let end = http.task_end(&task);
    assert_eq!(end["state"], "done", "{end:#}");
    assert_eq!(end["owner"]["engine"], "e2", "taken over: {end:#}");

    first.signal(Signal::CONT);
    // The sleeper works again, under a new lease: with the other engine gone it is the only one.
    second.kill();
    let more = create(&http, "s2");
    done(&http, &more);
    assert_eq!(
        http.get(&path).unwrap()["task"],
        end,
        "I3: an ended task never changes"
    );

    for process in [first, agent, api] {
        process.end();
    }
    let rest = Rest::of(&dir.path().join("skyloom.db"));
    rest.check(&trio.world(), &[task, task_of(&more)]);
    assert_eq!(rest.tasks("server.create").len(), 2);
}

#[test]
fn an_agent_that_slept_past_its_lease_amid_a_start_does_what_is_wanted_by_then() {
    let dir = tempfile::tempdir().unwrap();
    let (trio, api, http) = cloud(dir.path());
    let (engine, agent) = (trio.engine("e1"), trio.agent());
    import(&trio.sky, dir.path());
    http.host_ready();
    let world = trio.world();

    // Two starts are under way on the host when the agent falls asleep; one create is cancelled meanwhile.
    let late = Fault::Late(Duration::from_secs(8));
    world.fault_next(FaultPoint::Start, late).unwrap();
    world.fault_next(FaultPoint::Start, late).unwrap();
    let (kept, cancelled) = (create(&http, "kept"), create(&http, "cancelled"));
    for made in [&kept, &cancelled] {
        let path = format!("/v1/tasks/{}", task_of(made));
        until("the start under way", || {
            let detail = http.get(&path)?;
            let jobs = detail["jobs"].as_array()?;
            let start = jobs.iter().find(|j| j["spec"]["id"] == "vm.start")?;
            (start["state"] == "started").then_some(())
        });
    }
    agent.signal(Signal::STOP);
    let host = format!("/v1/hosts/{}", trio.host);
    until("the lease's end", || {
        (http.get(&host)?["status"]["reachable"] == false).then_some(())
    });
    let path = format!("/v1/tasks/{}/cancel", task_of(&cancelled));
    http.change(&Method::POST, &path, "cancel", None);
    agent.signal(Signal::CONT);

    done(&http, &kept);
    let end = http.task_end(&task_of(&cancelled));
    assert_eq!(end["state"], "cancelled", "{end:#}");
    let running = world.domain(server_of(&kept).parse().unwrap()).unwrap().unwrap();
    assert_eq!((running.power, running.boots), (PowerState::Running, 1));

    for process in [engine, agent, api] {
        process.end();
    }
    let rest = Rest::of(&dir.path().join("skyloom.db"));
    rest.check(&world, &[task_of(&kept), task_of(&cancelled)]);
}

/// Kills in the loop below.
const KILLS: u64 = 20;
/// The seed of the list of kills. Another one is another list.
const SEED: u64 = 7;

#[test]
fn twenty_kills_under_load_lose_and_double_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (trio, api, http) = cloud(dir.path());
    let (engine, agent) = (trio.engine("e1"), trio.agent());
    import(&trio.sky, dir.path());
    http.host_ready();
    let mut running = [Some(api), Some(engine), Some(agent)];
    let chance = SeededIds::new(ManualClock::new(), SEED);
    let draw = move |below: u64| (chance.uuid().as_u128() as u64) % below;

    let (mut tasks, mut there) = (Vec::new(), Vec::new());
    let mut list = Vec::new();
    for n in 0..KILLS {
        let made = create(&http, &format!("s{n}"));
        tasks.push(task_of(&made));
        there.push((server_of(&made), task_of(&made)));
        if n % 2 == 1 {
            let (server, made_by) = there.remove(0);
            // A server that is being made cannot be deleted yet.
            http.task_end(&made_by);
            let path = format!("/v1/servers/{server}");
            let deleted = http.change(&Method::DELETE, &path, &format!("delete-{n}"), None);
            tasks.push(task_of(&deleted));
        }
        let (victim, after) = (draw(3), Duration::from_millis(draw(150)));
        list.push((victim, after));
        std::thread::sleep(after); // the moment of the kill, not a wait for anything
        let slot = &mut running[victim as usize];
        slot.take().unwrap().kill();
        *slot = Some(match victim {
            0 => Trio::api(dir.path(), trio.port),
            1 => trio.engine("e1"),
            _ => trio.agent(),
        });
    }
    println!("seed {SEED}, kills of api 0, engine 1, agent 2: {list:?}");
    for task in &tasks {
        let end = http.task_end(task);
        assert_eq!(end["state"], "done", "{end:#}");
    }
    for (n, (server, _)) in there.iter().enumerate() {
        let path = format!("/v1/servers/{server}");
        let deleted = http.change(&Method::DELETE, &path, &format!("last-{n}"), None);
        done(&http, &deleted);
        tasks.push(task_of(&deleted));
    }
    let [api, engine, agent] = running.map(Option::unwrap);
    for process in [agent, engine, api] {
        process.end();
    }
    let rest = Rest::of(&dir.path().join("skyloom.db"));
    let world = trio.world();
    rest.check(&world, &tasks);
    assert_eq!(
        rest.tasks("server.create").len() as u64,
        KILLS,
        "one request, one task"
    );
    assert_eq!(
        rest.tasks("server.delete").len() as u64,
        KILLS,
        "one request, one task"
    );
    assert!(world.holdings().unwrap().is_empty(), "I12");
    for task in &tasks[..tasks.len() - 1] {
        journal_has_forgotten(&dir.path().join("host/journal"), task);
    }
}
