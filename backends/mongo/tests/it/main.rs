//! The exam of every store, and what it does not ask: what operators see, schemas, faults of the network and of the server, abandoned transactions,
//! retention, and crashes. Tests that disturb the server have one of their own.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod abandoned;
mod crash;
mod exam;
mod faults;
mod history;
mod leases;
mod model;
mod operator;
mod proxy;
mod schema;
mod soak;
mod support;
mod tools;
mod watch;

use std::process::ExitCode;
use std::sync::Arc;

use libtest_mimic::{Arguments, Trial};
use support::Server;

/// A test on the common server, in a runtime of its own.
pub(crate) fn trial<F>(name: &str, server: &Arc<Server>, test: fn(Arc<Server>) -> F) -> Trial
where
    F: Future<Output = ()> + 'static,
{
    let server = Arc::clone(server);
    Trial::test(name, move || {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()?;
        runtime.block_on(test(server));
        Ok(())
    })
}

fn main() -> ExitCode {
    let server = Arc::new(Server::start(&[]));
    let all = [
        exam::trials(&server),
        operator::trials(&server),
        schema::trials(&server),
        history::trials(&server),
        leases::trials(&server),
        model::trials(&server),
        watch::trials(&server),
        faults::trials(&server),
        abandoned::trials(&server),
        crash::trials(&server),
        soak::trials(),
    ];
    let code = libtest_mimic::run(&Arguments::from_args(), all.into_iter().flatten().collect()).exit_code();
    drop(server);
    code
}
