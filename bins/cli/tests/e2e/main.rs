//! The real programs, end to end: real QEMU guests, real kills, nothing mocked but the hypervisor where a test says so.

#![allow(clippy::unwrap_used, reason = "a test may panic")]
#![allow(
    clippy::disallowed_methods,
    clippy::print_stderr,
    clippy::print_stdout,
    reason = "a test looks at real processes in real time"
)]

mod archive;
mod canary;
mod certificates;
mod chaos;
#[cfg(feature = "failpoints")]
mod crash;
mod day;
mod dev;
#[cfg(feature = "failpoints")]
mod etcd;
mod http;
mod identity;
mod migrate;
mod processes;
mod rescue;
mod rest;
mod secantus;
mod storage;
mod support;
