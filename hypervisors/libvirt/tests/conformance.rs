//! The hypervisor's exam: on real session daemons with QEMU, and on libvirt's test driver; and what only killed agents and
//! daemons can show.
//!
//! The test driver is one host per process, so its cases take turns. What it cannot: its guests live and die with the
//! process and write nowhere (`Offers` says so), and each answers the power button at once (see `ANSWERS` there).
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test program")]

#[path = "../../qmp/tests/it/guest.rs"]
mod guest;
#[path = "it/host.rs"]
mod host;

#[path = "exam/migration.rs"]
mod migration;
#[path = "exam/processes.rs"]
mod processes;
#[path = "exam/qemu.rs"]
mod qemu;
#[path = "exam/test_driver.rs"]
mod test_driver;

use std::process::ExitCode;
use std::sync::Arc;

use skyloom_hypervisor::conformance;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().collect();
    if let [_, flag, uri, dir, spec] = args.as_slice()
        && flag == "--agent"
    {
        return processes::agent(uri, dir, spec);
    }
    let mut all: Vec<_> = conformance::trials(Arc::new(qemu::QemuExam))
        .into_iter()
        .map(|trial| trial.with_kind("qemu"))
        .collect();
    let migrations = conformance::migration_trials(Arc::new(migration::QemuMigrationExam));
    all.extend(migrations.into_iter().map(|trial| trial.with_kind("qemu")));
    all.extend(test_driver::trials());
    all.extend(processes::trials());
    conformance::main(all)
}
