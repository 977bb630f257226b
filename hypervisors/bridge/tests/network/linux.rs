//! Real guests under QEMU: they boot on their taps, are told their addresses by DHCP, and are reached as rules allow.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use skyloom_hypervisor::conformance::exam_wiring;
use skyloom_hypervisor::{HostNetwork, Hypervisor, Inspection, PortWiring, StopMode, VmSpec};
use skyloom_model::{PowerState, ServerId, SystemClock};
use skyloom_qmp::{QmpConfig, QmpHypervisor};

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

struct Machine<'a> {
    hypervisor: &'a QmpHypervisor,
    id: ServerId,
}

impl<'a> Machine<'a> {
    async fn start(world: &World, hypervisor: &'a QmpHypervisor, wiring: &PortWiring) -> Self {
        let (base, path) = (image(), world.dir.path().join(format!("{}.qcow2", wiring.server)));
        let names = [base.to_str().unwrap(), path.to_str().unwrap()];
        let args = [&["create", "-q", "-f", "qcow2", "-F", "qcow2", "-b"], &names[..]].concat();
        run("qemu-img", &args);
        let tap = world.wire(wiring).await;
        let spec: VmSpec = serde_json::from_value(json!({
            "id": wiring.server, "project": wiring.project, "generation": 1, "name": "guest",
            "vcpus": 1, "memory_mib": 192,
            "disks": [{
                "name": "root", "path": path, "format": "qcow2", "backing_format": "qcow2", "read_only": false,
            }],
            "nics": [{ "kind": "tap", "mac": wiring.mac, "device": tap }],
        }))
        .unwrap();
        hypervisor.define(&spec).await.unwrap();
        hypervisor.start(spec.id, 1).await.unwrap();
        Self {
            hypervisor,
            id: spec.id,
        }
    }
    async fn must_say(&self, text: &str) {
        let console = self.hypervisor.as_console().unwrap();
        let said = async || {
            let tail = console.console_tail(self.id, 1 << 16).await.unwrap();
            String::from_utf8_lossy(&tail).into_owned()
        };
        let heard = async {
            while !said().await.contains(text) {
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        };
        let heard = tokio::time::timeout(BOOT, heard).await;
        assert!(heard.is_ok(), "no {text:?} in {}", said().await);
    }
    async fn must_run(&self) {
        let running = Inspection::Found {
            generation: 1,
            power: PowerState::Running,
        };
        assert_eq!(self.hypervisor.inspect(self.id).await.unwrap(), running);
    }
}

pub(crate) async fn real_guests_boot_on_their_taps() {
    let world = World::new().await;
    let one = exam_wiring(1, 1);
    let mut two = exam_wiring(1, 2);
    two.rules.truncate(1); // nothing in
    let asker = world.guest(&exam_wiring(1, 3)).await;
    let config = QmpConfig::new(world.dir.path().join("vms"), Arc::new(SystemClock::new()));
    let hypervisor = QmpHypervisor::open(config).await.unwrap();
    hypervisor.recover().await.unwrap();
    let first = Machine::start(&world, &hypervisor, &one).await;
    let second = Machine::start(&world, &hypervisor, &two).await;
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
    first.must_run().await;
    second.must_run().await;
    for id in [one.server, two.server] {
        hypervisor.stop(id, 1, StopMode::Force).await.unwrap();
    }
}
