//! A whole cloud in one process dies at each named crash point of a create; the next life must finish what it found: on SQLite and
//! on etcd.
//!
//! ```text
//!  template (an image, no server) ──copy──> dies at the point ──> next life, the same request again ──> end ──> delete ──> rest
//! ```

use std::collections::BTreeSet;
use std::panic::AssertUnwindSafe;
use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use reqwest::Method;
use skyloom::hypervisor::{ErrorKind, FakeOptions, FakeWorld, FaultPoint};
use skyloom::model::TaskState;
use skyloom::model::crash::CRASH_POINTS;

use crate::etcd::Etcd;
use crate::http::{Http, import, server_of, small_server, task_of};
use crate::rest::{Rest, journal_has_forgotten};
use crate::support::{Process, Sky, program};

/// One death.
#[derive(Debug, Clone, Copy)]
struct Death {
    point: &'static str,
    /// Passages that are survived.
    after: u32,
    /// Whether the guest cannot be started, so that the create goes back.
    back: bool,
}

const fn forth(point: &'static str, after: u32) -> Death {
    Death {
        point,
        after,
        back: false,
    }
}

const fn back(point: &'static str, after: u32) -> Death {
    Death {
        point,
        after,
        back: true,
    }
}

/// A create has five jobs: image, disk, config drive, domain, start. On the way back the sixth is the undo of the start, the
/// seventh that of the domain.
const DEATHS: [Death; 30] = [
    forth("api.before_commit", 0),
    forth("api.after_commit", 0),
    forth("engine.after_claim", 0),
    forth("engine.before_plan_commit", 0),
    forth("engine.after_plan_commit", 0),
    forth("engine.after_dispatch", 0),
    forth("engine.result_seen", 0),
    forth("engine.before_end", 0),
    forth("engine.after_end", 0),
    back("engine.unwind_decided", 0),
    back("engine.amid_unwind", 0),
    back("engine.amid_unwind", 1),
    back("engine.all_undone", 0),
    back("engine.after_end", 0),
    forth("agent.job_seen", 0),
    forth("agent.after_started", 0),
    forth("agent.after_started", 4),
    forth("agent.after_intent", 1),
    forth("agent.after_intent", 4),
    forth("agent.mid_effect", 0),
    forth("agent.mid_effect", 2),
    forth("agent.mid_effect", 3),
    back("agent.mid_effect", 3),
    forth("agent.after_effect", 0),
    forth("agent.after_effect", 4),
    back("agent.after_effect", 6),
    forth("agent.after_outcome", 4),
    back("agent.after_outcome", 6),
    forth("agent.after_report", 4),
    back("agent.after_report", 6),
];

/// Clouds at the same time.
const LANES: usize = 3;

#[test]
fn a_create_survives_a_death_at_each_point() {
    each_death(&|data| format!("sqlite://{}", data.join("skyloom.db").display()));
}

#[test]
fn a_create_survives_a_death_at_each_point_on_etcd() {
    let dir = tempfile::tempdir().unwrap();
    let etcd = Etcd::start(dir.path());
    let clouds = AtomicUsize::new(0);
    each_death(&|data| {
        let uri = etcd.uri(&format!("cloud-{}", clouds.fetch_add(1, Ordering::SeqCst)));
        // The template moves there; its agent goes on in the new incarnation.
        let file = format!("sqlite://{}", data.join("skyloom.db").display());
        store(&["copy", "--from", &file, "--to", &uri]);
        uri
    });
}

/// What `skyloom store ARGS` prints as JSON; it must work.
fn store(args: &[&str]) -> serde_json::Value {
    let output = Command::new(program("skyloom"))
        .arg("store")
        .args(args)
        .args(["-o", "json"])
        .output()
        .unwrap();
    assert!(output.status.success(), "{args:?}: {output:?}");
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn a_store_goes_from_sqlite_to_etcd_and_back() {
    let dir = tempfile::tempdir().unwrap();
    let etcd = Etcd::start(dir.path());
    copy(template(), &dir.path().join("data"));
    let file = |name: &str| format!("sqlite://{}", dir.path().join(name).display());
    let (first, there, back) = (file("data/skyloom.db"), etcd.uri("moved"), file("back.db"));
    store(&["copy", "--from", &first, "--to", &there]);
    store(&["copy", "--from", &there, "--to", &back]);
    let reports = [&first, &there, &back].map(|uri| store(&["check", uri]));
    for report in &reports {
        assert_eq!(report["records"], reports[0]["records"], "{report:#}");
        assert_eq!(
            report["incarnation"]["cluster"],
            reports[0]["incarnation"]["cluster"]
        );
    }
    let servers = reports.map(|report| report["server"]["server"].as_str().unwrap().to_owned());
    assert!(
        servers[1].starts_with("etcd 3.") && servers[2].starts_with("SQLite 3."),
        "{servers:?}"
    );
    assert!(Rest::at(&first).differs_from(&Rest::at(&back)).is_empty());
}

/// Each death in a cloud of its own, whose store is at the address that `place` gives for its data folder.
fn each_death(place: &(impl Fn(&Path) -> String + Sync)) {
    let tried: BTreeSet<&str> = DEATHS.iter().map(|d| d.point).collect();
    let named: BTreeSet<&str> = CRASH_POINTS.iter().map(|p| p.name).collect();
    assert_eq!(tried, named, "each point is tried");
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        let lanes: Vec<_> = (0..LANES)
            .map(|_| {
                scope.spawn(|| {
                    let mut failed = Vec::new();
                    while let Some(death) = DEATHS.get(next.fetch_add(1, Ordering::SeqCst)) {
                        let begun = std::time::Instant::now();
                        if std::panic::catch_unwind(AssertUnwindSafe(|| survive(*death, place))).is_err() {
                            failed.push(*death);
                        }
                        println!("{death:?}: {:.1?}", begun.elapsed());
                    }
                    failed
                })
            })
            .collect();
        let failed: Vec<Death> = lanes.into_iter().flat_map(|l| l.join().unwrap()).collect();
        assert!(failed.is_empty(), "not survived: {failed:#?}");
    });
}

