//! What one API process costs with a fleet of agents, and how fast it spreads events.
//!
//! `cargo run --release -p skyloom-store-remote --example fleet [-- agents [N] | fanout | outage [N [SECONDS]]]`
//!
//! The API with SQLite is a process of its own: this program once more, with `serve`. The agents are this process: each
//! has a store of its own with a connection of its own, over which it renews its lease and follows its jobs, its queries
//! and the cloud's hold, as a real one does. Without a word: all three parts, 2,000 agents, 60 s of outage.

mod agents;
mod api;
mod child;
mod fanout;

use std::process::ExitCode;

/// As the binaries do.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

type AnyError = Box<dyn std::error::Error + Send + Sync>;

/// Standard output is what these programs are for.
fn say(line: &str) {
    use std::io::Write as _;
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}

/// As many open files as the system allows without asking.
fn many_files() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    let _ = setrlimit(Resource::Nofile, limit);
}

fn main() -> ExitCode {
    many_files();
    let words: Vec<String> = std::env::args().skip(1).collect();
    let word = |n: usize| words.get(n).map(String::as_str);
    let number = |n: usize, default: usize| word(n).and_then(|w| w.parse().ok()).unwrap_or(default);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let done = runtime.map_err(AnyError::from).and_then(|runtime| {
        runtime.block_on(async {
            match word(0) {
                Some("serve") => api::serve_until_stdin_ends().await,
                Some("agents") => agents::idle(number(1, 2000)).await,
                Some("fanout") => fanout::all().await,
                Some("outage") => agents::outages(number(1, 2000), number(2, 60) as u64).await,
                None => {
                    fanout::all().await?;
                    agents::idle(2000).await?;
                    agents::outages(2000, 60).await
                }
                Some(other) => Err(format!("no such part: {other}").into()),
            }
        })
    });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            say(&format!("failed: {e}"));
            ExitCode::FAILURE
        }
    }
}
