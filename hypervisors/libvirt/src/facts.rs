//! What this host offers, as libvirt and the file system say it.

use std::io;
use std::path::Path;

use serde::Deserialize;
use skyloom_model::{HostFacts, Resources};
use skyloom_qemu::accel::{self, Accelerator, AcceleratorKind};
use virt::connect::Connect;

use crate::errors::Fault;
use crate::lane::Driver;

/// The part of libvirt's capabilities that we read.
#[derive(Debug, Deserialize)]
struct Capabilities {
    #[serde(default)]
    guest: Vec<Guest>,
}

#[derive(Debug, Deserialize)]
struct Guest {
    arch: Arch,
}

#[derive(Debug, Deserialize)]
struct Arch {
    #[serde(rename = "@name")]
    name: String,
    #[serde(default)]
    domain: Vec<DomainType>,
}

#[derive(Debug, Deserialize)]
struct DomainType {
    #[serde(rename = "@type")]
    kind: String,
}

/// Whether libvirt's daemon can run guests of this machine's kind by KVM.
fn offers_kvm(capabilities: &str) -> Result<bool, String> {
    let read: Capabilities = quick_xml::de::from_str(capabilities).map_err(|e| e.to_string())?;
    Ok(read
        .guest
        .iter()
        .filter(|g| g.arch.name == "x86_64")
        .flat_map(|g| &g.arch.domain)
        .any(|d| d.kind == "kvm"))
}

/// The accelerator of this host's guests: KVM only if the machine has it and libvirt offers it.
pub(crate) fn accelerator(conn: &Connect) -> Accelerator {
    let machine = accel::probe();
    if machine.kind != AcceleratorKind::Kvm {
        return machine;
    }
    let offered = conn
        .get_capabilities()
        .map_err(|e| e.to_string())
        .and_then(|c| offers_kvm(&c));
    let reason = match offered {
        Ok(true) => return machine,
        Ok(false) => format!("{}, but libvirt does not offer it", machine.reason),
        Err(e) => format!("{}, but libvirt does not say what it offers: {e}", machine.reason),
    };
    Accelerator {
        kind: AcceleratorKind::Tcg,
        reason,
    }
}

/// Measures CPUs, memory and the size of the file system of `dir`. Blocks.
pub(crate) fn measure(conn: &Connect, driver: Driver, dir: &Path) -> Result<HostFacts, Fault> {
    let node = conn.get_node_info()?;
    let (emulator, library) = (conn.get_hyp_version()?, conn.get_lib_version()?);
    let (name, reason) = match driver {
        Driver::Qemu => {
            let chosen = accelerator(conn);
            (chosen.kind.as_str(), chosen.reason)
        }
        Driver::Test => ("test", "libvirt's test driver runs nothing".to_owned()),
    };
    let disk = rustix::fs::statvfs(dir).map_err(|e| Fault::Down(io::Error::from(e).to_string()))?;
    Ok(HostFacts {
        capacity: Resources {
            vcpus: node.cpus,
            memory_mib: node.memory / 1024,
            disk_gib: disk.f_blocks.saturating_mul(disk.f_frsize) >> 30,
        },
        architecture: std::env::consts::ARCH.to_owned(),
        hypervisor: "libvirt".to_owned(),
        hypervisor_version: format!("{} (libvirt {})", version(emulator), version(library)),
        accelerator: name.to_owned(),
        accelerator_reason: reason,
        traits: Vec::new(),
    })
}

/// libvirt's numbers: a million for each major version, a thousand for each minor.
fn version(number: u32) -> String {
    format!(
        "{}.{}.{}",
        number / 1_000_000,
        number / 1000 % 1000,
        number % 1000
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kvm_counts_only_for_our_architecture() {
        let of = |arch: &str, kinds: &[&str]| {
            let domains: String = kinds.iter().map(|k| format!("<domain type='{k}'/>")).collect();
            format!(
                "<guest><os_type>hvm</os_type><arch name='{arch}'><wordsize>64</wordsize>{domains}</arch></guest>"
            )
        };
        let caps = |guests: &str| format!("<capabilities><host><uuid>x</uuid></host>{guests}</capabilities>");
        let (both, tcg, i686) = (
            of("x86_64", &["qemu", "kvm"]),
            of("x86_64", &["qemu"]),
            of("i686", &["kvm"]),
        );
        assert_eq!(offers_kvm(&caps(&format!("{i686}{both}"))), Ok(true));
        assert_eq!(offers_kvm(&caps(&format!("{i686}{tcg}"))), Ok(false));
        assert_eq!(offers_kvm(&caps("")), Ok(false));
        assert!(offers_kvm("<capabilities>").is_err());
    }

    #[test]
    fn versions_are_as_people_write_them() {
        assert_eq!(version(7_002_022), "7.2.22");
        assert_eq!(version(9_000_000), "9.0.0");
    }
}