fn start(data: &Path, store: &str, failpoints: &str) -> (Process, Sky) {
    let args = [
        "dev",
        "--store",
        store,
        "--hypervisor",
        "fake",
        "--listen",
        "127.0.0.1:0",
        "--data-dir",
        data.to_str().unwrap(),
    ];
    let process = Process::doomed("skyloom", &args, &data.join("log"), failpoints);
    let endpoint = process.line("SKYLOOM_ENDPOINT=");
    let token = process.line("SKYLOOM_TOKEN=");
    (process, Sky { endpoint, token })
}

/// A cloud's folder with an image in it, made once.
fn template() -> &'static Path {
    static TEMPLATE: OnceLock<tempfile::TempDir> = OnceLock::new();
    let dir = TEMPLATE.get_or_init(|| {
        let dir = tempfile::tempdir().unwrap();
        let (process, sky) = start(dir.path(), "sqlite", "");
        import(&sky, dir.path());
        process.end();
        dir
    });
    dir.path()
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy(&path, &target);
        } else {
            std::fs::copy(&path, &target).unwrap();
        }
    }
}

fn survive(death: Death, place: &impl Fn(&Path) -> String) {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    copy(template(), &data);
    let store = place(&data);
    let host = data.join("hosts/host-1");
    let world = FakeWorld::open(FakeOptions::directory(&host)).unwrap();
    if death.back {
        world.fail_next(FaultPoint::Start, ErrorKind::Invalid).unwrap();
    }
    let armed = match death.after {
        0 => format!("{}=return", death.point),
        n => format!("{}={n}*off->return", death.point),
    };
    let (doomed, sky) = start(&data, &store, &armed);
    let body = small_server("s1");
    let create = |http: &Http| http.change(&Method::POST, "/v1/servers", "create-s1", Some(&body));
    let http = Http::new(&sky);
    http.host_ready();
    let first = http.send(&Method::POST, "/v1/servers", Some("create-s1"), Some(&body));
    doomed.died(&format!("{armed} to be reached"));

    let (next, sky) = start(&data, &store, "");
    let http = Http::new(&sky);
    http.host_ready();
    let made = create(&http);
    let (task, server) = (task_of(&made), server_of(&made));
    if let Some((status, first)) = &first {
        assert_eq!(*status, 202, "{first:#}");
        assert_eq!(
            (task_of(first), server_of(first)),
            (task.clone(), server.clone()),
            "I2"
        );
    }
    let end = http.task_end(&task);
    let wanted = if death.back { "failed" } else { "done" };
    assert_eq!(end["state"], wanted, "{end:#}");
    if death.back {
        assert_eq!(end["reason"]["code"], "host.invalid", "{end:#}");
    }
    // Dead at rest: nothing more is to be done, so nothing is lost.
    next.kill();
    let rest = Rest::at(&store);
    let creates = rest.tasks("server.create");
    assert_eq!(creates.len(), 1, "I4: one request, one task");
    let ended = if death.back {
        TaskState::Failed
    } else {
        TaskState::Done
    };
    assert_eq!(creates[0].state, ended);
    rest.check(&world, std::slice::from_ref(&task));
    let starts = world.effects_of(server.parse().unwrap()).unwrap();
    let starts = starts.iter().filter(|e| format!("{e:?}") == "Started").count();
    assert_eq!(starts, usize::from(!death.back), "I4");

    // The same answer for ever, and away with it.
    let (last, sky) = start(&data, &store, "");
    let http = Http::new(&sky);
    assert_eq!(task_of(&create(&http)), task);
    let path = format!("/v1/servers/{server}");
    let deleted = http.change(&Method::DELETE, &path, "delete-s1", None);
    let deletion = task_of(&deleted);
    assert_eq!(http.task_end(&deletion)["state"], "done");
    last.end();
    let rest = Rest::at(&store);
    rest.check(&world, &[task.clone(), deletion]);
    assert!(world.holdings().unwrap().is_empty(), "I12");
    journal_has_forgotten(&host.join("journal"), &task);
}
