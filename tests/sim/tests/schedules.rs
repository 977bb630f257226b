//! A share of all schedules: those that once failed, a few hundred others, and that a seed is a trace.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use skyloom_sim::{Omit, check_trace, one, reproducer, seeds, shrink};

/// The lines of `seeds.txt`.
fn remembered() -> Vec<(u64, Omit)> {
    let text = include_str!("../seeds.txt");
    let lines = text
        .lines()
        .map(|l| l.split('#').next().unwrap_or_default().trim());
    lines.filter(|l| !l.is_empty()).map(parse).collect()
}

fn parse(line: &str) -> (u64, Omit) {
    let mut words = line.split_whitespace();
    let seed = words.next().unwrap().parse().unwrap();
    let mut omit = Omit::default();
    while let Some(option) = words.next() {
        let values = words.next().unwrap().split(',');
        match option {
            "--no-kinds" => omit.kinds = values.map(|v| v.parse().unwrap()).collect(),
            "--no-faults" => omit.faults = values.map(|v| v.parse().unwrap()).collect(),
            "--no-operations" => omit.operations = values.map(|v| v.parse().unwrap()).collect(),
            other => panic!("{other} in seeds.txt"),
        }
    }
    (seed, omit)
}

#[test]
fn what_failed_once_does_not_fail_again() {
    for (seed, omit) in remembered() {
        let report = one(seed, &omit, 60);
        if let Some(violation) = &report.violation {
            panic!(
                "{}\n{violation:?}\n{}",
                report.lines.join("\n"),
                reproducer(seed, &omit)
            );
        }
    }
}

#[test]
fn nothing_is_lost_doubled_or_forgotten() {
    let (totals, broken) = seeds(0..200, 2, &|_| {});
    if let Some(report) = broken {
        let shrunk = shrink(report.seed, &Omit::default(), 60).unwrap();
        panic!(
            "{}\n{:?}\n{}\n{}",
            shrunk.report.lines.join("\n"),
            shrunk.report.violation,
            shrunk.left.join("\n"),
            reproducer(report.seed, &shrunk.omit)
        );
    }
    assert_eq!(totals.schedules, 200);
    // They did something, and something went wrong in them.
    assert!(totals.steps > 50_000, "{totals}");
    assert!(totals.bites.len() > 20, "{totals}");
}

#[test]
fn one_seed_is_one_trace() {
    for seed in 1000..1020 {
        assert!(check_trace(seed).is_ok(), "seed {seed}");
    }
}

#[test]
fn a_trace_can_be_read() {
    let report = one(3, &Omit::default(), 50);
    assert_eq!(report.lines.len(), 50);
    assert!(
        report.lines.iter().any(|l| l.contains("renew")),
        "{:?}",
        report.lines
    );
}
