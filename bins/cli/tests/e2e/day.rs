//! A day of verbs on real guests, drawn from a seed, while the agent and the guests' own processes are killed with -9 at drawn moments.

use std::time::Duration;

use reqwest::Method;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use skyloom::model::{Ids as _, ManualClock, SeededIds};

use crate::http::{Http, server_of, task_of};
use crate::processes::Trio;
use crate::rest::{Rest, journal_has_forgotten};
use crate::support::{Sweep, guest_image, guests, until};

/// Verbs of the day.
const STEPS: u64 = 20;
/// The seed of the day. Another one is another day.
const SEED: u64 = 11;

/// What may be asked of a server in that power state, with the body.
fn verbs(power: &str) -> &'static [(&'static str, bool)] {
    match power {
        "running" => &[
            ("stop", true),
            ("hard-reboot", false),
            ("pause", false),
            ("suspend", false),
        ],
        "paused" => &[("unpause", false), ("stop", true), ("suspend", false)],
        "suspended" => &[("resume", false), ("start", false), ("stop", true)],
        "stopped" | "crashed" => &[("start", false)],
        _ => &[("hard-reboot", false)],
    }
}

fn status(http: &Http, server: &str) -> Option<Value> {
    Some(http.get(&format!("/v1/servers/{server}"))?["status"].clone())
}

/// Waits until nothing is under way and as many guests run as records say: none forgotten, none twice.
fn agreed(trio: &Trio, http: &Http, servers: &[String]) {
    until("records and guests that agree", || {
        let mut executing = 0;
        for server in servers {
            let status = status(http, server)?;
            if !status["activity"].is_null() {
                return None;
            }
            executing += usize::from(["running", "paused"].contains(&status["power"].as_str()?));
        }
        (guests(&trio.dir).len() == executing).then_some(())
    });
}

#[test]
fn a_day_of_verbs_under_kills_ends_as_the_records_say() {
    let dir = tempfile::tempdir().unwrap();
    let _sweep = Sweep(dir.path().to_owned());
    let (trio, api) = Trio::first(dir.path());
    let http = Http::new(&trio.sky);
    let (engine, mut agent) = (trio.engine("e1"), trio.agent_of("qmp"));
    let image = guest_image();
    trio.sky.json(&[
        "image",
        "import",
        "--name",
        "guest",
        "--format",
        "qcow2",
        "--file",
        image.to_str().unwrap(),
        "--wait",
    ]);
    http.host_ready();
    let chance = SeededIds::new(ManualClock::new(), SEED);
    let draw = move |below: u64| (chance.uuid().as_u128() as u64) % below;

    let (mut tasks, mut servers) = (Vec::new(), Vec::new());
    for n in 0..2 {
        let body = json!({
            "name": format!("s{n}"), "image": "guest", "flavor": "m1.tiny", "on_crash": "restart",
        });
        let made = http.change(&Method::POST, "/v1/servers", &format!("create-{n}"), Some(&body));
        servers.push(server_of(&made));
        tasks.push(task_of(&made));
    }
    for task in &tasks {
        assert_eq!(http.task_end(task)["state"], "done");
    }
    let (mut day, mut before) = (Vec::new(), 0);
    for n in 0..STEPS {
        agreed(&trio, &http, &servers);
        let server = &servers[draw(2) as usize];
        let power = status(&http, server).unwrap()["power"]
            .as_str()
            .unwrap()
            .to_owned();
        let choice = verbs(&power);
        let (verb, force) = choice[draw(choice.len() as u64) as usize];
        let body = force.then(|| json!({ "force": true }));
        let path = format!("/v1/servers/{server}/actions/{verb}");
        let (code, answer) = until("an answer", || {
            http.send(&Method::POST, &path, Some(&format!("step-{n}")), body.as_ref())
        });
        let (fault, after) = (draw(4), Duration::from_millis(draw(1200)));
        day.push(format!("{power}: {verb} {code}, fault {fault} after {after:?}"));
        std::thread::sleep(after); // the moment of the kill, not a wait for anything
        match fault {
            0 => {}
            1 | 2 => {
                agent.kill();
                agent = trio.agent_of("qmp");
            }
            _ => {
                for pid in guests(&trio.dir).into_iter().take(1) {
                    // It may be gone by now: then there is nothing to kill.
                    let _ = kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL);
                }
            }
        }
        // A guest that was killed in the step before may be one that nobody has missed yet.
        let killed = [before, fault].contains(&3);
        before = fault;
        // The cloud's own restart of a crashed one may have been faster.
        if code == 409 {
            continue;
        }
        let task = task_of(&answer);
        let end = http.task_end(&task);
        assert!(
            end["state"] == "done" || (killed && end["state"] == "failed"),
            "{day:#?}\n{end:#}"
        );
        tasks.push(task);
    }
    println!("seed {SEED}: {day:#?}");

    agreed(&trio, &http, &servers);
    for (n, server) in servers.iter().enumerate() {
        let path = format!("/v1/servers/{server}/actions/hard-reboot");
        let asked = until("the last start", || {
            let (code, answer) = http.send(&Method::POST, &path, Some(&format!("last-{n}")), None)?;
            (code == 202).then_some(answer)
        });
        assert_eq!(http.task_end(&task_of(&asked))["state"], "done", "{day:#?}");
    }
    // A crash of a running guest that nobody does anything about: it runs again by itself.
    let victim = guests(&trio.dir)[0];
    kill_process(Pid::from_raw(victim).unwrap(), Signal::KILL).unwrap();
    until("the guest's restart", || {
        let now = guests(&trio.dir);
        (now.len() == 2 && !now.contains(&victim)).then_some(())
    });
    agreed(&trio, &http, &servers);
    for (n, server) in servers.iter().enumerate() {
        let path = format!("/v1/servers/{server}");
        let deleted = http.change(&Method::DELETE, &path, &format!("delete-{n}"), None);
        assert_eq!(http.task_end(&task_of(&deleted))["state"], "done", "{day:#?}");
        tasks.push(task_of(&deleted));
    }
    assert!(guests(&trio.dir).is_empty());
    for process in [agent, engine, api] {
        process.end();
    }
    let rest = Rest::of(&dir.path().join("skyloom.db"));
    rest.all_work_has_ended(&tasks);
    for task in &tasks[..tasks.len() - 1] {
        journal_has_forgotten(&dir.path().join("host/journal"), task);
    }
}
