//! Rescue with real guests: from a disk and from a kernel, over kill -9, and back to what the server was.

use std::path::{Path, PathBuf};

use serde_json::Value;
use sha2::{Digest as _, Sha256};

use crate::support::{Sky, Sweep, dev, guest_image, guests, import, rescue_files};

/// All files below that are of the server's own disks, with what they hold.
fn disks(data: &Path, server: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let (mut found, mut folders) = (Vec::new(), vec![data.to_owned()]);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_symlink() {
                continue;
            }
            let of_pool = path.extension().is_some_and(|e| e == "qcow2" || e == "iso");
            if path.is_dir() {
                folders.push(path);
            } else if of_pool && path.to_str().unwrap().contains(server) {
                let hash = Sha256::digest(std::fs::read(&path).unwrap()).to_vec();
                found.push((path, hash));
            }
        }
    }
    found.sort();
    found
}

fn report(sky: &Sky) -> Value {
    sky.until("the whole report of the rescue system", |sky| {
        let text = sky
            .try_text(&["server", "rescue-report", "web-1", "-o", "json"])
            .ok()?;
        let report: Value = serde_json::from_str(&text).ok()?;
        (report["complete"] == true).then_some(report)
    })
}

fn finds_the_root_disk(report: &Value) {
    let findings = report["findings"].as_array().unwrap();
    let of_root = |kind: &str| findings.iter().any(|f| f["kind"] == kind && f["disk"] == "root");
    assert!(
        of_root("disk") && of_root("filesystem") && of_root("usage"),
        "{report:#}"
    );
    assert!(
        findings
            .iter()
            .all(|f| f["disk"] != "rescue" && f["disk"] != "seed"),
        "{report:#}"
    );
}

fn status(sky: &Sky) -> Value {
    sky.json(&["server", "show", "web-1"])["status"].clone()
}

#[test]
fn a_server_is_rescued_and_is_what_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let (data, log) = (dir.path().join("data"), dir.path().join("log"));
    let _sweep = Sweep(data.clone());
    let files = rescue_files();
    let (cloud, sky) = dev(&data, &log);
    import(&sky, "guest", "qcow2", &guest_image());
    import(&sky, "rescue", "qcow2", &files.join("rescue.qcow2"));
    import(&sky, "rescue-kernel", "kernel", &files.join("vmlinuz"));
    import(&sky, "rescue-initrd", "initrd", &files.join("initrd.gz"));
    let made = sky.json(&[
        "server", "create", "web-1", "--image", "guest", "--flavor", "m1.tiny", "--wait",
    ]);
    let id = made["server"]["meta"]["id"].as_str().unwrap().to_owned();
    let addresses = status(&sky)["addresses"].clone();
    sky.json(&["server", "stop", "web-1", "--wait"]);
    let before = disks(&data, &id);
    assert_eq!(before.len(), 2, "root and config drive: {before:?}");

    // From a disk, of a server that is off.
    let rescued = sky.json(&["server", "start-rescue", "web-1", "--wait"]);
    assert!(
        rescued["password"].as_str().is_some_and(|p| p.len() >= 8),
        "{rescued:#}"
    );
    let now = status(&sky);
    assert_eq!(
        (&now["overlays"]["rescued"], &now["power"]),
        (&true.into(), &"running".into())
    );
    finds_the_root_disk(&report(&sky));
    assert!(
        sky.try_text(&["server", "pause", "web-1"]).is_err(),
        "refused while it is rescued"
    );

    // The cloud dies; the rescue goes on, and is left by the next life.
    let running = guests(&data);
    cloud.kill();
    let (cloud, sky) = dev(&data, &log);
    sky.until("the adopted rescue", |sky| {
        let now = status(sky);
        (now["power"] == "running" && now["overlays"]["rescued"] == true).then_some(())
    });
    assert_eq!(guests(&data), running, "adopted, not restarted");
    sky.json(&["server", "stop-rescue", "web-1", "--force", "--wait"]);
    let now = status(&sky);
    assert_eq!(
        (&now["overlays"]["rescued"], &now["power"]),
        (&false.into(), &"stopped".into())
    );
    // Its own disks are untouched; the rescue system's go soon after.
    sky.until("the end of the rescue system's disks", |_| {
        (disks(&data, &id) == before).then_some(())
    });

    // From a kernel, of a server that runs; the guest is back afterwards with its address.
    sky.json(&["server", "start", "web-1", "--wait"]);
    sky.json(&[
        "server",
        "start-rescue",
        "web-1",
        "--kernel",
        "rescue-kernel",
        "--initrd",
        "rescue-initrd",
        "--force",
        "--wait",
    ]);
    let told = report(&sky);
    finds_the_root_disk(&told);
    sky.json(&["server", "stop-rescue", "web-1", "--wait"]);
    let now = status(&sky);
    assert_eq!(
        (&now["power"], &now["addresses"]),
        (&"running".into(), &addresses)
    );
    sky.until("the guest's own words", |sky| {
        let text = sky.try_text(&["server", "console", "web-1"]).ok()?;
        let (_, after) = text.rsplit_once("skyloom-rescue ready")?;
        after.contains("skyloom-guest ready hostname=web-1").then_some(())
    });
    sky.json(&["server", "delete", "web-1", "--yes", "--wait"]);
    drop(cloud);
}
