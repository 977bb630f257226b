//! Runs schedules from the command line: many, one again, or one twice.

use std::collections::BTreeSet;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};

use clap::Parser;
use skyloom_sim::{Kind, Omit, Report, check_trace, one, reproducer, seeds, shrink};

/// Schedules are made of small allocations on every thread.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The seeded simulator.
#[derive(Debug, Parser)]
struct Args {
    /// How many seeds to run.
    #[arg(long, default_value_t = 1000)]
    seeds: u64,
    /// The first of them.
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// Threads; by default as many as there are cores.
    #[arg(long)]
    threads: Option<usize>,
    /// Run this one schedule and show its trace.
    #[arg(long)]
    seed: Option<u64>,
    /// Kinds of faults to leave out.
    #[arg(long, value_delimiter = ',')]
    no_kinds: Vec<Kind>,
    /// Planned faults to leave out, by number.
    #[arg(long, value_delimiter = ',')]
    no_faults: Vec<usize>,
    /// Operations to leave out, by number.
    #[arg(long, value_delimiter = ',')]
    no_operations: Vec<usize>,
    /// Run each seed twice and compare the traces.
    #[arg(long)]
    check_trace: bool,
    /// Lines of a trace to show.
    #[arg(long, default_value_t = 80)]
    lines: usize,
    /// Leave out each safety rule in turn and show how many schedules it takes to notice. Fails when one is not noticed.
    #[cfg(feature = "ablation")]
    #[arg(long)]
    ablations: bool,
    /// Only these rules.
    #[cfg(feature = "ablation")]
    #[arg(long, value_delimiter = ',')]
    rules: Vec<String>,
    /// Do not shrink a failing schedule.
    #[arg(long)]
    no_shrink: bool,
}

#[expect(clippy::print_stdout, reason = "a command prints")]
fn main() -> ExitCode {
    let args = Args::parse();
    let omit = Omit {
        kinds: args.no_kinds.iter().copied().collect::<BTreeSet<_>>(),
        faults: args.no_faults.iter().copied().collect(),
        operations: args.no_operations.iter().copied().collect(),
    };
    if args.check_trace {
        for seed in args.from..args.from + args.seeds {
            if let Err((a, b)) = check_trace(seed) {
                println!("seed {seed} has two traces: {a:016x} and {b:016x}");
                return ExitCode::FAILURE;
            }
        }
        println!("{} seeds, each with one trace", args.seeds);
        return ExitCode::SUCCESS;
    }
    let threads = args
        .threads
        .unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from));
    #[cfg(feature = "ablation")]
    if args.ablations {
        return ablations(&args, threads);
    }
    if let Some(seed) = args.seed {
        let report = one(seed, &omit, args.lines);
        return show(&report, &omit, &args);
    }
    let done = AtomicU64::new(0);
    #[expect(
        clippy::disallowed_methods,
        reason = "the speed of real schedules in real time"
    )]
    let start = std::time::Instant::now();
    let every = (args.seeds / 20).max(1);
    let (totals, broken) = seeds(args.from..args.from + args.seeds, threads, &|_| {
        let n = done.fetch_add(1, Ordering::Relaxed) + 1;
        if n.is_multiple_of(every) {
            println!("{n} schedules, {:.0}/s", n as f64 / start.elapsed().as_secs_f64());
        }
    });
    let seconds = start.elapsed().as_secs_f64();
    print!("{totals}");
    println!(
        "{:.0} schedules/s, {:.0} steps/s on {threads} threads",
        totals.schedules as f64 / seconds,
        totals.steps as f64 / seconds
    );
    match broken {
        None => ExitCode::SUCCESS,
        Some(report) => show(&one(report.seed, &omit, args.lines), &omit, &args),
    }
}

#[expect(clippy::print_stdout, reason = "a command prints")]
fn show(report: &Report, omit: &Omit, args: &Args) -> ExitCode {
    for line in &report.lines {
        println!("{line}");
    }
    println!(
        "seed {}: hash {:016x}, {} steps, {:?}",
        report.seed, report.hash, report.steps, report.took
    );
    let Some(violation) = &report.violation else {
        return ExitCode::SUCCESS;
    };
    println!(
        "{} is broken at {:?}: {}",
        violation.invariant, violation.at, violation.what
    );
    println!("{}", reproducer(report.seed, omit));
    if !args.no_shrink
        && let Some(shrunk) = shrink(report.seed, omit, args.lines)
    {
        println!("shrunk in {} schedules to:", shrunk.tries);
        for line in &shrunk.left {
            println!("  {line}");
        }
        println!("{}", reproducer(report.seed, &shrunk.omit));
    }
    ExitCode::FAILURE
}

/// The table: rule, what was seen to be broken without it, after how many schedules.
#[cfg(feature = "ablation")]
#[expect(clippy::print_stdout, reason = "a command prints")]
fn ablations(args: &Args, threads: usize) -> ExitCode {
    use skyloom_model::ablation::Rule;
    let mut unseen = 0;
    println!("| rule left out | broken | schedules | seconds | what was seen |");
    println!("| --- | --- | ---: | ---: | --- |");
    for rule in Rule::ALL {
        let name = format!("{rule:?}");
        let asked: Vec<&String> = args.rules.iter().filter(|r| !r.is_empty()).collect();
        if !asked.is_empty() && !asked.contains(&&name) {
            continue;
        }
        #[expect(clippy::disallowed_methods, reason = "how long it really takes")]
        let start = std::time::Instant::now();
        let (totals, broken) = skyloom_sim::without(rule, args.from..args.from + args.seeds, threads);
        let seconds = start.elapsed().as_secs_f64();
        let (invariant, schedules, what) = match broken.and_then(|b| b.violation.map(|v| (b.seed, v))) {
            Some((seed, v)) => (v.invariant, seed - args.from + 1, v.what),
            None => {
                unseen += 1;
                ("none", totals.schedules, "not seen".to_owned())
            }
        };
        let what = what.lines().next().unwrap_or_default();
        let what: String = what.chars().take(100).collect();
        println!("| {name} | {invariant} | {schedules} | {seconds:.1} | {what} |");
    }
    if unseen > 0 {
        println!("{unseen} rules can be left out unseen");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}
