//! `skyloom dev` with real QEMU guests, killed with -9 while they run.

use std::path::Path;

use crate::support::{Process, Sky, Sweep, alive, guest_image, guests, until};

fn dev(data: &Path, log: &Path) -> (Process, Sky) {
    let data = data.to_str().unwrap();
    let process = Process::start(
        "skyloom",
        &[
            "dev",
            "--data-dir",
            data,
            "--listen",
            "127.0.0.1:0",
            "--log",
            "info,skyloom_qmp=debug",
        ],
        log,
    );
    let endpoint = process.line("SKYLOOM_ENDPOINT=");
    let token = process.line("SKYLOOM_TOKEN=");
    (process, Sky { endpoint, token })
}

fn heartbeats(console: &str) -> usize {
    console.matches("skyloom-guest heartbeat").count()
}

#[test]
fn a_guest_boots_with_its_name_and_outlives_the_cloud() {
    let dir = tempfile::tempdir().unwrap();
    let (data, log) = (dir.path().join("data"), dir.path().join("log"));
    let _sweep = Sweep(data.clone());
    let image = guest_image();
    let (cloud, sky) = dev(&data, &log);

    // The main job: import, create, boot, and the guest says who it is.
    let image = image.to_str().unwrap();
    sky.json(&[
        "image", "import", "--name", "guest", "--format", "qcow2", "--file", image, "--wait",
    ]);
    let created = sky.json(&[
        "server", "create", "web-1", "--image", "guest", "--flavor", "m1.tiny", "--wait",
    ]);
    let password = created["password"]
        .as_str()
        .expect("the password is shown once")
        .to_owned();
    let request = created["task"]["request_id"]
        .as_str()
        .expect("the task knows its request")
        .to_owned();
    let server = sky.json(&["server", "show", "web-1"]);
    assert_eq!(
        (
            server["status"]["lifecycle"].as_str(),
            server["status"]["power"].as_str()
        ),
        (Some("active"), Some("running"))
    );
    let accelerator = server["status"]["accelerator"].as_str().unwrap();
    assert!(
        accelerator.starts_with("kvm") || accelerator.starts_with("tcg"),
        "{accelerator}"
    );
    let console = sky.until("the guest's first words", |sky| {
        let text = sky.try_text(&["server", "console", "web-1"]).ok()?;
        (heartbeats(&text) > 0).then_some(text)
    });
    let id = server["meta"]["id"].as_str().unwrap();
    assert!(
        console.contains(&format!("skyloom-guest ready hostname=web-1 instance-id={id}")),
        "{console}"
    );

    // One id from the command line to the monitor's commands.
    let text = std::fs::read_to_string(&log).unwrap();
    let traced = |what: &str| text.lines().any(|l| l.contains(&request) && l.contains(what));
    for step in ["/v1/servers", "planned", "command=\"cont\""] {
        assert!(traced(step), "{request} is not on a line with {step}");
    }

    // kill -9: the guest goes on, the next life adopts it.
    let before = guests(&data);
    assert_eq!(before.len(), 1);
    cloud.kill();
    assert!(alive(before[0]), "the guest died with the cloud");
    let (cloud, sky) = dev(&data, &log);
    let heard = sky.until("the console in the next life", |sky| {
        let text = sky.try_text(&["server", "console", "web-1"]).ok()?;
        Some(heartbeats(&text))
    });
    sky.until("more heartbeats", |sky| {
        let text = sky.try_text(&["server", "console", "web-1"]).ok()?;
        (heartbeats(&text) > heard).then_some(())
    });
    assert_eq!(guests(&data), before, "adopted, not restarted");
    assert_eq!(
        sky.json(&["server", "show", "web-1"])["status"]["power"],
        "running"
    );

    // A half-done create is completed by the next life, not failed.
    let second = sky.json(&[
        "server",
        "create",
        "web-2",
        "--image",
        "guest",
        "--flavor",
        "m1.tiny",
        "--no-wait",
    ]);
    cloud.kill();
    let (cloud, sky) = dev(&data, &log);
    let task = sky.task_end(second["task"]["id"].as_str().unwrap());
    assert_eq!(task["state"], "done", "{task:#}");
    until("both guests", || (guests(&data).len() == 2).then_some(()));

    // Off by ACPI, on again, and away with nothing left.
    sky.json(&["server", "stop", "web-1", "--wait"]);
    assert_eq!(
        sky.json(&["server", "show", "web-1"])["status"]["power"],
        "stopped"
    );
    assert!(!alive(before[0]));
    sky.json(&["server", "start", "web-1", "--wait"]);
    assert_eq!(
        sky.json(&["server", "show", "web-1"])["status"]["power"],
        "running"
    );
    for name in ["web-1", "web-2"] {
        sky.json(&["server", "delete", name, "--yes", "--wait"]);
    }
    assert_eq!(sky.json(&["server", "list"]).as_array().map(Vec::len), Some(0));
    assert!(guests(&data).is_empty());
    drop(cloud);

    // The password is nowhere: not in the store, not in any file of any host, not in the log.
    let mut folders = vec![dir.path().to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() && !path.is_symlink() {
                folders.push(path);
            } else if path.is_file() {
                let bytes = std::fs::read(&path).unwrap();
                let found = bytes.windows(password.len()).any(|w| w == password.as_bytes());
                assert!(!found, "the password stands in {}", path.display());
            }
        }
    }
}

