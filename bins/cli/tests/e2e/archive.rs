//! A cloud whose finished tasks move to a store of their own, killed with -9 on the way.

use std::path::Path;

use serde_json::Value;
use skyloom_store::conformance::soak::private_port;

use crate::secantus::Secantus;
use crate::support::{Process, Sky};

fn dev(dir: &Path, archive: &str, after: &str) -> (Process, Sky) {
    let data = dir.join("data").display().to_string();
    let process = Process::start(
        "skyloom",
        &[
            "dev",
            "--data-dir",
            &data,
            "--listen",
            "127.0.0.1:0",
            "--hypervisor",
            "fake",
            "--archive",
            archive,
            "--archive-after",
            after,
        ],
        &dir.join("log"),
    );
    let endpoint = process.line("SKYLOOM_ENDPOINT=");
    let token = process.line("SKYLOOM_TOKEN=");
    (process, Sky { endpoint, token })
}

fn ids(sky: &Sky, args: &[&str]) -> Vec<String> {
    try_ids(sky, args).unwrap_or_else(|e| panic!("{e}"))
}

fn try_ids(sky: &Sky, args: &[&str]) -> Result<Vec<String>, String> {
    let found = sky.try_json(args)?;
    let all = found.as_array().unwrap().iter();
    Ok(all.map(|task| task["id"].as_str().unwrap().to_owned()).collect())
}

/// Whether the task is told from the archive; `None` while nobody can say.
fn archived(sky: &Sky, id: &str) -> Option<bool> {
    sky.try_json(&["task", "show", id]).ok()?["archived"].as_bool()
}

#[test]
fn finished_tasks_move_to_a_file_of_their_own_and_are_found_there() {
    let dir = tempfile::tempdir().unwrap();
    let archive = format!("sqlite://{}/archive.db", dir.path().display());
    let (cloud, sky) = dev(dir.path(), &archive, "24h");
    let mut made = Vec::new();
    for _ in 0..3 {
        let swept: Value = sky.json(&["host", "sweep", "host-1", "--wait"]);
        made.push(swept["task"]["id"].as_str().unwrap().to_owned());
    }
    assert_eq!(ids(&sky, &["task", "list", "--state", "done"]), made);
    let before = sky.json(&["task", "show", &made[0]]);
    assert_eq!(before["archived"], false);
    cloud.kill();
    // From now on they move after a second; it may die in between.
    for _ in 0..3 {
        let (cloud, _) = dev(dir.path(), &archive, "1s");
        cloud.kill();
    }
    let (cloud, sky) = dev(dir.path(), &archive, "1s");
    sky.until("the tasks in the archive", |sky| {
        // In this order: what moves in between is seen twice, never not at all.
        let hot = try_ids(sky, &["task", "list"]).ok()?;
        let archived = try_ids(sky, &["task", "list", "--archived"]).ok()?;
        let somewhere = |id: &String| hot.contains(id) || archived.contains(id);
        assert!(made.iter().all(somewhere), "{hot:?} {archived:?}");
        made.iter().all(|id| !hot.contains(id)).then_some(())
    });
    let filters = ["--filter", "kind=hosts", "--filter", "ended-after=1h"];
    let found = ids(
        &sky,
        &[
            &["task", "list", "--archived", "--flow", "host.sweep"][..],
            &filters[..],
        ]
        .concat(),
    );
    assert!(made.iter().all(|id| found.contains(id)), "{found:?}");
    let after = sky.json(&["task", "show", &made[0]]);
    assert_eq!(after["archived"], true);
    for field in ["task", "plan", "jobs"] {
        assert_eq!(after[field], before[field], "{field}");
    }
    // Also by the beginning of its id, as far as that names one.
    let shown = sky.text(&["task", "show", &made[0][..made[0].len() - 1]]);
    assert!(shown.contains(&made[0]) && shown.contains("Archived"), "{shown}");
    cloud.end();
}

/// One task of the cloud itself.
fn sweep(sky: &Sky) -> String {
    let swept = sky.json(&["host", "sweep", "host-1", "--wait"]);
    swept["task"]["id"].as_str().unwrap().to_owned()
}

#[test]
fn tasks_move_to_mongodb_which_may_come_late_and_go_away() {
    let dir = tempfile::tempdir().unwrap();
    let port = private_port().unwrap();
    // The options are the driver's: how long it looks for a server that is away.
    let archive = format!(
        "mongodb://127.0.0.1:{port}/archive?directConnection=true&serverSelectionTimeoutMS=1000&connectTimeoutMS=1000"
    );
    // The cloud comes first: nothing waits for the archive but what is to be archived.
    let (cloud, sky) = dev(dir.path(), &archive, "1s");
    let first = sweep(&sky);
    assert_eq!(sky.json(&["task", "show", &first])["archived"], false);
    let server = Secantus::start(dir.path(), port);
    let listed = |sky: &Sky, id: &String| {
        let found = try_ids(sky, &["task", "list", "--archived"]).ok()?;
        found.contains(id).then_some(())
    };
    sky.until("the first task in the archive", |sky| listed(sky, &first));
    sky.until("the first task out of the store", |sky| {
        archived(sky, &first)?.then_some(())
    });
    // kill -9 while the cloud works: tasks are made and shown, and nothing leaves the store.
    drop(server);
    let second = sweep(&sky);
    assert_eq!(sky.json(&["task", "show", &second])["archived"], false);
    let error = sky.output(&["task", "show", &first]);
    assert!(
        !error.status.success(),
        "it cannot be told, so it is not said that there is none"
    );
    assert_ne!(error.status.code(), Some(5), "{error:?}");
    let server = Secantus::start(dir.path(), port);
    sky.until("the second task in the archive", |sky| listed(sky, &second));
    sky.until("both tasks from the archive", |sky| {
        (archived(sky, &first)? && archived(sky, &second)?).then_some(())
    });
    cloud.end();
    drop(server);
}
