//! Disks of a real guest, which keeps a count on each: through snapshots and back, put away and made again, rebuilt, booted from a
//! volume.

use std::path::Path;

use crate::support::{Sky, Sweep, dev, guest_image, guests, import};

/// The counts of the guest's disks, in the order in which it said them: by the ends of their names.
fn counts(sky: &Sky, server: &str, disk: &str) -> Vec<u64> {
    let text = sky.try_text(&["server", "console", server]).unwrap_or_default();
    let counts = text.lines().filter_map(|line| {
        let (_, rest) = line.split_once("skyloom-guest disk ")?;
        let (serial, count) = rest.trim_end().split_once(" boots=")?;
        serial.starts_with(disk).then(|| count.parse().ok())?
    });
    counts.collect()
}

/// Waits until the guest has said its count of a disk so many times, and gives the last one.
fn counted(sky: &Sky, server: &str, disk: &str, times: usize) -> u64 {
    sky.until(&format!("count {times} of {disk}"), |sky| {
        let all = counts(sky, server, disk);
        (all.len() >= times).then(|| all[times - 1])
    })
}

fn started(sky: &Sky, image: &Path) {
    import(sky, "guest", "qcow2", image);
    sky.json(&[
        "server", "create", "web-1", "--image", "guest", "--flavor", "m1.tiny", "--wait",
    ]);
}

#[test]
fn what_a_guest_has_written_is_where_it_is_said_to_be() {
    let dir = tempfile::tempdir().unwrap();
    let (data, log) = (dir.path().join("data"), dir.path().join("log"));
    let _sweep = Sweep(data.clone());
    let (_cloud, sky) = dev(&data, &log);
    started(&sky, &guest_image());
    assert_eq!(counted(&sky, "web-1", "root", 1), 1);

    // A volume that comes while it runs.
    sky.json(&[
        "volume", "create", "data", "--size", "1", "--server", "web-1", "--wait",
    ]);
    sky.json(&["volume", "attach", "data", "web-1", "--wait"]);
    assert_eq!(counted(&sky, "web-1", "vol-", 1), 1);

    // Both disks at one moment, and back to it: what was written in between never was.
    sky.json(&["server", "stop", "web-1", "--wait"]);
    sky.json(&["snapshot", "create", "before", "--server", "web-1", "--wait"]);
    sky.json(&["server", "start", "web-1", "--wait"]);
    assert_eq!(counted(&sky, "web-1", "root", 2), 2);
    assert_eq!(counted(&sky, "web-1", "vol-", 2), 2);
    sky.json(&["server", "stop", "web-1", "--wait"]);
    sky.json(&["snapshot", "revert", "before", "--yes", "--wait"]);
    sky.json(&["server", "start", "web-1", "--wait"]);
    assert_eq!(counted(&sky, "web-1", "root", 3), 2, "the second boot once more");
    assert_eq!(counted(&sky, "web-1", "vol-", 3), 2);
    sky.json(&["snapshot", "delete", "before", "--yes", "--wait"]);
    sky.json(&["volume", "grow", "data", "--size", "2", "--wait"]);

    // Put away: nothing of it runs, and only its volume is left on the host; made again, it counts on.
    sky.json(&["server", "shelve", "web-1", "--wait"]);
    sky.until("the host's end with it", |sky| {
        let server = sky.json(&["server", "show", "web-1"]);
        server["status"]["placement"].is_null().then_some(())
    });
    assert_eq!(guests(&data), Vec::<i32>::new());
    sky.json(&["server", "unshelve", "web-1", "--wait"]);
    assert_eq!(
        counted(&sky, "web-1", "root", 1),
        3,
        "its console is new, its disk is not"
    );
    assert_eq!(counted(&sky, "web-1", "vol-", 1), 3);
    sky.until("the end of the image that it was", |sky| {
        let images = sky.json(&["image", "list"]);
        (images.as_array()?.len() == 1).then_some(())
    });

    // A copy of its root disk while it runs: the copy counts on by itself.
    sky.json(&["server", "clone", "web-1", "twin", "--wait"]);
    assert_eq!(counted(&sky, "twin", "root", 1), 4);
    sky.json(&["server", "delete", "twin", "--yes", "--wait"]);

    // A new root disk beside the same volume.
    sky.json(&[
        "server", "rebuild", "web-1", "--image", "guest", "--yes", "--wait",
    ]);
    assert_eq!(counted(&sky, "web-1", "root-", 1), 1);
    assert_eq!(counted(&sky, "web-1", "vol-", 2), 4);

    // The volume goes to another server, whose own system is on a volume.
    sky.json(&["volume", "detach", "data", "--wait"]);
    sky.json(&["server", "delete", "web-1", "--yes", "--wait"]);
    sky.json(&[
        "server",
        "create",
        "web-2",
        "--flavor",
        "m1.tiny",
        "--volume",
        "image=guest,size=1,boot",
        "--volume",
        "data",
        "--wait",
    ]);
    let both = sky.until("both counts", |sky| {
        let mut all = counts(sky, "web-2", "vol-");
        all.sort_unstable();
        (all.len() == 2).then_some(all)
    });
    assert_eq!(
        both,
        [1, 5],
        "its own system's first boot; the other volume's fifth"
    );
}
