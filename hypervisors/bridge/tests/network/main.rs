//! The network with real parts. Each test runs in a process with network, mount and process namespaces of its own: it
//! begins without devices, sees nothing of the machine's, and leaves nothing behind whatever becomes of it.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod exam;
mod flows;
mod linux;
mod mending;
mod services;
mod spoofing;
mod world;

use std::path::Path;
use std::process::{Command, ExitCode};
use std::sync::Arc;

use futures::future::BoxFuture;
use libtest_mimic::{Arguments, Failed, Trial};
use skyloom_hypervisor::conformance::network_cases;

/// The word by which this program knows that it is inside.
const INSIDE: &str = "--inside";

type Test = (&'static str, fn() -> BoxFuture<'static, ()>);

/// Makes a test of a function's path.
macro_rules! tests {
    ($($module:ident :: $function:ident),+ $(,)?) => {
        vec![$((
            concat!(stringify!($module), "::", stringify!($function)),
            (|| Box::pin($module::$function())) as fn() -> BoxFuture<'static, ()>,
        )),+]
    };
}

fn tests() -> Vec<Test> {
    tests![
        flows::what_a_rule_allows_passes_and_nothing_else,
        flows::connections_outlive_the_agent_and_end_with_their_rule,
        flows::networks_with_the_same_addresses_are_apart,
        flows::a_group_grows_while_its_members_talk,
        flows::ipv6_follows_its_own_rules,
        flows::the_host_is_out_of_reach,
        flows::an_uplink_carries_the_network_and_no_services,
        spoofing::a_guest_speaks_only_as_itself,
        spoofing::pairs_are_a_guests_own_addresses,
        services::dhcp_tells_each_port_its_own_address,
        services::metadata_is_told_by_port,
        services::metadata_of_another_is_out_of_reach,
        services::slow_and_many_clients_starve_nobody,
        services::user_data_is_in_no_log,
        mending::what_somebody_broke_is_mended,
        mending::foreign_rules_and_devices_stay_as_they_are,
        mending::a_network_of_another_process_is_not_entered,
        mending::rules_of_any_kind_are_taken_by_nftables,
        linux::real_guests_boot_on_their_taps,
    ]
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    if let [_, inside, name] = &arguments[..]
        && inside == INSIDE
    {
        run_inside(name);
        return ExitCode::SUCCESS;
    }
    let exam = network_cases()
        .into_iter()
        .map(|c| format!("network::{}", c.name));
    let names = exam.chain(tests().into_iter().map(|(name, _)| name.to_owned()));
    let trials = names.map(|name| Trial::test(name.clone(), move || run_outside(&name)));
    libtest_mimic::run(&Arguments::from_args(), trials.collect()).exit_code()
}

fn run_outside(name: &str) -> Result<(), Failed> {
    let program = std::env::current_exe()?;
    let ran = Command::new("unshare")
        .args([
            "--net",
            "--mount",
            "--pid",
            "--fork",
            "--kill-child",
            "--mount-proc",
        ])
        .arg(program)
        .args([INSIDE, name])
        .output()?;
    if ran.status.success() {
        return Ok(());
    }
    let said = [ran.stdout, ran.stderr].concat();
    Err(format!("{}\n{}", ran.status, String::from_utf8_lossy(&said)).into())
}

fn run_inside(name: &str) {
    // `ip netns` keeps its names there.
    world::run("mount", &["-t", "tmpfs", "tmpfs", "/run"]);
    world::run("ip", &["link", "set", "dev", "lo", "up"]);
    assert!(!Path::new("/run/netns").exists());
    // What the network needs it says of its own bridges, and of no others.
    for family in ["iptables", "ip6tables", "arptables"] {
        std::fs::write(format!("/proc/sys/net/bridge/bridge-nf-call-{family}"), "0").unwrap();
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        if let Some(case) = name.strip_prefix("network::") {
            let case = network_cases().into_iter().find(|c| c.name == case).unwrap();
            case.run(&*Arc::new(exam::BridgeExam)).await;
        } else {
            let (_, test) = tests().into_iter().find(|(n, _)| *n == name).unwrap();
            test().await;
        }
    });
}
