//! Real guests under QEMU: they boot on their taps, are told their addresses by DHCP, and are reached as rules allow.

use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::Duration;

use serde_json::json;
use skyloom_hypervisor::conformance::exam_wiring;
use skyloom_hypervisor::{HostNetwork, PortWiring};

use crate::flows::at;
use crate::world::{World, run};

/// A machine without KVM, and others at work on it.
const BOOT: Duration = Duration::from_secs(240);

/// The demo's image, made once per target directory.
fn image() -> PathBuf {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("bridge-guest");
    let image = dir.join("guest.qcow2");
    let tool = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tools/guest/make-image.sh");
    let changed = |path: &Path| std::fs::metadata(path).and_then(|m| m.modified()).ok();
    let sources = std::fs::read_dir(tool.parent().unwrap()).unwrap();
    let newest = sources.filter_map(|e| changed(&e.unwrap().path())).max();
    if changed(&image) <= newest {
        std::fs::create_dir_all(&dir).unwrap();
        run(tool.to_str().unwrap(), &[image.to_str().unwrap()]);
    }
    image
}

struct Machine {
    qemu: Child,
    console: PathBuf,
}

impl Machine {
    async fn start(world: &World, wiring: &PortWiring) -> Self {
        let tap = world.wire(wiring).await;
        let console = world.dir.path().join(format!("{}.log", wiring.server));
        let file = json!({ "driver": "file", "filename": image(), "read-only": true });
        let disk = json!({ "driver": "qcow2", "node-name": "root", "read-only": true, "backing": null, "file": file });
        let netdev = json!({
            "type": "tap", "id": "net0", "ifname": tap, "script": "no", "downscript": "no", "vhost": false,
        });
        let nic = json!({ "driver": "virtio-net-pci", "netdev": "net0", "mac": wiring.mac, "romfile": "" });
        let mut qemu = Command::new("qemu-system-x86_64");
        qemu.args([
            "-machine",
            "q35,accel=tcg",
            "-cpu",
            "max",
            "-m",
            "192",
            "-display",
            "none",
            "-vga",
            "none",
        ])
        .args(["-nodefaults", "-no-user-config"])
        .args(["-chardev", &format!("file,id=serial,path={}", console.display())])
        .args(["-device", "isa-serial,chardev=serial"])
        .args([
            "-blockdev",
            &disk.to_string(),
            "-device",
            "virtio-blk-pci,drive=root",
        ])
        .args(["-netdev", &netdev.to_string(), "-device", &nic.to_string()]);
        let qemu = qemu.spawn().unwrap();
        Self { qemu, console }
    }
    async fn must_say(&self, text: &str) {
        let said = || String::from_utf8_lossy(&std::fs::read(&self.console).unwrap_or_default()).into_owned();
        let heard = async {
            while !said().contains(text) {
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        };
        let heard = tokio::time::timeout(BOOT, heard).await;
        assert!(heard.is_ok(), "no {text:?} in {}", said());
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = self.qemu.kill();
        let _ = self.qemu.wait();
    }
}

pub(crate) async fn real_guests_boot_on_their_taps() {
    let world = World::new().await;
    let one = exam_wiring(1, 1);
    let mut two = exam_wiring(1, 2);
    two.rules.truncate(1); // nothing in
    let asker = world.guest(&exam_wiring(1, 3)).await;
    let first = Machine::start(&world, &one).await;
    let second = Machine::start(&world, &two).await;
    first.must_say("address=192.168.1.1").await;
    second.must_say("address=192.168.1.2").await;

    asker.must_reach(at(1, 1));
    asker.must_not_reach(at(1, 2));
    // The agent is restarted under running guests.
    let world = world.reopened().await;
    asker.must_reach(at(1, 1));
    asker.must_not_reach(at(1, 2));
    let open = PortWiring {
        generation: 2,
        rules: one.rules.clone(),
        ..two.clone()
    };
    world.wire(&open).await;
    asker.must_reach(at(1, 2));
    // A device in use is taken away without harm to others.
    world.network.remove_port(two.port, 2).await.unwrap();
    asker.must_not_reach(at(1, 2));
    asker.must_reach(at(1, 1));
    drop((first, second));
}