#[test]
fn a_hundred_simulated_hosts_are_ready_soon() {
    let dir = tempfile::tempdir().unwrap();
    let args = [
        "dev",
        "--hosts",
        "100",
        "--hypervisor",
        "fake",
        "--store",
        "memory",
        "--listen",
        "127.0.0.1:0",
    ];
    let process = Process::start("skyloom", &args, &dir.path().join("log"));
    let sky = Sky {
        endpoint: process.line("SKYLOOM_ENDPOINT="),
        token: process.line("SKYLOOM_TOKEN="),
    };
    let hosts = sky.json(&["host", "list"]);
    assert_eq!(hosts.as_array().map(Vec::len), Some(100));
    sky.until("all hosts", |sky| {
        let hosts = sky.json(&["host", "list"]);
        hosts
            .as_array()?
            .iter()
            .all(|h| h["status"]["reachable"] == true)
            .then_some(())
    });
}

#[test]
fn an_image_comes_by_url_where_the_address_is_allowed() {
    let dir = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let bytes = std::fs::read(guest_image()).unwrap();
    let listener = runtime
        .block_on(tokio::net::TcpListener::bind("127.0.0.1:0"))
        .unwrap();
    let url = format!("http://{}/guest.qcow2", listener.local_addr().unwrap());
    let routes = axum::Router::new().route(
        "/guest.qcow2",
        axum::routing::get(move || std::future::ready(bytes.clone())),
    );
    runtime.spawn(async move { axum::serve(listener, routes).await });
    let common = [
        "dev",
        "--hypervisor",
        "fake",
        "--store",
        "memory",
        "--listen",
        "127.0.0.1:0",
    ];
    let import = [
        "image", "import", "--name", "guest", "--format", "qcow2", "--url", &url, "--wait",
    ];

    let process = Process::start("skyloom", &common, &dir.path().join("log"));
    let sky = Sky {
        endpoint: process.line("SKYLOOM_ENDPOINT="),
        token: process.line("SKYLOOM_TOKEN="),
    };
    let output = sky.output(&import);
    assert!(!output.status.success());
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        message.contains("127.0.0.1"),
        "the refused address is named: {message}"
    );
    drop(process);

    let allowed = [&common[..], &["--fetch-allow", "127.0.0.0/8"]].concat();
    let process = Process::start("skyloom", &allowed, &dir.path().join("log"));
    let sky = Sky {
        endpoint: process.line("SKYLOOM_ENDPOINT="),
        token: process.line("SKYLOOM_TOKEN="),
    };
    sky.json(&import);
    let image = sky.json(&["image", "show", "guest"]);
    assert_eq!(image["status"]["state"], "active", "{image:#}");
}
